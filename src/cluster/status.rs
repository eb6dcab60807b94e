//! Status responses of an API server: what a refusal means, and which API error it is. Pure.
//!
//! A policy or webhook may deny a request with any status code and any text, including one that imitates another
//! component. The server prefixes such text, and only these prefixes are compared: a denial is recognized by its source.

use std::{fmt, time::Duration};

use serde_json::Value;

use crate::{
    cluster::{
        error::{ApiError, ApiErrorKind},
        failure::stated,
    },
    diagnostics::text::{sanitize, sanitize_body},
    k8s::{denial::needed, object::Reference},
    net::{
        error::TransportError,
        retry::{Outcome, RetryState, Transient},
    },
    rbac::{Permission, PermissionRecord, PermissionTarget, Rule},
};

/// The user of a request without a login (k8s.io/apiserver/pkg/authentication/user).
const ANONYMOUS: &str = "system:anonymous";
/// The complete message of a plain 401.
const UNAUTHORIZED: &str = "Unauthorized";
/// The response of nginx to a client without a certificate (`ssl_verify_client`), over an established TLS session.
const WITHOUT_CERTIFICATE: &str = "No required SSL certificate was sent";
/// The prefix for a quota whose usage has not been computed.
const UNCOUNTED_QUOTA: &str = "status unknown for quota: ";
/// The maximum length of a quoted denial: policies explain themselves at length.
const LONGEST_DENIAL: usize = 1000;

/// An error response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// The HTTP status.
    pub(crate) code: u16,
    /// Whether it is a Kubernetes Status: overloaded servers, gateways and proxies respond with text.
    from_kubernetes: bool,
    message: String,
    reason: String,
    /// Resource, group and name of the object, as the server understood the request.
    resource: String,
    group: String,
    name: String,
    causes: Vec<String>,
    after: Option<Duration>,
}

impl Status {
    /// The parsed response. Field by field, because a webhook may fill in values of any type.
    pub(crate) fn read(code: u16, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        if document.get("kind").and_then(Value::as_str) != Some("Status") {
            let text = String::from_utf8_lossy(body);
            // nginx responds with an HTML page.
            let shuts_out = code == 400 && text.contains(WITHOUT_CERTIFICATE);
            let message = if shuts_out { WITHOUT_CERTIFICATE.to_owned() } else { sanitize_body(&text, 300) };
            return Self { code, message, ..Self::default() };
        }
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let causes = document.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
        let after = document.pointer("/details/retryAfterSeconds").and_then(Value::as_u64).filter(|after| *after > 0);
        Self {
            code,
            from_kubernetes: true,
            message: text("/message"),
            reason: text("/reason"),
            resource: text("/details/kind"),
            group: text("/details/group"),
            name: text("/details/name"),
            causes: causes.filter_map(|cause| Some(cause.get("reason")?.as_str()?.to_owned())).collect(),
            after: after.map(Duration::from_secs),
        }
    }

    /// The transient failure that it reports, if it is one; `after` is the `Retry-After` header.
    pub(crate) fn transient(&self, after: Option<Duration>) -> Option<Transient> {
        let after = after.or(self.after);
        match self.meaning() {
            Meaning::Denial(_) | Meaning::UnknownField => None,
            // Admission comes before the storage.
            Meaning::WebhookFailed { .. } | Meaning::NotReady => {
                let what = format!("{}: {}", self.code, sanitize(&self.message, 120));
                Some(Transient { what, outcome: Outcome::NotSent, after })
            }
            _ => Transient::of_status(self.code, &self.message, after),
        }
    }

    /// Whether the server rejects the login. Authentication comes before everything else.
    pub(crate) fn is_unknown_login(&self) -> bool {
        self.code == 401 && !self.is_denial()
    }

    /// Whether the server denied an anonymous request.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self.meaning(), Meaning::Unauthorized(denial) if denial.user == ANONYMOUS)
    }

    fn is_denial(&self) -> bool {
        matches!(self.meaning(), Meaning::Denial(_))
    }

    /// The component that refuses, and why.
    fn meaning(&self) -> Meaning<'_> {
        let message = self.message.as_str();
        if !self.from_kubernetes {
            return if message == WITHOUT_CERTIFICATE { Meaning::NoClientCertificate } else { Meaning::Other };
        }
        // k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go
        if let Some((_, rest)) = message.strip_prefix("admission webhook ").and_then(quoted) {
            return match rest {
                " does not support dry run" => Meaning::NoDryRun,
                _ => Meaning::Denial(message),
            };
        }
        // k8s.io/apiserver/pkg/admission/plugin/policy/generic: of a MutatingAdmissionPolicy
        if ["policy '", "policy \""].iter().any(|head| message.starts_with(head))
            && message.contains(" denied request: ")
        {
            return Meaning::Denial(message);
        }
        // k8s.io/apiserver/pkg/util/webhook/error.go
        if let Some(why) = message.strip_prefix("Internal error occurred: failed calling webhook ")
            && let Some((webhook, why)) = quoted(why)
        {
            return Meaning::WebhookFailed { webhook, why: why.trim_start_matches([':', ';', ' ']) };
        }
        if self.code == 500 && message.starts_with("failed to create typed patch object") {
            return Meaning::UnknownField;
        }
        if self.code == 404
            && self.reason == "NotFound"
            && (self.resource.as_str(), self.group.as_str()) == ("namespaces", "")
        {
            return Meaning::NoNamespace;
        }
        let Some(words) = self.forbidden() else { return Meaning::Other };
        if words.starts_with("ValidatingAdmissionPolicy '") {
            return Meaning::Denial(words);
        }
        if self.code != 403 {
            return Meaning::Other;
        }
        let quota = ["exceeded quota: ", "insufficient quota to consume: ", UNCOUNTED_QUOTA];
        if let Some(denial) = Unauthorized::parse(words, &self.name) {
            Meaning::Unauthorized(denial)
        } else if words.starts_with("user \"")
            && words.contains("is attempting to grant RBAC permissions not currently held")
        {
            Meaning::Escalation(words)
        } else if self.causes.iter().any(|cause| cause == "NamespaceTerminating") {
            Meaning::Terminating
        } else if quota.iter().any(|head| words.starts_with(head)) {
            Meaning::Quota(words)
        } else if words == "not yet ready to handle request" {
            Meaning::NotReady
        } else {
            Meaning::Other
        }
    }

    /// The kind of a refusal that is only known by its code and reason.
    fn kind_by_code(&self, text: String) -> ApiErrorKind {
        use ApiErrorKind as Kind;

        match self.code {
            401 if text == UNAUTHORIZED => Kind::Unauthorized(String::new()),
            401 => Kind::Unauthorized(text),
            408 | 429 | 500..=599 => Kind::ServerError(text),
            _ if !self.from_kubernetes => Kind::NotKubernetes(text),
            404 if self.reason == "NotFound" => Kind::Absent(text),
            409 if self.reason == "AlreadyExists" => Kind::AlreadyExists(text),
            409 => Kind::Conflict(text),
            code => Kind::Refused(stated(code, &text)),
        }
    }

    /// The text after `roles.rbac.authorization.k8s.io "demo" is forbidden: `, the prefix of what the server's own
    /// components forbid (k8s.io/apimachinery/pkg/api/errors, NewForbidden).
    fn forbidden(&self) -> Option<&str> {
        if self.resource.is_empty() {
            return self.message.strip_prefix("forbidden: ");
        }
        let rest = self.message.strip_prefix(&self.resource)?;
        let rest = if self.group.is_empty() { rest } else { rest.strip_prefix('.')?.strip_prefix(&self.group)? };
        let rest = if self.name.is_empty() { rest } else { quoted(rest.strip_prefix(' ')?)?.1 };
        rest.strip_prefix(" is forbidden: ")
    }
}

/// The component that refuses a request, and why.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'s> {
    /// An admission policy or webhook denies the request, with this message.
    Denial(&'s str),
    /// A webhook with side effects prevents a dry run.
    NoDryRun,
    /// A required webhook failed.
    WebhookFailed { webhook: &'s str, why: &'s str },
    /// A gateway admits only clients that present a certificate.
    NoClientCertificate,
    /// A component of the server has not synced its caches.
    NotReady,
    /// The authorizer, RBAC or another.
    Unauthorized(Unauthorized<'s>),
    /// RBAC's escalation check.
    Escalation(&'s str),
    /// The namespace is being deleted.
    Terminating,
    /// The namespace does not exist.
    NoNamespace,
    /// A ResourceQuota.
    Quota(&'s str),
    /// An apply with an unknown field, which is a permanent 500.
    UnknownField,
    /// A refusal that is only known by its HTTP status.
    Other,
}

/// A denial by the authorizer, in its exact form (k8s.io/apiserver/pkg/endpoints/handlers/responsewriters):
/// `User "x" cannot get resource "pods" in API group "" in the namespace "a": because`.
#[derive(Debug, PartialEq, Eq)]
struct Unauthorized<'s> {
    user: &'s str,
    permission: Permission<'s>,
    /// The authorizer's explanation, or empty.
    reason: &'s str,
}

impl<'s> Unauthorized<'s> {
    fn parse(words: &'s str, name: &'s str) -> Option<Self> {
        let (user, rest) = quoted(words.strip_prefix("User ")?)?;
        let (verb, rest) = rest.strip_prefix(" cannot ")?.split_once(' ')?;
        let (namespace, target, rest) = if let Some(path) = rest.strip_prefix("path ") {
            let (path, rest) = quoted(path)?;
            (None, PermissionTarget::Url(path), rest)
        } else {
            let (resource, rest) = quoted(rest.strip_prefix("resource ")?)?;
            let (group, rest) = quoted(rest.strip_prefix(" in API group ")?)?;
            let (namespace, rest) = match rest.strip_prefix(" in the namespace ") {
                Some(namespace) => quoted(namespace).map(|(namespace, rest)| (Some(namespace), rest))?,
                None => (None, rest.strip_prefix(" at the cluster scope")?),
            };
            let name = Some(name).filter(|name| !name.is_empty());
            (namespace, PermissionTarget::Resource { group, resource, name }, rest)
        };
        let reason = if rest.is_empty() { rest } else { rest.strip_prefix(": ")? };
        Some(Self { user, permission: Permission { namespace, target, verb }, reason })
    }
}

/// The Go-quoted string at the start of a text, and the rest.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.find(|char| {
        let ends = char == '"' && !escaped;
        escaped = char == '\\' && !escaped;
        ends
    })?;
    Some((&inner[..end], &inner[end + 1..]))
}

/// A request, as its errors describe it.
pub(crate) struct Attempt<'a> {
    /// As in "applying".
    pub(crate) doing: &'a str,
    /// The verb that RBAC checks.
    pub(crate) verb: &'a str,
    /// The object, if the request is about one.
    pub(crate) object: Option<&'a Reference>,
    /// The target otherwise: a review or a path.
    pub(crate) target: Option<PermissionTarget<'a>>,
    /// Whether it stores something when it succeeds.
    pub(crate) stores: bool,
    /// The server.
    pub(crate) server: &'a str,
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            Some(object) if !object.name.is_empty() => write!(f, "{} {object}", self.doing),
            _ => f.write_str(self.doing),
        }
    }
}

impl Attempt<'_> {
    /// An error of this request without a response.
    pub(crate) fn error(&self, kind: ApiErrorKind) -> ApiError {
        ApiError::new(kind, self.doing, self.object, self.server)
    }

    /// The error of a response that is not a JSON object. A write may have been carried out.
    pub(crate) fn not_kubernetes(&self) -> ApiError {
        ApiError { outcome_unknown: self.stores, ..self.error(ApiErrorKind::NotKubernetes(String::new())) }
    }

    /// The error of a missing response. A write may have been carried out.
    pub(crate) fn unanswered(&self, error: TransportError, attempts: RetryState) -> ApiError {
        ApiError { attempts, outcome_unknown: self.stores, ..self.error(ApiErrorKind::Unanswered(error)) }
    }

    /// The error of a refusal, after these attempts. An earlier one may have been carried out.
    pub(crate) fn refused(&self, status: &Status, attempts: RetryState) -> ApiError {
        let kind = self.kind(status);
        // A gateway, or a server that gave up waiting, does not know the outcome of a write.
        let unknown = matches!(kind, ApiErrorKind::ServerError(_)) && matches!(status.code, 408 | 500..=599);
        let outcome_unknown = self.stores && (unknown || attempts.outcome_unknown());
        ApiError { status: Some(status.code), outcome_unknown, attempts, ..self.error(kind) }
    }

    fn kind(&self, status: &Status) -> ApiErrorKind {
        use ApiErrorKind as Kind;

        let text = sanitize(&status.message, 300);
        match status.meaning() {
            Meaning::Denial(words) => Kind::AdmissionDenied(sanitize(words, LONGEST_DENIAL)),
            Meaning::NoDryRun => Kind::DryRunUnsupported(text),
            Meaning::UnknownField => Kind::Refused(text),
            Meaning::WebhookFailed { webhook, why } => {
                Kind::WebhookFailed { webhook: sanitize(webhook, 253), why: sanitize(why, 300) }
            }
            Meaning::NoClientCertificate => Kind::ClientCertificateRequired,
            Meaning::NotReady => Kind::ServerError(text),
            Meaning::Unauthorized(denial) if denial.user == ANONYMOUS => Kind::Anonymous,
            Meaning::Unauthorized(denial) => match self.missing(&denial) {
                Some(missing) => Kind::Denied { missing: vec![missing], reason: sanitize(denial.reason, 300) },
                None => Kind::Refused(stated(status.code, &text)),
            },
            Meaning::Escalation(words) => {
                let namespace = self.object.and_then(|object| object.namespace.as_deref());
                Kind::NotGrantable(not_held(words, namespace))
            }
            Meaning::Terminating => Kind::Terminating,
            Meaning::NoNamespace if self.verb == "patch" => Kind::NamespaceAbsent,
            Meaning::Quota(words) if words.starts_with(UNCOUNTED_QUOTA) => Kind::QuotaUncounted(sanitize(words, 300)),
            Meaning::Quota(words) => Kind::Quota(sanitize(words, 300)),
            Meaning::NoNamespace | Meaning::Other => status.kind_by_code(text),
        }
    }

    /// The permission that the authorizer denied, if the denial is about this request: the object or the review, with
    /// the verb that the server names (an apply of an absent object requires `create` in addition to `patch`). For a
    /// request with impersonation, that permission is checked first.
    fn missing(&self, denial: &Unauthorized<'_>) -> Option<PermissionRecord> {
        let Permission { target, verb, .. } = denial.permission;
        if verb.starts_with("impersonate") {
            return Some(denial.permission.record());
        }
        let expected = verb == self.verb || (self.verb == "patch" && verb == "create");
        match (self.object, target) {
            (Some(object), PermissionTarget::Resource { group, resource, .. }) => {
                let same = (group, resource) == (object.kind.group(), object.kind.resource());
                (expected && same).then(|| needed(verb, object))
            }
            (None, target) => (expected && self.target == Some(target)).then(|| denial.permission.record()),
            (Some(_), PermissionTarget::Url(_)) => None,
        }
    }
}

/// The permissions that the escalation check lists, one rule a line:
/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
fn not_held(message: &str, namespace: Option<&str>) -> Vec<PermissionRecord> {
    let mut records = Vec::new();
    for line in message.lines().filter(|line| line.starts_with('{')) {
        let rule = Rule {
            api_groups: go_list(line, "APIGroups"),
            resources: go_list(line, "Resources"),
            resource_names: go_list(line, "ResourceNames"),
            non_resource_urls: go_list(line, "NonResourceURLs"),
            verbs: go_list(line, "Verbs"),
        };
        // Non-resource URLs too: the server requires the granter to hold them even if a binding does not grant them.
        records.extend(rule.permissions(None).map(|permission| permission.within(namespace).record()));
    }
    records
}

/// The strings of `key:["a" "b"]`. Go quotes like JSON, for everything that can occur in a rule.
fn go_list(line: &str, key: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once(&format!("{key}:[")) else { return Vec::new() };
    let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    std::iter::from_fn(|| strings.next()?.ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnostics::error::{Code, Failure},
        k8s::object::Kind,
    };
    use rstest::rstest;
    use serde_json::json;

    const USER: &str = "alice";

    fn read(mut status: Value) -> Status {
        status["kind"] = json!("Status");
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
        Status::read(code, status.to_string().as_bytes())
    }

    /// A refusal of the API server for the Role.
    fn forbidden(code: u16, reason: &str, words: &str) -> Status {
        let details = json!({"name": "demo-token", "group": "rbac.authorization.k8s.io", "kind": "roles"});
        let message = format!("roles.rbac.authorization.k8s.io \"demo-token\" is forbidden: {words}");
        read(json!({"code": code, "reason": reason, "message": message, "details": details}))
    }

    fn error(status: &Status, attempts: RetryState) -> ApiError {
        let object = Reference::new(Kind::Role, "a", "demo-token");
        let attempt = Attempt {
            doing: "applying",
            verb: "patch",
            object: Some(&object),
            target: None,
            stores: true,
            server: "https://s",
        };
        attempt.refused(status, attempts)
    }

    fn judge(status: &Status) -> Failure {
        error(status, RetryState::default()).into()
    }

    fn cannot(user: &str, verb: &str, resource: &str) -> String {
        format!(
            "User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"rbac.authorization.k8s.io\" in the \
             namespace \"a\""
        )
    }

    #[test]
    fn escalation_lists_every_permission_once() {
        let words = "user \"alice\" (groups=[\"g1\" \"g2\"]) is attempting to grant RBAC permissions not currently held:\n\
            {APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"a\"], Verbs:[\"get\" \"list\"]}\n\
            {APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"*\"]}";
        let failure = judge(&forbidden(403, "Forbidden", words));
        assert_eq!(failure.code, Code::Escalation);
        assert_eq!(
            failure.missing,
            [
                Permission::new("get", "", "secrets").named("a").within(Some("a")).record(),
                Permission::new("list", "", "secrets").named("a").within(Some("a")).record(),
                Permission::new("*", "apps", "deployments").within(Some("a")).record(),
            ]
        );
        assert!(failure.cause.contains("wildcard"), "{}", failure.cause);
    }

    #[rstest]
    #[case(404, r#"{"kind": "Status", "reason": "NotFound", "message": "roles \"x\" not found"}"#, true)]
    #[case(
        404,
        r#"{"kind": "Status", "reason": "NotFound",
        "message": "admission webhook \"w\" denied the request: roles \"x\" not found"}"#,
        false
    )]
    #[case(404, "404 page not found\n", false)]
    #[case(404, r#"{"error": "no such route"}"#, false)]
    #[case(404, r#"{"reason": "NotFound", "message": "a gateway's"}"#, false)]
    #[case(410, r#"{"kind": "Status", "reason": "Expired"}"#, false)]
    fn only_api_server_reports_absence(#[case] code: u16, #[case] text: &str, #[case] absent: bool) {
        assert_eq!(error(&Status::read(code, text.as_bytes()), RetryState::default()).is_absent(), absent);
    }

    #[rstest]
    #[case(429, "Too many requests, please try again later.", Some((429, Some(7))))]
    #[case(503, r#"{"message": "no healthy upstream"}"#, Some((503, Some(7))))]
    #[case(500, r#"{"kind": "Status", "reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}"#, Some((500, Some(7))))]
    #[case(500, r#"{"kind": "Status", "message": "failed to create typed patch object (x)"}"#, None)]
    #[case(409, r#"{"kind": "Status", "reason": "Conflict"}"#, None)]
    fn overload_is_recognized_in_every_form(
        #[case] code: u16,
        #[case] text: &str,
        #[case] expected: Option<(u16, Option<u64>)>,
    ) {
        let status = Status::read(code, text.as_bytes());
        let asked = status.transient(Some(Duration::from_secs(7)));
        let asked = asked.map(|transient| (status.code, transient.after.map(|after| after.as_secs())));
        assert_eq!(asked, expected, "a header wins");
    }

    #[test]
    fn retry_delay_is_read_from_status_details() {
        let status = read(json!({"code": 500, "reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}));
        assert_eq!(status.transient(None).unwrap().after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn html_body_is_not_quoted() {
        let status = Status::read(502, b"<html><h1>Bad Gateway</h1>");
        assert_eq!(status.transient(None).unwrap().what, "502: an HTML page");
    }

    #[test]
    fn anonymous_denial_is_recognized() {
        assert!(forbidden(403, "Forbidden", &cannot(ANONYMOUS, "get", "roles")).is_anonymous());
        assert!(!forbidden(403, "Forbidden", &cannot(USER, "get", "roles")).is_anonymous());
    }

    #[test]
    fn authorizer_denial_keeps_verb_and_reason() {
        let failure =
            judge(&forbidden(403, "Forbidden", &(cannot(USER, "create", "roles") + ": ask the platform team")));
        assert_eq!(failure.code, Code::MissingPermission);
        let permission = Permission::new("create", "rbac.authorization.k8s.io", "roles").named("demo-token");
        assert_eq!(failure.missing, [permission.within(Some("a")).record()]);
        assert!(failure.cause.ends_with("in namespace a: ask the platform team"), "{}", failure.cause);
    }

    #[rstest]
    #[case::name_of_the_directory("https://login.example/tenant#7")]
    #[case::domain(r"ACME\\alice")]
    #[case::quotation_marks(r#"a \"friend\" cannot get resource \"pods\""#)]
    #[case::forged(r#"x\" is forbidden: "#)]
    fn denial_is_recognized_for_any_user_name(#[case] user: &str) {
        assert_eq!(judge(&forbidden(403, "Forbidden", &cannot(user, "patch", "roles"))).code, Code::MissingPermission);
    }

    #[test]
    fn denial_of_another_request_is_quoted() {
        for words in
            [cannot(USER, "patch", "secrets"), cannot(USER, "delete", "roles"), cannot(USER, "patch", "roles/x")]
        {
            let failure = judge(&forbidden(403, "Forbidden", &words));
            assert_eq!(failure.code, Code::Refused, "{words}");
            assert!(failure.cause.contains(&words), "{}", failure.cause);
        }
    }

    #[test]
    fn impersonation_is_a_missing_permission() {
        let message = "users \"boss\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" \
            at the cluster scope";
        let details = json!({"name": "boss", "kind": "users"});
        let failure = judge(&read(json!({"code": 403, "reason": "Forbidden", "message": message, "details": details})));
        assert_eq!(failure.code, Code::MissingPermission);
        assert_eq!(failure.missing, [Permission::new("impersonate", "", "users").named("boss").record()]);
    }

    #[test]
    fn anonymous_request_lacks_no_permission() {
        let failure = judge(&forbidden(403, "Forbidden", &cannot(ANONYMOUS, "patch", "roles")));
        assert_eq!(failure.code, Code::Unauthorized);
        assert!(failure.missing.is_empty());
    }

    #[test]
    fn denied_path_is_a_missing_permission() {
        let attempt = Attempt {
            doing: "asking",
            verb: "get",
            object: None,
            target: Some(PermissionTarget::Url("/version")),
            stores: false,
            server: "https://s",
        };
        let message = "forbidden: User \"alice\" cannot get path \"/version\"";
        let status = read(json!({"code": 403, "message": message, "details": {}}));
        let failure = Failure::from(attempt.refused(&status, RetryState::default()));
        assert_eq!(failure.code, Code::MissingPermission);
        assert_eq!(
            failure.missing,
            [Permission { namespace: None, target: PermissionTarget::Url("/version"), verb: "get" }.record()]
        );
    }

    /// Denials that imitate other refusals.
    const DISGUISES: [&str; 11] = [
        "no",
        "tokens cannot be kept in a resource of this type",
        "User \"alice\" cannot patch resource \"roles\" in API group \"rbac.authorization.k8s.io\" in the namespace \"a\"",
        "roles.rbac.authorization.k8s.io \"demo-token\" is forbidden: User \"alice\" cannot patch resource \"roles\" in API \
         group \"rbac.authorization.k8s.io\" in the namespace \"a\"",
        "exceeded quota: q, requested: count/secrets=1",
        "user \"alice\" is attempting to grant RBAC permissions not currently held:\n{Verbs:[\"get\"]}",
        "unable to create new content in namespace a because it is being terminated",
        "not yet ready to handle request",
        "failed to create typed patch object (x)",
        "Internal error occurred: failed calling webhook \"w\": down",
        "admission webhook \"v\" does not support dry run",
    ];

    #[rstest]
    fn admission_denial_is_final_whatever_it_imitates(
        #[values(400, 401, 403, 404, 408, 409, 410, 413, 422, 429, 500, 501, 502, 503, 504, 520, 599, 600, 999)]
        code: u16,
        #[values(
            "",
            "Unauthorized",
            "Forbidden",
            "NotFound",
            "AlreadyExists",
            "Conflict",
            "TooManyRequests",
            "ServerTimeout"
        )]
        reason: &str,
    ) {
        let causes = json!([{"reason": "NamespaceTerminating"}]);
        for words in DISGUISES {
            let webhook = read(json!({
                "code": code, "reason": reason, "message": format!("admission webhook \"w.example.com\" denied the request: {words}"),
                "status": "Denied", "details": {"kind": "namespaces", "name": "a", "causes": causes, "retryAfterSeconds": -3},
            }));
            let policy = format!("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {words}");
            let mutating = format!("policy 'p' with binding 'b' denied request: {words}");
            for (status, who) in [
                (webhook, "admission webhook \"w.example.com\" denied the request: "),
                (forbidden(code, reason, &policy), "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "),
                (read(json!({"code": code, "reason": reason, "message": mutating})), "policy 'p' with binding 'b'"),
            ] {
                let failure = judge(&status);
                assert_eq!(failure.code, Code::Refused, "{status:?}");
                assert!(
                    failure.cause.starts_with(who) && failure.cause.ends_with(&sanitize(words, 1000)),
                    "{}",
                    failure.cause
                );
                assert!(!failure.outcome_unknown && failure.missing.is_empty(), "{status:?}");
                assert_eq!(status.transient(Some(Duration::from_secs(1))), None, "{status:?}");
                assert!(!status.is_unknown_login());
                let mut attempts = RetryState::default();
                let doubt = Transient { what: String::new(), outcome: Outcome::Unknown, after: None };
                attempts.pause(&doubt, Duration::from_secs(9), 0.5);
                let denial = error(&status, attempts);
                assert!(matches!(denial.kind, ApiErrorKind::AdmissionDenied(_)) && !denial.may_be_own_write());
            }
        }
    }

    #[test]
    fn failed_webhook_is_named_and_outcome_known() {
        let message = "Internal error occurred: failed calling webhook \"w.example.com\": failed to call webhook: Post \
            \"https://10.0.0.7/x?timeout=10s\": dial tcp 10.0.0.7:443: connect: connection refused";
        let status = read(json!({"code": 500, "reason": "InternalError", "message": message}));
        assert_eq!(status.transient(None).unwrap().outcome, Outcome::NotSent);
        let failure = judge(&status);
        assert_eq!((failure.code, failure.outcome_unknown), (Code::ServerError, false));
        assert!(
            failure.cause.contains("webhook w.example.com, which is required: failed to call webhook: Post"),
            "{}",
            failure.cause
        );
        assert!(failure.next.contains("w.example.com"), "{}", failure.next);
    }

    #[test]
    fn webhook_without_dry_run_is_no_denial() {
        let message = "admission webhook \"w\" does not support dry run";
        let status = read(json!({"code": 400, "reason": "BadRequest", "message": message}));
        assert!(matches!(error(&status, RetryState::default()).kind, ApiErrorKind::DryRunUnsupported(_)));
    }

    #[rstest]
    #[case(read(json!({"code": 401, "message": "Unauthorized", "reason": "Unauthorized"})), Code::Unauthorized)]
    #[case(forbidden(403, "Forbidden", "exceeded quota: q, requested: 1"), Code::Quota)]
    #[case(forbidden(403, "Forbidden", "status unknown for quota: q, resources: count/secrets"), Code::Quota)]
    #[case(forbidden(403, "Forbidden", "not yet ready to handle request"), Code::ServerError)]
    #[case(
        forbidden(403, "Forbidden", "cannot set an ownerRef on a resource you can't delete: , <nil>"),
        Code::Refused
    )]
    #[case(read(json!({"code": 403, "message": "admission webhook \"w\" denied the request: no"})), Code::Refused)]
    #[case(read(json!({"code": 404, "reason": "NotFound", "message": "namespaces \"a\" not found",
        "details": {"kind": "namespaces", "name": "a"}})), Code::NamespaceAbsent)]
    #[case(read(json!({"code": 409, "message": "Apply failed with 1 conflict"})), Code::Conflict)]
    #[case(read(json!({"code": 429, "message": "Too many requests"})), Code::ServerError)]
    #[case(read(json!({"code": 500, "message": "failed to create typed patch object (a)"})), Code::Refused)]
    #[case(read(json!({"code": 503, "message": "x"})), Code::ServerError)]
    #[case(read(json!({"code": 422, "message": "metadata.name: Invalid value"})), Code::Refused)]
    #[case(Status::read(404, b"<html>"), Code::NotKubernetes)]
    #[case(Status::read(403, br#"{"code": 403, "message": "User cannot patch resource x"}"#), Code::NotKubernetes)]
    #[case(Status::read(409, b"{}"), Code::NotKubernetes)]
    #[case(Status::read(302, b""), Code::NotKubernetes)]
    fn refusal_is_reported_under_its_code(#[case] status: Status, #[case] code: Code) {
        assert_eq!(judge(&status).code, code);
    }

    #[test]
    fn terminating_namespace_is_recognized_by_cause() {
        let mut status =
            forbidden(403, "Forbidden", "unable to create new content in namespace a because it is being terminated");
        status.causes = vec!["NamespaceTerminating".to_owned()];
        assert_eq!(judge(&status).code, Code::NamespaceTerminating);
    }

    #[test]
    fn quoted_strings_end_as_in_go() {
        assert_eq!(quoted(r#""a\"b\\" rest"#), Some((r#"a\"b\\"#, " rest")));
        assert_eq!(quoted(r#""""#), Some(("", "")));
        assert_eq!(quoted(r#""open"#), None);
        assert_eq!(quoted("none"), None);
    }
}
