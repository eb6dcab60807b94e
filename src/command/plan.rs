//! plan: what a provision would change.

use crate::{
    cli::RunOptions,
    command::{announce, today, until_stopped},
    diagnostics::error::Failure,
    env::Environment,
    input::{
        documents::{self, Strictness},
        request,
    },
    plan::guardrails::Guard,
    report::Report,
    run::{self, Run},
};

/// Runs the command; true if a provision would change something.
pub(crate) async fn run(options: &RunOptions, environment: &Environment, report: &Report) -> Result<bool, Failure> {
    let (inputs, findings) = documents::load(&options.source, Strictness::Strict, environment);
    let (input, remarks) =
        request::provision(&inputs, options.publish, options.timeout_seconds, findings).map_err(Failure::input)?;
    let request = &input.request;
    let guard = Guard { guardrails: input.guardrails.limited_to(options.max_risk), today: today() };
    let budget = announce(report, Some(&request.instance), &request.connection, None, input.timeout, remarks);
    let has_changes = until_stopped("plan", true, report, async {
        let run = Run::connect(request, budget, report).await?.guarded(guard);
        run::plan(&run).await
    })
    .await;
    match has_changes {
        Ok(_) => report.done_planning(),
        Err(_) => report.failed_planning(),
    }
    has_changes
}
