//! The command line: the definition of all commands, and its parsed form, an [`Invocation`]. Without arguments the
//! environment of the platform is parsed. Pure.

mod manual;
mod params;

pub(crate) use params::{Entry, ParamsContent, ParamsSource};

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use params::ParamsArgs;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    diagnostics::{
        error::{Code, Failure},
        finding::Severity,
        text::{presentable, sanitize},
    },
    env::{self, Environment},
};

// The description in the help is that of Cargo.toml.
#[derive(Parser)]
#[command(
    name = "k8s-token",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Without a command, k8s-token runs as a Massdriver provisioner: the action comes from \
                  MASSDRIVER_DEPLOYMENT_ACTION, and the documents from the working directory.\n\n\
                  Examples:\n  \
                  k8s-token plan --params params.json --name alice\n  \
                  k8s-token provision --params params.json --name alice --output alice.json\n  \
                  k8s-token decommission --params params.json --name alice\n\n\
                  Exit status:\n  \
                  0    done; for plan: a provision would succeed\n  \
                  1    failed for any other reason\n  \
                  2    plan --detailed-exitcode: there are changes\n  \
                  64   wrong command line, or unknown action\n  \
                  65   invalid input, found before contacting the cluster\n  \
                  69   the cluster or Massdriver cannot be used, or the login failed\n  \
                  73   an object with the required name belongs to someone else\n  \
                  75   not possible now: namespace terminating, quota, another run\n  \
                  76   the credential failed its test\n  \
                  77   the parent credential lacks permissions\n  \
                  78   a guardrail refuses the rules\n  \
                  143  stopped by SIGTERM or SIGINT\n\n\
                  Environment:\n  \
                  KUBECONFIG, HOME       where a command looks for a kubeconfig\n  \
                  HTTPS_PROXY, NO_PROXY  proxy for the cluster and Massdriver; also HTTP_PROXY\n  \
                  SSL_CERT_FILE          system CAs, used if no other CA is given; also SSL_CERT_DIR\n  \
                  NO_COLOR               a log without colours\n  \
                  MASSDRIVER_*           action, URL and login of a Massdriver deployment"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The examples of a command, at the end of its help.
macro_rules! examples {
    ($($line:literal),+ $(,)?) => {
        concat!("Examples:", $("\n  ", $line),+)
    };
}

/// The three forms of a command line with input; clap's own usage line shows none of them.
macro_rules! usage {
    ($command:literal) => {
        concat!(
            "k8s-token ",
            $command,
            " --params <FILE> [--name <NAME>] [OPTIONS]\n       ",
            "k8s-token ",
            $command,
            " --allow <VERBS RESOURCES> --namespace <NS> --name <NAME> [OPTIONS]\n       ",
            "k8s-token ",
            $command,
            " --instance-dir <DIR> [OPTIONS]"
        )
    };
}

#[derive(Subcommand)]
enum Command {
    /// Show what provision would change; changes nothing
    #[command(override_usage = usage!("plan"), after_help = examples![
        "k8s-token plan --params params.json --name alice",
        "k8s-token plan --allow 'get,list pods,deployments.apps' --namespace team-a --name alice",
        "k8s-token plan --params params.json --name alice --detailed-exitcode --json > plan.json",
    ])]
    Plan {
        #[command(flatten)]
        input: InputArgs,
        /// Exit with 2 if there are changes
        #[arg(long)]
        detailed_exitcode: bool,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Create or update the credential, test it, and write or publish it
    #[command(override_usage = usage!("provision"), after_help = examples![
        "k8s-token provision --params params.json --name alice --output alice.json",
        "k8s-token provision --params params.json --name alice --context prod --output alice.json",
    ])]
    Provision {
        #[command(flatten)]
        input: InputArgs,
        /// Write the credential file here, with mode 0600; - for stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Also publish the credential to Massdriver
        #[arg(long)]
        publish: bool,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Delete the credential and verify that its token is rejected
    #[command(override_usage = usage!("decommission"), after_help = examples![
        "k8s-token decommission --params params.json --name alice",
        "k8s-token decommission --namespace team-a --name alice",
    ])]
    Decommission {
        #[command(flatten)]
        input: InputArgs,
        /// Also delete Massdriver's record of the credential
        #[arg(long)]
        publish: bool,
    },
    /// Print, as YAML, the minimum permissions that your own credential needs; without params, for any rules
    #[command(after_help = examples![
        "k8s-token permissions --params params.json --name alice > roles.yaml",
        "kubectl apply -f roles.yaml",
    ])]
    Permissions {
        #[command(flatten)]
        params: ParamsArgs,
        /// Name of the instance; limits the Roles to its objects
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Validate params offline, by default those on stdin, and report the risks of their rules
    #[command(after_help = examples![
        "k8s-token check params.json",
        "k8s-token check params/*.json --sarif > k8s-token.sarif",
        "k8s-token check < params.json",
        "kubectl get role NAME -o yaml | k8s-token check",
    ])]
    Check {
        /// Params, as JSON or YAML, or Roles and ClusterRoles, one document in each file; - for stdin
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        params: ParamsArgs,
        #[command(flatten)]
        limit: LimitArgs,
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
        /// Print the findings in SARIF on stdout, for code scanning
        #[arg(long, conflicts_with = "json")]
        sarif: bool,
    },
    /// Show what params, or an existing credential, allow, as a table
    #[command(after_help = examples![
        "k8s-token explain --params params.json",
        "k8s-token explain --cluster-role edit --namespace team-a --context prod",
        "k8s-token explain alice.json",
    ])]
    Explain {
        /// A credential file, or a kubeconfig with the token of a ServiceAccount: what it allows now; - for stdin
        #[arg(value_name = "FILE", conflicts_with_all = ["params", "allow", "cluster_role", "preset", "live", "connection", "kubeconfig", "context", "tls_server_name", "instance_dir"])]
        artifact: Option<PathBuf>,
        #[command(flatten)]
        params: ParamsArgs,
        /// Ask the cluster what it serves and what the ClusterRoles contain; implied by the options that select a cluster
        #[arg(long)]
        live: bool,
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Read the params, and with --live the cluster, from a directory in Massdriver's layout
        #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "namespace", "allow", "cluster_role", "preset", "connection", "kubeconfig", "context", "tls_server_name"])]
        instance_dir: Option<PathBuf>,
        /// Time limit for the whole run, in seconds [default: 180]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: Option<u64>,
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Test whether an existing credential works, and has every permission in the params
    #[command(after_help = examples![
        "k8s-token verify alice.json",
        "k8s-token verify alice.kubeconfig --params params.json --name alice",
    ])]
    Verify {
        /// A credential file, or a kubeconfig with the token of a ServiceAccount; - for stdin
        #[arg(value_name = "FILE")]
        artifact: PathBuf,
        #[command(flatten)]
        params: ParamsArgs,
        /// Fail unless the credential belongs to the instance with this name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Read namespace, params and name from a directory in Massdriver's layout
        #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "namespace", "allow", "cluster_role", "preset", "name"])]
        instance_dir: Option<PathBuf>,
        /// Time limit for the whole run, in seconds [default: 180]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: Option<u64>,
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Convert a credential file to a kubeconfig
    #[command(after_help = examples![
        "k8s-token kubeconfig alice.json > alice.kubeconfig",
        "k8s-token kubeconfig alice.json --namespace team-b > alice.kubeconfig",
    ])]
    Kubeconfig {
        /// The credential file; - for stdin
        #[arg(value_name = "FILE")]
        artifact: PathBuf,
        /// Namespace of the context [default: the one of the credential]
        #[arg(long, value_name = "NS")]
        namespace: Option<String>,
    },
    /// Print a preset as params; without a name, the names of all presets
    #[command(after_help = examples![
        "k8s-token preset",
        "k8s-token preset Read-only > params.json",
    ])]
    Preset {
        /// The preset
        #[arg(value_name = "NAME", value_parser = params::names_of_presets())]
        name: Option<String>,
    },
    /// Print a completion script for your shell
    #[command(after_help = examples![
        "k8s-token completions bash > ~/.local/share/bash-completion/completions/k8s-token",
        "k8s-token completions fish > ~/.config/fish/completions/k8s-token.fish",
    ])]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    #[command(after_help = examples![
        "k8s-token man > ~/.local/share/man/man1/k8s-token.1",
        "man k8s-token",
    ])]
    Man,
}

#[derive(Args)]
struct InputArgs {
    #[command(flatten)]
    params: ParamsArgs,
    /// Name of the instance; its objects are called NAME-token
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Read all input from a directory in Massdriver's layout, instead of the options above
    #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "namespace", "allow", "cluster_role", "preset", "name", "connection", "kubeconfig", "context", "tls_server_name"])]
    instance_dir: Option<PathBuf>,
    /// Time limit for the whole run, in seconds [default: 180]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct LimitArgs {
    /// Refuse rules and ClusterRoles with a risk above this level (exit 78)
    #[arg(long, value_name = "LEVEL", value_parser = levels())]
    max_risk: Option<Severity>,
}

fn levels() -> impl TypedValueParser<Value = Severity> {
    let names = PossibleValuesParser::new(Severity::LIMITS.map(Severity::as_str));
    names.try_map(|name| Severity::limit(&name).ok_or("is not a level"))
}

/// The usage error of two documents on standard input.
const STDIN_TWICE: &str = "error: --params - and --connection - both read stdin: put one of them into a file\n";

/// The options that select a cluster.
#[derive(Args)]
struct ClusterArgs {
    /// A kubernetes-cluster document with server, CA and token, or a dependencies.json that contains one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    connection: Option<PathBuf>,
    /// Kubeconfig to use [default: as kubectl: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Name to expect in the server's certificate, instead of the host of its URL
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
}

impl ClusterArgs {
    /// Whether one of them is given.
    const fn are_given(&self) -> bool {
        self.connection.is_some()
            || self.kubeconfig.is_some()
            || self.context.is_some()
            || self.tls_server_name.is_some()
    }

    /// The source of a run with these params.
    fn source(self, params: ParamsSource, name: Option<String>) -> Source {
        let cluster = match self.connection {
            Some(path) => ClusterSource::Document(path),
            None => ClusterSource::Kubeconfig { path: self.kubeconfig, context: self.context },
        };
        Source::Files { params, name, cluster, tls_server_name: self.tls_server_name }
    }
}

/// The operation of a run against a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Show what would change.
    Plan,
    /// Create or update the credential.
    Provision,
    /// Delete the credential.
    Decommission,
}

impl Operation {
    /// Its name in the log and on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Provision => "provision",
            Self::Decommission => "decommission",
        }
    }
}

/// Whether the result is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publishing {
    /// No.
    Never,
    /// Yes, because the platform started this run: the default URL is the hosted service.
    AsProvisioner,
    /// Yes, by `--publish`: the URL is required.
    Asked,
}

impl Publishing {
    const fn asked(publish: bool) -> Self {
        if publish { Self::Asked } else { Self::Never }
    }
}

/// The source of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A directory in Massdriver's layout.
    Instance(PathBuf),
    /// Files named on the command line.
    Files {
        /// The params.
        params: ParamsSource,
        /// The name, instead of `md_metadata.name_prefix`.
        name: Option<String>,
        /// The cluster connection.
        cluster: ClusterSource,
        /// The server name to expect in its certificate, if given.
        tls_server_name: Option<String>,
    },
}

/// The source of the cluster connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClusterSource {
    /// A kubernetes-cluster or dependencies document.
    Document(PathBuf),
    /// A kubeconfig.
    Kubeconfig {
        /// The file; none means the one that kubectl would use.
        path: Option<PathBuf>,
        /// The context; none means the current one.
        context: Option<String>,
    },
}

/// The destination of the credential file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputTarget {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// A run against a cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunOptions {
    /// The operation.
    pub(crate) action: Operation,
    /// The source of the input.
    pub(crate) source: Source,
    /// Whether the result is published.
    pub(crate) publish: Publishing,
    /// The destination of the credential file, if any.
    pub(crate) output: Option<OutputTarget>,
    /// Whether to print one JSON document on stdout.
    pub(crate) json: bool,
    /// Whether `plan` exits with 2 if there are changes.
    pub(crate) detailed_exitcode: bool,
    /// The time limit of the run in seconds, if given on the command line.
    pub(crate) timeout_seconds: Option<u64>,
    /// The highest severity of a risk that is not refused, if given on the command line.
    pub(crate) max_risk: Option<Severity>,
}

/// The source of the properties that a credential has to have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// On the command line.
    Files {
        /// Params that it has to match, and the namespace that it has to belong to.
        params: ParamsSource,
        /// The instance that it has to belong to.
        name: Option<String>,
    },
    /// Params and name in a directory in Massdriver's layout.
    Instance(PathBuf),
}

impl Expected {
    /// Whether there are params that the credential has to match.
    pub(crate) fn has_params(&self) -> bool {
        match self {
            Self::Instance(_) => true,
            Self::Files { params, .. } => params.is_given(),
        }
    }
}

/// The options of verify.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VerifyOptions {
    /// The credential file or kubeconfig, `-` for stdin.
    pub(crate) artifact: PathBuf,
    /// Its expected properties.
    pub(crate) expected: Expected,
    /// The time limit of the run in seconds.
    pub(crate) timeout_seconds: Option<u64>,
    /// Whether to print one JSON document on stdout.
    pub(crate) json: bool,
}

/// What is explained.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A credential.
    Credential {
        /// The credential file or kubeconfig, `-` for stdin.
        artifact: PathBuf,
        /// A further namespace in which to ask.
        namespace: Option<String>,
    },
    /// Params.
    Params {
        /// Their source, and that of the cluster connection.
        source: Source,
        /// Whether the cluster is asked.
        live: bool,
    },
}

/// The options of explain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExplainOptions {
    /// What is explained.
    pub(crate) subject: Subject,
    /// The time limit of the run in seconds.
    pub(crate) timeout_seconds: Option<u64>,
    /// Whether to print one JSON document on stdout.
    pub(crate) json: bool,
}

/// The options of check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    /// The files named as arguments.
    pub(crate) files: Vec<ParamsSource>,
    /// The params of the other options: stdin if nothing else is named.
    pub(crate) params: Option<ParamsSource>,
    /// The highest severity of a risk that is not refused.
    pub(crate) max_risk: Option<Severity>,
    /// The document on stdout.
    pub(crate) document: Option<CheckDocument>,
}

impl CheckOptions {
    fn reads_stdin_twice(&self) -> bool {
        self.files.iter().chain(&self.params).filter(|source| source.is_stdin()).count() > 1
    }
}

/// The document that check prints on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckDocument {
    /// That of `--json`.
    Json,
    /// SARIF.
    Sarif,
}

/// A parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// plan, provision, decommission.
    Run(RunOptions),
    /// permissions.
    Permissions {
        /// The params; none means any rules.
        params: ParamsSource,
        /// The instance, if the Roles are limited to one.
        name: Option<String>,
    },
    /// check.
    Check(CheckOptions),
    /// explain.
    Explain(ExplainOptions),
    /// verify.
    Verify(VerifyOptions),
    /// kubeconfig.
    Kubeconfig {
        /// The credential file, `-` for stdin.
        artifact: PathBuf,
        /// The namespace of the context, if given.
        namespace: Option<String>,
    },
    /// A preset, a completion script or the manual page.
    Print(String),
}

impl Invocation {
    /// Whether rules and ClusterRoles come from more than one option.
    pub(crate) fn has_mixed_params(&self) -> bool {
        match self {
            Self::Run(RunOptions { source: Source::Files { params, .. }, .. })
            | Self::Permissions { params, .. }
            | Self::Check(CheckOptions { params: Some(params), .. })
            | Self::Explain(ExplainOptions {
                subject: Subject::Params { source: Source::Files { params, .. }, .. },
                ..
            })
            | Self::Verify(VerifyOptions { expected: Expected::Files { params, .. }, .. }) => params.is_mixed(),
            _ => false,
        }
    }
}

impl Source {
    /// Whether two documents would be read from standard input.
    fn reads_stdin_twice(&self) -> bool {
        let Self::Files { params, cluster: ClusterSource::Document(connection), .. } = self else { return false };
        params.is_stdin() && connection.as_os_str() == "-"
    }
}

/// The output instead of a run.
#[derive(Debug)]
pub(crate) enum ParseError {
    /// `--help` or `--version`: printed on stdout, exit 0.
    Answer(String),
    /// An invalid command line: printed on stderr, exit 64.
    Usage(String),
    /// An invalid environment.
    Failure(Failure),
}

/// The arguments that may be secrets, for the redactor of a usage error, which quotes arguments: each word, or value
/// after `=`, that is longer than a name would be. The value of `--allow` has several words.
pub(crate) fn possible_secrets(arguments: &[OsString]) -> impl Iterator<Item = SecretString> {
    let options = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    let values = arguments.iter().skip(1).zip(options).flat_map(|(argument, before)| {
        let word = argument.to_string_lossy().into_owned();
        let value = word.split_once('=').map(|(_, value)| value.to_owned());
        let allowed =
            if before == "--allow" { Some(&word) } else { value.as_ref().filter(|_| word.starts_with("--allow=")) };
        match allowed {
            Some(words) => words.split([' ', ',']).map(str::to_owned).collect::<Vec<_>>(),
            None => [Some(word), value].into_iter().flatten().collect(),
        }
    });
    values.filter(|value| !presentable(value)).map(SecretString::from)
}

/// The arguments that are certainly tokens, for the redactor of the whole run: a token in place of a file or a context
/// would be quoted in the error about it.
pub(crate) fn tokens(arguments: &[OsString]) -> impl Iterator<Item = SecretString> {
    possible_secrets(arguments).filter(|secret| is_token(secret.expose_secret()))
}

/// Whether a text is a JWT, or a token of OpenShift.
fn is_token(text: &str) -> bool {
    text.starts_with("sha256~") || (text.starts_with("eyJ") && text.split('.').count() == 3)
}

/// Whether a wrong command line contains `--json`.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let options = arguments.iter().skip(1).map(|argument| argument.to_string_lossy());
    options.take_while(|option| option != "--").any(|option| option == "--json" || option.starts_with("--json="))
}

/// The command of a wrong command line, if it supports `--json`.
pub(crate) fn named_command(arguments: &[OsString]) -> Option<&'static str> {
    const WITH_DOCUMENT: [&str; 6] = ["plan", "provision", "decommission", "check", "explain", "verify"];
    let named = arguments.get(1)?;
    WITH_DOCUMENT.into_iter().find(|command| named == command)
}

/// The first paragraph of clap's usage error, in one line: the problem without the usage.
pub(crate) fn first_paragraph(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let paragraph = lines.collect::<Vec<_>>().join(" ");
    paragraph.strip_prefix("error: ").map_or_else(|| paragraph.clone(), str::to_owned)
}

/// Parses the command line, or the platform's environment when there is none.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Invocation, ParseError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() < 2 {
        return as_provisioner(environment); // building the definition of all commands takes a million instructions
    }
    let cli = Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ParseError::Answer(error.render().to_string()),
        _ => ParseError::Usage(error.render().to_string()),
    })?;
    let options = match cli.command {
        None => return as_provisioner(environment),
        Some(Command::Permissions { params, name }) => {
            return Ok(Invocation::Permissions { params: said("permissions", params)?, name });
        }
        Some(Command::Check { files, params, limit, json, sarif }) => {
            let document = json.then_some(CheckDocument::Json).or_else(|| sarif.then_some(CheckDocument::Sarif));
            return check(files, said("check", params)?, limit.max_risk, document);
        }
        Some(Command::Explain { artifact, params, live, cluster, instance_dir, timeout, json }) => {
            let live = live || cluster.are_given();
            let subject = subject(artifact, said("explain", params)?, live, cluster, instance_dir)?;
            return Ok(Invocation::Explain(ExplainOptions { subject, timeout_seconds: timeout, json }));
        }
        Some(Command::Verify { artifact, params, name, instance_dir, timeout, json }) => {
            let params = said("verify", params)?;
            if artifact.as_os_str() == "-" && params.is_stdin() {
                let text = "error: the credential file and --params - both read stdin: put one of them into a file\n";
                return Err(ParseError::Usage(text.to_owned()));
            }
            let expected = match instance_dir {
                Some(directory) => Expected::Instance(directory),
                None => Expected::Files { params, name },
            };
            let options = VerifyOptions { artifact, expected, timeout_seconds: timeout, json };
            return Ok(Invocation::Verify(options));
        }
        Some(Command::Kubeconfig { artifact, namespace }) => {
            return Ok(Invocation::Kubeconfig { artifact, namespace });
        }
        Some(Command::Preset { name }) => return Ok(Invocation::Print(params::shown_preset(name.as_deref()))),
        Some(Command::Completions { shell }) => {
            return Ok(Invocation::Print(manual::completions(&mut Cli::command(), shell)));
        }
        Some(Command::Man) => return Ok(Invocation::Print(manual::page(Cli::command()))),
        Some(Command::Plan { input, detailed_exitcode, limit }) => {
            RunOptions { detailed_exitcode, max_risk: limit.max_risk, ..input.run(Operation::Plan)? }
        }
        Some(Command::Provision { input, output, publish, limit }) => {
            let output = output
                .map(|path| if path.as_os_str() == "-" { OutputTarget::Stdout } else { OutputTarget::File(path) });
            let publish = Publishing::asked(publish);
            RunOptions { publish, output, max_risk: limit.max_risk, ..input.run(Operation::Provision)? }
        }
        Some(Command::Decommission { input, publish }) => {
            RunOptions { publish: Publishing::asked(publish), ..input.run(Operation::Decommission)? }
        }
    };
    let refusal = if options.json && options.output == Some(OutputTarget::Stdout) {
        "error: --output - and --json both write to stdout: write the credential to a file\n"
    } else if options.source.reads_stdin_twice() {
        STDIN_TWICE
    } else {
        return Ok(Invocation::Run(options));
    };
    Err(ParseError::Usage(refusal.to_owned()))
}

/// The params that the options of a command say.
fn said(command: &str, params: ParamsArgs) -> Result<ParamsSource, ParseError> {
    params.source().map_err(|problem| usage_error(command, ErrorKind::ValueValidation, &problem))
}

/// A usage error of a command, as clap prints its own.
fn usage_error(command: &str, kind: ErrorKind, problem: &str) -> ParseError {
    let mut all = Cli::command();
    all.build();
    let error = match all.find_subcommand_mut(command) {
        Some(command) => command.error(kind, problem),
        None => all.error(kind, problem),
    };
    ParseError::Usage(error.render().to_string())
}

/// What explain is about.
fn subject(
    artifact: Option<PathBuf>,
    params: ParamsSource,
    live: bool,
    cluster: ClusterArgs,
    instance_dir: Option<PathBuf>,
) -> Result<Subject, ParseError> {
    let source = match (artifact, instance_dir) {
        (Some(artifact), _) => return Ok(Subject::Credential { artifact, namespace: params.namespace }),
        (None, Some(directory)) => Source::Instance(directory),
        (None, None) if params.is_given() => cluster.source(params, None),
        (None, None) => {
            let problem = "nothing to explain (expected a credential file, --params <FILE>, --allow, --cluster-role, \
                           --preset or --instance-dir)";
            return Err(usage_error("explain", ErrorKind::MissingRequiredArgument, problem));
        }
    };
    if live && source.reads_stdin_twice() {
        return Err(ParseError::Usage(STDIN_TWICE.to_owned()));
    }
    Ok(Subject::Params { source, live })
}

fn check(
    files: Vec<PathBuf>,
    params: ParamsSource,
    max_risk: Option<Severity>,
    document: Option<CheckDocument>,
) -> Result<Invocation, ParseError> {
    let namespace = params.namespace.clone();
    let file = |path| ParamsSource { content: ParamsContent::File(path), namespace: namespace.clone() };
    let params = match (params.is_given(), files.is_empty()) {
        (true, _) => Some(params),
        (false, true) => Some(file("-".into())),
        (false, false) => None,
    };
    let files = files.into_iter().map(file).collect();
    let options = CheckOptions { files, params, max_risk, document };
    if options.reads_stdin_twice() {
        let text = "error: stdin is named more than once: put all but one of its documents into files\n";
        return Err(ParseError::Usage(text.to_owned()));
    }
    Ok(Invocation::Check(options))
}

impl InputArgs {
    fn run(self, action: Operation) -> Result<RunOptions, ParseError> {
        let params = said(action.as_str(), self.params)?;
        // A decommission needs nothing but the namespace.
        let is_enough = params.is_given() || action == Operation::Decommission && params.namespace.is_some();
        if self.instance_dir.is_none() && !is_enough {
            let problem = "the params are missing (expected --params <FILE>, --allow, --cluster-role, --preset or \
                           --instance-dir; for a decommission, --namespace is enough)";
            return Err(usage_error(action.as_str(), ErrorKind::MissingRequiredArgument, problem));
        }
        let source = match self.instance_dir {
            Some(directory) => Source::Instance(directory),
            None => self.cluster.source(params, self.name),
        };
        Ok(RunOptions {
            action,
            source,
            publish: Publishing::Never,
            output: None,
            json: self.json,
            detailed_exitcode: false,
            timeout_seconds: self.timeout,
            max_risk: None,
        })
    }
}

fn as_provisioner(environment: &Environment) -> Result<Invocation, ParseError> {
    let action = match environment.get(env::ACTION) {
        None => return Err(ParseError::Usage(Cli::command().render_help().to_string())),
        Some("plan") => Operation::Plan,
        Some("provision") => Operation::Provision,
        Some("decommission") => Operation::Decommission,
        Some(other) => {
            let cause = if is_token(other) {
                format!("{} contains a token instead of an action", env::ACTION)
            } else {
                format!("{} contains the unknown action `{}`", env::ACTION, sanitize(other, 40))
            };
            return Err(ParseError::Failure(
                Failure::new(Code::Usage, "reading the environment", cause)
                    .state("nothing was changed")
                    .next("set MASSDRIVER_DEPLOYMENT_ACTION to plan, provision or decommission"),
            ));
        }
    };
    Ok(Invocation::Run(RunOptions {
        action,
        source: Source::Instance(PathBuf::from(".")),
        publish: if action == Operation::Plan { Publishing::Never } else { Publishing::AsProvisioner },
        output: None,
        json: false,
        detailed_exitcode: false,
        timeout_seconds: None,
        max_risk: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, action: Option<&str>) -> Result<Invocation, ParseError> {
        let environment = Environment::from_iter(action.map(|action| (env::ACTION, action.to_owned())));
        // What is between quotes is one argument.
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(index, part)| match index % 2 {
            0 => part.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>(),
            _ => vec![part],
        });
        parse(words.map(OsString::from), &environment)
    }

    #[test]
    fn cli_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_of_the_help_are_valid_command_lines() {
        for command in std::iter::once(&Cli::command()).chain(Cli::command().get_subcommands()) {
            let help = command.get_after_help().unwrap().to_string();
            let (_, examples) = help.split_once("Examples:\n").unwrap();
            let lines: Vec<&str> = examples.lines().take_while(|line| !line.is_empty()).collect();
            assert!((2..=4).contains(&lines.len()), "{examples}");
            for line in lines {
                let Some(at) = line.find("k8s-token ").filter(|at| !line[..*at].contains("man")) else { continue };
                let line = line[at..].split(['>', '<', '|']).next().unwrap().trim();
                assert!(parsed(line, None).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn no_arguments_select_provisioner_mode() {
        for name in ["k8s-token", "/usr/local/bin/entrypoint.sh"] {
            let Ok(Invocation::Run(options)) = parsed(name, Some("provision")) else { panic!("refused") };
            assert_eq!(options.action, Operation::Provision);
            assert_eq!(options.publish, Publishing::AsProvisioner);
            assert_eq!(options.source, Source::Instance(".".into()));
        }
    }

    #[test]
    fn no_arguments_and_no_action_show_help() {
        let Err(ParseError::Usage(text)) = parsed("k8s-token", None) else { panic!("accepted") };
        assert!(text.contains("Usage: k8s-token"), "{text}");
    }

    #[test]
    fn two_documents_on_stdout_are_refused() {
        let line = "k8s-token provision --params p --name n --json --output -";
        assert!(matches!(parsed(line, None), Err(ParseError::Usage(_))));
    }

    #[test]
    fn command_publishes_only_on_request() {
        let Ok(Invocation::Run(options)) = parsed("k8s-token provision --params p --name n", Some("plan")) else {
            panic!("refused")
        };
        assert_eq!(options.publish, Publishing::Never);
        assert_eq!(options.action, Operation::Provision);
    }
}
