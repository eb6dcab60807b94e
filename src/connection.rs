//! The cluster connection in all its shapes: where the server is, who we are there, and what shape the artifact
//! gets. Parsed once from a document or a kubeconfig. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use crate::{finding::Finding, inputs::kubeconfig::Context, secret::Token};

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
        const FORM: &str = "is not the URL of a server: https://host, with port and path if it has any";
        let uri: http::Uri = text.parse().map_err(|_| FORM)?;
        let authority = uri.authority().ok_or(FORM)?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") => return Err("is http: a token is never sent in clear, use the https URL"),
            _ => return Err(FORM),
        }
        if authority.as_str().contains('@') {
            return Err("holds a user name: only a token logs in");
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(FORM);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if rustls::pki_types::ServerName::try_from(host).is_err() {
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
        if text.trim_start().starts_with("-----BEGIN") {
            return Err("is PEM as it stands: it must be the base64 of that");
        }
        let compact: String = text.split_ascii_whitespace().collect();
        let pem = STANDARD.decode(&compact).map_err(|_| "is not base64")?;
        if pem.starts_with(b"LS0tLS1CRUdJTi") {
            return Err("is base64 twice: decode it once");
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
        let blocks = pem::parse_many(pem).map_err(|_| "is not PEM")?;
        if blocks.iter().any(|block| block.tag().contains("PRIVATE KEY")) {
            return Err("holds a private key: only certificates belong there");
        }
        let certificates: Vec<Vec<u8>> =
            blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
        if certificates.is_empty() {
            return Err("holds no certificate");
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

/// Reads a connection from a document; `overrides` is `kubernetes_cluster` of `config.json`.
///
/// # Errors
/// Every problem, with pointers into the document.
pub fn from_document(document: &Value, overrides: Option<&Value>) -> Result<Connection, Vec<Finding>> {
    let (base, slot) = match document.get(SLOT) {
        Some(slot) => (format!("/{SLOT}"), slot),
        None => (String::new(), document),
    };
    let known = ["authentication", "data"];
    let Some(slot) =
        slot.as_object().filter(|slot| !base.is_empty() || known.iter().any(|key| slot.contains_key(*key)))
    else {
        let (at, text) = match document.get(SLOT) {
            None => ("", format!("the field `{SLOT}` is missing: no cluster is connected (required)")),
            Some(_) => (base.as_str(), format!("`{SLOT}` must be a kubernetes-cluster document (type)")),
        };
        return Err(vec![Finding::blocking("schema", at, text)]);
    };
    let data = slot.get("data").and_then(Value::as_object);
    let (shape, home, base) = match data {
        Some(data) if !slot.contains_key("authentication") => (Shape::Legacy, data, format!("{base}/data")),
        _ => (Shape::Flat, slot, base),
    };
    let overridden = overrides.and_then(|value| value.get("authentication"));
    let mut findings = Vec::new();
    let mut reader = Reader { home, overridden, base: &base, findings: &mut findings };
    let server = reader.part("cluster", "server", Server::parse);
    let ca = reader.part("cluster", "certificate-authority-data", CaBundle::parse);
    let token = reader.part("user", "token", Token::parse);
    let (Some(server), Some(ca), Some(token)) = (server, ca, token) else { return Err(findings) };
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    Ok(Connection {
        server,
        ca,
        tls_server_name: None,
        login: Login::Token(token),
        shape,
        infrastructure: object(home.get("infrastructure")).filter(|map| !map.is_empty()),
        specs: object(slot.get("specs")),
        names_namespace: shape == Shape::Flat && (slot.contains_key("namespace") || slot.len() == 1),
    })
}

/// Reads the three texts that a connection is made of.
struct Reader<'a> {
    home: &'a Map<String, Value>,
    overridden: Option<&'a Value>,
    base: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    /// Parses one text, from `config.json` when it is there; or remembers why not.
    fn part<T>(&mut self, section: &str, key: &str, parse: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let find = |from: Option<&Value>| from?.get(section)?.get(key).filter(|value| !value.is_null()).cloned();
        let theirs = find(self.overridden);
        let source = if theirs.is_some() { " of config.json" } else { "" };
        let pointer = format!("{}/authentication/{section}/{key}", self.base);
        let problem = match theirs.or_else(|| find(self.home.get("authentication"))) {
            Some(Value::String(text)) => match parse(&text) {
                Ok(part) => return Some(part),
                Err(problem) => Finding::blocking("connection", pointer, format!("{key}{source} {problem}")),
            },
            Some(_) => Finding::blocking("schema", pointer, format!("{key}{source} must be of type string (type)")),
            None => self.missing(section, key),
        };
        if !self.findings.contains(&problem) {
            self.findings.push(problem);
        }
        None
    }

    /// The first step on the way to the text that is not there, at its parent's place.
    fn missing(&self, section: &str, key: &str) -> Finding {
        let absent = |text: &str, at: String| {
            Finding::blocking(
                "schema",
                at,
                format!("the kubernetes-cluster document lacks the field `{text}` (required)"),
            )
        };
        let base = self.base;
        match self.home.get("authentication") {
            None => absent("authentication", base.to_owned()),
            Some(authentication) if authentication.get(section).is_none() => {
                absent(section, format!("{base}/authentication"))
            }
            Some(_) => absent(key, format!("{base}/authentication/{section}")),
        }
    }
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
