//! provision, as the platform runs it, on a real API server.

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Era, Grant, eventually, rule};

use crate::support::{Instance, NAME, OBJECT, Shape, changes, paths, status, token_of, versions};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

fn writes(user: &str, mark: testbed::Mark) -> Vec<String> {
    let events = control_plane().audit().of(user, mark).into_iter().filter(testbed::AuditEvent::is_write);
    events.map(|event| format!("{} {}", event.verb, event.uri)).collect()
}

#[rstest]
fn first_provision_publishes_a_credential_of_matching_format(
    #[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era,
    #[values(Shape::Legacy, Shape::Full, Shape::Bare)] shape: Shape,
) {
    let (cp, admin) = (control_plane(), control_plane().admin());
    let namespace = cp.namespace("fresh");
    let instance = Instance::of_era(admin, &namespace, era, shape);
    let artifact = instance.provision();

    let (home, schema) = match shape {
        Shape::Legacy => (&artifact["data"], schema("src/schema/kubernetes-cluster-legacy.json", "")),
        Shape::Full | Shape::Bare => (&artifact, schema("schema-artifacts.json", "/properties/token")),
    };
    assert!(jsonschema::draft7::is_valid(&schema, &artifact));
    let mut expected = instance.connection.clone();
    match shape {
        Shape::Legacy => expected["data"]["authentication"] = home["authentication"].clone(),
        Shape::Full => expected["authentication"] = home["authentication"].clone(),
        Shape::Bare => expected = json!({"authentication": home["authentication"], "namespace": namespace}),
    }
    assert_eq!(artifact, expected, "infrastructure and specs are unchanged, the namespace depends on the format");
    let token = token_of(&artifact);
    let parent = &admin.connection()["authentication"];
    assert_eq!(home["authentication"], json!({"cluster": parent["cluster"], "user": {"token": token}}));

    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")), 200);
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/secrets")), 403);
    assert_eq!(status(cp, &token, "/api/v1/namespaces/default/pods"), 403);
    let mut accepted = instance.platform.requests();
    accepted.retain(|request| request.status < 300);
    assert_eq!(accepted.len(), 1, "{accepted:?}");
    let posted = &accepted[0];
    assert_eq!((posted.method.as_str(), posted.body["field"].as_str()), ("POST", Some("token")));
    assert!(posted.user_agent.starts_with("k8s-token/"));
}

fn schema(file: &str, pointer: &str) -> Value {
    let document: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    document.pointer(pointer).unwrap().clone()
}

#[test]
fn objects_carry_ownership_labels_and_tags() {
    let namespace = control_plane().namespace("labels");
    let mut instance = Instance::new(control_plane().admin(), &namespace);
    instance.params["md_metadata"]["default_tags"] = json!({"md-project": "ecomm", "count": 3, "on": true, "owner": "me@example.com", "app.kubernetes.io/managed-by": "x"});
    let ran = instance.ask("provision", &[]).expect_code(0);
    let dropped = ran.document()["findings"].clone();
    assert_eq!(dropped[0]["code"], "label-dropped");
    assert_eq!(dropped[0]["pointer"], "/md_metadata/default_tags/owner");
    assert_eq!(dropped.as_array().unwrap().len(), 1);

    let wanted = json!({
        "app.kubernetes.io/managed-by": "k8s-token", "app.kubernetes.io/deployed-with": "massdriver.cloud",
        "md-project": "ecomm", "count": "3", "on": "true",
    });
    for path in paths(&namespace) {
        let mut labels = control_plane().get(&path).unwrap()["metadata"]["labels"].clone();
        labels.as_object_mut().unwrap().retain(|key, _| !key.starts_with("kubernetes.io/legacy-token"));
        assert_eq!(labels, wanted, "{path}");
    }
    let binding = control_plane().get(&paths(&namespace)[2]).unwrap();
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": OBJECT, "namespace": namespace}]));

    instance.params["md_metadata"]["default_tags"] = json!({"md-project": "other"});
    instance.act("provision").expect_code(0);
    for path in paths(&namespace) {
        let labels = &control_plane().get(&path).unwrap()["metadata"]["labels"];
        assert_eq!(labels["md-project"], "other", "{path}");
        assert!(labels.get("count").is_none(), "the removed tag is still on {path}");
    }
}

#[test]
fn repeated_provision_writes_nothing_and_proves_again() {
    let (cp, parent) = (control_plane(), control_plane().persona("again", &[Grant::cluster_role("cluster-admin")]));
    let namespace = cp.namespace("again");
    let instance = Instance::new(&parent, &namespace);
    let token = instance.token();
    // The API server itself adds the day of the first use to the Secret.
    eventually("the API server has noted the use of the token", || {
        let secret = cp.get(&paths(&namespace)[3])?;
        secret["metadata"]["labels"].get("kubernetes.io/legacy-token-last-used").map(|_| ())
    });
    let (before, mark) = (versions(cp, &namespace), cp.audit().mark());
    assert_eq!(before.len(), 4);

    let ran = instance.ask("provision", &["--publish"]).expect_code(0);
    assert_eq!(writes(&parent.user, mark), Vec::<String>::new());
    assert!(cp.audit().of(&parent.user, mark).iter().all(|event| event.verb != "patch"), "not even a dry run");
    assert_eq!(versions(cp, &namespace), before);
    let document = ran.document();
    assert!(changes(&document).iter().all(|(action, _)| action == "unchanged"));
    assert_eq!(document["proof"]["allowed"], 2);
    assert_eq!(document["proof"]["complete"], true);
    assert_eq!(token_of(&instance.platform.resource("token").unwrap()), token);
}

#[test]
fn changed_rules_update_only_the_role() {
    let cp = control_plane();
    let namespace = cp.namespace("rules");
    let instance = Instance::new(cp.admin(), &namespace);
    let token = instance.token();
    let before = versions(cp, &namespace);

    let instance = instance.rules(&json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]));
    let document = instance.ask("provision", &[]).expect_code(0).document();
    let updated: Vec<_> = changes(&document).into_iter().filter(|(action, _)| action != "unchanged").collect();
    assert_eq!(updated, [("update".to_owned(), "Role".to_owned())]);
    assert_eq!(document["changes"][1]["fields"], json!(["/rules/0/resources", "/rules/0/verbs"]));
    assert_eq!(document["permissions"]["unchanged"], 0);
    assert_eq!(
        document["permissions"]["widened"],
        json!([{"verb": "list", "group": "", "resource": "configmaps", "name": null, "namespace": namespace}])
    );
    assert_eq!(document["permissions"]["narrowed"].as_array().unwrap().len(), 2);
    assert_eq!(document["proof"]["excess"], json!([]));

    let after = versions(cp, &namespace);
    assert_eq!(
        before.iter().map(|(uid, _)| uid).collect::<Vec<_>>(),
        after.iter().map(|(uid, _)| uid).collect::<Vec<_>>()
    );
    assert_ne!(before[1], after[1]);
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/configmaps")), 200, "the same token");
    assert_eq!(
        status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")),
        403,
        "the old permission is removed"
    );
}

#[test]
fn equivalent_rules_are_no_change() {
    let (cp, parent) = (control_plane(), control_plane().persona("words", &[Grant::cluster_role("cluster-admin")]));
    let namespace = cp.namespace("words");
    let instance = Instance::new(&parent, &namespace);
    instance.provision();
    let mark = cp.audit().mark();
    let instance = instance.rules(&json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    ]));
    let document = instance.ask("provision", &[]).expect_code(0).document();
    assert!(changes(&document).iter().all(|(action, _)| action == "unchanged"), "{document}");
    assert_eq!(document["permissions"], json!({"widened": [], "narrowed": [], "unchanged": 2}));
    assert_eq!(writes(&parent.user, mark), Vec::<String>::new());
}

#[test]
fn missing_namespace_is_created_and_survives_decommission() {
    let cp = control_plane();
    let namespace = cp.unused_namespace("made");
    let instance = Instance::new(cp.admin(), &namespace);
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert_eq!(changes(&document)[0], ("create".to_owned(), "Namespace".to_owned()));
    instance.act("decommission").expect_code(0);
    assert_eq!(cp.get(&format!("/api/v1/namespaces/{namespace}")).unwrap()["status"]["phase"], "Active");
}

#[test]
fn deleted_token_secret_is_replaced_under_new_name() {
    let cp = control_plane();
    let namespace = cp.namespace("rotated");
    let instance = Instance::new(cp.admin(), &namespace);
    let first = instance.token();
    cp.delete(&paths(&namespace)[3]);

    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert_eq!(document["token"]["secret"], format!("{OBJECT}-2"));
    let second = token_of(&instance.platform.resource("token").unwrap());
    assert_ne!(first, second);
    eventually("the first token is rejected", || (status(cp, &first, "/api") == 401).then_some(()));
    assert_eq!(status(cp, &second, &format!("/api/v1/namespaces/{namespace}/pods")), 200);

    let again = instance.ask("provision", &[]).expect_code(0).document();
    assert!(changes(&again).iter().all(|(action, _)| action == "unchanged"), "{again}");
    assert_eq!(again["token"]["fingerprint"], document["token"]["fingerprint"]);
    instance.act("decommission").expect_code(0);
    assert_eq!(cp.get(&format!("/api/v1/namespaces/{namespace}/secrets/{OBJECT}-2")), None);
}

#[test]
fn drift_is_reverted_and_foreign_fields_are_kept() {
    let cp = control_plane();
    let namespace = cp.namespace("drift");
    let instance = Instance::new(cp.admin(), &namespace);
    let token = instance.token();
    let [account, role, binding, _] = paths(&namespace);
    cp.merge_patch(&role, &json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}));
    let stranger = json!({"kind": "ServiceAccount", "name": "stranger", "namespace": namespace});
    cp.merge_patch(&binding, &json!({"subjects": [stranger]}));
    cp.merge_patch(&account, &json!({"metadata": {"labels": {"theirs": "x", "md-project": "wrong"}}}));

    instance.act("provision").expect_code(0);
    let role = cp.get(&role).unwrap();
    assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]));
    assert_eq!(cp.get(&binding).unwrap()["subjects"][0]["name"], OBJECT);
    let labels = &cp.get(&account).unwrap()["metadata"]["labels"];
    assert_eq!((&labels["theirs"], &labels["md-project"]), (&json!("x"), &json!("ecomm")));
    assert_eq!(instance.token(), token);
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")), 200);
}

#[test]
fn excess_permissions_are_reported_without_blocking_publication() {
    let cp = control_plane();
    let namespace = cp.namespace("excess");
    let group = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("system:serviceaccounts:{namespace}")});
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    cp.post(
        &format!("{rbac}/roles"),
        &json!({"metadata": {"name": "all"}, "rules": [rule(&[""], &["secrets"], &["list"])]}),
    );
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "all"});
    cp.post(
        &format!("{rbac}/rolebindings"),
        &json!({"metadata": {"name": "all"}, "roleRef": role, "subjects": [group]}),
    );

    let document = Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0).document();
    let tuple = json!({"verb": "list", "group": "", "resource": "secrets", "name": null, "namespace": namespace});
    assert_eq!(document["proof"]["excess"], json!([tuple]));
    assert_eq!(document["findings"][0]["code"], "excess");
    assert_eq!(document["findings"][0]["severity"], "high");
}

#[test]
fn kubeconfig_of_the_credential_works_in_kubectl() {
    let cp = control_plane();
    let namespace = cp.namespace("kubectl");
    for (shape, more) in
        [(Shape::Bare, &[][..]), (Shape::Legacy, &[][..]), (Shape::Full, &["--namespace", "default"][..])]
    {
        let instance = Instance::of_era(cp.admin(), &namespace, Era::Dependencies, shape);
        let file = instance.path("artifact.json");
        instance.ask("provision", &["--output", file.to_str().unwrap()]).expect_code(0);
        let rendered =
            crate::support::Ran::of(crate::support::binary().arg("kubeconfig").arg(&file).args(more)).expect_code(0);
        let kubeconfig = instance.path("kubeconfig");
        std::fs::write(&kubeconfig, rendered.stdout).unwrap();
        let kubectl = |arguments: &[&str]| {
            let output = cp.kubectl(&kubeconfig, arguments);
            (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let (_, whoami) = kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
        assert_eq!(whoami, format!("system:serviceaccount:{namespace}:{OBJECT}"));
        let (allowed, text) = kubectl(&["get", "pods"]);
        assert_eq!(allowed, more.is_empty(), "the context has the instance's namespace by default: {text}");
        let (allowed, text) = kubectl(&["--namespace", &namespace, "get", "secrets"]);
        assert!(!allowed && text.contains("Forbidden"), "{text}");
    }
}

#[test]
fn concurrent_runs_leave_one_complete_output_file() {
    let cp = control_plane();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("artifact.json");
    let instances = ["output", "output"].map(|stem| Instance::new(cp.admin(), &cp.namespace(stem)));
    let runs: Vec<_> = instances
        .iter()
        .map(|instance| crate::support::start(instance, "provision", &["--output", file.to_str().unwrap()]))
        .collect();
    for run in runs {
        crate::support::finish(run).expect_code(0);
    }
    let artifact: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(instances.iter().any(|instance| artifact["namespace"] == *instance.namespace), "{}", artifact["namespace"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file is left over");
}

#[test]
fn output_file_is_private_and_complete() {
    use std::os::unix::fs::PermissionsExt as _;

    let namespace = control_plane().namespace("output");
    let instance = Instance::new(control_plane().admin(), &namespace);
    let file = instance.path("artifact.json");
    std::fs::write(&file, "old").unwrap();
    instance.ask("provision", &["--output", file.to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let artifact: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(artifact["namespace"], namespace);
    let hidden = std::fs::read_dir(instance.directory.path()).unwrap().flatten();
    assert!(
        hidden.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().starts_with('.')),
        "a temporary file is left over"
    );

    let mut command = crate::support::binary();
    command.args(["provision", "--output", "-", "--instance-dir"]).arg(instance.directory.path());
    let printed: Value = serde_json::from_str(&crate::support::Ran::of(&mut command).expect_code(0).stdout).unwrap();
    assert_eq!(printed, artifact);
    assert_eq!(instance.platform.requests().len(), 0, "a command publishes only on request");
}

#[test]
fn config_overrides_connection_namespace_and_format() {
    let cp = control_plane();
    let (params, config) = (cp.namespace("params"), cp.namespace("config"));
    let mut instance = Instance::of_era(cp.admin(), &params, Era::Dependencies, Shape::Full);
    let real = instance.connection["authentication"].clone();
    instance.connection["authentication"]["cluster"]["server"] = json!("https://127.0.0.1:1");
    instance.connection["authentication"]["user"]["token"] = json!("stale");
    instance.config = json!({
        "namespace": config,
        "kubernetes_cluster": {"authentication": {
            "cluster": {"server": real["cluster"]["server"]}, "user": {"token": real["user"]["token"]},
        }},
        "emit_namespace": true,
    });
    let ran = instance.act("provision").expect_code(0);
    assert!(ran.stderr.contains("config.json sets another namespace"), "{}", ran.stderr);
    let artifact = instance.platform.resource("token").unwrap();
    assert_eq!(artifact["namespace"], config);
    assert_eq!(artifact["authentication"]["cluster"], real["cluster"]);

    instance.config["output_shape"] = json!("legacy");
    let artifact = instance.provision();
    assert_eq!(artifact["data"]["authentication"]["cluster"], real["cluster"]);
    assert_eq!(artifact["specs"], instance.connection["specs"]);
    assert_eq!(artifact.get("namespace").or_else(|| artifact["data"].get("namespace")), None);
}

/// Whether the connection has a namespace, whether the bundle's type declares one, and whether the credential then
/// contains it.
#[rstest]
#[case::bare(Shape::Bare, None, None, true)]
#[case::of_a_cloud(Shape::Full, None, None, false)]
#[case::declared(Shape::Full, None, Some(true), true)]
#[case::not_declared(Shape::Full, None, Some(false), false)]
#[case::as_the_connection(Shape::Full, Some("theirs"), Some(false), true)]
#[case::legacy(Shape::Legacy, None, Some(true), false)]
#[case::legacy_with_one(Shape::Legacy, Some("theirs"), None, false)]
fn credential_names_its_namespace_if_the_type_allows(
    #[case] shape: Shape,
    #[case] own: Option<&str>,
    #[case] declared: Option<bool>,
    #[case] says: bool,
) {
    let cp = control_plane();
    let mut instance = Instance::of_era(cp.admin(), &cp.namespace("says"), Era::Dependencies, shape);
    if let Some(own) = own {
        instance.connection["namespace"] = json!(own);
    }
    if let Some(declared) = declared {
        let mut flat = json!({"required": ["authentication"], "properties": {"authentication": {"type": "object"}}});
        if declared {
            flat["properties"]["namespace"] = json!({"type": "string"});
        }
        std::fs::create_dir(instance.path("bundle")).unwrap();
        let schema = json!({"properties": {"token": flat}});
        std::fs::write(instance.path("bundle/schema-artifacts.json"), schema.to_string()).unwrap();
    }
    let artifact = instance.provision();
    assert_eq!(artifact.get("data").is_some(), shape == Shape::Legacy);
    assert_eq!(artifact["data"]["namespace"], Value::Null);
    let expected = if says { json!(instance.namespace) } else { Value::Null };
    assert_eq!(artifact["namespace"], expected, "the instance's own namespace, not the connection's");
}

#[test]
fn metric_names_in_rules_are_granted() {
    let cp = control_plane();
    let names = ["datadogmetric@shop:queue", "AWS_SQS_Messages", "pods/http_requests|rate", "\u{fc}ber"];
    let rules = json!([{"apiGroups": ["external.metrics.k8s.io"], "resources": names, "verbs": ["get", "list"]}]);
    let instance = Instance::new(cp.admin(), &cp.namespace("metrics")).rules(&rules);
    instance.act("plan").expect_code(0);
    let token = token_of(&instance.provision());
    let allowed = |name: &str| {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{name}", instance.namespace);
        status(cp, &token, &path)
    };
    assert_eq!(allowed("datadogmetric@shop:queue"), 404, "authorized, and there is no such API here");
    assert_eq!(allowed("datadogmetric@shop:other"), 403);
    instance.act("provision").expect_code(0);
    instance.act("decommission").expect_code(0);
}

#[rstest]
#[case::flat(Shape::Bare, "")]
#[case::legacy(Shape::Legacy, "data/")]
fn artifact_type_patterns_for_token_and_ca_match(#[case] shape: Shape, #[case] home: &str) {
    let cp = control_plane();
    let instance = Instance::of_era(cp.admin(), &cp.namespace("described"), Era::Dependencies, shape);
    let mut kind = json!({
        "authentication": {
            "required": ["cluster", "user"],
            "properties": {
                "cluster": {"properties": {"certificate-authority-data": {"pattern": "^LS0tLS1CRUdJTi", "minLength": 600}}},
                "user": {"properties": {"token": {
                    "pattern": r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$", "minLength": 400, "maxLength": 2000,
                }}},
            },
        },
    });
    if !home.is_empty() {
        kind = json!({"data": {"required": ["authentication"], "properties": kind}});
    }
    let required: Vec<&String> = kind.as_object().unwrap().keys().collect();
    let schema = json!({"properties": {"token": {"required": required, "properties": kind}}});
    std::fs::create_dir(instance.path("bundle")).unwrap();
    std::fs::write(instance.path("bundle/schema-artifacts.json"), schema.to_string()).unwrap();
    instance.act("plan").expect_code(0);
    let artifact = instance.provision();
    let token = artifact.pointer(&format!("/{home}authentication/user/token")).and_then(Value::as_str);
    assert_eq!(token.map(|token| token.split('.').count()), Some(3));
}

#[test]
fn kubeconfig_with_client_certificate_can_provision() {
    let cp = control_plane();
    let namespace = cp.namespace("kubeconfig");
    let directory = tempfile::tempdir().unwrap();
    let certificate = cp.client_certificate("alice", &["system:masters"]);
    let [pem, key] = ["alice.crt", "alice.key"].map(|name| directory.path().join(name));
    std::fs::write(&pem, &certificate.certificate).unwrap();
    std::fs::write(&key, &certificate.key).unwrap();
    let kubeconfig = directory.path().join("config");
    std::fs::write(
        &kubeconfig,
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "other",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "alice", "namespace": "default"}}],
            "clusters": [{"name": "here", "cluster": {"server": cp.server(), "certificate-authority-data": cp.ca_base64()}}],
            "users": [{"name": "alice", "user": {"client-certificate": "alice.crt", "client-key": "alice.key"}}],
        })
        .to_string(),
    )
    .unwrap();
    let params = directory.path().join("params.json");
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    std::fs::write(&params, json!({"namespace": namespace, "rules": rules}).to_string()).unwrap();
    let run = |action: &str, context: &str, more: &[&str]| {
        let mut command = crate::support::binary();
        command
            .env("KUBECONFIG", &kubeconfig)
            .args([action, "--name", NAME, "--context", context, "--params"])
            .arg(&params);
        crate::support::Ran::of(command.args(more))
    };
    let artifact: Value =
        serde_json::from_str(&run("provision", "here", &["--output", "-"]).expect_code(0).stdout).unwrap();
    assert_eq!(artifact["namespace"], namespace, "flat, with its namespace");
    assert_eq!(status(cp, &token_of(&artifact), &format!("/api/v1/namespaces/{namespace}/pods/x")), 404);
    let ran = run("plan", "nowhere", &[]).expect_code(65);
    assert!(ran.stderr.contains("no context `nowhere`; it has the contexts here"), "{}", ran.stderr);
    run("decommission", "here", &[]).expect_code(0);
}

#[test]
fn role_binding_to_another_role_is_replaced() {
    let cp = control_plane();
    let namespace = cp.namespace("replace");
    let instance = Instance::new(cp.admin(), &namespace);
    let token = instance.token();
    let path = &paths(&namespace)[2];
    let mut binding = cp.get(path).unwrap();
    cp.delete(path);
    binding["roleRef"]["name"] = json!("another");
    let metadata = json!({"name": OBJECT, "labels": binding["metadata"]["labels"], "annotations": binding["metadata"]["annotations"]});
    binding["metadata"] = metadata;
    cp.post(path.rsplit_once('/').unwrap().0, &binding);

    let plan = instance.ask("plan", &[]).expect_code(0).document();
    assert_eq!(
        (&plan["changes"][2]["action"], &plan["changes"][2]["fields"]),
        (&json!("replace"), &json!(["/roleRef/name"]))
    );
    instance.ask("provision", &[]).expect_code(0);
    assert_eq!(cp.get(path).unwrap()["roleRef"]["name"], OBJECT);
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")), 200);
}

/// The log without the parts that differ from run to run, and with runs of blanks collapsed.
fn normalized_log(log: &str, namespace: &str) -> String {
    let cp_version = control_plane().version();
    let line = |line: &str| {
        let words = line.split(' ').filter(|word| !word.is_empty()).map(|word| match word {
            word if word.starts_with("sha256:") => "sha256:#".to_owned(),
            word if word.parse::<u64>().is_ok_and(|_| !line.contains("allowed")) => "#".to_owned(),
            word if word.strip_prefix('(').is_some_and(|word| word.parse::<u64>().is_ok()) => "(#".to_owned(),
            word if word.contains("127.0.0.1") => "URL".to_owned(),
            word if word == cp_version => "v#".to_owned(),
            word => word.replace(namespace, "team-a"),
        });
        let words: Vec<String> = words.collect();
        match words.last().map(String::as_str) {
            Some("ms") => format!("{} # ms", words[..words.len() - 2].join(" ")),
            _ => words.join(" "),
        }
    };
    // Two objects are created at the same time: the order of their lines is random.
    let mut lines: Vec<String> = log.lines().map(line).collect();
    let created = |line: &String| line.starts_with("create ");
    let first = lines.iter().position(created).unwrap_or(0);
    let last = lines.iter().rposition(created).map_or(0, |last| last + 1);
    lines[first.min(last)..last].sort();
    lines.join("\n")
}

#[test]
fn log_matches_its_snapshots() {
    let cp = control_plane();
    let namespace = cp.namespace("log");
    let mut instance = Instance::new(cp.admin(), &namespace);
    let ran = instance.act("provision").expect_code(0);
    insta::assert_snapshot!("provision", normalized_log(&ran.stderr, &namespace));
    assert_eq!(ran.stdout, "", "a provisioner writes nothing to stdout");

    instance = instance.rules(
        &json!([{"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "watch"], "resourceNames": ["a"]}]),
    );
    insta::assert_snapshot!("plan", normalized_log(&instance.act("plan").expect_code(0).stderr, &namespace));
    let weak = cp.persona("log", &[Grant::cluster_role_in(&namespace, "view")]);
    let refused = Instance::new(&weak, &namespace).act("provision").expect_code(77);
    insta::assert_snapshot!("refused", normalized_log(&refused.stderr, &namespace));
    instance.params["namespace"] = json!("Team A");
    instance.params["rules"][0]["verbz"] = json!([]);
    instance.config = json!({});
    insta::assert_snapshot!("bad_input", normalized_log(&instance.act("provision").expect_code(65).stderr, &namespace));
    instance.params["namespace"] = json!(namespace);
    let log = normalized_log(&instance.act("decommission").expect_code(0).stderr, &namespace);
    // The platform is called at the same time: its line may be anywhere.
    let (platform, mut cluster): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with("platform "));
    // Only if the token was used within the last 10 s, which depends on the speed of the machine.
    cluster.retain(|line| !line.starts_with("wait "));
    assert_eq!(platform, ["platform record deleted at URL # ms"]);
    insta::assert_snapshot!("decommission", cluster.join("\n"));
}

/// As the platform runs it: a name found on the PATH, and an environment with variables of the pod.
#[test]
fn entrypoint_sh_reads_the_platform_environment() {
    let cp = control_plane();
    let mut instance = Instance::new(cp.admin(), &cp.namespace("entrypoint"));
    let path = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_k8s-token"), path.path().join("entrypoint.sh")).unwrap();
    let run = |instance: &Instance, action: &str, change: &dyn Fn(&mut std::process::Command)| {
        let _ = instance.command(action, &[]); // writes the documents
        for unread in ["envs.json", "secrets.json"] {
            std::fs::write(instance.path(unread), "no JSON").unwrap();
        }
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "exec entrypoint.sh"]).env_clear().env("PATH", path.path());
        command.stdin(std::process::Stdio::null()).current_dir(instance.directory.path());
        command.envs(instance.environment()).env("MASSDRIVER_DEPLOYMENT_ACTION", action);
        command.env("KUBECONFIG", "/nowhere/at/all").env("HOME", "/nowhere").env("NO_PROXY", "*");
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "1");
        change(&mut command);
        let ran = crate::support::Ran::of(&mut command);
        assert_eq!(ran.stdout, "", "{action}");
        ran
    };
    for action in ["plan", "provision", "provision", "decommission"] {
        run(&instance, action, &|_| ()).expect_code(0);
        assert_eq!(instance.platform.resource("token").is_some(), action == "provision");
    }
    let ran = run(&instance, "destroy", &|_| ()).expect_code(64);
    assert!(ran.stderr.contains("unknown action"), "{}", ran.stderr);
    let ran = run(&instance, "", &|_| ()).expect_code(64);
    assert!(ran.stderr.contains("Usage:"), "{}", ran.stderr);
    let asked = instance.platform.requests().len();
    for missing in ["MASSDRIVER_TOKEN", "MASSDRIVER_DEPLOYMENT_ID"] {
        for action in ["provision", "decommission"] {
            let ran = run(&instance, action, &|command| {
                command.env(missing, "");
            })
            .expect_code(65);
            assert!(ran.stderr.contains(&format!("{missing} is not set")), "{}", ran.stderr);
        }
        run(&instance, "plan", &|command| {
            command.env_remove(missing);
        })
        .expect_code(0);
    }
    assert_eq!(instance.platform.requests().len(), asked);
    instance.connection["authentication"]["user"]["token"] = json!("nobodys-token");
    for action in ["plan", "provision"] {
        run(&instance, action, &|_| ()).expect_code(69);
    }
}
