//! check: validates params offline, as a provision does before it contacts the cluster, and judges their rules: those that
//! match nothing that Kubernetes itself serves, and those that allow more than they say.

use std::collections::HashSet;

use crate::{
    cli::ParamsSource,
    command::tell,
    diagnostics::{error::Failure, finding::Finding},
    input::{documents, request},
    k8s::{grant::Grants, name::InstanceName},
    plan::judgement::judge,
    rbac::Catalog,
    report::Report,
};

/// Runs the command.
pub(crate) fn run(params: &ParamsSource, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::params(params, None);
    let grants = request::readable_grants(&inputs);
    let (checked, remarks) = match request::check(&inputs, findings) {
        Ok((checked, remarks)) => (checked, with_judged(remarks, &grants)),
        Err(findings) => return Err(Failure::input(with_judged(findings, &grants))),
    };
    report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
    tell(report, remarks);
    report.done("the params are valid");
    Ok(())
}

/// Adds the findings about the rules. A dead element that the schema refuses is not reported twice.
fn with_judged(mut findings: Vec<Finding>, grants: &Grants) -> Vec<Finding> {
    let refused: HashSet<Option<String>> =
        findings.iter().filter(|finding| finding.blocking).map(|finding| finding.pointer.clone()).collect();
    let judged = judge(grants, Catalog::embedded(), None).into_iter();
    findings.extend(judged.filter(|it| it.code.is_risk() || !refused.contains(&it.pointer)));
    findings
}
