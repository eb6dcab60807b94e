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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;

    use super::*;
    use crate::{
        k8s::{object::Kind, ownership::NAME},
        plan::{
            fixtures::{Case, HOME, deleting, foreign, live, original, place, request, slots},
            observed::LiveGrant,
        },
    };

    fn names() -> Names {
        request(&Case::new(&[])).instance.names
    }

    /// A snapshot with the ServiceAccount and the objects of these grants.
    fn with(grants: &[&'static str]) -> Snapshot {
        Case::new(&[]).with(grants).start().1
    }

    /// A snapshot without the ServiceAccount, in which these may not be read.
    fn denied(objects: &[Reference]) -> Snapshot {
        let mut snapshot = Case::new(&[]).start().1;
        snapshot.denied = objects.iter().map(|object| needed("get", object)).collect();
        snapshot
    }

    fn account(live: Live) -> Snapshot {
        let mut snapshot = Case::new(&[]).start().1;
        snapshot.observed.service_account = Some(live);
        snapshot
    }

    fn secrets(mut snapshot: Snapshot, newest: u32, secrets: &[(u32, Live)]) -> Snapshot {
        let secrets: Vec<_> = secrets.iter().map(|(number, live)| (*number, live.clone(), None)).collect();
        snapshot.observed.slots = slots(newest, &secrets);
        snapshot
    }

    fn found(mut snapshot: Snapshot, at: &str, role: Option<Live>, binding: Option<Live>) -> Snapshot {
        snapshot.observed.places.insert(place(at), LiveGrant { role, binding, denied: Vec::new() });
        snapshot
    }

    /// The same snapshot, in which the first objects of a place, binding and Role, may not be read.
    fn hidden(mut snapshot: Snapshot, at: &str, objects: usize) -> Snapshot {
        let denied = names().objects(&place(at)).iter().take(objects).map(|object| needed("get", object)).collect();
        snapshot.observed.places.entry(place(at)).or_default().denied = denied;
        snapshot
    }

    fn recorded(mut snapshot: Snapshot, at: &str) -> Snapshot {
        snapshot.observed.record.inventory = [place(at)].into_iter().collect();
        snapshot
    }

    fn adopting() -> Snapshot {
        let mut snapshot = Case::new(&[]).start().1;
        snapshot.adoption.revisions =
            vec![(Reference::new(Kind::Secret, HOME, "sh.helm.release.v1.demo.v1"), Live::default())];
        snapshot
    }

    /// Objects without the hashes in their names: `+` is deleted, `~` a copy, `-` foreign and `?` hidden.
    fn shown(removal: &Removal) -> Vec<String> {
        let is_hash = |part: &&str| part.len() == 10 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let show = |sign: char, object: &Reference| {
            let name = object.name.split('-').filter(|part| !is_hash(part)).collect::<Vec<_>>().join("-");
            format!("{sign} {}", Reference { name, ..object.clone() })
        };
        let deleted = removal.ours.keys().map(|object| show('+', object));
        let copies = removal.copies.keys().map(|object| show('~', object));
        let foreign = removal.foreign.iter().map(|(object, _)| show('-', object));
        let hidden = removal.hidden.iter().map(|object| show('?', object));
        deleted.chain(copies).chain(foreign).chain(hidden).collect()
    }

    #[rstest]
    #[case::nothing_there(denied(&[]), &[])]
    #[case::account(with(&[]), &["+ ServiceAccount home/demo-token"])]
    #[case::account_of_version_1(account(original()), &["+ ServiceAccount home/demo-token"])]
    #[case::foreign_account(account(foreign()), &["- ServiceAccount home/demo-token"])]
    #[case::hidden_account(denied(&[names().service_account()]), &["? ServiceAccount home/demo-token"])]
    #[case::hidden_secret(denied(&[names().token_secret(1)]), &["? Secret home/demo-token"])]
    #[case::denial_of_a_slot_not_in_use(denied(&[names().token_secret(2)]), &[])]
    #[case::newest_slot_is_hidden(secrets(denied(&[names().token_secret(2)]), 2, &[(1, live(&[]))]), &["+ Secret home/demo-token", "? Secret home/demo-token-2"])]
    #[case::every_slot(secrets(denied(&[]), 3, &[(1, live(&[])), (3, live(&[]))]), &["+ Secret home/demo-token", "+ Secret home/demo-token-3"])]
    #[case::foreign_secret(secrets(denied(&[]), 1, &[(1, foreign())]), &["- Secret home/demo-token"])]
    #[case::secret_of_version_1(secrets(denied(&[]), 1, &[(1, original())]), &["+ Secret home/demo-token"])]
    #[case::secret_of_version_1_with_account(secrets(with(&[]), 1, &[(1, original())]), &["+ ServiceAccount home/demo-token", "+ Secret home/demo-token"])]
    #[case::secret_of_version_1_with_foreign_account(secrets(account(foreign()), 1, &[(1, original())]), &["- Secret home/demo-token", "- ServiceAccount home/demo-token"])]
    #[case::own_secret_with_foreign_account(secrets(account(foreign()), 1, &[(1, live(&[]))]), &["+ Secret home/demo-token", "- ServiceAccount home/demo-token"])]
    #[case::role_and_binding(found(denied(&[]), "b", Some(live(&[])), Some(live(&[]))), &["+ Role b/demo-token", "+ RoleBinding b/demo-token"])]
    #[case::whole_cluster(found(denied(&[]), "*", Some(live(&[])), Some(live(&[]))), &["+ ClusterRole demo-token", "+ ClusterRoleBinding demo-token"])]
    #[case::role_of_version_1(found(denied(&[]), HOME, Some(original()), None), &["+ Role home/demo-token"])]
    #[case::binding_to_a_cluster_role(found(denied(&[]), "b/view", None, Some(live(&[]))), &["+ RoleBinding b/demo-token"])]
    #[case::bound_cluster_role(found(denied(&[]), "b/view", Some(live(&[])), None), &[])]
    #[case::foreign_binding(found(denied(&[]), "b", Some(live(&[])), Some(foreign())), &["+ Role b/demo-token", "- RoleBinding b/demo-token"])]
    #[case::hidden_at_a_recorded_place(hidden(recorded(denied(&[]), "b"), "b", 2), &["? RoleBinding b/demo-token", "? Role b/demo-token"])]
    #[case::hidden_at_a_place_of_the_params(hidden(recorded(denied(&[]), "c"), "b", 2), &[])]
    #[case::hidden_role(hidden(found(recorded(denied(&[]), "b"), "b", Some(live(&[])), None), "b", 1), &["+ Role b/demo-token", "? RoleBinding b/demo-token"])]
    #[case::hidden_at_home_without_account(hidden(denied(&[]), HOME, 2), &["? RoleBinding home/demo-token", "? Role home/demo-token"])]
    #[case::hidden_at_home_with_account(hidden(recorded(with(&[]), "b"), HOME, 2), &["+ ServiceAccount home/demo-token"])]
    #[case::helm_revisions(adopting(), &["+ Secret home/sh.helm.release.v1.demo.v1"])]
    fn deletion_follows_from_owner_and_denials(#[case] snapshot: Snapshot, #[case] objects: &[&str]) {
        let removal = Removal::of(&names(), &snapshot, &[]);
        assert_eq!(shown(&removal), objects);
        assert_eq!(removal.unseen.len(), removal.hidden.len());
    }

    /// Columns: object that the search finds, whether k8s-token applied it, the result.
    #[rstest]
    #[case::place_that_is_not_recorded(names().role(&place("b").scope), live(&[]), true, &["+ Role b/demo-token"])]
    #[case::never_applied(names().role(&place("b").scope), live(&[]), false, &["~ Role b/demo-token"])]
    #[case::copied_with_its_name(Reference::new(Kind::Role, "b", "demo-token"), live(&[]), true, &["~ Role b/demo-token"])]
    #[case::read_already(names().service_account(), live(&[]), false, &[])]
    #[case::foreign(names().role(&place("b").scope), foreign(), true, &[])]
    #[case::of_version_1(names().role(&place("b").scope), original(), true, &[])]
    fn search_adds_unrecorded_objects_and_copies(
        #[case] object: Reference,
        #[case] mut live: Live,
        #[case] is_applied: bool,
        #[case] added: &[&str],
    ) {
        live.owned_annotations = is_applied.then(|| NAME.to_owned()).into_iter().collect::<BTreeSet<_>>();
        let removal = Removal::of(&names(), &with(&[]), &[(object, live)]);
        let account = "+ ServiceAccount home/demo-token";
        assert_eq!(shown(&removal), [&[account], added].concat());
    }

    #[test]
    fn requested_deletion_is_not_requested_again() {
        let snapshot = secrets(with(&[]), 1, &[(1, deleting(live(&[]), &[]))]);
        let removal = Removal::of(&names(), &snapshot, &[]);
        assert_eq!(removal.ours.len(), 2);
        assert_eq!(removal.not_yet_deleted().collect::<Vec<_>>(), [&names().service_account()]);
    }
}
