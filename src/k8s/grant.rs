//! Grants: rules with the places where they apply. All Roles and bindings follow from this list; one namespace with
//! rules is its simplest case. Pure.

use std::{collections::BTreeMap, fmt, ops::Deref};

use crate::{
    k8s::{
        name::{ClusterRoleName, Namespace},
        object::{Kind, Reference},
    },
    rbac::Rule,
};

/// A scope: one namespace, or the whole cluster. In printing order: namespaces by name, the whole cluster last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// One namespace: Role and RoleBinding.
    Namespace(Namespace),
    /// The whole cluster: ClusterRole and ClusterRoleBinding.
    Cluster,
}

impl Scope {
    /// Parses a scope as in the params and the inventory: a namespace, or `*`.
    ///
    /// # Errors
    /// What was expected, without the value.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" { Ok(Self::Cluster) } else { Namespace::parse(text).map(Self::Namespace) }
    }

    /// The namespace; none for the whole cluster.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(namespace) => Some(namespace.as_str()),
            Self::Cluster => None,
        }
    }

    /// An object of this scope, of one of two kinds.
    pub(crate) fn reference(&self, in_namespace: Kind, in_cluster: Kind, name: &str) -> Reference {
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

/// The role that a binding refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RoleSource {
    /// The instance's own Role or ClusterRole, one for each scope.
    Rules,
    /// An existing ClusterRole of someone else.
    ClusterRole(ClusterRoleName),
}

impl RoleSource {
    /// The existing ClusterRole, if it is one.
    pub(crate) const fn cluster_role(&self) -> Option<&ClusterRoleName> {
        match self {
            Self::Rules => None,
            Self::ClusterRole(name) => Some(name),
        }
    }
}

/// A place: one binding, with the instance's own Role if the binding refers to it. The inventory lists places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Its scope.
    pub(crate) scope: Scope,
    /// The role that the binding refers to.
    pub(crate) role_source: RoleSource,
    /// Whether it is a temporary binding, which early builds of version 2.0.0 created while they replaced another one.
    /// None is created any more; those that an inventory lists are deleted.
    pub(crate) temporary: bool,
}

impl Place {
    /// The place of a grant.
    pub(crate) const fn new(scope: Scope, role_source: RoleSource) -> Self {
        Self { scope, role_source, temporary: false }
    }

    /// The place of the temporary binding that belongs to this one.
    #[must_use]
    pub(crate) fn temporary(self) -> Self {
        Self { temporary: true, ..self }
    }

    /// As in `by rules in namespace team-b`.
    pub(crate) fn describe(&self) -> String {
        let by = match &self.role_source {
            RoleSource::Rules => "by rules".to_owned(),
            RoleSource::ClusterRole(name) => format!("by ClusterRole {}", name.as_str()),
        };
        match &self.scope {
            Scope::Namespace(namespace) => format!("{by} in namespace {namespace}"),
            Scope::Cluster => format!("{by} in the whole cluster"),
        }
    }

    /// Whether the instance's own Role or ClusterRole belongs to it.
    pub(crate) fn has_role(&self) -> bool {
        self.role_source == RoleSource::Rules && !self.temporary
    }
}

/// A grant: the permissions at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Its scope.
    pub(crate) place: Place,
    /// The rules of the own Role; empty for an existing ClusterRole.
    pub(crate) rules: Vec<Rule>,
}

/// An entry of `rules`, before merging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestedRule {
    /// JSON pointer to it in the params.
    pub(crate) pointer: String,
    /// Where it comes from: a file, or an option of the command line.
    pub(crate) source: Option<String>,
    /// The rule.
    pub(crate) rule: Rule,
    /// Its scope.
    pub(crate) scopes: Vec<Scope>,
}

/// An entry of `cluster_roles`, before merging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestedRole {
    /// JSON pointer to it in the params.
    pub(crate) pointer: String,
    /// Where the params come from, for findings.
    pub(crate) source: Option<String>,
    /// The existing ClusterRole.
    pub(crate) name: ClusterRoleName,
    /// Its scope.
    pub(crate) scopes: Vec<Scope>,
}

/// The grants of the params, place by place: the home namespace first, then the others by name, then the cluster;
/// together with the requested entries before merging.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    requested: Vec<RequestedRule>,
    requested_roles: Vec<RequestedRole>,
    merged: Vec<Grant>,
}

impl Grants {
    /// Merges the rules of each scope into one grant; each ClusterRole is a grant of its own in each of its scopes.
    pub(crate) fn new(requested: Vec<RequestedRule>, requested_roles: Vec<RequestedRole>, home: &Scope) -> Self {
        let mut places: BTreeMap<Place, Vec<Rule>> = BTreeMap::new();
        for RequestedRule { rule, scopes, .. } in &requested {
            for scope in scopes {
                places.entry(Place::new(scope.clone(), RoleSource::Rules)).or_default().push(rule.clone());
            }
        }
        for RequestedRole { name, scopes, .. } in &requested_roles {
            for scope in scopes {
                places.entry(Place::new(scope.clone(), RoleSource::ClusterRole(name.clone()))).or_default();
            }
        }
        let mut merged: Vec<Grant> = places.into_iter().map(|(place, rules)| Grant { place, rules }).collect();
        merged.sort_by_key(|grant| grant.place.scope != *home);
        Self { requested, requested_roles, merged }
    }

    /// The requested rules before merging.
    pub(crate) fn requested(&self) -> &[RequestedRule] {
        &self.requested
    }

    /// The requested ClusterRoles before merging.
    pub(crate) fn requested_roles(&self) -> &[RequestedRole] {
        &self.requested_roles
    }

    /// Whether there is a grant at this place.
    pub(crate) fn wants(&self, place: &Place) -> bool {
        self.merged.iter().any(|grant| grant.place == *place)
    }

    /// The rules of the own Role at this place.
    pub(crate) fn rules(&self, place: &Place) -> &[Rule] {
        self.merged.iter().find(|grant| grant.place == *place).map_or(&[], |grant| &grant.rules)
    }
}

impl Deref for Grants {
    type Target = [Grant];

    fn deref(&self) -> &[Grant] {
        &self.merged
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::parse(text).unwrap()
    }

    fn view() -> ClusterRoleName {
        ClusterRoleName::parse("view").unwrap()
    }

    #[rstest]
    #[case::namespace("team-a", Some("Role team-a/x"))]
    #[case::whole_cluster("*", Some("ClusterRole x"))]
    #[case::two_stars("**", None)]
    #[case::empty("", None)]
    #[case::upper_case("Team", None)]
    fn scope_is_namespace_or_star(#[case] text: &str, #[case] object: Option<&str>) {
        let scope = Scope::parse(text).ok();
        let role = scope.as_ref().map(|scope| scope.reference(Kind::Role, Kind::ClusterRole, "x").to_string());
        assert_eq!(role.as_deref(), object);
        if let Some(scope) = scope {
            assert_eq!((&*scope.to_string(), scope.namespace()), (text, Some(text).filter(|text| *text != "*")));
        }
    }

    /// Columns: place, whether the own Role belongs to it, whether that of its temporary binding, description.
    #[rstest]
    #[case::rules(Place::new(scope("b"), RoleSource::Rules), true, "by rules in namespace b")]
    #[case::rules_everywhere(Place::new(scope("*"), RoleSource::Rules), true, "by rules in the whole cluster")]
    #[case::cluster_role(
        Place::new(scope("b"), RoleSource::ClusterRole(view())),
        false,
        "by ClusterRole view in namespace b"
    )]
    #[case::temporary(Place::new(scope("b"), RoleSource::Rules).temporary(), false, "by rules in namespace b")]
    fn own_role_belongs_to_lasting_rules(#[case] place: Place, #[case] has_role: bool, #[case] text: &str) {
        assert_eq!((place.has_role(), &*place.describe()), (has_role, text));
        assert!(!place.clone().temporary().has_role());
        assert_eq!(place.role_source.cluster_role().is_some(), text.contains("ClusterRole"));
    }

    fn requested(pointer: &str, verb: &str, scopes: &[&str]) -> RequestedRule {
        let rule = Rule { verbs: vec![verb.to_owned()], ..Rule::default() };
        RequestedRule {
            pointer: pointer.to_owned(),
            source: None,
            rule,
            scopes: scopes.iter().map(|text| scope(text)).collect(),
        }
    }

    fn requested_view(scopes: &[&str]) -> RequestedRole {
        let scopes = scopes.iter().map(|text| scope(text)).collect();
        RequestedRole { pointer: "/cluster_roles/0".to_owned(), source: None, name: view(), scopes }
    }

    #[test]
    fn rules_are_merged_by_scope() {
        let rules = vec![
            requested("/rules/0", "get", &["z", "*"]),
            requested("/rules/1", "list", &["home", "z"]),
            requested("/rules/2", "watch", &["a"]),
        ];
        let grants = Grants::new(rules.clone(), vec![requested_view(&["z", "*"])], &scope("home"));
        let merged: Vec<_> = grants
            .iter()
            .map(|grant| {
                let verbs = grant.rules.iter().flat_map(|rule| rule.verbs.clone()).collect::<Vec<_>>().join(" ");
                format!("{}: {verbs}", grant.place.describe())
            })
            .collect();
        assert_eq!(
            merged,
            [
                "by rules in namespace home: list",
                "by rules in namespace a: watch",
                "by rules in namespace z: get list",
                "by ClusterRole view in namespace z: ",
                "by rules in the whole cluster: get",
                "by ClusterRole view in the whole cluster: ",
            ]
        );
        assert_eq!(grants.requested(), rules);
        assert_eq!(grants.requested_roles(), [requested_view(&["z", "*"])]);
    }

    #[test]
    fn grant_is_found_by_its_place() {
        let grants = Grants::new(vec![requested("/rules/0", "get", &["a"])], vec![requested_view(&["b"])], &scope("a"));
        for (place, wanted, rules) in [
            (Place::new(scope("a"), RoleSource::Rules), true, 1),
            (Place::new(scope("b"), RoleSource::ClusterRole(view())), true, 0),
            (Place::new(scope("b"), RoleSource::Rules), false, 0),
            (Place::new(scope("a"), RoleSource::ClusterRole(view())), false, 0),
            (Place::new(scope("a"), RoleSource::Rules).temporary(), false, 0),
            (Place::new(scope("*"), RoleSource::Rules), false, 0),
        ] {
            assert_eq!((grants.wants(&place), grants.rules(&place).len()), (wanted, rules), "{}", place.describe());
        }
    }
}
