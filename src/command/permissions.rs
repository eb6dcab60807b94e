//! permissions: the minimum permissions of the parent credential, as YAML.

use crate::{
    cli::ParamsSource,
    command::{not_printed, tell},
    diagnostics::error::Failure,
    input::{documents, request},
    plan::parent_role,
    report::Report,
};

/// Runs the command: for these params, else for any in one namespace.
pub(crate) fn run(params: &ParamsSource, name: Option<String>, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::params(params, name);
    let text = if params.is_given() {
        let (checked, remarks) = request::check(&inputs, findings).map_err(Failure::input)?;
        tell(report, remarks);
        parent_role::render(&checked.params, checked.name.as_ref())
    } else {
        let (name, namespace) = request::identity(&inputs).map_err(Failure::input)?;
        parent_role::render_any(name.as_ref(), namespace.as_ref())
    };
    report.write_stdout(&text).map_err(|cause| not_printed("printing", &cause))
}
