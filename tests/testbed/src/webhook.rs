//! An admission or authorization webhook: the API server calls it, and a test answers. Loopback only.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::control_plane::ControlPlane;
use crate::error::{Doing, Error, OrFail};
use crate::intercepting_proxy::acceptor;

/// A response of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub enum WebhookAnswer {
    /// The `response` of an `AdmissionReview`; its `uid` defaults to that of the request.
    Admission(Value),
    /// The `status` of a `SubjectAccessReview`.
    Access(Value),
    /// Any status and text.
    Reply(u16, String),
    /// No response, ever.
    Silence,
}

impl WebhookAnswer {
    /// A denial with this `status`.
    pub fn denial(status: &Value) -> Self {
        Self::Admission(json!({"allowed": false, "status": status}))
    }
}

/// A running server. Stops on drop.
pub struct WebhookServer {
    scheme: &'static str,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

type Handler = Box<dyn Fn(&str, &Value) -> WebhookAnswer + Send + Sync>;

struct Shared {
    answer: Handler,
    asked: Arc<Mutex<Vec<String>>>,
}

impl WebhookServer {
    /// With TLS, and a certificate signed by the cluster's CA. `answer` gets the requested path and the review.
    #[must_use]
    pub fn start(
        control_plane: &ControlPlane,
        answer: impl Fn(&str, &Value) -> WebhookAnswer + Send + Sync + 'static,
    ) -> Self {
        let opened = acceptor(control_plane).and_then(|acceptor| Self::open(Some(acceptor), Box::new(answer)));
        opened.or_fail("opening a webhook server")
    }

    /// Without TLS: for an API server that is configured before it has a CA.
    #[must_use]
    pub fn in_the_clear(answer: impl Fn(&str, &Value) -> WebhookAnswer + Send + Sync + 'static) -> Self {
        Self::open(None, Box::new(answer)).or_fail("opening a webhook server")
    }

    fn open(acceptor: Option<TlsAcceptor>, answer: Handler) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").doing("listening")?;
        let address = listener.local_addr().doing("listening")?;
        listener.set_nonblocking(true).doing("listening")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing("creating a runtime")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { answer, asked: Arc::clone(&asked) });
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, acceptor, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { scheme, address, asked, _stop: stop })
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}/{path}", self.scheme, self.address)
    }

    /// How often a path was requested.
    pub fn asked(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| *asked == path).count()
    }
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(Arc::clone(&shared), request));
            let http = hyper::server::conn::http1::Builder::new();
            // A closed connection of the API server is no error.
            match acceptor {
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
            }
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let body = request.into_body().collect().await.map_err(|_| "the server went away")?.to_bytes();
    let mut review: Value = serde_json::from_slice(&body).map_err(|_| "not a review")?;
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let (status, body) = match (shared.answer)(&path, &review) {
        WebhookAnswer::Admission(mut response) => {
            if response["uid"].is_null() {
                response["uid"] = review["request"]["uid"].take();
            }
            (
                200,
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
                    .to_string(),
            )
        }
        WebhookAnswer::Access(status) => (
            200,
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status})
                .to_string(),
        ),
        WebhookAnswer::Reply(status, text) => (status, text),
        WebhookAnswer::Silence => std::future::pending().await,
    };
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer.body(Full::new(Bytes::from(body))).map_err(|_| "no answer can be made of that")
}
