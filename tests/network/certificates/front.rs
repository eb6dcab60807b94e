//! Front doors that want a client certificate, which the holder of a token does not have.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Forged, FrontOptions, Key, Spec, TlsFront, extension};

use crate::{
    desk::{Desk, admin, code},
    support::{Ran, paths},
};

/// A door, and the kubeconfig of somebody who gets through it.
struct Door {
    front: TlsFront,
    ca: Forged,
    client: Forged,
}

impl Door {
    fn new(cp: &ControlPlane, options: FrontOptions<'_>) -> Self {
        let ca = Forged::self_signed(&Spec::ca("door"), Key::p256());
        let server = Forged::signed_by(&ca, &Spec::server(), Key::p256());
        let spec = Spec::new("alice").with(extension::basic(false, None)).with(extension::usages(&[extension::CLIENT]));
        let client = Forged::signed_by(&ca, &spec, Key::p256());
        let front = TlsFront::start(cp, &[&server], FrontOptions { client_ca: Some(&ca), ..options });
        Self { front, ca, client }
    }

    fn cluster(&self) -> Value {
        json!({"server": self.front.server("127.0.0.1"), "certificate-authority-data": self.ca.base64()})
    }

    fn user(&self, cp: &ControlPlane) -> Value {
        let mut user = admin(cp);
        user["client-certificate-data"] = json!(self.client.base64());
        user["client-key-data"] = json!(STANDARD.encode(self.client.key.pem()));
        user
    }
}

const WANTS: &str = "only accepts clients with a client certificate";

#[rstest]
#[case::tls_1_3(FrontOptions::default())]
#[case::tls_1_3_and_http_2(FrontOptions { http2: true, ..FrontOptions::default() })]
#[case::tls_1_2(FrontOptions { tls_1_2: true, ..FrontOptions::default() })]
#[case::tls_1_2_and_http_2(FrontOptions { tls_1_2: true, http2: true, ..FrontOptions::default() })]
#[case::told_in_http(FrontOptions { says_so_in_http: true, ..FrontOptions::default() })]
fn a_door_that_wants_a_client_certificate_is_found_before_anything_is_made(#[case] options: FrontOptions<'static>) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "door");
    let door = Door::new(cp, options);
    desk.kubeconfig("config", &door.cluster(), &door.user(cp));
    let theirs = desk.kubectl(cp, "config", &[]);
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    for action in ["plan", "provision"] {
        let ran = desk.ask(action, "config", &[]).expect_code(76);
        assert_eq!(code(&ran), "client-certificate-required");
        let error = &ran.document()["error"];
        assert!(error["cause"].as_str().unwrap().contains(WANTS), "{error:#}");
        assert!(error["next"].as_str().unwrap().contains("accept clients without a client certificate"), "{error:#}");
        for path in paths(&desk.namespace) {
            assert!(cp.get(&path).is_none(), "{action} leaves {path}");
        }
    }
    // Taking back needs no holder.
    desk.ask("decommission", "config", &[]).expect_code(0);

    // The same door for somebody who has no certificate at all, and for a credential that is there already.
    desk.kubeconfig("bare", &door.cluster(), &admin(cp));
    assert!(!desk.kubectl(cp, "bare", &[]).status.success());
    for action in ["plan", "provision", "decommission"] {
        let ran = desk.ask(action, "bare", &[]).expect_code(76);
        assert_eq!(code(&ran), "client-certificate-required", "{action}: {}", ran.stderr);
        assert!(ran.stderr.contains(WANTS), "{}", ran.stderr);
    }
}

#[test]
fn a_server_that_only_asks_for_a_client_certificate_lets_a_holder_in() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "asks");
    let alice = cp.client_certificate("alice", &["system:masters"]);
    let user = json!({
        "client-certificate-data": STANDARD.encode(&alice.certificate), "client-key-data": STANDARD.encode(&alice.key),
    });
    let cluster = json!({"server": cp.server(), "certificate-authority-data": cp.ca_base64()});
    desk.kubeconfig("config", &cluster, &user);
    desk.kubeconfig("token", &cluster, &admin(cp));
    let requests = |config| desk.ask("plan", config, &[]).expect_code(0).document()["requests"].clone();
    assert_eq!(requests("config"), requests("token"), "looking for the gate costs no request");
    for action in ["plan", "provision", "decommission"] {
        desk.ask(action, "config", &[]).expect_code(0);
    }
}

#[test]
fn a_client_certificate_that_the_door_refuses_is_named_as_the_cause() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "stranger");
    for options in [FrontOptions::default(), FrontOptions { tls_1_2: true, ..FrontOptions::default() }] {
        let door = Door::new(cp, options);
        let stranger = Door::new(cp, options);
        desk.kubeconfig("config", &door.cluster(), &stranger.user(cp));
        assert!(!desk.kubectl(cp, "config", &[]).status.success());
        let ran: Ran = desk.ask("plan", "config", &[]).expect_code(69);
        assert_eq!(code(&ran), "tls");
        assert!(ran.stderr.contains("does not accept the client certificate"), "{}", ran.stderr);
    }
}
