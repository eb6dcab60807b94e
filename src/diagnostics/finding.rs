//! Findings: warnings and input errors, each with its location. Pure data.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use serde::{Serialize, Serializer};

use crate::{diagnostics::text::presentable_pointer, rbac::risk::Level};

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
    /// The levels that a limit on risks can have.
    pub(crate) const LIMITS: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The level of a limit, by its name.
    pub(crate) fn limit(name: &str) -> Option<Self> {
        Self::LIMITS.into_iter().find(|level| level.as_str() == name)
    }

    /// Its name in the log and in the document.
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

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
            Level::Critical => Self::Critical,
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $($severity:ident)+;)*) => {
        /// Finding codes. Each has an entry in docs/warnings.md, and those of risks in docs/risks.md. They never change
        /// once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)* }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// What it means, in one sentence.
            pub(crate) const fn summary(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            /// The severities that it may have, the usual one first.
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
    /// A rule names an API group that is not known.
    UnknownGroup = "unknown-group", High Low Info;
    /// A rule names a resource that its group does not have.
    UnknownResource = "unknown-resource", High Low Info;
    /// A verb of a rule fits none of its resources, or a resource none of its verbs.
    UnknownVerb = "unknown-verb", High;
    /// A rule for namespaces names a resource that is in no namespace.
    ClusterScopedResource = "cluster-scoped-resource", High;
    /// A rule limits create or deletecollection by names.
    NamesWithCreate = "names-with-create", High Medium;
    /// A rule limits list or watch by names.
    NamesWithList = "names-with-list", Low;
    /// A rule has a wildcard among its names.
    NamesWildcard = "names-wildcard", High;
    /// A rule has a wildcard in the place of a subresource.
    SubresourceWildcard = "subresource-wildcard", High;
    /// Another rule covers all of a rule.
    RedundantRule = "redundant-rule", Low;
    /// The rules were not judged by what the server serves.
    DiscoveryMissing = "discovery-missing", Info;
    /// A tag cannot be a label and is ignored.
    LabelDropped = "label-dropped", Low;
    /// The kubeconfig was merged from several documents or fields.
    KubeconfigInParts = "kubeconfig-in-parts", Low;
    /// The connection has another login besides the token, which is not used.
    LoginIgnored = "login-ignored", Info;
    /// `config.json` overrides the namespace of the params.
    NamespaceOverridden = "namespace-overridden", Info;
    /// The parent credential lacks a permission.
    MissingPermission = "missing-permission", High;
    /// The parent credential may not grant permissions it does not hold.
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
    /// The server is reached through a proxy, for which the credential document has no field.
    ProxyNeeded = "proxy-needed", Medium;
    /// The platform has a credential of the instance and this cluster has none.
    ClusterChanged = "cluster-changed", Medium;
    /// The platform's address is not encrypted.
    ClearText = "clear-text", Medium;
    /// The permissions of existing ClusterRoles are not tested.
    ClusterRoleUnverified = "cluster-role-unverified", Info;
    /// The objects of a Helm release of version 1.0.0 are adopted.
    Adopt = "adopt", Medium;
    /// Helm stores, or stored, a credential of the connection in the namespace.
    ParentExposed = "parent-exposed", High;
    /// Secrets of that Helm release cannot be deleted.
    ReleaseLeft = "release-left", High;
    /// Permissions of an earlier configuration may still be granted.
    NotTakenBack = "not-taken-back", High;
    /// A namespace of the params does not exist.
    NamespaceAbsent = "namespace-absent", High;
    /// A ClusterRole of the params does not exist.
    ClusterRoleAbsent = "cluster-role-absent", High;
    /// A namespace of the params is being deleted.
    NamespaceTerminating = "namespace-terminating", High;
    /// An object of the instance is being deleted, and finalizers delay that.
    BeingDeleted = "being-deleted", High;
    /// An object of the instance was changed by someone else.
    Drift = "drift", Medium Low;
    /// The instance has objects in a previous namespace.
    Moved = "moved", High Info;
    /// A namespace of an earlier configuration no longer exists.
    NamespaceGone = "namespace-gone", Info;
    /// The inventory on the ServiceAccount cannot be read completely.
    InventoryUnreadable = "inventory-unreadable", High;
    /// A decommission could not search every namespace.
    NotSearched = "not-searched", Info;
    /// A copy of a binding grants permissions in another namespace.
    RightsElsewhere = "rights-elsewhere", High;
    /// A decommission on the command line found no object of the instance.
    NothingFound = "nothing-found", Medium;
    /// Pods in the cluster verify the server with another CA than the connection.
    CaDiffers = "ca-differs", Medium Low Info;
    /// The login of the parent credential ends soon.
    ParentExpires = "parent-expires", Medium Low Info;
    /// The server was verified by a CA of the system.
    SystemCa = "system-ca", Info;
    /// The server's certificate is for a tls-server-name, for which the credential document has no field.
    TlsServerName = "tls-server-name", High;
    /// A waiver ends within two weeks.
    WaiverEnds = "waiver-ends", Low;
    /// A waiver lifts nothing.
    WaiverUnused = "waiver-unused", Low;
    /// The platform's record was not deleted either.
    PlatformRecord = "platform-record", High;
    /// The rules allow everything.
    RiskR01 = "risk-r01", Critical;
    /// The rules allow every verb on RBAC objects.
    RiskR02 = "risk-r02", Critical;
    /// The rules allow reading Secrets.
    RiskR03 = "risk-r03", High Critical;
    /// The rules allow reading named Secrets.
    RiskR04 = "risk-r04", Medium High;
    /// The rules allow writing Secrets.
    RiskR05 = "risk-r05", High Critical Medium;
    /// The rules allow creating pods.
    RiskR06 = "risk-r06", High Critical;
    /// The rules allow writing workloads.
    RiskR07 = "risk-r07", High Critical Medium;
    /// The rules allow changing pods.
    RiskR08 = "risk-r08", High Medium;
    /// The rules allow executing commands in pods.
    RiskR09 = "risk-r09", High Critical;
    /// The rules allow attaching to pods.
    RiskR10 = "risk-r10", High;
    /// The rules allow adding debug containers to pods.
    RiskR11 = "risk-r11", High;
    /// The rules allow reaching ports of pods.
    RiskR12 = "risk-r12", Medium;
    /// The rules allow the kubelet API.
    RiskR13 = "risk-r13", Critical;
    /// The rules allow creating tokens of ServiceAccounts.
    RiskR14 = "risk-r14", High Critical;
    /// The rules allow impersonation.
    RiskR15 = "risk-r15", Critical;
    /// The rules allow escalate.
    RiskR16 = "risk-r16", Critical;
    /// The rules allow bind.
    RiskR17 = "risk-r17", Critical;
    /// The rules allow writing bindings.
    RiskR18 = "risk-r18", High Critical Medium;
    /// The rules allow writing Roles.
    RiskR19 = "risk-r19", High Medium;
    /// The rules allow approving certificates.
    RiskR20 = "risk-r20", High Critical;
    /// The rules allow signing certificates.
    RiskR21 = "risk-r21", High Critical;
    /// The rules allow writing admission webhooks and policies.
    RiskR22 = "risk-r22", Critical High;
    /// The rules allow creating volumes.
    RiskR23 = "risk-r23", High;
    /// The rules allow changing Namespaces.
    RiskR24 = "risk-r24", High Critical Medium;
    /// The rules allow changing ConfigMaps.
    RiskR25 = "risk-r25", Low Critical High Info;
    /// The rules allow changing nodes.
    RiskR26 = "risk-r26", High Critical;
    /// The rules allow changing the status of pods or Services.
    RiskR27 = "risk-r27", Medium Low Info;
    /// The rules allow writing Services and routes.
    RiskR28 = "risk-r28", Medium Low;
    /// The rules allow deleting events.
    RiskR29 = "risk-r29", Medium;
    /// The rules allow reading logs.
    RiskR30 = "risk-r30", Low Medium;
    /// The rules allow adding APIs.
    RiskR31 = "risk-r31", High Medium;
    /// The rules allow writing ServiceAccounts.
    RiskR32 = "risk-r32", Medium High Low;
    /// The rules allow custom resources with credentials or power.
    RiskR33 = "risk-r33", High;
    /// The rules apply to every API group.
    RiskR35 = "risk-r35", Medium;
    /// The rules apply to every resource of a group.
    RiskR36 = "risk-r36", High Medium;
    /// The rules allow deletecollection.
    RiskR37 = "risk-r37", Medium;
}

impl Code {
    /// Whether it is the code of a risk.
    pub(crate) fn is_risk(self) -> bool {
        self.as_str().starts_with("risk-")
    }

    /// The code of a risk, by its name in the catalogue.
    pub(crate) fn of_risk(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == code)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A warning or an input error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Finding {
    /// The stable name.
    pub(crate) code: Code,
    /// Its severity.
    pub(crate) severity: Severity,
    /// JSON pointer to the element of the document it is about.
    pub(crate) pointer: Option<String>,
    /// The problem.
    pub(crate) message: String,
    /// How to fix it, or what was expected.
    pub(crate) help: Option<String>,
    /// Whether it makes the input invalid.
    pub(crate) blocking: bool,
    /// Where the params or options that it is about come from: a file, or an option of the command line. None for anything
    /// else.
    pub(crate) source: Option<String>,
    /// Why a waiver accepts the risk that it is about, for SARIF.
    #[serde(skip)]
    pub(crate) accepted: Option<String>,
    /// Its position in that text, if the text was searched for it.
    #[serde(skip)]
    pub(crate) position: Option<Position>,
}

/// A position in a text: line and column, both from 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: usize,
    /// The column.
    pub(crate) column: usize,
}

impl Finding {
    /// A blocking finding at an element of a document.
    pub(crate) fn blocking(code: Code, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { blocking: true, ..Self::remark(code, message) }.at(pointer)
    }

    /// A blocking finding about something outside the documents.
    pub(crate) fn refusal(code: Code, message: impl Into<String>) -> Self {
        Self { blocking: true, ..Self::remark(code, message) }
    }

    /// A finding that does not block, of the code's usual severity.
    pub(crate) fn remark(code: Code, message: impl Into<String>) -> Self {
        let severity = code.severities().first().copied().unwrap_or(Severity::High);
        let (pointer, help, source, position) = (None, None, None, None);
        Self {
            code,
            severity,
            pointer,
            message: message.into(),
            help,
            blocking: false,
            source,
            position,
            accepted: None,
        }
    }

    /// Sets another of the code's severities.
    #[must_use]
    pub(crate) fn severity(mut self, severity: Severity) -> Self {
        debug_assert!(self.code.severities().contains(&severity), "{} is never {severity:?}", self.code.as_str());
        self.severity = severity;
        self
    }

    /// Sets the pointer to an element, or to the closest one around it whose path can be printed.
    #[must_use]
    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(presentable_pointer(&pointer.into()));
        self
    }

    /// Sets the source.
    #[must_use]
    pub(crate) fn source(mut self, source: impl Into<Option<String>>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the help.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Names the source of those findings that have none.
pub(crate) fn set_source(findings: &mut [Finding], source: &str) {
    for finding in findings.iter_mut().filter(|finding| finding.source.is_none()) {
        finding.source = Some(source.to_owned());
    }
}

/// Adds findings without duplicates: a second schema reports the problems of the first one again. Each is looked up by
/// its hash, so that the time is linear in the number of findings.
pub(crate) fn add_new(findings: &mut Vec<Finding>, mut more: Vec<Finding>) {
    let known: HashSet<&Finding> = findings.iter().collect();
    more.retain(|finding| !known.contains(finding));
    findings.append(&mut more);
}

/// The maximum number of findings of one kind for one part of the input.
const TOLD: usize = 50;

/// The first findings of each kind for each part of the input; the last of them states the number of further ones.
pub(crate) fn condensed(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    let mut kinds = BTreeMap::<_, (usize, usize)>::new();
    for finding in findings {
        let part = finding.pointer.as_ref().and_then(|pointer| pointer.split('/').nth(1)).map(str::to_owned);
        let (count, last) = kinds.entry((finding.code.as_str(), finding.source.clone(), part)).or_default();
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
    use crate::rbac::risk::CATALOG;

    #[test]
    fn risk_codes_are_those_of_the_catalogue() {
        let risks = Code::ALL.iter().filter(|code| code.as_str().starts_with("risk-"));
        let entries: Vec<&str> = CATALOG.iter().map(|entry| entry.code).collect();
        assert_eq!(risks.map(|code| code.as_str()).collect::<Vec<_>>(), entries);
        for entry in CATALOG {
            let mut severities = Code::of_risk(entry.code).unwrap().severities().to_vec();
            let usual = entry.namespaced.unwrap_or(entry.cluster).into();
            assert_eq!(severities.first(), Some(&usual), "{}", entry.code);
            severities.sort();
            assert_eq!(
                severities,
                entry.levels().into_iter().map(Severity::from).collect::<Vec<_>>(),
                "{}",
                entry.code
            );
        }
    }

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
