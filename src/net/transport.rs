//! One connection to one server: DNS, TCP, TLS, and HTTP/2 where the server offers it. Knows nothing of Kubernetes or
//! the platform; `cluster/` and `publish.rs` stand on it.
//!
//! The connection is opened before the first request, for two reasons: what goes wrong on the way has its own name,
//! and all requests of a run share one TLS handshake. kube's own client speaks HTTP/1.1 only, where five requests at
//! once open five connections and spend more time on handshakes than on answers. HTTP/1.1 stays enough: a server or
//! proxy that does not offer HTTP/2 gets a pool of such connections.

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

/// Time to resolve, connect and shake hands.
const CONNECT: Duration = Duration::from_secs(10);

/// Time for one answer, of whichever server.
pub const ANSWER: Duration = Duration::from_secs(30);
/// A connection on which an answer is awaited is asked for a sign of life after this time, and given the same again to
/// give one: a way that has gone dead is left before the time for the answer is up, so that another try takes another.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

pub use super::proxy_connector::USER_AGENT;

type Stream = Watched<MaybeHttpsStream<proxy_connector::Stream>>;

type Pool = Retry<Unprocessed, Client<Warm, Body>>;

/// An open connection, reopened when it breaks between two requests.
#[derive(Clone)]
pub struct Http {
    pool: Pool,
    connector: Connector,
    http2: bool,
}

/// What opens connections, and what knows how they end.
type Connector = (HttpsConnector<Tunnel>, Witness);

impl Http {
    fn new(first: Option<Stream>, connector: Connector, http2: bool) -> Self {
        let warm = Warm { first: Arc::new(Mutex::new(first)), connector: connector.clone() };
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .http2_keep_alive_timeout(SIGN_OF_LIFE)
            .build(warm);
        Self { pool: Retry::new(Unprocessed { left: 3 }, client), connector, http2 }
    }

    /// The same way once more, without any connection that was opened so far.
    #[must_use]
    pub fn anew(&self) -> Self {
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

/// Who is to be connected to, and on which way.
pub struct Target<'a> {
    /// The server.
    pub uri: &'a http::Uri,
    /// The name that its certificate has, where that is not its host.
    pub name: Option<&'a ServerName<'static>>,
    /// What stands in between.
    pub proxy: Option<&'a Proxy>,
}

/// Opens a connection; `within` is what is left of the run.
///
/// # Errors
/// What went wrong on the way there.
pub async fn open(target: &Target<'_>, tls: &Tls, within: Duration) -> Result<(Http, &'static str), TransportError> {
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

/// Sends a request again when the server has said that it did not look at it. An API server ends an HTTP/2 connection
/// politely now and then, to spread its clients (`--goaway-chance`) and after a 401; the requests that were on their
/// way are then refused, and may be repeated whatever they are (RFC 9113, section 8.7). Nothing else is repeated here.
#[derive(Clone)]
pub struct Unprocessed {
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

/// The same request once more, unless its body is gone once it is read.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Hands out the connection that is open already, and new ones after it.
#[derive(Clone)]
pub struct Warm {
    first: Arc<Mutex<Option<Stream>>>,
    connector: Connector,
}

impl Service<http::Uri> for Warm {
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

/// A transport error with what the TLS handshakes of its connection add to it.
#[must_use]
pub fn explained(error: TransportError, witness: &Witness) -> TransportError {
    match error {
        TransportError::Tls(fault) => TransportError::Tls(witness.explain(fault)),
        TransportError::Lost(cause) => witness.refusal().map_or(TransportError::Lost(cause), TransportError::Tls),
        other => other,
    }
}
