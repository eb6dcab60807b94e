//! check: validates params offline, as a provision does before it contacts the cluster, and judges their rules: those that
//! match nothing that Kubernetes itself serves, and those that allow more than they say.

use std::{collections::HashSet, path::Path};

use crate::{
    command::{tell, today},
    diagnostics::{
        error::Failure,
        finding::{self, Finding, Severity},
    },
    input::{documents, request},
    k8s::{grant::RequestedRole, name::InstanceName},
    plan::{guardrails::Guard, judgement::judge},
    rbac::{Catalog, default_cluster_role},
    report::Report,
};

/// Runs the command.
pub(crate) fn run(params: &Path, max_risk: Option<Severity>, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::params(params, None);
    let grants = request::readable_grants(&inputs);
    let judgement = judge(&grants, &|name| default_cluster_role(name), Catalog::embedded(), None);
    let (checked, remarks) = match request::check(&inputs, findings) {
        Ok(parsed) => parsed,
        Err(findings) => return Err(Failure::input(with_judged(findings, judgement.findings))),
    };
    let guard = Guard { guardrails: checked.guardrails.limited_to(max_risk), today: today() };
    let verdict = guard.verdict(&judgement);
    report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
    let mut findings = with_judged(remarks, judgement.findings);
    findings.extend(verdict.findings);
    if guard.guardrails.limit_risks() {
        findings.extend(grants.requested_roles().iter().filter_map(unjudged));
    }
    tell(report, findings);
    report.waivers(verdict.waivers);
    verdict.refusal.map_or(Ok(()), Err)?;
    report.done("the params are valid");
    Ok(())
}

/// The finding about a ClusterRole that no limit on risks can be applied to without a server.
fn unjudged(role: &RequestedRole) -> Option<Finding> {
    let name = role.name.as_str();
    default_cluster_role(name).is_none().then(|| {
        let text = format!(
            "the rules of ClusterRole {name} are unknown without a cluster, so no max_risk applies to them here"
        );
        let help = "run plan: it reads the ClusterRole from the cluster, and applies every guardrail";
        Finding::remark(finding::Code::ClusterRoleUnverified, text).at(format!("{}/name", role.pointer)).help(help)
    })
}

/// Adds the findings about the rules. A dead element that the schema refuses is not reported twice.
fn with_judged(mut findings: Vec<Finding>, judged: Vec<Finding>) -> Vec<Finding> {
    let refused: HashSet<Option<String>> =
        findings.iter().filter(|finding| finding.blocking).map(|finding| finding.pointer.clone()).collect();
    findings.extend(judged.into_iter().filter(|it| it.code.is_risk() || !refused.contains(&it.pointer)));
    findings
}
