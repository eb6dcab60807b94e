//! The ways to ask for permissions, against the real server: manifests of the real kubectl, and options, plan and
//! provision the same as the JSON params that say it.

use std::{io::Write as _, path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use testbed::ControlPlane;

use crate::{
    desk::{Desk, admin, cluster},
    support::{NAME, Ran, binary},
};

/// A namespace with a kubeconfig of the admin.
struct Asking {
    desk: Desk,
    kubeconfig: PathBuf,
}

impl Asking {
    fn new(stem: &str) -> Self {
        let cp = ControlPlane::shared();
        let desk = Desk::new(cp, stem);
        let kubeconfig = desk.kubeconfig("config", &cluster(cp), &admin(cp));
        Self { desk, kubeconfig }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = ControlPlane::shared().kubectl(&self.kubeconfig, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, command: &str, arguments: &[&str], stdin: &str) -> Ran {
        let mut child = binary()
            .args([command, "--json", "--name", NAME, "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Ran::from(child.wait_with_output().unwrap())
    }

    /// What a plan would do: the objects, and the permissions.
    fn plan(&self, arguments: &[&str], stdin: &str) -> [Value; 2] {
        let document = self.run("plan", arguments, stdin).expect_code(0).document();
        assert_ne!(document["changes"], json!([]));
        ["changes", "permissions"].map(|key| document[key].clone())
    }

    fn plan_json(&self, params: &Value) -> [Value; 2] {
        self.plan(&["--params", "-"], &params.to_string())
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

#[test]
fn role_of_kubectl_plans_like_allow_and_json() {
    let asking = Asking::new("askrole");
    let namespace = asking.desk.namespace.as_str();
    let resources =
        "pods,pods/log,deployments.apps,deployments.apps/scale,certificatesigningrequests.certificates.k8s.io";
    let verbs = "get,list,watch";
    let create = ["create", "role", "reader", "--verb", verbs, "--resource", resources];
    let create = [&create[..], &["--namespace", namespace, "--dry-run=client", "--output", "yaml"]].concat();
    let role = asking.kubectl(&create);
    assert!(role.contains("kind: Role"), "{role}");
    let params = json!({"namespace": namespace, "rules": [
        rule("", &["pods", "pods/log"], &["get", "list", "watch"]),
        rule("apps", &["deployments", "deployments/scale"], &["get", "list", "watch"]),
        rule("certificates.k8s.io", &["certificatesigningrequests"], &["get", "list", "watch"]),
    ]});
    let expected = asking.plan_json(&params);
    assert_eq!(asking.plan(&["--params", "-"], &role), expected);
    assert_eq!(asking.plan(&["--allow", &format!("{verbs} {resources}"), "--namespace", namespace], ""), expected);

    // The server completes the Role; as JSON and as YAML it is the same.
    let live: Vec<&str> = create.iter().copied().filter(|argument| *argument != "--dry-run=client").collect();
    asking.kubectl(&live);
    for format in ["yaml", "json"] {
        let read = ["get", "role", "reader", "--namespace", namespace, "--show-managed-fields", "--output", format];
        let role = asking.kubectl(&read);
        assert!(role.contains("managedFields"), "{role}");
        assert_eq!(asking.plan(&["--params", "-"], &role), expected, "{format}");
    }
    let list = asking.kubectl(&["get", "roles", "--namespace", namespace, "--output", "yaml"]);
    let refused = asking.run("plan", &["--params", "-"], &list).expect_code(65).document();
    assert_eq!(
        (&refused["findings"][0]["pointer"], &refused["findings"][0]["source"]),
        (&json!("/kind"), &json!("stdin"))
    );
}

#[test]
fn cluster_role_of_kubectl_plans_in_the_whole_cluster() {
    let asking = Asking::new("askcluster");
    let namespace = asking.desk.namespace.as_str();
    let create = ["create", "clusterrole", "reader", "--verb", "get", "--non-resource-url", "/metrics,/healthz"];
    let urls = asking.kubectl(&[&create[..], &["--dry-run=client", "--output", "yaml"]].concat());
    let wanted = json!({"nonResourceURLs": ["/metrics", "/healthz"], "verbs": ["get"], "namespaces": ["*"]});
    let expected = asking.plan_json(&json!({"namespace": namespace, "rules": [wanted]}));
    assert_eq!(asking.plan(&["--params", "-", "--namespace", namespace], &urls), expected);

    let create = ["create", "clusterrole", "reader", "--verb", "get,list", "--resource", "nodes"];
    let nodes = asking.kubectl(&[&create[..], &["--dry-run=client", "--output", "yaml"]].concat());
    let wanted = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"], "namespaces": ["*"]});
    let expected = asking.plan_json(&json!({"namespace": namespace, "rules": [wanted]}));
    assert_eq!(asking.plan(&["--params", "-", "--namespace", namespace], &nodes), expected);

    // `admin` is aggregated: its rules are those of other ClusterRoles.
    let aggregated = asking.kubectl(&["get", "clusterrole", "admin", "--output", "yaml"]);
    let ran = asking.run("plan", &["--params", "-", "--namespace", namespace], &aggregated).expect_code(65);
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["pointer"] == "/aggregationRule"), "{document:#}");
}

#[test]
fn options_plan_like_json() {
    let asking = Asking::new("askoptions");
    let namespace = asking.desk.namespace.as_str();
    let preset = Ran::of(binary().args(["preset", "Debugging"])).expect_code(0).stdout;
    let preset: Value = serde_json::from_str(&preset).unwrap();
    let mut rules = vec![rule("", &["configmaps"], &["get"]), rule("batch", &["jobs"], &["get"])];
    rules.extend(preset["rules"].as_array().unwrap().iter().cloned());
    let params = json!({"namespace": namespace, "rules": rules, "cluster_roles": [{"name": "view"}]});
    let options = ["--allow", "get configmaps,jobs.batch", "--preset", "Debugging", "--cluster-role", "view"];
    let options = [&options[..], &["--namespace", namespace]].concat();
    assert_eq!(asking.plan(&options, ""), asking.plan_json(&params));

    // What was written in one --allow is no product of its groups: jobs are not in the core group.
    let [_, permissions] = asking.plan(&["--allow", "get configmaps,jobs.batch", "--namespace", namespace], "");
    let tuple = |tuple: &Value| (tuple["group"].clone(), tuple["resource"].clone());
    let widened: Vec<_> = permissions["widened"].as_array().unwrap().iter().map(tuple).collect();
    assert_eq!(widened, [(json!(""), json!("configmaps")), (json!("batch"), json!("jobs"))]);
}

#[test]
fn credential_of_options_is_verified_and_decommissioned_by_name() {
    let asking = Asking::new("asklife");
    let namespace = asking.desk.namespace.as_str();
    let file = asking.desk.path("credential.json");
    let file = file.to_str().unwrap();
    let options = ["--allow", "get,list pods", "--namespace", namespace];
    asking.run("provision", &[&options[..], &["--output", file]].concat(), "").expect_code(0);
    let verify = |more: &[&str]| Ran::of(binary().args(["verify", file, "--json"]).args(more));
    verify(&[&options[..], &["--name", NAME]].concat()).expect_code(0);
    verify(&["--namespace", namespace, "--name", NAME]).expect_code(0);
    let document = verify(&["--namespace", "elsewhere"]).expect_code(76).document();
    assert_eq!(document["error"]["code"], "wrong-identity");
    let document = verify(&["--allow", "delete pods", "--namespace", namespace]).expect_code(76).document();
    assert_eq!(document["error"]["code"], "rules-not-allowed");

    let document = asking.run("decommission", &["--namespace", namespace], "").expect_code(0).document();
    let deleted = document["changes"].as_array().unwrap().iter().filter(|change| change["action"] == "delete");
    assert!(deleted.count() >= 4, "{document:#}");
    let document = verify(&[]).expect_code(76).document();
    assert_eq!(document["error"]["code"], "token-refused");
}
