//! The command line: the definition of all commands, and its parsed form, an [`Invocation`]. Without arguments the
//! environment of the platform is parsed. Pure.

mod manual;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    diagnostics::{
        error::{Code, Failure},
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

/// The two forms of a command line with input; clap's own usage line shows neither.
macro_rules! usage {
    ($command:literal) => {
        concat!(
            "k8s-token ",
            $command,
            " --params <FILE> [--name <NAME>] [OPTIONS]\n       ",
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
        "k8s-token plan --params params.json --name alice --detailed-exitcode --json > plan.json",
    ])]
    Plan {
        #[command(flatten)]
        input: InputArgs,
        /// Exit with 2 if there are changes
        #[arg(long)]
        detailed_exitcode: bool,
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
    },
    /// Delete the credential and verify that its token is rejected
    #[command(override_usage = usage!("decommission"), after_help = examples![
        "k8s-token decommission --params params.json --name alice",
        "echo '{\"namespace\": \"team-a\"}' | k8s-token decommission --params - --name alice",
    ])]
    Decommission {
        #[command(flatten)]
        input: InputArgs,
        /// Also delete Massdriver's record of the credential
        #[arg(long)]
        publish: bool,
    },
    /// Print, as YAML, the minimum permissions that your own credential needs
    #[command(after_help = examples![
        "k8s-token permissions --params params.json --name alice > roles.yaml",
        "kubectl apply -f roles.yaml",
    ])]
    Permissions {
        /// The params, for which to print permissions [default: any rules in one namespace]; - for stdin
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Name of the instance; limits the Roles to its objects
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Validate params offline, and report the risks of their rules
    #[command(after_help = examples![
        "k8s-token check params.json",
        "k8s-token check params/*.json --sarif > k8s-token.sarif",
        "k8s-token check < params.json",
    ])]
    Check {
        /// The params, one JSON document in each file; - for stdin [default: stdin]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The params, as in other commands; - for stdin
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
        /// Print the findings in SARIF on stdout, for code scanning
        #[arg(long, conflicts_with = "json")]
        sarif: bool,
    },
    /// Test whether an existing credential works
    #[command(after_help = examples![
        "k8s-token verify alice.json",
        "k8s-token verify alice.kubeconfig --params params.json --name alice",
    ])]
    Verify {
        /// A credential file, or a kubeconfig with the token of a ServiceAccount; - for stdin
        #[arg(value_name = "FILE")]
        artifact: PathBuf,
        /// Fail unless the credential has every permission in these params; - for stdin
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Fail unless the credential belongs to the instance with this name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Read params and name from a directory in Massdriver's layout
        #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "name"])]
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
    /// The params, one JSON document: namespace, rules, cluster_roles; - for stdin
    #[arg(long, value_name = "FILE", required_unless_present = "instance_dir")]
    params: Option<PathBuf>,
    /// Name of the instance; its objects are called NAME-token
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
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
    /// Read all input from a directory in Massdriver's layout, instead of the options above
    #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "name", "connection", "kubeconfig", "context", "tls_server_name"])]
    instance_dir: Option<PathBuf>,
    /// Time limit for the whole run, in seconds [default: 180]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
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
        /// The params, `-` for stdin.
        params: PathBuf,
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
}

/// The source of the properties that a credential has to have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// On the command line.
    Files {
        /// Params that it has to match, `-` for stdin.
        params: Option<PathBuf>,
        /// The instance that it has to belong to.
        name: Option<String>,
    },
    /// Params and name in a directory in Massdriver's layout.
    Instance(PathBuf),
}

impl Expected {
    /// Whether there are params that the credential has to match.
    pub(crate) const fn has_params(&self) -> bool {
        matches!(self, Self::Instance(_) | Self::Files { params: Some(_), .. })
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

/// The options of check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    /// The files named as arguments, `-` for stdin.
    pub(crate) files: Vec<PathBuf>,
    /// `--params`, `-` for stdin: the default if no file is named.
    pub(crate) params: Option<PathBuf>,
    /// The document on stdout.
    pub(crate) document: Option<CheckDocument>,
}

impl CheckOptions {
    fn reads_stdin_twice(&self) -> bool {
        self.files.iter().chain(&self.params).filter(|path| path.as_os_str() == "-").count() > 1
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
        /// The params, `-` for stdin; none means any rules.
        params: Option<PathBuf>,
        /// The instance, if the Roles are limited to one.
        name: Option<String>,
    },
    /// check.
    Check(CheckOptions),
    /// verify.
    Verify(VerifyOptions),
    /// kubeconfig.
    Kubeconfig {
        /// The credential file, `-` for stdin.
        artifact: PathBuf,
        /// The namespace of the context, if given.
        namespace: Option<String>,
    },
    /// A completion script or the manual page.
    Print(String),
}

impl Source {
    /// Whether two documents would be read from standard input.
    fn reads_stdin_twice(&self) -> bool {
        let Self::Files { params, cluster: ClusterSource::Document(connection), .. } = self else { return false };
        params.as_os_str() == "-" && connection.as_os_str() == "-"
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
/// after `=`, that is longer than a name would be.
pub(crate) fn possible_secrets(arguments: &[OsString]) -> impl Iterator<Item = SecretString> {
    let values = arguments.iter().skip(1).flat_map(|argument| {
        let word = argument.to_string_lossy().into_owned();
        let value = word.split_once('=').map(|(_, value)| value.to_owned());
        [Some(word), value].into_iter().flatten()
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
    const WITH_DOCUMENT: [&str; 5] = ["plan", "provision", "decommission", "check", "verify"];
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
    use clap::error::ErrorKind;

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
        Some(Command::Permissions { params, name }) => return Ok(Invocation::Permissions { params, name }),
        Some(Command::Check { files, params, json, sarif }) => return check(files, params, json, sarif),
        Some(Command::Verify { artifact, params, name, instance_dir, timeout, json }) => {
            if artifact.as_os_str() == "-" && params.as_ref().is_some_and(|params| params.as_os_str() == "-") {
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
        Some(Command::Completions { shell }) => {
            return Ok(Invocation::Print(manual::completions(&mut Cli::command(), shell)));
        }
        Some(Command::Man) => return Ok(Invocation::Print(manual::page(Cli::command()))),
        Some(Command::Plan { input, detailed_exitcode }) => {
            RunOptions { detailed_exitcode, ..input.run(Operation::Plan) }
        }
        Some(Command::Provision { input, output, publish }) => {
            let output = output
                .map(|path| if path.as_os_str() == "-" { OutputTarget::Stdout } else { OutputTarget::File(path) });
            RunOptions { publish: Publishing::asked(publish), output, ..input.run(Operation::Provision) }
        }
        Some(Command::Decommission { input, publish }) => {
            RunOptions { publish: Publishing::asked(publish), ..input.run(Operation::Decommission) }
        }
    };
    let refusal = if options.json && options.output == Some(OutputTarget::Stdout) {
        "error: --output - and --json both write to stdout: write the credential to a file\n"
    } else if options.source.reads_stdin_twice() {
        "error: --params - and --connection - both read stdin: put one of them into a file\n"
    } else {
        return Ok(Invocation::Run(options));
    };
    Err(ParseError::Usage(refusal.to_owned()))
}

fn check(files: Vec<PathBuf>, params: Option<PathBuf>, json: bool, sarif: bool) -> Result<Invocation, ParseError> {
    let document = json.then_some(CheckDocument::Json).or_else(|| sarif.then_some(CheckDocument::Sarif));
    let params = if files.is_empty() { params.or_else(|| Some(PathBuf::from("-"))) } else { params };
    let options = CheckOptions { files, params, document };
    if options.reads_stdin_twice() {
        let text = "error: stdin is named more than once: put all but one of its documents into files\n";
        return Err(ParseError::Usage(text.to_owned()));
    }
    Ok(Invocation::Check(options))
}

impl InputArgs {
    fn run(self, action: Operation) -> RunOptions {
        let source = match (self.instance_dir, self.params) {
            (Some(directory), _) => Source::Instance(directory),
            (None, params) => Source::Files {
                params: params.unwrap_or_default(),
                name: self.name,
                cluster: match self.connection {
                    Some(path) => ClusterSource::Document(path),
                    None => ClusterSource::Kubeconfig { path: self.kubeconfig, context: self.context },
                },
                tls_server_name: self.tls_server_name,
            },
        };
        RunOptions {
            action,
            source,
            publish: Publishing::Never,
            output: None,
            json: self.json,
            detailed_exitcode: false,
            timeout_seconds: self.timeout,
        }
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
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, action: Option<&str>) -> Result<Invocation, ParseError> {
        let environment = Environment::from_iter(action.map(|action| (env::ACTION, action.to_owned())));
        parse(line.split(' ').map(OsString::from), &environment)
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
