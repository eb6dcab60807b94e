//! permissions: the minimum permissions of the parent credential, as YAML.

use std::path::Path;

use super::{not_printed, tell};
use crate::{
    error::Failure,
    finding::{self, Finding},
    inputs,
    name::InstanceName,
    permissions,
    report::Report,
    request,
};

/// Runs the command: for these params, else for any in one namespace.
pub fn run(params: Option<&Path>, name: Option<String>, report: &Report) -> Result<(), Failure> {
    let text = if let Some(path) = params {
        let (inputs, findings) = inputs::params(path, name);
        let (checked, remarks) = request::check(&inputs, findings).map_err(Failure::input)?;
        tell(report, remarks);
        permissions::render(Some(&checked.params), checked.name.as_ref())
    } else {
        let name = name.as_deref().map(InstanceName::parse).transpose();
        let refused =
            |problem| Failure::input(vec![Finding::blocking(finding::Code::Name, "", format!("--name: {problem}"))]);
        permissions::render(None, name.map_err(refused)?.as_ref())
    };
    report.hand_out(&text).map_err(|cause| not_printed("printing", &cause))
}
