//! The state of the cluster that a run starts from, as plain data. `look.rs` reads it. Pure.

use std::collections::BTreeMap;

use crate::{
    credential::access_checks::Review,
    diagnostics::error::Failure,
    k8s::grant::Scope,
    plan::{adoption::evidence::Evidence, observed::Observed},
    rbac::{Atom, Coverage, Tuple, atoms},
};

/// The state of the cluster that a run starts from: the objects at the places of the instance, and what the parent
/// credential may do there.
pub struct Sight {
    /// The objects at our places.
    pub observed: Observed,
    /// As in `v1.37.2`; none from a server that hides it.
    pub server_version: Option<String>,
    /// What the parent credential may do, scope by scope.
    pub rights: Rights,
    /// What the parent credential lacks to look at what is asked for.
    pub denied: Vec<Tuple>,
    /// False when the list of places on the ServiceAccount cannot be read as a whole.
    pub inventory_is_whole: bool,
    /// What was found of the Helm release of version 1.0.0.
    pub adoption: Evidence,
    /// Why no credential can be proved on this server, if that is so.
    pub too_old: Option<Failure>,
}

/// What the server says the parent credential may do, scope by scope.
#[derive(Default)]
pub struct Rights(BTreeMap<Scope, Review>);

impl Rights {
    /// Takes what the server says of a scope.
    pub fn add(&mut self, scope: Scope, review: Review) {
        self.0.insert(scope, review);
    }

    /// False when the server was not asked about this scope, or cannot list all that it allows there.
    #[must_use]
    pub fn complete(&self, scope: &Scope) -> bool {
        self.0.get(scope).is_some_and(|review| review.complete)
    }

    /// The scopes in which the server lists all that it allows.
    pub fn listed_scopes(&self) -> impl Iterator<Item = &Scope> {
        self.0.keys().filter(|scope| self.complete(scope))
    }

    /// True when the server lists everything for the parent credential and nothing of what RBAC grants every
    /// ServiceAccount: its authorizers are others. That proves nothing of anybody else's rights.
    #[must_use]
    pub fn lack_what_rbac_lists(&self) -> bool {
        let everything = Atom::new("*", "*", "*");
        let stock = Atom::new("create", "authorization.k8s.io", "selfsubjectrulesreviews");
        let listed = || self.0.values().flat_map(|review| atoms(&review.rules, None));
        listed().any(|atom| atom == everything) && !listed().any(|atom| atom == stock)
    }

    /// What is held in a scope, as the server judges a grant there: by what it lists for that scope, paths included.
    #[must_use]
    pub fn held(&self, scope: &Scope) -> Coverage<'_> {
        self.0.get(scope).into_iter().flat_map(|review| atoms(&review.rules, None)).collect()
    }
}
