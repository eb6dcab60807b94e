//! YAML or JSON as kubectl reads it, with the place of every node: YAML 1.1 (`yes` is a boolean), the last of equal keys,
//! and merge keys. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    rc::Rc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
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

/// A place in the text: line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The line.
    pub(crate) line: usize,
    /// The column, in characters.
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The members of a mapping, each key once, and the keys that cannot be members.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    members: BTreeMap<String, Rc<Node>>,
    /// The keys that are written in this mapping itself, not merged into it.
    written: BTreeSet<String>,
    /// Duplicate keys, with the place of the later one, which is used.
    pub(crate) repeated: Vec<(String, Place)>,
    /// The place of a key that is not a string: null, a list, a mapping.
    pub(crate) odd_key: Option<Place>,
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

    /// Sets a member that is written here. The later value of a key is used.
    fn set(&mut self, key: String, place: Place, node: Rc<Node>) {
        if !self.written.insert(key.clone()) {
            self.repeated.push((key.clone(), place));
        }
        self.members.insert(key, node);
    }

    /// Sets a member that comes from a merge key: the later value is used here, too, as in kubectl.
    fn merge(&mut self, key: &str, node: &Rc<Node>) {
        self.members.insert(key.to_owned(), node.clone());
    }
}

impl Node {
    /// Its place.
    pub(crate) const fn place(&self) -> Place {
        Place { line: self.line, column: self.column }
    }

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

/// Reads the first document. Anything after it is ignored, as kubectl does in a kubeconfig.
///
/// # Errors
/// What is wrong and where, without any part of the text: it may be a secret.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    let text = readable(bytes)?;
    let mut events = events(&text);
    let root = composed(&mut events)?;
    let root = root.unwrap_or_else(|| Rc::new(Node { line: 1, column: 1, value: Value::Null }));
    let next = match events.next() {
        Some(Ok((Event::DocumentStart(..), span))) => Some(span.start.line()),
        _ => None,
    };
    Ok(Document { root, next })
}

/// Reads all documents.
///
/// # Errors
/// What is wrong and where, without any part of the text: it may be a secret.
pub(crate) fn all(bytes: &[u8]) -> Result<Vec<Rc<Node>>, String> {
    let text = readable(bytes)?;
    let mut events = events(&text);
    let mut documents = Vec::new();
    while let Some(root) = composed(&mut events)? {
        documents.push(root);
    }
    Ok(documents)
}

/// The decoded text, without characters that YAML does not allow.
fn readable(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let text = text_of(bytes)?;
    if let Some((at, _)) = text.char_indices().find(|(_, char)| !is_allowed(*char)) {
        let before = &text[..at];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let place = Place { line, column: before[line_start..].chars().count() + 1 };
        return Err(format!("contains a control character, which YAML does not allow ({place})"));
    }
    Ok(text)
}

fn events(text: &str) -> impl Iterator<Item = Result<(Event<'_>, Span), ScanError>> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    options.set_emit_comments(false);
    Parser::new_from_str_with_options(text, options)
}

/// The next document; none after the last one.
fn composed<'t>(
    events: &mut impl Iterator<Item = Result<(Event<'t>, Span), ScanError>>,
) -> Result<Option<Rc<Node>>, String> {
    let mut composer = Composer::default();
    for event in events {
        let (event, span) = event.map_err(|error| {
            let mark = error.marker();
            format!("is not valid YAML ({})", Place { line: mark.line(), column: mark.col() + 1 })
        })?;
        let place = Place { line: span.start.line(), column: span.start.col() + 1 };
        if matches!(event, Event::DocumentEnd) {
            let empty = || Rc::new(Node { line: place.line, column: place.column, value: Value::Null });
            return Ok(Some(composer.root.unwrap_or_else(empty)));
        }
        composer.take(event, place).map_err(|problem| format!("{problem} ({place})"))?;
    }
    Ok(None)
}

/// The line and column of the first fault of the syntax.
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
    open: Vec<(Open, usize, Place)>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

/// A collection whose end event has not been read.
enum Open {
    List(Vec<Rc<Node>>),
    Map(Mapping, Option<Key>),
}

enum Key {
    Text(String, Place),
    Merge,
    Odd,
}

impl Composer {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merges = text == "<<" && (style == ScalarStyle::Plain && tag.is_none() || is_merge(tag.as_deref()));
                let value = scalar(text, style, tag.as_deref());
                self.put(value, place, anchor, merges)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push((Open::List(Vec::new()), anchor, place));
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push((Open::Map(Mapping::default(), None), anchor, place));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::List(items), anchor, place)) => self.put(Value::List(items), place, anchor, false),
                Some((Open::Map(map, _), anchor, place)) => self.put(Value::Map(map), place, anchor, false),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.attach(node.clone(), false),
                None => Err("has an anchor that contains itself"),
            },
            _ => Ok(()),
        }
    }

    fn put(&mut self, value: Value, place: Place, anchor: usize, merges: bool) -> Result<(), &'static str> {
        let node = Rc::new(Node { line: place.line, column: place.column, value });
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
                        Value::Text(text) | Value::Number(text) => Key::Text(text.clone(), node.place()),
                        Value::Bool(value) => Key::Text(value.to_string(), node.place()),
                        Value::Null | Value::List(_) | Value::Map(_) | Value::Mistagged => {
                            map.odd_key = map.odd_key.or(Some(node.place()));
                            Key::Odd
                        }
                    });
                }
                Some(Key::Text(key, place)) => map.set(key, place, node),
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
        source.iter().for_each(|(key, node)| map.merge(key, node));
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
    #[case::recursive_alias("&a [*a]", "has an anchor that contains itself (line 1, column 5)")]
    #[case::no_merge("a: {<<: 1}", "has a merge key (<<) without a mapping (line 1, column 9)")]
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
    #[case::nul(b"a: b\nc: \0".as_slice(), "control character, which YAML does not allow (line 2, column 4)")]
    #[case::half(b"\xff\xfea".as_slice(), "incomplete UTF-16")]
    fn invalid_encoding_is_refused_with_its_line(#[case] bytes: &[u8], #[case] problem: &str) {
        assert!(parse(bytes).unwrap_err().contains(problem));
    }

    #[test]
    fn repeated_key_keeps_its_place() {
        let document = parse(b"kind: a\nusers: []\nkind: b\n---\nc: d").unwrap();
        let Value::Map(map) = &document.root.value else { panic!("a mapping") };
        assert_eq!(map.repeated, [("kind".to_owned(), Place { line: 3, column: 1 })]);
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
