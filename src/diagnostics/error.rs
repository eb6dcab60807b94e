//! Failures: the step that failed, its object, the cause, the resulting state, and the next step. In: facts from the
//! files that do I/O. Out: a `Failure` with a stable code and exit status. Pure.

use serde::{Serialize, Serializer};

use crate::{
    diagnostics::finding::{Finding, condensed},
    rbac::PermissionRecord,
};

/// Exit statuses, as docs/troubleshooting.md lists them. They never change once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for a plan: a provision would succeed.
    Done = 0,
    /// Failed for any other reason.
    Failed = 1,
    /// `plan --detailed-exitcode` only: there are changes.
    Changes = 2,
    /// Wrong command line.
    Usage = 64,
    /// Invalid input, found before contacting the cluster.
    Input = 65,
    /// The cluster or the platform cannot be used.
    Unavailable = 69,
    /// An object with the required name belongs to someone else.
    Foreign = 73,
    /// Not possible now; the same may succeed later.
    NotNow = 75,
    /// The credential failed its test.
    Unproved = 76,
    /// The parent credential lacks permissions.
    Denied = 77,
    /// A guardrail refuses the rules.
    Guardrail = 78,
    /// Stopped by SIGTERM or SIGINT.
    Terminated = 143,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $exit:ident;)*) => {
        /// Error codes. Each has an entry in docs/troubleshooting.md. They never change once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// Its exit status.
            pub const fn exit(self) -> Exit {
                match self { $(Code::$variant => Exit::$exit,)* }
            }
        }
    };
}

codes! {
    /// The command line is invalid.
    Usage = "usage", Usage;
    /// The input is invalid; the findings say where.
    InputRefused = "input-refused", Input;
    /// `--output` cannot be written.
    OutputNotWritable = "output-not-writable", Input;
    /// DNS does not know the server's host name.
    Dns = "dns", Unavailable;
    /// The connection to the server's address is refused, or the host is unreachable.
    ConnectionFailed = "connection-failed", Unavailable;
    /// The proxy cannot be used.
    Proxy = "proxy", Unavailable;
    /// The server's certificate is not signed by the connection's CA.
    TlsUnknownIssuer = "tls-unknown-issuer", Unavailable;
    /// TLS failed for another reason.
    Tls = "tls", Unavailable;
    /// The server only accepts clients with a client certificate, which users of a token do not have.
    ClientCertificateRequired = "client-certificate-required", Unproved;
    /// No response within the time limit.
    Timeout = "timeout", Unavailable;
    /// The connection was lost before the response.
    ConnectionLost = "connection-lost", Unavailable;
    /// 401: the cluster rejects the credential.
    Unauthorized = "unauthorized", Unavailable;
    /// The server responded with an error of its own (429 or 5xx).
    ServerError = "server-error", Unavailable;
    /// The response is not from a Kubernetes API.
    NotKubernetes = "not-kubernetes", Unavailable;
    /// The login command of a kubeconfig failed.
    LoginFailed = "login-failed", Unavailable;
    /// The platform could not be reached.
    PlatformUnreachable = "platform-unreachable", Unavailable;
    /// The platform refused to publish or to delete the resource.
    PlatformRefused = "platform-refused", Unavailable;
    /// An object with a required name belongs to someone else.
    ForeignObject = "foreign-object", Foreign;
    /// The namespace is being deleted.
    NamespaceTerminating = "namespace-terminating", NotNow;
    /// An object of the instance is being deleted, and finalizers hold it.
    BeingDeleted = "being-deleted", NotNow;
    /// A ResourceQuota of the namespace is exhausted.
    Quota = "quota", NotNow;
    /// The object was changed or created at the same time, perhaps by another run.
    Conflict = "conflict", NotNow;
    /// The token Secret was not filled in time.
    TokenControllerAbsent = "token-controller-absent", Unproved;
    /// The token Secret was deleted before it contained a token.
    TokenSecretVanished = "token-secret-vanished", Unproved;
    /// The token belongs to another ServiceAccount.
    WrongIdentity = "wrong-identity", Unproved;
    /// The published server does not know the token: it belongs to another cluster.
    AnotherCluster = "another-cluster", Unproved;
    /// verify: the server rejects the token.
    TokenRefused = "token-refused", Unproved;
    /// The token lacks requested permissions.
    RulesNotAllowed = "rules-not-allowed", Unproved;
    /// The parent credential lacks permissions for a request of the run.
    MissingPermission = "missing-permission", Denied;
    /// The parent credential may not grant permissions it does not hold.
    Escalation = "escalation", Denied;
    /// A namespace of the params does not exist, or was deleted during the run.
    NamespaceAbsent = "namespace-absent", Failed;
    /// A ClusterRole of the params does not exist.
    ClusterRoleAbsent = "cluster-role-absent", Failed;
    /// The server lacks a review that the test requires: it is too old, or the API is disabled.
    TooOldServer = "too-old-server", Failed;
    /// The server or an admission policy rejected an object.
    Refused = "refused", Failed;
    /// The token still works after everything was deleted.
    TokenStillAccepted = "token-still-accepted", Failed;
    /// The credential document does not match its schema.
    ArtifactInvalid = "artifact-invalid", Failed;
    /// The result could not be written.
    OutputFailed = "output-failed", Failed;
    /// A guardrail refuses the rules.
    Guardrail = "guardrail", Guardrail;
    /// Stopped by SIGTERM or SIGINT.
    Terminated = "terminated", Terminated;
}

impl Code {
    /// The next step that a failure of this code names unless it knows a more precise one.
    pub const fn next_step(self) -> &'static str {
        usual_next_step(self)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The failure of a run.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The stable name of the cause.
    pub(crate) code: Code,
    /// The step that failed, as in "applying the Role".
    pub(crate) doing: String,
    /// Its object.
    pub(crate) object: Option<String>,
    /// The cause, in one line.
    pub(crate) cause: String,
    /// The resulting state, set by the sequence that knows what was written.
    pub(crate) state: Option<String>,
    /// The next step for the user.
    pub(crate) next: String,
    /// Whether a write was sent without a response: it may have succeeded.
    pub(crate) outcome_unknown: bool,
    /// The permissions that the parent credential lacks.
    pub(crate) missing: Vec<PermissionRecord>,
    /// The problems of the input.
    pub(crate) findings: Vec<Finding>,
}

impl Failure {
    /// A failure with its cause; the next step is the code's usual one.
    pub(crate) fn new(code: Code, doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            code,
            doing: doing.into(),
            object: None,
            cause: cause.into(),
            state: None,
            next: code.next_step().to_owned(),
            outcome_unknown: false,
            missing: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Sets the object.
    #[must_use]
    pub(crate) fn on(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Replaces the usual next step by a more specific one.
    #[must_use]
    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next = step.into();
        self
    }

    /// The results of two concurrent operations, or a failure that combines what failed.
    ///
    /// # Errors
    /// The first failure, with missing permissions and findings of the second.
    pub(crate) fn both<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(mut failure), Err(mut second)) => {
                failure.missing.append(&mut second.missing);
                failure.findings.append(&mut second.findings);
                failure.outcome_unknown |= second.outcome_unknown;
                Err(failure)
            }
            (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
        }
    }

    /// The results of concurrent operations, or a failure that combines what failed.
    ///
    /// # Errors
    /// The first failure, with missing permissions and findings of the others.
    pub(crate) fn all<T>(results: impl IntoIterator<Item = Result<T, Self>>) -> Result<Vec<T>, Self> {
        let mut all = Ok(Vec::new());
        for result in results {
            all = Self::both(all, result).map(|(mut all, result)| {
                all.push(result);
                all
            });
        }
        all
    }

    /// Sets the resulting state, unless it is set already.
    #[must_use]
    pub(crate) fn state(mut self, state: impl Into<String>) -> Self {
        self.state.get_or_insert_with(|| state.into());
        self
    }

    /// The failure of invalid input.
    pub(crate) fn input(findings: Vec<Finding>) -> Self {
        let blocking = findings.iter().filter(|finding| finding.blocking).count();
        let problems = if blocking == 1 { "1 problem".to_owned() } else { format!("{blocking} problems") };
        let mut failure = Self::new(Code::InputRefused, "reading the input", format!("{problems} in the input"));
        failure.findings = condensed(findings);
        failure.state("nothing was sent, nothing was changed")
    }
}

const fn usual_next_step(code: Code) -> &'static str {
    match code {
        Code::Usage => "run k8s-token --help",
        Code::InputRefused => "fix the problems listed above, then run again",
        Code::OutputNotWritable | Code::OutputFailed => "choose another --output, then run again",
        Code::Dns => "check the host name in the connection's server, and DNS resolution where k8s-token runs",
        Code::ConnectionFailed => "check the server's address and port, and the network where k8s-token runs",
        Code::Proxy => {
            "check the proxy's address, login and rules, or add the server to NO_PROXY if HTTPS_PROXY names the proxy"
        }
        Code::TlsUnknownIssuer => {
            "set certificate-authority-data to the CA that signed the server's certificate, then run again"
        }
        Code::ClientCertificateRequired => {
            "put a server address into the connection that accepts clients without a client certificate, then run again"
        }
        Code::Tls => "check that the server's certificate is valid for the host in the connection",
        Code::Timeout | Code::ConnectionLost | Code::ServerError => {
            "check the health of the server, then run again: the next run continues where this one stopped"
        }
        Code::Unauthorized => "put a valid token into the connection, or log in to the cluster again, then run again",
        Code::NotKubernetes => "check that the connection's server is the URL of a Kubernetes API, including its path",
        Code::LoginFailed => "run the login command of the kubeconfig by hand to see why it fails, then run again",
        Code::PlatformUnreachable | Code::PlatformRefused => {
            "run again when Massdriver answers: what was done in the cluster is kept"
        }
        Code::ForeignObject => "choose another name, or delete that object if no one needs it",
        Code::NamespaceTerminating => "wait until the namespace is gone, then run again",
        Code::BeingDeleted => "find out what the finalizers wait for, or remove them, then run again",
        Code::NamespaceAbsent => "create the namespace, or remove it from the params, then run again",
        Code::ClusterRoleAbsent => "create the ClusterRole, or remove it from the params, then run again",
        Code::Quota => "raise the quota or delete what is not needed, then run again",
        Code::TokenControllerAbsent => "check the token controller of kube-controller-manager, then run again",
        Code::TokenSecretVanished => "find out what deletes Secrets in this namespace, then run again",
        Code::WrongIdentity | Code::RulesNotAllowed => {
            "run again; if the error persists, find out what changes these objects"
        }
        Code::TokenRefused => "provision again, and distribute the new credential file",
        Code::AnotherCluster => "check that the connection's server and CA belong to one cluster",
        Code::MissingPermission => "grant the listed permissions to the parent credential, then run again",
        Code::Escalation => {
            "grant the parent credential the listed permissions, or escalate and bind on Roles, or request fewer \
             permissions; then run again"
        }
        Code::TooOldServer => "upgrade the cluster to Kubernetes 1.28 or later, or enable that API, then run again",
        Code::Refused => "change what the server objects to, then run again",
        Code::Conflict => "run again",
        Code::TokenStillAccepted => "look for a proxy or another cluster that answers in place of the API server",
        Code::ArtifactInvalid => "compare bundle/schema-artifacts.json with the connection, or set output_shape",
        Code::Guardrail => {
            "remove or narrow these rules, or accept their risks in the guardrails of the params; then run again"
        }
        Code::Terminated => "run the same action again: the next run continues from the state this one left",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;

    use super::*;
    use crate::diagnostics::finding;

    #[rstest]
    #[case(Exit::Done, 0)]
    #[case(Exit::Failed, 1)]
    #[case(Exit::Changes, 2)]
    #[case(Exit::Usage, 64)]
    #[case(Exit::Input, 65)]
    #[case(Exit::Unavailable, 69)]
    #[case(Exit::Foreign, 73)]
    #[case(Exit::NotNow, 75)]
    #[case(Exit::Unproved, 76)]
    #[case(Exit::Denied, 77)]
    #[case(Exit::Guardrail, 78)]
    #[case(Exit::Terminated, 143)]
    fn exit_status_is_as_released(#[case] exit: Exit, #[case] status: u8) {
        assert_eq!(exit as u8, status);
    }

    /// Exit statuses 0 and 2 are those of success.
    #[test]
    fn each_code_is_distinct_and_fails() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let name = code.as_str();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
            assert!(!matches!(code.exit(), Exit::Done | Exit::Changes), "{name}");
            assert_eq!(serde_json::to_value(code).unwrap(), name);
        }
    }

    /// The words that a next step starts with.
    const VERBS: [&str; 17] = [
        "change",
        "check",
        "choose",
        "compare",
        "create",
        "find",
        "fix",
        "grant",
        "look",
        "provision",
        "put",
        "raise",
        "remove",
        "run",
        "set",
        "upgrade",
        "wait",
    ];

    #[test]
    fn next_step_starts_with_a_verb() {
        for code in Code::ALL {
            let step = code.next_step();
            assert!(VERBS.contains(&step.split(' ').next().unwrap()), "{}: {step}", code.as_str());
            assert!(!step.ends_with('.') && !step.contains("  "), "{}: {step}", code.as_str());
        }
    }

    #[test]
    fn next_step_is_replaced_and_state_is_kept() {
        let failure = Failure::new(Code::Quota, "applying the Role", "exceeded");
        assert_eq!((failure.next.as_str(), &failure.state, &failure.object), (Code::Quota.next_step(), &None, &None));
        let failure = failure.on("Role a").next("wait").state("nothing was written").state("unknown");
        assert_eq!(failure.next, "wait");
        assert_eq!(failure.state.as_deref(), Some("nothing was written"), "the sequence nearest to the cause knows it");
        assert_eq!(failure.object.as_deref(), Some("Role a"));
    }

    /// A failure with one finding and one missing permission, both of this name.
    fn failure(name: &str, outcome_unknown: bool) -> Failure {
        let missing = PermissionRecord::Url { verb: "get".to_owned(), url: name.to_owned() };
        let findings = vec![Finding::refusal(finding::Code::Schema, name)];
        Failure { missing: vec![missing], findings, outcome_unknown, ..Failure::new(Code::Conflict, name, "") }
    }

    /// What a failure combines: its step, the names of its permissions and findings, whether the outcome is unknown.
    fn combined(failure: Failure) -> (String, Vec<String>, bool) {
        let named = |record| if let PermissionRecord::Url { url, .. } = record { url } else { panic!("{record:?}") };
        let permissions: Vec<String> = failure.missing.into_iter().map(named).collect();
        let findings: Vec<String> = failure.findings.into_iter().map(|finding| finding.message).collect();
        assert_eq!(permissions, findings);
        (failure.doing, findings, failure.outcome_unknown)
    }

    /// Columns: the results, `a` for a success, `!` for a failure and `?` for one with an unknown outcome; then the step
    /// of the failure, its findings and whether its outcome is unknown.
    #[rstest]
    #[case::none(&[], None)]
    #[case::successes(&["a", "b"], None)]
    #[case::first_fails(&["!a", "b"], Some(("!a", &["!a"][..], false)))]
    #[case::last_fails(&["a", "!b"], Some(("!b", &["!b"][..], false)))]
    #[case::all_fail(&["!a", "!b", "!c"], Some(("!a", &["!a", "!b", "!c"][..], false)))]
    #[case::first_outcome_is_unknown(&["?a", "!b"], Some(("?a", &["?a", "!b"][..], true)))]
    #[case::later_outcome_is_unknown(&["!a", "b", "?c"], Some(("!a", &["!a", "?c"][..], true)))]
    fn concurrent_failures_are_combined_under_the_first(
        #[case] results: &[&str],
        #[case] expected: Option<(&str, &[&str], bool)>,
    ) {
        let result = |name: &&str| {
            if name.starts_with(['!', '?']) {
                Err(failure(name, name.starts_with('?')))
            } else {
                Ok((*name).to_owned())
            }
        };
        let all = Failure::all(results.iter().map(result));
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        match expected {
            None => assert_eq!(all.unwrap(), owned(results), "in their order"),
            Some((doing, findings, unknown)) => {
                assert_eq!(combined(all.unwrap_err()), (doing.to_owned(), owned(findings), unknown));
            }
        }
        if let [one, other] = results {
            let both = Failure::both(result(one), result(other)).map(|(one, other)| vec![one, other]);
            assert_eq!(both.map_err(combined), Failure::all(results.iter().map(result)).map_err(combined));
        }
    }

    #[rstest]
    #[case::one(1, 1, "1 problem in the input", 2)]
    #[case::two(2, 0, "2 problems in the input", 2)]
    #[case::more_than_are_listed(51, 0, "51 problems in the input", 50)]
    fn blocking_findings_of_input_are_counted(
        #[case] blocking: usize,
        #[case] remarks: usize,
        #[case] cause: &str,
        #[case] listed: usize,
    ) {
        let problems = std::iter::repeat_n(Finding::refusal(finding::Code::Schema, "is wrong"), blocking);
        let remarks = std::iter::repeat_n(Finding::remark(finding::Code::UnknownParam, "has no effect"), remarks);
        let failure = Failure::input(problems.chain(remarks).collect());
        assert_eq!((failure.code, failure.cause.as_str()), (Code::InputRefused, cause));
        assert_eq!(failure.findings.len(), listed);
        assert_eq!(failure.state.as_deref(), Some("nothing was sent, nothing was changed"));
    }
}
