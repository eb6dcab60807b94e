//! A proxy in front of the API server that terminates TLS and intercepts every request. A test decides for each one:
//! forward it, answer it, or treat it as the moment at which the program is killed, and inspect the cluster in that
//! state.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::control_plane::ControlPlane;
use crate::error::{Doing, Error, OrFail, fail};
use crate::wait::PATIENCE;

/// Interval at which a program to be killed is checked for having ended by itself.
const STEP: Duration = Duration::from_millis(5);

/// An intercepted request, and its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercepted {
    /// Index in order of arrival, from 0.
    pub number: usize,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Whether the request changes something, as [`AuditEvent::is_write`](crate::AuditEvent::is_write): no dry run and
    /// no review.
    pub write: bool,
    /// HTTP status of the response: the server's, or the injected one. `None` until there is one; it stays `None` if
    /// the request was not forwarded or the server did not answer. A response after a cut has its status here, although
    /// the client never received it.
    pub status: Option<u16>,
}

/// The decision about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Forwards the request, and returns the server's response.
    Forward,
    /// Forwards it with this path and query instead, as a proxy does that serves clusters below paths of its own.
    ForwardAs(String),
    /// Answers with this status and JSON document, without forwarding the request.
    Answer(u16, Value),
    /// Answers with this status, these headers and any text, as load balancers and gateways do. A header `content-type`
    /// replaces `text/plain`.
    Reply(u16, Vec<(&'static str, String)>, String),
    /// Closes the connection without forwarding the request.
    Drop,
    /// Forwards the request, and closes the connection before the response.
    Lose,
    /// Leaves the request without a response, and does not forward it. Later requests are processed.
    Hang,
    /// Simulates a kill before this request: neither this request nor a later one reaches the server.
    CutBefore,
    /// Simulates a kill before the response: the server executes the request, but the response is dropped, and no later
    /// request reaches the server.
    CutAfter,
}

impl Verdict {
    /// A refusal of the API server: a `Status` with this code, reason (`Forbidden`, `Conflict`) and message.
    pub fn refusal(code: u16, reason: &str, message: &str) -> Self {
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        });
        Self::Answer(code, status)
    }
}

/// A running proxy. It speaks HTTP/1.1 with a certificate signed by the cluster's CA, and forwards requests, bearer
/// token included, over verified TLS; responses are unchanged. Watches and client certificates are not supported. Stops
/// on drop.
///
/// After a cut the program counts as dead, whether it has been killed yet or not: connections stay open, but none of
/// its requests reaches the server any more, and none is answered. Requests forwarded before the cut are executed, as
/// for a program that was killed; [`Self::settled`] waits for that.
pub struct InterceptingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    server: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    handlers: Mutex<Handlers>,
    /// Held while a request is being decided, so that earlier requests are already forwarded and later ones wait; and
    /// during each write if writes are serialized. First come, first served.
    gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

type Handler<T> = Box<dyn FnMut(&Intercepted) -> T + Send>;

struct Handlers {
    decide: Handler<Verdict>,
    /// Called after each write; writes are then serialized.
    observe: Option<Handler<()>>,
}

struct State {
    phase: Phase,
    requests: Vec<Intercepted>,
    /// Requests that have arrived completely and are not answered, held or abandoned yet.
    busy: usize,
}

#[derive(PartialEq)]
enum Phase {
    Open,
    /// Decided; the last request is still being processed by the server.
    Cutting,
    Cut,
    /// A handler panicked.
    Failed(String),
    Stopped,
}

/// The outcome for the client.
enum Outcome {
    Answered(Response<Full<Bytes>>),
    /// No response, ever.
    Held,
    /// The connection is closed.
    Closed,
}

impl InterceptingProxy {
    /// Starts a proxy in front of this control plane. `decide` is called for each request before it is processed, in
    /// order of arrival and one at a time, on a thread where it may block; forwarded requests are processed
    /// concurrently. After a cut it is not called any more.
    ///
    /// If `decide` panics, all connections are closed, and the next call of a method of the proxy panics.
    #[must_use]
    pub fn start(control_plane: &ControlPlane, decide: impl FnMut(&Intercepted) -> Verdict + Send + 'static) -> Self {
        Self::with(control_plane, Handlers { decide: Box::new(decide), observe: None })
    }

    /// The same with serialized writes: while the server processes one, no other request is forwarded. `observe` is
    /// called after each write, with its status, before its response is returned and before another request is decided:
    /// the state that it and `decide` see is the state between two writes (and what controllers made of it). Both may
    /// use the control plane directly, not this proxy.
    #[must_use]
    pub fn one_write_at_a_time(
        control_plane: &ControlPlane,
        decide: impl FnMut(&Intercepted) -> Verdict + Send + 'static,
        observe: impl FnMut(&Intercepted) + Send + 'static,
    ) -> Self {
        Self::with(control_plane, Handlers { decide: Box::new(decide), observe: Some(Box::new(observe)) })
    }

    fn with(control_plane: &ControlPlane, handlers: Handlers) -> Self {
        Self::open(control_plane, handlers).or_fail("opening an intercepting proxy")
    }

    fn open(control_plane: &ControlPlane, handlers: Handlers) -> Result<Self, Error> {
        let acceptor = acceptor(control_plane)?;
        let shared = Arc::new(Shared {
            server: control_plane.server().to_owned(),
            client: client(control_plane.ca_pem())?,
            handlers: Mutex::new(handlers),
            gate: tokio::sync::Mutex::default(),
            state: Mutex::new(State { phase: Phase::Open, requests: Vec::new(), busy: 0 }),
            changed: Condvar::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").doing("listening")?;
        let address = listener.local_addr().doing("listening")?;
        listener.set_nonblocking(true).doing("listening")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing("creating a runtime")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, acceptor, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, shared, _stop: stop })
    }

    /// The URL of the proxy: `https://127.0.0.1:<port>`.
    pub fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Every request so far, in order of arrival, also those after a cut.
    #[track_caller]
    pub fn requests(&self) -> Vec<Intercepted> {
        self.healthy().requests.clone()
    }

    /// Waits until the program has reached the cut: the decision for [`Verdict::CutBefore`], the server's response for
    /// [`Verdict::CutAfter`]. False at the timeout.
    #[track_caller]
    pub fn wait_for_cut(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state| matches!(state.phase, Phase::Open | Phase::Cutting))
    }

    /// Waits until the server has processed all forwarded requests: after a cut the program can change nothing any
    /// more. Panics after a minute.
    #[track_caller]
    pub fn settled(&self) {
        if !self.wait(PATIENCE, |state| state.busy > 0) {
            fail(format_args!("requests are still with the server after {PATIENCE:?}"));
        }
    }

    /// Sends SIGKILL to a program that uses this proxy, at the cut; returns when the program has ended and its
    /// forwarded requests are processed. False if the program ended by itself before the cut. Panics if neither happens
    /// within a minute.
    #[track_caller]
    pub fn kill_at_cut(&self, program: &mut Child) -> bool {
        let start = Instant::now();
        let mut reached = self.wait_for_cut(STEP);
        while !reached && start.elapsed() < PATIENCE {
            let ended = program.try_wait().or_fail("checking a program").is_some();
            reached = self.wait_for_cut(STEP);
            if ended {
                break;
            }
        }
        // A process that has ended is neither killed nor awaited a second time.
        program.kill().and_then(|()| program.wait()).or_fail("killing a program");
        if !reached && start.elapsed() >= PATIENCE {
            fail(format_args!("the program neither ended nor reached the cut in {PATIENCE:?}"));
        }
        self.settled();
        reached
    }

    /// Whether a state ends in time.
    #[track_caller]
    fn wait(&self, timeout: Duration, lasts: impl Fn(&State) -> bool) -> bool {
        let mut state = self.healthy();
        let start = Instant::now();
        while lasts(&state) {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            state = self.healthy();
        }
        true
    }

    /// The state; panics if the handler of the test has panicked.
    #[track_caller]
    fn healthy(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state();
        if let Phase::Failed(cause) = &state.phase {
            let cause = cause.clone();
            drop(state);
            fail(format_args!("a handler of the intercepting proxy panicked: {cause}"));
        }
        state
    }
}

impl fmt::Debug for InterceptingProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("InterceptingProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for InterceptingProxy {
    fn drop(&mut self) {
        // A failed assertion in a handler must not be lost.
        if !thread::panicking() {
            drop(self.healthy());
        }
        self.shared.enter(Phase::Stopped);
    }
}

/// A TLS acceptor with a certificate of this control plane's CA, for loopback.
pub(crate) fn acceptor(control_plane: &ControlPlane) -> Result<TlsAcceptor, Error> {
    let identity = control_plane.server_certificate()?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).doing("reading a certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).doing("reading a key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .doing("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .doing("reading a certificate")?;
    // No ALPN: HTTP/1.1, one request after the other on a connection.
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn client(ca: &str) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, Error> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).doing("reading the CA")?;
    roots.add(ca).doing("reading the CA")?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .doing("choosing TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request| handle(Arc::clone(&shared), request));
            // A closed connection of a client is no error.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error closes the connection.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "the client went away")?.to_bytes();
    let busy = Busy::new(shared);
    // A task of its own, which continues if the client is killed: a received request is executed.
    let outcome = tokio::spawn(async move { busy.0.pass(head, body).await });
    match outcome.await {
        Ok(Outcome::Answered(answer)) => Ok(answer),
        Ok(Outcome::Held) => std::future::pending().await,
        Ok(Outcome::Closed) | Err(_) => Err("no answer"),
    }
}

/// A request from its arrival to its outcome.
struct Busy(Arc<Shared>);

impl Busy {
    fn new(shared: Arc<Shared>) -> Self {
        shared.state().busy += 1;
        Self(shared)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
        self.0.changed.notify_all();
    }
}

impl Shared {
    async fn pass(self: &Arc<Self>, mut head: Parts, body: Bytes) -> Outcome {
        let gate = self.gate.lock().await;
        let request = self.record(&head, &body);
        if let Some(end) = self.end() {
            return end;
        }
        let number = request.number;
        let subject = request.clone();
        let Some(verdict) = self.call(move |handlers| (handlers.decide)(&subject)).await else {
            return Outcome::Closed;
        };
        // The proxy may have been dropped while the handler was running.
        if let Some(end) = self.end() {
            return end;
        }
        match verdict {
            Verdict::Forward | Verdict::Lose => {}
            Verdict::ForwardAs(ref path) => match path.parse() {
                Ok(uri) => head.uri = uri,
                Err(_) => return Outcome::Closed,
            },
            Verdict::Answer(status, ref document) => {
                self.answered(number, Some(status));
                let headers = [("content-type", "application/json".to_owned())];
                return injected(status, &headers, document.to_string()).map_or(Outcome::Closed, Outcome::Answered);
            }
            Verdict::Reply(status, ref headers, ref text) => {
                self.answered(number, Some(status));
                return injected(status, headers, text.clone()).map_or(Outcome::Closed, Outcome::Answered);
            }
            Verdict::Drop => return Outcome::Closed,
            Verdict::Hang => return Outcome::Held,
            Verdict::CutBefore => {
                self.enter(Phase::Cut);
                return Outcome::Held;
            }
            Verdict::CutAfter => self.enter(Phase::Cutting),
        }

        let one_at_a_time = request.write && self.handlers().observe.is_some();
        let gate = one_at_a_time.then_some(gate);
        let answer = self.forward(head, body).await;
        let status = answer.as_ref().map(|answer| answer.status().as_u16());
        self.answered(number, status);
        if one_at_a_time {
            let subject = Intercepted { status, ..request };
            self.call(move |handlers| handlers.observe.as_mut().map(|observe| observe(&subject))).await;
        }
        drop(gate);
        if verdict == Verdict::CutAfter {
            self.enter(Phase::Cut);
        }
        let answer = answer.filter(|_| verdict != Verdict::Lose);
        self.end().unwrap_or_else(|| answer.map_or(Outcome::Closed, Outcome::Answered))
    }

    fn record(&self, head: &Parts, body: &[u8]) -> Intercepted {
        let mut state = self.state();
        let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let request = Intercepted {
            number: state.requests.len(),
            method: head.method.to_string(),
            write: is_write(&head.method, &path, body),
            path,
            status: None,
        };
        state.requests.push(request.clone());
        request
    }

    fn answered(&self, number: usize, status: Option<u16>) {
        if let Some(request) = self.state().requests.get_mut(number) {
            request.status = status;
        }
    }

    /// The outcome of all requests after the end.
    fn end(&self) -> Option<Outcome> {
        match self.state().phase {
            Phase::Open => None,
            Phase::Cutting | Phase::Cut => Some(Outcome::Held),
            Phase::Failed(_) | Phase::Stopped => Some(Outcome::Closed),
        }
    }

    /// Later phases are final: nothing follows a failure.
    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Failed(_) | Phase::Stopped) {
            state.phase = phase;
        }
        self.changed.notify_all();
    }

    /// Runs a handler of the test on a thread where it may block. `None` if it panicked.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        handler: impl FnOnce(&mut Handlers) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = Arc::clone(self);
        let called = tokio::task::spawn_blocking(move || handler(&mut shared.handlers())).await;
        called.map_err(|failure| self.enter(Phase::Failed(failure.to_string()))).ok()
    }

    /// `None` if there is no response.
    async fn forward(&self, mut head: Parts, body: Bytes) -> Option<Response<Full<Bytes>>> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = format!("{}{path}", self.server).parse().ok()?;
        let answer = self.client.request(Request::from_parts(head, Full::new(body))).await.ok()?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Response::from_parts(head, Full::new(body)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handlers(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn injected(status: u16, headers: &[(&'static str, String)], text: String) -> Option<Response<Full<Bytes>>> {
    let mut answer = Response::builder().status(status);
    if !headers.iter().any(|(name, _)| CONTENT_TYPE == *name) {
        answer = answer.header(CONTENT_TYPE, "text/plain; charset=utf-8");
    }
    for (name, value) in headers {
        answer = answer.header(*name, value);
    }
    answer.body(Full::new(Bytes::from(text))).ok()
}

/// The method alone does not tell: reviews are created without being stored, and a dry run is a query parameter or, for
/// a deletion, a field of the body.
fn is_write(method: &Method, path: &str, body: &[u8]) -> bool {
    let (resource, query) = path.split_once('?').unwrap_or((path, ""));
    let options = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    let dry_run = query.split('&').any(|parameter| parameter == "dryRun=All")
        || (method == Method::DELETE && !options()["dryRun"].is_null());
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !dry_run && !resource.ends_with("reviews")
}
