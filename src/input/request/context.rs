//! The connection of a kubeconfig's context. Pure.

use std::fmt::Display;

use base64::{
    Engine as _, alphabet,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use http::HeaderValue;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
        text::sanitize,
    },
    endpoint::{
        client_certificate::{self, ClientCertificate},
        connection::{
            CaBundle, ClusterLogin, Connection, Credentials, ExecPlugin, KubeconfigUser, PROXY_URL, Server,
            ServerTrust, Shape, server_name,
        },
        proxy::{Proxy, Route},
    },
    input::documents::kubeconfig::Context,
};

/// Reads a connection from a kubeconfig's context. The published document is flat, with its namespace.
///
/// # Errors
/// Every problem; pointers name the field of the kubeconfig's cluster or user.
pub(crate) fn parse(context: &Context) -> Result<Connection, Vec<Finding>> {
    let mut problems = Problems { context, found: context.problems.clone() };
    let cluster = &context.cluster;
    let server =
        problems.keep("/cluster/server", cluster.server.as_deref().ok_or("is missing").and_then(Server::parse));
    let ca = match (&cluster.certificate_authority_data, &context.authority) {
        (Some(data), _) => problems.keep("/cluster/certificate-authority-data", ca_of(data)).map(ServerTrust::Given),
        (None, Some(pem)) => {
            problems.keep("/cluster/certificate-authority", CaBundle::parse_pem(pem)).map(ServerTrust::Given)
        }
        (None, None) => Some(ServerTrust::System),
    };
    if cluster.insecure_skip_tls_verify == Some(true) {
        let text = "is not supported: without verification any server could receive the credential";
        problems.keep::<()>("/cluster/insecure-skip-tls-verify", Err(text));
    }
    let name = cluster.tls_server_name.as_deref();
    let name = name.and_then(|name| problems.keep("/cluster/tls-server-name", server_name(name)));
    let proxy = cluster.proxy_url.as_deref();
    let proxy = proxy.and_then(|url| problems.keep("/cluster/proxy-url", Proxy::parse(url, PROXY_URL)));
    let login = login(context, &mut problems);
    match (server, ca, login) {
        (Some(server), Some(ca), Some(login)) if problems.found.is_empty() => Ok(Connection {
            server,
            ca,
            tls_server_name: name,
            route: proxy.map_or(Route::Direct, Route::Proxied),
            login,
            shape: Shape::Flat,
            infrastructure: None,
            specs: None,
            names_namespace: true,
            context: Some(sanitize(&context.name, 100)),
        }),
        _ => Err(problems.found),
    }
}

/// The problems of a kubeconfig.
struct Problems<'a> {
    context: &'a Context,
    found: Vec<Finding>,
}

impl Problems<'_> {
    /// The part, or none after its problem is recorded with entry and line. A field that could not be read is not
    /// reported as missing as well.
    fn keep<T>(&mut self, pointer: &str, part: Result<T, impl Display>) -> Option<T> {
        let problem = match part {
            Ok(part) => return Some(part),
            Err(problem) => problem,
        };
        let is_known = |known: &Finding| {
            let known = known.pointer.as_deref().unwrap_or_default();
            known.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || pointer.strip_prefix(known).is_some_and(|rest| rest.starts_with('/'))
        };
        if !self.found.iter().any(is_known) {
            let context = self.context;
            let place = if pointer.starts_with("/user") { &context.user_location } else { &context.cluster_location };
            let field = pointer.rsplit('/').next().unwrap_or(pointer);
            let text = format!("{field} {problem} {}", place.of(pointer));
            self.found.push(Finding::blocking(finding::Code::Connection, pointer, text));
        }
        None
    }
}

/// The base64 decoding of a kubeconfig, as in Go: line breaks are ignored, and so are surplus bits of the last
/// character.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let compact: String = text.chars().filter(|char| !matches!(char, '\r' | '\n')).collect();
    LENIENT.decode(compact).ok()
}

fn ca_of(data: &str) -> Result<CaBundle, &'static str> {
    match base64_of(data).map(|pem| CaBundle::parse_pem(&pem)) {
        Some(Ok(bundle)) => Ok(bundle),
        // A problem of the encoding explains more than one of the decoded content.
        Some(Err(problem)) => Err(CaBundle::parse(data).err().unwrap_or(problem)),
        None => Err(CaBundle::parse(data).err().unwrap_or("is not base64")),
    }
}

/// The login of a user: the first of token and client certificate (or both), then the login command. Logins that
/// kubectl or API servers no longer support are rejected.
fn login(context: &Context, problems: &mut Problems<'_>) -> Option<ClusterLogin> {
    let user = &context.user;
    let has_password = user.username.is_some() || user.password.is_some();
    let token = match user.token.as_ref().map(|token| Token::parse(token.expose_secret().trim_end_matches(' '))) {
        Some(token) => Some(problems.keep("/user/token", token)?),
        None => None,
    };
    let identity = match identity(context) {
        Some(identity) => Some(problems.keep("/user/client-certificate", identity)?),
        None => None,
    };
    // With a client certificate the server ignores a password.
    if has_password && (token.is_some() || identity.is_none()) {
        let text = "and password are not supported, because no API server accepts them (expected a token, a client \
                    certificate or a login command in exec)";
        return problems.keep("/user/username", Err(text));
    }
    let acting = problems.keep("/user/as", acting(user))?;
    // A login command is only used without another login; it has to be valid nevertheless.
    let runs = token.is_none() && identity.is_none();
    let command = match &user.exec {
        Some(exec) => Some(command(exec, runs, context, problems)?),
        None => None,
    };
    if let Some(provider) = &user.auth_provider {
        let has = |key: &str| provider.config.get(key).is_some_and(|text| !text.is_empty());
        // The one auth-provider that kubectl still supports is only used without another login.
        let stands_back = provider.name == "oidc" && has("idp-issuer-url") && has("client-id") && command.is_none();
        if !stands_back || runs {
            let text = "is not supported: use a login command (exec) such as kubelogin, as current versions of kubectl \
                        require";
            return problems.keep("/user/auth-provider", Err(text));
        }
    }
    match (token, identity, command.filter(|_| runs)) {
        (None, None, None) => problems.keep(
            "/user",
            Err("has no supported login (expected a token, a client certificate or a login command in exec)"),
        ),
        (Some(token), None, None) if acting.impersonate.is_none() => Some(ClusterLogin::Token(token)),
        (token, identity, command) => {
            let credentials = Credentials { token, identity };
            Some(ClusterLogin::Kubeconfig(Box::new(KubeconfigUser { credentials, command, acting })))
        }
    }
}

/// The client certificate with its key; for each, inline data takes precedence over a file.
fn identity(context: &Context) -> Option<Result<ClientCertificate, String>> {
    let part = |data: Option<&str>, file: &Option<Vec<u8>>| match data.filter(|data| !data.is_empty()) {
        Some(data) => Some(base64_of(data).ok_or("or its key is not the base64 encoding of PEM")),
        None => file.clone().map(Ok),
    };
    let certificate = part(context.user.client_certificate_data.as_deref(), &context.certificate);
    let key = part(context.user.client_key_data.as_ref().map(ExposeSecret::expose_secret), &context.key);
    match (certificate?, key) {
        (Ok(certificate), Some(Ok(key))) => Some(client_certificate::identity(&certificate, &key)),
        (Err(problem), _) | (_, Some(Err(problem))) => Some(Err(problem.to_owned())),
        (_, None) => Some(Err("has no client-key".to_owned())),
    }
}

/// The impersonated user of a kubeconfig.
fn acting(user: &AuthInfo) -> Result<AuthInfo, &'static str> {
    let groups = || user.impersonate_groups.iter().flatten();
    let extras = || user.impersonate_user_extra.iter().flatten();
    let Some(name) = user.impersonate.as_ref() else {
        // Without a name no header is sent, and the permissions would be those of the login itself.
        let alone = user.impersonate_uid.is_none() && groups().next().is_none() && extras().next().is_none();
        return if alone {
            Ok(AuthInfo::default())
        } else {
            Err("is missing, but as-uid, as-groups and as-user-extra require it")
        };
    };
    let extra = extras().flat_map(|(_, values)| values);
    let mut sent = [name].into_iter().chain(&user.impersonate_uid).chain(groups()).chain(extra);
    if !sent.all(|text| HeaderValue::from_str(text).is_ok()) {
        return Err("contains characters that are not allowed in an HTTP header");
    }
    Ok(AuthInfo {
        impersonate: Some(name.clone()),
        impersonate_uid: user.impersonate_uid.clone(),
        impersonate_groups: user.impersonate_groups.clone(),
        impersonate_user_extra: user.impersonate_user_extra.clone(),
        ..AuthInfo::default()
    })
}

/// A login command, as client-go reads it. If it will run, `interactiveMode` may require a terminal.
fn command(exec: &ExecConfig, runs: bool, context: &Context, problems: &mut Problems<'_>) -> Option<ExecPlugin> {
    let version = exec.api_version.as_deref().unwrap_or_default();
    if !["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"].contains(&version) {
        let text =
            "must be client.authentication.k8s.io/v1 or v1beta1: create the kubeconfig again with its vendor's tool";
        return problems.keep("/user/exec/apiVersion", Err(text));
    }
    let program = problems.keep("/user/exec/command", exec.command.clone().ok_or("is missing"))?;
    let interactive = match exec.interactive_mode {
        Some(ExecInteractiveMode::Never) => false,
        Some(ExecInteractiveMode::Always) if runs && !context.terminal => {
            let text = "is Always, but standard input is not a terminal";
            return problems.keep("/user/exec/interactiveMode", Err(text));
        }
        _ => context.terminal,
    };
    let mut spec = json!({ "interactive": interactive });
    if exec.provide_cluster_info {
        spec["cluster"] = cluster_info(context);
    }
    let variable = |variable: &std::collections::HashMap<String, String>| {
        Some((variable.get("name")?.clone(), variable.get("value")?.clone()))
    };
    Some(ExecPlugin {
        program,
        arguments: exec.args.clone().unwrap_or_default(),
        variables: exec.env.iter().flatten().filter_map(variable).collect(),
        told: json!({ "apiVersion": version, "kind": "ExecCredential", "spec": spec }),
        interactive,
        hint: exec.install_hint.clone(),
    })
}

/// The cluster's description for a command with `provideClusterInfo`.
fn cluster_info(context: &Context) -> Value {
    let cluster = &context.cluster;
    let ca = cluster.certificate_authority_data.clone();
    let ca = ca.or_else(|| context.authority.as_ref().map(|pem| STANDARD.encode(pem)));
    let config = cluster.extensions.iter().flatten().find(|it| it.name == "client.authentication.k8s.io/exec");
    let told = [
        ("server", cluster.server.clone().map(Value::from)),
        ("tls-server-name", cluster.tls_server_name.clone().map(Value::from)),
        ("certificate-authority-data", ca.map(Value::from)),
        ("proxy-url", cluster.proxy_url.clone().map(Value::from)),
        ("disable-compression", cluster.disable_compression.map(Value::from)),
        ("config", config.map(|config| config.extension.clone())),
    ];
    told.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<_, _>>().into()
}
