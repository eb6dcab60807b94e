//! verify: tests whether an existing credential works.

use crate::{
    cli::VerifyOptions,
    command::{announce, until_stopped},
    diagnostics::error::Failure,
    env::Environment,
    input::{documents, request},
    report::Report,
    run,
};

/// Runs the command.
pub(crate) async fn run(options: &VerifyOptions, environment: &Environment, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::credential(options, environment);
    let (credential, remarks) =
        request::credential(&inputs, options.expected.has_params(), findings).map_err(Failure::input)?;
    let timeout = request::timeout_or_default(options.timeout_seconds);
    let budget = announce(report, None, &credential.connection, None, timeout, remarks);
    let work = run::verify(&credential, budget, report);
    until_stopped("verify", false, report, work).await?;
    report.done("the credential works");
    Ok(())
}
