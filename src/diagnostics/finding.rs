//! A finding: one remark on the input or the cluster, with the place it is about. Pure data.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use serde::{Serialize, Serializer};

use crate::diagnostics::text::pointer_shown;

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

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $($severity:ident)+;)*) => {
        /// Finding codes. Each has an entry in docs/warnings.md. They stay once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// The severities that it may have, the usual one first.
            #[must_use]
            pub const fn severities(self) -> &'static [Severity] {
                match self { $(Code::$variant => &[$(Severity::$severity),+],)* }
            }
        }
    };
}

codes! {
    /// A document does not match its schema, or cannot be read.
    Schema = "schema", High;
    /// The name of the instance is missing or invalid.
    Name = "name", High;
    /// An object of a document has the same key twice.
    DuplicateKey = "duplicate-key", High;
    /// The cluster connection or the platform's address is unusable.
    Connection = "connection", High;
    /// A variable that the platform's API requires is missing.
    EnvironmentMissing = "environment-missing", High;
    /// A param is unknown to this version and has no effect.
    UnknownParam = "unknown-param", Low;
    /// An option of `config.json` is unknown to this version and has no effect.
    UnknownConfig = "unknown-config", Low;
    /// A tag cannot be a label and is left out.
    LabelDropped = "label-dropped", Low;
    /// The kubeconfig was merged from several documents or fields.
    KubeconfigInParts = "kubeconfig-in-parts", Low;
    /// The connection has another login beside the token, which is not used.
    LoginIgnored = "login-ignored", Info;
    /// `config.json` overrides the namespace of the params.
    NamespaceOverridden = "namespace-overridden", Info;
    /// The parent credential lacks a permission.
    MissingPermission = "missing-permission", High;
    /// The parent credential may not grant what it does not hold.
    Escalation = "escalation", High;
    /// An object of one of the instance's names has another owner.
    ForeignObject = "foreign-object", High Info;
    /// The API server sent a `Warning` header.
    ServerWarning = "server-warning", Info;
    /// An admission policy changed fields of an object.
    Overwritten = "overwritten", Low;
    /// Other bindings allow the credential more than was requested.
    Excess = "excess", High Low;
    /// An authorizer other than RBAC allows the credential everything.
    Unlimited = "unlimited", High;
    /// The server's address is a loopback address.
    LocalAddress = "local-address", Low;
    /// The server is reached through a proxy that the artifact cannot name.
    ProxyNeeded = "proxy-needed", Medium;
    /// The platform has a credential of the instance and this cluster has none.
    ClusterChanged = "cluster-changed", Medium;
    /// The platform's address is not encrypted.
    ClearText = "clear-text", Medium;
    /// The permissions of existing ClusterRoles are not verified.
    ClusterRoleUnverified = "cluster-role-unverified", Info;
    /// The objects of a Helm release of version 1.0.0 are adopted.
    Adopt = "adopt", Medium;
    /// Helm stores, or stored, a credential of the connection in the namespace.
    ParentExposed = "parent-exposed", High;
    /// Secrets of that Helm release cannot be deleted.
    ReleaseLeft = "release-left", High;
    /// Permissions of an earlier request may still be granted.
    NotTakenBack = "not-taken-back", High;
    /// A namespace of the request does not exist.
    NamespaceAbsent = "namespace-absent", High;
    /// A ClusterRole of the request does not exist.
    ClusterRoleAbsent = "cluster-role-absent", High;
    /// A namespace of the request is being deleted.
    NamespaceTerminating = "namespace-terminating", High;
    /// An object of the instance is being deleted, and finalizers delay that.
    BeingDeleted = "being-deleted", High;
    /// Somebody else changed an object of the instance.
    Drift = "drift", Medium Low;
    /// The instance has objects in a former namespace.
    Moved = "moved", High Info;
    /// A namespace of an earlier request does not exist any more.
    NamespaceGone = "namespace-gone", Info;
    /// The inventory on the ServiceAccount cannot be read completely.
    InventoryUnreadable = "inventory-unreadable", High;
    /// A decommission could not search every namespace.
    NotSearched = "not-searched", Info;
    /// A copy of a binding grants permissions in another namespace.
    RightsElsewhere = "rights-elsewhere", High;
    /// A decommission by hand found no object of the instance.
    NothingFound = "nothing-found", Medium;
    /// The server was verified by a CA of the system.
    SystemCa = "system-ca", Info;
    /// The artifact cannot name the host of the server's certificate.
    TlsServerName = "tls-server-name", High;
    /// The platform's record was not deleted either.
    PlatformRecord = "platform-record", High;
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// The stable name.
    pub code: Code,
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
    /// A finding that refuses the input, at an element of a document.
    pub fn blocking(code: Code, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { blocking: true, ..Self::remark(code, message) }.at(pointer)
    }

    /// A finding that refuses the input for something that is in no document.
    pub fn refusal(code: Code, message: impl Into<String>) -> Self {
        Self { blocking: true, ..Self::remark(code, message) }
    }

    /// A finding that refuses nothing, of the code's usual severity.
    pub fn remark(code: Code, message: impl Into<String>) -> Self {
        let severity = code.severities().first().copied().unwrap_or(Severity::High);
        Self { code, severity, pointer: None, message: message.into(), help: None, blocking: false }
    }

    /// Sets another of the code's severities.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        debug_assert!(self.code.severities().contains(&severity), "{} is never {severity:?}", self.code.as_str());
        self.severity = severity;
        self
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
        let (count, last) = kinds.entry((finding.code.as_str(), part)).or_default();
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
    fn findings_of_a_second_schema_are_deduplicated() {
        let found = |numbers: std::ops::Range<u32>| -> Vec<Finding> {
            numbers.map(|number| Finding::blocking(Code::Schema, format!("/rules/{number}"), "is wrong")).collect()
        };
        let mut findings = found(0..300_000);
        add_new(&mut findings, found(100..300_002));
        assert_eq!(findings, found(0..300_002));
    }

    #[test]
    fn equal_findings_of_one_schema_are_kept() {
        let twice = vec![Finding::refusal(Code::Schema, "is wrong"); 2];
        let mut findings = Vec::new();
        add_new(&mut findings, twice.clone());
        add_new(&mut findings, twice.clone());
        assert_eq!(findings, twice);
    }
}
