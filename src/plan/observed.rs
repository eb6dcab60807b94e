//! The observed state of an instance on the cluster: the input of `plan.rs`. Pure data.

use std::collections::BTreeMap;

use crate::{
    k8s::{
        grant::{Place, RoleSource},
        name::{ClusterRoleName, Namespace},
        object::Live,
        record::AccountRecord,
    },
    plan::token_slots::TokenSlots,
    rbac::{PermissionRecord, Rule},
};

/// The state of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It exists.
    Active,
    /// It does not exist.
    Absent,
    /// It is being deleted: nothing can be created in it.
    Terminating,
    /// The parent credential may not read it.
    #[default]
    Unknown,
}

/// The objects at one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LiveGrant {
    /// The instance's own Role or ClusterRole.
    pub(crate) role: Option<Live>,
    /// The binding.
    pub(crate) binding: Option<Live>,
    /// Permissions that the parent credential lacks to read them.
    pub(crate) denied: Vec<PermissionRecord>,
}

/// The observed state of an instance on the cluster.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    /// The namespaces that were read, the home namespace among them.
    pub(crate) namespaces: BTreeMap<Namespace, Presence>,
    /// The ServiceAccount.
    pub(crate) service_account: Option<Live>,
    /// The record in its annotations.
    pub(crate) record: AccountRecord,
    /// The objects at the places of the request and of the inventory, and at that of the home namespace's own Role.
    pub(crate) places: BTreeMap<Place, LiveGrant>,
    /// The rules of ClusterRoles that the instance does not own, as far as they were read; none for one that is absent.
    pub(crate) cluster_roles: BTreeMap<ClusterRoleName, Option<Vec<Rule>>>,
    /// The token slots with a Secret.
    pub(crate) slots: TokenSlots,
}

impl Observed {
    /// Whether the instance has any object.
    pub(crate) fn is_anything_there(&self) -> bool {
        let granted = self.places.values().any(|found| found.role.is_some() || found.binding.is_some());
        granted || self.service_account.is_some() || self.slots.current().is_some()
    }

    /// The state of a namespace; unknown when it was not read.
    pub(crate) fn presence(&self, namespace: &Namespace) -> Presence {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// The instance's own Role or ClusterRole at a place.
    pub(crate) fn role(&self, place: &Place) -> Option<&Live> {
        self.places.get(place)?.role.as_ref()
    }

    /// The binding at a place.
    pub(crate) fn binding(&self, place: &Place) -> Option<&Live> {
        self.places.get(place)?.binding.as_ref()
    }

    /// The rules that a binding at this place grants, as far as they are known.
    pub(crate) fn rules(&self, place: &Place) -> Vec<Rule> {
        match &place.role_source {
            RoleSource::Rules => {
                let own = Place::new(place.scope.clone(), RoleSource::Rules);
                self.role(&own).map(Live::rules).unwrap_or_default()
            }
            RoleSource::ClusterRole(name) => self.cluster_roles.get(name).cloned().flatten().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        k8s::{fetched::FetchedObject, grant::Scope},
        plan::token_slots::Slot,
    };

    fn rule(verb: &str) -> Rule {
        serde_json::from_value(json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]})).unwrap()
    }

    fn cluster_role(name: &str) -> RoleSource {
        RoleSource::ClusterRole(ClusterRoleName::parse(name).unwrap())
    }

    #[test]
    fn rules_come_from_the_bound_role() {
        let scope = Scope::parse("a").unwrap();
        let own = Place::new(scope.clone(), RoleSource::Rules);
        let mut role = Live::default();
        role.fields.insert("rules".to_owned(), json!([rule("get")]));
        let found = LiveGrant { role: Some(role), ..LiveGrant::default() };
        let observed = Observed {
            places: BTreeMap::from([(own.clone(), found)]),
            cluster_roles: BTreeMap::from([
                (ClusterRoleName::parse("view").unwrap(), Some(vec![rule("list")])),
                (ClusterRoleName::parse("gone").unwrap(), None),
            ]),
            ..Observed::default()
        };
        for (place, rules) in [
            (own, vec![rule("get")]),
            (Place::new(Scope::Cluster, RoleSource::Rules), vec![]),
            (Place::new(scope.clone(), cluster_role("view")), vec![rule("list")]),
            (Place::new(scope.clone(), cluster_role("gone")), vec![]),
            (Place::new(scope.clone(), cluster_role("unread")), vec![]),
        ] {
            assert_eq!(observed.rules(&place), rules, "{place:?}");
        }
    }

    #[test]
    fn instance_exists_with_its_first_object() {
        let place = Place::new(Scope::Cluster, RoleSource::Rules);
        let slot = |number| {
            let secret = FetchedObject {
                live: Live::default(),
                token: None,
                has_token_data: false,
                cas: std::collections::BTreeSet::new(),
            };
            let slot = Slot::new(number, secret, true, ("a", "demo-token"), None);
            TokenSlots::new(None, vec![slot])
        };
        let found = |found| Observed { places: BTreeMap::from([(place.clone(), found)]), ..Observed::default() };
        for (observed, is_there) in [
            (Observed::default(), false),
            (found(LiveGrant::default()), false),
            (found(LiveGrant { binding: Some(Live::default()), ..LiveGrant::default() }), true),
            (found(LiveGrant { role: Some(Live::default()), ..LiveGrant::default() }), true),
            (Observed { service_account: Some(Live::default()), ..Observed::default() }, true),
            (Observed { slots: slot(1), ..Observed::default() }, true),
            (Observed { slots: slot(2), ..Observed::default() }, false),
        ] {
            assert_eq!(observed.is_anything_there(), is_there);
        }
    }

    #[test]
    fn namespace_that_was_not_read_is_unknown() {
        let namespace = |name| Namespace::parse(name).unwrap();
        let namespaces = BTreeMap::from([(namespace("a"), Presence::Absent)]);
        let observed = Observed { namespaces, ..Observed::default() };
        assert_eq!(observed.presence(&namespace("a")), Presence::Absent);
        assert_eq!(observed.presence(&namespace("b")), Presence::Unknown);
    }
}
