//! Rows that need a control plane of their own: another authorizer, and missing storage.

use std::{
    fs,
    sync::{LazyLock, Mutex},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{ControlPlane, InterceptingProxy, Options, Persona, Verdict, WebhookAnswer, WebhookServer, eventually};

use crate::{
    denials::arrange::{self, Admission},
    denials::table::{AUTHORIZER, End, IMPERSONATION, NO_QUESTIONS, NO_STORAGE, Row, named},
    support::{Instance, Ran, binary, paths},
};

/// A verb, and a resource or a path.
type Request = (&'static str, &'static str);

/// The users of the authorizer, and the requests it denies them.
static FORBIDDEN: Mutex<Vec<(String, Vec<Request>)>> = Mutex::new(Vec::new());

struct Cloud {
    cp: ControlPlane,
    _authorizer: WebhookServer,
    _directory: TempDir,
}

/// Allows the known users everything except the denied requests, and gives a reason.
fn authorize(review: &Value) -> WebhookAnswer {
    let spec = &review["spec"];
    let (about, verb) = match &spec["resourceAttributes"] {
        Value::Null => (spec["nonResourceAttributes"]["path"].as_str(), spec["nonResourceAttributes"]["verb"].as_str()),
        resource => (resource["resource"].as_str(), resource["verb"].as_str()),
    };
    let forbidden = FORBIDDEN.lock().unwrap();
    let known = forbidden.iter().find(|(user, _)| spec["user"] == user.as_str());
    WebhookAnswer::Access(match known {
        None => json!({"allowed": false}),
        Some((_, forbidden)) if forbidden.iter().any(|(no, what)| (Some(*no), Some(*what)) == (verb, about)) => {
            json!({"allowed": false, "denied": true, "reason": "ask the platform team"})
        }
        Some(_) => json!({"allowed": true}),
    })
}

static CLOUD: LazyLock<Cloud> = LazyLock::new(|| {
    let authorizer = WebhookServer::in_the_clear(|_, review| authorize(review));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("authorizer.yaml");
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "w",
        "clusters": [{"name": "w", "cluster": {"server": authorizer.url("authorize")}}],
        "users": [{"name": "w", "user": {}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
    });
    fs::write(&config, document.to_string()).unwrap();
    let options = Options {
        api_server_arguments: vec![
            "--authorization-mode=Webhook".to_owned(), // in addition to the testbed's own
            "--authorization-webhook-version=v1".to_owned(),
            format!("--authorization-webhook-config-file={}", config.display()),
        ],
        ..Options::default()
    };
    let cp = ControlPlane::start(&options).unwrap();
    // Removes the permissions that RBAC grants every user, so that the authorizer is asked.
    for binding in ["system:basic-user", "system:discovery", "system:public-info-viewer"] {
        cp.delete(&format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{binding}"));
    }
    Cloud { cp, _authorizer: authorizer, _directory: directory }
});

/// Compares the result of an action with the row.
#[track_caller]
fn compare(cp: &ControlPlane, row: &Row, ran: &Ran, namespace: &str, expected: End) {
    let document = ran.document();
    let code = document["error"]["code"].as_str().unwrap_or("ok");
    let kinds = ["ServiceAccount", "Role", "RoleBinding", "Secret"].into_iter().zip(paths(namespace));
    let left: Vec<&str> = kinds.filter(|(_, path)| cp.get(path).is_some()).map(|(kind, _)| kind).collect();
    assert_eq!((code, left.join(", ")), (expected.code, expected.left.to_owned()), "{}: {}", row.who, ran.stderr);
    for words in row.says {
        assert!(ran.stderr.contains(words), "{}: no {words:?} in {}", row.who, ran.stderr);
    }
}

/// A user whose permissions all come from the authorizer.
fn user_without(cp: &ControlPlane, forbidden: &[Request]) -> Persona {
    let persona = cp.persona("clouded", &[]);
    FORBIDDEN.lock().unwrap().push((persona.user.clone(), forbidden.to_vec()));
    persona
}

fn run_every_action(cp: &ControlPlane, row: &Row, parent: &Persona) {
    for (actions, made) in [(&["plan", "provision"][..], false), (&["decommission"][..], true)] {
        let namespace = cp.namespace("cloud");
        // Every token sends access reviews.
        let account = format!("system:serviceaccount:{namespace}:{}", crate::support::OBJECT);
        FORBIDDEN.lock().unwrap().push((account, Vec::new()));
        if made {
            let all = user_without(cp, &[]);
            Instance::new(&all, &namespace).ask("provision", &[]).expect_code(0);
        }
        for action in actions {
            let proxy = InterceptingProxy::start(cp, |_| Verdict::Forward);
            let ran = Instance::new(&parent.with_server(&proxy.server()), &namespace).ask(action, &[]);
            let expected = match *action {
                "plan" => row.plan,
                "provision" => row.provision,
                _ => row.decommission,
            };
            compare(cp, row, &ran, &namespace, expected);
            let asked = proxy.requests().iter().filter(|request| arrange::changes(request, &namespace, row.on)).count();
            assert_eq!(asked, expected.asked, "{}: {action}: {}", row.who, ran.stderr);
            assert!(!ran.stderr.contains("\nretry "), "{}", ran.stderr);
        }
    }
}

#[test]
fn denial_of_webhook_authorizer_is_quoted() {
    let cp = &CLOUD.cp;
    let parent = user_without(cp, &[("patch", "serviceaccounts"), ("delete", "serviceaccounts")]);
    run_every_action(cp, &named(AUTHORIZER), &parent);
}

#[test]
fn denied_informational_requests_only_warn() {
    let cp = &CLOUD.cp;
    let forbidden = [
        ("create", "selfsubjectrulesreviews"),
        ("create", "selfsubjectaccessreviews"),
        ("get", "/version"),
        ("list", "serviceaccounts"),
    ];
    run_every_action(cp, &named(NO_QUESTIONS), &user_without(cp, &forbidden));
}

#[test]
fn denied_impersonation_is_a_missing_permission() {
    let cp = super::control_plane();
    let row = named(IMPERSONATION);
    let namespace = cp.namespace("as");
    let parent = cp.persona("as", &[]);
    let desk = tempfile::tempdir().unwrap();
    let path = parent.kubeconfig(desk.path());
    let mut document: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    document["users"][0]["user"]["as"] = json!("boss");
    fs::write(&path, document.to_string()).unwrap();
    let params = desk.path().join("params.json");
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    fs::write(&params, json!({"namespace": namespace, "rules": rules}).to_string()).unwrap();
    for (action, expected) in [("plan", row.plan), ("provision", row.provision), ("decommission", row.decommission)] {
        if action == "decommission" {
            Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
        }
        let mut command = binary();
        command.args([action, "--json", "--name", crate::support::NAME]).arg("--params").arg(&params);
        let ran = Ran::of(command.arg("--kubeconfig").arg(&path));
        compare(cp, &row, &ran, &namespace, expected);
        let document = ran.document();
        let missing = document["missing_permissions"].as_array().unwrap();
        let verbs = missing.iter().map(|tuple| tuple["verb"].as_str().unwrap());
        assert!(verbs.into_iter().all(|verb| verb.starts_with("impersonate")), "{missing:#?}");
    }
}

#[test]
fn namespace_denied_with_409_is_not_a_conflict() {
    let cp = super::control_plane();
    let namespace = cp.unused_namespace("denied");
    let status = json!({"code": 409, "reason": "AlreadyExists", "message": "namespaces are made by the platform team"});
    let url = super::answering(&namespace, WebhookAnswer::denial(&status));
    let _webhook =
        Admission::webhook(cp, &namespace, "namespaces", "validatingwebhookconfigurations", &url, &Value::Null);
    let probe = json!({"metadata": {"name": namespace}});
    eventually("the webhook is in force", || {
        let token = Some(cp.admin().token.as_str());
        (cp.request("POST", "/api/v1/namespaces?dryRun=All", token, Some(&probe)).status == 409).then_some(())
    });
    let ran = Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(1);
    let error = &ran.document()["error"];
    assert_eq!(error["code"], "refused");
    let cause = error["cause"].as_str().unwrap();
    assert!(cause.contains("no.example.com") && cause.contains("made by the platform team"), "{cause}");
}

#[test]
fn webhook_denial_with_401_does_not_repeat_login() {
    let cp = super::control_plane();
    let namespace = cp.namespace("login");
    let url = super::answering(&namespace, WebhookAnswer::denial(&json!({"code": 401, "reason": "Unauthorized"})));
    let kind = "validatingwebhookconfigurations";
    let _webhook = Admission::webhook(cp, &namespace, "serviceaccounts", kind, &url, &Value::Null);
    arrange::await_in_force(cp, cp.admin(), &namespace, "serviceaccounts", false);
    let desk = tempfile::tempdir().unwrap();
    let (path, runs) = (cp.admin().kubeconfig(desk.path()), desk.path().join("runs"));
    let mut document: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": cp.admin().token},
    });
    document["users"][0]["user"] = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "/bin/sh",
        "args": ["-c", format!("echo again >> {}; echo '{credential}'", runs.display())],
    }});
    fs::write(&path, document.to_string()).unwrap();
    let params = desk.path().join("params.json");
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    fs::write(&params, json!({"namespace": namespace, "rules": rules}).to_string()).unwrap();
    for action in ["plan", "provision"] {
        let mut command = binary();
        command.args([action, "--json", "--name", crate::support::NAME]).arg("--params").arg(&params);
        let ran = Ran::of(command.arg("--kubeconfig").arg(&path)).expect_code(1);
        assert_eq!(ran.document()["error"]["code"], "refused", "{}", ran.stderr);
        assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 1, "{action}");
        fs::remove_file(&runs).unwrap();
    }
}

#[test]
fn server_without_etcd_is_reported_unavailable() {
    let cp = ControlPlane::start(&Options::default()).unwrap();
    let row = named(NO_STORAGE);
    let (fresh, made) = (cp.namespace("fresh"), cp.namespace("made"));
    Instance::new(cp.admin(), &made).ask("provision", &[]).expect_code(0);
    let cases =
        [("plan", &fresh, row.plan), ("provision", &fresh, row.provision), ("decommission", &made, row.decommission)];
    let mut rans = Vec::new();
    cp.freeze_storage();
    for (action, namespace, _) in &cases {
        rans.push(Instance::new(cp.admin(), namespace).ask(action, &["--timeout", "5"]));
    }
    cp.thaw_storage();
    eventually("the storage is back", || {
        (cp.request("GET", "/readyz", Some(&cp.admin().token), None).status == 200).then_some(())
    });
    for ((_, namespace, expected), ran) in cases.iter().zip(&rans) {
        compare(&cp, &row, ran, namespace, *expected);
    }
    Instance::new(cp.admin(), &fresh).ask("provision", &[]).expect_code(0);
    Instance::new(cp.admin(), &made).ask("decommission", &[]).expect_code(0);
}
