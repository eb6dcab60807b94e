//! Findings about the credential's permissions and address: defaults of the server, authorizers other than RBAC,
//! loopback addresses, platforms without TLS.
//!
//! `UPDATE_DEFAULTS=1 cargo test --test cluster embedded` writes the embedded defaults of the testbed's Kubernetes
//! release, which `K8S_TOKEN_TESTBED_VERSION` selects, and adds what that release serves to the embedded catalogue.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{
    ControlPlane, Era, Grant, InterceptingProxy, Options, Persona, ProxyOptions, ProxyServer, Verdict, rule,
};

use crate::desk::Desk;
use crate::support::{Instance, NAME, Ran, Shape, binary};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const LABEL: &str = "kubernetes.io/bootstrapping";

/// The findings of a run, as code and severity.
fn findings(ran: &Ran) -> Vec<(String, String)> {
    let document = ran.document();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().unwrap();
    findings.iter().map(|finding| (text(&finding["code"]), text(&finding["severity"]))).collect()
}

/// The message and the help of a finding.
fn message_and_help(ran: &Ran, code: &str) -> String {
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == code);
    let texts: Vec<String> = findings.map(|finding| format!("{} ({})", finding["message"], finding["help"])).collect();
    texts.join("\n")
}

#[track_caller]
fn expect(ran: &Ran, wanted: &[(&str, &str)]) {
    let found = findings(ran);
    let found: Vec<(&str, &str)> = found.iter().map(|(code, severity)| (code.as_str(), severity.as_str())).collect();
    assert_eq!(found, wanted, "{}", ran.stderr);
}

/// A parent that may grant the requested permissions in one namespace, and cannot read cluster-wide bindings.
fn namespace_parent(cp: &ControlPlane, namespace: &str) -> Persona {
    cp.persona("limited", &[Grant::cluster_role_in(namespace, "cluster-admin")])
}

/// `verify` on the credential file of a run.
fn verify(instance: &Instance, file: &str, more: &[&str]) -> Ran {
    let mut command = binary();
    command.args(["verify", "--json"]).arg(instance.path(file)).args(more);
    Ran::of(&mut command).expect_code(0)
}

fn provision_into(instance: &Instance, file: &str) -> Ran {
    instance.ask("provision", &["--output", instance.path(file).to_str().unwrap()]).expect_code(0)
}

/// A proxy that reports another server version.
fn as_version(cp: &'static ControlPlane, version: &'static str) -> InterceptingProxy {
    InterceptingProxy::start(cp, move |request| match request.path.as_str() {
        "/version" => Verdict::Answer(200, json!({"gitVersion": version})),
        _ => Verdict::Forward,
    })
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).unwrap().parse().unwrap()
}

// Defaults of the server.

#[test]
fn embedded_defaults_match_the_server() {
    let cp = ControlPlane::shared();
    let bindings = cp.get(&format!("{RBAC}/clusterrolebindings?labelSelector={LABEL}%3Drbac-defaults")).unwrap();
    let mut roles = serde_json::Map::new();
    for binding in bindings["items"].as_array().unwrap() {
        let mut subjects = binding["subjects"].as_array().into_iter().flatten();
        if subjects
            .any(|subject| ["system:serviceaccounts", "system:authenticated"].iter().any(|it| subject["name"] == **it))
        {
            let name = binding["roleRef"]["name"].as_str().unwrap();
            roles.insert(name.to_owned(), cp.get(&format!("{RBAC}/clusterroles/{name}")).unwrap()["rules"].clone());
        }
    }
    let version = cp.version();
    let path = format!("src/credential/defaults/1.{}.json", minor(version));
    if std::env::var_os("UPDATE_DEFAULTS").is_some() {
        fs::write(&path, format!("{:#}\n", json!({"version": version, "roles": roles}))).unwrap();
    }
    let embedded: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert_eq!(
        embedded["roles"],
        Value::Object(roles),
        "{path} differs from Kubernetes {version}: UPDATE_DEFAULTS=1 writes it, src/credential/defaults.rs lists it"
    );
}

const CATALOG: &str = "src/rbac/catalog.json";

/// The catalogue of resources that `check` judges rules by: by group, then by resource, the part of its discovery that
/// matters.
type Resources = BTreeMap<String, BTreeMap<String, Value>>;

/// Adds the resources of aggregated discovery, those of all versions together.
fn add_resources(known: &mut Resources, list: &Value) {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for group in array(&list["items"]) {
        let resources = known.entry(group["metadata"]["name"].as_str().unwrap_or_default().to_owned()).or_default();
        for new in array(&group["versions"]).iter().flat_map(|version| array(&version["resources"])) {
            let known = resources.entry(new["resource"].as_str().unwrap().to_owned()).or_insert_with(|| {
                json!({
                    "resource": new["resource"], "responseKind": {"kind": new["responseKind"]["kind"]},
                    "scope": new["scope"], "singularResource": new["singularResource"],
                    "shortNames": array(&new["shortNames"]), "verbs": [], "subresources": [],
                })
            });
            let subresources = |of: &Value| -> BTreeMap<String, Value> {
                let name = |it: &Value| it["subresource"].as_str().unwrap().to_owned();
                array(&of["subresources"]).iter().map(|it| (name(it), it["verbs"].clone())).collect()
            };
            let merged = |one: &Value, other: &Value| {
                let verbs: BTreeSet<String> =
                    array(one).iter().chain(&array(other)).map(|it| it.as_str().unwrap().to_owned()).collect();
                json!(verbs)
            };
            known["verbs"] = merged(&known["verbs"], &new["verbs"]);
            let mut all = subresources(known);
            for (name, verbs) in subresources(&new) {
                let known = all.entry(name).or_default();
                *known = merged(known, &verbs);
            }
            known["subresources"] =
                all.into_iter().map(|(name, verbs)| json!({"subresource": name, "verbs": verbs})).collect();
        }
    }
}

/// The catalogue as a discovery of one version for each group, a line for each resource.
fn catalog_text(resources: &Resources) -> String {
    let groups = resources.iter().map(|(name, resources)| {
        let lines: Vec<String> = resources.values().map(Value::to_string).collect();
        let name = json!({"name": name});
        format!("{{\"metadata\":{name},\"versions\":[{{\"resources\":[\n{}\n]}}]}}", lines.join(",\n"))
    });
    format!("{{\"items\":[\n{}\n]}}\n", groups.collect::<Vec<_>>().join(",\n"))
}

/// Alpha and beta APIs are in the catalogue, because a cluster may have enabled them.
#[test]
fn embedded_catalog_lists_what_the_server_serves() {
    let everything = ["--runtime-config=api/all=true", "--feature-gates=AllAlpha=true,AllBeta=true"];
    let api_server_arguments = everything.map(str::to_owned).to_vec();
    let cp = ControlPlane::start(&Options { api_server_arguments, ..Options::default() }).unwrap();
    let text = fs::read_to_string(CATALOG).unwrap_or_default();
    let mut resources = Resources::new();
    add_resources(&mut resources, &serde_json::from_str(&text).unwrap_or_default());
    for list in cp.discovery().iter().chain(&ControlPlane::shared().discovery()) {
        assert!(!list["items"].as_array().unwrap().is_empty(), "{list}");
        add_resources(&mut resources, list);
    }
    let complete = catalog_text(&resources);
    if std::env::var_os("UPDATE_DEFAULTS").is_some() {
        fs::write(CATALOG, &complete).unwrap();
    }
    let embedded = fs::read_to_string(CATALOG).unwrap_or_default();
    assert!(
        embedded == complete,
        "{CATALOG} lacks resources of Kubernetes {}: UPDATE_DEFAULTS=1 adds them",
        cp.version()
    );
}

#[test]
fn defaults_of_known_version_are_no_excess() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("defaults");
    let parents = [cp.persona("wide", &[Grant::cluster_role("cluster-admin")]), namespace_parent(cp, &namespace)];
    for parent in parents {
        let mark = cp.audit().mark();
        let instance = Instance::new(&parent, &namespace);
        let ran = provision_into(&instance, "artifact.json");
        assert_eq!(ran.document()["proof"]["excess"], json!([]));
        expect(&ran, &[("local-address", "low")]);
        let asked = cp.audit().of(&parent.user, mark);
        assert!(
            asked.iter().all(|event| event.resource != "clusterrolebindings"),
            "bindings are read only for unknown permissions"
        );
        let params = instance.path("params.json");
        let ran = verify(&instance, "artifact.json", &["--params", params.to_str().unwrap()]);
        assert_eq!((&ran.document()["proof"]["excess"], &findings(&ran)), (&json!([]), &vec![]));
        let may = verify(&instance, "artifact.json", &[]).document()["proof"]["excess"].clone();
        assert_eq!(may.as_array().unwrap().len(), 2, "the permissions of the rules, without the defaults: {may:#}");
    }
}

/// A server that reports 1.33 has defaults that the table lacks: those of `system:cluster-trust-bundle-discovery`.
/// Kubernetes 1.34 has none of them, and nothing is left over.
#[test]
fn unknown_defaults_are_read_from_bootstrap_bindings() {
    let cp = ControlPlane::shared();
    let has_more = minor(cp.version()) >= 37;
    let proxy = as_version(cp, "v1.33.5");
    let namespace = cp.namespace("unlisted");

    let parent = cp.persona("reader", &[Grant::cluster_role("cluster-admin")]);
    let instance = Instance::new(&parent.with_server(&proxy.server()), &namespace);
    let mark = cp.audit().mark();
    let ran = provision_into(&instance, "artifact.json");
    assert_eq!(ran.document()["proof"]["excess"], json!([]), "the server itself wrote the binding and the role");
    expect(&ran, &[("local-address", "low")]);
    let asked = cp.audit().of(&parent.user, mark);
    let lists = asked.iter().filter(|event| event.resource == "clusterrolebindings" && event.verb == "list").count();
    assert_eq!(lists, usize::from(has_more));

    let blind = Instance::new(&namespace_parent(cp, &namespace).with_server(&proxy.server()), &namespace);
    let ran = provision_into(&blind, "artifact.json");
    let perhaps: &[_] = if has_more { &[("excess", "low")] } else { &[] };
    expect(&ran, &[perhaps, &[("local-address", "low")]].concat());
    assert_eq!(ran.document()["proof"]["excess"].as_array().unwrap().len(), if has_more { 3 } else { 0 });
    assert_eq!(message_and_help(&ran, "excess").contains("may be a default of this version"), has_more);
    let params = blind.path("params.json");
    expect(&verify(&blind, "artifact.json", &["--params", params.to_str().unwrap()]), perhaps);
}

#[test]
fn hidden_server_version_allows_all_known_defaults() {
    let cp = ControlPlane::shared();
    let proxy = InterceptingProxy::start(cp, |request| match request.path.as_str() {
        "/version" => Verdict::refusal(403, "Forbidden", "no"),
        _ => Verdict::Forward,
    });
    let namespace = cp.namespace("hidden");
    let instance = Instance::new(&namespace_parent(cp, &namespace).with_server(&proxy.server()), &namespace);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert_eq!((&ran.document()["server_version"], &findings(&ran)), (&Value::Null, &vec![]));
}

/// On a control plane of its own, because a permission of every user would affect other tests.
#[test]
fn added_permission_of_all_users_is_excess() {
    let cp: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(&Options::default()).unwrap()));
    let namespace = cp.namespace("planted");
    let list_secrets = rule(&[""], &["secrets"], &["list"]);
    let tuple = json!({"verb": "list", "group": "", "resource": "secrets", "name": null, "namespace": null});
    let newer = as_version(cp, "v1.99.0");
    let everyone = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}]);
    let labels = json!({LABEL: "rbac-defaults"});
    let wide = cp.persona("wide", &[Grant::cluster_role("cluster-admin")]);
    let judged = |what: &str, words: &str, tuple: &Value| {
        for (parent, named) in [(wide.clone(), true), (namespace_parent(cp, &namespace), false)] {
            for parent in [parent.clone(), parent.with_server(&newer.server())] {
                let ran = Instance::new(&parent, &namespace).ask("provision", &[]).expect_code(0);
                let excess = ran.document()["proof"]["excess"].clone();
                assert!(excess.as_array().unwrap().contains(tuple), "{what}: {excess:#}");
                let mut high = findings(&ran);
                high.retain(|(_, severity)| severity == "high");
                assert_eq!(high, [("excess".to_owned(), "high".to_owned())], "{what}: {}", ran.stderr);
                assert!(
                    !named || message_and_help(&ran, "excess").contains(words),
                    "{what}: {}",
                    message_and_help(&ran, "excess")
                );
            }
        }
    };
    // The server's caches are updated a moment later.
    let settled = |path: &str, allowed: bool| {
        let question = json!({"spec": {
            "user": "somebody", "groups": ["system:authenticated"],
            "resourceAttributes": {"verb": "list", "resource": "secrets"},
        }});
        testbed::eventually(path, || {
            let answer = cp.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &question);
            (answer["status"]["allowed"] == allowed).then_some(())
        });
    };

    let basic = format!("{RBAC}/clusterroles/system:basic-user");
    let mut altered = cp.get(&basic).unwrap();
    let original = altered["rules"].clone();
    altered["rules"].as_array_mut().unwrap().push(list_secrets.clone());
    cp.merge_patch(&basic, &json!({"rules": altered["rules"]}));
    settled("the altered role", true);
    judged("an altered role", "system:basic-user", &tuple);
    cp.merge_patch(&basic, &json!({"rules": original, "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}}));
    settled("the restored role", false);
    let ran = Instance::new(&wide, &namespace).ask("provision", &[]).expect_code(0);
    assert_eq!(findings(&ran), [], "a role that the server does not reconcile, with the same permissions");

    let forged = json!({"metadata": {"name": "system:forged", "labels": labels}, "rules": [list_secrets]});
    cp.post(&format!("{RBAC}/clusterroles"), &forged);
    let bind = |name: &str, role: &str, labels: &Value| {
        let body = json!({
            "metadata": {"name": name, "labels": labels}, "subjects": everyone,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        });
        cp.post(&format!("{RBAC}/clusterrolebindings"), &body)
    };
    bind("system:forged", "system:forged", &labels);
    settled("the forged binding", true);
    judged("a role and a binding that carry the label and are not the server's", "system:forged", &tuple);
    cp.delete(&format!("{RBAC}/clusterrolebindings/system:forged"));
    settled("the deleted binding", false);

    bind("ours", "cluster-admin", &json!({}));
    settled("the binding", true);
    let everything = json!({"verb": "*", "group": "*", "resource": "*", "name": null, "namespace": null});
    judged("an own binding of everybody to cluster-admin", "look for bindings", &everything);
    cp.delete(&format!("{RBAC}/clusterrolebindings/ours"));
    settled("the deleted binding", false);

    let stock = format!("{RBAC}/clusterrolebindings/cluster-admin");
    let mut subjects = cp.get(&stock).unwrap()["subjects"].clone();
    subjects.as_array_mut().unwrap().extend(everyone.as_array().unwrap().clone());
    cp.merge_patch(&stock, &json!({"subjects": subjects}));
    settled("the altered binding", true);
    judged("a binding of the server with one more subject", "ClusterRoleBinding cluster-admin", &everything);
}

// Authorizers that allow everything.

/// The options of an API server with these authorizers.
fn authorized_by(modes: &str, directory: &std::path::Path) -> Options {
    let mut arguments = Vec::new();
    if modes.contains("ABAC") {
        let policy = directory.join("policy.jsonl");
        let anybody = json!({
            "apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
            "spec": {"group": "system:authenticated", "namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*"},
        });
        fs::write(&policy, anybody.to_string()).unwrap();
        arguments.push(format!("--authorization-policy-file={}", policy.display()));
    }
    if modes.contains("Webhook") {
        let allowed = json!({"allowed": true, "reason": "everybody may"});
        arguments.extend(testbed::authorizer(directory, &allowed));
    }
    Options { authorization_mode: Some(modes.to_owned()), api_server_arguments: arguments, ..Options::default() }
}

/// plan detects it only where RBAC is not an authorizer: otherwise the parent may be an administrator by a binding.
#[rstest]
#[case::alone("AlwaysAllow", true)]
#[case::after_rbac("Node,RBAC,AlwaysAllow", false)]
#[case::by_a_policy("ABAC", true)]
#[case::by_a_webhook("Node,RBAC,Webhook", false)]
fn authorizer_that_allows_everything_is_unlimited(#[case] modes: &str, #[case] in_plan: bool) {
    let directory = tempfile::tempdir().unwrap();
    let cp = ControlPlane::start(&authorized_by(modes, directory.path())).unwrap();
    let namespace = cp.namespace("unlimited");
    let parent = cp.persona("parent", &[Grant::cluster_role_in(&namespace, "cluster-admin")]);
    let instance = Instance::new(&parent, &namespace);
    let unlimited = ("unlimited", "high");
    let plan = instance.ask("plan", &[]).expect_code(0);
    let seen = if in_plan { &[unlimited][..] } else { &[] };
    expect(&plan, &[seen, &[("local-address", "low")]].concat());
    let ran = provision_into(&instance, "artifact.json");
    expect(&ran, &[unlimited, ("local-address", "low")]);
    assert!(!ran.stderr.contains("other bindings"), "{}", ran.stderr);
    let params = instance.path("params.json");
    expect(&verify(&instance, "artifact.json", &["--params", params.to_str().unwrap()]), &[unlimited]);
    expect(&verify(&instance, "artifact.json", &[]), &[unlimited]);

    // Fewer permissions than before: the run does not wait for permissions that cannot disappear.
    let fewer = Instance::new(&parent, &namespace).rules(&json!([rule(&[""], &["pods"], &["get"])]));
    let ran = fewer.ask("provision", &[]).expect_code(0);
    expect(&ran, &[unlimited]);
    assert!(ran.duration().as_secs() < 5, "{:?}", ran.duration());
}

#[test]
fn cluster_admin_binding_is_excess_and_not_unlimited() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("admin");
    let instance = Instance::new(cp.admin(), &namespace);
    provision_into(&instance, "artifact.json");
    let body = json!({
        "metadata": {"name": namespace},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": format!("{NAME}-token")}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    });
    cp.post(&format!("{RBAC}/clusterrolebindings"), &body);
    testbed::eventually("the binding is effective", || {
        let token = crate::support::token_of(
            &serde_json::from_str(&fs::read_to_string(instance.path("artifact.json")).unwrap()).unwrap(),
        );
        (crate::support::status(cp, &token, "/api/v1/nodes") == 200).then_some(())
    });
    expect(&instance.ask("provision", &[]).expect_code(0), &[("excess", "high")]);
    let params = instance.path("params.json");
    expect(&verify(&instance, "artifact.json", &["--params", params.to_str().unwrap()]), &[("excess", "high")]);
    expect(&verify(&instance, "artifact.json", &[]), &[]);
}

// Addresses.

#[test]
fn loopback_address_in_published_credential_is_a_finding() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("local"));
    let local = ("local-address", "low");
    expect(&instance.ask("plan", &[]).expect_code(0), &[local]);
    expect(&instance.ask("provision", &[]).expect_code(0), &[]);
    expect(&provision_into(&instance, "artifact.json"), &[local]);
    expect(&instance.ask("provision", &["--publish"]).expect_code(0), &[("clear-text", "medium"), local]);
    let ran = instance.act("provision").expect_code(0);
    assert!(ran.stderr.contains("[local-address]") && ran.stderr.contains("[clear-text]"), "{}", ran.stderr);
    let ran = instance.ask("decommission", &["--publish"]).expect_code(0);
    expect(&ran, &[("clear-text", "medium")]);
}

#[test]
fn kubeconfig_proxy_is_a_finding() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "proxied");
    let far = "10.0.0.1:443";
    let proxy = ProxyServer::start(cp, ProxyOptions::default().way(far, cp.server()));
    let proxy = format!("http://{}", proxy.address());
    let mut cluster = cp.admin().connection()["authentication"]["cluster"].clone();
    cluster["server"] = json!(format!("https://{far}"));
    let user = &cp.admin().connection()["authentication"]["user"];
    desk.kubeconfig("without", &cluster, user);
    cluster["proxy-url"] = json!(proxy);
    desk.kubeconfig("with", &cluster, user);
    let output = desk.path("artifact.json");
    for (action, more) in [("plan", &[][..]), ("provision", &["--output", output.to_str().unwrap()])] {
        for (kubeconfig, told) in [("with", true), ("without", false)] {
            let mut command = desk.command(action, more);
            command.arg("--kubeconfig").arg(desk.path(kubeconfig));
            let ran = Ran::of(command.env("HTTPS_PROXY", &proxy)).expect_code(0);
            expect(&ran, if told { &[("proxy-needed", "medium")] } else { &[] });
        }
    }
}

/// The program as the platform starts it, with this URL and a cluster that does not exist.
fn at_platform(instance: &Instance, url: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = instance.command(arguments.first().copied().unwrap_or("provision"), &arguments[1..]);
    match url {
        Some(url) => command.env("MASSDRIVER_URL", url),
        None => command.env_remove("MASSDRIVER_URL"),
    };
    command
}

#[rstest]
fn plain_http_platform_over_a_network_is_refused(
    #[values(
        "http://api.massdriver.cloud",
        "HTTP://platform.example.com:8080/base",
        "http://10.0.0.1",
        "http://[fd00::1]",
        "http://167772161",
        "http://svc.example.com",
        "http://localhost.example.com"
    )]
    url: &str,
    #[values("provision", "decommission")] action: &str,
) {
    let cp = ControlPlane::shared();
    let parent = cp.persona("clear", &[]);
    let instance = Instance::new(&parent, "clear");
    let mark = cp.audit().mark();
    let ran = Ran::of(&mut at_platform(&instance, Some(url), &[action, "--publish"])).expect_code(65);
    expect(&ran, &[("connection", "high")]);
    let said = message_and_help(&ran, "connection");
    assert!(said.contains("MASSDRIVER_URL is http") && said.contains("https URL"), "{said}");
    assert!(cp.audit().of(&parent.user, mark).is_empty());
    let mut as_provisioner = binary();
    as_provisioner.current_dir(instance.directory.path()).envs(instance.environment());
    as_provisioner.env("MASSDRIVER_URL", url).env("MASSDRIVER_DEPLOYMENT_ACTION", action);
    assert!(Ran::of(&mut as_provisioner).expect_code(65).stderr.contains("unencrypted"));
}

#[test]
fn plain_http_platform_inside_cluster_is_a_finding() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("inside");
    for host in ["massdriver", "api.massdriver.svc", "api.massdriver.svc.cluster.local"] {
        let instance = Instance::new(cp.admin(), &namespace);
        let proxy = ProxyServer::start(cp, ProxyOptions::default().way(host, &instance.platform.url()));
        let url = format!("http://{host}");
        let mut command = at_platform(&instance, Some(&url), &["provision", "--publish"]);
        let ran = Ran::of(command.env("HTTP_PROXY", format!("http://{}", proxy.address()))).expect_code(0);
        expect(&ran, &[("clear-text", "medium"), ("local-address", "low")]);
        assert!(message_and_help(&ran, "clear-text").contains(&url));
        assert!(instance.platform.resource("token").is_some());
    }
}

#[rstest]
fn publishing_requires_the_platform_url(#[values("provision", "decommission")] action: &str) {
    let cp = ControlPlane::shared();
    let parent = cp.persona("url", &[]);
    let instance = Instance::new(&parent, "url");
    let mark = cp.audit().mark();
    let ran = Ran::of(&mut at_platform(&instance, None, &[action, "--publish"])).expect_code(65);
    expect(&ran, &[("environment-missing", "high")]);
    assert!(message_and_help(&ran, "environment-missing").contains("MASSDRIVER_URL is not set"));
    assert!(cp.audit().of(&parent.user, mark).is_empty());
}

// A connection that was pointed at another cluster.

/// For the program another cluster is one that contains nothing of the instance; a deleted namespace simulates it.
/// Platforms of an earlier era do not report the age of a record.
#[rstest]
#[case::with_record_age(Era::Dependencies, true)]
#[case::without_record_age(Era::Resources, false)]
fn published_record_without_its_credential_is_a_finding(#[case] era: Era, #[case] tells: bool) {
    let cp = ControlPlane::shared();
    let usual = [("clear-text", "medium"), ("local-address", "low")];
    let mut instance = Instance::of_era(cp.admin(), &cp.namespace("before"), era, Shape::Bare);
    instance.platform.report_record_ages();
    for _ in 0..2 {
        expect(&instance.ask("provision", &["--publish"]).expect_code(0), &usual);
    }
    let elsewhere = cp.namespace("after");
    instance.params["namespace"] = json!(elsewhere);
    instance.config = json!({});
    // Without the platform's id the first namespace cannot be found, as in another cluster.
    let provision = || {
        let mut command = instance.command("provision", &["--publish"]);
        Ran::of(command.env_remove("MASSDRIVER_ORGANIZATION_ID")).expect_code(0)
    };
    let ran = provision();
    expect(&ran, &if tells { vec![usual[0], ("cluster-changed", "medium"), usual[1]] } else { usual.to_vec() });
    assert_eq!(
        message_and_help(&ran, "cluster-changed").contains("decommission the earlier credential by hand"),
        tells
    );
    expect(&provision(), &usual);
}
