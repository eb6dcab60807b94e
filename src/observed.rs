//! What the server has at the places of our objects: the form in which the look hands it to `plan.rs`. Pure data.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Earlier Secrets that are still there, by number: the one that the newest replaces, and what runs have left that
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

    /// The numbers of the earlier Secrets that can be there while the newest has this number: the first one, the one
    /// before it, and the one that the ServiceAccount records as replaced.
    #[must_use]
    pub fn earlier_numbers(&self) -> BTreeSet<u32> {
        let newest = self.newest();
        let recorded = self.service_account.as_ref().and_then(Live::replaced);
        let numbers = recorded.into_iter().chain(implied(newest));
        numbers.filter(|number| (1..newest).contains(number)).collect()
    }

    /// The Secret that may have been handed out last, by number, when another one is about to be made: it stays until
    /// its successor is proved. Runs that fail make none but the newest, so it is the one on record, or the lowest. A
    /// token that the server has never accepted was never proved, and so never handed out.
    fn replaced(&self, ours: impl Fn(&Live) -> bool) -> Option<u32> {
        let there = self.earlier.iter().filter(|(_, live)| live.deleting.is_none() && ours(live));
        let there: BTreeSet<u32> = there.map(|(number, _)| *number).collect();
        let recorded = self.service_account.as_ref().and_then(Live::replaced);
        let recorded = recorded.filter(|number| there.contains(number));
        let newest = self.secret.as_ref().filter(|live| live.deleting.is_none() && ours(live) && live.was_used());
        recorded.or(there.first().copied()).or(newest.map(|_| self.newest()))
    }

    /// What the ServiceAccount has to record of the Secret that is replaced, when the newest has this number. What it
    /// records already stays until another Secret is made, so that a run that changes nothing writes nothing.
    #[must_use]
    pub fn recorded_replaced(&self, wanted: u32, ours: impl Fn(&Live) -> bool) -> Option<u32> {
        if wanted == self.newest() {
            return self.service_account.as_ref().and_then(Live::replaced);
        }
        self.replaced(ours).filter(|number| !implied(wanted).contains(number))
    }

    /// The Secrets that have to go before another one is made, by number: all but the one that is replaced. What only
    /// failed runs have tried is thus never left beside what they try next.
    pub fn superseded(&self, ours: impl Fn(&Live) -> bool) -> impl Iterator<Item = (u32, &Live)> {
        let stays = self.replaced(&ours);
        let another = self.wanted_generation() != self.newest();
        self.retired().filter(move |(number, live)| another && Some(*number) != stays && ours(live))
    }

    /// Forgets a Secret that has been deleted.
    pub fn forget_secret(&mut self, number: u32) {
        self.earlier.retain(|(earlier, _)| *earlier != number);
        if number == self.newest() {
            self.secret = None;
            self.unfit = None;
        }
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

/// The numbers under which an earlier Secret is looked for without a record of it: the first, as the original bundle
/// named it, and the one before the newest.
const fn implied(newest: u32) -> [u32; 2] {
    [1, newest.saturating_sub(1)]
}

#[cfg(test)]
mod tests {
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
    #[test]
    fn of_the_secrets_that_are_there_only_the_one_that_may_be_in_use_stays_until_its_successor_is_proved() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let secret = |used: bool| Live {
            labels: if used { map(crate::object::LAST_USED, "2026-11-28") } else { BTreeMap::new() },
            ..Live::default()
        };
        let unfit = || Some(Unfit { field: "/data/token", why: "the server does not accept it".to_owned() });
        let observed = |newest: u32, used: bool, replaced: Option<u32>, earlier: &[u32]| {
            let mut annotations = map(crate::object::GENERATION, &newest.to_string());
            annotations.extend(replaced.map(|number| (crate::object::REPLACED.to_owned(), number.to_string())));
            Observed {
                service_account: Some(Live { annotations, ..Live::default() }),
                secret: Some(secret(used)),
                unfit: unfit(),
                earlier: earlier.iter().map(|number| (*number, secret(true))).collect(),
                ..Observed::default()
            }
        };
        let ours = |_: &Live| true;
        let goes = |seen: &Observed| seen.superseded(ours).map(|(number, _)| number).collect::<Vec<_>>();
        let records = |seen: &Observed| seen.recorded_replaced(seen.wanted_generation(), ours);
        for (seen, going, recorded, told) in [
            (observed(1, false, None, &[]), vec![1], None, "it has never worked"),
            (observed(3, true, None, &[]), vec![], None, "it has worked once, and follows from the newest number"),
            (observed(4, true, None, &[3]), vec![4], Some(3), "3 is replaced, and 4 was only tried"),
            (observed(5, true, Some(3), &[3]), vec![5], Some(3), "on record"),
            (observed(5, true, Some(3), &[1]), vec![5], None, "the one on record is gone"),
            (observed(4, true, None, &[1, 3]), vec![3, 4], None, "the lowest is the one that was replaced first"),
        ] {
            assert_eq!((goes(&seen), records(&seen)), (going, recorded), "{told}");
        }
        let mut fit = observed(5, true, Some(2), &[2, 4]);
        fit.unfit = None;
        assert_eq!((goes(&fit), records(&fit)), (vec![], Some(2)), "nothing is made, nothing goes yet");
        assert_eq!(fit.earlier_numbers(), BTreeSet::from([1, 2, 4]));
        assert_eq!(observed(2, true, None, &[]).earlier_numbers(), BTreeSet::from([1]));
        assert_eq!(observed(1, true, None, &[]).earlier_numbers(), BTreeSet::new());
        let gone = Observed { secret: None, unfit: None, ..observed(5, true, Some(3), &[3, 4]) };
        assert_eq!((goes(&gone), records(&gone)), (vec![4], Some(3)), "the newest was deleted by hand");
    }
}
