//! The objects that a decommission deletes, and the reasons that prevent it. Pure.

use std::collections::BTreeMap;

use crate::{
    k8s::{
        denial::needed,
        object::{Live, Reference},
        object_names::Names,
        ownership::Owner,
    },
    plan::{copies, snapshot::Snapshot},
    rbac::PermissionRecord,
};

/// The objects to delete, and the reasons that prevent it.
#[derive(Default)]
pub(crate) struct Removal {
    /// The objects of the instance.
    pub(crate) ours: BTreeMap<Reference, Live>,
    /// Copies of them that another controller made.
    pub(crate) copies: BTreeMap<Reference, Live>,
    /// Objects of someone else with a name of the instance.
    pub(crate) foreign: Vec<(Reference, String)>,
    /// Objects that may exist, but may not be read.
    pub(crate) hidden: Vec<Reference>,
    /// The permissions that the parent credential lacks to read those.
    pub(crate) unseen: Vec<PermissionRecord>,
}

impl Removal {
    /// The objects of the instance whose deletion was not requested before.
    pub(crate) fn not_yet_deleted(&self) -> impl Iterator<Item = &Reference> {
        self.ours.iter().filter(|(_, live)| live.deleting.is_none()).map(|(object, _)| object)
    }

    /// All objects of the instance of these names, from the snapshot and from the search.
    pub(crate) fn of(names: &Names, snapshot: &Snapshot, found: &[(Reference, Live)]) -> Self {
        let observed = &snapshot.observed;
        let mut removal = Self::default();
        let secrets = observed.slots.iter().map(|slot| (names.token_secret(slot.number), Some(&slot.live)));
        let newest = names.token_secret(observed.slots.newest());
        let hidden = observed.slots.current().is_none().then(|| (newest.clone(), None));
        let account = (names.service_account(), observed.service_account.as_ref());
        let mut objects: Vec<_> = secrets.chain(hidden).chain([account]).collect();
        let home = names.home();
        for (place, found) in &observed.places {
            objects.push((names.binding(place), found.binding.as_ref()));
            if place.has_role() {
                objects.push((names.role(&place.scope), found.role.as_ref()));
            }
            // Nothing was ever created at a place that only the params name. Without the ServiceAccount that is
            // unknown.
            let lost = observed.service_account.is_none() && *place == home;
            if lost || observed.record.inventory.contains(place) {
                removal.unseen.extend(found.denied.iter().cloned());
            }
        }
        let identity = [names.service_account(), newest];
        let unseen = identity.iter().map(|object| needed("get", object));
        removal.unseen.extend(unseen.filter(|record| snapshot.denied.contains(record)));
        // The Secret of version 1.0.0 names no chart, so its ServiceAccount decides.
        let account = observed.service_account.as_ref().map(|live| names.owner(live));
        let owner = |live: &Live| match (names.owner(live), &account) {
            (Owner::Original, Some(Owner::Foreign(whose))) => Owner::Foreign(whose.clone()),
            (owner, _) => owner,
        };
        for (object, live) in objects {
            match live.map(|live| (live, owner(live))) {
                Some((live, Owner::Ours | Owner::Original)) => drop(removal.ours.insert(object, live.clone())),
                Some((_, Owner::Foreign(whose))) => removal.foreign.push((object, whose)),
                None if removal.unseen.contains(&needed("get", &object)) => removal.hidden.push(object),
                None => {}
            }
        }
        removal.ours.extend(snapshot.adoption.revisions.iter().cloned());
        for (object, live) in found {
            if names.owner(live) == Owner::Ours && !removal.ours.contains_key(object) {
                let others = copies::is_copy(names, object, live);
                let list = if others { &mut removal.copies } else { &mut removal.ours };
                list.insert(object.clone(), live.clone());
            }
        }
        removal
    }
}
