//! `check`, `verify` and `permissions`: their results agree with those of plan, provision and decommission.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Era, Grant, Persona, WrongCa};

use crate::support::{Instance, NAME, OBJECT, Ran, Shape, binary, codes, paths, token_of};

/// Runs a command that reads standard input.
fn run_with_stdin(command: &mut Command, text: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Ran::from(child.wait_with_output().unwrap())
}

fn check(params: &str) -> Ran {
    run_with_stdin(binary().args(["check", "--json"]), params)
}

fn pods() -> Value {
    json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
}

#[rstest]
#[case::valid(json!({"namespace": "team-a", "rules": [pods()]}))]
#[case::unknown(json!({"namespace": "team-a", "rules": [pods()], "colour": "red"}))]
#[case::tag(json!({"namespace": "team-a", "rules": [pods()], "md_metadata": {"default_tags": {"a b": "c"}}}))]
#[case::namespace(json!({"namespace": "Team_A", "rules": [pods()]}))]
#[case::name(json!({"namespace": "team-a", "rules": [pods()], "md_metadata": {"name_prefix": "Not A Name"}}))]
#[case::nothing(json!({}))]
#[case::list(json!([]))]
#[case::misspelt(json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceName": ["a"]}]}))]
#[case::several(json!({"namespace": "-", "rules": [{"verbs": ["fly"]}, 1], "cluster_roles": [{"name": "a/b"}]}))]
#[case::places(json!({"rules": [{
    "apiGroups": [""], "resources": ["pods"], "verbs": ["get"],
    "namespaces": (0..6000).map(|number| format!("{number:060}")).collect::<Vec<_>>(),
}]}))]
fn check_reports_the_same_findings_as_provision(#[case] params: Value) {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name)
    };
    let file = put("params.json", &params.to_string());
    // No server listens there: a run that is not refused before the first packet ends with 69.
    let connection = ControlPlane::shared().admin().connection().to_string();
    let connection = connection.replace(ControlPlane::shared().server(), "https://127.0.0.1:1");
    let connection = put("connection.json", &connection);
    let mut provision = binary();
    provision.args(["provision", "--json", "--timeout", "1", "--params"]).arg(&file);
    provision.arg("--connection").arg(&connection);
    if params.pointer("/md_metadata/name_prefix").is_none() {
        provision.args(["--name", NAME]);
    }
    let provisioned = Ran::of(&mut provision);
    let theirs = provisioned.document();

    let ran = Ran::of(binary().args(["check", "--json", "--params"]).arg(&file));
    let document = ran.document();
    assert_eq!(document["findings"], theirs["findings"]);
    assert_eq!(ran.code, if provisioned.code == 65 { 65 } else { 0 }, "{provisioned:?}");
    if ran.code == 65 {
        assert_eq!(document["error"], theirs["error"]);
    } else {
        assert_eq!((&document["error"], &document["namespace"]), (&Value::Null, &params["namespace"]));
        assert_eq!(provisioned.code, 69, "{provisioned:?}");
    }
    assert_eq!(document["action"], "check");
    assert_eq!((&document["server"], &document["requests"]), (&Value::Null, &json!(0)));
    let by_stdin = check(&params.to_string());
    let mut findings = document["findings"].clone();
    let from_stdin = |finding: &mut Value| {
        if finding["source"] != Value::Null {
            finding["source"] = json!("stdin");
        }
    };
    findings.as_array_mut().unwrap().iter_mut().for_each(from_stdin);
    assert_eq!((by_stdin.code, &by_stdin.document()["findings"]), (ran.code, &findings));
}

#[test]
fn check_reads_params_and_logs_name_and_namespace() {
    let sound = json!({"namespace": "team-a", "rules": [pods()]}).to_string();
    let ran = run_with_stdin(binary().arg("check"), &sound).expect_code(0);
    assert_eq!(ran.stdout, "", "the log goes to stderr");
    assert!(ran.stderr.contains("team-a") && ran.stderr.contains("the params are valid"), "{}", ran.stderr);
    let named = json!({"namespace": "team-a", "rules": [pods()], "md_metadata": {"name_prefix": NAME}});
    assert_eq!(check(&sound).document()["name"], Value::Null);
    assert_eq!(check(&named.to_string()).document()["name"], NAME);

    for (text, problem) in [
        ("", "stdin is empty"),
        ("{", "stdin"),
        (r#"{"namespace": "a", "namespace": "b", "rules": []}"#, "stdin contains a key twice"),
    ] {
        let ran = run_with_stdin(binary().arg("check"), text).expect_code(65);
        assert!(ran.stderr.contains(problem), "{}", ran.stderr);
    }
    let ran = Ran::of(binary().args(["check", "--params", "/nowhere/params.json"])).expect_code(65);
    assert!(ran.stderr.contains("cannot read /nowhere/params.json"), "{}", ran.stderr);
    for arguments in [&["check", "--instance-dir", "d"][..], &["check", "--connection", "c"], &["check", "--name", "n"]]
    {
        Ran::of(binary().args(arguments)).expect_code(64);
    }
}

/// Runs `verify` on an artifact.
fn verify(artifact: &Value, more: &[&str]) -> Ran {
    run_with_stdin(binary().args(["verify", "-", "--json"]).args(more), &artifact.to_string())
}

#[rstest]
#[case(Shape::Bare)]
#[case(Shape::Legacy)]
fn provisioned_credential_verifies_until_decommission(#[case] shape: Shape) {
    let cp = ControlPlane::shared();
    let instance = Instance::of_era(cp.admin(), &cp.namespace("verify"), Era::Dependencies, shape);
    let provisioned = instance.ask("provision", &["--publish"]).expect_code(0).document();
    let artifact = instance.platform.resource("token").expect("an artifact");
    let params = instance.path("params.json").display().to_string();

    let document = verify(&artifact, &["--params", &params]).expect_code(0).document();
    assert_eq!(document["proof"], provisioned["proof"]);
    let token = |document: &Value| (document["token"]["fingerprint"].clone(), document["token"]["secret"].clone());
    assert_eq!(token(&document), token(&provisioned));
    assert_eq!((&document["action"], &document["name"]), (&json!("verify"), &json!(NAME)));
    assert_eq!(document["server"], provisioned["server"]);
    assert_eq!(document["server_version"], provisioned["server_version"]);
    assert_eq!((&document["changes"], &document["findings"]), (&json!([]), &json!([])));

    // Params and name from the directory, whose config.json may override the namespace but not the credential's server.
    fs::write(
        instance.path("config.json"),
        json!({"namespace": instance.namespace, "kubernetes_cluster": {"authentication": {"cluster": {"server": "https://127.0.0.1:1"}}}})
            .to_string(),
    )
    .unwrap();
    let directory = instance.directory.path().display().to_string();
    let of_instance = verify(&artifact, &["--instance-dir", &directory]).expect_code(0).document();
    assert_eq!((&of_instance["proof"], &of_instance["name"]), (&provisioned["proof"], &json!(NAME)));

    // Without params the permissions of the token are listed.
    let alone = verify(&artifact, &["--name", NAME]).expect_code(0).document();
    assert_eq!(
        (&alone["proof"]["username"], &alone["proof"]["allowed"]),
        (&provisioned["proof"]["username"], &json!(0))
    );
    let may: Vec<_> = alone["proof"]["excess"].as_array().unwrap().iter().map(|tuple| &tuple["verb"]).collect();
    assert_eq!(may, ["get", "list"]);

    // As a kubeconfig, from a file and from stdin.
    let file = instance.path("artifact.json");
    fs::write(&file, artifact.to_string()).unwrap();
    let kubeconfig = Ran::of(binary().arg("kubeconfig").arg(&file)).expect_code(0).stdout;
    let by_stdin =
        run_with_stdin(binary().args(["verify", "-", "--json", "--params", &params]), &kubeconfig).expect_code(0);
    assert_eq!(by_stdin.document()["proof"], provisioned["proof"]);
    fs::write(&file, kubeconfig).unwrap();
    let ran = Ran::of(binary().arg("verify").arg(&file)).expect_code(0);
    assert_eq!(ran.stdout, "", "the log goes to stderr");
    assert!(ran.stderr.contains("may          get, list pods in namespace"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(&token_of(&artifact)));

    let [_, _, binding, _] = paths(&instance.namespace);
    cp.delete(&binding);
    let ran = verify(&artifact, &["--params", &params]).expect_code(76);
    assert_eq!(ran.error_code(), "rules-not-allowed");
    verify(&artifact, &[]).expect_code(0);

    instance.act("decommission").expect_code(0);
    let ran = verify(&artifact, &["--params", &params]).expect_code(76);
    assert_eq!((ran.error_code(), &ran.document()["proof"]), ("token-refused".to_owned(), &Value::Null));
}

#[test]
fn verify_requires_expected_identity_and_permissions() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("meant"));
    let artifact = instance.provision();
    let with = |params: Value, more: &[&str]| {
        let file = instance.path("other.json");
        fs::write(&file, params.to_string()).unwrap();
        verify(&artifact, &[&["--params", file.to_str().unwrap()][..], more].concat())
    };
    let rules = |rules: Value| json!({"namespace": instance.namespace, "rules": rules});

    let ran = with(rules(json!([pods(), {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}])), &[]);
    assert_eq!(ran.error_code(), "rules-not-allowed");
    assert!(ran.expect_code(76).stderr.contains("get secrets"));
    let document = with(rules(json!([pods()])), &[]).expect_code(0).document();
    assert_eq!(codes(&document), ["excess"], "the token may also list");
    assert_eq!(document["proof"]["allowed"], 1);

    // Refused before the first packet.
    for ran in [
        verify(&artifact, &["--name", "another"]),
        with(rules(json!([pods()])), &["--name", "another"]),
        with(json!({"namespace": "elsewhere", "rules": [pods()]}), &[]),
    ] {
        assert_eq!((ran.error_code(), &ran.document()["requests"]), ("wrong-identity".to_owned(), &json!(0)));
        ran.expect_code(76);
    }

    // Permissions from other bindings, and from a ClusterRole.
    let subject = json!({"kind": "ServiceAccount", "name": OBJECT, "namespace": instance.namespace});
    cp.post(
        &format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings", instance.namespace),
        &json!({
            "metadata": {"name": "beside"}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        }),
    );
    let own = instance.params["rules"].clone();
    let document = with(rules(own.clone()), &[]).expect_code(0).document();
    assert_eq!(codes(&document), ["excess"]);
    let wanted = json!({"namespace": instance.namespace, "rules": own, "cluster_roles": [{"name": "view"}]});
    let document = with(wanted, &[]).expect_code(0).document();
    assert_eq!(codes(&document), ["cluster-role-unverified"]);
    assert_eq!((&document["proof"]["complete"], &document["proof"]["excess"]), (&json!(false), &json!([])));
}

#[test]
fn expiring_token_is_verified() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("bound");
    cp.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &json!({"metadata": {"name": "robot"}}));
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let made = cp.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/robot/token"), &request);
    let mut artifact = cp.admin().connection();
    artifact["authentication"]["user"]["token"] = made["status"]["token"].clone();
    let document = verify(&artifact, &[]).expect_code(0).document();
    assert_eq!(document["proof"]["username"], format!("system:serviceaccount:{namespace}:robot"));
    assert_eq!(document["token"]["expires"], made["status"]["expirationTimestamp"]);
    assert_eq!(document["token"]["secret"], Value::Null);
}

#[test]
fn verify_distinguishes_bad_input_from_rejected_credentials() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("unusable"));
    let artifact = instance.provision();
    let with = |pointer: &str, value: &str| {
        let mut artifact = artifact.clone();
        *artifact.pointer_mut(pointer).unwrap() = json!(value);
        artifact
    };
    let nobody = with("/authentication/cluster/server", "https://127.0.0.1:1");
    verify(&nobody, &["--timeout", "1"]).expect_code(69);
    let stranger = STANDARD.encode(WrongCa::new().pem());
    let ran = verify(&with("/authentication/cluster/certificate-authority-data", &stranger), &[]).expect_code(69);
    assert_eq!(ran.error_code(), "tls-unknown-issuer");
    let ran = verify(&with("/authentication/user/token", "an-opaque-token"), &[]);
    assert_eq!(ran.error_code(), "wrong-identity");
    ran.expect_code(76);
    let ran = verify(&with("/authentication/cluster/server", "http://127.0.0.1"), &[]).expect_code(65);
    assert_eq!(ran.error_code(), "input-refused");

    let certificate = cp.client_certificate("jane", &[]);
    let kubeconfig = json!({
        "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        "clusters": [{"name": "here", "cluster": artifact["authentication"]["cluster"]}],
        "users": [{"name": "here", "user": {
            "client-certificate-data": STANDARD.encode(&certificate.certificate),
            "client-key-data": STANDARD.encode(&certificate.key),
        }}],
    });
    let ran = verify(&kubeconfig, &[]).expect_code(65);
    assert!(ran.stderr.contains("does not log in with a token only"), "{}", ran.stderr);
    for text in ["", "{}", "kind: Config", "just: yaml"] {
        run_with_stdin(binary().args(["verify", "-"]), text).expect_code(65);
    }
    // All problems at once.
    let bad = instance.path("bad.json");
    fs::write(&bad, "{}").unwrap();
    let ran =
        Ran::of(binary().args(["verify", "/nowhere/artifact.json", "--json", "--params"]).arg(&bad)).expect_code(65);
    let text = ran.document()["findings"].to_string();
    assert!(text.contains("/nowhere/artifact.json") && text.contains("namespace"), "{text}");
    Ran::of(binary().args(["verify", "-", "--params", "-"])).expect_code(64);
    Ran::of(binary().arg("verify")).expect_code(64);
}

/// A Role as `permissions` prints it: its namespace, none for a ClusterRole, and its rules.
type Role = (Option<String>, Vec<Value>);

/// The output of `permissions`, parsed by kubectl and accepted by the server.
fn permissions(cp: &ControlPlane, namespace: &str, arguments: &[&str]) -> Vec<Role> {
    let directory = tempfile::tempdir().unwrap();
    let text = Ran::of(binary().arg("permissions").args(arguments)).expect_code(0).stdout;
    let file = directory.path().join("roles.yaml");
    fs::write(&file, &text).unwrap();
    let kubeconfig = cp.admin().kubeconfig(directory.path());
    let file = file.display().to_string();
    // A Role without a namespace gets that of the context, or the given one.
    let told: &[&str] = if arguments.contains(&"--params") { &[] } else { &["--namespace", namespace] };
    let taken = cp.kubectl(&kubeconfig, &[&["apply", "--filename", &file][..], told].concat());
    assert!(taken.status.success(), "{text}\n{}", String::from_utf8_lossy(&taken.stderr));
    let read = [&["create", "--dry-run=client", "--output", "json", "--filename", &file][..], told].concat();
    let read = String::from_utf8(cp.kubectl(&kubeconfig, &read).stdout).unwrap();
    let roles = serde_json::Deserializer::from_str(&read).into_iter::<Value>().map(Result::unwrap);
    let roles = roles.flat_map(|role| role["items"].as_array().cloned().unwrap_or_else(|| vec![role]));
    let role = |role: Value| {
        let namespace = role["metadata"]["namespace"].as_str().filter(|_| role["kind"] == "Role");
        (namespace.map(str::to_owned), role["rules"].as_array().unwrap().clone())
    };
    roles.map(role).collect()
}

/// A parent with exactly these permissions.
fn parent(cp: &ControlPlane, roles: &[Role]) -> Persona {
    let grant = |(namespace, rules): &Role| match namespace {
        Some(namespace) => Grant::in_namespace(namespace, rules),
        None => Grant::everywhere(rules),
    };
    let roles = roles.iter().filter(|(_, rules)| !rules.is_empty());
    cp.persona("least", &roles.map(grant).collect::<Vec<_>>())
}

/// An instance in namespaces of its own, with the permissions that its parent needs.
struct Case {
    instance: Instance,
    roles: Vec<Role>,
}

impl Case {
    fn new(cp: &ControlPlane, wide: bool) -> Self {
        let (home, other) = (cp.namespace("least"), cp.namespace("least"));
        let mut instance = Instance::new(cp.admin(), &home);
        if wide {
            instance = instance.rules(&json!([
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"], "namespaces": [home, other]},
                {"nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"]},
            ]));
            instance.params["cluster_roles"] = json!([
                {"name": "view", "namespaces": [other]}, {"name": "system:node-problem-detector", "namespaces": ["*"]},
            ]);
        }
        fs::write(instance.path("wanted.json"), instance.params.to_string()).unwrap();
        let params = instance.path("wanted.json").display().to_string();
        let roles = permissions(cp, &home, &["--params", &params]);
        Self { instance, roles }
    }

    fn act(&mut self, cp: &ControlPlane, roles: &[Role], action: &str) -> Ran {
        self.instance.connection = parent(cp, roles).connection();
        self.instance.act(action)
    }
}

#[rstest]
fn printed_permissions_suffice_for_every_action(#[values(false, true)] wide: bool) {
    let cp = ControlPlane::shared();
    let mut case = Case::new(cp, wide);
    let namespaces: Vec<_> = case.roles.iter().map(|(namespace, _)| namespace.is_some()).collect();
    assert_eq!(namespaces, if wide { vec![true, true, false] } else { vec![true] });
    let named = case
        .roles
        .iter()
        .flat_map(|(_, rules)| rules)
        .filter(|rule| rule["verbs"][0] == "get" && rule["verbs"][1] == "create");
    for rule in named {
        assert!(rule["resourceNames"][0].as_str().unwrap().starts_with(OBJECT), "{rule}");
    }
    let roles = case.roles.clone();
    case.act(cp, &roles, "plan").expect_code(0);
    case.act(cp, &roles, "provision").expect_code(0);
    // A repeat, and one that has to create another Secret.
    case.act(cp, &roles, "provision").expect_code(0);
    let [.., secret] = paths(&case.instance.namespace);
    cp.delete(&secret);
    case.act(cp, &roles, "provision").expect_code(0);
    assert!(cp.get(&format!("{secret}-2")).is_some());
    case.act(cp, &roles, "decommission").expect_code(0);
}

/// The Role of docs/permissions.md under "The minimum for one namespace".
#[test]
fn documented_minimum_suffices_for_every_action() {
    let cp = ControlPlane::shared();
    let page = fs::read_to_string("docs/permissions.md").unwrap();
    let (_, section) = page.split_once("**The minimum for one namespace**").unwrap();
    let (_, block) = section.split_once("```yaml\n").unwrap();
    let role: Value = serde_saphyr::from_str(block.split_once("```").unwrap().0).unwrap();
    let mut instance = Instance::new(cp.admin(), &cp.namespace("documented"));
    instance = instance.rules(&json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]));
    let rules = role["rules"].as_array().unwrap().clone();
    instance.connection = parent(cp, &[(Some(instance.namespace.clone()), rules)]).connection();
    for action in ["plan", "provision", "provision", "decommission"] {
        instance.act(action).expect_code(0);
    }
}

/// For each printed rule, or for an instance in one namespace each of its verbs, some run fails without it.
#[rstest]
fn every_printed_permission_is_required(#[values(false, true)] wide: bool) {
    let cp = ControlPlane::shared();
    let all = Case::new(cp, wide).roles;
    let mut parts: Vec<(usize, usize, Option<usize>)> = Vec::new();
    for (number, (_, rules)) in all.iter().enumerate() {
        for (at, rule) in rules.iter().enumerate() {
            let verbs = rule["verbs"].as_array().unwrap().len();
            if wide {
                parts.push((number, at, None));
            } else {
                parts.extend((0..verbs).map(|verb| (number, at, Some(verb))));
            }
        }
    }
    assert!(parts.len() >= 14, "{all:#?}");
    thread::scope(|scope| {
        for part in &parts {
            scope.spawn(move || {
                let (number, at, verb) = *part;
                let mut case = Case::new(cp, wide);
                let mut roles = case.roles.clone();
                let rules = &mut roles[number].1;
                let lost = match verb {
                    Some(verb) => rules[at]["verbs"].as_array_mut().unwrap().remove(verb),
                    None => rules.remove(at),
                };
                let provisioned = case.act(cp, &roles, "provision");
                if lost == "delete" {
                    provisioned.expect_code(0);
                    let ran = case.act(cp, &roles, "decommission");
                    assert_eq!(ran.code, 77, "without {lost} on {:?}: {}", case.roles[number].1[at], ran.stderr);
                } else {
                    let rule = &case.roles[number].1[at];
                    assert_eq!(provisioned.code, 77, "without {lost} on {rule}: {}", provisioned.stderr);
                }
            });
        }
    });
}

#[rstest]
#[case(&[])]
#[case(&["--name", NAME])]
fn permissions_without_params_cover_rules_in_one_namespace(#[case] arguments: &[&str]) {
    let cp = ControlPlane::shared();
    let mut case = Case::new(cp, false);
    let roles = permissions(cp, &case.instance.namespace, arguments);
    assert_eq!(roles.len(), 1);
    case.act(cp, &roles, "provision").expect_code(0);
    case.act(cp, &roles, "decommission").expect_code(0);
}

#[test]
fn permissions_without_name_cover_any_instance() {
    let cp = ControlPlane::shared();
    let mut case = Case::new(cp, true);
    let mut params = case.instance.params.clone();
    params.as_object_mut().unwrap().remove("md_metadata");
    let file = case.instance.path("nameless.json");
    fs::write(&file, params.to_string()).unwrap();
    let roles = permissions(cp, &case.instance.namespace, &["--params", file.to_str().unwrap()]);
    case.act(cp, &roles, "provision").expect_code(0);
    case.act(cp, &roles, "decommission").expect_code(0);
    let named = permissions(cp, &case.instance.namespace, &["--params", file.to_str().unwrap(), "--name", NAME]);
    assert_eq!(named, case.roles);

    let ran = Ran::of(binary().args(["permissions", "--name", "Not A Name"])).expect_code(65);
    assert!(ran.stderr.contains("--name") && ran.stdout.is_empty(), "{}", ran.stderr);
    let ran = run_with_stdin(binary().args(["permissions", "--params", "-"]), "{}").expect_code(65);
    assert!(ran.stderr.contains("namespace") && ran.stdout.is_empty(), "{}", ran.stderr);
}
