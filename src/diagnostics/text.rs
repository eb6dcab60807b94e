//! Text from outside, sanitized for the log. Pure.

use std::borrow::Cow;

/// Length in characters of the longest key of a document that is shown. Names of fields and tags are shorter, tokens are
/// longer: a token that was pasted in place of a name must not end up in a log.
const LONGEST_KEY: usize = 32;

/// Text from outside, sanitized for one line of a log: no control characters, no characters that change the text
/// direction, and at most this many characters.
pub(crate) fn sanitize(text: &str, limit: usize) -> String {
    let mut line: String = text.chars().map(printable).take(limit).collect();
    if text.chars().nth(limit).is_some() {
        line.push('\u{2026}');
    }
    line
}

/// Text as one line of a log, of any length.
pub(crate) fn single_line(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// Message for a value that [`is_masked`]: what is wrong and what to do.
pub(crate) const MASKED: &str = "contains the placeholder that kubectl prints instead of a secret: print the kubeconfig again \
                          with `kubectl config view --raw`";

/// Whether this is what `kubectl config view` prints instead of a secret or of data without `--raw`.
pub(crate) fn is_masked(text: &str) -> bool {
    matches!(text.trim(), "DATA+OMITTED" | "REDACTED")
}

/// Whether a key of a document can be shown as it is.
pub(crate) fn presentable(key: &str) -> bool {
    key.chars().nth(LONGEST_KEY).is_none() && !key.contains(is_unprintable)
}

/// A key of a document for a sentence: as it is, or its length.
pub(crate) fn quote_key(key: &str) -> String {
    if presentable(key) { format!("`{key}`") } else { format!("with a name of {} characters", key.chars().count()) }
}

/// A JSON pointer, cut before the first segment that cannot be shown.
pub(crate) fn presentable_pointer(pointer: &str) -> String {
    let start = pointer.find('/').unwrap_or(pointer.len());
    let steps = pointer.split('/').skip(1).take_while(|step| presentable(&unescaped(step)));
    let end = steps.fold(start, |end, step| end + 1 + step.len());
    pointer.get(start..end).unwrap_or_default().to_owned()
}

/// Sanitized excerpt of a response body that is not an API object; an HTML page, as gateways and login portals send it,
/// is replaced by a placeholder.
pub(crate) fn sanitize_body(text: &str, limit: usize) -> String {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('<') { "an HTML page".to_owned() } else { sanitize(text, limit) }
}

/// A key escaped as one segment of a JSON pointer.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Fields of an object, summarized for the log: a single label or annotation is named, several are counted, other
/// fields are JSON pointers.
pub(crate) fn summarize_fields(fields: &[String]) -> String {
    let mut rest: Vec<&str> = fields.iter().map(String::as_str).collect();
    let mut parts = Vec::new();
    for (kind, at) in [("annotation", "/metadata/annotations/"), ("label", "/metadata/labels/")] {
        let keys: Vec<Cow<'_, str>> = rest.iter().filter_map(|field| field.strip_prefix(at)).map(unescaped).collect();
        rest.retain(|field| !field.starts_with(at));
        match keys.as_slice() {
            [] => {}
            [key] => parts.push(format!("{kind} {key}")),
            many => parts.push(format!("{} {kind}s", many.len())),
        }
    }
    parts.extend((!rest.is_empty()).then(|| rest.join(" ")));
    parts.join("; ")
}

/// A segment of a JSON pointer as a key.
pub(crate) fn unescaped(step: &str) -> Cow<'_, str> {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~").into() } else { step.into() }
}

fn printable(char: char) -> char {
    if is_unprintable(char) { ' ' } else { char }
}

/// Control characters, and characters that change the direction of text or break a line.
fn is_unprintable(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitized_text_stays_on_one_line() {
        assert_eq!(sanitize("a\nb\u{1b}[2J\u{202e}c", 9), "a b [2J c");
        assert_eq!(sanitize("\u{e4}\u{f6}\u{fc}", 2), "\u{e4}\u{f6}\u{2026}");
    }

    #[test]
    fn key_of_name_length_is_shown() {
        assert_eq!(quote_key("app.kubernetes.io/managed-by"), "`app.kubernetes.io/managed-by`");
        assert_eq!(quote_key(&"k".repeat(33)), "with a name of 33 characters");
        assert_eq!(quote_key("a\nb"), "with a name of 3 characters");
    }

    #[test]
    fn fields_are_summarized() {
        let summary =
            |fields: &[&str]| summarize_fields(&fields.iter().map(|&field| field.to_owned()).collect::<Vec<_>>());
        let (label, other) = ("/metadata/labels/a.io~1b", "/metadata/labels/c");
        assert_eq!(summary(&["/rules/0/verbs", "/rules/1"]), "/rules/0/verbs /rules/1");
        assert_eq!(summary(&["/metadata/annotations/x", label, "/rules"]), "annotation x; label a.io/b; /rules");
        assert_eq!(summary(&[label, other]), "2 labels");
        assert_eq!(summary(&[label, "/metadata/name"]), "label a.io/b; /metadata/name");
        assert_eq!(summary(&[]), "");
    }

    #[test]
    fn pointer_is_cut_before_unshowable_segment() {
        let long = "k".repeat(33);
        assert_eq!(presentable_pointer("/a~1b/0/c"), "/a~1b/0/c");
        assert_eq!(presentable_pointer(&format!("/a/{long}/b")), "/a");
        assert_eq!(presentable_pointer(&format!("/{long}")), "");
        assert_eq!(presentable_pointer("/a\nb/c"), "");
        assert_eq!(presentable_pointer(""), "");
    }
}
