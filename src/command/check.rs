//! check: validates params offline, as a provision does before it contacts the cluster.

use std::path::Path;

use crate::{
    command::tell,
    diagnostics::error::Failure,
    input::{documents, request},
    k8s::name::InstanceName,
    report::Report,
};

/// Runs the command.
pub(crate) fn run(params: &Path, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::params(params, None);
    let (checked, remarks) = request::check(&inputs, findings).map_err(Failure::input)?;
    report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
    tell(report, remarks);
    report.done("the params are valid");
    Ok(())
}
