//! The CA of the connection and the CA that the token controller writes into the token Secret, which is the CA of pods: the
//! API server itself, and a front with a certificate of another CA, as a load balancer has it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, Forged, FrontOptions, Grant, Key, Options, Persona, Spec, TlsFront, WrongCa};

use crate::desk::{Desk, admin};
use crate::support::{Instance, Ran, paths};

const CODE: &str = "ca-differs";

fn parent(cp: &ControlPlane) -> Persona {
    cp.persona("cas", &[Grant::cluster_role("cluster-admin")])
}

/// An instance whose connection has the CAs of this PEM.
fn instance(cp: &ControlPlane, server: &str, pem: &str) -> Instance {
    let mut instance = Instance::new(&parent(cp).with_server(server), &cp.namespace("cas"));
    trust(&mut instance, pem);
    instance
}

fn trust(instance: &mut Instance, pem: &str) {
    instance.connection["authentication"]["cluster"]["certificate-authority-data"] = json!(STANDARD.encode(pem));
}

/// Severity and message of the only finding about the CA; none without one.
fn finding(ran: &Ran) -> Option<(String, String)> {
    let found = ran.findings(CODE);
    assert!(found.len() <= 1, "{found:#?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    found.first().map(|found| (text(&found["severity"]), text(&found["message"])))
}

/// A front with a certificate of its own CA.
struct Front {
    front: TlsFront,
    ca: Forged,
}

impl Front {
    fn new(cp: &ControlPlane) -> Self {
        let ca = Forged::self_signed(&Spec::ca("balancer"), Key::p256());
        let server = Forged::signed_by(&ca, &Spec::server(), Key::p256());
        let front = TlsFront::start(cp, &[&server], FrontOptions::default());
        Self { front, ca }
    }

    fn server(&self) -> String {
        self.front.server("127.0.0.1")
    }
}

#[test]
fn front_with_another_ca_is_reported_once_deployed() {
    let cp = ControlPlane::shared();
    let front = Front::new(cp);
    let instance = instance(cp, &front.server(), &front.ca.pem());
    let of_pods = cp.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt").unwrap();
    assert_eq!(of_pods["data"]["ca.crt"].as_str().unwrap().trim(), cp.ca_pem().trim());

    assert_eq!(finding(&instance.ask("plan", &[]).expect_code(0)), None, "nothing is deployed yet");
    for action in ["provision", "plan", "provision"] {
        let ran = instance.ask(action, &[]).expect_code(0);
        let (severity, text) = finding(&ran).unwrap();
        assert_eq!(severity, "medium", "{action}");
        assert!(text.starts_with("pods in the cluster verify the API server with another CA, "), "{text}");
        assert!(text.contains("than users of the credential, \"balancer\" (sha256:"), "{text}");
        assert!(!ran.stdout.contains("BEGIN CERTIFICATE"));
    }
    let ran = instance.ask("decommission", &[]).expect_code(0);
    assert_eq!(finding(&ran), None);
}

/// Certificates count, not text.
#[test]
fn same_ca_in_other_words_is_no_difference() {
    let cp = ControlPlane::shared();
    let pem = cp.ca_pem();
    let spelled = format!("# the CA\n{}\n\nissuer=x\n{pem}", pem.replace('\n', "\r\n"));
    let instance = instance(cp, cp.server(), &spelled);
    for action in ["provision", "plan"] {
        assert_eq!(finding(&instance.ask(action, &[]).expect_code(0)), None, "{action}");
    }
}

#[test]
fn bundle_around_the_ca_of_pods_is_info() {
    let cp = ControlPlane::shared();
    let other = WrongCa::new();
    let instance = instance(cp, cp.server(), &format!("{}{}", other.pem(), cp.ca_pem()));
    let (severity, text) = finding(&instance.ask("provision", &[]).expect_code(0)).unwrap();
    assert_eq!(severity, "info");
    assert!(text.starts_with("the connection also trusts the CA \"somebody-else\" (sha256:"), "{text}");
}

/// A cluster whose CA is being replaced: pods already trust the next one. Its controllers are stopped, because the token
/// controller restores the Secret.
#[test]
fn ca_of_the_secret_decides_over_that_of_the_server() {
    let cp = ControlPlane::start(&Options::default()).unwrap();
    let instance = instance(&cp, cp.server(), cp.ca_pem());
    instance.ask("provision", &[]).expect_code(0);
    cp.freeze_controllers();
    let [.., secret] = paths(&instance.namespace);
    let next = WrongCa::new();
    for (bundle, expected) in [
        (json!(STANDARD.encode(format!("{}{}", cp.ca_pem(), next.pem()))), Some("low")),
        (json!(next.base64()), Some("medium")),
        (json!(STANDARD.encode("no certificate")), None),
        (json!(null), None),
        (json!(cp.ca_base64()), None),
    ] {
        cp.merge_patch(&secret, &json!({"data": {"ca.crt": bundle}}));
        let found = finding(&instance.ask("plan", &[]).expect_code(0));
        assert_eq!(found.as_ref().map(|(severity, _)| severity.as_str()), expected, "{bundle}");
        if expected == Some("low") {
            let text = found.unwrap().1;
            assert!(text.starts_with("pods in the cluster also trust the CA \"somebody-else\" (sha256:"), "{text}");
        }
    }
}

#[test]
fn holder_of_a_credential_has_no_finding() {
    let cp = ControlPlane::shared();
    let front = Front::new(cp);
    let desk = Desk::new(cp, "cas");
    let cluster = json!({"server": front.server(), "certificate-authority-data": front.ca.base64()});
    desk.kubeconfig("config", &cluster, &admin(cp));
    let artifact = desk.path("artifact.json");
    let ran = desk.ask("provision", "config", &["--output", artifact.to_str().unwrap()]).expect_code(0);
    assert_eq!(finding(&ran).unwrap().0, "medium");
    // The holder of a credential has no Secret.
    let mut verify = crate::support::binary();
    let ran = Ran::of(verify.args(["verify", "--json"]).arg(artifact)).expect_code(0);
    assert_eq!(finding(&ran), None);
}
