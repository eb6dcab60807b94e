//! Text from outside, made fit for a log. Pure.

/// The longest key of somebody's document that is shown. Names of fields and tags are shorter, and tokens are longer: one
/// that was pasted in the place of a name must not end up in a log.
const LONGEST_KEY: usize = 32;

/// Text from outside, fit for one line of a log: nothing that moves the cursor or turns the line around, and no longer
/// than this many characters.
#[must_use]
pub fn shown(text: &str, limit: usize) -> String {
    let mut line: String = text.chars().map(printable).take(limit).collect();
    if text.chars().nth(limit).is_some() {
        line.push('\u{2026}');
    }
    line
}

/// Text as one line of a log, however long: nobody's words start another.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// What is wrong with a value that [`is_masked`], and what to do.
pub const MASKED: &str = "holds the word that kubectl prints instead of a secret: print the kubeconfig once more with \
                          `kubectl config view --raw`";

/// True for what `kubectl config view` prints instead of a secret or of data, unless it is asked for `--raw`.
#[must_use]
pub fn is_masked(text: &str) -> bool {
    matches!(text.trim(), "DATA+OMITTED" | "REDACTED")
}

/// True for a key of somebody's document that can be shown as it is.
#[must_use]
pub fn presentable(key: &str) -> bool {
    key.chars().nth(LONGEST_KEY).is_none() && !key.contains(is_unprintable)
}

/// A key of somebody's document in a sentence, as it is or by its length.
#[must_use]
pub fn key_shown(key: &str) -> String {
    if presentable(key) { format!("`{key}`") } else { format!("with a name of {} characters", key.chars().count()) }
}

/// A JSON pointer up to the first step that cannot be shown.
#[must_use]
pub fn pointer_shown(pointer: &str) -> String {
    let steps = pointer.split('/').skip(1).take_while(|step| presentable(&unescaped(step)));
    steps.fold(String::new(), |pointer, step| pointer + "/" + step)
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

/// Fields of an object in a line for people: one label or annotation is named, several are counted, all else is a JSON
/// pointer.
#[must_use]
pub fn fields_shown(fields: &[String]) -> String {
    let mut rest: Vec<&str> = fields.iter().map(String::as_str).collect();
    let mut parts = Vec::new();
    for (kind, at) in [("annotation", "/metadata/annotations/"), ("label", "/metadata/labels/")] {
        let keys: Vec<String> = rest.iter().filter_map(|field| field.strip_prefix(at)).map(unescaped).collect();
        rest.retain(|field| !field.starts_with(at));
        match keys.as_slice() {
            [] => {}
            [key] => parts.push(format!("{kind} {key}")),
            many => parts.push(format!("{} {kind}s", many.len())),
        }
    }
    parts.extend((!rest.is_empty()).then(|| rest.join(" ")));
    parts.join("; ")
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn printable(char: char) -> char {
    if is_unprintable(char) { ' ' } else { char }
}

/// Control characters, and those that change the direction or the line of a text without being any.
fn is_unprintable(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_stays_on_its_line() {
        assert_eq!(shown("a\nb\u{1b}[2J\u{202e}c", 9), "a b [2J c");
        assert_eq!(shown("\u{e4}\u{f6}\u{fc}", 2), "\u{e4}\u{f6}\u{2026}");
    }

    #[test]
    fn a_key_is_shown_while_it_can_be_a_name() {
        assert_eq!(key_shown("app.kubernetes.io/managed-by"), "`app.kubernetes.io/managed-by`");
        assert_eq!(key_shown(&"k".repeat(33)), "with a name of 33 characters");
        assert_eq!(key_shown("a\nb"), "with a name of 3 characters");
    }

    #[test]
    fn fields_are_named_or_counted() {
        let shown = |fields: &[&str]| fields_shown(&fields.iter().map(|&field| field.to_owned()).collect::<Vec<_>>());
        let (label, other) = ("/metadata/labels/a.io~1b", "/metadata/labels/c");
        assert_eq!(shown(&["/rules/0/verbs", "/rules/1"]), "/rules/0/verbs /rules/1");
        assert_eq!(shown(&["/metadata/annotations/x", label, "/rules"]), "annotation x; label a.io/b; /rules");
        assert_eq!(shown(&[label, other]), "2 labels");
        assert_eq!(shown(&[label, "/metadata/name"]), "label a.io/b; /metadata/name");
        assert_eq!(shown(&[]), "");
    }

    #[test]
    fn a_pointer_ends_before_what_cannot_be_shown() {
        let long = "k".repeat(33);
        assert_eq!(pointer_shown("/a~1b/0/c"), "/a~1b/0/c");
        assert_eq!(pointer_shown(&format!("/a/{long}/b")), "/a");
        assert_eq!(pointer_shown(&format!("/{long}")), "");
        assert_eq!(pointer_shown("/a\nb/c"), "");
        assert_eq!(pointer_shown(""), "");
    }
}
