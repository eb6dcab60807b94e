//! check: validates params offline, as a provision does before it contacts the cluster, and judges their rules by what
//! Kubernetes itself serves.

use std::{collections::HashSet, path::Path};

use crate::{
    command::tell,
    diagnostics::{error::Failure, finding::Finding},
    input::{documents, request},
    k8s::name::InstanceName,
    plan::dead_rules,
    rbac::Catalog,
    report::Report,
};

/// Runs the command.
pub(crate) fn run(params: &Path, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::params(params, None);
    let grants = request::readable_grants(&inputs);
    let dead = dead_rules::findings(grants.requested(), Catalog::embedded());
    let (checked, remarks) = match request::check(&inputs, findings) {
        Ok((checked, remarks)) => (checked, with_dead_rules(remarks, dead)),
        Err(findings) => return Err(Failure::input(with_dead_rules(findings, dead))),
    };
    report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
    tell(report, remarks);
    report.done("the params are valid");
    Ok(())
}

/// Adds dead rules to other findings, except those about an element that the schema refuses.
fn with_dead_rules(mut findings: Vec<Finding>, mut dead: Vec<Finding>) -> Vec<Finding> {
    let refused: HashSet<Option<&str>> =
        findings.iter().filter(|finding| finding.blocking).map(|finding| finding.pointer.as_deref()).collect();
    dead.retain(|finding| !refused.contains(&finding.pointer.as_deref()));
    findings.append(&mut dead);
    findings
}
