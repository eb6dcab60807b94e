//! `explain` without a cluster: the table of what params allow, and the same in the document of `--json`.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ran, binary};

fn explain(arguments: &[&str], stdin: &str) -> Ran {
    Ran::with_stdin(binary().arg("explain").args(arguments), stdin)
}

fn of_params(params: &Value, arguments: &[&str]) -> Ran {
    explain(&[&["--params", "-"], arguments].concat(), &params.to_string())
}

fn params() -> Value {
    json!({
        "namespace": "team-a",
        "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["db"]},
            {"apiGroups": ["apps"], "resources": ["deployment"], "verbs": ["get"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"], "namespaces": ["team-b"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "namespaces": ["*"]},
        ],
        "cluster_roles": [{"name": "view"}, {"name": "deployer"}],
    })
}

#[test]
fn table_shows_what_is_asked_implied_risky_and_dead() {
    let ran = of_params(&params(), &[]).expect_code(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let row = |label: &str| {
        let found = lines.iter().find(|line| line.trim_start().starts_with(label));
        found.unwrap_or_else(|| panic!("no row {label}: {}", ran.stdout)).split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(row("namespace team-a")[2..], ["get", "list", "watch", "create", "update", "patch", "delete"]);
    assert_eq!(row("pods "), ["pods", "o", "o", "o"]);
    assert_eq!(row("secrets"), ["secrets", "\"db\"", "x!"]);
    assert_eq!(row("deployment.apps"), ["deployment.apps", "-"]);
    assert_eq!(row("nodes"), ["nodes", "x"]);
    let position = |text: &str| lines.iter().position(|line| line.starts_with(text)).unwrap();
    let (home, other, cluster) =
        (position("namespace team-a"), position("namespace team-b"), position("whole cluster"));
    assert!(home < other && other < cluster, "{}", ran.stdout);
    let patched = lines[other..].iter().find(|line| line.contains("deployments.apps")).unwrap();
    assert_eq!(patched.split_whitespace().collect::<Vec<_>>(), ["deployments.apps", "x!"]);
    for mark in ["x  allowed by a rule", "o  allowed only through view", "!  a risk", "-  asked for"] {
        assert!(lines.iter().any(|line| line.starts_with(mark)), "{mark}: {}", ran.stdout);
    }
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "80 columns are enough, except for long names: {}",
        ran.stdout
    );
    // The log says what the marks cannot.
    for text in ["[unknown-resource]", "[risk-r04]", "ClusterRole deployer is not in the table"] {
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
}

#[test]
fn document_has_each_permission_with_its_origin() {
    let ran = of_params(&params(), &["--json"]).expect_code(0);
    let document = ran.document();
    assert_eq!((&document["action"], &document["namespace"]), (&json!("explain"), &json!("team-a")));
    let access = document["access"].as_array().unwrap();
    let cell = |verb: &str, resource: &str| {
        let found = access.iter().find(|it| it["verb"] == verb && it["resource"] == resource);
        found.unwrap_or_else(|| panic!("no {verb} {resource}")).clone()
    };
    let expected = json!({
        "verb": "get", "group": "", "resource": "secrets", "name": "db", "namespace": "team-a", "asked": true,
        "cluster_roles": [], "risks": ["risk-r04"], "severity": "medium", "dead": false,
    });
    assert_eq!(cell("get", "secrets"), expected);
    assert_eq!(cell("get", "deployment")["dead"], true);
    let pods = cell("list", "pods");
    assert_eq!((&pods["asked"], &pods["cluster_roles"]), (&json!(false), &json!(["view"])));
    assert_eq!(cell("get", "nodes")["namespace"], Value::Null);
    assert!(access.iter().all(|it| it["asked"] == true || it["dead"] == false), "ClusterRoles have no dead cells");
}

/// Every way to ask is a way to explain.
#[rstest]
#[case::allow(&["--allow", "get,list pods,deployments.apps", "--namespace", "a"], &["pods", "deployments.apps"])]
#[case::cluster_role(&["--cluster-role", "edit", "--namespace", "a"], &["serviceaccounts/token", "statefulsets.apps"])]
#[case::preset(&["--preset", "Debugging", "--namespace", "a"], &["pods/portforward"])]
#[case::everything(&["--preset", "Admin", "--namespace", "a"], &["*.*"])]
fn options_are_explained(#[case] arguments: &[&str], #[case] rows: &[&str]) {
    let ran = explain(arguments, "").expect_code(0);
    for row in rows {
        assert!(ran.stdout.lines().any(|line| line.split_whitespace().next() == Some(row)), "{row}: {}", ran.stdout);
    }
}

#[test]
fn manifest_on_stdin_is_explained() {
    let manifest = "kind: ClusterRole\napiVersion: rbac.authorization.k8s.io/v1\nmetadata: {name: a}\nrules:\n\
                    - {apiGroups: [''], resources: [nodes], verbs: [get]}\n\
                    - {nonResourceURLs: [/metrics], verbs: [get]}\n";
    let ran = explain(&["--params", "-", "--namespace", "a"], manifest).expect_code(0);
    assert!(ran.stdout.contains("whole cluster") && ran.stdout.contains("/metrics"), "{}", ran.stdout);
}

/// Columns: arguments, standard input, exit code.
#[rstest]
#[case::nothing(&[], "", 64)]
#[case::two_subjects(&["alice.json", "--params", "-"], "", 64)]
#[case::credential_and_cluster(&["alice.json", "--context", "a"], "", 64)]
#[case::invalid_params(&["--params", "-"], "{}", 65)]
#[case::missing_file(&["alice.json"], "", 65)]
#[case::no_credential(&["-"], "{}", 65)]
#[case::invalid_namespace(&["-", "--namespace", "A"], "{}", 65)]
#[case::no_kubeconfig(&["--allow", "get pods", "--namespace", "a", "--live"], "", 65)]
fn wrong_input_is_refused_before_a_request(#[case] arguments: &[&str], #[case] stdin: &str, #[case] code: i32) {
    let ran = explain(&[arguments, &["--json"]].concat(), stdin).expect_code(code);
    let document = ran.document();
    assert_eq!((&document["requests"], &document["access"]), (&json!(0), &json!([])));
}
