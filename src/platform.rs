//! Client of Massdriver's API: publishes the credential, and deletes its record. Together with `cluster/` the only
//! files that send requests. Three generations of the API are distinguished by their responses, never by a version.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    budget::Budget,
    credential::artifact::Artifact,
    diagnostics::{
        error::{Code, Failure},
        text::{sanitize, sanitize_body},
    },
    endpoint::proxy::Proxy,
    input::request::{FIELD, Platform},
    net::{
        backoff::{RetryContext, retry_after_of},
        error::TransportError,
        retry::{RetryState, Transient},
        tls::{Tls, TrustRoots},
        transport::{self, ANSWER, Peer, USER_AGENT},
    },
};

/// The time limit for all requests of a run to Massdriver.
pub(crate) const TIME: Duration = Duration::from_secs(60);
/// The maximum number of redirects of one request.
const HOPS: u8 = 5;
/// The maximum number of bytes read of a response.
const ANSWER_BYTES: usize = 64 << 10;

/// An open connection to Massdriver.
pub(crate) struct Publisher<'a> {
    platform: &'a Platform,
    http: transport::Http,
    context: RetryContext<'a>,
}

/// Opens a connection.
pub(crate) async fn dial(platform: &Platform, budget: &Budget) -> Result<transport::Http, TransportError> {
    // Without TLS no certificate is verified, so that no CA needs to be loaded.
    let roots = if platform.is_plain() { TrustRoots::Nobody } else { TrustRoots::System };
    let tls = Tls::new(roots, None).map_err(|error| TransportError::of(&error))?;
    let target = Peer { uri: &platform.url, name: None, proxy: platform.route.proxy() };
    let (http, _) = transport::open(&target, &tls, budget.at_most(ANSWER)).await?;
    Ok(http)
}

impl<'a> Publisher<'a> {
    /// Opens a connection; `dialled` is the result of an earlier attempt, if there was one.
    pub(crate) async fn connect(
        platform: &'a Platform,
        context: RetryContext<'a>,
        mut dialled: Option<Result<transport::Http, TransportError>>,
    ) -> Result<Self, Failure> {
        const DOING: &str = "connecting to Massdriver";

        let open = async || match dialled.take() {
            Some(opened) => opened,
            None => dial(platform, &context.budget).await,
        };
        let (opened, attempts) = context.retry(&DOING, open, Transient::of_result).await;
        match opened {
            Ok(http) => Ok(Self { platform, http, context }),
            Err(error) => Err(attempts.describe(unreachable(DOING, &error, platform))),
        }
    }

    /// Publishes the credential document, and replaces what was published before. True if Massdriver reports that an
    /// earlier deployment had published one.
    ///
    /// # Errors
    /// Massdriver's refusal, without any part of the document.
    pub(crate) async fn publish(&self, title: &str, artifact: &Artifact) -> Result<bool, Failure> {
        const DOING: &str = "publishing the credential";

        let payload = artifact.document();
        let mut body = json!({ "field": FIELD, "name": title, "payload": payload });
        let mut collection = RESOURCES;
        let mut answer = self.send(DOING, Method::POST, collection, Some(&body)).await?;
        if answer.route_is_missing() {
            // Platforms before May 2026 only have artifacts, and cannot infer the type.
            body["type"] = json!(self.platform.resource_type);
            for part in ["data", "specs"] {
                if let Some(part_of_payload) = payload.get(part) {
                    body[part] = part_of_payload.clone();
                }
            }
            collection = ARTIFACTS;
            answer = self.send(DOING, Method::POST, collection, Some(&body)).await?;
        }
        if answer.is_taken() {
            // A platform that does not replace by itself needs the id of the record to replace.
            for id in &self.platform.resource_ids {
                let replaced = self.send(DOING, Method::PUT, &record(collection, id), Some(&body)).await?;
                if !replaced.route_is_missing() {
                    return self.granted(DOING, &replaced).map(|()| true);
                }
            }
        }
        self.granted(DOING, &answer).map(|()| answer.is_of_an_earlier_record())
    }

    /// Deletes the record under each of its possible ids; false if none exists.
    pub(crate) async fn retract(&self) -> Result<bool, Failure> {
        const DOING: &str = "deleting Massdriver's record";

        let field = json!({ "field": FIELD });
        for (collection, body) in [(RESOURCES, None), (ARTIFACTS, Some(&field))] {
            for id in &self.platform.resource_ids {
                let answer = self.send(DOING, Method::DELETE, &record(collection, id), body).await?;
                if !answer.route_is_missing() {
                    return self.granted(DOING, &answer).map(|()| true);
                }
            }
        }
        Ok(false)
    }

    /// The response to a request, after retries and after redirects within the platform. A retry replaces or deletes
    /// the same record.
    async fn send(&self, doing: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let base = self.platform.url.path().trim_end_matches('/');
        let mut uri = self.at(&format!("{base}{path}"));
        let mut hops = 0;
        loop {
            let Some(target) = &uri else {
                let cause = "its address is not a valid URL";
                return Err(self.failure(Code::PlatformRefused, doing, cause, &RetryState::default()));
            };
            let send = async || self.once(&method, target, body).await;
            let (answer, attempts) = self.context.retry(&doing, send, Answer::transient).await;
            match answer {
                Ok(answer) if answer.status.is_redirection() => {
                    hops += 1;
                    match redirect(target, &answer) {
                        Ok(path) if hops <= HOPS => uri = self.at(path.as_str()),
                        Ok(_) => {
                            let cause = format!("{}: redirected more than {HOPS} times", answer.status.as_u16());
                            return Err(self.failure(Code::PlatformRefused, doing, cause, &attempts));
                        }
                        Err(cause) => return Err(self.failure(Code::PlatformRefused, doing, cause, &attempts)),
                    }
                }
                Ok(answer) => return Ok(Answer { attempts, ..answer }),
                Err(error) => {
                    return Err(self.failure(Code::PlatformUnreachable, doing, error.to_string(), &attempts));
                }
            }
        }
    }

    /// The URL of a path at the platform, and nowhere else: the request contains the login.
    fn at(&self, path_and_query: &str) -> Option<Uri> {
        let url = &self.platform.url;
        let builder = Uri::builder().scheme(url.scheme_str()?).authority(url.authority()?.as_str());
        builder.path_and_query(path_and_query).build().ok()
    }

    async fn once(&self, method: &Method, uri: &Uri, body: Option<&Value>) -> Result<Answer, TransportError> {
        let invalid = |error: http::Error| TransportError::Lost(error.to_string());
        let login = format!("{}:{}", self.platform.deployment_id, self.platform.token.expose());
        let mut login = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login)))
            .map_err(|error| invalid(error.into()))?;
        login.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, login)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT);
        // A proxy that forwards plain http requires its login in each request.
        let proxy = self.platform.route.proxy().filter(|_| self.platform.is_plain());
        let request = match proxy.and_then(Proxy::authorization) {
            Some(login) => request.header(header::PROXY_AUTHORIZATION, login),
            None => request,
        };
        let request = match body {
            Some(body) => {
                request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string().into_bytes()))
            }
            None => request.body(Body::empty()),
        };
        let request = request.map_err(invalid)?;

        self.context.budget.count();
        let exchange = async {
            let response = self.http.clone().oneshot(request).await.map_err(|error| TransportError::of(&error))?;
            let (head, body) = response.into_parts();
            // The body of a success is not needed, and a longer error would not be shown.
            let bytes = Limited::new(body, ANSWER_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            Ok(Answer { status: head.status, headers: head.headers, text, attempts: RetryState::default() })
        };
        let answer = tokio::time::timeout(self.context.budget.at_most(ANSWER), exchange).await;
        answer.unwrap_or(Err(TransportError::Timeout("no answer")))
    }

    fn granted(&self, doing: &str, answer: &Answer) -> Result<(), Failure> {
        if answer.status.is_success() {
            return Ok(());
        }
        let status = answer.status.as_u16();
        let message = answer.message();
        let message = if message.is_empty() { answer.status.to_string() } else { format!("{status}: {message}") };
        let why = match status {
            401 | 403 => "; the token of a deployment expires when the deployment ends or is aborted",
            404 | 405 => "; MASSDRIVER_URL may be wrong",
            _ => "",
        };
        let failure = self.failure(Code::PlatformRefused, doing, format!("{message}{why}"), &answer.attempts);
        Err(match status {
            401 | 403 => failure.next("start a new deployment, which gets a token of its own"),
            _ => failure,
        })
    }

    fn failure(&self, code: Code, doing: &str, cause: impl Into<String>, attempts: &RetryState) -> Failure {
        let failure = attempts.describe(Failure::new(code, doing, cause).on(self.platform.address()));
        Failure { outcome_unknown: attempts.outcome_unknown(), ..failure }
    }
}

/// The two collections in which the platform has kept such records.
const RESOURCES: &str = "/v1/resources";
const ARTIFACTS: &str = "/v1/artifacts";

/// The path of the record with this id, percent-encoded.
fn record(collection: &str, id: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
    format!("{collection}/{}", utf8_percent_encode(id, &KEPT))
}

fn unreachable(doing: &str, error: &TransportError, platform: &Platform) -> Failure {
    let code = match error {
        TransportError::Proxy(_) => Code::Proxy,
        _ => Code::PlatformUnreachable,
    };
    Failure::new(code, doing, error.to_string()).on(platform.address())
}

/// The target of a redirect, if it may be followed: within one origin, with the same method and body. Any other would
/// send the login to another server, or turn a POST into a GET.
fn redirect(from: &Uri, answer: &Answer) -> Result<PathAndQuery, String> {
    let status = answer.status.as_u16();
    let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let Some(to) = location.and_then(|location| resolve(from, location)) else {
        return Err(format!("{status} with a missing or invalid Location header"));
    };
    let place = format!("{}{}", origin(&to), sanitize(to.path(), 200));
    match (status, to.path_and_query()) {
        (307 | 308, Some(path)) if origin(from) == origin(&to) => Ok(path.clone()),
        (307 | 308, _) => Err(format!("{status}: redirect to {place}, but the login is for {} only", origin(from))),
        _ => {
            Err(format!("{status}: redirect to {place}; only 307 and 308 are followed, because they keep the request"))
        }
    }
}

/// The absolute URL of a `Location` relative to the requested one (RFC 3986, section 5.2, except dot segments, which
/// the server may resolve).
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let absolute = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", from.scheme_str()?)
    } else if location.starts_with('/') {
        format!("{}{location}", origin(from))
    } else {
        let (directory, _) = from.path().rsplit_once('/')?;
        format!("{}{directory}/{location}", origin(from))
    };
    absolute.parse().ok()
}

/// Scheme, host and port of a URL, without a user: the scope of a login.
fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("https").to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    format!("{scheme}://{}:{port}", uri.host().unwrap_or_default().to_ascii_lowercase())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
    attempts: RetryState,
}

impl Answer {
    /// The transient failure of an attempt, if it is one.
    fn transient(answer: &Result<Self, TransportError>) -> Option<Transient> {
        match answer {
            Ok(answer) => {
                Transient::of_status(answer.status.as_u16(), &answer.message(), retry_after_of(&answer.headers))
            }
            Err(error) => Transient::of_transport(error),
        }
    }

    const fn route_is_missing(&self) -> bool {
        matches!(self.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
    }

    /// Whether the field has a record already, which the platform does not replace by itself.
    fn is_taken(&self) -> bool {
        let document: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let has = |field: &str| {
            let text = document.pointer(&format!("/errors/{field}")).map(error_text).unwrap_or_default();
            ["taken", "unique", "already", "exists"].iter().any(|word| text.contains(word))
        };
        match self.status {
            StatusCode::CONFLICT => true,
            StatusCode::UNPROCESSABLE_ENTITY => has("field") || has("identifier"),
            _ => false,
        }
    }

    /// Whether the record is older than this publication and its retries. Platforms before late 2026 do not report the
    /// age of a record.
    fn is_of_an_earlier_record(&self) -> bool {
        let document: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let time = |key: &str| document.get(key)?.as_str()?.parse::<jiff::Timestamp>().ok();
        let times = time("created_at").zip(time("updated_at"));
        times.is_some_and(|(created, updated)| {
            updated.duration_since(created).unsigned_abs() > TIME && updated > created
        })
    }

    /// The platform's error message: `{"error": ".."}`, `{"errors": {"field": [".."]}}`, or plain text. A document in
    /// another format may repeat what was sent, and is not quoted.
    fn message(&self) -> String {
        match serde_json::from_str::<Value>(&self.text) {
            Ok(Value::Object(document)) => {
                let said = ["error", "errors", "message"].iter().find_map(|key| document.get(*key));
                said.map_or_else(
                    || "an answer without an error message".to_owned(),
                    |said| sanitize(&error_text(said), 300),
                )
            }
            Ok(Value::String(text)) => sanitize(&text, 300),
            Ok(_) => String::new(),
            Err(_) => sanitize_body(&self.text, 300),
        }
    }
}

/// All texts in an error, each after the name of its field.
fn error_text(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        Value::Array(texts) => texts.iter().map(error_text).collect::<Vec<_>>().join(", "),
        Value::Object(errors) => {
            let sentence = |(about, texts): (&String, &Value)| match about.as_str() {
                "detail" | "message" => error_text(texts),
                about => format!("{about} {}", error_text(texts)),
            };
            errors.iter().map(sentence).collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn answer(status: u16, location: Option<&str>, text: &str) -> Answer {
        let location = location.map(|location| (header::LOCATION, location.parse().unwrap()));
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), location.into_iter().collect());
        Answer { status, headers, text: text.to_owned(), attempts: RetryState::default() }
    }

    #[rstest]
    #[case::relative(307, "/v2/resources?a=b", Ok("/v2/resources?a=b"))]
    #[case::absolute(308, "https://p.example/x", Ok("/x"))]
    #[case::default_port(308, "https://P.example:443/x#part", Ok("/x"))]
    #[case::beside(307, "things", Ok("/base/v1/things"))]
    #[case::no_path(307, "https://p.example", Ok("/"))]
    #[case::other_host(307, "https://evil.example/x?token=1", Err("https://evil.example:443/x,"))]
    #[case::other_host_of_the_same_scheme(308, "//evil.example/x", Err("https://evil.example:443/x,"))]
    #[case::other_port(308, "https://p.example:8443/x", Err("https://p.example:8443/x,"))]
    #[case::downgrade(308, "http://p.example/x", Err("http://p.example:80/x,"))]
    #[case::a_user(308, "https://me:pw@evil.example/x", Err("to https://evil.example:443/x,"))]
    #[case::turns_a_post_into_a_get(302, "/v2/resources?a=b", Err("https://p.example:443/v2/resources;"))]
    #[case::moved(301, "https://p.example/x", Err("only 307 and 308"))]
    #[case::not_modified(304, "", Err("only 307 and 308"))]
    #[case::nonsense(307, "http://[", Err("missing or invalid Location"))]
    fn redirects_never_send_the_login_elsewhere(
        #[case] status: u16,
        #[case] location: &str,
        #[case] expected: Result<&str, &str>,
    ) {
        let from = "https://p.example/base/v1/resources".parse().unwrap();
        match (redirect(&from, &answer(status, Some(location), "")), expected) {
            (Ok(path), Ok(expected)) => assert_eq!(path.as_str(), expected),
            (Err(cause), Err(expected)) => {
                assert!(cause.contains(expected), "{cause}");
                assert!(!cause.contains("pw") && !cause.contains('?'), "{cause}");
            }
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn redirect_without_location_is_an_error() {
        let from = "https://p.example/v1/resources".parse().unwrap();
        assert!(redirect(&from, &answer(308, None, "")).unwrap_err().contains("missing or invalid Location"));
    }

    #[rstest]
    #[case(r#"{"error": "Forbidden"}"#, "Forbidden")]
    #[case(r#"{"errors": {"detail": "Not Found"}}"#, "Not Found")]
    #[case(r#"{"errors": {"name": ["is blank", "is short"], "payload": ["x"]}}"#, "name is blank, is short; payload x")]
    #[case(r#"{"errors": {"payload": {"authentication": ["is missing"]}}}"#, "payload authentication is missing")]
    #[case(r#"{"errors": ["one", {"message": "two"}]}"#, "one, two")]
    #[case(r#"{"error": {"message": "m"}}"#, "m")]
    #[case(r#"{"payload": {"authentication": "echo"}}"#, "an answer without an error message")]
    #[case(r#""text""#, "text")]
    #[case("[1]", "")]
    #[case("no upstream", "no upstream")]
    #[case(" <!DOCTYPE html><p>oops</p>", "an HTML page")]
    #[case("", "")]
    fn error_bodies_of_every_format_are_read(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(answer(422, None, text).message(), expected);
    }

    #[rstest]
    #[case::made_now("2026-09-01T00:00:00Z", "2026-09-01T00:00:00Z", false)]
    #[case::made_by_an_earlier_try("2026-09-01T00:00:00Z", "2026-09-01T00:00:59Z", false)]
    #[case::made_by_an_earlier_deployment("2026-09-01T00:00:00.123456Z", "2026-09-02T00:00:00+00:00", true)]
    #[case::nonsense("2026-09-02T00:00:00Z", "2026-09-01T00:00:00Z", false)]
    #[case::no_time("yesterday", "2026-09-01T00:00:00Z", false)]
    fn earlier_record_is_recognized_by_its_timestamps(
        #[case] created: &str,
        #[case] updated: &str,
        #[case] is_earlier: bool,
    ) {
        let text = json!({"created_at": created, "updated_at": updated}).to_string();
        assert_eq!(answer(201, None, &text).is_of_an_earlier_record(), is_earlier);
        assert!(!answer(201, None, "").is_of_an_earlier_record());
    }

    #[rstest]
    #[case(409, "", true)]
    #[case(422, r#"{"errors": {"field": ["has already been taken"]}}"#, true)]
    #[case(422, r#"{"errors": {"identifier": "must be unique"}}"#, true)]
    #[case(422, r#"{"errors": {"field": ["can't be blank"]}}"#, false)]
    #[case(422, r#"{"errors": {"payload": ["has already been taken"]}}"#, false)]
    #[case(400, r#"{"errors": {"field": ["has already been taken"]}}"#, false)]
    fn existing_record_differs_from_an_invalid_one(#[case] status: u16, #[case] text: &str, #[case] taken: bool) {
        assert_eq!(answer(status, None, text).is_taken(), taken);
    }
}
