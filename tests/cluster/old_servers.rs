//! A server without the API that the test of the token needs is refused before the first write; existing objects can
//! still be deleted.

use std::{fs, sync::LazyLock};

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Era, Grant, InterceptingProxy, Options, Verdict, eventually, rule};

use crate::support::{Instance, NAME, OBJECT, Ran, Shape, binary, paths, status, versions};

/// A server without SelfSubjectReview, as before Kubernetes 1.28.
static OLD: LazyLock<ControlPlane> = LazyLock::new(|| {
    let api_server_arguments = vec!["--runtime-config=authentication.k8s.io/v1=false".to_owned()];
    ControlPlane::start(&Options { api_server_arguments, ..Options::default() }).expect("an old server")
});

#[track_caller]
fn expect_too_old(ran: Ran, review: &str) -> Value {
    let document = ran.expect_code(1).document();
    let error = &document["error"];
    assert_eq!(error["code"], "too-old-server", "{error}");
    let cause = error["cause"].as_str().unwrap();
    for words in [review, "1.28", "4.15"] {
        assert!(cause.contains(words), "{words}: {cause}");
    }
    assert!(error["next"].as_str().unwrap().contains("upgrade"), "{error}");
    document
}

fn verify(instance: &Instance, connection: &Value) -> Ran {
    let file = instance.path("artifact.json");
    fs::write(&file, connection.to_string()).unwrap();
    Ran::of(binary().arg("verify").arg(file).arg("--json"))
}

/// Creates the objects of an instance as if the server had been newer, and returns the token.
fn create_objects(cp: &ControlPlane, namespace: &str) -> String {
    let metadata = |annotations: Value| {
        let mut metadata = json!({
            "name": OBJECT,
            "labels": {"app.kubernetes.io/managed-by": "k8s-token"},
            "annotations": {"k8s-token.massdriver.cloud/name": NAME, "k8s-token.massdriver.cloud/namespace": namespace},
        });
        metadata["annotations"].as_object_mut().unwrap().extend(annotations.as_object().unwrap().clone());
        metadata
    };
    let [account, role, binding, secret] = paths(namespace).map(|path| path.rsplit_once('/').unwrap().0.to_owned());
    let generation = json!({"k8s-token.massdriver.cloud/token-generation": "1"});
    cp.post(&account, &json!({"metadata": metadata(generation)}));
    cp.post(&role, &json!({"metadata": metadata(json!({})), "rules": [rule(&[""], &["pods"], &["get", "list"])]}));
    cp.post(
        &binding,
        &json!({
            "metadata": metadata(json!({})),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OBJECT},
            "subjects": [{"kind": "ServiceAccount", "name": OBJECT, "namespace": namespace}],
        }),
    );
    let account_of = json!({"kubernetes.io/service-account.name": OBJECT});
    let kind = "kubernetes.io/service-account-token";
    cp.post(&secret, &json!({"metadata": metadata(account_of), "type": kind}));
    let token = eventually("the Secret contains a token", || {
        let secret = cp.get(&paths(namespace)[3])?;
        let token = secret["data"]["token"].as_str()?.to_owned();
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token).ok()
    });
    String::from_utf8(token).unwrap()
}

#[test]
fn server_without_self_subject_review_is_refused() {
    let cp = &*OLD;
    let namespace = cp.namespace("old");
    let instance = Instance::of_era(cp.admin(), &namespace, Era::Dependencies, Shape::Bare);
    let mark = cp.audit().mark();
    let planned = expect_too_old(instance.ask("plan", &[]), "SelfSubjectReview of authentication.k8s.io/v1");
    assert_eq!(crate::support::changes(&planned).len(), 4, "the plan is still shown");
    expect_too_old(instance.ask("provision", &["--publish"]), "SelfSubjectReview of authentication.k8s.io/v1");
    let ours = cp.audit().of(&cp.admin().user, mark);
    assert!(!ours.is_empty() && ours.iter().all(|event| !event.is_write()), "{ours:#?}");
    assert!(versions(cp, &namespace).is_empty());

    let token = create_objects(cp, &namespace);
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    eventually("the token works", || (status(cp, &token, &pods) == 200).then_some(()));
    let mut artifact = instance.connection.clone();
    artifact["authentication"]["user"]["token"] = json!(token);
    expect_too_old(verify(&instance, &artifact), "SelfSubjectReview of authentication.k8s.io/v1");
    expect_too_old(instance.ask("provision", &["--publish"]), "SelfSubjectReview of authentication.k8s.io/v1");
    assert_eq!(instance.platform.resource("token"), None);

    let gone = instance.ask("decommission", &[]).expect_code(0);
    assert!(gone.stderr.contains("rejected with 401"), "{}", gone.stderr);
    assert_eq!(status(cp, &token, &pods), 401);
    assert!(versions(cp, &namespace).is_empty());
}

/// Responses of servers of other releases; a server of the right release is not refused.
#[rstest]
#[case::no_rules_review("selfsubjectrulesreviews", Verdict::Reply(404, vec![], "404 page not found\n".into()), None, "SelfSubjectRulesReview")]
#[case::status(
    "selfsubjectreviews",
    Verdict::refusal(404, "NotFound", "the server could not find the requested resource"),
    None,
    "SelfSubjectReview"
)]
#[case::limited_parent("selfsubjectreviews", anonymous_denial(), Some("v1.24.17+k3s1"), "v1.24.17+k3s1")]
fn old_server_is_recognized_by_its_response(
    #[case] review: &'static str,
    #[case] answer: Verdict,
    #[case] version: Option<&'static str>,
    #[case] said: &str,
) {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("oldform");
    let proxy = InterceptingProxy::start(cp, move |request| match version {
        _ if request.path.contains(&format!("/{review}")) => answer.clone(),
        Some(version) if request.path == "/version" => Verdict::Answer(200, json!({"gitVersion": version})),
        _ => Verdict::Forward,
    });
    let parent = cp.persona("oldform", &[Grant::cluster_role("cluster-admin")]);
    let instance = Instance::new(&parent.with_server(&proxy.server()), &namespace);
    for action in ["plan", "provision"] {
        expect_too_old(instance.ask(action, &[]), said);
    }
    assert!(versions(cp, &namespace).is_empty());
    // The holder of a token of such a server.
    let token = Instance::new(&parent, &namespace).token();
    let mut artifact = instance.connection.clone();
    artifact["authentication"]["user"]["token"] = json!(token);
    expect_too_old(verify(&instance, &artifact), said);
    // A forged version does not distinguish a rejected token.
    let instance = if version.is_some() { Instance::new(&parent, &namespace) } else { instance };
    instance.ask("decommission", &[]).expect_code(0);
    assert!(versions(cp, &namespace).is_empty());
}

fn anonymous_denial() -> Verdict {
    let message = "selfsubjectreviews.authentication.k8s.io is forbidden: User \"x\" cannot create resource \
                   \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope";
    let details = json!({"group": "authentication.k8s.io", "kind": "selfsubjectreviews"});
    Verdict::Answer(
        403,
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": message, "details": details,
        }),
    )
}

#[test]
fn parent_denied_self_subject_review_can_provision() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("hardened");
    let parent = cp.persona("hardened", &[Grant::cluster_role("cluster-admin")]);
    let proxy = InterceptingProxy::start(cp, {
        let mut asked = false;
        // The first review is that of the parent.
        move |request| {
            let first = request.path.contains("/selfsubjectreviews") && !std::mem::replace(&mut asked, true);
            if first { anonymous_denial() } else { Verdict::Forward }
        }
    });
    Instance::new(&parent.with_server(&proxy.server()), &namespace).ask("provision", &[]).expect_code(0);
}

#[test]
fn server_without_kubernetes_api_is_not_called_old() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("nothing");
    let proxy = InterceptingProxy::start(cp, |_| Verdict::Reply(404, vec![], "404 page not found\n".to_owned()));
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let verified = {
        let mut artifact = instance.connection.clone();
        artifact["authentication"]["user"]["token"] = json!(Instance::new(cp.admin(), &namespace).token());
        verify(&instance, &artifact)
    };
    for ran in [instance.ask("plan", &[]), instance.ask("provision", &[]), verified] {
        assert_eq!(ran.expect_code(69).document()["error"]["code"], "not-kubernetes");
    }
}
