//! The test control plane: fast start, RBAC, a token controller, and an audit log without secrets.

use std::io::Write as _;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, Options, RoundTripGate, eventually, rule};

#[test]
fn control_plane_starts_within_30_seconds() {
    let control_plane = ControlPlane::shared();
    assert!(control_plane.version().starts_with("v1."), "{}", control_plane.version());
    // 3 to 4 s on two idle cores; machines are not always idle.
    let after = control_plane.ready_after();
    writeln!(std::io::stderr(), "ready after {after:?}").unwrap();
    assert!(after < Duration::from_secs(30), "{after:?}");
}

#[test]
fn personas_have_exactly_the_granted_permissions() {
    let control_plane = ControlPlane::shared();
    let (here, elsewhere) = (control_plane.namespace("rights"), control_plane.namespace("rights"));
    let reader = [rule(&[""], &["configmaps"], &["get", "list"])];
    let status = |token: Option<&str>, method: &str, namespace: &str, body: Option<&Value>| {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        control_plane.request(method, &path, token, body).status
    };
    let map = json!({"metadata": {"name": "x"}});

    let nobody = control_plane.persona("nobody", &[]);
    assert_eq!(status(Some(&nobody.token), "GET", &here, None), 403);
    assert_eq!(status(None, "GET", &here, None), 403, "anonymous");
    assert_eq!(status(Some("not-a-token"), "GET", &here, None), 401);

    let local = control_plane.persona("local", &[Grant::in_namespace(&here, &reader)]);
    assert_eq!(status(Some(&local.token), "GET", &here, None), 200);
    assert_eq!(status(Some(&local.token), "GET", &elsewhere, None), 403);
    assert_eq!(status(Some(&local.token), "POST", &here, Some(&map)), 403);

    let global = control_plane.persona("global", &[Grant::everywhere(&reader)]);
    assert_eq!(status(Some(&global.token), "GET", &elsewhere, None), 200);

    let editor = control_plane.persona("editor", &[Grant::cluster_role_in(&here, "edit")]);
    assert_eq!(status(Some(&editor.token), "POST", &here, Some(&map)), 201);
    assert_eq!(status(Some(&editor.token), "POST", &elsewhere, Some(&map)), 403);

    let admin = control_plane.admin();
    assert_eq!(status(Some(&admin.token), "POST", &elsewhere, Some(&map)), 201);
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = control_plane.request("POST", path, Some(&admin.token), Some(&question));
    let groups = answer.body["status"]["userInfo"]["groups"].to_string();
    assert!(!groups.contains("system:masters"), "{groups}");
    assert_eq!(answer.body["status"]["userInfo"]["username"], json!(admin.user));
}

#[test]
fn raw_requests_create_replace_patch_and_delete() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("raw");
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let map = format!("{maps}/x");
    assert_eq!(control_plane.get(&map), None);
    let mut made = control_plane.post(&maps, &json!({"metadata": {"name": "x"}, "data": {"a": "1"}}));
    made["data"] = json!({"a": "2"});
    assert_eq!(control_plane.put(&map, &made)["data"], json!({"a": "2"}));
    assert_eq!(control_plane.merge_patch(&map, &json!({"data": {"b": "3"}}))["data"], json!({"a": "2", "b": "3"}));
    assert!(control_plane.delete(&map).is_some());
    assert!(control_plane.delete(&map).is_none());
    assert_eq!(control_plane.get(&format!("/api/v1/namespaces/{}", control_plane.unused_namespace("raw"))), None);
}

#[test]
fn client_certificates_carry_user_and_groups() {
    let control_plane = ControlPlane::shared();
    let certificate = control_plane.client_certificate("ada", &["engine", "analysts"]);
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = control_plane.admin().kubeconfig(directory.path());
    let mut config: Value = serde_json::from_slice(&std::fs::read(&kubeconfig).unwrap()).unwrap();
    let (crt, key) = (directory.path().join("crt"), directory.path().join("key"));
    std::fs::write(&crt, &certificate.certificate).unwrap();
    std::fs::write(&key, &certificate.key).unwrap();
    config["users"][0]["user"] = json!({"client-certificate": crt, "client-key": key});
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let answer = control_plane.kubectl(&kubeconfig, &["auth", "whoami", "-o", "json"]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let who: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "ada");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["engine", "analysts", "system:authenticated"]));
}

#[test]
fn token_secrets_are_filled_and_not_logged() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("tokens");
    let mark = control_plane.audit().mark();
    let secret = token_secret(control_plane, &namespace);
    let token = eventually("a filled Secret", || token_in(control_plane, &secret));
    let answer = control_plane.request("GET", "/api/v1/nodes", Some(&token), None);
    assert_eq!(answer.status, 403, "a valid token without permissions");

    let log = std::fs::read_to_string(control_plane.audit().path()).unwrap();
    let (signature, canary) = (token.rsplit('.').next().unwrap(), "c2FpbG9y");
    assert!(!log.contains(&token) && !log.contains(signature) && !log.contains(canary), "a Secret is in the log");
    let dump = control_plane.dump_everything();
    assert!(dump.contains(&token) && dump.contains(canary), "the dump must see what is stored");

    let events = control_plane.audit().since(mark);
    let creation = events.iter().find(|event| {
        event.resource == "secrets" && event.namespace == namespace && event.verb == "create" && event.name == "t"
    });
    let creation = creation.expect("the creation of the Secret");
    assert!(creation.is_write() && creation.code == 201 && creation.answered >= creation.received);
    assert_eq!(creation.raw["level"], "Metadata");
    assert!(creation.user_agent.starts_with("testbed"), "{}", creation.user_agent);
}

#[test]
fn audit_log_distinguishes_writes_from_reviews() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("audit");
    let persona = control_plane.persona("writer", &[Grant::cluster_role_in(&namespace, "admin")]);
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let map = json!({"metadata": {"name": "x"}});
    let mark = control_plane.audit().mark();
    let ask = |method: &str, path: &str, body: &Value| {
        let body = (!body.is_null()).then_some(body);
        control_plane.request(method, path, Some(&persona.token), body).status
    };
    assert_eq!(ask("POST", &format!("{maps}?dryRun=All"), &map), 201);
    assert_eq!(ask("POST", &maps, &map), 201);
    assert_eq!(ask("GET", &maps, &Value::Null), 200);
    let review = json!({"spec": {"namespace": namespace}});
    assert_eq!(ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review), 201);

    let events = control_plane.audit().of(&persona.user, mark);
    let seen: Vec<_> = events.iter().map(|event| (event.verb.as_str(), event.dry_run, event.is_write())).collect();
    assert_eq!(
        seen,
        [("create", true, false), ("create", false, true), ("list", false, false), ("create", false, false)]
    );
}

#[test]
fn round_trips_are_counted_over_tls() {
    let control_plane = ControlPlane::shared();
    let gate = RoundTripGate::in_front_of(control_plane.server());
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = control_plane.admin().with_server(&gate.server()).kubeconfig(directory.path());
    let answer = control_plane.kubectl(&kubeconfig, &["get", "--raw", "/version"]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    // One for the handshake, one for the request.
    assert_eq!((gate.connections(), gate.round_trips()), (1, 2));
}

#[test]
fn controllers_can_be_absent_frozen_and_killed() {
    let options = Options { no_token_controller: true, ec_key: true, ..Options::default() };
    let without = ControlPlane::start(&options).unwrap();
    let secret = token_secret(&without, &without.namespace("empty"));
    sleep(Duration::from_secs(1));
    assert_eq!(token_in(&without, &secret), None);
    let header = without.admin().token.split('.').next().unwrap().to_owned();
    assert!(header.starts_with("eyJhbGciOiJFUzI1Ni"), "not signed with ES256: {header}");

    without.kill_controllers();
    without.start_controllers();
    without.freeze_controllers();
    let namespace = without.namespace("frozen"); // does not wait for ever
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    assert_eq!(without.get(&account), None);
    without.thaw_controllers();
    eventually("a ServiceAccount after the thaw", || without.get(&account));
}

/// A ServiceAccount and a Secret that asks for its token; returns the Secret's path.
fn token_secret(control_plane: &ControlPlane, namespace: &str) -> String {
    let base = format!("/api/v1/namespaces/{namespace}");
    control_plane.post(&format!("{base}/serviceaccounts"), &json!({"metadata": {"name": "t"}}));
    let secret = json!({
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "t"}},
        "type": "kubernetes.io/service-account-token",
        "data": {"canary": "c2FpbG9y"},
    });
    control_plane.post(&format!("{base}/secrets"), &secret);
    format!("{base}/secrets/t")
}

fn token_in(control_plane: &ControlPlane, secret: &str) -> Option<String> {
    let secret = control_plane.get(secret)?;
    let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, secret["data"]["token"].as_str()?);
    Some(String::from_utf8(token.unwrap()).unwrap())
}
