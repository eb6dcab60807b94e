//! The intercepting proxy changes only what the test decides, and forwards nothing after a cut.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::{ControlPlane, Intercepted, InterceptingProxy, Persona, Verdict, eventually};
use ureq::Agent;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const APPLY: &str = "application/apply-patch+yaml";
/// Longer than any response takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// For responses that must not arrive: long enough to send a request on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// A user at this server, with connections of its own.
struct Client {
    persona: Persona,
    server: String,
    agent: Agent,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Client {
    /// The administrator at this server, with this timeout for each response.
    fn new(server: &str, patience: Duration) -> Self {
        let control_plane = ControlPlane::shared();
        let ca = Certificate::from_pem(control_plane.ca_pem().as_bytes()).unwrap();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .build();
        let config =
            Agent::config_builder().tls_config(tls).http_status_as_error(false).timeout_global(Some(patience)).build();
        Self {
            persona: control_plane.admin().clone(),
            server: server.to_owned(),
            agent: Agent::new_with_config(config),
        }
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Option<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header("authorization", format!("Bearer {}", self.persona.token));
        let answer = if body.is_null() {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.header("content-type", kind).body(body.to_string()).unwrap())
        };
        let mut answer = answer.ok()?;
        let text = answer.body_mut().read_to_string().unwrap();
        Some(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text })
    }

    /// The status, `None` without a response.
    fn get(&self, path: &str) -> Option<u16> {
        self.ask("GET", path, "", &Value::Null).map(|answer| answer.status)
    }

    fn apply(&self, namespace: &str, name: &str) -> Option<u16> {
        let path = format!("{}?fieldManager=tests", map(namespace, name));
        self.ask("PATCH", &path, APPLY, &document(name)).map(|answer| answer.status)
    }
}

fn map(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

fn document(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

/// Whether each ConfigMap exists.
fn there<const N: usize>(namespace: &str, names: [&str; N]) -> [bool; N] {
    names.map(|name| ControlPlane::shared().get(&map(namespace, name)).is_some())
}

/// Gives this verdict for a write of the ConfigMap with this name, and forwards all other requests.
fn at(name: &'static str, verdict: Verdict) -> impl FnMut(&Intercepted) -> Verdict + Send + 'static {
    move |request| {
        let is_it = request.write && request.path.contains(&format!("/configmaps/{name}"));
        if is_it { verdict.clone() } else { Verdict::Forward }
    }
}

fn seen(proxy: &InterceptingProxy) -> Vec<(String, Option<u16>)> {
    let requests = proxy.requests();
    assert!(requests.iter().enumerate().all(|(place, request)| request.number == place), "{requests:?}");
    requests.into_iter().map(|request| (request.method, request.status)).collect()
}

#[test]
fn forwarded_requests_are_unchanged() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("faithful");
    let proxy = InterceptingProxy::start(control_plane, |_| Verdict::Forward);
    let (near, through) = (Client::new(control_plane.server(), PATIENCE), Client::new(&proxy.server(), PATIENCE));
    let path = map(&namespace, "x");
    let none = Value::Null;

    let mark = control_plane.audit().mark();
    assert_eq!(through.apply(&namespace, "x"), Some(201));
    assert_eq!(through.apply(&namespace, "x"), Some(200));
    let stored = control_plane.get(&path).unwrap();
    assert_eq!(stored["metadata"]["managedFields"][0]["operation"], "Apply");
    let applied = control_plane.audit().since(mark).into_iter().find(|event| event.namespace == namespace).unwrap();
    assert_eq!((applied.user.as_str(), applied.code), (through.persona.user.as_str(), 201));
    assert!(applied.uri.ends_with("/configmaps/x?fieldManager=tests"), "{}", applied.uri);
    assert!(applied.user_agent.starts_with("ureq/"), "{}", applied.user_agent);

    // Also large, compressed and refused responses.
    for path in [&path, "/openapi/v2", "/apis/nothing", "/readyz?verbose"] {
        let (mine, other) = (near.ask("GET", path, "", &none).unwrap(), through.ask("GET", path, "", &none).unwrap());
        assert_eq!((mine.status, &mine.text), (other.status, &other.text), "{path}");
        let fixed = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            let _ = (headers.remove("date"), headers.remove("audit-id")); // new each time
            headers
        };
        assert_eq!(fixed(&mine), fixed(&other), "{path}");
        let audited = |answer: &Answer| answer.headers.contains_key("audit-id");
        assert_eq!(audited(&mine), audited(&other), "{path}");
    }

    assert_eq!(through.ask("DELETE", &path, "", &none).unwrap().status, 200);
    assert_eq!(there(&namespace, ["x"]), [false]);
    assert_eq!(through.ask("DELETE", &path, "", &none).unwrap().status, 404);
    let expected = [("PATCH", 201), ("PATCH", 200), ("GET", 200), ("GET", 200), ("GET", 404), ("GET", 200)];
    let expected = expected.into_iter().chain([("DELETE", 200), ("DELETE", 404)]);
    let expected: Vec<_> = expected.map(|(method, status)| (method.to_owned(), Some(status))).collect();
    assert_eq!(seen(&proxy), expected);
    assert_eq!(proxy.requests()[2].path, path);
    assert!(!proxy.wait_for_cut(Duration::ZERO), "there was none");
}

#[test]
fn writes_are_distinguished_from_reviews() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("kinds");
    let proxy = InterceptingProxy::start(control_plane, |_| Verdict::Forward);
    let client = Client::new(&proxy.server(), PATIENCE);
    let (maps, json) = (format!("/api/v1/namespaces/{namespace}/configmaps"), "application/json");
    let mark = control_plane.audit().mark();
    client.ask("POST", &format!("{maps}?dryRun=All"), json, &document("x")).unwrap();
    client.ask("POST", &maps, json, &document("x")).unwrap();
    client.get(&maps).unwrap();
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace}});
    client.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json, &review).unwrap();
    let delete = |options: Value| {
        let request = Request::delete(format!("{}{maps}/x", client.server))
            .header("authorization", format!("Bearer {}", client.persona.token))
            .header("content-type", json)
            .body(options.to_string())
            .unwrap();
        let request = client.agent.configure_request(request).allow_non_standard_methods(true).build();
        client.agent.run(request).unwrap();
    };
    delete(json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}));
    delete(json!({"apiVersion": "v1", "kind": "DeleteOptions"}));
    let writes: Vec<_> = proxy.requests().iter().map(|request| request.write).collect();
    assert_eq!(writes, [false, true, false, false, false, true]);
    let mut events = control_plane.audit().since(mark);
    events.retain(|event| event.namespace == namespace || event.resource.ends_with("rulesreviews"));
    events.retain(|event| event.user == client.persona.user);
    // The audit log contains no options of a deletion at this level.
    assert_eq!(writes[..4], events.iter().map(testbed::AuditEvent::is_write).collect::<Vec<_>>()[..4]);
}

#[test]
fn cut_before_a_request_prevents_later_ones_too() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("before");
    let (asked, mut decide) = (Arc::new(AtomicUsize::new(0)), at("b", Verdict::CutBefore));
    let counter = Arc::clone(&asked);
    let proxy = InterceptingProxy::start(control_plane, move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        decide(request)
    });
    assert_eq!(Client::new(&proxy.server(), PATIENCE).apply(&namespace, "a"), Some(201));
    assert!(!proxy.wait_for_cut(Duration::ZERO), "not yet");
    let client = Client::new(&proxy.server(), SHORT);
    let start = Instant::now();
    assert_eq!(client.apply(&namespace, "b"), None, "no answer");
    assert!(start.elapsed() >= SHORT, "and no end of the connection");
    assert!(proxy.wait_for_cut(PATIENCE));
    assert_eq!(
        (client.apply(&namespace, "c"), client.get("/version")),
        (None, None),
        "requests after the cut have no response"
    );
    proxy.settled();
    assert_eq!(asked.load(Ordering::Relaxed), 2, "no decision about requests after the cut");
    assert_eq!(there(&namespace, ["a", "b", "c"]), [true, false, false]);
    let expected = [("PATCH", Some(201)), ("PATCH", None), ("PATCH", None), ("GET", None)];
    assert_eq!(seen(&proxy), expected.map(|(method, status)| (method.to_owned(), status)));
}

#[test]
fn cut_after_a_request_applies_it_without_response() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("after");
    let proxy = InterceptingProxy::start(control_plane, at("b", Verdict::CutAfter));
    assert_eq!(Client::new(&proxy.server(), PATIENCE).apply(&namespace, "a"), Some(201));
    let client = Client::new(&proxy.server(), SHORT);
    assert_eq!(client.apply(&namespace, "b"), None, "no answer");
    assert!(proxy.wait_for_cut(PATIENCE));
    assert_eq!(client.apply(&namespace, "c"), None, "requests after the cut have no response");
    proxy.settled();
    assert_eq!(there(&namespace, ["a", "b", "c"]), [true, true, false]);
    let statuses: Vec<_> = proxy.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(201), Some(201), None]);
}

#[test]
fn only_concurrent_requests_before_the_cut_are_executed() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("together");
    let proxy = InterceptingProxy::start(control_plane, |request| match request.number {
        7 => Verdict::CutBefore,
        _ => Verdict::Forward,
    });
    let names: Vec<String> = (0..16).map(|number| format!("m{number}")).collect();
    thread::scope(|scope| {
        for name in &names {
            let (namespace, server) = (&namespace, proxy.server());
            scope.spawn(move || Client::new(&server, PATIENCE).apply(namespace, name));
        }
        assert!(proxy.wait_for_cut(PATIENCE));
        proxy.settled();
        let made = || names.iter().filter(|name| there(&namespace, [name.as_str()])[0]).count();
        assert_eq!(made(), 7);
        let requests = eventually("all have arrived", || Some(proxy.requests()).filter(|all| all.len() == names.len()));
        assert!(requests[..7].iter().all(|request| request.status == Some(201)), "{requests:?}");
        assert!(requests[7..].iter().all(|request| request.status.is_none()), "{requests:?}");
        drop(proxy); // and with it all connections
        thread::sleep(SHORT);
        assert_eq!(made(), 7, "held requests are not released at the end");
    });
}

#[test]
fn pending_request_at_the_cut_completes_without_response() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("slow");
    let proxy = InterceptingProxy::start(control_plane, at("b", Verdict::CutBefore));
    // A watch that the server ends is a request that takes long.
    let slow = format!("/api/v1/namespaces/{namespace}/secrets?watch=true&timeoutSeconds=3");
    thread::scope(|scope| {
        let server = proxy.server();
        let waiting = scope.spawn(move || Client::new(&server, PATIENCE).get(&slow));
        eventually("the request has arrived", || proxy.requests().pop());
        assert_eq!(Client::new(&proxy.server(), SHORT).apply(&namespace, "b"), None);
        assert!(proxy.wait_for_cut(PATIENCE));
        assert_eq!(proxy.requests()[0].status, None, "still there");
        proxy.settled();
        assert_eq!(proxy.requests()[0].status, Some(200));
        thread::sleep(SHORT);
        drop(proxy); // and with it all connections
        assert_eq!(waiting.join().unwrap(), None);
    });
}

#[test]
fn received_request_is_executed_after_client_disconnects() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("gone");
    let (gone, client_is_gone) = mpsc::channel();
    let proxy = InterceptingProxy::start(control_plane, move |_| {
        client_is_gone.recv().unwrap();
        Verdict::Forward
    });
    assert_eq!(Client::new(&proxy.server(), SHORT).apply(&namespace, "x"), None);
    assert_eq!(there(&namespace, ["x"]), [false], "not yet");
    gone.send(()).unwrap();
    proxy.settled();
    assert_eq!(there(&namespace, ["x"]), [true]);
}

#[test]
fn injected_response_does_not_reach_the_server() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("injected");
    let refusal = Verdict::refusal(409, "Conflict", "another client was faster");
    let proxy = InterceptingProxy::start(control_plane, at("b", refusal));
    let client = Client::new(&proxy.server(), PATIENCE);
    let answer = client.ask("PATCH", &map(&namespace, "b"), APPLY, &document("b")).unwrap();
    let status: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!((answer.status, &status["code"], &status["reason"]), (409, &json!(409), &json!("Conflict")));
    assert_eq!(
        (&status["kind"], answer.headers["content-type"].to_str().unwrap()),
        (&json!("Status"), "application/json")
    );
    assert_eq!(client.apply(&namespace, "c"), Some(201), "and later requests are processed");
    assert_eq!(there(&namespace, ["b", "c"]), [false, true]);
    assert_eq!(proxy.requests()[0].status, Some(409));
}

#[test]
fn reply_sends_status_headers_and_text() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("gateway");
    let headers = vec![("retry-after", "7".to_owned())];
    let verdict = Verdict::Reply(429, headers, "Too many requests".to_owned());
    let proxy = InterceptingProxy::start(control_plane, at("a", verdict));
    let client = Client::new(&proxy.server(), PATIENCE);
    let answer = client.ask("PATCH", &map(&namespace, "a"), APPLY, &document("a")).unwrap();
    assert_eq!((answer.status, &answer.text[..]), (429, "Too many requests"));
    let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    assert_eq!(["retry-after", "content-type"].map(header), ["7", "text/plain; charset=utf-8"]);
    assert_eq!(there(&namespace, ["a"]), [false]);
    assert_eq!(proxy.requests()[0].status, Some(429));
}

#[test]
fn dropped_lost_or_hanging_request_affects_only_itself() {
    let control_plane = ControlPlane::shared();
    for (verdict, made) in [(Verdict::Drop, false), (Verdict::Lose, true), (Verdict::Hang, false)] {
        let namespace = control_plane.namespace("silent");
        let proxy = InterceptingProxy::start(control_plane, at("a", verdict.clone()));
        let patience = if verdict == Verdict::Hang { SHORT } else { PATIENCE };
        assert_eq!(Client::new(&proxy.server(), patience).apply(&namespace, "a"), None, "{verdict:?}");
        assert_eq!(there(&namespace, ["a"]), [made], "{verdict:?}");
        assert_eq!(Client::new(&proxy.server(), PATIENCE).apply(&namespace, "b"), Some(201), "{verdict:?}");
        assert_eq!(proxy.requests()[0].status, made.then_some(201), "{verdict:?}");
    }
}

#[test]
fn cluster_is_unchanged_between_serialized_writes() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("between");
    let names = ["a", "b", "c", "d", "e", "f"];
    let steps = Arc::new(Mutex::new(Vec::new()));
    let count = {
        let namespace = namespace.clone();
        move || there(&namespace, names).iter().filter(|there| **there).count()
    };
    let (before, after) = (Arc::clone(&steps), Arc::clone(&steps));
    let (count_before, count_after) = (count.clone(), count);
    let decide = move |request: &Intercepted| {
        if request.write {
            before.lock().unwrap().push(("before", count_before(), request.status));
        }
        Verdict::Forward
    };
    let observe = move |request: &Intercepted| {
        after.lock().unwrap().push(("after", count_after(), request.status));
    };
    let proxy = InterceptingProxy::one_write_at_a_time(control_plane, decide, observe);
    thread::scope(|scope| {
        for name in names {
            let (namespace, server) = (&namespace, proxy.server());
            scope.spawn(move || {
                let client = Client::new(&server, PATIENCE);
                assert_eq!(client.get("/version"), Some(200), "reviews and dry runs do not count as writes");
                assert_eq!(client.apply(namespace, name), Some(201));
            });
        }
    });
    let expected: Vec<_> =
        (0..names.len()).flat_map(|made| [("before", made, None), ("after", made + 1, Some(201))]).collect();
    assert_eq!(*steps.lock().unwrap(), expected);
}

#[test]
fn kubectl_can_be_killed_at_each_request() {
    let control_plane = ControlPlane::shared();
    let directory = tempfile::tempdir().unwrap();
    let mut reached = 0;
    loop {
        let namespace = control_plane.namespace("killed");
        let proxy = InterceptingProxy::start(control_plane, move |request| {
            if request.number == reached { Verdict::CutBefore } else { Verdict::Forward }
        });
        let kubeconfig = control_plane.admin().with_server(&proxy.server()).kubeconfig(directory.path());
        let mut kubectl = Command::new(control_plane.kubectl_path())
            .args(["create", "configmap", "x", "--validate=false", "--namespace", &namespace])
            .env_clear()
            .env("HOME", directory.path().join(reached.to_string())) // a cache would save requests
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let killed = proxy.kill_at_cut(&mut kubectl);
        let made = there(&namespace, ["x"])[0];
        let writes = proxy.requests().iter().filter(|request| request.write && request.status.is_some()).count();
        assert_eq!((made, writes), (!killed, usize::from(!killed)), "at {reached}: {:?}", proxy.requests());
        if !killed {
            assert!(kubectl.wait().unwrap().success());
            break;
        }
        reached += 1;
    }
    assert!(reached > 0, "kubectl sent no request");
}

#[test]
#[should_panic(expected = "a wrong assertion")]
fn panicking_handler_fails_the_test() {
    let control_plane = ControlPlane::shared();
    let proxy = InterceptingProxy::start(control_plane, |_| panic!("a wrong assertion"));
    assert_eq!(Client::new(&proxy.server(), PATIENCE).get("/version"), None);
    drop(proxy);
}
