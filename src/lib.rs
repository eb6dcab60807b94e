//! k8s-token: turns a namespace, rules and a cluster connection into a proved Kubernetes credential, and takes it
//! back.
//!
//! The files are the data flow, in this order; a pure one does no I/O and knows no clock:
//!
//! ```text
//! argv, environment, documents   cli, inputs       the only readers of disk and environment
//!   -> Request                   request, schema   pure: nothing invalid exists past here
//!   -> Desired                   desired           pure, infallible
//!   -> Observed                  cluster           the only file that names kube's Client
//!   -> Plan                      plan, rbac        pure
//!   -> applied, token            cluster
//!   -> proved                    credential        pure judgement
//!   -> Artifact                  artifact          pure
//!   -> published                 publish, output   the platform, a file
//! the sequences                  run
//! all that is printed            report
//! ```

#![warn(clippy::disallowed_methods)]

mod artifact;
mod budget;
mod claims;
mod cli;
mod cluster;
mod connection;
mod credential;
mod defaults;
mod desired;
pub mod error;
mod fetched;
pub mod finding;
mod grant;
mod host;
mod inputs;
mod inventory;
#[doc(hidden)]
pub mod judge;
mod kubeconfig;
mod login;
mod manual;
mod name;
mod names;
mod object;
mod observed;
mod original;
mod output;
mod ownership;
mod patience;
mod pem_blocks;
mod permissions;
mod plan;
mod proxy;
mod publish;
pub mod rbac;
mod record;
mod report;
mod request;
mod retry;
mod run;
mod schema;
pub mod secret;
mod text;
mod tls;
mod token_slots;
mod transport;
mod tunnel;
mod watched;
mod x509;

use std::{ffi::OsString, io::Write, path::Path};

use artifact::Artifact;
use budget::Budget;
use cli::{Action, Environment, Invocation, Refusal, RunOptions, Target, VerifyOptions};
use error::{Code, Exit, Failure};
use finding::Finding;
use inputs::Inputs;
use name::{InstanceName, Namespace};
use output::OutputFile;
use patience::Patience;
use report::Report;
use request::{Request, Terms};
use run::Run;

/// Runs the program: parses, does it, prints, and says how it ended; `terminal` is whether the log goes to one.
pub async fn main(
    arguments: impl IntoIterator<Item = OsString>,
    out: Box<dyn Write>,
    log: Box<dyn Write>,
    terminal: bool,
) -> Exit {
    let environment = Environment::read();
    let report = Report::new(out, log, environment.look(terminal));
    // No message may hold the platform's token, whatever comes before that is needed.
    environment.platform_token().iter().for_each(|token| report.redactor().learn_secret(token));
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    cli::tokens(&arguments).for_each(|token| report.redactor().learn_secret(&token));
    match cli::parse(arguments.clone(), &environment) {
        Ok(Invocation::Run(options)) => execute(&options, &environment, &report).await,
        Ok(Invocation::Permissions { params, name }) => {
            finish(&report, false, print_permissions(params.as_deref(), name, &report))
        }
        Ok(Invocation::Check { params, json }) => {
            report.begin("check");
            finish(&report, json, check(inputs::params(&params, None), &report))
        }
        Ok(Invocation::Verify(options)) => {
            report.begin("verify");
            finish(&report, options.json, verify(&options, &environment, &report).await)
        }
        Ok(Invocation::Kubeconfig { artifact, namespace }) => {
            finish(&report, false, print_kubeconfig(&artifact, namespace.as_deref(), &report))
        }
        Ok(Invocation::Print(text)) => {
            let printed = report.hand_out(&text);
            finish(&report, false, printed.map_err(|cause| unwritten("printing", &cause)))
        }
        Err(Refusal::Answer(text)) => {
            report.text(&text, true);
            Exit::Done
        }
        Err(Refusal::Usage(text)) => {
            cli::possible_secrets(&arguments).for_each(|secret| report.redactor().learn_secret(&secret));
            report.text(&text, false);
            Exit::Usage
        }
        Err(Refusal::Failure(failure)) => finish(&report, false, Err(failure)),
    }
}

async fn execute(options: &RunOptions, environment: &Environment, report: &Report) -> Exit {
    report.begin(options.action.as_str());
    let result = match prepare(options, environment, report) {
        Ok((request, output, budget)) => {
            let run = Run::new(&request, budget, report);
            tokio::select! {
                result = work(options, &run, output) => result,
                never = report.progress() => match never {},
                signal = terminated() => {
                    let failure = Failure::new(Code::Terminated, options.action.as_str(), format!("stopped by {signal}"));
                    Err(Failure { unsettled: true, ..failure })
                }
            }
        }
        Err(failure) => Err(failure),
    };
    let changes = matches!(result, Ok(true)) && options.detailed_exitcode;
    match finish(report, options.json, result.map(drop)) {
        Exit::Done if changes => Exit::Changes,
        exit => exit,
    }
}

/// Reads, parses, and proves that the output can be written: all that is done before the first packet.
fn prepare(
    options: &RunOptions,
    environment: &Environment,
    report: &Report,
) -> Result<(Request, Option<OutputFile>, Budget), Failure> {
    let read = inputs::load(&options.source, options.action, environment);
    let terms = Terms { action: options.action, publish: options.publish, timeout_seconds: options.timeout_seconds };
    let (request, budget) = accept(read, &terms, report)?;
    let output = match &options.output {
        Some(Target::File(path)) => Some(OutputFile::prepare(path).map_err(|cause| {
            Failure::new(Code::OutputNotWritable, "preparing the output", cause.to_string())
                .on(path.display().to_string())
        })?),
        _ => None,
    };
    Ok((request, output, budget))
}

/// Parses what was read, and tells what there is to tell about it.
fn accept(
    (inputs, findings): (Inputs, Vec<Finding>),
    terms: &Terms,
    report: &Report,
) -> Result<(Request, Budget), Failure> {
    let (request, findings) = request::parse(&inputs, terms, findings);
    let Some(request) = request else { return Err(Failure::input(findings)) };
    for token in request.tokens() {
        report.learn(token);
    }
    for password in request.passwords() {
        report.redactor().learn_secret(password);
    }
    let budget = Budget::new(request.timeout);
    report.at(request.connection.server.as_str(), &budget);
    report.about(Some(request.name.as_str()), request.namespace.as_str());
    for (target, route) in request.routes() {
        if let Some(text) = route.told(&target) {
            report.step("proxy", &text, None);
        }
    }
    for finding in finding::condensed(findings) {
        report.finding(finding);
    }
    Ok((request, budget))
}

/// True when a plan has changes.
async fn work(options: &RunOptions, run: &Run<'_>, output: Option<OutputFile>) -> Result<bool, Failure> {
    match options.action {
        Action::Plan => {
            let changes = run::plan(run).await?;
            tell_limits(run);
            run.report.done(if changes { "planned: there are changes," } else { "planned: nothing to change," });
            Ok(changes)
        }
        Action::Provision => {
            let deliver = |artifact: &Artifact| {
                let written = match (output, &options.output) {
                    (Some(file), _) => file.commit(&artifact.text()),
                    (None, Some(Target::Stdout)) => run.report.hand_out(&artifact.text()),
                    _ => Ok(()),
                };
                written.map_err(|cause| unwritten("writing the artifact", &cause))
            };
            run::provision(run, deliver).await?;
            let kept = options.output.is_none() && run.request.platform.is_none();
            if !kept {
                tell_limits(run);
            }
            run.report.done(if kept {
                "the credential is proved, and in the cluster only (no --output),"
            } else {
                "the credential is proved and handed out,"
            });
            Ok(false)
        }
        Action::Decommission => {
            let found = run::decommission(run).await?;
            run.report.done(if found { "the credential is gone," } else { "nothing was left of the credential," });
            Ok(false)
        }
    }
}

/// What the holder of the artifact has to know of its address.
fn tell_limits(run: &Run<'_>) {
    run.request.connection.limits().into_iter().for_each(|finding| run.report.finding(finding));
}

fn print_permissions(params: Option<&Path>, name: Option<String>, report: &Report) -> Result<(), Failure> {
    let text = if let Some(path) = params {
        let (inputs, findings) = inputs::params(path, name);
        let (params, findings) = request::check(&inputs, findings);
        let Some(params) = params else { return Err(Failure::input(findings)) };
        for finding in finding::condensed(findings) {
            report.finding(finding);
        }
        permissions::render(Some((&params.namespace, &params.grants)), params.name.as_ref())
    } else {
        let name = name.as_deref().map(InstanceName::parse).transpose();
        let refused = |problem| Failure::input(vec![Finding::blocking("name", "", format!("--name: {problem}"))]);
        permissions::render(None, name.map_err(refused)?.as_ref())
    };
    report.hand_out(&text).map_err(|cause| unwritten("printing", &cause))
}

/// Judges params alone, with nobody asked.
fn check((inputs, findings): (Inputs, Vec<Finding>), report: &Report) -> Result<(), Failure> {
    let (params, findings) = request::check(&inputs, findings);
    let Some(params) = params else { return Err(Failure::input(findings)) };
    report.about(params.name.as_ref().map(InstanceName::as_str), params.namespace.as_str());
    for finding in finding::condensed(findings) {
        report.finding(finding);
    }
    report.done("the params are sound,");
    Ok(())
}

/// Proves a credential that somebody holds.
async fn verify(options: &VerifyOptions, environment: &Environment, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = inputs::credential(options, environment);
    let (credential, findings) = request::credential(&inputs, options.params.is_some(), findings);
    let Some(credential) = credential else { return Err(Failure::input(findings)) };
    report.learn(&credential.token);
    if let Some(password) = credential.password() {
        report.redactor().learn_secret(password);
    }
    let budget = Budget::new(request::timeout_or(options.timeout_seconds));
    report.at(credential.connection.server.as_str(), &budget);
    if let Some(text) = credential.connection.route.told(credential.connection.server.as_str()) {
        report.step("proxy", &text, None);
    }
    for finding in finding::condensed(findings) {
        report.finding(finding);
    }
    tokio::select! {
        result = run::verify(&credential, Patience { budget, report }) => result?,
        never = report.progress() => match never {},
        signal = terminated() => return Err(Failure::new(Code::Terminated, "verify", format!("stopped by {signal}"))),
    }
    report.done("the credential works,");
    Ok(())
}

fn print_kubeconfig(artifact: &Path, namespace: Option<&str>, report: &Report) -> Result<(), Failure> {
    let namespace = namespace
        .map(Namespace::parse)
        .transpose()
        .map_err(|problem| Failure::input(vec![Finding::blocking("schema", "", format!("--namespace: {problem}"))]))?;
    let document = inputs::document(artifact).map_err(Failure::input)?;
    let text = kubeconfig::render(&document, namespace.as_ref()).map_err(Failure::input)?;
    report.hand_out(&text).map_err(|cause| unwritten("writing the kubeconfig", &cause))
}

fn finish(report: &Report, json: bool, result: Result<(), Failure>) -> Exit {
    let mut exit = Exit::Done;
    if let Err(failure) = result {
        exit = failure.code.exit();
        report.failure(failure);
    }
    if json && let Err(cause) = report.document() {
        let failure = unwritten("printing the document", &cause);
        if exit == Exit::Done {
            exit = failure.code.exit();
        }
        report.failure(failure);
    }
    exit
}

fn unwritten(doing: &str, cause: &std::io::Error) -> Failure {
    Failure::new(Code::OutputFailed, doing, cause.to_string())
}

/// Resolves when the process is asked to stop, by the platform or by a person at the keyboard.
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
