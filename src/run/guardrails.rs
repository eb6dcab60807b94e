//! The guardrails of a plan or a provision: judged before the first write, by the rules that the ClusterRoles have now.

use crate::{
    diagnostics::error::Failure,
    plan::{
        desired::Desired,
        diff::{Plan, widens},
        judgement::judge,
        preflight::preflight_failure,
        snapshot::Snapshot,
    },
    rbac::Catalog,
    run::Run,
};

/// The reason to refuse a plan before anything is tried: a guardrail, or an obstacle. Where the parent credential cannot
/// read all that is asked for, the comparison with a guardrail would be about what is not known.
pub(super) fn refusal(run: &Run<'_>, snapshot: &Snapshot, desired: &Desired, plan: &Plan) -> Option<Failure> {
    let by_guardrail = by_guardrail(run, snapshot, desired);
    let obstacle = preflight_failure(run.request, snapshot, desired, plan);
    match (by_guardrail, obstacle) {
        (Some(_), Some(obstacle)) if !snapshot.denied.is_empty() => Some(obstacle),
        (Some(failure), Some(obstacle)) => Failure::both::<(), ()>(Err(failure), Err(obstacle)).err(),
        (failure, obstacle) => failure.or(obstacle),
    }
}

/// The refusal by a guardrail, unless the run adds no permission. Reports what the judgement finds, and the waivers.
fn by_guardrail(run: &Run<'_>, snapshot: &Snapshot, desired: &Desired) -> Option<Failure> {
    if run.guard.guardrails.are_absent() {
        return None;
    }
    let roles = &snapshot.observed.cluster_roles;
    let rules_of = |name: &str| roles.iter().find(|(known, _)| known.as_str() == name)?.1.as_deref();
    let judgement = judge(&run.request.grants, &rules_of, Catalog::embedded(), snapshot.release());
    let verdict = run.guard.verdict(&judgement);
    for finding in judgement.findings.into_iter().chain(verdict.findings) {
        run.report.finding_once(finding); // this may be the second attempt
    }
    run.report.waivers(verdict.waivers);
    verdict.refusal.filter(|_| widens(run.request, desired, &snapshot.observed))
}
