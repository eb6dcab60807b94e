//! Access checks of a credential: its identity and its permissions according to the server, compared with the request.
//! Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    credential::{claims::Account, defaults},
    diagnostics::error::{Code, Failure},
    rbac::{Catalog, Coverage, Permission, PermissionRecord, PermissionTarget, Rule, VERBS, matchable, permissions_of},
};

/// The identity of a token, according to the server (SelfSubjectReview).
pub(crate) struct TokenIdentity {
    /// As in `system:serviceaccount:team-a:demo-token`.
    pub(crate) username: String,
    /// Uid of the ServiceAccount.
    pub(crate) uid: String,
}

/// The permissions of a user in one namespace, cluster-wide grants included, or in the whole cluster, according to the
/// server.
#[derive(Default)]
pub(crate) struct Review {
    /// Rules on resources and on non-resource URLs.
    pub(crate) rules: Vec<Rule>,
    /// False if an authorizer cannot list its permissions (EKS, GKE and AKS have such): then this list is incomplete.
    pub(crate) complete: bool,
}

/// The server's decision about one permission.
pub(crate) struct AccessDecision {
    /// Whether it is allowed.
    pub(crate) allowed: bool,
    /// The server's reason.
    pub(crate) reason: String,
}

impl AccessDecision {
    /// Whether an authorizer other than RBAC allowed it: RBAC always names the binding (kubernetes,
    /// plugin/pkg/auth/authorizer/rbac).
    pub(crate) fn is_by_another_authorizer(&self) -> bool {
        self.allowed && !self.reason.starts_with("RBAC: ")
    }
}

/// Compares the identity of the token with the expected ServiceAccount.
pub(crate) fn check_identity(identity: &TokenIdentity, expected: &Account<'_>) -> Result<(), Failure> {
    let username = expected.username();
    if identity.username == username && identity.uid == expected.uid {
        return Ok(());
    }
    let cause = format!(
        "the server identifies the token as {} with uid {}, not {username} with uid {}",
        crate::diagnostics::text::sanitize(&identity.username, 300),
        crate::diagnostics::text::sanitize(&identity.uid, 80),
        expected.uid
    );
    Err(Failure::new(Code::WrongIdentity, "asking the server whose token this is", cause))
}

/// Access checks derived from the requested permissions: the permissions that must be allowed, adjacent ones that must
/// be denied, and one concrete example of each.
pub(crate) struct AccessChecks<'a> {
    asked: Coverage<'a>,
    requested: BTreeSet<Permission<'a>>,
    neighbours: BTreeSet<Permission<'a>>,
    /// Permissions of every ServiceAccount on some release of Kubernetes: they are no neighbours, because they may be
    /// allowed.
    everyone: Coverage<'static>,
}

impl<'a> AccessChecks<'a> {
    /// The access checks for these permissions. Those that no request for what the catalogue lists can match are not
    /// checked: the server may well list them, but that proves nothing.
    ///
    /// The neighbours of a permission are the other verbs on its resource, for one on a single object the same on all
    /// objects, and for one in a namespace the same in the whole cluster: what a Role that is too wide by one step, or
    /// a binding of the wrong kind, would allow.
    pub(crate) fn new(permissions: &[Permission<'a>], catalog: &Catalog<'_>) -> Self {
        let asked: Coverage<'a> = permissions.iter().copied().collect();
        let requested: BTreeSet<Permission<'a>> = matchable(permissions, catalog).into_iter().collect();
        let beside = requested.iter().flat_map(|permission| {
            let (verbs, all) = match permission.target {
                PermissionTarget::Resource { group, resource, .. } => (
                    &VERBS[..],
                    Permission { target: PermissionTarget::Resource { group, resource, name: None }, ..*permission },
                ),
                PermissionTarget::Url(_) => (&URL_VERBS[..], *permission),
            };
            verbs.iter().map(move |verb| Permission { verb, ..all }).chain([all, permission.within(None)])
        });
        let everyone = defaults::of_any_release();
        let neighbours =
            beside.filter(|permission| !asked.covers(*permission) && !everyone.covers(*permission)).collect();
        Self { asked, requested, neighbours, everyone }
    }

    /// One permission of the request that an access review can ask for; in this namespace, if there is one.
    pub(crate) fn allowed_example(&self, namespace: &str) -> Option<Permission<'a>> {
        preferably(namespace, self.requested.iter().copied().filter_map(concrete))
    }

    /// One neighbour that an access review can ask for; in this namespace, if there is one.
    pub(crate) fn denied_example(&self, namespace: &str) -> Option<Permission<'a>> {
        preferably(namespace, self.concrete_neighbours())
    }

    /// A permission of the request that is limited to a namespace, as one on the whole cluster: what must be denied.
    pub(crate) fn elsewhere_example(&self) -> Option<Permission<'a>> {
        let limited = self.requested.iter().filter(|permission| permission.namespace.is_some());
        let elsewhere = limited.filter_map(|permission| concrete(permission.within(None)));
        elsewhere.into_iter().find(|permission| !self.asked.covers(*permission) && !self.everyone.covers(*permission))
    }

    fn concrete_neighbours(&self) -> impl Iterator<Item = Permission<'a>> {
        self.neighbours.iter().copied().filter(|permission| concrete(*permission) == Some(*permission))
    }

    /// Compares the permissions that the server lists, for each namespace and (as none) for the whole cluster, with the
    /// requested ones.
    pub(crate) fn evaluate(&self, reviews: &[(Option<&str>, Review)]) -> AccessResult<'a> {
        let listed = || reviews.iter().flat_map(|(namespace, review)| permissions_of(&review.rules, *namespace));
        let held: Coverage<'_> = listed().collect();
        let everywhere: Coverage<'_> = listed().filter(|permission| permission.namespace.is_none()).collect();
        let expected = |permission: &Permission<'_>| permission.matches_nothing() || self.asked.covers(*permission);
        // A cluster-wide permission is reported once, not again for each namespace.
        let is_reported =
            |permission: &Permission<'_>| permission.namespace.is_some() && everywhere.covers(*permission);
        let excess: BTreeSet<PermissionRecord> = listed()
            .filter(|permission| !expected(permission) && !is_reported(permission))
            .map(|permission| permission.record())
            .collect();
        AccessResult {
            uncovered: self.requested.iter().copied().filter(|permission| !held.covers(*permission)).collect(),
            denied: self.neighbours.iter().filter(|permission| !held.covers(**permission)).count(),
            excess: excess.into_iter().collect(),
        }
    }

    /// Whether this permission is checked.
    pub(crate) fn includes(&self, permission: &Permission<'_>) -> bool {
        self.requested.contains(permission)
    }

    /// The number of requested single permissions.
    pub(crate) fn requested(&self) -> usize {
        self.requested.len()
    }
}

/// The first one in this namespace, else the first one.
fn preferably<'a>(namespace: &str, permissions: impl Iterator<Item = Permission<'a>>) -> Option<Permission<'a>> {
    let mut first = None;
    for permission in permissions {
        if permission.namespace == Some(namespace) {
            return Some(permission);
        }
        first.get_or_insert(permission);
    }
    first
}

/// The result of the comparison.
pub(crate) struct AccessResult<'a> {
    /// Requested, but not on the list.
    pub(crate) uncovered: Vec<Permission<'a>>,
    /// Neighbours that are not on the list.
    pub(crate) denied: usize,
    /// On the list, but not requested: granted by the server's defaults, or by bindings of others.
    pub(crate) excess: Vec<PermissionRecord>,
}

/// The result of the test, as in the document of `--json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Proof {
    /// The user name of the token.
    pub(crate) username: String,
    /// Uid of its ServiceAccount.
    pub(crate) uid: String,
    /// Single permissions of the request that the server confirmed.
    pub(crate) allowed: usize,
    /// Neighbours that the server denies.
    pub(crate) denied: usize,
    /// Permissions beyond the request and the server's defaults, from bindings of others.
    pub(crate) excess: Vec<PermissionRecord>,
    /// True when an authorizer other than RBAC allows the identity everything, so that no Role limits it.
    #[serde(skip)]
    pub(crate) unlimited: bool,
    /// False when an authorizer could not list what it allows, so that `excess` is a lower bound.
    pub(crate) complete: bool,
}

/// A concrete example of a permission, without wildcards; none for `*/scale`.
fn concrete(permission: Permission<'_>) -> Option<Permission<'_>> {
    let target = match permission.target {
        PermissionTarget::Resource { resource, .. } if resource.starts_with("*/") => return None,
        PermissionTarget::Resource { group, resource, name } => PermissionTarget::Resource {
            group: if group == "*" { "" } else { group },
            resource: if resource == "*" { "configmaps" } else { resource },
            name,
        },
        PermissionTarget::Url(url) => PermissionTarget::Url(match url.trim_end_matches('*') {
            "" => "/",
            path => path,
        }),
    };
    Some(Permission { target, verb: if permission.verb == "*" { "get" } else { permission.verb }, ..permission })
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

    fn permissions<'a>(rules: &'a [Rule], namespace: Option<&'a str>) -> Vec<Permission<'a>> {
        permissions_of(rules, namespace).collect()
    }

    #[test]
    fn adjacent_permissions_vary_verb_name_and_namespace() {
        let rules = [rule(&["pods"], &["get", "list"], &[]), rule(&["secrets"], &["get"], &["one"])];
        let here = Some("a");
        let checks = AccessChecks::new(&permissions(&rules, here), Catalog::embedded());
        assert_eq!(checks.requested(), 3);
        for neighbour in [
            Permission::new("delete", "", "pods").within(here),
            Permission::new("get", "", "secrets").within(here),
            Permission::new("get", "", "secrets").named("one"),
            Permission::new("get", "", "pods"),
        ] {
            assert!(checks.neighbours.contains(&neighbour), "{neighbour:?}");
        }
        assert!(!checks.neighbours.contains(&Permission::new("get", "", "pods").within(here)));
        assert_eq!(checks.allowed_example("a"), Some(Permission::new("get", "", "pods").within(here)));
        assert_eq!(checks.denied_example("a"), Some(Permission::new("create", "", "pods").within(here)));
        assert_eq!(checks.elsewhere_example(), Some(Permission::new("get", "", "pods")));
        let wide = permissions(&rules, None);
        assert_eq!(
            AccessChecks::new(&[wide.clone(), permissions(&rules, here)].concat(), Catalog::embedded())
                .elsewhere_example(),
            None
        );
        assert_eq!(
            AccessChecks::new(&wide, Catalog::embedded()).denied_example("a"),
            Some(Permission::new("create", "", "pods"))
        );
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
        let result = AccessChecks::new(&asked, Catalog::embedded()).evaluate(&reviews);
        assert!(result.uncovered.is_empty());
        assert_eq!(
            result.excess,
            [
                Permission::new("list", "", "nodes").record(),
                Permission::new("list", "", "secrets").within(Some("a")).record(),
                PermissionRecord::Url { verb: "get".to_owned(), url: "/metrics".to_owned() },
            ]
        );
        let too_wide = [(None, review(&rules)), (Some("a"), review(&rules))];
        let result = AccessChecks::new(&asked, Catalog::embedded()).evaluate(&too_wide);
        assert_eq!(
            result.excess,
            [Permission::new("get", "", "pods").record()],
            "asked for in one namespace, held in all"
        );
        let elsewhere = [(None, review(&[])), (Some("a"), review(&[])), (Some("b"), review(&rules))];
        let result = AccessChecks::new(&asked, Catalog::embedded()).evaluate(&elsewhere);
        assert_eq!(result.uncovered, asked, "held in one namespace, asked for in another");
        assert_eq!(result.excess, [Permission::new("get", "", "pods").within(Some("b")).record()]);
    }
}
