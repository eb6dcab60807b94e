//! What stands between what is there and what is wanted, before anything is tried: the plan, and what refuses it. Pure.

use super::{look::Sight, rights};
use crate::{
    cluster::summary,
    desired::Desired,
    error::{Code, Failure},
    finding::{Finding, Severity},
    grant::{Place, Scope},
    observed::{Observed, Presence},
    plan::Plan,
    rbac::Tuple,
    request::Request,
};

const DOING: &str = "comparing what is there with what is wanted";

/// What must be there, and what that changes.
#[must_use]
pub fn compare(request: &Request, sight: &Sight) -> (Desired, Plan) {
    // What may not be looked at cannot be told from what is not there.
    let blind = !sight.denied.is_empty();
    let generation = if blind { sight.observed.newest() } else { sight.observed.wanted_generation() };
    let kept = unreachable(request, &sight.observed).map(|(place, _)| place.clone());
    let desired = Desired::new(request, generation, kept.collect());
    let plan = Plan::new(request, &desired, &sight.observed);
    (desired, plan)
}

/// Places of earlier requests that the parent credential may not look at any more, and what it lacks.
fn unreachable<'a>(request: &Request, observed: &'a Observed) -> impl Iterator<Item = (&'a Place, &'a [Tuple])> {
    let left = observed.places.iter().filter(|(place, _)| !request.wants(place) && observed.inventory.contains(place));
    left.filter(|(_, found)| !found.denied.is_empty()).map(|(place, found)| (place, found.denied.as_slice()))
}

/// What there is to say of the places of earlier requests, before they are cleared.
#[must_use]
pub fn remarks(request: &Request, observed: &Observed) -> Vec<Finding> {
    let unreachable = unreachable(request, observed).map(|(place, denied)| not_cleared(place, denied));
    let gone = observed.namespaces.iter().filter(|(_, presence)| **presence == Presence::Absent);
    let gone = gone.filter(|(namespace, _)| {
        let mut left = observed.inventory.places().filter(|place| !request.wants(place));
        left.any(|place| place.scope.namespace() == Some(namespace.as_str()))
    });
    let gone = gone.map(|(namespace, _)| {
        let text =
            format!("namespace {namespace} of an earlier request is gone, and with it all that was granted there");
        Finding::remark("namespace-gone", Severity::Info, text)
    });
    unreachable.chain(gone).collect()
}

/// A place of an earlier request that stays, because the parent credential lacks these.
#[must_use]
pub fn not_cleared(place: &Place, missing: &[Tuple]) -> Finding {
    let text = format!(
        "what an earlier request granted {} may still be held: the parent credential lacks {}",
        place.words(),
        summary(missing)
    );
    Finding::remark("not-taken-back", Severity::High, text).help(
        "have that granted to the parent credential and run again: the place is remembered until it is seen empty",
    )
}

/// What is known to stand in the way before anything is tried.
#[must_use]
pub fn refusal(request: &Request, sight: &Sight, desired: &Desired, plan: &Plan) -> Option<Failure> {
    obstacles(request, sight, plan).or_else(|| rights::lacking(request, sight, desired, plan))
}

/// What stands in the way whoever asks: all of it, named by the first.
fn obstacles(request: &Request, sight: &Sight, plan: &Plan) -> Option<Failure> {
    let foreign = plan.foreign.iter().map(|foreign| {
        let cause = format!("it exists and is not ours: {}", foreign.whose);
        let text = format!("{} is not ours: {}", foreign.reference, foreign.whose);
        (Code::ForeignObject, foreign.reference.to_string(), cause, text)
    });
    let namespaces = |presence: Presence| {
        let mut scopes: Vec<&Scope> = request.grants.iter().map(|grant| &grant.place.scope).collect();
        scopes.dedup();
        scopes.into_iter().filter_map(move |scope| match scope {
            Scope::Namespace(namespace) if sight.observed.presence(namespace) == presence => Some(namespace),
            _ => None,
        })
    };
    let absent = namespaces(Presence::Absent).filter(|namespace| **namespace != request.namespace).map(|namespace| {
        let cause = "it is not there; only the instance's own namespace is created";
        let text = format!("namespace {namespace} is not there: only the instance's own namespace is created");
        (Code::NamespaceAbsent, format!("Namespace {namespace}"), cause.to_owned(), text)
    });
    let missing = sight.observed.cluster_roles.iter().filter(|(name, rules)| {
        let wanted = request.grants.iter().any(|grant| grant.place.authority.cluster_role() == Some(name));
        rules.is_none() && wanted
    });
    let missing = missing.map(|(name, _)| {
        let text = format!("ClusterRole {} is not there", name.as_str());
        (Code::ClusterRoleAbsent, format!("ClusterRole {}", name.as_str()), "it is not there".to_owned(), text)
    });
    let home = (sight.observed.presence(&request.namespace) == Presence::Terminating).then_some(&request.namespace);
    let elsewhere = namespaces(Presence::Terminating).filter(|namespace| **namespace != request.namespace);
    let terminating = home.into_iter().chain(elsewhere).map(|namespace| {
        let text = format!("namespace {namespace} is being deleted");
        (
            Code::NamespaceTerminating,
            format!("Namespace {namespace}"),
            "the namespace is being deleted".to_owned(),
            text,
        )
    });

    let found: Vec<_> = foreign.chain(absent).chain(missing).chain(terminating).collect();
    let (code, object, cause, _) = found.first()?;
    let mut failure = Failure::new(*code, DOING, cause).on(object);
    // One obstacle is told by the error itself, unless it is one that people search the findings for.
    let listed = found.iter().filter(|(code, ..)| found.len() > 1 || *code == Code::ForeignObject);
    failure.findings = listed.map(|(code, _, _, text)| Finding::remark(code.as_str(), Severity::High, text)).collect();
    Some(failure)
}
