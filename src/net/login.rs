//! Login of a kubeconfig user: a token, a client certificate, or a login command (exec plugin,
//! client.authentication.k8s.io) that prints one of them. The only file that starts a process. The command runs once,
//! and a second time if the server rejects what it printed.

use std::{
    fmt,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use kube::client::Body;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use serde_json::Value;
use tower::{Service, ServiceExt as _};

use crate::endpoint::client_certificate::{self, ClientCertificate};
use crate::{
    budget::Budget,
    diagnostics::secret::{Redactor, Token},
    endpoint::connection::{Credentials, ExecPlugin},
    net::{error::TransportError, transport::Http},
};

impl ExecPlugin {
    /// Runs the login command. Its output is not shown, unless it is interactive.
    ///
    /// # Errors
    /// What failed, without any of its output.
    pub(crate) async fn run(&self, within: Duration) -> Result<Credentials, TransportError> {
        let name = Path::new(&self.program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let login =
            |cause: String, hint| TransportError::Login { cause: format!("the login command `{name}` {cause}"), hint };
        let failed = |cause: String| login(cause, None);
        let theirs = || if self.interactive { Stdio::inherit() } else { Stdio::null() };
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", self.told.to_string())
            .stdin(theirs())
            .stderr(theirs())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => login("was not found".to_owned(), self.hint.clone()),
            kind => failed(format!("could not be started: {kind}")),
        })?;
        let output = tokio::time::timeout(within, child.wait_with_output())
            .await
            .map_err(|_| failed("did not end within the time limit".to_owned()))?
            .map_err(|error| failed(format!("could not be waited for: {}", error.kind())))?;
        if !output.status.success() {
            return Err(failed(format!("ended with {}", output.status)));
        }
        // JSON, or YAML, which client-go also accepts.
        let printed = std::str::from_utf8(&output.stdout).ok().and_then(|text| serde_saphyr::from_str(text).ok());
        self.read(&printed.unwrap_or_default()).map_err(failed)
    }

    /// Reads an `ExecCredential`.
    fn read(&self, printed: &Value) -> Result<Credentials, String> {
        let text = |pointer: &str| printed.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text("/kind") != Some("ExecCredential") {
            return Err("did not print an ExecCredential".to_owned());
        }
        if text("/apiVersion") != self.told["apiVersion"].as_str() {
            return Err(format!("printed an ExecCredential of another version than {}", self.told["apiVersion"]));
        }
        let certificate = (text("/status/clientCertificateData"), text("/status/clientKeyData"));
        let identity = match certificate {
            (Some(certificate), Some(key)) => {
                let identity = client_certificate::identity(certificate.as_bytes(), key.as_bytes());
                Some(identity.map_err(|problem| format!("printed a client certificate that {problem}"))?)
            }
            (None, None) => None,
            _ => return Err("printed only one of client certificate and key".to_owned()),
        };
        let token = text("/status/token").map(Token::parse).transpose();
        let token = token.map_err(|problem| format!("printed a token that {problem}"))?;
        if token.is_none() && identity.is_none() {
            return Err("printed neither a token nor a client certificate".to_owned());
        }
        Ok(Credentials { token, identity })
    }
}

/// The login of one connection: the header of its requests, and the certificate of its handshakes.
pub(crate) struct LoginSession {
    presented: RwLock<Presented>,
    renewal: Option<tokio::sync::Mutex<Renewal>>,
}

struct Presented {
    header: Option<HeaderValue>,
    identity: Option<ClientCertificate>,
    generation: LoginGeneration,
}

/// The login of a session that a request was sent with. Each response carries it in its extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginGeneration(u8);

struct Renewal {
    command: ExecPlugin,
    budget: Budget,
    redactor: Redactor,
    left: u8,
}

impl LoginSession {
    /// A session with fixed credentials.
    pub(crate) fn fixed(credentials: &Credentials) -> Arc<Self> {
        Arc::new(Self {
            presented: RwLock::new(Presented::new(credentials, LoginGeneration::default())),
            renewal: None,
        })
    }

    /// A session with the credentials that this command prints.
    pub(crate) async fn by(
        command: &ExecPlugin,
        budget: &Budget,
        redactor: &Redactor,
    ) -> Result<Arc<Self>, TransportError> {
        let credentials = command.run(budget.at_most(Duration::MAX)).await?;
        credentials.token.iter().for_each(|token| redactor.register(token));
        let renewal = Renewal { command: command.clone(), budget: budget.clone(), redactor: redactor.clone(), left: 1 };
        let presented = RwLock::new(Presented::new(&credentials, LoginGeneration::default()));
        Ok(Arc::new(Self { presented, renewal: Some(tokio::sync::Mutex::new(renewal)) }))
    }

    /// Adds the login to a request; returns which one it was.
    fn authorize(&self, request: &mut Request<Body>) -> LoginGeneration {
        let presented = self.presented.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = &presented.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        presented.generation
    }

    /// Whether the login was renewed since.
    pub(crate) fn has_changed_since(&self, login: LoginGeneration) -> bool {
        self.presented.read().unwrap_or_else(PoisonError::into_inner).generation != login
    }

    /// Runs the command again, because the server rejected this login; false if there is no command, if it was run
    /// again before, or if it fails.
    pub(crate) async fn renew(&self, refused: LoginGeneration) -> bool {
        let Some(renewal) = &self.renewal else { return false };
        // Concurrent requests are rejected at the same time: the first of them renews the login for all.
        let mut renewal = renewal.lock().await;
        if self.has_changed_since(refused) {
            return true;
        }
        let Some(left) = renewal.left.checked_sub(1) else { return false };
        renewal.left = left;
        let Ok(credentials) = renewal.command.run(renewal.budget.at_most(Duration::MAX)).await else { return false };
        credentials.token.iter().for_each(|token| renewal.redactor.register(token));
        *self.presented.write().unwrap_or_else(PoisonError::into_inner) =
            Presented::new(&credentials, LoginGeneration(refused.0 + 1));
        true
    }
}

impl Presented {
    fn new(credentials: &Credentials, generation: LoginGeneration) -> Self {
        let header = credentials.token.as_ref().and_then(Token::bearer);
        Self { header, identity: credentials.identity.clone(), generation }
    }
}

impl fmt::Debug for LoginSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a login")
    }
}

impl ResolvesClientCert for LoginSession {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.presented.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A service that adds the login to every request to one server.
#[derive(Clone)]
pub(crate) struct LoggedIn {
    session: Arc<LoginSession>,
    http: Arc<Mutex<(LoginGeneration, Http)>>,
}

impl LoggedIn {
    /// A service with this login over these connections.
    pub(crate) fn new(session: Arc<LoginSession>, http: Http) -> Self {
        Self { session, http: Arc::new(Mutex::new((LoginGeneration::default(), http))) }
    }

    /// Adds the login to a request; returns which one it was, and the connections to use. Connections of an earlier
    /// login present an outdated certificate or none, and without a token the request would be anonymous.
    fn authorized(&self, request: &mut Request<Body>) -> (LoginGeneration, Http) {
        let generation = self.session.authorize(request);
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if http.0 != generation {
            *http = (generation, http.1.without_pool());
        }
        http.clone()
    }
}

impl Service<Request<Body>> for LoggedIn {
    type Response = <Http as Service<Request<Body>>>::Response;
    type Error = <Http as Service<Request<Body>>>::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(())) // each request polls its own connections
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (presented, http) = self.authorized(&mut request);
        Box::pin(async move {
            let mut answer = http.oneshot(request).await?;
            answer.extensions_mut().insert(presented);
            Ok(answer)
        })
    }
}
