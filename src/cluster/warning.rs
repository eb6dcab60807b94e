//! The `Warning` header of a response: a message of the API server or an admission policy about a request that
//! succeeded. Pure.

/// The texts in one header: `299 - "text"`, several of them separated by commas (RFC 7234, section 5.5). Other codes
/// than 299 are about caches. Anything else is ignored.
pub(crate) fn texts(header: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = header;
    while let Some((code_and_agent, quoted)) = rest.split_once('"') {
        let mut text = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => text.extend(chars.next().map(|(_, char)| char)),
                Some((end, '"')) => break Some(end + 1),
                Some((_, char)) => text.push(char),
                None => break None,
            }
        };
        let Some(end) = end else { break };
        let code = code_and_agent.trim_start_matches([',', ' ']).split(' ').next();
        if code == Some("299") && !text.trim().is_empty() {
            texts.push(text);
        }
        rest = &quoted[end..];
    }
    texts
}

#[cfg(test)]
mod tests {
    use crate::cluster::warning::texts;
    use rstest::rstest;

    #[rstest]
    #[case(r#"299 - "unknown field \"a\\b\"""#, &[r#"unknown field "a\b""#])]
    #[case(r#"299 kube-apiserver "one", 299 - "two, with a comma""#, &["one", "two, with a comma"])]
    #[case(r#"299 - "dated" "Sun, 06 Nov 1994 08:49:37 GMT""#, &["dated"])]
    #[case(r#"110 - "stale", 299 - "told""#, &["told"])]
    #[case(r#"299 - "never closed"#, &[])]
    #[case(r#"299 - """#, &[])]
    #[case("299", &[])]
    #[case("", &[])]
    fn only_warnings_with_code_299_are_read(#[case] header: &str, #[case] expected: &[&str]) {
        assert_eq!(texts(header), expected);
    }
}
