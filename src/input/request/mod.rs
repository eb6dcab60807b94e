//! The request: `Inputs` -> what each command needs, as validated types, with all problems at once. Nothing invalid
//! exists past here, and no code here uses the network. Pure.

mod config;
pub(crate) mod connection;
mod context;
mod credential;
mod form;
mod grants;
mod params;
mod platform;

pub(crate) use config::timeout_or_default;
pub(crate) use credential::{Credential, parse as credential};
pub(crate) use params::{Params, check, readable_grants};
pub(crate) use platform::{FIELD, Platform};

use std::{collections::BTreeMap, time::Duration};

use crate::{
    cli::Publishing,
    credential::artifact::Form,
    diagnostics::{
        finding::{self, Finding},
        text::escaped,
    },
    endpoint::connection::{Connection, server_name},
    input::documents::{ClusterInput, Inputs, SLOT, Strictness},
    k8s::{
        grant::Grants,
        name::{InstanceName, Namespace},
        object::Live,
        object_names::Names,
        ownership::Owner,
    },
};

/// An instance: one credential with its name and namespace.
pub(crate) struct Instance {
    /// Its name.
    pub(crate) name: InstanceName,
    /// Its home namespace.
    pub(crate) namespace: Namespace,
    /// The names of its objects.
    pub(crate) names: Names,
    /// Its tags that can be labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// `<organization>/<instance>` at the platform, unique across clusters and namespaces; none if unknown.
    pub(crate) platform_id: Option<String>,
}

impl Instance {
    /// The owner of an object: this instance, when it carries its name and home namespace.
    pub(crate) fn owner(&self, live: &Live) -> Owner {
        self.names.owner(live)
    }

    /// Whether an object belongs to this instance, whoever created it.
    pub(crate) fn owns(&self, live: &Live) -> bool {
        !matches!(self.owner(live), Owner::Foreign(_))
    }
}

/// An instance in a cluster, and its grants.
pub(crate) struct Request {
    /// The instance.
    pub(crate) instance: Instance,
    /// The cluster.
    pub(crate) connection: Connection,
    /// The grants of the credential, place by place.
    pub(crate) grants: Grants,
}

/// The published document and its destination.
pub(crate) struct Delivery {
    /// The format of the document.
    pub(crate) form: Form,
    /// The platform, if it is published.
    pub(crate) platform: Option<Platform>,
}

/// The input of plan and provision.
pub(crate) struct Provision {
    /// The instance, the cluster and the grants.
    pub(crate) request: Request,
    /// The published document.
    pub(crate) delivery: Delivery,
    /// The time limit of the run.
    pub(crate) timeout: Duration,
}

/// The input of decommission.
pub(crate) struct Decommission {
    /// The instance, the cluster and the grants, whose places may have objects that no inventory records.
    pub(crate) request: Request,
    /// The platform, if the document was published.
    pub(crate) platform: Option<Platform>,
    /// The time limit of the run.
    pub(crate) timeout: Duration,
}

/// The parsed input with non-blocking findings; or all findings.
pub(crate) type Parsed<T> = Result<(T, Vec<Finding>), Vec<Finding>>;

/// Parses the input of a plan or a provision; `findings` are those of reading, `timeout` is that of the command line.
///
/// # Errors
/// All findings, at least one of which is blocking.
pub(crate) fn provision(
    inputs: &Inputs,
    publish: Publishing,
    timeout: Option<u64>,
    mut findings: Vec<Finding>,
) -> Parsed<Provision> {
    let strictness = Strictness::Strict;
    config::check(&inputs.config, strictness, &mut findings);
    let wanted = instance_and_grants(inputs, strictness, &mut findings);
    let connection = connection(inputs, inputs.config.get(SLOT), &mut findings);
    if publish != Publishing::Never && connection.as_ref().is_some_and(|it| it.tls_server_name.is_some()) {
        let text = "a tls-server-name cannot be published, because the credential document has no field for it \
                    (expected a server whose certificate is valid for the host of its URL)";
        findings.push(Finding::refusal(finding::Code::Connection, text));
    }
    let platform = platform(inputs, publish, wanted.as_ref().map(|(instance, _)| instance), &mut findings);
    let timeout = config::timeout(&inputs.config, timeout, strictness, &mut findings);
    let options = config::artifact(&inputs.config, &mut findings);
    let provision = wanted.zip(connection).and_then(|((instance, grants), connection)| {
        let form = form::parse(&inputs.artifacts_schema, options, &connection, &instance.names, &mut findings)?;
        let request = Request { instance, connection, grants };
        Some(Provision { request, delivery: Delivery { form, platform }, timeout })
    });
    settle(provision, findings)
}

/// Parses the input of a decommission. Other invalid input must not keep a token alive.
///
/// # Errors
/// All findings, at least one of which is blocking.
pub(crate) fn decommission(
    inputs: &Inputs,
    publish: Publishing,
    timeout: Option<u64>,
    mut findings: Vec<Finding>,
) -> Parsed<Decommission> {
    let strictness = Strictness::OnlyWhatLocatesTheInstance;
    config::check(&inputs.config, strictness, &mut findings);
    let wanted = instance_and_grants(inputs, strictness, &mut findings);
    let connection = connection(inputs, inputs.config.get(SLOT), &mut findings);
    let platform = platform(inputs, publish, wanted.as_ref().map(|(instance, _)| instance), &mut findings);
    let timeout = config::timeout(&inputs.config, timeout, strictness, &mut findings);
    let decommission = wanted.zip(connection).map(|((instance, grants), connection)| {
        let request = Request { instance, connection, grants };
        Decommission { request, platform, timeout }
    });
    settle(decommission, findings)
}

/// The value, unless a finding refuses the input.
fn settle<T>(value: Option<T>, findings: Vec<Finding>) -> Parsed<T> {
    match value {
        Some(value) if !findings.iter().any(|finding| finding.blocking) => Ok((value, findings)),
        _ => Err(findings),
    }
}

fn instance_and_grants(
    inputs: &Inputs,
    strictness: Strictness,
    findings: &mut Vec<Finding>,
) -> Option<(Instance, Grants)> {
    let params = params::parse(inputs, strictness, findings);
    if params::is_unread(inputs, findings) {
        return None;
    }
    let name = params::name(inputs, findings);
    let labels = params::labels(&inputs.params, findings);
    let (name, Params { namespace, grants }) = name.zip(params)?;
    // An instance that only the command line names is none of the platform, whatever the environment contains.
    let platform_id = inputs.name.is_none().then(|| platform::instance(&inputs.platform)).flatten();
    Some((Instance { names: Names::of(&name, &namespace), name, namespace, labels, platform_id }, grants))
}

/// The connection, with its tls-server-name and its proxy; `overrides` are those of `config.json`.
fn connection(
    inputs: &Inputs,
    overrides: Option<&serde_json::Value>,
    findings: &mut Vec<Finding>,
) -> Option<Connection> {
    let read = match &inputs.cluster {
        ClusterInput::Missing => return None, // the reader has reported why
        ClusterInput::Document(document) => connection::parse(document, overrides),
        ClusterInput::Kubeconfig(context) => {
            context::parse(context).map(|connection| (connection, context.remarks.clone()))
        }
    };
    let routed = read.and_then(|(connection, remarks)| Ok((routed(connection, inputs)?, remarks)));
    let (connection, mut remarks) = keep(findings, routed)?;
    findings.append(&mut remarks);
    Some(connection)
}

fn routed(mut connection: Connection, inputs: &Inputs) -> Result<Connection, Vec<Finding>> {
    let refused = |text: String| vec![Finding::refusal(finding::Code::Connection, text)];
    if let Some(name) = &inputs.tls_server_name {
        let name = server_name(name).map_err(|problem| refused(format!("--tls-server-name {problem}")))?;
        connection.tls_server_name = Some(name);
    }
    let host = connection.server.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    connection.tls_server_name = connection.tls_server_name.filter(|name| name.to_str() != host);
    if connection.route.proxy().is_none() {
        connection.route = inputs.proxies.route_to(connection.server.uri()).map_err(refused)?;
    }
    Ok(connection)
}

fn platform(
    inputs: &Inputs,
    publish: Publishing,
    instance: Option<&Instance>,
    findings: &mut Vec<Finding>,
) -> Option<Platform> {
    if publish == Publishing::Never {
        return None;
    }
    let name = instance.map_or("", |instance| instance.name.as_str());
    keep(findings, platform::parse(&inputs.platform, name, publish, inputs.bundle.as_ref(), &inputs.proxies))
}

fn keep<T>(findings: &mut Vec<Finding>, result: Result<T, Vec<Finding>>) -> Option<T> {
    result.map_err(|mut problems| findings.append(&mut problems)).ok()
}

fn pointer(base: &str, key: &str) -> String {
    format!("{base}/{}", escaped(key))
}
