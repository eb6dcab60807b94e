//! The params of the command line: JSON, YAML or a manifest. JSON is read by the reader that all documents have; the rest
//! is YAML as kubectl reads it, with the place of each duplicate key. Pure.

use serde_json::{Map, Value};

use crate::input::documents::{
    json::{self, Duplicate, Path, REPORTED},
    origin::Format,
    yaml::{self, Node, Place},
};

/// The maximum nesting depth, that of JSON documents.
const DEPTH: usize = 127;

/// The maximum number of values of a document of any size. With aliases, a few lines can stand for more than fits in
/// memory; without them, a document has fewer values than bytes.
const NODES: usize = 100_000;

/// A parsed document.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Its content.
    pub(crate) value: Value,
    /// Its format.
    pub(crate) format: Format,
    /// Its duplicate keys, with their places in YAML.
    pub(crate) duplicates: Vec<(Duplicate, Option<Place>)>,
}

/// Parses one document.
///
/// # Errors
/// What is wrong and where, without any part of the text: it may be a secret.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let refusal = match json::parse(bytes) {
        Ok((value, duplicates)) => {
            let duplicates = duplicates.into_iter().map(|key| (key, None)).collect();
            return Ok(Parsed { value, format: Format::Json, duplicates });
        }
        Err(refusal) => refusal,
    };
    let documents = yaml::all(bytes).map(filled);
    match documents {
        Ok(documents) if documents.len() > 1 => {
            let second = documents[1].place();
            Err(format!("contains several documents (expected one; the second one is at {second})"))
        }
        _ if is_meant_as_json(bytes) => Err(refusal),
        Err(problem) => Err(problem),
        Ok(documents) => match documents.first() {
            None => Err("is empty".to_owned()),
            Some(root) => {
                let mut converter = Converter { duplicates: Vec::new(), left: NODES.max(bytes.len()) };
                let value = converter.value(root, &Path::ROOT, DEPTH)?;
                Ok(Parsed { value, format: Format::Yaml, duplicates: converter.duplicates })
            }
        },
    }
}

/// The documents that are not empty: kubectl skips empty ones, which templates leave.
fn filled(documents: Vec<std::rc::Rc<Node>>) -> Vec<std::rc::Rc<Node>> {
    documents.into_iter().filter(|root| !matches!(root.value, yaml::Value::Null)).collect()
}

/// Whether a text that is no JSON is meant to be: it starts as a list, or as an object with a quoted key. Without quotes
/// it is a mapping of YAML.
pub(super) fn is_meant_as_json(bytes: &[u8]) -> bool {
    let is_wide_json = |first: u8| matches!(first, b'{' | b'[');
    match bytes {
        [0xff, 0xfe, first, 0, ..] | [0xfe, 0xff, 0, first, ..] => return is_wide_json(*first),
        [0, 1..=255, ..] | [1..=255, 0, ..] => return true,
        _ => {}
    }
    let mut visible = json::unmarked(bytes).iter().filter(|byte| !byte.is_ascii_whitespace());
    match visible.next() {
        Some(b'[') => true,
        Some(b'{') => visible.next().is_none_or(|byte| matches!(byte, b'"' | b'}')),
        _ => false,
    }
}

/// A converter of YAML nodes to JSON values.
struct Converter {
    duplicates: Vec<(Duplicate, Option<Place>)>,
    left: usize,
}

impl Converter {
    /// The value of a node; `depth` is how deep it may be nested.
    fn value(&mut self, node: &Node, path: &Path<'_>, depth: usize) -> Result<Value, String> {
        let refused = |problem: &str| Err(format!("{problem} ({})", node.place()));
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return refused("has aliases that stand for too many values"),
        };
        match &node.value {
            yaml::Value::List(_) | yaml::Value::Map(_) if depth == 0 => refused("is nested deeper than 127 levels"),
            yaml::Value::Null => Ok(Value::Null),
            yaml::Value::Mistagged => refused("has a value that does not match its tag"),
            yaml::Value::Bool(value) => Ok(Value::Bool(*value)),
            // No param is a number: which one matters as little as how YAML 1.1 writes it.
            yaml::Value::Number(text) => Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::from(0))),
            yaml::Value::Text(text) => Ok(Value::String(text.clone())),
            yaml::Value::List(items) => {
                let items = items.iter().enumerate();
                items.map(|(index, item)| self.value(item, &path.index(index), depth - 1)).collect()
            }
            yaml::Value::Map(map) => {
                if let Some(place) = map.odd_key {
                    return Err(format!("has a key that is not a string ({place})"));
                }
                for (key, place) in &map.repeated {
                    self.repeated(&path.key(key), *place);
                }
                let members = map.iter().map(|(key, node)| {
                    let value = self.value(node, &path.key(key), depth - 1)?;
                    Ok((key.to_owned(), value))
                });
                members.collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
        }
    }

    fn repeated(&mut self, path: &Path<'_>, place: Place) {
        let duplicate = path.duplicate();
        if self.duplicates.len() < REPORTED && !self.duplicates.iter().any(|(known, _)| *known == duplicate) {
            self.duplicates.push((duplicate, Some(place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::json("{\"a\": [1]}", json!({"a": [1]}))]
    #[case::yaml("a:\n- b\n- c: d\n", json!({"a": ["b", {"c": "d"}]}))]
    #[case::flow("{a: [b, 'c']}", json!({"a": ["b", "c"]}))]
    #[case::json_behind_comment("# params\n{\"a\": \"b\"}", json!({"a": "b"}))]
    #[case::windows("a:\r\n  b: c\r\n", json!({"a": {"b": "c"}}))]
    #[case::mark("\u{feff}a: b", json!({"a": "b"}))]
    #[case::directive("%YAML 1.1\n---\na: b\n...\n", json!({"a": "b"}))]
    #[case::empty_documents("---\n# helm\n---\na: b\n---\n# end\n", json!({"a": "b"}))]
    #[case::words("a: yes\nb: off\nc: 'no'\nd: ~\n", json!({"a": true, "b": false, "c": "no", "d": null}))]
    #[case::numbers("a: 7\nb: 0x1f\nc: .5\n", json!({"a": 7, "b": 0, "c": 0}))]
    #[case::numbers_as_keys("1: a\ntrue: b\n", json!({"1": "a", "true": "b"}))]
    #[case::anchors("a: &x [b]\nc: *x\n", json!({"a": ["b"], "c": ["b"]}))]
    #[case::merge("a: &a {b: c, d: e}\nf:\n  <<: *a\n  d: g\n", json!({"a": {"b": "c", "d": "e"}, "f": {"b": "c", "d": "g"}}))]
    #[case::tag("a: !!str 1\n", json!({"a": "1"}))]
    #[case::scalar("text", json!("text"))]
    fn one_document_is_read_like_kubectl(#[case] text: &str, #[case] expected: Value) {
        let parsed = parse(text.as_bytes()).unwrap();
        assert_eq!((parsed.value, parsed.duplicates), (expected, vec![]));
    }

    #[rstest]
    #[case::utf_16(&[0xff, 0xfe, b'a', 0, b':', 0, b' ', 0, b'b', 0])]
    #[case::utf_16_be(&[0xfe, 0xff, 0, b'a', 0, b':', 0, b' ', 0, b'b'])]
    fn utf_16_yaml_is_read_by_its_mark(#[case] bytes: &[u8]) {
        assert_eq!(parse(bytes).unwrap().value, json!({"a": "b"}));
    }

    #[rstest]
    #[case::empty("", "is empty")]
    #[case::comment("# nothing\n", "is empty")]
    #[case::mark("\u{feff}", "is empty")]
    #[case::several("a: b\n---\nc: d\n", "several documents (expected one; the second one is at line 3, column 1)")]
    #[case::several_json(
        "{\"a\": 1}\n---\n{\"b\": 1}\n",
        "several documents (expected one; the second one is at line 3"
    )]
    #[case::tab("a:\n\tb: c\n", "is not valid YAML (line 2, column ")]
    #[case::unfinished("a: [b\n", "is not valid YAML (line 1, column ")]
    #[case::indent("a:\n  b: c\n d: e\n", "is not valid YAML (line 3, column ")]
    #[case::broken_flow("{a: [", "is not valid YAML (line 1, column ")]
    #[case::broken_json("{\"a\": S3CRET}", "is not valid JSON: line 1, column 7")]
    #[case::trailing_comma("{\"a\": 1,}", "is not valid JSON: line 1, column 9")]
    #[case::broken_list("[S3CRET]", "is not valid JSON: line 1, column 2")]
    #[case::incomplete("{", "is incomplete JSON: line 1, column 1")]
    #[case::alias("a: *S3CRET\n", "is not valid YAML (line 1, column ")]
    #[case::recursive("a: &a [*a]\n", "an anchor that contains itself (line 1, column ")]
    #[case::no_merge("a: {<<: 1}\n", "a merge key (<<) without a mapping (line 1, column ")]
    #[case::odd_key("a: b\n? [c]\n: d\n", "a key that is not a string (line 2, column 3)")]
    #[case::mistagged("a: !!int S3CRET\n", "does not match its tag (line 1, column ")]
    #[case::control("a: b\u{1}\n", "control character, which YAML does not allow (line 1, column 5)")]
    fn invalid_text_is_refused_with_its_place(#[case] text: &str, #[case] problem: &str) {
        let refusal = parse(text.as_bytes()).unwrap_err();
        assert!(refusal.contains(problem) && !refusal.contains("S3CRET"), "{refusal}");
    }

    #[rstest]
    #[case(&[0xff, 0xfe, b'{', 0, b'}', 0])]
    #[case(b"{\0}\0")]
    fn utf_16_json_is_refused_as_before(#[case] bytes: &[u8]) {
        assert_eq!(parse(bytes).unwrap_err(), "is UTF-16: save it as UTF-8");
    }

    #[test]
    fn duplicate_keys_are_located_once() {
        let text = "rules:\n- verbs: [get]\n  verbs: [list]\n  verbs: [watch]\n<<: {a: 1}\na: 2\n";
        let parsed = parse(text.as_bytes()).unwrap();
        let found: Vec<_> = parsed.duplicates.iter().map(|(key, place)| (key.pointer.as_str(), *place)).collect();
        assert_eq!(found, [("/rules/0/verbs", Some(Place { line: 3, column: 3 }))]);
        assert_eq!(parsed.value["rules"][0]["verbs"][0], "watch");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-z*./-]{0,8}", "yes|no|on|null|~|1|0x1f|1e3|<<|[*]", "\\PC{0,8}"];
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// After a comment, JSON is read as YAML.
        #[test]
        fn json_is_yaml(value in any_json(), pretty in any::<bool>()) {
            let value = json!({ "value": value });
            let text = if pretty { format!("# \n{value:#}") } else { format!("# \n{value}") };
            let parsed = parse(text.as_bytes());
            prop_assert!(parsed.is_ok(), "{parsed:?} of {text}");
            let parsed = parsed.unwrap();
            prop_assert_eq!((parsed.value, parsed.format), (value, Format::Yaml));
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in "[ \t\n\r{}\\[\\]:,\"'&*!#?|>%@a-c0-9-]{0,40}", bytes in any::<Vec<u8>>()) {
            let _ = (parse(text.as_bytes()), parse(&bytes));
        }
    }

    #[test]
    fn deep_nesting_and_alias_bombs_are_refused() {
        let nested = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(126).as_bytes()).is_ok());
        assert!(parse(nested(127).as_bytes()).unwrap_err().starts_with("is nested deeper than 127 levels (line 1"));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            bomb = format!("{bomb}a{level}: &a{level} [{alias}]\n");
        }
        assert!(parse(bomb.as_bytes()).unwrap_err().starts_with("has aliases that stand for too many values"));
        let long = "- [get, list]\n".repeat(200_000);
        assert_eq!(parse(long.as_bytes()).unwrap().value.as_array().map(Vec::len), Some(200_000));
    }
}
