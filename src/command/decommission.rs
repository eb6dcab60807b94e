//! decommission: deletes the credential and verifies that its token is rejected.

use crate::{
    cli::RunOptions,
    command::{announce, until_stopped},
    diagnostics::error::Failure,
    env::Environment,
    input::{
        documents::{self, Strictness},
        request,
    },
    report::Report,
    run,
};

/// Runs the command.
pub(crate) async fn run(options: &RunOptions, environment: &Environment, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::load(&options.source, Strictness::OnlyWhatLocatesTheInstance, environment);
    let (input, remarks) =
        request::decommission(&inputs, options.publish, options.timeout_seconds, findings).map_err(Failure::input)?;
    let (request, platform) = (&input.request, input.platform.as_ref());
    let budget = announce(report, Some(&request.instance), &request.connection, platform, input.timeout, remarks);
    let work = run::decommission(request, platform, budget, report);
    let found = until_stopped("decommission", true, report, work).await?;
    report.done(if found {
        "the credential is deleted"
    } else {
        "nothing to delete: no object of the credential was found"
    });
    Ok(())
}
