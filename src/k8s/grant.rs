//! Grants: what is allowed, and where. The core of a request: all Roles and bindings follow from this list, of which
//! one namespace with rules of its own is the shortest. Pure.

use std::{collections::BTreeMap, fmt, ops::Deref};

use crate::{
    k8s::{
        name::{ClusterRoleName, Namespace},
        object::{Kind, Reference},
    },
    rbac::Rule,
};

/// Where something is allowed. Ordered as people read it: namespaces by name, the whole cluster last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In one namespace: Role and RoleBinding.
    Namespace(Namespace),
    /// In the whole cluster: ClusterRole and ClusterRoleBinding.
    Cluster,
}

impl Scope {
    /// Takes a scope as the params and the inventory write it: a namespace, or `*`.
    ///
    /// # Errors
    /// What would be right, without the value.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" { Ok(Self::Cluster) } else { Namespace::parse(text).map(Self::Namespace) }
    }

    /// The namespace; none for the whole cluster.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(namespace) => Some(namespace.as_str()),
            Self::Cluster => None,
        }
    }

    /// An object of this scope, of one of two kinds.
    #[must_use]
    pub fn reference(&self, in_namespace: Kind, in_cluster: Kind, name: &str) -> Reference {
        match self {
            Self::Namespace(namespace) => Reference::new(in_namespace, namespace.as_str(), name),
            Self::Cluster => Reference::at_cluster(in_cluster, name),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.namespace().unwrap_or("*"))
    }
}

/// What a binding refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// The Role or ClusterRole that is ours, one for each scope.
    Rules,
    /// A ClusterRole that somebody else keeps.
    ClusterRole(ClusterRoleName),
}

impl Authority {
    /// The ClusterRole of somebody else, if it is one.
    #[must_use]
    pub const fn cluster_role(&self) -> Option<&ClusterRoleName> {
        match self {
            Self::Rules => None,
            Self::ClusterRole(name) => Some(name),
        }
    }
}

/// Where a grant has its objects: one binding, and the Role that is ours beside it, if it refers to one. Places are
/// what the inventory remembers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where.
    pub scope: Scope,
    /// What the binding refers to.
    pub authority: Authority,
    /// True for a temporary binding that early builds of version 2.0.0 made while they replaced another one. None is
    /// made any more; those that an inventory lists are deleted.
    pub temporary: bool,
}

impl Place {
    /// The place of a grant.
    #[must_use]
    pub const fn new(scope: Scope, authority: Authority) -> Self {
        Self { scope, authority, temporary: false }
    }

    /// The place of the temporary binding beside this one.
    #[must_use]
    pub fn temporary(self) -> Self {
        Self { temporary: true, ..self }
    }

    /// As in `by rules in namespace team-b`.
    #[must_use]
    pub fn words(&self) -> String {
        let by = match &self.authority {
            Authority::Rules => "by rules".to_owned(),
            Authority::ClusterRole(name) => format!("by ClusterRole {}", name.as_str()),
        };
        match &self.scope {
            Scope::Namespace(namespace) => format!("{by} in namespace {namespace}"),
            Scope::Cluster => format!("{by} in the whole cluster"),
        }
    }

    /// True when a Role or ClusterRole of ours belongs to it.
    #[must_use]
    pub fn has_role(&self) -> bool {
        self.authority == Authority::Rules && !self.temporary
    }
}

/// What is to be allowed at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where.
    pub place: Place,
    /// The rules of our own Role; empty for a ClusterRole, which has its own.
    pub rules: Vec<Rule>,
}

/// An entry of `rules` as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedRule {
    /// JSON pointer to it in the params.
    pub pointer: String,
    /// What it allows.
    pub rule: Rule,
    /// Where.
    pub scopes: Vec<Scope>,
}

/// All that is to be allowed, place by place: the home namespace first, then the others by name, then the cluster. The
/// rules as they were asked for are kept beside what they are merged into.
#[derive(Debug, Default)]
pub struct Grants {
    requested: Vec<RequestedRule>,
    merged: Vec<Grant>,
}

impl Grants {
    /// Merges the rules of each scope into one grant; each ClusterRole is a grant of its own in each of its scopes.
    #[must_use]
    pub fn new(requested: Vec<RequestedRule>, roles: Vec<(ClusterRoleName, Vec<Scope>)>, home: &Scope) -> Self {
        let mut places: BTreeMap<Place, Vec<Rule>> = BTreeMap::new();
        for RequestedRule { rule, scopes, .. } in &requested {
            for scope in scopes {
                places.entry(Place::new(scope.clone(), Authority::Rules)).or_default().push(rule.clone());
            }
        }
        for (name, scopes) in roles {
            for scope in scopes {
                places.entry(Place::new(scope, Authority::ClusterRole(name.clone()))).or_default();
            }
        }
        let mut merged: Vec<Grant> = places.into_iter().map(|(place, rules)| Grant { place, rules }).collect();
        merged.sort_by_key(|grant| grant.place.scope != *home);
        Self { requested, merged }
    }

    /// The rules as they were asked for.
    #[must_use]
    pub fn requested(&self) -> &[RequestedRule] {
        &self.requested
    }

    /// True when something is to be granted at this place.
    #[must_use]
    pub fn wants(&self, place: &Place) -> bool {
        self.merged.iter().any(|grant| grant.place == *place)
    }

    /// The rules of our own Role at this place.
    #[must_use]
    pub fn rules(&self, place: &Place) -> &[Rule] {
        self.merged.iter().find(|grant| grant.place == *place).map_or(&[], |grant| &grant.rules)
    }
}

impl Deref for Grants {
    type Target = [Grant];

    fn deref(&self) -> &[Grant] {
        &self.merged
    }
}
