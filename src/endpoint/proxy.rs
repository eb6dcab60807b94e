//! Routes to a server: direct, or through a proxy. `proxy-url` of a kubeconfig, else the environment variables, read as
//! Go's net/http reads them, because kubectl and everything else near a cluster is written in Go
//! (golang.org/x/net/http/httpproxy). Pure.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};

/// The route to a server.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// No proxy is configured.
    Direct,
    /// `NO_PROXY` excludes this server.
    Excepted,
    /// Through this proxy.
    Proxied(Proxy),
}

/// A proxy, with the login to it.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// Scheme, host and port, without a user.
    uri: Uri,
    login: Option<ProxyAuth>,
    /// Its source, as in `HTTPS_PROXY`.
    pub(crate) source: &'static str,
}

#[derive(Clone, Debug)]
struct ProxyAuth {
    user: String,
    password: SecretString,
}

impl Route {
    /// The proxy, if there is one.
    pub(crate) const fn proxy(&self) -> Option<&Proxy> {
        match self {
            Self::Proxied(proxy) => Some(proxy),
            Self::Direct | Self::Excepted => None,
        }
    }

    /// The line of the log about it; none if no proxy is configured.
    pub(crate) fn told(&self, target: &str) -> Option<String> {
        match self {
            Self::Direct => None,
            Self::Excepted => Some(format!("none for {target}, because of NO_PROXY")),
            Self::Proxied(proxy) => Some(format!("{} for {target}, from {}", proxy.address(), proxy.source)),
        }
    }
}

impl Proxy {
    /// Reads the URL of a proxy.
    ///
    /// # Errors
    /// What was expected, without the value: it may contain a password.
    pub(crate) fn parse(text: &str, source: &'static str) -> Result<Self, &'static str> {
        const FORM: &str = "is not the URL of a proxy (expected http://, https:// or socks5://host:port)";

        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            Some("socks5" | "socks5h") => 1080,
            _ => return Err(FORM),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(FORM)?;
        let port = uri.port_u16().unwrap_or(port);
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = authority.as_str().rsplit_once('@').map(|(login, _)| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            ProxyAuth { user: decoded(user), password: SecretString::from(decoded(password)) }
        });
        let uri = Uri::builder()
            .scheme(uri.scheme_str().unwrap_or_default())
            .authority(format!("{}:{port}", authority.host()))
            .path_and_query("/")
            .build()
            .map_err(|_| FORM)?;
        Ok(Self { uri, login, source })
    }

    /// Its address, for messages.
    pub(crate) fn address(&self) -> String {
        self.uri.to_string().trim_end_matches('/').to_owned()
    }

    /// The URL to connect to, with or without TLS, whatever is sent to it then.
    pub(crate) fn hop(&self) -> Uri {
        let mut parts = self.uri.clone().into_parts();
        if self.is_socks() {
            parts.scheme = Some(http::uri::Scheme::HTTP);
        }
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Whether it is a SOCKS proxy, not an HTTP one.
    pub(crate) fn is_socks(&self) -> bool {
        self.uri.scheme_str().is_some_and(|scheme| scheme.starts_with("socks"))
    }

    /// User and password.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|login| (login.user.as_str(), login.password.expose_secret()))
    }

    /// The secrets in it.
    pub(crate) fn secret(&self) -> Option<&SecretString> {
        self.login.as_ref().map(|login| &login.password)
    }

    /// The Proxy-Authorization header of an HTTP proxy.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.login()?;
        let mut value =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` in upper case, else in lower case; each with its name.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    /// For https.
    pub(crate) https: Option<(&'static str, String)>,
    /// For http.
    pub(crate) http: Option<(&'static str, String)>,
    /// The list of excluded servers.
    pub(crate) no: Option<String>,
}

impl Variables {
    /// The route to a server.
    ///
    /// # Errors
    /// The variable whose value is not the URL of a proxy, without the value. Go ignores it and connects directly,
    /// which is not what the variable was set for.
    pub(crate) fn route_to(&self, target: &Uri) -> Result<Route, String> {
        let (variable, port) = match target.scheme_str() {
            Some("http") => (&self.http, 80),
            _ => (&self.https, 443),
        };
        let Some((name, value)) = variable else { return Ok(Route::Direct) };
        let host = target.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_lowercase();
        // As in Go, no proxy is used for the local machine.
        if host == "localhost" || host.parse().is_ok_and(|address| unmapped(address).is_loopback()) {
            return Ok(Route::Direct);
        }
        if excepts(self.no.as_deref().unwrap_or_default(), &host, target.port_u16().unwrap_or(port)) {
            return Ok(Route::Excepted);
        }
        // A host without a scheme is accepted, as in `proxy.example.com:3128`.
        let url = if value.contains("://") { value.clone() } else { format!("http://{value}") };
        Proxy::parse(&url, name).map(Route::Proxied).map_err(|problem| format!("{name} {problem}"))
    }
}

/// Whether a `NO_PROXY` list contains this host: as a name, as part of a domain, as an address or in a network, each
/// except networks also with a port; or as `*`. Invalid entries are ignored.
fn excepts(list: &str, host: &str, port: u16) -> bool {
    let address: Option<IpAddr> = host.parse().ok().map(unmapped);
    list.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = network(&entry) {
            return address.is_some_and(|address| within(address, network, bits));
        }
        let (name, wanted) = with_port(&entry);
        let here = wanted.is_none_or(|wanted| wanted == port.to_string());
        match (name.parse().map(unmapped), address) {
            (Ok(name), Some(address)) => name == address && here,
            (Ok(_), None) | (Err(_), Some(_)) => false,
            (Err(_), None) => {
                let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
                let (whole, suffix) = match name.strip_prefix('.') {
                    Some(_) => (false, name.to_owned()),
                    None => (host == name, format!(".{name}")),
                };
                !name.is_empty() && (whole || host.ends_with(&suffix)) && here
            }
        }
    })
}

/// `10.0.0.0/8`
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or_default() == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or_default() == 0
        }
        _ => false,
    }
}

/// `host`, `host:port`, `[address]:port`
fn with_port(entry: &str) -> (&str, Option<&str>) {
    if let Some((address, port)) = entry.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return (address, Some(port));
    }
    match entry.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, Some(port)),
        _ => (entry, None),
    }
}

/// An IPv4 address that is written as an IPv6 one.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn route(no: &str, target: &str) -> Route {
        let variables = Variables {
            https: Some(("HTTPS_PROXY", "secure.example.com:3128".to_owned())),
            http: Some(("http_proxy", "http://plain.example.com".to_owned())),
            no: Some(no.to_owned()),
        };
        variables.route_to(&target.parse().unwrap()).unwrap()
    }

    /// The table of golang.org/x/net/http/httpproxy, and what its documentation says.
    #[rstest]
    #[case("localhost", "", false)]
    #[case("127.0.0.1", "", false)]
    #[case("127.0.0.2", "", false)]
    #[case("[::1]", "", false)]
    #[case("[::2]", "", true)]
    #[case("[::ffff:127.0.0.1]", "", false)]
    #[case("192.168.1.1", "", true)]
    #[case("192.168.1.1", "192.168.1.1", false)]
    #[case("192.168.1.3", "192.168.1.1", true)]
    #[case("192.168.1.3", "192.168.1.0/24", false)]
    #[case("192.168.2.3", "192.168.1.0/24", true)]
    #[case("192.168.2.3", "0.0.0.0/0", false)]
    #[case("192.168.1.1", "192.168.1.1/32", false)]
    #[case("[2001:db8::52:0:1]", "2001:db8::/32", false)]
    #[case("[2001:db9::52:0:1]", "2001:db8::/32", true)]
    #[case("[2001:db8::52:0:1]", "2001:db8::52:0:1", false)]
    #[case("[2001:db8::52:0:1]:8443", "[2001:db8::52:0:1]:8443", false)]
    #[case("[2001:db8::52:0:1]:8444", "[2001:db8::52:0:1]:8443", true)]
    #[case("[2001:db8::52:0:3]", "[2001:db8::52:0:1]:8443", true)]
    #[case("www.jp", ".jp", false)]
    #[case("jp", ".jp", true)]
    #[case("foofoobar.com", "foobar.com", true)]
    #[case("foobar.com", "foobar.com", false)]
    #[case("www.foobar.com", "foobar.com", false)]
    #[case("www.foobar.com", ".foobar.com", false)]
    #[case("www.foobar.com", "*.foobar.com", false)]
    #[case("foobar.com", "*.foobar.com", true)]
    #[case("FooBar.com", "FOOBAR.COM", false)]
    #[case("baz.com", "foo.com, baz.com", false)]
    #[case("baz.com", "foo.com, baz.com,", false)]
    #[case("baz.com", "foo.com,,x", true)]
    #[case("barbaz.com", "*", false)]
    #[case("192.168.1.1", "foo.com, *", false)]
    #[case("foo.com", "foo.com:443", false)]
    #[case("foo.com:8443", "foo.com:443", true)]
    #[case("foo.com:8443", "foo.com:8443", false)]
    #[case("192.168.1.1:6443", "192.168.1.1:6443", false)]
    #[case("192.168.1.1:6443", "192.168.1.1:443", true)]
    #[case("192.168.1.1", "192.168.1.1/40", true)]
    #[case("192.168.1.1", "/24", true)]
    #[case("foo.com", ":443", true)]
    fn no_proxy_is_parsed_like_go(#[case] host: &str, #[case] no: &str, #[case] proxied: bool) {
        let route = route(no, &format!("https://{host}"));
        assert_eq!(route.proxy().is_some(), proxied, "{route:?}");
    }

    #[test]
    fn each_scheme_has_its_proxy_variable() {
        let address = |target: &str| route("", target).proxy().unwrap().address();
        assert_eq!(address("https://a.example.com"), "http://secure.example.com:3128");
        assert_eq!(address("http://a.example.com"), "http://plain.example.com:80");
        assert!(matches!(Variables::default().route_to(&"https://a".parse().unwrap()), Ok(Route::Direct)));
    }

    #[rstest]
    #[case("http://me:p%40ss@proxy:3128/", "http://proxy:3128", Some(("me", "p@ss")))]
    #[case("https://me@proxy", "https://proxy:443", Some(("me", "")))]
    #[case("socks5://[::1]", "socks5://[::1]:1080", None)]
    #[case("socks5h://u:v@proxy:9", "socks5h://proxy:9", Some(("u", "v")))]
    fn proxy_address_omits_the_login(#[case] url: &str, #[case] address: &str, #[case] login: Option<(&str, &str)>) {
        let proxy = Proxy::parse(url, "proxy-url").unwrap();
        assert_eq!((proxy.address().as_str(), proxy.login()), (address, login));
    }

    #[rstest]
    fn invalid_proxy_url_is_refused_without_quoting(
        #[values("ftp://s3cret@proxy", "http://", "proxy s3cret", "s3cret", "http://s3cret@pro xy")] url: &str,
    ) {
        assert!(!Proxy::parse(url, "proxy-url").unwrap_err().contains("s3cret"));
    }

    #[test]
    fn proxy_login_is_sent_as_basic_authentication() {
        let proxy = Proxy::parse("http://Aladdin:open%20sesame@proxy", "proxy-url").unwrap();
        assert_eq!(proxy.authorization().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
