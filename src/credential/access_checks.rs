//! Access checks of a credential: its identity and its permissions according to the server, compared with the request.
//! Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    credential::{claims::Account, defaults},
    diagnostics::error::{Code, Failure},
    rbac::{Atom, Coverage, Rule, Target, Tuple, VERBS, atoms},
};

/// The identity of a token, according to the server (SelfSubjectReview).
pub struct Identity {
    /// As in `system:serviceaccount:team-a:demo-token`.
    pub username: String,
    /// Uid of the ServiceAccount.
    pub uid: String,
}

/// The permissions of a user in one namespace, cluster-wide grants included, or in the whole cluster, according to the
/// server.
#[derive(Default)]
pub struct Review {
    /// Rules on resources and on non-resource URLs.
    pub rules: Vec<Rule>,
    /// False if an authorizer cannot list its permissions (EKS, GKE and AKS have such): then this list is incomplete.
    pub complete: bool,
}

/// The server's decision about one permission.
pub struct Verdict {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The server's reason.
    pub reason: String,
}

impl Verdict {
    /// Whether an authorizer other than RBAC allowed it: RBAC always names the binding (kubernetes,
    /// plugin/pkg/auth/authorizer/rbac).
    #[must_use]
    pub fn is_by_another_authorizer(&self) -> bool {
        self.allowed && !self.reason.starts_with("RBAC: ")
    }
}

/// Compares the identity of the token with the expected ServiceAccount.
///
/// # Errors
/// The token belongs to another user.
pub fn check_identity(identity: &Identity, expected: &Account<'_>) -> Result<(), Failure> {
    let username = expected.username();
    if identity.username == username && identity.uid == expected.uid {
        return Ok(());
    }
    let cause = format!(
        "the server identifies the token as {} with uid {}, not {username} with uid {}",
        crate::diagnostics::text::shown(&identity.username, 300),
        crate::diagnostics::text::shown(&identity.uid, 80),
        expected.uid
    );
    Err(Failure::new(Code::WrongIdentity, "asking the server whose token this is", cause))
}

/// Access checks derived from the requested permissions: the permissions that must be allowed, adjacent ones that must
/// be denied, and one concrete example of each.
pub struct Questions<'a> {
    asked: Coverage<'a>,
    requested: BTreeSet<Atom<'a>>,
    neighbours: BTreeSet<Atom<'a>>,
    /// Permissions of every ServiceAccount on some release of Kubernetes: they are no neighbours, because they may be
    /// allowed.
    everyone: Coverage<'static>,
}

impl<'a> Questions<'a> {
    /// The access checks for these permissions.
    ///
    /// The neighbours of a permission are the other verbs on its resource, for one on a single object the same on all
    /// objects, and for one in a namespace the same in the whole cluster: what a Role that is too wide by one step, or
    /// a binding of the wrong kind, would allow.
    #[must_use]
    pub fn new(permissions: &[Atom<'a>]) -> Self {
        let asked: Coverage<'a> = permissions.iter().copied().collect();
        let requested: BTreeSet<Atom<'a>> = permissions.iter().copied().filter(|atom| !atom.is_dead()).collect();
        let beside = requested.iter().flat_map(|atom| {
            let (verbs, all) = match atom.target {
                Target::Resource { group, resource, .. } => {
                    (&VERBS[..], Atom { target: Target::Resource { group, resource, name: None }, ..*atom })
                }
                Target::Url(_) => (&URL_VERBS[..], *atom),
            };
            verbs.iter().map(move |verb| Atom { verb, ..all }).chain([all, atom.within(None)])
        });
        let everyone = defaults::of_any_release();
        let neighbours = beside.filter(|atom| !asked.covers(*atom) && !everyone.covers(*atom)).collect();
        Self { asked, requested, neighbours, everyone }
    }

    /// One permission of the request that an access review can ask for; in this namespace, if there is one.
    #[must_use]
    pub fn allowed_example(&self, namespace: &str) -> Option<Atom<'a>> {
        preferably(namespace, self.requested.iter().copied().filter_map(concrete))
    }

    /// One neighbour that an access review can ask for; in this namespace, if there is one.
    #[must_use]
    pub fn denied_example(&self, namespace: &str) -> Option<Atom<'a>> {
        preferably(namespace, self.concrete_neighbours())
    }

    /// A permission of the request that is limited to a namespace, as one on the whole cluster: what must be denied.
    #[must_use]
    pub fn elsewhere_example(&self) -> Option<Atom<'a>> {
        let limited = self.requested.iter().filter(|atom| atom.namespace.is_some());
        let elsewhere = limited.filter_map(|atom| concrete(atom.within(None)));
        elsewhere.into_iter().find(|atom| !self.asked.covers(*atom) && !self.everyone.covers(*atom))
    }

    fn concrete_neighbours(&self) -> impl Iterator<Item = Atom<'a>> {
        self.neighbours.iter().copied().filter(|atom| concrete(*atom) == Some(*atom))
    }

    /// Compares the permissions that the server lists, for each namespace and (as none) for the whole cluster, with the
    /// requested ones.
    #[must_use]
    pub fn judge(&self, reviews: &[(Option<&str>, Review)]) -> Judgement<'a> {
        let listed = || reviews.iter().flat_map(|(namespace, review)| atoms(&review.rules, *namespace));
        let held: Coverage<'_> = listed().collect();
        let everywhere: Coverage<'_> = listed().filter(|atom| atom.namespace.is_none()).collect();
        let expected = |atom: &Atom<'_>| atom.is_dead() || self.asked.covers(*atom);
        // A cluster-wide permission is reported once, not again for each namespace.
        let told = |atom: &Atom<'_>| atom.namespace.is_some() && everywhere.covers(*atom);
        let excess: BTreeSet<Tuple> =
            listed().filter(|atom| !expected(atom) && !told(atom)).map(|atom| atom.tuple()).collect();
        Judgement {
            uncovered: self.requested.iter().copied().filter(|atom| !held.covers(*atom)).collect(),
            denied: self.neighbours.iter().filter(|atom| !held.covers(**atom)).count(),
            excess: excess.into_iter().collect(),
        }
    }

    /// The number of requested single permissions.
    #[must_use]
    pub fn requested(&self) -> usize {
        self.requested.len()
    }
}

/// The first one in this namespace, else the first one.
fn preferably<'a>(namespace: &str, atoms: impl Iterator<Item = Atom<'a>>) -> Option<Atom<'a>> {
    let mut first = None;
    for atom in atoms {
        if atom.namespace == Some(namespace) {
            return Some(atom);
        }
        first.get_or_insert(atom);
    }
    first
}

/// The result of the comparison.
pub struct Judgement<'a> {
    /// Requested, but not on the list.
    pub uncovered: Vec<Atom<'a>>,
    /// Neighbours that are not on the list.
    pub denied: usize,
    /// On the list, but not requested: granted by the server's defaults, or by bindings of others.
    pub excess: Vec<Tuple>,
}

/// The result of the test, as in the document of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The user name of the token.
    pub username: String,
    /// Uid of its ServiceAccount.
    pub uid: String,
    /// Single permissions of the request that the server confirmed.
    pub allowed: usize,
    /// Neighbours that the server denies.
    pub denied: usize,
    /// Permissions beyond the request and the server's defaults, from bindings of others.
    pub excess: Vec<Tuple>,
    /// True when an authorizer other than RBAC allows the identity everything, so that no Role limits it.
    #[serde(skip)]
    pub unlimited: bool,
    /// False when an authorizer could not list what it allows, so that `excess` is a lower bound.
    pub complete: bool,
}

/// A concrete example of a permission, without wildcards; none for `*/scale`.
fn concrete(atom: Atom<'_>) -> Option<Atom<'_>> {
    let target = match atom.target {
        Target::Resource { resource, .. } if resource.starts_with("*/") => return None,
        Target::Resource { group, resource, name } => Target::Resource {
            group: if group == "*" { "" } else { group },
            resource: if resource == "*" { "configmaps" } else { resource },
            name,
        },
        Target::Url(url) => Target::Url(match url.trim_end_matches('*') {
            "" => "/",
            path => path,
        }),
    };
    Some(Atom { target, verb: if atom.verb == "*" { "get" } else { atom.verb }, ..atom })
}

/// The verbs that the form offers for non-resource URLs.
const URL_VERBS: [&str; 3] = ["get", "patch", "delete"];

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
            ..Rule::default()
        }
    }

    fn permissions<'a>(rules: &'a [Rule], namespace: Option<&'a str>) -> Vec<Atom<'a>> {
        atoms(rules, namespace).collect()
    }

    #[test]
    fn adjacent_permissions_vary_verb_name_and_namespace() {
        let rules = [rule(&["pods"], &["get", "list"], &[]), rule(&["secrets"], &["get"], &["one"])];
        let here = Some("a");
        let questions = Questions::new(&permissions(&rules, here));
        assert_eq!(questions.requested(), 3);
        for neighbour in [
            Atom::new("delete", "", "pods").within(here),
            Atom::new("get", "", "secrets").within(here),
            Atom::new("get", "", "secrets").named("one"),
            Atom::new("get", "", "pods"),
        ] {
            assert!(questions.neighbours.contains(&neighbour), "{neighbour:?}");
        }
        assert!(!questions.neighbours.contains(&Atom::new("get", "", "pods").within(here)));
        assert_eq!(questions.allowed_example("a"), Some(Atom::new("get", "", "pods").within(here)));
        assert_eq!(questions.denied_example("a"), Some(Atom::new("create", "", "pods").within(here)));
        assert_eq!(questions.elsewhere_example(), Some(Atom::new("get", "", "pods")));
        let wide = permissions(&rules, None);
        assert_eq!(Questions::new(&[wide.clone(), permissions(&rules, here)].concat()).elsewhere_example(), None);
        assert_eq!(Questions::new(&wide).denied_example("a"), Some(Atom::new("create", "", "pods")));
    }

    #[test]
    fn excess_lists_each_unrequested_permission_once() {
        let rules = [rule(&["pods"], &["get"], &[])];
        let url = |url: &str| Rule {
            verbs: vec!["get".to_owned()],
            non_resource_urls: vec![url.to_owned()],
            ..Rule::default()
        };
        let everywhere = [url("/metrics"), rule(&["nodes"], &["list"], &[])];
        let here = [&everywhere[..], &rules, &[rule(&["secrets"], &["list"], &[])]].concat();
        let review = |rules: &[Rule]| Review { rules: rules.to_vec(), complete: true };
        let reviews = [(None, review(&everywhere)), (Some("a"), review(&here)), (Some("b"), review(&everywhere))];
        let asked = permissions(&rules, Some("a"));
        let judgement = Questions::new(&asked).judge(&reviews);
        assert!(judgement.uncovered.is_empty());
        assert_eq!(
            judgement.excess,
            [
                Atom::new("list", "", "nodes").tuple(),
                Atom::new("list", "", "secrets").within(Some("a")).tuple(),
                Tuple::Url { verb: "get".to_owned(), url: "/metrics".to_owned() },
            ]
        );
        let too_wide = [(None, review(&rules)), (Some("a"), review(&rules))];
        let judgement = Questions::new(&asked).judge(&too_wide);
        assert_eq!(judgement.excess, [Atom::new("get", "", "pods").tuple()], "asked for in one namespace, held in all");
        let elsewhere = [(None, review(&[])), (Some("a"), review(&[])), (Some("b"), review(&rules))];
        let judgement = Questions::new(&asked).judge(&elsewhere);
        assert_eq!(judgement.uncovered, asked, "held in one namespace, asked for in another");
        assert_eq!(judgement.excess, [Atom::new("get", "", "pods").within(Some("b")).tuple()]);
    }
}
