//! kubeconfig: converts a credential file to a kubeconfig.

use std::path::Path;

use crate::{
    command::not_printed,
    credential::kubeconfig,
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    input::{documents, request},
    k8s::name::Namespace,
    report::Report,
};

/// Runs the command.
pub(crate) fn run(artifact: &Path, namespace: Option<&str>, report: &Report) -> Result<(), Failure> {
    let namespace = namespace.map(Namespace::parse).transpose().map_err(|problem| {
        Failure::input(vec![Finding::blocking(finding::Code::Schema, "", format!("--namespace: {problem}"))])
    })?;
    let document = documents::document(artifact).map_err(Failure::input)?;
    let (connection, _) = request::connection::parse(&document, None).map_err(Failure::input)?;
    let text = kubeconfig::render(&document, connection, namespace.as_ref()).map_err(Failure::input)?;
    report.write_stdout(&text).map_err(|cause| not_printed("writing the kubeconfig", &cause))
}
