//! API errors: why a request to the API server failed, as a type to match on. `failure.rs` turns it into text. Pure.

use crate::{
    k8s::object::Reference,
    net::{error::TransportError, retry::RetryState, tls::Kind as TlsKind},
    rbac::PermissionRecord,
};

/// The failure of one request to the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    /// Why it failed.
    pub(crate) kind: ApiErrorKind,
    /// What was requested.
    pub(crate) request: RequestInfo,
    /// The HTTP status of the response, if there was one.
    pub(crate) status: Option<u16>,
    /// Whether a write was sent that the server may have carried out.
    pub(crate) outcome_unknown: bool,
    /// The attempts that were made.
    pub(crate) attempts: RetryState,
}

/// The parts of a request that a failure names.
#[derive(Clone, Debug)]
pub(crate) struct RequestInfo {
    /// The operation, as in "applying".
    pub(crate) doing: String,
    /// The object, if the request is about one.
    pub(crate) object: Option<Reference>,
    /// The URL of the server.
    pub(crate) server: String,
}

/// Why a request failed. Texts come from outside and are sanitized.
#[derive(Clone, Debug)]
pub(crate) enum ApiErrorKind {
    /// The authorizer denies the request; `reason` is what it adds, or empty.
    Denied {
        /// The permissions that are missing for the request.
        missing: Vec<PermissionRecord>,
        /// The authorizer's explanation.
        reason: String,
    },
    /// RBAC's escalation check refuses a grant beyond the permissions of the granter.
    NotGrantable(Vec<PermissionRecord>),
    /// 401, with the server's message if it says more than that.
    Unauthorized(String),
    /// The server treated the request as anonymous: the credential was lost on the way.
    Anonymous,
    /// A gateway admits only clients that present a certificate.
    ClientCertificateRequired,
    /// The object does not exist.
    Absent(String),
    /// The namespace of an apply does not exist.
    NamespaceAbsent,
    /// The namespace is being deleted.
    Terminating,
    /// An object of this name exists already.
    AlreadyExists(String),
    /// The object was changed or created concurrently.
    Conflict(String),
    /// The object was deleted concurrently.
    Deleted,
    /// The object is being deleted, and these finalizers delay that.
    HeldByFinalizers(Vec<String>),
    /// A ResourceQuota is exhausted.
    Quota(String),
    /// A ResourceQuota whose usage has not been computed yet.
    QuotaUncounted(String),
    /// An admission policy or webhook denies the request.
    AdmissionDenied(String),
    /// A dry run was refused because of an admission webhook with side effects.
    DryRunUnsupported(String),
    /// A required admission webhook failed.
    WebhookFailed {
        /// Its name.
        webhook: String,
        /// Why it failed.
        why: String,
    },
    /// The server refuses the request for another reason.
    Refused(String),
    /// The server is overloaded or failed (429, 408 or 5xx).
    ServerError(String),
    /// The response is not from a Kubernetes API server.
    NotKubernetes(String),
    /// The server does not serve this review, which the test of a credential requires.
    ReviewUnsupported(String),
    /// The token Secret was deleted before the token controller filled it.
    TokenSecretDeleted,
    /// The token controller did not fill the token Secret within these seconds.
    TokenNotIssued(u64),
    /// There was no connection or no response.
    Unanswered(TransportError),
    /// The server's certificate is not signed by a CA of the system, and no other CA was given.
    UnknownSystemIssuer(TransportError),
}

impl ApiError {
    /// An error without a response.
    pub(crate) fn new(kind: ApiErrorKind, doing: &str, object: Option<&Reference>, server: &str) -> Self {
        let request = RequestInfo { doing: doing.to_owned(), object: object.cloned(), server: server.to_owned() };
        Self { kind, request, status: None, outcome_unknown: false, attempts: RetryState::default() }
    }

    /// The error of a review that the server does not serve.
    pub(crate) fn review_unsupported(doing: &str, review: &str, server: &str) -> Self {
        Self::new(ApiErrorKind::ReviewUnsupported(review.to_owned()), doing, None, server)
    }

    /// Whether the authorizer denied the request.
    pub(crate) const fn is_denied(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Denied { .. })
    }

    /// Whether the server rejected the credential.
    pub(crate) const fn is_unauthorized(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Unauthorized(_) | ApiErrorKind::Anonymous)
    }

    /// Whether the object does not exist.
    pub(crate) const fn is_absent(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Absent(_) | ApiErrorKind::NamespaceAbsent)
    }

    /// Whether the server or an admission plugin refuses the request itself, for any user.
    pub(crate) const fn is_refused(&self) -> bool {
        use ApiErrorKind::{Absent, AdmissionDenied, DryRunUnsupported, Refused};
        matches!(self.kind, Absent(_) | AdmissionDenied(_) | DryRunUnsupported(_) | Refused(_))
    }

    /// Whether the object was written by another client at the same time.
    pub(crate) const fn is_conflict(&self) -> bool {
        use ApiErrorKind::{AlreadyExists, Conflict, Deleted};
        matches!(self.kind, AlreadyExists(_) | Conflict(_) | Deleted)
    }

    /// Whether a conflict may be with an earlier attempt of the same request, whose response was lost.
    pub(crate) fn may_be_own_write(&self) -> bool {
        let is_denial = matches!(self.kind, ApiErrorKind::AdmissionDenied(_));
        self.status == Some(409) && self.attempts.outcome_unknown() && !is_denial
    }

    /// Whether the time limit for a response passed.
    pub(crate) const fn is_timeout(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Unanswered(TransportError::Timeout(_)))
    }

    /// Whether the cause is the state of the server or of the network, and not the request.
    pub(crate) const fn is_transient(&self) -> bool {
        use ApiErrorKind::{ServerError, Unanswered, WebhookFailed};
        use TransportError::{Dns, Lost, Refused, Timeout};
        match &self.kind {
            ServerError(_) | WebhookFailed { .. } => true,
            Unanswered(error) => matches!(error, Dns | Lost(_) | Refused(_) | Timeout(_)),
            _ => false,
        }
    }

    /// Whether the server's certificate was rejected, or TLS failed otherwise.
    pub(crate) fn is_tls(&self) -> bool {
        match &self.kind {
            ApiErrorKind::UnknownSystemIssuer(_) => true,
            ApiErrorKind::Unanswered(TransportError::Tls(transient)) => transient.kind != TlsKind::WantsCertificate,
            _ => false,
        }
    }

    /// Whether the server admits only clients that present a certificate.
    pub(crate) fn is_client_certificate_required(&self) -> bool {
        match &self.kind {
            ApiErrorKind::ClientCertificateRequired => true,
            ApiErrorKind::Unanswered(TransportError::Tls(transient)) => transient.kind == TlsKind::WantsCertificate,
            _ => false,
        }
    }

    /// The same error, after an earlier write that may have been carried out.
    #[must_use]
    pub(crate) fn after_unknown_outcome(self) -> Self {
        Self { outcome_unknown: true, ..self }
    }
}
