//! What is asked for: `Inputs -> Request`, parsed newtypes throughout. Past this point nothing invalid exists, and
//! nothing here has touched the network. Pure.

mod credential;
mod grants;
mod platform;

pub use credential::{Credential, parse as credential};
pub use platform::{FIELD, Platform};

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::{
    artifact::{self, Form},
    cli::{Action, Publishing},
    connection::{self, Connection, Shape, Trust},
    finding::{Finding, Severity, add_new},
    grant::{Authority, Grant, Place, Scope},
    inputs::{ClusterInput, Inputs},
    inventory::Inventory,
    name::{self, InstanceName, Namespace},
    names::Names,
    object::Live,
    ownership::Owner,
    proxy::Route,
    rbac::Rule,
    schema::{self, Schema},
    secret::Token,
    text::{escaped, key_shown, pointer_shown},
};

/// Bound on a whole run when nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(180);

/// One instance: what is to be granted, where, and to whom it is handed.
pub struct Request {
    /// The instance.
    pub name: InstanceName,
    /// Which instance of the platform it is, wherever it is; none when that is not known.
    pub instance: Option<String>,
    /// The names of its objects.
    pub names: Names,
    /// Where it is.
    pub namespace: Namespace,
    /// What the credential may do, place by place: the home namespace first, then the others by name, then the cluster.
    pub grants: Vec<Grant>,
    /// The instance's tags, those that can be labels.
    pub labels: BTreeMap<String, String>,
    /// The cluster.
    pub connection: Connection,
    /// What the artifact looks like.
    pub form: Form,
    /// Where it is published, if it is.
    pub platform: Option<Platform>,
    /// Bound on the whole run.
    pub timeout: Duration,
}

impl Request {
    /// Whose an object is: this instance's when it carries its name and home namespace.
    #[must_use]
    pub fn owner(&self, live: &Live) -> Owner {
        self.names.owner(live)
    }

    /// True when an object is this instance's, whoever made it.
    #[must_use]
    pub fn owns(&self, live: &Live) -> bool {
        !matches!(self.owner(live), Owner::Foreign(_))
    }

    /// True when something is to be at this place.
    #[must_use]
    pub fn wants(&self, place: &Place) -> bool {
        self.grants.iter().any(|grant| grant.place == *place)
    }

    /// The rules of our own Role at this place.
    #[must_use]
    pub fn rules(&self, place: &Place) -> &[Rule] {
        self.grants.iter().find(|grant| grant.place == *place).map_or(&[], |grant| &grant.rules)
    }

    /// What the ServiceAccount has to remember: the places of this request, and these beside them.
    #[must_use]
    pub fn inventory_with(&self, more: impl IntoIterator<Item = Place>) -> Inventory {
        self.grants.iter().map(|grant| grant.place.clone()).chain(more).collect()
    }

    /// Every token that the request holds, for the redactor.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.connection.login.token().into_iter().chain(self.platform.iter().map(|platform| &platform.token))
    }

    /// The ways that this run takes, each with where it leads.
    pub fn routes(&self) -> impl Iterator<Item = (String, &Route)> {
        let cluster = (self.connection.server.as_str().to_owned(), &self.connection.route);
        let platform = self.platform.iter().map(|platform| (platform.address(), &platform.route));
        [cluster].into_iter().chain(platform)
    }

    /// The passwords of proxies, for the redactor.
    pub fn passwords(&self) -> impl Iterator<Item = &SecretString> {
        self.routes().filter_map(|(_, route)| route.proxy()?.secret())
    }
}

/// How the request was put.
pub struct Terms {
    /// What is to be done.
    pub action: Action,
    /// Whether the platform is told.
    pub publish: Publishing,
    /// The command line's bound on the whole run.
    pub timeout_seconds: Option<u64>,
}

/// A request that passed, or none, and what there is to say about the input either way.
pub type Parsed = (Option<Request>, Vec<Finding>);

/// Parses everything and reports every problem at once; `findings` are those of reading.
#[must_use]
pub fn parse(inputs: &Inputs, terms: &Terms, mut findings: Vec<Finding>) -> Parsed {
    check_config(inputs, terms.action, &mut findings);
    let params = params(inputs, terms.action, name, &mut findings);
    let connection = keep(&mut findings, connection(inputs, terms));
    let connection = connection.map(|(connection, mut remarks)| {
        findings.append(&mut remarks);
        connection
    });
    let platform = if terms.publish == Publishing::Never {
        Some(None)
    } else {
        let name = params.as_ref().map_or("", |params| params.name.as_str());
        let bundle = inputs.bundle.as_ref();
        let parsed = platform::parse(&inputs.platform, name, terms.publish, bundle, &inputs.proxies);
        keep(&mut findings, parsed).map(Some)
    };
    let timeout = timeout(inputs, terms, &mut findings);
    let form = if terms.action == Action::Decommission {
        // Nothing is handed out, so nothing that is wrong with the form may keep a token alive.
        connection.as_ref().and_then(|connection| Form::embedded(connection.shape))
    } else {
        let wishes = wishes(inputs, &mut findings);
        params.as_ref().zip(connection.as_ref()).and_then(|(params, connection)| {
            form(inputs, wishes, connection, &Names::of(&params.name, &params.namespace), &mut findings)
        })
    };
    let refused = findings.iter().any(|finding| finding.blocking);
    let request = match (params, connection, platform, form) {
        (Some(params), Some(connection), Some(platform), Some(form)) if !refused => Some(Request {
            // What a command line names by itself is no instance of the platform, whatever the environment says.
            instance: inputs.name.is_none().then(|| platform::instance(&inputs.platform)).flatten(),
            names: Names::of(&params.name, &params.namespace),
            name: params.name,
            namespace: params.namespace,
            grants: params.grants,
            labels: params.labels,
            connection,
            form,
            platform,
            timeout,
        }),
        _ => None,
    };
    (request, findings)
}

/// The options of `config.json`.
const OPTIONS: [&str; 5] = ["namespace", connection::SLOT, "output_shape", "emit_namespace", "timeout_seconds"];

/// What `config.json` has that is no option, and what has the wrong form as a whole; each option is read where it
/// counts. The platform fills the file for provisioners of many kinds, so what we do not know is passed over.
fn check_config(inputs: &Inputs, action: Action, findings: &mut Vec<Finding>) {
    let Some(config) = inputs.config.as_object() else {
        if inputs.config.is_null() {
            return;
        }
        let problem = match action {
            // It cannot say that the instance is elsewhere.
            Action::Decommission => {
                Finding::remark("unknown-config", Severity::Low, "config.json is not an object: it has no effect")
            }
            _ => Finding::refusal("schema", "config.json must be of type object (type)"),
        };
        findings.push(problem);
        return;
    };
    let unknown = config.keys().filter(|key| !OPTIONS.contains(&key.as_str())).map(|key| ("", "", key));
    let cluster = config.get(connection::SLOT).filter(|value| !value.is_null());
    if cluster.is_some_and(|cluster| !cluster.is_object()) {
        let text = "kubernetes_cluster of config.json must be of type object (type)";
        findings.push(Finding::blocking("schema", pointer("", connection::SLOT), text));
    }
    let within = cluster.and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let within =
        within.filter(|key| *key != "authentication").map(|key| ("kubernetes_cluster of ", "/kubernetes_cluster", key));
    for (part, at, key) in unknown.chain(within) {
        let text = format!("unknown option {} in {part}config.json: it has no effect", key_shown(key));
        findings.push(Finding::remark("unknown-config", Severity::Low, text).at(pointer(at, key)));
    }
}

/// Params that passed. Those of a run name an instance, those that stand alone may.
pub struct Params<N> {
    /// The instance.
    pub name: N,
    /// Where it is.
    pub namespace: Namespace,
    /// What the credential may do, as a [`Request`] has it.
    pub grants: Vec<Grant>,
    labels: BTreeMap<String, String>,
}

/// Judges params that stand alone as [`parse`] judges those of a provision: all problems at once. Only the name may be
/// missing, which a command line says by itself.
#[must_use]
pub fn check(inputs: &Inputs, mut findings: Vec<Finding>) -> (Option<Params<Option<InstanceName>>>, Vec<Finding>) {
    let named = inputs.name.is_some() || inputs.params.pointer("/md_metadata/name_prefix").is_some();
    let name = |inputs: &Inputs, findings: &mut Vec<Finding>| {
        if named { name(inputs, findings).map(Some) } else { Some(None) }
    };
    let params = params(inputs, Action::Provision, name, &mut findings);
    (params.filter(|_| !findings.iter().any(|finding| finding.blocking)), findings)
}

fn params<N>(
    inputs: &Inputs,
    action: Action,
    name: impl FnOnce(&Inputs, &mut Vec<Finding>) -> Option<N>,
    findings: &mut Vec<Finding>,
) -> Option<Params<N>> {
    let document = &inputs.params;
    if document.is_null() && findings.iter().any(|finding| finding.blocking) {
        return None; // it could not be read, which has been said
    }
    let overridden = inputs.config.get("namespace").filter(|value| !value.is_null());
    let mut effective = document.clone();
    if let (Some(namespace), Some(params)) = (overridden, effective.as_object_mut()) {
        params.insert("namespace".to_owned(), namespace.clone());
    }
    let mut problems = if action == Action::Decommission {
        // What is taken back need not be sound: a rule that nobody may grant any more must not keep a token alive.
        check_namespace(&effective)
    } else {
        check_params(inputs, &effective)
    };
    if overridden.is_some() {
        for problem in problems.iter_mut().filter(|problem| problem.pointer.as_deref() == Some("/namespace")) {
            problem.message = format!("namespace of config.json: {}", problem.message);
        }
    }
    let sound = !problems.iter().any(|finding| finding.blocking);
    findings.append(&mut problems);

    // Of the form that the schema has just proved.
    let namespace = Namespace::parse(effective.get("namespace").and_then(Value::as_str).unwrap_or_default());
    if let (Some(Value::String(ours)), Some(Value::String(theirs))) = (overridden, document.get("namespace"))
        && ours != theirs
    {
        let text = "config.json names another namespace than the params, and wins";
        findings.push(Finding::remark("namespace-overridden", Severity::Info, text).at("/namespace"));
    }
    let name = name(inputs, findings);
    let labels = labels(document, findings);
    let (name, namespace) = (name?, namespace.ok().filter(|_| sound)?);
    let home = Place::new(Scope::Namespace(namespace.clone()), Authority::Rules);
    let (mut grants, mut unread) = grants::parse(document, &home);
    let inventory: Inventory = grants.iter().map(|grant| grant.place.clone()).collect();
    let length = inventory.text(&home).map_or(0, |text| text.len());
    if action == Action::Decommission {
        if length > Inventory::LONGEST {
            // Nobody was ever granted this: what was granted stands in the inventory.
            grants.clear();
        }
    } else {
        findings.append(&mut unread);
        if length > Inventory::LONGEST {
            let text = format!(
                "too many places: the list of them takes {length} bytes, and the ServiceAccount has room for {}; \
                 use several instances, or `*`",
                Inventory::LONGEST
            );
            findings.push(Finding::blocking("schema", "", text));
        }
    }
    Some(Params { name, namespace, grants, labels })
}

/// All that a decommission needs of the params.
fn check_namespace(document: &Value) -> Vec<Finding> {
    let understood: Value = serde_json::from_str(schema::PARAMS).unwrap_or_default();
    let form = understood.pointer("/properties/namespace").cloned().unwrap_or_default();
    match (document.get("namespace"), Schema::new(form)) {
        (Some(namespace), Ok(form)) => form.check("/namespace", namespace),
        _ => vec![Finding::blocking("schema", "", "the field `namespace` is missing (required)")],
    }
}

/// Holds the params against what this program understands, and against the bundle's own form where it differs: a
/// form that lets an unknown field of a rule pass must not widen a grant.
fn check_params(inputs: &Inputs, document: &Value) -> Vec<Finding> {
    let Some(params) = document.as_object() else {
        return vec![Finding::blocking("schema", "", "the params must be of type object (type)")];
    };
    let understood: Value = serde_json::from_str(schema::PARAMS).unwrap_or_default();
    let known = understood.get("properties").cloned().unwrap_or_default();
    let mut findings: Vec<Finding> = Vec::new();
    for (source, schema) in [("the embedded ", Some(&understood)), ("bundle/", inputs.params_schema.as_ref())] {
        let Some(schema) = schema else { continue };
        match Schema::new(schema.clone()) {
            Ok(schema) => add_new(&mut findings, schema.check("", document)),
            Err(problem) => {
                findings.push(Finding::refusal("schema", format!("{source}schema-params.json is {problem}")));
            }
        }
    }
    // The platform adds the one, and its form the name of the preset that was chosen.
    let platform = ["md_metadata", "__name"];
    for key in params.keys().filter(|key| !platform.contains(&key.as_str()) && known.get(key).is_none()) {
        let text = format!("unknown param {}: it has no effect", key_shown(key));
        findings.push(Finding::remark("unknown-param", Severity::Low, text).at(pointer("", key)));
    }
    findings
}

fn name(inputs: &Inputs, findings: &mut Vec<Finding>) -> Option<InstanceName> {
    let prefix = inputs.params.pointer("/md_metadata/name_prefix");
    let (text, place) = match (&inputs.name, prefix) {
        (Some(name), _) => (Some(name.as_str()), "--name"),
        (None, Some(prefix)) => (prefix.as_str(), "md_metadata.name_prefix"),
        (None, None) => (None, "md_metadata.name_prefix"),
    };
    let at = if inputs.name.is_some() { "" } else { "/md_metadata/name_prefix" };
    let problem = match text.map(InstanceName::parse) {
        Some(Ok(name)) => return Some(name),
        Some(Err(problem)) => Finding::blocking("name", at, format!("{place}: {problem}")),
        None if prefix.is_some() => Finding::blocking("name", at, format!("{place} must be of type string")),
        None if inputs.params.get("md_metadata").is_some_and(|metadata| !metadata.is_object()) => {
            Finding::blocking("name", "/md_metadata", "md_metadata must be of type object: the name is in it")
        }
        None => {
            // What is missing is reported where it would stand, by name.
            let at = if inputs.params.get("md_metadata").is_some() { "/md_metadata" } else { "" };
            let text = "the instance has no name: --name, or the field `name_prefix` of md_metadata in the params";
            Finding::blocking("name", at, text)
        }
    };
    findings.push(problem);
    None
}

fn labels(params: &Value, findings: &mut Vec<Finding>) -> BTreeMap<String, String> {
    let tags = params.pointer("/md_metadata/default_tags").filter(|tags| !tags.is_null());
    if tags.is_some_and(|tags| !tags.is_object()) {
        let text = "the tags are no labels of the objects: they are not an object";
        findings.push(Finding::remark("label-dropped", Severity::Low, text).at("/md_metadata/default_tags"));
    }
    let tags = tags.and_then(Value::as_object);
    let mut labels = BTreeMap::new();
    for (key, value) in tags.into_iter().flatten() {
        match name::label(key, value) {
            Ok(value) => {
                labels.insert(key.clone(), value);
            }
            Err(problem) => {
                let text = format!("the tag {} is no label of the objects: {problem}", key_shown(key));
                let at = pointer("/md_metadata/default_tags", key);
                findings.push(Finding::remark("label-dropped", Severity::Low, text).at(at));
            }
        }
    }
    labels
}

fn connection(inputs: &Inputs, terms: &Terms) -> Result<(Connection, Vec<Finding>), Vec<Finding>> {
    let (mut connection, remarks) = match &inputs.cluster {
        ClusterInput::Missing => Err(Vec::new()), // the reader has said why
        ClusterInput::Document(document) => connection::from_document(document, inputs.config.get(connection::SLOT)),
        ClusterInput::Kubeconfig(context) => {
            connection::from_kubeconfig(context).map(|connection| (connection, context.remarks.clone()))
        }
    }?;
    let refused = |text: String| vec![Finding::refusal("connection", text)];
    if let Some(name) = &inputs.tls_server_name {
        let name = connection::server_name(name).map_err(|problem| refused(format!("--tls-server-name {problem}")))?;
        connection.tls_server_name = Some(name);
    }
    let host = connection.server.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    connection.tls_server_name = connection.tls_server_name.filter(|name| name.to_str() != host);
    if terms.publish != Publishing::Never
        && terms.action != Action::Decommission
        && connection.tls_server_name.is_some()
    {
        let text = "the artifact cannot say a tls-server-name, and whoever gets it from the platform could not be told: \
                    publish with a server whose certificate is for its host";
        return Err(refused(text.to_owned()));
    }
    if connection.route.proxy().is_none() {
        connection.route = inputs.proxies.route_to(connection.server.uri()).map_err(refused)?;
    }
    Ok((connection, remarks))
}

fn timeout(inputs: &Inputs, terms: &Terms, findings: &mut Vec<Finding>) -> Duration {
    let configured = inputs.config.get("timeout_seconds").filter(|value| !value.is_null());
    let seconds = configured.and_then(Value::as_u64).filter(|seconds| (1..=86_400).contains(seconds));
    if configured.is_some() && seconds.is_none() && terms.action != Action::Decommission {
        let text = "timeout_seconds of config.json must be a whole number from 1 to 86400";
        findings.push(Finding::blocking("schema", "/timeout_seconds", text));
    }
    timeout_or(terms.timeout_seconds.or(seconds))
}

/// The bound on a whole run, in seconds if it is said.
#[must_use]
pub fn timeout_or(seconds: Option<u64>) -> Duration {
    seconds.map_or(TIMEOUT, Duration::from_secs)
}

/// What `config.json` says of the artifact: its shape and whether it names its namespace, as far as it says either.
fn wishes(inputs: &Inputs, findings: &mut Vec<Finding>) -> (Option<Shape>, Option<bool>) {
    let option = |key: &str| inputs.config.get(key).filter(|value| !value.is_null());
    let shape = match option("output_shape").map(|value| value.as_str().unwrap_or_default()) {
        None | Some("auto") => None,
        Some("flat") => Some(Shape::Flat),
        Some("legacy") => Some(Shape::Legacy),
        Some(_) => {
            let text = "output_shape of config.json must be auto, legacy or flat";
            findings.push(Finding::blocking("schema", "/output_shape", text));
            None
        }
    };
    let emit = match option("emit_namespace") {
        None => None,
        Some(Value::Bool(emit)) => Some(*emit),
        Some(_) => {
            let text = "emit_namespace of config.json must be true or false";
            findings.push(Finding::blocking("schema", "/emit_namespace", text));
            None
        }
    };
    (shape, emit)
}

/// Decides what the artifact looks like, and proves with an example of a token that it will fit its schema.
fn form(
    inputs: &Inputs,
    (shape, emit): (Option<Shape>, Option<bool>),
    connection: &Connection,
    names: &Names,
    findings: &mut Vec<Finding>,
) -> Option<Form> {
    let namespace = names.namespace();
    let shape = shape.unwrap_or(connection.shape);
    let theirs = inputs.artifacts_schema.as_ref().and_then(|schema| schema.pointer("/properties/token"));
    let theirs = theirs.filter(|schema| shape_of(schema) == Some(shape));
    let declared = theirs.is_some_and(|schema| schema.pointer("/properties/namespace").is_some());
    let says = shape == Shape::Flat && emit.unwrap_or(connection.names_namespace || declared);
    let (source, document) = match theirs {
        Some(schema) => ("bundle/schema-artifacts.json", schema.clone()),
        None => ("the type of the artifact", schema::cluster(shape)),
    };
    let schema = match Schema::new(document) {
        Ok(schema) => schema,
        Err(problem) => {
            findings.push(Finding::blocking("schema", "", format!("{source} is {problem}")));
            return None;
        }
    };
    let form = Form { shape, namespace: says.then(|| namespace.clone()), schema };
    let ca = match &connection.ca {
        Trust::Given(ca) => Cow::Borrowed(ca.as_base64()),
        Trust::System => Cow::Owned(artifact::example_ca()),
    };
    let token = artifact::example_token(namespace.as_str(), names.object())?;
    match form.fill(connection, &ca, &token) {
        Err(problems) => {
            findings.extend(problems.into_iter().map(|problem| Finding {
                message: format!("the artifact would not fit {source}: {}", problem.message),
                ..problem
            }));
            None
        }
        Ok(artifact) => {
            // Of a token that is a word, nothing can be said.
            let parent = connection.login.token().filter(|token| token.is_telling());
            if let Some(place) = parent.and_then(|token| artifact.place_of(token)) {
                let text = format!(
                    "the connection's token stands in {} as well, and would be handed on with the artifact",
                    pointer_shown(&place)
                );
                findings.push(Finding::refusal("connection", text));
                return None;
            }
            Some(form)
        }
    }
}

/// The shape that a type describes, if it describes one.
fn shape_of(schema: &Value) -> Option<Shape> {
    let has = |key: &str| {
        let required = schema.get("required").and_then(Value::as_array);
        required.is_some_and(|required| required.iter().any(|name| name == key))
            || schema.get("properties").is_some_and(|properties| properties.get(key).is_some())
    };
    match (has("authentication"), has("data")) {
        (true, _) => Some(Shape::Flat),
        (false, true) => Some(Shape::Legacy),
        (false, false) => None,
    }
}

fn keep<T>(findings: &mut Vec<Finding>, result: Result<T, Vec<Finding>>) -> Option<T> {
    result.map_err(|mut problems| findings.append(&mut problems)).ok()
}

fn pointer(base: &str, key: &str) -> String {
    format!("{base}/{}", escaped(key))
}
