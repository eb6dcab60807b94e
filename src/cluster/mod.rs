//! The cluster: the only file that names `kube::Client`. Every request of a run is made here, bounded, and counted. In:
//! manifests and references. Out: [`Live`] objects without a Secret's data, and tokens as [`Token`].
//!
//! Requests and answers are plain JSON, and all go through [`Cluster::exchange`]: a type for each kind and the code to
//! read it would be a multiple of all that is said here.

mod error;
mod failure;
mod status;
mod warning;

pub use error::{ApiError, ApiErrorKind};
pub use failure::authorizer_says;

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
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
        access_checks::{Identity, Review, Verdict},
        defaults::{self, Stock},
    },
    diagnostics::{secret::Token, text::shown},
    endpoint::connection::{CaBundle, Connection, Credentials, Login},
    k8s::{
        fetched::{FetchedObject, list, text, texts},
        helm_release,
        name::Namespace,
        object::{Kind, Live, MANAGED_BY, MANAGER, Manifest, Reference},
    },
    net::{
        backoff::{RetryContext, retry_after_of},
        error::TransportError,
        login::{Generation, LoggedIn, Session},
        retry::{RetryState, Transient},
        tls::{Fault as TlsFault, Kind as TlsKind, Roots, Tls, Witness},
        transport::{self, ANSWER, Target as Peer, USER_AGENT},
    },
    plan::observed::Presence,
    rbac::{Atom, Rule, Target},
};
use status::{Attempt, Status};

/// Time for the token controller.
const TOKEN: Duration = Duration::from_secs(60);
/// First pause between two looks at the Secret. The controller takes 7 to 95 ms, 9 in the median: shorter pauses
/// would only add requests, longer ones lose time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two looks, for a controller that is away.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How many requests are under way at the same time. An API server lets one user queue 50 before it refuses any
/// (priority-and-fairness, queueLengthLimit of the stock levels), and over HTTP/1.1 each takes a connection.
const AT_ONCE: usize = 32;
/// How many objects of a list come in one answer, as kubectl asks for them.
const PAGE: u32 = 500;
/// A name that no namespace can have: what is allowed there is allowed in the whole cluster.
const NOWHERE: &str = "-";

/// An open connection to one API server as one user.
pub struct Cluster<'a> {
    client: Client,
    session: Arc<Session>,
    turns: Semaphore,
    server: String,
    context: RetryContext<'a>,
    witness: Witness,
    /// `HTTP/2` or `HTTP/1.1`.
    pub protocol: &'static str,
    /// The CA of the system that the server was verified against, where none was given.
    pub verified_by: Option<CaBundle>,
}

/// The way to a server: whom to trust there, and what name its certificate has to have.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The server, and what is in between.
    pub connection: &'a Connection,
    /// What to verify it against; none means the CAs of the system.
    pub ca: Option<&'a CaBundle>,
    /// The name to expect instead of its host.
    pub name: Option<&'a ServerName<'static>>,
}

/// An open connection on which nobody has logged in yet.
pub struct Line<'a> {
    config: Config,
    http: transport::Http,
    protocol: &'static str,
    witness: Witness,
    server: String,
    context: RetryContext<'a>,
    opened: Instant,
}

const CONNECTING: &str = "connecting to the cluster";
const KNOCKING: &str = "connecting to the cluster with the token";

impl<'a> Line<'a> {
    /// Opens a connection that needs no client certificate.
    ///
    /// # Errors
    /// Which step on the way failed.
    pub async fn open(way: Way<'_>, context: RetryContext<'a>) -> Result<Self, ApiError> {
        Self::showing(None, way, context).await
    }

    async fn showing(
        identity: Option<Arc<dyn ResolvesClientCert>>,
        way: Way<'_>,
        context: RetryContext<'a>,
    ) -> Result<Self, ApiError> {
        let Connection { server, route, .. } = way.connection;
        let failed = |error: TransportError, attempts: RetryState| {
            let is_unknown = matches!(&error, TransportError::Tls(fault) if fault.kind == TlsKind::UnknownIssuer);
            let kind = match way.ca {
                None if is_unknown => ApiErrorKind::UnknownSystemIssuer(error),
                _ => ApiErrorKind::Unanswered(error),
            };
            ApiError { attempts, ..ApiError::new(kind, CONNECTING, None, server.as_str()) }
        };
        let roots = way.ca.map_or(Roots::System, |ca| Roots::Given(ca.certificates()));
        let tls =
            Tls::new(roots, identity).map_err(|error| failed(TransportError::of(&error), RetryState::default()))?;
        let peer = Peer { uri: server.uri(), name: way.name, proxy: route.proxy() };
        let open = async || transport::open(&peer, &tls, context.budget.at_most(ANSWER)).await;
        let (opened, attempts) = context.retry(&CONNECTING, open, Transient::of_result).await;
        let (http, protocol) = opened.map_err(|error| failed(error, attempts))?;
        let mut config = Config::new(server.uri().clone());
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
        let server = server.as_str().to_owned();
        let witness = tls.witness;
        Ok(Self { config, http, protocol, witness, server, context, opened: Instant::now() })
    }

    /// False when a server may have ended it because nobody said a word: Go's HTTP/2 does after 10 s
    /// (golang.org/x/net/http2, prefaceTimeout).
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.opened.elapsed() < Duration::from_secs(5)
    }

    /// Logs in with a token.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub fn log_in(self, token: &Token) -> Result<Cluster<'a>, ApiError> {
        self.into_cluster(Session::fixed(&Credentials { token: Some(token.clone()), identity: None }))
    }

    /// The server's version, asked without a client certificate, as the holder of a token connects; none where the
    /// server does not answer that to an anonymous request. A server that speaks TLS 1.3 asks for the certificate only
    /// after the first request, and some gateways do so in HTTP. With a certificate the server was reached already:
    /// that is why a lost connection means that the certificate is required.
    ///
    /// # Errors
    /// The server accepts only connections with a client certificate.
    pub async fn version_without_certificate(self) -> Result<Option<String>, ApiError> {
        let server = self.server.clone();
        match self.into_cluster(Session::fixed(&Credentials::default()))?.version().await {
            Err(mut error) if error.is_client_certificate_required() => {
                KNOCKING.clone_into(&mut error.request.doing);
                Err(error)
            }
            Err(ApiError { kind: ApiErrorKind::Unanswered(TransportError::Lost(_)), .. }) => {
                let error = TransportError::Tls(TlsFault::without_certificate());
                Err(ApiError::new(ApiErrorKind::Unanswered(error), KNOCKING, None, &server))
            }
            answer => Ok(answer.ok()), // any other error means that the connection was accepted
        }
    }

    fn into_cluster(self, session: Arc<Session>) -> Result<Cluster<'a>, ApiError> {
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
    /// Opens a connection and logs in; what a login command prints is told to the redactor.
    ///
    /// # Errors
    /// Which step on the way failed.
    pub async fn connect(way: Way<'_>, login: &Login, context: RetryContext<'a>) -> Result<Self, ApiError> {
        let person = match login {
            Login::Token(token) => return Line::open(way, context).await?.log_in(token),
            Login::Kubeconfig(person) => person,
        };
        let session = match &person.command {
            Some(command) => {
                Session::by(command, &context.budget, &context.observer.redactor()).await.map_err(|error| {
                    let server = way.connection.server.as_str();
                    ApiError::new(ApiErrorKind::Unanswered(error), CONNECTING, None, server)
                })?
            }
            None => Session::fixed(&person.credentials),
        };
        let mut line = Line::showing(Some(Arc::clone(&session) as _), way, context).await?;
        line.config.auth_info = AuthInfo::clone(&person.acting);
        line.into_cluster(session)
    }

    /// Whether the server asked for a client certificate, and got one.
    #[must_use]
    pub fn showed_certificate(&self) -> bool {
        self.witness.showed_certificate()
    }

    /// The state of a namespace.
    ///
    /// # Errors
    /// Any fault but a denial: a parent that is limited to a namespace may not look at it.
    pub async fn presence(&self, namespace: &Namespace) -> Result<Presence, ApiError> {
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
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn version(&self) -> Result<String, ApiError> {
        const PATH: &str = "/version";

        let attempt =
            Attempt { target: Some(Target::Url(PATH)), ..self.attempt("reading the server's version", "get", None) };
        let request = http::Request::get(PATH).body(Vec::new()).map_err(Unbuilt::BuildRequest);
        Ok(text(&self.exchange(&attempt, request).await?, "/gitVersion"))
    }

    /// The keys that the server publishes for tokens of ServiceAccounts, by name.
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn signing_keys(&self) -> Result<Vec<String>, ApiError> {
        let attempt = self.attempt("reading the server's signing keys", "get", None);
        let request = http::Request::get("/openid/v1/jwks").body(Vec::new()).map_err(Unbuilt::BuildRequest);
        let answer = self.exchange(&attempt, request).await?;
        Ok(list(&answer, "/keys").iter().map(|key| shown(&text(key, "/kid"), 80)).collect())
    }

    /// An object, if it is there.
    ///
    /// # Errors
    /// Why it could not be looked for.
    pub async fn get(&self, reference: &Reference) -> Result<Option<FetchedObject>, ApiError> {
        let attempt = self.attempt("reading", "get", Some(reference));
        Ok(self.find(&attempt, reference).await?.as_ref().map(FetchedObject::of))
    }

    /// All objects of a kind that carry our label, of whatever instance; without a namespace those of the whole
    /// cluster. Only their metadata: a Secret's data stays on the server.
    ///
    /// # Errors
    /// Why they could not be listed.
    pub async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<(Reference, Live)>, ApiError> {
        self.metadata(kind, namespace, labelled(&format!("{MANAGED_BY}={MANAGER}"))).await
    }

    /// All objects of a kind and of this name in the whole cluster, of whomever. Only their metadata.
    ///
    /// # Errors
    /// Why they could not be listed.
    pub async fn namesakes(&self, kind: Kind, name: &str) -> Result<Vec<(Reference, Live)>, ApiError> {
        // As the server remembers it: to be up to date it would wait up to 100 ms for news from etcd.
        let parameters = ListParams::default().fields(&format!("metadata.name={name}")).match_any();
        self.metadata(kind, None, parameters).await
    }

    /// The Secrets in which Helm keeps the revisions of this very release, without what is in them.
    ///
    /// # Errors
    /// Why they could not be listed.
    pub async fn revisions(&self, namespace: &Namespace, release: &str) -> Result<Vec<(Reference, Live)>, ApiError> {
        let selector = labelled(&helm_release::release_selector(release));
        let found = self.metadata(Kind::Secret, Some(namespace), selector).await?;
        Ok(found.into_iter().filter(|(secret, _)| helm_release::revision(&secret.name, release).is_some()).collect())
    }

    /// What a revision tells, if it is one; `parent` is the credential that is looked for in it.
    ///
    /// # Errors
    /// Why it could not be looked at.
    pub async fn revision(
        &self,
        revision: &Reference,
        parent: Option<&Token>,
    ) -> Result<Option<helm_release::Revision>, ApiError> {
        let attempt = self.attempt("reading", "get", Some(revision));
        let found = self.find(&attempt, revision).await?;
        let packed = found.and_then(|secret| STANDARD.decode(text(&secret, "/data/release")).ok());
        Ok(packed.and_then(|packed| helm_release::read(&packed, parent.map(Token::expose))))
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

    /// Creates the namespace. A namespace that another client creates at the same time is as good.
    ///
    /// # Errors
    /// Why not.
    pub async fn create_namespace(&self, namespace: &Namespace) -> Result<(), ApiError> {
        self.post_namespace(namespace, false).await
    }

    /// Creates the namespace as a dry run. An admission webhook that does not support dry runs counts as consent.
    ///
    /// # Errors
    /// Why the server would refuse it.
    pub async fn dry_run_namespace(&self, namespace: &Namespace) -> Result<(), ApiError> {
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

    /// Server-side apply of our fields. Over an object that is there, `live` must be ours: then what others wrote
    /// into our fields is put right, unless somebody has written since we looked; an object that is not there is
    /// made, unless it has appeared since. Either is a conflict, and nothing is written.
    ///
    /// # Errors
    /// Why not.
    pub async fn apply(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, ApiError> {
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

    /// The same, without anything being stored: what the server would make of it; none where an admission webhook
    /// cannot be asked without consequences.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn dry_run(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Option<Live>, ApiError> {
        let attempt = self.attempt("dry run: applying", "patch", Some(&manifest.reference));
        match self.exchange(&attempt, patch(manifest, live, PatchParams::apply(MANAGER).dry_run())).await {
            Ok(object) => Ok(Some(FetchedObject::of(&object).live)),
            Err(ApiError { kind: ApiErrorKind::DryRunUnsupported(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the managed fields of an object and changes nothing else, unless somebody has written since we looked.
    ///
    /// # Errors
    /// Why not.
    pub async fn hand_over(&self, reference: &Reference, live: &Live, fields: Vec<Value>) -> Result<Live, ApiError> {
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

    /// After a conflict on an apply whose earlier try may have gone through: the object, if it is as that try would
    /// have left it, which is so when the same apply over it would change nothing, not even whose field is whose.
    async fn already_applied(&self, manifest: &Manifest, before: Option<&Live>) -> Result<Option<Live>, ApiError> {
        // More than once, because controllers may be at work on the object, too.
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

    /// Deletes this very object; one that is gone already is done. One that finalizers hold is not gone: what it
    /// grants is still granted.
    ///
    /// # Errors
    /// Why not.
    pub async fn delete(&self, reference: &Reference, live: &Live) -> Result<(), ApiError> {
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
    /// The Secret disappeared, or was not filled in time.
    pub async fn token(&self, secret: &Reference) -> Result<(Token, Live), ApiError> {
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
                Ok(Some(FetchedObject { token: Some(token), live, .. })) => return Ok((token, live)),
                Ok(None) => return Err(failed(ApiErrorKind::TokenSecretDeleted)),
                // A server that is away for a moment does not end the wait. The last look may be cut short by the
                // end of the run, which says nothing of the server.
                Err(error) if !error.is_transient() || (left.is_zero() && !(was_seen && error.is_timeout())) => {
                    return Err(error);
                }
                Ok(_) | Err(_) if left.is_zero() => {
                    return Err(failed(ApiErrorKind::TokenNotIssued(waited.as_secs())));
                }
                Ok(_) | Err(_) => {}
            }
            // An eighth of the time waited: little is lost after the token is there, and a slow server is asked
            // less and less.
            tokio::time::sleep((waited / 8).clamp(FIRST_PAUSE, LAST_PAUSE).min(left)).await;
        }
    }

    /// Who this connection is to the server.
    ///
    /// # Errors
    /// Why that could not be asked; 401 when it is nobody, `too-old-server` when no one can ask.
    pub async fn identity(&self) -> Result<Identity, ApiError> {
        const DOING: &str = "asking the server whose token this is";

        let review = self.review(DOING, "authentication.k8s.io", "SelfSubjectReview", json!({})).await?;
        let user = |field: &str| text(&review, &format!("/status/userInfo/{field}"));
        Ok(Identity { username: user("username"), uid: user("uid") })
    }

    /// What this connection may do in a namespace, cluster-wide grants included; without a namespace only those.
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn rules(&self, namespace: Option<&str>) -> Result<Review, ApiError> {
        const DOING: &str = "listing the permissions of a credential";

        let question = json!({"spec": {"namespace": namespace.unwrap_or(NOWHERE)}});
        let review = self.review(DOING, "authorization.k8s.io", "SelfSubjectRulesReview", question).await?;
        let rules = list(&review, "/status/resourceRules").iter().chain(list(&review, "/status/nonResourceRules"));
        Ok(Review {
            // A rule without verbs may come as one that cannot be read, and allows nothing.
            rules: rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect(),
            complete: review.pointer("/status/incomplete") != Some(&Value::Bool(true)),
        })
    }

    /// Whether this connection may do one thing, everywhere unless the permission names a namespace.
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn allowed(&self, atom: Atom<'_>) -> Result<Verdict, ApiError> {
        self.verdict(atom, None).await
    }

    /// Whether a ServiceAccount may do one thing, as it is judged once it is there.
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn allowed_to(&self, account: &Reference, atom: Atom<'_>) -> Result<Verdict, ApiError> {
        self.verdict(atom, Some(account)).await
    }

    async fn verdict(&self, atom: Atom<'_>, account: Option<&Reference>) -> Result<Verdict, ApiError> {
        const DOING: &str = "checking a single permission";

        let verb = atom.verb;
        let mut spec = match atom.target {
            Target::Resource { group, resource, name } => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let name = name.unwrap_or_default();
                let namespace = atom.namespace.unwrap_or_default();
                json!({"resourceAttributes": {
                    "group": group, "resource": resource, "subresource": subresource, "name": name,
                    "namespace": namespace, "verb": verb,
                }})
            }
            Target::Url(url) => json!({"nonResourceAttributes": {"path": url, "verb": verb}}),
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
        Ok(Verdict { allowed, reason: text(&review, "/status/reason") })
    }

    /// The bindings that the server has made by itself, and the ClusterRoles that they name for every ServiceAccount.
    ///
    /// # Errors
    /// Why they could not be read.
    pub async fn stock(&self) -> Result<Stock, ApiError> {
        let place = Reference::at_cluster(Kind::ClusterRoleBinding, "");
        let attempt = self.attempt("listing", "list", Some(&place));
        // As the server remembers them, all in one answer.
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

    /// A review; those of oneself the server answers for whoever asks.
    async fn review(&self, doing: &str, group: &str, kind: &str, mut question: Value) -> Result<Value, ApiError> {
        let resource = format!("{}s", kind.to_lowercase());
        let target = Target::Resource { group, resource: &resource, name: None };
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

    /// An object as the server has it, if it is there.
    async fn find(&self, attempt: &Attempt<'_>, reference: &Reference) -> Result<Option<Value>, ApiError> {
        let request = collection(reference).get(&segment(reference), &GetParams::default());
        match self.exchange(attempt, request).await {
            Err(error) if error.is_absent() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// The response to a request, after retries. The only way to the server.
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

    /// One attempt. Its time starts when it is its turn.
    async fn once(&self, request: http::Request<Vec<u8>>) -> Result<Answer, TransportError> {
        let budget = &self.context.budget;
        let turn = tokio::time::timeout(budget.at_most(Duration::MAX), self.turns.acquire()).await;
        if turn.is_err() {
            return Err(TransportError::Timeout("no answer to earlier requests"));
        }
        let (answer, login) = self.answer(request.clone()).await?;
        match answer {
            // Nothing was looked at: the same with another login is no repeat.
            Answer::Refusal(status, _) if status.is_unknown_login() && self.session.renew(login).await => {
                Ok(self.answer(request).await?.0)
            }
            // A request that was sent again by the connection, after another one had renewed the login: the old login
            // was a certificate, and a new connection shows it no more.
            Answer::Refusal(status, _) if status.is_anonymous() && self.session.has_changed_since(login) => {
                Ok(self.answer(request).await?.0)
            }
            answer => Ok(answer),
        }
    }

    /// An answer, and the login that it was given to.
    async fn answer(&self, request: http::Request<Vec<u8>>) -> Result<(Answer, Generation), TransportError> {
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
            self.context.observer.warned(&shown(&text, 300));
        }
        if !head.status.is_success() {
            let status = Status::read(head.status.as_u16(), &body);
            return Ok((Answer::Refusal(Box::new(status), retry_after_of(&head.headers)), login));
        }
        let object = serde_json::from_slice::<Map<String, Value>>(&body);
        Ok((object.map_or(Answer::Nonsense, |object| Answer::Object(Value::Object(object))), login))
    }
}

/// What comes back.
enum Answer {
    Object(Value),
    /// With the pause that it asks for.
    Refusal(Box<Status>, Option<Duration>),
    /// Nothing of a Kubernetes API.
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

/// A request, unless what it is made of does not make one.
type Built = Result<http::Request<Vec<u8>>, Unbuilt>;
/// What the server says to one.
type Answered<'a> = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + 'a>>;

/// An object's name as one segment of a path: a ClusterRole's may hold a question mark.
fn segment(reference: &Reference) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':');
    utf8_percent_encode(&reference.name, &KEPT).to_string()
}

/// A server-side apply of our fields, over this object or where none is.
fn patch(manifest: &Manifest, live: Option<&Live>, parameters: PatchParams) -> Built {
    let mut parameters = parameters.validation_strict();
    let mut body = manifest.body.clone();
    let version = match live {
        Some(live) => {
            parameters = parameters.force();
            body["metadata"]["uid"] = json!(live.uid);
            live.resource_version.as_str()
        }
        // The server compares it with that of an object that is there, and makes one that is not: no object has this
        // version, which etcd gives to its first key.
        None => "1",
    };
    body["metadata"]["resourceVersion"] = json!(version);
    let reference = &manifest.reference;
    collection(reference).patch(&segment(reference), &parameters, &Patch::Apply(&body))
}

/// Where the objects of this kind and namespace are.
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

/// Those that a selector of labels finds.
fn labelled(selector: &str) -> ListParams {
    ListParams::default().labels(selector)
}
