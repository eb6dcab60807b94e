//! A fake of the platform's REST API on loopback: the routes, the authentication, the validation of bodies and the
//! responses of three eras. It keeps published resources in memory and records every request. It is stricter than the
//! platform where a client could succeed by luck.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::error::OrFail;
use crate::random;

const INSTANCE: &str = "ecomm-prod-demo";
/// The instance with a random suffix, as the platform generates it.
const PACKAGE: &str = "ecomm-prod-demo-x7k2";
const ORGANIZATION: &str = "acme";
const TYPE: &str = "kubernetes-cluster";

/// The era of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Until 2025: only `/v1/artifacts`, `type` and `field` required, deletion with a body and answered with exactly
    /// 200, ids `<package>-<field>`, no instance id in the environment.
    Artifacts,
    /// Mid 2026: `/v1/resources` with `/v1/artifacts` as an alias, `type` optional beside `field`, ids
    /// `<package>-<field>` and `<instance>-<field>`.
    Resources,
    /// Late 2026: `/v1/resources` accepts exactly `field`, `name` and `payload`; deletion is answered with 204; ids
    /// `<instance>-<field>` and `<instance>.<field>`.
    Dependencies,
}

/// A running fake. Stops on drop.
#[derive(Debug)]
pub struct Platform {
    era: Era,
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

/// A recorded request, and its response.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body as JSON; `null` if there was none or it is not JSON.
    pub body: Value,
    /// The User-Agent header.
    pub user_agent: String,
    /// Whether it had the deployment's credential.
    pub authorized: bool,
    /// HTTP status of the response; 0 if the connection was closed without one.
    pub status: u16,
}

#[derive(Debug)]
struct Shared {
    era: Era,
    deployment: String,
    token: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Recorded>,
    /// By field.
    resources: BTreeMap<String, Resource>,
    failures: VecDeque<Failure>,
    down: bool,
    only_dotted_ids: bool,
    tells_age: bool,
    refused_deletions: u16,
    delay: Duration,
    hold: Hold,
}

/// A request that is held without a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    Nothing,
    /// The number of requests before it, and whether it is executed.
    After(usize, bool),
    /// It has arrived.
    Held,
}

impl Hold {
    /// Counts a request; returns for the held one whether it is executed.
    fn count(&mut self) -> Option<bool> {
        match *self {
            Self::After(0, done) => {
                *self = Self::Held;
                Some(done)
            }
            Self::After(others, done) => {
                *self = Self::After(others - 1, done);
                None
            }
            Self::Nothing | Self::Held => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Resource {
    name: Value,
    payload: Value,
    /// Published more than once.
    replaced: bool,
}

#[derive(Debug)]
enum Failure {
    /// A response without an effect.
    Answer(Answer),
    /// Executed, but the response is lost.
    Lost,
}

/// A response.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string() }
    }

    fn not_found() -> Self {
        Self::json(404, &json!({"errors": {"detail": "Not Found"}}))
    }

    fn invalid(errors: impl Into<Value>) -> Self {
        Self::json(422, &json!({"errors": errors.into()}))
    }
}

impl Platform {
    /// Starts a fake with a deployment of its own.
    #[must_use]
    pub fn start(era: Era) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").or_fail("starting the fake platform");
        let address = listener.local_addr().or_fail("starting the fake platform");
        listener.set_nonblocking(true).or_fail("starting the fake platform");
        let shared = Arc::new(Shared {
            era,
            deployment: uuid(),
            token: format!("deployment-{}", random::hex(&random::bytes::<24>())),
            state: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&shared);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail("starting the fake platform");
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { era, address, shared, _stop: stop }
    }

    /// Its era.
    pub fn era(&self) -> Era {
        self.era
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// User name of its Basic authentication.
    pub fn deployment_id(&self) -> &str {
        &self.shared.deployment
    }

    /// Password of its Basic authentication.
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// The instance, as `project-environment-component`.
    pub fn instance_id(&self) -> &'static str {
        INSTANCE
    }

    /// The instance with its suffix, also used as `name_prefix`.
    pub fn package_name(&self) -> &'static str {
        PACKAGE
    }

    /// The environment of a step in this era, without the action.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("MASSDRIVER_URL", self.url()),
            ("MASSDRIVER_DEPLOYMENT_ID", self.deployment_id().to_owned()),
            ("MASSDRIVER_TOKEN", self.token().to_owned()),
            ("MASSDRIVER_ORGANIZATION_ID", ORGANIZATION.to_owned()),
            ("MASSDRIVER_BUNDLE_NAME", "k8s-token".to_owned()),
            ("MASSDRIVER_STEP_PATH", "token".to_owned()),
            // Deprecated in the later eras, but set in all of them.
            ("MASSDRIVER_BUNDLE_ID", uuid()),
            ("MASSDRIVER_BUNDLE_TYPE", "infrastructure".to_owned()),
            ("MASSDRIVER_MANIFEST_ID", uuid()),
            ("MASSDRIVER_PACKAGE_ID", uuid()),
            ("MASSDRIVER_PACKAGE_NAME", PACKAGE.to_owned()),
            ("MASSDRIVER_TARGET_MODE", "standard".to_owned()),
        ];
        if self.era == Era::Artifacts {
            env.push(("MASSDRIVER_ORGANIZATION_UUID", uuid()));
            env.push(("MASSDRIVER_BUNDLE_ACCESS", "private".to_owned()));
        } else {
            env.push(("MASSDRIVER_BUNDLE_VERSION", "2.0.0".to_owned()));
            env.push(("MASSDRIVER_INSTANCE_ID", INSTANCE.to_owned()));
        }
        env
    }

    /// Every request so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// The published payload of a field.
    pub fn resource(&self, field: &str) -> Option<Value> {
        let state = self.shared.state();
        state.resources.get(field).map(|resource| resource.payload.clone())
    }

    /// The display name of the resource of a field.
    pub fn resource_name(&self, field: &str) -> Option<String> {
        let state = self.shared.state();
        state.resources.get(field)?.name.as_str().map(str::to_owned)
    }

    /// Answers the next authorized request with this, without an effect. Calls accumulate: one for each request.
    pub fn fail_next(&self, status: u16, body: &str) {
        self.fail_next_with(status, &[], body);
    }

    /// The same with headers, such as `retry-after` or `location`.
    pub fn fail_next_with(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = Answer { status, headers, body: body.to_owned() };
        self.shared.state().failures.push_back(Failure::Answer(answer));
    }

    /// Executes the next authorized request, and closes the connection without a response.
    pub fn lose_next_answer(&self) {
        self.shared.state().failures.push_back(Failure::Lost);
    }

    /// Closes every connection without a response until [`Self::up`].
    pub fn down(&self) {
        self.shared.state().down = true;
    }

    /// The end of [`Self::down`].
    pub fn up(&self) {
        self.shared.state().down = false;
    }

    /// Answers every deletion with this status, without an effect, until it is 0.
    pub fn refuse_deletions(&self, status: u16) {
        self.shared.state().refused_deletions = status;
    }

    /// Removes the record of a field, as if it was deleted by hand.
    pub fn lose(&self, field: &str) {
        self.shared.state().resources.remove(field);
    }

    /// Moves the record of a field to another one, as if the bundle had named the field differently before.
    pub fn rename_field(&self, field: &str, other: &str) {
        let mut state = self.shared.state();
        if let Some(resource) = state.resources.remove(field) {
            state.resources.insert(other.to_owned(), resource);
        }
    }

    /// Delays each response.
    pub fn answer_after(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// Holds one request without a response, on an open connection: the one after this many others. `done` is whether
    /// the request is executed.
    pub fn hold_after(&self, others: usize, done: bool) {
        self.shared.state().hold = Hold::After(others, done);
    }

    /// Whether that request has arrived.
    pub fn holds(&self) -> bool {
        self.shared.state().hold == Hold::Held
    }

    /// Only `<instance>.<field>` is an id, as in organizations with a naming convention.
    pub fn only_dotted_ids(&self) {
        self.shared.state().only_dotted_ids = true;
    }

    /// Records published again count as a day old; otherwise all timestamps are equal. Only the last era reports
    /// timestamps.
    pub fn report_record_ages(&self) {
        self.shared.state().tells_age = true;
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| handle(&shared, request));
            // A closed connection of a client is no error.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error closes the connection.
async fn handle(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "the client went away")?.to_bytes();
    let header = |name| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let authorization = header(AUTHORIZATION);
    let mut recorded = Recorded {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        user_agent: header(USER_AGENT),
        authorized: shared.refusal(&authorization).is_none(),
        status: 0,
    };
    let is_json = header(CONTENT_TYPE).starts_with("application/json");
    let (answer, delay, withheld) = {
        let mut state = shared.state();
        let hold = state.hold.count();
        let answer = if let Some(done) = hold {
            if done {
                shared.route(&mut state, &recorded);
            }
            None
        } else if state.down {
            None
        } else if let Some(refusal) = shared.refusal(&authorization) {
            Some(refusal)
        } else if !body.is_empty() && !is_json {
            Some(Answer::json(415, &json!({"error": "Unsupported Media Type"})))
        } else {
            match state.failures.pop_front() {
                Some(Failure::Answer(answer)) => Some(answer),
                Some(Failure::Lost) => {
                    shared.route(&mut state, &recorded);
                    None
                }
                None => Some(shared.route(&mut state, &recorded)),
            }
        };
        recorded.status = answer.as_ref().map_or(0, |answer| answer.status);
        state.requests.push(recorded);
        (answer, state.delay, hold.is_some())
    };
    if withheld {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(delay).await;
    let answer = answer.ok_or("no answer")?;
    let mut response = Response::builder().status(answer.status);
    if !answer.headers.iter().any(|(name, _)| name == "content-type") {
        response = response.header(CONTENT_TYPE, "application/json; charset=utf-8");
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(answer.body))).map_err(|_| "no such status or header")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a request is not authorized: only this deployment's Basic credential is accepted.
    fn refusal(&self, authorization: &str) -> Option<Answer> {
        let refused = |status, why: &str| Some(Answer::json(status, &json!({"error": why})));
        let credential = authorization
            .strip_prefix("Basic ")
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        match credential.as_deref().and_then(|credential| credential.split_once(':')) {
            Some((user, token)) if user == self.deployment && token == self.token => None,
            Some((_, token)) if token == self.token => refused(403, "Forbidden"),
            _ => refused(401, "Unauthorized"),
        }
    }

    fn route(&self, state: &mut State, request: &Recorded) -> Answer {
        let mut parts = request.path.trim_start_matches('/').splitn(3, '/');
        let (version, collection, id) = (parts.next(), parts.next(), parts.next());
        let known = match (version, collection) {
            (Some("v1"), Some("artifacts")) => true,
            (Some("v1"), Some("resources")) => self.era != Era::Artifacts,
            // Steps do not call this route, but the platform has it; a test can detect the call.
            (Some("v1"), Some("deployments")) if request.method == "PATCH" => return Answer::json(200, &json!({})),
            _ => false,
        };
        if !known {
            return Answer::not_found();
        }
        match (request.method.as_str(), id) {
            ("POST", None) => self.publish(state, &request.body, 201),
            ("GET" | "PUT" | "DELETE", Some(id)) => {
                let Some(field) = self.field_of(state, id) else { return Answer::not_found() };
                match request.method.as_str() {
                    "GET" => Answer::json(200, &self.shown(state, &field)),
                    "PUT" => self.publish(state, &request.body, 200),
                    _ if state.refused_deletions != 0 => {
                        Answer::json(state.refused_deletions, &json!({"error": "this one stays"}))
                    }
                    _ => self.delete(state, &field, &request.body),
                }
            }
            _ => Answer::json(405, &json!({"error": "Method Not Allowed"})),
        }
    }

    /// Creates or replaces the resource: there is one for each field of the instance.
    fn publish(&self, state: &mut State, body: &Value, status: u16) -> Answer {
        let Some(body) = body.as_object() else { return Answer::invalid(json!({"body": ["must be an object"]})) };
        let errors = self.complaints(body);
        if !errors.is_empty() {
            return Answer::invalid(errors);
        }
        let field = body["field"].as_str().unwrap_or_default().to_owned();
        let payload = body.get("payload").cloned().unwrap_or_else(|| {
            let old = ["data", "specs"].into_iter().filter_map(|key| Some((key.to_owned(), body.get(key)?.clone())));
            Value::Object(old.collect())
        });
        let replaced = state.resources.contains_key(&field);
        state.resources.insert(field.clone(), Resource { name: body["name"].clone(), payload, replaced });
        Answer::json(status, &self.shown(state, &field))
    }

    /// Validation errors of a body, by key.
    fn complaints(&self, body: &Map<String, Value>) -> Map<String, Value> {
        let (texts, others): (&[&str], &[&str]) = match self.era {
            Era::Artifacts => (&["field", "name", "type"], &["id", "payload", "data", "specs"]),
            Era::Resources => (&["field", "name"], &["id", "type", "payload", "data", "specs"]),
            Era::Dependencies => (&["field", "name"], &["payload"]),
        };
        let mut errors = Map::new();
        for key in texts {
            if body.get(*key).and_then(Value::as_str).is_none_or(str::is_empty) {
                errors.insert((*key).to_owned(), json!(["can't be blank"]));
            }
        }
        let has_object = |key| body.get(key).is_some_and(Value::is_object);
        if !has_object("payload") && (self.era == Era::Dependencies || !has_object("data")) {
            errors.insert("payload".to_owned(), json!(["must be an object"]));
        }
        for key in body.keys().filter(|key| !texts.contains(&key.as_str()) && !others.contains(&key.as_str())) {
            errors.insert(key.clone(), json!(["is not accepted"]));
        }
        errors
    }

    fn delete(&self, state: &mut State, field: &str, body: &Value) -> Answer {
        match self.era {
            Era::Artifacts if body["field"] != field => Answer::invalid(json!({"field": ["can't be blank"]})),
            Era::Dependencies => {
                state.resources.remove(field);
                Answer { status: 204, headers: Vec::new(), body: String::new() }
            }
            Era::Artifacts | Era::Resources => {
                let shown = self.shown(state, field);
                state.resources.remove(field);
                Answer::json(200, &shown)
            }
        }
    }

    /// The ids of a field's resource, the displayed one first.
    fn ids(&self, state: &State, field: &str) -> Vec<String> {
        if state.only_dotted_ids {
            return vec![format!("{INSTANCE}.{field}")];
        }
        match self.era {
            Era::Artifacts => vec![format!("{PACKAGE}-{field}")],
            Era::Resources => vec![format!("{PACKAGE}-{field}"), format!("{INSTANCE}-{field}")],
            Era::Dependencies => vec![format!("{INSTANCE}-{field}"), format!("{INSTANCE}.{field}")],
        }
    }

    fn field_of(&self, state: &State, id: &str) -> Option<String> {
        state.resources.keys().find(|field| self.ids(state, field).iter().any(|known| known == id)).cloned()
    }

    fn shown(&self, state: &State, field: &str) -> Value {
        let Some(resource) = state.resources.get(field) else { return Value::Null };
        let mut shown = json!({
            "id": self.ids(state, field)[0],
            "field": field,
            "name": resource.name,
            "payload": resource.payload,
            "type": format!("{ORGANIZATION}/{TYPE}"),
        });
        if self.era == Era::Dependencies {
            shown["resource_type"] = json!(format!("{TYPE}@0.0.0"));
            shown["version_constraint"] = Value::Null;
            shown["available_upgrade"] = Value::Null;
            shown["created_at"] = json!("2026-09-01T00:00:00Z");
            let day = if resource.replaced && state.tells_age { "02" } else { "01" };
            shown["updated_at"] = json!(format!("2026-09-{day}T00:00:00Z"));
        }
        shown
    }
}

fn uuid() -> String {
    let hex = random::hex(&random::bytes::<16>());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}
