//! Connection to one server: DNS, TCP, TLS, and HTTP/2 if the server offers it. Independent of Kubernetes and the
//! platform; `cluster/` and `platform.rs` use it.
//!
//! The connection is opened before the first request, for two reasons: failures of connecting are reported as such, and
//! all requests of a run share one TLS handshake. kube's own client only uses HTTP/1.1, where five concurrent requests
//! open five connections and spend more time on handshakes than on responses. A server or proxy without HTTP/2 gets a
//! pool of HTTP/1.1 connections.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::Connection as _},
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::Body;
use rustls::pki_types::ServerName;
use tower::{
    BoxError, Service, ServiceExt as _,
    retry::{Policy, Retry},
};

use crate::{
    endpoint::proxy::Proxy,
    net::{
        error::TransportError,
        proxy_connector::{self, Tunnel},
        tls::{Tls, Witness},
        watched::Watched,
    },
};

/// The time limit for DNS, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// The time limit for one response, of any server.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);
/// The interval of HTTP/2 pings on a connection that waits for a response, and the time limit for their
/// acknowledgement: a dead connection is abandoned before the time limit of the response, so that the next attempt
/// opens a new one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

pub(crate) use super::proxy_connector::USER_AGENT;

type Stream = Watched<MaybeHttpsStream<proxy_connector::Stream>>;

type Pool = Retry<Unprocessed, Client<PrimedConnector, Body>>;

/// An open connection, reopened when it breaks between two requests.
#[derive(Clone)]
pub(crate) struct Http {
    pool: Pool,
    connector: Connector,
    http2: bool,
}

/// The connector, and the record of how its TLS sessions ended.
type Connector = (HttpsConnector<Tunnel>, Witness);

impl Http {
    fn new(first: Option<Stream>, connector: Connector, http2: bool) -> Self {
        let primed = PrimedConnector { first: Arc::new(Mutex::new(first)), connector: connector.clone() };
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .http2_keep_alive_timeout(SIGN_OF_LIFE)
            .build(primed);
        Self { pool: Retry::new(Unprocessed { left: 3 }, client), connector, http2 }
    }

    /// The same connector without the connections opened so far.
    #[must_use]
    pub(crate) fn without_pool(&self) -> Self {
        Self::new(None, self.connector.clone(), self.http2)
    }
}

impl Service<Request<Body>> for Http {
    type Response = <Pool as Service<Request<Body>>>::Response;
    type Error = <Pool as Service<Request<Body>>>::Error;
    type Future = <Pool as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.pool.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.pool.call(request)
    }
}

/// A server to connect to.
pub(crate) struct Peer<'a> {
    /// The server.
    pub(crate) uri: &'a http::Uri,
    /// The name of its certificate, if that is not its host.
    pub(crate) name: Option<&'a ServerName<'static>>,
    /// The proxy in front of it.
    pub(crate) proxy: Option<&'a Proxy>,
}

/// Opens a connection; `within` is the time left for the run.
pub(crate) async fn open(
    target: &Peer<'_>,
    tls: &Tls,
    within: Duration,
) -> Result<(Http, &'static str), TransportError> {
    let tunnel = Tunnel::new(target.proxy).map_err(|error| TransportError::of(&error))?;
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls.config.clone()).https_or_http();
    let builder = match target.name {
        Some(name) => builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone())),
        None => builder,
    };
    let mut connector = builder.enable_all_versions().wrap_connector(tunnel);

    let connecting = async {
        let connector = connector.ready().await?;
        connector.call(target.uri.clone()).await
    };
    let stream = tokio::time::timeout(CONNECT.min(within), connecting)
        .await
        .map_err(|_| match target.proxy {
            Some(proxy) => TransportError::Proxy(format!(
                "the proxy {} did not connect to the server within the time limit",
                proxy.address()
            )),
            None => TransportError::Timeout("no connection"),
        })?
        .map_err(|error| explained(TransportError::of(&*error), &tls.witness))?;
    let http2 = stream.connected().is_negotiated_h2();
    let stream = Watched::new(stream, tls.witness.clone());
    Ok((Http::new(Some(stream), (connector, tls.witness.clone()), http2), if http2 { "HTTP/2" } else { "HTTP/1.1" }))
}

/// Repeats a request that the server declared unprocessed. An API server closes an HTTP/2 connection gracefully now and
/// then, to spread its clients (`--goaway-chance`) and after a 401; requests under way are then rejected, and may be
/// repeated whatever they are (RFC 9113, section 8.7). Nothing else is repeated here.
#[derive(Clone)]
pub(crate) struct Unprocessed {
    left: u8,
}

impl<R, E: Error + 'static> Policy<Request<Body>, R, E> for Unprocessed {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<R, E>) -> Option<Self::Future> {
        let mut layer = result.as_ref().err().map(|error| error as &(dyn Error + 'static));
        while let Some(error) = layer {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                let polite = error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
                let refused = error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
                self.left = self.left.checked_sub(1).filter(|_| polite || refused)?;
                return Some(std::future::ready(()));
            }
            layer = error.source();
        }
        None
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        copy(request)
    }
}

/// A copy of a request, unless its body can be read only once.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// A connector that returns the open connection first, and then new ones.
#[derive(Clone)]
pub(crate) struct PrimedConnector {
    first: Arc<Mutex<Option<Stream>>>,
    connector: Connector,
}

impl Service<http::Uri> for PrimedConnector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.0.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        if let Some(open) = self.first.lock().ok().and_then(|mut first| first.take()) {
            return Box::pin(std::future::ready(Ok(open)));
        }
        let (connecting, witness) = (self.connector.0.call(uri), self.connector.1.clone());
        Box::pin(async {
            let stream = tokio::time::timeout(CONNECT, connecting).await;
            Ok(Watched::new(stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??, witness))
        })
    }
}

/// A transport error, refined by the outcome of the connection's TLS handshakes.
pub(crate) fn explained(error: TransportError, witness: &Witness) -> TransportError {
    match error {
        TransportError::Tls(fault) => TransportError::Tls(witness.explain(fault)),
        TransportError::Lost(cause) => witness.refusal().map_or(TransportError::Lost(cause), TransportError::Tls),
        other => other,
    }
}
