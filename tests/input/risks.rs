//! `check` reports the risks of rules: each at its element, with what to grant instead, and without another exit code.

use serde_json::{Value, json};

use crate::support::{Ran, binary};

fn run(arguments: &[&str], params: &Value) -> Ran {
    Ran::with_stdin(binary().args(arguments), &params.to_string())
}

/// The risks as code, severity and pointer.
fn risks(document: &Value) -> Vec<String> {
    let findings = document["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings
        .filter(|finding| text(finding, "code").starts_with("risk-"))
        .inspect(|finding| assert_eq!(finding["blocking"], false))
        .map(|finding| ["code", "severity", "pointer"].map(|key| text(finding, key)).join(" "))
        .collect()
}

#[test]
fn check_reports_risks_worst_first() {
    let params = json!({
        "namespace": "team-a",
        "rules": [
            {"apiGroups": [""], "resources": ["pods/log", "configmaps"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "namespaces": ["kube-system", "team-b"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"], "resourceNames": ["S3CRET"]},
        ],
    });
    let ran = run(&["check", "--json"], &params).expect_code(0);
    let document = ran.document();
    let expected = [
        "risk-r03 critical /rules/2/resources/0",
        "risk-r03 high /rules/1/resources/1",
        "risk-r07 medium /rules/3/resources/0",
        "risk-r30 low /rules/0/resources/0",
    ];
    assert_eq!(risks(&document), expected);
    assert_eq!((&document["outcome"], &document["error"]), (&json!("ok"), &Value::Null));
    let help = document["findings"][1]["help"].as_str().unwrap();
    let rule = r#"{"apiGroups":[""],"resources":["secrets"],"verbs":["get"],"resourceNames":["NAME"]}"#;
    assert!(help.ends_with(rule), "{help}");
    assert!(!format!("{ran:?}").contains("S3CRET"), "no value of the input is printed: {ran:#?}");
    let log = &ran.stderr;
    let line = log.lines().position(|line| line.starts_with("high") && line.ends_with("[risk-r03]"));
    assert!(log.lines().nth(line.unwrap() + 1).unwrap().ends_with(rule), "{log}");
}

#[test]
fn check_of_refused_params_reports_risks() {
    let rule =
        json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["get", "escalate"]});
    let params = json!({"namespace": "Team_A", "rules": [7, rule]});
    let document = run(&["check", "--json"], &params).expect_code(65).document();
    assert_eq!(risks(&document), ["risk-r16 critical /rules/1/verbs/1"]);
    let schema = document["findings"].as_array().unwrap().iter().filter(|finding| finding["blocking"] == true);
    assert!(schema.count() >= 3, "{document:#}");
}

#[test]
fn check_of_harmless_rules_reports_no_risk() {
    let rule =
        json!({"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get", "list", "watch"]});
    let nodes = json!({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]});
    let params = json!({"namespace": "team-a", "rules": [rule, nodes]});
    let document = run(&["check", "--json"], &params).expect_code(0).document();
    assert_eq!(risks(&document), Vec::<String>::new());
}

#[test]
fn risks_are_reported_by_check_only() {
    let params =
        json!({"namespace": "team-a", "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let ran = run(&["permissions", "--params", "-", "--name", "a"], &params).expect_code(0);
    assert!(!ran.stderr.contains("risk-"), "{}", ran.stderr);
}
