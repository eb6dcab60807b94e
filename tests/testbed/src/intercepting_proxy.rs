//! A proxy in front of the API server that ends TLS and sees every single request. A test decides about
//! each one: let it through, answer it itself, or take this for the moment at which the program dies, and
//! look at the cluster as it is then.

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

/// How often a program that is to be killed is asked whether it has ended by itself.
const STEP: Duration = Duration::from_millis(5);

/// One request as it came in, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercepted {
    /// Counts from 0 in order of arrival.
    pub number: usize,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Whether it is meant to change something, as [`AuditEvent::is_write`](crate::AuditEvent::is_write)
    /// has it: no dry run and no review.
    pub write: bool,
    /// HTTP status of the answer: the server's, or the one injected instead. `None` before there is one, and for
    /// ever when the request was not let through or the server did not answer. An answer that came after
    /// a cut has its status here although the client never heard of it.
    pub status: Option<u16>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It reaches the server, and the client gets the server's answer.
    Forward,
    /// The same under this path and query instead: what a proxy does that has clusters beneath paths of its own.
    ForwardAs(String),
    /// The client gets this status with this JSON document, and the server never hears of the request.
    Answer(u16, Value),
    /// The same with these headers and any text, as load balancers and gateways answer. A header of the name
    /// `content-type` replaces `text/plain`.
    Reply(u16, Vec<(&'static str, String)>, String),
    /// The connection breaks, and the server never hears of the request.
    Drop,
    /// The server does what the request asks for; the connection breaks before the answer.
    Lose,
    /// Neither an answer nor an end, and the server never hears of the request. Later ones get through.
    Hang,
    /// The program dies before this request: neither this one nor a later one reaches the server.
    CutBefore,
    /// The program dies before the answer: the server does what the request asks for, but no answer is
    /// given back, and no later request reaches the server.
    CutAfter,
}

impl Verdict {
    /// An answer as the API server refuses: a `Status` with this code, reason (`Forbidden`, `Conflict`)
    /// and message.
    #[must_use]
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

/// A running proxy. It speaks HTTP/1.1 with a certificate that the cluster's CA has signed, and hands on
/// what it is told, bearer token included, over verified TLS; answers come back as they were. Watches and
/// client certificates do not get through. Gone when it is dropped.
///
/// After a cut the program is as good as dead, whether it has been killed yet or not: connections stay open,
/// but nothing it sends reaches the server any more and nothing is answered. What had been let through by
/// then is carried out, as it would be for a program that was killed; [`Self::settled`] waits for that.
pub struct InterceptingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    server: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    handlers: Mutex<Handlers>,
    /// Held while a request is decided about, so that those before it are on their way and those after it are
    /// not; and during the whole of a write when these go one at a time. First come, first served.
    gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

type Handler<T> = Box<dyn FnMut(&Intercepted) -> T + Send>;

struct Handlers {
    decide: Handler<Verdict>,
    /// Called after each write, which then go one at a time.
    observe: Option<Handler<()>>,
}

struct State {
    phase: Phase,
    requests: Vec<Intercepted>,
    /// Requests that have arrived whole and are not answered, held or given up yet.
    busy: usize,
}

#[derive(PartialEq)]
enum Phase {
    Open,
    /// Decided; the request that stays without an answer is still with the server.
    Cutting,
    Cut,
    /// A handler panicked.
    Failed(String),
    Stopped,
}

/// What the client notices.
enum Outcome {
    Answered(Response<Full<Bytes>>),
    /// Nothing, for ever.
    Held,
    /// The connection is closed.
    Closed,
}

impl InterceptingProxy {
    /// In front of this control plane. `decide` is called for each request before anything is done about
    /// it, in order of arrival and for one at a time, on a thread where it may block; requests that were
    /// let through are at the server at the same time. Once there was a cut it is not called again.
    ///
    /// When `decide` panics, all connections are closed and the test fails at its next question to the proxy.
    #[must_use]
    pub fn start(control_plane: &ControlPlane, decide: impl FnMut(&Intercepted) -> Verdict + Send + 'static) -> Self {
        Self::with(control_plane, Handlers { decide: Box::new(decide), observe: None })
    }

    /// The same, but while a write is at the server nothing else is let through. `observe` is called after each
    /// write, with its status, before its answer is given back and before anything else is decided about:
    /// what it and `decide` see of the cluster is what stands between two writes (and what controllers
    /// make of it). Both may ask the control plane itself, not this proxy.
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing("making a runtime")?;
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

    /// The server, as seen through the proxy: `https://127.0.0.1:<port>`.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Every request so far, in order of arrival; those that came after a cut as well.
    #[must_use]
    #[track_caller]
    pub fn requests(&self) -> Vec<Intercepted> {
        self.healthy().requests.clone()
    }

    /// Waits until the program has reached the cut: for [`Verdict::CutBefore`] the decision, for
    /// [`Verdict::CutAfter`] the server's answer. False when that was not so in time.
    #[must_use]
    #[track_caller]
    pub fn wait_for_cut(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state| matches!(state.phase, Phase::Open | Phase::Cutting))
    }

    /// Waits until nothing that was let through is with the server any more: after a cut the program can
    /// change nothing from here on. Ends the test when it takes longer than a minute.
    #[track_caller]
    pub fn settled(&self) {
        if !self.wait(PATIENCE, |state| state.busy > 0) {
            fail(format_args!("requests are still with the server after {PATIENCE:?}"));
        }
    }

    /// `kill -9` for a program that works through this proxy, at the cut; returns when the program is gone
    /// and all it had sent is settled. False when the program ended by itself without reaching the cut.
    /// Ends the test when neither happens for a minute.
    #[must_use]
    #[track_caller]
    pub fn kill_at_cut(&self, program: &mut Child) -> bool {
        let start = Instant::now();
        let mut reached = self.wait_for_cut(STEP);
        while !reached && start.elapsed() < PATIENCE {
            let ended = program.try_wait().or_fail("looking after a program").is_some();
            reached = self.wait_for_cut(STEP);
            if ended {
                break;
            }
        }
        // One that has ended is neither killed nor waited for a second time.
        program.kill().and_then(|()| program.wait()).or_fail("killing a program");
        if !reached && start.elapsed() >= PATIENCE {
            fail(format_args!("the program neither ended nor reached the cut in {PATIENCE:?}"));
        }
        self.settled();
        reached
    }

    /// Whether a state is over in time.
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

    /// The state, or the end of a test whose handler panicked.
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
        // An assertion in a handler that nobody asked about must not be lost.
        if !thread::panicking() {
            drop(self.healthy());
        }
        self.shared.enter(Phase::Stopped);
    }
}

/// A server of this control plane's CA, for loopback.
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
            // A client that hangs up is its own business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error closes the connection.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "the client went away")?.to_bytes();
    let busy = Busy::new(shared);
    // In a task of its own, which goes on when the client is killed: what has arrived has arrived.
    let outcome = tokio::spawn(async move { busy.0.pass(head, body).await });
    match outcome.await {
        Ok(Outcome::Answered(answer)) => Ok(answer),
        Ok(Outcome::Held) => std::future::pending().await,
        Ok(Outcome::Closed) | Err(_) => Err("no answer"),
    }
}

/// A request between its arrival and whatever becomes of it.
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
        // The proxy may have been dropped while the handler was at work.
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

    /// What becomes of all requests when it is over.
    fn end(&self) -> Option<Outcome> {
        match self.state().phase {
            Phase::Open => None,
            Phase::Cutting | Phase::Cut => Some(Outcome::Held),
            Phase::Failed(_) | Phase::Stopped => Some(Outcome::Closed),
        }
    }

    /// Later phases stay: nothing comes after a failure.
    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Failed(_) | Phase::Stopped) {
            state.phase = phase;
        }
        self.changed.notify_all();
    }

    /// Runs a handler of the test, on a thread where it may block. `None` when it panicked.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        handler: impl FnOnce(&mut Handlers) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = Arc::clone(self);
        let called = tokio::task::spawn_blocking(move || handler(&mut shared.handlers())).await;
        called.map_err(|failure| self.enter(Phase::Failed(failure.to_string()))).ok()
    }

    /// `None` when there is no answer.
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

/// Not by method alone: reviews are created without being stored, and a dry run stands in the query or, for a
/// deletion, in the body.
fn is_write(method: &Method, path: &str, body: &[u8]) -> bool {
    let (resource, query) = path.split_once('?').unwrap_or((path, ""));
    let options = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    let dry_run = query.split('&').any(|parameter| parameter == "dryRun=All")
        || (method == Method::DELETE && !options()["dryRun"].is_null());
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !dry_run && !resource.ends_with("reviews")
}
