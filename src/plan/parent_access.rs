//! The permissions that the parent credential needs for a plan, compared with those that it has: a run that cannot
//! succeed is refused before its first write, with all missing permissions and their scopes. Pure.

use crate::{
    diagnostics::error::Failure,
    input::request::Request,
    k8s::{
        denial::{denied, needed, not_grantable},
        grant::{Place, RoleSource, Scope},
        name::Namespace,
        object::{Kind, Reference},
    },
    plan::{
        adoption::release,
        desired::Desired,
        diff::{Change, ChangeKind, Plan, granted_rules},
        snapshot::Snapshot,
    },
    rbac::{Coverage, Permission, PermissionRecord, Widening, permissions_of, widening},
};

const DOING: &str = "comparing the parent credential's permissions with the plan";

/// The failure that lists all permissions that the parent lacks, if any. If the server cannot list all permissions,
/// only actual denials count, and the server reports the others later.
pub(crate) fn missing_permissions(
    request: &Request,
    snapshot: &Snapshot,
    desired: &Desired,
    plan: &Plan,
) -> Option<Failure> {
    let mut requests = snapshot.denied.clone();
    let mut ungrantable: Vec<(&Place, Vec<PermissionRecord>)> = Vec::new();
    for scope in snapshot.parent_access.listed_scopes() {
        let held = snapshot.parent_access.held(scope);
        let changes = plan.changes.iter().filter(|change| !is_stale(change, request));
        for change in changes.filter(|change| scope_of(&change.reference).as_ref() == Some(scope)) {
            let lacks = verbs(change).iter().filter(|verb| !holds(&held, verb, &change.reference));
            requests.extend(lacks.map(|verb| needed(verb, &change.reference)));
        }
        let here = granted_rules(request, &snapshot.observed).into_iter().filter(|(place, _)| place.scope == *scope);
        for (place, rules) in here {
            let Some(granted) = desired.grants.iter().find(|granted| granted.place == *place) else { continue };
            let judged = |reference: &Reference, instead: &str| {
                let change = plan.change(reference);
                change.is_some_and(|change| change.action != ChangeKind::Unchanged)
                    && !holds_on_role(&held, instead, request, place)
            };
            let role = granted.role.as_ref().is_some_and(|role| judged(&role.reference, "escalate"));
            if role || judged(&granted.binding.reference, "bind") {
                let lacks = permissions_of(&rules, None).filter(|permission| !held.covers(*permission));
                ungrantable
                    .push((place, lacks.map(|permission| permission.within(scope.namespace()).record()).collect()));
            }
        }
    }
    ungrantable.retain(|(_, missing)| !missing.is_empty());
    let places: Vec<&Place> = ungrantable.iter().map(|(place, _)| *place).collect();
    let grants = sorted(ungrantable.into_iter().flat_map(|(_, missing)| missing).collect());
    let grants = (!grants.is_empty()).then(|| not_grantable(DOING, grants));
    let grants = grants.map(|failure| with_hint(request, snapshot, &places, failure));
    let requests = (!requests.is_empty()).then(|| denied(DOING, requests));
    match (requests, grants) {
        (None, None) => None,
        (Some(failure), None) | (None, Some(failure)) => Some(failure),
        (Some(mut failure), Some(mut beside)) => {
            failure.missing.append(&mut beside.missing);
            failure.findings.append(&mut beside.findings);
            Some(failure)
        }
    }
}

/// The failure of grants that the escalation check refuses at these places, with alternatives.
pub(crate) fn with_hint(request: &Request, snapshot: &Snapshot, places: &[&Place], failure: Failure) -> Failure {
    if places.iter().any(|place| only_shrinks(request, snapshot, place)) {
        failure.next(HINT_NARROWED_ROLE)
    } else if places.iter().any(|place| place.role_source.cluster_role().is_some()) {
        failure.next(HINT_CLUSTER_ROLE)
    } else {
        failure
    }
}

/// To the server, an update of a Role to fewer rules is a grant of the remaining ones.
const HINT_NARROWED_ROLE: &str = "grant the parent credential the listed permissions, or escalate on the Role; or remove \
                              everything for that namespace (or for the whole cluster), which does not need that \
                              permission; or decommission";

/// A parent with `bind` on a role need not hold its permissions.
const HINT_CLUSTER_ROLE: &str = "grant the parent credential the listed permissions, or bind on the ClusterRole there; or \
                            request fewer permissions; then run again";

/// Whether the Role at this place only loses permissions.
fn only_shrinks(request: &Request, snapshot: &Snapshot, place: &Place) -> bool {
    let grant = request.grants.iter().find(|grant| grant.place == *place);
    let role = snapshot.observed.role(place);
    matches!((grant, role), (Some(grant), Some(role)) if widening(&role.rules(), &grant.rules) == Widening::None)
}

/// Whether an object is left by an earlier configuration or by Helm: it is deleted if possible, and otherwise stops
/// nothing.
fn is_stale(change: &Change, request: &Request) -> bool {
    let Reference { kind, name, .. } = &change.reference;
    change.action == ChangeKind::Delete
        && (*kind != Kind::Secret || release::revision(name, request.instance.name.as_str()).is_some())
}

/// The permissions that the parent lacks to delete these objects, as far as the server can list its permissions.
pub(crate) fn missing_delete(snapshot: &Snapshot, objects: &[Reference]) -> Vec<PermissionRecord> {
    let lacks = |object: &&Reference| {
        let scope = scope_of(object).filter(|scope| snapshot.parent_access.is_exhaustive(scope));
        scope.is_some_and(|scope| !holds(&snapshot.parent_access.held(&scope), "delete", object))
    };
    objects.iter().filter(lacks).map(|object| needed("delete", object)).collect()
}

/// The requests of a change, as RBAC verbs.
const fn verbs(change: &Change) -> &'static [&'static str] {
    match (change.action, change.reference.kind) {
        (ChangeKind::Unchanged, _) => &[],
        (ChangeKind::Create, Kind::Namespace) => &["create"],
        // A server-side apply requires `patch`; on an absent object also `create`.
        (ChangeKind::Create, _) => &["create", "patch"],
        (ChangeKind::Update | ChangeKind::Adopt, _) => &["patch"],
        (ChangeKind::Replace, _) => &["delete", "create", "patch"],
        (ChangeKind::Delete, _) => &["delete"],
    }
}

/// The scope in which permissions on this object count; that of a Namespace is the namespace itself.
fn scope_of(object: &Reference) -> Option<Scope> {
    let namespace = match object.kind {
        Kind::Namespace => Some(object.name.as_str()),
        _ => object.namespace.as_deref(),
    };
    match namespace {
        Some(namespace) => Namespace::parse(namespace).ok().map(Scope::Namespace),
        None => Some(Scope::Cluster),
    }
}

fn holds(held: &Coverage<'_>, verb: &str, object: &Reference) -> bool {
    let permission = Permission::new(verb, object.kind.group(), object.kind.resource());
    let posted = object.kind == Kind::Namespace && verb == "create";
    held.covers(if posted { permission } else { permission.named(&object.name) })
}

/// Whether the parent holds `escalate` or `bind` on the role of a place: the server requires it in the scope of the
/// binding.
fn holds_on_role(held: &Coverage<'_>, verb: &str, request: &Request, place: &Place) -> bool {
    let role = match &place.role_source {
        RoleSource::Rules => request.instance.names.role(&place.scope),
        RoleSource::ClusterRole(name) => Reference::at_cluster(Kind::ClusterRole, name.as_str()),
    };
    held.covers(Permission::new(verb, role.kind.group(), role.kind.resource()).named(&role.name))
}

fn sorted(mut records: Vec<PermissionRecord>) -> Vec<PermissionRecord> {
    records.sort();
    records.dedup();
    records
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        diagnostics::error::Code,
        k8s::name::ClusterRoleName,
        plan::{
            fixtures::{self, Case, HOME, Objects, live, place, review, rule, settled, slots},
            preflight::compare,
        },
    };

    /// Requests on every object in the home namespace.
    const MANAGE: [&str; 4] = [
        "create,patch,delete serviceaccounts",
        "create,patch,delete secrets",
        "create,patch,delete roles",
        "create,patch,delete rolebindings",
    ];

    fn failure(request: &Request, snapshot: &mut Snapshot, parent: &[(&str, &[&str])]) -> Option<Failure> {
        for (scope, rules) in parent {
            snapshot.parent_access.add(Scope::parse(scope).unwrap(), review(rules));
        }
        let view = ClusterRoleName::parse("view").unwrap();
        snapshot.observed.cluster_roles.insert(view, Some(vec![rule(&["get"])]));
        let (desired, plan) = compare(request, snapshot);
        missing_permissions(request, snapshot, &desired, &plan)
    }

    /// Records as in `get pods web @home`.
    fn shown(records: &[PermissionRecord]) -> Vec<String> {
        let text = |record: &PermissionRecord| match record {
            PermissionRecord::Resource { verb, resource, name, namespace, .. } => {
                let part = |lead: &str, part: &Option<String>| part.as_ref().map(|part| format!(" {lead}{part}"));
                let (name, namespace) = (part("", name), part("@", namespace));
                format!("{verb} {resource}{}{}", name.unwrap_or_default(), namespace.unwrap_or_default())
            }
            PermissionRecord::Url { verb, url } => format!("{verb} {url}"),
        };
        records.iter().map(text).collect()
    }

    fn new_namespace() -> Case {
        Case { has_home: false, ..Case::new(&["home get"]) }
    }

    fn another_role_bound() -> Case {
        let mut case = Case::new(&["home get"]).with(&["home get"]);
        case.live.insert(place(HOME), Objects { verbs: vec!["get"], binding: Some(false) });
        case
    }

    /// Columns: state, permission instead of all on its resource, missing permissions.
    #[rstest]
    #[case::create(Case::new(&["home get"]), "create,patch secrets", &[])]
    #[case::create_without_create(Case::new(&["home get"]), "patch secrets", &["create secrets demo-token @home"])]
    #[case::create_without_patch(Case::new(&["home get"]), "create secrets", &["patch secrets demo-token @home"])]
    #[case::limited_to_the_name(Case::new(&["home get"]), "create,patch secrets demo-token", &[])]
    #[case::limited_to_another_name(Case::new(&["home get"]), "create,patch secrets demo", &["create secrets demo-token @home", "patch secrets demo-token @home"])]
    #[case::wildcard(Case::new(&["home get"]), "* secrets", &[])]
    #[case::update(Case::new(&["home get"]).with(&["home list"]), "patch roles", &[])]
    #[case::update_without_patch(Case::new(&["home get"]).with(&["home list"]), "create,delete roles", &["patch roles demo-token @home"])]
    #[case::replace(another_role_bound(), "delete,create,patch rolebindings", &[])]
    #[case::replace_without_delete(another_role_bound(), "create,patch rolebindings", &["delete rolebindings demo-token @home"])]
    #[case::replace_without_create(another_role_bound(), "delete,patch rolebindings", &["create rolebindings demo-token @home"])]
    #[case::new_namespace(new_namespace(), "create namespaces", &[])]
    #[case::new_namespace_by_name(new_namespace(), "create namespaces home", &["create namespaces"])]
    fn change_needs_its_requests(#[case] case: Case, #[case] instead: &str, #[case] missing: &[&str]) {
        let (request, mut snapshot) = case.start();
        let resource = instead.split(' ').nth(1).unwrap();
        let held = MANAGE.into_iter().filter(|rule| !rule.ends_with(&format!(" {resource}")));
        let held: Vec<&str> = held.chain([instead, "get pods"]).collect();
        let failure = failure(&request, &mut snapshot, &[(HOME, &held)]);
        assert!(failure.as_ref().is_none_or(|failure| failure.code == Code::MissingPermission));
        assert_eq!(failure.map(|failure| shown(&failure.missing)).unwrap_or_default(), missing);
    }

    /// Columns: grants before, wanted grants, permissions beside all requests, permissions that may not be granted, step.
    #[rstest]
    #[case::held(&[], &["home get"], &["get pods"], &[], "")]
    #[case::one_of_two_held(&[], &["home get list"], &["get pods"], &["list pods @home"], "")]
    #[case::held_for_one_name(&[], &["home get"], &["get pods web"], &["get pods @home"], "")]
    #[case::escalate_and_bind(&[], &["home get"], &["escalate,bind roles demo-token"], &[], "")]
    #[case::escalate_on_another_role(&[], &["home get"], &["escalate,bind roles demo"], &["get pods @home"], "")]
    #[case::escalate_without_bind(&[], &["home get"], &["escalate roles"], &["get pods @home"], "")]
    #[case::bind_without_escalate(&[], &["home get"], &["bind roles"], &["get pods @home"], "")]
    #[case::binding_is_unchanged(&["home get"], &["home get list"], &["escalate roles"], &[], "")]
    #[case::role_is_changed(&["home get"], &["home get list"], &["bind roles"], &["get pods @home", "list pods @home"], "")]
    #[case::nothing_is_changed(&["home get"], &["home get"], &[], &[], "")]
    #[case::role_is_narrowed(&["home get list"], &["home get"], &[], &["get pods @home"], HINT_NARROWED_ROLE)]
    #[case::cluster_role_held(&[], &["home/view"], &["get pods"], &[], "")]
    #[case::cluster_role_not_held(&[], &["home/view"], &["list pods"], &["get pods @home"], HINT_CLUSTER_ROLE)]
    #[case::bind_on_the_cluster_role(&[], &["home/view"], &["bind clusterroles view"], &[], "")]
    #[case::bind_on_another_cluster_role(&[], &["home/view"], &["bind clusterroles edit"], &["get pods @home"], HINT_CLUSTER_ROLE)]
    #[case::bind_on_roles(&[], &["home/view"], &["bind roles view"], &["get pods @home"], HINT_CLUSTER_ROLE)]
    #[case::granted_twice(&[], &["home get", "home/view"], &[], &["get pods @home"], HINT_CLUSTER_ROLE)]
    fn grant_needs_its_permissions(
        #[case] before: &[&'static str],
        #[case] wanted: &[&'static str],
        #[case] beside: &[&str],
        #[case] missing: &[&str],
        #[case] next: &str,
    ) {
        let case = Case::new(wanted);
        let request = fixtures::request(&case);
        let mut snapshot = if before.is_empty() { case.start().1 } else { settled(before) };
        let held: Vec<&str> = MANAGE.iter().chain(beside).copied().collect();
        let failure = failure(&request, &mut snapshot, &[(HOME, &held)]);
        assert_eq!(failure.as_ref().map(|failure| shown(&failure.missing)).unwrap_or_default(), missing);
        let usual = if next.is_empty() { Code::Escalation.next_step() } else { next };
        assert!(failure.is_none_or(|failure| (failure.code, &*failure.next) == (Code::Escalation, usual)));
    }

    /// Columns: wanted grants, permissions by scope, missing permissions without the names of objects.
    #[rstest]
    #[case::not_listed(&["b get"], &[], &[])]
    #[case::listed(&["b get"], &[("b", "create roles; create,patch rolebindings")], &["patch roles @b", "get pods @b"])]
    #[case::held_elsewhere(&["b/view"], &[("b", "get pods"), ("c", "create,patch rolebindings")], &["create rolebindings @b", "patch rolebindings @b"])]
    #[case::whole_cluster(&["* get"], &[("*", "create,patch clusterroles; patch clusterrolebindings")], &["create clusterrolebindings", "get pods"])]
    #[case::roles_are_no_cluster_roles(&["*/view"], &[("*", "create,patch rolebindings; get pods")], &["create clusterrolebindings", "patch clusterrolebindings"])]
    fn permissions_count_in_their_scope(
        #[case] wanted: &[&'static str],
        #[case] parent: &[(&str, &str)],
        #[case] missing: &[&str],
    ) {
        let (request, mut snapshot) = Case::new(wanted).start();
        for (scope, rules) in parent {
            snapshot.parent_access.add(place(scope).scope, review(&rules.split("; ").collect::<Vec<_>>()));
        }
        let failure = failure(&request, &mut snapshot, &[]);
        let unnamed =
            |text: String| text.split(' ').filter(|word| !word.starts_with("demo")).collect::<Vec<_>>().join(" ");
        let shown = failure.map(|failure| shown(&failure.missing)).unwrap_or_default();
        assert_eq!(shown.into_iter().map(unnamed).collect::<Vec<_>>(), missing);
    }

    #[test]
    fn denials_are_reported_beside_an_incomplete_list() {
        let (request, mut snapshot) = Case::new(&["home get"]).start();
        let mut incomplete = review(&[]);
        incomplete.complete = false;
        snapshot.parent_access.add(place(HOME).scope, incomplete);
        assert!(failure(&request, &mut snapshot, &[]).is_none());
        let account = request.instance.names.service_account();
        snapshot.denied.push(needed("get", &account));
        let only_denial = failure(&request, &mut snapshot, &[]).unwrap();
        assert_eq!(shown(&only_denial.missing), ["get serviceaccounts demo-token @home"]);
        let both = failure(&request, &mut snapshot, &[(HOME, &MANAGE)]).unwrap();
        assert_eq!((both.code, both.findings.len()), (Code::MissingPermission, 2));
        assert_eq!(shown(&both.missing), ["get serviceaccounts demo-token @home", "get pods @home"]);
    }

    #[test]
    fn replaced_secret_needs_permission_to_delete() {
        let (request, mut snapshot) = Case::new(&["home get"]).with(&["home get"]).start();
        snapshot.observed.slots = slots(1, &[(1, live(&[]), Some("it has no token"))]);
        let held = ["patch serviceaccounts", "create,patch secrets", "patch roles", "patch rolebindings", "get pods"];
        let lacking = failure(&request, &mut snapshot, &[(HOME, &held)]).unwrap();
        assert_eq!(shown(&lacking.missing), ["delete secrets demo-token @home"]);
        let held = [&held[..], &["delete secrets demo-token"]].concat();
        assert!(failure(&request, &mut snapshot, &[(HOME, &held)]).is_none());
    }

    #[rstest]
    #[case::earlier_role(ChangeKind::Delete, Kind::Role, "demo-token", true)]
    #[case::wanted_role(ChangeKind::Update, Kind::Role, "demo-token", false)]
    #[case::token_secret(ChangeKind::Delete, Kind::Secret, "demo-token", false)]
    #[case::helm_revision(ChangeKind::Delete, Kind::Secret, "sh.helm.release.v1.demo.v2", true)]
    #[case::revision_of_another_release(ChangeKind::Delete, Kind::Secret, "sh.helm.release.v1.demo-2.v2", false)]
    fn deletion_of_leftovers_stops_nothing(
        #[case] action: ChangeKind,
        #[case] kind: Kind,
        #[case] name: &str,
        #[case] is_left: bool,
    ) {
        let change = Change { action, ..Change::delete(Reference::new(kind, HOME, name)) };
        assert_eq!(is_stale(&change, &fixtures::request(&Case::new(&[]))), is_left);
    }

    /// Columns: scope with its list, whether that is complete, permissions there, what the deletion of `home/x` lacks.
    #[rstest]
    #[case::held(HOME, true, "delete roles", &[])]
    #[case::held_for_the_name(HOME, true, "delete roles x", &[])]
    #[case::held_for_another_name(HOME, true, "delete roles y", &["delete roles x @home"])]
    #[case::held_for_bindings(HOME, true, "delete rolebindings", &["delete roles x @home"])]
    #[case::list_is_incomplete(HOME, false, "get roles", &[])]
    #[case::list_of_another_scope("b", true, "get roles", &[])]
    fn deletion_needs_permission_where_all_are_listed(
        #[case] scope: &str,
        #[case] complete: bool,
        #[case] held: &str,
        #[case] missing: &[&str],
    ) {
        let mut snapshot = Case::new(&[]).start().1;
        snapshot.parent_access.add(
            Scope::parse(scope).unwrap(),
            crate::credential::access_checks::Review { complete, ..review(&[held]) },
        );
        assert_eq!(shown(&missing_delete(&snapshot, &[Reference::new(Kind::Role, HOME, "x")])), missing);
    }
}
