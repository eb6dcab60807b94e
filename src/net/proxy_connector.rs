//! Connector of one server: directly, or through a proxy, which opens a tunnel (CONNECT, SOCKS) or forwards requests
//! (plain http).

use std::{
    future::{Ready, ready},
    io::Error as IoError,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{
    body::Bytes,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector, proxy::SocksV5};
use tower::{BoxError, Service, ServiceExt as _};

use crate::{
    diagnostics::text::sanitize,
    endpoint::proxy::Proxy,
    net::{
        error::{ProxyError, TransportError},
        tls::{Tls, TrustRoots},
    },
};

/// The `User-Agent` of every request, CONNECT included. Audit logs and managed fields record it.
pub(crate) const USER_AGENT: &str = concat!("k8s-token/", env!("CARGO_PKG_VERSION"));

/// A connector of one server.
#[derive(Clone)]
pub(crate) enum Tunnel {
    /// Without a proxy.
    Straight(HttpConnector),
    /// Through one, which may speak TLS itself.
    Through(Box<(Proxy, HttpsConnector<HttpConnector>)>),
}

impl Tunnel {
    /// The connector through this proxy, if there is one.
    ///
    /// # Errors
    /// The proxy uses TLS, and the system trust store is empty.
    pub(crate) fn new(proxy: Option<&Proxy>) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let Some(proxy) = proxy else { return Ok(Self::Straight(tcp)) };
        let encrypted = proxy.hop().scheme() == Some(&http::uri::Scheme::HTTPS);
        let roots = if encrypted { TrustRoots::System } else { TrustRoots::Nobody };
        let tls = Tls::new(roots, None)?.config;
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        Ok(Self::Through(Box::new((proxy.clone(), builder.enable_http1().wrap_connector(tcp)))))
    }
}

impl Service<Uri> for Tunnel {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Straight(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Self::Through(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match self {
            Self::Straight(tcp) => {
                let connecting = tcp.call(target);
                Box::pin(async { Ok(Stream::new(connecting.await?)) })
            }
            Self::Through(through) => {
                let (proxy, connector) = (through.0.clone(), through.1.clone());
                Box::pin(async move {
                    let address = proxy.address();
                    let opened = open(&proxy, connector, target).await;
                    opened.map_err(|cause| ProxyError(format!("the proxy {address} {cause}")).into())
                })
            }
        }
    }
}

async fn open(proxy: &Proxy, connector: HttpsConnector<HttpConnector>, target: Uri) -> Result<Stream, String> {
    let stream = connector.oneshot(proxy.hop()).await;
    let stream = stream.map_err(|error| format!("cannot be used: {}", TransportError::of(&*error)))?;
    if proxy.is_socks() {
        // The proxy resolves the name, which may be known only there.
        let mut socks = SocksV5::new(proxy.hop(), Opened(Some(stream)));
        if let Some((user, password)) = proxy.login() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        let stream = socks.oneshot(target).await;
        return stream
            .map(Stream::new)
            .map_err(|error| format!("could not connect to the server: {}", sanitize(&error.to_string(), 200)));
    }
    if target.scheme() == Some(&http::uri::Scheme::HTTP) {
        // Each request then names the server and carries the proxy's login.
        return Ok(Stream { passes_on: true, ..Stream::new(stream) });
    }
    connect(proxy, stream, &target).await
}

/// A connector that returns an open connection.
struct Opened<S>(Option<S>);

impl<S> Service<Uri> for Opened<S> {
    type Response = S;
    type Error = IoError;
    type Future = Ready<Result<S, IoError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| IoError::other("handed out already")))
    }
}

async fn connect<S>(proxy: &Proxy, stream: S, target: &Uri) -> Result<Stream, String>
where
    S: Read + Write + Send + Unpin + 'static,
{
    let broke = |error: hyper::Error| format!("failed: {}", TransportError::of(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broke)?;
    tokio::spawn(connection.with_upgrades());
    let address = format!("{}:{}", target.host().unwrap_or_default(), target.port_u16().unwrap_or(443));
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(&address)
        .header(header::HOST, &address)
        .header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let login = proxy.authorization();
    let request = login.iter().fold(request, |request, login| request.header(header::PROXY_AUTHORIZATION, login));
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| sanitize(&error.to_string(), 200))?;
    let answer = sender.send_request(request).await.map_err(broke)?;
    match answer.status() {
        status if status.is_success() => hyper::upgrade::on(answer).await.map(Stream::new).map_err(broke),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED if login.is_some() => {
            Err("does not accept the user and password in its URL (407)".to_owned())
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Err("requires a login (407): add one to its URL, as in http://user:password@host:port".to_owned())
        }
        status => Err(format!("did not connect to {address}: its answer was {}", status.as_u16())),
    }
}

/// A byte stream to the server, direct or through a proxy.
pub(crate) struct Stream {
    bytes: Box<dyn Bidirectional>,
    /// Whether a proxy forwards the requests (plain http).
    passes_on: bool,
}

trait Bidirectional: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Bidirectional for T {}

impl Stream {
    fn new(bytes: impl Read + Write + Send + Unpin + 'static) -> Self {
        Self { bytes: Box::new(bytes), passes_on: false }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.passes_on)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.bytes).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, IoError>> {
        Pin::new(&mut self.bytes).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize, IoError>> {
        Pin::new(&mut self.bytes).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.bytes).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }
}
