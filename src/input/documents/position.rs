//! Positions in the text of a document: JSON pointer -> line and column. Pure.

use std::{cell::OnceCell, rc::Rc};

use serde::de::IgnoredAny;

use crate::{
    diagnostics::{finding::Position, text::unescaped},
    input::documents::{
        params::is_meant_as_json,
        yaml::{self, Node, Value},
    },
};

/// The text of a document in JSON or YAML, which is parsed when the first position is asked for.
pub(crate) struct Text<'a> {
    bytes: &'a [u8],
    root: OnceCell<Option<Rc<Node>>>,
}

impl<'a> Text<'a> {
    /// This text.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, root: OnceCell::new() }
    }

    /// The position of the value at a JSON pointer, or of the closest value around it. In a text that cannot be parsed it
    /// is that of the fault. JSON that is no YAML, such as that with a key of more than 1024 characters, has no positions:
    /// the beginning is returned.
    pub(crate) fn locate(&self, pointer: &str) -> Position {
        let root = self.root.get_or_init(|| yaml::parse(self.bytes).ok().map(|document| document.root));
        let (line, column) = match root {
            Some(root) if !pointer.is_empty() => locate(root, pointer),
            // Faulty JSON may be valid YAML.
            // Faulty JSON may be valid YAML.
            root if is_meant_as_json(self.bytes) => {
                json_fault(self.bytes).unwrap_or_else(|| root.as_ref().map_or((1, 1), |root| (root.line, root.column)))
            }
            Some(root) => (root.line, root.column),
            None => yaml::fault(self.bytes).unwrap_or((1, 1)),
        };
        Position { line, column }
    }
}

/// Line and column of the value at a pointer, or of the closest one around it.
fn locate(root: &Node, pointer: &str) -> (usize, usize) {
    let mut node = root;
    for step in pointer.split('/').skip(1) {
        let inner = match &node.value {
            Value::Map(map) => map.member(&unescaped(step)),
            Value::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
            _ => None,
        };
        let Some(inner) = inner else { break };
        node = inner;
    }
    (node.line, node.column)
}

/// Line and column of the first fault in a text that is meant as JSON.
fn json_fault(bytes: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_meant_as_json(bytes))?;
    let text = text.trim_start_matches('\u{feff}');
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    // The parser counts bytes.
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let bytes = error.column().saturating_sub(1).min(line.len());
    let column = line.char_indices().take_while(|(at, _)| *at < bytes).count() + 1;
    Some((error.line(), column))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn located(text: &str, pointer: &str) -> (usize, usize) {
        let Position { line, column } = Text::new(text.as_bytes()).locate(pointer);
        (line, column)
    }

    #[rstest]
    #[case::value("{\n  \"a\": [1,\n    {\"b\": 2}]\n}", "/a/1/b", (3, 11))]
    #[case::object("{\n  \"a\": [1,\n    {\"b\": 2}]\n}", "/a/1", (3, 5))]
    #[case::list("{\n  \"a\": [1]\n}", "/a", (2, 8))]
    #[case::whole("\n {\"a\": 1}", "", (2, 2))]
    #[case::missing_member("{\n  \"a\": {}\n}", "/a/b/c", (2, 8))]
    #[case::missing_item("{\n  \"a\": [\n1]\n}", "/a/7", (2, 8))]
    #[case::below_a_scalar("{\n  \"a\": \"b\"\n}", "/a/b", (2, 8))]
    #[case::later_of_a_repeated_key("{\n  \"a\": 1,\n  \"a\": 2\n}", "/a", (3, 8))]
    #[case::escaped_pointer("{\"a/b~c\":\n 1}", "/a~1b~0c", (2, 2))]
    #[case::one_line("{\"a\":[{\"b\":[\"x\",\"y\"]}]}", "/a/0/b/1", (1, 17))]
    #[case::tabs("{\n\t\"a\": [\n\t\t1,\n\t\t2\n\t]\n}", "/a/1", (4, 3))]
    #[case::tab_after_colon("{\"a\":\t1}", "/a", (1, 7))]
    #[case::crlf("{\r\n  \"a\": 1,\r\n  \"b\": 2\r\n}\r\n", "/b", (3, 8))]
    #[case::mark("\u{feff}{\"a\": 1}", "/a", (1, 7))]
    #[case::slash("{\"a\\/b\": \"c\\/d\",\n \"e\": 1}", "/e", (2, 7))]
    #[case::slash_in_a_key("{\"a\\/b\":\n 1}", "/a~1b", (2, 2))]
    #[case::surrogates("{\"\\ud83d\\ude00\": 1,\n \"b\": \"\\uD83D\\uDE00\"}", "/b", (2, 7))]
    #[case::surrogate_key("{\"\\ud83d\\ude00\":\n 1}", "/\u{1f600}", (2, 2))]
    #[case::wide_characters("{\"\u{1f600}\": 1, \"b\": 2}", "/b", (1, 15))]
    #[case::separators("{\"a\": \"\u{2028}\u{2029}\u{85}\",\n \"b\": 2}", "/b", (2, 7))]
    #[case::no_yaml("{\"a\": \"\u{7f}\",\n \"b\": 2}", "/b", (1, 1))]
    #[case::no_space("{\"a\":1,\"b\":[]}", "/b", (1, 12))]
    #[case::colon_on_the_next_line("{\"a\"\n:\n1}", "/a", (3, 1))]
    #[case::comma_first("{\"a\": 1\n,\"b\": 2\n}", "/b", (2, 7))]
    #[case::unindented("{\n\"a\": {\n\"b\": [\n1\n]\n}\n}", "/a/b/0", (4, 1))]
    #[case::numbers("{\"a\": -1.5e+3,\n \"b\": [0, 1E5]}", "/b/1", (2, 11))]
    #[case::hash("{\"a\": \"b # c\",\n \"b\": 1}", "/b", (2, 7))]
    #[case::merge_key("{\"<<\": 1,\n \"b\": 1}", "/b", (2, 7))]
    fn json_value_is_located(#[case] text: &str, #[case] pointer: &str, #[case] expected: (usize, usize)) {
        assert_eq!(located(text, pointer), expected);
    }

    #[rstest]
    #[case::value("a:\n  - 1\n  - b: 2\n", "/a/1/b", (3, 8))]
    #[case::mapping("a:\n  - 1\n  - b: 2\n", "/a/1", (3, 5))]
    #[case::flow("a: [1, {b: 2}]\n", "/a/1/b", (1, 12))]
    #[case::missing("a:\n  b: 1\n", "/a/c", (2, 3))]
    #[case::alias("x: &x [1]\na: *x\n", "/a/0", (1, 8))]
    #[case::comment("# first\n\na: 1\n", "", (3, 1))]
    fn yaml_value_is_located(#[case] text: &str, #[case] pointer: &str, #[case] expected: (usize, usize)) {
        assert_eq!(located(text, pointer), expected);
    }

    #[rstest]
    #[case::no_json("{\n  \"a\": s3cret\n}", (2, 8))]
    #[case::after_wide_characters("{\"\u{e4}\u{1f600}\": s3cret}", (1, 8))]
    #[case::incomplete("{\n  \"a\": [1", (2, 9))]
    #[case::trailing_text("{}\n x", (2, 2))]
    #[case::empty("", (1, 1))]
    #[case::no_yaml("a: 1\nb: [\n", (2, 4))]
    #[case::latin("\u{0}", (1, 1))]
    fn fault_of_unreadable_text_is_located(#[case] text: &str, #[case] expected: (usize, usize)) {
        assert_eq!(located(text, ""), expected);
    }

    #[test]
    fn deep_and_long_json_is_located() {
        let nested = format!("{}\n1{}", "[".repeat(126), "]".repeat(126));
        assert_eq!(located(&nested, &"/0".repeat(126)), (2, 1));
        let long = format!("{{\"b\": \"{}\",\n\"a\": [{}\n1]}}", "k".repeat(70_000), "[\"x\"],\n".repeat(300_000));
        assert_eq!(located(&long, "/a/300000"), (300_003, 1));
        assert_eq!(located("{\"k\":\n1}".replace('k', &"k".repeat(1025)).as_str(), "/k"), (1, 1));
    }
}
