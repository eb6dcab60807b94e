//! check: validates params offline, as a provision does before it contacts the cluster, and judges the risk of their
//! rules.

use std::path::Path;

use crate::{
    command::tell,
    diagnostics::{error::Failure, finding::Finding},
    input::{documents, request},
    k8s::name::InstanceName,
    report::Report,
};

/// Runs the command.
pub(crate) fn run(params: &Path, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::params(params, None);
    let risks = request::risks(&inputs);
    let with_risks = |findings: Vec<Finding>| findings.into_iter().chain(risks).collect();
    let (checked, remarks) = match request::check(&inputs, findings) {
        Ok((checked, remarks)) => (checked, with_risks(remarks)),
        Err(problems) => return Err(Failure::input(with_risks(problems))),
    };
    report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
    tell(report, remarks);
    report.done("the params are valid");
    Ok(())
}
