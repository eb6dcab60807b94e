//! What the parent credential needs for a plan, held against what the server says it has: so that a run that cannot
//! get through is refused before its first write, with everything that is missing, each with its scope. Pure.

use std::collections::BTreeMap;

use super::look::Sight;
use crate::{
    cluster::{denied, needed, not_grantable},
    credential::Review,
    desired::Desired,
    error::Failure,
    grant::{Authority, Place, Scope},
    name::Namespace,
    object::{Kind, Reference},
    plan::{Action, Change, Plan, granted_rules, rules_of},
    rbac::{Atom, Coverage, Rule, Tuple, Widening, atoms, widening},
    request::Request,
};

const DOING: &str = "comparing the parent credential's permissions with the plan";

/// What the server says the parent credential may do, scope by scope.
#[derive(Default)]
pub struct Rights(BTreeMap<Scope, Review>);

impl Rights {
    /// Takes what the server says of a scope.
    pub fn add(&mut self, scope: Scope, review: Review) {
        self.0.insert(scope, review);
    }

    /// False when the server was not asked about this scope, or cannot list all that it allows there.
    #[must_use]
    pub fn complete(&self, scope: &Scope) -> bool {
        self.0.get(scope).is_some_and(|review| review.complete)
    }

    fn held(&self) -> Coverage<'_> {
        self.0.iter().flat_map(|(scope, review)| atoms(&review.rules, scope.namespace())).collect()
    }
}

/// Names all that the parent lacks, if anything. Where the server cannot list all rights, only denials that were met
/// count: it will say the rest itself.
#[must_use]
pub fn lacking(request: &Request, sight: &Sight, desired: &Desired, plan: &Plan) -> Option<Failure> {
    let held = sight.rights.held();
    let mut requests = sight.denied.clone();
    for change in plan.changes.iter().filter(|change| !is_leftover(change)) {
        let scope = scope_of(&change.reference);
        if scope.as_ref().is_some_and(|scope| sight.rights.complete(scope)) {
            let lacks = verbs(change).iter().filter(|verb| !holds(&held, verb, &change.reference));
            requests.extend(lacks.map(|verb| needed(verb, &change.reference)));
        }
    }
    let mut ungrantable: Vec<(&Place, Vec<Tuple>)> = Vec::new();
    for ((place, rules), granted) in granted_rules(request, &sight.observed).iter().zip(&desired.grants) {
        let changes = |reference: &Reference, instead: &str| {
            let change = plan.change(reference);
            change.is_some_and(|change| change.action != Action::Unchanged)
                && !holds_on_role(&held, instead, request, place)
        };
        let role = granted.role.as_ref().is_some_and(|role| changes(&role.reference, "escalate"));
        if sight.rights.complete(&place.scope) && (role || changes(&granted.binding.reference, "bind")) {
            let missing: Vec<Tuple> = not_held(&held, rules, place.scope.namespace());
            if !missing.is_empty() {
                ungrantable.push((place, missing));
            }
        }
    }
    let shrinks = ungrantable.iter().all(|(place, _)| only_shrinks(request, sight, place));
    let grants = ungrantable.into_iter().flat_map(|(_, missing)| missing).collect();
    refusal(requests, sorted(grants), shrinks)
}

fn refusal(requests: Vec<Tuple>, grants: Vec<Tuple>, shrinks: bool) -> Option<Failure> {
    let not_grantable = |grants| {
        let failure = not_grantable(DOING, grants);
        if shrinks { failure.next(WAYS_TO_SHRINK) } else { failure }
    };
    match (requests.is_empty(), grants.is_empty()) {
        (true, true) => None,
        (true, false) => Some(not_grantable(grants)),
        (false, true) => Some(denied(DOING, requests)),
        (false, false) => {
            let mut failure = denied(DOING, requests);
            let mut beside = not_grantable(grants);
            failure.missing.append(&mut beside.missing);
            failure.findings.append(&mut beside.findings);
            Some(failure)
        }
    }
}

/// To the server a Role with fewer rules is a grant of those that stay.
const WAYS_TO_SHRINK: &str = "have the listed permissions, or escalate on the Role, granted to the parent credential; \
                              or drop the scope as a whole, which needs no such right; or decommission";

/// True when the Role at this place loses something and gains nothing.
#[must_use]
pub fn only_shrinks(request: &Request, sight: &Sight, place: &Place) -> bool {
    let grant = request.grants.iter().find(|grant| grant.place == *place);
    let role = sight.observed.role(place);
    matches!((grant, role), (Some(grant), Some(role)) if widening(&rules_of(role), &grant.rules) == Widening::None)
}

/// What an earlier request has left always goes if it can, and stands in nobody's way if it cannot.
fn is_leftover(change: &Change) -> bool {
    change.action == Action::Delete && change.reference.kind != Kind::Secret
}

/// What the parent lacks to delete these, for all at once: as far as the server can list its rights.
#[must_use]
pub fn undeletable(sight: &Sight, objects: &[Reference]) -> Vec<Tuple> {
    let held = sight.rights.held();
    let known = |object: &&Reference| scope_of(object).is_some_and(|scope| sight.rights.complete(&scope));
    let lacking = objects.iter().filter(known).filter(|object| !holds(&held, "delete", object));
    lacking.map(|object| needed("delete", object)).collect()
}

/// The requests that a change consists of, by the verbs that RBAC asks for.
const fn verbs(change: &Change) -> &'static [&'static str] {
    match (change.action, change.reference.kind) {
        (Action::Unchanged, _) => &[],
        (Action::Create, Kind::Namespace) => &["create"],
        // A server-side apply is a patch; of an object that is not there it needs create as well.
        (Action::Create, _) => &["create", "patch"],
        (Action::Update, _) => &["patch"],
        (Action::Replace, _) => &["delete", "create", "patch"],
        (Action::Delete, _) => &["delete"],
    }
}

/// The scope in which rights on this object count; a Namespace is judged by what may be done in it.
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
    let scope = scope_of(object);
    let atom = Atom::new(verb, object.kind.group(), object.kind.resource());
    let atom = atom.within(scope.as_ref().and_then(Scope::namespace));
    let posted = object.kind == Kind::Namespace && verb == "create";
    held.covers(if posted { atom } else { atom.named(&object.name) })
}

/// Whether `escalate` or `bind` is held on the role of a place: the server asks for it where the binding is.
fn holds_on_role(held: &Coverage<'_>, verb: &str, request: &Request, place: &Place) -> bool {
    let role = match &place.authority {
        Authority::Rules => request.names.role(&place.scope),
        Authority::ClusterRole(name) => Reference::at_cluster(Kind::ClusterRole, name.as_str()),
    };
    let atom = Atom::new(verb, role.kind.group(), role.kind.resource()).named(&role.name);
    held.covers(atom.within(place.scope.namespace()))
}

fn not_held(held: &Coverage<'_>, rules: &[Rule], namespace: Option<&str>) -> Vec<Tuple> {
    atoms(rules, namespace).filter(|atom| !held.covers(*atom)).map(|atom| atom.tuple()).collect()
}

fn sorted(mut tuples: Vec<Tuple>) -> Vec<Tuple> {
    tuples.sort();
    tuples.dedup();
    tuples
}
