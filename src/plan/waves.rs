//! The order of the writes of a provision, as data: waves of writes. The writes of a wave are sent at the same time, and
//! each wave starts when the one before is done. `run/apply.rs` sends them. Pure.
//!
//! Before the test of the token, no permission is removed that the credential keeps: objects are created, adopted and
//! widened. After it, objects are deleted and Roles narrowed.

use crate::{
    diagnostics::error::{Code, Failure},
    input::request::Request,
    k8s::{
        grant::Place,
        inventory::Inventory,
        name::Namespace,
        object::{Live, Manifest, Reference},
        record::AccountRecord,
    },
    plan::{
        desired::{self, Desired, GrantObjects},
        diff::{ChangeKind, Plan, to_delete},
        observed::{Observed, Presence},
        snapshot::Snapshot,
    },
    rbac::{Widening, widening},
};

/// Writes that are sent at the same time.
pub(crate) type Wave<'a> = Vec<Write<'a>>;

/// One write. Most are one request; a write whose object is as it should be already is none.
#[derive(Clone, Debug)]
pub(crate) enum Write<'a> {
    /// Creates the home namespace.
    CreateNamespace(&'a Namespace),
    /// Applies the ServiceAccount, with a record of every place that may have objects until the run is done.
    Record,
    /// Applies an object over what was observed.
    Apply(&'a Manifest, Option<&'a Live>),
    /// Applies a Role with the union of old and new rules. If the API server rejects that (escalation check, size of the
    /// object), the Role is applied with the new rules alone, after all other writes before the test.
    Widen {
        /// The Role with old and new rules.
        union: Manifest,
        /// The Role with the new rules.
        role: &'a Manifest,
        /// The Role as it was observed.
        live: &'a Live,
    },
    /// Deletes and creates a RoleBinding or ClusterRoleBinding, because `roleRef` is immutable.
    Replace(&'a Manifest, &'a Live),
    /// Applies a Role with fewer rules.
    Narrow(Narrowing<'a>),
    /// Deletes an object of an earlier request.
    Delete(&'a Place, Reference, &'a Live),
    /// Deletes a Secret in which Helm stores the release of version 1.0.0.
    DeleteRevision(&'a Reference, &'a Live),
}

/// A Role that has all desired rules, and others that are removed after the proof.
#[derive(Clone, Debug)]
pub(crate) struct Narrowing<'a> {
    /// The Role with the desired rules.
    pub(crate) role: &'a Manifest,
    /// The Role as it is until then.
    pub(crate) live: Live,
}

/// The record that the ServiceAccount has until the run is done. It lists the desired places and those that are still to
/// be cleared, so that a run that is stopped leaves no object that the next one does not find.
///
/// # Errors
/// The places do not fit in an annotation.
pub(crate) fn record_ahead(
    request: &Request,
    desired: &Desired,
    observed: &Observed,
) -> Result<AccountRecord, Failure> {
    let to_clear = to_delete(request, desired, observed).map(|(place, ..)| place.clone());
    let inventory: Inventory = desired.record.inventory.places().cloned().chain(to_clear).collect();
    let length = inventory.text(&request.instance.names.home()).map_or(0, |text| text.len());
    if length > Inventory::LONGEST_ON_THE_WAY {
        let cause = format!(
            "the list of places, with those that are still to be removed, takes {length} bytes, and the ServiceAccount \
             has room for {}",
            Inventory::LONGEST_ON_THE_WAY
        );
        return Err(Failure::new(Code::Refused, "recording the list of places", cause)
            .on(request.instance.names.service_account().to_string())
            .next("provision with a shorter list of namespaces first, then with the complete one"));
    }
    Ok(AccountRecord { inventory, adoption: desired.adoption.record_on_the_way(), ..desired.record.clone() })
}

/// What happens before the proof, and what it leaves for later.
#[derive(Debug)]
pub(crate) struct BeforeProof<'a> {
    /// The writes.
    pub(crate) waves: Vec<Wave<'a>>,
    /// The Roles that only lose rules. Those of [`Write::Widen`] are narrowed as well, when they were widened.
    pub(crate) narrowings: Vec<Narrowing<'a>>,
}

/// The writes before the proof.
///
/// - The ServiceAccount comes first, because it records where objects are about to be created. The home Role may be
///   created at the same time: the next run reads it even without a record, unless an existing inventory omits it.
/// - The ServiceAccount comes before the Secret, because it records the number of the token slot, and because the token
///   controller deletes a Secret without ServiceAccount.
/// - A Role comes before its binding: the API server reads the Role when it judges the binding.
/// - A binding that has to be replaced comes when all others are there.
pub(crate) fn before_proof<'a>(
    request: &'a Request,
    snapshot: &'a Snapshot,
    desired: &'a Desired,
    plan: &Plan,
) -> BeforeProof<'a> {
    let observed = &snapshot.observed;
    let home = request.instance.names.home();
    let action = |manifest: &Manifest| plan.change(&manifest.reference).map(|change| change.action);
    let binding = |granted: &'a GrantObjects| Write::Apply(&granted.binding, observed.binding(&granted.place));

    let namespace = &request.instance.namespace;
    let create_namespace = observed.presence(namespace) == Presence::Absent;

    let (home_grants, other_grants): (Vec<&GrantObjects>, Vec<&GrantObjects>) =
        desired.grants.iter().partition(|granted| granted.place == home);
    let mut narrowings = Vec::new();
    let mut roles = |grants: &[&'a GrantObjects]| -> Wave<'a> {
        let mut writes = Wave::new();
        for (granted, role) in grants.iter().filter_map(|granted| Some((granted, granted.role.as_ref()?))) {
            match role_change(request, observed.role(&granted.place), &granted.place, role, action(role)) {
                RoleChange::Before(write) => writes.push(write),
                RoleChange::After(narrowing) => narrowings.push(narrowing),
            }
        }
        writes
    };
    let (mut account, mut home_role) = (vec![Write::Record], roles(&home_grants));
    let home_role_needs_no_record = observed.service_account.is_none() || observed.record.inventory.contains(&home);
    if home_role_needs_no_record && !desired.adoption.under_way {
        account.append(&mut home_role);
    }

    let (replaced, applied): (Vec<&GrantObjects>, Vec<&GrantObjects>) =
        desired.grants.iter().partition(|granted| action(&granted.binding) == Some(ChangeKind::Replace));
    // The binding to a Role outside the home namespace follows one wave after its Role.
    let (after_role, at_once): (Vec<&GrantObjects>, Vec<&GrantObjects>) =
        applied.into_iter().partition(|granted| granted.role.is_some() && granted.place != home);
    let secret = Write::Apply(&desired.secret, observed.slots.usable().map(|slot| &slot.live));
    let secret_and_roles = at_once.into_iter().map(binding).chain([secret]).chain(roles(&other_grants)).collect();
    let replaced = replaced
        .into_iter()
        .filter_map(|granted| Some(Write::Replace(&granted.binding, observed.binding(&granted.place)?)));

    let waves = [
        create_namespace.then_some(Write::CreateNamespace(namespace)).into_iter().collect(),
        account,
        home_role,
        secret_and_roles,
        after_role.into_iter().map(binding).collect(),
        replaced.collect(),
    ];
    let waves = waves.into_iter().filter(|wave: &Wave<'_>| !wave.is_empty()).collect();
    BeforeProof { waves, narrowings }
}

/// What happens to a Role, and when.
enum RoleChange<'a> {
    /// It is written before the proof.
    Before(Write<'a>),
    /// It only loses rules, after the proof.
    After(Narrowing<'a>),
}

fn role_change<'a>(
    request: &Request,
    live: Option<&'a Live>,
    place: &Place,
    role: &'a Manifest,
    action: Option<ChangeKind>,
) -> RoleChange<'a> {
    let (Some(live), Some(ChangeKind::Update | ChangeKind::Adopt)) = (live, action) else {
        return RoleChange::Before(Write::Apply(role, live));
    };
    match widening(&live.rules(), request.grants.rules(place)) {
        Widening::Whole => RoleChange::Before(Write::Apply(role, Some(live))),
        Widening::None => RoleChange::After(Narrowing { role, live: live.clone() }),
        Widening::Between(rules) => {
            RoleChange::Before(Write::Widen { union: desired::role(request, &place.scope, &rules), role, live })
        }
    }
}

/// The writes after the proof. Bindings are deleted first, because that removes access within milliseconds; a Role is
/// deleted when its binding is. The last record of the ServiceAccount comes after these, because it lists the places
/// that could not be cleared.
pub(crate) fn after_proof<'a>(
    request: &'a Request,
    snapshot: &'a Snapshot,
    desired: &'a Desired,
    narrowings: Vec<Narrowing<'a>>,
) -> Vec<Wave<'a>> {
    let names = &request.instance.names;
    let (bindings, roles): (Vec<_>, Vec<_>) = to_delete(request, desired, &snapshot.observed)
        .map(|(place, reference, live)| Write::Delete(place, reference, live))
        .partition(|write| matches!(write, Write::Delete(place, reference, _) if *reference == names.binding(place)));
    let revisions = snapshot.adoption.revisions.iter();
    let revisions = revisions.filter(|(reference, _)| desired.adoption.revisions.contains(reference));
    let revisions = revisions.map(|(reference, live)| Write::DeleteRevision(reference, live));
    let first = bindings.into_iter().chain(narrowings.into_iter().map(Write::Narrow)).chain(revisions).collect();
    [first, roles].into_iter().filter(|wave: &Wave<'_>| !wave.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::{
        k8s::{
            grant::{RoleSource, Scope},
            name::ClusterRoleName,
        },
        plan::{
            adoption::outcome::Adoption,
            fixtures::{Case, HOME, Objects, request, snapshot},
        },
        rbac::{Coverage, Rule},
    };

    fn scopes() -> impl Strategy<Value = Scope> {
        select(vec![HOME, "b", "c", "*"]).prop_map(|scope| Scope::parse(scope).unwrap())
    }

    fn places() -> impl Strategy<Value = Place> {
        let view = RoleSource::ClusterRole(ClusterRoleName::parse("view").unwrap());
        (scopes(), select(vec![RoleSource::Rules, view]))
            .prop_map(|(scope, role_source)| Place::new(scope, role_source))
    }

    fn verbs() -> impl Strategy<Value = Vec<&'static str>> {
        prop::sample::subsequence(vec!["get", "list", "watch"], 1..=3)
    }

    fn objects() -> impl Strategy<Value = Objects> {
        (verbs(), any::<Option<bool>>()).prop_map(|(verbs, binding)| Objects { verbs, binding })
    }

    prop_compose! {
        fn cases()(
            rules in prop::collection::btree_map(scopes(), verbs(), 0..4),
            cluster_role in prop::collection::btree_set(scopes(), 0..3),
            live in prop::collection::btree_map(places(), objects(), 0..6),
            recorded in prop::option::of(prop::collection::btree_set(places(), 0..6)),
            has_home: bool,
            adopts: bool,
        ) -> Case {
            Case { rules, cluster_role, live, recorded, has_home, adopts }
        }
    }

    /// The wave in which an object is written for the last time, and whether that is a deletion.
    fn at(waves: &[Wave<'_>], object: &Reference) -> Option<usize> {
        waves.iter().rposition(|wave| wave.iter().any(|write| target(write).as_ref() == Some(object)))
    }

    /// The object of a write; none of the ServiceAccount and the namespace.
    fn target(write: &Write<'_>) -> Option<Reference> {
        match write {
            Write::CreateNamespace(_) | Write::Record => None,
            Write::Apply(manifest, _) | Write::Replace(manifest, _) => Some(manifest.reference.clone()),
            Write::Widen { role, .. } | Write::Narrow(Narrowing { role, .. }) => Some(role.reference.clone()),
            Write::Delete(_, reference, _) => Some(reference.clone()),
            Write::DeleteRevision(reference, _) => Some((*reference).clone()),
        }
    }

    fn record_at(waves: &[Wave<'_>]) -> usize {
        waves.iter().position(|wave| wave.iter().any(|write| matches!(write, Write::Record))).unwrap()
    }

    fn coverage(rules: &[Rule]) -> Coverage<'_> {
        crate::rbac::permissions_of(rules, None).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn writes_are_ordered_safely_for_every_interruption(case in cases()) {
            let request = request(&case);
            let names = &request.instance.names;
            let snapshot = snapshot(&case, &request);
            let observed = &snapshot.observed;
            let adoption = Adoption { under_way: case.adopts, ..Adoption::default() };
            let desired = Desired::new(&request, observed, observed.slots.decide(true), [], adoption);
            let plan = Plan::new(&request, &desired, observed);
            let BeforeProof { waves: before, mut narrowings } = before_proof(&request, &snapshot, &desired, &plan);
            let record = record_ahead(&request, &desired, observed).unwrap();

            // At most as many round trips as there are reasons to wait.
            prop_assert!(before.len() <= 6 && before.iter().all(|wave| !wave.is_empty()), "{before:?}");

            // The namespace before everything else; the ServiceAccount before everything that only its record finds.
            let creates = |wave: &Wave<'_>| wave.iter().any(|write| matches!(write, Write::CreateNamespace(_)));
            prop_assert_eq!(before.iter().position(creates), (!case.has_home).then_some(0));
            prop_assert!(case.has_home || before[0].len() == 1);
            let recorded = record_at(&before);
            prop_assert_eq!(recorded, usize::from(!case.has_home));
            let home_role = names.role(&names.home().scope);
            for (index, write) in before.iter().enumerate().flat_map(|(index, wave)| wave.iter().map(move |write| (index, write))) {
                let Some(object) = target(write) else { continue };
                let is_found = object == home_role && (case.recorded.is_none() || observed.record.inventory.contains(&names.home()));
                prop_assert!(index > recorded || (index == recorded && is_found && !case.adopts), "{} in {}", object, index);
            }
            for grant in &desired.grants {
                prop_assert!(record.inventory.contains(&grant.place));
            }

            // A Role before the binding to it.
            for grant in &desired.grants {
                let binding = at(&before, &grant.binding.reference);
                prop_assert!(binding.is_some());
                let role = grant.role.as_ref().and_then(|role| at(&before, &role.reference));
                prop_assert!(role < binding, "{} in {:?}, {} in {:?}", grant.place.describe(), role, grant.binding.reference, binding);
            }

            // Before the proof no Role loses a rule that it has and that is desired, and each has all desired rules, at
            // once or with a narrowing to follow.
            for write in before.iter().flatten() {
                let (role, live, rules) = match write {
                    Write::Widen { union, role, live } => (*role, *live, &union.body["rules"]),
                    Write::Apply(role, Some(live)) => (*role, *live, &role.body["rules"]),
                    Write::Delete(..) | Write::DeleteRevision(..) | Write::Narrow(_) => {
                        return Err(TestCaseError::fail("something is taken away before the proof"));
                    }
                    _ => continue,
                };
                let Ok(rules) = serde_json::from_value::<Vec<Rule>>(rules.clone()) else { continue };
                let (held, kept) = (live.rules(), coverage(&rules));
                for rule in &held {
                    prop_assert!(rule.permissions(None).all(|permission| kept.covers(permission)), "{} loses {rule:?}", role.reference);
                }
                if matches!(write, Write::Widen { .. }) {
                    narrowings.push(Narrowing { role, live: Live::default() });
                }
            }

            // After the proof: every binding is deleted before its Role, and every Role that has too much is narrowed.
            let after = after_proof(&request, &snapshot, &desired, narrowings);
            prop_assert!(after.len() <= 2);
            for place in observed.places.keys().filter(|place| !request.grants.wants(place)) {
                let [binding, role] = [names.binding(place), names.role(&place.scope)].map(|object| at(&after, &object));
                prop_assert!(binding.is_none() || !place.has_role() || role.is_none() || binding < role);
                let is_there = at(&after, &names.binding(place)).is_some();
                prop_assert!(!is_there || record.inventory.contains(place), "found again if the run is stopped");
            }

            // Every planned change is made, once, and nothing else.
            for change in &plan.changes {
                let object = &change.reference;
                let writes: Vec<_> = before.iter().chain(&after).flatten().filter(|write| target(write).as_ref() == Some(object)).collect();
                let is_special = *object == names.service_account() || *object == Reference::namespace(HOME);
                let count = if is_special { 0 } else if matches!(writes[..], [Write::Widen { .. }, Write::Narrow(_)]) { 2 } else { 1 };
                prop_assert_eq!(writes.len(), count, "{}: {:?}", object, writes);
            }
            let written: BTreeSet<_> = before.iter().chain(&after).flatten().filter_map(target).collect();
            for object in written {
                prop_assert!(plan.change(&object).is_some(), "{object}");
            }
        }
    }
}
