//! What an API server's refusal means: a Status or a broken connection becomes a [`Failure`] with a cause in one
//! line. Pure.
//!
//! A policy and a webhook deny under any status code and in any words, also in those of another. The server puts a
//! head of its own before such words, and heads are all that is compared here: a denial is known by who denies.

use std::{fmt, time::Duration};

use serde_json::Value;

use crate::{
    error::{Code, Failure},
    finding::{Finding, Severity},
    object::{Kind, Reference},
    rbac::{Atom, Rule, Target, Tuple, sentences},
    retry::{Fate, Fault, Tries},
    text::{said, shown},
    tls::Fault as TlsFault,
    transport_error::TransportError,
};

/// The user of a request without a login (k8s.io/apiserver/pkg/authentication/user).
const ANONYMOUS: &str = "system:anonymous";
/// The whole message of the server to a login that it does not know.
const UNAUTHORIZED: &str = "Unauthorized";
/// What nginx says in HTTP, once TLS stands, to a client that shows no certificate (`ssl_verify_client`).
const WITHOUT_CERTIFICATE: &str = "No required SSL certificate was sent";
/// What is said of a quota whose use has not been counted.
const UNCOUNTED_QUOTA: &str = "status unknown for quota: ";
/// The longest denial that is shown: policies explain themselves at length.
const LONGEST_DENIAL: usize = 1000;

/// A refusal as it comes in.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The code of the answer.
    pub code: u16,
    /// False for what no Kubernetes API has written: overloaded servers, gateways and proxies answer in a text.
    from_kubernetes: bool,
    message: String,
    reason: String,
    /// Resource, group and name of what it is about, as the server understood the request.
    resource: String,
    group: String,
    name: String,
    causes: Vec<String>,
    after: Option<Duration>,
}

impl Status {
    /// Reads an answer. Field by field, because a webhook may fill them with what does not belong there.
    #[must_use]
    pub fn read(code: u16, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        if document.get("kind").and_then(Value::as_str) != Some("Status") {
            let text = String::from_utf8_lossy(body);
            // nginx says it in a page for browsers.
            let shuts_out = code == 400 && text.contains(WITHOUT_CERTIFICATE);
            let message = if shuts_out { WITHOUT_CERTIFICATE.to_owned() } else { said(&text, 300) };
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

    /// Whether a moment may change it; `after` is what the headers say.
    #[must_use]
    pub fn fault(&self, after: Option<Duration>) -> Option<Fault> {
        let after = after.or(self.after);
        match self.meaning() {
            Meaning::Denial(_) | Meaning::UnknownField => None,
            // Admission comes before the storage.
            Meaning::WebhookFailed { .. } | Meaning::NotReady => {
                let what = format!("{}: {}", self.code, shown(&self.message, 120));
                Some(Fault { what, fate: Fate::Untouched, after })
            }
            _ => Fault::of_status(self.code, &self.message, after),
        }
    }

    /// True when the server does not know the login. That is decided before anything else is looked at.
    #[must_use]
    pub fn is_unknown_login(&self) -> bool {
        self.code == 401 && !self.is_denial()
    }

    /// True when the server denies what it took for a request without a login.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        matches!(self.meaning(), Meaning::Unauthorized(denial) if denial.user == ANONYMOUS)
    }

    fn is_denial(&self) -> bool {
        matches!(self.meaning(), Meaning::Denial(_))
    }

    /// Who says it, and what.
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

    /// What comes after `roles.rbac.authorization.k8s.io "demo" is forbidden: `, the head that the server puts before
    /// what its own parts forbid (k8s.io/apimachinery/pkg/api/errors, NewForbidden).
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

/// Who says no, and what.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'s> {
    /// An admission policy or webhook has judged the request and denies it, in these words.
    Denial(&'s str),
    /// A webhook that cannot be asked without consequences stands in the way of a dry run.
    NoDryRun,
    /// A webhook that has to be asked gives no answer that counts.
    WebhookFailed { webhook: &'s str, why: &'s str },
    /// What stands before the server lets in only who shows a client certificate.
    NoClientCertificate,
    /// A part of the server has not read yet what it needs to judge.
    NotReady,
    /// The authorizer, RBAC or another.
    Unauthorized(Unauthorized<'s>),
    /// RBAC's check that a user grants only what the user holds.
    Escalation(&'s str),
    /// The namespace is being deleted.
    Terminating,
    /// The namespace is not there.
    NoNamespace,
    /// A quota of the namespace.
    Quota(&'s str),
    /// An apply with a field that the server does not know, which is a 500 that comes again each time.
    UnknownField,
    /// Only the code tells.
    Other,
}

/// A denial by the authorizer, in its exact form (k8s.io/apiserver/pkg/endpoints/handlers/responsewriters):
/// `User "x" cannot get resource "pods" in API group "" in the namespace "a": because`.
#[derive(Debug, PartialEq, Eq)]
struct Unauthorized<'s> {
    user: &'s str,
    atom: Atom<'s>,
    /// What an authorizer adds, if it does.
    reason: &'s str,
}

impl<'s> Unauthorized<'s> {
    fn parse(words: &'s str, name: &'s str) -> Option<Self> {
        let (user, rest) = quoted(words.strip_prefix("User ")?)?;
        let (verb, rest) = rest.strip_prefix(" cannot ")?.split_once(' ')?;
        let (namespace, target, rest) = if let Some(path) = rest.strip_prefix("path ") {
            let (path, rest) = quoted(path)?;
            (None, Target::Url(path), rest)
        } else {
            let (resource, rest) = quoted(rest.strip_prefix("resource ")?)?;
            let (group, rest) = quoted(rest.strip_prefix(" in API group ")?)?;
            let (namespace, rest) = match rest.strip_prefix(" in the namespace ") {
                Some(namespace) => quoted(namespace).map(|(namespace, rest)| (Some(namespace), rest))?,
                None => (None, rest.strip_prefix(" at the cluster scope")?),
            };
            let name = Some(name).filter(|name| !name.is_empty());
            (namespace, Target::Resource { group, resource, name }, rest)
        };
        let reason = if rest.is_empty() { rest } else { rest.strip_prefix(": ")? };
        Some(Self { user, atom: Atom { namespace, target, verb }, reason })
    }
}

/// What stands in quotation marks at the start of a text, as Go writes them, and what comes after.
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

/// The last word of the server.
pub struct Refusal {
    /// What it says.
    pub status: Box<Status>,
    /// How often it was asked.
    pub tries: Tries,
}

impl Refusal {
    /// True when the API server says that the object is not there. A gateway that knows no such page says nothing of
    /// objects, and neither does a webhook that denies with this code.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        self.status.code == 404 && self.status.reason == "NotFound" && !self.status.is_denial()
    }

    /// True when the API server says that an object of this name is there already.
    #[must_use]
    pub fn is_presence(&self) -> bool {
        self.status.code == 409 && self.status.reason == "AlreadyExists" && !self.status.is_denial()
    }

    /// True for a conflict after a try of which nothing was heard: that one may have gone through.
    #[must_use]
    pub fn is_own_doing(&self) -> bool {
        self.status.code == 409 && self.tries.in_doubt() && !self.status.is_denial()
    }

    /// True when a webhook that cannot be asked without consequences stands in the way of a dry run.
    #[must_use]
    pub fn is_untried(&self) -> bool {
        matches!(self.status.meaning(), Meaning::NoDryRun)
    }
}

/// A request that failed: what it was for, and on which object.
pub struct Attempt<'a> {
    /// As in "applying".
    pub doing: &'a str,
    /// The verb that RBAC asks for.
    pub verb: &'a str,
    /// The object, if it was about one.
    pub object: Option<&'a Reference>,
    /// What it was about otherwise: a review, or a path.
    pub target: Option<Target<'a>>,
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
    pub fn unanswered(&self, trouble: &TransportError, tries: &Tries) -> Failure {
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
        let code = status.code;
        let text = shown(&status.message, 300);
        let refused = |cause: String| self.failure(Code::Refused, cause);
        match status.meaning() {
            Meaning::Denial(words) => refused(shown(words, LONGEST_DENIAL)),
            Meaning::NoDryRun | Meaning::UnknownField => refused(text),
            Meaning::WebhookFailed { webhook, why } => {
                let webhook = shown(webhook, 253);
                let why = shown(why, 300);
                let cause = format!("{code}: the server has to ask the admission webhook {webhook} and cannot: {why}");
                self.failure(Code::ServerError, cause)
                    .next(format!("have the webhook {webhook} repaired, or its configuration deleted, then run again"))
            }
            Meaning::NoClientCertificate => {
                let trouble = TransportError::Tls(TlsFault::without_certificate());
                trouble.advise(self.failure(trouble.code(), trouble.to_string()))
            }
            Meaning::NotReady => self.failure(Code::ServerError, format!("{code}: {text}")),
            Meaning::Unauthorized(denial) if denial.user == ANONYMOUS => {
                let cause = format!(
                    "{code}: the server takes the request for an anonymous one: the credential did not reach it"
                );
                Failure::new(Code::Unauthorized, "logging in", cause)
                    .on(self.server)
                    .next("check what is between here and the server: it has to pass the credential on; then run again")
            }
            Meaning::Unauthorized(denial) => match self.missing(&denial) {
                Some(missing) => {
                    let mut failure = denied(self.doing, vec![missing]);
                    if !denial.reason.is_empty() {
                        let reason = shown(denial.reason, 300);
                        failure.cause = format!("{}: {reason}", failure.cause);
                        for finding in &mut failure.findings {
                            finding.help = Some(format!("the authorizer says: {reason}"));
                        }
                    }
                    self.about(failure)
                }
                None => refused(format!("{code}: {text}")),
            },
            Meaning::Escalation(words) => {
                let namespace = self.object.and_then(|object| object.namespace.as_deref());
                self.about(not_grantable(self.doing, not_held(words, namespace)))
            }
            Meaning::Terminating => self.failure(Code::NamespaceTerminating, "the namespace is being deleted"),
            Meaning::NoNamespace if self.verb == "patch" => {
                self.failure(Code::NamespaceAbsent, "the namespace is not there")
            }
            Meaning::Quota(words) => {
                let failure = self.failure(Code::Quota, shown(words, 300));
                if words.starts_with(UNCOUNTED_QUOTA) {
                    failure.next("wait until kube-controller-manager has counted the quota, then run again")
                } else {
                    failure
                }
            }
            Meaning::NoNamespace | Meaning::Other => self.refused_with(status, &text),
        }
    }

    /// The failure of a refusal of which only the code tells.
    fn refused_with(&self, status: &Status, text: &str) -> Failure {
        // A gateway, or a server that gave up waiting, does not know what became of a write.
        let in_doubt =
            |code: u16| Failure { unsettled: self.stores, ..self.failure(Code::ServerError, stated(code, text)) };
        match status.code {
            401 => {
                let mut cause = "401: the cluster does not accept the credential".to_owned();
                if !(text.is_empty() || text == UNAUTHORIZED) {
                    cause = format!("{cause}: {text}");
                }
                Failure::new(Code::Unauthorized, "logging in", cause).on(self.server)
            }
            429 => {
                let cause = if text.is_empty() { String::new() } else { format!(": {text}") };
                self.failure(Code::ServerError, format!("429: the server is overloaded{cause}"))
            }
            code @ (408 | 500..=599) => in_doubt(code),
            code if !status.from_kubernetes => {
                let cause = "the answer is not one of a Kubernetes API";
                let cause = if text.is_empty() { cause.to_owned() } else { format!("{cause}: {text}") };
                self.failure(Code::NotKubernetes, stated(code, &cause))
            }
            409 => {
                self.failure(Code::Conflict, format!("somebody else changed it, or made it, at the same time: {text}"))
            }
            code => self.failure(Code::Refused, stated(code, text)),
        }
    }

    /// The permission that a denial by the authorizer is about, when it is one of this very request: the object or the
    /// review, with the verb that the server names (an apply of an absent object needs `create` beside `patch`). Before
    /// a request is made as another user, the right to do so is asked for.
    fn missing(&self, denial: &Unauthorized<'_>) -> Option<Tuple> {
        let Atom { target, verb, .. } = denial.atom;
        if verb.starts_with("impersonate") {
            return Some(denial.atom.tuple());
        }
        let expected = verb == self.verb || (self.verb == "patch" && verb == "create");
        match (self.object, target) {
            (Some(object), Target::Resource { group, resource, .. }) => {
                let same = (group, resource) == (object.kind.group(), object.kind.resource());
                (expected && same).then(|| needed(verb, object))
            }
            (None, target) => (expected && self.target == Some(target)).then(|| denial.atom.tuple()),
            (Some(_), Target::Url(_)) => None,
        }
    }
}

/// A code with what is said under it.
fn stated(code: u16, text: &str) -> String {
    if text.is_empty() { code.to_string() } else { format!("{code}: {text}") }
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
    use rstest::rstest;
    use serde_json::json;

    const USER: &str = "alice";

    fn read(mut status: Value) -> Status {
        status["kind"] = json!("Status");
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
        Status::read(code, status.to_string().as_bytes())
    }

    /// What a part of the API server forbids on our Role, under the code and the reason that it chose.
    fn forbidden(code: u16, reason: &str, words: &str) -> Status {
        let details = json!({"name": "demo-token", "group": "rbac.authorization.k8s.io", "kind": "roles"});
        let message = format!("roles.rbac.authorization.k8s.io \"demo-token\" is forbidden: {words}");
        read(json!({"code": code, "reason": reason, "message": message, "details": details}))
    }

    fn judge(status: &Status) -> Failure {
        let object = Reference::new(Kind::Role, "a", "demo-token");
        let attempt = Attempt {
            doing: "applying",
            verb: "patch",
            object: Some(&object),
            target: None,
            stores: true,
            server: "https://s",
        };
        attempt.refused(status)
    }

    fn cannot(user: &str, verb: &str, resource: &str) -> String {
        format!(
            "User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"rbac.authorization.k8s.io\" in the \
             namespace \"a\""
        )
    }

    #[test]
    fn an_escalation_lists_every_permission_once() {
        let words = "user \"alice\" (groups=[\"g1\" \"g2\"]) is attempting to grant RBAC permissions not currently held:\n\
            {APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"a\"], Verbs:[\"get\" \"list\"]}\n\
            {APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"*\"]}";
        let failure = judge(&forbidden(403, "Forbidden", words));
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
    fn only_the_api_server_knows_that_an_object_is_absent(#[case] code: u16, #[case] text: &str, #[case] absent: bool) {
        let status = Box::new(Status::read(code, text.as_bytes()));
        assert_eq!(Refusal { status, tries: Tries::default() }.is_absence(), absent);
    }

    #[rstest]
    #[case(429, "Too many requests, please try again later.", Some((429, Some(7))))]
    #[case(503, r#"{"message": "no healthy upstream"}"#, Some((503, Some(7))))]
    #[case(500, r#"{"kind": "Status", "reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}"#, Some((500, Some(7))))]
    #[case(500, r#"{"kind": "Status", "message": "failed to create typed patch object (x)"}"#, None)]
    #[case(409, r#"{"kind": "Status", "reason": "Conflict"}"#, None)]
    fn what_is_overloaded_is_known_in_every_form(
        #[case] code: u16,
        #[case] text: &str,
        #[case] expected: Option<(u16, Option<u64>)>,
    ) {
        let status = Status::read(code, text.as_bytes());
        let asked = status.fault(Some(Duration::from_secs(7)));
        let asked = asked.map(|fault| (status.code, fault.after.map(|after| after.as_secs())));
        assert_eq!(asked, expected, "a header wins");
    }

    #[test]
    fn a_status_says_itself_how_long_to_wait() {
        let status = read(json!({"code": 500, "reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}));
        assert_eq!(status.fault(None).unwrap().after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_page_for_browsers_is_not_quoted() {
        let status = Status::read(502, b"<html><h1>Bad Gateway</h1>");
        assert_eq!(status.fault(None).unwrap().what, "502: an HTML page");
    }

    #[test]
    fn denial_of_a_request_without_a_login_is_known() {
        assert!(forbidden(403, "Forbidden", &cannot(ANONYMOUS, "get", "roles")).is_anonymous());
        assert!(!forbidden(403, "Forbidden", &cannot(USER, "get", "roles")).is_anonymous());
    }

    #[test]
    fn a_denial_by_the_authorizer_names_the_verb_of_the_server_and_its_reason() {
        let failure =
            judge(&forbidden(403, "Forbidden", &(cannot(USER, "create", "roles") + ": ask the platform team")));
        assert_eq!(failure.code, Code::MissingPermission);
        let atom = Atom::new("create", "rbac.authorization.k8s.io", "roles").named("demo-token");
        assert_eq!(failure.missing, [atom.within(Some("a")).tuple()]);
        assert!(failure.cause.ends_with("in namespace a: ask the platform team"), "{}", failure.cause);
    }

    #[rstest]
    #[case::name_of_the_directory("https://login.example/tenant#7")]
    #[case::domain(r"ACME\\alice")]
    #[case::quotation_marks(r#"a \"friend\" cannot get resource \"pods\""#)]
    #[case::forged(r#"x\" is forbidden: "#)]
    fn whatever_a_user_is_called_a_denial_is_known(#[case] user: &str) {
        assert_eq!(judge(&forbidden(403, "Forbidden", &cannot(user, "patch", "roles"))).code, Code::MissingPermission);
    }

    #[test]
    fn a_denial_of_another_request_than_this_one_is_shown_as_it_is() {
        for words in
            [cannot(USER, "patch", "secrets"), cannot(USER, "delete", "roles"), cannot(USER, "patch", "roles/x")]
        {
            let failure = judge(&forbidden(403, "Forbidden", &words));
            assert_eq!(failure.code, Code::Refused, "{words}");
            assert!(failure.cause.contains(&words), "{}", failure.cause);
        }
    }

    #[test]
    fn acting_as_another_user_is_a_permission_of_its_own() {
        let message = "users \"boss\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" \
            at the cluster scope";
        let details = json!({"name": "boss", "kind": "users"});
        let failure = judge(&read(json!({"code": 403, "reason": "Forbidden", "message": message, "details": details})));
        assert_eq!(failure.code, Code::MissingPermission);
        assert_eq!(failure.missing, [Atom::new("impersonate", "", "users").named("boss").tuple()]);
    }

    #[test]
    fn a_request_that_has_lost_its_login_lacks_no_permission() {
        let failure = judge(&forbidden(403, "Forbidden", &cannot(ANONYMOUS, "patch", "roles")));
        assert_eq!(failure.code, Code::Unauthorized);
        assert!(failure.missing.is_empty());
    }

    #[test]
    fn a_denied_path_is_a_permission_on_that_path() {
        let attempt = Attempt {
            doing: "asking",
            verb: "get",
            object: None,
            target: Some(Target::Url("/version")),
            stores: false,
            server: "https://s",
        };
        let message = "forbidden: User \"alice\" cannot get path \"/version\"";
        let failure = attempt.refused(&read(json!({"code": 403, "message": message, "details": {}})));
        assert_eq!(failure.code, Code::MissingPermission);
        assert_eq!(failure.missing, [Atom { namespace: None, target: Target::Url("/version"), verb: "get" }.tuple()]);
    }

    /// What others have put into a denial to be taken for something else.
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
    fn a_denial_is_refused_in_its_words_and_at_once_whatever_its_code_and_words(
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
                    failure.cause.starts_with(who) && failure.cause.ends_with(&shown(words, 1000)),
                    "{}",
                    failure.cause
                );
                assert!(!failure.unsettled && failure.missing.is_empty(), "{status:?}");
                assert_eq!(status.fault(Some(Duration::from_secs(1))), None, "{status:?}");
                assert!(!status.is_unknown_login());
                let mut tries = Tries::default();
                let doubt = Fault { what: String::new(), fate: Fate::Unknown, after: None };
                tries.again(&doubt, Duration::from_secs(9), 0.5);
                let refusal = Refusal { status: Box::new(status), tries };
                assert!(
                    !(refusal.is_absence() || refusal.is_presence() || refusal.is_own_doing() || refusal.is_untried())
                );
            }
        }
    }

    #[test]
    fn a_webhook_that_does_not_answer_is_named_and_nothing_went_through() {
        let message = "Internal error occurred: failed calling webhook \"w.example.com\": failed to call webhook: Post \
            \"https://10.0.0.7/x?timeout=10s\": dial tcp 10.0.0.7:443: connect: connection refused";
        let status = read(json!({"code": 500, "reason": "InternalError", "message": message}));
        assert_eq!(status.fault(None).unwrap().fate, Fate::Untouched);
        let failure = judge(&status);
        assert_eq!((failure.code, failure.unsettled), (Code::ServerError, false));
        assert!(
            failure.cause.contains("webhook w.example.com and cannot: failed to call webhook: Post"),
            "{}",
            failure.cause
        );
        assert!(failure.next.contains("w.example.com"), "{}", failure.next);
    }

    #[test]
    fn a_webhook_that_cannot_be_asked_in_a_dry_run_is_no_denial() {
        let message = "admission webhook \"w\" does not support dry run";
        let status = Box::new(read(json!({"code": 400, "reason": "BadRequest", "message": message})));
        assert!(Refusal { status, tries: Tries::default() }.is_untried());
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
    fn every_refusal_has_its_code(#[case] status: Status, #[case] code: Code) {
        assert_eq!(judge(&status).code, code);
    }

    #[test]
    fn a_namespace_on_its_way_out_is_known_by_its_cause() {
        let mut status =
            forbidden(403, "Forbidden", "unable to create new content in namespace a because it is being terminated");
        status.causes = vec!["NamespaceTerminating".to_owned()];
        assert_eq!(judge(&status).code, Code::NamespaceTerminating);
    }

    #[test]
    fn what_stands_in_quotation_marks_ends_where_go_ends_it() {
        assert_eq!(quoted(r#""a\"b\\" rest"#), Some((r#"a\"b\\"#, " rest")));
        assert_eq!(quoted(r#""""#), Some(("", "")));
        assert_eq!(quoted(r#""open"#), None);
        assert_eq!(quoted("none"), None);
    }
}
