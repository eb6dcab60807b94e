//! Text from outside, made fit for a log. Pure.

/// Text from outside, fit for one line of a log: no control characters, and no longer than this many characters.
#[must_use]
pub fn shown(text: &str, limit: usize) -> String {
    let mut line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(limit).collect();
    if text.chars().nth(limit).is_some() {
        line.push('\u{2026}');
    }
    line
}

/// A key as one step of a JSON pointer.
#[must_use]
pub fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
