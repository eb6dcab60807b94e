//! Bytes to a JSON value, with the place of every key that stands twice: the last one would win silently, and in a
//! rule the one that is dropped may be the one that narrows it. Pure.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses one document.
///
/// # Errors
/// What is wrong and where, without a word of the text itself: it may be a secret.
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    if text.starts_with('\u{feff}') {
        return Err("starts with a byte order mark: save it as plain UTF-8".to_owned());
    }
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { pointer: String::new(), duplicates: &mut duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| format!("is not JSON: line {}, column {}", error.line(), error.column()))?;
    Ok((value, duplicates))
}

/// Builds the value of one place in the document.
struct Node<'a> {
    pointer: String,
    duplicates: &'a mut Vec<String>,
}

impl Node<'_> {
    fn child(&mut self, step: &str) -> Node<'_> {
        let pointer = format!("{}/{}", self.pointer, crate::text::escaped(step));
        Node { pointer, duplicates: self.duplicates }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.child(&list.len().to_string()))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let child = self.child(&key);
            let pointer = child.pointer.clone();
            let value = entries.next_value_seed(child)?;
            if map.insert(key, value).is_some() {
                self.duplicates.push(pointer);
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_double_key_is_found_with_its_place() {
        let text = br#"{"rules":[{"verbs":["get"],"verbs":["list"]}],"a/b":1,"a/b":2}"#;
        let (value, duplicates) = parse(text).unwrap();
        assert_eq!(duplicates, ["/rules/0/verbs", "/a~1b"]);
        assert_eq!(value["rules"][0]["verbs"][0], "list");
    }

    #[test]
    fn what_is_no_json_is_refused_without_quoting_it() {
        for bad in [&b"s3cret"[..], b"{\"a\": s3cret}", b"\xef\xbb\xbf{}", b"{} s3cret", b"\xff", b"", b"[[1]"] {
            let error = parse(bad).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn numbers_and_nulls_stay_what_they_are() {
        let text = r#"{"a":[1,-2,0.5,true,null,""]}"#;
        let (value, _) = parse(text.as_bytes()).unwrap();
        assert_eq!(value.to_string(), text);
    }
}
