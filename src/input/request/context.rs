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
            token_is_from_file: context.user.token_file.is_some(),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;
    use testbed::{Forged, Key, Spec};

    use super::*;
    use crate::input::{documents::kubeconfig, request::tests::ca};

    /// The context of a kubeconfig with these fields of its cluster and its user, in JSON.
    fn context(cluster: &Value, user: &Value) -> Context {
        let valid = json!({"server": "https://a.example.com", "certificate-authority-data": ca()});
        let kubeconfig = json!({
            "current-context": "a\nb",
            "contexts": [{"name": "a\nb", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": merged(&[valid, cluster.clone()])}],
            "users": [{"name": "u", "user": user}],
        });
        let context = kubeconfig::parse(kubeconfig.to_string().as_bytes(), "config", Path::new("/dev/null"));
        context.unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn token() -> Value {
        json!({"token": "the-token"})
    }

    /// Pointers and messages of all problems.
    fn problems(context: &Context) -> Vec<(String, String)> {
        let problems = parse(context).err().unwrap_or_default();
        assert!(problems.iter().all(|problem| problem.blocking));
        problems.into_iter().map(|it| (it.pointer.unwrap_or_default(), it.message)).collect()
    }

    #[test]
    fn cluster_is_read() {
        let connection = parse(&context(&json!({"tls-server-name": "b", "proxy-url": "http://p"}), &token())).unwrap();
        assert_eq!(connection.server.as_str(), "https://a.example.com");
        assert!(matches!(connection.ca, ServerTrust::Given(_)));
        assert_eq!(connection.tls_server_name, server_name("b").ok());
        assert_eq!(connection.route.proxy().map(|proxy| proxy.source), Some("proxy-url"));
        assert_eq!((connection.shape, connection.names_namespace), (Shape::Flat, true));
        assert_eq!(connection.context.as_deref(), Some("a b"));
        let system = parse(&context(&json!({"certificate-authority-data": null}), &token())).unwrap();
        assert!(matches!((system.ca, system.route), (ServerTrust::System, Route::Direct)));
    }

    #[test]
    fn base64_is_decoded_like_go() {
        let mut pem = STANDARD.decode(ca()).unwrap();
        pem.resize(pem.len() / 3 * 3 + 4, b'\n');
        let encoded = STANDARD.encode(&pem);
        let surplus_bits = encoded.replace("Cg==", "Ch==");
        assert_ne!(surplus_bits, encoded);
        for data in [format!("{}\r\n{}\n", &encoded[..64], &encoded[64..]), surplus_bits] {
            let connection = parse(&context(&json!({"certificate-authority-data": data}), &token())).unwrap();
            assert!(matches!(connection.ca, ServerTrust::Given(bundle) if bundle.certificates().len() == 1));
        }
    }

    #[rstest]
    #[case::no_server(json!({"server": null}), "/cluster/server", "server is missing (cluster `c`, line 1 of config)")]
    #[case::server_of_another_type(json!({"server": 1}), "/cluster/server", "server must be a string")]
    #[case::http(json!({"server": "http://a"}), "/cluster/server", "server is http")]
    #[case::plain_pem(json!({"certificate-authority-data": "-----BEGIN CERTIFICATE-----"}), "/cluster/certificate-authority-data", "certificate-authority-data is plain PEM")]
    #[case::blank_after_base64(json!({"certificate-authority-data": format!("{} ", ca())}), "/cluster/certificate-authority-data", "certificate-authority-data is not base64")]
    #[case::no_certificate(json!({"certificate-authority-data": "aGVsbG8="}), "/cluster/certificate-authority-data", "certificate-authority-data contains no certificate")]
    #[case::unverified(json!({"insecure-skip-tls-verify": true}), "/cluster/insecure-skip-tls-verify", "insecure-skip-tls-verify is not supported")]
    #[case::server_name(json!({"tls-server-name": "a:1"}), "/cluster/tls-server-name", "tls-server-name is not a valid server name")]
    #[case::proxy(json!({"proxy-url": "ftp://a"}), "/cluster/proxy-url", "proxy-url is not the URL of a proxy")]
    fn invalid_cluster_is_refused_once(#[case] cluster: Value, #[case] pointer: &str, #[case] problem: &str) {
        let found = problems(&context(&cluster, &token()));
        assert!(found.len() == 1 && found[0].0 == pointer && found[0].1.starts_with(problem), "{found:?}");
    }

    #[test]
    fn ca_file_is_used_without_inline_data() {
        let mut context = context(&json!({"certificate-authority-data": null}), &token());
        context.authority = Some(b"hello".to_vec());
        assert_eq!(problems(&context)[0].0, "/cluster/certificate-authority");
        context.authority = STANDARD.decode(ca()).ok();
        assert!(matches!(parse(&context).unwrap().ca, ServerTrust::Given(_)));
    }

    /// A user with a login command with these fields.
    fn command(fields: &Value) -> Value {
        let exec = json!({"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "login"});
        json!({"exec": merged(&[exec, fields.clone()])})
    }

    /// A client certificate with its key, as fields of a user.
    fn identity_fields() -> Value {
        let client = Forged::self_signed(&Spec::new("admin"), Key::p256());
        json!({"client-certificate-data": client.base64(), "client-key-data": STANDARD.encode(client.key.pem())})
    }

    /// The fields of all objects, the last of equal ones.
    fn merged(objects: &[Value]) -> Value {
        objects.iter().flat_map(|object| object.as_object().unwrap().clone()).collect::<Map<_, _>>().into()
    }

    /// The logins in use: `token`, `certificate`, `command`, and `as` for impersonation.
    fn logins(connection: &Connection) -> Vec<&'static str> {
        let user = match &connection.login {
            ClusterLogin::Token(_) => return vec!["token alone"],
            ClusterLogin::Kubeconfig(user) => user,
        };
        let logins = [
            (user.credentials.token.is_some(), "token"),
            (user.credentials.identity.is_some(), "certificate"),
            (user.command.is_some(), "command"),
            (user.acting.impersonate.is_some(), "as"),
        ];
        logins.into_iter().filter(|(is_used, _)| *is_used).map(|(_, login)| login).collect()
    }

    #[rstest]
    #[case::token(token(), &["token alone"])]
    #[case::blanks_after_the_token(json!({"token": "the-token  "}), &["token alone"])]
    #[case::token_before_command(merged(&[token(), command(&json!({}))]), &["token alone"])]
    #[case::token_before_provider(merged(&[token(), provider("oidc")]), &["token alone"])]
    #[case::token_as_another_user(merged(&[token(), json!({"as": "b", "as-groups": ["c"], "as-user-extra": {"d": ["e"]}})]), &["token", "as"])]
    #[case::token_and_certificate(merged(&[token(), identity_fields()]), &["token", "certificate"])]
    #[case::certificate(identity_fields(), &["certificate"])]
    #[case::certificate_before_password(merged(&[identity_fields(), json!({"username": "a", "password": "b"})]), &["certificate"])]
    #[case::certificate_before_command(merged(&[identity_fields(), command(&json!({}))]), &["certificate"])]
    #[case::certificate_before_provider(merged(&[identity_fields(), provider("oidc")]), &["certificate"])]
    #[case::certificate_as_another_user(merged(&[identity_fields(), json!({"as": "b"})]), &["certificate", "as"])]
    #[case::command(command(&json!({})), &["command"])]
    #[case::command_as_another_user(merged(&[command(&json!({})), json!({"as": "b"})]), &["command", "as"])]
    fn login_is_chosen_as_by_kubectl(#[case] user: Value, #[case] expected: &[&str]) {
        let connection = parse(&context(&json!({}), &user)).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(logins(&connection), expected);
    }

    fn provider(name: &str) -> Value {
        json!({"auth-provider": {"name": name, "config": {"idp-issuer-url": "a", "client-id": "b"}}})
    }

    #[rstest]
    #[case::none(json!({}), "/user", "user has no supported login")]
    #[case::invalid_token(json!({"token": "a b"}), "/user/token", "token contains whitespace")]
    #[case::masked_token(json!({"token": "REDACTED"}), "/user/token", "token contains the placeholder")]
    #[case::password(json!({"username": "a", "password": "b"}), "/user/username", "username and password are not supported")]
    #[case::password_beside_a_token(merged(&[token(), json!({"password": "b"})]), "/user/username", "username and password are not supported")]
    #[case::no_key(merged(&[identity_fields(), json!({"client-key-data": null})]), "/user/client-certificate", "client-certificate has no client-key")]
    #[case::key_is_not_base64(merged(&[identity_fields(), json!({"client-key-data": "!"})]), "/user/client-certificate", "client-certificate or its key is not the base64")]
    #[case::invalid_key(merged(&[identity_fields(), json!({"client-key-data": "aGVsbG8="})]), "/user/client-certificate", "client-certificate has a key that is not a private key")]
    #[case::groups_without_a_name(merged(&[token(), json!({"as-groups": ["a"]})]), "/user/as", "as is missing, but as-uid")]
    #[case::line_break_in_the_name(merged(&[token(), json!({"as": "a\nb"})]), "/user/as", "as contains characters that are not allowed")]
    #[case::line_break_in_an_extra(merged(&[token(), json!({"as": "a", "as-user-extra": {"b": ["c\nd"]}})]), "/user/as", "as contains characters")]
    #[case::provider(provider("oidc"), "/user/auth-provider", "auth-provider is not supported")]
    #[case::vendors_provider_beside_a_token(merged(&[token(), provider("gcp")]), "/user/auth-provider", "auth-provider is not supported")]
    #[case::provider_beside_a_command(merged(&[token(), command(&json!({})), provider("oidc")]), "/user/auth-provider", "auth-provider is not supported")]
    #[case::command_beside_a_token(merged(&[token(), command(&json!({"command": null}))]), "/user/exec/command", "command is missing")]
    #[case::older_exec(command(&json!({"apiVersion": "client.authentication.k8s.io/v1alpha1"})), "/user/exec/apiVersion", "apiVersion must be")]
    #[case::no_terminal(command(&json!({"interactiveMode": "Always"})), "/user/exec/interactiveMode", "interactiveMode is Always, but standard input is not")]
    fn unsupported_login_is_refused(#[case] user: Value, #[case] pointer: &str, #[case] problem: &str) {
        let found = problems(&context(&json!({}), &user));
        assert!(found.len() == 1 && found[0].0 == pointer && found[0].1.starts_with(problem), "{found:?}");
    }

    /// Columns: `interactiveMode`, whether standard input is a terminal, whether the command may prompt.
    #[rstest]
    #[case("Never", true, false)]
    #[case("IfAvailable", false, false)]
    #[case("IfAvailable", true, true)]
    #[case("Always", true, true)]
    fn login_command_prompts_at_a_terminal(#[case] mode: &str, #[case] terminal: bool, #[case] prompts: bool) {
        let mut context = context(&json!({}), &command(&json!({"interactiveMode": mode})));
        context.terminal = terminal;
        let ClusterLogin::Kubeconfig(user) = parse(&context).unwrap().login else { panic!("a command") };
        assert_eq!(user.is_interactive(), prompts);
        assert_eq!(user.command.unwrap().told["spec"], json!({"interactive": prompts}));
    }

    #[test]
    fn login_command_receives_its_cluster() {
        let extension = |name: &str| json!({"name": name, "extension": {"audience": name}});
        let extensions = [extension("other"), extension("client.authentication.k8s.io/exec")];
        let cluster = json!({"tls-server-name": "b", "disable-compression": true, "extensions": extensions});
        let fields = json!({"provideClusterInfo": true, "args": ["x"], "env": [{"name": "y", "value": "z"}], "installHint": "i"});
        let connection = parse(&context(&cluster, &command(&fields))).unwrap();
        let ClusterLogin::Kubeconfig(user) = connection.login else { panic!("a command") };
        let command = user.command.unwrap();
        assert_eq!((command.program.as_str(), &*command.arguments), ("login", &["x".to_owned()][..]));
        assert_eq!((command.variables, command.hint.as_deref()), (vec![("y".to_owned(), "z".to_owned())], Some("i")));
        let expected = json!({
            "server": "https://a.example.com",
            "certificate-authority-data": ca(),
            "tls-server-name": "b",
            "disable-compression": true,
            "config": {"audience": "client.authentication.k8s.io/exec"},
        });
        assert_eq!(command.told["spec"]["cluster"], expected);
    }
}
