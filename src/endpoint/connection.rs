//! The cluster connection in all its shapes: the server, the CAs that it is verified against, the login there, and what
//! an artifact takes over. `request/` makes it of a document or a kubeconfig. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::config::AuthInfo;
use rustls::pki_types::ServerName;
use serde_json::{Map, Value};

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
    },
    endpoint::{client_certificate::Identity, host, proxy::Route},
    x509::{
        Certificate,
        pem_blocks::{Block, blocks},
    },
};

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

/// What the server gets to see.
#[derive(Clone, Default)]
pub struct Credentials {
    /// In the head of every request.
    pub token: Option<Token>,
    /// In the handshake.
    pub identity: Option<Identity>,
}

/// A command that prints credentials.
#[derive(Clone)]
pub struct Command {
    /// A name to look up on the PATH, or a path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside those of this process.
    pub variables: Vec<(String, String)>,
    /// What it is told, as `KUBERNETES_EXEC_INFO`.
    pub told: Value,
    /// Whether it may ask the person at the terminal.
    pub interactive: bool,
    /// Where to get it, if the kubeconfig says so.
    pub hint: Option<String>,
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
pub const PROXY_URL: &str = "proxy-url";

/// The name that a server's certificate is to have.
///
/// # Errors
/// What would be right.
pub fn server_name(name: &str) -> Result<ServerName<'static>, &'static str> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| "is not a name that a certificate can have: a DNS name, or an IP address")
}
