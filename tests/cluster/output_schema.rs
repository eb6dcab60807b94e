//! The published schema of the `--json` document (docs/output.schema.json): the documents of these tests, and all that
//! other tests read (`crate::support::Ran::document`), must be valid. `UPDATE_SCHEMAS=1 cargo test --test cluster
//! output_schema` adds new error codes.

use std::collections::BTreeSet;

use k8s_token::{error::Code, finding::Severity};
use serde_json::{Value, json};
use testbed::ControlPlane;

use crate::support::{Instance, schema};

#[test]
fn every_action_and_outcome_matches_the_published_schema() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("form"));
    let mut seen = BTreeSet::new();
    let mut check = |instance: &Instance, action: &str, more: &[&str], code: i32| {
        let document = instance.ask(action, more).expect_code(code).document(); // validates it against the schema
        assert_eq!(document["action"], action);
        seen.insert((action.to_owned(), document["outcome"].as_str().unwrap().to_owned()));
        document
    };
    for action in ["plan", "provision", "provision", "plan", "decommission", "decommission"] {
        check(&instance, action, &[], 0);
    }
    check(&instance, "plan", &["--detailed-exitcode"], 2);
    let nobody = Instance::new(&cp.persona("form", &[]), &instance.namespace);
    for action in ["plan", "provision", "decommission"] {
        let document = check(&nobody, action, &[], 77);
        assert_ne!(document["missing_permissions"], json!([]));
    }
    let mut refused = Instance::new(cp.admin(), &instance.namespace);
    refused.params["namespace"] = json!("Team_A");
    refused.config = json!({});
    for action in ["plan", "provision", "decommission"] {
        let document = check(&refused, action, &[], 65);
        assert_eq!(
            (&document["name"], &document["proof"], &document["token"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
    }
    // Non-resource URLs, and the whole cluster.
    let mut wide = Instance::new(cp.admin(), &instance.namespace);
    wide.params["rules"] = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"]}]);
    let document = check(&wide, "provision", &[], 0);
    assert_eq!(document["permissions"]["widened"], json!([{"verb": "get", "url": "/metrics"}]));
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn schema_lists_the_codes_of_the_program() {
    let path = "docs/output.schema.json";
    let mut published: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let exits: BTreeSet<u8> = Code::ALL.iter().map(|code| code.exit() as u8).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let lists = [
        ("/properties/error/properties/code/enum", json!(codes)),
        ("/properties/error/properties/exit/enum", json!(exits)),
    ];
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        for (pointer, list) in &lists {
            *published.pointer_mut(pointer).unwrap() = list.clone();
        }
        std::fs::write(path, format!("{published:#}\n")).unwrap();
    }
    for (pointer, list) in lists {
        let stale = "stale: run UPDATE_SCHEMAS=1 cargo test --test cluster output_schema";
        assert_eq!(published.pointer(pointer), Some(&list), "{pointer} of {path} is {stale}");
    }
    let severities = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let severities = severities.map(Severity::as_str);
    assert_eq!(published["$defs"]["finding"]["properties"]["severity"]["enum"], json!(severities));
}

/// The published schema accepts future keys; today's documents are validated against a closed schema.
#[test]
fn missing_or_unlisted_keys_are_invalid() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("closed"));
    let good = instance.ask("provision", &[]).expect_code(0).document();
    let closed = jsonschema::validator_for(&schema(true)).unwrap();
    let open = jsonschema::validator_for(&schema(false)).unwrap();
    for (key, _) in good.as_object().unwrap() {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(key);
        assert!(!open.is_valid(&less), "without {key}");
    }
    for pointer in ["", "/proof", "/token", "/permissions", "/changes/0", "/permissions/widened/0"] {
        let mut more = good.clone();
        more.pointer_mut(pointer).unwrap()["unheard-of"] = json!(1);
        assert!(!closed.is_valid(&more), "more in {pointer}");
        assert!(open.is_valid(&more), "more in {pointer}");
    }
    for (pointer, value) in [
        ("/action", json!("frobnicate")),
        ("/outcome", json!("failed")),
        ("/changes/0/action", json!("invent")),
        ("/proof/allowed", json!(-1)),
        ("/token/fingerprint", json!("abc")),
        ("/permissions/widened/0/verb", json!(null)),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        assert!(!open.is_valid(&wrong), "{pointer}");
    }
}
