//! What the server has at the places of our objects: the form in which the look hands it to `plan.rs`. Pure data.

use std::collections::BTreeMap;

use crate::{
    credential::Unfit,
    grant::{Authority, Place},
    inventory::Inventory,
    name::{ClusterRoleName, Namespace},
    object::{Live, Reference},
    rbac::{Rule, Tuple},
    secret::Token,
};

/// The state of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// There.
    Active,
    /// Not there.
    Absent,
    /// On its way out: nothing can be made in it.
    Terminating,
    /// The parent credential may not look; later requests will tell.
    #[default]
    Unknown,
}

/// An object as it came, taken apart: what may travel on, and the token in it.
pub struct Seen {
    /// The object without a Secret's data.
    pub live: Live,
    /// The token of a Secret.
    pub token: Option<Token>,
    /// Whether there is anything where a Secret has its token.
    pub filled: bool,
}

/// What is at one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Our own Role or ClusterRole.
    pub role: Option<Live>,
    /// The binding.
    pub binding: Option<Live>,
    /// What the parent credential lacks to look at it.
    pub denied: Vec<Tuple>,
}

/// What the server has at the places of our objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The namespaces that were looked at, the home namespace among them.
    pub namespaces: BTreeMap<Namespace, Presence>,
    /// The ServiceAccount.
    pub service_account: Option<Live>,
    /// Where the ServiceAccount says that something may be.
    pub inventory: Inventory,
    /// What is at the places of the request and of the inventory, and at that of the home namespace's own Role.
    pub places: BTreeMap<Place, Found>,
    /// The rules of existing ClusterRoles, as far as they were looked at; none for one that is not there.
    pub cluster_roles: BTreeMap<ClusterRoleName, Option<Vec<Rule>>>,
    /// The Secret of the newest generation.
    pub secret: Option<Live>,
    /// Why that is of no use, if it is of none: another one takes its place.
    pub unfit: Option<Unfit>,
    /// The first Secret and the one before the newest, by number, when they are still there: left by runs that
    /// overtook each other.
    pub earlier: Vec<(u32, Live)>,
    /// The Secrets in which Helm keeps the original bundle's release, where there is one.
    pub revisions: Vec<(Reference, Live)>,
}

impl Observed {
    /// The number of the token Secret to have: the newest when it is there, else the next one. A name is never used
    /// twice in the life of a ServiceAccount, because the same name means the same token, even after its deletion.
    #[must_use]
    pub fn wanted_generation(&self) -> u32 {
        let gone = self.service_account.is_some() && self.secret.is_none();
        if gone || self.unfit.is_some() { self.newest().saturating_add(1) } else { self.newest() }
    }

    /// The Secrets that have to go, by number: those of earlier generations, and the newest when it is of no use. What
    /// is being deleted goes without us.
    pub fn retired(&self) -> impl Iterator<Item = (u32, &Live)> {
        let earlier = self.earlier.iter().map(|(generation, live)| (*generation, live));
        let unfit = self.secret.as_ref().filter(|_| self.unfit.is_some()).map(|live| (self.newest(), live));
        earlier.chain(unfit).filter(|(_, live)| live.deleting.is_none())
    }

    /// The number of the newest token Secret that was ever made, or 1.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.service_account.as_ref().and_then(Live::generation).unwrap_or(1)
    }

    /// Whether anything of the instance is there.
    #[must_use]
    pub fn is_anything_there(&self) -> bool {
        let granted = self.places.values().any(|found| found.role.is_some() || found.binding.is_some());
        granted || self.service_account.is_some() || self.secret.is_some()
    }

    /// The token Secret, if it is of use.
    #[must_use]
    pub fn secret(&self) -> Option<&Live> {
        self.secret.as_ref().filter(|_| self.unfit.is_none())
    }

    /// The state of a namespace; unknown when nobody looked.
    #[must_use]
    pub fn presence(&self, namespace: &Namespace) -> Presence {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// Our own Role or ClusterRole at a place.
    #[must_use]
    pub fn role(&self, place: &Place) -> Option<&Live> {
        self.places.get(place)?.role.as_ref()
    }

    /// The binding at a place.
    #[must_use]
    pub fn binding(&self, place: &Place) -> Option<&Live> {
        self.places.get(place)?.binding.as_ref()
    }

    /// The rules that a binding at this place hands out, as far as they are known.
    #[must_use]
    pub fn rules(&self, place: &Place) -> Vec<Rule> {
        match &place.authority {
            Authority::Rules => {
                let own = Place::new(place.scope.clone(), Authority::Rules);
                self.role(&own).map(Live::rules).unwrap_or_default()
            }
            Authority::ClusterRole(name) => self.cluster_roles.get(name).cloned().flatten().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_generation_is_never_used_twice() {
        let account = |generation: &str| {
            let annotations = BTreeMap::from([(crate::object::GENERATION.to_owned(), generation.to_owned())]);
            Some(Live { annotations, ..Live::default() })
        };
        let seen = |service_account, secret| Observed { service_account, secret, ..Observed::default() };
        assert_eq!(seen(None, None).wanted_generation(), 1);
        assert_eq!(seen(account("1"), Some(Live::default())).wanted_generation(), 1);
        assert_eq!(seen(account("1"), None).wanted_generation(), 2);
        assert_eq!(seen(account("7"), None).wanted_generation(), 8);
    }
}
