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
