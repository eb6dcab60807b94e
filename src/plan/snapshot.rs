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
