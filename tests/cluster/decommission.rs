//! decommission: every object of the instance is deleted, its token is rejected, and foreign objects are kept.

use serde_json::json;
use testbed::{ControlPlane, Era, Grant, rule};

use crate::support::{Instance, OBJECT, Shape, paths, status};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

#[rstest::rstest]
fn decommission_deletes_everything_and_is_idempotent(
    #[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era,
) {
    let cp = control_plane();
    let namespace = cp.namespace("gone");
    let instance = Instance::of_era(cp.admin(), &namespace, era, Shape::Full);
    let token = instance.token();
    let ran = instance.act("decommission").expect_code(0);
    assert!(ran.stderr.contains("rejected with 401"), "{}", ran.stderr);
    for path in paths(&namespace) {
        assert_eq!(cp.get(&path), None);
    }
    assert_eq!(instance.platform.resource("token"), None);
    assert_eq!(status(cp, &token, "/api"), 401);
    instance.act("decommission").expect_code(0);
    cp.delete(&format!("/api/v1/namespaces/{namespace}"));
    instance.act("decommission").expect_code(0);
}

#[test]
fn provision_after_decommission_issues_a_new_token() {
    let cp = control_plane();
    let namespace = cp.namespace("next");
    let instance = Instance::new(cp.admin(), &namespace);
    let first = instance.token();
    instance.act("decommission").expect_code(0);
    let second = instance.token();
    assert_ne!(first, second);
    assert_eq!(status(cp, &first, "/api"), 401);
    assert_eq!(status(cp, &second, &format!("/api/v1/namespaces/{namespace}/pods")), 200);
    assert!(cp.get(&paths(&namespace)[3]).is_some(), "a new ServiceAccount, so the first name again");
}

#[test]
fn role_binding_is_deleted_first_service_account_last() {
    let cp = control_plane();
    let parent = cp.persona("order", &[Grant::cluster_role("cluster-admin")]);
    let namespace = cp.namespace("order");
    let instance = Instance::new(&parent, &namespace);
    instance.provision();
    let mark = cp.audit().mark();
    instance.act("decommission").expect_code(0);
    let deleted = cp.audit().of(&parent.user, mark).into_iter().filter(|event| event.verb == "delete");
    let deleted: Vec<String> = deleted.map(|event| event.resource).collect();
    assert_eq!(deleted, ["rolebindings", "secrets", "roles", "serviceaccounts"]);
}

#[test]
fn foreign_objects_are_kept() {
    let cp = control_plane();
    let namespace = cp.namespace("others");
    let theirs = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    cp.post(&theirs, &json!({"metadata": {"name": OBJECT, "labels": {"app.kubernetes.io/managed-by": "Helm"}}}));
    let document = Instance::new(cp.admin(), &namespace).ask("decommission", &[]).expect_code(0).document();
    assert!(cp.get(&paths(&namespace)[0]).is_some());
    assert_eq!(document["findings"][0]["code"], "foreign-object");
    assert!(document["findings"][0]["message"].as_str().unwrap().contains("managed by Helm"));
}

#[test]
fn decommission_ignores_invalid_rules() {
    let cp = control_plane();
    let namespace = cp.namespace("stale");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.provision();
    let instance = instance.rules(&json!([{"apiGroups": "oops", "verbs": ["*"]}]));
    instance.act("provision").expect_code(65);
    instance.act("decommission").expect_code(0);
    assert_eq!(cp.get(&paths(&namespace)[3]), None);
}

#[test]
fn missing_delete_permissions_are_listed_and_repeat_finishes() {
    let cp = control_plane();
    let namespace = cp.namespace("nodelete");
    let instance = Instance::new(cp.admin(), &namespace);
    let token = instance.token();
    let verbs = ["get", "create", "patch"];
    let rules = [
        rule(&[""], &["serviceaccounts", "secrets"], &["get", "create", "patch", "delete"]),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &verbs),
    ];
    let weak = cp.persona("nodelete", &[Grant::in_namespace(&namespace, &rules)]);
    let limited = Instance::new(&weak, &namespace);
    let document = limited.ask("decommission", &["--publish"]).expect_code(77).document();
    let missing: Vec<&str> = document["missing_permissions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tuple| tuple["resource"].as_str())
        .collect();
    assert_eq!(missing, ["rolebindings", "roles"]);
    assert_eq!(cp.get(&paths(&namespace)[3]), None, "the Secret is deleted: the token is rejected");
    assert!(cp.get(&paths(&namespace)[0]).is_some(), "the remaining objects are found through the ServiceAccount");
    testbed::eventually("the token is rejected", || (status(cp, &token, "/api") == 401).then_some(()));
    instance.act("decommission").expect_code(0);
    for path in paths(&namespace) {
        assert_eq!(cp.get(&path), None);
    }
}

#[test]
fn cluster_and_platform_are_decommissioned_independently() {
    let cp = control_plane();
    let namespace = cp.namespace("sides");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.provision();
    instance.platform.fail_next(422, "<html>oops</html>");
    let document = instance.ask("decommission", &["--publish"]).expect_code(69).document();
    assert_eq!(document["error"]["code"], "platform-refused");
    assert_eq!(cp.get(&paths(&namespace)[0]), None, "everything in the cluster is deleted");
    assert!(instance.platform.resource("token").is_some());

    let mut broken = Instance::new(cp.admin(), &namespace);
    broken.platform = instance.platform;
    broken.connection["authentication"]["cluster"]["server"] = json!("https://127.0.0.1:1");
    let document = broken.ask("decommission", &["--publish"]).expect_code(69).document();
    assert_eq!(document["error"]["code"], "connection-failed");
    assert_eq!(broken.platform.resource("token"), None, "the record is deleted");
}

#[test]
fn decommission_ignores_input_needed_only_to_publish() {
    let cp = control_plane();
    let namespace = cp.namespace("unneeded");
    let mut instance = Instance::new(cp.admin(), &namespace);
    instance.provision();
    std::fs::create_dir(instance.path("bundle")).unwrap();
    std::fs::write(instance.path("bundle/schema-params.json"), "not even JSON").unwrap();
    std::fs::write(
        instance.path("bundle/schema-artifacts.json"),
        r#"{"properties": {"token": {"required": ["data", "x"]}}}"#,
    )
    .unwrap();
    instance.config["output_shape"] = json!("weird");
    instance.config["timeout_seconds"] = json!("soon");
    instance.params["rules"] = json!(null);
    instance.act("decommission").expect_code(0);
    assert_eq!(cp.get(&paths(&namespace)[3]), None);
    assert_eq!(instance.platform.resource("token"), None);
}

#[test]
fn platform_record_is_found_by_name_prefix() {
    let cp = control_plane();
    let namespace = cp.namespace("noids");
    let instance = Instance::of_era(cp.admin(), &namespace, Era::Artifacts, Shape::Bare);
    instance.provision();
    let mut command = instance.command("decommission", &["--publish"]);
    command.env_remove("MASSDRIVER_INSTANCE_ID").env_remove("MASSDRIVER_PACKAGE_NAME");
    crate::support::Ran::of(&mut command).expect_code(0);
    assert_eq!(instance.platform.resource("token"), None);
}
