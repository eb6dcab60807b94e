//! A finding: one remark on the input or the cluster, with the place it is about. Pure data.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use serde::Serialize;

use crate::text::pointer_shown;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Harmless as it is.
    Low,
    /// Worth a look.
    Medium,
    /// A mistake, or a danger.
    High,
    /// A danger to the whole cluster.
    Critical,
}

impl Severity {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// The stable name.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// JSON pointer to the element of the document it is about.
    pub pointer: Option<String>,
    /// What is the matter.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// True when it refuses the input.
    pub blocking: bool,
}

impl Finding {
    /// A finding that refuses the input: severity high.
    pub fn blocking(code: &'static str, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::High,
            pointer: Some(pointer_shown(&pointer.into())),
            message: message.into(),
            help: None,
            blocking: true,
        }
    }

    /// A finding that refuses the input for something that stands in no document.
    pub fn refusal(code: &'static str, message: impl Into<String>) -> Self {
        Self { pointer: None, ..Self::blocking(code, "", message) }
    }

    /// A finding that is only told.
    pub fn remark(code: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self { code, severity, pointer: None, message: message.into(), help: None, blocking: false }
    }

    /// Points at an element; at what is around it, where the way there holds a key that cannot be shown.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer_shown(&pointer.into()));
        self
    }

    /// Says what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Adds the findings that are not among these yet: another schema finds again what the first one has found. Each is
/// looked up by its hash, so that thousands of bad rules are judged in the time of thousands.
pub fn add_new(findings: &mut Vec<Finding>, mut more: Vec<Finding>) {
    let known: HashSet<&Finding> = findings.iter().collect();
    more.retain(|finding| !known.contains(finding));
    findings.append(&mut more);
}

/// How many findings of a kind are told of one part of the input. Beyond that nobody reads them.
const TOLD: usize = 50;

/// The first findings of each kind for each part of the input; the last of them says how many more there are.
#[must_use]
pub fn condensed(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    let mut kinds: BTreeMap<(&str, Option<String>), (usize, usize)> = BTreeMap::new();
    for finding in findings {
        let part = finding.pointer.as_ref().and_then(|pointer| pointer.split('/').nth(1)).map(str::to_owned);
        let (count, last) = kinds.entry((finding.code, part)).or_default();
        *count += 1;
        if *count <= TOLD {
            *last = told.len();
            told.push(finding);
        }
    }
    for (count, last) in kinds.into_values().filter(|(count, _)| *count > TOLD) {
        if let Some(finding) = told.get_mut(last) {
            let _ = write!(finding.message, " (and {} more of this kind)", count - TOLD);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared each with each, so many would take hours.
    #[test]
    fn what_a_second_schema_finds_again_is_told_once() {
        let found = |numbers: std::ops::Range<u32>| -> Vec<Finding> {
            numbers.map(|number| Finding::blocking("schema", format!("/rules/{number}"), "is wrong")).collect()
        };
        let mut findings = found(0..300_000);
        add_new(&mut findings, found(100..300_002));
        assert_eq!(findings, found(0..300_002));
    }

    #[test]
    fn two_findings_of_one_schema_stay_two() {
        let twice = vec![Finding::refusal("schema", "is wrong"); 2];
        let mut findings = Vec::new();
        add_new(&mut findings, twice.clone());
        add_new(&mut findings, twice.clone());
        assert_eq!(findings, twice);
    }
}
