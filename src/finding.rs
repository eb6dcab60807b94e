//! A finding: one remark on the input or the cluster, with the place it is about. Pure data.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::text::pointer_shown;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
