//! Client of the API server: the only file that uses `kube::Client`. Sends every request of a run, with a time limit,
//! and counts it. In: manifests and references. Out: [`Live`] objects without a Secret's data, and tokens as [`Token`].
//!
//! Requests and responses are plain JSON, and all pass [`Cluster::exchange`]: types for each kind and the code to read
//! them would be several times as long as this file.

mod discovery;
mod error;
mod failure;
mod status;
mod warning;

pub(crate) use discovery::TOO_LATE;
pub(crate) use error::{ApiError, ApiErrorKind};
pub(crate) use failure::authorizer_says;

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::{
    Client, Config,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    client::{Body, ConfigExt as _},
    config::AuthInfo,
    core::{Request, request::Error as Unbuilt},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{client::ResolvesClientCert, pki_types::ServerName};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tower::ServiceBuilder;

use crate::{
    credential::{
        access_checks::{AccessDecision, Review, TokenIdentity},
        defaults::{self, Stock},
    },
    diagnostics::{secret::Token, text::sanitize},
    endpoint::connection::{CaBundle, ClusterLogin, Connection, Credentials},
    k8s::{
        fetched::{FetchedObject, TokenSecret, list, text, texts},
        name::Namespace,
        object::{Kind, Live, MANAGED_BY, MANAGER, Manifest, Reference},
    },
    net::{
        backoff::{RetryContext, retry_after_of},
        error::TransportError,
        login::{LoggedIn, LoginGeneration, LoginSession},
        retry::{RetryState, Transient},
        tls::{Fault as TlsFault, Kind as TlsKind, Tls, TrustRoots, Witness},
        transport::{self, ANSWER, Peer, USER_AGENT},
    },
    plan::{adoption::release, observed::Presence},
    rbac::{Permission, PermissionTarget, Rule},
};
use status::{Attempt, Status};

/// The time limit for the token controller.
const TOKEN: Duration = Duration::from_secs(60);
/// The first pause between two reads of the Secret. The controller takes 7 to 95 ms, 9 in the median: shorter pauses
/// would only add requests, longer ones lose time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two reads, for a controller that is down.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The maximum number of concurrent requests. An API server queues 50 of one user before it rejects any
/// (priority-and-fairness, queueLengthLimit of the default levels), and over HTTP/1.1 each takes a connection.
const AT_ONCE: usize = 32;
/// The number of objects in one page of a list; kubectl requests as many.
const PAGE: u32 = 500;
/// A name that no namespace can have: what is allowed in it is allowed in the whole cluster.
const NO_NAMESPACE: &str = "-";

/// An open connection to one API server as one user.
pub(crate) struct Cluster<'a> {
    client: Client,
    session: Arc<LoginSession>,
    turns: Semaphore,
    server: String,
    context: RetryContext<'a>,
    witness: Witness,
    /// `HTTP/2` or `HTTP/1.1`.
    pub(crate) protocol: &'static str,
    /// The CA of the system trust store that verified the server, if no CA was given.
    pub(crate) verified_by: Option<CaBundle>,
}

/// An API server, and what is needed to connect to it and to verify it.
#[derive(Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    /// The server, with the proxy in front of it.
    pub(crate) connection: &'a Connection,
    /// The CA that has to verify the server; none means the system trust store.
    pub(crate) ca: Option<&'a CaBundle>,
    /// The name to expect in its certificate instead of its host.
    pub(crate) name: Option<&'a ServerName<'static>>,
}

/// An open connection without a login.
pub(crate) struct UnauthenticatedConnection<'a> {
    config: Config,
    http: transport::Http,
    protocol: &'static str,
    witness: Witness,
    server: String,
    context: RetryContext<'a>,
    opened: Instant,
}

const CONNECTING: &str = "connecting to the cluster";
const CONNECTING_AS_HOLDER: &str = "connecting to the cluster with the token";

impl<'a> UnauthenticatedConnection<'a> {
    /// Opens a connection that needs no client certificate.
    pub(crate) async fn open(endpoint: Endpoint<'_>, context: RetryContext<'a>) -> Result<Self, ApiError> {
        Self::showing(None, endpoint, context).await
    }

    async fn showing(
        identity: Option<Arc<dyn ResolvesClientCert>>,
        endpoint: Endpoint<'_>,
        context: RetryContext<'a>,
    ) -> Result<Self, ApiError> {
        let Connection { server, route, .. } = endpoint.connection;
        let failed = |error: TransportError, attempts: RetryState| {
            let is_unknown = matches!(&error, TransportError::Tls(fault) if fault.kind == TlsKind::UnknownIssuer);
            let kind = match endpoint.ca {
                None if is_unknown => ApiErrorKind::UnknownSystemIssuer(error),
                _ => ApiErrorKind::Unanswered(error),
            };
            ApiError { attempts, ..ApiError::new(kind, CONNECTING, None, server.as_str()) }
        };
        let roots = endpoint.ca.map_or(TrustRoots::System, |ca| TrustRoots::Given(ca.certificates()));
        let tls =
            Tls::new(roots, identity).map_err(|error| failed(TransportError::of(&error), RetryState::default()))?;
        let peer = Peer { uri: server.uri(), name: endpoint.name, proxy: route.proxy() };
        let open = async || transport::open(&peer, &tls, context.budget.at_most(ANSWER)).await;
        let (opened, attempts) = context.retry(&CONNECTING, open, Transient::of_result).await;
        let (http, protocol) = opened.map_err(|error| failed(error, attempts))?;
        let mut config = Config::new(server.uri().clone());
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
        let server = server.as_str().to_owned();
        let witness = tls.witness;
        Ok(Self { config, http, protocol, witness, server, context, opened: Instant::now() })
    }

    /// False if the server may have closed the connection for idleness: Go's HTTP/2 does so after 10 s
    /// (golang.org/x/net/http2, prefaceTimeout).
    pub(crate) fn is_fresh(&self) -> bool {
        self.opened.elapsed() < Duration::from_secs(5)
    }

    /// Logs in with a token.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub(crate) fn log_in(self, token: &Token) -> Result<Cluster<'a>, ApiError> {
        self.into_cluster(LoginSession::fixed(&Credentials { token: Some(token.clone()), identity: None }))
    }

    /// The server's version, requested without a client certificate, as users of a token connect; none if the server
    /// does not answer an anonymous request. A server with TLS 1.3 requires the certificate only after the first
    /// request, and some gateways do so in HTTP. The same server was reached with a certificate before: a lost
    /// connection therefore means that the certificate is required.
    ///
    /// # Errors
    /// The server accepts only connections with a client certificate.
    pub(crate) async fn version_without_certificate(self) -> Result<Option<String>, ApiError> {
        let server = self.server.clone();
        match self.into_cluster(LoginSession::fixed(&Credentials::default()))?.version().await {
            Err(mut error) if error.is_client_certificate_required() => {
                CONNECTING_AS_HOLDER.clone_into(&mut error.request.doing);
                Err(error)
            }
            Err(ApiError { kind: ApiErrorKind::Unanswered(TransportError::Lost(_)), .. }) => {
                let error = TransportError::Tls(TlsFault::without_certificate());
                Err(ApiError::new(ApiErrorKind::Unanswered(error), CONNECTING_AS_HOLDER, None, &server))
            }
            answer => Ok(answer.ok()), // any other error means that the connection was accepted
        }
    }

    fn into_cluster(self, session: Arc<LoginSession>) -> Result<Cluster<'a>, ApiError> {
        let extra = self.config.extra_headers_layer().map_err(|error| {
            let kind = ApiErrorKind::Unanswered(TransportError::of(&error));
            ApiError::new(kind, CONNECTING, None, &self.server)
        })?;
        let counter = self.context.budget.clone();
        let service = ServiceBuilder::new()
            .map_request(move |request: http::Request<Body>| {
                counter.count();
                request
            })
            .layer(self.config.base_uri_layer())
            .layer(extra)
            .map_err(tower::BoxError::from)
            .service(LoggedIn::new(Arc::clone(&session), self.http));
        let client = Client::new(service, self.config.default_namespace);
        let turns = Semaphore::new(AT_ONCE);
        let verified_by = self.witness.certificate().and_then(CaBundle::of);
        let Self { server, context, protocol, witness, .. } = self;
        Ok(Cluster { client, session, turns, server, context, witness, protocol, verified_by })
    }
}

impl<'a> Cluster<'a> {
    /// Opens a connection and logs in. The redactor learns the token that a login command prints.
    pub(crate) async fn connect(
        endpoint: Endpoint<'_>,
        login: &ClusterLogin,
        context: RetryContext<'a>,
    ) -> Result<Self, ApiError> {
        let user = match login {
            ClusterLogin::Token(token) => {
                return UnauthenticatedConnection::open(endpoint, context).await?.log_in(token);
            }
            ClusterLogin::Kubeconfig(user) => user,
        };
        let session = match &user.command {
            Some(command) => {
                LoginSession::by(command, &context.budget, &context.observer.redactor()).await.map_err(|error| {
                    let server = endpoint.connection.server.as_str();
                    ApiError::new(ApiErrorKind::Unanswered(error), CONNECTING, None, server)
                })?
            }
            None => LoginSession::fixed(&user.credentials),
        };
        let mut connection =
            UnauthenticatedConnection::showing(Some(Arc::clone(&session) as _), endpoint, context).await?;
        connection.config.auth_info = AuthInfo::clone(&user.acting);
        connection.into_cluster(session)
    }

    /// Whether the server requested a client certificate and received one.
    pub(crate) fn showed_certificate(&self) -> bool {
        self.witness.showed_certificate()
    }

    /// The state of a namespace.
    ///
    /// # Errors
    /// Any error but a denial: a parent credential that is limited to a namespace may not get it.
    pub(crate) async fn presence(&self, namespace: &Namespace) -> Result<Presence, ApiError> {
        let reference = Reference::namespace(namespace.as_str());
        let attempt = self.attempt("reading", "get", Some(&reference));
        match self.find(&attempt, &reference).await {
            Ok(None) => Ok(Presence::Absent),
            Ok(Some(found)) if text(&found, "/status/phase") == "Terminating" => Ok(Presence::Terminating),
            Ok(Some(_)) => Ok(Presence::Active),
            Err(error) if error.is_denied() => Ok(Presence::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The server's version, as in `v1.37.2`.
    pub(crate) async fn version(&self) -> Result<String, ApiError> {
        const PATH: &str = "/version";

        let attempt = Attempt {
            target: Some(PermissionTarget::Url(PATH)),
            ..self.attempt("reading the server's version", "get", None)
        };
        let request = http::Request::get(PATH).body(Vec::new()).map_err(Unbuilt::BuildRequest);
        Ok(text(&self.exchange(&attempt, request).await?, "/gitVersion"))
    }

    /// The server's aggregated discovery of all groups but the core group, as it was sent. One attempt that takes no turn
    /// of the other requests: nothing depends on it.
    ///
    /// # Errors
    /// A short reason, for a sentence.
    pub(crate) async fn discovery(&self) -> Result<Vec<u8>, String> {
        let request = http::Request::get("/apis").header(http::header::ACCEPT, discovery::ACCEPTED);
        let request = request
            .header(http::header::ACCEPT_ENCODING, "gzip")
            .body(Body::empty())
            .map_err(|_| "the request cannot be built".to_owned())?;
        let answering = async {
            let answer = self.client.send(request).await.map_err(|_| "the server does not answer".to_owned())?;
            let status = answer.status();
            if !status.is_success() {
                return Err(format!("the server refuses it with {}", status.as_u16()));
            }
            let is_packed = answer.headers().get(http::header::CONTENT_ENCODING).is_some_and(|it| it == "gzip");
            let body = Limited::new(answer.into_body(), discovery::LONGEST).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() { discovery::too_long() } else { "the answer was cut off".to_owned() }
            })?;
            discovery::unpacked(body.to_bytes().into(), is_packed)
        };
        let answer = tokio::time::timeout(self.context.budget.at_most(ANSWER), answering).await;
        answer.unwrap_or_else(|_| Err(discovery::TOO_LATE.to_owned()))
    }

    /// The ids of the keys that the server publishes for ServiceAccount tokens.
    pub(crate) async fn signing_keys(&self) -> Result<Vec<String>, ApiError> {
        let attempt = self.attempt("reading the server's signing keys", "get", None);
        let request = http::Request::get("/openid/v1/jwks").body(Vec::new()).map_err(Unbuilt::BuildRequest);
        let answer = self.exchange(&attempt, request).await?;
        Ok(list(&answer, "/keys").iter().map(|key| sanitize(&text(key, "/kid"), 80)).collect())
    }

    /// An object, if it exists.
    pub(crate) async fn get(&self, reference: &Reference) -> Result<Option<FetchedObject>, ApiError> {
        let attempt = self.attempt("reading", "get", Some(reference));
        Ok(self.find(&attempt, reference).await?.as_ref().map(FetchedObject::of))
    }

    /// All objects of a kind with the label of k8s-token, of any instance; without a namespace those of the whole
    /// cluster. Only their metadata: a Secret's data stays on the server.
    pub(crate) async fn list(
        &self,
        kind: Kind,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<(Reference, Live)>, ApiError> {
        self.metadata(kind, namespace, labelled(&format!("{MANAGED_BY}={MANAGER}"))).await
    }

    /// All objects of a kind with this name in the whole cluster, of any owner. Only their metadata.
    pub(crate) async fn namesakes(&self, kind: Kind, name: &str) -> Result<Vec<(Reference, Live)>, ApiError> {
        // From the server's watch cache: a consistent read would wait up to 100 ms for news from etcd.
        let parameters = ListParams::default().fields(&format!("metadata.name={name}")).match_any();
        self.metadata(kind, None, parameters).await
    }

    /// The Secrets of the revisions of this Helm release, without their data.
    pub(crate) async fn revisions(
        &self,
        namespace: &Namespace,
        release: &str,
    ) -> Result<Vec<(Reference, Live)>, ApiError> {
        let selector = labelled(&release::release_selector(release));
        let found = self.metadata(Kind::Secret, Some(namespace), selector).await?;
        Ok(found.into_iter().filter(|(secret, _)| release::revision(&secret.name, release).is_some()).collect())
    }

    /// The content of a revision of a Helm release, if the Secret is one; `parent` is the credential that is searched
    /// for in it.
    pub(crate) async fn revision(
        &self,
        revision: &Reference,
        parent: Option<&Token>,
    ) -> Result<Option<release::Revision>, ApiError> {
        let attempt = self.attempt("reading", "get", Some(revision));
        let found = self.find(&attempt, revision).await?;
        let packed = found.and_then(|secret| STANDARD.decode(text(&secret, "/data/release")).ok());
        Ok(packed.and_then(|packed| release::read(&packed, parent.map(Token::expose))))
    }

    async fn metadata(
        &self,
        kind: Kind,
        namespace: Option<&Namespace>,
        parameters: ListParams,
    ) -> Result<Vec<(Reference, Live)>, ApiError> {
        let place = Reference { kind, namespace: namespace.map(ToString::to_string), name: String::new() };
        let attempt = self.attempt("listing", "list", Some(&place));
        let mut parameters = parameters.limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = self.exchange(&attempt, collection(&place).list_metadata(&parameters)).await?;
            found.extend(list(&page, "/items").iter().map(|object| {
                let namespace = Some(text(object, "/metadata/namespace")).filter(|namespace| !namespace.is_empty());
                let reference = Reference { kind, namespace, name: text(object, "/metadata/name") };
                (reference, FetchedObject::of(object).live)
            }));
            match text(&page, "/metadata/continue") {
                end if end.is_empty() => return Ok(found),
                more => parameters = parameters.continue_token(&more),
            }
        }
    }

    /// Creates the namespace. It does not matter if another client creates it at the same time.
    pub(crate) async fn create_namespace(&self, namespace: &Namespace) -> Result<(), ApiError> {
        self.post_namespace(namespace, false).await
    }

    /// Creates the namespace as a dry run. An admission webhook that does not support dry runs counts as consent.
    pub(crate) async fn dry_run_namespace(&self, namespace: &Namespace) -> Result<(), ApiError> {
        match self.post_namespace(namespace, true).await {
            Err(ApiError { kind: ApiErrorKind::DryRunUnsupported(_), .. }) => Ok(()),
            answer => answer,
        }
    }

    async fn post_namespace(&self, namespace: &Namespace, dry_run: bool) -> Result<(), ApiError> {
        let reference = Reference::namespace(namespace.as_str());
        let doing = if dry_run { "dry run: creating" } else { "creating" };
        let attempt = Attempt { stores: !dry_run, ..self.attempt(doing, "create", Some(&reference)) };
        let body = json!({
            "apiVersion": reference.kind.api_version(), "kind": reference.kind, "metadata": {"name": reference.name},
        });
        let parameters = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
        let request = collection(&reference).create(&parameters, body.to_string().into_bytes());
        match self.exchange(&attempt, request).await {
            Ok(_) | Err(ApiError { kind: ApiErrorKind::AlreadyExists(_), .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Server-side apply of the fields that k8s-token owns. An existing object, `live`, must belong to the instance:
    /// changes by others to these fields are reverted, unless the object was changed since it was read. An absent
    /// object is created, unless it was created since. Both are conflicts, and nothing is written.
    pub(crate) async fn apply(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, ApiError> {
        let attempt = Attempt { stores: true, ..self.attempt("applying", "patch", Some(&manifest.reference)) };
        match self.exchange(&attempt, patch(manifest, live, PatchParams::apply(MANAGER))).await {
            Ok(object) => Ok(FetchedObject::of(&object).live),
            Err(conflict) if conflict.may_be_own_write() => {
                let found = self.already_applied(manifest, live).await;
                self.settled(&attempt, conflict, found.map_err(ApiError::after_unknown_outcome)?)
            }
            Err(error) => Err(error),
        }
    }

    /// The same as a dry run: the object that the server would store; none if an admission webhook does not support dry
    /// runs.
    pub(crate) async fn dry_run(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Option<Live>, ApiError> {
        let attempt = self.attempt("dry run: applying", "patch", Some(&manifest.reference));
        match self.exchange(&attempt, patch(manifest, live, PatchParams::apply(MANAGER).dry_run())).await {
            Ok(object) => Ok(Some(FetchedObject::of(&object).live)),
            Err(ApiError { kind: ApiErrorKind::DryRunUnsupported(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the managed fields of an object and changes nothing else, unless the object was changed since it was
    /// read.
    pub(crate) async fn transfer_field_ownership(
        &self,
        reference: &Reference,
        live: &Live,
        fields: Vec<Value>,
    ) -> Result<Live, ApiError> {
        let attempt =
            Attempt { stores: true, ..self.attempt("taking over the managed fields of", "patch", Some(reference)) };
        let replace = |path: &str, value: Value| json!({"op": "replace", "path": path, "value": value});
        let version = replace("/metadata/resourceVersion", json!(live.resource_version));
        let body = json!([replace("/metadata/managedFields", json!(fields)), version]).to_string();
        let request = http::Request::patch(format!("{}/{}", collection(reference).url_path, segment(reference)))
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(body.into_bytes())
            .map_err(Unbuilt::BuildRequest);
        match self.exchange(&attempt, request).await {
            Ok(object) => Ok(FetchedObject::of(&object).live),
            Err(conflict) if conflict.may_be_own_write() => {
                let same = |one: &Value, other: &Value| {
                    ["manager", "operation", "fieldsV1"].iter().all(|key| one[key] == other[key])
                };
                let found = self.get(reference).await.map_err(ApiError::after_unknown_outcome)?;
                let found = found.map(|seen| seen.live).filter(|found| {
                    let there = |want| found.managed_fields.iter().any(|have| same(have, want));
                    found.uid == live.uid && fields.iter().all(there)
                });
                self.settled(&attempt, conflict, found)
            }
            Err(error) if error.is_absent() => Err(attempt.error(ApiErrorKind::Deleted)),
            Err(error) => Err(error),
        }
    }

    /// The outcome of a conflict that may be with an earlier attempt; `found` is the object if it is.
    fn settled(&self, attempt: &Attempt<'_>, conflict: ApiError, found: Option<Live>) -> Result<Live, ApiError> {
        let Some(live) = found else { return Err(ApiError { outcome_unknown: false, ..conflict }) };
        self.context.observer.had_succeeded(attempt);
        Ok(live)
    }

    /// After a conflict on an apply of which an earlier attempt may have succeeded: the object, if it is as that
    /// attempt would have left it. That is so if the same apply would change nothing, not even field ownership.
    async fn already_applied(&self, manifest: &Manifest, before: Option<&Live>) -> Result<Option<Live>, ApiError> {
        // More than once, because controllers may be changing the object, too.
        for _ in 0..3 {
            let Some(FetchedObject { live, .. }) = self.get(&manifest.reference).await? else { return Ok(None) };
            if before.is_some_and(|before| before.uid != live.uid) {
                return Ok(None);
            }
            match Box::pin(self.dry_run(manifest, Some(&live))).await {
                Ok(again) => return Ok(Some(live).filter(|live| again.as_ref() == Some(live))),
                Err(error) if error.is_conflict() => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Deletes this object, by its uid; one that no longer exists counts as deleted. If finalizers hold it,
    /// the error is `HeldByFinalizers`: a Role or binding with a deletionTimestamp still takes effect.
    pub(crate) async fn delete(&self, reference: &Reference, live: &Live) -> Result<(), ApiError> {
        let attempt = Attempt { stores: true, ..self.attempt("deleting", "delete", Some(reference)) };
        let preconditions = Preconditions { uid: Some(live.uid.clone()), resource_version: None };
        let parameters = DeleteParams::background().preconditions(preconditions);
        match self.exchange(&attempt, collection(reference).delete(&segment(reference), &parameters)).await {
            Err(error) if error.is_absent() => Ok(()),
            Err(error) => Err(error),
            Ok(answer) => match texts(&answer, "/metadata/finalizers") {
                none if none.is_empty() => Ok(()),
                finalizers => Err(attempt.error(ApiErrorKind::HeldByFinalizers(finalizers))),
            },
        }
    }

    /// Waits until the token controller has filled the Secret.
    ///
    /// # Errors
    /// The Secret was deleted, or was not filled in time.
    pub(crate) async fn token(&self, secret: &Reference) -> Result<TokenSecret, ApiError> {
        const DOING: &str = "waiting for the token in";

        let failed = |kind| ApiError::new(kind, DOING, Some(secret), &self.server);
        let started = Instant::now();
        let limit = self.context.budget.at_most(TOKEN);
        let mut was_seen = false;
        loop {
            let seen = self.get(secret).await;
            let waited = started.elapsed();
            let left = limit.saturating_sub(waited);
            was_seen |= seen.is_ok();
            match seen {
                Ok(Some(FetchedObject { token: Some(token), live, cas, .. })) => {
                    return Ok(TokenSecret { token, uid: live.uid, cas });
                }
                Ok(None) => return Err(failed(ApiErrorKind::TokenSecretDeleted)),
                // A server that is down for a moment does not end the wait. The last read may be cut short by the end
                // of the run, which says nothing about the server.
                Err(error) if !error.is_transient() || (left.is_zero() && !(was_seen && error.is_timeout())) => {
                    return Err(error);
                }
                Ok(_) | Err(_) if left.is_zero() => {
                    return Err(failed(ApiErrorKind::TokenNotIssued(waited.as_secs())));
                }
                Ok(_) | Err(_) => {}
            }
            // An eighth of the time waited so far: little time is lost once the token exists, and a slow server gets
            // fewer and fewer requests.
            tokio::time::sleep((waited / 8).clamp(FIRST_PAUSE, LAST_PAUSE).min(left)).await;
        }
    }

    /// The identity of this connection's user (SelfSubjectReview).
    ///
    /// # Errors
    /// Why it could not be read: 401 if the token is invalid, `too-old-server` if the server has no such review.
    pub(crate) async fn identity(&self) -> Result<TokenIdentity, ApiError> {
        const DOING: &str = "asking the server whose token this is";

        let review = self.review(DOING, "authentication.k8s.io", "SelfSubjectReview", json!({})).await?;
        let user = |field: &str| text(&review, &format!("/status/userInfo/{field}"));
        Ok(TokenIdentity { username: user("username"), uid: user("uid") })
    }

    /// The permissions of this connection's user in a namespace, cluster-wide grants included (SelfSubjectRulesReview);
    /// without a namespace only the cluster-wide ones.
    pub(crate) async fn rules(&self, namespace: Option<&str>) -> Result<Review, ApiError> {
        const DOING: &str = "listing the permissions of a credential";

        let question = json!({"spec": {"namespace": namespace.unwrap_or(NO_NAMESPACE)}});
        let review = self.review(DOING, "authorization.k8s.io", "SelfSubjectRulesReview", question).await?;
        let rules = list(&review, "/status/resourceRules").iter().chain(list(&review, "/status/nonResourceRules"));
        Ok(Review {
            // A rule without verbs may be unreadable, and allows nothing.
            rules: rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect(),
            complete: review.pointer("/status/incomplete") != Some(&Value::Bool(true)),
        })
    }

    /// Whether this connection's user has one permission (SelfSubjectAccessReview), in all namespaces unless the
    /// permission names one.
    pub(crate) async fn allowed(&self, permission: Permission<'_>) -> Result<AccessDecision, ApiError> {
        self.decision(permission, None).await
    }

    /// Whether a ServiceAccount has one permission (SubjectAccessReview). It need not exist yet.
    pub(crate) async fn allowed_to(
        &self,
        account: &Reference,
        permission: Permission<'_>,
    ) -> Result<AccessDecision, ApiError> {
        self.decision(permission, Some(account)).await
    }

    async fn decision(
        &self,
        permission: Permission<'_>,
        account: Option<&Reference>,
    ) -> Result<AccessDecision, ApiError> {
        const DOING: &str = "checking a single permission";

        let verb = permission.verb;
        let mut spec = match permission.target {
            PermissionTarget::Resource { group, resource, name } => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let name = name.unwrap_or_default();
                let namespace = permission.namespace.unwrap_or_default();
                json!({"resourceAttributes": {
                    "group": group, "resource": resource, "subresource": subresource, "name": name,
                    "namespace": namespace, "verb": verb,
                }})
            }
            PermissionTarget::Url(url) => json!({"nonResourceAttributes": {"path": url, "verb": verb}}),
        };
        let kind = match account {
            None => "SelfSubjectAccessReview",
            Some(Reference { namespace, name, .. }) => {
                let namespace = namespace.as_deref().unwrap_or_default();
                spec["user"] = json!(format!("system:serviceaccount:{namespace}:{name}"));
                let own = format!("system:serviceaccounts:{namespace}");
                spec["groups"] = json!(["system:serviceaccounts", own, "system:authenticated"]);
                "SubjectAccessReview"
            }
        };
        let review = self.review(DOING, "authorization.k8s.io", kind, json!({"spec": spec})).await?;
        let allowed = review.pointer("/status/allowed") == Some(&Value::Bool(true));
        Ok(AccessDecision { allowed, reason: text(&review, "/status/reason") })
    }

    /// The bindings that the server creates by default, and the ClusterRoles that they grant to every ServiceAccount.
    pub(crate) async fn stock(&self) -> Result<Stock, ApiError> {
        let place = Reference::at_cluster(Kind::ClusterRoleBinding, "");
        let attempt = self.attempt("listing", "list", Some(&place));
        // From the server's watch cache, all in one response.
        let parameters = labelled(&format!("{}={}", defaults::STOCK.0, defaults::STOCK.1)).match_any();
        let answer = self.exchange(&attempt, collection(&place).list(&parameters)).await?;
        let bindings =
            list(&answer, "/items").iter().map(|it| (text(it, "/metadata/name"), FetchedObject::of(it).live));
        let bindings: Vec<_> = bindings.collect();
        let roles = BTreeSet::from_iter(Stock::roles_of_everyone(&bindings)).into_iter().map(async |name| {
            let role = self.get(&Reference::at_cluster(Kind::ClusterRole, &name)).await?;
            Ok(role.map(|role| (name, role.live)))
        });
        let roles: Result<Vec<_>, ApiError> = join_all(roles).await.into_iter().collect();
        Ok(Stock { bindings, roles: roles?.into_iter().flatten().collect() })
    }

    /// The response to a review. Reviews of oneself are allowed to every user.
    async fn review(&self, doing: &str, group: &str, kind: &str, mut question: Value) -> Result<Value, ApiError> {
        let resource = format!("{}s", kind.to_lowercase());
        let target = PermissionTarget::Resource { group, resource: &resource, name: None };
        let attempt = Attempt { target: Some(target), ..self.attempt(doing, "create", None) };
        question["apiVersion"] = json!(format!("{group}/v1"));
        question["kind"] = json!(kind);
        let reviews = Request::new(format!("/apis/{group}/v1/{resource}"));
        let request = reviews.create(&PostParams::default(), question.to_string().into_bytes());
        self.exchange(&attempt, request).await.map_err(|error| match error.status {
            Some(404) => ApiError::review_unsupported(doing, &format!("{kind} of {group}/v1"), &self.server),
            _ => error,
        })
    }

    const fn attempt<'b>(&'b self, doing: &'b str, verb: &'b str, object: Option<&'b Reference>) -> Attempt<'b> {
        Attempt { doing, verb, object, target: None, stores: false, server: self.server.as_str() }
    }

    /// The JSON of an object, if it exists.
    async fn find(&self, attempt: &Attempt<'_>, reference: &Reference) -> Result<Option<Value>, ApiError> {
        let request = collection(reference).get(&segment(reference), &GetParams::default());
        match self.exchange(attempt, request).await {
            Err(error) if error.is_absent() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// The response to a request, after retries. Every request passes this function.
    ///
    /// Boxed, so that the futures that await it are small, and are compiled without it.
    fn exchange<'b>(&'b self, attempt: &'b Attempt<'_>, request: Built) -> Answered<'b> {
        Box::pin(async move {
            let request =
                request.map_err(|error| attempt.unanswered(TransportError::of(&error), RetryState::default()))?;
            let send = async || self.once(request.clone()).await;
            let (answer, attempts) = self.context.retry(attempt, send, Answer::transient).await;
            match answer {
                Ok(Answer::Object(object)) => Ok(object),
                Ok(Answer::Refusal(status, _)) => Err(attempt.refused(&status, attempts)),
                Ok(Answer::Nonsense) => Err(attempt.not_kubernetes()),
                Err(error) => Err(attempt.unanswered(error, attempts)),
            }
        })
    }

    /// One attempt. Its time limit starts when the request is sent, not while it is queued.
    async fn once(&self, request: http::Request<Vec<u8>>) -> Result<Answer, TransportError> {
        let budget = &self.context.budget;
        let turn = tokio::time::timeout(budget.at_most(Duration::MAX), self.turns.acquire()).await;
        if turn.is_err() {
            return Err(TransportError::Timeout("no answer to earlier requests"));
        }
        let (answer, login) = self.answer(request.clone()).await?;
        match answer {
            // The server did not process the request: sending it with another login is no repeat.
            Answer::Refusal(status, _) if status.is_unknown_login() && self.session.renew(login).await => {
                Ok(self.answer(request).await?.0)
            }
            // The HTTP client sent the request again on a new connection, after the login was renewed. That connection no
            // longer presents the old client certificate, so the request was anonymous.
            Answer::Refusal(status, _) if status.is_anonymous() && self.session.has_changed_since(login) => {
                Ok(self.answer(request).await?.0)
            }
            answer => Ok(answer),
        }
    }

    /// The response, and the login that the request was sent with.
    async fn answer(&self, request: http::Request<Vec<u8>>) -> Result<(Answer, LoginGeneration), TransportError> {
        let broken =
            |error: &(dyn std::error::Error + 'static)| transport::explained(TransportError::of(error), &self.witness);
        let answering = async {
            let answer = self.client.send(request.map(Body::from)).await.map_err(|error| broken(&error))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
            Ok((head, body))
        };
        let answer = tokio::time::timeout(self.context.budget.at_most(ANSWER), answering).await;
        let (head, body) = answer.unwrap_or(Err(TransportError::Timeout("no answer")))?;
        let login = head.extensions.get().copied().unwrap_or_default();
        let warnings = head.headers.get_all(http::header::WARNING).iter().filter_map(|header| header.to_str().ok());
        for text in warnings.flat_map(warning::texts) {
            self.context.observer.warned(&sanitize(&text, 300));
        }
        if !head.status.is_success() {
            let status = Status::read(head.status.as_u16(), &body);
            return Ok((Answer::Refusal(Box::new(status), retry_after_of(&head.headers)), login));
        }
        let object = serde_json::from_slice::<Map<String, Value>>(&body);
        Ok((object.map_or(Answer::Nonsense, |object| Answer::Object(Value::Object(object))), login))
    }
}

/// The response of an API server.
enum Answer {
    Object(Value),
    /// An error, with its `Retry-After`.
    Refusal(Box<Status>, Option<Duration>),
    /// A response that is not from a Kubernetes API.
    Nonsense,
}

impl Answer {
    /// The transient failure of an attempt, if it is one.
    fn transient(answer: &Result<Self, TransportError>) -> Option<Transient> {
        match answer {
            Ok(Self::Refusal(status, after)) => status.transient(*after),
            Ok(_) => None,
            Err(error) => Transient::of_transport(error),
        }
    }
}

/// A request, unless its parts are invalid.
type Built = Result<http::Request<Vec<u8>>, Unbuilt>;
/// The response to a request.
type Answered<'a> = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + 'a>>;

/// An object's name as one segment of a path: a ClusterRole's may contain a question mark.
fn segment(reference: &Reference) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':');
    utf8_percent_encode(&reference.name, &KEPT).to_string()
}

/// The request of a server-side apply, over this object or where none exists.
fn patch(manifest: &Manifest, live: Option<&Live>, parameters: PatchParams) -> Built {
    let mut parameters = parameters.validation_strict();
    let mut body = manifest.body.clone();
    let version = match live {
        Some(live) => {
            parameters = parameters.force();
            body["metadata"]["uid"] = json!(live.uid);
            live.resource_version.as_str()
        }
        // The server compares the resourceVersion with that of an existing object, and creates an absent one. No object has
        // version 1, the revision of an etcd before its first write: an existing object gives a conflict.
        None => "1",
    };
    body["metadata"]["resourceVersion"] = json!(version);
    let reference = &manifest.reference;
    collection(reference).patch(&segment(reference), &parameters, &Patch::Apply(&body))
}

/// The path of the collection of this kind and namespace.
fn collection(reference: &Reference) -> Request {
    let resource = reference.kind.resource();
    let api = match reference.kind.group() {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/v1"),
    };
    Request::new(match &reference.namespace {
        Some(namespace) => format!("{api}/namespaces/{namespace}/{resource}"),
        None => format!("{api}/{resource}"),
    })
}

/// The parameters of a list by label selector.
fn labelled(selector: &str) -> ListParams {
    ListParams::default().labels(selector)
}
