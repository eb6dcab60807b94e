//! What the parent credential needs for a plan, held against what the server says it has: so that a run that cannot
//! get through is refused before its first write, with everything that is missing. Pure.

use crate::{
    cluster::{Sight, needed, summary},
    error::{Code, Failure},
    object::{Kind, Reference},
    plan::{Action, Plan},
    rbac::{Atom, Coverage, Rule, Tuple, atoms},
    request::Request,
};

/// What the parent lacks.
#[derive(Default)]
pub struct Lack {
    /// Requests that would be denied.
    pub requests: Vec<Tuple>,
    /// Permissions that it does not hold and therefore may not grant.
    pub grants: Vec<Tuple>,
}

/// Compares. Where the server cannot list all rights, only denials that were met count: it will say the rest itself.
#[must_use]
pub fn lacking(request: &Request, sight: &Sight, plan: &Plan) -> Lack {
    let mut lack = Lack { requests: sight.denied.clone(), grants: Vec::new() };
    if !sight.rights.complete {
        return lack;
    }
    let held = Coverage::of(&sight.rights.rules);
    for change in &plan.changes {
        for verb in verbs(change.action, change.reference.kind) {
            if !holds(&held, verb, &change.reference) {
                lack.requests.push(needed(verb, &change.reference));
            }
        }
    }
    let role = Reference::new(Kind::Role, request.namespace.as_str(), request.names.object());
    let grants = |kind: Kind, verb: &str| {
        let written = plan.action(kind).is_some_and(|action| action != Action::Unchanged);
        written && !holds(&held, verb, &role)
    };
    if grants(Kind::Role, "escalate") || grants(Kind::RoleBinding, "bind") {
        lack.grants = not_held(&held, &request.rules, request.namespace.as_str());
    }
    lack
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

impl Lack {
    /// The failure that names all of it, if anything is lacking.
    #[must_use]
    pub fn into_failure(self) -> Option<Failure> {
        let (code, cause) = match (self.requests.is_empty(), self.grants.is_empty()) {
            (true, true) => return None,
            (false, _) => (Code::MissingPermission, format!("the parent credential lacks {}", summary(&self.requests))),
            (true, false) => (
                Code::Escalation,
                format!("the parent credential may not grant what it does not hold: {}", summary(&self.grants)),
            ),
        };
        let missing = self.requests.into_iter().chain(self.grants).collect();
        Some(Failure::new(code, "comparing the parent credential's permissions with the plan", cause).missing(missing))
    }
}
