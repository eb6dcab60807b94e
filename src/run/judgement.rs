//! The judgement of plan and provision: by what the server serves, and by the rules that the ClusterRoles have now.

use std::cmp::Reverse;

use crate::{
    diagnostics::{
        error::Failure,
        finding::{Finding, condensed},
    },
    plan::{desired::Desired, diff::additions, snapshot::Snapshot},
    run::Run,
};

/// The findings about rules and waivers, the worst first; the waivers are reported.
pub(super) fn findings(run: &Run<'_>) -> Vec<Finding> {
    let judgement = run.judgement();
    let mut verdict = run.guard.verdict(&judgement);
    let mut findings = judgement.findings;
    run.report.waivers(verdict.waivers);
    findings.append(&mut verdict.findings);
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

/// Reports the judgement at the end of a provision, if that could not be done before the first write: then the discovery
/// had not come. After a failure, only what is known is said.
pub(super) async fn report_late(run: &Run<'_>, has_failed: bool) {
    let is_observed = run.cluster_roles.get().is_some();
    if is_observed {
        run.resources.settle().await;
    }
    if is_observed && (run.resources.is_settled() || !has_failed) {
        report(run);
    }
}

/// Reports these findings, once.
pub(super) fn report(run: &Run<'_>) {
    for finding in condensed(findings(run)) {
        run.report.finding_once(finding);
    }
}

/// The reason to refuse a plan before anything is tried: a guardrail, or this obstacle. A run that adds nothing is not
/// stopped by a guardrail.
pub(super) fn refusal(
    run: &Run<'_>,
    snapshot: &Snapshot,
    desired: &Desired,
    obstacle: Option<Failure>,
) -> Option<Failure> {
    if !run.guard.guardrails.limit_risks() && !run.guard.guardrails.refuse_unknown() {
        return obstacle;
    }
    let adds = additions(run.request, desired, &snapshot.observed, run.resources.catalog());
    let by_guardrail = run.guard.refusal(&run.judgement(), adds);
    match (by_guardrail, obstacle) {
        // Where the parent credential cannot read all that is asked for, a guardrail would judge what is not known.
        (Some(_), Some(obstacle)) if !snapshot.denied.is_empty() => Some(obstacle),
        (Some(failure), Some(obstacle)) => Failure::both::<(), ()>(Err(failure), Err(obstacle)).err(),
        (failure, obstacle) => failure.or(obstacle),
    }
}
