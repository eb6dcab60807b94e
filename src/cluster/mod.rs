//! The cluster: the only file that names `kube::Client` and `Api`. Every request of a run is made here, bounded, and
//! counted. In: manifests and references. Out: [`Live`] objects without a Secret's data, and tokens as [`Token`].

mod refusal;

pub use refusal::{denied, needed, not_grantable, summary};

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
        SelfSubjectRulesReviewSpec,
    },
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
    client::ConfigExt as _,
    config::AuthInfo,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::ServiceBuilder;

use crate::{
    budget::Budget,
    connection::{CaBundle, Login, Server},
    credential::{Identity, Review},
    error::{Code, Failure},
    name::{Names, Namespace},
    object::{Kind, Live, MANAGER, Manifest, Reference},
    observed::{Home, Observed},
    rbac::{Atom, Rule, Tuple},
    secret::Token,
    transport::{self, ANSWER, USER_AGENT},
};
use refusal::Attempt;

/// Time for the token controller.
const TOKEN: Duration = Duration::from_secs(60);
/// First pause between two looks at the Secret. The controller takes 7 to 95 ms, 9 in the median: shorter pauses
/// would only add requests, longer ones lose time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two looks, for a controller that is away.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// An open connection to one API server as one user.
pub struct Cluster {
    client: Client,
    server: String,
    budget: Budget,
    /// `HTTP/2` or `HTTP/1.1`.
    pub protocol: &'static str,
}

/// What the first look at a cluster finds.
pub struct Sight {
    /// The objects at our places.
    pub observed: Observed,
    /// The tokens in the Secrets, by generation.
    pub tokens: Vec<(u32, Token)>,
    /// As in `v1.36.3`.
    pub server_version: Option<String>,
    /// What the parent credential may do in the home namespace.
    pub rights: Review,
    /// What the parent credential may not even look at.
    pub denied: Vec<Tuple>,
}

impl Sight {
    /// The token in the Secret of this generation, if there is one.
    #[must_use]
    pub fn token(&self, generation: u32) -> Option<&Token> {
        self.tokens.iter().find(|(number, _)| *number == generation).map(|(_, token)| token)
    }
}

impl Cluster {
    /// Opens a connection.
    ///
    /// # Errors
    /// Which step on the way failed.
    pub async fn connect(
        server: &Server,
        ca: &CaBundle,
        tls_server_name: Option<&str>,
        login: &Login,
        budget: &Budget,
    ) -> Result<Self, Failure> {
        const DOING: &str = "connecting to the cluster";

        let mut config = Config::new(server.uri().clone());
        config.root_cert = Some(ca.certificates().to_vec());
        config.tls_server_name = tls_server_name.map(str::to_owned);
        config.default_retry = false;
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
        config.auth_info = match login {
            Login::Token(token) => AuthInfo { token: Some(SecretString::from(token.expose())), ..AuthInfo::default() },
            Login::Kubeconfig(login) => (**login).clone(),
        };
        let trouble = |trouble: &transport::Trouble| trouble.while_doing(DOING, server.as_str());
        // Both may run the login command of a kubeconfig, and wait for it.
        let logging_in = tokio::task::spawn_blocking(move || {
            let (auth, tls) = (config.auth_layer()?, config.rustls_client_config()?);
            Ok::<_, kube::Error>((config, auth, tls))
        });
        let (config, auth, tls) = match tokio::time::timeout(budget.at_most(ANSWER), logging_in).await {
            Ok(Ok(prepared)) => prepared.map_err(|error| trouble(&transport::Trouble::of(&error)))?,
            Ok(Err(_)) => return Err(trouble(&transport::Trouble::Login("its command broke off".to_owned()))),
            Err(_) => return Err(trouble(&transport::Trouble::Login("its command did not end in time".to_owned()))),
        };
        let extra = config.extra_headers_layer().map_err(|error| trouble(&transport::Trouble::of(&error)))?;
        let opening = transport::open(&config, tls, budget.at_most(ANSWER));
        let (http, protocol) = opening.await.map_err(|error| trouble(&error))?;
        let counter = budget.clone();
        let service = ServiceBuilder::new()
            .map_request(move |request: http::Request<kube::client::Body>| {
                counter.count();
                request
            })
            .layer(config.base_uri_layer())
            .option_layer(auth)
            .layer(extra)
            .map_err(tower::BoxError::from)
            .service(http);
        let client = Client::new(service, config.default_namespace);
        Ok(Self { client, server: server.as_str().to_owned(), budget: budget.clone(), protocol })
    }

    /// One round of reads, all at once: the namespace, our objects, the server's version, our own rights.
    ///
    /// # Errors
    /// Any fault but a denial; denials are collected, so that all of them can be told at once.
    pub async fn observe(&self, namespace: &Namespace, names: &Names) -> Result<Sight, Failure> {
        let at = |kind, name: &str| Reference::new(kind, namespace.as_str(), name);
        let object = names.object();
        let first_secret = at(Kind::Secret, &names.secret(1));
        let (service_account, role, binding) =
            (at(Kind::ServiceAccount, object), at(Kind::Role, object), at(Kind::RoleBinding, object));
        let (home, service_account, role, binding, secret, version, rights) = tokio::join!(
            self.home(namespace),
            self.get(&service_account),
            self.get(&role),
            self.get(&binding),
            self.get(&first_secret),
            self.version(),
            self.rules(namespace),
        );
        // A server that refuses the login may break the connection under the other requests: the login is the cause.
        let failures = [home.as_ref().err(), version.as_ref().err(), rights.as_ref().err()]
            .into_iter()
            .chain([&service_account, &role, &binding, &secret].map(|seen| seen.as_ref().err()));
        if let Some(failure) = failures.flatten().find(|failure| failure.code == Code::Unauthorized) {
            return Err(failure.clone());
        }
        // Only told, never needed: a cluster that hides its version is none the worse.
        let version = version.unwrap_or_default();
        // Who may not ask what they may do is told by each denial.
        let rights = match rights {
            Err(failure) if failure.code == Code::MissingPermission => Review::default(),
            other => other?,
        };
        let mut denied = Vec::new();
        let (home, service_account) = (home?, tolerate(service_account, &mut denied)?);
        let (role, binding) = (tolerate(role, &mut denied)?, tolerate(binding, &mut denied)?);
        let newest = service_account.as_ref().and_then(|seen| seen.live.generation()).unwrap_or(1);
        let secret_of = |generation| at(Kind::Secret, &names.secret(generation));
        let (secret, earlier) = match newest {
            0 | 1 => (secret, Vec::new()),
            2 => (self.get(&secret_of(2)).await, vec![(1, secret)]),
            newest => {
                let before = newest - 1;
                let (newest, one_before) = (secret_of(newest), secret_of(before));
                let (newest, one_before) = tokio::join!(self.get(&newest), self.get(&one_before));
                (newest, vec![(1, secret), (before, one_before)])
            }
        };
        let secret = tolerate(secret, &mut denied)?;
        let (mut tokens, mut secrets) = (Vec::new(), Vec::new());
        let mut all = Vec::new();
        for (generation, seen) in earlier {
            // Who may not look at those has not made them either.
            all.extend(tolerate(seen, &mut Vec::new())?.map(|seen| (generation, seen)));
        }
        for (generation, seen) in all.into_iter().chain(secret.map(|seen| (newest, seen))) {
            tokens.extend(seen.token.map(|token| (generation, token)));
            secrets.push((generation, seen.live));
        }
        let secret = secrets.pop_if(|(generation, _)| *generation == newest).map(|(_, live)| live);
        let live = |seen: Option<Seen>| seen.map(|seen| seen.live);
        Ok(Sight {
            observed: Observed {
                home,
                service_account: live(service_account),
                role: live(role),
                binding: live(binding),
                secret,
                earlier: secrets,
            },
            tokens,
            server_version: version,
            rights,
            denied,
        })
    }

    async fn home(&self, namespace: &Namespace) -> Result<Home, Failure> {
        let reference = Reference::namespace(namespace.as_str());
        let attempt = self.attempt("looking for", "get", Some(&reference));
        match self.bounded(&attempt, self.api(&reference).get_opt(&reference.name)).await {
            Ok(None) => Ok(Home::Absent),
            Ok(Some(found)) => {
                let phase = found.data.pointer("/status/phase").and_then(Value::as_str);
                Ok(if phase == Some("Terminating") { Home::Terminating } else { Home::Active })
            }
            // A parent that is limited to this namespace may not look at it; later requests will tell.
            Err(failure) if failure.code == Code::MissingPermission => Ok(Home::Unknown),
            Err(failure) => Err(failure),
        }
    }

    async fn version(&self) -> Result<Option<String>, Failure> {
        let attempt = self.attempt("asking for the server's version", "get", None);
        Ok(Some(self.bounded(&attempt, self.client.apiserver_version()).await?.git_version))
    }

    async fn get(&self, reference: &Reference) -> Result<Option<Seen>, Failure> {
        let attempt = self.attempt("looking for", "get", Some(reference));
        Ok(self.bounded(&attempt, self.api(reference).get_opt(&reference.name)).await?.map(Seen::of))
    }

    /// Makes the namespace. Somebody else making it at the same time is as good.
    ///
    /// # Errors
    /// Why not.
    pub async fn create_namespace(&self, namespace: &Namespace) -> Result<(), Failure> {
        let reference = Reference::namespace(namespace.as_str());
        let attempt = Attempt { stores: true, ..self.attempt("creating", "create", Some(&reference)) };
        let body = DynamicObject::new(&reference.name, &resource(Kind::Namespace));
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.bounded(&attempt, self.api(&reference).create(&parameters, &body)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.code == Code::Conflict => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Server-side apply of our fields. Over an object that is there, `live` must be ours: then what others wrote
    /// into our fields is put right, unless somebody has written since we looked; an object that is not there is
    /// made, unless it has appeared since. Either is a conflict, and nothing is written.
    ///
    /// # Errors
    /// Why not.
    pub async fn apply(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, Failure> {
        self.patch("applying", manifest, live, PatchParams::apply(MANAGER)).await
    }

    /// The same, without anything being stored: what the server would make of it.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn dry_run(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, Failure> {
        self.patch("trying to apply", manifest, live, PatchParams::apply(MANAGER).dry_run()).await
    }

    async fn patch(
        &self,
        doing: &str,
        manifest: &Manifest,
        live: Option<&Live>,
        parameters: PatchParams,
    ) -> Result<Live, Failure> {
        let reference = &manifest.reference;
        let mut parameters = parameters.validation_strict();
        let mut body = manifest.body.clone();
        let version = match live {
            Some(live) => {
                parameters = parameters.force();
                body["metadata"]["uid"] = json!(live.uid);
                live.resource_version.as_str()
            }
            // The server compares it with that of an object that is there, and makes one that is not: no object has
            // this version, which etcd gives to its first key.
            None => "1",
        };
        body["metadata"]["resourceVersion"] = json!(version);
        let attempt = Attempt { stores: !parameters.dry_run, ..self.attempt(doing, "patch", Some(reference)) };
        let (api, body) = (self.api(reference), Patch::Apply(&body));
        let patched = self.bounded(&attempt, api.patch(&reference.name, &parameters, &body)).await?;
        Ok(Seen::of(patched).live)
    }

    /// Deletes this very object; one that is gone already is done.
    ///
    /// # Errors
    /// Why not.
    pub async fn delete(&self, reference: &Reference, live: &Live) -> Result<(), Failure> {
        let attempt = Attempt { stores: true, ..self.attempt("deleting", "delete", Some(reference)) };
        let preconditions = Preconditions { uid: Some(live.uid.clone()), resource_version: None };
        let parameters = DeleteParams::background().preconditions(preconditions);
        let api = self.api(reference);
        let deleting = async {
            match api.delete(&reference.name, &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop),
            }
        };
        self.bounded(&attempt, deleting).await
    }

    /// Waits until the token controller has filled the Secret.
    ///
    /// # Errors
    /// The Secret disappeared, or was not filled in time.
    pub async fn token(&self, secret: &Reference) -> Result<(Token, Live), Failure> {
        const DOING: &str = "waiting for the token in";

        let started = Instant::now();
        let limit = self.budget.at_most(TOKEN);
        loop {
            let seen = self.get(secret).await;
            let waited = started.elapsed();
            let left = limit.saturating_sub(waited);
            match seen {
                Ok(Some(Seen { token: Some(token), live })) => return Ok((token, live)),
                Ok(None) => {
                    let cause = "it was deleted while the token was awaited; the token controller does that when the \
                                 ServiceAccount is gone";
                    return Err(Failure::new(Code::TokenSecretVanished, DOING, cause).on(secret.to_string()));
                }
                // The last look may be cut short by the end of the run.
                Err(failure) if failure.code != Code::Timeout || !left.is_zero() => return Err(failure),
                Ok(_) | Err(_) if left.is_zero() => {
                    let cause = format!("no token after {} s", waited.as_secs());
                    return Err(Failure::new(Code::TokenControllerAbsent, DOING, cause).on(secret.to_string()));
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
    /// Why that could not be asked; 401 when it is nobody.
    pub async fn identity(&self) -> Result<Identity, Failure> {
        let attempt = self.ask("asking the server who the token is", ("authentication.k8s.io", "selfsubjectreviews"));
        let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = self.bounded(&attempt, api.create(&PostParams::default(), &SelfSubjectReview::default())).await?;
        let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
        Ok(Identity { username: user.username.unwrap_or_default(), uid: user.uid.unwrap_or_default() })
    }

    /// What this connection may do in a namespace, cluster-wide grants included.
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn rules(&self, namespace: &Namespace) -> Result<Review, Failure> {
        let attempt =
            self.ask("asking the server for the permissions held", ("authorization.k8s.io", "selfsubjectrulesreviews"));
        let api: Api<SelfSubjectRulesReview> = Api::all(self.client.clone());
        let question = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_string()) },
            ..SelfSubjectRulesReview::default()
        };
        let review = self.bounded(&attempt, api.create(&PostParams::default(), &question)).await?;
        let status = review.status.unwrap_or_default();
        let rules = status.resource_rules.into_iter().map(|rule| Rule {
            api_groups: rule.api_groups.unwrap_or_default(),
            resources: rule.resources.unwrap_or_default(),
            resource_names: rule.resource_names.unwrap_or_default(),
            verbs: rule.verbs,
        });
        let urls = status.non_resource_rules.into_iter().flat_map(|rule| {
            let urls = rule.non_resource_urls.unwrap_or_default();
            rule.verbs.into_iter().flat_map(move |verb| urls.clone().into_iter().map(move |url| (verb.clone(), url)))
        });
        Ok(Review { rules: rules.collect(), urls: urls.collect(), complete: !status.incomplete })
    }

    /// Whether this connection may do one thing.
    ///
    /// # Errors
    /// Why that could not be asked.
    pub async fn allowed(&self, namespace: &Namespace, atom: Atom<'_>) -> Result<bool, Failure> {
        let attempt =
            self.ask("asking the server for one permission", ("authorization.k8s.io", "selfsubjectaccessreviews"));
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let (resource, subresource) = match atom.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (atom.resource, None),
        };
        let question = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(atom.group.to_owned()),
                    name: atom.name.map(str::to_owned),
                    namespace: Some(namespace.to_string()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    verb: Some(atom.verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let review = self.bounded(&attempt, api.create(&PostParams::default(), &question)).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }

    fn api(&self, reference: &Reference) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), resource(reference.kind));
        match &reference.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    const fn attempt<'a>(&'a self, doing: &'a str, verb: &'a str, object: Option<&'a Reference>) -> Attempt<'a> {
        Attempt { doing, verb, object, review: None, stores: false, server: self.server.as_str() }
    }

    /// A review that the server answers for whoever asks.
    const fn ask<'a>(&'a self, doing: &'a str, review: (&'a str, &'a str)) -> Attempt<'a> {
        Attempt { review: Some(review), ..self.attempt(doing, "create", None) }
    }

    /// One request, within its time.
    async fn bounded<T>(
        &self,
        attempt: &Attempt<'_>,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.budget.at_most(ANSWER), request).await {
            Ok(answer) => answer.map_err(|error| attempt.failed(&error)),
            Err(_) => Err(attempt.unanswered(&transport::Trouble::Timeout("no answer"))),
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    let (group, api_version) = match kind.group() {
        "" => (String::new(), "v1".to_owned()),
        group => (group.to_owned(), format!("{group}/v1")),
    };
    ApiResource {
        group,
        version: "v1".to_owned(),
        api_version,
        kind: kind.as_str().to_owned(),
        plural: kind.resource().to_owned(),
    }
}

/// Sets a denial aside and goes on.
fn tolerate<T>(result: Result<Option<T>, Failure>, denied: &mut Vec<Tuple>) -> Result<Option<T>, Failure> {
    match result {
        Err(mut failure) if failure.code == Code::MissingPermission => {
            denied.append(&mut failure.missing);
            Ok(None)
        }
        other => other,
    }
}

/// An object as it came, taken apart: what may travel on, and the token.
struct Seen {
    live: Live,
    token: Option<Token>,
}

impl Seen {
    fn of(object: DynamicObject) -> Self {
        let token = object.data.pointer("/data/token").and_then(Value::as_str);
        let token = token.and_then(|text| STANDARD.decode(text).ok());
        let token = token.and_then(|bytes| Token::parse(std::str::from_utf8(&bytes).ok()?).ok());
        let meta = object.metadata;
        let ours = meta
            .managed_fields
            .iter()
            .flatten()
            .find(|entry| entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply"));
        let owned = |map: &str| {
            let fields = ours.and_then(|entry| entry.fields_v1.as_ref()).map(|fields| &fields.0);
            let keys = fields.and_then(|fields| fields.get("f:metadata")?.get(map)?.as_object());
            keys.into_iter().flatten().filter_map(|(key, _)| Some(key.strip_prefix("f:")?.to_owned())).collect()
        };
        // Never `data`: what a Secret holds stays in this file.
        let fields = ["rules", "subjects", "roleRef", "type"].into_iter().filter_map(|field| {
            let value = object.data.get(field)?;
            Some((field.to_owned(), value.clone()))
        });
        let live = Live {
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            owned_labels: owned("f:labels"),
            owned_annotations: owned("f:annotations"),
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            fields: fields.collect(),
        };
        Self { live, token }
    }
}
