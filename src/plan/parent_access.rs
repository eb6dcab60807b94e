//! The permissions that the parent credential needs for a plan, compared with those that it has: a run that cannot
//! succeed is refused before its first write, with all missing permissions and their scopes. Pure.

use crate::{
    diagnostics::error::Failure,
    input::request::Request,
    k8s::{
        denial::{denied, needed, not_grantable},
        grant::{Authority, Place, Scope},
        name::Namespace,
        object::{Kind, Reference},
    },
    plan::{
        adoption::release,
        desired::Desired,
        diff::{Action, Change, Plan, granted_rules},
        snapshot::Sight,
    },
    rbac::{Atom, Coverage, Tuple, Widening, atoms, widening},
};

const DOING: &str = "comparing the parent credential's permissions with the plan";

/// The failure that lists all permissions that the parent lacks, if any. If the server cannot list all permissions,
/// only actual denials count, and the server reports the others later.
#[must_use]
pub fn lacking(request: &Request, sight: &Sight, desired: &Desired, plan: &Plan) -> Option<Failure> {
    let mut requests = sight.denied.clone();
    let mut ungrantable: Vec<(&Place, Vec<Tuple>)> = Vec::new();
    for scope in sight.rights.listed_scopes() {
        let held = sight.rights.held(scope);
        let changes = plan.changes.iter().filter(|change| !is_leftover(change, request));
        for change in changes.filter(|change| scope_of(&change.reference).as_ref() == Some(scope)) {
            let lacks = verbs(change).iter().filter(|verb| !holds(&held, verb, &change.reference));
            requests.extend(lacks.map(|verb| needed(verb, &change.reference)));
        }
        let here = granted_rules(request, &sight.observed).into_iter().filter(|(place, _)| place.scope == *scope);
        for (place, rules) in here {
            let Some(granted) = desired.grants.iter().find(|granted| granted.place == *place) else { continue };
            let judged = |reference: &Reference, instead: &str| {
                let change = plan.change(reference);
                change.is_some_and(|change| change.action != Action::Unchanged)
                    && !holds_on_role(&held, instead, request, place)
            };
            let role = granted.role.as_ref().is_some_and(|role| judged(&role.reference, "escalate"));
            if role || judged(&granted.binding.reference, "bind") {
                let lacks = atoms(&rules, None).filter(|atom| !held.covers(*atom));
                ungrantable.push((place, lacks.map(|atom| atom.within(scope.namespace()).tuple()).collect()));
            }
        }
    }
    ungrantable.retain(|(_, missing)| !missing.is_empty());
    let places: Vec<&Place> = ungrantable.iter().map(|(place, _)| *place).collect();
    let grants = sorted(ungrantable.into_iter().flat_map(|(_, missing)| missing).collect());
    let grants = (!grants.is_empty()).then(|| not_grantable(DOING, grants));
    let grants = grants.map(|failure| with_ways_out(request, sight, &places, failure));
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
#[must_use]
pub fn with_ways_out(request: &Request, sight: &Sight, places: &[&Place], failure: Failure) -> Failure {
    if places.iter().any(|place| only_shrinks(request, sight, place)) {
        failure.next(WAYS_TO_SHRINK)
    } else if places.iter().any(|place| place.authority.cluster_role().is_some()) {
        failure.next(WAYS_TO_BIND)
    } else {
        failure
    }
}

/// To the server, an update of a Role to fewer rules is a grant of the remaining ones.
const WAYS_TO_SHRINK: &str = "grant the parent credential the listed permissions, or escalate on the Role; or remove \
                              everything for that namespace (or for the whole cluster), which does not need that \
                              permission; or decommission";

/// A parent with `bind` on a role need not hold its permissions.
const WAYS_TO_BIND: &str = "grant the parent credential the listed permissions, or bind on the ClusterRole there; or \
                            request fewer permissions; then run again";

/// Whether the Role at this place only loses permissions.
fn only_shrinks(request: &Request, sight: &Sight, place: &Place) -> bool {
    let grant = request.grants.iter().find(|grant| grant.place == *place);
    let role = sight.observed.role(place);
    matches!((grant, role), (Some(grant), Some(role)) if widening(&role.rules(), &grant.rules) == Widening::None)
}

/// Whether an object is left by an earlier configuration or by Helm: it is deleted if possible, and otherwise stops
/// nothing.
fn is_leftover(change: &Change, request: &Request) -> bool {
    let Reference { kind, name, .. } = &change.reference;
    change.action == Action::Delete
        && (*kind != Kind::Secret || release::revision(name, request.instance.name.as_str()).is_some())
}

/// The permissions that the parent lacks to delete these objects, as far as the server can list its permissions.
#[must_use]
pub fn undeletable(sight: &Sight, objects: &[Reference]) -> Vec<Tuple> {
    let lacks = |object: &&Reference| {
        let scope = scope_of(object).filter(|scope| sight.rights.complete(scope));
        scope.is_some_and(|scope| !holds(&sight.rights.held(&scope), "delete", object))
    };
    objects.iter().filter(lacks).map(|object| needed("delete", object)).collect()
}

/// The requests of a change, as RBAC verbs.
const fn verbs(change: &Change) -> &'static [&'static str] {
    match (change.action, change.reference.kind) {
        (Action::Unchanged, _) => &[],
        (Action::Create, Kind::Namespace) => &["create"],
        // A server-side apply requires `patch`; on an absent object also `create`.
        (Action::Create, _) => &["create", "patch"],
        (Action::Update | Action::Adopt, _) => &["patch"],
        (Action::Replace, _) => &["delete", "create", "patch"],
        (Action::Delete, _) => &["delete"],
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
    let atom = Atom::new(verb, object.kind.group(), object.kind.resource());
    let posted = object.kind == Kind::Namespace && verb == "create";
    held.covers(if posted { atom } else { atom.named(&object.name) })
}

/// Whether the parent holds `escalate` or `bind` on the role of a place: the server requires it in the scope of the
/// binding.
fn holds_on_role(held: &Coverage<'_>, verb: &str, request: &Request, place: &Place) -> bool {
    let role = match &place.authority {
        Authority::Rules => request.instance.names.role(&place.scope),
        Authority::ClusterRole(name) => Reference::at_cluster(Kind::ClusterRole, name.as_str()),
    };
    held.covers(Atom::new(verb, role.kind.group(), role.kind.resource()).named(&role.name))
}

fn sorted(mut tuples: Vec<Tuple>) -> Vec<Tuple> {
    tuples.sort();
    tuples.dedup();
    tuples
}
