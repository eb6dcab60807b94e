//! The fake platform follows the rules of each era.

use std::{sync::Arc, thread};

use serde_json::{Value, json};
use testbed::{Era, Platform, eventually};

/// A request with the deployment's credential; returns status and body, 0 if there was no response.
fn ask(platform: &Platform, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let credential = format!("{}:{}", platform.deployment_id(), platform.token());
    let credential = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, credential);
    ask_as(platform, &format!("Basic {credential}"), method, path, body)
}

fn ask_as(platform: &Platform, authorization: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0).build();
    let agent = ureq::Agent::new_with_config(config);
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", platform.url()))
        .header("authorization", authorization)
        .header("content-type", "application/json");
    let answer = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let Ok(mut answer) = answer else { return (0, Value::Null) };
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn credential() -> Value {
    json!({"authentication": {"user": {"token": "t"}}})
}

#[test]
fn artifacts_era_follows_its_rules() {
    let platform = Platform::start(Era::Artifacts);
    let ask = |method: &str, path: &str, body: Option<&Value>| ask(&platform, method, path, body);
    let new = json!({"field": "token", "name": "n", "payload": credential()});
    assert_eq!(ask("POST", "/v1/resources", Some(&new)).0, 404, "the route does not exist yet");
    let (status, body) = ask("POST", "/v1/artifacts", Some(&new));
    assert_eq!((status, &body["errors"]["type"][0]), (422, &json!("can't be blank")));

    let old = json!({"field": "token", "type": "acme/kubernetes-cluster", "name": "n", "data": {"a": 1}, "specs": {}});
    assert_eq!(ask("POST", "/v1/artifacts", Some(&old)).0, 201);
    assert_eq!(platform.resource("token"), Some(json!({"data": {"a": 1}, "specs": {}})));
    let id = format!("/v1/artifacts/{}-token", platform.package_name());
    assert_eq!(ask("GET", &id, None).0, 200);
    assert_eq!(ask("DELETE", &id, None).0, 422, "the field is required");
    assert_eq!(ask("DELETE", &id, Some(&json!({"field": "token"}))).0, 200);
    assert_eq!(ask("DELETE", &id, Some(&json!({"field": "token"}))).0, 404);
    assert_eq!(platform.resource("token"), None);
    assert!(!platform.env().iter().any(|(name, _)| *name == "MASSDRIVER_INSTANCE_ID"));
}

#[test]
fn resources_era_follows_its_rules() {
    let platform = Platform::start(Era::Resources);
    let ask = |method: &str, path: &str, body: Option<&Value>| ask(&platform, method, path, body);
    let body = json!({"field": "token", "type": "kubernetes-cluster", "name": "n", "payload": credential()});
    let (status, shown) = ask("POST", "/v1/resources", Some(&body));
    assert_eq!((status, &shown["type"]), (201, &json!("acme/kubernetes-cluster")));
    assert_eq!(ask("POST", "/v1/resources", Some(&body)).0, 201, "an upsert");
    let without_type = json!({"field": "token", "name": "m", "payload": {"b": 1}});
    assert_eq!(ask("POST", "/v1/artifacts", Some(&without_type)).0, 201, "another name of the same");
    assert_eq!(platform.resource("token"), Some(json!({"b": 1})));
    assert_eq!(platform.resource_name("token").as_deref(), Some("m"));
    for id in [platform.package_name(), platform.instance_id()] {
        assert_eq!(ask("GET", &format!("/v1/resources/{id}-token"), None).0, 200);
    }
    let id = format!("/v1/resources/{}-token", platform.instance_id());
    assert_eq!(ask("DELETE", &id, None).0, 200);
    assert_eq!(ask("DELETE", &id, None).0, 404);
}

#[test]
fn dependencies_era_follows_its_rules() {
    let platform = Platform::start(Era::Dependencies);
    let ask = |method: &str, path: &str, body: Option<&Value>| ask(&platform, method, path, body);
    let mut body = json!({"field": "token", "name": "n", "payload": credential(), "type": "kubernetes-cluster"});
    let (status, answer) = ask("POST", "/v1/resources", Some(&body));
    assert_eq!((status, answer), (422, json!({"errors": {"type": ["is not accepted"]}})));
    body.as_object_mut().unwrap().remove("type");
    let (status, shown) = ask("POST", "/v1/resources", Some(&body));
    assert_eq!((status, &shown["resource_type"]), (201, &json!("kubernetes-cluster@0.0.0")));
    assert_eq!(ask("POST", "/v1/resources", Some(&json!({"field": "token"}))).0, 422);
    assert_eq!(platform.resource("token"), Some(credential()));

    let dotted = format!("/v1/resources/{}.token", platform.instance_id());
    let dashed = format!("/v1/resources/{}-token", platform.instance_id());
    assert_eq!((ask("GET", &dotted, None).0, ask("GET", &dashed, None).0), (200, 200));
    assert_eq!(ask("GET", &format!("/v1/resources/{}-token", platform.package_name()), None).0, 404);
    assert_eq!(ask("PUT", &dashed, Some(&body)).0, 200);
    platform.only_dotted_ids();
    assert_eq!(ask("DELETE", &dashed, None).0, 404);
    assert_eq!(ask("DELETE", &dotted, None).0, 204);
    assert_eq!(ask("GET", "/v1/nothing", None).0, 404);
    assert_eq!(ask("GET", "/v1/resources", None).0, 405);
}

#[test]
fn only_the_deployment_is_authorized() {
    let platform = Platform::start(Era::Dependencies);
    let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let wrong_token = format!("Basic {}", encode(format!("{}:x", platform.deployment_id())));
    let wrong_deployment = format!("Basic {}", encode(format!("x:{}", platform.token())));
    let bearer = format!("Bearer {}", platform.token());
    for (authorization, status) in [("", 401), (&bearer, 401), (&wrong_token, 401), (&wrong_deployment, 403)] {
        let (answered, body) = ask_as(&platform, authorization, "GET", "/v1/resources/x", None);
        assert_eq!(answered, status, "{authorization}");
        assert!(body["error"].is_string(), "{body}");
    }
    assert!(platform.requests().iter().all(|request| !request.authorized));
}

#[test]
fn injected_failures_are_returned() {
    let platform = Platform::start(Era::Dependencies);
    let body = json!({"field": "token", "name": "n", "payload": {}});
    let publish = || ask(&platform, "POST", "/v1/resources", Some(&body)).0;
    platform.fail_next(503, "<html>");
    platform.fail_next_with(429, &[("retry-after", "1")], "{}");
    assert_eq!((publish(), publish()), (503, 429));
    assert_eq!(platform.resource("token"), None);
    platform.down();
    assert_eq!(publish(), 0);
    platform.up();
    platform.lose_next_answer();
    assert_eq!(publish(), 0);
    assert_eq!(platform.resource("token"), Some(json!({})), "done, but not answered");
    assert_eq!(publish(), 201);
    let statuses: Vec<_> = platform.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [503, 429, 0, 0, 201]);
}

#[test]
fn held_request_blocks_only_itself() {
    for done in [false, true] {
        let platform = Arc::new(Platform::start(Era::Dependencies));
        let body = json!({"field": "token", "name": "n", "payload": {}});
        platform.hold_after(1, done);
        assert_eq!(ask(&platform, "GET", "/v1/nothing", None).0, 404);
        assert!(!platform.holds());
        let (held, ours) = (Arc::clone(&platform), body.clone());
        thread::spawn(move || ask(&held, "POST", "/v1/resources", Some(&ours)));
        eventually("the request is held", || platform.holds().then_some(()));
        assert_eq!(platform.resource("token").is_some(), done);
        assert_eq!(ask(&platform, "POST", "/v1/resources", Some(&body)).0, 201, "only the one");
    }
}
