//! The blocks of a PEM file, parsed as Go's encoding/pem parses them: BEGIN and END are at the start of a line, text
//! around blocks is ignored, and a block that cannot be decoded is skipped. Pure.

/// A PEM block.
pub(crate) struct Block {
    /// Decoded contents.
    pub(crate) der: Vec<u8>,
    kind: String,
    has_headers: bool,
    is_encrypted: bool,
}

impl Block {
    /// Whether this is a certificate.
    pub(crate) fn is_certificate(&self) -> bool {
        self.kind == "CERTIFICATE"
    }

    /// Whether this is a CA certificate; Go ignores those with headers.
    pub(crate) fn is_ca(&self) -> bool {
        self.is_certificate() && !self.has_headers
    }

    /// Whether this is a private key of any type.
    pub(crate) fn is_private_key(&self) -> bool {
        self.kind == "PRIVATE KEY" || self.kind.ends_with(" PRIVATE KEY")
    }

    /// Whether a passphrase protects it: encrypted PKCS#8, or the older format with headers.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

/// All blocks that can be decoded.
pub(crate) fn blocks(text: &[u8]) -> Vec<Block> {
    let mut found = Vec::new();
    let mut begun: Option<(usize, &[u8])> = None;
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += line.len();
        let line = line.trim_ascii_end();
        let between = |prefix: &[u8]| line.strip_prefix(prefix)?.strip_suffix(b"-----".as_slice());
        if let Some(kind) = between(b"-----BEGIN ") {
            begun = Some((start, kind));
        } else if let (Some(kind), Some((start, opened))) = (between(b"-----END "), begun)
            && kind == opened
        {
            found.extend(pem::parse(&text[start..at]).ok().map(|block| {
                let kind = block.tag().to_owned();
                let encrypted = block.headers().get("Proc-Type").is_some_and(|kind| kind.contains("ENCRYPTED"));
                Block {
                    has_headers: block.headers().iter().next().is_some(),
                    is_encrypted: encrypted || kind == "ENCRYPTED PRIVATE KEY",
                    kind,
                    der: block.into_contents(),
                }
            }));
            begun = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";

    #[rstest]
    #[case::alone(ONE.to_owned(), 1)]
    #[case::two(ONE.repeat(2), 2)]
    #[case::no_line_break_at_the_end(ONE.trim_end().to_owned(), 1)]
    #[case::carriage_returns(ONE.replace('\n', "\r\n"), 1)]
    #[case::text_around(format!("subject=x\n{ONE}more\n{ONE}end"), 2)]
    #[case::blanks_after_the_lines(ONE.replace("-----\n", "----- \t\n"), 1)]
    #[case::not_at_the_start_of_a_line(format!(" {ONE}"), 0)]
    #[case::a_byte_order_mark(format!("\u{feff}{ONE}"), 0)]
    #[case::damaged_block_is_ignored(format!("{}{ONE}", ONE.replace("aGVsbG8=", "a?")), 1)]
    #[case::begun_twice(format!("-----BEGIN CERTIFICATE-----\naGVs\n{ONE}"), 1)]
    #[case::never_ended(ONE.replace("END", "FIN"), 0)]
    fn pem_blocks_are_found_like_go(#[case] text: String, #[case] count: usize) {
        let found = blocks(text.as_bytes());
        assert!(found.iter().all(|block| block.is_ca() && block.der == b"hello"));
        assert_eq!(found.len(), count);
    }

    #[test]
    fn encrypted_key_is_detected_in_both_formats() {
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\naGVsbG8=\n-----END RSA PRIVATE KEY-----\n";
        let new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for text in [old, new] {
            let found = blocks(text.as_bytes());
            assert!(found.len() == 1 && found[0].is_private_key() && found[0].is_encrypted(), "{text}");
        }
    }
}
