//! The definition of the command line, and what was asked by it or, without arguments, by the platform's environment.
//! Out: an [`Invocation`], which names the documents that `inputs/` reads. Pure.

pub mod manual;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    diagnostics::{
        error::{Code, Failure},
        text::{presentable, shown},
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
    after_help = "Without a command it runs as a Massdriver provisioner: the action comes from \
                  MASSDRIVER_DEPLOYMENT_ACTION, the documents from the working directory.\n\n\
                  Exit status:\n  \
                  0    done; for plan: a provision would get through\n  \
                  1    failed for another reason\n  \
                  2    plan --detailed-exitcode: there are changes\n  \
                  64   wrong command line, unknown action\n  \
                  65   input refused, before the first packet\n  \
                  69   cluster or platform not usable, login failed\n  \
                  73   an object in the way is not ours\n  \
                  75   not now: namespace terminating, quota, another run at work\n  \
                  76   the credential could not be proved\n  \
                  77   the parent credential lacks permissions\n  \
                  143  stopped by SIGTERM or SIGINT\n\n\
                  Environment:\n  \
                  KUBECONFIG, HOME       where a kubeconfig is looked for, with a command\n  \
                  HTTPS_PROXY, NO_PROXY  the way to the cluster and the platform; also HTTP_PROXY\n  \
                  SSL_CERT_FILE          the CAs of the system, where no other is given; also SSL_CERT_DIR\n  \
                  NO_COLOR               a log without colours\n  \
                  MASSDRIVER_*           the action, and where and as whom to publish"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The two ways to say what a run is about; clap's own line shows neither.
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
    #[command(override_usage = usage!("plan"))]
    Plan {
        #[command(flatten)]
        input: InputArgs,
        /// End with 2 when there are changes
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Make the credential, prove it and hand it out
    #[command(override_usage = usage!("provision"))]
    Provision {
        #[command(flatten)]
        input: InputArgs,
        /// Write the artifact to this file (mode 0600), - for stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Publish the artifact at the platform as well
        #[arg(long)]
        publish: bool,
    },
    /// Take the credential back and prove that it is dead
    #[command(override_usage = usage!("decommission"))]
    Decommission {
        #[command(flatten)]
        input: InputArgs,
        /// Delete the platform's record as well
        #[arg(long)]
        publish: bool,
    },
    /// Print the least Role that the parent credential needs, as YAML
    Permissions {
        /// What is to be granted; without it any rules in one namespace. - for stdin
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Name of the instance: limits the Role to its objects
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Judge params offline, as provision does before the first packet
    Check {
        /// The params, one JSON document; - for stdin
        #[arg(long, value_name = "FILE", default_value = "-")]
        params: PathBuf,
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Prove an artifact or a kubeconfig as it is now
    Verify {
        /// The artifact or a kubeconfig with the token of a ServiceAccount, - for stdin
        artifact: PathBuf,
        /// Params whose rules it has to be allowed; - for stdin
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Name of the instance that it has to be of
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Read params and name from a directory laid out as the platform does
        #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "name"])]
        instance_dir: Option<PathBuf>,
        /// Bound on the whole run [default: 180]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: Option<u64>,
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Print an artifact as a kubeconfig
    Kubeconfig {
        /// The artifact, - for stdin
        artifact: PathBuf,
        /// Namespace of the context; without it the artifact's, else the token's
        #[arg(long, value_name = "NS")]
        namespace: Option<String>,
    },
    /// Print a completion script, to be loaded by the shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man,
}

#[derive(Args)]
struct InputArgs {
    /// The params, one JSON document: namespace, rules, cluster_roles; - for stdin
    #[arg(long, value_name = "FILE", required_unless_present = "instance_dir")]
    params: Option<PathBuf>,
    /// Name of the instance: the names of its objects start with NAME-token
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The cluster as a kubernetes-cluster document, or a dependencies document that holds one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    connection: Option<PathBuf>,
    /// The cluster and the login from a kubeconfig; without it as kubectl finds one
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Name to expect in the server's certificate instead of the host of its URL
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Read a directory laid out as the platform does, instead of all these
    #[arg(long, value_name = "DIR", conflicts_with_all = ["params", "name", "connection", "kubeconfig", "context", "tls_server_name"])]
    instance_dir: Option<PathBuf>,
    /// Bound on the whole run [default: 180]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What is done with the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show what would change.
    Plan,
    /// Make it.
    Provision,
    /// Take it back.
    Decommission,
}

impl Action {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Provision => "provision",
            Self::Decommission => "decommission",
        }
    }
}

/// Whether the platform is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// No.
    Never,
    /// Yes, because it has started this run: where it does not say its address, it is the hosted one.
    AsProvisioner,
    /// Yes, because a command line asks for it: then the address has to be given.
    Asked,
}

impl Publishing {
    const fn asked(publish: bool) -> Self {
        if publish { Self::Asked } else { Self::Never }
    }
}

/// Where the documents are.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory as the platform lays it out.
    Instance(PathBuf),
    /// Files named on the command line.
    Files {
        /// The params, `-` for stdin.
        params: PathBuf,
        /// Stands for `md_metadata.name_prefix`.
        name: Option<String>,
        /// The cluster.
        cluster: ClusterSource,
        /// The name of its certificate, if given.
        tls_server_name: Option<String>,
    },
}

/// Where the cluster connection is.
#[derive(Debug, PartialEq, Eq)]
pub enum ClusterSource {
    /// A document.
    Document(PathBuf),
    /// A kubeconfig.
    Kubeconfig {
        /// The file; none means as kubectl finds it.
        path: Option<PathBuf>,
        /// The context; none means the current one.
        context: Option<String>,
    },
}

/// Where the artifact goes, besides the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// A run against a cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// What to do.
    pub action: Action,
    /// Where the input is.
    pub source: Source,
    /// Whether the platform is told.
    pub publish: Publishing,
    /// Where the artifact goes.
    pub output: Option<Target>,
    /// One document on stdout.
    pub json: bool,
    /// `plan` ends with 2 when there are changes.
    pub detailed_exitcode: bool,
    /// Bound on the whole run in seconds, if given on the command line.
    pub timeout_seconds: Option<u64>,
}

/// Where it is said what a credential is expected to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// On the command line.
    Files {
        /// Params that it has to fit, `-` for stdin.
        params: Option<PathBuf>,
        /// The instance that it has to be of.
        name: Option<String>,
    },
    /// In a directory as the platform lays it out: params and name.
    Instance(PathBuf),
}

impl Expected {
    /// True when there are params that the credential has to fit.
    #[must_use]
    pub const fn has_params(&self) -> bool {
        matches!(self, Self::Instance(_) | Self::Files { params: Some(_), .. })
    }
}

/// The verification of a credential.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The artifact or kubeconfig, `-` for stdin.
    pub artifact: PathBuf,
    /// What it is expected to be.
    pub expected: Expected,
    /// Bound on the whole run in seconds.
    pub timeout_seconds: Option<u64>,
    /// One document on stdout.
    pub json: bool,
}

/// What this process is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// plan, provision, decommission.
    Run(RunOptions),
    /// permissions.
    Permissions {
        /// The params, `-` for stdin; none for any.
        params: Option<PathBuf>,
        /// The instance, if it is to be limited to one.
        name: Option<String>,
    },
    /// check.
    Check {
        /// The params, `-` for stdin.
        params: PathBuf,
        /// One document on stdout.
        json: bool,
    },
    /// verify.
    Verify(VerifyOptions),
    /// kubeconfig.
    Kubeconfig {
        /// The artifact, `-` for stdin.
        artifact: PathBuf,
        /// The namespace of the context, if given.
        namespace: Option<String>,
    },
    /// A text of our own.
    Print(String),
}

impl Source {
    /// Whether two documents are asked of one standard input.
    fn reads_stdin_twice(&self) -> bool {
        let Self::Files { params, cluster: ClusterSource::Document(connection), .. } = self else { return false };
        params.as_os_str() == "-" && connection.as_os_str() == "-"
    }
}

/// What to print instead of running.
#[derive(Debug)]
pub enum Refusal {
    /// `--help` or `--version`: goes to stdout, status 0.
    Answer(String),
    /// The command line makes no sense: goes to stderr, status 64.
    Usage(String),
    /// It makes sense but cannot be done.
    Failure(Failure),
}

/// The arguments that may be a secret, for the redactor of a usage error, which quotes what was typed: each word, or
/// value after `=`, that is longer than a name would be.
pub fn possible_secrets(arguments: &[OsString]) -> impl Iterator<Item = SecretString> {
    let values = arguments.iter().skip(1).flat_map(|argument| {
        let word = argument.to_string_lossy().into_owned();
        let value = word.split_once('=').map(|(_, value)| value.to_owned());
        [Some(word), value].into_iter().flatten()
    });
    values.filter(|value| !presentable(value)).map(SecretString::from)
}

/// The arguments that are a token for certain, for the redactor of the whole run: one that was given where a file or a
/// context is meant stands in the message that there is no such thing.
pub fn tokens(arguments: &[OsString]) -> impl Iterator<Item = SecretString> {
    possible_secrets(arguments).filter(|secret| is_token(secret.expose_secret()))
}

/// A JWT, or a token as OpenShift makes it.
fn is_token(text: &str) -> bool {
    text.starts_with("sha256~") || (text.starts_with("eyJ") && text.split('.').count() == 3)
}

/// Whether one JSON document is asked for, as far as a wrong command line shows that.
#[must_use]
pub fn asks_for_json(arguments: &[OsString]) -> bool {
    let options = arguments.iter().skip(1).map(|argument| argument.to_string_lossy());
    options.take_while(|option| option != "--").any(|option| option == "--json" || option.starts_with("--json="))
}

/// The command that prints such a document, as far as a wrong command line names one.
#[must_use]
pub fn named_command(arguments: &[OsString]) -> Option<&'static str> {
    const WITH_DOCUMENT: [&str; 5] = ["plan", "provision", "decommission", "check", "verify"];
    let named = arguments.get(1)?;
    WITH_DOCUMENT.into_iter().find(|command| named == command)
}

/// What is wrong with a command line, without how to write it: the first paragraph of clap's text, in one line.
#[must_use]
pub fn first_paragraph(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let paragraph = lines.collect::<Vec<_>>().join(" ");
    paragraph.strip_prefix("error: ").map_or_else(|| paragraph.clone(), str::to_owned)
}

/// Parses the command line, or the platform's environment when there is none.
///
/// # Errors
/// What to print instead of running.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Result<Invocation, Refusal> {
    use clap::error::ErrorKind;

    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() < 2 {
        return as_provisioner(environment); // without the definition of all commands, which costs a million instructions
    }
    let cli = Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refusal::Answer(error.render().to_string()),
        _ => Refusal::Usage(error.render().to_string()),
    })?;
    let options = match cli.command {
        None => return as_provisioner(environment),
        Some(Command::Permissions { params, name }) => return Ok(Invocation::Permissions { params, name }),
        Some(Command::Check { params, json }) => return Ok(Invocation::Check { params, json }),
        Some(Command::Verify { artifact, params, name, instance_dir, timeout, json }) => {
            if artifact.as_os_str() == "-" && params.as_ref().is_some_and(|params| params.as_os_str() == "-") {
                let text = "error: the artifact and --params - both want stdin: put one of them into a file\n";
                return Err(Refusal::Usage(text.to_owned()));
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
        Some(Command::Plan { input, detailed_exitcode }) => RunOptions { detailed_exitcode, ..input.run(Action::Plan) },
        Some(Command::Provision { input, output, publish }) => {
            let output = output.map(|path| if path.as_os_str() == "-" { Target::Stdout } else { Target::File(path) });
            RunOptions { publish: Publishing::asked(publish), output, ..input.run(Action::Provision) }
        }
        Some(Command::Decommission { input, publish }) => {
            RunOptions { publish: Publishing::asked(publish), ..input.run(Action::Decommission) }
        }
    };
    let refusal = if options.json && options.output == Some(Target::Stdout) {
        "error: --output - and --json both want stdout: write the artifact to a file\n"
    } else if options.source.reads_stdin_twice() {
        "error: --params - and --connection - both want stdin: put one of them into a file\n"
    } else {
        return Ok(Invocation::Run(options));
    };
    Err(Refusal::Usage(refusal.to_owned()))
}

impl InputArgs {
    fn run(self, action: Action) -> RunOptions {
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

fn as_provisioner(environment: &Environment) -> Result<Invocation, Refusal> {
    let action = match environment.get(env::ACTION) {
        None => return Err(Refusal::Usage(Cli::command().render_help().to_string())),
        Some("plan") => Action::Plan,
        Some("provision") => Action::Provision,
        Some("decommission") => Action::Decommission,
        Some(other) => {
            let cause = if is_token(other) {
                format!("{} holds a token and no action", env::ACTION)
            } else {
                format!("{} holds the unknown action `{}`", env::ACTION, shown(other, 40))
            };
            return Err(Refusal::Failure(
                Failure::new(Code::Usage, "reading the environment", cause)
                    .state("nothing was changed")
                    .next("set it to plan, provision or decommission"),
            ));
        }
    };
    Ok(Invocation::Run(RunOptions {
        action,
        source: Source::Instance(PathBuf::from(".")),
        publish: if action == Action::Plan { Publishing::Never } else { Publishing::AsProvisioner },
        output: None,
        json: false,
        detailed_exitcode: false,
        timeout_seconds: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, action: Option<&str>) -> Result<Invocation, Refusal> {
        let environment = Environment::from_iter(action.map(|action| (env::ACTION, action.to_owned())));
        parse(line.split(' ').map(OsString::from), &environment)
    }

    #[test]
    fn cli_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_arguments_select_provisioner_mode() {
        for name in ["k8s-token", "/usr/local/bin/entrypoint.sh"] {
            let Ok(Invocation::Run(options)) = parsed(name, Some("provision")) else { panic!("refused") };
            assert_eq!(options.action, Action::Provision);
            assert_eq!(options.publish, Publishing::AsProvisioner);
            assert_eq!(options.source, Source::Instance(".".into()));
        }
    }

    #[test]
    fn no_arguments_and_no_action_show_help() {
        let Err(Refusal::Usage(text)) = parsed("k8s-token", None) else { panic!("accepted") };
        assert!(text.contains("Usage: k8s-token"), "{text}");
    }

    #[test]
    fn two_documents_on_stdout_are_refused() {
        let line = "k8s-token provision --params p --name n --json --output -";
        assert!(matches!(parsed(line, None), Err(Refusal::Usage(_))));
    }

    #[test]
    fn command_publishes_only_on_request() {
        let Ok(Invocation::Run(options)) = parsed("k8s-token provision --params p --name n", Some("plan")) else {
            panic!("refused")
        };
        assert_eq!(options.publish, Publishing::Never);
        assert_eq!(options.action, Action::Provision);
    }
}
