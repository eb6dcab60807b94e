//! The platform's API: hands the artifact over, and takes its record back. The only one beside `cluster/` that sends requests.
//! Three generations of the API are told apart by what they answer, never by a version.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    artifact::Artifact,
    budget::Budget,
    error::{Code, Failure},
    proxy::Proxy,
    request::{FIELD, Platform},
    text::shown,
    tls::{Roots, Tls},
    transport::{self, ANSWER, Target, USER_AGENT},
};

/// Time for all that is done at the platform.
const PLATFORM: Duration = Duration::from_secs(60);
/// More of an answer than anybody reads.
const ANSWER_BYTES: usize = 64 << 10;

/// An open connection to the platform.
pub struct Publisher<'a> {
    platform: &'a Platform,
    http: transport::Http,
    budget: Budget,
}

impl<'a> Publisher<'a> {
    /// Opens a connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(platform: &'a Platform, budget: &Budget) -> Result<Self, Failure> {
        // Plain inside the platform's own network: nobody's certificate is looked at, so none need be loaded.
        let roots = if platform.is_plain() { Roots::Nobody } else { Roots::System };
        let failed = |trouble: &transport::Trouble| unreachable("connecting to the platform", trouble, platform);
        let (tls, _) = Tls::new(roots, None).map_err(|error| failed(&transport::Trouble::of(&error)))?.split();
        let target = Target { uri: &platform.url, name: None, proxy: platform.route.proxy() };
        let opening = transport::open(&target, tls, budget.at_most(ANSWER));
        let (http, _) = opening.await.map_err(|trouble| failed(&trouble))?;
        Ok(Self { platform, http, budget: budget.clone() })
    }

    /// Publishes the artifact. A repeat replaces what was published before.
    ///
    /// # Errors
    /// The platform's refusal, without a word of the artifact.
    pub async fn publish(&self, title: &str, artifact: &Artifact) -> Result<(), Failure> {
        const DOING: &str = "publishing the artifact";

        let payload = artifact.document();
        let body = json!({ "field": FIELD, "name": title, "payload": payload });
        let answer = self.send(DOING, Method::POST, "/v1/resources", Some(&body)).await?;
        let answer = if answer.route_is_missing() {
            // Platforms before May 2026 know artifacts only, and cannot infer the type.
            let mut body = body;
            body["type"] = json!(self.platform.resource_type);
            for part in ["data", "specs"] {
                if let Some(part_of_payload) = payload.get(part) {
                    body[part] = part_of_payload.clone();
                }
            }
            self.send(DOING, Method::POST, "/v1/artifacts", Some(&body)).await?
        } else {
            answer
        };
        if answer.status.is_success() { Ok(()) } else { Err(self.refused(DOING, &answer)) }
    }

    /// Takes the record back under whichever of its names the platform knows it; false when it knows none.
    ///
    /// # Errors
    /// The platform's refusal.
    pub async fn retract(&self) -> Result<bool, Failure> {
        const DOING: &str = "deleting the platform's record";

        let field = json!({ "field": FIELD });
        for (collection, body) in [("/v1/resources", None), ("/v1/artifacts", Some(&field))] {
            for id in &self.platform.resource_ids {
                let answer = self.send(DOING, Method::DELETE, &format!("{collection}/{id}"), body).await?;
                if answer.status.is_success() {
                    return Ok(true);
                }
                if !answer.route_is_missing() {
                    return Err(self.refused(DOING, &answer));
                }
            }
        }
        Ok(false)
    }

    async fn send(&self, doing: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let invalid = |error: http::Error| Failure::new(Code::PlatformRefused, doing, error.to_string());
        let base = self.platform.url.path().trim_end_matches('/');
        let uri = Uri::builder()
            .scheme(self.platform.url.scheme_str().unwrap_or("https"))
            .authority(self.platform.url.authority().map_or("", http::uri::Authority::as_str))
            .path_and_query(format!("{base}{path}"))
            .build()
            .map_err(invalid)?;
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
        // A proxy that reads the requests is logged in at with each of them.
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

        self.budget.count();
        let exchange = async {
            let response = self.http.clone().oneshot(request).await.map_err(|error| transport::Trouble::of(&error))?;
            let status = response.status();
            // A success needs no reading, and a longer text than this no explaining.
            let bytes = Limited::new(response.into_body(), ANSWER_BYTES)
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes);
            Ok(Answer { status, text: String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned() })
        };
        let answer = tokio::time::timeout(self.budget.at_most(ANSWER), exchange).await;
        let answer = answer.unwrap_or(Err(transport::Trouble::Timeout("no answer")));
        answer.map_err(|trouble| unreachable(doing, &trouble, self.platform))
    }

    fn refused(&self, doing: &str, answer: &Answer) -> Failure {
        let cause = format!("{}: {}", answer.status.as_u16(), answer.message());
        Failure::new(Code::PlatformRefused, doing, cause).on(self.platform.address())
    }
}

/// All that is done at the platform, within its time.
///
/// # Errors
/// Those of what is done, or that the time is up.
pub async fn in_time<T>(
    platform: &Platform,
    budget: &Budget,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(budget.at_most(PLATFORM), work).await {
        Ok(result) => result,
        Err(_) => Err(unreachable("talking to the platform", &transport::Trouble::Timeout("no answer"), platform)),
    }
}

fn unreachable(doing: &str, trouble: &transport::Trouble, platform: &Platform) -> Failure {
    let code = match trouble {
        transport::Trouble::Proxy(_) => Code::Proxy,
        _ => Code::PlatformUnreachable,
    };
    Failure::new(code, doing, trouble.to_string()).on(platform.address())
}

struct Answer {
    status: StatusCode,
    text: String,
}

impl Answer {
    const fn route_is_missing(&self) -> bool {
        matches!(self.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
    }

    /// The platform's own words: `{"error": ".."}`, `{"errors": {"field": [".."]}}`, or whatever came.
    fn message(&self) -> String {
        let document: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let text = match (document.get("error"), document.get("errors").and_then(Value::as_object)) {
            (Some(Value::String(error)), _) => error.clone(),
            (_, Some(errors)) => {
                let sentence = |(field, texts): (&String, &Value)| {
                    let texts: Vec<&str> = texts.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    format!("{field} {}", texts.join(", "))
                };
                errors.iter().map(sentence).collect::<Vec<_>>().join("; ")
            }
            _ => self.text.clone(),
        };
        shown(&text, 300)
    }
}
