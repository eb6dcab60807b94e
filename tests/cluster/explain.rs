//! `explain` against a real server: what params allow there, and what a credential allows.

use std::fs;

use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, Persona, rule};

use crate::support::{Instance, OBJECT, Ran, binary};

fn parent(stem: &str) -> Persona {
    ControlPlane::shared().persona(stem, &[Grant::cluster_role("cluster-admin")])
}

/// The cells of a resource: verb, whether a rule asks for it, the ClusterRoles, whether it is dead.
fn cells(ran: &Ran, resource: &str) -> Vec<(String, bool, Vec<String>, bool)> {
    let document = ran.document();
    let cells = document["access"].as_array().unwrap().iter().filter(|it| it["resource"] == resource);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cell = |it: &Value| {
        let roles = it["cluster_roles"].as_array().unwrap().iter().map(text).collect();
        (text(&it["verb"]), it["asked"] == true, roles, it["dead"] == true)
    };
    cells.map(cell).collect()
}

#[test]
fn params_are_explained_by_the_roles_of_the_cluster() {
    let (cp, parent) = (ControlPlane::shared(), parent("explain"));
    let namespace = cp.namespace("explain");
    let role = format!("{namespace}-reader");
    cp.post(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
            "rules": [rule(&[""], &["configmaps", "no-such-things"], &["get"])],
        }),
    );
    let mut instance =
        Instance::new(&parent, &namespace).rules(&json!([rule(&["apps"], &["deployment", "deployments"], &["get"])]));
    instance.params["cluster_roles"] = json!([{"name": role}, {"name": "no-such-role"}]);

    let mark = cp.audit().mark();
    let live = instance.ask("explain", &["--live"]).expect_code(0);
    let events = cp.audit().of(&parent.user, mark);
    assert!(!events.is_empty() && events.iter().all(|event| !event.is_write()), "it only reads");
    assert_eq!(cells(&live, "configmaps"), [("get".to_owned(), false, vec![role], false)]);
    assert_eq!(cells(&live, "deployment"), [("get".to_owned(), true, vec![], true)]);
    assert_eq!(cells(&live, "deployments"), [("get".to_owned(), true, vec![], false)]);
    assert_eq!(cells(&live, "no-such-things"), [], "what in a ClusterRole matches nothing");
    assert_eq!(live.findings("unknown-resource").len(), 1);
    let unknown = live.findings("cluster-role-unverified");
    assert!(unknown.len() == 1 && unknown[0]["message"].as_str().unwrap().contains("no-such-role"), "{unknown:?}");
    assert!(live.document()["server_version"].as_str().unwrap().starts_with("v1."));

    let offline = instance.ask("explain", &[]).expect_code(0);
    assert_eq!(cells(&offline, "configmaps"), [], "without a cluster the ClusterRole is unknown");
    assert_eq!(offline.findings("cluster-role-unverified").len(), 2);
    assert_eq!(offline.document()["requests"], 0);
}

/// A gateway that answers in the place of the API server explains nothing.
#[test]
fn server_that_is_no_api_is_a_failure() {
    let parent = parent("explain-html");
    let mut instance = Instance::new(&parent, "team-a").rules(&json!([rule(&[""], &["pods"], &["get"])]));
    let server = instance.connection["authentication"]["cluster"]["server"].as_str().unwrap().to_owned();
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("{server}/no-such-path"));
    let ran = instance.ask("explain", &["--live"]);
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.document()["access"], json!([]));
}

#[test]
fn credential_is_explained_by_the_server() {
    let (cp, parent) = (ControlPlane::shared(), parent("held"));
    let (namespace, other) = (cp.namespace("held"), cp.namespace("held-other"));
    let in_other = json!({
        "apiGroups": [""], "resources": ["services"], "verbs": ["get"], "namespaces": [other],
    });
    let instance =
        Instance::new(&parent, &namespace).rules(&json!([rule(&[""], &["secrets"], &["get", "list"]), in_other]));
    let artifact = instance.path("alice.json");
    fs::write(&artifact, instance.provision().to_string()).unwrap();
    let explain = |more: &[&str]| {
        let mut command = binary();
        command.args(["explain", "--json"]).arg(&artifact).args(more);
        Ran::of(&mut command).expect_code(0)
    };

    let ran = explain(&[]);
    let document = ran.document();
    let shown = |document: &Value| -> Vec<String> {
        let cells = document["access"].as_array().unwrap().iter();
        cells.map(|it| format!("{} {} {}", it["verb"], it["resource"], it["namespace"]).replace('"', "")).collect()
    };
    let home = [format!("get secrets {namespace}"), format!("list secrets {namespace}")];
    assert_eq!(shown(&document), home, "nothing that every ServiceAccount may");
    assert_eq!(document["namespace"], json!(namespace));
    assert_eq!(ran.findings("risk-r03").len(), 1);
    assert_eq!(document["proof"]["username"], json!(format!("system:serviceaccount:{namespace}:{OBJECT}")));
    let further = explain(&["--namespace", &other]).document();
    assert!(shown(&further).contains(&format!("get services {other}")), "{:?}", shown(&further));

    let table = Ran::of(binary().arg("explain").arg(&artifact)).expect_code(0);
    assert!(table.stdout.starts_with(&format!("namespace {namespace}")), "{}", table.stdout);
    instance.act("decommission").expect_code(0);
    let mut command = binary();
    command.args(["explain", "--json"]).arg(&artifact);
    Ran::of(&mut command).expect_code(76).expect_error("token-refused");
}
