//! Reader of documents: `Invocation -> Inputs`. The only reader of the disk. Documents are only checked for being JSON, or
//! YAML on the command line; `request/` interprets them.

mod json;
pub(crate) mod kubeconfig;
mod manifest;
mod origin;
mod params;
mod position;
mod yaml;

pub(crate) use origin::Origin;

use std::{
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use json::Duplicate;
use origin::Format;
use position::Text;

use crate::{
    cli::{ClusterSource, Entry, Expected, ParamsContent, ParamsSource, Source, VerifyOptions},
    diagnostics::finding::{self, Finding, set_source},
    endpoint::proxy,
    env::{self, Environment},
    schema,
};

/// The key of the cluster connection in a dependencies document.
pub(crate) const SLOT: &str = "kubernetes_cluster";

/// The name of `config.json` in findings.
pub(crate) const CONFIG: &str = "config.json";

/// The maximum size of a document: the API server itself accepts no body above 3 MiB.
const SIZE_LIMIT: u64 = 8 << 20;

/// How much of the input has to be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// All of it.
    Strict,
    /// What locates the instance. For a decommission: other invalid input must not keep a token alive.
    OnlyWhatLocatesTheInstance,
}

/// The documents and options of a run, not yet interpreted.
#[derive(Default)]
pub(crate) struct Inputs {
    /// `params.json`, or what the options of the command line say.
    pub(crate) params: Value,
    /// Whether the params could not be read, which a finding says.
    pub(crate) params_unread: bool,
    /// Where they come from.
    pub(crate) origin: Origin,
    /// `--namespace`, instead of `namespace` in the params.
    pub(crate) namespace: Option<String>,
    /// `--name`.
    pub(crate) name: Option<String>,
    /// The cluster connection.
    pub(crate) cluster: ClusterInput,
    /// `--tls-server-name`.
    pub(crate) tls_server_name: Option<String>,
    /// The proxy variables of the environment.
    pub(crate) proxies: proxy::Variables,
    /// `config.json`; null if absent.
    pub(crate) config: Value,
    /// `bundle/schema-params.json`, where it differs from the embedded one.
    pub(crate) params_schema: Option<Value>,
    /// `bundle/schema-artifacts.json`.
    pub(crate) artifacts_schema: ArtifactsSchema,
    /// `bundle/massdriver.yaml`, if it differs from the embedded one, which only contains the defaults.
    pub(crate) bundle: Option<Value>,
    /// The platform's variables of the environment.
    pub(crate) platform: PlatformInput,
}

/// The type of the published document in the bundle.
#[derive(Default)]
pub(crate) enum ArtifactsSchema {
    /// The bundle has none.
    #[default]
    Absent,
    /// The embedded one, byte for byte.
    Embedded,
    /// Another one.
    Own(Value),
}

/// The source of the cluster connection.
#[derive(Default)]
pub(crate) enum ClusterInput {
    /// It could not be read; a finding says why.
    #[default]
    Missing,
    /// A dependencies document, or a kubernetes-cluster document.
    Document(Value),
    /// A context of a kubeconfig.
    Kubeconfig(Box<kubeconfig::Context>),
}

/// The environment variables of the platform.
#[derive(Default)]
pub(crate) struct PlatformInput {
    /// Base URL.
    pub(crate) url: Option<String>,
    /// User name.
    pub(crate) deployment_id: Option<String>,
    /// Password.
    pub(crate) token: Option<String>,
    /// Instance, new name.
    pub(crate) instance_id: Option<String>,
    /// Instance, old name.
    pub(crate) package_name: Option<String>,
    /// Organization.
    pub(crate) organization_id: Option<String>,
}

/// A document: its name in messages, and its content or why it could not be read.
pub(crate) struct Document {
    name: String,
    content: std::io::Result<Vec<u8>>,
}

impl Document {
    /// A document that exists.
    pub(crate) fn new(name: &str, content: &[u8]) -> Self {
        Self { name: name.to_owned(), content: Ok(content.to_vec()) }
    }

    /// A document that does not exist.
    pub(crate) fn absent(name: &str) -> Self {
        Self { name: name.to_owned(), content: Err(std::io::ErrorKind::NotFound.into()) }
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its text, in which values can be located; empty if it could not be read.
    pub(crate) fn text(&self) -> Text<'_> {
        Text::new(self.content.as_deref().unwrap_or_default())
    }

    /// Whether the content is exactly this text.
    fn is(&self, text: &str) -> bool {
        self.content.as_ref().is_ok_and(|bytes| bytes == text.as_bytes())
    }

    /// Reads a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Self {
        let content = if path.as_os_str() == "-" { limited(std::io::stdin().lock()) } else { read_file(path) };
        Self { name: named(path), content }
    }
}

/// The documents of an instance, in Massdriver's layout.
pub(crate) struct Documents {
    /// `params.json`
    pub(crate) params: Document,
    /// `dependencies.json`
    pub(crate) dependencies: Document,
    /// `connections.json`: the same under its old name.
    pub(crate) connections: Document,
    /// `config.json`
    pub(crate) config: Document,
    /// `bundle/schema-params.json`
    pub(crate) params_schema: Document,
    /// `bundle/schema-artifacts.json`
    pub(crate) artifacts_schema: Document,
    /// `bundle/massdriver.yaml`
    pub(crate) bundle: Document,
}

impl Documents {
    fn read(directory: &Path) -> Self {
        let document = |name: &str| Document::read(&directory.join(name));
        Self {
            params: document("params.json"),
            dependencies: document("dependencies.json"),
            connections: document("connections.json"),
            config: document("config.json"),
            params_schema: document("bundle/schema-params.json"),
            artifacts_schema: document("bundle/schema-artifacts.json"),
            bundle: document("bundle/massdriver.yaml"),
        }
    }

    /// Parses all documents. One that cannot be parsed becomes a blocking finding.
    pub(crate) fn parse(&self, strictness: Strictness) -> (Inputs, Vec<Finding>) {
        let mut reader = Reader::new(strictness);
        let mut inputs = reader.instance(self);
        let known = reader.findings.len();
        let document = reader.optional(&self.dependencies).or_else(|| reader.optional(&self.connections));
        inputs.cluster = document.map_or(ClusterInput::Missing, ClusterInput::Document);
        if matches!(inputs.cluster, ClusterInput::Missing) && reader.findings.len() == known {
            let text = format!("neither {} nor {} exists", self.dependencies.name, self.connections.name);
            reader.findings.push(Finding::blocking(finding::Code::Schema, "", text));
        }
        inputs.config = reader.config(self);
        if strictness == Strictness::Strict {
            inputs.params_schema = reader.params_schema(&self.params_schema);
            inputs.artifacts_schema = if self.artifacts_schema.is(schema::ARTIFACTS) {
                ArtifactsSchema::Embedded
            } else {
                reader.optional(&self.artifacts_schema).map_or(ArtifactsSchema::Absent, ArtifactsSchema::Own)
            };
        }
        let bundle = self.bundle.content.as_ref().ok().filter(|_| !self.bundle.is(schema::BUNDLE));
        let bundle = bundle.and_then(|bytes| std::str::from_utf8(bytes).ok());
        inputs.bundle = bundle.and_then(|text| serde_saphyr::from_str(text).ok());
        (inputs, reader.findings)
    }

    /// Parses the params and the documents that decide how they are read.
    fn parse_params(&self, reader: &mut Reader) -> Inputs {
        let inputs = reader.instance(self);
        Inputs { config: reader.config(self), params_schema: reader.params_schema(&self.params_schema), ..inputs }
    }
}

/// Reads everything that the invocation names. A document that cannot be read becomes a blocking finding.
pub(crate) fn load(source: &Source, strictness: Strictness, environment: &Environment) -> (Inputs, Vec<Finding>) {
    let (inputs, findings) = match source {
        Source::Instance(directory) => Documents::read(directory).parse(strictness),
        Source::Files { params, name, cluster, tls_server_name } => {
            let mut reader = Reader::new(strictness);
            let inputs = reader.params(params);
            let cluster = match cluster {
                ClusterSource::Document(path) => {
                    reader.required(&Document::read(path)).map_or(ClusterInput::Missing, ClusterInput::Document)
                }
                ClusterSource::Kubeconfig { path, context } => {
                    match kubeconfig::read(path.as_deref(), context.as_deref(), environment) {
                        Ok(mut context) => {
                            // A login command cannot prompt if the params come from standard input.
                            context.terminal = !params.is_stdin() && std::io::stdin().is_terminal();
                            ClusterInput::Kubeconfig(Box::new(context))
                        }
                        Err(problems) => {
                            reader.findings.extend(problems);
                            ClusterInput::Missing
                        }
                    }
                }
            };
            let (name, tls_server_name) = (name.clone(), tls_server_name.clone());
            (Inputs { name, cluster, tls_server_name, ..inputs }, reader.findings)
        }
    };
    let variable = |name| environment.get(name).map(str::to_owned);
    let platform = PlatformInput {
        url: variable(env::URL),
        deployment_id: variable(env::DEPLOYMENT_ID),
        token: variable(env::TOKEN),
        instance_id: variable(env::INSTANCE_ID),
        package_name: variable(env::PACKAGE_NAME),
        organization_id: variable(env::ORGANIZATION_ID),
    };
    (Inputs { platform, proxies: environment.proxies(), ..inputs }, findings)
}

/// Reads params without a cluster connection, and a name. Params that cannot be read become a blocking finding.
pub(crate) fn params(source: &ParamsSource, name: Option<String>) -> (Inputs, Vec<Finding>) {
    let mut reader = Reader::new(Strictness::Strict);
    let inputs = reader.params(source);
    (Inputs { name, ..inputs }, reader.findings)
}

/// Reads the params of a run, without the cluster connection.
pub(crate) fn params_of_run(source: &Source) -> (Inputs, Vec<Finding>) {
    match source {
        Source::Files { params: source, .. } => params(source, None),
        Source::Instance(directory) => {
            let mut reader = Reader::new(Strictness::Strict);
            let inputs = Documents::read(directory).parse_params(&mut reader);
            (inputs, reader.findings)
        }
    }
}

/// The params of a document that was read, as a file of the command line.
pub(crate) fn params_of(document: &Document) -> (Inputs, Vec<Finding>) {
    let mut reader = Reader::new(Strictness::Strict);
    let inputs = reader.params_document(document, Inputs::default());
    (inputs, reader.findings)
}

/// The same with the document that they come from, if it is one.
pub(crate) fn params_with_document(source: &ParamsSource) -> (Inputs, Vec<Finding>, Option<Document>) {
    let ParamsContent::File(path) = &source.content else {
        let (inputs, findings) = params(source, None);
        return (inputs, findings, None);
    };
    let mut reader = Reader::new(Strictness::Strict);
    let document = Document::read(path);
    let inputs = Inputs { namespace: source.namespace.clone(), ..Inputs::default() };
    let inputs = reader.params_document(&document, inputs);
    (inputs, reader.findings, Some(document))
}

/// Reads a credential, and the params that it has to match: those of a file, or those of an instance with the documents
/// that decide how they are read.
pub(crate) fn credential(options: &VerifyOptions, environment: &Environment) -> (Inputs, Vec<Finding>) {
    let mut reader = Reader::new(Strictness::Strict);
    let cluster = reader.credential(&options.artifact);
    let inputs = match &options.expected {
        Expected::Files { params, name } => Inputs { name: name.clone(), ..reader.params(params) },
        Expected::Instance(directory) => Documents::read(directory).parse_params(&mut reader),
    };
    (Inputs { cluster, proxies: environment.proxies(), ..inputs }, reader.findings)
}

/// Reads a credential without params, beside a namespace.
pub(crate) fn credential_alone(
    artifact: &Path,
    namespace: Option<String>,
    environment: &Environment,
) -> (Inputs, Vec<Finding>) {
    let mut reader = Reader::new(Strictness::Strict);
    let cluster = reader.credential(artifact);
    (Inputs { cluster, namespace, proxies: environment.proxies(), ..Inputs::default() }, reader.findings)
}

/// Reads a single document: the argument of `kubeconfig`.
pub(crate) fn document(path: &Path) -> Result<Value, Vec<Finding>> {
    let mut reader = Reader::new(Strictness::Strict);
    let document = reader.required(&Document::read(path));
    document.filter(|_| reader.findings.is_empty()).ok_or(reader.findings)
}

/// The keys that locate an instance. A duplicate of any other key is ignored by a decommission.
const LOCATING: [&str; 11] = [
    "namespace",
    "md_metadata",
    "name_prefix",
    SLOT,
    "data",
    "authentication",
    "cluster",
    "server",
    "certificate-authority-data",
    "user",
    "token",
];

struct Reader {
    findings: Vec<Finding>,
    strictness: Strictness,
}

impl Reader {
    const fn new(strictness: Strictness) -> Self {
        Self { findings: Vec::new(), strictness }
    }

    fn is_strict(&self) -> bool {
        self.strictness == Strictness::Strict
    }

    /// `params.json` of an instance.
    fn instance(&mut self, documents: &Documents) -> Inputs {
        let before = self.findings.len();
        let read = self.required(&documents.params);
        set_source(&mut self.findings[before..], Origin::INSTANCE);
        let params_unread = read.is_none();
        Inputs { params: read.unwrap_or_default(), params_unread, origin: Origin::Instance, ..Inputs::default() }
    }

    /// `config.json` of an instance; null if absent.
    fn config(&mut self, documents: &Documents) -> Value {
        let before = self.findings.len();
        let config = self.optional(&documents.config).unwrap_or_default();
        set_source(&mut self.findings[before..], CONFIG);
        config
    }

    /// The params of the command line.
    fn params(&mut self, source: &ParamsSource) -> Inputs {
        let namespace = source.namespace.clone();
        let inputs = Inputs { namespace, ..Inputs::default() };
        match &source.content {
            ParamsContent::None => Inputs { params: json!({}), ..inputs },
            ParamsContent::Options { rules, cluster_roles } => {
                let values = |list: &[Entry]| list.iter().map(|entry| entry.value.clone()).collect::<Value>();
                let sources = |list: &[Entry]| list.iter().map(|entry| entry.source.clone()).collect();
                let mut params = Map::new();
                for (key, list) in [("rules", rules), ("cluster_roles", cluster_roles)] {
                    params.extend((!list.is_empty()).then(|| (key.to_owned(), values(list))));
                }
                let origin = Origin::Options { rules: sources(rules), cluster_roles: sources(cluster_roles) };
                Inputs { params: params.into(), origin, ..inputs }
            }
            ParamsContent::File(path) => self.params_document(&Document::read(path), inputs),
        }
    }

    /// The params of a document of the command line, beside other inputs.
    fn params_document(&mut self, document: &Document, inputs: Inputs) -> Inputs {
        let before = self.findings.len();
        let (read, origin) = self.params_file(document, inputs.namespace.is_some());
        set_source(&mut self.findings[before..], &document.name);
        Inputs { params_unread: read.is_none(), params: read.unwrap_or_default(), origin, ..inputs }
    }

    /// The params of a file. Where a decommission has the namespace from elsewhere, it needs nothing of a manifest.
    fn params_file(&mut self, document: &Document, is_located: bool) -> (Option<Value>, Origin) {
        let name = &document.name;
        let origin = Origin::file(name.clone(), Format::Json);
        let bytes = match &document.content {
            Ok(bytes) => bytes,
            Err(cause) => {
                self.unreadable(document, cause);
                return (None, origin);
            }
        };
        let parsed = match params::parse(bytes) {
            Ok(parsed) => parsed,
            Err(problem) => {
                self.findings.push(Finding::blocking(finding::Code::Schema, "", format!("{name} {problem}")));
                return (None, origin);
            }
        };
        let is_manifest = manifest::is_manifest(&parsed.value);
        let locates = |pointer: &str| match pointer {
            "/kind" | "/metadata" | "/metadata/namespace" => is_manifest,
            _ => pointer.split('/').skip(1).all(|step| LOCATING.contains(&step)),
        };
        for (key, place) in parsed.duplicates {
            if self.is_strict() || key.exact && !is_located && locates(&key.pointer) {
                self.findings.push(duplicate(name, key, place));
            }
        }
        if !is_manifest {
            return (Some(parsed.value), Origin::file(name.clone(), parsed.format));
        }
        match manifest::params(&parsed.value) {
            Ok((kind, value, found)) => {
                self.findings.extend(found.into_iter().filter(|_| self.strictness == Strictness::Strict));
                (Some(value), Origin::File { name: name.clone(), format: parsed.format, manifest: Some(kind) })
            }
            Err(_) if is_located && !self.is_strict() => (Some(json!({})), origin),
            Err(problem) => {
                self.findings.push(problem);
                (None, origin)
            }
        }
    }

    /// A credential file or a kubeconfig.
    fn credential(&mut self, path: &Path) -> ClusterInput {
        let document = Document::read(path);
        match &document.content {
            Ok(bytes) if kubeconfig::recognized(bytes) => {
                match kubeconfig::parse(bytes, &document.name, path.parent().unwrap_or(path)) {
                    Ok(context) => ClusterInput::Kubeconfig(Box::new(context)),
                    Err(problems) => {
                        self.findings.extend(problems);
                        ClusterInput::Missing
                    }
                }
            }
            _ => self.required(&document).map_or(ClusterInput::Missing, ClusterInput::Document),
        }
    }

    /// A document that must exist.
    fn required(&mut self, document: &Document) -> Option<Value> {
        match &document.content {
            Ok(bytes) => self.parse(&document.name, bytes),
            Err(cause) => {
                self.unreadable(document, cause);
                None
            }
        }
    }

    /// A document that may be missing, empty or `null`.
    fn optional(&mut self, document: &Document) -> Option<Value> {
        match &document.content {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
            Ok(bytes) if json::is_blank(bytes) => None,
            Ok(bytes) => self.parse(&document.name, bytes).filter(|value| !value.is_null()),
            Err(cause) => {
                self.unreadable(document, cause);
                None
            }
        }
    }

    /// The bundle's schema of the params. That of a release equals the embedded one: parsing and compiling it again
    /// would take longer than everything else before the cluster is contacted.
    fn params_schema(&mut self, document: &Document) -> Option<Value> {
        if document.is(schema::PARAMS) { None } else { self.optional(document) }
    }

    fn unreadable(&mut self, document: &Document, cause: &std::io::Error) {
        self.findings.push(Finding::blocking(
            finding::Code::Schema,
            "",
            format!("cannot read {}: {cause}", document.name),
        ));
    }

    fn parse(&mut self, name: &str, bytes: &[u8]) -> Option<Value> {
        match json::parse(bytes) {
            Ok((value, duplicates)) => {
                let locates = |pointer: &str| pointer.split('/').skip(1).all(|step| LOCATING.contains(&step));
                let counts = |key: &Duplicate| self.is_strict() || key.exact && locates(&key.pointer);
                let found: Vec<_> =
                    duplicates.into_iter().filter(counts).map(|key| duplicate(name, key, None)).collect();
                self.findings.extend(found);
                Some(value)
            }
            Err(cause) => {
                self.findings.push(Finding::blocking(finding::Code::Schema, "", format!("{name} {cause}")));
                None
            }
        }
    }
}

/// The finding about a key that occurs twice, and its place if it is known.
fn duplicate(name: &str, key: Duplicate, place: Option<yaml::Place>) -> Finding {
    let help = match place {
        Some(_) => "keep one of them: YAML does not allow a key twice, and readers disagree on which one is used",
        None => "keep one of them: JSON readers disagree on which one is used",
    };
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    Finding::blocking(finding::Code::DuplicateKey, key.pointer, format!("{name} contains a key twice{place}"))
        .help(help)
}

/// The working directory, as far as it is known.
pub(crate) fn working_directory() -> PathBuf {
    absolute(Path::new("."))
}

fn named(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the disk")]
fn exists(path: &Path) -> bool {
    path.exists()
}

/// The path from the root, as far as the working directory is known.
#[expect(clippy::disallowed_methods, reason = "the one reader of the disk")]
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The documents of an instance: the given ones, and valid params and dependencies unless they are among them.
    fn documents(given: &[(&str, Option<&str>)]) -> Documents {
        let valid = [("params.json", Some("{}")), ("dependencies.json", Some("{}"))];
        let document = |name: &str| {
            let content =
                given.iter().chain(&valid).find(|(known, _)| *known == name).and_then(|(_, content)| *content);
            content.map_or_else(|| Document::absent(name), |content| Document::new(name, content.as_bytes()))
        };
        Documents {
            params: document("params.json"),
            dependencies: document("dependencies.json"),
            connections: document("connections.json"),
            config: document("config.json"),
            params_schema: document("schema-params.json"),
            artifacts_schema: document("schema-artifacts.json"),
            bundle: document("massdriver.yaml"),
        }
    }

    /// Pointer and message of each finding.
    fn described(findings: &[Finding]) -> Vec<(&str, &str)> {
        assert!(findings.iter().all(|finding| finding.blocking));
        findings.iter().map(|it| (it.pointer.as_deref().unwrap_or_default(), it.message.as_str())).collect()
    }

    /// Columns: documents, messages for every strictness.
    #[rstest]
    #[case::valid(&[], &[])]
    #[case::no_params(&[("params.json", None)], &["cannot read params.json: entity not found"])]
    #[case::empty_params(&[("params.json", Some(" "))], &["params.json is empty"])]
    #[case::null_params(&[("params.json", Some("null"))], &[])]
    #[case::broken_params(&[("params.json", Some("{"))], &["params.json is incomplete JSON: line 1, column 1"])]
    #[case::no_dependencies(&[("dependencies.json", None)], &["neither dependencies.json nor connections.json exists"])]
    #[case::empty_dependencies(&[("dependencies.json", Some("\n"))], &["neither dependencies.json nor connections.json exists"])]
    #[case::broken_dependencies(&[("dependencies.json", Some("}"))], &["dependencies.json is not valid JSON: line 1, column 1"])]
    #[case::empty_config(&[("config.json", Some(""))], &[])]
    #[case::null_config(&[("config.json", Some("null"))], &[])]
    #[case::broken_config(&[("config.json", Some("x"))], &["config.json is not valid JSON: line 1, column 1"])]
    #[case::broken_bundle(&[("massdriver.yaml", Some("a: ["))], &[])]
    #[case::all_problems(&[("params.json", Some("x")), ("dependencies.json", None), ("config.json", Some("x"))], &["params.json is not valid JSON: line 1, column 1", "neither dependencies.json nor connections.json exists", "config.json is not valid JSON: line 1, column 1"])]
    fn unreadable_document_is_reported(#[case] given: &[(&str, Option<&str>)], #[case] messages: &[&str]) {
        for strictness in [Strictness::Strict, Strictness::OnlyWhatLocatesTheInstance] {
            let (_, findings) = documents(given).parse(strictness);
            assert_eq!(described(&findings), messages.iter().map(|text| ("", *text)).collect::<Vec<_>>());
        }
    }

    #[rstest]
    #[case::dependencies(Some(r#"{"a":1}"#), None, r#"{"a":1}"#)]
    #[case::connections(None, Some(r#"{"b":1}"#), r#"{"b":1}"#)]
    #[case::both(Some(r#"{"a":1}"#), Some(r#"{"b":1}"#), r#"{"a":1}"#)]
    #[case::empty_dependencies(Some(""), Some(r#"{"b":1}"#), r#"{"b":1}"#)]
    #[case::null_dependencies(Some("null"), Some(r#"{"b":1}"#), r#"{"b":1}"#)]
    #[case::dependencies_without_content(Some("{}"), Some(r#"{"b":1}"#), "{}")]
    fn connection_is_read_under_both_names(
        #[case] dependencies: Option<&str>,
        #[case] connections: Option<&str>,
        #[case] expected: &str,
    ) {
        let given = [("dependencies.json", dependencies), ("connections.json", connections)];
        let (inputs, findings) = documents(&given).parse(Strictness::Strict);
        let ClusterInput::Document(document) = inputs.cluster else { panic!("{findings:?}") };
        assert_eq!((document.to_string().as_str(), findings), (expected, vec![]));
    }

    /// Columns: document, content, the duplicate keys for a provision and for a decommission.
    #[rstest]
    #[case::namespace("params.json", r#"{"namespace":"a","namespace":"b"}"#, &["/namespace"], &["/namespace"])]
    #[case::name("params.json", r#"{"md_metadata":{"name_prefix":"a","name_prefix":"b"}}"#, &["/md_metadata/name_prefix"], &["/md_metadata/name_prefix"])]
    #[case::tag("params.json", r#"{"md_metadata":{"default_tags":{"a":1,"a":2}}}"#, &["/md_metadata/default_tags/a"], &[])]
    #[case::rules("params.json", r#"{"rules":[],"rules":[]}"#, &["/rules"], &[])]
    #[case::unprintable("params.json", "{\"md_metadata\":{\"a\\n\":1,\"a\\n\":2}}", &["/md_metadata"], &[])]
    #[case::token("dependencies.json", r#"{"kubernetes_cluster":{"authentication":{"user":{"token":"a","token":"b"}}}}"#, &["/kubernetes_cluster/authentication/user/token"], &["/kubernetes_cluster/authentication/user/token"])]
    #[case::specs("dependencies.json", r#"{"kubernetes_cluster":{"specs":1,"specs":2}}"#, &["/kubernetes_cluster/specs"], &[])]
    #[case::config("config.json", r#"{"timeout_seconds":1,"timeout_seconds":2}"#, &["/timeout_seconds"], &[])]
    fn duplicate_of_a_locating_key_always_blocks(
        #[case] name: &str,
        #[case] content: &str,
        #[case] strict: &[&str],
        #[case] lenient: &[&str],
    ) {
        let message = format!("{name} contains a key twice");
        for (strictness, pointers) in [(Strictness::Strict, strict), (Strictness::OnlyWhatLocatesTheInstance, lenient)]
        {
            let (_, findings) = documents(&[(name, Some(content))]).parse(strictness);
            assert_eq!(described(&findings), pointers.iter().map(|at| (*at, message.as_str())).collect::<Vec<_>>());
        }
    }

    /// Columns: content of both schemas and the bundle, then what is kept of the schemas, and of the bundle.
    #[test]
    fn schemas_are_kept_where_they_differ() {
        let parse = |strictness, params: Option<&str>, artifacts: Option<&str>, bundle: Option<&str>| {
            let given =
                [("schema-params.json", params), ("schema-artifacts.json", artifacts), ("massdriver.yaml", bundle)];
            let (inputs, findings) = documents(&given).parse(strictness);
            let artifacts = match inputs.artifacts_schema {
                ArtifactsSchema::Absent => "absent".to_owned(),
                ArtifactsSchema::Embedded => "embedded".to_owned(),
                ArtifactsSchema::Own(schema) => schema.to_string(),
            };
            (inputs.params_schema, artifacts, inputs.bundle, findings.len())
        };
        let (strict, lenient) = (Strictness::Strict, Strictness::OnlyWhatLocatesTheInstance);
        assert_eq!(parse(strict, None, None, None), (None, "absent".to_owned(), None, 0));
        let embedded = (Some(schema::PARAMS), Some(schema::ARTIFACTS), Some(schema::BUNDLE));
        assert_eq!(parse(strict, embedded.0, embedded.1, embedded.2), (None, "embedded".to_owned(), None, 0));
        let own = parse(strict, Some("{}"), Some("{}"), Some("a: 1"));
        assert_eq!(own, (Some(json!({})), "{}".to_owned(), Some(json!({"a": 1})), 0));
        assert_eq!(parse(strict, Some(""), Some("null"), Some("[")), (None, "absent".to_owned(), None, 0));
        assert_eq!(parse(strict, Some("{"), Some("{"), None), (None, "absent".to_owned(), None, 2));
        assert_eq!(
            parse(lenient, Some("{"), Some("{"), Some("a: 1")),
            (None, "absent".to_owned(), Some(json!({"a": 1})), 0)
        );
    }

    #[test]
    fn document_above_8_mib_is_refused() {
        let read = |size| limited(std::io::repeat(b' ').take(size)).map(|bytes| bytes.len() as u64);
        assert_eq!(read(8 << 20).unwrap(), 8 << 20);
        assert_eq!(read((8 << 20) + 1).unwrap_err().to_string(), "larger than 8 MiB");
    }
}
