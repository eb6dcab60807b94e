//! The judgement of a plan or a provision, before the first write: by what the server serves, and by the rules that the
//! ClusterRoles have now.

use crate::{
    diagnostics::{error::Failure, finding::Finding},
    plan::{
        desired::Desired,
        diff::{Plan, widens},
        judgement::{Resources, judge_live},
        preflight::preflight_failure,
        snapshot::Snapshot,
    },
    run::Run,
};

/// What a run says about its rules before anything is tried.
pub(super) struct Judged {
    /// The findings about rules and waivers.
    pub(super) findings: Vec<Finding>,
    /// The reason to refuse the plan: a guardrail, or an obstacle.
    pub(super) refusal: Option<Failure>,
}

/// Judges the requested rules, and reports the waivers. A run that adds no permission is not stopped by a guardrail.
pub(super) fn judged(
    run: &Run<'_>,
    snapshot: &Snapshot,
    resources: &Resources<'_>,
    desired: &Desired,
    plan: &Plan,
) -> Judged {
    let roles = &snapshot.observed.cluster_roles;
    let rules_of = |name: &str| roles.iter().find(|(known, _)| known.as_str() == name)?.1.as_deref();
    let judgement = judge_live(&run.request.grants, &rules_of, resources, run.server_version());
    let verdict = run.guard.verdict(&judgement);
    run.report.waivers(verdict.waivers);
    let by_guardrail = verdict.refusal.filter(|_| widens(run.request, desired, &snapshot.observed));
    let obstacle = preflight_failure(run.request, snapshot, desired, plan);
    let refusal = match (by_guardrail, obstacle) {
        // Where the parent credential cannot read all that is asked for, a guardrail would judge what is not known.
        (Some(_), Some(obstacle)) if !snapshot.denied.is_empty() => Some(obstacle),
        (Some(failure), Some(obstacle)) => Failure::both::<(), ()>(Err(failure), Err(obstacle)).err(),
        (failure, obstacle) => failure.or(obstacle),
    };
    Judged { findings: judgement.findings.into_iter().chain(verdict.findings).collect(), refusal }
}
