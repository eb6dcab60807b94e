//! permissions: the minimum permissions of the parent credential, as YAML.

use std::path::Path;

use crate::{
    command::{not_printed, tell},
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    input::{documents, request},
    k8s::name::InstanceName,
    plan::parent_role,
    report::Report,
};

/// Runs the command: for these params, else for any in one namespace.
pub(crate) fn run(params: Option<&Path>, name: Option<String>, report: &Report) -> Result<(), Failure> {
    let text = if let Some(path) = params {
        let (inputs, findings) = documents::params(path, name);
        let (checked, remarks) = request::check(&inputs, findings).map_err(Failure::input)?;
        tell(report, remarks);
        parent_role::render(Some(&checked.params), checked.name.as_ref())
    } else {
        let name = name.as_deref().map(InstanceName::parse).transpose();
        let refused =
            |problem| Failure::input(vec![Finding::blocking(finding::Code::Name, "", format!("--name: {problem}"))]);
        parent_role::render(None, name.map_err(refused)?.as_ref())
    };
    report.write_stdout(&text).map_err(|cause| not_printed("printing", &cause))
}
