//! What the parent credential needs for a plan, held against what the server says it has: so that a run that cannot
//! get through is refused before its first write, with everything that is missing. Pure.

use crate::{
    cluster::{Sight, denied, needed, not_grantable},
    error::Failure,
    object::{Kind, Reference},
    plan::{Action, Plan},
    rbac::{Atom, Coverage, Rule, Tuple, atoms},
    request::Request,
};

const DOING: &str = "comparing the parent credential's permissions with the plan";

/// Names all that the parent lacks, if anything. Where the server cannot list all rights, only denials that were met
/// count: it will say the rest itself.
#[must_use]
pub fn lacking(request: &Request, sight: &Sight, plan: &Plan) -> Option<Failure> {
    let mut requests = sight.denied.clone();
    let mut grants = Vec::new();
    if sight.rights.complete {
        let held = Coverage::of(&sight.rights.rules);
        let changes =
            plan.changes.iter().map(|change| (verbs(change.action, change.reference.kind), &change.reference));
        for (verb, object) in changes.flat_map(|(verbs, object)| verbs.iter().map(move |verb| (*verb, object))) {
            if !holds(&held, verb, object) {
                requests.push(needed(verb, object));
            }
        }
        let role = request.object(Kind::Role);
        let needs = |kind: Kind, instead: &str| {
            let planned = plan.change(&request.object(kind));
            planned.is_some_and(|planned| planned.action != Action::Unchanged) && !holds(&held, instead, &role)
        };
        if needs(Kind::Role, "escalate") || needs(Kind::RoleBinding, "bind") {
            grants = not_held(&held, &request.rules, request.namespace.as_str());
        }
    }
    match (requests.is_empty(), grants.is_empty()) {
        (true, true) => None,
        (true, false) => Some(not_grantable(DOING, grants)),
        (false, true) => Some(denied(DOING, requests)),
        (false, false) => {
            let mut failure = denied(DOING, requests);
            let mut beside = not_grantable(DOING, grants);
            failure.missing.append(&mut beside.missing);
            failure.findings.append(&mut beside.findings);
            Some(failure)
        }
    }
}

/// What the parent lacks to delete these, for all at once: as far as the server can list its rights.
#[must_use]
pub fn undeletable(sight: &Sight, objects: &[Reference]) -> Vec<Tuple> {
    let held = Coverage::of(&sight.rights.rules);
    let lacking = objects.iter().filter(|object| sight.rights.complete && !holds(&held, "delete", object));
    lacking.map(|object| needed("delete", object)).collect()
}

/// The requests that a change consists of, by the verbs that RBAC asks for.
const fn verbs(action: Action, kind: Kind) -> &'static [&'static str] {
    match (action, kind) {
        (Action::Unchanged, _) => &[],
        (Action::Create, Kind::Namespace) => &["create"],
        // A server-side apply is a patch; of an object that is not there it needs create as well.
        (Action::Create, _) => &["create", "patch"],
        (Action::Update, _) => &["patch"],
        (Action::Replace, _) => &["delete", "create", "patch"],
        (Action::Delete, _) => &["delete"],
    }
}

fn holds(held: &Coverage<'_>, verb: &str, object: &Reference) -> bool {
    let atom = Atom::new(verb, object.kind.group(), object.kind.resource());
    let posted = object.kind == Kind::Namespace && verb == "create";
    held.covers(if posted { atom } else { atom.named(&object.name) })
}

fn not_held(held: &Coverage<'_>, rules: &[Rule], namespace: &str) -> Vec<Tuple> {
    let mut missing: Vec<Tuple> =
        atoms(rules).filter(|atom| !held.covers(*atom)).map(|atom| atom.tuple(Some(namespace))).collect();
    missing.sort();
    missing.dedup();
    missing
}
