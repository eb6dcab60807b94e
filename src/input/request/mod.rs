//! The request: `Inputs` -> what each command needs, as validated types, with all problems at once. Nothing invalid
//! exists past here, and no code here uses the network. Pure.

mod config;
pub(crate) mod connection;
mod context;
mod credential;
mod form;
mod grants;
pub(crate) mod guardrails;
mod params;
mod platform;

pub(crate) use config::timeout_or_default;
pub(crate) use credential::{Credential, parse as credential};
pub(crate) use params::{Checked, Params, check, identity, readable_grants};
pub(crate) use platform::{FIELD, Platform};

use std::{collections::BTreeMap, time::Duration};

use guardrails::Guardrails;

use crate::{
    cli::Publishing,
    credential::artifact::Form,
    diagnostics::{
        finding::{self, Finding, set_source},
        text::escaped,
    },
    endpoint::connection::{Connection, server_name},
    input::documents::{CONFIG, ClusterInput, Inputs, SLOT, Strictness},
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
    /// The limits of params and `config.json` on what may be granted.
    pub(crate) guardrails: Guardrails,
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
    from_config(&mut findings, |findings| config::check(&inputs.config, strictness, findings));
    let wanted = instance_and_grants(inputs, strictness, &mut findings);
    let connection = connection(inputs, inputs.config.get(SLOT), &mut findings);
    if publish != Publishing::Never && connection.as_ref().is_some_and(|it| it.tls_server_name.is_some()) {
        let text = "a tls-server-name cannot be published, because the credential document has no field for it \
                    (expected a server whose certificate is valid for the host of its URL)";
        findings.push(Finding::refusal(finding::Code::Connection, text));
    }
    let platform = platform(inputs, publish, wanted.as_ref().map(|(instance, _)| instance), &mut findings);
    let timeout = from_config(&mut findings, |findings| config::timeout(&inputs.config, timeout, strictness, findings));
    let options = from_config(&mut findings, |findings| config::artifact(&inputs.config, findings));
    let guardrails = guardrails::parse(inputs, &mut findings);
    let provision = wanted.zip(connection).and_then(|((instance, grants), connection)| {
        let form = form::parse(&inputs.artifacts_schema, options, &connection, &instance.names, &mut findings)?;
        let request = Request { instance, connection, grants };
        Some(Provision { request, delivery: Delivery { form, platform }, guardrails, timeout })
    });
    settle(provision, findings)
}

/// Parses params as those of a provision, and the cluster connection; the instance need not be named.
///
/// # Errors
/// All findings, at least one of which is blocking.
pub(crate) fn check_with_connection(inputs: &Inputs, mut findings: Vec<Finding>) -> Parsed<(Checked, Connection)> {
    let connection = connection(inputs, inputs.config.get(SLOT), &mut findings);
    let (checked, findings) = check(inputs, findings)?;
    settle(connection.map(|connection| (checked, connection)), findings)
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
    from_config(&mut findings, |findings| config::check(&inputs.config, strictness, findings));
    let wanted = instance_and_grants(inputs, strictness, &mut findings);
    let connection = connection(inputs, inputs.config.get(SLOT), &mut findings);
    let platform = platform(inputs, publish, wanted.as_ref().map(|(instance, _)| instance), &mut findings);
    let timeout = from_config(&mut findings, |findings| config::timeout(&inputs.config, timeout, strictness, findings));
    let decommission = wanted.zip(connection).map(|((instance, grants), connection)| {
        let request = Request { instance, connection, grants };
        Decommission { request, platform, timeout }
    });
    settle(decommission, findings)
}

/// Reads options of `config.json`, which is the source of what is found in them.
fn from_config<T>(findings: &mut Vec<Finding>, read: impl FnOnce(&mut Vec<Finding>) -> T) -> T {
    let known = findings.len();
    let result = read(findings);
    set_source(&mut findings[known..], CONFIG);
    result
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
    if inputs.params_unread {
        return None;
    }
    let name = params::name(inputs, findings);
    let labels = params::labels(inputs, findings);
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rstest::rstest;
    use serde_json::{Value, json};
    use testbed::{Forged, Key, Spec};

    use super::*;
    use crate::input::documents::PlatformInput;

    static CA: LazyLock<String> = LazyLock::new(|| Forged::self_signed(&Spec::ca("ca"), Key::p256()).base64());

    /// A CA bundle, as in a connection.
    pub(super) fn ca() -> &'static str {
        &CA
    }

    /// `authentication` of a valid connection.
    pub(super) fn authentication() -> Value {
        json!({
            "cluster": {"server": "https://a.example.com", "certificate-authority-data": ca()},
            "user": {"token": "the-parents-token"},
        })
    }

    /// The valid input of an instance `demo` in the namespace `home`.
    pub(super) fn inputs() -> Inputs {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        Inputs {
            params: json!({"namespace": "home", "rules": [rule], "md_metadata": {"name_prefix": "demo"}}),
            cluster: ClusterInput::Document(json!({"kubernetes_cluster": {"authentication": authentication()}})),
            ..Inputs::default()
        }
    }

    /// Code and pointer of each finding.
    pub(super) fn located(findings: &[Finding]) -> Vec<(&'static str, &str)> {
        findings.iter().map(|it| (it.code.as_str(), it.pointer.as_deref().unwrap_or("-"))).collect()
    }

    fn unpublished(inputs: &Inputs) -> Parsed<Provision> {
        provision(inputs, Publishing::Never, None, Vec::new())
    }

    #[test]
    fn valid_input_becomes_a_request() {
        let (input, remarks) = unpublished(&inputs()).unwrap_or_else(|findings| panic!("{findings:?}"));
        assert_eq!(remarks, []);
        assert_eq!((input.request.instance.name.as_str(), input.request.instance.namespace.as_str()), ("demo", "home"));
        assert_eq!((input.request.grants.iter().count(), input.timeout), (1, Duration::from_secs(180)));
        assert!(input.delivery.platform.is_none());
        let (input, _) = decommission(&inputs(), Publishing::Never, Some(7), Vec::new()).ok().unwrap();
        assert_eq!((input.request.instance.name.as_str(), input.timeout), ("demo", Duration::from_secs(7)));
    }

    /// Columns: an alteration of the input, the findings of a provision, those of a decommission; `!` marks one that
    /// blocks.
    #[rstest]
    #[case::unreadable_cluster(|it: &mut Inputs| it.cluster = ClusterInput::Missing, &[], &[])]
    #[case::namespace(|it: &mut Inputs| it.params["namespace"] = json!("A"), &["!schema /namespace"], &["!schema /namespace"])]
    #[case::name(|it: &mut Inputs| it.name = Some("A".to_owned()), &["!name "], &["!name "])]
    #[case::rules(|it: &mut Inputs| it.params["rules"] = json!([{}]), &["!schema /rules/0", "!schema /rules/0", "!schema /rules/0"], &[])]
    #[case::config(|it: &mut Inputs| it.config = json!([]), &["!schema -"], &["unknown-config -"])]
    #[case::guardrails(|it: &mut Inputs| { it.params["guardrails"] = json!({"max_risks": "low"}); it.config = json!({"guardrails": {"max_risk": 1}}); }, &["!schema /guardrails", "!schema /guardrails/max_risk", "!schema /guardrails/max_risk"], &[])]
    #[case::timeout(|it: &mut Inputs| it.config = json!({"timeout_seconds": 0}), &["!schema /timeout_seconds"], &[])]
    #[case::server(|it: &mut Inputs| it.config = json!({"kubernetes_cluster": {"authentication": {"cluster": {"server": ""}}}}), &["!connection /kubernetes_cluster/authentication/cluster/server"], &["!connection /kubernetes_cluster/authentication/cluster/server"])]
    #[case::tls_server_name(|it: &mut Inputs| it.tls_server_name = Some("a:1".to_owned()), &["!connection -"], &["!connection -"])]
    #[case::proxy(|it: &mut Inputs| it.proxies.https = Some(("HTTPS_PROXY", "ftp://a".to_owned())), &["!connection -"], &["!connection -"])]
    #[case::all_at_once(|it: &mut Inputs| { it.params = json!({"namespace": 1, "cluster_roles": [{"name": "view"}]}); it.cluster = ClusterInput::Document(json!({})); it.config = json!({"timeout_seconds": 0}); }, &["!schema /namespace", "!name ", "!schema ", "!schema /timeout_seconds"], &["!schema /namespace", "!name ", "!schema "])]
    fn all_problems_are_reported_at_once(
        #[case] alter: impl Fn(&mut Inputs),
        #[case] strict: &[&str],
        #[case] lenient: &[&str],
    ) {
        let mut inputs = inputs();
        alter(&mut inputs);
        let blocked = matches!(inputs.cluster, ClusterInput::Missing);
        let shown = |findings: &[Finding]| -> Vec<String> {
            let blocks = findings.iter().map(|finding| if finding.blocking { "!" } else { "" });
            blocks.zip(located(findings)).map(|(blocks, (code, at))| format!("{blocks}{code} {at}")).collect()
        };
        let provision = unpublished(&inputs).map(|(_, findings)| findings);
        let decommission = decommission(&inputs, Publishing::Never, None, Vec::new()).map(|(_, findings)| findings);
        for (parsed, expected) in [(provision, strict), (decommission, lenient)] {
            let is_refused = blocked || expected.iter().any(|finding| finding.starts_with('!'));
            assert_eq!(parsed.is_err(), is_refused, "{expected:?}");
            assert_eq!(shown(&parsed.unwrap_or_else(|findings| findings)), expected);
        }
    }

    #[test]
    fn blocking_finding_of_reading_refuses_the_input() {
        let read = |finding: Finding| provision(&inputs(), Publishing::Never, None, vec![finding]);
        assert!(read(Finding::refusal(finding::Code::DuplicateKey, "")).is_err());
        assert_eq!(
            read(Finding::remark(finding::Code::UnknownParam, "")).map(|(_, findings)| findings.len()).ok(),
            Some(1)
        );
    }

    #[test]
    fn unread_params_are_reported_once() {
        let inputs = Inputs { params: Value::Null, params_unread: true, ..inputs() };
        let unread = Finding::blocking(finding::Code::Schema, "", "cannot read params.json");
        let findings = provision(&inputs, Publishing::Never, None, vec![unread.clone()]).err();
        assert_eq!(findings, Some(vec![unread]));
        let inputs = Inputs { params_unread: false, ..inputs };
        let beside = Finding::blocking(finding::Code::Schema, "", "cannot read config.json");
        let findings = provision(&inputs, Publishing::Never, None, vec![beside]).err().unwrap();
        let null = [("schema", ""), ("schema", ""), ("name", "")];
        assert_eq!(located(&findings), null, "null, but readable");
    }

    /// Columns: `--tls-server-name`, the name to expect instead of the host, whether it can be published.
    #[rstest]
    #[case::none(None, None, true)]
    #[case::another(Some("b.example.com"), Some("b.example.com"), false)]
    #[case::the_host_itself(Some("a.example.com"), None, true)]
    fn tls_server_name_cannot_be_published(
        #[case] option: Option<&str>,
        #[case] expected: Option<&str>,
        #[case] published: bool,
    ) {
        let inputs = Inputs { tls_server_name: option.map(str::to_owned), platform: platform_input(), ..inputs() };
        let (input, _) = unpublished(&inputs).ok().unwrap();
        assert_eq!(
            input.request.connection.tls_server_name.map(|name| name.to_str().into_owned()).as_deref(),
            expected
        );
        let asked = provision(&inputs, Publishing::Asked, None, Vec::new());
        assert_eq!(asked.is_ok(), published);
        assert!(decommission(&inputs, Publishing::Asked, None, Vec::new()).is_ok(), "nothing is published");
    }

    fn platform_input() -> PlatformInput {
        let set = |text: &str| Some(text.to_owned());
        PlatformInput {
            url: set("https://md.example.com"),
            deployment_id: set("id"),
            token: set("the-deployment-token"),
            organization_id: set("org"),
            instance_id: set("demo"),
            ..PlatformInput::default()
        }
    }

    #[test]
    fn platform_is_required_only_to_publish() {
        for (platform, publish, is_accepted) in [
            (PlatformInput::default(), Publishing::Never, true),
            (PlatformInput::default(), Publishing::AsProvisioner, false),
            (PlatformInput { url: None, ..platform_input() }, Publishing::AsProvisioner, true),
            (PlatformInput { url: None, ..platform_input() }, Publishing::Asked, false),
            (platform_input(), Publishing::Asked, true),
        ] {
            let inputs = Inputs { platform, ..inputs() };
            let provisioned =
                provision(&inputs, publish, None, Vec::new()).map(|(it, _)| it.delivery.platform.is_some());
            assert_eq!(provisioned.ok(), is_accepted.then_some(publish != Publishing::Never));
            let deleted = decommission(&inputs, publish, None, Vec::new()).map(|(it, _)| it.platform.is_some());
            assert_eq!(deleted.ok(), is_accepted.then_some(publish != Publishing::Never));
        }
    }

    #[rstest]
    #[case::of_the_params(None, Some("org/demo"))]
    #[case::of_the_command_line(Some("demo"), None)]
    fn platform_id_requires_a_name_in_the_params(#[case] name: Option<&str>, #[case] expected: Option<&str>) {
        let inputs = Inputs { name: name.map(str::to_owned), platform: platform_input(), ..inputs() };
        assert_eq!(unpublished(&inputs).ok().unwrap().0.request.instance.platform_id.as_deref(), expected);
    }

    #[test]
    fn proxy_of_the_environment_is_used() {
        let mut inputs = inputs();
        inputs.proxies.https = Some(("HTTPS_PROXY", "proxy.example.com:3128".to_owned()));
        let source =
            |inputs: &Inputs| unpublished(inputs).ok().unwrap().0.request.connection.route.proxy().map(|it| it.source);
        assert_eq!(source(&inputs), Some("HTTPS_PROXY"));
        inputs.proxies.no = Some("a.example.com".to_owned());
        assert_eq!(source(&inputs), None);
    }
}
