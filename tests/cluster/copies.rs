//! Copies of an instance's objects that another controller made in other namespaces, and decommissions that find
//! nothing.

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, eventually, rule};

use crate::support::{Instance, NAME, OBJECT, Ran, binary, changes, paths, status, versions};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces";

/// The messages of the findings with this code.
fn findings<'a>(document: &'a Value, code: &str, severity: &str) -> Vec<&'a str> {
    let all = document["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == code);
    all.inspect(|finding| assert_eq!(finding["severity"], severity)).map(|it| it["message"].as_str().unwrap()).collect()
}

/// Copies a Role and its RoleBinding with labels and annotations, as a controller of hierarchical namespaces does.
fn copy(cp: &ControlPlane, from: &str, to: &str, name: &str) {
    for resource in ["roles", "rolebindings"] {
        let mut object = cp.get(&format!("{RBAC}/{from}/{resource}/{name}")).unwrap();
        let metadata = &object["metadata"];
        object["metadata"] =
            json!({"name": name, "labels": metadata["labels"], "annotations": metadata["annotations"]});
        cp.post(&format!("{RBAC}/{to}/{resource}"), &object);
    }
}

/// Denies every deletion of Roles and RoleBindings in this namespace, as such a controller does.
fn forbid_deletion(cp: &ControlPlane, namespace: &str) {
    let rules = json!([{
        "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"], "operations": ["DELETE"],
        "resources": ["roles", "rolebindings"],
    }]);
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let spec = json!({
        "matchConstraints": {"resourceRules": rules, "namespaceSelector": selector},
        "validations": [{"expression": "false", "message": "copies are not to be deleted"}],
    });
    cp.post(&format!("{POLICIES}ies"), &json!({"metadata": {"name": namespace}, "spec": spec}));
    let spec = json!({"policyName": namespace, "validationActions": ["Deny"]});
    cp.post(&format!("{POLICIES}ybindings"), &json!({"metadata": {"name": namespace}, "spec": spec}));
    let probe = json!({"metadata": {"name": "probe"}, "rules": []});
    cp.post(&format!("{RBAC}/{namespace}/roles"), &probe);
    let path = format!("{RBAC}/{namespace}/roles/probe?dryRun=All");
    let admin = &cp.admin().token;
    eventually("the policy is in force", || {
        (cp.request("DELETE", &path, Some(admin), None).status == 422).then_some(())
    });
}

#[test]
fn undeletable_copies_are_reported_and_decommission_succeeds() {
    let cp = ControlPlane::shared();
    let [home, child, open] = ["parent", "child", "open"].map(|stem| cp.namespace(stem));
    let instance = Instance::new(cp.admin(), &home);
    let token = instance.token();
    assert_eq!(findings(&instance.ask("plan", &[]).document(), "rights-elsewhere", "high").len(), 0);
    copy(cp, &home, &child, OBJECT);
    copy(cp, &home, &open, OBJECT);
    forbid_deletion(cp, &child);
    eventually("the copied binding is effective", || {
        (status(cp, &token, &format!("/api/v1/namespaces/{child}/pods")) == 200).then_some(())
    });

    let planned = instance.ask("plan", &[]).expect_code(0).document();
    let seen = findings(&planned, "rights-elsewhere", "high");
    for namespace in [&child, &open] {
        let binding = format!("RoleBinding {namespace}/{OBJECT}");
        assert!(seen.iter().any(|text| text.contains(&binding) && text.contains("copied")), "{binding}: {seen:#?}");
    }
    assert_eq!(seen.len(), 2, "the Roles grant nothing by themselves: {seen:#?}");
    assert!(changes(&planned).iter().all(|(action, _)| action == "unchanged"));

    let gone = instance.ask("decommission", &["--publish"]).expect_code(0).document();
    let left = findings(&gone, "rights-elsewhere", "high");
    assert_eq!(left.len(), 2, "{left:#?}");
    let binding = left.iter().find(|text| text.contains(&format!("RoleBinding {child}/{OBJECT}"))).unwrap();
    for words in ["copies are not to be deleted", "no longer exists", &format!("ServiceAccount {home}/{OBJECT}")] {
        assert!(binding.contains(words), "{words}: {binding}");
    }
    assert!(left.iter().any(|text| text.contains(&format!("Role {child}/{OBJECT}"))), "{left:#?}");
    assert!(versions(cp, &home).is_empty(), "the ServiceAccount is deleted, too");
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{child}/pods")), 401);
    assert!(versions(cp, &open).is_empty(), "a deletable copy is deleted");

    let again = instance.ask("decommission", &[]).expect_code(0).document();
    assert_eq!((findings(&again, "rights-elsewhere", "high").len(), again["changes"].clone()), (2, json!([])));
    assert_eq!(findings(&again, "nothing-found", "medium").len(), 0, "something was found");
}

/// A copy of an object from another namespace has a name that the instance itself could use.
#[test]
fn copies_outside_the_home_namespace_are_recognized() {
    let cp = ControlPlane::shared();
    let [home, other, child] = ["home", "other", "child"].map(|stem| cp.namespace(stem));
    let mut instance = Instance::new(cp.admin(), &home);
    instance.params["rules"][0]["namespaces"] = json!([home, other, child]);
    instance.ask("provision", &[]).expect_code(0);
    let list = cp.get(&format!("{RBAC}/{other}/rolebindings")).unwrap();
    let names = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
    let name = names.filter(|name| name.starts_with(OBJECT)).max().unwrap().to_owned();

    // The namespace is removed from the rules, and another controller creates a copy there. The search that follows
    // finds the copy of the home namespace's binding.
    copy(cp, &home, &child, OBJECT);
    instance.params["rules"][0]["namespaces"] = json!([home, other]);
    let document = instance.ask("provision", &[]).expect_code(0).document();
    let seen = findings(&document, "rights-elsewhere", "high");
    assert!(seen.len() == 1 && seen[0].contains(&format!("RoleBinding {child}/{OBJECT}")), "{seen:#?}");
    copy(cp, &other, &child, &name);
    forbid_deletion(cp, &child);
    let document = instance.ask("decommission", &[]).expect_code(0).document();
    let left = findings(&document, "rights-elsewhere", "high");
    assert_eq!(left.len(), 4, "{left:#?}");
    assert!(versions(cp, &home).is_empty() && cp.get(&format!("{RBAC}/{other}/roles/{name}")).is_none());
    let again = instance.ask("decommission", &[]).expect_code(0).document();
    assert_eq!(findings(&again, "rights-elsewhere", "high").len(), 4);
}

#[test]
fn decommission_fails_if_deleting_own_object_is_denied() {
    let cp = ControlPlane::shared();
    let [home, other] = ["strict", "guarded"].map(|stem| cp.namespace(stem));
    let mut instance = Instance::new(cp.admin(), &home);
    instance.params["rules"][0]["namespaces"] = json!([home, other]);
    instance.ask("provision", &[]).expect_code(0);
    forbid_deletion(cp, &other);
    let listed = instance.ask("decommission", &[]).expect_code(1).document();
    assert_eq!(listed["error"]["code"], "refused");
    assert!(cp.get(&paths(&home)[0]).is_some(), "the inventory contains the namespace");
    // The ServiceAccount is deleted, and its inventory with it: own objects are recognized by their field manager.
    cp.delete(&paths(&home)[0]);
    let found = instance.ask("decommission", &[]).expect_code(1).document();
    assert_eq!(found["error"]["code"], "refused");
    assert_eq!(findings(&found, "rights-elsewhere", "high").len(), 0);
}

#[test]
fn plan_without_list_permission_reports_no_copies() {
    let cp = ControlPlane::shared();
    let [home, child] = ["narrow", "unseen"].map(|stem| cp.namespace(stem));
    let admin = Grant::cluster_role_in(&home, "admin");
    let more = rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &["*"]);
    let parent = cp.persona("narrow", &[admin, Grant::in_namespace(&home, &[more])]);
    let instance = Instance::new(&parent, &home);
    instance.ask("provision", &[]).expect_code(0);
    copy(cp, &home, &child, OBJECT);
    let document = instance.ask("plan", &[]).expect_code(0).document();
    assert_eq!(findings(&document, "rights-elsewhere", "high").len(), 0);
}

#[test]
fn provision_reports_copy_that_causes_excess() {
    let cp = ControlPlane::shared();
    let [home, child] = ["wide", "asked"].map(|stem| cp.namespace(stem));
    Instance::new(cp.admin(), &home).ask("provision", &[]).expect_code(0);
    copy(cp, &home, &child, OBJECT);
    let mut wide = Instance::new(cp.admin(), &home);
    wide.params["rules"] = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "namespaces": [child]},
    ]);
    let document = wide.ask("provision", &[]).expect_code(0).document();
    let seen = findings(&document, "rights-elsewhere", "high");
    assert!(seen.len() == 1 && seen[0].contains(&format!("RoleBinding {child}/{OBJECT}")), "{document:#}");
    assert_eq!(findings(&document, "excess", "high").len(), 1);
}

#[rstest]
#[case::name(&["--name", "mistyped"], "")]
#[case::namespace(&["--namespace", "mistyped"], "the namespace does not exist")]
fn manual_decommission_without_findings_names_its_search_scope(#[case] mistyped: &[&str], #[case] more: &str) {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("byhand");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.ask("provision", &[]).expect_code(0);
    let kubeconfig = cp.admin().kubeconfig(instance.directory.path());
    let decommission = |name: &str, namespace: &str| {
        let params = instance.path("by-hand.json");
        std::fs::write(&params, json!({"namespace": namespace, "rules": []}).to_string()).unwrap();
        let mut command = binary();
        command.args(["decommission", "--json", "--name", name, "--params"]).arg(params);
        Ran::of(command.arg("--kubeconfig").arg(&kubeconfig)).expect_code(0).document()
    };
    let document = match mistyped {
        ["--name", name] => decommission(name, &namespace),
        [_, namespace] => decommission(NAME, namespace),
        _ => unreachable!(),
    };
    let seen = findings(&document, "nothing-found", "medium");
    assert_eq!(seen.len(), 1, "{document:#}");
    for words in ["mistyped", cp.server(), "context testbed", more] {
        assert!(seen[0].contains(words), "{words}: {}", seen[0]);
    }
    assert_eq!(versions(cp, &namespace).len(), 4, "the intended instance is untouched");

    assert_eq!(findings(&decommission(NAME, &namespace), "nothing-found", "medium").len(), 0, "it was found");
    assert_eq!(findings(&decommission(NAME, &namespace), "nothing-found", "medium").len(), 1, "a manual repeat");
    let platform = instance.ask("decommission", &["--publish"]).expect_code(0).document();
    assert_eq!(
        findings(&platform, "nothing-found", "medium").len(),
        0,
        "on the platform an absent instance is success"
    );
}
