//! Refused runs: each cause has its error code, exit code and next step, ends in time, and leaves only objects that a
//! repeat completes.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, RefusedPort, SilentServer, WrongCa, rule};

use crate::support::{Instance, NAME, OBJECT, Ran, binary, paths, start, stops::expect_terminated, token_of, versions};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

/// The error of a failed run, with all fields.
#[track_caller]
fn expect_failure(ran: &Ran, code: &str) -> Value {
    let error = ran.expect_error(code);
    for text in [code, error["cause"].as_str().unwrap(), error["next"].as_str().unwrap()] {
        assert!(ran.stderr.contains(text), "the log lacks {text:?}:\n{}", ran.stderr);
    }
    ran.document()
}

fn missing(document: &Value) -> Vec<String> {
    let text = |tuple: &Value, key: &str| tuple[key].as_str().unwrap_or("-").to_owned();
    let tuples = document["missing_permissions"].as_array().unwrap();
    let mut missing: Vec<String> = tuples
        .iter()
        .map(|tuple| format!("{} {} {}", text(tuple, "verb"), text(tuple, "resource"), text(tuple, "name")))
        .collect();
    missing.sort();
    missing
}

const OWN: [&str; 4] = ["get", "create", "patch", "delete"];

fn own_rules(verbs: &[&str]) -> Vec<Value> {
    let rbac = rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], verbs);
    vec![rule(&[""], &["serviceaccounts", "secrets"], verbs), rbac]
}

#[rstest]
fn parent_without_permissions_gets_the_complete_list(#[values("plan", "provision")] action: &str) {
    let cp = control_plane();
    let namespace = cp.namespace("nobody");
    let parent = cp.persona("nobody", &[]);
    let ran = Instance::new(&parent, &namespace)
        .ask(action, &["--publish"][..usize::from(action == "provision")])
        .expect_code(77);
    let document = expect_failure(&ran, "missing-permission");
    let missing = missing(&document);
    for resource in ["serviceaccounts", "roles", "rolebindings", "secrets"] {
        for verb in ["get", "create", "patch"] {
            assert!(missing.contains(&format!("{verb} {resource} {OBJECT}")), "{verb} {resource} in {missing:?}");
        }
    }
    assert!(versions(cp, &namespace).is_empty(), "no partial objects");
}

#[test]
fn single_missing_verb_is_the_only_one_listed() {
    let cp = control_plane();
    let namespace = cp.namespace("oneverb");
    let mut rules = own_rules(&OWN);
    rules.push(rule(&[""], &["pods"], &["get", "list"]));
    rules[0] = rule(&[""], &["serviceaccounts"], &OWN);
    rules.push(rule(&[""], &["secrets"], &["get", "patch"]));
    let parent = cp.persona("oneverb", &[Grant::in_namespace(&namespace, &rules)]);
    let instance = Instance::new(&parent, &namespace);
    let document = expect_failure(&instance.ask("provision", &[]).expect_code(77), "missing-permission");
    assert_eq!(missing(&document), [format!("create secrets {OBJECT}")]);
    assert!(versions(cp, &namespace).is_empty(), "no partial objects");

    let admin = Instance::new(cp.admin(), &namespace);
    admin.ask("provision", &[]).expect_code(0);
    instance.ask("provision", &[]).expect_code(0);
}

#[rstest]
fn parent_cannot_grant_permissions_it_does_not_hold(#[values("plan", "provision")] action: &str) {
    let cp = control_plane();
    let namespace = cp.namespace("escalation");
    let mut rules = own_rules(&OWN);
    rules.push(rule(&[""], &["pods"], &["get"]));
    let parent = cp.persona("escalation", &[Grant::in_namespace(&namespace, &rules)]);
    let document = expect_failure(&Instance::new(&parent, &namespace).ask(action, &[]).expect_code(77), "escalation");
    let tuple = json!({"verb": "list", "group": "", "resource": "pods", "name": null, "namespace": namespace});
    assert_eq!(document["missing_permissions"], json!([tuple]), "exactly the missing permission");
    assert!(versions(cp, &namespace).is_empty(), "no partial objects");
}

#[test]
fn escalate_and_bind_replace_held_permissions() {
    let cp = control_plane();
    let namespace = cp.namespace("escalate");
    let mut rules = own_rules(&OWN);
    rules.push(rule(&["rbac.authorization.k8s.io"], &["roles"], &["escalate"]));
    let half = cp.persona("escalate", &[Grant::in_namespace(&namespace, &rules)]);
    expect_failure(&Instance::new(&half, &namespace).ask("provision", &[]).expect_code(77), "escalation");
    assert!(versions(cp, &namespace).is_empty(), "without bind the Role would be useless");
    rules.push(rule(&["rbac.authorization.k8s.io"], &["roles"], &["bind"]));
    let whole = cp.persona("escalate", &[Grant::in_namespace(&namespace, &rules)]);
    Instance::new(&whole, &namespace).ask("provision", &[]).expect_code(0);
}

#[test]
fn missing_namespace_requires_create_permission() {
    let cp = control_plane();
    let namespace = cp.unused_namespace("nocreate");
    let mut rules = own_rules(&["*"]);
    rules.extend([rule(&[""], &["namespaces"], &["get"]), rule(&[""], &["pods"], &["get", "list"])]);
    let parent = cp.persona("nocreate", &[Grant::everywhere(&rules)]);
    let document =
        expect_failure(&Instance::new(&parent, &namespace).ask("provision", &[]).expect_code(77), "missing-permission");
    assert_eq!(missing(&document), ["create namespaces -"]);
    assert_eq!(document["missing_permissions"][0]["namespace"], Value::Null);
}

#[test]
fn unreadable_missing_namespace_is_reported_as_absent() {
    let cp = control_plane();
    let namespace = cp.unused_namespace("hidden");
    let mut rules = own_rules(&["*"]);
    rules.push(rule(&[""], &["pods"], &["get", "list"]));
    let parent = cp.persona("hidden", &[Grant::everywhere(&rules)]);
    let document =
        expect_failure(&Instance::new(&parent, &namespace).ask("provision", &[]).expect_code(77), "missing-permission");
    assert_eq!(missing(&document), ["create namespaces -".to_owned(), format!("get namespaces {namespace}")]);
    assert!(document["error"]["cause"].as_str().unwrap().contains("the namespace does not exist"));
}

#[test]
fn listed_api_groups_do_not_cover_the_wildcard() {
    let cp = control_plane();
    let namespace = cp.namespace("wildcard");
    let mut rules = own_rules(&OWN);
    rules.push(rule(&["", "apps", "batch"], &["*"], &["get"]));
    let parent = cp.persona("wildcard", &[Grant::in_namespace(&namespace, &rules)]);
    let instance = Instance::new(&parent, &namespace);
    let instance = instance.rules(&json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}]));
    let document = expect_failure(&instance.ask("plan", &[]).expect_code(77), "escalation");
    let findings = document["findings"].as_array().unwrap();
    let escalation = findings.iter().find(|finding| finding["code"] == "escalation").unwrap();
    assert!(escalation["message"].as_str().unwrap().contains("wildcard"));
}

#[rstest]
#[case::service_account(0, json!({"metadata": {"name": OBJECT}}))]
#[case::role(1, json!({"metadata": {"name": OBJECT, "labels": {"app.kubernetes.io/managed-by": "Helm"}}, "rules": []}))]
#[case::binding(2, json!({"metadata": {"name": OBJECT}, "subjects": [], "roleRef":
    {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"}}))]
#[case::secret(3, json!({"metadata": {"name": OBJECT}, "stringData": {"password": "theirs"}}))]
#[case::namesake(0, json!({"metadata": {"name": OBJECT, "labels": {"app.kubernetes.io/managed-by": "k8s-token"},
    "annotations": {"k8s-token.massdriver.cloud/name": NAME, "k8s-token.massdriver.cloud/namespace": "elsewhere"}}}))]
fn foreign_object_with_required_name_is_refused(#[case] which: usize, #[case] object: Value) {
    let cp = control_plane();
    let namespace = cp.namespace("foreign");
    let path = paths(&namespace)[which].clone();
    cp.post(path.rsplit_once('/').unwrap().0, &object);
    let before = cp.get(&path).unwrap();
    let instance = Instance::new(cp.admin(), &namespace);
    for action in ["plan", "provision"] {
        let document = expect_failure(&instance.ask(action, &[]).expect_code(73), "foreign-object");
        assert_eq!(document["findings"][0]["code"], "foreign-object");
    }
    instance.ask("decommission", &[]).expect_code(0);
    assert_eq!(cp.get(&path).unwrap(), before);
    assert_eq!(versions(cp, &namespace).len(), 1, "nothing else was created");
}

#[test]
fn wrong_ca_is_an_unknown_issuer() {
    let mut instance = Instance::new(control_plane().admin(), "default");
    let wrong = WrongCa::new();
    instance.connection["authentication"]["cluster"]["certificate-authority-data"] = json!(wrong.base64());
    expect_failure(&instance.ask("provision", &[]).expect_code(69), "tls-unknown-issuer");
}

#[test]
fn silent_server_ends_at_the_timeout() {
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.connection["authentication"]["cluster"]["server"] = json!(SilentServer::start().server());
    for action in ["plan", "provision", "decommission"] {
        let ran = instance.ask(action, &["--timeout", "2"]).expect_code(69);
        expect_failure(&ran, "timeout");
        assert!(ran.duration() < Duration::from_secs(6), "{:?}", ran.duration());
    }
}

#[test]
fn refused_connection_and_unknown_host_have_different_codes() {
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.connection["authentication"]["cluster"]["server"] = json!(RefusedPort.server());
    expect_failure(&instance.ask("provision", &[]).expect_code(69), "connection-failed");
    instance.connection["authentication"]["cluster"]["server"] = json!("https://no-such-host.invalid");
    expect_failure(&instance.ask("provision", &["--timeout", "20"]).expect_code(69), "dns");
}

#[rstest]
fn rejected_parent_token_is_unauthorized(#[values("plan", "provision", "decommission")] action: &str) {
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.connection["authentication"]["user"]["token"] = json!("not-a-token");
    expect_failure(&instance.ask(action, &[]).expect_code(69), "unauthorized");
}

#[test]
fn server_without_kubernetes_api_is_not_kubernetes() {
    // A real HTTPS server that answers 404 to every path: the API server below a path that it does not have.
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.connection["authentication"]["cluster"]["server"] =
        json!(format!("{}/not-here", control_plane().server()));
    let ran = instance.ask("provision", &[]);
    assert_ne!(ran.code, 0);
    expect_failure(&ran, "not-kubernetes");
}

#[test]
fn terminating_namespace_is_a_temporary_error() {
    let cp = control_plane();
    let namespace = cp.namespace("terminating");
    let stuck = json!({"metadata": {"name": "stuck", "finalizers": ["example.com/stuck"]}});
    let configmaps = format!("/api/v1/namespaces/{namespace}/configmaps");
    cp.post(&configmaps, &stuck);
    cp.delete(&format!("/api/v1/namespaces/{namespace}"));
    let instance = Instance::new(cp.admin(), &namespace);
    for action in ["plan", "provision"] {
        expect_failure(&instance.ask(action, &[]).expect_code(75), "namespace-terminating");
    }
    instance.ask("decommission", &[]).expect_code(0);
    cp.merge_patch(&format!("{configmaps}/stuck"), &json!({"metadata": {"finalizers": null}}));
}

#[test]
fn exceeded_quota_is_temporary_and_a_repeat_completes() {
    let cp = control_plane();
    let namespace = cp.namespace("quota");
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    let hard = json!({"count/secrets": "0"});
    cp.post(&quotas, &json!({"metadata": {"name": "none"}, "spec": {"hard": hard}}));
    cp.merge_patch(&format!("{quotas}/none/status"), &json!({"status": {"hard": hard, "used": hard}}));
    let instance = Instance::new(cp.admin(), &namespace);
    let document = expect_failure(&instance.ask("provision", &[]).expect_code(75), "quota");
    assert!(document["error"]["state"].as_str().unwrap().contains("ServiceAccount"), "{document:#}");
    cp.delete(&format!("{quotas}/none"));
    instance.ask("provision", &[]).expect_code(0);
    instance.ask("decommission", &[]).expect_code(0);
}

#[test]
fn refused_publication_keeps_credential_and_a_repeat_publishes() {
    let cp = control_plane();
    let namespace = cp.namespace("platform");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.platform.fail_next(422, r#"{"errors": {"payload": ["is not what we want", "nor that"]}}"#);
    let document = expect_failure(&instance.ask("provision", &["--publish"]).expect_code(69), "platform-refused");
    let cause = document["error"]["cause"].as_str().unwrap();
    assert!(cause.contains("422") && cause.contains("payload is not what we want, nor that"), "{cause}");
    assert!(document["token"]["fingerprint"].is_string() && document["proof"].is_object());
    let again = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert_eq!(again["token"], document["token"]);
    assert!(instance.platform.resource("token").is_some());

    instance.platform.down();
    expect_failure(&instance.ask("provision", &["--publish"]).expect_code(69), "platform-unreachable");
}

/// A listener that must not be contacted before the input has been validated.
fn listener_in_place_of_server(instance: &mut Instance) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("https://{address}"));
    listener
}

#[rstest]
#[case::namespace("/params/namespace", json!("Team_A"), "schema", "/namespace")]
#[case::no_rules("/params/rules", json!([]), "schema", "/rules")]
#[case::rules_missing("/params/rules", Value::Null, "schema", "/rules")]
#[case::misspelt_names("/params/rules/0/resourcesNames", json!(["a"]), "schema", "/rules/0")]
#[case::verb("/params/rules/0/verbs/0", json!("*"), "schema", "/rules/0/verbs/0")]
#[case::group("/params/rules/0/apiGroups/0", json!("apps/v1"), "schema", "/rules/0/apiGroups/0")]
#[case::wrong_type("/params/rules/0/resources", json!("pods"), "schema", "/rules/0/resources")]
#[case::name("/params/md_metadata/name_prefix", json!("../../x"), "name", "/md_metadata/name_prefix")]
#[case::name_type("/params/md_metadata/name_prefix", json!(5), "name", "/md_metadata/name_prefix")]
#[case::http("/connection/authentication/cluster/server", json!("http://127.0.0.1:1"), "connection",
    "/kubernetes_cluster/authentication/cluster/server")]
#[case::user_info("/connection/authentication/cluster/server", json!("https://me:pw@127.0.0.1:1"), "connection",
    "/kubernetes_cluster/authentication/cluster/server")]
#[case::shortened_ip_address("/connection/authentication/cluster/server", json!("https://127.1:1"), "connection",
    "/kubernetes_cluster/authentication/cluster/server")]
#[case::no_scheme("/connection/authentication/cluster/server", json!("127.0.0.1:1"), "connection",
    "/kubernetes_cluster/authentication/cluster/server")]
#[case::pem("/connection/authentication/cluster/certificate-authority-data", json!("-----BEGIN CERTIFICATE-----"), "connection",
    "/kubernetes_cluster/authentication/cluster/certificate-authority-data")]
#[case::no_certificate("/connection/authentication/cluster/certificate-authority-data",
    json!("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmFiY2QKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="), "connection",
    "/kubernetes_cluster/authentication/cluster/certificate-authority-data")]
#[case::token_line("/connection/authentication/user/token", json!("abc\n"), "connection",
    "/kubernetes_cluster/authentication/user/token")]
#[case::token_missing("/connection/authentication/user", json!({}), "schema", "/kubernetes_cluster/authentication/user")]
#[case::no_cluster("/connection", json!({}), "schema", "/kubernetes_cluster")]
#[case::no_authentication("/connection", json!({"data": {}}), "schema", "/kubernetes_cluster/data")]
#[case::no_cluster_section("/connection/authentication", json!({"user": {"token": "x"}}), "schema", "/kubernetes_cluster/authentication")]
#[case::shape("/config/output_shape", json!("round"), "schema", "/output_shape")]
#[case::timeout("/config/timeout_seconds", json!("soon"), "schema", "/timeout_seconds")]
fn invalid_input_is_located_before_the_first_packet(
    #[case] place: &str,
    #[case] value: Value,
    #[case] code: &str,
    #[case] pointer: &str,
) {
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.config = json!({}); // config.namespace would override the value under test
    let listener = listener_in_place_of_server(&mut instance);
    let mut all = json!({"params": instance.params, "connection": instance.connection, "config": instance.config});
    let (parent, key) = place.rsplit_once('/').unwrap();
    match all.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        object => object[key] = value,
    }
    (instance.params, instance.connection, instance.config) =
        (all["params"].clone(), all["connection"].clone(), all["config"].clone());
    for action in ["plan", "provision"] {
        let document = expect_failure(&instance.ask(action, &[]).expect_code(65), "input-refused");
        let findings = document["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["code"] == code && finding["pointer"] == pointer);
        assert!(found.is_some_and(|finding| finding["blocking"] == true), "{code} at {pointer}: {findings:#?}");
        assert_eq!(document["requests"], 0);
    }
    assert!(listener.accept().is_err(), "a packet was sent");
}

#[test]
fn all_input_errors_are_reported_without_values() {
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.params = json!({
        "namespace": "S3CRET value", "extra": 1,
        "rules": [{"apiGroups": ["S3CRET/v1"], "resources": [], "verbs": ["S3CRET"], "more": "S3CRET"}],
        "md_metadata": {"name_prefix": "S3CRET"},
    });
    instance.connection = json!({"authentication": {
        "cluster": {"server": "ftp://S3CRET", "certificate-authority-data": "S3CRET!"}, "user": {"token": "S3CRET S3CRET"}}});
    let ran = instance.ask("provision", &["--publish"]).expect_code(65);
    let pointers: Vec<String> = ran.document()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| Some(finding["pointer"].as_str()?.to_owned()))
        .collect();
    for pointer in [
        "/namespace",
        "/rules/0",
        "/rules/0/apiGroups/0",
        "/rules/0/resources",
        "/rules/0/verbs/0",
        "/md_metadata/name_prefix",
        "/extra",
        "/kubernetes_cluster/authentication/cluster/server",
        "/kubernetes_cluster/authentication/user/token",
        "/kubernetes_cluster/authentication/cluster/certificate-authority-data",
    ] {
        assert!(pointers.iter().any(|found| found == pointer), "{pointer} in {pointers:?}");
    }
    assert!(!ran.stderr.contains("S3CRET") && !ran.stdout.contains("S3CRET"), "{}", ran.stderr);
}

#[test]
fn duplicate_keys_and_invalid_json_are_refused() {
    let instance = Instance::new(control_plane().admin(), "default");
    let connection = instance.path("connection.json");
    std::fs::write(&connection, instance.connection.to_string()).unwrap();
    for (text, code, pointer) in [
        (
            r#"{"namespace":"a","rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"],"verbs":["list"]}]}"#,
            "duplicate-key",
            "/rules/0/verbs",
        ),
        ("{", "schema", ""),
        ("\u{feff}{}", "schema", ""),
        ("[]", "schema", ""),
        ("", "schema", ""),
    ] {
        let params = instance.path("mine.json");
        std::fs::write(&params, text).unwrap();
        let mut command = binary();
        command
            .args(["plan", "--json", "--name", "demo", "--connection"])
            .arg(&connection)
            .arg("--params")
            .arg(&params);
        let findings = Ran::of(&mut command).expect_code(65).document()["findings"].clone();
        assert_eq!((&findings[0]["code"], &findings[0]["pointer"]), (&json!(code), &json!(pointer)), "{text:?}");
    }
}

#[test]
fn missing_destination_is_refused_before_the_first_packet() {
    let mut instance = Instance::new(control_plane().admin(), "default");
    let listener = listener_in_place_of_server(&mut instance);
    for action in ["provision", "decommission"] {
        let mut command = instance.command(action, &["--publish"]);
        command.env_remove("MASSDRIVER_TOKEN").env_remove("MASSDRIVER_DEPLOYMENT_ID");
        let document = expect_failure(&Ran::of(&mut command).expect_code(65), "input-refused");
        assert_eq!(document["findings"].as_array().unwrap().len(), 2);
        assert!(document["findings"][0]["message"].as_str().unwrap().contains("MASSDRIVER_DEPLOYMENT_ID"));
    }
    let mut command = instance.command("provision", &["--output", "/nowhere/at/all.json"]);
    expect_failure(&Ran::of(&mut command).expect_code(65), "output-not-writable");
    assert!(listener.accept().is_err(), "a packet was sent");
}

#[rstest]
#[case::nothing(&[], "Usage: k8s-token")]
#[case::unknown(&["frobnicate"], "unrecognized subcommand")]
#[case::no_params(&["plan", "--name", "x"], "--params")]
#[case::two_stdouts(&["provision", "--params", "p", "--name", "n", "--json", "--output", "-"], "both write to stdout")]
#[case::one_stdin(&["plan", "--params", "-", "--connection", "-", "--name", "n"], "both read stdin")]
#[case::two_clusters(&["plan", "--params", "p", "--connection", "c", "--kubeconfig", "k"], "cannot be used with")]
fn usage_errors_exit_with_64(#[case] arguments: &[&str], #[case] text: &str) {
    let ran = Ran::of(binary().args(arguments)).expect_code(64);
    assert!(ran.stderr.contains(text), "{}", ran.stderr);
    if arguments.contains(&"--json") {
        assert_eq!(ran.document()["error"]["code"], "usage");
    } else {
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn unknown_deployment_action_exits_with_64() {
    let ran = Ran::of(binary().env("MASSDRIVER_DEPLOYMENT_ACTION", "destroy")).expect_code(64);
    assert!(
        ran.stderr.contains("usage (exit 64)") && ran.stderr.contains("unknown action `destroy`"),
        "{}",
        ran.stderr
    );
}

#[test]
fn sigterm_during_a_pending_request_ends_the_run() {
    let cp = control_plane();
    let namespace = cp.namespace("stopped");
    let far = testbed::DistantServer::in_front_of(cp.server(), Duration::from_secs(1));
    let instance = Instance::new(&cp.admin().with_server(&far.server()), &namespace);
    let started = Instant::now();
    let child = start(&instance, "provision", &[]);
    testbed::eventually("the ServiceAccount exists", || cp.get(&paths(&namespace)[0]));
    let ran = expect_terminated(child, started, "its answer is half a second away");
    let document = expect_failure(&ran, "terminated");
    assert!(document["error"]["state"].as_str().unwrap().contains("may have succeeded"), "{document:#}");
    Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
}

#[test]
fn kubeconfig_command_requires_a_complete_document() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("artifact.json");
    let admin = control_plane().admin().connection();
    std::fs::write(&file, admin.to_string()).unwrap();
    let ran = Ran::of(binary().arg("kubeconfig").arg(&file)).expect_code(0);
    assert!(ran.stdout.contains("namespace: \"testbed-personas\""), "from the claims of the token");
    let ran = Ran::of(binary().arg("kubeconfig").arg(&file).args(["--namespace", "A/b"])).expect_code(65);
    assert!(ran.stderr.contains("--namespace"), "{}", ran.stderr);
    std::fs::write(&file, json!({"authentication": {"user": {"token": token_of(&admin)}}}).to_string()).unwrap();
    let ran = Ran::of(binary().arg("kubeconfig").arg(&file)).expect_code(65);
    assert!(ran.stderr.contains("the kubernetes-cluster document lacks the field `cluster`"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(!ran.stderr.contains(&token_of(&admin)));
}

#[test]
fn looser_bundle_schema_does_not_relax_validation() {
    let instance = Instance::new(control_plane().admin(), "default");
    std::fs::create_dir(instance.path("bundle")).unwrap();
    let loose = json!({"properties": {"namespace": {"maxLength": 3}, "rules": {}}});
    std::fs::write(instance.path("bundle/schema-params.json"), loose.to_string()).unwrap();
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourcesNames": ["one"]}]);
    let document = expect_failure(&instance.rules(&rules).ask("plan", &[]).expect_code(65), "input-refused");
    let pointers: Vec<&str> =
        document["findings"].as_array().unwrap().iter().filter_map(|finding| finding["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/rules/0", "/namespace"], "both schemas count");
}

#[test]
fn output_refuses_special_files_and_follows_symlinks() {
    let cp = control_plane();
    let namespace = cp.namespace("links");
    let instance = Instance::new(cp.admin(), &namespace);
    let [pipe, link, target] = ["pipe", "link", "target"].map(|name| instance.path(name));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    expect_failure(
        &instance.ask("provision", &["--output", pipe.to_str().unwrap()]).expect_code(65),
        "output-not-writable",
    );
    expect_failure(&instance.ask("provision", &["--output", "/dev/null"]).expect_code(65), "output-not-writable");
    assert!(versions(cp, &namespace).is_empty());
    std::fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    instance.ask("provision", &["--output", link.to_str().unwrap()]).expect_code(0);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&target).unwrap().contains(&namespace));
}

#[test]
fn short_secrets_are_not_redacted_from_json() {
    let instance = Instance::new(control_plane().admin(), &control_plane().namespace("short"));
    for token in ["1", "true", "token"] {
        let mut command = instance.command("provision", &["--publish"]);
        let document = Ran::of(command.env("MASSDRIVER_TOKEN", token)).expect_code(69).document();
        assert_eq!((&document["version"], &document["error"]["code"]), (&json!(1), &json!("platform-refused")));
        assert!(document["token"].is_object());
    }
    let mut command = instance.command("provision", &["--publish"]);
    let ran = Ran::of(command.env("MASSDRIVER_URL", "http://bob:hunter2@127.0.0.1:1")).expect_code(65);
    assert!(!ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"));
}

#[test]
fn parent_without_access_reviews_gets_the_servers_denials() {
    let cp = ControlPlane::start(&testbed::Options::default()).unwrap();
    let namespace = cp.namespace("mute");
    let parent = cp.persona("mute", &[Grant::cluster_role_in(&namespace, "view")]);
    cp.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:basic-user");
    let instance = Instance::new(&parent, &namespace);
    let document = testbed::eventually("the permission is removed", || {
        let document = instance.ask("plan", &[]).expect_code(77).document();
        // With a rules review every missing verb would be listed; without it only the denied reads.
        (document["missing_permissions"].as_array().unwrap().iter().all(|tuple| tuple["verb"] == "get"))
            .then_some(document)
    });
    expect_failure(&instance.ask("plan", &[]).expect_code(77), "missing-permission");
    assert!(missing(&document).iter().all(|tuple| tuple.ends_with(OBJECT)), "{document:#}");
}
