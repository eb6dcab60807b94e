//! The cluster connection in all its shapes: where the server is, who we are there, and what shape the artifact
//! gets. Parsed once from a document or a kubeconfig. Pure.

use std::{borrow::Cow, fmt::Display};

use base64::{
    Engine as _, alphabet,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use http::HeaderValue;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::{
    finding::{self, Finding},
    host,
    inputs::kubeconfig::Context,
    login::{Command, Credentials},
    pem_blocks::{Block, blocks},
    proxy::{Proxy, Route},
    secret::Token,
    text::{self, key_shown, shown},
    tls::{self, Identity},
    x509::Certificate,
};

/// Key of the cluster in a dependencies document.
pub const SLOT: &str = "kubernetes_cluster";

/// The server's URL, verbatim, and parsed: https, a host, no user, no query. A path is kept (Rancher).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    text: String,
    uri: http::Uri,
}

impl Server {
    /// Checks the URL.
    ///
    /// # Errors
    /// What would be right, without the value.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is not the URL of a server: https://host, with port and path if it has any, an IPv6 \
                            address in brackets";
        if text.is_empty() {
            return Err("is empty");
        }
        if text.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err("holds a blank or a line break: a URL has none");
        }
        if !text.is_ascii() {
            return Err(
                "holds letters beyond ASCII: a host has another form there, in Punycode (xn--...), and a path \
                        has them percent-encoded",
            );
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {}
            "http" => return Err("is http: a token is never sent in clear, use the https URL"),
            _ => return Err(FORM),
        }
        if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return Err("holds a user name: only a token logs in");
        }
        if rest.contains(['?', '#']) {
            return Err("holds a query or a fragment: it ends with the path");
        }
        let uri: http::Uri = text.parse().map_err(|_| FORM)?;
        let authority = uri.authority().ok_or(FORM)?;
        // A port that is none would silently become the usual one.
        let port = authority.as_str().strip_prefix(authority.host()).ok_or(FORM)?;
        if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("has a port that is none: it is a number from 1 to 65535");
        }
        let can_be_named = match authority.host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => ServerName::try_from(authority.host()).is_ok(),
        };
        if !can_be_named {
            return Err("has a host that no certificate can name: a DNS name, or a whole IP address");
        }
        Ok(Self { text: text.to_owned(), uri })
    }

    /// As it was given, and as the artifact says it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Parsed.
    #[must_use]
    pub const fn uri(&self) -> &http::Uri {
        &self.uri
    }
}

/// The CA certificates that the server is verified against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    base64: String,
    certificates: Vec<Vec<u8>>,
}

impl CaBundle {
    /// Takes the base64 of PEM, as a kubeconfig has it; line breaks in it do not matter.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("-----BEGIN") {
            return Err("is PEM as it stands: it must be the base64 of that");
        }
        let compact: String = text.split_ascii_whitespace().collect();
        if compact.is_empty() {
            return Err("is empty");
        }
        let pem = STANDARD.decode(&compact).map_err(|_| "is not base64")?;
        if pem.starts_with(b"LS0tLS1CRUdJTi") {
            return Err("is base64 twice: decode it once");
        }
        if pem.starts_with(b"\x30\x82") {
            return Err("is the base64 of DER: it must be that of PEM");
        }
        Self::from_pem(&pem, text.to_owned())
    }

    /// Takes PEM itself, as a file holds it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_pem(pem: &[u8]) -> Result<Self, &'static str> {
        Self::from_pem(pem, STANDARD.encode(pem))
    }

    /// Takes one certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        Self::parse_pem(pem::encode(&pem::Pem::new("CERTIFICATE", certificate)).as_bytes()).ok()
    }

    fn from_pem(pem: &[u8], base64: String) -> Result<Self, &'static str> {
        const NONE: &str = "holds no certificate in PEM";
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let blocks = blocks(pem);
        if blocks.iter().any(Block::is_private_key) {
            return Err("holds a private key: only certificates belong there");
        }
        let found: Vec<Vec<u8>> = blocks.into_iter().filter(Block::is_ca).map(|block| block.der).collect();
        // As kubectl does, what cannot be read is passed over, as long as something is left.
        let (certificates, unreadable): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|it| Certificate::parse(it).is_ok());
        if !certificates.is_empty() {
            return Ok(Self { base64, certificates });
        }
        let begins = pem.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
        let lines = pem.split(|byte| *byte == b'\n').filter(|line| line.starts_with(BEGIN)).count();
        Err(match (unreadable.is_empty(), begins == lines) {
            (false, _) => "holds no certificate that can be read: what stands in its PEM is not X.509",
            (true, false) => {
                "holds a certificate that is not read everywhere: its BEGIN has to be at the start of a line"
            }
            (true, true) => NONE,
        })
    }

    /// As it was given, and as the artifact says it.
    #[must_use]
    pub fn as_base64(&self) -> &str {
        &self.base64
    }

    /// The certificates in DER.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }
}

/// What the server is verified against.
#[derive(Clone)]
pub enum Trust {
    /// These certificates.
    Given(CaBundle),
    /// The CAs of the system, as a kubeconfig without one has it.
    System,
}

/// How the parent logs in.
#[derive(Clone)]
pub enum Login {
    /// The connection's token.
    Token(Token),
    /// Whatever else a kubeconfig has.
    Kubeconfig(Box<Person>),
}

impl Login {
    /// The token, if it is one that is there before anybody logs in.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            Self::Kubeconfig(person) => person.credentials.token.as_ref(),
        }
    }
}

/// A person with a kubeconfig.
#[derive(Clone)]
pub struct Person {
    /// What there is to show.
    pub credentials: Credentials,
    /// What prints that, where there is nothing yet.
    pub command: Option<Command>,
    /// Whom to act as: `as`, and what goes with it.
    pub acting: AuthInfo,
}

impl Person {
    /// True when the login may ask somebody at the terminal.
    #[must_use]
    pub fn talks(&self) -> bool {
        self.command.as_ref().is_some_and(|command| command.interactive)
    }
}

/// The shape of a kubernetes-cluster document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everything at the top; since 2026.
    Flat,
    /// Everything but the specs under `data`.
    Legacy,
}

/// A cluster connection.
#[derive(Clone)]
pub struct Connection {
    /// Where the server is.
    pub server: Server,
    /// What it is verified against.
    pub ca: Trust,
    /// Name to expect in the server's certificate instead of the host.
    pub tls_server_name: Option<ServerName<'static>>,
    /// The way there.
    pub route: Route,
    /// Who we are there.
    pub login: Login,
    /// The document's shape.
    pub shape: Shape,
    /// `infrastructure`, unless empty.
    pub infrastructure: Option<Map<String, Value>>,
    /// `specs`.
    pub specs: Option<Map<String, Value>>,
    /// Whether an artifact of this shape says its namespace.
    pub names_namespace: bool,
    /// The context of the kubeconfig that it was taken from.
    pub context: Option<String>,
}

impl Connection {
    /// What an artifact of this connection cannot say, and whoever uses it elsewhere has to know.
    #[must_use]
    pub fn limits(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let host = self.server.uri().host().unwrap_or_default();
        if host::is_relative(host) {
            let text = format!(
                "the server's address {} leads every machine to itself: the credential works on this one only",
                self.server.as_str()
            );
            let help = "for others, give the cluster an address that they can reach, and that its certificate names";
            findings.push(Finding::remark(finding::Code::LocalAddress, text).help(help));
        }
        if let Some(proxy) = self.route.proxy().filter(|proxy| proxy.source == PROXY_URL) {
            let text = format!(
                "the cluster is reached through {} (proxy-url of the kubeconfig), and an artifact cannot say that: \
                 whoever uses it has to be told",
                proxy.address()
            );
            let help = "set HTTPS_PROXY where it is used, or add proxy-url to the kubeconfig that is made of it";
            findings.push(Finding::remark(finding::Code::ProxyNeeded, text).help(help));
        }
        findings
    }
}

/// The field of a kubeconfig that names a proxy.
const PROXY_URL: &str = "proxy-url";

/// What a kubeconfig can have beside the server and its CA. In a connection it is passed over.
const OTHERS_OF_CLUSTER: [&str; 6] = [
    "certificate-authority",
    "disable-compression",
    "extensions",
    "insecure-skip-tls-verify",
    "proxy-url",
    "tls-server-name",
];

/// What a kubeconfig can have beside the token. In a connection it is passed over, which is told: somebody may have
/// meant it.
const OTHERS_OF_USER: [&str; 13] = [
    "as",
    "as-groups",
    "as-uid",
    "as-user-extra",
    "auth-provider",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "exec",
    "password",
    "tokenFile",
    "username",
];

/// Reads a connection from a document; `overrides` is `kubernetes_cluster` of `config.json`, of which each text wins
/// over the document's. Beside it stands what there is to say about it.
///
/// # Errors
/// Every problem, with pointers into the document that it is in.
pub fn from_document(document: &Value, overrides: Option<&Value>) -> Result<(Connection, Vec<Finding>), Vec<Finding>> {
    let mut findings = Vec::new();
    let overridden = overrides.and_then(|value| overriding(value, &mut findings));
    let found = slot(document).and_then(|slot| {
        // All of it may stand in config.json.
        let anywhere = || overridden.map(|_| Slot { at: format!("/{SLOT}"), members: Cow::default() });
        slot.or_else(anywhere).ok_or_else(|| {
            let text = format!("the field `{SLOT}` is missing: no cluster is connected (required)");
            let help = if document.get("clusters").is_some() {
                "this is a kubeconfig: name it with --kubeconfig"
            } else {
                "a kubernetes-cluster document has `authentication`, at its top or under `data`"
            };
            Finding::blocking(finding::Code::Schema, "", text).help(help)
        })
    });
    let slot = match found {
        Ok(slot) => slot,
        Err(problem) => {
            findings.push(problem);
            return Err(findings);
        }
    };
    let members = slot.members.as_ref();
    let (shape, home, base) = match (present(members, "authentication"), present(members, "data")) {
        (None, Some(Value::Object(data))) => (Shape::Legacy, data, slot.at + "/data"),
        _ => (Shape::Flat, members, slot.at),
    };
    let mut reader = Reader { home, overridden, base: &base, findings: &mut findings };
    let server = reader.part("cluster", "server", Server::parse);
    let ca = reader.part("cluster", "certificate-authority-data", CaBundle::parse);
    let token = reader.part("user", "token", Token::parse);
    reader.other_logins();
    let (Some(server), Some(ca), Some(token)) = (server, ca, token) else { return Err(findings) };
    if findings.iter().any(|finding| finding.blocking) {
        return Err(findings);
    }
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let alone = members.keys().all(|key| key == "authentication" || present(members, key).is_none());
    let connection = Connection {
        server,
        ca: Trust::Given(ca),
        tls_server_name: None,
        route: Route::Direct,
        login: Login::Token(token),
        shape,
        infrastructure: object(home.get("infrastructure")).filter(|map| !map.is_empty()),
        specs: object(members.get("specs")),
        names_namespace: shape == Shape::Flat && (alone || present(members, "namespace").is_some()),
        context: None,
    };
    Ok((connection, findings))
}

/// A member that is there; null is nothing.
fn present<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

/// A kubernetes-cluster document and where it is.
struct Slot<'a> {
    at: String,
    members: Cow<'a, Map<String, Value>>,
}

/// Finds the kubernetes-cluster document: in its slot, or alone.
fn slot(document: &Value) -> Result<Option<Slot<'_>>, Finding> {
    let must_be_object = |at: String, what: &str| {
        Finding::blocking(
            finding::Code::Schema,
            at,
            format!("{what} must be a kubernetes-cluster document, an object (type)"),
        )
    };
    let Some(map) = document.as_object() else {
        return Err(must_be_object(String::new(), "the connection"));
    };
    match present(map, SLOT) {
        Some(Value::Object(slot)) => Ok(Some(Slot { at: format!("/{SLOT}"), members: Cow::Borrowed(slot) })),
        Some(_) => Err(must_be_object(format!("/{SLOT}"), &format!("`{SLOT}`"))),
        None if ["authentication", "data"].iter().any(|key| map.contains_key(*key)) => {
            Ok(Some(Slot { at: String::new(), members: Cow::Borrowed(map) }))
        }
        None => Ok(None),
    }
}

/// `authentication` of the overrides, if there is any. A misspelt field would leave the credential in another cluster
/// than the one that was meant, so there is none that is passed over.
fn overriding<'a>(overrides: &'a Value, findings: &mut Vec<Finding>) -> Option<&'a Map<String, Value>> {
    let mut object = |value: &'a Value, at: &str, known: &[&str], others: &[&str]| {
        let Some(map) = value.as_object() else {
            let text = format!("{} of config.json must be of type object (type)", last(at));
            findings.push(Finding::blocking(finding::Code::Schema, at, text));
            return None;
        };
        let unknown = map.keys().filter(|key| !known.contains(&key.as_str()) && !others.contains(&key.as_str()));
        findings.extend(unknown.map(|key| {
            let text = format!("unknown field {} in config.json (additionalProperties)", key_shown(key));
            Finding::blocking(finding::Code::Schema, at, text).help(format!("known fields: {}", known.join(", ")))
        }));
        Some(map)
    };
    let at = format!("/{SLOT}/authentication");
    let overridden = overrides.get("authentication").filter(|value| !value.is_null())?;
    let authentication = object(overridden, &at, &["cluster", "user"], &[])?;
    for (section, known, others) in [
        ("cluster", &["server", "certificate-authority-data"][..], &OTHERS_OF_CLUSTER[..]),
        ("user", &["token"], &OTHERS_OF_USER),
    ] {
        if let Some(value) = present(authentication, section) {
            object(value, &format!("{at}/{section}"), known, others);
        }
    }
    Some(authentication)
}

fn last(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or(pointer)
}

/// Reads the three texts that a connection is made of.
struct Reader<'a> {
    home: &'a Map<String, Value>,
    overridden: Option<&'a Map<String, Value>>,
    base: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    /// Parses one text, from `config.json` when it is there; or remembers why not.
    fn part<T>(&mut self, section: &str, key: &str, parse: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let theirs = self.overridden.and_then(|map| present(map.get(section)?.as_object()?, key));
        let (base, source) = match theirs {
            Some(_) => (format!("/{SLOT}"), " of config.json"),
            None => (self.base.to_owned(), ""),
        };
        let pointer = format!("{base}/authentication/{section}/{key}");
        let found = match theirs {
            Some(value) => Ok(value),
            None => self.find(section, key),
        };
        let problem = match found {
            Ok(Value::String(text)) => match unmasked(text).and_then(&parse) {
                Ok(part) => return Some(part),
                Err(problem) => {
                    Finding::blocking(finding::Code::Connection, pointer, format!("{key}{source} {problem}"))
                }
            },
            Ok(_) => Finding::blocking(
                finding::Code::Schema,
                pointer,
                format!("{key}{source} must be of type string (type)"),
            ),
            Err(problem) => problem,
        };
        if !self.findings.contains(&problem) {
            self.findings.push(problem);
        }
        None
    }

    /// Goes to a text of the document; or says what is the matter with the first step that cannot be taken. What is
    /// missing is told at the place where it should be.
    fn find(&self, section: &str, key: &str) -> Result<&Value, Finding> {
        let (mut map, mut at) = (self.home, self.base.to_owned());
        for step in ["authentication", section] {
            map = match present(map, step) {
                Some(Value::Object(inner)) => inner,
                Some(_) => {
                    return Err(Finding::blocking(
                        finding::Code::Schema,
                        format!("{at}/{step}"),
                        format!("{step} must be of type object (type)"),
                    ));
                }
                None => return Err(lacking(step, at)),
            };
            at = format!("{at}/{step}");
        }
        present(map, key).ok_or_else(|| lacking(key, at))
    }

    /// Says which other logins are passed over.
    fn other_logins(&mut self) {
        let theirs = self.overridden.and_then(|map| map.get("user"));
        let own = self.home.get("authentication").and_then(|authentication| authentication.get("user"));
        for (user, base, source) in [(own, self.base, "the connection"), (theirs, "/kubernetes_cluster", "config.json")]
        {
            let others = OTHERS_OF_USER.iter().filter(|key| user.and_then(|user| user.get(*key)).is_some());
            let others = others.copied().collect::<Vec<_>>().join(", ");
            if !others.is_empty() {
                let text = format!("{source} has more to log in with than the token ({others}): it is not used");
                let at = format!("{base}/authentication/user");
                self.findings.push(Finding::remark(finding::Code::LoginIgnored, text).at(at));
            }
        }
    }
}

/// The text, unless kubectl printed it instead of what belongs there.
fn unmasked(text: &str) -> Result<&str, &'static str> {
    if text::is_masked(text) { Err(text::MASKED) } else { Ok(text) }
}

fn lacking(field: &str, at: String) -> Finding {
    Finding::blocking(
        finding::Code::Schema,
        at,
        format!("the kubernetes-cluster document lacks the field `{field}` (required)"),
    )
}

/// Reads a connection from a kubeconfig's context: flat, with its namespace.
///
/// # Errors
/// Every problem; pointers name the field of the kubeconfig's cluster or user.
pub fn from_kubeconfig(context: &Context) -> Result<Connection, Vec<Finding>> {
    let mut problems = Problems { context, found: context.problems.clone() };
    let cluster = &context.cluster;
    let server =
        problems.keep("/cluster/server", cluster.server.as_deref().ok_or("is missing").and_then(Server::parse));
    let ca = match (&cluster.certificate_authority_data, &context.authority) {
        (Some(data), _) => problems.keep("/cluster/certificate-authority-data", ca_of(data)).map(Trust::Given),
        (None, Some(pem)) => {
            problems.keep("/cluster/certificate-authority", CaBundle::parse_pem(pem)).map(Trust::Given)
        }
        (None, None) => Some(Trust::System),
    };
    if cluster.insecure_skip_tls_verify == Some(true) {
        let text = "is not accepted: the server could be anybody";
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
            context: Some(shown(&context.name, 100)),
        }),
        _ => Err(problems.found),
    }
}

/// The name that a server's certificate is to have.
///
/// # Errors
/// What would be right.
pub fn server_name(name: &str) -> Result<ServerName<'static>, &'static str> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| "is not a name that a certificate can have: a DNS name, or an IP address")
}

/// What is wrong with a kubeconfig.
struct Problems<'a> {
    context: &'a Context,
    found: Vec<Finding>,
}

impl Problems<'_> {
    /// The part, or none once it is noted what is wrong with it, in which entry and line. A field that could not be
    /// read is not missing as well.
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
            let place = if pointer.starts_with("/user") { &context.user_place } else { &context.cluster_place };
            let field = pointer.rsplit('/').next().unwrap_or(pointer);
            let text = format!("{field} {problem} {}", place.of(pointer));
            self.found.push(Finding::blocking(finding::Code::Connection, pointer, text));
        }
        None
    }
}

/// The base64 of a kubeconfig, as Go reads it: line breaks do not matter, nor do the bits that the last character has
/// too many.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let compact: String = text.chars().filter(|char| !matches!(char, '\r' | '\n')).collect();
    LENIENT.decode(compact).ok()
}

fn ca_of(data: &str) -> Result<CaBundle, &'static str> {
    match base64_of(data).map(|pem| CaBundle::parse_pem(&pem)) {
        Some(Ok(bundle)) => Ok(bundle),
        // What is wrong with the text itself is known better than what is wrong with what came of it.
        Some(Err(problem)) => Err(CaBundle::parse(data).err().unwrap_or(problem)),
        None => Err(CaBundle::parse(data).err().unwrap_or("is not base64")),
    }
}

/// The first that there is of a token or a client certificate (or both), and a command. What kubectl cannot do any
/// more, or servers no longer take, is refused, and so is what kubectl refuses.
fn login(context: &Context, problems: &mut Problems<'_>) -> Option<Login> {
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
    // Beside a client certificate the server does not look at a password.
    if has_password && (token.is_some() || identity.is_none()) {
        let text = "and password are not supported, since no API server takes them: a token, a client certificate or a \
                    command (exec) logs in";
        return problems.keep("/user/username", Err(text));
    }
    let acting = problems.keep("/user/as", acting(user))?;
    // A command is for those who have nothing else; it has to be one all the same.
    let runs = token.is_none() && identity.is_none();
    let command = match &user.exec {
        Some(exec) => Some(command(exec, runs, context, problems)?),
        None => None,
    };
    if let Some(provider) = &user.auth_provider {
        let has = |key: &str| provider.config.get(key).is_some_and(|text| !text.is_empty());
        // The one that kubectl still knows stands back behind any other login.
        let stands_back = provider.name == "oidc" && has("idp-issuer-url") && has("client-id") && command.is_none();
        if !stands_back || runs {
            let text =
                "is not supported, and kubectl has dropped all but one of them: use a command (exec) such as kubelogin";
            return problems.keep("/user/auth-provider", Err(text));
        }
    }
    match (token, identity, command.filter(|_| runs)) {
        (None, None, None) => problems
            .keep("/user", Err("has no login that is supported: a token, a client certificate or a command (exec)")),
        (Some(token), None, None) if acting.impersonate.is_none() => Some(Login::Token(token)),
        (token, identity, command) => {
            let credentials = Credentials { token, identity };
            Some(Login::Kubeconfig(Box::new(Person { credentials, command, acting })))
        }
    }
}

/// The client certificate with its key, each from data before a file.
fn identity(context: &Context) -> Option<Result<Identity, String>> {
    let part = |data: Option<&str>, file: &Option<Vec<u8>>| match data.filter(|data| !data.is_empty()) {
        Some(data) => Some(base64_of(data).ok_or("or its key is not the base64 of PEM")),
        None => file.clone().map(Ok),
    };
    let certificate = part(context.user.client_certificate_data.as_deref(), &context.certificate);
    let key = part(context.user.client_key_data.as_ref().map(ExposeSecret::expose_secret), &context.key);
    match (certificate?, key) {
        (Ok(certificate), Some(Ok(key))) => Some(tls::identity(&certificate, &key)),
        (Err(problem), _) | (_, Some(Err(problem))) => Some(Err(problem.to_owned())),
        (_, None) => Some(Err("has no client-key".to_owned())),
    }
}

/// Whom a kubeconfig acts as.
fn acting(user: &AuthInfo) -> Result<AuthInfo, &'static str> {
    let groups = || user.impersonate_groups.iter().flatten();
    let extras = || user.impersonate_user_extra.iter().flatten();
    let Some(name) = user.impersonate.as_ref() else {
        // Without a name no header is sent, and the rights would be those of the login itself.
        let alone = user.impersonate_uid.is_none() && groups().next().is_none() && extras().next().is_none();
        return if alone {
            Ok(AuthInfo::default())
        } else {
            Err("is missing: as-uid, as-groups and as-user-extra need the name of the user to act as")
        };
    };
    let extra = extras().flat_map(|(_, values)| values);
    let mut sent = [name].into_iter().chain(&user.impersonate_uid).chain(groups()).chain(extra);
    if !sent.all(|text| HeaderValue::from_str(text).is_ok()) {
        return Err("holds what no header can hold");
    }
    Ok(AuthInfo {
        impersonate: Some(name.clone()),
        impersonate_uid: user.impersonate_uid.clone(),
        impersonate_groups: user.impersonate_groups.clone(),
        impersonate_user_extra: user.impersonate_user_extra.clone(),
        ..AuthInfo::default()
    })
}

/// A login command, as client-go understands it; whether it will run decides whether it needs a terminal.
fn command(exec: &ExecConfig, runs: bool, context: &Context, problems: &mut Problems<'_>) -> Option<Command> {
    let version = exec.api_version.as_deref().unwrap_or_default();
    if !["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"].contains(&version) {
        let text = "must be client.authentication.k8s.io/v1 or v1beta1: renew the kubeconfig with its vendor's tool";
        return problems.keep("/user/exec/apiVersion", Err(text));
    }
    let program = problems.keep("/user/exec/command", exec.command.clone().ok_or("is missing"))?;
    let interactive = match exec.interactive_mode {
        Some(ExecInteractiveMode::Never) => false,
        Some(ExecInteractiveMode::Always) if runs && !context.terminal => {
            let text = "is Always, and standard input is no terminal that the command could ask at";
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
    Some(Command {
        program,
        arguments: exec.args.clone().unwrap_or_default(),
        variables: exec.env.iter().flatten().filter_map(variable).collect(),
        told: json!({ "apiVersion": version, "kind": "ExecCredential", "spec": spec }),
        interactive,
        hint: exec.install_hint.clone(),
    })
}

/// What a command is told of the cluster when it asks for that.
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
