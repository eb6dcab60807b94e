//! Adoption of instances of version 1.0.0, installed by real helm: the token keeps working, and the Helm release
//! Secrets with the parent credential are deleted.

use std::{fs, io::Write as _, path::Path, process::Command, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, Helm, HelmRelease, InterceptingProxy, Options, Original, Verdict, rule};

use crate::support::{
    Instance, NAME, Ran, changes, paths, status,
    stops::{Runner, Step, Stop, for_each_step, overlapping, recorded, spread, stopped, ten_at_once},
    token_of, versions,
};

const LABEL: &str = "kubernetes.io/legacy-token-last-used"; // of the server, on a token that was used
const TAKEN_OVER: &str = "k8s-token.massdriver.cloud/taken-over";

/// A control plane of its own: each run searches the whole cluster for its instance name, and these tests create
/// hundreds.
fn control_plane() -> &'static ControlPlane {
    static OWN: LazyLock<ControlPlane> =
        LazyLock::new(|| ControlPlane::start(&Options::default()).expect("a control plane"));
    &OWN
}

/// The same instance as version 1.0.0 would deploy it.
fn original<'a>(helm: &'static Helm, instance: &Instance) -> Original<'a> {
    Original::new(control_plane(), helm, &instance.params, &instance.connection)
}

fn instance(stem: &str) -> Instance {
    let cp = control_plane();
    Instance::new(cp.admin(), &cp.namespace(stem))
}

fn live_objects(namespace: &str) -> Vec<Value> {
    paths(namespace).iter().filter_map(|path| control_plane().get(path)).collect()
}

fn uids(namespace: &str) -> Vec<String> {
    versions(control_plane(), namespace).into_iter().map(|(uid, _)| uid).collect()
}

/// The token in the Secret, as soon as the token controller has written it.
fn token(namespace: &str) -> String {
    let path = &paths(namespace)[3];
    testbed::eventually("a token", || {
        let secret = control_plane().get(path)?;
        let token = STANDARD.decode(secret["data"]["token"].as_str()?).ok()?;
        String::from_utf8(token).ok()
    })
}

#[track_caller]
fn finding(ran: &Ran, code: &str) -> Option<Value> {
    ran.findings(code).into_iter().next()
}

/// After a refusal Helm continues with the next kind: it creates the token Secret of a ServiceAccount that was refused.
/// The token controller deletes such a Secret a moment later.
fn await_orphan_secret_deleted(namespace: &str) {
    let [account, _, _, secret] = &paths(namespace);
    testbed::eventually("a token Secret exists only with its ServiceAccount", || {
        let orphan = control_plane().get(secret).is_some() && control_plane().get(account).is_none();
        (!orphan).then_some(())
    });
}

/// The content of the release Secrets, unpacked; it includes the parent credential.
fn revisions(namespace: &str, release: &str) -> Vec<HelmRelease> {
    HelmRelease::all(control_plane(), namespace, release)
}

/// Histories of an instance of version 1.0.0.
type History = fn(&mut Original<'_>);

const HISTORIES: [(&str, History, usize); 6] = [
    ("installed", |original| drop(original.provision()), 1),
    (
        "upgraded",
        |original| {
            original.provision();
            original.params["md_metadata"]["default_tags"]["md-project"] = json!("renamed");
            original.params["rules"][0]["verbs"] = json!(["get"]);
            original.provision();
            original.params["rules"][0]["verbs"] = json!(["get", "list"]);
            original.provision();
        },
        3,
    ),
    (
        "an upgrade was refused",
        |original| {
            original.provision();
            original.failed_provision();
        },
        2,
    ),
    (
        "an upgrade was killed",
        |original| {
            original.provision();
            original.killed_provision();
        },
        2,
    ),
    ("the install was refused", |original| drop(original.failed_provision()), 1),
    ("the install was killed", |original| original.killed_provision(), 1),
];

#[rstest::rstest]
#[case(3)]
#[case(4)]
fn release_with_any_history_is_adopted(#[case] major: u8) {
    let helm = if major == 3 { Helm::v3() } else { Helm::v4() };
    std::thread::scope(|scope| {
        for (history, make, revisions) in HISTORIES {
            scope.spawn(move || expect_adoption(helm, history, make, revisions));
        }
    });
}

/// The same rules as before are adopted whatever the limit; with a further one nothing is touched.
#[test]
fn adoption_that_widens_above_a_limit_changes_nothing() {
    let mut instance = instance("guarded").rules(&json!([rule(&[""], &["secrets"], &["get"])]));
    let namespace = instance.namespace.clone();
    original(Helm::v4(), &instance).provision();
    let before = (token(&namespace), versions(control_plane(), &namespace));
    let same = instance.params["rules"].clone();
    instance.params["guardrails"] = json!({"max_risk": "low"});
    instance.params["rules"] = json!([same[0], rule(&[""], &["configmaps"], &["get"])]);
    instance.ask("provision", &[]).expect_code(78).expect_error("guardrail");
    assert_eq!((token(&namespace), versions(control_plane(), &namespace)), before);
    assert_eq!(revisions(&namespace, NAME).len(), 1);
    instance.params["rules"] = same;
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(finding(&ran, "adopt").is_some(), "{}", ran.stderr);
    assert_eq!((token(&namespace), revisions(&namespace, NAME).len()), (before.0, 0));
}

fn expect_adoption(helm: &'static Helm, history: &str, make: History, count: usize) {
    let cp = control_plane();
    let instance = instance("adopt");
    let namespace = instance.namespace.clone();
    let mut theirs = original(helm, &instance);
    make(&mut theirs);
    await_orphan_secret_deleted(&namespace);
    let parent = instance.connection["authentication"]["user"]["token"].as_str().unwrap().to_owned();
    let before = uids(&namespace);
    let whole = before.len() == 4;
    let old_token = (before.len() == 4).then(|| token(&namespace));
    assert_eq!(revisions(&namespace, NAME).len(), count, "{history}");
    let holds = |release: &HelmRelease| release.document.to_string().contains(&parent);
    assert!(revisions(&namespace, NAME).iter().all(holds), "{history}: the token is not in the release");
    // Foreign objects in the same namespace: a similar name, and another chart.
    let mut namesake = theirs.clone();
    namesake.params["md_metadata"]["name_prefix"] = json!(format!("{NAME}-2"));
    namesake.provision();
    let others = || [format!("{NAME}-2")].map(|name| revisions(&namespace, &name).len());
    let neighbours = cp.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{NAME}-2-token"));
    // A label and an annotation that were added by hand.
    for path in paths(&namespace).iter().filter(|path| cp.get(path).is_some()) {
        cp.merge_patch(path, &json!({"metadata": {"labels": {"team": "blue"}, "annotations": {"note": "keep"}}}));
    }

    let states = || (versions(cp, &namespace), revisions(&namespace, NAME).len());
    let untouched = states();
    let plan = instance.ask("plan", &[]).expect_code(0);
    assert_eq!(states(), untouched, "{history}: a plan changes nothing");
    let planned = changes(&plan.document());
    let count_of = |action: &str| planned.iter().filter(|(found, _)| found == action).count();
    assert_eq!((count_of("adopt"), count_of("delete")), (before.len(), count), "{history}: {planned:?}");
    let adopted = finding(&plan, "adopt").map(|finding| finding["message"].as_str().unwrap().contains(NAME));
    assert_eq!(adopted, (!before.is_empty()).then_some(true), "{history}");
    assert_eq!(finding(&plan, "parent-exposed").unwrap()["severity"], "high", "{history}");
    if whole {
        assert_eq!(plan.document()["permissions"]["widened"], json!([]), "{history}");
    }

    let ran = instance.act("provision").expect_code(0);
    assert!(ran.stderr.contains("parent-exposed"), "{history}: {}", ran.stderr);
    assert!(ran.stderr.contains("create a new credential for the connection"), "{history}: {}", ran.stderr);
    let artifact = instance.platform.resource("token").unwrap();
    let token = token_of(&artifact);
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")), 200, "{history}");
    let after = uids(&namespace);
    assert_eq!(after.len(), 4, "{history}");
    assert!(before.iter().all(|uid| after.contains(uid)), "{history}: an object was recreated");
    if let Some(old) = old_token {
        assert_eq!(token, old, "{history}: the token has changed");
    }
    assert_eq!(revisions(&namespace, NAME).len(), 0, "{history}: Secrets of the release are left");
    assert_eq!(others(), [1], "{history}: a foreign release was changed");
    assert_eq!(cp.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{NAME}-2-token")), neighbours);
    for object in live_objects(&namespace) {
        let (labels, annotations) = (&object["metadata"]["labels"], &object["metadata"]["annotations"]);
        let kind = object["kind"].as_str().unwrap();
        assert_eq!(labels["app.kubernetes.io/managed-by"], "k8s-token", "{history}: {kind}");
        assert_eq!(labels["md-project"], "ecomm", "{history}: {kind}");
        assert_eq!(labels["helm.sh/chart"], Value::Null, "{history}: {kind}");
        assert_eq!(annotations["meta.helm.sh/release-name"], Value::Null, "{history}: {kind}");
        assert_eq!(annotations["meta.helm.sh/release-namespace"], Value::Null, "{history}: {kind}");
        assert!(!object["metadata"]["managedFields"].to_string().contains("helm"), "{history}: {object}");
        if before.contains(&object["metadata"]["uid"].as_str().unwrap().to_owned()) {
            assert_eq!((&labels["team"], &annotations["note"]), (&json!("blue"), &json!("keep")), "{history}: {kind}");
        }
    }

    let settled = versions(cp, &namespace);
    let mark = cp.audit().mark();
    let again = instance.ask("provision", &[]).expect_code(0);
    assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{}", again.stdout);
    let writes = cp
        .audit()
        .of(&cp.admin().user, mark)
        .into_iter()
        .filter(|event| event.is_write() && event.uri.contains(&format!("/{namespace}/")));
    assert_eq!(writes.count(), 0, "{history}: a repeat writes");
    assert_eq!(versions(cp, &namespace), settled, "{history}");
    assert!(finding(&again, "parent-exposed").is_some(), "{history}: the exposed credential is still in use");

    // A removed tag is removed from the objects, and foreign fields are kept.
    let mut fewer = instance;
    fewer.params["md_metadata"]["default_tags"] = json!({"managed-by": "massdriver"});
    fewer.act("provision").expect_code(0);
    for object in live_objects(&namespace) {
        assert_eq!(object["metadata"]["labels"]["md-project"], Value::Null, "{history}: {}", object["kind"]);
        let label = object["metadata"]["labels"].as_object().unwrap();
        assert!(label.keys().all(|key| key != LABEL || object["kind"] == "Secret"));
    }
    fewer.act("decommission").expect_code(0);
    assert_eq!(versions(cp, &namespace), [], "{history}");
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{namespace}/pods")), 401, "{history}");
    assert_eq!(others(), [1], "{history}");
}

#[test]
fn rotating_the_parent_clears_the_finding() {
    let cp = control_plane();
    let mut instance = instance("rotated");
    original(Helm::v3(), &instance).provision();
    instance.act("provision").expect_code(0);
    let record = || live_objects(&instance.namespace)[0]["metadata"]["annotations"][TAKEN_OVER].clone();
    assert!(record().as_str().unwrap().contains("sha256:"), "{}", record());
    assert!(!record().as_str().unwrap().contains("pending"), "{}", record());

    let everything = [rule(&["*"], &["*"], &["*"])];
    let other = cp.persona("rotated", &[Grant::everywhere(&everything)]);
    instance.connection = json!({"authentication": other.connection()["authentication"]});
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(finding(&ran, "parent-exposed").is_none(), "{}", ran.stderr);
    assert_eq!(live_objects(&instance.namespace)[0]["metadata"]["annotations"][TAKEN_OVER], Value::Null);
    let again = instance.ask("provision", &[]).expect_code(0);
    assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{}", again.stdout);
}

/// A login without a token has no fingerprint to compare.
#[test]
fn release_is_adopted_with_a_client_certificate() {
    let cp = control_plane();
    let instance = instance("person");
    original(Helm::v3(), &instance).provision();
    let old = token(&instance.namespace);
    let alice = cp.client_certificate("alice", &["system:masters"]);
    let [params, kubeconfig] = ["by-hand.json", "kubeconfig"].map(|name| instance.path(name));
    fs::write(&params, instance.params.to_string()).unwrap();
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "alice"}}],
        "clusters": [{"name": "here", "cluster": {"server": cp.server(), "certificate-authority-data": cp.ca_base64()}}],
        "users": [{"name": "alice", "user": {
            "client-certificate-data": STANDARD.encode(&alice.certificate), "client-key-data": STANDARD.encode(&alice.key),
        }}],
    });
    fs::write(&kubeconfig, text.to_string()).unwrap();
    let provision = || {
        let mut command = crate::support::binary();
        command.args(["provision", "--json", "--name", NAME, "--params"]).arg(&params);
        Ran::of(command.arg("--kubeconfig").arg(&kubeconfig)).expect_code(0)
    };
    let ran = provision();
    assert!(finding(&ran, "parent-exposed").is_some(), "{}", ran.stderr);
    assert_eq!(revisions(&instance.namespace, NAME).len(), 0);
    assert_eq!(token(&instance.namespace), old);
    let again = provision();
    assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{}", again.stdout);
    assert!(finding(&again, "parent-exposed").is_none(), "its use is unknown");
}

/// The rejected token is detected when it is tested: the run starts again, and reports nothing twice.
#[test]
fn adoption_replaces_a_rejected_token() {
    let cp = control_plane();
    let instance = instance("dead");
    original(Helm::v3(), &instance).provision();
    let mut broken = token(&instance.namespace);
    broken.truncate(broken.len() - 8);
    let data = json!({"data": {"token": STANDARD.encode(broken + "AAAAAAAA")}});
    cp.merge_patch(&paths(&instance.namespace)[3], &data);
    let ran = instance.ask("provision", &["--publish"]).expect_code(0);
    let document = ran.document();
    let findings = crate::support::unusual_findings(&document);
    let codes: Vec<&str> = findings.iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["adopt", "parent-exposed", "drift"], "{}", ran.stderr);
    assert_eq!(revisions(&instance.namespace, NAME).len(), 0);
    let new = token_of(&instance.platform.resource("token").unwrap());
    assert_eq!(status(cp, &new, &format!("/api/v1/namespaces/{}/pods", instance.namespace)), 200);
}

#[test]
fn parent_rotated_before_adoption_is_not_reported_exposed() {
    let cp = control_plane();
    let mut instance = instance("rotated-before");
    original(Helm::v4(), &instance).provision();
    let everything = [rule(&["*"], &["*"], &["*"])];
    let other = cp.persona("rotated-before", &[Grant::everywhere(&everything)]);
    instance.connection = json!({"authentication": other.connection()["authentication"]});
    let ran = instance.ask("provision", &[]).expect_code(0);
    let said = finding(&ran, "parent-exposed").unwrap();
    assert!(said["message"].as_str().unwrap().contains("a credential of this connection"), "{said}");
    assert!(said["help"].as_str().unwrap().contains("had before"), "{said}");
    assert_eq!(revisions(&instance.namespace, NAME).len(), 0);
    let again = instance.ask("provision", &[]).expect_code(0);
    assert!(finding(&again, "parent-exposed").is_none(), "{}", again.stderr);
}

#[test]
fn adoption_applies_changed_rules() {
    let cp = control_plane();
    let mut instance = instance("change");
    original(Helm::v3(), &instance).provision();
    let old = token(&instance.namespace);
    instance.params["rules"][0]["verbs"] = json!(["get", "watch"]);
    instance.params["rules"][0]["resources"] = json!(["pods", "services"]);
    let plan = instance.ask("plan", &[]).expect_code(0).document();
    let verbs = |list: &str| plan["permissions"][list].as_array().unwrap().len();
    assert_eq!(
        (verbs("widened"), verbs("narrowed"), plan["permissions"]["unchanged"].clone()),
        (3, 1, json!(1)),
        "{plan:#}"
    );
    instance.act("provision").expect_code(0);
    assert_eq!(token(&instance.namespace), old);
    let pods = format!("/api/v1/namespaces/{}/pods", instance.namespace);
    let services = format!("/api/v1/namespaces/{}/services/x", instance.namespace);
    assert_eq!(status(cp, &old, &pods), 403, "list went");
    assert_eq!(status(cp, &old, &services), 404, "get came");
    assert_eq!(revisions(&instance.namespace, NAME).len(), 0);
}

#[test]
fn adoption_deletes_a_role_without_rules() {
    let cp = control_plane();
    let mut instance = instance("moved-on");
    original(Helm::v4(), &instance).provision();
    let old = token(&instance.namespace);
    instance.params["rules"] = json!([]);
    instance.params["cluster_roles"] = json!([{"name": "view"}]);
    instance.act("provision").expect_code(0);
    assert_eq!(token(&instance.namespace), old);
    let [_, role, binding, _] = paths(&instance.namespace);
    assert_eq!((cp.get(&role), cp.get(&binding)), (None, None));
    assert_eq!(status(cp, &old, &format!("/api/v1/namespaces/{}/pods", instance.namespace)), 200, "by the ClusterRole");
    assert_eq!(revisions(&instance.namespace, NAME).len(), 0);
}

#[rstest::rstest]
#[case(3)]
#[case(4)]
fn release_is_decommissioned_without_adoption(#[case] major: u8) {
    let cp = control_plane();
    let instance = instance("remove");
    let theirs = original(if major == 3 { Helm::v3() } else { Helm::v4() }, &instance);
    theirs.provision();
    theirs.failed_provision();
    let old = token(&instance.namespace);
    let ran = instance.ask("decommission", &["--publish"]).expect_code(0);
    assert_eq!(versions(cp, &instance.namespace), []);
    assert_eq!(theirs.releases().len(), 0);
    assert_eq!(status(cp, &old, "/api"), 401);
    assert_eq!(finding(&ran, "parent-exposed").unwrap()["severity"], "high");
    assert_eq!(changes(&ran.document()).iter().filter(|(action, _)| action == "delete").count(), 6);
    instance.act("decommission").expect_code(0);
}

#[test]
fn helm_cannot_reclaim_adopted_objects() {
    let cp = control_plane();
    let instance = instance("for-good");
    let theirs = original(Helm::v3(), &instance);
    theirs.provision();
    token(&instance.namespace); // otherwise the controller may write it during the adoption
    instance.act("provision").expect_code(0);
    let settled = versions(cp, &instance.namespace);
    assert!(!theirs.decommission().status.success(), "helm knows of no release");
    let output = theirs.try_provision();
    assert!(!output.status.success(), "helm must not adopt objects of the instance");
    assert!(String::from_utf8_lossy(&output.stderr).contains("invalid ownership metadata"));
    assert_eq!(versions(cp, &instance.namespace), settled);
}

/// An instance whose namespace was changed outside the form: helm then created a second release, and left the first
/// one.
fn moved_instance(mark: &Value) -> (Instance, String, String) {
    let cp = control_plane();
    let mut instance = instance("moved");
    instance.params["md_metadata"]["default_tags"]["md-package"] = mark.clone();
    let former = instance.namespace.clone();
    original(Helm::v3(), &instance).provision();
    let old = token(&former);
    let home = cp.unused_namespace("moved");
    instance.params["namespace"] = json!(home);
    instance.params["md_metadata"]["default_tags"]["md-package"] = json!(NAME);
    instance.config = json!({"namespace": home});
    instance.namespace = home;
    (instance, former, old)
}

/// In sequence: an instance would find objects of another test with the same name and id.
#[test]
fn release_in_previous_namespace_is_deleted() {
    expect_namesake_is_kept();
    expect_decommission_of_previous_namespace();
    let cp = control_plane();
    let (instance, former, old) = moved_instance(&json!(NAME));
    let there = versions(cp, &former);
    let plan = instance.ask("plan", &[]).expect_code(0);
    assert_eq!(versions(cp, &former), there, "a plan changes nothing");
    let document = plan.document();
    let planned = document["changes"].as_array().unwrap().iter();
    let announced = planned.filter(|change| change["action"] == "delete" && change["namespace"] == json!(former));
    assert_eq!(announced.count(), 5, "{}", plan.stdout);
    assert_eq!(finding(&plan, "moved").unwrap()["severity"], "high");
    assert!(finding(&plan, "parent-exposed").unwrap()["message"].as_str().unwrap().contains(&former));

    instance.act("provision").expect_code(0);
    let new = token_of(&instance.platform.resource("token").unwrap());
    assert_eq!(status(cp, &new, &format!("/api/v1/namespaces/{}/pods", instance.namespace)), 200);
    assert_eq!(status(cp, &old, "/api"), 401);
    assert_eq!(versions(cp, &former), []);
    assert_eq!(revisions(&former, NAME).len(), 0);
    let again = instance.ask("provision", &[]).expect_code(0);
    assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{}", again.stdout);
}

fn expect_decommission_of_previous_namespace() {
    let cp = control_plane();
    let (instance, former, old) = moved_instance(&json!(NAME));
    instance.ask("decommission", &[]).expect_code(0);
    assert_eq!(versions(cp, &former), []);
    assert_eq!(revisions(&former, NAME).len(), 0);
    assert_eq!(status(cp, &old, "/api"), 401);
}

fn expect_namesake_is_kept() {
    let cp = control_plane();
    let (instance, former, old) = moved_instance(&json!("acme-prod-demo-x7k2"));
    let there = versions(cp, &former);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(finding(&ran, "moved").is_none(), "{}", ran.stderr);
    instance.ask("decommission", &[]).expect_code(0);
    assert_eq!(versions(cp, &former), there);
    assert_eq!(revisions(&former, NAME).len(), 1);
    assert_eq!(status(cp, &old, "/api"), 200);
}

/// A release of the same name from another chart: the same templates with another name in Chart.yaml.
fn install_another_chart(helm: &Helm, instance: &Instance) {
    let chart = instance.path("chart");
    copy_directory(Path::new("tests/testbed/charts/k8s-token"), &chart);
    let about = fs::read_to_string(chart.join("Chart.yaml")).unwrap().replace("name: k8s-token", "name: web");
    fs::write(chart.join("Chart.yaml"), about).unwrap();
    let kubeconfig = control_plane().admin().kubeconfig(instance.directory.path());
    let values = instance.path("values.json");
    fs::write(&values, instance.params.to_string()).unwrap();
    let mut helm: Command = helm.command(instance.directory.path());
    helm.args(["install", NAME, "chart", "--namespace", &instance.namespace, "--values", "values.json"]);
    let output = helm.arg("--kubeconfig").arg(kubeconfig).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[rstest::rstest]
fn release_of_another_chart_is_foreign(#[values(Helm::v3(), Helm::v4())] helm: &'static Helm) {
    let cp = control_plane();
    let instance = instance("foreign");
    install_another_chart(helm, &instance);
    token(&instance.namespace);
    let there = versions(cp, &instance.namespace);
    for action in ["plan", "provision"] {
        let ran = instance.ask(action, &[]).expect_code(73);
        let text = ran.document()["error"]["cause"].as_str().unwrap().to_owned();
        assert!(text.contains("web-0.1.0") && text.contains(NAME), "{text}");
    }
    let ran = instance.ask("decommission", &[]).expect_code(0);
    assert_eq!(
        ran.document()["findings"].as_array().unwrap().iter().filter(|it| it["code"] == "foreign-object").count(),
        4
    );
    assert_eq!(versions(cp, &instance.namespace), there);
    assert_eq!(revisions(&instance.namespace, NAME).len(), 1);
}

/// A Secret in which Helm stores a revision.
fn revision(number: u32, chart: &str) -> Value {
    let document = json!({"name": NAME, "version": number, "chart": {"metadata": {"name": chart, "version": "0.1.0"}}});
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(document.to_string().as_bytes()).unwrap();
    let release = STANDARD.encode(STANDARD.encode(packer.finish().unwrap()));
    let labels = json!({"owner": "helm", "name": NAME, "version": number.to_string()});
    json!({
        "metadata": {"name": format!("sh.helm.release.v1.{NAME}.v{number}"), "labels": labels},
        "type": "helm.sh/release.v1",
        "data": {"release": release},
    })
}

#[test]
fn orphaned_release_is_judged_by_its_newest_revision() {
    let cp = control_plane();
    for (charts, left) in [(["k8s-token", "web"], 2), (["web", "k8s-token"], 0)] {
        let instance = instance("newest");
        for (number, chart) in [9, 10].into_iter().zip(charts) {
            cp.post(&format!("/api/v1/namespaces/{}/secrets", instance.namespace), &revision(number, chart));
        }
        instance.act("provision").expect_code(0);
        let secrets = cp.get(&format!("/api/v1/namespaces/{}/secrets", instance.namespace)).unwrap();
        let kept = secrets["items"].as_array().unwrap().iter().filter(|secret| secret["type"] == "helm.sh/release.v1");
        assert_eq!(kept.count(), left, "{charts:?}");
    }
}

#[test]
fn unreadable_release_is_reported_and_deleted_later() {
    let cp = control_plane();
    let mut instance = instance("blind");
    original(Helm::v3(), &instance).provision();
    let old = token(&instance.namespace);
    let ours = format!("{NAME}-token");
    let rights = [
        rule(&[""], &["pods"], &["get", "list"]),
        rule(&[""], &["serviceaccounts", "secrets"], &["get", "create", "patch"]),
        rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &["get", "create", "patch", "delete"]),
        json!({"apiGroups": [""], "resources": ["serviceaccounts", "secrets"], "verbs": ["delete"], "resourceNames": [ours]}),
    ];
    let blind = cp.persona("blind", &[Grant::in_namespace(&instance.namespace, &rights)]);
    let sighted = instance.connection.clone();
    instance.connection = json!({"authentication": blind.connection()["authentication"]});
    let ran = instance.ask("provision", &[]).expect_code(0);
    let left = finding(&ran, "release-left").unwrap();
    assert!(left["message"].as_str().unwrap().contains("list secrets"), "{left}");
    assert_eq!(revisions(&instance.namespace, NAME).len(), 1);
    assert_eq!(token(&instance.namespace), old);
    let again = instance.ask("provision", &[]).expect_code(0);
    assert!(finding(&again, "release-left").is_some(), "the finding is repeated");
    assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{}", again.stdout);

    instance.connection = sighted;
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(finding(&ran, "release-left").is_none(), "{}", ran.stderr);
    assert_eq!(revisions(&instance.namespace, NAME).len(), 0);
    assert_eq!(token(&instance.namespace), old);
}

/// The requests of an undisturbed run from its first write on; the reads before it change nothing.
fn from_the_first_write(undisturbed: &Instance, action: &str) -> Vec<Step> {
    let mut steps = recorded(control_plane(), undisturbed, &[&undisturbed.namespace], action, &[]);
    let first = steps.iter().position(|step| step.write).unwrap();
    steps.split_off(first)
}

#[rstest::rstest]
#[case(Helm::v3(), Stop::KilledBefore)]
#[case(Helm::v3(), Stop::KilledAfter)]
#[case(Helm::v4(), Stop::KilledAfter)]
#[case(Helm::v4(), Stop::Terminated)]
fn adoption_interrupted_at_any_request_is_resumable(#[case] helm: &'static Helm, #[case] how: Stop) {
    let subject = || {
        let mut near = instance("killed");
        near.params["rules"][0]["verbs"] = json!(["get", "watch"]);
        let mut theirs = original(helm, &near);
        theirs.params["rules"][0]["verbs"] = json!(["get", "list"]);
        theirs.provision();
        near
    };
    for_each_step(&from_the_first_write(&subject(), "provision"), |step| {
        let near = subject();
        let (old, before) = (token(&near.namespace), uids(&near.namespace));
        let cut = stopped(control_plane(), &near, &[&near.namespace], ("provision", &[]), step, how);
        let ran = near.ask("provision", &[]).expect_code(0);
        let at = format!("helm {}, {how:?} at {step}", helm.major());
        assert_eq!(uids(&near.namespace), before, "{at}");
        assert_eq!(token(&near.namespace), old, "{at}");
        assert_eq!(revisions(&near.namespace, NAME).len(), 0, "{at}: {}", ran.stderr);
        for object in live_objects(&near.namespace) {
            assert!(!object["metadata"].to_string().contains("helm"), "{at}: {object:#}");
        }
        let again = near.ask("provision", &[]).expect_code(0);
        assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{at}: {}", again.stdout);
        cut
    });
}

/// The next run finds the rest of the release, whatever was deleted before the interruption.
#[rstest::rstest]
#[case(Helm::v3(), Stop::KilledAfter)]
#[case(Helm::v4(), Stop::KilledBefore)]
fn interrupted_decommission_of_a_release_is_resumable(#[case] helm: &'static Helm, #[case] how: Stop) {
    let cp = control_plane();
    let subject = || {
        let near = instance("taken-back");
        let theirs = original(helm, &near);
        theirs.provision();
        theirs.failed_provision();
        near
    };
    for_each_step(&from_the_first_write(&subject(), "decommission"), |step| {
        let near = subject();
        let old = token(&near.namespace);
        let cut = stopped(cp, &near, &[&near.namespace], ("decommission", &[]), step, how);
        let ran = near.ask("decommission", &[]).expect_code(0);
        let at = format!("helm {}, {how:?} at {step}: {}", helm.major(), ran.stderr);
        assert_eq!(versions(cp, &near.namespace), [], "{at}");
        assert_eq!(revisions(&near.namespace, NAME).len(), 0, "{at}");
        testbed::eventually("the token is rejected", || (status(cp, &old, "/api") == 401).then_some(()));
        cut
    });
}

#[rstest::rstest]
fn concurrent_adoptions_succeed_or_conflict(
    #[values(Helm::v3(), Helm::v4())] helm: &'static Helm,
    #[values("provision", "decommission")] other: &'static str,
) {
    let cp = control_plane();
    let subject = || {
        let instance = instance("together");
        original(helm, &instance).provision();
        instance
    };
    let undisturbed = subject();
    let steps = recorded(cp, &undisturbed, &[&undisturbed.namespace], "provision", &[]);
    let run = |step: &Step| {
        let instance = subject();
        let old = token(&instance.namespace);
        let at = format!("helm {}, provision and {other}, at {step}", helm.major());
        let names = &[instance.namespace.as_str()];
        let [first, second] =
            ["provision", other].map(|action| Runner { instance: &instance, names, action, more: &[] });
        for ran in overlapping(cp, &first, step, &second) {
            let refusal = ran.code == 75 && ran.document()["error"]["code"] == "conflict";
            assert!(ran.code == 0 || refusal, "{at}: {}", ran.stderr);
        }
        instance.ask("provision", &[]).expect_code(0);
        if other == "provision" {
            assert_eq!(token(&instance.namespace), old, "{at}");
        }
        assert_eq!(revisions(&instance.namespace, NAME).len(), 0, "{at}");
        let again = instance.ask("provision", &[]).expect_code(0);
        assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{at}: {}", again.stdout);
        instance.ask("decommission", &[]).expect_code(0);
        assert_eq!(versions(cp, &instance.namespace), [], "{at}");
    };
    std::thread::scope(|scope| {
        for step in spread(&steps, 4) {
            scope.spawn(move || run(&step));
        }
    });
}

/// Another run deletes an object after it was read and before its fields are transferred.
#[test]
fn object_deleted_during_adoption_is_a_conflict() {
    let cp = control_plane();
    let near = instance("overtaken");
    original(Helm::v3(), &near).provision();
    let binding = paths(&near.namespace)[2].clone();
    let mut deleted = false;
    let proxy = InterceptingProxy::start(cp, move |request| {
        if request.write && request.path.starts_with(&binding) && !std::mem::replace(&mut deleted, true) {
            control_plane().delete(&binding);
        }
        Verdict::Forward
    });
    let far = Instance::new(&cp.admin().with_server(&proxy.server()), &near.namespace);
    let ran = far.ask("provision", &[]).expect_code(75);
    assert_eq!(ran.document()["error"]["code"], "conflict", "{}", ran.stderr);
    assert!(ran.stderr.contains("RoleBinding"), "{}", ran.stderr);
    near.ask("provision", &[]).expect_code(0);
    assert_eq!(revisions(&near.namespace, NAME).len(), 0);
}

/// A manual change to an instance of version 1.0.0, and whether its token stays valid.
type Alteration = (&'static str, fn(&[String; 4]), bool);

fn recreate(path: &str, alter: fn(&mut Value)) {
    let cp = control_plane();
    let mut object = cp.get(path).unwrap();
    cp.delete(path);
    for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        object["metadata"].as_object_mut().unwrap().remove(key);
    }
    object["metadata"]["annotations"].as_object_mut().unwrap().remove("kubernetes.io/service-account.uid");
    alter(&mut object);
    cp.post(path.rsplit_once('/').unwrap().0, &object);
}

fn delete(path: &str) {
    testbed::eventually("the object is deleted", || control_plane().get(path).is_none().then_some(()));
}

const ALTERATIONS: [Alteration; 13] = [
    (
        "ServiceAccount missing",
        |[account, _, _, secret]| {
            control_plane().delete(account);
            delete(secret);
        },
        false,
    ),
    ("Role missing", |[_, role, _, _]| drop(control_plane().delete(role)), true),
    ("RoleBinding missing", |[_, _, binding, _]| drop(control_plane().delete(binding)), true),
    ("Secret missing", |[_, _, _, secret]| drop(control_plane().delete(secret)), false),
    (
        "all missing but the release",
        |all| {
            for one in all {
                control_plane().delete(one);
            }
            for one in all {
                delete(one);
            }
        },
        false,
    ),
    (
        "Role widened",
        |[_, role, _, _]| {
            control_plane().merge_patch(role, &json!({"rules": [rule(&[""], &["secrets"], &["get", "list"])]}));
        },
        true,
    ),
    (
        "RoleBinding of one more",
        |[_, _, binding, _]| {
            let subjects = json!([{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]);
            control_plane().merge_patch(binding, &json!({"subjects": subjects}));
        },
        true,
    ),
    (
        "RoleBinding to another Role",
        |[_, _, binding, _]| recreate(binding, |it| it["roleRef"]["name"] = json!("other")),
        true,
    ),
    (
        "Secret emptied",
        |[_, _, _, secret]| {
            control_plane().merge_patch(secret, &json!({"data": null}));
            testbed::eventually("the Secret contains a token", || {
                control_plane().get(secret)?["data"]["token"].is_string().then_some(())
            });
        },
        true,
    ),
    (
        "Secret immutable",
        |[_, _, _, secret]| {
            control_plane().merge_patch(secret, &json!({"immutable": true}));
        },
        true,
    ),
    (
        "token of somebody else",
        |[_, _, _, secret]| {
            let theirs = STANDARD.encode(&control_plane().persona("planted", &[]).token);
            control_plane().merge_patch(secret, &json!({"data": {"token": theirs}}));
        },
        false,
    ),
    (
        "ServiceAccount and Secret restored from a backup",
        |[account, _, _, secret]| {
            let before = control_plane().get(secret).unwrap();
            recreate(account, |_| {});
            delete(secret);
            control_plane().post(
                secret.rsplit_once('/').unwrap().0,
                &json!({
                    "metadata": {
                        "name": before["metadata"]["name"],
                        "annotations": {
                            "kubernetes.io/service-account.name": before["metadata"]["name"],
                            "meta.helm.sh/release-name": NAME,
                            "meta.helm.sh/release-namespace": before["metadata"]["namespace"],
                        },
                        "labels": before["metadata"]["labels"],
                    },
                    "type": before["type"], "data": before["data"],
                }),
            );
        },
        false,
    ),
    (
        "namespace terminating and gone",
        |[account, ..]| {
            let namespace = account.split("/serviceaccounts/").next().unwrap();
            control_plane().delete(namespace);
            delete(namespace);
        },
        false,
    ),
];

#[test]
fn altered_release_is_adopted_or_decommissioned() {
    let run = |(what, harm, keeps): &Alteration, action: &str| {
        let cp = control_plane();
        let instance = instance("half");
        let theirs = original(Helm::v3(), &instance);
        theirs.provision();
        let old = token(&instance.namespace);
        harm(&paths(&instance.namespace));
        let before = versions(cp, &instance.namespace);
        let at = format!("{what}, {action}");
        let plan = instance.ask("plan", &[]);
        assert_eq!(plan.code, 0, "{at}: {}", plan.stderr);
        assert_eq!(versions(cp, &instance.namespace), before, "{at}: a plan changes nothing");
        let ran = instance.ask(action, &["--publish"]);
        assert_eq!(ran.code, 0, "{at}: {}", ran.stderr);
        let namespace = format!("/api/v1/namespaces/{}", instance.namespace);
        if cp.get(&namespace).is_some() {
            assert_eq!(revisions(&instance.namespace, NAME).len(), 0, "{at}: {}", ran.stderr);
        }
        if action == "provision" {
            let now = token_of(&instance.platform.resource("token").unwrap());
            assert_eq!(now == old, *keeps, "{at}: {}", ran.stderr);
            for (path, wanted) in [("pods", 200), ("secrets", 403)] {
                assert_eq!(status(cp, &now, &format!("{namespace}/{path}")), wanted, "{at}: {path}");
            }
            let again = instance.ask("provision", &[]).expect_code(0);
            let unchanged = changes(&again.document()).iter().all(|(action, _)| action == "unchanged");
            assert!(unchanged, "{at}: {}", again.stdout);
            instance.ask("decommission", &["--publish"]).expect_code(0);
        }
        assert_eq!(versions(cp, &instance.namespace), [], "{at}");
        testbed::eventually("the previous token is rejected", || (status(cp, &old, "/api") == 401).then_some(()));
    };
    let cells = ALTERATIONS.iter().flat_map(|half| ["provision", "decommission"].map(|action| (half, action)));
    let cells: Vec<_> = cells.collect();
    ten_at_once(&cells, |(half, action)| run(half, action));
}

/// A release Secret that a finalizer holds can still be read: it is reported, and remembered until it is deleted.
#[rstest::rstest]
fn release_secret_held_by_finalizer_is_remembered(#[values("provision", "decommission")] action: &str) {
    let cp = control_plane();
    let instance = instance("held");
    original(Helm::v4(), &instance).provision();
    let revision = format!("/api/v1/namespaces/{}/secrets/sh.helm.release.v1.{NAME}.v1", instance.namespace);
    cp.merge_patch(&revision, &json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    for _ in 0..2 {
        let ran = instance.ask(action, &[]).expect_code(if action == "provision" { 0 } else { 75 });
        if action == "provision" {
            let left = finding(&ran, "release-left").expect("it is said");
            assert!(left["message"].as_str().unwrap().contains("example.com/hold"), "{left}");
        } else {
            assert_eq!(ran.document()["error"]["code"], "being-deleted");
        }
        assert!(cp.get(&revision).is_some());
    }
    cp.merge_patch(&revision, &json!({"metadata": {"finalizers": null}}));
    delete(&revision);
    let ran = instance.ask(action, &[]).expect_code(0);
    assert!(finding(&ran, "release-left").is_none(), "{}", ran.stderr);
    if action == "provision" {
        let again = instance.ask(action, &[]).expect_code(0);
        assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{}", again.stdout);
    } else {
        assert_eq!(versions(cp, &instance.namespace), []);
    }
}

/// The plan in docs/migration.md equals the output of plan, except for durations and field lists.
#[test]
fn migration_page_shows_the_actual_plan() {
    let page = fs::read_to_string("docs/migration.md").unwrap();
    let shown: Vec<&str> = page.split("```").nth(1).expect("the plan").lines().map(str::trim).collect();
    let instance = instance("page");
    let mut theirs = original(Helm::v3(), &instance);
    for tag in ["one", "two", "three"] {
        theirs.params["md_metadata"]["default_tags"]["note"] = json!(tag);
        theirs.provision();
    }
    let plan = instance.act("plan").expect_code(0);
    // Only a server on this machine has the low finding local-address.
    let said =
        plan.stderr.replace(&instance.namespace, "team-a").replace("1 medium, 1 low findings", "1 medium findings");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for line in shown.iter().filter(|line| !line.is_empty()) {
        let mut words_shown = words(line.split(" (").next().unwrap());
        if words_shown[0] == "adopt" {
            words_shown.truncate(3);
        }
        let is_said = |said: &str| words(said).windows(words_shown.len()).any(|part| part == words_shown);
        assert!(said.lines().any(is_said), "{line:?} is not in the output:\n{said}");
    }
    assert_eq!(shown.iter().filter(|line| line.starts_with("adopt") || line.starts_with("delete")).count(), 4 + 3);
}
