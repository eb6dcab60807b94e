//! Scopes: several namespaces, the whole cluster, foreign ClusterRoles; one ServiceAccount and one token.

use std::collections::BTreeSet;

use k8s_token::secret::Token;
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{AuditEvent, ControlPlane, Grant, Persona, eventually, rule};

use crate::support::{Instance, NAME, OBJECT, changes, codes, paths, status, versions};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const INVENTORY: &str = "k8s-token.massdriver.cloud/inventory";

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

fn parent(stem: &str) -> Persona {
    control_plane().persona(stem, &[Grant::cluster_role("cluster-admin")])
}

/// A rule on core resources, in these namespaces.
fn scoped(resources: &[&str], verbs: &[&str], namespaces: &[&str]) -> Value {
    json!({"apiGroups": [""], "resources": resources, "verbs": verbs, "namespaces": namespaces})
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// Every Role and binding of the instance in this home namespace, anywhere: `kind namespace/name`.
fn rbac_objects(home: &str) -> BTreeSet<String> {
    let cp = control_plane();
    let kinds = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
    let of_kind = |kind: &str| {
        let list = cp.get(&format!("{RBAC}/{kind}?labelSelector=app.kubernetes.io/managed-by=k8s-token")).unwrap();
        let items = list["items"].as_array().unwrap().clone();
        let ours = items
            .into_iter()
            .filter(|object| object["metadata"]["annotations"]["k8s-token.massdriver.cloud/namespace"] == home);
        let text = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or("").to_owned();
        let names = ours.map(|object| format!("{kind} {}/{}", text(&object, "namespace"), text(&object, "name")));
        names.collect::<Vec<_>>()
    };
    kinds.iter().flat_map(|kind| of_kind(kind)).collect()
}

/// Kinds and namespaces of these objects.
fn rbac_kinds(home: &str) -> Vec<String> {
    rbac_objects(home).iter().map(|object| object.rsplit_once('/').unwrap().0.to_owned()).collect()
}

fn inventory(namespace: &str) -> Option<Value> {
    let account = control_plane().get(&paths(namespace)[0]).unwrap();
    let text = account["metadata"]["annotations"].get(INVENTORY)?.as_str().unwrap().to_owned();
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn rule_applies_only_in_its_namespaces() {
    let cp = control_plane();
    let [home, there, elsewhere] = ["home", "there", "elsewhere"].map(|stem| cp.namespace(stem));
    let rules = json!([
        scoped(&["pods"], &["get", "list"], &[&there, &home]),
        scoped(&["configmaps"], &["list"], &[&there]),
        rule(&[""], &["services"], &["list"]),
    ]);
    let instance = Instance::new(cp.admin(), &home).rules(&rules);
    let artifact = instance.provision();
    assert_eq!(artifact["namespace"], home, "the default is the instance's own namespace");
    let token = crate::support::token_of(&artifact);
    let core = |namespace: &str, resource: &str| format!("/api/v1/namespaces/{namespace}/{resource}");
    let get = |namespace: &str, resource: &str| status(cp, &token, &core(namespace, resource));
    for (namespace, resource, expected) in [
        (&home, "pods", 200),
        (&home, "services", 200),
        (&home, "configmaps", 403),
        (&there, "pods", 200),
        (&there, "services", 403),
        (&there, "configmaps", 200),
        (&elsewhere, "pods", 403),
        (&elsewhere, "services", 403),
        (&elsewhere, "configmaps", 403),
    ] {
        assert_eq!(get(namespace, resource), expected, "{resource} in {namespace}");
    }
    let mut expected: Vec<String> =
        [&home, &there].into_iter().flat_map(|ns| [format!("rolebindings {ns}"), format!("roles {ns}")]).collect();
    expected.sort();
    assert_eq!(rbac_kinds(&home), expected, "one Role for each scope, for any number of rules");
    let mut places = [&home, &there];
    places.sort();
    assert_eq!(inventory(&home), Some(json!({"rules": places})));
    instance.act("decommission").expect_code(0);
    assert!(rbac_objects(&home).is_empty());
    assert_eq!(status(cp, &token, "/api"), 401);
}

#[test]
fn star_grants_the_whole_cluster_and_nonresource_urls() {
    let cp = control_plane();
    let home = cp.namespace("star");
    let url = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"]});
    let instance = Instance::new(cp.admin(), &home).rules(&json!([scoped(&["nodes", "pods"], &["list"], &["*"]), url]));
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    let token = crate::support::token_of(&instance.platform.resource("token").unwrap());
    for path in ["/api/v1/nodes", "/api/v1/pods", &pods(&home), &pods("kube-system"), "/metrics"] {
        assert_eq!(status(cp, &token, path), 200, "{path}");
    }
    for path in ["/api/v1/secrets", "/metrics/slis", "/debug/pprof/"] {
        assert_eq!(status(cp, &token, path), 403, "{path}");
    }
    assert_eq!(rbac_kinds(&home), ["clusterrolebindings ", "clusterroles "], "no Role without rules, at home neither");
    assert_eq!(inventory(&home), Some(json!({"rules": ["*"]})));
    assert_eq!(document["proof"]["allowed"], 3);
    assert_eq!(document["proof"]["excess"], json!([]));
    let widened = document["permissions"]["widened"].as_array().unwrap();
    assert!(widened.contains(&json!({"verb": "get", "url": "/metrics"})), "{widened:?}");
    let nodes = json!({"verb": "list", "group": "", "resource": "nodes", "name": null, "namespace": null});
    assert!(widened.contains(&nodes), "{widened:?}");
    let again = instance.ask("provision", &[]).expect_code(0).document();
    assert!(changes(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
    instance.act("decommission").expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[rstest]
#[case::home_namespace_by_default(None, "home", "rolebindings")]
#[case::in_another_namespace(Some("there"), "there", "rolebindings")]
#[case::in_the_whole_cluster(Some("*"), "*", "clusterrolebindings")]
fn existing_cluster_role_is_bound_in_requested_scope(
    #[case] asked: Option<&str>,
    #[case] granted: &str,
    #[case] kind: &str,
) {
    let cp = control_plane();
    let [home, there] = ["bound", "boundthere"].map(|stem| cp.namespace(stem));
    let place = |text: &str| match text {
        "home" => home.clone(),
        "there" => there.clone(),
        other => other.to_owned(),
    };
    let mut role = json!({"name": "view"});
    if let Some(asked) = asked {
        role["namespaces"] = json!([place(asked)]);
    }
    let mut instance = Instance::new(cp.admin(), &home);
    instance.params.as_object_mut().unwrap().remove("rules");
    instance.params["cluster_roles"] = json!([role]);
    let token = instance.token();
    let covers = |namespace: &str| ["*", namespace].contains(&place(granted).as_str());
    for namespace in [&home, &there, "kube-system"] {
        assert_eq!(status(cp, &token, &pods(namespace)), if covers(namespace) { 200 } else { 403 }, "{namespace}");
        assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/secrets")), 403, "{namespace}");
    }
    let scope = if granted == "*" { String::new() } else { place(granted) };
    assert_eq!(rbac_kinds(&home), [format!("{kind} {scope}")], "a binding, and no Role of the instance");
    assert_eq!(inventory(&home), Some(json!({"cluster_roles": {"view": [place(granted)]}})));
    instance.act("decommission").expect_code(0);
    assert!(rbac_objects(&home).is_empty());
    assert!(cp.get(&format!("{RBAC}/clusterroles/view")).is_some(), "foreign ClusterRoles are kept");
}

#[test]
fn unusual_cluster_role_names_are_accepted() {
    let cp = control_plane();
    let home = cp.namespace("odd");
    let name = format!("{home}: what? #1 & <more>");
    let rules = [rule(&[""], &["pods"], &["list"])];
    cp.post(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": name}, "rules": rules}));
    let mut instance = Instance::new(cp.admin(), &home).rules(&json!([]));
    instance.params["cluster_roles"] = json!([{"name": name}, {"name": name, "namespaces": [home]}]);
    assert_eq!(status(cp, &instance.token(), &pods(&home)), 200);
    assert_eq!(rbac_kinds(&home).len(), 1, "a duplicate scope counts once");
    instance.act("decommission").expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn simple_params_create_four_objects() {
    let (cp, parent) = (control_plane(), parent("simple"));
    let home = cp.namespace("simple");
    let instance = Instance::new(&parent, &home);
    let mark = cp.audit().mark();
    instance.provision();
    assert_eq!(
        rbac_objects(&home),
        BTreeSet::from(["roles", "rolebindings"].map(|kind| format!("{kind} {home}/{OBJECT}")))
    );
    let account = cp.get(&paths(&home)[0]).unwrap();
    let annotations: Vec<&String> = account["metadata"]["annotations"].as_object().unwrap().keys().collect();
    let ours =
        ["instance", "name", "namespace", "token-generation"].map(|key| format!("k8s-token.massdriver.cloud/{key}"));
    assert_eq!(annotations, ours.iter().collect::<Vec<_>>(), "no inventory: the home namespace is implied");
    // Equivalent rules, in the format that a form sends.
    let mut same = Instance::new(&parent, &home).rules(&json!([scoped(&["pods"], &["get", "list"], &[&home])]));
    same.params["cluster_roles"] = json!([]);
    let document = same.ask("provision", &[]).expect_code(0).document();
    assert!(changes(&document).iter().all(|(action, _)| action == "unchanged"), "{document:#}");
    let lists = cp.audit().of(&parent.user, mark).into_iter().filter(|event| event.verb == "list");
    let searched = lists.filter(|event| event.resource.contains("role"));
    assert_eq!(searched.count(), 0, "the inventory lists the scopes");
}

#[rstest]
fn missing_namespaces_and_cluster_roles_are_reported(
    #[values("plan", "provision")] action: &str,
    #[values(false, true)] deployed: bool,
) {
    let cp = control_plane();
    let home = cp.namespace("notthere");
    let [absent, other] = ["absent", "absenttoo"].map(|stem| cp.unused_namespace(stem));
    let plain = Instance::new(cp.admin(), &home);
    if deployed {
        plain.provision();
    }
    let before = (versions(cp, &home), rbac_objects(&home));
    let wrong = |params: &[(&str, Value)]| {
        let mut instance = Instance::new(cp.admin(), &home);
        for (key, value) in params {
            instance.params[*key] = value.clone();
        }
        instance.ask(action, &[]).expect_code(1).document()
    };
    let document = wrong(&[("rules", json!([scoped(&["pods"], &["get", "watch"], &[&home, &absent, &other])]))]);
    assert_eq!(document["error"]["code"], "namespace-absent");
    let said = document.to_string();
    assert!(said.contains(&absent) && said.contains(&other), "both are named: {document:#}");
    let document = wrong(&[("cluster_roles", json!([{"name": "no-such-role"}, {"name": "view"}]))]);
    assert_eq!(document["error"]["code"], "cluster-role-absent");
    assert_eq!(document["error"]["object"], "ClusterRole no-such-role");
    assert_eq!(codes(&document), ["risk-r30", "cluster-role-absent"], "view is judged");
    assert_eq!(document["error"]["state"], "nothing was changed");
    assert_eq!((versions(cp, &home), rbac_objects(&home)), before);
    for namespace in [absent, other] {
        assert_eq!(cp.get(&format!("/api/v1/namespaces/{namespace}")), None, "only the instance's own is created");
    }
}

#[test]
fn unreadable_missing_namespace_is_reported_before_writing() {
    let cp = control_plane();
    let (home, absent) = (cp.namespace("hidden"), cp.unused_namespace("hidden"));
    let own = ["get", "create", "patch", "delete"];
    let rules = [
        rule(&[""], &["serviceaccounts", "secrets"], &own),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own),
        rule(&[""], &["pods"], &["get"]),
    ];
    let parent = cp.persona("hidden", &[Grant::everywhere(&rules)]);
    let instance = Instance::new(&parent, &home).rules(&json!([scoped(&["pods"], &["get"], &[&home, &absent])]));
    let document = instance.ask("provision", &[]).expect_code(1).document();
    assert_eq!(document["error"]["code"], "namespace-absent");
    assert!(document["error"]["object"].as_str().unwrap().contains(&absent), "{document:#}");
    assert!(versions(cp, &home).is_empty());
}

#[test]
fn proof_follows_changes_of_an_aggregated_cluster_role() {
    let (cp, parent) = (control_plane(), parent("living"));
    let home = cp.namespace("living");
    let (whole, part) = (format!("{home}-whole"), format!("{home}-part"));
    let labels = json!({format!("aggregate/{home}"): "true"});
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
    cp.post(&format!("{RBAC}/clusterroles"), &role(&part, json!([rule(&[""], &["pods"], &["list"])])));
    let aggregated = json!({"metadata": {"name": whole}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": labels}]}});
    cp.post(&format!("{RBAC}/clusterroles"), &aggregated);
    let filled = |count: usize| {
        eventually("the controller has aggregated", || {
            let role = cp.get(&format!("{RBAC}/clusterroles/{whole}"))?;
            (role["rules"][0]["resources"].as_array()?.len() == count).then_some(())
        });
    };
    filled(1);
    let mut instance = Instance::new(&parent, &home);
    instance.params["rules"] = json!([]);
    instance.params["cluster_roles"] = json!([{"name": whole}]);
    let first = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert_eq!((&first["proof"]["allowed"], &first["proof"]["excess"]), (&json!(1), &json!([])));

    let changed = json!({"rules": [rule(&[""], &["pods", "services"], &["list"])]});
    cp.merge_patch(&format!("{RBAC}/clusterroles/{part}"), &changed);
    filled(2);
    let mark = cp.audit().mark();
    let second = instance.ask("provision", &[]).expect_code(0).document();
    assert_eq!((&second["proof"]["allowed"], &second["proof"]["excess"]), (&json!(2), &json!([])));
    assert_eq!(second["permissions"], json!({"widened": [], "narrowed": [], "unchanged": 2}));
    assert!(!cp.audit().of(&parent.user, mark).iter().any(testbed::AuditEvent::is_write));

    cp.delete(&format!("{RBAC}/clusterroles/{whole}"));
    let third = instance.ask("provision", &[]).expect_code(1).document();
    assert_eq!(third["error"]["code"], "cluster-role-absent");
    assert!(
        !cp.audit().of(&parent.user, mark).iter().any(testbed::AuditEvent::is_write),
        "nothing is created or deleted"
    );
    instance.act("decommission").expect_code(0);
    assert!(rbac_objects(&home).is_empty());
    cp.delete(&format!("{RBAC}/clusterroles/{part}"));
}

#[test]
fn same_name_in_two_namespaces_is_independent() {
    let cp = control_plane();
    let [one, other, shared] = ["namesake", "namesake", "shared"].map(|stem| cp.namespace(stem));
    let ask = |home: &str, resource: &str| {
        let mut instance = Instance::new(cp.admin(), home)
            .rules(&json!([scoped(&[resource], &["list"], &["*"]), scoped(&["services"], &["list"], &[&shared])]));
        instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": [shared]}]);
        instance
    };
    let (first, second) = (ask(&one, "nodes"), ask(&other, "secrets"));
    let (first_token, second_token) = (first.token(), second.token());
    let (mine, yours) = (rbac_objects(&one), rbac_objects(&other));
    assert_eq!((mine.len(), yours.len()), (5, 5));
    assert!(mine.is_disjoint(&yours), "{mine:?} {yours:?}");
    assert_eq!(status(cp, &first_token, "/api/v1/nodes"), 200);
    assert_eq!(status(cp, &first_token, "/api/v1/secrets"), 403);
    first.act("decommission").expect_code(0);
    assert!(rbac_objects(&one).is_empty());
    assert_eq!(rbac_objects(&other), yours, "objects of the other instance are kept");
    assert_eq!(status(cp, &second_token, "/api/v1/secrets"), 200);
    assert_eq!(status(cp, &second_token, &pods(&shared)), 200);
    second.act("decommission").expect_code(0);
    assert!(rbac_objects(&other).is_empty());
}

#[test]
fn longest_name_fits_every_object() {
    let cp = control_plane();
    let [home, there] = ["long", "longthere"].map(|stem| cp.namespace(stem));
    let mut instance = Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&there])]));
    instance.params["md_metadata"]["name_prefix"] = json!("n".repeat(236));
    instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": ["*"]}]);
    instance.provision();
    let objects = rbac_objects(&home);
    assert_eq!(objects.len(), 3);
    instance.provision();
    assert_eq!(rbac_objects(&home), objects);
    instance.act("decommission").expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn every_object_carries_ownership_labels() {
    let cp = control_plane();
    let [home, there] = ["whose", "whosethere"].map(|stem| cp.namespace(stem));
    let rules = json!([scoped(&["pods"], &["list"], &[&home, &there]), scoped(&["nodes"], &["list"], &["*"])]);
    let mut instance = Instance::new(cp.admin(), &home).rules(&rules);
    instance.params["cluster_roles"] =
        json!([{"name": "view", "namespaces": [home, there]}, {"name": "view", "namespaces": ["*"]}]);
    instance.provision();
    let check = |project: &str| {
        let objects = rbac_objects(&home);
        assert_eq!(objects.len(), 9);
        for object in objects {
            let (kind, name) = object.split_once(' ').unwrap();
            let (namespace, name) = name.split_once('/').unwrap();
            let path = match namespace {
                "" => format!("{RBAC}/{kind}/{name}"),
                namespace => format!("{RBAC}/namespaces/{namespace}/{kind}/{name}"),
            };
            let found = cp.get(&path).unwrap();
            let labels = json!({
                "app.kubernetes.io/managed-by": "k8s-token", "app.kubernetes.io/deployed-with": "massdriver.cloud",
                "managed-by": "massdriver", "md-project": project,
            });
            assert_eq!(found["metadata"]["labels"], labels, "{path}");
            let annotations = json!({
                "k8s-token.massdriver.cloud/name": NAME, "k8s-token.massdriver.cloud/namespace": home,
            });
            assert_eq!(found["metadata"]["annotations"], annotations, "{path}");
            if let Some(subjects) = found.get("subjects") {
                assert_eq!(*subjects, json!([{"kind": "ServiceAccount", "name": OBJECT, "namespace": home}]), "{path}");
            }
        }
    };
    check("ecomm");
    instance.params["md_metadata"]["default_tags"]["md-project"] = json!("other");
    instance.provision();
    check("other");
    instance.act("decommission").expect_code(0);
}

#[test]
fn plan_lists_scopes_in_a_readable_order() {
    let parent = parent("order");
    let cp = control_plane();
    let mut namespaces = ["order", "order", "order"].map(|stem| cp.namespace(stem));
    namespaces.sort();
    let [early, home, late] = namespaces;
    let rules = json!([scoped(&["nodes"], &["list"], &["*"]), scoped(&["pods"], &["list"], &[&late, &home, &early])]);
    let instance = Instance::new(&parent, &home).rules(&rules);
    let mark = cp.audit().mark();
    let places = |document: &Value| -> Vec<String> {
        let text = |change: &Value, key: &str| change[key].as_str().unwrap_or("*").to_owned();
        let changes = document["changes"].as_array().unwrap();
        changes.iter().map(|change| format!("{} {}", text(change, "kind"), text(change, "namespace"))).collect()
    };
    let planned = places(&instance.ask("plan", &["--detailed-exitcode"]).expect_code(2).document());
    assert!(!cp.audit().of(&parent.user, mark).iter().any(testbed::AuditEvent::is_write));
    let at = |kind: &str, namespace: &str| format!("{kind} {namespace}");
    let expected = [
        at("ServiceAccount", &home),
        at("Role", &home),
        at("RoleBinding", &home),
        at("Secret", &home),
        at("Role", &early),
        at("RoleBinding", &early),
        at("Role", &late),
        at("RoleBinding", &late),
        at("ClusterRole", "*"),
        at("ClusterRoleBinding", "*"),
    ];
    assert_eq!(planned, expected);
    let made = instance.ask("provision", &[]).expect_code(0).document();
    assert_eq!(places(&made), expected, "provision lists the changes in the same order");

    let less = Instance::new(&parent, &home);
    let plan = less.ask("plan", &["--detailed-exitcode"]).expect_code(2);
    let document = plan.document();
    let deleted: Vec<String> =
        changes(&document).into_iter().filter(|(action, _)| action == "delete").map(|(_, kind)| kind).collect();
    assert_eq!(deleted, ["Role", "RoleBinding", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]);
    assert_eq!(
        document["changes"][0]["fields"],
        json!([format!("/metadata/annotations/{}", INVENTORY.replace('/', "~1"))])
    );
    assert!(plan.stderr.contains("delete"), "{}", plan.stderr);
    less.ask("provision", &[]).expect_code(0);
    assert_eq!(rbac_objects(&home).len(), 2);
    assert_eq!(inventory(&home), None);
    less.act("decommission").expect_code(0);
}

#[test]
fn narrowing_cluster_scope_to_namespace_reports_removed_permissions() {
    let cp = control_plane();
    let [home, there] = ["narrow", "narrowthere"].map(|stem| cp.namespace(stem));
    let at =
        |namespace: &str| Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[namespace])]));
    let everywhere = json!({"verb": "list", "group": "", "resource": "pods", "name": null, "namespace": null});
    let token = at("*").token();
    for action in ["plan", "provision"] {
        let document = at(&there).ask(action, &[]).expect_code(0).document();
        let expected = json!({"widened": [], "narrowed": [everywhere], "unchanged": 1});
        assert_eq!(document["permissions"], expected, "{action}");
    }
    assert_eq!((status(cp, &token, &pods(&there)), status(cp, &token, &pods(&home))), (200, 403));
    let document = at("*").ask("provision", &[]).expect_code(0).document();
    assert_eq!(document["permissions"], json!({"widened": [everywhere], "narrowed": [], "unchanged": 0}));
    at("*").act("decommission").expect_code(0);
}

#[rstest]
fn missing_permissions_are_listed_per_namespace(#[values("plan", "provision")] action: &str) {
    let cp = control_plane();
    let [home, yes, no] = ["some", "someyes", "someno"].map(|stem| cp.namespace(stem));
    let own = ["get", "create", "patch", "delete"];
    let manage = [
        rule(&[""], &["serviceaccounts", "secrets"], &own),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own),
        rule(&[""], &["pods"], &["list"]),
    ];
    let look = [rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own)];
    let grants =
        [Grant::in_namespace(&home, &manage), Grant::in_namespace(&yes, &manage), Grant::in_namespace(&no, &look)];
    let parent = cp.persona("some", &grants);
    let ask =
        |namespaces: &[&str]| Instance::new(&parent, &home).rules(&json!([scoped(&["pods"], &["list"], namespaces)]));
    let document = ask(&[&home, &yes, &no]).ask(action, &[]).expect_code(77).document();
    assert_eq!(document["error"]["code"], "escalation");
    let tuple = |namespace: Value| json!({"verb": "list", "group": "", "resource": "pods", "name": null, "namespace": namespace});
    assert_eq!(document["missing_permissions"], json!([tuple(json!(no))]), "the missing permissions, by namespace");
    let document = ask(&["*"]).ask(action, &[]).expect_code(77).document();
    let missing = document["missing_permissions"].as_array().unwrap();
    assert!(missing.iter().all(|tuple| tuple["namespace"].is_null()), "{missing:?}");
    assert!(missing.iter().any(|tuple| tuple["resource"] == "clusterrolebindings"), "{missing:?}");
    assert!(versions(cp, &home).is_empty() && rbac_objects(&home).is_empty());

    ask(&[&home, &yes]).ask(action, &[]).expect_code(0);
    ask(&[&home, &yes]).ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn binding_a_cluster_role_requires_get_and_bind() {
    let cp = control_plane();
    let home = cp.namespace("binder");
    let own = ["get", "create", "patch", "delete"];
    let rbac = "rbac.authorization.k8s.io";
    let named = |verb: &str| json!({"apiGroups": [rbac], "resources": ["clusterroles"], "verbs": [verb], "resourceNames": ["view"]});
    // No permission on Roles: the instance has none.
    let mut rules = vec![rule(&[""], &["serviceaccounts", "secrets"], &own), rule(&[rbac], &["rolebindings"], &own)];
    let ask = |stem: &str, rules: &[Value], sees: bool| {
        let mut grants = vec![Grant::in_namespace(&home, rules)];
        grants.extend(sees.then(|| Grant::everywhere(&[named("get")])));
        let mut instance = Instance::new(&cp.persona(stem, &grants), &home).rules(&json!([]));
        instance.params["cluster_roles"] = json!([{"name": "view"}]);
        instance
    };
    let document = ask("bindblind", &rules, false).ask("provision", &[]).expect_code(77).document();
    let tuple = json!({"verb": "get", "group": rbac, "resource": "clusterroles", "name": "view", "namespace": null});
    assert!(document["missing_permissions"].as_array().unwrap().contains(&tuple), "{document:#}");
    let document = ask("bindnot", &rules, true).ask("provision", &[]).expect_code(77).document();
    assert_eq!(document["error"]["code"], "escalation");
    let missing = document["missing_permissions"].as_array().unwrap();
    assert!(missing.len() > 10 && missing.iter().all(|tuple| tuple["namespace"] == home), "all of view, here");
    assert!(versions(cp, &home).is_empty());
    rules.push(named("bind"));
    let binder = ask("bind", &rules, true);
    binder.ask("plan", &[]).expect_code(0);
    assert_eq!(status(cp, &binder.token(), &pods(&home)), 200);
    let again = binder.ask("provision", &[]).expect_code(0).document();
    assert_eq!(codes(&again), ["risk-r30"], "no mention of a Role that never existed");
    binder.ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn more_places_than_the_inventory_holds_are_refused() {
    let cp = control_plane();
    let home = cp.namespace("toomany");
    let namespaces: Vec<String> =
        (0..3000).map(|number| format!("a-namespace-with-quite-a-long-name-{number}")).collect();
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let instance = Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &namespaces)]));
    let document = instance.ask("plan", &[]).expect_code(65).document();
    assert_eq!(codes(&document), ["schema"]);
    assert!(document["findings"][0]["message"].as_str().unwrap().contains("too many namespaces"), "{document:#}");
    assert_eq!(document["requests"], 0);
}

#[test]
fn inaccessible_namespace_does_not_block_later_runs() {
    let cp = control_plane();
    let [home, lost] = ["lost", "lostthere"].map(|stem| cp.namespace(stem));
    let own = ["get", "create", "patch", "delete"];
    let manage = [
        rule(&[""], &["serviceaccounts", "secrets"], &own),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own),
        rule(&[""], &["pods"], &["get", "list"]),
    ];
    let admin = Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &lost])]));
    let token = admin.token();
    let both = inventory(&home);
    for (stem, there) in [
        ("lostall", vec![]),
        ("lostsome", vec![rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &["get"])]),
    ] {
        let mut grants = vec![Grant::in_namespace(&home, &manage)];
        grants.extend((!there.is_empty()).then(|| Grant::in_namespace(&lost, &there)));
        let parent = cp.persona(stem, &grants);
        let weak = Instance::new(&parent, &home);
        let before = cp.audit().mark();
        let document = weak.ask("provision", &[]).expect_code(0).document();
        let finding = document["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["code"] == "not-taken-back")
            .unwrap();
        assert_eq!(finding["severity"], "high");
        assert!(finding["message"].as_str().unwrap().contains(&lost), "{finding}");
        assert_eq!(inventory(&home), both, "the inventory keeps it");
        assert_eq!(status(cp, &token, &pods(&lost)), 200);
        let planned = weak.ask("plan", &["--detailed-exitcode"]).expect_code(0).document();
        assert!(changes(&planned).iter().all(|(action, _)| action == "unchanged"), "as a provision: {planned:#}");
        let verb = if stem == "lostsome" { "delete" } else { "get" };
        assert!(finding["message"].as_str().unwrap().contains(verb), "{finding}");
        if stem == "lostsome" {
            let again = weak.ask("provision", &[]).expect_code(0).document();
            assert!(codes(&again).contains(&"not-taken-back"));
            let wrote =
                cp.audit().of(&parent.user, before).into_iter().filter(|event| event.is_write() && event.code < 300);
            assert_eq!(wrote.count(), 0, "nothing changes from run to run");
            assert_eq!(again["permissions"]["narrowed"], json!([]), "held permissions are not reported as removed");
            assert_eq!(again["proof"]["excess"], json!([]), "and not as excess");
            assert!(again["duration_ms"].as_u64().unwrap() < 4000, "and the run does not wait for it: {again:#}");
        }

        if stem == "lostsome" {
            let document = weak.ask("decommission", &[]).expect_code(77).document();
            let missing = document["missing_permissions"].as_array().unwrap();
            assert!(!missing.is_empty() && missing.iter().all(|tuple| tuple["namespace"] == lost), "{missing:?}");
            assert!(codes(&document).contains(&"not-searched"), "{document:#}");
            assert_eq!(cp.get(&paths(&home)[3]), None);
            assert_eq!(status(cp, &token, "/api"), 401, "the token is rejected");
            assert!(cp.get(&paths(&home)[0]).is_some(), "the inventory contains the namespace");
            assert_eq!(inventory(&home), both);
            weak.ask("decommission", &[]).expect_code(77);
        }
    }
    admin.ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty());
    assert_eq!(cp.get(&paths(&home)[0]), None);
}

#[test]
fn deleted_namespace_is_reported_and_dropped_from_inventory() {
    let cp = control_plane();
    let [home, gone] = ["gone", "gonethere"].map(|stem| cp.namespace(stem));
    let wide = || Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &gone])]));
    wide().provision();
    cp.delete(&format!("/api/v1/namespaces/{gone}"));
    eventually("the namespace is deleted", || cp.get(&format!("/api/v1/namespaces/{gone}")).is_none().then_some(()));
    let document = wide().ask("provision", &[]).expect_code(1).document();
    assert_eq!(document["error"]["code"], "namespace-absent", "on a deployed instance too");
    let narrow = Instance::new(cp.admin(), &home);
    let document = narrow.ask("provision", &[]).expect_code(0).document();
    assert!(codes(&document).contains(&"namespace-gone"), "{document:#}");
    assert_eq!(inventory(&home), None);
    let again = narrow.ask("provision", &[]).expect_code(0).document();
    assert_eq!(codes(&again), Vec::<&str>::new());
    assert!(changes(&again).iter().all(|(action, _)| action == "unchanged"));
    narrow.act("decommission").expect_code(0);
}

#[test]
fn objects_missing_from_inventory_are_found_by_label() {
    let cp = control_plane();
    let [home, there] = ["forgot", "forgotthere"].map(|stem| cp.namespace(stem));
    let mut instance = Instance::new(cp.admin(), &home)
        .rules(&json!([scoped(&["pods"], &["list"], &[&there]), scoped(&["nodes"], &["list"], &["*"])]));
    instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": ["*"]}]);
    instance.provision();
    cp.delete(&paths(&home)[0]);
    assert_eq!(rbac_objects(&home).len(), 5);
    // The params do not name them any more, either.
    Instance::new(cp.admin(), &home).ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty());

    instance.provision();
    let broken = json!({"metadata": {"annotations": {INVENTORY: "{\"rules\":[\"../kube-system\", 7"}}});
    cp.merge_patch(&paths(&home)[0], &broken);
    let document = Instance::new(cp.admin(), &home).ask("provision", &[]).expect_code(0).document();
    assert!(codes(&document).contains(&"inventory-unreadable"), "{document:#}");
    assert_eq!(rbac_objects(&home).len(), 7, "without a search only the inventory leads to objects");
    Instance::new(cp.admin(), &home).ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn role_reduction_beyond_parents_permissions_is_refused() {
    let cp = control_plane();
    let [home, there] = ["shrink", "shrinkthere"].map(|stem| cp.namespace(stem));
    let own = ["get", "create", "patch", "delete"];
    let manage = |more: &[Value]| {
        let base = [
            rule(&[""], &["serviceaccounts", "secrets"], &own),
            rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own),
        ];
        [&base[..], more].concat()
    };
    let pods_and_maps = json!([scoped(&["pods", "configmaps"], &["list"], &[&home, &there])]);
    let token = Instance::new(cp.admin(), &home).rules(&pods_and_maps).token();
    let before = rbac_objects(&home);
    // The parent held pods when it granted them, and does not any more.
    let parent = cp.persona(
        "shrink",
        &[
            Grant::in_namespace(&home, &manage(&[rule(&[""], &["configmaps"], &["list"])])),
            Grant::in_namespace(&there, &manage(&[])),
        ],
    );
    let weak = |rules: Value| Instance::new(&parent, &home).rules(&rules);
    let shrunk = json!([scoped(&["configmaps"], &["list"], &[&home, &there])]);
    let snapshot = versions(cp, &home);
    for action in ["plan", "provision"] {
        let document = weak(shrunk.clone()).ask(action, &[]).expect_code(77).document();
        assert_eq!(document["error"]["code"], "escalation");
        let tuple = json!({"verb": "list", "group": "", "resource": "configmaps", "name": null, "namespace": there});
        assert_eq!(document["missing_permissions"], json!([tuple]));
        let next = document["error"]["next"].as_str().unwrap();
        assert!(next.contains("remove everything for that namespace") && next.contains("escalate"), "{next}");
        assert_eq!(document["error"]["state"], "nothing was changed");
    }
    assert_eq!((versions(cp, &home), rbac_objects(&home)), (snapshot, before));
    let dropped =
        weak(json!([scoped(&["configmaps"], &["list"], &[&home])])).ask("provision", &[]).expect_code(0).document();
    assert_eq!(dropped["proof"]["excess"], json!([]));
    assert_eq!(status(cp, &token, &pods(&there)), 403);
    assert_eq!(status(cp, &token, &pods(&home)), 403);
    assert_eq!(rbac_objects(&home).len(), 2);
    Instance::new(cp.admin(), &home).act("decommission").expect_code(0);
}

#[test]
fn role_is_replaced_in_one_write_if_necessary() {
    let cp = control_plane();
    let home = cp.namespace("atonce");
    let token =
        Instance::new(cp.admin(), &home).rules(&json!([rule(&[""], &["pods", "configmaps"], &["list"])])).token();
    let own = ["get", "create", "patch", "delete"];
    let rules = [
        rule(&[""], &["serviceaccounts", "secrets"], &own),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own),
        rule(&[""], &["configmaps", "services"], &["list"]),
    ];
    // The parent may grant the new rules but not the old ones: the union is refused.
    let parent = cp.persona("atonce", &[Grant::in_namespace(&home, &rules)]);
    let instance = Instance::new(&parent, &home).rules(&json!([rule(&[""], &["configmaps", "services"], &["list"])]));
    instance.ask("provision", &[]).expect_code(0);
    let core = |resource: &str| format!("/api/v1/namespaces/{home}/{resource}");
    for (resource, expected) in [("configmaps", 200), ("services", 200), ("pods", 403)] {
        assert_eq!(status(cp, &token, &core(resource)), expected, "{resource}");
    }
}

#[test]
fn cluster_wide_binding_of_namespaced_rule_is_excess() {
    let cp = control_plane();
    let home = cp.namespace("toowide");
    let name = format!("{home}-toowide");
    let subject = json!({"kind": "ServiceAccount", "name": OBJECT, "namespace": home});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]});
    cp.post(&format!("{RBAC}/clusterrolebindings"), &binding);
    let document = Instance::new(cp.admin(), &home).ask("provision", &[]).expect_code(0).document();
    let excess = document["proof"]["excess"].as_array().unwrap();
    for verb in ["get", "list"] {
        let tuple = json!({"verb": verb, "group": "", "resource": "pods", "name": null, "namespace": null});
        assert!(excess.contains(&tuple), "asked for in one namespace, held in all: {excess:?}");
    }
    assert!(excess.iter().all(|tuple| tuple["namespace"].is_null()), "reported once: {excess:?}");
    cp.delete(&format!("{RBAC}/clusterrolebindings/{name}"));
}

#[test]
fn fifty_namespaces_are_provisioned_in_parallel_without_throttling() {
    let (cp, parent) = (control_plane(), parent("fifty"));
    let home = cp.namespace("fifty");
    let namespaces: Vec<String> = (0..50).map(|_| cp.namespace("fifty")).collect();
    let rules: Vec<Value> = (0..200)
        .map(|number| json!({"apiGroups": ["example.com"], "resources": [format!("things{number}")], "verbs": ["get", "list"], "namespaces": namespaces}))
        .collect();
    let instance = Instance::new(&parent, &home).rules(&json!(rules));
    let mark = cp.audit().mark();
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert_eq!(document["proof"]["allowed"], 50 * 200 * 2);
    assert_eq!(rbac_objects(&home).len(), 100);
    let events = cp.audit().of(&parent.user, mark);
    assert!(events.iter().all(|event| event.code != 429), "no request is throttled");
    let writes = events.iter().filter(|event| event.is_write()).count();
    assert_eq!(writes, 2 + 100, "each object once");
    // For each namespace: the Namespace, Role, RoleBinding and the parent's permissions. In addition the
    // ServiceAccount, ServiceAccounts of the same name elsewhere, the parent's identity, and the discovery.
    // The list of ServiceAccounts is paged: the number of pages depends on other tests.
    let counts =
        |event: &&AuditEvent| !event.is_write() && event.resource != "secrets" && !event.uri.contains("continue=");
    let looks = events.iter().filter(counts).count();
    assert!(looks <= 50 * 4 + 9, "{looks} looks");
    let again = instance.ask("provision", &[]).expect_code(0).document();
    assert!(changes(&again).iter().all(|(action, _)| action == "unchanged"));
    instance.ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn role_binding_does_not_grant_nonresource_urls() {
    let cp = control_plane();
    let [home, there] = ["paths", "pathsthere"].map(|stem| cp.namespace(stem));
    let mut instance = Instance::new(cp.admin(), &home).rules(&json!([]));
    instance.params["cluster_roles"] = json!([{"name": "cluster-admin", "namespaces": [there]}]);
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    let everything = json!({"verb": "*", "group": "*", "resource": "*", "name": null, "namespace": there});
    assert_eq!(document["permissions"]["widened"], json!([everything]), "and no path");
    assert_eq!((&document["proof"]["allowed"], &document["proof"]["excess"]), (&json!(1), &json!([])));
    let token = crate::support::token_of(&instance.platform.resource("token").unwrap());
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{there}/secrets")), 200);
    assert_eq!(status(cp, &token, "/metrics"), 403);
    instance.params["cluster_roles"] = json!([{"name": "cluster-admin", "namespaces": ["*"]}]);
    let document = instance.ask("provision", &[]).expect_code(0).document();
    assert!(document["permissions"]["widened"].as_array().unwrap().contains(&json!({"verb": "*", "url": "*"})));
    assert_eq!(status(cp, &token, "/metrics"), 200);
    instance.act("decommission").expect_code(0);
}

/// The permissions that the parent of an instance in `home` needs, and may grant.
fn manage(more: &[Value]) -> Vec<Value> {
    let own = ["get", "create", "patch", "delete"];
    let base = [
        rule(&[""], &["serviceaccounts", "secrets"], &own),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &own),
    ];
    [&base[..], more].concat()
}

#[test]
fn permissions_in_deleted_namespace_are_not_required() {
    let cp = control_plane();
    let [home, gone] = ["goneright", "gonerightthere"].map(|stem| cp.namespace(stem));
    let list = rule(&[""], &["pods"], &["get", "list"]);
    let grants = [
        Grant::in_namespace(&home, &manage(std::slice::from_ref(&list))),
        Grant::in_namespace(&gone, &manage(&[list])),
        Grant::everywhere(&[rule(&[""], &["namespaces"], &["get"])]),
    ];
    let parent = cp.persona("goneright", &grants);
    let wide = || Instance::new(&parent, &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &gone])]));
    wide().provision();
    cp.delete(&format!("/api/v1/namespaces/{gone}"));
    eventually("the namespace is deleted", || cp.get(&format!("/api/v1/namespaces/{gone}")).is_none().then_some(()));
    let document = Instance::new(&parent, &home).ask("provision", &[]).expect_code(0).document();
    assert_eq!(codes(&document), ["namespace-gone"]);
    assert_eq!(inventory(&home), None);
    // The same for a decommission that comes first.
    cp.merge_patch(
        &paths(&home)[0],
        &json!({"metadata": {"annotations": {INVENTORY: json!({"rules": [home, gone]}).to_string()}}}),
    );
    let document = wide().ask("decommission", &[]).expect_code(0).document();
    assert!(codes(&document).contains(&"namespace-gone"), "{document:#}");
    assert_eq!(cp.get(&paths(&home)[0]), None);
}

#[test]
fn foreign_role_binding_in_another_namespace_is_kept() {
    let cp = control_plane();
    let [home, there] = ["theirs", "theirsthere"].map(|stem| cp.namespace(stem));
    let wide = || Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &there])]));
    wide().provision();
    let name = rbac_objects(&home).into_iter().find(|object| object.contains(&there)).unwrap();
    let name = name.rsplit_once('/').unwrap().1.to_owned();
    let path = format!("{RBAC}/namespaces/{there}/rolebindings/{name}");
    cp.merge_patch(&path, &json!({"metadata": {"annotations": {"k8s-token.massdriver.cloud/name": null}}}));
    for action in ["plan", "provision"] {
        let document = wide().ask(action, &[]).expect_code(73).document();
        assert_eq!(document["error"]["object"], format!("RoleBinding {there}/{name}"));
    }
    // The namespace is not requested any more: the foreign binding is kept, and so is its inventory entry.
    let narrow = Instance::new(cp.admin(), &home);
    for _ in 0..2 {
        let document = narrow.ask("provision", &[]).expect_code(0).document();
        let finding = &document["findings"][0];
        assert_eq!((&finding["code"], &finding["severity"]), (&json!("not-taken-back"), &json!("high")));
        assert!(cp.get(&path).is_some());
        assert!(inventory(&home).unwrap().to_string().contains(&there));
    }
    narrow.act("decommission").expect_code(0);
    assert!(cp.get(&path).is_some());
    cp.delete(&path);
}

#[test]
fn terminating_target_namespace_is_a_temporary_error() {
    let cp = control_plane();
    let [home, leaving] = ["stay", "leaving"].map(|stem| cp.namespace(stem));
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/held"]}});
    cp.post(&format!("/api/v1/namespaces/{leaving}/configmaps"), &held);
    cp.delete(&format!("/api/v1/namespaces/{leaving}"));
    let instance = Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &leaving])]));
    for action in ["plan", "provision"] {
        let document = instance.ask(action, &[]).expect_code(75).document();
        assert_eq!(document["error"]["code"], "namespace-terminating");
        assert_eq!(document["error"]["object"], format!("Namespace {leaving}"));
    }
    assert!(versions(cp, &home).is_empty());
    cp.merge_patch(
        &format!("/api/v1/namespaces/{leaving}/configmaps/held"),
        &json!({"metadata": {"finalizers": null}}),
    );
}

#[test]
fn undeletable_role_binding_does_not_keep_token_alive() {
    let cp = control_plane();
    let [home, protected] = ["policy", "policythere"].map(|stem| cp.namespace(stem));
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let wide = || Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &protected])]));
    let token = wide().token();
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": protected}});
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["rolebindings"]}]);
    let policy = json!({"metadata": {"name": home}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"namespaceSelector": here, "resourceRules": rules},
        "validations": [{"expression": "false", "message": "bindings stay"}],
    }});
    cp.post(&format!("{admission}/validatingadmissionpolicies"), &policy);
    let binding = json!({"metadata": {"name": home}, "spec": {"policyName": home, "validationActions": ["Deny"]}});
    cp.post(&format!("{admission}/validatingadmissionpolicybindings"), &binding);
    let throwaway = json!({"metadata": {"name": "try"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    let bindings = format!("{RBAC}/namespaces/{protected}/rolebindings");
    cp.post(&bindings, &throwaway);
    eventually("the policy is in force", || {
        let tried = cp.request("DELETE", &format!("{bindings}/try?dryRun=All"), Some(&cp.admin().token), None);
        (tried.status == 422 || tried.status == 403).then_some(())
    });

    let document = Instance::new(cp.admin(), &home).ask("provision", &[]).expect_code(0).document();
    assert_eq!(codes(&document), ["not-taken-back"]);
    assert!(document["findings"][0]["message"].as_str().unwrap().contains("bindings stay"), "{document:#}");
    let document = Instance::new(cp.admin(), &home).ask("decommission", &[]).expect_code(1).document();
    assert_eq!(document["error"]["code"], "refused");
    assert_eq!(status(cp, &token, "/api"), 401, "the token is rejected all the same");
    assert!(cp.get(&paths(&home)[0]).is_some(), "the inventory contains the namespace");
    cp.delete(&format!("{admission}/validatingadmissionpolicybindings/{home}"));
    cp.delete(&format!("{admission}/validatingadmissionpolicies/{home}"));
    eventually("running again finishes", || {
        (Instance::new(cp.admin(), &home).ask("decommission", &[]).code == 0).then_some(())
    });
    assert!(rbac_objects(&home).is_empty());
}

#[test]
fn unreadable_inventory_keeps_the_service_account() {
    let cp = control_plane();
    let [home, there] = ["unread", "unreadthere"].map(|stem| cp.namespace(stem));
    Instance::new(cp.admin(), &home).rules(&json!([scoped(&["pods"], &["list"], &[&home, &there])])).provision();
    cp.merge_patch(&paths(&home)[0], &json!({"metadata": {"annotations": {INVENTORY: "{\"rules\":[], \"more\":[]}"}}}));
    let list = rule(&[""], &["pods"], &["get", "list"]);
    let weak = cp.persona("unread", &[Grant::in_namespace(&home, &manage(&[list]))]);
    let document = Instance::new(&weak, &home).ask("decommission", &[]).expect_code(77).document();
    assert!(codes(&document).contains(&"inventory-unreadable"), "{document:#}");
    assert!(cp.get(&paths(&home)[0]).is_some());
    Instance::new(cp.admin(), &home).ask("decommission", &[]).expect_code(0);
    assert!(rbac_objects(&home).is_empty(), "a search by label finds them");
}

#[test]
fn temporary_bindings_in_inventory_are_deleted() {
    let cp = control_plane();
    for action in ["provision", "decommission"] {
        let home = cp.namespace("temporary");
        let list = rule(&[""], &["pods"], &["list"]);
        // The parent cannot search: only the inventory leads to the binding.
        let weak = cp.persona("temporary", &[Grant::in_namespace(&home, &manage(&[list]))]);
        let instance = Instance::new(&weak, &home).rules(&json!([scoped(&["pods"], &["list"], &[&home])]));
        instance.provision();
        let hash = Token::parse(&format!("{home}/{NAME}/Role/stand-in")).unwrap().fingerprint();
        let name = format!("{OBJECT}-{}", &hash["sha256:".len()..][..10]);
        let bindings = format!("{RBAC}/namespaces/{home}/rolebindings");
        let mut binding = cp.get(&format!("{bindings}/{OBJECT}")).unwrap();
        let metadata = binding["metadata"].take();
        binding["metadata"] =
            json!({"name": name, "labels": metadata["labels"], "annotations": metadata["annotations"]});
        cp.post(&bindings, &binding);
        let listed = json!({"rules": [home], "stand_ins": {"rules": [home]}}).to_string();
        cp.merge_patch(&paths(&home)[0], &json!({"metadata": {"annotations": {INVENTORY: listed}}}));
        instance.ask(action, &[]).expect_code(0);
        assert_eq!(cp.get(&format!("{bindings}/{name}")), None, "{action}");
    }
}
