//! The cluster connection in all its shapes: where the server is, who we are there, and what shape the artifact
//! gets. Parsed once from a document or a kubeconfig. Pure.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use crate::{
    finding::{Finding, Severity},
    inputs::kubeconfig::Context,
    secret::Token,
    text::key_shown,
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
            None => rustls::pki_types::ServerName::try_from(authority.host()).is_ok(),
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

    fn from_pem(pem: &[u8], base64: String) -> Result<Self, &'static str> {
        const NONE: &str = "holds no certificate in PEM";
        let blocks = pem::parse_many(pem).map_err(|_| NONE)?;
        if blocks.iter().any(|block| block.tag().contains("PRIVATE KEY")) {
            return Err("holds a private key: only certificates belong there");
        }
        let certificates: Vec<Vec<u8>> =
            blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
        // Others are stricter with it: kubectl passes over what does not begin a line, after a byte order mark as well.
        let lines = pem.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"-----BEGIN CERTIFICATE-----"));
        if lines.count() != certificates.len() {
            return Err("holds a certificate that is not read everywhere: its BEGIN has to be at the start of a line");
        }
        if certificates.is_empty() {
            return Err(NONE);
        }
        let mut roots = rustls::RootCertStore::empty();
        if certificates.iter().any(|certificate| roots.add(certificate.as_slice().into()).is_err()) {
            return Err("holds a certificate that cannot be read: X.509 version 3 is needed");
        }
        Ok(Self { base64, certificates })
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

/// How the parent logs in.
#[derive(Clone)]
pub enum Login {
    /// The connection's token.
    Token(Token),
    /// A kubeconfig's client certificate or login command.
    Kubeconfig(Box<AuthInfo>),
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
    pub ca: CaBundle,
    /// Name to expect in the server's certificate instead of the host; from a kubeconfig only.
    pub tls_server_name: Option<String>,
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
}

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
            Finding::blocking("schema", "", text)
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
        ca,
        tls_server_name: None,
        login: Login::Token(token),
        shape,
        infrastructure: object(home.get("infrastructure")).filter(|map| !map.is_empty()),
        specs: object(members.get("specs")),
        names_namespace: shape == Shape::Flat && (alone || present(members, "namespace").is_some()),
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
        Finding::blocking("schema", at, format!("{what} must be a kubernetes-cluster document, an object (type)"))
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
            findings.push(Finding::blocking("schema", at, text));
            return None;
        };
        let unknown = map.keys().filter(|key| !known.contains(&key.as_str()) && !others.contains(&key.as_str()));
        findings.extend(unknown.map(|key| {
            let text = format!("unknown field {} in config.json (additionalProperties)", key_shown(key));
            Finding::blocking("schema", at, text).help(format!("known fields: {}", known.join(", ")))
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
            Ok(Value::String(text)) => match parse(text) {
                Ok(part) => return Some(part),
                Err(problem) => Finding::blocking("connection", pointer, format!("{key}{source} {problem}")),
            },
            Ok(_) => Finding::blocking("schema", pointer, format!("{key}{source} must be of type string (type)")),
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
                        "schema",
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
                self.findings.push(Finding::remark("login-ignored", Severity::Info, text).at(at));
            }
        }
    }
}

fn lacking(field: &str, at: String) -> Finding {
    Finding::blocking("schema", at, format!("the kubernetes-cluster document lacks the field `{field}` (required)"))
}

/// Reads a connection from a kubeconfig's context: flat, with its namespace.
///
/// # Errors
/// Every problem; pointers name the field of the kubeconfig's cluster or user.
pub fn from_kubeconfig(context: &Context) -> Result<Connection, Vec<Finding>> {
    let Context { cluster, user, authority } = context;
    let mut findings = Vec::new();
    let mut refuse = |field: &str, text: &str| {
        findings.push(Finding::blocking(
            "connection",
            field,
            format!("{} {text}", field.rsplit('/').next().unwrap_or(field)),
        ));
    };
    let server = match cluster.server.as_deref().map(Server::parse) {
        Some(Ok(server)) => Some(server),
        Some(Err(problem)) => {
            refuse("/cluster/server", problem);
            None
        }
        None => {
            refuse("/cluster/server", "is missing");
            None
        }
    };
    let ca = match (&cluster.certificate_authority_data, authority) {
        (Some(data), _) => CaBundle::parse(data).map_err(|problem| ("/cluster/certificate-authority-data", problem)),
        (None, Some(pem)) => CaBundle::parse_pem(pem).map_err(|problem| ("/cluster/certificate-authority", problem)),
        (None, None) => Err(("/cluster/certificate-authority-data", "is missing: the artifact has to carry the CA")),
    };
    let ca = ca.map_err(|(field, problem)| refuse(field, problem)).ok();
    if cluster.insecure_skip_tls_verify == Some(true) {
        refuse("/cluster/insecure-skip-tls-verify", "is not accepted: the server could be anybody");
    }
    if cluster.proxy_url.is_some() {
        refuse("/cluster/proxy-url", "is not supported yet");
    }
    let login = match &user.token {
        Some(token) => match Token::parse(token.expose_secret()) {
            Ok(token) => Some(Login::Token(token)),
            Err(problem) => {
                refuse("/user/token", problem);
                None
            }
        },
        None if logs_in(user) => Some(Login::Kubeconfig(Box::new(user.clone()))),
        None => {
            refuse("/user", "has no login that is supported: a token, a client certificate or a command");
            None
        }
    };
    match (server, ca, login) {
        (Some(server), Some(ca), Some(login)) if findings.is_empty() => Ok(Connection {
            server,
            ca,
            tls_server_name: cluster.tls_server_name.clone(),
            login,
            shape: Shape::Flat,
            infrastructure: None,
            specs: None,
            names_namespace: true,
        }),
        _ => Err(findings),
    }
}

/// Whether there is anything to log in with besides a token; a user without it is anonymous.
fn logs_in(user: &AuthInfo) -> bool {
    let certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
    certificate || user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some()
}
