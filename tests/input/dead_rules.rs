//! Rules that match nothing, as `check` reports them: pointers, severities and help, for people and as a document. They
//! never change the exit code.

use serde_json::{Value, json};

use crate::support::{Ran, binary};

fn check(params: &Value, arguments: &[&str]) -> Ran {
    Ran::with_stdin(binary().arg("check").args(arguments), &params.to_string())
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// Pointer, code, severity and help of each finding, except those about risks.
fn findings(ran: &Ran) -> Vec<[String; 4]> {
    let document = ran.document();
    let is_risk = |finding: &&Value| finding["code"].as_str().unwrap().starts_with("risk-");
    let findings = document["findings"].as_array().unwrap().iter().filter(|finding| !is_risk(finding));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings.map(|finding| ["pointer", "code", "severity", "help"].map(|key| text(finding, key))).collect()
}

#[test]
fn check_points_at_dead_elements() {
    let mut named = rule("", &["configmaps"], &["get", "create", "list"]);
    named["resourceNames"] = json!(["settings", "app-*"]);
    let mut nodes = rule("", &["nodes"], &["get"]);
    let mut paths = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get", "list"]});
    (nodes["namespaces"], paths["namespaces"]) = (json!(["team-b"]), json!(["*"]));
    let params = json!({"namespace": "team-a", "rules": [
        rule("apps", &["deployments", "deploy"], &["get"]),
        rule("", &["pods", "pods/logs", "pods/*"], &["get"]),
        rule("networking", &["ingresses"], &["get"]),
        rule("example.com", &["gadgets"], &["get"]),
        rule("", &["pods/exec"], &["create", "list"]),
        named,
        nodes,
        paths,
        rule("apps", &["deployments"], &["get"]),
        rule("", &["pods"], &["get", "list"]),
    ]});
    let expected = [
        ["/rules/0/resources/1", "unknown-resource", "high", "use `deployments`"],
        [
            "/rules/1/resources/2",
            "subresource-wildcard",
            "high",
            "list those that are needed: `pods/attach`, `pods/binding`, `pods/ephemeralcontainers`, `pods/eviction`, \
             `pods/exec`, `pods/log`, `pods/portforward`, `pods/proxy`, `pods/resize`, `pods/status`",
        ],
        ["/rules/1/resources/1", "unknown-resource", "high", "use `pods/log`"],
        ["/rules/2/apiGroups/0", "unknown-group", "high", "use `networking.k8s.io`"],
        [
            "/rules/3/apiGroups/0",
            "unknown-group",
            "info",
            "nothing to do if its custom resources are, or will be, installed in the cluster",
        ],
        ["/rules/4/verbs/1", "unknown-verb", "high", "use `get`, `create`"],
        ["/rules/5/verbs/1", "names-with-create", "high", "put the verb into a rule without resourceNames"],
        [
            "/rules/5/verbs/2",
            "names-with-list",
            "low",
            "clients need the field selector metadata.name=NAME; for all others put the verb into a rule without \
             resourceNames",
        ],
        [
            "/rules/5/resourceNames/1",
            "names-wildcard",
            "high",
            "leave resourceNames out to allow all objects, or list their names",
        ],
        [
            "/rules/6/resources/0",
            "cluster-scoped-resource",
            "high",
            "set the rule's namespaces to [\"*\"], which grants it in the whole cluster",
        ],
        ["/rules/7/verbs/1", "unknown-verb", "high", "use get, patch or delete for nonResourceURLs"],
        ["/rules/8", "redundant-rule", "low", "remove this rule"],
    ];
    let ran = check(&params, &["--json"]).expect_code(0);
    let (mut found, mut expected) = (findings(&ran), expected.map(|row| row.map(str::to_owned)));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let document = ran.document();
    assert!(document["findings"].as_array().unwrap().iter().all(|finding| finding["blocking"] == false));
    assert_eq!((&document["error"], &document["requests"]), (&Value::Null, &json!(0)));

    let log = check(&params, &[]).expect_code(0).stderr;
    for line in [
        "high         /rules/0/resources/1: the group `apps` has no resource `deploy` [unknown-resource]\n             use \
         `deployments`\n",
        "low          /rules/8: /rules/0 already allows all of it [redundant-rule]\n             remove this rule\n",
        "the params are valid",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
}

#[test]
fn refused_params_are_judged_too() {
    let params = json!({"namespace": "Team_A", "rules": [
        rule("", &["pods"], &["get", "escalate"]),
        rule("", &["Pod", "secret"], &["get"]),
    ]});
    let found = findings(&check(&params, &["--json"]).expect_code(65));
    let codes: Vec<[&str; 2]> = found.iter().map(|[pointer, code, ..]| [pointer.as_str(), code.as_str()]).collect();
    // Where the schema refuses an element, no second finding follows.
    for expected in [
        ["/namespace", "schema"],
        ["/rules/0/verbs/1", "schema"],
        ["/rules/1/resources/0", "schema"],
        ["/rules/1/resources/1", "unknown-resource"],
    ] {
        assert!(codes.contains(&expected), "{expected:?} is not in {codes:?}");
    }
    assert_eq!(codes.len(), 4, "{codes:?}");
}

#[test]
fn presets_of_the_bundle_have_no_dead_rules() {
    let bundle: Value = serde_json::from_str(&std::fs::read_to_string("schema-params.json").unwrap()).unwrap();
    let presets = bundle["examples"].as_array().unwrap();
    assert_eq!(presets.len(), 3);
    for preset in presets {
        let mut params = preset.clone();
        params["namespace"] = json!("team-a");
        let found = findings(&check(&params, &["--json"]).expect_code(0));
        assert_eq!(found, Vec::<[String; 4]>::new(), "{preset}");
    }
}
