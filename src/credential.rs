//! The judgement whether a credential is proved: what its token claims, who the server says it is, and what the server
//! says it may do, held against the request. Pure.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;

use crate::{
    error::{Code, Failure},
    rbac::{Atom, Coverage, Rule, Tuple, VERBS, atoms},
    secret::Token,
};

/// Whose token it has to be.
pub struct Expected<'a> {
    /// Namespace of the ServiceAccount.
    pub namespace: &'a str,
    /// Name of the ServiceAccount.
    pub service_account: &'a str,
    /// Uid of the live ServiceAccount: one that was deleted and made again is another.
    pub uid: &'a str,
}

impl Expected<'_> {
    fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// Who the server says a token is.
pub struct Identity {
    /// As in `system:serviceaccount:team-a:demo-token`.
    pub username: String,
    /// Uid of the ServiceAccount.
    pub uid: String,
}

/// What the server says a user may do in one namespace, cluster-wide grants included.
#[derive(Default)]
pub struct Review {
    /// On resources.
    pub rules: Vec<Rule>,
    /// On URL paths: verb and path.
    pub urls: Vec<(String, String)>,
    /// False when an authorizer cannot list what it allows (EKS, GKE and AKS have such): then this is a lower bound.
    pub complete: bool,
}

/// The namespace in a token's claims; none when it is not the token of a ServiceAccount.
#[must_use]
pub fn namespace_of(token: &Token) -> Option<String> {
    let claims = claims(token)?;
    let legacy = claims.get("kubernetes.io/serviceaccount/namespace");
    let bound = || claims.pointer("/kubernetes.io/namespace");
    legacy.or_else(bound).and_then(Value::as_str).map(str::to_owned)
}

fn claims(token: &Token) -> Option<Value> {
    let payload = token.expose().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Compares what the token says of itself with the live ServiceAccount, before it is sent anywhere.
///
/// # Errors
/// It is somebody else's.
pub fn check_claims(token: &Token, expected: &Expected<'_>) -> Result<(), Failure> {
    const PREFIX: &str = "kubernetes.io/serviceaccount";

    let refuse = |cause: String| Err(Failure::new(Code::WrongIdentity, "judging the claims of the token", cause));
    let Some(claims) = claims(token) else {
        return refuse("it is not the token of a ServiceAccount".to_owned());
    };
    let claim = |key: &str| claims.get(format!("{PREFIX}/{key}")).and_then(Value::as_str).unwrap_or_default();
    let rows = [
        ("namespace", claim("namespace"), expected.namespace),
        ("ServiceAccount", claim("service-account.name"), expected.service_account),
        ("uid of the ServiceAccount", claim("service-account.uid"), expected.uid),
        ("subject", claims.get("sub").and_then(Value::as_str).unwrap_or_default(), &expected.username()),
    ];
    for (what, has, wants) in rows {
        if has != wants {
            return refuse(format!("its {what} is `{}`, not `{wants}`", crate::text::shown(has, 80)));
        }
    }
    Ok(())
}

/// Compares who the server says the token is with the ServiceAccount.
///
/// # Errors
/// It is somebody else.
pub fn check_identity(identity: &Identity, expected: &Expected<'_>) -> Result<(), Failure> {
    let username = expected.username();
    if identity.username == username && identity.uid == expected.uid {
        return Ok(());
    }
    let cause = format!(
        "the server says it is {} with uid {}, not {username} with uid {}",
        crate::text::shown(&identity.username, 300),
        crate::text::shown(&identity.uid, 80),
        expected.uid
    );
    Err(Failure::new(Code::WrongIdentity, "asking the server who the token is", cause))
}

/// The request as questions: what must be allowed, what lies next to it and must not be, and one example of each
/// that can be asked as it stands.
pub struct Questions<'a> {
    asked: Coverage<'a>,
    requested: BTreeSet<Atom<'a>>,
    neighbours: BTreeSet<Atom<'a>>,
}

impl<'a> Questions<'a> {
    /// Works out the questions for these rules.
    ///
    /// The neighbours of a rule are the other verbs on its resources, and for a rule on single names the same verbs
    /// on all names: what a Role that is too wide by one step would allow.
    #[must_use]
    pub fn new(rules: &'a [Rule]) -> Self {
        let asked = Coverage::of(rules);
        let requested: BTreeSet<Atom<'a>> = atoms(rules).filter(|atom| !atom.is_dead()).collect();
        let beside = requested.iter().flat_map(|atom| {
            let all = Atom { name: None, ..*atom };
            VERBS.into_iter().map(move |verb| Atom { verb, ..all }).chain([all])
        });
        let neighbours = beside.filter(|atom| !asked.covers(*atom)).collect();
        Self { asked, requested, neighbours }
    }

    /// One permission of the request that an access review can ask for.
    #[must_use]
    pub fn allowed_example(&self) -> Option<Atom<'a>> {
        self.requested.iter().copied().find_map(concrete)
    }

    /// One neighbour that an access review can ask for.
    #[must_use]
    pub fn denied_example(&self) -> Option<Atom<'a>> {
        self.neighbours.iter().copied().find(|atom| concrete(*atom) == Some(*atom))
    }

    /// Holds what the server lists against the request.
    #[must_use]
    pub fn judge(&self, review: &Review, namespace: &str) -> Judgement<'a> {
        let held = Coverage::of(&review.rules);
        let everyone = Coverage::from_iter(EVERYONE.map(|(group, resource)| Atom::new("create", group, resource)));
        let beyond = atoms(&review.rules).filter(|atom| !atom.is_dead());
        let beyond = beyond.filter(|atom| !self.asked.covers(*atom) && !everyone.covers(*atom));
        let mut excess: BTreeSet<Tuple> = beyond.map(|atom| atom.tuple(Some(namespace))).collect();
        let urls = review.urls.iter().filter(|(_, url)| !EVERYONES_URLS.contains(&url.trim_end_matches(['*', '/'])));
        excess.extend(urls.map(|(verb, url)| Tuple::Url { verb: verb.clone(), url: url.clone() }));
        Judgement {
            uncovered: self.requested.iter().copied().filter(|atom| !held.covers(*atom)).collect(),
            denied: self.neighbours.iter().filter(|atom| !held.covers(**atom)).count(),
            excess: excess.into_iter().collect(),
        }
    }

    /// How many single permissions were asked for.
    #[must_use]
    pub fn requested(&self) -> usize {
        self.requested.len()
    }
}

/// What the server's list means for the request.
pub struct Judgement<'a> {
    /// Asked for, and not on the list.
    pub uncovered: Vec<Atom<'a>>,
    /// Neighbours that are not on the list.
    pub denied: usize,
    /// On the list, not asked for, and not everybody's: granted by bindings that are not ours.
    pub excess: Vec<Tuple>,
}

/// The outcome of a proof, as the document shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// Who the token is.
    pub username: String,
    /// Uid of its ServiceAccount.
    pub uid: String,
    /// Single permissions of the request that the server confirmed.
    pub allowed: usize,
    /// Neighbours that the server denies.
    pub denied: usize,
    /// What the identity can do beyond the request, through bindings that are not ours.
    pub excess: Vec<Tuple>,
    /// False when an authorizer could not list what it allows, so that `excess` is a lower bound.
    pub complete: bool,
}

/// A permission with its wildcards replaced by something that can be asked for; none for `*/scale`.
fn concrete(atom: Atom<'_>) -> Option<Atom<'_>> {
    (!atom.resource.starts_with("*/")).then_some(Atom {
        group: if atom.group == "*" { "" } else { atom.group },
        resource: if atom.resource == "*" { "configmaps" } else { atom.resource },
        verb: if atom.verb == "*" { "get" } else { atom.verb },
        name: atom.name,
    })
}

/// What every authenticated user may create: ClusterRole system:basic-user.
const EVERYONE: [(&str, &str); 3] = [
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];

/// What every ServiceAccount may read: ClusterRoles system:discovery, system:public-info-viewer and
/// system:service-account-issuer-discovery; without the stars and slashes at their ends.
const EVERYONES_URLS: [&str; 9] = [
    "/api",
    "/apis",
    "/openapi",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(resources: &[&str], verbs: &[&str], names: &[&str]) -> Rule {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Rule {
            api_groups: vec![String::new()],
            resources: owned(resources),
            verbs: owned(verbs),
            resource_names: owned(names),
        }
    }

    fn token(payload: &Value) -> Token {
        Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))).unwrap()
    }

    #[test]
    fn a_token_of_an_earlier_service_account_is_refused() {
        let claims = serde_json::json!({
            "sub": "system:serviceaccount:a:demo-token",
            "kubernetes.io/serviceaccount/namespace": "a",
            "kubernetes.io/serviceaccount/service-account.name": "demo-token",
            "kubernetes.io/serviceaccount/service-account.uid": "old",
        });
        let expect = |uid| Expected { namespace: "a", service_account: "demo-token", uid };
        assert!(check_claims(&token(&claims), &expect("old")).is_ok());
        let failure = check_claims(&token(&claims), &expect("new")).unwrap_err();
        assert_eq!(failure.code, Code::WrongIdentity);
        assert!(failure.cause.contains("uid"), "{}", failure.cause);
    }

    #[test]
    fn neighbours_are_the_other_verbs_and_the_other_names() {
        let rules = [rule(&["pods"], &["get", "list"], &[]), rule(&["secrets"], &["get"], &["one"])];
        let questions = Questions::new(&rules);
        assert_eq!(questions.requested(), 3);
        assert!(questions.neighbours.contains(&Atom::new("delete", "", "pods")));
        assert!(questions.neighbours.contains(&Atom::new("get", "", "secrets")));
        assert!(!questions.neighbours.contains(&Atom::new("get", "", "pods")));
        assert_eq!(questions.allowed_example(), Some(Atom::new("get", "", "pods")));
        assert_eq!(questions.denied_example(), Some(Atom::new("create", "", "pods")));
    }

    #[test]
    fn excess_is_what_neither_the_request_nor_everybody_has() {
        let rules = [rule(&["pods"], &["get"], &[])];
        let basic = Rule {
            api_groups: vec!["authorization.k8s.io".to_owned()],
            resources: vec!["selfsubjectrulesreviews".to_owned()],
            verbs: vec!["create".to_owned()],
            resource_names: Vec::new(),
        };
        let review = Review {
            rules: vec![rule(&["pods"], &["get"], &[]), rule(&["secrets"], &["list"], &[]), basic],
            urls: vec![("get".to_owned(), "/api/*".to_owned()), ("get".to_owned(), "/metrics".to_owned())],
            complete: true,
        };
        let judgement = Questions::new(&rules).judge(&review, "a");
        assert!(judgement.uncovered.is_empty());
        assert_eq!(
            judgement.excess,
            [
                Atom::new("list", "", "secrets").tuple(Some("a")),
                Tuple::Url { verb: "get".to_owned(), url: "/metrics".to_owned() },
            ]
        );
    }
}
