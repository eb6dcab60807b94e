//! YAML or JSON as kubectl reads it, with the position of every node: YAML 1.1 (`yes` is a boolean), the first of several
//! documents, the last of equal keys, and merge keys. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value as Json};

/// The maximum nesting depth of a document, the same as kubectl's.
const DEPTH: usize = 10_000;

/// The maximum number of nodes of a value that is converted. With aliases, a few lines can stand for more than fits in
/// memory.
const NODES: usize = 10_000;

/// A node of the document.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Its column, from 1.
    pub(crate) column: usize,
    /// Its value.
    pub(crate) value: Value,
}

/// The value of a node.
#[derive(Debug)]
pub(crate) enum Value {
    /// Empty, `~` or `null`.
    Null,
    /// A boolean, in all spellings of YAML 1.1.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Rc<Node>>),
    /// A mapping.
    Map(Mapping),
    /// A scalar that does not match its tag.
    Mistagged,
}

/// The members of a mapping, each key once, and the keys that cannot be members.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    members: BTreeMap<String, Rc<Node>>,
    /// Duplicate keys, with the line of the later one, which is used.
    pub(crate) repeated: Vec<(String, usize)>,
    /// The line of a key that is not a string: null, a list, a mapping.
    pub(crate) odd_key: Option<usize>,
}

impl Mapping {
    /// The value of this key; none if null.
    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Node>> {
        self.member(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// The value of this key.
    pub(crate) fn member(&self, key: &str) -> Option<&Rc<Node>> {
        self.members.get(key)
    }

    /// Keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Rc<Node>)> {
        self.members.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// The later value of a key is used, also if it comes from a merge key.
    fn set(&mut self, key: String, node: Rc<Node>, merged: bool) {
        let line = node.line;
        if self.members.insert(key.clone(), node).is_some() && !merged {
            self.repeated.push((key, line));
        }
    }
}

impl Node {
    /// The kind of the value, for a sentence.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean (quote it if a string is meant)",
            Value::Number(_) => "a number (quote it if a string is meant)",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Mistagged => "a value that does not match its tag",
        }
    }

    /// The value as JSON; none if it is too large.
    pub(crate) fn json(&self) -> Option<Json> {
        self.json_within(&mut { NODES })
    }

    fn json_within(&self, left: &mut usize) -> Option<Json> {
        *left = left.checked_sub(1)?;
        Some(match &self.value {
            Value::Null | Value::Mistagged => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(text) => serde_json::from_str(text).unwrap_or(Json::Null),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(|item| item.json_within(left)).collect::<Option<Vec<_>>>()?.into(),
            Value::Map(map) => {
                let members = map.iter().map(|(key, node)| Some((key.to_owned(), node.json_within(left)?)));
                members.collect::<Option<Map<_, _>>>()?.into()
            }
        })
    }
}

/// A document, and the line where another one begins after it.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its root node.
    pub(crate) root: Rc<Node>,
    /// The line of the next document, which kubectl does not read.
    pub(crate) next: Option<usize>,
}

/// Reads the first document.
///
/// # Errors
/// What is wrong and where, without any part of the text: it may be a secret.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    let text = text_of(bytes)?;
    if let Some((place, _)) = text.char_indices().find(|(_, char)| !is_allowed(*char)) {
        let line = text[..place].matches('\n').count() + 1;
        return Err(format!("contains a control character, which YAML does not allow (line {line})"));
    }
    let mut options = granit_parser::options! {
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    options.set_emit_comments(false);
    let mut composer = Composer::default();
    let mut next = None;
    let (mut line, mut column) = (1, 1);
    for event in Parser::new_from_str_with_options(&text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            // Anything after the first document is ignored.
            Err(_) if composer.ended => break,
            Err(error) => {
                let mark = error.marker();
                return Err(format!("is not valid YAML (line {}, column {})", mark.line(), mark.col() + 1));
            }
        };
        (line, column) = (span.start.line(), span.start.col() + 1);
        if composer.ended {
            next = matches!(event, Event::DocumentStart(..)).then_some(line);
            break;
        }
        composer.take(event, (line, column)).map_err(|problem| format!("{problem} (line {line})"))?;
    }
    let root = composer.root.unwrap_or_else(|| Rc::new(Node { line, column, value: Value::Null }));
    Ok(Document { root, next })
}

/// The position of the first fault of the syntax.
pub(crate) fn fault(bytes: &[u8]) -> Option<(usize, usize)> {
    let text = text_of(bytes).ok()?;
    let error = Parser::new_from_str(&text).find_map(Result::err)?;
    Some((error.marker().line(), error.marker().col() + 1))
}

/// The decoded text, in the encoding of the byte order mark.
fn text_of(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let pairs = bytes.chunks_exact(2);
        let whole = pairs.remainder().is_empty();
        let units = pairs.map(|pair| unit([pair[0], pair[1]]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        text.ok().filter(|_| whole).map(Cow::Owned).ok_or_else(|| "is incomplete UTF-16: save it as UTF-8".to_owned())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = std::str::from_utf8(bytes);
            text.map(Cow::Borrowed).map_err(|error| {
                let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
                format!("is not valid UTF-8 (line {line})")
            })
        }
    }
}

const fn is_allowed(char: char) -> bool {
    matches!(char,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// A builder of nodes from parser events.
#[derive(Default)]
struct Composer {
    /// With its anchor and its position.
    open: Vec<(Open, usize, (usize, usize))>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    ended: bool,
}

/// A collection whose end event has not been read.
enum Open {
    List(Vec<Rc<Node>>),
    Map(Mapping, Option<Key>),
}

fn node((line, column): (usize, usize), value: Value) -> Node {
    Node { line, column, value }
}

enum Key {
    Text(String),
    Merge,
    Odd,
}

impl Composer {
    fn take(&mut self, event: Event<'_>, position: (usize, usize)) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merges = text == "<<" && (style == ScalarStyle::Plain && tag.is_none() || is_merge(tag.as_deref()));
                let value = scalar(text, style, tag.as_deref());
                self.put(node(position, value), anchor, merges)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push((Open::List(Vec::new()), anchor, position));
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push((Open::Map(Mapping::default(), None), anchor, position));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::List(items), anchor, position)) => {
                    self.put(node(position, Value::List(items)), anchor, false)
                }
                Some((Open::Map(map, _), anchor, position)) => self.put(node(position, Value::Map(map)), anchor, false),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.attach(node.clone(), false),
                None => Err("has an anchor that contains itself"),
            },
            Event::DocumentEnd => {
                self.ended = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, node: Node, anchor: usize, merges: bool) -> Result<(), &'static str> {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node, merges)
    }

    fn attach(&mut self, node: Rc<Node>, merges: bool) -> Result<(), &'static str> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), ..)) => items.push(node),
            Some((Open::Map(map, key), ..)) => match key.take() {
                None => {
                    *key = Some(match &node.value {
                        _ if merges => Key::Merge,
                        Value::Text(text) | Value::Number(text) => Key::Text(text.clone()),
                        Value::Bool(value) => Key::Text(value.to_string()),
                        Value::Null | Value::List(_) | Value::Map(_) | Value::Mistagged => {
                            map.odd_key = map.odd_key.or(Some(node.line));
                            Key::Odd
                        }
                    });
                }
                Some(Key::Text(key)) => map.set(key, node, false),
                Some(Key::Merge) => merge(map, &node)?,
                Some(Key::Odd) => {}
            },
        }
        Ok(())
    }
}

/// Merges the members of a mapping, or of a list of mappings of which the first one has precedence.
fn merge(map: &mut Mapping, node: &Node) -> Result<(), &'static str> {
    let sources: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().rev().map(Rc::as_ref).collect(),
        _ => vec![node],
    };
    for source in sources {
        let Value::Map(source) = &source.value else { return Err("has a merge key (<<) without a mapping") };
        source.iter().for_each(|(key, node)| map.set(key.to_owned(), node.clone(), true));
    }
    Ok(())
}

const YAML: &str = "tag:yaml.org,2002:";

fn is_merge(tag: Option<&Tag>) -> bool {
    tag.and_then(|tag| tag.suffix_in_namespace(YAML)).is_some_and(|suffix| suffix == "merge")
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    // `!` alone means: as if it were written without quotes.
    let tag = tag.filter(|tag| tag.parts() != ("", "!") && tag.parts() != ("!", ""));
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.into_owned()) };
    };
    let text_only = |text: Cow<'_, str>| Value::Text(text.into_owned());
    let suffix = tag.suffix_in_namespace(YAML);
    match suffix.as_deref() {
        Some("binary") => match STANDARD.decode(text.as_bytes()).map(String::from_utf8) {
            Ok(Ok(text)) => Value::Text(text),
            _ => Value::Mistagged,
        },
        Some(kind @ ("bool" | "int" | "float" | "null")) => match (kind, plain(text)) {
            ("bool", value @ Value::Bool(_)) | ("null", value @ Value::Null) | ("float", value @ Value::Number(_)) => {
                value
            }
            ("int", Value::Number(text)) if !text.contains('.') => Value::Number(text),
            _ => Value::Mistagged,
        },
        _ => text_only(text),
    }
}

/// The meaning of an unquoted word in YAML 1.1, as far as kubectl follows it.
fn plain(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        word if is_number(word) => Value::Number(text.into_owned()),
        _ => Value::Text(text.into_owned()),
    }
}

fn is_number(word: &str) -> bool {
    match word.as_bytes().first() {
        Some(b'.') if matches!(&word[1..], "nan" | "NaN" | "NAN" | "inf" | "Inf" | "INF") => true,
        Some(b'.') => word.parse::<f64>().is_ok(),
        Some(b'+' | b'-') if matches!(&word[1..], ".inf" | ".Inf" | ".INF") => true,
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let plain = word.replace('_', "");
            is_whole(&plain) || is_decimal(&plain)
        }
        _ => false,
    }
}

/// 0x, 0o and 0b; a word of digits only is a decimal as well.
fn is_whole(word: &str) -> bool {
    let unsigned = word.trim_start_matches(['+', '-']);
    if word.len() > unsigned.len() + 1 {
        return false;
    }
    let Some(rest) = unsigned.strip_prefix('0') else { return false };
    let base = match rest.chars().next() {
        Some('x' | 'X') => 16,
        Some('o' | 'O') => 8,
        Some('b' | 'B') => 2,
        _ => return false,
    };
    let digits = &rest[1..];
    digits.starts_with(|char: char| char.is_digit(base))
        && if word.len() > unsigned.len() {
            i64::from_str_radix(digits, base).is_ok()
        } else {
            u64::from_str_radix(digits, base).is_ok()
        }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_decimal(word: &str) -> bool {
    let word = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn shown(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(document) => document.root.json().map_or_else(|| "too large".to_owned(), |json| json.to_string()),
            Err(problem) => problem,
        }
    }

    #[rstest]
    #[case::booleans("[yes, No, on, y, true, 'yes']", r#"[true,false,true,true,true,"yes"]"#)]
    #[case::nothing("[~, null, '', \"\"]", r#"[null,null,"",""]"#)]
    #[case::numbers("[1, 1.5, 1e3, '1']", r#"[1,1.5,1000.0,"1"]"#)]
    #[case::no_numbers("[1.2.3.4, 0xzz, 1-2, 2026-11-28, 1_a]", r#"["1.2.3.4","0xzz","1-2","2026-11-28","1_a"]"#)]
    #[case::last_wins("a: 1\nb: 2\na: 3", r#"{"a":3,"b":2}"#)]
    #[case::first_document("a: 1\n---\na: 2", r#"{"a":1}"#)]
    #[case::broken_second("a: 1\n---\n[", r#"{"a":1}"#)]
    #[case::tags("[!!str 1, !!int '1', !foo 1, !!binary aGk=]", r#"["1",1,"1","hi"]"#)]
    #[case::aliases("a: &a {b: 1}\nc: *a", r#"{"a":{"b":1},"c":{"b":1}}"#)]
    #[case::merge("a: &a {b: 1, c: 1}\nd: {b: 2, <<: *a, c: 3}", r#"{"a":{"b":1,"c":1},"d":{"b":1,"c":3}}"#)]
    #[case::merge_list("d: {<<: [{b: 1}, {b: 2, c: 2}]}", r#"{"d":{"b":1,"c":2}}"#)]
    #[case::keys("{1: a, yes: b}", r#"{"1":"a","true":"b"}"#)]
    #[case::empty("", "null")]
    #[case::comments("# nothing\n", "null")]
    #[case::unfinished("a: [", "is not valid YAML (line 1, column 4)")]
    #[case::recursive_alias("&a [*a]", "has an anchor that contains itself (line 1)")]
    #[case::no_merge("a: {<<: 1}", "has a merge key (<<) without a mapping (line 1)")]
    fn yaml_is_read_like_kubectl(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(shown(text), expected);
    }

    #[rstest]
    #[case::le(b"\xff\xfea\0:\0 \0b\0".as_slice())]
    #[case::be(b"\xfe\xff\0a\0:\0 \0b".as_slice())]
    #[case::mark(b"\xef\xbb\xbfa: b".as_slice())]
    fn byte_order_mark_selects_the_encoding(#[case] bytes: &[u8]) {
        assert_eq!(parse(bytes).unwrap().root.json().unwrap().to_string(), r#"{"a":"b"}"#);
    }

    #[rstest]
    #[case::latin(b"a: b\nc: \xe9".as_slice(), "valid UTF-8 (line 2)")]
    #[case::nul(b"a: b\nc: \0".as_slice(), "control character, which YAML does not allow (line 2)")]
    #[case::half(b"\xff\xfea".as_slice(), "incomplete UTF-16")]
    fn invalid_encoding_is_refused_with_its_line(#[case] bytes: &[u8], #[case] problem: &str) {
        assert!(parse(bytes).unwrap_err().contains(problem));
    }

    #[test]
    fn repeated_key_keeps_its_line() {
        let document = parse(b"kind: a\nusers: []\nkind: b\n---\nc: d").unwrap();
        let Value::Map(map) = &document.root.value else { panic!("a mapping") };
        assert_eq!(map.repeated, [("kind".to_owned(), 3)]);
        assert_eq!(document.next, Some(4));
    }

    #[test]
    fn exponential_aliases_are_not_expanded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            text = format!("{text}a{level}: &a{level} [{alias}]\n");
        }
        assert_eq!(shown(&text), "too large");
    }
}
