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

/// What a server says in an answer that is no document of its API, unless that is a page for browsers, as gateways and
/// login portals have them.
#[must_use]
pub fn said(text: &str, limit: usize) -> String {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('<') { "an HTML page".to_owned() } else { shown(text, limit) }
}

/// A key as one step of a JSON pointer.
#[must_use]
pub fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
