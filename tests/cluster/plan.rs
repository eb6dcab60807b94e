//! plan: correct for a new, an existing and a drifted instance, without a write.

use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, Persona, eventually, rule};

use crate::support::{Instance, changes, paths, versions};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

/// Plans, and checks that nothing was written.
fn plan(instance: &Instance, parent: &Persona, code: i32) -> Value {
    let (cp, mark) = (control_plane(), control_plane().audit().mark());
    let before = versions(cp, &instance.namespace);
    let ran = instance.ask("plan", &["--detailed-exitcode"]).expect_code(code);
    let events = cp.audit().of(&parent.user, mark);
    assert!(!events.is_empty());
    for event in &events {
        assert!(!event.is_write(), "{} {}", event.verb, event.uri);
        assert_ne!(event.subresource, "token", "a dry run of TokenRequest issues a real token");
    }
    assert_eq!(versions(cp, &instance.namespace), before);
    assert_eq!(instance.platform.requests().len(), 0, "a plan sends nothing to the platform");
    ran.document()
}

fn parent(stem: &str) -> Persona {
    control_plane().persona(stem, &[Grant::cluster_role("cluster-admin")])
}

fn actions(document: &Value) -> Vec<String> {
    changes(document).into_iter().map(|(action, kind)| format!("{action} {kind}")).collect()
}

#[test]
fn plan_in_empty_namespace_creates_every_object() {
    let parent = parent("nothing");
    let instance = Instance::new(&parent, &control_plane().namespace("nothing"));
    let document = plan(&instance, &parent, 2);
    assert_eq!(actions(&document), ["create ServiceAccount", "create Role", "create RoleBinding", "create Secret"]);
    assert_eq!(document["permissions"]["widened"].as_array().unwrap().len(), 2);
    assert_eq!(document["outcome"], "ok");
    instance.act("plan").expect_code(0);
}

#[test]
fn plan_in_missing_namespace_creates_the_namespace() {
    let parent = parent("absent");
    let instance = Instance::new(&parent, &control_plane().unused_namespace("absent"));
    let document = plan(&instance, &parent, 2);
    assert_eq!(actions(&document)[0], "create Namespace");
    assert_eq!(actions(&document).len(), 5);
}

#[test]
fn parent_without_bind_can_plan_new_role_binding() {
    let cp = control_plane();
    let namespace = cp.namespace("nobind");
    let rules = [
        rule(&[""], &["serviceaccounts", "secrets"], &["get", "create", "patch", "delete"]),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &["get", "create", "patch", "delete"]),
        rule(&[""], &["pods"], &["get", "list"]),
    ];
    let parent = cp.persona("nobind", &[Grant::in_namespace(&namespace, &rules)]);
    let instance = Instance::new(&parent, &namespace);
    assert_eq!(actions(&plan(&instance, &parent, 2)).len(), 4);
    instance.ask("provision", &[]).expect_code(0);
    plan(&instance, &parent, 0);
    instance.ask("decommission", &[]).expect_code(0);
}

#[test]
fn plan_of_unchanged_instance_is_empty() {
    let parent = parent("something");
    let instance = Instance::new(&parent, &control_plane().namespace("something"));
    instance.ask("provision", &[]).expect_code(0);
    let document = plan(&instance, &parent, 0);
    assert!(actions(&document).iter().all(|action| action.starts_with("unchanged")), "{document}");
    assert_eq!(document["permissions"], json!({"widened": [], "narrowed": [], "unchanged": 2}));
}

#[test]
fn plan_names_the_drifted_fields() {
    let (cp, parent) = (control_plane(), parent("drift"));
    let namespace = cp.namespace("drift");
    let instance = Instance::new(&parent, &namespace);
    instance.ask("provision", &[]).expect_code(0);
    let [account, role, _, secret] = paths(&namespace);
    cp.merge_patch(
        &role,
        &json!({"rules": [{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]}]}),
    );
    cp.merge_patch(&account, &json!({"metadata": {"labels": {"md-project": null}}}));
    cp.delete(&secret);

    let document = plan(&instance, &parent, 2);
    assert_eq!(actions(&document), ["update ServiceAccount", "update Role", "unchanged RoleBinding", "create Secret"]);
    let generation = "/metadata/annotations/k8s-token.massdriver.cloud~1token-generation";
    assert_eq!(document["changes"][0]["fields"], json!([generation, "/metadata/labels/md-project"]));
    assert_eq!(document["changes"][1]["fields"], json!(["/rules/0/resources"]));
    assert_eq!(document["permissions"]["narrowed"][0]["resource"], "secrets");
    assert_eq!(document["permissions"]["unchanged"], 2);
}

#[test]
fn plan_finds_an_admission_denial_by_dry_run() {
    let (cp, parent) = (control_plane(), parent("policy"));
    let namespace = cp.namespace("policy");
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/roles.rbac.authorization.k8s.io": "0"}}});
    cp.post(&format!("/api/v1/namespaces/{namespace}/resourcequotas"), &quota);
    let status = format!("/api/v1/namespaces/{namespace}/resourcequotas/none/status");
    let hard = json!({"count/roles.rbac.authorization.k8s.io": "0"});
    cp.merge_patch(&status, &json!({"status": {"hard": hard, "used": hard}}));
    let instance = Instance::new(&parent, &namespace);
    let document = plan(&instance, &parent, 75);
    assert_eq!(document["error"]["code"], "quota");
    assert_eq!(document["changes"].as_array().unwrap().len(), 4, "the document still contains the whole plan");
}

#[test]
fn role_without_binding_counts_as_not_granted() {
    let (cp, parent) = (control_plane(), parent("unbound"));
    let namespace = cp.namespace("unbound");
    let instance = Instance::new(&parent, &namespace);
    instance.ask("provision", &[]).expect_code(0);
    cp.merge_patch(&paths(&namespace)[2], &json!({"subjects": null}));
    let document = plan(&instance, &parent, 2);
    assert_eq!(document["permissions"]["unchanged"], 0);
    assert_eq!(document["permissions"]["widened"].as_array().unwrap().len(), 2);
}

#[test]
fn namespace_denied_by_policy_fails_plan_like_provision() {
    const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
    let (cp, parent) = (control_plane(), parent("refused"));
    let namespace = cp.unused_namespace("refused");
    let create =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"], "operations": ["CREATE"]});
    let of_that_name = format!("object.metadata.name == '{namespace}'");
    let spec = json!({
        "matchConstraints": {"resourceRules": [create]},
        "matchConditions": [{"name": "name", "expression": of_that_name}],
        "validations": [{"expression": "false", "message": "namespaces are ordered by ticket"}],
    });
    cp.post(&format!("{POLICIES}ies"), &json!({"metadata": {"name": namespace}, "spec": spec}));
    let binding = json!({"policyName": namespace, "validationActions": ["Deny"]});
    cp.post(&format!("{POLICIES}ybindings"), &json!({"metadata": {"name": namespace}, "spec": binding}));
    let instance = Instance::new(&parent, &namespace);
    eventually("the policy is in force", || instance.act("plan").stderr.contains("ordered by ticket").then_some(()));
    let document = plan(&instance, &parent, 1);
    assert_eq!(document["changes"].as_array().unwrap().len(), 5, "the whole plan is still printed");
    let provision = instance.ask("provision", &["--publish"]).expect_code(1).document();
    for error in [&document["error"], &provision["error"]] {
        assert_eq!(error["code"], "refused");
        assert_eq!(error["object"], format!("Namespace {namespace}"));
        assert!(error["cause"].as_str().unwrap().contains("namespaces are ordered by ticket"), "{error}");
    }
    assert!(cp.get(&format!("/api/v1/namespaces/{namespace}")).is_none());
    cp.delete(&format!("{POLICIES}ybindings/{namespace}"));
    cp.delete(&format!("{POLICIES}ies/{namespace}"));
}
