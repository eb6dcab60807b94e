//! Faults during a run: killed processes, altered objects, misdirected connections. Each has its own error code, and
//! the next run recovers.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, DistantServer, Grant, InterceptingProxy, Options, Persona, Verdict, eventually};

use crate::support::{Instance, NAME, OBJECT, Ran, binary, finish, paths, secrets, start, status, token_of, versions};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

/// A second cluster, without a token controller.
static OTHER: LazyLock<ControlPlane> = LazyLock::new(|| {
    ControlPlane::start(&Options { no_token_controller: true, ..Options::default() }).expect("a second control plane")
});

#[test]
fn absent_token_controller_is_reported_within_the_timeout() {
    let namespace = OTHER.namespace("nocontroller");
    let instance = Instance::new(OTHER.admin(), &namespace);
    let ran = instance.ask("provision", &["--timeout", "3"]).expect_code(76);
    assert_eq!(ran.error_code(), "token-controller-absent");
    assert!(ran.duration() < Duration::from_secs(8), "{:?}", ran.duration());
    let requests = ran.document()["requests"].as_u64().unwrap();
    assert!(requests < 60, "too many requests to an unresponsive server: {requests}");
    instance.ask("decommission", &[]).expect_code(0);
}

#[test]
fn vanished_token_secret_is_reported() {
    let namespace = OTHER.namespace("vanished");
    let instance = Instance::new(OTHER.admin(), &namespace);
    let child = start(&instance, "provision", &["--timeout", "20"]);
    let secret = paths(&namespace)[3].clone();
    eventually("the Secret exists", || OTHER.get(&secret));
    OTHER.delete(&secret);
    let ran = finish(child).expect_code(76);
    assert_eq!(ran.error_code(), "token-secret-vanished");
}

#[test]
fn token_of_another_identity_is_not_published() {
    let namespace = OTHER.namespace("planted");
    let instance = Instance::new(OTHER.admin(), &namespace);
    let child = start(&instance, "provision", &["--publish", "--timeout", "20"]);
    let secret = paths(&namespace)[3].clone();
    eventually("the Secret exists", || OTHER.get(&secret));
    let planted = STANDARD.encode(&control_plane().persona("planted", &[]).token);
    OTHER.merge_patch(&secret, &json!({"data": {"token": planted}}));
    let ran = finish(child).expect_code(76);
    assert_eq!(ran.error_code(), "wrong-identity");
    assert_eq!(instance.platform.resource("token"), None);
    instance.ask("decommission", &[]).expect_code(0);
    assert!(versions(&OTHER, &namespace).is_empty());
}

/// Relays the first connection to one server and all later ones to another.
fn relay(address: &str, first: &str, then: &str) -> String {
    let listener = TcpListener::bind(address).unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let targets = [first, then].map(|server| server.trim_start_matches("https://").to_owned());
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let upstream = TcpStream::connect(&targets[number.min(1)]).unwrap();
            let pump = |mut from: TcpStream, mut to: TcpStream| {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            };
            pump(client.try_clone().unwrap(), upstream.try_clone().unwrap());
            pump(upstream, client);
        }
    });
    server
}

#[test]
fn address_shared_by_two_clusters_is_detected() {
    let cp = control_plane();
    let namespace = cp.namespace("twofaced");
    let mut instance = Instance::new(cp.admin(), &namespace);
    let cluster = &mut instance.connection["authentication"]["cluster"];
    cluster["server"] = json!(relay("127.0.0.1:0", cp.server(), OTHER.server()));
    cluster["certificate-authority-data"] = json!(STANDARD.encode(format!("{}{}", cp.ca_pem(), OTHER.ca_pem())));
    let ran = instance.ask("provision", &["--publish"]).expect_code(76);
    assert_eq!(ran.error_code(), "another-cluster");
    assert_eq!(instance.platform.resource("token"), None, "no untested credential is published");
}

#[test]
fn role_binding_deleted_during_run_prevents_publishing() {
    let cp = control_plane();
    let namespace = cp.namespace("undone");
    let parent = cp.persona("undone", &[Grant::cluster_role("cluster-admin")]);
    Instance::new(&parent, &namespace).ask("provision", &[]).expect_code(0);
    // The binding exists when the run reads the cluster, and is deleted before the token is tested.
    let far = DistantServer::in_front_of(cp.server(), Duration::from_millis(300));
    let instance = Instance::new(&parent.with_server(&far.server()), &namespace);
    let mark = cp.audit().mark();
    let child = start(&instance, "provision", &["--publish"]);
    eventually("the run has read the cluster", || {
        cp.audit().of(&parent.user, mark).iter().any(|event| event.resource == "rolebindings").then_some(())
    });
    cp.delete(&paths(&namespace)[2]);
    let ran = finish(child).expect_code(76);
    assert_eq!(ran.error_code(), "rules-not-allowed");
    assert!(ran.document()["error"]["cause"].as_str().unwrap().contains("pods in namespace"));
    assert_eq!(instance.platform.resource("token"), None);
}

#[test]
fn object_created_during_run_is_a_conflict() {
    let cp = control_plane();
    let namespace = cp.namespace("appears");
    let parent = cp.persona("appears", &[Grant::cluster_role("cluster-admin")]);
    let far = DistantServer::in_front_of(cp.server(), Duration::from_millis(400));
    let instance = Instance::new(&parent.with_server(&far.server()), &namespace);
    let mark = cp.audit().mark();
    let child = start(&instance, "provision", &[]);
    eventually("the run has read the cluster", || {
        cp.audit()
            .of(&parent.user, mark)
            .iter()
            .any(|event| event.resource == "roles" && event.code == 404)
            .then_some(())
    });
    let role = paths(&namespace)[1].clone();
    // Without a label it would not conflict with any field: an apply would adopt it.
    cp.post(role.rsplit_once('/').unwrap().0, &json!({"metadata": {"name": OBJECT}}));
    let before = cp.get(&role).unwrap();
    let ran = finish(child).expect_code(75);
    assert_eq!(ran.error_code(), "conflict");
    assert_eq!(cp.get(&role).unwrap(), before);
    assert_eq!(
        instance.ask("provision", &[]).expect_code(73).error_code(),
        "foreign-object",
        "the repeat names the foreign object"
    );
}

#[test]
fn admission_policy_message_is_quoted() {
    let cp = control_plane();
    let namespace = cp.namespace("denied");
    let api = "/apis/admissionregistration.k8s.io/v1";
    let constraint = json!({"apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["roles"]});
    let validation = json!({"expression": format!("object.metadata.namespace != '{namespace}'"), "message": "no roles here, says the policy"});
    cp.post(
        &format!("{api}/validatingadmissionpolicies"),
        &json!({"metadata": {"name": namespace}, "spec": {"matchConstraints": {"resourceRules": [constraint]}, "validations": [validation]}}),
    );
    let binding =
        json!({"metadata": {"name": namespace}, "spec": {"policyName": namespace, "validationActions": ["Deny"]}});
    cp.post(&format!("{api}/validatingadmissionpolicybindings"), &binding);
    let instance = Instance::new(cp.admin(), &namespace);
    let ran = eventually("the policy is in force", || {
        let ran = instance.ask("plan", &[]);
        (ran.code != 0).then_some(ran)
    });
    assert_eq!((ran.code, ran.error_code()), (1, "refused".to_owned()));
    let ran = instance.ask("provision", &[]).expect_code(1);
    assert!(ran.stderr.contains("no roles here, says the policy"), "{}", ran.stderr);
    cp.delete(&format!("{api}/validatingadmissionpolicybindings/{namespace}"));
}

#[test]
fn credential_that_violates_the_artifact_schema_is_refused() {
    let cp = control_plane();
    let namespace = cp.namespace("schema");
    let instance = Instance::new(cp.admin(), &namespace);
    std::fs::create_dir(instance.path("bundle")).unwrap();
    let put = |token: Value| {
        let user = json!({"properties": {"token": token}});
        let flat =
            json!({"required": ["authentication"], "properties": {"authentication": {"properties": {"user": user}}}});
        let schema = json!({"properties": {"token": flat}});
        std::fs::write(instance.path("bundle/schema-artifacts.json"), schema.to_string()).unwrap();
    };
    put(json!({"type": "number"}));
    let ran = instance.ask("provision", &["--publish"]).expect_code(65);
    assert!(ran.stderr.contains("would not match bundle/schema-artifacts.json"), "{}", ran.stderr);
    assert!(versions(cp, &namespace).is_empty(), "refused before the first packet");
    // Only the example that is tried before there is a token has this key id.
    put(json!({"pattern": "^eyJhbGciOiJSUzI1NiIsImtpZCI6Imtra2tr"}));
    let ran = instance.ask("provision", &["--publish"]).expect_code(1);
    assert_eq!(ran.error_code(), "artifact-invalid");
    assert_eq!(instance.platform.resource("token"), None);
}

#[test]
fn closed_stdout_fails_the_run() {
    let cp = control_plane();
    let namespace = cp.namespace("closed");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.ask("plan", &[]).expect_code(0);
    let mut command = binary();
    command.args(["provision", "--output", "-", "--instance-dir"]).arg(instance.directory.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = finish(child).expect_code(1);
    assert!(ran.stderr.contains("output-failed"), "{}", ran.stderr);
}

#[test]
fn closed_connection_and_wrong_certificate_name_differ() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let mut instance = Instance::new(control_plane().admin(), "default");
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("https://{address}"));
    assert_eq!(instance.ask("plan", &[]).expect_code(69).error_code(), "connection-lost");

    // An address that is missing in the certificate of the server.
    let server = relay("127.0.0.2:0", control_plane().server(), control_plane().server());
    instance.connection["authentication"]["cluster"]["server"] = json!(server);
    let ran = instance.ask("plan", &[]).expect_code(69);
    assert_eq!(ran.error_code(), "tls", "{}", ran.stderr);
}

/// Answers in plain HTTP as a platform's load balancer would, or not at all.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut vec![0; 65536]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn platform_errors_and_malformed_responses_are_reported() {
    let cp = control_plane();
    let namespace = cp.namespace("nonsense");
    let instance = Instance::new(cp.admin(), &namespace);
    for (answer, code_wanted, words) in [
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 22\r\n\r\n<html>\u{1b}[31m!</html>", "platform-refused", "502"),
        ("HTTP/1.1 201 Created\r\ncontent-length: 999\r\n\r\nnot json", "", ""),
        ("what?\r\n\r\n", "platform-unreachable", ""),
    ] {
        let mut command = instance.command("provision", &["--publish"]);
        let ran = Ran::of(command.env("MASSDRIVER_URL", answering(answer)));
        assert_eq!(ran.error_code(), code_wanted, "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && !ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
    }
}

/// A kubeconfig whose user logs in with an exec plugin.
fn login_by_command(cp: &ControlPlane, directory: &std::path::Path, script: &str) -> std::path::PathBuf {
    let command = directory.join("login");
    std::fs::write(&command, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"});
    let kubeconfig = directory.join("config");
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": cp.server(), "certificate-authority-data": cp.ca_base64()}}],
        "users": [{"name": "u", "user": {"exec": exec}}],
    });
    std::fs::write(&kubeconfig, document.to_string()).unwrap();
    kubeconfig
}

#[test]
fn exec_plugin_login_works_and_failures_are_reported() {
    let cp = control_plane();
    let admin: &Persona = cp.admin();
    let directory = tempfile::tempdir().unwrap();
    let params = directory.path().join("params.json");
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    std::fs::write(&params, json!({"namespace": cp.namespace("exec"), "rules": rules}).to_string()).unwrap();
    let run_within = |timeout: &str, script: &str| {
        let kubeconfig = login_by_command(cp, directory.path(), script);
        let mut command = binary();
        command
            .env("PATH", "/usr/bin:/bin")
            .args(["provision", "--json", "--timeout", timeout, "--name", NAME, "--params"])
            .arg(&params);
        Ran::of(command.arg("--kubeconfig").arg(kubeconfig))
    };
    let run = |script: &str| run_within("60", script);
    let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": admin.token}});
    run(&format!("echo '{credential}'")).expect_code(0);
    let babbling = run(&format!("echo {}", admin.token)).expect_code(69);
    assert_eq!(babbling.error_code(), "login-failed");
    let said = format!("{}{}", babbling.stdout, babbling.stderr);
    assert!(!said.contains(&admin.token[..20]), "what the command prints may be a token");
    let hanging = run_within("5", "exec sleep 60").expect_code(69);
    assert_eq!(hanging.error_code(), "login-failed");
    assert!(hanging.duration() < Duration::from_secs(12), "a hanging login is not bounded: {:?}", hanging.duration());
    let ran = run("echo no such session >&2; exit 3").expect_code(69);
    assert_eq!(ran.error_code(), "login-failed");
    assert!(!ran.stderr.contains(&admin.token));
}

#[test]
fn token_stays_valid_while_platform_is_unreachable() {
    let cp = control_plane();
    let namespace = cp.namespace("away");
    let instance = Instance::new(cp.admin(), &namespace);
    let token = token_of(&instance.provision());
    instance.platform.down();
    instance.ask("provision", &["--publish"]).expect_code(69);
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")), 200);
}

#[test]
fn concurrent_provisions_converge_or_report_a_conflict() {
    let cp = control_plane();
    for round in 0..8 {
        let namespace = cp.namespace("together");
        let instance = Instance::new(cp.admin(), &namespace);
        // All are created before the first one starts, because creating one writes the documents.
        let mut commands: Vec<Command> = (0..4).map(|_| instance.command("provision", &[])).collect();
        let spawn = |command: &mut Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let children: Vec<Child> = commands.iter_mut().map(spawn).collect();
        let ends: Vec<Ran> = children.into_iter().map(finish).collect();
        for ran in &ends {
            assert!(ran.code == 0 || (ran.code == 75 && ran.error_code() == "conflict"), "round {round}: {ran:?}");
        }
        let document = instance.ask("provision", &[]).expect_code(0).document();
        assert_eq!(json!(secrets(cp, &namespace)), json!([document["token"]["secret"]]), "no token is left behind");
    }
}

#[test]
fn unusable_token_secret_is_replaced_under_new_name() {
    let cp = control_plane();
    let namespace = cp.namespace("opaque");
    let instance = Instance::new(cp.admin(), &namespace);
    let first = instance.ask("provision", &[]).expect_code(0).document();
    let path = paths(&namespace)[3].clone();
    let made = cp.get(&path).unwrap();
    cp.delete(&path);
    let metadata =
        json!({"name": OBJECT, "labels": made["metadata"]["labels"], "annotations": made["metadata"]["annotations"]});
    let restored = json!({"metadata": metadata, "type": "Opaque", "data": {"token": STANDARD.encode("junk")}});
    cp.post(path.rsplit_once('/').unwrap().0, &restored);

    let plan = instance.ask("plan", &[]).expect_code(0).document();
    let wanted = [
        ("update", "ServiceAccount"),
        ("unchanged", "Role"),
        ("unchanged", "RoleBinding"),
        ("create", "Secret"),
        ("delete", "Secret"),
    ];
    assert_eq!(crate::support::changes(&plan), wanted.map(|(action, kind)| (action.to_owned(), kind.to_owned())));
    let document = instance.ask("provision", &[]).expect_code(0).document();
    assert_eq!(document["token"]["secret"], format!("{OBJECT}-2"));
    assert_ne!(document["token"]["fingerprint"], first["token"]["fingerprint"]);
    assert_eq!(cp.get(&path), None);
    instance.ask("decommission", &[]).expect_code(0);
    assert_eq!(secrets(cp, &namespace).len(), 0);
}

#[test]
fn unanswered_write_is_reported_as_possibly_applied() {
    let cp = control_plane();
    let namespace = cp.unused_namespace("unanswered");
    let far = DistantServer::in_front_of(cp.server(), Duration::from_millis(1500));
    let instance = Instance::new(&cp.admin().with_server(&far.server()), &namespace);
    // Two round trips for the handshake, one for the reads; then the namespace is created, and the timeout comes before
    // the response.
    let ran = instance.ask("provision", &["--timeout", "6"]).expect_code(69);
    let document = ran.document();
    assert_eq!(document["error"]["code"], "timeout");
    let state = document["error"]["state"].as_str().unwrap();
    assert!(state.contains("may have succeeded"), "{document:#}");
    assert!(document["error"]["object"].as_str().unwrap().contains(&namespace), "{document:#}");
}

#[test]
fn overloaded_server_is_a_server_error() {
    let cp = control_plane();
    let proxy = InterceptingProxy::start(cp, |_| Verdict::refusal(429, "TooManyRequests", "try again later"));
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), "default");
    let busy = instance.ask("plan", &[]);
    assert_eq!((busy.code, busy.error_code()), (69, "server-error".to_owned()), "{}", busy.stderr);
}
