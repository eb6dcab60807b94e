//! The message of an API error: [`ApiError`] -> [`Failure`]. The only place where an API error becomes text. Pure.

use crate::{
    cluster::error::{ApiError, ApiErrorKind},
    diagnostics::error::{Code, Failure},
    k8s::{
        denial::{denied, not_grantable},
        object::held_by,
    },
    net::{error::TransportError, tls::Fault as TlsFault},
    rbac::PermissionRecord,
};

const NOT_KUBERNETES: &str = "the response is not from a Kubernetes API server";

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let failure = error.attempts.describe(error.described());
        Self { outcome_unknown: error.outcome_unknown, ..failure }
    }
}

impl ApiError {
    fn described(&self) -> Failure {
        use ApiErrorKind as Kind;

        match &self.kind {
            Kind::Denied { missing, reason } => self.denied(missing, reason),
            Kind::NotGrantable(missing) => self.about(not_grantable(&self.request.doing, missing.clone())),
            Kind::Unauthorized(text) => {
                let mut cause = "401: the cluster does not accept the credential".to_owned();
                if !text.is_empty() {
                    cause = format!("{cause}: {text}");
                }
                Failure::new(Code::Unauthorized, "logging in", cause).on(&self.request.server)
            }
            Kind::Anonymous => {
                let cause = self.stated("the server treated the request as anonymous: the credential did not reach it");
                Failure::new(Code::Unauthorized, "logging in", cause)
                    .on(&self.request.server)
                    .next("make the proxies between k8s-token and the server forward the credential, then run again")
            }
            Kind::ClientCertificateRequired => {
                let error = TransportError::Tls(TlsFault::without_certificate());
                error.advise(self.failure(error.code(), error.to_string()))
            }
            Kind::NamespaceAbsent => self.failure(Code::NamespaceAbsent, "the namespace does not exist"),
            Kind::Terminating => self.failure(Code::NamespaceTerminating, "the namespace is being deleted"),
            Kind::AlreadyExists(text) | Kind::Conflict(text) => self.failure(
                Code::Conflict,
                format!("the object was changed or created at the same time, perhaps by another run: {text}"),
            ),
            Kind::Deleted => {
                self.failure(Code::Conflict, "the object was deleted at the same time, perhaps by another run")
            }
            Kind::HeldByFinalizers(finalizers) => self.failure(Code::BeingDeleted, held_by(finalizers)),
            Kind::Quota(text) => self.failure(Code::Quota, text),
            Kind::QuotaUncounted(text) => self
                .failure(Code::Quota, text)
                .next("wait until kube-controller-manager has counted the quota, then run again"),
            Kind::AdmissionDenied(text) | Kind::DryRunUnsupported(text) | Kind::Refused(text) => {
                self.failure(Code::Refused, text)
            }
            Kind::Absent(text) => self.failure(Code::Refused, self.stated(text)),
            Kind::WebhookFailed { webhook, why } => {
                let cause = self.stated(&format!(
                    "the server cannot call the admission webhook {webhook}, which is required: {why}"
                ));
                self.failure(Code::ServerError, cause)
                    .next(format!("repair the webhook {webhook}, or delete its configuration, then run again"))
            }
            Kind::ServerError(text) => self.failure(Code::ServerError, self.server_error(text)),
            Kind::NotKubernetes(text) if text.is_empty() => {
                self.failure(Code::NotKubernetes, self.stated(NOT_KUBERNETES))
            }
            Kind::NotKubernetes(text) => {
                self.failure(Code::NotKubernetes, self.stated(&format!("{NOT_KUBERNETES}: {text}")))
            }
            Kind::ReviewUnsupported(review) => {
                let cause = format!(
                    "the server does not serve {review}, which the test of a credential requires: Kubernetes has it \
                     since 1.28, OpenShift since 4.15, unless --runtime-config or a gateway disables it"
                );
                self.failure(Code::TooOldServer, cause)
            }
            Kind::TokenSecretDeleted => {
                let cause = "the Secret was deleted before it contained a token; the token controller does that if the \
                             ServiceAccount no longer exists";
                self.failure(Code::TokenSecretVanished, cause)
            }
            Kind::TokenNotIssued(seconds) => self.failure(
                Code::TokenControllerAbsent,
                format!("the token controller issued no token within {seconds} s"),
            ),
            Kind::Unanswered(error) => self.unanswered(error, ""),
            Kind::UnknownSystemIssuer(error) => self
                .unanswered(error, "; no other CA was given")
                .next("add the cluster's CA to the kubeconfig, or set SSL_CERT_FILE to a file with it, then run again"),
        }
    }

    fn denied(&self, missing: &[PermissionRecord], reason: &str) -> Failure {
        let mut failure = denied(&self.request.doing, missing.to_vec());
        if !reason.is_empty() {
            failure.cause = format!("{}: {reason}", failure.cause);
            for finding in &mut failure.findings {
                finding.help = Some(authorizer_says(reason));
            }
        }
        self.about(failure)
    }

    fn unanswered(&self, error: &TransportError, more: &str) -> Failure {
        let cause = match self.request.object {
            Some(_) => format!("{error} ({}){more}", self.request.server),
            None => format!("{error}{more}"),
        };
        error.advise(self.failure(error.code(), cause))
    }

    fn server_error(&self, text: &str) -> String {
        match self.status {
            Some(429) if text.is_empty() => "429: the server is overloaded".to_owned(),
            Some(429) => format!("429: the server is overloaded: {text}"),
            _ => self.stated(text),
        }
    }

    fn failure(&self, code: Code, cause: impl Into<String>) -> Failure {
        self.about(Failure::new(code, &self.request.doing, cause))
    }

    fn about(&self, failure: Failure) -> Failure {
        match &self.request.object {
            Some(object) => failure.on(object.to_string()),
            None => failure.on(&self.request.server),
        }
    }

    /// A text after the HTTP status, if there is one.
    fn stated(&self, text: &str) -> String {
        match self.status {
            Some(status) => stated(status, text),
            None => text.to_owned(),
        }
    }
}

/// A text after an HTTP status.
pub(super) fn stated(status: u16, text: &str) -> String {
    if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }
}

/// The authorizer's reason for a denial, as it is printed.
pub(crate) fn authorizer_says(reason: &str) -> String {
    format!("the authorizer says: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{k8s::object::Reference, rbac::Permission};
    use rstest::rstest;

    fn error(kind: ApiErrorKind, status: Option<u16>) -> ApiError {
        let object = Reference::namespace("a");
        ApiError { status, ..ApiError::new(kind, "applying", Some(&object), "https://s") }
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[rstest]
    #[case(ApiErrorKind::ServerError(text("busy")), Some(429), "429: the server is overloaded: busy")]
    #[case(ApiErrorKind::ServerError(text("")), Some(429), "429: the server is overloaded")]
    #[case(ApiErrorKind::ServerError(text("")), Some(503), "503")]
    #[case(ApiErrorKind::NotKubernetes(text("")), None, "the response is not from a Kubernetes API server")]
    #[case(
        ApiErrorKind::NotKubernetes(text("no")),
        Some(404),
        "404: the response is not from a Kubernetes API server: no"
    )]
    #[case(ApiErrorKind::Absent(text("roles \"x\" not found")), Some(404), "404: roles \"x\" not found")]
    #[case(ApiErrorKind::Unauthorized(text("")), Some(401), "401: the cluster does not accept the credential")]
    #[case(ApiErrorKind::AdmissionDenied(text("policy 'p'")), Some(500), "policy 'p'")]
    #[case(ApiErrorKind::TokenNotIssued(60), None, "the token controller issued no token within 60 s")]
    fn cause_states_status_where_it_helps(
        #[case] kind: ApiErrorKind,
        #[case] status: Option<u16>,
        #[case] cause: &str,
    ) {
        assert_eq!(Failure::from(error(kind, status)).cause, cause);
    }

    #[test]
    fn missing_response_names_server_beside_object() {
        let lost = || ApiErrorKind::Unanswered(TransportError::Lost(text("reset")));
        let failure = Failure::from(error(lost(), None));
        assert_eq!(failure.cause, "the connection broke: reset (https://s)");
        assert_eq!(failure.object.as_deref(), Some("Namespace a"));
        let failure = Failure::from(ApiError::new(lost(), "connecting", None, "https://s"));
        assert_eq!(failure.cause, "the connection broke: reset");
        assert_eq!(failure.object.as_deref(), Some("https://s"));
    }

    #[test]
    fn unknown_outcome_is_reported_as_unsettled() {
        let error = error(ApiErrorKind::ServerError(text("")), Some(503));
        assert!(!Failure::from(error.clone()).outcome_unknown);
        assert!(Failure::from(error.after_unknown_outcome()).outcome_unknown);
    }

    #[test]
    fn authorizer_reason_becomes_help_of_finding() {
        let missing = vec![Permission::new("get", "", "pods").record()];
        let kind = ApiErrorKind::Denied { missing: missing.clone(), reason: text("ask the platform team") };
        let failure = Failure::from(error(kind, Some(403)));
        assert_eq!((failure.code, &failure.missing), (Code::MissingPermission, &missing));
        let help = failure.findings.first().and_then(|finding| finding.help.as_deref());
        assert_eq!(help, Some("the authorizer says: ask the platform team"));
    }
}
