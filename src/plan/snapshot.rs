//! The state of the cluster that a run starts from, as plain data. `run/observe.rs` reads it. Pure.

use std::collections::BTreeMap;

use crate::{
    credential::access_checks::Review,
    diagnostics::error::Failure,
    k8s::grant::Scope,
    plan::{adoption::evidence::Evidence, observed::Observed},
    rbac::{Coverage, Permission, PermissionRecord, permissions_of},
};

/// The state of the cluster that a run starts from: the objects at the places of the instance, and what the parent
/// credential may do there.
pub(crate) struct Snapshot {
    /// The live objects.
    pub(crate) observed: Observed,
    /// As in `v1.37.2`; none from a server that hides it.
    pub(crate) server_version: Option<String>,
    /// What the parent credential may do, scope by scope.
    pub(crate) parent_access: ParentAccess,
    /// What the parent credential lacks to look at what is asked for.
    pub(crate) denied: Vec<PermissionRecord>,
    /// False when the list of places on the ServiceAccount cannot be read as a whole.
    pub(crate) inventory_is_whole: bool,
    /// What was found of the Helm release of version 1.0.0.
    pub(crate) adoption: Evidence,
    /// Why no credential can be proved on this server, if that is so.
    pub(crate) too_old: Option<Failure>,
}

/// What the server says the parent credential may do, scope by scope.
#[derive(Default)]
pub(crate) struct ParentAccess(BTreeMap<Scope, Review>);

impl ParentAccess {
    /// Takes what the server says of a scope.
    pub(crate) fn add(&mut self, scope: Scope, review: Review) {
        self.0.insert(scope, review);
    }

    /// False when the server was not asked about this scope, or cannot list all that it allows there.
    pub(crate) fn is_exhaustive(&self, scope: &Scope) -> bool {
        self.0.get(scope).is_some_and(|review| review.complete)
    }

    /// The scopes in which the server lists all that it allows.
    pub(crate) fn listed_scopes(&self) -> impl Iterator<Item = &Scope> {
        self.0.keys().filter(|scope| self.is_exhaustive(scope))
    }

    /// True when the server lists everything for the parent credential and nothing of what RBAC grants every
    /// ServiceAccount: its authorizers are others. That proves nothing of anybody else's rights.
    pub(crate) fn lacks_rbac_defaults(&self) -> bool {
        let everything = Permission::new("*", "*", "*");
        let stock = Permission::new("create", "authorization.k8s.io", "selfsubjectrulesreviews");
        let listed = || self.0.values().flat_map(|review| permissions_of(&review.rules, None));
        listed().any(|permission| permission == everything) && !listed().any(|permission| permission == stock)
    }

    /// What is held in a scope, as the server judges a grant there: by what it lists for that scope, paths included.
    pub(crate) fn held(&self, scope: &Scope) -> Coverage<'_> {
        self.0.get(scope).into_iter().flat_map(|review| permissions_of(&review.rules, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::plan::fixtures::{place, review};

    fn access(scopes: &[(&str, &str, bool)]) -> ParentAccess {
        let mut access = ParentAccess::default();
        for (scope, rules, complete) in scopes {
            access.add(
                place(scope).scope,
                Review { complete: *complete, ..review(&rules.split_terminator("; ").collect::<Vec<_>>()) },
            );
        }
        access
    }

    #[test]
    fn scope_is_listed_with_a_complete_review() {
        let access = access(&[("b", "", true), ("c", "get pods", false)]);
        assert_eq!(access.listed_scopes().collect::<Vec<_>>(), [&place("b").scope]);
        for (scope, is_exhaustive) in [("b", true), ("c", false), ("d", false)] {
            assert_eq!(access.is_exhaustive(&place(scope).scope), is_exhaustive, "{scope}");
        }
    }

    #[test]
    fn permissions_are_held_in_their_scope() {
        let access = access(&[("b", "get pods; get /healthz", true), ("c", "list pods", false)]);
        let url =
            Permission { target: crate::rbac::PermissionTarget::Url("/healthz"), ..Permission::new("get", "", "") };
        for (scope, permission, is_held) in [
            ("b", Permission::new("get", "", "pods"), true),
            ("b", Permission::new("list", "", "pods"), false),
            ("b", url, true),
            ("c", url, false),
            ("c", Permission::new("list", "", "pods"), true),
            ("d", Permission::new("get", "", "pods"), false),
        ] {
            assert_eq!(access.held(&place(scope).scope).covers(permission), is_held, "{permission:?} in {scope}");
        }
    }

    #[rstest]
    #[case::everything_alone(&[("b", "* *", true)], true)]
    #[case::in_one_of_two_scopes(&[("b", "* *", true), ("c", "get pods", true)], true)]
    #[case::with_the_defaults(&[("b", "* *; create selfsubjectrulesreviews", true)], false)]
    #[case::with_other_permissions(&[("b", "* *; get selfsubjectrulesreviews", true)], true)]
    #[case::defaults_in_another_scope(&[("b", "* *", true), ("c", "create selfsubjectrulesreviews", true)], false)]
    #[case::not_quite_everything(&[("b", "get *", true)], false)]
    #[case::nothing(&[], false)]
    fn authorizer_without_defaults_is_recognized(#[case] scopes: &[(&str, &str, bool)], #[case] lacks_defaults: bool) {
        assert_eq!(access(scopes).lacks_rbac_defaults(), lacks_defaults);
    }
}
