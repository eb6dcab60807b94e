//! The only reader of documents: `Invocation -> Inputs`, all of them as they stand, checked for nothing but being
//! JSON. What they mean is the matter of `request/`.

mod json;
pub mod kubeconfig;

use std::{
    io::{IsTerminal as _, Read as _},
    path::Path,
};

use serde_json::Value;

use crate::{
    cli::{Action, ClusterSource, Environment, Source, env},
    finding::Finding,
    proxy,
};

/// No honest document of ours is larger: the API server itself takes no body above 3 MiB.
const SIZE_LIMIT: u64 = 8 << 20;

/// All that a run is made of, unparsed.
#[derive(Default)]
pub struct Inputs {
    /// `params.json`, or `--params`.
    pub params: Value,
    /// `--name`.
    pub name: Option<String>,
    /// Where the cluster is.
    pub cluster: ClusterInput,
    /// `--tls-server-name`.
    pub tls_server_name: Option<String>,
    /// What the environment says of proxies.
    pub proxies: proxy::Variables,
    /// `config.json`, null when there is none.
    pub config: Value,
    /// `bundle/schema-params.json`, when the platform put one there.
    pub params_schema: Option<Value>,
    /// `bundle/schema-artifacts.json`, likewise.
    pub artifacts_schema: Option<Value>,
    /// `bundle/massdriver.yaml`, likewise.
    pub bundle: Option<Value>,
    /// The platform, as the environment tells it.
    pub platform: PlatformInput,
}

/// The cluster connection as it was found.
#[derive(Default)]
pub enum ClusterInput {
    /// Could not be read; a finding says why.
    #[default]
    Missing,
    /// A dependencies document, or a lone kubernetes-cluster document.
    Document(Value),
    /// A context of a kubeconfig.
    Kubeconfig(Box<kubeconfig::Context>),
}

/// What the environment says of the platform.
#[derive(Default)]
pub struct PlatformInput {
    /// Base URL.
    pub url: Option<String>,
    /// User name.
    pub deployment_id: Option<String>,
    /// Password.
    pub token: Option<String>,
    /// Instance, new name.
    pub instance_id: Option<String>,
    /// Instance, old name.
    pub package_name: Option<String>,
    /// Organization.
    pub organization_id: Option<String>,
}

/// Reads everything that the invocation names. What cannot be read becomes a blocking finding beside what can.
#[must_use]
pub fn load(source: &Source, action: Action, environment: &Environment) -> (Inputs, Vec<Finding>) {
    let mut reader = Reader::default();
    let variable = |name| environment.get(name).map(str::to_owned);
    let mut inputs = Inputs {
        proxies: environment.proxies(),
        platform: PlatformInput {
            url: variable(env::URL),
            deployment_id: variable(env::DEPLOYMENT_ID),
            token: variable(env::TOKEN),
            instance_id: variable(env::INSTANCE_ID),
            package_name: variable(env::PACKAGE_NAME),
            organization_id: variable(env::ORGANIZATION_ID),
        },
        ..Inputs::default()
    };
    match source {
        Source::Instance(directory) => {
            let bundle = directory.join("bundle");
            inputs.params = reader.required(&directory.join("params.json")).unwrap_or_default();
            // The same document under its new name and its old one.
            let [new, old] = ["dependencies.json", "connections.json"].map(|name| directory.join(name));
            let known = reader.findings.len();
            let document = reader.optional(&new).or_else(|| reader.optional(&old));
            inputs.cluster = document.map_or(ClusterInput::Missing, ClusterInput::Document);
            if matches!(inputs.cluster, ClusterInput::Missing) && reader.findings.len() == known {
                let text = format!("there is neither {} nor {}", named(&new), named(&old));
                reader.findings.push(Finding::blocking("schema", "", text));
            }
            inputs.config = reader.optional(&directory.join("config.json")).unwrap_or_default();
            // What is taken back need not fit today's forms.
            if action != Action::Decommission {
                inputs.params_schema = reader.optional(&bundle.join("schema-params.json"));
                inputs.artifacts_schema = reader.optional(&bundle.join("schema-artifacts.json"));
            }
            inputs.bundle = read_file(&bundle.join("massdriver.yaml"))
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .and_then(|text| serde_saphyr::from_str(&text).ok());
        }
        Source::Files { params, name, cluster, tls_server_name } => {
            inputs.params = reader.required(params).unwrap_or_default();
            inputs.name.clone_from(name);
            inputs.tls_server_name.clone_from(tls_server_name);
            inputs.cluster = match cluster {
                ClusterSource::Document(path) => {
                    reader.required(path).map_or(ClusterInput::Missing, ClusterInput::Document)
                }
                ClusterSource::Kubeconfig { path, context } => {
                    match kubeconfig::read(path.as_deref(), context.as_deref(), environment) {
                        Ok(mut context) => {
                            // Nobody can be asked where the params come from.
                            context.terminal = params.as_os_str() != "-" && std::io::stdin().is_terminal();
                            ClusterInput::Kubeconfig(Box::new(context))
                        }
                        Err(cause) => {
                            reader.findings.push(Finding::refusal("connection", cause));
                            ClusterInput::Missing
                        }
                    }
                }
            };
        }
    }
    (inputs, reader.findings)
}

/// Reads one document that stands alone: the argument of `kubeconfig`.
///
/// # Errors
/// The finding that says why not.
pub fn document(path: &Path) -> Result<Value, Vec<Finding>> {
    let mut reader = Reader::default();
    let document = reader.required(path);
    document.filter(|_| reader.findings.is_empty()).ok_or(reader.findings)
}

#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    /// A document that must be there; `-` is standard input.
    fn required(&mut self, path: &Path) -> Option<Value> {
        match bytes(path) {
            Ok(bytes) => self.parse(path, &bytes),
            Err(cause) => {
                self.findings.push(Finding::blocking("schema", "", format!("cannot read {}: {cause}", named(path))));
                None
            }
        }
    }

    /// A document that may be missing, empty or `null`.
    fn optional(&mut self, path: &Path) -> Option<Value> {
        let bytes = match read_file(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return None,
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => return None,
            Ok(bytes) => bytes,
            Err(cause) => {
                self.findings.push(Finding::blocking("schema", "", format!("cannot read {}: {cause}", named(path))));
                return None;
            }
        };
        self.parse(path, &bytes).filter(|value| !value.is_null())
    }

    fn parse(&mut self, path: &Path, bytes: &[u8]) -> Option<Value> {
        match json::parse(bytes) {
            Ok((value, duplicates)) => {
                let found = duplicates.into_iter().map(|pointer| {
                    Finding::blocking("duplicate-key", pointer, format!("{} has this key twice", named(path)))
                        .help("keep one of them: which one counts differs from reader to reader")
                });
                self.findings.extend(found);
                Some(value)
            }
            Err(cause) => {
                self.findings.push(Finding::blocking("schema", "", format!("{} {cause}", named(path))));
                None
            }
        }
    }
}

fn named(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() }
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    if path.as_os_str() == "-" { limited(std::io::stdin().lock()) } else { read_file(path) }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of files")]
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    limited(std::fs::File::open(path)?)
}

fn limited(source: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(SIZE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(std::io::Error::other("larger than 8 MiB"));
    }
    Ok(bytes)
}
