//! Secrets as types: a [`Token`] that cannot be printed, and a `Redactor` that replaces every registered secret in
//! text before it is written. Pure.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};

/// A bearer token: wiped from memory when dropped, and without `Debug`, `Display` or `Serialize`.
///
/// ```
/// fn print(token: &k8s_token::secret::Token) { format!("{}", token.fingerprint()); }
/// ```
/// ```compile_fail
/// fn print(token: &k8s_token::secret::Token) { format!("{token:?}"); }
/// ```
/// ```compile_fail
/// fn print(token: &k8s_token::secret::Token) { format!("{token}"); }
/// ```
/// ```compile_fail
/// fn print(token: &k8s_token::secret::Token) { serde_json::to_string(token); }
/// ```
#[derive(Clone)]
pub struct Token(SecretString);

impl Token {
    /// Upper bound of a token's length in bytes, far above what any server accepts in a header.
    const LONGEST: usize = 64 << 10;

    /// Parses a token from a document or a Secret.
    ///
    /// # Errors
    /// A sentence that contains no part of the value, when it is empty or contains anything but visible ASCII: the HTTP
    /// client panics on a line feed, and a trimmed token would not be the given one.
    pub fn parse(raw: &str) -> Result<Self, &'static str> {
        if raw.is_empty() {
            return Err("is empty");
        }
        if raw.len() > Self::LONGEST {
            return Err("is longer than 64 KiB, too long for a token");
        }
        if raw.ends_with(['\n', '\r']) {
            return Err("ends with a line break: remove the line break where the token is stored");
        }
        if !raw.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("contains whitespace or other characters that a token cannot contain");
        }
        Ok(Self(SecretString::from(raw)))
    }

    /// The bytes, for an Authorization header, the credential document or a kubeconfig.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The Authorization header for this token.
    pub(crate) fn bearer(&self) -> Option<http::HeaderValue> {
        let mut value = http::HeaderValue::try_from(format!("Bearer {}", self.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// False for a value that occurs in ordinary text, such as `1` or `token`.
    pub(crate) fn is_distinctive(&self) -> bool {
        is_distinctive(&self.0)
    }

    /// `sha256:` and 64 hex digits: identifies the token without revealing it.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", sha256(self.expose().as_bytes()))
    }
}

fn is_distinctive(secret: &SecretString) -> bool {
    secret.expose_secret().len() >= 8
}

/// SHA-256 as 64 hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The last check on every output path: replaces every registered secret, raw and in base64. Clones share the registered
/// secrets.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    patterns: Arc<Mutex<Vec<SecretString>>>,
}

impl Redactor {
    /// Replacement text.
    const BLANK: &str = "[REDACTED]";
    /// Number of characters of a secret that do not occur by chance.
    const BEGINNING: usize = 12;

    /// Registers a token: it is replaced in all later output.
    pub(crate) fn register(&self, token: &Token) {
        self.register_secret(&token.0);
    }

    /// Registers another secret, unless it occurs in ordinary text: replacing `1` or `token` would hide nothing and
    /// garble every line.
    ///
    /// A secret inside a longer base64 text can start at any of three offsets; each encodes to other characters, of which
    /// the first and last depend on the neighbouring bytes and are left out of the search.
    pub(crate) fn register_secret(&self, secret: &SecretString) {
        let mut patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        let raw = secret.expose_secret();
        if !is_distinctive(secret) || patterns.iter().any(|known| known.expose_secret() == raw) {
            return;
        }
        patterns.push(secret.clone());
        for offset in 0..3 {
            let padded = [&b"\0\0\0"[..offset], raw.as_bytes()].concat();
            let whole = padded.len() / 3 * 3;
            let encoded = STANDARD.encode(&padded[..whole]);
            let from = if offset == 0 { 0 } else { 4 };
            patterns.extend(encoded.get(from..).filter(|inner| inner.len() >= 12).map(SecretString::from));
        }
    }

    /// The document with every string in it redacted. Keys are the program's own and are kept.
    pub(crate) fn redact_document(&self, document: &mut serde_json::Value) {
        match document {
            serde_json::Value::String(text) => *text = self.redact(text),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.redact_document(item)),
            serde_json::Value::Object(map) => map.values_mut().for_each(|value| self.redact_document(value)),
            _ => {}
        }
    }

    /// The text without any registered secret, and without the beginning of one: a server's message is cut to the length
    /// of a line, possibly in the middle of a token.
    pub(crate) fn redact(&self, text: &str) -> String {
        let patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        let patterns: Vec<&str> = patterns.iter().map(SecretString::expose_secret).collect();
        // The whole ones first: tokens of one cluster begin alike, and the rest of one would be left.
        let whole = patterns.iter().fold(text.to_owned(), |text, pattern| text.replace(pattern, Self::BLANK));
        let mut rest = whole.as_str();
        let mut redacted = String::new();
        while let Some(at) = patterns.iter().filter_map(|pattern| rest.find(beginning(pattern)?)).min() {
            let (before, found) = rest.split_at(at);
            let length = patterns.iter().map(|pattern| in_common(found, pattern)).max().unwrap_or_default();
            redacted = redacted + before + Self::BLANK;
            rest = &found[length..];
        }
        redacted + rest
    }
}

/// Number of leading characters that identify a secret.
fn beginning(secret: &str) -> Option<&str> {
    let (end, _) = secret.char_indices().nth(Redactor::BEGINNING)?;
    Some(&secret[..end])
}

/// Length in bytes of the longest common prefix.
fn in_common(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs.take_while(|(one, other)| one == other).map(|(char, _)| char.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn token_with_invalid_header_bytes_is_rejected() {
        for bad in ["", "a b", "abc\n", "abc\r\n", "a\tb", "t\u{fc}r", "\u{feff}abc"] {
            assert!(Token::parse(bad).is_err(), "{bad:?} passed");
        }
        assert!(Token::parse("eyJhbGciOi.eyJpc3Mi.c2ln_-").is_ok());
    }

    #[test]
    fn token_fingerprint_is_sha256() {
        let token = Token::parse("abc").unwrap();
        assert_eq!(token.fingerprint(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    proptest! {
        #[test]
        fn tokens_are_redacted(token in "[!-~]{24,60}", before in "[ -~]{0,9}", after in "[ -~]{0,9}") {
            let redactor = Redactor::default();
            redactor.register(&Token::parse(&token).unwrap());
            let shown = redactor.redact(&format!("{before}{token}{after}"));
            prop_assert!(!shown.contains(&token));
            let hidden = STANDARD.encode(format!("{before}{token}{after}"));
            let redacted = redactor.redact(&hidden);
            prop_assert!(redacted.contains(Redactor::BLANK), "{} left in {}", token, redacted);
        }

        #[test]
        fn truncated_tokens_are_redacted(start in "[!-~]{0,40}", ends in ["[!-~]{24,60}", "[!-~]{24,60}"], cut in 12_usize..100) {
            let redactor = Redactor::default();
            let tokens = ends.map(|end| format!("{start}{end}"));
            for token in &tokens {
                redactor.register(&Token::parse(token).unwrap());
            }
            for token in &tokens {
                let text: String = format!("Bearer {token}").chars().take("Bearer ".len() + cut).collect();
                prop_assert_eq!(redactor.redact(&format!("{text}\u{2026}")), "Bearer [REDACTED]\u{2026}");
                let redacted = redactor.redact(&STANDARD.encode(&text));
                prop_assert!(redacted.contains(Redactor::BLANK), "{} left in {}", token, redacted);
            }
        }
    }
}
