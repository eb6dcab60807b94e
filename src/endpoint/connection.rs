//! The cluster connection in all its formats: the server, the CAs that verify it, the login, and the fields that the
//! published document copies. `request/` creates it from a document or a kubeconfig. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::config::AuthInfo;
use rustls::pki_types::ServerName;
use serde_json::{Map, Value};

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
    },
    endpoint::{client_certificate::ClientCertificate, host, proxy::Route},
    x509::{
        Certificate,
        pem_blocks::{Block, blocks},
    },
};

/// The server's URL, verbatim, and parsed: https, a host, no user, no query. A path is kept (Rancher).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    text: String,
    uri: http::Uri,
}

impl Server {
    /// Checks the URL.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is not the URL of a server (expected https://host, with port and path if needed, and an \
                            IPv6 address in brackets)";
        if text.is_empty() {
            return Err("is empty");
        }
        if text.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err("contains whitespace or a control character");
        }
        if !text.is_ascii() {
            return Err(
                "contains non-ASCII characters: write the host in Punycode (xn--...), and percent-encode the path",
            );
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {}
            "http" => return Err("is http: a token is never sent unencrypted, use the https URL"),
            _ => return Err(FORM),
        }
        if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return Err("contains a user name: remove it, because the login is the token");
        }
        if rest.contains(['?', '#']) {
            return Err("contains a query or a fragment (expected the path at the end)");
        }
        let uri: http::Uri = text.parse().map_err(|_| FORM)?;
        let authority = uri.authority().ok_or(FORM)?;
        // An invalid port would silently become the default one.
        let port = authority.as_str().strip_prefix(authority.host()).ok_or(FORM)?;
        if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("has an invalid port (expected 1-65535)");
        }
        let can_be_named = match authority.host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => ServerName::try_from(authority.host()).is_ok(),
        };
        if !can_be_named {
            return Err("has an invalid host (expected a DNS name or a complete IP address)");
        }
        Ok(Self { text: text.to_owned(), uri })
    }

    /// The text as it was given and is published.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Parsed.
    pub(crate) const fn uri(&self) -> &http::Uri {
        &self.uri
    }
}

/// The CA certificates that the server is verified against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaBundle {
    base64: String,
    certificates: Vec<Vec<u8>>,
}

impl CaBundle {
    /// Parses base64-encoded PEM, as in a kubeconfig; line breaks in it are ignored.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("-----BEGIN") {
            return Err("is plain PEM (expected the base64 encoding of PEM)");
        }
        let compact: String = text.split_ascii_whitespace().collect();
        if compact.is_empty() {
            return Err("is empty");
        }
        let pem = STANDARD.decode(&compact).map_err(|_| "is not base64")?;
        if pem.starts_with(b"LS0tLS1CRUdJTi") {
            return Err("is base64-encoded twice: decode it once");
        }
        if pem.starts_with(b"\x30\x82") {
            return Err("is the base64 encoding of DER (expected that of PEM)");
        }
        Self::from_pem(&pem, text.to_owned())
    }

    /// Parses PEM, as in a file.
    pub(crate) fn parse_pem(pem: &[u8]) -> Result<Self, &'static str> {
        Self::from_pem(pem, STANDARD.encode(pem))
    }

    /// A bundle of one certificate in DER.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        Self::parse_pem(pem::encode(&pem::Pem::new("CERTIFICATE", certificate)).as_bytes()).ok()
    }

    fn from_pem(pem: &[u8], base64: String) -> Result<Self, &'static str> {
        const NONE: &str = "contains no certificate in PEM format";
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let blocks = blocks(pem);
        if blocks.iter().any(Block::is_private_key) {
            return Err("contains a private key (expected certificates only)");
        }
        let found: Vec<Vec<u8>> = blocks.into_iter().filter(Block::is_ca).map(|block| block.der).collect();
        // As in kubectl, unreadable certificates are ignored, as long as one is readable.
        let (certificates, unreadable): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|it| Certificate::parse(it).is_ok());
        if !certificates.is_empty() {
            return Ok(Self { base64, certificates });
        }
        let begins = pem.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
        let lines = pem.split(|byte| *byte == b'\n').filter(|line| line.starts_with(BEGIN)).count();
        Err(match (unreadable.is_empty(), begins == lines) {
            (false, _) => "contains no readable certificate: the content of its PEM blocks is not X.509",
            (true, false) => {
                "contains a certificate whose BEGIN marker is not at the start of a line; some tools would skip it"
            }
            (true, true) => NONE,
        })
    }

    /// The text as it was given and is published.
    pub(crate) fn as_base64(&self) -> &str {
        &self.base64
    }

    /// The certificates in DER.
    pub(crate) fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }
}

/// The CAs that have to verify the server.
#[derive(Clone)]
pub(crate) enum ServerTrust {
    /// These certificates.
    Given(CaBundle),
    /// The system trust store, for a kubeconfig without a CA.
    System,
}

/// The login of the parent credential.
#[derive(Clone)]
pub(crate) enum ClusterLogin {
    /// The connection's token.
    Token(Token),
    /// Another login of a kubeconfig.
    Kubeconfig(Box<KubeconfigUser>),
}

impl ClusterLogin {
    /// The token, if the login is a token.
    pub(crate) fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            Self::Kubeconfig(user) => user.credentials.token.as_ref(),
        }
    }
}

/// A kubeconfig user with another login than a token.
#[derive(Clone)]
pub(crate) struct KubeconfigUser {
    /// Its static credentials.
    pub(crate) credentials: Credentials,
    /// The login command that prints the credentials, if there are no static ones.
    pub(crate) command: Option<ExecPlugin>,
    /// The impersonated user: `as` and its related fields.
    pub(crate) acting: AuthInfo,
}

impl KubeconfigUser {
    /// Whether the login command may prompt at the terminal.
    pub(crate) fn is_interactive(&self) -> bool {
        self.command.as_ref().is_some_and(|command| command.interactive)
    }
}

/// The credentials that are sent to the server.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    /// The token, for the header of every request.
    pub(crate) token: Option<Token>,
    /// The client certificate, for the handshake.
    pub(crate) identity: Option<ClientCertificate>,
}

/// A login command (exec plugin).
#[derive(Clone)]
pub(crate) struct ExecPlugin {
    /// A name to search in PATH, or a path.
    pub(crate) program: String,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Variables in addition to those of this process.
    pub(crate) variables: Vec<(String, String)>,
    /// The content of `KUBERNETES_EXEC_INFO`.
    pub(crate) told: Value,
    /// Whether it may prompt at the terminal.
    pub(crate) interactive: bool,
    /// The kubeconfig's `installHint`.
    pub(crate) hint: Option<String>,
}

/// The shape of a kubernetes-cluster document: one of two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All fields at the top; since 2026.
    Flat,
    /// All fields except `specs` under `data`.
    Legacy,
}

/// A cluster connection.
#[derive(Clone)]
pub(crate) struct Connection {
    /// The server's URL.
    pub(crate) server: Server,
    /// The CAs that have to verify it.
    pub(crate) ca: ServerTrust,
    /// Name to expect in the server's certificate instead of the host.
    pub(crate) tls_server_name: Option<ServerName<'static>>,
    /// The route to it: direct, or through a proxy.
    pub(crate) route: Route,
    /// The login.
    pub(crate) login: ClusterLogin,
    /// Whether its token is from a file, which is written anew before the token expires.
    pub(crate) token_is_from_file: bool,
    /// The document's shape.
    pub(crate) shape: Shape,
    /// `infrastructure`, unless empty.
    pub(crate) infrastructure: Option<Map<String, Value>>,
    /// `specs`.
    pub(crate) specs: Option<Map<String, Value>>,
    /// Whether a published document of this shape contains its namespace.
    pub(crate) names_namespace: bool,
    /// The context of the kubeconfig, if it is from one.
    pub(crate) context: Option<String>,
}

impl Connection {
    /// Findings about properties of this connection for which the published document has no field.
    pub(crate) fn limits(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let host = self.server.uri().host().unwrap_or_default();
        if host::is_relative(host) {
            let text = format!(
                "the server's address {} means the local machine: the credential only works on this one",
                self.server.as_str()
            );
            let help =
                "use a server address that other machines can reach, and that the server's certificate is valid for";
            findings.push(Finding::remark(finding::Code::LocalAddress, text).help(help));
        }
        if let Some(proxy) = self.route.proxy().filter(|proxy| proxy.source == PROXY_URL) {
            let text = format!(
                "the cluster is reached through {} (proxy-url of the kubeconfig), and the credential document has no \
                 field for that: its users must set the proxy themselves",
                proxy.address()
            );
            let help = "set HTTPS_PROXY where the credential is used, or add proxy-url to its kubeconfig";
            findings.push(Finding::remark(finding::Code::ProxyNeeded, text).help(help));
        }
        findings
    }
}

/// The field of a kubeconfig that names a proxy.
pub(crate) const PROXY_URL: &str = "proxy-url";

/// Parses the name to expect in a server's certificate.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, &'static str> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| "is not a valid server name (expected a DNS name or an IP address)")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testbed::{Forged, Key, Spec};

    use super::*;
    use crate::endpoint::proxy::Proxy;

    #[rstest]
    #[case::host("https://a.example.com")]
    #[case::port("https://a.example.com:6443")]
    #[case::largest_port("https://a.example.com:65535")]
    #[case::path("https://rancher.example.com/k8s/clusters/c-1/")]
    #[case::scheme_in_upper_case("HTTPS://a.example.com")]
    #[case::one_label("https://kubernetes")]
    #[case::ipv4("https://10.0.0.1")]
    #[case::ipv6("https://[2001:db8::1]:6443")]
    #[case::at_sign_in_the_path("https://a.example.com/a@b")]
    fn server_url_is_kept_verbatim(#[case] url: &str) {
        let server = Server::parse(url).unwrap();
        assert_eq!(server.as_str(), url);
        assert_eq!(server.uri().scheme_str(), Some("https"));
    }

    #[rstest]
    #[case::empty("", "is empty")]
    #[case::blank_inside("https://a b", "contains whitespace")]
    #[case::line_break_at_the_end("https://a.example.com\n", "contains whitespace")]
    #[case::nul("https://a\0", "contains whitespace or a control character")]
    #[case::not_ascii("https://b\u{fc}cher.example.com", "contains non-ASCII characters")]
    #[case::no_scheme("a.example.com:6443", "is not the URL of a server")]
    #[case::no_host("https://", "is not the URL of a server")]
    #[case::another_scheme("ftp://a.example.com", "is not the URL of a server")]
    #[case::http("http://a.example.com", "is http")]
    #[case::http_in_upper_case("HTTP://a.example.com", "is http")]
    #[case::user("https://admin@a.example.com", "contains a user name")]
    #[case::user_and_password("https://admin:s3cret@a.example.com", "contains a user name")]
    #[case::query("https://a.example.com/?a=b", "contains a query or a fragment")]
    #[case::fragment("https://a.example.com#a", "contains a query or a fragment")]
    #[case::port_zero("https://a.example.com:0", "has an invalid port")]
    #[case::port_too_large("https://a.example.com:65536", "has an invalid port")]
    #[case::port_empty("https://a.example.com:", "has an invalid port")]
    #[case::ipv6_without_brackets("https://2001:db8::1", "is not the URL of a server")]
    #[case::ipv4_in_brackets("https://[10.0.0.1]", "has an invalid host")]
    #[case::incomplete_ipv4("https://10.0.1", "has an invalid host")]
    #[case::empty_label("https://a..example.com", "has an invalid host")]
    fn invalid_server_url_is_refused_without_its_value(#[case] url: &str, #[case] problem: &str) {
        let found = Server::parse(url).unwrap_err();
        assert!(found.starts_with(problem), "{found}");
    }

    #[test]
    fn ca_bundle_is_kept_verbatim() {
        let (one, two) =
            (Forged::self_signed(&Spec::ca("a"), Key::p256()), Forged::self_signed(&Spec::ca("b"), Key::p256()));
        let both = STANDARD.encode(one.pem() + &two.pem());
        let broken = format!("{}\n {}\r\n", &both[..64], &both[64..]);
        for text in [&both, &broken] {
            let bundle = CaBundle::parse(text).unwrap();
            assert_eq!(
                (bundle.as_base64(), bundle.certificates()),
                (text.as_str(), &[one.der.clone(), two.der.clone()][..])
            );
        }
        let unreadable = pem::encode(&pem::Pem::new("CERTIFICATE", [0x30; 9])) + &one.pem();
        assert_eq!(CaBundle::parse_pem(unreadable.as_bytes()).unwrap().certificates(), std::slice::from_ref(&one.der));
        assert_eq!(CaBundle::of(&one.der).unwrap().certificates(), [one.der]);
        assert_eq!(CaBundle::of(b"no certificate"), None);
    }

    #[test]
    fn invalid_ca_bundle_is_refused_with_its_cause() {
        let ca = Forged::self_signed(&Spec::ca("a"), Key::p256());
        let encoded = |text: &str| STANDARD.encode(text);
        for (text, problem) in [
            (ca.pem(), "is plain PEM"),
            (String::new(), "is empty"),
            (" \r\n".to_owned(), "is empty"),
            ("s3cret!".to_owned(), "is not base64"),
            (encoded(&ca.base64()), "is base64-encoded twice"),
            (STANDARD.encode(&ca.der), "is the base64 encoding of DER"),
            (encoded("hello"), "contains no certificate in PEM format"),
            (encoded(&ca.key.pem()), "contains a private key"),
            (encoded(&(ca.pem() + &ca.key.pem())), "contains a private key"),
            (encoded(&pem::encode(&pem::Pem::new("CERTIFICATE", [0x30; 9]))), "contains no readable certificate"),
            (encoded(&format!("ca: {}", ca.pem())), "contains a certificate whose BEGIN marker"),
        ] {
            let found = CaBundle::parse(&text).unwrap_err();
            assert!(found.starts_with(problem), "{found} (expected {problem})");
        }
    }

    #[rstest]
    #[case("a.example.com", true)]
    #[case("10.0.0.1", true)]
    #[case("2001:db8::1", true)]
    #[case("[2001:db8::1]", false)]
    #[case("a.example.com:443", false)]
    #[case("a b", false)]
    #[case("", false)]
    fn server_name_is_a_host_without_port(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(server_name(name).is_ok(), valid);
    }

    fn proxy(source: &'static str) -> Route {
        Route::Proxied(Proxy::parse("http://u:s3cret@proxy.example.com:3128", source).unwrap())
    }

    #[rstest]
    #[case::reachable("https://a.example.com", Route::Direct, &[])]
    #[case::loopback("https://127.0.0.1:6443", Route::Direct, &["local-address"])]
    #[case::docker_desktop("https://kubernetes.docker.internal:6443", Route::Direct, &["local-address"])]
    #[case::proxy_of_the_kubeconfig("https://a.example.com", proxy(PROXY_URL), &["proxy-needed"])]
    #[case::proxy_of_the_environment("https://a.example.com", proxy("HTTPS_PROXY"), &[])]
    #[case::both("https://localhost", proxy(PROXY_URL), &["local-address", "proxy-needed"])]
    fn properties_without_a_published_field_are_reported(
        #[case] server: &str,
        #[case] route: Route,
        #[case] codes: &[&str],
    ) {
        let connection = Connection {
            server: Server::parse(server).unwrap(),
            ca: ServerTrust::System,
            tls_server_name: None,
            route,
            login: ClusterLogin::Token(Token::parse("the-token").unwrap()),
            token_is_from_file: false,
            shape: Shape::Flat,
            infrastructure: None,
            specs: None,
            names_namespace: true,
            context: None,
        };
        let findings = connection.limits();
        assert_eq!(findings.iter().map(|finding| finding.code.as_str()).collect::<Vec<_>>(), codes);
        assert!(!findings.iter().any(|finding| finding.blocking || finding.message.contains("s3cret")));
    }
}
