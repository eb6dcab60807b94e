//! An API server as managed clouds run it: a webhook authorizer that cannot list permissions, and HTTP/2 connections
//! that end with GOAWAY.

use std::sync::LazyLock;

use serde_json::json;
use testbed::{ControlPlane, Grant, Options};

use crate::support::Instance;

/// A control plane whose authorizer has no opinion on any request, as that of a cloud provider for unknown users.
static CLOUD: LazyLock<(ControlPlane, tempfile::TempDir)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = testbed::authorizer(directory.path(), &json!({"allowed": false}));
    arguments.push("--authorization-mode=Webhook".to_owned()); // in addition to the testbed's own
    arguments.push("--goaway-chance=0.02".to_owned());
    let options = Options { api_server_arguments: arguments, ..Options::default() };
    (ControlPlane::start(&options).unwrap(), directory)
});

#[test]
fn incomplete_rules_review_is_reported_as_lower_bound() {
    let cp = &CLOUD.0;
    let namespace = cp.namespace("cloud");
    let parent = cp.persona("cloud", &[Grant::cluster_role("cluster-admin")]);
    let instance = Instance::new(&parent, &namespace);
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert_eq!(document["proof"]["complete"], false, "the list is reported as a lower bound");
    assert_eq!(document["proof"]["allowed"], 2);
    assert!(document["proof"]["denied"].as_u64().unwrap() > 0);
    let again = instance.ask("provision", &[]).expect_code(0).document();
    assert!(crate::support::changes(&again).iter().all(|(action, _)| action == "unchanged"));
    instance.act("decommission").expect_code(0);
}

#[test]
fn incomplete_rules_review_defers_to_the_servers_refusal() {
    let cp = &CLOUD.0;
    let namespace = cp.namespace("verdict");
    let parent = cp.persona("verdict", &[Grant::cluster_role_in(&namespace, "view")]);
    let document = Instance::new(&parent, &namespace).ask("provision", &[]).expect_code(77).document();
    assert_eq!(document["error"]["code"], "missing-permission");
    assert!(!document["missing_permissions"].as_array().unwrap().is_empty());
}

#[test]
fn permissions_missing_from_incomplete_review_are_checked_individually() {
    let cp = &CLOUD.0;
    let namespace = cp.namespace("asked");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.ask("provision", &[]).expect_code(0);
    let binding = &crate::support::paths(&namespace)[2];
    let held = cp.get(binding).unwrap();
    // The binding exists when the run reads the cluster, and is deleted before the token is tested: the rules review
    // lists nothing any more.
    let mark = cp.audit().mark();
    let far = testbed::DistantServer::in_front_of(cp.server(), std::time::Duration::from_millis(300));
    let distant = Instance::new(&cp.admin().with_server(&far.server()), &namespace);
    let child = distant
        .command("provision", &[])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    testbed::eventually("the run has read the cluster", || {
        let events = cp.audit().of(&cp.admin().user, mark);
        events
            .iter()
            .any(|event| event.resource == "rolebindings" && event.verb == "get" && event.namespace == namespace)
            .then_some(())
    });
    cp.delete(binding);
    let ran = crate::support::Ran::from(child.wait_with_output().unwrap()).expect_code(76);
    assert_eq!(ran.document()["error"]["code"], "rules-not-allowed");
    let account = format!("system:serviceaccount:{namespace}:{}", crate::support::OBJECT);
    let asked = cp.audit().of(&account, mark);
    let single = asked.iter().filter(|event| event.resource == "selfsubjectaccessreviews").count();
    let attempts = asked.iter().filter(|event| event.resource == "selfsubjectreviews").count();
    assert!(single >= 2 * attempts, "{single} single access reviews in {attempts} attempts");
    assert!(held.is_object());
}

#[test]
fn http2_goaway_does_not_fail_a_run() {
    let cp = &CLOUD.0;
    let namespace = cp.namespace("goaway");
    let gate = testbed::RoundTripGate::in_front_of(cp.server());
    let mut instance = Instance::new(&cp.admin().with_server(&gate.server()), &namespace);
    // 40 runs with about ten requests that can end a connection, at 2 % each: eight connections end in use, give or
    // take three.
    for number in 0..40 {
        instance.params["md_metadata"]["name_prefix"] = json!(format!("goaway-{number}"));
        instance.ask("provision", &[]).expect_code(0);
    }
    assert!(gate.connections() > 2 * 40, "no connection ended in use");
}

#[test]
fn http1_only_server_works() {
    let options = Options { api_server_arguments: vec!["--disable-http2-serving".to_owned()], ..Options::default() };
    let cp = ControlPlane::start(&options).unwrap();
    let namespace = cp.unused_namespace("old");
    let mut instance = Instance::new(cp.admin(), &namespace);
    let others: Vec<String> = (0..10).map(|_| cp.namespace("old")).collect();
    instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": others}]);
    for action in ["plan", "provision", "provision", "decommission"] {
        let ran = instance.act(action).expect_code(0);
        assert!(ran.stderr.contains("(HTTP/1.1)"), "{}", ran.stderr);
    }
}
