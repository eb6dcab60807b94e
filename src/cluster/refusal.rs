//! What an API server's refusal means: a Status or a broken connection becomes a [`Failure`] with a cause in one
//! line. The strings that are matched are those of kube-apiserver. Pure.

use std::{fmt, time::Duration};

use kube::core::Status;

use crate::{
    error::{Code, Failure},
    finding::{Finding, Severity},
    object::{Kind, Reference},
    rbac::{Atom, Rule, Tuple, sentences},
    retry::{Fault, Tries},
    text::{said, shown},
    tls::Fault as TlsFault,
    transport::Trouble,
};

/// Marks what is no Status, but a text.
const NO_STATUS: &str = "Failed to parse error data";
/// What nginx says in HTTP, once TLS stands (`ssl_verify_client`).
const WITHOUT_CERTIFICATE: &str = "No required SSL certificate was sent";
/// An apply with a field that the server does not know is a 500 that no repeat mends.
const UNKNOWN_FIELD: &str = "failed to create typed patch object";

/// The last word of the server.
pub struct Refusal {
    /// What it says.
    pub status: Box<Status>,
    /// How often it was asked.
    pub tries: Tries,
}

impl Refusal {
    /// True when the API server says that the object is not there. A gateway that knows no such page says nothing of
    /// objects.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        self.status.code == 404 && self.status.reason == "NotFound"
    }

    /// True for a conflict after a try of which nothing was heard: that one may have gone through.
    #[must_use]
    pub const fn is_own_doing(&self) -> bool {
        self.status.code == 409 && self.tries.in_doubt()
    }
}

/// The refusal in an answer with this status and text. Overloaded servers, gateways and proxies answer with no Status.
#[must_use]
pub fn status(code: u16, text: &str) -> Status {
    if code == 400 && text.contains(WITHOUT_CERTIFICATE) {
        return Status::failure(WITHOUT_CERTIFICATE, NO_STATUS).with_code(code); // in a page for browsers
    }
    match serde_json::from_str::<Status>(text) {
        Ok(status) if status.code == 0 && Fault::of_status(code, "", None).is_some() => status.with_code(code),
        Ok(status) => status,
        Err(_) => Status::failure(&said(text, 300), NO_STATUS).with_code(code),
    }
}

/// Whether a moment may mend a refusal; `after` is what the headers say.
#[must_use]
pub fn fault(status: &Status, after: Option<Duration>) -> Option<Fault> {
    if status.message.contains(UNKNOWN_FIELD) {
        return None;
    }
    let asked = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
    let after = after.or(asked.map(|seconds| Duration::from_secs(seconds.into())));
    Fault::of_status(status.code, &status.message, after)
}

/// A request that failed: what it was for, and on which object.
pub struct Attempt<'a> {
    /// As in "applying".
    pub doing: &'a str,
    /// The verb that RBAC asks for.
    pub verb: &'a str,
    /// The object, if it was about one.
    pub object: Option<&'a Reference>,
    /// Group and resource of a review, if it was one.
    pub review: Option<(&'a str, &'a str)>,
    /// Whether something is stored when it gets through.
    pub stores: bool,
    /// The server.
    pub server: &'a str,
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
    /// Why it failed. What was tried before the last word may have gone through.
    #[must_use]
    pub fn failed(&self, refusal: &Refusal) -> Failure {
        let failure = refusal.tries.told(self.refused(&refusal.status));
        let unsettled = failure.unsettled || (self.stores && refusal.tries.in_doubt());
        Failure { unsettled, ..failure }
    }

    /// It was there when we looked.
    #[must_use]
    pub fn overtaken(&self) -> Failure {
        self.failure(Code::Conflict, "somebody else deleted it at the same time: another run, perhaps")
    }

    /// The answer is none of a Kubernetes API.
    #[must_use]
    pub fn nonsense(&self) -> Failure {
        let failure = self.failure(Code::NotKubernetes, "the answer is not one of a Kubernetes API");
        Failure { unsettled: self.stores, ..failure }
    }

    /// Why there is no answer. A write may have gone through all the same.
    #[must_use]
    pub fn unanswered(&self, trouble: &Trouble, tries: &Tries) -> Failure {
        let cause = match self.object {
            Some(_) => format!("{trouble} ({})", self.server),
            None => trouble.to_string(),
        };
        let failure = tries.told(trouble.advise(self.failure(trouble.code(), cause)));
        Failure { unsettled: self.stores, ..failure }
    }

    fn failure(&self, code: Code, cause: impl Into<String>) -> Failure {
        self.about(Failure::new(code, self.doing, cause))
    }

    fn about(&self, failure: Failure) -> Failure {
        match self.object {
            Some(object) => failure.on(object.to_string()),
            None => failure.on(self.server),
        }
    }

    fn refused(&self, status: &Status) -> Failure {
        let text = shown(&status.message, 300);
        let message = status.message.as_str();
        let cause = |reason: &str| {
            status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
        };
        match status.code {
            400 if message == WITHOUT_CERTIFICATE => {
                let trouble = Trouble::Tls(TlsFault::without_certificate());
                trouble.advise(self.failure(trouble.code(), trouble.to_string()))
            }
            401 => Failure::new(Code::Unauthorized, "logging in", "401: the cluster does not accept the credential")
                .on(self.server),
            403 if message.contains("attempting to grant RBAC permissions not currently held") => {
                let namespace = self.object.and_then(|object| object.namespace.as_deref());
                self.about(not_grantable(self.doing, not_held(message, namespace)))
            }
            403 if cause("NamespaceTerminating") => {
                self.failure(Code::NamespaceTerminating, "the namespace is being deleted")
            }
            403 if message.contains("exceeded quota") => self.failure(Code::Quota, text),
            403 if message.contains(" cannot ") && message.contains(" resource ") => {
                self.about(denied(self.doing, vec![self.denied(message)]))
            }
            404 if self.verb == "patch" && message.starts_with("namespaces ") => {
                self.failure(Code::NamespaceAbsent, "the namespace is not there")
            }
            409 => {
                self.failure(Code::Conflict, format!("somebody else changed it, or made it, at the same time: {text}"))
            }
            429 => self.failure(Code::ServerError, "429: the server is overloaded"),
            500 if message.contains(UNKNOWN_FIELD) => self.failure(Code::Refused, text),
            408 => Failure { unsettled: self.stores, ..self.failure(Code::ServerError, format!("408: {text}")) },
            // A gateway, or a server that gave up waiting, does not know what became of a write.
            code @ 500..=599 => {
                Failure { unsettled: self.stores, ..self.failure(Code::ServerError, format!("{code}: {text}")) }
            }
            // A JSON body that is no Status decodes as an empty one.
            0 => self.failure(Code::NotKubernetes, "the answer is not one of a Kubernetes API"),
            code if status.reason == NO_STATUS => {
                self.failure(Code::NotKubernetes, format!("{code}: the answer is not one of a Kubernetes API"))
            }
            code => self.failure(Code::Refused, format!("{code}: {text}")),
        }
    }

    /// The permission that a plain denial is about: the object of the request, with the verb that the server names
    /// (an apply of an absent object needs `create` beside `patch`).
    fn denied(&self, message: &str) -> Tuple {
        let verb = message.split(" cannot ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or(self.verb);
        let (group, resource) = self.review.unwrap_or_default();
        self.object.map_or_else(|| Atom::new(verb, group, resource).tuple(), |object| needed(verb, object))
    }
}

/// The permission that a request on this object needs. A Namespace stands for itself at cluster scope.
#[must_use]
pub fn needed(verb: &str, object: &Reference) -> Tuple {
    let atom = Atom::new(verb, object.kind.group(), object.kind.resource());
    // A POST has no name when it is authorized, nor has a list.
    let nameless = verb == "list" || (object.kind == Kind::Namespace && verb == "create");
    let atom = if nameless { atom } else { atom.named(&object.name) };
    atom.within(object.namespace.as_deref()).tuple()
}

/// The failure of requests that are denied: every permission that is missing for them.
#[must_use]
pub fn denied(doing: &str, missing: Vec<Tuple>) -> Failure {
    let cause = format!("the parent credential lacks {}", summary(&missing));
    let finding = Finding::remark("missing-permission", Severity::High, cause.clone());
    Failure { findings: vec![finding], missing, ..Failure::new(Code::MissingPermission, doing, cause) }
}

/// The failure of a grant beyond what the granter holds: every permission that it does not hold.
#[must_use]
pub fn not_grantable(doing: &str, missing: Vec<Tuple>) -> Failure {
    let mut cause = format!("the parent credential may not grant what it does not hold: {}", summary(&missing));
    if missing.iter().any(is_wildcard) {
        cause.push_str("; holding each single permission is not holding the wildcard");
    }
    let finding = Finding::remark("escalation", Severity::High, cause.clone());
    Failure { findings: vec![finding], missing, ..Failure::new(Code::Escalation, doing, cause) }
}

/// The first three lines of a list, and how many more there are.
#[must_use]
pub fn summary(tuples: &[Tuple]) -> String {
    let lines = sentences(tuples);
    let shown = lines.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    match lines.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

fn is_wildcard(tuple: &Tuple) -> bool {
    matches!(tuple, Tuple::Resource { verb, group, resource, .. } if [verb, group, resource].contains(&&"*".to_owned()))
}

/// The permissions that the escalation check lists, one rule a line:
/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
fn not_held(message: &str, namespace: Option<&str>) -> Vec<Tuple> {
    let mut tuples = Vec::new();
    for line in message.lines().filter(|line| line.starts_with('{')) {
        let rule = Rule {
            api_groups: go_list(line, "APIGroups"),
            resources: go_list(line, "Resources"),
            resource_names: go_list(line, "ResourceNames"),
            non_resource_urls: go_list(line, "NonResourceURLs"),
            verbs: go_list(line, "Verbs"),
        };
        // Paths too: the server wants them held even where a binding does not hand them out.
        tuples.extend(rule.atoms(None).map(|atom| atom.within(namespace).tuple()));
    }
    tuples
}

/// The strings of `key:["a" "b"]`. Go quotes as JSON does for all that can stand in a rule.
fn go_list(line: &str, key: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once(&format!("{key}:[")) else { return Vec::new() };
    let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    std::iter::from_fn(|| strings.next()?.ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(status: serde_json::Value) -> Failure {
        let object = Reference::new(Kind::Role, "a", "demo-token");
        let attempt = Attempt {
            doing: "applying",
            verb: "patch",
            object: Some(&object),
            review: None,
            stores: true,
            server: "https://s",
        };
        attempt.refused(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn an_escalation_lists_every_permission_once() {
        let message = "roles.rbac.authorization.k8s.io \"demo-token\" is forbidden: user \"alice\" (groups=[\"g1\" \"g2\"]) \
            is attempting to grant RBAC permissions not currently held:\n\
            {APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"a\"], Verbs:[\"get\" \"list\"]}\n\
            {APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"*\"]}";
        let failure = judge(json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": message}));
        assert_eq!(failure.code, Code::Escalation);
        assert_eq!(
            failure.missing,
            [
                Atom::new("get", "", "secrets").named("a").within(Some("a")).tuple(),
                Atom::new("list", "", "secrets").named("a").within(Some("a")).tuple(),
                Atom::new("*", "apps", "deployments").within(Some("a")).tuple(),
            ]
        );
        assert!(failure.cause.contains("wildcard"), "{}", failure.cause);
    }

    #[rstest::rstest]
    #[case(404, r#"{"code": 404, "reason": "NotFound", "message": "roles \"x\" not found"}"#, true)]
    #[case(404, "404 page not found\n", false)]
    #[case(404, r#"{"error": "no such route"}"#, false)]
    #[case(410, r#"{"code": 410, "reason": "Expired"}"#, false)]
    fn only_the_api_server_knows_that_an_object_is_absent(#[case] code: u16, #[case] text: &str, #[case] absent: bool) {
        assert_eq!(Refusal { status: Box::new(status(code, text)), tries: Tries::default() }.is_absence(), absent);
    }

    #[rstest::rstest]
    #[case(429, "Too many requests, please try again later.", Some((429, Some(7))))]
    #[case(503, r#"{"message": "no healthy upstream"}"#, Some((503, Some(7))))]
    #[case(500, r#"{"code": 500, "reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}"#, Some((500, Some(7))))]
    #[case(500, r#"{"code": 500, "message": "failed to create typed patch object (x)"}"#, None)]
    #[case(409, r#"{"code": 409, "reason": "Conflict"}"#, None)]
    fn what_is_overloaded_is_known_in_every_form(
        #[case] code: u16,
        #[case] text: &str,
        #[case] expected: Option<(u16, Option<u64>)>,
    ) {
        let status = status(code, text);
        let asked = |after| fault(&status, after).map(|fault| (status.code, fault.after.map(|after| after.as_secs())));
        assert_eq!(asked(Some(Duration::from_secs(7))), expected, "a header wins");
    }

    #[test]
    fn a_status_says_itself_how_long_to_wait() {
        let status = status(500, r#"{"code": 500, "reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}"#);
        assert_eq!(fault(&status, None).unwrap().after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_page_for_browsers_is_not_quoted() {
        let status = status(502, "<html><h1>Bad Gateway</h1>");
        assert_eq!(fault(&status, None).unwrap().what, "502: an HTML page");
    }

    #[test]
    fn a_plain_denial_names_the_verb_of_the_server() {
        let message = "roles.rbac.authorization.k8s.io \"demo-token\" is forbidden: User \"alice\" cannot create resource \
            \"roles\" in API group \"rbac.authorization.k8s.io\" in the namespace \"a\"";
        let failure = judge(json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": message}));
        assert_eq!(failure.code, Code::MissingPermission);
        let atom = Atom::new("create", "rbac.authorization.k8s.io", "roles").named("demo-token");
        assert_eq!(failure.missing, [atom.within(Some("a")).tuple()]);
    }

    #[rstest::rstest]
    #[case(json!({"code": 401, "message": "Unauthorized", "reason": "Unauthorized"}), Code::Unauthorized)]
    #[case(json!({"code": 403, "message": "pods \"x\" is forbidden: exceeded quota: q, requested: 1"}), Code::Quota)]
    #[case(json!({"code": 403, "message": "admission webhook \"w\" denied the request: no"}), Code::Refused)]
    #[case(json!({"code": 403, "message": "unable to create new content", "details": {"causes":
        [{"reason": "NamespaceTerminating", "message": "", "field": "metadata.namespace"}]}}), Code::NamespaceTerminating)]
    #[case(json!({"code": 404, "message": "namespaces \"a\" not found"}), Code::NamespaceAbsent)]
    #[case(json!({"code": 409, "message": "Apply failed with 1 conflict"}), Code::Conflict)]
    #[case(json!({"code": 429, "message": "Too many requests"}), Code::ServerError)]
    #[case(json!({"code": 500, "message": "failed to create typed patch object (a)"}), Code::Refused)]
    #[case(json!({"code": 503, "message": "x"}), Code::ServerError)]
    #[case(json!({"code": 422, "message": "metadata.name: Invalid value"}), Code::Refused)]
    #[case(json!({"code": 404, "message": "<html>", "reason": "Failed to parse error data"}), Code::NotKubernetes)]
    #[case(json!({}), Code::NotKubernetes)]
    fn every_refusal_has_its_code(#[case] status: serde_json::Value, #[case] code: Code) {
        assert_eq!(judge(status).code, code);
    }
}
