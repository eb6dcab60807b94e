//! Failure as an interface: what was being done, to what, why it failed, what state is left, the one next step.
//! In: facts from the files that do I/O. Out: a [`Failure`] with a stable code and exit status. Pure.

use serde::{Serialize, Serializer};

use crate::{
    diagnostics::finding::{Finding, condensed},
    rbac::Tuple,
};

/// Exit statuses, as the README lists them. They stay once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for a plan: a provision would get through.
    Done = 0,
    /// Failed for a reason without a status of its own.
    Failed = 1,
    /// `plan --detailed-exitcode` only: there are changes.
    Changes = 2,
    /// Wrong command line.
    Usage = 64,
    /// Input refused before the first packet.
    Input = 65,
    /// Cluster or platform not usable.
    Unavailable = 69,
    /// An object that is not ours is in the way.
    Foreign = 73,
    /// Not now: the same may work later.
    NotNow = 75,
    /// The credential could not be proved.
    Unproved = 76,
    /// The parent credential lacks rights.
    Denied = 77,
    /// Stopped by SIGTERM or SIGINT.
    Terminated = 143,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $exit:ident;)*) => {
        /// Error codes. Each has an entry in docs/troubleshooting.md. They stay once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// The exit status that goes with it.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Code::$variant => Exit::$exit,)* }
            }
        }
    };
}

codes! {
    /// The command line makes no sense.
    Usage = "usage", Usage;
    /// The input was refused; the findings say where.
    InputRefused = "input-refused", Input;
    /// `--output` cannot be written.
    OutputNotWritable = "output-not-writable", Input;
    /// The name of the server is unknown.
    Dns = "dns", Unavailable;
    /// Nobody listens at the server's address, or it cannot be reached.
    ConnectionFailed = "connection-failed", Unavailable;
    /// The proxy on the way could not be used.
    Proxy = "proxy", Unavailable;
    /// The server's certificate is not signed by the connection's CA.
    TlsUnknownIssuer = "tls-unknown-issuer", Unavailable;
    /// TLS failed for another reason.
    Tls = "tls", Unavailable;
    /// The server's address lets in only who shows a client certificate, which the holder of a token has not.
    ClientCertificateRequired = "client-certificate-required", Unproved;
    /// No answer within its time.
    Timeout = "timeout", Unavailable;
    /// The connection broke while an answer was awaited.
    ConnectionLost = "connection-lost", Unavailable;
    /// 401: the cluster does not know the credential.
    Unauthorized = "unauthorized", Unavailable;
    /// The server answered with an error of its own (429 or 5xx).
    ServerError = "server-error", Unavailable;
    /// What answered is not a Kubernetes API.
    NotKubernetes = "not-kubernetes", Unavailable;
    /// The login command of a kubeconfig failed.
    LoginFailed = "login-failed", Unavailable;
    /// The platform could not be reached.
    PlatformUnreachable = "platform-unreachable", Unavailable;
    /// The platform refused to publish or to delete the resource.
    PlatformRefused = "platform-refused", Unavailable;
    /// An object of our name belongs to somebody else.
    ForeignObject = "foreign-object", Foreign;
    /// The namespace is being deleted.
    NamespaceTerminating = "namespace-terminating", NotNow;
    /// An object of ours is being deleted, and finalizers hold it.
    BeingDeleted = "being-deleted", NotNow;
    /// A quota of the namespace is used up.
    Quota = "quota", NotNow;
    /// Somebody else changed the object, or made it, at the same time: another run, perhaps.
    Conflict = "conflict", NotNow;
    /// The token Secret was not filled in time.
    TokenControllerAbsent = "token-controller-absent", Unproved;
    /// The token Secret disappeared while it was awaited.
    TokenSecretVanished = "token-secret-vanished", Unproved;
    /// The token belongs to another ServiceAccount.
    WrongIdentity = "wrong-identity", Unproved;
    /// The server of the artifact does not know the token: it is another cluster.
    AnotherCluster = "another-cluster", Unproved;
    /// The server does not take the token that is to be verified.
    TokenRefused = "token-refused", Unproved;
    /// The token may not do what the rules say.
    RulesNotAllowed = "rules-not-allowed", Unproved;
    /// The parent credential may not make a request that the run needs.
    MissingPermission = "missing-permission", Denied;
    /// The parent credential may not grant what it does not hold.
    Escalation = "escalation", Denied;
    /// A namespace of the request is not there, or went away while it was worked in.
    NamespaceAbsent = "namespace-absent", Failed;
    /// A ClusterRole of the request is not there.
    ClusterRoleAbsent = "cluster-role-absent", Failed;
    /// The server cannot be asked what the proof needs: it is too old, or that API is switched off.
    TooOldServer = "too-old-server", Failed;
    /// The server or an admission policy refused an object.
    Refused = "refused", Failed;
    /// The token still works after everything was deleted.
    TokenStillAccepted = "token-still-accepted", Failed;
    /// The artifact does not fit its schema.
    ArtifactInvalid = "artifact-invalid", Failed;
    /// The result could not be written.
    OutputFailed = "output-failed", Failed;
    /// Stopped by SIGTERM or SIGINT.
    Terminated = "terminated", Terminated;
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a run ended without its result.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The stable name of the cause.
    pub code: Code,
    /// What was being done, as in "applying the Role".
    pub doing: String,
    /// The object it was done to.
    pub object: Option<String>,
    /// Why it failed, in one line.
    pub cause: String,
    /// What state is left; filled by the sequence that knows what was written.
    pub state: Option<String>,
    /// The one next step.
    pub next: String,
    /// True when a write was sent whose answer never came: it may have gone through.
    pub unsettled: bool,
    /// What the parent credential lacks.
    pub missing: Vec<Tuple>,
    /// What the input was refused for.
    pub findings: Vec<Finding>,
}

impl Failure {
    /// A failure with its cause; the next step is the code's usual one.
    pub fn new(code: Code, doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            code,
            doing: doing.into(),
            object: None,
            cause: cause.into(),
            state: None,
            next: usual_next_step(code).to_owned(),
            unsettled: false,
            missing: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Names the object.
    #[must_use]
    pub fn on(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Replaces the usual next step by a more precise one.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = step.into();
        self
    }

    /// Two things done at the same time: both results, or all that is to say of what failed.
    ///
    /// # Errors
    /// The first failure, with what the second one adds.
    pub fn both<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(mut failure), Err(mut second)) => {
                failure.missing.append(&mut second.missing);
                failure.findings.append(&mut second.findings);
                failure.unsettled |= second.unsettled;
                Err(failure)
            }
            (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
        }
    }

    /// Any number of things done at the same time.
    ///
    /// # Errors
    /// The first failure, with what the others add.
    pub fn all<T>(results: impl IntoIterator<Item = Result<T, Self>>) -> Result<Vec<T>, Self> {
        let mut all = Ok(Vec::new());
        for result in results {
            all = Self::both(all, result).map(|(mut all, result)| {
                all.push(result);
                all
            });
        }
        all
    }

    /// Says what state is left, unless that is known already.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state.get_or_insert_with(|| state.into());
        self
    }

    /// The input was refused for these findings.
    #[must_use]
    pub fn input(findings: Vec<Finding>) -> Self {
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
        Code::Terminated => "run the same action again: the next run continues from the state this one left",
    }
}
