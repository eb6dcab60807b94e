//! JSON parser that reports every duplicate key: the last one would win silently, and in a rule the one that is dropped
//! may be the one that narrows it. Pure.

use std::{collections::BTreeSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::diagnostics::text::{escaped, presentable};

/// The maximum number of duplicate keys that are reported, for documents with millions of them.
pub(super) const REPORTED: usize = 1000;

/// The location of a duplicate key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Duplicate {
    /// A JSON pointer to the key, or to the closest object around it whose path can be printed.
    pub(crate) pointer: String,
    /// Whether the pointer is that of the key itself.
    pub(crate) exact: bool,
}

/// Parses one document. A byte order mark before it is ignored, as RFC 8259 (section 8.1) allows: Windows tools write
/// one.
///
/// # Errors
/// What is wrong and where, without any part of the text: it may be a secret.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Value, BTreeSet<Duplicate>), String> {
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..] = bytes {
        return Err("is UTF-16: save it as UTF-8".to_owned());
    }
    let text = std::str::from_utf8(unmarked(bytes))
        .map_err(|error| format!("is not valid UTF-8 (at byte {})", error.valid_up_to()))?;
    if is_blank(bytes) {
        return Err("is empty".to_owned());
    }
    let mut duplicates = BTreeSet::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { path: &Path::ROOT, duplicates: &mut duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| format!("{}: line {}, column {}", fault(&error), error.line(), error.column()))?;
    Ok((value, duplicates))
}

/// Whether a document is empty.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    unmarked(bytes).iter().all(u8::is_ascii_whitespace)
}

/// The text without a byte order mark.
pub(super) fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The parser's own message may quote the document; only its beginning is compared.
fn fault(error: &serde_json::Error) -> &'static str {
    let text = error.to_string();
    if text.starts_with("recursion limit") {
        "is nested deeper than 127 levels"
    } else if text.starts_with("number out of range") {
        "contains a number that is too large"
    } else if error.is_eof() {
        "is incomplete JSON"
    } else {
        "is not valid JSON"
    }
}

/// The path to a value in the document. It is only written out for a report.
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
    /// False below a key that cannot be printed.
    presentable: bool,
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The whole document.
    pub(super) const ROOT: Self = Path { parent: None, step: Step::Index(0), presentable: true };

    /// A member of this object.
    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Path { parent: Some(self), step: Step::Key(key), presentable: self.presentable && presentable(key) }
    }

    /// An item of this list.
    pub(super) fn index(&'a self, index: usize) -> Self {
        Path { parent: Some(self), step: Step::Index(index), presentable: self.presentable }
    }

    /// This value as a duplicate key.
    pub(super) fn duplicate(&self) -> Duplicate {
        Duplicate { pointer: self.pointer(), exact: self.presentable }
    }

    /// A JSON pointer to this value, or to the closest one around it whose path can be printed.
    fn pointer(&self) -> String {
        let mut pointer = self.parent.map(Path::pointer).unwrap_or_default();
        match (self.parent, &self.step) {
            (Some(_), Step::Key(key)) if self.presentable => pointer = pointer + "/" + &escaped(key),
            (Some(_), Step::Index(index)) if self.presentable => pointer = format!("{pointer}/{index}"),
            _ => {}
        }
        pointer
    }
}

/// The deserializer of one value in the document.
struct Node<'a, 'd> {
    path: &'a Path<'a>,
    duplicates: &'d mut BTreeSet<Duplicate>,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = self.path.index(list.len());
            match items.next_element_seed(Node { path: &path, duplicates: &mut *self.duplicates })? {
                Some(item) => list.push(item),
                None => return Ok(list.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = self.path.key(&key);
            let value = entries.next_value_seed(Node { path: &path, duplicates: &mut *self.duplicates })?;
            if map.contains_key(&key) && self.duplicates.len() < REPORTED {
                self.duplicates.insert(path.duplicate());
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(duplicates: BTreeSet<Duplicate>) -> Vec<(String, bool)> {
        duplicates.into_iter().map(|duplicate| (duplicate.pointer, duplicate.exact)).collect()
    }

    #[test]
    fn duplicate_keys_are_located_once() {
        let text = br#"{"rules":[{"verbs":["get"],"verbs":["list"]}],"a/b":1,"a/b":2,"a/b":3}"#;
        let (value, duplicates) = parse(text).unwrap();
        assert_eq!(told(duplicates), [("/a~1b".to_owned(), true), ("/rules/0/verbs".to_owned(), true)]);
        assert_eq!(value["rules"][0]["verbs"][0], "list");
    }

    #[test]
    fn secret_like_keys_are_reported_by_location() {
        let key = "k".repeat(40);
        let text = format!(r#"{{"a":{{"{key}":[{{"b":1,"b":2}}]}},"c":{{"{key}":1,"{key}":2}}}}"#);
        assert_eq!(told(parse(text.as_bytes()).unwrap().1), [("/a".to_owned(), false), ("/c".to_owned(), false)]);
    }

    #[rstest::rstest]
    #[case(b"s3cret", "is not valid JSON: line 1, column 1")]
    #[case(b"{\"a\": s3cret}", "is not valid JSON: line 1, column 7")]
    #[case(b"{} s3cret", "is not valid JSON: line 1, column 4")]
    #[case(b"[[1]", "is incomplete JSON: line 1, column 4")]
    #[case(b"[NaN]", "is not valid JSON: line 1, column 2")]
    #[case(b"[1e999]", "contains a number that is too large: line 1, column 6")]
    #[case(b"[\"\\ud800\"]", "is not valid JSON: line 1, column 9")]
    #[case(b"", "is empty")]
    #[case(b" \r\n\t", "is empty")]
    #[case(b"\xef\xbb\xbf", "is empty")]
    #[case(b"[\"\xff\"]", "is not valid UTF-8 (at byte 2)")]
    #[case(b"\xff\xfe{\0}\0", "is UTF-16: save it as UTF-8")]
    #[case(b"\xfe\xff\0{\0}", "is UTF-16: save it as UTF-8")]
    #[case(b"{\0}\0", "is UTF-16: save it as UTF-8")]
    #[case(b"\0{\0}", "is UTF-16: save it as UTF-8")]
    #[case(b"\0\0\0\0", "is not valid JSON: line 1, column 1")]
    fn invalid_json_is_refused_without_quoting(#[case] bad: &[u8], #[case] sentence: &str) {
        assert_eq!(parse(bad).unwrap_err(), sentence);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(127).as_bytes()).is_ok());
        let error = parse(nested(100_000).as_bytes()).unwrap_err();
        assert_eq!(error, "is nested deeper than 127 levels: line 1, column 128");
    }

    #[test]
    fn byte_order_mark_is_ignored() {
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\":1}").unwrap().0["a"], 1);
    }

    /// The place of every key is known, and nothing is written out for it: this would be gigabytes.
    #[test]
    fn long_nested_keys_need_no_extra_memory() {
        let key = "k".repeat(60_000);
        let text = format!("{}1{}", format!("{{\"{key}\":").repeat(120), "}".repeat(120));
        assert!(parse(text.as_bytes()).unwrap().1.is_empty());
    }

    #[test]
    fn numbers_and_nulls_are_unchanged() {
        let text = r#"{"a":[1,-2,0.5,true,null,""]}"#;
        let (value, _) = parse(text.as_bytes()).unwrap();
        assert_eq!(value.to_string(), text);
    }
}
