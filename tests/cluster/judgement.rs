//! Rules judged by what the server serves, in plan, provision and verify: rules that match nothing are found and not
//! counted, custom resources are known once they are installed, and no run depends on the server's discovery.

use std::{sync::LazyLock, time::Duration};

use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, InterceptingProxy, Options, Verdict, eventually, rule};

use crate::support::{Instance, Ran, binary, changes, paths};

/// A control plane with custom resources and an API service that does not answer. One of its own, because the discovery
/// of the shared one is compared with the embedded table.
static EXTENDED: LazyLock<ControlPlane> = LazyLock::new(|| {
    let cp = ControlPlane::start(&Options::default()).expect("a control plane");
    for (plural, kind, scope) in [("widgets", "Widget", "Namespaced"), ("engines", "Engine", "Cluster")] {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let version =
            json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}});
        cp.post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.things.example.com")},
                "spec": {
                    "group": "things.example.com", "scope": scope, "versions": [version],
                    "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "shortNames": [&plural[..2]]},
                },
            }),
        );
    }
    cp.post(
        "/apis/apiregistration.k8s.io/v1/apiservices",
        &json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.down.example.com"},
            "spec": {
                "group": "down.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "nowhere"},
            },
        }),
    );
    eventually("discovery lists the custom resources and the API service", || {
        let text = cp.discovery()[1].to_string();
        ["\"widgets\"", "\"engines\"", "down.example.com"].iter().all(|it| text.contains(it)).then_some(())
    });
    cp
});

fn instance(cp: &ControlPlane, stem: &str, rules: &[Value]) -> Instance {
    let namespace = cp.namespace(stem);
    let parent = cp.persona(stem, &[Grant::cluster_role("cluster-admin")]);
    Instance::new(&parent, &namespace).rules(&json!(rules))
}

/// Pointer, code and severity of each finding about the rules, except risks.
fn dead(ran: &Ran) -> Vec<[String; 3]> {
    let document = ran.document();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().unwrap().iter();
    let about_rules = findings.filter(|finding| {
        text(finding, "pointer").starts_with("/rules") && !text(finding, "code").starts_with("risk-")
    });
    about_rules.map(|finding| ["pointer", "code", "severity"].map(|key| text(finding, key))).collect()
}

fn rows(expected: &[[&str; 3]]) -> Vec<[String; 3]> {
    expected.iter().map(|row| row.map(str::to_owned)).collect()
}

/// The resource and the verb of each tuple.
fn tuples(document: &Value, list: &str) -> Vec<String> {
    let tuples = document["permissions"][list].as_array().unwrap();
    tuples.iter().map(|it| format!("{} {}", it["verb"].as_str().unwrap(), it["resource"].as_str().unwrap())).collect()
}

fn verify(instance: &Instance, file: &str) -> Ran {
    let mut command = binary();
    command.args(["verify", "--json"]).arg(instance.path(file)).arg("--params").arg(instance.path("params.json"));
    Ran::of(&mut command)
}

/// Why risk-r24 includes subresources of namespaces: in a Role they lift the pod security of the own namespace.
#[test]
fn status_of_the_own_namespace_changes_its_labels() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("own-status");
    let holder = cp
        .persona("own-status", &[Grant::in_namespace(&namespace, &[rule(&[""], &["namespaces/status"], &["patch"])])]);
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    let object = format!("/api/v1/namespaces/{namespace}");
    assert_eq!(cp.request("PATCH", &object, Some(&holder.token), Some(&patch)).status, 403);
    assert_eq!(cp.request("PATCH", &format!("{object}/status"), Some(&holder.token), Some(&patch)).status, 200);
    let live = cp.get(&object).unwrap();
    assert_eq!(live["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
}

#[test]
fn rule_that_matches_nothing_is_found_and_not_counted() {
    let cp = ControlPlane::shared();
    let rules = [rule(&["apps"], &["deployment"], &["get", "list"]), rule(&[""], &["pods"], &["get"])];
    let mut instance = instance(cp, "typo", &rules);
    let artifact = instance.path("artifact.json");
    let found = rows(&[["/rules/0/resources/0", "unknown-resource", "high"]]);

    let planned = instance.ask("plan", &[]).expect_code(0);
    assert_eq!(dead(&planned), found);
    assert_eq!(planned.findings("unknown-resource")[0]["help"], "use `deployments`");
    assert_eq!(tuples(&planned.document(), "widened"), ["get pods"]);

    let made = instance.ask("provision", &["--output", artifact.to_str().unwrap()]).expect_code(0);
    assert_eq!(dead(&made), found);
    assert_eq!(tuples(&made.document(), "widened"), ["get pods"]);
    assert_eq!(made.document()["proof"]["allowed"], 1);
    let role = cp.get(&paths(&instance.namespace)[1]).unwrap();
    assert_eq!(role["rules"], json!(rules), "the Role is written as requested");

    let verified = verify(&instance, "artifact.json").expect_code(0);
    assert_eq!(dead(&verified), found);
    assert_eq!(verified.document()["proof"]["allowed"], 1);

    let again = instance.ask("provision", &[]).expect_code(0);
    assert_eq!((dead(&again), &again.document()["permissions"]["unchanged"]), (found, &json!(1)));

    // A change of what matches nothing is a change of the object alone.
    instance.params["rules"][0]["verbs"] = json!(["get", "delete"]);
    let changed = instance.ask("provision", &[]).expect_code(0).document();
    assert!(changes(&changed).contains(&("update".to_owned(), "Role".to_owned())), "{changed:#}");
    let expected = json!({"widened": [], "narrowed": [], "unchanged": 1});
    assert_eq!((&changed["permissions"], &changed["proof"]["allowed"]), (&expected, &json!(1)));
}

#[test]
fn credential_that_allows_nothing_proves_its_identity() {
    let instance = instance(ControlPlane::shared(), "nothing", &[rule(&["apps"], &["pods"], &["get"])]);
    let ran = instance.ask("provision", &[]).expect_code(0);
    let document = ran.document();
    assert_eq!(dead(&ran), rows(&[["/rules/0/resources/0", "unknown-resource", "high"]]));
    assert_eq!((&document["proof"]["allowed"], &document["proof"]["excess"]), (&json!(0), &json!([])));
    assert!(document["proof"]["username"].as_str().unwrap().ends_with("-token"), "{document:#}");
    assert!(ran.stderr.contains("the rules contain no permission that a request can match"), "{}", ran.stderr);
    assert_eq!(document["permissions"]["widened"], json!([]));
}

#[test]
fn custom_resources_are_judged_by_what_is_installed() {
    let group = "things.example.com";
    let rules = [
        rule(&[group], &["widgets", "widgets/status"], &["get", "update"]),
        rule(&[group], &["widgets", "widget", "wigdets"], &["get"]),
        rule(&[group], &["engines"], &["get"]),
        rule(&[group], &["gadgets"], &["get"]),
        rule(&["later.example.com"], &["anything"], &["get"]),
        rule(&["thingz.example.com"], &["widgets"], &["get"]),
        rule(&[group], &["widgets/scale"], &["get"]),
        rule(&[group], &["widgets"], &["list", "escalate"]),
        rule(&["down.example.com"], &["anything"], &["get"]),
    ];
    let mut instance = instance(&EXTENDED, "custom", &rules[..7]);
    let expected = rows(&[
        ["/rules/1/resources/1", "unknown-resource", "high"],
        ["/rules/1/resources/2", "unknown-resource", "high"],
        ["/rules/2/resources/0", "cluster-scoped-resource", "high"],
        ["/rules/5/apiGroups/0", "unknown-group", "high"],
        ["/rules/6/resources/0", "unknown-resource", "high"],
        ["/rules/3/resources/0", "unknown-resource", "info"],
        ["/rules/4/apiGroups/0", "unknown-group", "info"],
    ]);
    for action in ["plan", "provision"] {
        let ran = instance.ask(action, &[]).expect_code(0);
        assert_eq!(dead(&ran), expected, "{action}: {}", ran.stderr);
        assert_eq!(ran.findings("unknown-group")[0]["help"], "use `things.example.com`");
        let counted = [
            "get gadgets",
            "get anything",
            "get widgets",
            "update widgets",
            "get widgets/status",
            "update widgets/status",
        ];
        let mut found = tuples(&ran.document(), "widened");
        found.sort();
        let mut counted = counted.map(str::to_owned);
        counted.sort();
        assert_eq!(found, counted, "{action}");
    }

    // A service that does not answer says nothing about its resources.
    instance.params["rules"] = json!([rules[8]]);
    let ran = instance.ask("plan", &[]).expect_code(0);
    assert_eq!(dead(&ran), rows(&[["/rules/0/apiGroups/0", "unknown-group", "info"]]), "{}", ran.stderr);
    let message = ran.findings("unknown-group")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("does not answer"), "{message}");
}

/// Rules about a resource of Kubernetes and a custom one, both with a mistake where discovery is known.
fn misspelt() -> [Value; 2] {
    [rule(&["apps"], &["deployment"], &["get"]), rule(&["things.example.com"], &["widget"], &["get"])]
}

/// Nothing but the embedded table was used, which knows no custom resource.
#[track_caller]
fn expect_judged_by_table(ran: &Ran) {
    let expected = rows(&[
        ["/rules/0/resources/0", "unknown-resource", "high"],
        ["/rules/1/apiGroups/0", "unknown-group", "info"],
        ["/rules", "discovery-missing", "info"],
    ]);
    assert_eq!(dead(ran), expected, "{}", ran.stderr);
}

#[rstest::rstest]
#[case::forbidden(|| Verdict::refusal(403, "Forbidden", "no"))]
#[case::absent(|| Verdict::Reply(404, vec![], "404 page not found\n".to_owned()))]
#[case::not_acceptable(|| Verdict::refusal(406, "NotAcceptable", "only the following media types are accepted"))]
#[case::unavailable(|| Verdict::Reply(503, vec![("retry-after", "20".to_owned())], "down".to_owned()))]
#[case::unaggregated(|| Verdict::Answer(200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})))]
#[case::garbage(|| Verdict::Reply(200, vec![], "<html>".to_owned()))]
#[case::far_too_long(|| Verdict::Reply(200, vec![("content-type", "application/json".to_owned())],
    format!(r#"{{"kind": "APIGroupDiscoveryList", "items": [], "x": "{}"}}"#, "x".repeat(9 << 20))))]
#[case::lost(|| Verdict::Drop)]
#[case::hanging(|| Verdict::Hang)]
fn run_does_not_depend_on_discovery(#[case] answer: fn() -> Verdict) {
    let cp = &*EXTENDED;
    let proxy = InterceptingProxy::start(cp, move |request| match request.path.split('?').next() {
        Some("/apis") => answer(),
        _ => Verdict::Forward,
    });
    let asked = || {
        proxy.requests().iter().filter(|request| request.path.starts_with("/apis?") || request.path == "/apis").count()
    };
    let namespace = cp.namespace("undiscovered");
    let parent = cp.persona("undiscovered", &[Grant::cluster_role("cluster-admin")]).with_server(&proxy.server());
    let instance = Instance::new(&parent, &namespace).rules(&json!(misspelt()));
    let file = instance.path("artifact.json");
    let actions: [(&str, &[&str]); 2] = [("plan", &[]), ("provision", &["--output", file.to_str().unwrap()])];
    for (number, (action, more)) in actions.into_iter().enumerate() {
        let ran = instance.ask(action, more).expect_code(0);
        expect_judged_by_table(&ran);
        assert!(ran.duration() < Duration::from_secs(10), "{action} waited: {:?}", ran.duration());
        assert_eq!(asked(), number + 1, "one attempt in each run");
    }
    let ran = verify(&instance, "artifact.json").expect_code(0);
    expect_judged_by_table(&ran);
    assert!(ran.duration() < Duration::from_secs(10), "verify waited: {:?}", ran.duration());
}

/// A control plane of its own, because every user loses the permission.
#[test]
fn identity_without_discovery_is_no_failure() {
    let cp = ControlPlane::start(&Options::default()).unwrap();
    let instance = instance(&cp, "hidden", &misspelt());
    let parent = cp.persona("narrow", &[Grant::cluster_role_in(&instance.namespace, "cluster-admin")]);
    cp.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:discovery");
    eventually("discovery is denied", || {
        (cp.request("GET", "/apis", Some(&parent.token), None).status == 403).then_some(())
    });
    let mut hidden = Instance::new(&parent, &instance.namespace).rules(&json!(misspelt()));
    hidden.config = instance.config.clone();
    for action in ["plan", "provision"] {
        let ran = hidden.ask(action, &[]).expect_code(0);
        expect_judged_by_table(&ran);
        let message = ran.findings("discovery-missing")[0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("403"), "{message}");
    }
}

#[test]
fn discovery_of_older_servers_is_read() {
    let cp = &*EXTENDED;
    let mut list = cp.discovery()[1].clone();
    list["apiVersion"] = json!("apidiscovery.k8s.io/v2beta1");
    let proxy = InterceptingProxy::start(cp, move |request| match request.path.split('?').next() {
        Some("/apis") => Verdict::Answer(200, list.clone()),
        _ => Verdict::Forward,
    });
    let namespace = cp.namespace("beta");
    let parent = cp.persona("beta", &[Grant::cluster_role("cluster-admin")]).with_server(&proxy.server());
    let ran = Instance::new(&parent, &namespace).rules(&json!(misspelt())).ask("plan", &[]).expect_code(0);
    let expected = rows(&[
        ["/rules/0/resources/0", "unknown-resource", "high"],
        ["/rules/1/resources/0", "unknown-resource", "high"],
    ]);
    assert_eq!(dead(&ran), expected);
}

/// Several MB, as from a cluster with thousands of CustomResourceDefinitions.
#[test]
fn long_discovery_is_read() {
    let cp = &*EXTENDED;
    let mut list = cp.discovery()[1].clone();
    let verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    let items = list["items"].as_array_mut().unwrap();
    items.extend((0..6000).map(|number| {
        let kind = json!({"group": "", "version": "", "kind": format!("Thing{number}")});
        let resource = json!({
            "resource": format!("thing{number}s"), "responseKind": kind, "scope": "Namespaced", "verbs": verbs,
            "singularResource": format!("thing{number}"), "shortNames": [], "categories": ["all", "things"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}],
        });
        json!({"metadata": {"name": format!("number{number}.example.org"), "creationTimestamp": null},
            "versions": [{"version": "v1", "freshness": "Current", "resources": [resource]}]})
    }));
    assert!(list.to_string().len() > 3_000_000);
    let proxy = InterceptingProxy::start(cp, move |request| match request.path.split('?').next() {
        Some("/apis") => Verdict::Answer(200, list.clone()),
        _ => Verdict::Forward,
    });
    let namespace = cp.namespace("long");
    let parent = cp.persona("long", &[Grant::cluster_role("cluster-admin")]).with_server(&proxy.server());
    let rules = json!([rule(&["number5999.example.org"], &["thing5999"], &["get"])]);
    // On a busy machine such a list may come later than everything else; then it is not waited for.
    let found = (0..5).find_map(|_| {
        let ran = Instance::new(&parent, &namespace).rules(&rules).ask("plan", &[]).expect_code(0);
        ran.findings("discovery-missing").is_empty().then(|| dead(&ran))
    });
    assert_eq!(found, Some(rows(&[["/rules/0/resources/0", "unknown-resource", "high"]])));
}

#[test]
fn risk_depends_on_version_of_server() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("exec");
    let parent = cp.persona("exec", &[Grant::cluster_role("cluster-admin")]);
    for (version, is_risk) in [("v1.34.1", true), ("v1.37.2", false), ("unknown", true)] {
        let proxy = InterceptingProxy::start(cp, move |request| match request.path.as_str() {
            "/version" => Verdict::Answer(200, json!({"gitVersion": version})),
            _ => Verdict::Forward,
        });
        let rules = json!([rule(&[""], &["pods/exec"], &["get"])]);
        let instance = Instance::new(&parent.with_server(&proxy.server()), &namespace).rules(&rules);
        let ran = instance.ask("plan", &[]).expect_code(0);
        assert_eq!(!ran.findings("risk-r09").is_empty(), is_risk, "{version}: {}", ran.stderr);
    }
}

#[test]
fn plan_lists_findings_under_the_changes() {
    let rules = [
        rule(&["apps"], &["deployment", "deployments"], &["get", "list"]),
        rule(&[""], &["secrets"], &["get", "list"]),
        rule(&[""], &["pods", "pods/log"], &["get"]),
        rule(&["later.example.com"], &["anything"], &["get"]),
        rule(&[""], &["pods"], &["get"]),
    ];
    let instance = instance(ControlPlane::shared(), "grouped", &rules);
    let ran = instance.ask("plan", &[]).expect_code(0);
    let words: Vec<&str> = ran.stderr.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    let first =
        |word: &str| words.iter().position(|it| *it == word).unwrap_or_else(|| panic!("{word}: {}", ran.stderr));
    let order = ["create", "widened", "high", "low", "info", "done"].map(first);
    assert!(order.is_sorted(), "{}", ran.stderr);
    let severities: Vec<&str> =
        words.iter().copied().filter(|word| ["critical", "high", "medium", "low", "info"].contains(word)).collect();
    let rank = |word: &&str| ["critical", "high", "medium", "low", "info"].iter().position(|it| it == word);
    assert!(severities.is_sorted_by_key(rank), "{severities:?}");
    let document = ran.document();
    let in_document: Vec<&str> =
        document["findings"].as_array().unwrap().iter().map(|it| it["severity"].as_str().unwrap()).collect();
    assert_eq!(in_document, severities, "the document has the same order");
    let number = |severity: &str| severities.iter().filter(|it| **it == severity).count();
    let counted = format!(
        "plan complete: 4 changes; {} high, {} low, {} info findings (",
        number("high"),
        number("low"),
        number("info")
    );
    assert!(ran.stderr.contains(&counted), "{counted}: {}", ran.stderr);
    assert!(
        ran.stderr.contains("has no resource `deployment` [unknown-resource]\n             use `deployments`\n"),
        "{}",
        ran.stderr
    );

    // Nothing is left to change, and the findings are still there.
    let made = instance.ask("provision", &[]).expect_code(0);
    assert_eq!(made.findings("unknown-resource").len(), 1, "once: {}", made.stderr);
    let again = instance.ask("plan", &[]).expect_code(0);
    assert!(again.stderr.contains("plan complete: nothing to change; "), "{}", again.stderr);
}

/// The reason of a refusal may be a mistake in a rule.
#[test]
fn refused_provision_shows_what_matches_nothing() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("refused");
    let parent = cp.persona("refused", &[Grant::cluster_role_in(&namespace, "edit")]);
    let instance = Instance::new(&parent, &namespace).rules(&json!([rule(&["apps"], &["deployment"], &["get"])]));
    for action in ["plan", "provision"] {
        let ran = instance.ask(action, &[]).expect_code(77);
        assert_eq!(ran.findings("unknown-resource").len(), 1, "{action}: {}", ran.stderr);
    }
}
