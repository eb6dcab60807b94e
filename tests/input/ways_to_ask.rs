//! The ways to ask for permissions: JSON, YAML, manifests and options mean the same, mistakes in them are located, and
//! each finding names its source. Offline, except for a decommission and a plan at a closed port.

use std::path::Path;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ran, binary};

fn run(arguments: &[&str], stdin: &str) -> Ran {
    Ran::with_stdin(binary().args(arguments), stdin)
}

fn check(arguments: &[&str], stdin: &str) -> Ran {
    run(&[&["check", "--json"], arguments].concat(), stdin)
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding[key].as_str().unwrap_or("-")
}

/// Code, pointer and source of each finding.
fn located(ran: &Ran) -> Vec<[String; 3]> {
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap().iter();
    findings.map(|finding| ["code", "pointer", "source"].map(|key| text(finding, key).to_owned())).collect()
}

fn is_located(ran: &Ran, expected: &[[&str; 3]]) {
    assert_eq!(located(ran), expected.iter().map(|row| row.map(str::to_owned)).collect::<Vec<_>>(), "{}", ran.stderr);
}

const ROLE: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  creationTimestamp: \"2026-11-28T10:00:00Z\"
  labels:
    app: reader
  managedFields:
  - apiVersion: rbac.authorization.k8s.io/v1
    fieldsType: FieldsV1
    fieldsV1:
      f:rules: {}
    manager: kubectl-create
    operation: Update
  name: reader
  namespace: team-a
  resourceVersion: \"1234\"
  uid: 5f9d2c7e-0000-4000-8000-000000000000
rules:
- apiGroups:
  - \"\"
  resources:
  - pods
  verbs:
  - get
  - list
";

/// The Role without some lines, and with others in their place.
fn role(old: &str, new: &str) -> String {
    assert!(ROLE.contains(old), "{old}");
    ROLE.replace(old, new)
}

/// The manifests that `permissions` prints are all that depends on the params.
fn permissions(arguments: &[&str], stdin: &str) -> String {
    run(&[&["permissions", "--name", "alice"], arguments].concat(), stdin).expect_code(0).stdout
}

#[rstest]
#[case::yaml(&["--params", "-"], "namespace: team-a\nrules:\n- apiGroups: ['']\n  resources: [pods]\n  verbs: [get, list]\n")]
#[case::flow(&["--params", "-"], "{namespace: team-a, rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]}")]
#[case::windows(&["--params", "-"], "\u{feff}namespace: team-a\r\nrules:\r\n- apiGroups: ['']\r\n  resources: [pods]\r\n  verbs: [get, list]\r\n")]
#[case::anchor(&["--params", "-"], "namespace: team-a\nrules:\n- &rule\n  apiGroups: ['']\n  resources: [pods]\n  verbs: [get, list]\n")]
#[case::merge(&["--params", "-"], "namespace: team-a\nrules:\n- <<: {apiGroups: [''], verbs: [get, list], resources: [nodes]}\n  resources: [pods]\n")]
#[case::role(&["--params", "-"], ROLE)]
#[case::role_elsewhere(&["--params", "-", "--namespace", "team-a"], &role("team-a", "team-b"))]
#[case::role_without_namespace(&["--params", "-", "--namespace", "team-a"], &role("  namespace: team-a\n", ""))]
#[case::role_of_helm(&["--params", "-"], &format!("---\n# Source: reader/templates/role.yaml\n{ROLE}---\n# the end\n"))]
#[case::old_version(&["--params", "-"], &role("k8s.io/v1\nkind", "k8s.io/v1beta1\nkind"))]
#[case::allow(&["--allow", "get,list pods", "--namespace", "team-a"], "")]
#[case::allow_twice(&["--allow", "get pods", "--allow", "list pods", "--namespace", "team-a"], "")]
#[case::overridden(&["--params", "-", "--namespace", "team-a"], r#"{"namespace": "b", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}"#)]
#[case::namespace_added(&["--params", "-", "--namespace", "team-a"], r#"{"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}"#)]
fn each_way_means_the_same_as_json(#[case] arguments: &[&str], #[case] stdin: &str) {
    let json =
        r#"{"namespace": "team-a", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}"#;
    let expected = permissions(&["--params", "-"], json);
    let printed = permissions(arguments, stdin);
    if arguments.contains(&"get pods") {
        assert!(printed.contains("verbs: [\"list\"]") && printed.contains("verbs: [\"get\"]"), "{printed}");
    } else {
        assert_eq!(printed, expected);
    }
    let checked = check(arguments, stdin).expect_code(0).document();
    assert_eq!((&checked["namespace"], &checked["name"]), (&json!("team-a"), &Value::Null));
}

#[test]
fn cluster_role_manifest_is_taken_in_the_whole_cluster() {
    let manifest = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a, namespace: ignored}\n\
                    rules:\n- apiGroups: ['']\n  resources: [nodes]\n  verbs: [get]\n- nonResourceURLs: [/metrics]\n  verbs: [get]\n";
    let json = json!({"namespace": "team-a", "rules": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "namespaces": ["*"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"]},
    ]});
    let printed = permissions(&["--params", "-", "--namespace", "team-a"], manifest);
    assert_eq!(printed, permissions(&["--params", "-"], &json.to_string()));
    is_located(&check(&[], manifest).expect_code(65), &[["schema", "", "stdin"]]);
    let log = run(&["check"], manifest).stderr;
    assert!(log.contains("pass --namespace for the ServiceAccount"), "{log}");
}

#[test]
fn options_combine_in_one_request() {
    let options =
        ["--allow", "get deployments.apps,pods", "--cluster-role", "view", "--preset", "Debugging", "--allow"];
    let options = [&options[..], &["patch deployments.apps/scale", "--namespace", "team-a"]].concat();
    let preset: Value = serde_json::from_str(&run(&["preset", "Debugging"], "").expect_code(0).stdout).unwrap();
    let rule = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
    let mut rules =
        vec![rule("apps", "deployments", "get"), rule("", "pods", "get"), rule("apps", "deployments/scale", "patch")];
    rules.extend(preset["rules"].as_array().unwrap().iter().cloned());
    let json = json!({"namespace": "team-a", "rules": rules, "cluster_roles": [{"name": "view"}]});
    assert_eq!(permissions(&options, ""), permissions(&["--params", "-"], &json.to_string()));
}

#[rstest]
#[case::no_resources(&["--allow", "get", "--namespace", "a"], "--allow 1 has no resources")]
#[case::second(&["--allow", "get pods", "--allow", "", "--namespace", "a"], "--allow 2 is empty")]
#[case::corrected(&["--allow", "get, list pods, deployments.apps, services, configmaps", "--namespace", "a"], "--allow 'get,list pods,deployments.apps,services,configmaps'")]
#[case::group(&["--allow", "get deployments.", "--namespace", "a"], "RESOURCE.GROUP/SUBRESOURCE")]
#[case::no_namespace(&["--allow", "get pods"], "--namespace <NS>")]
#[case::role_without_namespace(&["--cluster-role", "view"], "--namespace <NS>")]
#[case::preset_without_namespace(&["--preset", "Admin"], "--namespace <NS>")]
#[case::unknown_preset(&["--preset", "Owner", "--namespace", "a"], "possible values: Admin, Read-only, Debugging")]
#[case::file_and_allow(&["--params", "p", "--allow", "get pods", "--namespace", "a"], "cannot be used with")]
#[case::file_and_role(&["--params", "p", "--cluster-role", "view", "--namespace", "a"], "cannot be used with")]
#[case::file_and_preset(&["--params", "p", "--preset", "Admin", "--namespace", "a"], "cannot be used with")]
fn wrong_options_are_usage_errors_of_each_command(#[case] arguments: &[&str], #[case] problem: &str) {
    let commands: [&[&str]; 6] =
        [&["plan"], &["provision"], &["decommission"], &["check"], &["verify", "a"], &["permissions"]];
    for command in commands {
        let ran = run(&[command, arguments].concat(), "").expect_code(64);
        assert!(ran.stderr.contains(problem), "{command:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[rstest]
#[case(&["--namespace", "a"])]
#[case(&["--allow", "get pods", "--namespace", "a"])]
#[case(&["--cluster-role", "view", "--namespace", "a"])]
#[case(&["--preset", "Admin", "--namespace", "a"])]
fn options_conflict_with_instance_dir(#[case] arguments: &[&str]) {
    for command in [&["plan"][..], &["provision"], &["decommission"], &["verify", "a"]] {
        let ran = run(&[command, &["--instance-dir", "."], arguments].concat(), "").expect_code(64);
        assert!(ran.stderr.contains("cannot be used with"), "{}", ran.stderr);
    }
}

#[test]
fn namespace_alone_is_enough_for_decommission_only() {
    for command in ["plan", "provision"] {
        let ran = run(&[command, "--namespace", "a", "--name", "b"], "").expect_code(64);
        assert!(ran.stderr.contains("the params are missing"), "{}", ran.stderr);
    }
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("config");
    let user = "users: [{name: u, user: {token: the-parents-token}}]";
    let cluster = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: false}}]";
    let context = "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x";
    std::fs::write(&kubeconfig, format!("{cluster}\n{user}\n{context}\n")).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let ask = |more: &[&str], stdin: &str| {
        let command = ["decommission", "--json", "--timeout", "2", "--kubeconfig", kubeconfig, "--name", "b"];
        run(&[&command, more].concat(), stdin)
    };
    // The input is accepted: the server is contacted, and does not answer.
    let document = ask(&["--namespace", "team-a"], "").expect_code(69).document();
    assert_eq!((&document["name"], &document["namespace"]), (&json!("b"), &json!("team-a")));
    for (more, stdin, namespace) in [
        (&["--params", "-"][..], ROLE.to_owned(), "team-a"),
        (&["--params", "-"], role("  - list\n", "  - '*'\n  surplus: 1\n"), "team-a"),
        (&["--params", "-", "--namespace", "c"], "kind: List\nitems: []\n".to_owned(), "c"),
        (&["--params", "-", "--namespace", "c"], role("metadata:", "status: {}\naggregationRule: {}\nmetadata:"), "c"),
        (&["--allow", "* *", "--namespace", "c"], String::new(), "c"),
    ] {
        let document = ask(more, &stdin).expect_code(69).document();
        assert_eq!(document["namespace"], namespace, "{more:?} {stdin}");
    }
    is_located(&ask(&["--namespace", "Team"], "").expect_code(65), &[["schema", "/namespace", "--namespace"]]);
    is_located(&ask(&["--params", "-"], "kind: List\n").expect_code(65), &[["schema", "/kind", "stdin"]]);
    let twice = role("  namespace: team-a\n", "  namespace: team-a\n  namespace: team-b\n");
    let ran = ask(&["--params", "-"], &twice).expect_code(65);
    is_located(&ran, &[["duplicate-key", "/metadata/namespace", "stdin"]]);
}

/// Columns: options, stdin, the first finding, a part of its message or help.
#[rstest]
#[case::verb(&[], &role("- get", "- '*'"), ["schema", "/rules/0/verbs/0", "stdin"], "Choose one of the listed verbs")]
#[case::escalate(&["--allow", "escalate roles.rbac.authorization.k8s.io", "--namespace", "a"], "", ["schema", "/rules/0/verbs/0", "--allow 1"], "Choose one of the listed verbs")]
#[case::kind_for_resource(&["--allow", "get pods", "--allow", "get Pod", "--namespace", "a"], "", ["schema", "/rules/1/resources/0", "--allow 2"], "lower-case plural")]
#[case::twice(&["--allow", "get,get pods", "--namespace", "a"], "", ["schema", "/rules/0/verbs", "--allow 1"], "an item twice")]
#[case::cluster_role_twice(&["--cluster-role", "view", "--cluster-role", "view", "--namespace", "a"], "", ["schema", "/cluster_roles", "--cluster-role"], "an item twice")]
#[case::cluster_role(&["--cluster-role", "view", "--cluster-role", "a/b", "--namespace", "a"], "", ["schema", "/cluster_roles/1/name", "--cluster-role 2"], "no slash")]
#[case::namespace_option(&["--allow", "get pods", "--namespace", "Team_A"], "", ["schema", "/namespace", "--namespace"], "--namespace: ")]
#[case::namespace_of_the_role(&[], &role("namespace: team-a", "namespace: Team_A"), ["schema", "/metadata/namespace", "stdin"], "lower-case letters")]
#[case::no_namespace(&[], &role("  namespace: team-a\n", ""), ["schema", "", "stdin"], "set metadata.namespace of the Role, or pass --namespace")]
#[case::no_namespace_in_params(&[], "rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]", ["schema", "", "stdin"], "pass --namespace")]
#[case::misspelt(&[], &role("  verbs:", "  resourceName: [a]\n  verbs:"), ["schema", "/rules/0", "stdin"], "known fields: apiGroups, nonResourceURLs, resourceNames, resources, verbs")]
#[case::no_groups(&[], &role("- apiGroups:\n  - \"\"\n  resources", "- resources"), ["schema", "/rules/0", "stdin"], "`apiGroups` is missing")]
#[case::no_rules(&[], "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {namespace: a}\nrules: []\n", ["schema", "/rules", "stdin"], "at least 1 item")]
#[case::urls(&[], &role("- apiGroups:\n  - \"\"\n  resources:\n  - pods\n", "- nonResourceURLs: [/metrics]\n"), ["schema", "/rules/0/nonResourceURLs", "stdin"], "expected a ClusterRole")]
#[case::list(&[], "apiVersion: v1\nkind: List\nitems: []\n", ["schema", "/kind", "stdin"], "kind List cannot be read as params")]
#[case::role_list(&[], "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleList\n", ["schema", "/kind", "stdin"], "kind RoleList")]
#[case::json_list(&[], r#"{"apiVersion": "v1", "kind": "List"}"#, ["schema", "/kind", "stdin"], "kind List")]
#[case::binding(&[], "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n", ["schema", "/kind", "stdin"], "--cluster-role NAME")]
#[case::deployment(&[], "apiVersion: apps/v1\nkind: Deployment\n", ["schema", "/kind", "stdin"], "expected one Role, one ClusterRole, or params")]
#[case::secret_as_kind(&[], "kind: S3CRET-S3CRET\n", ["schema", "/kind", "stdin"], "another kind")]
#[case::api(&[], &role("rbac.authorization.k8s.io/v1\nkind", "v1\nkind"), ["schema", "/apiVersion", "stdin"], "must be rbac.authorization.k8s.io/v1")]
#[case::aggregated(&["--namespace", "a"], "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\naggregationRule: {clusterRoleSelectors: []}\nrules: [{apiGroups: [''], resources: [nodes], verbs: [get]}]\n", ["schema", "/aggregationRule", "stdin"], "aggregationRule is refused")]
#[case::documents(&[], &format!("{ROLE}---\n{ROLE}"), ["schema", "", "stdin"], "contains several documents (expected one; the second one is at line 27, column 1)")]
#[case::boolean(&[], "namespace: no\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n", ["schema", "/namespace", "stdin"], "put it in quotes if a string is meant")]
#[case::boolean_alone(&[], "yes\n", ["schema", "", "stdin"], "must be of type object (type) give a document with params")]
#[case::empty_namespace(&[], &role("namespace: team-a", "namespace: ''"), ["schema", "", "stdin"], "pass --namespace")]
#[case::words_of_the_form(&["--namespace", "a"], "rules: [{apiGroups: [], resources: [pods], verbs: [get]}]\n", ["schema", "/rules/0/apiGroups", "stdin"], "list \"\"")]
#[case::number(&[], "namespace: 7\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n", ["schema", "/namespace", "stdin"], "YAML reads it as a number")]
#[case::number_for_a_list(&["--namespace", "a"], "rules: [{apiGroups: [''], resources: [pods], verbs: [get], namespaces: 0x1f}]\n", ["schema", "/rules/0/namespaces", "stdin"], "a list of names")]
#[case::tab(&[], "namespace: a\nrules:\n\t- verbs: [get]\n", ["schema", "", "stdin"], "is not valid YAML (line 3, column ")]
#[case::flow(&[], "namespace: a\nrules: [\n", ["schema", "", "stdin"], "is not valid YAML (line 2, column 8)")]
#[case::empty(&[], "# nothing\n", ["schema", "", "stdin"], "stdin is empty")]
#[case::text(&[], "S3CRET\n", ["schema", "", "stdin"], "must be of type object")]
#[case::json(&[], "{\"namespace\": \"a\",}\n", ["schema", "", "stdin"], "stdin is not valid JSON: line 1, column 19")]
#[case::two_json(&[], "{\"namespace\": \"a\"} {}\n", ["schema", "", "stdin"], "stdin is not valid JSON: line 1, column 20")]
#[case::tag(&[], "namespace: !!int S3CRET\n", ["schema", "", "stdin"], "does not match its tag (line 1, column ")]
#[case::duplicate(&[], &role("  verbs:", "  resources: [secrets]\n  verbs:"), ["duplicate-key", "/rules/0/resources", "stdin"], "contains a key twice (line 23, column 3)")]
#[case::roles_alone(&[], "{\"namespace\": \"a\", \"cluster_roles\": \"view\"}", ["schema", "/cluster_roles", "stdin"], "must be of type array")]
fn mistakes_are_refused_at_their_place(
    #[case] options: &[&str],
    #[case] stdin: &str,
    #[case] expected: [&str; 3],
    #[case] message: &str,
) {
    let ran = check(options, stdin).expect_code(65);
    let document = ran.document();
    let blocking: Vec<&Value> =
        document["findings"].as_array().unwrap().iter().filter(|finding| finding["blocking"] == true).collect();
    let [finding] = blocking[..] else { panic!("{blocking:#?}") };
    assert_eq!(["code", "pointer", "source"].map(|key| text(finding, key)), expected);
    let said = format!("{} {}", finding["message"].as_str().unwrap(), text(finding, "help"));
    assert!(said.contains(message), "{message:?} is not in {said}");
    assert!(!format!("{ran:?}").contains("S3CRET"), "{ran:?}");
}

#[test]
fn unknown_fields_of_a_manifest_are_reported_without_refusal() {
    let ran = check(&[], &role("rules:\n-", "cluster_roles: []\nstatus: {}\nrules:\n-")).expect_code(0);
    is_located(&ran, &[["unknown-param", "/cluster_roles", "stdin"]]);
}

#[test]
fn findings_of_accepted_params_name_their_source() {
    let options = ["--allow", "get,list pods,secrets", "--allow", "get deployment.apps,pods", "--preset", "Admin"];
    let ran = check(&[&options[..], &["--namespace", "team-a"]].concat(), "").expect_code(0);
    let found = located(&ran);
    for expected in [
        ["risk-r01", "/rules/3", "--preset Admin"],
        ["risk-r03", "/rules/0/resources/1", "--allow 1"],
        ["unknown-resource", "/rules/1/resources/0", "--allow 2"],
        ["redundant-rule", "/rules/2", "--allow 2"],
    ] {
        let is_expected =
            |row: &&[String; 3]| row[0] == expected[0] && row[1].starts_with(expected[1]) && row[2] == expected[2];
        assert!(found.iter().any(|row| is_expected(&row)), "{expected:?} is not in {found:#?}");
    }
    let log = run(&[&["check"], &options[..], &["--namespace", "team-a"]].concat(), "").stderr;
    assert!(log.contains("high         --allow 2 /rules/1/resources/0: "), "{log}");
    let log = run(&["check", "--allow", "get deployment.apps", "--namespace", "a"], "").stderr;
    assert!(log.contains("high         /rules/0/resources/0: "), "a single source is not repeated: {log}");
}

#[test]
fn source_is_the_file_as_it_was_typed() {
    let directory = tempfile::tempdir().unwrap();
    let rule = json!({"apiGroups": ["apps"], "resources": ["deployment"], "verbs": ["get"]});
    let params = json!({"namespace": "a", "rules": [rule], "colour": 1, "md_metadata": {"default_tags": {"a b": "c"}}});
    std::fs::write(directory.path().join("mine.yaml"), params.to_string()).unwrap();
    let mut command = binary();
    let ran = Ran::of(command.current_dir(&directory).args(["check", "--json", "--params", "./mine.yaml"]));
    is_located(
        &ran.expect_code(0),
        &[
            ["unknown-resource", "/rules/0/resources/0", "./mine.yaml"],
            ["unknown-param", "/colour", "./mine.yaml"],
            ["label-dropped", "/md_metadata/default_tags/a b", "./mine.yaml"],
        ],
    );
    let mut command = binary();
    let ran = Ran::of(command.current_dir(&directory).args(["check", "--json", "--params", "none.json"]));
    is_located(&ran.expect_code(65), &[["schema", "", "none.json"]]);
}

#[test]
fn sources_of_an_instance_are_its_documents() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    put("params.json", r#"{"namespace": "a", "rules": [{"verbs": ["fly"]}], "colour": 1}"#);
    put(
        "config.json",
        r#"{"timeout_seconds": 0, "colour": 1, "namespace": "B", "kubernetes_cluster": {"authentication": {"user": {"token": ""}}}}"#,
    );
    put("dependencies.json", "{}");
    let plan = |directory: &Path| Ran::of(binary().args(["plan", "--json", "--instance-dir"]).arg(directory));
    let found = located(&plan(directory.path()).expect_code(65));
    for [code, pointer, source] in &found {
        let expected = match pointer.as_str() {
            "/colour" if code == "unknown-config" => "config.json",
            "/timeout_seconds" | "/namespace" | "/kubernetes_cluster/authentication/user/token" => "config.json",
            pointer if pointer.starts_with("/rules") || pointer == "/colour" => "params.json",
            _ if code == "name" => "params.json",
            _ => "-",
        };
        assert_eq!(source, expected, "{code} {pointer}");
    }
    assert!(found.len() >= 9, "{found:#?}");
    put("params.json", "namespace: a\n");
    put("config.json", "{");
    let found = located(&plan(directory.path()).expect_code(65));
    assert_eq!(found[0], ["schema", "", "params.json"], "YAML is not read there");
    assert!(found.contains(&["schema", "", "config.json"].map(str::to_owned)), "{found:#?}");
    put("params.json", "null");
    let found = located(&plan(directory.path()).expect_code(65));
    let null = ["schema", "", "params.json"].map(str::to_owned);
    assert!(found.contains(&null), "null is reported beside another document: {found:#?}");
}

#[test]
fn name_of_a_manifest_is_not_that_of_the_instance() {
    let ran = run(&["plan", "--json", "--params", "-"], ROLE).expect_code(65);
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    let name = findings.iter().find(|finding| finding["code"] == "name").unwrap();
    assert!(text(name, "message").contains("pass --name, because metadata.name is"), "{name:#}");
    assert_eq!(text(name, "source"), "stdin");
    let ran = run(&["plan", "--json", "--params", "-", "--name", "Not A Name"], ROLE).expect_code(65);
    assert!(located(&ran).contains(&["name", "", "--name"].map(str::to_owned)), "{:?}", located(&ran));
}

#[test]
fn presets_are_params_of_the_form() {
    let names = run(&["preset"], "").expect_code(0).stdout;
    assert_eq!(names, "Admin\nRead-only\nDebugging\n");
    let schema: Value = serde_json::from_str(include_str!("../../schema-params.json")).unwrap();
    for (name, example) in names.lines().zip(schema["examples"].as_array().unwrap()) {
        let printed = run(&["preset", name], "").expect_code(0).stdout;
        let params: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(params["rules"], example["rules"]);
        assert_eq!(params.get("__name"), None);
        let by_file = check(&["--namespace", "team-a"], &printed).expect_code(0);
        let by_name = check(&["--preset", name, "--namespace", "team-a"], "").expect_code(0);
        let without_source = |ran: &Ran| -> Vec<[String; 2]> {
            located(ran).into_iter().map(|[code, pointer, _]| [code, pointer]).collect()
        };
        assert_eq!(without_source(&by_file), without_source(&by_name));
    }
    let ran = run(&["preset", "owner"], "").expect_code(64);
    assert!(ran.stderr.contains("possible values: Admin, Read-only, Debugging"), "{}", ran.stderr);
}

#[test]
fn permissions_without_params_take_the_namespace() {
    let printed = run(&["permissions", "--namespace", "team-a", "--name", "alice"], "").expect_code(0).stdout;
    assert!(printed.contains("namespace: \"team-a\"") && printed.contains("escalate"), "{printed}");
    assert!(!run(&["permissions"], "").expect_code(0).stdout.contains("namespace: "));
    let ran = run(&["permissions", "--namespace", "Team_A"], "").expect_code(65);
    assert!(ran.stderr.contains("/namespace: --namespace: "), "{}", ran.stderr);
}
