//! Request budget of a run: requests, round trips and writes are counted, time is not measured. A single test, so that
//! no other run is counted at the same time. `.ci/run` checks the size of the binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::{Value, json};
use support::Instance;
use testbed::{AuditEvent, ControlPlane, Grant, Persona, RoundTripGate};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

fn parent(stem: &str) -> Persona {
    control_plane().persona(stem, &[Grant::cluster_role("cluster-admin")])
}

/// The requests of one run to the cluster, by the parent and by the issued token.
fn requests(namespace: &str, mark: testbed::Mark) -> Vec<AuditEvent> {
    let mut events = control_plane().audit().since(mark);
    // Reviews have no namespace; no other test of this binary runs at the same time.
    events.retain(|event| event.user_agent.starts_with("k8s-token/"));
    assert!(events.iter().any(|event| event.namespace == namespace));
    events
}

/// A read of the Secret while the token controller fills it. Their number depends on the controller.
fn is_waiting(event: &AuditEvent) -> bool {
    event.resource == "secrets" && event.verb == "get"
}

#[test]
fn provision_stays_within_its_request_budget() {
    let (cp, parent) = (control_plane(), parent("counts"));
    let namespace = cp.namespace("counts");
    let instance = Instance::new(&parent, &namespace);
    let mark = cp.audit().mark();
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    let events = requests(&namespace, mark);
    let (waiting, others): (Vec<_>, Vec<_>) = events.iter().partition(|event| is_waiting(event));
    // 9 reads, 1 for the discovery, 1 for the Helm release, 4 writes, 5 for the test of the token; and one to the platform.
    let uris = others.iter().map(|event| &event.uri).collect::<Vec<_>>();
    // On a slow machine the token may be tested before the server's caches contain the binding; its 5 requests are then
    // repeated.
    assert!(others.len() >= 19 && (others.len() - 19).is_multiple_of(5) && others.len() <= 29, "{uris:#?}");
    assert_eq!(events.iter().filter(|event| event.is_write()).count(), 4);
    assert_eq!(document["requests"], events.len() + 1, "the document reports the number of requests");
    // One read at the start, then one every 5 ms or more.
    assert!(waiting.len() <= 40, "{} reads of the Secret", waiting.len());

    let mark = cp.audit().mark();
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    let events = requests(&namespace, mark);
    assert_eq!((events.len(), events.iter().filter(|event| event.is_write()).count()), (15, 0));
    assert_eq!(document["requests"], 16);

    expect_same_requests_for_a_thousand_rules(&instance, &namespace);
    expect_few_round_trips(&parent);
}

/// Called from the one test, because it counts all requests to the server.
fn expect_same_requests_for_a_thousand_rules(instance: &Instance, namespace: &str) {
    let rules: Vec<Value> = (0..1000)
        .map(|number| json!({"apiGroups": ["example.com"], "resources": [format!("things{number}")], "verbs": ["get", "list"]}))
        .collect();
    let mut many = Instance::new(control_plane().admin(), namespace).rules(&json!(rules));
    many.connection = instance.connection.clone();
    let mark = control_plane().audit().mark();
    let document = many.ask("provision", &["--publish"]).expect_code(0).document();
    let events = requests(namespace, mark);
    assert_eq!(
        events.iter().filter(|event| event.is_write()).count(),
        2,
        "the Role is widened, and narrowed after the test of the token"
    );
    assert_eq!(document["proof"]["allowed"], 2000);
    let reviews = events.iter().filter(|event| event.resource.ends_with("reviews")).count();
    assert_eq!((reviews - 2) % 5, 0, "only whole repeats of the token test: no request for a single rule");
    assert_eq!(events.len() - (reviews - 7), 17, "as many as for one rule, except for repeated token tests");
}

fn expect_few_round_trips(parent: &Persona) {
    let cp = control_plane();
    let namespace = cp.namespace("trips");
    let gate = RoundTripGate::in_front_of(cp.server());
    let instance = Instance::new(&parent.with_server(&gate.server()), &namespace);
    let mark = cp.audit().mark();
    instance.ask("provision", &["--publish"]).expect_code(0);
    let looks = requests(&namespace, mark).iter().filter(|event| is_waiting(event)).count() - 1;
    assert_eq!(gate.connections(), 2, "one as the parent, one as the new credential");
    // Reads, release, two writes, two writes, token, test of the token; the platform is the seventh. Two TLS handshakes
    // in addition.
    let bound = 6 + 2 + (looks - 1); // the number of reads of the token depends on the controller
    assert!(gate.round_trips() <= bound, "{} round trips with {looks} reads of the Secret", gate.round_trips());

    let gate = RoundTripGate::in_front_of(cp.server());
    let mut again = Instance::new(&parent.with_server(&gate.server()), &namespace);
    again.config = instance.config.clone();
    again.ask("provision", &[]).expect_code(0);
    assert!(gate.round_trips() <= 2 + 2, "{} round trips when nothing changed", gate.round_trips());
}
