//! kubeconfig: an artifact as a kubeconfig.

use std::path::Path;

use super::not_printed;
use crate::{
    error::Failure,
    finding::{self, Finding},
    inputs, kubeconfig,
    name::Namespace,
    report::Report,
};

/// Runs the command.
pub fn run(artifact: &Path, namespace: Option<&str>, report: &Report) -> Result<(), Failure> {
    let namespace = namespace.map(Namespace::parse).transpose().map_err(|problem| {
        Failure::input(vec![Finding::blocking(finding::Code::Schema, "", format!("--namespace: {problem}"))])
    })?;
    let document = inputs::document(artifact).map_err(Failure::input)?;
    let text = kubeconfig::render(&document, namespace.as_ref()).map_err(Failure::input)?;
    report.hand_out(&text).map_err(|cause| not_printed("writing the kubeconfig", &cause))
}
