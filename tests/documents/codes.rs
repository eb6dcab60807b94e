//! The entries of docs/troubleshooting.md and docs/warnings.md, one for each code, and the runbook's copy of them.

use std::fs;

/// The locations of the entries: page, heading, and the heading of the copy in the runbook.
pub const PAGES: [(&str, &str, &str); 3] = [
    ("docs/troubleshooting.md", "## Error codes", "## Error codes"),
    ("docs/warnings.md", "## Input errors", "## Input errors"),
    ("docs/warnings.md", "## Warning codes", "## Warnings"),
];

/// Marks an entry that a deployment cannot produce.
const COMMAND_LINE_ONLY: &str = "Command line only.";

/// The entry of one code on a page.
pub struct Entry {
    /// The code, which is the heading.
    pub code: String,
    /// The first line: exit code or severity.
    pub kind: String,
    /// The paragraphs, up to the sample.
    pub text: String,
    /// The sample log, if the page shows one.
    pub sample: Option<String>,
}

impl Entry {
    /// Whether the runbook needs the entry.
    pub fn concerns_deployments(&self) -> bool {
        !self.kind.contains(COMMAND_LINE_ONLY)
    }
}

/// The section below a heading, up to the next heading of the same level.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let body = &text[start + heading.len() + 2..];
    body.find("\n## ").map_or(body, |end| &body[..=end])
}

/// The entries of a section, in its order.
pub fn entries(section: &str) -> Vec<Entry> {
    section.split("\n### ").skip(1).map(entry).collect()
}

fn entry(text: &str) -> Entry {
    let (code, body) = text.split_once("\n\n").unwrap_or_else(|| panic!("only a heading: {text}"));
    let (kind, body) = body.split_once("\n\n").unwrap_or_else(|| panic!("{code}: only one line"));
    let (text, sample) = match body.split_once("```text\n") {
        Some((text, sample)) => (text, Some(sample.split("```").next().unwrap_or_default().to_owned())),
        None => (body, None),
    };
    Entry { code: code.to_owned(), kind: kind.to_owned(), text: text.trim_end().to_owned(), sample }
}

/// The runbook with current copies of the entries.
pub fn runbook() -> String {
    let mut runbook = fs::read_to_string("operator.md").expect("operator.md");
    for (page, heading, copy) in PAGES {
        let page = fs::read_to_string(page).unwrap_or_else(|cause| panic!("{page}: {cause}"));
        let entries = entries(section(&page, heading));
        let there = section(&runbook, copy);
        let introduction = there.split("\n### ").next().unwrap_or_default().trim_end();
        let copies = entries.iter().filter(|entry| entry.concerns_deployments()).map(of_the_instance);
        let made = format!("{introduction}\n\n{}", copies.collect::<String>());
        runbook = runbook.replacen(there, &made, 1);
    }
    runbook
}

/// The entry with the names of the instance instead of the placeholders.
fn of_the_instance(entry: &Entry) -> String {
    let Entry { code, kind, text, .. } = entry;
    let text = text.replace("NAMESPACE", "{{params.namespace}}").replace("NAME", "{{params.md_metadata.name_prefix}}");
    format!("### {code}\n\n{kind}\n\n{text}\n\n")
}
