//! Faults of the cluster and the platform: temporary errors are retried within bounds, permanent ones are reported at
//! once. After any lost response, the result is one consistent state.

use std::{
    io::Read as _,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{
    ControlPlane, Era, Grant, Helm, Intercepted, InterceptingProxy, Options, Original, Platform, SilentServer, Verdict,
    eventually, rule,
};

use crate::support::{
    Instance, OBJECT, Ran, Shape, changes, finish, paths, secrets, start, status, stops, token_of, versions,
};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

/// A control plane whose controllers may be frozen.
static FREEZABLE: LazyLock<ControlPlane> =
    LazyLock::new(|| ControlPlane::start(&Options::default()).expect("a separate control plane"));

#[track_caller]
fn expect_text(error: &Value, field: &str, text: &str) {
    assert!(error[field].as_str().unwrap_or_default().contains(text), "no {text:?} in {field} of {error:#}");
}

#[track_caller]
fn all_unchanged(ran: &Ran) {
    assert!(changes(&ran.document()).iter().all(|(action, _)| action == "unchanged"), "{}", ran.stderr);
}

fn overloaded(seconds: u64) -> Verdict {
    let headers = vec![("retry-after", seconds.to_string())];
    Verdict::Reply(429, headers, "Too many requests, please try again later.\n".to_owned())
}

/// The API server during a leader election of etcd.
fn server_timeout() -> Verdict {
    let message = "The  operation against  could not be completed at this time, please try again.";
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "ServerTimeout", "code": 500,
        "message": message, "details": {"retryAfterSeconds": 1},
    });
    Verdict::Answer(500, status)
}

fn html(status: u16) -> Verdict {
    let headers = vec![("content-type", "text/html".to_owned())];
    Verdict::Reply(status, headers, "<!DOCTYPE html><html><h1>Bad Gateway</h1></html>".to_owned())
}

/// Gives this verdict for the request with this number only.
fn proxy_with_fault(cp: &ControlPlane, number: usize, fault: Verdict) -> InterceptingProxy {
    InterceptingProxy::start(cp, move |request| if request.number == number { fault.clone() } else { Verdict::Forward })
}

/// Runs an action once for each of its requests, with a fault at that request. The runs wait most of the time, so they
/// run concurrently.
fn fail_each_request_once(action: &'static str, fault: &Verdict) {
    let cp = control_plane();
    let counting = InterceptingProxy::start(cp, |_| Verdict::Forward);
    let namespace = cp.namespace("counted");
    if action == "decommission" {
        Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
    }
    Instance::new(&cp.admin().with_server(&counting.server()), &namespace).ask(action, &[]).expect_code(0);
    let numbers: Vec<usize> = (0..counting.requests().len()).collect();
    let mut met = 0;
    for together in numbers.chunks(6) {
        thread::scope(|scope| {
            let runs = together.iter().map(|number| scope.spawn(move || fail_one_request(cp, action, *number, fault)));
            let runs: Vec<_> = runs.collect();
            met += runs.into_iter().map(|run| usize::from(run.join().expect("a successful run"))).sum::<usize>();
        });
    }
    // The number of reads of the Secret and of token reviews differs from run to run.
    assert!(met > 10, "{met} of {} requests had the fault", numbers.len());
}

/// False if the run had fewer requests.
fn fail_one_request(cp: &ControlPlane, action: &str, number: usize, fault: &Verdict) -> bool {
    let namespace = cp.namespace("faulty");
    let near = Instance::new(cp.admin(), &namespace);
    if action == "decommission" {
        near.ask("provision", &[]).expect_code(0);
    }
    let proxy = proxy_with_fault(cp, number, fault.clone());
    let far = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let ran = far.ask(action, &[]);
    assert_eq!(ran.code, 0, "{action} with {fault:?} at {number}: {}\n{:#?}", ran.stderr, proxy.requests());
    let requests = proxy.requests();
    assert_eq!(ran.document()["requests"], requests.len() as u64, "every attempt counts");
    let Some(failed) = requests.get(number) else { return false };
    if failed.path == "/apis" {
        assert_eq!(ran.findings("discovery-missing").len(), 1, "the discovery is asked for once: {}", ran.stderr);
    } else {
        assert!(ran.stderr.contains("\nretry "), "no retry in the log at request {number}: {}", ran.stderr);
    }
    if action == "decommission" {
        assert!(versions(cp, &namespace).is_empty(), "{action} with {fault:?} at {number}");
    } else {
        assert_eq!(secrets(cp, &namespace), [OBJECT], "{action} with {fault:?} at {number}");
        let again = near.ask("provision", &[]).expect_code(0);
        all_unchanged(&again);
        assert_eq!(again.document()["token"], ran.document()["token"]);
    }
    true
}

#[rstest]
#[case::lost_answer(Verdict::Lose)]
#[case::dropped(Verdict::Drop)]
fn broken_connection_at_any_request_is_reopened(
    #[case] fault: Verdict,
    #[values("provision", "decommission")] action: &'static str,
) {
    fail_each_request_once(action, &fault);
}

#[rstest]
#[case::overloaded(overloaded(1))]
#[case::leader_election(server_timeout())]
#[case::gateway(html(502))]
fn temporary_error_at_any_provision_request_is_retried(#[case] fault: Verdict) {
    fail_each_request_once("provision", &fault);
}

#[test]
fn temporary_error_at_any_decommission_request_is_retried() {
    fail_each_request_once("decommission", &html(503));
}

/// Whether a request writes an object of this resource.
fn is_apply(request: &Intercepted, resource: &str) -> bool {
    request.method == "PATCH" && request.write && request.path.contains(&format!("/{resource}/"))
}

#[rstest]
#[case::unauthorized(401, "Unauthorized", "no", "unauthorized")]
#[case::denied(
    403,
    "Forbidden",
    "roles.rbac.authorization.k8s.io \"x\" is forbidden: User \"u\" cannot patch resource \"roles\" in API group \
     \"rbac.authorization.k8s.io\" in the namespace \"n\"",
    "missing-permission"
)]
#[case::policy(403, "Forbidden", "admission webhook \"w\" denied the request: no", "refused")]
#[case::absent(404, "NotFound", "roles \"x\" not found", "refused")]
#[case::conflict(409, "Conflict", "the object has been modified", "conflict")]
#[case::too_large(413, "RequestEntityTooLarge", "limit is 3145728", "refused")]
#[case::invalid(422, "Invalid", "rules[0].verbs: Required value", "refused")]
#[case::unknown_field(
    500,
    "",
    "failed to create typed patch object (x; v1, Kind=Role): .x: field not declared in schema",
    "refused"
)]
fn permanent_errors_are_not_retried(
    #[case] status: u16,
    #[case] reason: &'static str,
    #[case] message: &'static str,
    #[case] code: &str,
) {
    let cp = control_plane();
    let namespace = cp.namespace("final");
    let proxy = InterceptingProxy::start(cp, move |request| {
        let mut verdict = Verdict::refusal(status, reason, message);
        if let Verdict::Answer(_, status) = &mut verdict {
            status["details"] = json!({"name": "x", "group": "rbac.authorization.k8s.io", "kind": "roles"});
        }
        if is_apply(request, "roles") { verdict } else { Verdict::Forward }
    });
    let ran = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace).ask("provision", &[]);
    let error = ran.expect_error(code);
    assert!(!error["cause"].as_str().unwrap().contains("tried"), "{error:#}");
    let asked = proxy.requests().iter().filter(|request| is_apply(request, "roles")).count();
    assert_eq!(asked, 1, "{:#?}", proxy.requests());
    assert!(!ran.stderr.contains("\nretry "), "{}", ran.stderr);
}

#[rstest]
fn html_404_is_not_an_absent_object(#[values("plan", "provision", "decommission")] action: &str) {
    let cp = control_plane();
    let namespace = cp.namespace("page");
    Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
    let before = versions(cp, &namespace);
    let account = paths(&namespace)[0].clone();
    let proxy = InterceptingProxy::start(cp, move |request| {
        // Alone, or in the list of objects with the same name.
        let looks = request.path == account || request.path.starts_with("/api/v1/serviceaccounts?");
        if request.method == "GET" && looks { html(404) } else { Verdict::Forward }
    });
    let ran = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace).ask(action, &[]).expect_code(69);
    ran.expect_error("not-kubernetes");
    assert_eq!(versions(cp, &namespace), before, "a ServiceAccount that could not be read is not absent");
}

#[test]
fn certificate_errors_are_not_retried() {
    let mut instance = Instance::new(control_plane().admin(), "default");
    let ca = testbed::WrongCa::new().base64();
    instance.connection["authentication"]["cluster"]["certificate-authority-data"] = json!(ca);
    let ran = instance.ask("plan", &[]).expect_code(69);
    ran.expect_error("tls-unknown-issuer");
    assert!(!ran.stderr.contains("\nretry "), "{}", ran.stderr);
}

#[test]
fn error_after_last_attempt_counts_the_attempts() {
    let cp = control_plane();
    let namespace = cp.namespace("last");
    let proxy = InterceptingProxy::start(cp, |request| {
        if is_apply(request, "roles") {
            Verdict::refusal(503, "ServiceUnavailable", "not now")
        } else {
            Verdict::Forward
        }
    });
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let ran = instance.ask("provision", &[]).expect_code(69);
    let error = ran.expect_error("server-error");
    expect_text(&error, "cause", "503: not now (tried 5 times)");
    expect_text(&error, "state", "create of ServiceAccount");
    expect_text(&error, "state", "may have succeeded");
    let tried = proxy.requests().iter().filter(|request| is_apply(request, "roles")).count();
    assert_eq!(tried, 5);
    let line = format!("retry        applying Role {namespace}/{OBJECT}: 503: not now; retrying in ");
    let lines: Vec<&str> = ran.stderr.lines().filter(|text| text.starts_with(&line)).collect();
    assert_eq!(lines.len(), 4, "{}", ran.stderr);
    assert!(
        lines[0].ends_with("(attempt 2 of at most 5)") && lines[3].ends_with("(attempt 5 of at most 5)"),
        "{lines:#?}"
    );
    Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
}

#[test]
fn retry_after_header_is_respected() {
    let cp = control_plane();
    let namespace = cp.namespace("after");
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let proxy = InterceptingProxy::start(cp, move |request| {
        if !is_apply(request, "roles") {
            return Verdict::Forward;
        }
        seen.lock().unwrap().push(Instant::now());
        if seen.lock().unwrap().len() == 1 { overloaded(3) } else { Verdict::Forward }
    });
    Instance::new(&cp.admin().with_server(&proxy.server()), &namespace).ask("provision", &[]).expect_code(0);
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_secs(3), "{:?}", times[1] - times[0]);
}

#[test]
fn retry_after_beyond_the_deadline_fails_at_once() {
    let cp = control_plane();
    let namespace = cp.namespace("toolong");
    let proxy =
        InterceptingProxy::start(
            cp,
            |request| {
                if is_apply(request, "roles") { overloaded(3600) } else { Verdict::Forward }
            },
        );
    let ran = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace).ask("provision", &[]).expect_code(69);
    expect_text(
        &ran.expect_error("server-error"),
        "cause",
        "asks for a pause of 3600 s, longer than the time left for this run",
    );
}

#[test]
fn retries_end_at_the_timeout() {
    let cp = control_plane();
    let proxy = InterceptingProxy::start(cp, |_| Verdict::refusal(503, "ServiceUnavailable", "not now"));
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), "default");
    let ran = instance.ask("plan", &["--timeout", "2"]).expect_code(69);
    assert!(ran.duration() < Duration::from_secs(6), "{:?}", ran.duration());
    ran.expect_error("server-error");
}

#[test]
fn foreign_object_after_lost_response_is_not_adopted() {
    let cp = control_plane();
    let namespace = cp.namespace("replaced");
    let role = paths(&namespace)[1].clone();
    let (path, mut tries) = (role.clone(), 0);
    let proxy = InterceptingProxy::start(cp, move |request| {
        if !is_apply(request, "roles") {
            return Verdict::Forward;
        }
        tries += 1;
        if tries == 1 {
            return Verdict::Lose;
        }
        // Between the two attempts another client takes the object over.
        let cp = control_plane();
        cp.delete(&path);
        let rules = json!([rule(&[""], &["configmaps"], &["get"])]);
        cp.post(path.rsplit_once('/').unwrap().0, &json!({"metadata": {"name": OBJECT}, "rules": rules}));
        Verdict::Forward
    });
    let ran = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace).ask("provision", &[]).expect_code(75);
    let error = ran.expect_error("conflict");
    assert!(!error["state"].as_str().unwrap().contains("may have succeeded"), "the outcome is known: {error:#}");
    let left = cp.get(&role).unwrap();
    assert_eq!(left["rules"][0]["resources"], json!(["configmaps"]));
    assert_eq!(left["metadata"]["labels"], Value::Null);
}

#[test]
fn lost_response_to_an_update_is_verified() {
    let cp = control_plane();
    let namespace = cp.namespace("updated");
    let near = Instance::new(cp.admin(), &namespace);
    near.ask("provision", &[]).expect_code(0);
    for lost in ["roles", "serviceaccounts"] {
        cp.merge_patch(&paths(&namespace)[0], &json!({"metadata": {"labels": {"md-project": "other"}}}));
        cp.merge_patch(&paths(&namespace)[1], &json!({"metadata": {"labels": {"md-project": "other"}}}));
        let mut met = false;
        let proxy = InterceptingProxy::start(cp, move |request| {
            if is_apply(request, lost) && !std::mem::replace(&mut met, true) { Verdict::Lose } else { Verdict::Forward }
        });
        let far = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
        let ran = far.ask("provision", &[]).expect_code(0);
        assert!(ran.stderr.contains(": the first attempt had succeeded"), "{lost}: {}", ran.stderr);
        let updated = changes(&ran.document()).iter().filter(|(action, _)| action == "update").count();
        assert_eq!(updated, 2, "{lost}");
        all_unchanged(&near.ask("provision", &[]).expect_code(0));
    }
}

#[rstest]
fn adoption_survives_any_lost_response(#[values(Helm::v3(), Helm::v4())] helm: &'static Helm) {
    let cp = control_plane();
    let mut lost = 0;
    loop {
        let namespace = cp.namespace("adopted");
        let near = Instance::new(cp.admin(), &namespace);
        Original::new(cp, helm, &near.params, &near.connection).provision();
        let (mut writes, this) = (0, lost);
        let proxy = InterceptingProxy::start(cp, move |request| {
            writes += usize::from(request.write);
            if request.write && writes == this + 1 { Verdict::Lose } else { Verdict::Forward }
        });
        let ran = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace).ask("provision", &[]);
        assert_eq!(ran.code, 0, "write {lost}: {}\n{:#?}", ran.stderr, proxy.requests());
        all_unchanged(&near.ask("provision", &[]).expect_code(0));
        if !ran.stderr.contains("\nretry ") {
            break;
        }
        lost += 1;
    }
    assert!(lost > 8, "{lost} responses to writes were lost: transfers of fields, applies, and the release Secret");
}

#[test]
fn sigterm_ends_a_backoff_at_once() {
    let cp = control_plane();
    let namespace = cp.namespace("paused");
    let proxy =
        InterceptingProxy::start(
            cp,
            |request| {
                if is_apply(request, "roles") { overloaded(100) } else { Verdict::Forward }
            },
        );
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let started = Instant::now();
    let mut child = start(&instance, "provision", &[]);
    let mut log = child.stderr.take().unwrap();
    let mut said = String::new();
    while !said.contains("\nretry ") {
        let mut byte = [0];
        assert_eq!(log.read(&mut byte).unwrap(), 1, "{said}");
        said.push(char::from(byte[0]));
    }
    let before = stops::signal(&child, started, Signal::SIGTERM);
    let ran = finish(child).expect_code(143);
    let took = ran.duration().saturating_sub(before);
    assert!(took < Duration::from_secs(5), "{took:?} after the signal");
    assert_eq!(ran.document()["error"]["code"], "terminated");
    proxy.settled();
    Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
}

/// An HTTP/2 relay that fails once: the first connection is cut, or hangs, after this many bytes of responses.
fn flaky_relay(cp: &ControlPlane, good_for: usize, dead: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let target = cp.server().trim_start_matches("https://").to_owned();
    thread::spawn(move || {
        let mut lost = Vec::new(); // stays open, and silent
        for (number, client) in listener.incoming().flatten().enumerate() {
            let upstream = TcpStream::connect(&target).unwrap();
            let (mut up, mut from) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut up));
            let (mut down, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                if number > 0 {
                    let _ = std::io::copy(&mut down, &mut to);
                    return;
                }
                let _ = std::io::copy(&mut (&down).take(good_for as u64), &mut to);
                if !dead {
                    let _ = (to.shutdown(Shutdown::Both), down.shutdown(Shutdown::Both));
                }
            });
            lost.push((client, upstream));
        }
    });
    server
}

#[test]
fn http2_connection_cut_at_any_byte_is_reopened() {
    let cp = control_plane();
    let mut cut = 0;
    for good_for in (2000..16000).step_by(700) {
        let namespace = cp.namespace("cut");
        let instance = Instance::new(&cp.admin().with_server(&flaky_relay(cp, good_for, false)), &namespace);
        let ran = instance.ask("provision", &[]);
        assert_eq!(ran.code, 0, "cut after {good_for}: {}", ran.stderr);
        cut += usize::from(ran.stderr.contains("\nretry "));
        assert_eq!(secrets(cp, &namespace), [OBJECT]);
        all_unchanged(&Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0));
    }
    assert!(cut > 5, "{cut} runs were cut");
}

#[test]
fn dead_connection_is_replaced() {
    let cp = control_plane();
    let namespace = cp.namespace("dead");
    let instance = Instance::new(&cp.admin().with_server(&flaky_relay(cp, 4000, true)), &namespace);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(ran.stderr.contains("\nretry "), "{}", ran.stderr);
}

#[test]
fn hanging_request_is_retried_after_its_timeout() {
    let cp = control_plane();
    let namespace = cp.namespace("hanging");
    let proxy = proxy_with_fault(cp, 3, Verdict::Hang);
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(ran.stderr.contains("no answer within the time limit; retrying in "), "{}", ran.stderr);
}

#[rstest]
#[case::still_accepted(Verdict::Answer(201, json!({"status": {"userInfo": {"username": "x", "uid": "y"}}})), 1, "token-still-accepted", "still accepts the token")]
#[case::silent(Verdict::Hang, 69, "timeout", "no answer within the time limit")]
fn still_accepted_token_differs_from_a_silent_server(
    #[case] verdict: Verdict,
    #[case] exit: i32,
    #[case] code: &str,
    #[case] cause: &str,
) {
    let cp = control_plane();
    let namespace = cp.namespace("undead");
    Instance::new(cp.admin(), &namespace).act("provision").expect_code(0);
    let proxy = InterceptingProxy::start(cp, move |request| {
        let asked = request.path.contains("/selfsubjectreviews");
        if asked { verdict.clone() } else { Verdict::Forward }
    });
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    let ran = instance.ask("decommission", &["--timeout", "8"]).expect_code(exit);
    let error = ran.expect_error(code);
    expect_text(&error, "cause", cause);
    expect_text(&error, "state", "its Secret is deleted; whether its token is rejected is not confirmed");
}

#[test]
fn ordinary_user_succeeds_on_an_overloaded_server() {
    let cp = ControlPlane::start(&Options { requests_at_once: Some(2), ..Options::default() }).unwrap();
    let parent = cp.persona("ordinary", &[Grant::cluster_role("cluster-admin")]);
    eventually("the server has refused requests", || {
        let namespace = cp.unused_namespace("busy");
        let instance = Instance::new(&parent, &namespace);
        let ran = instance.ask("provision", &[]).expect_code(0);
        assert_eq!(secrets(&cp, &namespace), [OBJECT]);
        let decommissioned = instance.ask("decommission", &[]).expect_code(0);
        let refused = |ran: &Ran| ran.stderr.contains(": 429: Too many requests");
        (refused(&ran) || refused(&decommissioned)).then_some(())
    });
}

#[test]
fn token_controller_leader_election_is_waited_for() {
    let cp = &*FREEZABLE;
    let namespace = cp.namespace("leader");
    let secret = paths(&namespace)[3].clone();
    // More failing reads than attempts for one request, and then an empty Secret again.
    let (path, mut looks) = (secret.clone(), 0);
    let proxy = InterceptingProxy::start(cp, move |request| {
        let look = request.method == "GET" && request.path == path;
        looks += usize::from(look);
        if look && (2..10).contains(&looks) {
            Verdict::refusal(503, "ServiceUnavailable", "x")
        } else {
            Verdict::Forward
        }
    });
    let instance = Instance::new(&cp.admin().with_server(&proxy.server()), &namespace);
    cp.freeze_controllers();
    let child = start(&instance, "provision", &[]);
    eventually("the token is awaited", || {
        let looks = proxy.requests().iter().filter(|request| request.method == "GET" && request.path == secret).count();
        (looks > 10).then_some(())
    });
    cp.thaw_controllers();
    let ran = finish(child).expect_code(0);
    assert!(ran.document()["token"]["fingerprint"].is_string());
}

#[test]
fn absent_token_controller_error_states_next_step() {
    let cp = ControlPlane::start(&Options { no_token_controller: true, ..Options::default() }).unwrap();
    let namespace = cp.namespace("absent");
    let instance = Instance::new(cp.admin(), &namespace);
    let ran = instance.ask("provision", &["--timeout", "3"]).expect_code(76);
    let error = ran.expect_error("token-controller-absent");
    expect_text(&error, "state", "create of Secret");
    expect_text(&error, "state", "running again continues from there");
    expect_text(&error, "next", "kube-controller-manager");
    instance.ask("decommission", &[]).expect_code(0);
}

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";

/// The resources that an admission policy matches: the instance's objects in one namespace.
fn constraints(namespace: &str, resource: &str) -> Value {
    let group = if resource.starts_with("role") { "rbac.authorization.k8s.io" } else { "" };
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "resourceRules": [{
            "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
        }],
    })
}

/// A ValidatingAdmissionPolicy against every object of this resource in this namespace.
struct Policy<'a> {
    cp: &'a ControlPlane,
    kind: &'static str,
    name: String,
}

impl<'a> Policy<'a> {
    fn validating(cp: &'a ControlPlane, namespace: &str, resource: &str, action: &str, message: &str) -> Self {
        let kind = "validatingadmissionpolicies";
        let name = format!("{namespace}-{resource}");
        let spec = json!({
            "matchConstraints": constraints(namespace, resource),
            "validations": [{"expression": "false", "message": message}],
        });
        cp.post(&format!("{POLICIES}/{kind}"), &json!({"metadata": {"name": name}, "spec": spec}));
        let binding = json!({"policyName": name, "validationActions": [action]});
        cp.post(
            &format!("{POLICIES}/validatingadmissionpolicybindings"),
            &json!({"metadata": {"name": name}, "spec": binding}),
        );
        Self { cp, kind, name }
    }

    fn mutating(cp: &'a ControlPlane, namespace: &str, resource: &str, mutation: &Value) -> Self {
        let kind = "mutatingadmissionpolicies";
        let name = format!("{namespace}-{resource}");
        let spec = json!({
            "matchConstraints": constraints(namespace, resource),
            "reinvocationPolicy": "Never",
            "mutations": [mutation],
        });
        cp.post(&format!("{POLICIES}/{kind}"), &json!({"metadata": {"name": name}, "spec": spec}));
        cp.post(
            &format!("{POLICIES}/mutatingadmissionpolicybindings"),
            &json!({"metadata": {"name": name}, "spec": {"policyName": name}}),
        );
        Self { cp, kind, name }
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        self.cp.delete(&format!("{POLICIES}/{}bindings/{}", self.kind.replace("policies", "policy"), self.name));
        self.cp.delete(&format!("{POLICIES}/{}/{}", self.kind, self.name));
    }
}

#[rstest]
fn admission_denial_is_quoted_and_a_repeat_completes(
    #[values("serviceaccounts", "roles", "rolebindings", "secrets")] resource: &str,
) {
    let cp = control_plane();
    let namespace = cp.namespace("policed");
    let instance = Instance::new(cp.admin(), &namespace);
    let policy = Policy::validating(cp, &namespace, resource, "Deny", "not here, says the policy");
    // The plan uses dry runs where possible, which it is not for a binding to a missing Role.
    let probe = json!({"metadata": {"name": "probe"}, "rules": [], "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    let group = if resource.starts_with("role") { "/apis/rbac.authorization.k8s.io/v1" } else { "/api/v1" };
    let collection = format!("{group}/namespaces/{namespace}/{resource}?dryRun=All");
    eventually("the policy is in force", || {
        (cp.request("POST", &collection, Some(&cp.admin().token), Some(&probe)).status == 422).then_some(())
    });
    let ran = instance.ask("provision", &[]).expect_code(1);
    let refused = ran.expect_error("refused");
    expect_text(&refused, "cause", "not here, says the policy");
    expect_text(&refused, "next", "change what the server objects to");
    assert!(!ran.stderr.contains("\nretry "), "{}", ran.stderr);
    drop(policy);
    eventually("the policy is deleted", || Some(instance.ask("provision", &[])).filter(|ran| ran.code == 0));
    all_unchanged(&instance.ask("provision", &[]).expect_code(0));
}

#[test]
fn server_warning_is_reported_once() {
    let cp = control_plane();
    let namespace = cp.namespace("warned");
    let instance = Instance::new(cp.admin(), &namespace);
    let _policy = Policy::validating(cp, &namespace, "roles", "Warn", "roles are \"so\" last year, says the policy");
    let plan = eventually("the policy is in force", || {
        Some(instance.ask("plan", &[])).filter(|ran| !ran.findings("server-warning").is_empty())
    });
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let ran = instance.ask("provision", &[]).expect_code(0);
    let found = ran.findings("server-warning");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["severity"], "info");
    let message = found[0]["message"].as_str().unwrap();
    assert!(message.contains("roles are \"so\" last year, says the policy"), "{message}");
    assert_eq!(ran.stderr.matches("last year").count(), 1, "{}", ran.stderr);
}

#[test]
fn legacy_token_warning_of_the_server_is_reported() {
    let cp = control_plane();
    let namespace = cp.namespace("autogenerated");
    let instance = Instance::new(cp.admin(), &namespace);
    let first = instance.ask("provision", &[]).expect_code(0);
    assert!(first.findings("server-warning").is_empty(), "{}", first.stderr);
    // The server takes a listed Secret for one that it generated itself, as before 1.24.
    cp.merge_patch(&paths(&namespace)[0], &json!({"secrets": [{"name": OBJECT}]}));
    let ran = eventually("the server has noticed", || {
        Some(instance.ask("provision", &[]).expect_code(0)).filter(|ran| !ran.findings("server-warning").is_empty())
    });
    let warnings = ran.findings("server-warning");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0]["message"].as_str().unwrap().contains("auto-generated secret-based tokens"), "{warnings:#?}");
    all_unchanged(&ran);
}

/// A MutatingAdmissionPolicy that applies this to every object of this resource in this namespace.
fn overlay(namespace: &str, resource: &'static str, expression: &str) -> Policy<'static> {
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    Policy::mutating(control_plane(), namespace, resource, &mutation)
}

const ALL: [&str; 4] = ["serviceaccounts", "roles", "rolebindings", "secrets"];

/// Waits until this label is added to new objects there.
fn await_label_in_force(cp: &ControlPlane, namespace: &str, label: &str) {
    for resource in ALL {
        let group = if resource.starts_with("role") { "/apis/rbac.authorization.k8s.io/v1" } else { "/api/v1" };
        let probe = json!({"metadata": {"name": "probe"}, "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
        let collection = format!("{group}/namespaces/{namespace}/{resource}?dryRun=All");
        eventually("the policy is in force", || {
            let made = cp.request("POST", &collection, Some(&cp.admin().token), Some(&probe));
            made.body["metadata"]["labels"][label].is_string().then_some(())
        });
    }
}

#[test]
fn fields_added_by_admission_are_kept() {
    let cp = control_plane();
    let namespace = cp.namespace("added");
    let addition =
        "Object{metadata: Object.metadata{labels: {\"cost-centre\": \"42\"}, annotations: {\"seen\": \"yes\"}}}";
    let policies = ALL.map(|resource| overlay(&namespace, resource, addition));
    await_label_in_force(cp, &namespace, "cost-centre");
    let parent = cp.persona("added", &[Grant::cluster_role("cluster-admin")]);
    let instance = Instance::new(&parent, &namespace);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert!(ran.findings("overwritten").is_empty(), "{}", ran.stderr);
    for path in paths(&namespace) {
        assert_eq!(cp.get(&path).unwrap()["metadata"]["labels"]["cost-centre"], "42");
    }
    let (before, mark) = (versions(cp, &namespace), cp.audit().mark());
    all_unchanged(&instance.ask("provision", &[]).expect_code(0));
    assert_eq!(versions(cp, &namespace), before);
    let writes = cp.audit().of(&parent.user, mark).into_iter().filter(testbed::AuditEvent::is_write).count();
    assert_eq!(writes, 0);
    instance.ask("plan", &["--detailed-exitcode"]).expect_code(0);
    drop(policies);
    all_unchanged(&instance.ask("provision", &[]).expect_code(0));
    instance.ask("decommission", &[]).expect_code(0);
    assert!(versions(cp, &namespace).is_empty());
}

#[test]
fn fields_overwritten_by_admission_are_reported_as_findings() {
    let cp = control_plane();
    let namespace = cp.namespace("undone");
    let change = "Object{metadata: Object.metadata{labels: {\"md-project\": \"theirs\"}}}";
    let policies = ALL.map(|resource| overlay(&namespace, resource, change));
    await_label_in_force(cp, &namespace, "md-project");
    let instance = Instance::new(cp.admin(), &namespace);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert_eq!(ran.findings("overwritten").len(), 4, "{}", ran.stderr);
    let message = ran.findings("overwritten")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("/metadata/labels/md-project"), "{message}");
    let before = versions(cp, &namespace);
    let again = instance.ask("provision", &[]).expect_code(0);
    all_unchanged(&again);
    assert_eq!(again.findings("overwritten").len(), 4, "{}", again.stderr);
    assert_eq!(versions(cp, &namespace), before, "no endless updates");
    instance.ask("plan", &["--detailed-exitcode"]).expect_code(0);
    drop(policies);
    eventually("the policies are deleted", || {
        let ran = instance.ask("provision", &[]).expect_code(0);
        ran.findings("overwritten").is_empty().then_some(())
    });
    assert_eq!(cp.get(&paths(&namespace)[1]).unwrap()["metadata"]["labels"]["md-project"], "ecomm");
    instance.ask("decommission", &[]).expect_code(0);
}

#[test]
fn objects_whose_ownership_labels_are_stripped_are_refused() {
    let cp = control_plane();
    let namespace = cp.namespace("disowned");
    let label = "app.kubernetes.io/managed-by";
    let change = format!("Object{{metadata: Object.metadata{{labels: {{\"{label}\": \"somebody\"}}}}}}");
    let _policies = ALL.map(|resource| overlay(&namespace, resource, &change));
    await_label_in_force(cp, &namespace, label);
    let instance = Instance::new(cp.admin(), &namespace);
    for action in ["plan", "provision"] {
        let ran = instance.ask(action, &[]).expect_code(1);
        let refused = ran.expect_error("refused");
        expect_text(&refused, "cause", "an admission policy changes /metadata/labels/app.kubernetes.io~1managed-by");
        expect_text(&refused, "cause", "it could not delete the object later");
        assert!(versions(cp, &namespace).is_empty(), "{action}");
    }
}

#[test]
fn rules_changed_by_admission_are_not_published() {
    let cp = control_plane();
    let namespace = cp.namespace("weakened");
    let weakened = r#"[JSONPatch{op: "add", path: "/rules", value:
        [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]}]"#;
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": weakened}});
    let _policy = Policy::mutating(cp, &namespace, "roles", &mutation);
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles?dryRun=All");
    eventually("the policy is in force", || {
        let made = cp.request("POST", &roles, Some(&cp.admin().token), Some(&json!({"metadata": {"name": "probe"}})));
        made.body["rules"].is_array().then_some(())
    });
    let instance = Instance::new(cp.admin(), &namespace);
    let ran = instance.ask("provision", &["--publish"]).expect_code(76);
    ran.expect_error("rules-not-allowed");
    let found = ran.findings("overwritten");
    assert!(found[0]["message"].as_str().unwrap().contains("/rules/0/resources"), "{found:#?}");
    assert_eq!(instance.platform.resource("token"), None);
}

#[rstest]
fn exceeded_quota_is_a_temporary_error(
    #[values("serviceaccounts", "secrets", "rolebindings.rbac.authorization.k8s.io")] what: &str,
) {
    let cp = control_plane();
    let namespace = cp.namespace("quota");
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    let mut hard = json!({});
    hard[format!("count/{what}")] = json!("0");
    cp.post(&quotas, &json!({"metadata": {"name": "none"}, "spec": {"hard": hard}}));
    cp.merge_patch(&format!("{quotas}/none/status"), &json!({"status": {"hard": hard, "used": hard}}));
    let instance = Instance::new(cp.admin(), &namespace);
    let ran = instance.ask("provision", &[]).expect_code(75);
    let error = ran.expect_error("quota");
    expect_text(&error, "next", "raise the quota");
    assert!(!ran.stderr.contains("\nretry "), "{}", ran.stderr);
    cp.delete(&format!("{quotas}/none"));
    instance.ask("provision", &[]).expect_code(0);
}

#[test]
fn openshift_additions_are_kept() {
    let cp = control_plane();
    let namespace = cp.namespace("openshift");
    let instance = Instance::new(cp.admin(), &namespace);
    instance.ask("provision", &[]).expect_code(0);
    // The login of the internal registry, and the CA of service certificates, as OpenShift's controllers write them.
    let [account, _, _, secret] = paths(&namespace);
    let login = format!("{OBJECT}-dockercfg-x7k2p");
    let dockercfg = json!({
        "metadata": {"name": login, "annotations": {"kubernetes.io/service-account.name": OBJECT}},
        "type": "kubernetes.io/dockercfg", "data": {".dockercfg": "e30="},
    });
    cp.post(secret.rsplit_once('/').unwrap().0, &dockercfg);
    let references = json!({"secrets": [{"name": login}], "imagePullSecrets": [{"name": login}]});
    cp.merge_patch(&account, &references);
    cp.merge_patch(&secret, &json!({"data": {"service-ca.crt": "Y2E="}}));

    let before = versions(cp, &namespace);
    let ran = instance.ask("provision", &[]).expect_code(0);
    all_unchanged(&ran);
    assert_eq!(ran.document()["findings"], json!([]), "{}", ran.stderr);
    assert_eq!(versions(cp, &namespace), before);
    instance.ask("plan", &["--detailed-exitcode"]).expect_code(0);

    // An apply keeps the foreign fields.
    cp.merge_patch(&account, &json!({"metadata": {"labels": {"md-project": "other"}}}));
    instance.ask("provision", &[]).expect_code(0);
    let kept = cp.get(&account).unwrap();
    assert_eq!(
        (&kept["secrets"], &kept["imagePullSecrets"]),
        (&references["secrets"], &references["imagePullSecrets"])
    );
    assert_eq!(cp.get(&secret).unwrap()["data"]["service-ca.crt"], "Y2E=");

    let gone = instance.ask("decommission", &[]).expect_code(0);
    assert!(gone.findings("foreign-object").is_empty(), "{}", gone.stderr);
    assert!(versions(cp, &namespace).is_empty());
    assert_eq!(secrets(cp, &namespace), [login]);
}

/// Provisions in a namespace of its own against a platform that the closure prepares.
fn provision_with_platform(era: Era, fault: impl FnOnce(&Platform)) -> (Instance, Ran) {
    let cp = control_plane();
    let instance = Instance::of_era(cp.admin(), &cp.namespace("platform"), era, Shape::Bare);
    fault(&instance.platform);
    let ran = instance.ask("provision", &["--publish"]);
    (instance, ran)
}

/// The credential after a failed publication: it works, is kept, and a repeat publishes it.
#[track_caller]
fn expect_kept_and_completed_by_repeat(instance: &Instance, ran: &Ran) {
    let cp = control_plane();
    let error = ran.document()["error"].clone();
    expect_text(&error, "state", "the credential is in the cluster, tested and working");
    expect_text(&error, "next", "deploy again");
    let made = ran.document()["token"].clone();
    assert!(made["fingerprint"].is_string());
    let again = instance.ask("provision", &["--publish"]).expect_code(0);
    all_unchanged(&again);
    assert_eq!(again.document()["token"], made);
    let token = token_of(&instance.platform.resource("token").unwrap());
    assert_eq!(status(cp, &token, &format!("/api/v1/namespaces/{}/pods", instance.namespace)), 200);
}

#[rstest]
fn temporary_platform_error_is_retried(#[values(408, 429, 500, 502, 503, 504)] status: u16) {
    let (instance, ran) = provision_with_platform(Era::Dependencies, |platform| {
        platform.fail_next(status, "<html>\u{1b}[31mno</html>");
        platform.fail_next_with(status, &[("retry-after", "1")], "");
    });
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let line = format!("retry        publishing the credential: {status}: an HTML page; retrying in ");
    assert!(ran.stderr.contains(&line) && !ran.stderr.contains("<html>"), "{}", ran.stderr);
    let requests = instance.platform.requests();
    assert_eq!(requests.iter().map(|request| request.status).collect::<Vec<_>>(), [status, status, 201]);
    assert!(requests.iter().all(|request| request.body == requests[0].body && request.authorized));
}

#[rstest]
#[case(400, r#"{"error": "malformed"}"#, "400: malformed")]
#[case(401, r#"{"error": "Unauthorized"}"#, "401: Unauthorized; the token of a deployment expires")]
#[case(403, "", "403 Forbidden; the token of a deployment expires when the deployment ends or is aborted")]
#[case(410, "<!doctype html><p>gone", "410: an HTML page")]
#[case(
    422,
    r#"{"errors": {"payload": ["is not what we want", "nor that"]}}"#,
    "422: payload is not what we want, nor that"
)]
#[case(422, r#"{"payload": {"echo": "of what was sent"}}"#, "422: an answer without an error")]
fn permanent_platform_error_is_not_retried(#[case] status: u16, #[case] body: &str, #[case] cause: &str) {
    let (instance, ran) = provision_with_platform(Era::Dependencies, |platform| platform.fail_next(status, body));
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    let error = ran.expect_error("platform-refused");
    expect_text(&error, "cause", cause);
    assert!(!error["cause"].as_str().unwrap().contains("tried"), "{error:#}");
    assert_eq!(instance.platform.requests().len(), 1);
    expect_kept_and_completed_by_repeat(&instance, &ran);
}

#[rstest]
fn temporary_error_is_retried_on_every_platform_generation(
    #[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era,
    #[values(408, 429, 500, 502, 503, 504)] status: u16,
) {
    let faulty = |platform: &Platform| {
        platform.fail_next_with(status, &[("retry-after", "1")], r#"{"error": "in a fault"}"#);
        platform.fail_next(status, "<html>");
    };
    let (instance, ran) = provision_with_platform(era, faulty);
    let told = |ran: &Ran, doing: &str| {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("retry ")).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for (line, said) in lines.iter().zip(["in a fault", "an HTML page"]) {
            assert!(line.contains(&format!("{doing}: {status}: {said}; retrying in ")), "{line}");
        }
    };
    told(&ran, "publishing the credential");
    assert!(instance.platform.resource("token").is_some());
    let before = instance.platform.requests().len();
    faulty(&instance.platform);
    told(&instance.ask("decommission", &["--publish"]).expect_code(0), "deleting Massdriver's record");
    assert_eq!(instance.platform.resource("token"), None);
    let asked = instance.platform.requests().split_off(before);
    assert!(asked[1..3].iter().all(|request| (&request.method, &request.path) == (&asked[0].method, &asked[0].path)));
}

/// A permanent error ends a deletion at once, too, and the cluster is clean all the same.
#[rstest]
fn refused_deletion_is_reported_on_every_platform_generation(
    #[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era,
    #[values(
        (400, r#"{"error": "malformed"}"#, "400: malformed"),
        (403, "", "403 Forbidden; the token of a deployment expires"),
        (422, r#"{"errors": {"field": ["is used"]}}"#, "422: field is used"),
        (500, "", "500 Internal Server Error (tried 5 times)")
    )]
    fault: (u16, &str, &str),
) {
    let cp = control_plane();
    let (status_of, body, cause) = fault;
    let (instance, ran) = provision_with_platform(era, |_| {});
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let token = token_of(&instance.platform.resource("token").unwrap());
    for _ in 0..5 {
        instance.platform.fail_next(status_of, body);
    }
    let ran = instance.ask("decommission", &["--publish"]).expect_code(69);
    let error = ran.expect_error("platform-refused");
    expect_text(&error, "cause", cause);
    assert_eq!(status(cp, &token, "/api"), 401, "independently of the platform");
    assert!(versions(cp, &instance.namespace).is_empty());
}

#[test]
fn expired_deployment_token_does_not_prevent_cluster_cleanup() {
    let cp = control_plane();
    let (instance, ran) = provision_with_platform(Era::Dependencies, |_| {});
    assert_eq!(ran.code, 0);
    let token = token_of(&instance.platform.resource("token").unwrap());
    let mut command = instance.command("decommission", &["--publish"]);
    let ran = Ran::of(command.env("MASSDRIVER_TOKEN", "expired")).expect_code(69);
    let refused = ran.expect_error("platform-refused");
    expect_text(&refused, "cause", "401: Unauthorized; the token of a deployment expires");
    expect_text(&refused, "state", "everything in the cluster is deleted; Massdriver's record still exists");
    expect_text(&refused, "next", "start a new deployment");
    assert_eq!(status(cp, &token, "/api"), 401, "independently of the platform");
    assert!(versions(cp, &instance.namespace).is_empty());
    assert_eq!(
        instance.platform.requests().len(),
        2,
        "one publication, one refusal: {:#?}",
        instance.platform.requests()
    );
    instance.ask("decommission", &["--publish"]).expect_code(0);
    assert_eq!(instance.platform.resource("token"), None);
}

#[rstest]
fn lost_platform_response_leaves_one_record(#[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era) {
    let (instance, ran) = provision_with_platform(era, |platform| {
        if era == Era::Artifacts {
            platform.fail_next(404, r#"{"errors": {"detail": "Not Found"}}"#); // the route of later eras
        }
        platform.lose_next_answer();
    });
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(instance.platform.resource("token").is_some());
    instance.platform.lose_next_answer();
    let ran = instance.ask("decommission", &["--publish"]).expect_code(0);
    assert!(ran.stderr.contains("\nretry        deleting Massdriver's record: the connection broke"), "{}", ran.stderr);
    assert_eq!(instance.platform.resource("token"), None);
}

#[test]
fn unreachable_platform_is_tried_five_times() {
    let cp = control_plane();
    let (instance, ran) = provision_with_platform(Era::Dependencies, Platform::down);
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    let away = ran.expect_error("platform-unreachable");
    expect_text(&away, "cause", "(tried 5 times)");
    expect_text(&away, "state", "Massdriver may not have it yet; a request got no answer and may have succeeded");
    assert_eq!(instance.platform.requests().len(), 5);
    instance.platform.up();
    expect_kept_and_completed_by_repeat(&instance, &ran);

    let token = token_of(&instance.platform.resource("token").unwrap());
    instance.platform.down();
    let ran = instance.ask("decommission", &["--publish"]).expect_code(69);
    expect_text(&ran.expect_error("platform-unreachable"), "state", "everything in the cluster is deleted");
    assert_eq!(status(cp, &token, "/api"), 401);
    instance.platform.up();
    instance.ask("decommission", &["--publish"]).expect_code(0);
    assert_eq!(instance.platform.resource("token"), None);
}

#[test]
fn refused_platform_connection_is_retried() {
    let cp = control_plane();
    let instance = Instance::new(cp.admin(), &cp.namespace("nobody"));
    let mut command = instance.command("provision", &["--publish"]);
    let ran = Ran::of(command.env("MASSDRIVER_URL", testbed::RefusedPort.url())).expect_code(69);
    let away = ran.expect_error("platform-unreachable");
    expect_text(&away, "cause", "(tried 5 times)");
    expect_text(&away, "state", "Massdriver does not have it yet");
    expect_kept_and_completed_by_repeat(&instance, &ran);
}

#[test]
fn silent_platform_does_not_delay_cluster_cleanup() {
    let cp = control_plane();
    let (instance, ran) = provision_with_platform(Era::Dependencies, |_| {});
    assert_eq!(ran.code, 0);
    let token = token_of(&instance.platform.resource("token").unwrap());
    let silent = SilentServer::start().url();
    let mut command = instance.command("decommission", &["--publish", "--timeout", "15"]);
    let ran = Ran::of(command.env("MASSDRIVER_URL", silent)).expect_code(69);
    assert!(ran.duration() < Duration::from_secs(25), "{:?}", ran.duration());
    let error = ran.expect_error("platform-unreachable");
    expect_text(&error, "cause", "no answer within the time limit");
    expect_text(&error, "state", "everything in the cluster is deleted; Massdriver's record may still exist");
    assert_eq!(status(cp, &token, "/api"), 401);
}

#[test]
fn unanswered_platform_request_is_retried() {
    let cp = control_plane();
    let instance = Instance::new(cp.admin(), &cp.namespace("asleep"));
    instance.platform.answer_after(Duration::from_secs(45));
    let child = start(&instance, "provision", &["--publish"]);
    eventually("the platform has received a request", || (!instance.platform.requests().is_empty()).then_some(()));
    instance.platform.answer_after(Duration::ZERO);
    let ran = finish(child).expect_code(0);
    assert!(ran.stderr.contains("no answer within the time limit; retrying in "), "{}", ran.stderr);
    assert!(instance.platform.resource("token").is_some());
}

#[rstest]
#[case(307)]
#[case(308)]
fn platform_redirect_307_and_308_is_followed(#[case] kind: u16) {
    let (instance, ran) = provision_with_platform(Era::Dependencies, |platform| {
        platform.fail_next_with(kind, &[("location", "/v1/resources?again=1")], "");
        platform.fail_next_with(kind, &[("location", &format!("{}/v1/resources", platform.url()))], "");
    });
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let requests = instance.platform.requests();
    let seen: Vec<_> = requests.iter().map(|request| (&request.method[..], &request.path[..])).collect();
    assert_eq!(seen, [("POST", "/v1/resources"), ("POST", "/v1/resources?again=1"), ("POST", "/v1/resources")]);
    assert!(requests.iter().all(|request| request.authorized && request.body == requests[0].body));
    assert!(instance.platform.resource("token").is_some());
}

#[rstest]
#[case(301, "/v1/resources/?token=t0p", "redirect to http://127.0.0.1:")]
#[case(302, "/login?token=t0p", "/login; only 307 and 308 are followed")]
#[case(303, "/elsewhere", "/elsewhere; only 307 and 308 are followed")]
#[case(307, "OTHER/v1/resources?token=t0p", "/v1/resources, but the login is for http://127.0.0.1:")]
#[case(308, "OTHER", ", but the login is for http://127.0.0.1:")]
fn other_platform_redirects_are_refused(#[case] kind: u16, #[case] location: &str, #[case] cause: &str) {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let location = location.replace("OTHER", &format!("http://{}", other.local_addr().unwrap()));
    let (instance, ran) = provision_with_platform(Era::Dependencies, |platform| {
        platform.fail_next_with(kind, &[("location", &location)], "<html>");
    });
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    let error = ran.expect_error("platform-refused");
    expect_text(&error, "cause", cause);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("t0p"), "a query may be a secret: {}", ran.stderr);
    assert_eq!(instance.platform.requests().len(), 1);
    assert!(other.accept().is_err(), "the deployment's token went to another server");
    expect_kept_and_completed_by_repeat(&instance, &ran);
}

#[test]
fn redirect_loop_is_an_error() {
    let (instance, ran) = provision_with_platform(Era::Dependencies, |platform| {
        for _ in 0..10 {
            platform.fail_next_with(307, &[("location", "/v1/resources")], "");
        }
    });
    assert_eq!(ran.code, 69);
    expect_text(&ran.expect_error("platform-refused"), "cause", "redirected more than 5 times");
    assert_eq!(instance.platform.requests().len(), 6);
}

#[rstest]
#[case(409, "")]
#[case(422, r#"{"errors": {"field": ["has already been taken"]}}"#)]
#[case(422, r#"{"errors": {"identifier": ["must be unique"]}}"#)]
fn existing_record_is_replaced_under_its_id(
    #[case] status: u16,
    #[case] body: &str,
    #[values(Era::Artifacts, Era::Resources, Era::Dependencies)] era: Era,
) {
    let (instance, ran) = provision_with_platform(era, |_| {});
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let before = instance.platform.resource("token").unwrap();
    control_plane().delete(&paths(&instance.namespace)[3]); // so that there is another token to publish
    if era == Era::Artifacts {
        instance.platform.fail_next(404, "");
    }
    instance.platform.fail_next(status, body);
    let ran = instance.ask("provision", &["--publish"]).expect_code(0);
    let requests = instance.platform.requests();
    let last = requests.last().unwrap();
    assert_eq!((&last.method[..], last.status), ("PUT", 200), "{requests:#?}");
    let after = instance.platform.resource("token").unwrap();
    assert_ne!(token_of(&after), token_of(&before), "{}", ran.stderr);
}

#[test]
fn unrelated_platform_conflict_is_an_error() {
    // Nothing is published yet, so no id is known.
    let (instance, ran) =
        provision_with_platform(Era::Dependencies, |platform| platform.fail_next(409, r#"{"error": "busy"}"#));
    assert_eq!(ran.code, 69);
    expect_text(&ran.expect_error("platform-refused"), "cause", "409: busy");
    let tried: Vec<_> = instance.platform.requests().iter().map(|request| request.method.clone()).collect();
    assert_eq!(tried, ["POST", "PUT", "PUT", "PUT"], "each name that it may have");
    expect_kept_and_completed_by_repeat(&instance, &ran);
}

#[rstest]
#[case(200, "")]
#[case(201, "created, thanks")]
#[case(202, "<html>ok</html>")]
#[case(204, "")]
fn any_2xx_platform_response_is_success(#[case] status: u16, #[case] body: &str) {
    let (_, ran) = provision_with_platform(Era::Dependencies, |platform| platform.fail_next(status, body));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn wrong_platform_url_is_suggested_as_the_cause() {
    let (instance, ran) = provision_with_platform(Era::Dependencies, |platform| {
        platform.fail_next(404, "");
        platform.fail_next(405, "");
    });
    assert_eq!(ran.code, 69);
    expect_text(&ran.expect_error("platform-refused"), "cause", "405 Method Not Allowed; MASSDRIVER_URL may be wrong");
    expect_kept_and_completed_by_repeat(&instance, &ran);
}

#[test]
fn undeletable_record_error_quotes_the_platform() {
    let cp = control_plane();
    let (instance, ran) = provision_with_platform(Era::Dependencies, |_| {});
    assert_eq!(ran.code, 0);
    let token = token_of(&instance.platform.resource("token").unwrap());
    instance.platform.fail_next(409, r#"{"errors": {"detail": "it is an environment default"}}"#);
    let ran = instance.ask("decommission", &["--publish"]).expect_code(69);
    let error = ran.expect_error("platform-refused");
    expect_text(&error, "cause", "409: it is an environment default");
    expect_text(&error, "state", "everything in the cluster is deleted; Massdriver's record still exists");
    assert_eq!(status(cp, &token, "/api"), 401);
}

#[rstest]
#[case::a_package(Era::Artifacts, false, &["/v1/resources/PACKAGE-token", "/v1/artifacts/PACKAGE-token"])]
#[case::an_instance(Era::Resources, false, &["/v1/resources/INSTANCE-token"])]
#[case::an_instance_only(Era::Dependencies, false, &["/v1/resources/INSTANCE-token"])]
#[case::a_naming_convention(Era::Dependencies, true,
    &["/v1/resources/INSTANCE-token", "/v1/resources/PACKAGE-token", "/v1/resources/INSTANCE.token"])]
fn record_is_deleted_under_the_platforms_name(#[case] era: Era, #[case] convention: bool, #[case] asked: &[&str]) {
    let (instance, ran) = provision_with_platform(era, |platform| {
        if convention {
            platform.only_dotted_ids();
        }
    });
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = instance.ask("decommission", &["--publish"]).expect_code(0);
    assert!(ran.stderr.contains("record deleted at"), "{}", ran.stderr);
    assert_eq!(instance.platform.resource("token"), None);
    let requests = instance.platform.requests();
    let deletions = requests.iter().filter(|request| request.method == "DELETE");
    let deletions: Vec<&str> = deletions.map(|request| &request.path[..]).collect();
    let (package, own) = (instance.platform.package_name(), instance.platform.instance_id());
    let expected: Vec<String> =
        asked.iter().map(|path| path.replace("PACKAGE", package).replace("INSTANCE", own)).collect();
    assert_eq!(deletions, expected);
    // A record that is deleted already is success, whatever its name was.
    let again = instance.ask("decommission", &["--publish"]).expect_code(0);
    assert!(again.stderr.contains("no record found at"), "{}", again.stderr);
}
