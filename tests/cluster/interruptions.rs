//! Runs that are interrupted between any two requests, and concurrent runs: repeating the action always ends in the
//! same state.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{ControlPlane, Era, InterceptingProxy, Options, Platform, Verdict, eventually};

use crate::support::{
    Instance, OBJECT, Shape, changes, finish, paths, secrets, start, status,
    stops::{self, Runner, Step, Stop, expect_terminated, for_each_step, overlapping, recorded, spread, stopped},
    token_of, versions,
};

/// A control plane of its own: each run searches the whole cluster for its instance name, and these tests create
/// hundreds.
fn control_plane() -> &'static ControlPlane {
    static OWN: LazyLock<ControlPlane> =
        LazyLock::new(|| ControlPlane::start(&Options::default()).expect("a control plane"));
    &OWN
}

/// Compares the cluster with the result of an undisturbed provision.
fn expect_provisioned(instance: &Instance, at: &str) {
    let cp = control_plane();
    let artifact = instance.platform.resource("token").unwrap_or_else(|| panic!("{at}: nothing is published"));
    let pods = format!("/api/v1/namespaces/{}/pods", instance.namespace);
    assert_eq!(status(cp, &token_of(&artifact), &pods), 200, "{at}");
    assert_eq!(
        versions(cp, &instance.namespace).len() + usize::from(secrets(cp, &instance.namespace) != [OBJECT]),
        4,
        "{at}"
    );
    assert_eq!(secrets(cp, &instance.namespace).len(), 1, "{at}: a Secret is left over");
    let again = instance.ask("provision", &["--publish"]).expect_code(0);
    assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{at}: {}", again.stdout);
    let elsewhere = cp.get(
        "/apis/rbac.authorization.k8s.io/v1/rolebindings?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dk8s-token",
    );
    let home = json!(instance.namespace);
    let bindings = elsewhere.unwrap()["items"].as_array().unwrap().clone();
    let ours = bindings
        .iter()
        .filter(|binding| binding["metadata"]["annotations"]["k8s-token.massdriver.cloud/namespace"] == home);
    assert_eq!(ours.count(), 1, "{at}");
}

#[rstest::rstest]
#[case(Stop::KilledBefore)]
#[case(Stop::KilledAfter)]
#[case(Stop::Terminated)]
fn provision_interrupted_at_any_request_is_resumable(#[case] how: Stop) {
    let cp = control_plane();
    let subject = || Instance::new(cp.admin(), &cp.unused_namespace("stopped"));
    let undisturbed = subject();
    let steps = recorded(cp, &undisturbed, &[&undisturbed.namespace], "provision", &["--publish"]);
    for_each_step(&steps, |step| {
        let instance = subject();
        let cut = stopped(cp, &instance, &[&instance.namespace], ("provision", &["--publish"]), step, how);
        instance.act("provision").expect_code(0);
        expect_provisioned(&instance, &format!("provision, {how:?} at {step}"));
        cut
    });
}

#[rstest::rstest]
#[case(Stop::KilledBefore)]
#[case(Stop::KilledAfter)]
#[case(Stop::Terminated)]
fn decommission_interrupted_at_any_request_is_resumable(#[case] how: Stop) {
    let cp = control_plane();
    let subject = || {
        let instance = Instance::new(cp.admin(), &cp.namespace("stopped"));
        let token = instance.token();
        (instance, token)
    };
    let (undisturbed, _) = subject();
    let steps = recorded(cp, &undisturbed, &[&undisturbed.namespace], "decommission", &["--publish"]);
    for_each_step(&steps, |step| {
        let at = format!("decommission, {how:?} at {step}");
        let (instance, token) = subject();
        let cut = stopped(cp, &instance, &[&instance.namespace], ("decommission", &["--publish"]), step, how);
        instance.act("decommission").expect_code(0);
        assert_eq!(versions(cp, &instance.namespace), [], "{at}");
        assert_eq!(secrets(cp, &instance.namespace), [""; 0], "{at}");
        assert_eq!(instance.platform.resource("token"), None, "{at}");
        let pods = format!("/api/v1/namespaces/{}/pods", instance.namespace);
        let dead = || (status(cp, &token, &pods) == 401).then_some(());
        eventually("the token is rejected", dead);
        cut
    });
}

#[test]
fn run_interrupted_during_platform_silence_is_resumable() {
    let cp = control_plane();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let instance = Instance::new(cp.admin(), &cp.namespace("silent"));
        let stop = |platform: &Platform, action: &str| {
            platform.answer_after(Duration::from_secs(20));
            let known = platform.requests().len();
            let (started, child) = (Instant::now(), start(&instance, action, &["--publish"]));
            eventually("the platform has received a request", || (platform.requests().len() > known).then_some(()));
            stops::signal(&child, started, signal);
            let ran = finish(child);
            platform.answer_after(Duration::ZERO);
            ran
        };
        let ran = stop(&instance.platform, "provision");
        if signal == Signal::SIGTERM {
            assert_eq!(ran.code, 143, "{ran:?}");
            assert_eq!(versions(cp, &instance.namespace).len(), 4, "the credential is kept");
        }
        instance.act("provision").expect_code(0);
        expect_provisioned(&instance, &format!("{signal}"));
        stop(&instance.platform, "decommission");
        instance.act("decommission").expect_code(0);
        assert_eq!(versions(cp, &instance.namespace), []);
        assert_eq!(instance.platform.resource("token"), None);
    }
}

/// Starts the action and stops it at its n-th request to the platform. False if the run sent fewer.
fn stopped_at_the_platform(instance: &Instance, action: &str, n: usize, how: Stop) -> bool {
    let platform = &instance.platform;
    platform.hold_after(n, matches!(how, Stop::KilledAfter));
    let started = Instant::now();
    let mut child = start(instance, action, &["--publish"]);
    let reached = eventually("the platform has received a request, or the run has ended", || {
        // The order matters: the request may be held between the two checks.
        let ended = child.try_wait().unwrap().is_some();
        (platform.holds() || ended).then(|| platform.holds())
    });
    match how {
        _ if !reached => drop(finish(child).expect_code(0)),
        Stop::KilledBefore | Stop::KilledAfter => {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Stop::Terminated => drop(expect_terminated(child, started, &format!("{action}, request {n}"))),
    }
    reached
}

#[rstest::rstest]
fn run_interrupted_at_any_platform_request_is_resumable(
    #[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era,
    #[values("provision", "decommission")] action: &'static str,
) {
    let cp = control_plane();
    let until_the_last = |how: Stop| {
        for n in 0.. {
            let at = format!("{action} in {era:?}, {how:?} at request {n}");
            let shape = if era == Era::Artifacts { Shape::Legacy } else { Shape::Bare };
            let instance = Instance::of_era(cp.admin(), &cp.namespace("platform"), era, shape);
            if era == Era::Dependencies {
                instance.platform.only_dotted_ids(); // so that more than one has to be tried
            }
            let token = (action == "decommission").then(|| instance.token());
            let reached = stopped_at_the_platform(&instance, action, n, how);
            instance.platform.hold_after(usize::MAX, false); // no request is held any more
            instance.act(action).expect_code(0);
            match token {
                None => expect_provisioned(&instance, &at),
                Some(token) => {
                    assert_eq!(versions(cp, &instance.namespace), [], "{at}");
                    assert_eq!(instance.platform.resource("token"), None, "{at}");
                    let dead = || (status(cp, &token, "/api") == 401).then_some(());
                    eventually("the token is rejected", dead);
                }
            }
            if !reached {
                let least = usize::from(action == "decommission" || era == Era::Artifacts) + 1;
                assert!(n >= if era == Era::Resources { 1 } else { least }, "{at}: {n} requests");
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for how in [Stop::KilledBefore, Stop::KilledAfter, Stop::Terminated] {
            scope.spawn(move || until_the_last(how));
        }
    });
}

/// Grants in every kind of scope, in addition to the pods in the home namespace.
fn add_every_scope(instance: &mut Instance, elsewhere: &str) {
    let pods = |namespaces: &[&str]| json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "namespaces": namespaces});
    instance.params["rules"].as_array_mut().unwrap().extend([pods(&[elsewhere]), pods(&["*"])]);
    instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": [elsewhere]}]);
}

/// The number of objects in the cluster that grant permissions to this instance.
fn granting_objects(home: &str) -> usize {
    let kinds = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
    let ours = kinds.map(|kind| {
        let path = format!(
            "/apis/rbac.authorization.k8s.io/v1/{kind}?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dk8s-token"
        );
        let list = control_plane().get(&path).unwrap();
        let of_home =
            |object: &&Value| object["metadata"]["annotations"]["k8s-token.massdriver.cloud/namespace"] == json!(home);
        list["items"].as_array().unwrap().iter().filter(of_home).count()
    });
    ours.iter().sum()
}

/// tests/cluster/scope_changes.rs tests SIGKILL in all scopes.
#[rstest::rstest]
fn sigterm_at_any_request_with_all_scopes_recovers(#[values("provision", "decommission")] action: &str) {
    let cp = control_plane();
    let subject = || {
        let elsewhere = cp.namespace("elsewhere");
        let mut instance = Instance::new(cp.admin(), &cp.namespace("terminated"));
        add_every_scope(&mut instance, &elsewhere);
        if action == "decommission" {
            instance.provision();
        }
        (instance, elsewhere)
    };
    let (undisturbed, elsewhere) = subject();
    let steps = recorded(cp, &undisturbed, &[&undisturbed.namespace, &elsewhere], action, &["--publish"]);
    for_each_step(&steps, |step| {
        let at = format!("{action} in all scopes, terminated at {step}");
        let (instance, elsewhere) = subject();
        let names = [instance.namespace.as_str(), &elsewhere];
        let cut = stopped(cp, &instance, &names, (action, &["--publish"]), step, Stop::Terminated);
        instance.act(action).expect_code(0);
        if action == "provision" {
            assert_eq!(granting_objects(&instance.namespace), 7, "{at}");
            let again = instance.ask("provision", &[]).expect_code(0);
            assert!(
                changes(&again.document()).iter().all(|(action, _)| action == "unchanged"),
                "{at}: {}",
                again.stdout
            );
        } else {
            assert_eq!(granting_objects(&instance.namespace), 0, "{at}");
            assert_eq!(versions(cp, &instance.namespace), [], "{at}");
        }
        cut
    });
}

#[rstest::rstest]
#[case("provision", "decommission")]
#[case("provision", "provision")]
fn concurrent_runs_with_all_scopes_succeed_or_conflict(#[case] one: &str, #[case] other: &str) {
    let cp = control_plane();
    // The existing instance, and params with fewer and other permissions.
    let subject = || {
        let (namespace, elsewhere) = (cp.namespace("race"), cp.namespace("elsewhere"));
        let mut instance = Instance::new(cp.admin(), &namespace);
        add_every_scope(&mut instance, &elsewhere);
        instance.provision();
        let mut wishes = Instance::new(cp.admin(), &namespace);
        wishes.params["rules"][0]["verbs"] = json!(["get", "list", "watch"]);
        wishes.params["cluster_roles"] = json!([{"name": "edit", "namespaces": [elsewhere]}]);
        (instance, wishes, elsewhere)
    };
    let (undisturbed, wishes, elsewhere) = subject();
    let steps = recorded(cp, &wishes, &[&undisturbed.namespace, &elsewhere], one, &[]);
    let run = |step: &Step| {
        let at = format!("{one} and {other} in all scopes, at {step}");
        let (instance, wishes, elsewhere) = subject();
        let names = [instance.namespace.as_str(), &elsewhere];
        run_concurrently((&wishes, one), step, (&instance, other), &names, &at);
        let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
        // A binding that one run created after the other had read the cluster may be missing from the inventory: a
        // repeat reports it, and a decommission finds it by its label.
        let findings = document["findings"].as_array().unwrap();
        let excess = findings.iter().any(|finding| finding["code"] == "excess");
        let forgotten = granting_objects(&instance.namespace) - 7;
        assert!(forgotten == 0 || (forgotten == 1 && excess), "{at}: {forgotten} more: {findings:#?}");
        assert_eq!(secrets(cp, &instance.namespace).len(), 1, "{at}: a Secret is left over");
        let again = instance.ask("provision", &["--publish"]).expect_code(0);
        assert!(changes(&again.document()).iter().all(|(action, _)| action == "unchanged"), "{at}: {}", again.stdout);
        instance.act("decommission").expect_code(0);
        assert_eq!((granting_objects(&instance.namespace), versions(cp, &instance.namespace)), (0, Vec::new()), "{at}");
    };
    std::thread::scope(|scope| {
        for step in spread(&steps, 6) {
            scope.spawn(move || run(&step));
        }
    });
}

/// Two overlapping runs; the second starts at this request of the first. Each succeeds or ends with a temporary error.
fn run_concurrently(first: (&Instance, &str), step: &Step, second: (&Instance, &str), names: &[&str], at: &str) {
    let (more, other) = (&["--publish"], second.1);
    let [first, second] = [first, second].map(|(instance, action)| Runner { instance, names, action, more });
    for ran in overlapping(control_plane(), &first, step, &second) {
        let error = ran.document()["error"].clone();
        // A run whose permissions another run deletes during the test of the token.
        let takes = other == "decommission" || names.len() > 1;
        let overtaken = takes && ran.code == 76 && error["code"] == "rules-not-allowed";
        let refusal = ran.code == 75 && error["code"] == "conflict";
        assert!(ran.code == 0 || refusal || overtaken, "{at}: {}\n{}", ran.code, ran.stderr);
    }
}

/// After two concurrent runs, repeating either action reaches a clean state.
#[rstest::rstest]
#[case("provision", "decommission", true)]
#[case("provision", "decommission", false)]
#[case("decommission", "decommission", true)]
#[case("provision", "provision", true)]
fn concurrent_runs_succeed_or_conflict(#[case] one: &str, #[case] other: &str, #[case] there: bool) {
    let cp = control_plane();
    // Different params, so that both have to write.
    let subject = || {
        let namespace = cp.namespace("race");
        let instance = Instance::new(cp.admin(), &namespace);
        if there {
            instance.provision();
        }
        let mut wishes = Instance::new(cp.admin(), &namespace);
        wishes.params["rules"][0]["verbs"] = json!(["get", "list", "watch"]);
        (instance, wishes)
    };
    let (undisturbed, wishes) = subject();
    let steps = recorded(cp, &wishes, &[&undisturbed.namespace], one, &[]);
    let run = |step: &Step| {
        let (instance, wishes) = subject();
        let namespace = &instance.namespace;
        let at = format!("{one} and {other}, at {step}");
        run_concurrently((&wishes, one), step, (&instance, other), &[namespace], &at);
        instance.act("provision").expect_code(0);
        expect_provisioned(&instance, &at);
        let token = token_of(&instance.platform.resource("token").unwrap());
        instance.act("decommission").expect_code(0);
        assert_eq!(versions(cp, namespace), [], "{at}");
        assert_eq!(secrets(cp, namespace), [""; 0], "{at}");
        assert_eq!(status(cp, &token, &paths(namespace)[0]), 401, "{at}");
    };
    std::thread::scope(|scope| {
        for step in spread(&steps, 8) {
            scope.spawn(move || run(&step));
        }
    });
}

#[test]
fn service_account_deleted_by_another_run_is_conflict() {
    let cp = control_plane();
    let namespace = cp.namespace("overtaken");
    let account = paths(&namespace)[0].clone();
    let deleted = AtomicUsize::new(0);
    let proxy = InterceptingProxy::start(cp, move |request| {
        // Between the binding and the token, as a decommission does that began earlier.
        if request.path.contains("/secrets/") && request.method == "PATCH" && deleted.swap(1, Ordering::SeqCst) == 0 {
            control_plane().delete(&account);
        }
        Verdict::Forward
    });
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let ran = instance.ask("provision", &["--publish"]).expect_code(75);
    let error: Value = ran.document()["error"].clone();
    assert_eq!(error["code"], "conflict", "{error:#}");
    assert!(error["cause"].as_str().unwrap().contains("another run"), "{error:#}");
    assert_eq!(instance.platform.resource("token"), None);
    let direct = Instance::new(cp.admin(), &namespace);
    direct.act("provision").expect_code(0);
}
