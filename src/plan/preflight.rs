//! Preflight: the plan, the reasons to refuse it, and findings about places that cannot be cleared, before anything is
//! tried. Pure.

use crate::{
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding, Severity},
    },
    input::request::Request,
    k8s::{
        denial::lacks,
        grant::{Place, Scope},
        name::Namespace,
        object::{Live, Manifest, Reference},
        ownership::Owner,
    },
    plan::{
        adoption::decision,
        desired::Desired,
        diff::{ChangeKind, Drift, Plan, stale_objects},
        observed::{Observed, Presence},
        parent_access,
        snapshot::Snapshot,
        token_slots::Unusable,
    },
};

const DOING: &str = "checking";

/// The desired objects, and the changes to reach them.
pub(crate) fn compare(request: &Request, snapshot: &Snapshot) -> (Desired, Plan) {
    // An object that may not be read cannot be distinguished from an absent one.
    let slots = snapshot.observed.slots.decide(snapshot.denied.is_empty());
    let kept = uncleared(request, snapshot).map(|(place, _)| place.clone());
    let adoption = decision::decide(request, &request.instance.names, snapshot);
    let desired = Desired::new(request, &snapshot.observed, slots, kept, adoption);
    let mut plan = Plan::new(request, &desired, &snapshot.observed);
    plan.delete(request, &desired.adoption.revisions);
    (desired, plan)
}

/// Places of earlier configurations that cannot be cleared, each with a finding: the parent credential may no longer
/// read or delete objects there, a finalizer holds an object that is being deleted, or someone else has taken over a
/// binding.
fn uncleared<'a>(request: &'a Request, snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a Place, Finding)> {
    let observed = &snapshot.observed;
    let left = stale_objects(request, observed).filter(|(place, _)| observed.record.inventory.contains(place));
    left.filter_map(|(place, objects)| {
        let mut missing = observed.places.get(place).map(|found| found.denied.clone()).unwrap_or_default();
        let there: Vec<Reference> = match &missing[..] {
            [] => objects
                .iter()
                .filter(|(_, live)| request.instance.owns(live))
                .map(|(object, _)| object.clone())
                .collect(),
            _ => request.instance.names.objects(place),
        };
        missing.extend(parent_access::missing_delete(snapshot, &there));
        if !missing.is_empty() {
            return Some((place, not_cleared(place, &lacks(&missing))));
        }
        let mut ours = objects.iter().filter(|(_, live)| request.instance.owns(live));
        if let Some((object, held)) = ours.find_map(|(object, live)| Some((object, live.held()?))) {
            return Some((place, not_cleared(place, &format!("{object}: {held}"))));
        }
        let binding = objects.into_iter().find(|(object, _)| *object == request.instance.names.binding(place));
        let (object, live) = binding?;
        match request.instance.owner(live) {
            Owner::Foreign(whose) => {
                Some((place, not_cleared(place, &format!("{object} no longer belongs to this instance: {whose}"))))
            }
            Owner::Ours | Owner::Original => None,
        }
    })
}

/// The findings about the observed objects, before they are changed.
pub(crate) fn remarks(request: &Request, snapshot: &Snapshot, desired: &Desired, plan: &Plan) -> Vec<Finding> {
    let taken_over = decision::remarks(&desired.adoption, request, snapshot);
    let drift = plan.drift.iter().map(|drift| drifted(request, snapshot, drift));
    let kept = uncleared(request, snapshot).map(|(_, finding)| finding);
    let gone = namespaces_gone(&snapshot.observed, |place| !request.grants.wants(place));
    taken_over.into_iter().chain(drift).chain(kept).chain(gone).collect()
}

/// The finding about an object that was changed by others.
fn drifted(request: &Request, snapshot: &Snapshot, drift: &Drift) -> Finding {
    let Drift { reference, fields, by, grants } = drift;
    let severity = if *grants { Severity::Medium } else { Severity::Low };
    let fields = fields.join(" ");
    let unusable = snapshot.observed.slots.current().and_then(|slot| Some((slot.number, slot.unusable.as_ref()?)));
    let text = match unusable {
        Some((slot, Unusable { why, .. })) if *reference == request.instance.names.token_secret(slot) => {
            format!(
                "{reference} can no longer be used ({fields}): {why}; it is replaced by a new Secret with a new token"
            )
        }
        _ => {
            let by: Vec<&str> = by.iter().map(String::as_str).collect();
            let by = if by.is_empty() { "someone else".to_owned() } else { by.join(", ") };
            format!("{reference} was changed by {by}: {fields}; it is restored")
        }
    };
    Finding::remark(finding::Code::Drift, text).severity(severity)
}

/// The findings about namespaces that no longer exist and had one of these places.
pub(crate) fn namespaces_gone(observed: &Observed, counts: impl Fn(&Place) -> bool) -> impl Iterator<Item = Finding> {
    let absent = observed.namespaces.iter().filter(|(_, presence)| **presence == Presence::Absent);
    let left = absent.filter(move |(namespace, _)| {
        let mut places = observed.record.inventory.places().filter(|place| counts(place));
        places.any(|place| place.scope.namespace() == Some(namespace.as_str()))
    });
    left.map(|(namespace, _)| {
        let text = format!("namespace {namespace} no longer exists, and with it everything that was granted there");
        Finding::remark(finding::Code::NamespaceGone, text)
    })
}

/// The finding about a place of an earlier configuration that could not be cleared.
pub(crate) fn not_cleared(place: &Place, why: &str) -> Finding {
    let text = format!("permissions granted earlier {} may still be in effect: {why}", place.describe());
    Finding::remark(finding::Code::NotTakenBack, text)
        .help("fix this and run again: the place stays on the list until a run finds it empty")
}

/// The reason to refuse a plan before anything is tried.
pub(crate) fn preflight_failure(
    request: &Request,
    snapshot: &Snapshot,
    desired: &Desired,
    plan: &Plan,
) -> Option<Failure> {
    snapshot
        .too_old
        .clone()
        .or_else(|| blockers(request, snapshot, desired, plan))
        .or_else(|| parent_access::missing_permissions(request, snapshot, desired, plan))
}

/// An obstacle for every parent credential.
struct Blocker {
    code: Code,
    finding: finding::Code,
    object: String,
    cause: String,
}

/// The obstacles for every parent credential, as a failure named by the first.
fn blockers(request: &Request, snapshot: &Snapshot, desired: &Desired, plan: &Plan) -> Option<Failure> {
    let foreign = plan.foreign.iter().map(|foreign| Blocker {
        code: Code::ForeignObject,
        finding: finding::Code::ForeignObject,
        object: foreign.reference.to_string(),
        cause: format!("an object with this name exists and belongs to someone else: {}", foreign.whose),
    });
    let others = |presence: Presence| {
        let mut scopes: Vec<&Scope> = request.grants.iter().map(|grant| &grant.place.scope).collect();
        scopes.dedup();
        scopes
            .into_iter()
            .filter_map(move |scope| match scope {
                Scope::Namespace(namespace) if *namespace != request.instance.namespace => Some(namespace),
                _ => None,
            })
            .filter(move |namespace| snapshot.observed.presence(namespace) == presence)
    };
    let of = |code: Code, finding: finding::Code, cause: &'static str| {
        move |namespace: &Namespace| Blocker {
            code,
            finding,
            object: format!("Namespace {namespace}"),
            cause: cause.to_owned(),
        }
    };
    let absent = others(Presence::Absent).map(of(
        Code::NamespaceAbsent,
        finding::Code::NamespaceAbsent,
        "the namespace does not exist, and only the instance's own namespace is created",
    ));
    let missing = snapshot.observed.cluster_roles.iter().filter(|(name, rules)| {
        rules.is_none() && request.grants.iter().any(|grant| grant.place.role_source.cluster_role() == Some(name))
    });
    let missing = missing.map(|(name, _)| Blocker {
        code: Code::ClusterRoleAbsent,
        finding: finding::Code::ClusterRoleAbsent,
        object: format!("ClusterRole {}", name.as_str()),
        cause: "the ClusterRole does not exist".to_owned(),
    });
    let home = (snapshot.observed.presence(&request.instance.namespace) == Presence::Terminating)
        .then_some(&request.instance.namespace);
    let terminating = home.into_iter().chain(others(Presence::Terminating));
    let terminating = terminating.map(of(
        Code::NamespaceTerminating,
        finding::Code::NamespaceTerminating,
        "the namespace is being deleted",
    ));
    // Changes to an object that is being deleted would be lost.
    let held = existing(desired, &snapshot.observed).filter(|(_, live)| request.instance.owns(live));
    let held = held.filter_map(|(manifest, live)| {
        let object = manifest.reference.to_string();
        Some(Blocker { code: Code::BeingDeleted, finding: finding::Code::BeingDeleted, object, cause: live.held()? })
    });

    let found: Vec<Blocker> = foreign.chain(absent).chain(missing).chain(terminating).chain(held).collect();
    let first = found.first()?;
    let mut failure = Failure::new(first.code, DOING, first.cause.clone()).on(first.object.clone());
    failure.findings = found
        .iter()
        .map(|Blocker { finding, object, cause, .. }| Finding::remark(*finding, format!("{object}: {cause}")))
        .collect();
    Some(failure)
}

/// Every existing object that is kept, as desired and as observed.
fn existing<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = (&'a Manifest, &'a Live)> {
    let account = (&desired.service_account, observed.service_account.as_ref());
    let grants = desired.grants.iter().flat_map(|granted| {
        let role = granted.role.as_ref().map(|role| (role, observed.role(&granted.place)));
        role.into_iter().chain([(&granted.binding, observed.binding(&granted.place))])
    });
    // A Secret that is being deleted is unusable, and is replaced.
    [account].into_iter().chain(grants).filter_map(|(manifest, live)| Some((manifest, live?)))
}

/// A change that can be dry-run.
pub(crate) struct DryRun<'a> {
    /// The manifest to apply.
    pub(crate) manifest: &'a Manifest,
    /// The live object, if it exists.
    pub(crate) live: Option<&'a Live>,
    /// The place, if it belongs to a grant.
    pub(crate) place: Option<&'a Place>,
}

/// The changes that can be dry-run. A binding to a Role that does not exist yet can only be dry-run by a parent that
/// may bind any role, and an object that has to be deleted first not at all.
pub(crate) fn dry_runs<'a>(snapshot: &'a Snapshot, desired: &'a Desired, plan: &Plan) -> Vec<DryRun<'a>> {
    let observed = &snapshot.observed;
    let identity = [
        (&desired.service_account, observed.service_account.as_ref()),
        (&desired.secret, observed.slots.usable().map(|slot| &slot.live)),
    ];
    let identity = identity.map(|(manifest, live)| DryRun { manifest, live, place: None });
    let grants = desired.grants.iter().flat_map(|granted| {
        let place = Some(&granted.place);
        let role = granted.role.as_ref().map(|role| (role, observed.role(&granted.place)));
        let bindable = role.is_none_or(|(_, live)| live.is_some());
        let binding = bindable.then(|| (&granted.binding, observed.binding(&granted.place)));
        role.into_iter().chain(binding).map(move |(manifest, live)| DryRun { manifest, live, place })
    });
    let all = identity.into_iter().chain(grants);
    all.filter(|dry_run| {
        let change = plan.change(&dry_run.manifest.reference);
        change
            .is_some_and(|change| matches!(change.action, ChangeKind::Create | ChangeKind::Update | ChangeKind::Adopt))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        k8s::name::ClusterRoleName,
        plan::{
            fixtures::{Case, HOME, deleting, foreign, live, namespace, place, request, review, settled, slots},
            observed::LiveGrant,
        },
        rbac::{Permission, PermissionRecord},
    };

    fn get_pods() -> PermissionRecord {
        Permission::new("get", "", "pods").record()
    }

    fn grant<'a>(snapshot: &'a mut Snapshot, at: &str) -> &'a mut LiveGrant {
        snapshot.observed.places.entry(place(at)).or_default()
    }

    fn presence(snapshot: &mut Snapshot, name: &str, presence: Presence) {
        snapshot.observed.namespaces.insert(namespace(name), presence);
    }

    fn absent_cluster_role(snapshot: &mut Snapshot, name: &str) {
        snapshot.observed.cluster_roles.insert(ClusterRoleName::parse(name).unwrap(), None);
    }

    /// Columns: deviation from an empty cluster, code of the failure, objects in its findings.
    #[rstest]
    #[case::nothing_in_the_way(|_: &mut Snapshot| {}, None, &[])]
    #[case::foreign_account(|it: &mut Snapshot| it.observed.service_account = Some(foreign()), Some(Code::ForeignObject), &["ServiceAccount home/demo-token"])]
    #[case::foreign_role(|it: &mut Snapshot| grant(it, HOME).role = Some(foreign()), Some(Code::ForeignObject), &["Role home/demo-token"])]
    #[case::foreign_object_elsewhere(|it: &mut Snapshot| grant(it, "c").role = Some(foreign()), None, &[])]
    #[case::namespace_absent(|it: &mut Snapshot| presence(it, "b", Presence::Absent), Some(Code::NamespaceAbsent), &["Namespace b"])]
    #[case::home_absent(|it: &mut Snapshot| presence(it, HOME, Presence::Absent), None, &[])]
    #[case::unwanted_namespace_absent(|it: &mut Snapshot| presence(it, "c", Presence::Absent), None, &[])]
    #[case::namespace_unknown(|it: &mut Snapshot| presence(it, "b", Presence::Unknown), None, &[])]
    #[case::home_terminating(|it: &mut Snapshot| presence(it, HOME, Presence::Terminating), Some(Code::NamespaceTerminating), &["Namespace home"])]
    #[case::namespace_terminating(|it: &mut Snapshot| presence(it, "b", Presence::Terminating), Some(Code::NamespaceTerminating), &["Namespace b"])]
    #[case::unwanted_namespace_terminating(|it: &mut Snapshot| presence(it, "c", Presence::Terminating), None, &[])]
    #[case::cluster_role_absent(|it: &mut Snapshot| absent_cluster_role(it, "view"), Some(Code::ClusterRoleAbsent), &["ClusterRole view"])]
    #[case::cluster_role_exists(|it: &mut Snapshot| drop(it.observed.cluster_roles.insert(ClusterRoleName::parse("view").unwrap(), Some(Vec::new()))), None, &[])]
    #[case::unwanted_cluster_role_absent(|it: &mut Snapshot| absent_cluster_role(it, "edit"), None, &[])]
    #[case::account_deleted(|it: &mut Snapshot| it.observed.service_account = Some(deleting(live(&[]), &[])), Some(Code::BeingDeleted), &["ServiceAccount home/demo-token"])]
    #[case::binding_deleted(|it: &mut Snapshot| grant(it, HOME).binding = Some(deleting(live(&[]), &[])), Some(Code::BeingDeleted), &["RoleBinding home/demo-token"])]
    #[case::foreign_role_deleted(|it: &mut Snapshot| grant(it, HOME).role = Some(deleting(foreign(), &[])), Some(Code::ForeignObject), &["Role home/demo-token"])]
    #[case::secret_deleted(|it: &mut Snapshot| it.observed.slots = slots(1, &[(1, deleting(live(&[]), &[]), Some("it is being deleted"))]), None, &[])]
    #[case::all_are_listed(|it: &mut Snapshot| { presence(it, "b", Presence::Absent); absent_cluster_role(it, "view"); grant(it, HOME).role = Some(foreign()); },
        Some(Code::ForeignObject), &["Role home/demo-token", "Namespace b", "ClusterRole view"])]
    #[case::parent_that_lacks_permissions(|it: &mut Snapshot| it.denied.push(get_pods()), Some(Code::MissingPermission), &["the parent credential lacks get pods at cluster scope"])]
    #[case::blocker_before_permissions(|it: &mut Snapshot| { it.denied.push(get_pods()); absent_cluster_role(it, "view"); }, Some(Code::ClusterRoleAbsent), &["ClusterRole view"])]
    #[case::server_too_old_before_blocker(|it: &mut Snapshot| { it.too_old = Some(Failure::new(Code::TooOldServer, "", "")); absent_cluster_role(it, "view"); }, Some(Code::TooOldServer), &[])]
    fn plan_is_refused_for_its_obstacles(
        #[case] alter: impl FnOnce(&mut Snapshot),
        #[case] code: Option<Code>,
        #[case] objects: &[&str],
    ) {
        let (request, mut snapshot) = Case::new(&["home get", "b get", "b/view"]).start();
        alter(&mut snapshot);
        let (desired, plan) = compare(&request, &snapshot);
        let failure = preflight_failure(&request, &snapshot, &desired, &plan);
        assert_eq!(failure.as_ref().map(|failure| failure.code), code);
        let findings = failure.into_iter().flat_map(|failure| failure.findings);
        let found: Vec<String> = findings.map(|it| it.message.split(": ").next().unwrap().to_owned()).collect();
        assert_eq!(found, objects);
    }

    /// Columns: deviation from a place of an earlier request, part of the finding; none where the place is cleared.
    #[rstest]
    #[case::cleared(|_: &mut Snapshot| {}, None)]
    #[case::hidden(|it: &mut Snapshot| grant(it, "b").denied.push(get_pods()), Some("lacks get pods"))]
    #[case::hidden_and_not_recorded(|it: &mut Snapshot| { grant(it, "b").denied.push(get_pods()); it.observed.record.inventory = [place(HOME)].into_iter().collect(); }, None)]
    #[case::deletable(|it: &mut Snapshot| it.parent_access.add(place("b").scope, review(&["delete roles", "delete rolebindings"])), None)]
    #[case::not_deletable(|it: &mut Snapshot| it.parent_access.add(place("b").scope, review(&["delete roles"])), Some("lacks delete rolebindings"))]
    #[case::not_deletable_and_empty(|it: &mut Snapshot| { it.parent_access.add(place("b").scope, review(&[])); *grant(it, "b") = LiveGrant::default(); }, None)]
    #[case::not_deletable_and_foreign_role(|it: &mut Snapshot| { it.parent_access.add(place("b").scope, review(&["delete rolebindings"])); grant(it, "b").role = Some(foreign()); }, None)]
    #[case::held_by_a_finalizer(|it: &mut Snapshot| grant(it, "b").role = Some(deleting(live(&[]), &["x/y"])), Some("the finalizer x/y holds it"))]
    #[case::foreign_role_held(|it: &mut Snapshot| grant(it, "b").role = Some(deleting(foreign(), &["x/y"])), None)]
    #[case::foreign_binding(|it: &mut Snapshot| grant(it, "b").binding = Some(foreign()), Some("no longer belongs to this instance: it is managed by flux"))]
    fn place_that_cannot_be_cleared_is_kept(#[case] alter: impl FnOnce(&mut Snapshot), #[case] why: Option<&str>) {
        let (request, mut snapshot) = Case::new(&["home get"]).with(&["home get", "b get"]).start();
        alter(&mut snapshot);
        let (desired, plan) = compare(&request, &snapshot);
        assert_eq!(desired.record.inventory.contains(&place("b")), why.is_some());
        let remarks = remarks(&request, &snapshot, &desired, &plan);
        let kept: Vec<&Finding> = remarks.iter().filter(|it| it.code == finding::Code::NotTakenBack).collect();
        assert_eq!(kept.len(), usize::from(why.is_some()));
        for finding in kept {
            let granted = "permissions granted earlier by rules in namespace b may still be in effect";
            assert!(finding.message.starts_with(granted) && finding.message.contains(why.unwrap()), "{finding:?}");
        }
    }

    fn edited(snapshot: &mut Snapshot, manager: Option<&str>) {
        let role = grant(snapshot, HOME).role.as_mut().unwrap();
        role.fields.remove("rules");
        role.managers = manager.map(|manager| ("rules".to_owned(), manager.to_owned())).into_iter().collect();
    }

    #[rstest]
    #[case::edited(|it: &mut Snapshot| edited(it, Some("kubectl-edit")), Severity::Medium, "Role home/demo-token was changed by kubectl-edit: /rules; it is restored")]
    #[case::edited_without_trace(|it: &mut Snapshot| edited(it, None), Severity::Medium, "Role home/demo-token was changed by someone else: /rules; it is restored")]
    #[case::label(|it: &mut Snapshot| {
        let account = it.observed.service_account.as_mut().unwrap();
        account.labels.insert("app.kubernetes.io/deployed-with".to_owned(), "x".to_owned());
        account.owned_labels.clear();
    }, Severity::Low, "ServiceAccount home/demo-token was changed by someone else: /metadata/labels/app.kubernetes.io~1deployed-with; it is restored")]
    #[case::secret(|it: &mut Snapshot| it.observed.slots = slots(1, &[(1, live(&[]), Some("its data is not a token"))]), Severity::Medium,
        "Secret home/demo-token can no longer be used (/data/token): its data is not a token; it is replaced by a new Secret with a new token")]
    fn drift_is_named_with_its_author(
        #[case] alter: impl FnOnce(&mut Snapshot),
        #[case] severity: Severity,
        #[case] text: &str,
    ) {
        let (request, mut snapshot) = (request(&Case::new(&["home get"])), settled(&["home get"]));
        alter(&mut snapshot);
        let (desired, plan) = compare(&request, &snapshot);
        let remarks = remarks(&request, &snapshot, &desired, &plan);
        let found: Vec<_> = remarks.iter().map(|it| (it.code, it.severity, &*it.message)).collect();
        assert_eq!(found, [(finding::Code::Drift, severity, text)]);
    }

    #[rstest]
    #[case::absent(Presence::Absent, &["b"], true)]
    #[case::terminating(Presence::Terminating, &["b"], false)]
    #[case::unknown(Presence::Unknown, &["b"], false)]
    #[case::nothing_recorded_there(Presence::Absent, &["c", "*"], false)]
    #[case::place_that_does_not_count(Presence::Absent, &["b/view"], false)]
    fn absent_namespace_with_a_place_is_reported(
        #[case] presence: Presence,
        #[case] recorded: &[&str],
        #[case] is_reported: bool,
    ) {
        let mut observed = Observed::default();
        observed.namespaces.insert(namespace("b"), presence);
        observed.record.inventory = recorded.iter().map(|text| place(text)).collect();
        assert_eq!(namespaces_gone(&observed, Place::has_role).count(), usize::from(is_reported));
    }

    fn unused() -> Snapshot {
        let mut snapshot = settled(&["home get"]);
        snapshot.observed.slots = slots(1, &[(1, live(&[]), Some("it has no token"))]);
        snapshot
    }

    /// Columns: wanted grants, snapshot, changes that are dry-run.
    #[rstest]
    #[case::new_role(&["home get"], Case::new(&[]).start().1, &["ServiceAccount", "Secret", "Role"])]
    #[case::new_binding_of_a_cluster_role(&["home/view"], Case::new(&[]).start().1, &["ServiceAccount", "Secret", "RoleBinding"])]
    #[case::existing_role(&["home get"], Case::new(&["home get"]).with(&["home list"]).start().1, &["ServiceAccount", "Secret", "Role", "RoleBinding"])]
    #[case::nothing_changes(&["home get"], settled(&["home get"]), &[])]
    #[case::one_change(&["home get list"], settled(&["home get"]), &["Role"])]
    #[case::replaced_secret(&["home get"], unused(), &["ServiceAccount", "Secret"])]
    #[case::replaced_binding(&["home get"], { let mut it = settled(&["home get"]); grant(&mut it, HOME).binding = Some(live(&[])); it }, &[])]
    #[case::foreign_role(&["home get"], { let mut it = settled(&["home get"]); grant(&mut it, HOME).role = Some(foreign()); it }, &[])]
    fn changes_are_dry_run_where_possible(
        #[case] wanted: &[&'static str],
        #[case] snapshot: Snapshot,
        #[case] kinds: &[&str],
    ) {
        let (desired, plan) = compare(&request(&Case::new(wanted)), &snapshot);
        let dry_runs = dry_runs(&snapshot, &desired, &plan);
        assert_eq!(dry_runs.iter().map(|it| it.manifest.reference.kind.as_str()).collect::<Vec<_>>(), kinds);
        let with_place = dry_runs.iter().filter(|it| it.place.is_some());
        assert_eq!(with_place.count(), kinds.iter().filter(|kind| kind.starts_with("Role")).count());
    }
}
