//! What version 1.0.0 leaves in a cluster, by real helm 3 and 4: its objects, the owners of their fields, and the
//! releases with the parent credential in them. This is the starting point of an adoption.

use serde_json::{Value, json};
use testbed::{ControlPlane, Helm, Original, Persona, eventually, rule};

const NAME: &str = "ecomm-prod-demo-x7k2";
const OBJECT: &str = "ecomm-prod-demo-x7k2-token";

/// An instance in a namespace that does not exist yet, and its parent credential.
fn original(helm: &'static Helm) -> (Original<'static>, &'static Persona) {
    let control_plane = ControlPlane::shared();
    let params = json!({
        "namespace": control_plane.unused_namespace("original"),
        "rules": [rule(&[""], &["pods", "pods/log"], &["get", "list"]), rule(&["apps"], &["deployments"], &["get"])],
        "md_metadata": {
            "name_prefix": NAME,
            "default_tags": {"managed-by": "massdriver", "md-project": "ecomm"},
        },
    });
    let parent = control_plane.admin();
    (Original::new(control_plane, helm, &params, &parent.connection()), parent)
}

/// ServiceAccount, Role, RoleBinding, Secret.
fn objects(original: &Original<'_>) -> [Option<Value>; 4] {
    let namespace = original.namespace();
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let core = format!("/api/v1/namespaces/{namespace}");
    [
        format!("{core}/serviceaccounts/{OBJECT}"),
        format!("{rbac}/roles/{OBJECT}"),
        format!("{rbac}/rolebindings/{OBJECT}"),
        format!("{core}/secrets/{OBJECT}"),
    ]
    .map(|path| ControlPlane::shared().get(&path))
}

/// The four objects, with a token in the Secret.
fn await_objects(original: &Original<'_>) -> [Value; 4] {
    eventually("the objects and the token", || {
        let [Some(account), Some(role), Some(binding), Some(secret)] = objects(original) else { return None };
        secret["data"]["token"].is_string().then_some([account, role, binding, secret])
    })
}

/// Field owners: `(manager, operation, the parts of the object below metadata, spec, ...)`.
fn owners(object: &Value) -> Vec<(String, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fields = object["metadata"]["managedFields"].as_array().unwrap().iter();
    fields
        .map(|entry| {
            let mut owned = Vec::new();
            leaves(&entry["fieldsV1"], "", &mut owned);
            (text(&entry["manager"]), text(&entry["operation"]), owned)
        })
        .collect()
}

fn leaves(fields: &Value, at: &str, found: &mut Vec<String>) {
    for (key, below) in fields.as_object().unwrap() {
        let Some(key) = key.strip_prefix("f:") else { continue };
        // Map keys contain dots and slashes: annotations and labels are listed by name.
        let path = if at.is_empty() { key.to_owned() } else { format!("{at}/{key}") };
        if below.as_object().unwrap().is_empty() {
            found.push(path);
        } else {
            leaves(below, &path, found);
        }
    }
}

/// `(revision, status)` of all stored revisions of the release.
fn history(original: &Original<'_>) -> Vec<(u64, String)> {
    original.releases().into_iter().map(|release| (release.revision, release.status)).collect()
}

fn matches(history: &[(u64, String)], expected: &[(u64, &str)]) -> bool {
    history.iter().map(|(revision, status)| (*revision, status.as_str())).eq(expected.iter().copied())
}

/// The Secret of every revision has helm's format, and contains the parent's token.
#[track_caller]
fn assert_leaks(original: &Original<'_>, parent: &Persona) {
    let releases = original.releases();
    assert!(!releases.is_empty());
    for release in releases {
        let secret = &release.secret;
        let metadata = &secret["metadata"];
        assert_eq!(metadata["name"], format!("sh.helm.release.v1.{NAME}.v{}", release.revision));
        assert_eq!(secret["type"], "helm.sh/release.v1");
        assert_eq!(secret["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["release"]);
        assert_eq!(metadata["annotations"], Value::Null);
        assert_eq!(metadata["ownerReferences"], Value::Null);
        let labels = metadata["labels"].as_object().unwrap();
        let known = ["createdAt", "modifiedAt", "name", "owner", "status", "version"];
        assert!(labels.keys().all(|key| known.contains(&key.as_str())), "{labels:?}");
        assert_eq!((&labels["owner"], &labels["name"]), (&json!("helm"), &json!(NAME)));
        let [(manager, operation, _)] = &owners(secret)[..] else { panic!("{secret}") };
        assert_eq!((manager.as_str(), operation.as_str()), ("Helm", "Update"));

        let document = &release.document;
        assert_eq!((&document["name"], &document["version"]), (&json!(NAME), &json!(release.revision)));
        assert_eq!(document["namespace"], original.namespace());
        assert_eq!(document["chart"]["metadata"]["name"], "k8s-token");
        assert_eq!(document["info"]["status"], release.status);
        assert_eq!(
            document["config"]["kubernetes_cluster"]["authentication"]["user"]["token"], parent.token,
            "the parent's token in revision {}",
            release.revision
        );
        // Compressed: the token cannot be found by searching the server's lists.
        assert!(!secret.to_string().contains(&parent.token));
    }
}

#[track_caller]
fn assert_objects(original: &Original<'_>, operation: &str) {
    let helm = |parts: &[&str]| {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        ("helm".to_owned(), operation.to_owned(), parts)
    };
    let annotations =
        ["release-name", "release-namespace"].map(|key| format!("metadata/annotations/meta.helm.sh/{key}"));
    let [first, second] = annotations.each_ref().map(String::as_str);
    let labels = [
        "metadata/labels/app.kubernetes.io/deployed-with",
        "metadata/labels/app.kubernetes.io/managed-by",
        "metadata/labels/helm.sh/chart",
        "metadata/labels/managed-by",
        "metadata/labels/md-project",
    ];
    let [account, role, binding, secret] = await_objects(original);
    for object in [&account, &role, &binding] {
        assert_eq!(
            object["metadata"]["labels"],
            json!({
                "app.kubernetes.io/deployed-with": "massdriver.cloud",
                "app.kubernetes.io/managed-by": "Helm",
                "helm.sh/chart": "k8s-token-0.1.0",
                "managed-by": "massdriver",
                "md-project": "ecomm",
            })
        );
        assert_eq!(
            object["metadata"]["annotations"],
            json!({"meta.helm.sh/release-name": NAME, "meta.helm.sh/release-namespace": original.namespace()})
        );
    }
    assert_eq!(owners(&account), [helm(&[&[first, second], &labels[..]].concat())]);
    assert_eq!(owners(&role), [helm(&[&[first, second], &labels[..], &["rules"]].concat())]);
    assert_eq!(owners(&binding), [helm(&[&[first, second], &labels[..], &["roleRef", "subjects"]].concat())]);

    assert_eq!(role["rules"], original.params["rules"]);
    assert_eq!(
        (&binding["roleRef"], &binding["subjects"]),
        (
            &json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OBJECT}),
            // No namespace, and the server adds none.
            &json!([{"kind": "ServiceAccount", "name": OBJECT}])
        )
    );

    assert_eq!(secret["type"], "kubernetes.io/service-account-token");
    assert_eq!(secret["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "Helm"}));
    assert_eq!(
        secret["metadata"]["annotations"],
        json!({
            "kubernetes.io/service-account.name": OBJECT,
            "kubernetes.io/service-account.uid": account["metadata"]["uid"],
            "meta.helm.sh/release-name": NAME,
            "meta.helm.sh/release-namespace": original.namespace(),
        })
    );
    let of_secret = ["metadata/annotations/kubernetes.io/service-account.name", first, second, labels[1], "type"];
    let controller: Vec<_> =
        ["data/ca.crt", "data/namespace", "data/token", "metadata/annotations/kubernetes.io/service-account.uid"]
            .map(str::to_owned)
            .into();
    let controller = ("kube-controller-manager".to_owned(), "Update".to_owned(), controller);
    assert_eq!(owners(&secret), [helm(&of_secret), controller]);
}

/// Install, a repeat, a change, a refused change, a killed change, uninstall.
fn expect_lifecycle(helm: &'static Helm, operation: &str) {
    let control_plane = ControlPlane::shared();
    let (mut original, parent) = original(helm);
    let preview = original.plan();
    assert!(preview.contains("kind: RoleBinding") && preview.contains(&parent.token), "{preview}");
    assert!(control_plane.get(&format!("/api/v1/namespaces/{}", original.namespace())).is_none());

    // The step runs helm with --debug, which prints all values: the log of the deployment contains the parent's token.
    assert!(original.provision().contains(&parent.token));
    assert_objects(&original, operation);
    assert_leaks(&original, parent);
    assert!(matches(&history(&original), &[(1, "deployed")]), "{:?}", history(&original));
    let namespace = control_plane.get(&format!("/api/v1/namespaces/{}", original.namespace())).unwrap();
    assert_eq!(namespace["metadata"]["labels"]["name"], original.namespace());
    let versions = |objects: [Value; 4]| objects.map(|object| object["metadata"]["resourceVersion"].clone());
    let before = versions(await_objects(&original));

    // A repeat changes no object, but creates a revision.
    original.provision();
    assert_eq!(versions(await_objects(&original)), before);
    assert!(matches(&history(&original), &[(1, "superseded"), (2, "deployed")]), "{:?}", history(&original));

    original.params["rules"] = json!([rule(&[""], &["configmaps"], &["get"])]);
    original.provision();
    assert_objects(&original, operation);

    let before = await_objects(&original);
    let said = original.failed_provision();
    assert!(said.contains("somebody@example.com"), "{said}");
    assert_eq!(await_objects(&original), before);
    let so_far = [(1, "superseded"), (2, "superseded"), (3, "deployed"), (4, "failed")];
    assert!(matches(&history(&original), &so_far), "{:?}", history(&original));

    original.killed_provision();
    assert_eq!(await_objects(&original), before);
    let so_far = [&so_far[..], &[(5, "pending-upgrade")]].concat();
    assert!(matches(&history(&original), &so_far), "{:?}", history(&original));
    assert_leaks(&original, parent);

    // Version 1.0.0 cannot recover: it can only be uninstalled.
    let refused = original.try_provision();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another operation"), "{refused:?}");
    assert!(original.decommission().status.success());
    assert_eq!(objects(&original), [const { None }; 4]);
    assert!(original.releases().is_empty());
    assert!(control_plane.get(&format!("/api/v1/namespaces/{}", original.namespace())).is_some());
}

/// A first install that is refused or killed.
fn expect_failed_first_install(helm: &'static Helm) {
    let (original, parent) = original(helm);
    original.failed_provision();
    assert!(matches(&history(&original), &[(1, "failed")]), "{:?}", history(&original));
    assert_leaks(&original, parent);
    // Only the Secret was created, and the token controller deletes it, because it has no ServiceAccount.
    eventually("no object", || objects(&original).iter().all(Option::is_none).then_some(()));
    original.provision();
    assert!(matches(&history(&original), &[(1, "superseded"), (2, "deployed")]), "{:?}", history(&original));

    let (original, parent) = self::original(helm);
    original.killed_provision();
    assert!(matches(&history(&original), &[(1, "pending-install")]), "{:?}", history(&original));
    assert_eq!(objects(&original), [const { None }; 4]);
    assert_leaks(&original, parent);
}

#[test]
fn helm_3_owns_fields_by_update() {
    expect_lifecycle(Helm::v3(), "Update");
}

#[test]
fn helm_4_owns_fields_by_apply() {
    expect_lifecycle(Helm::v4(), "Apply");
}

#[test]
fn failed_first_install_leaves_only_the_release() {
    for helm in [Helm::v3(), Helm::v4()] {
        expect_failed_first_install(helm);
    }
}

/// Objects that helm 3 has created keep its update method when helm 4 upgrades them.
#[test]
fn helm_4_upgrades_helm_3_releases_by_update() {
    let (mut original, parent) = original(Helm::v3());
    original.provision();
    original.helm = Helm::v4();
    original.params["rules"] = json!([rule(&[""], &["configmaps"], &["get"])]);
    original.provision();
    assert_objects(&original, "Update");
    assert_leaks(&original, parent);
    let methods: Vec<_> = original.releases().iter().map(|release| release.document["apply_method"].clone()).collect();
    assert_eq!(methods, [Value::Null, json!("csa")]);
}

#[test]
fn helm_keeps_ten_revisions() {
    let (original, parent) = original(Helm::v3());
    for _ in 0..12 {
        original.provision();
    }
    let kept: Vec<_> = history(&original).into_iter().map(|(revision, _)| revision).collect();
    assert_eq!(kept, (3..=12).collect::<Vec<_>>());
    assert_leaks(&original, parent);
}

/// The legacy format of the connection works, and leaks the token in the same way.
#[test]
fn legacy_connection_is_stored_in_the_release() {
    let (mut original, parent) = original(Helm::v3());
    original.connection = json!({"data": original.connection, "specs": {}});
    original.provision();
    let releases = original.releases();
    let values = &releases[0].document["config"]["kubernetes_cluster"];
    assert_eq!(values["data"]["authentication"]["user"]["token"], parent.token);
}

/// The dump in which tests search for tokens contains the unpacked releases.
#[test]
fn dump_unpacks_helm_releases() {
    let control_plane = ControlPlane::shared();
    let (mut original, _) = original(Helm::v3());
    let parent = control_plane.persona("dumped", &[testbed::Grant::cluster_role("cluster-admin")]);
    original.connection = parent.connection();
    assert!(!control_plane.dump_everything().contains(&parent.token));
    original.provision();
    assert!(control_plane.dump_everything().contains(&parent.token));
}
