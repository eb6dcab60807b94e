//! The commands: each reads its input, reports findings about it before contacting the cluster, runs its sequence and
//! reports the result. A new command is a new file here and an arm of [`dispatch`].

mod check;
mod decommission;
mod explain;
mod kubeconfig;
mod permissions;
mod plan;
mod provision;
mod verify;

use std::{
    ffi::OsString,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, civil::Date, tz::Offset};

use crate::{
    budget::Budget,
    cli::{self, CheckDocument, Invocation, Operation, ParseError},
    diagnostics::{
        error::{Code, Exit, Failure},
        finding::{Finding, condensed},
    },
    endpoint::connection::Connection,
    env::Environment,
    input::{
        documents,
        request::{Instance, Platform},
    },
    report::Report,
};

/// Runs the command of the arguments, or that of the environment without arguments.
pub(crate) async fn dispatch(arguments: Vec<OsString>, environment: &Environment, report: &Report) -> Exit {
    // No message may contain these, even before they are used.
    environment.platform_token().iter().for_each(|token| report.redactor().register_secret(token));
    cli::tokens(&arguments).for_each(|token| report.redactor().register_secret(&token));
    match cli::parse(arguments.clone(), environment) {
        Ok(invocation) => perform(invocation, environment, report).await,
        Err(ParseError::Answer(text)) => {
            report.text(&text, true);
            Exit::Done
        }
        Err(ParseError::Usage(text)) => {
            cli::possible_secrets(&arguments).for_each(|secret| report.redactor().register_secret(&secret));
            report.text(&text, false);
            if cli::asks_for_json(&arguments) {
                report.usage(cli::named_command(&arguments), &cli::first_paragraph(&text));
                let _ = report.document(); // the exit code reports the failure nevertheless
            }
            Exit::Usage
        }
        Err(ParseError::Failure(failure)) => finish(report, false, Err(failure)),
    }
}

async fn perform(invocation: Invocation, environment: &Environment, report: &Report) -> Exit {
    report.show_sources(invocation.has_mixed_params());
    match invocation {
        Invocation::Run(options) => {
            report.begin(options.action.as_str());
            let result = match options.action {
                Operation::Plan => plan::run(&options, environment, report).await,
                Operation::Provision => provision::run(&options, environment, report).await.map(|()| false),
                Operation::Decommission => decommission::run(&options, environment, report).await.map(|()| false),
            };
            let has_changes = matches!(result, Ok(true)) && options.detailed_exitcode;
            match finish(report, options.json, result.map(drop)) {
                Exit::Done if has_changes => Exit::Changes,
                exit => exit,
            }
        }
        Invocation::Explain(options) => {
            report.begin("explain");
            finish(report, options.json, explain::run(&options, environment, report).await)
        }
        Invocation::Verify(options) => {
            report.begin("verify");
            finish(report, options.json, verify::run(&options, environment, report).await)
        }
        Invocation::Check(options) => {
            report.begin("check");
            let result = check::run(&options, report);
            match options.document {
                Some(CheckDocument::Sarif) => {
                    finish_with(report, |report| report.sarif(&documents::working_directory()), result)
                }
                document => finish(report, document.is_some(), result),
            }
        }
        Invocation::Permissions { params, name } => finish(report, false, permissions::run(&params, name, report)),
        Invocation::Kubeconfig { artifact, namespace } => {
            finish(report, false, kubeconfig::run(&artifact, namespace.as_deref(), report))
        }
        Invocation::Print(text) => {
            let printed = report.write_stdout(&text);
            finish(report, false, printed.map_err(|cause| not_printed("printing", &cause)))
        }
    }
}

/// Registers the secrets of the input with the redactor, starts the deadline, and reports server, instance, proxies and
/// findings.
pub(crate) fn announce(
    report: &Report,
    instance: Option<&Instance>,
    connection: &Connection,
    platform: Option<&Platform>,
    timeout: Duration,
    remarks: Vec<Finding>,
) -> Budget {
    let server = connection.server.as_str();
    let cluster = (server.to_owned(), &connection.route);
    let platform_route = platform.map(|platform| (platform.address(), &platform.route));
    let routes: Vec<_> = [cluster].into_iter().chain(platform_route).collect();
    for token in connection.login.token().into_iter().chain(platform.map(|platform| &platform.token)) {
        report.register(token);
    }
    for password in routes.iter().filter_map(|(_, route)| route.proxy()?.secret()) {
        report.redactor().register_secret(password);
    }
    let budget = Budget::new(timeout);
    report.server(server, &budget);
    if let Some(Instance { name, namespace, .. }) = instance {
        report.instance(Some(name.as_str()), namespace.as_str());
    }
    for text in routes.iter().filter_map(|(target, route)| route.told(target)) {
        report.step("proxy", &text, None);
    }
    tell(report, remarks);
    budget
}

/// Reports findings about the input; many of one kind as a few.
fn tell(report: &Report, remarks: Vec<Finding>) {
    for finding in condensed(remarks) {
        report.finding(finding);
    }
}

/// The result of `work`, unless a signal stops the process before; `writes` is whether that can leave a write whose
/// outcome is unknown.
async fn until_stopped<T>(
    doing: &str,
    writes: bool,
    report: &Report,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased; // the handlers are installed before the work begins
        signal = terminated() => {
            let failure = Failure::new(Code::Terminated, doing, format!("stopped by {signal}"));
            Err(Failure { outcome_unknown: writes, ..failure })
        }
        result = work => result,
        never = report.progress() => match never {},
    }
}

/// The current day in UTC; the last one of the calendar if the clock is beyond it, so that no waiver applies.
fn today() -> Date {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX);
    Offset::UTC.to_datetime(now).date()
}

/// The name of the signal that stops the process.
async fn terminated() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};

    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut stop), Ok(mut interrupt)) => tokio::select! {
            _ = stop.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        },
        _ => std::future::pending().await,
    }
}

/// Prints a failure and the document of `--json`; returns the exit status.
pub(crate) fn finish(report: &Report, json: bool, result: Result<(), Failure>) -> Exit {
    finish_with(report, |report| if json { report.document() } else { Ok(()) }, result)
}

/// Prints a failure and a document; returns the exit status.
fn finish_with(
    report: &Report,
    document: impl FnOnce(&Report) -> std::io::Result<()>,
    result: Result<(), Failure>,
) -> Exit {
    let mut exit = Exit::Done;
    if let Err(failure) = result {
        exit = failure.code.exit();
        report.failure(failure);
    }
    if let Err(cause) = document(report) {
        let failure = not_printed("printing the document", &cause);
        if exit == Exit::Done {
            exit = failure.code.exit();
        }
        report.failure(failure);
    }
    exit
}

/// The failure to write to standard output.
fn not_printed(doing: &str, cause: &std::io::Error) -> Failure {
    Failure::new(Code::OutputFailed, doing, cause.to_string())
        .next("redirect stdout to a file or a pipe that can be written, then run again")
}
