//! Front proxies that require a client certificate, which the holder of a token does not have.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Forged, FrontOptions, Key, Spec, TlsFront, extension};

use crate::{
    desk::{Desk, admin, code},
    support::{Ran, paths},
};

/// A front proxy, and the kubeconfig of a user whom it accepts.
struct FrontProxy {
    front: TlsFront,
    ca: Forged,
    client: Forged,
}

impl FrontProxy {
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

const REQUIRES_CERTIFICATE: &str = "only accepts clients with a client certificate";

#[rstest]
#[case::tls_1_3(FrontOptions::default())]
#[case::tls_1_3_and_http_2(FrontOptions { http2: true, ..FrontOptions::default() })]
#[case::tls_1_2(FrontOptions { tls_1_2: true, ..FrontOptions::default() })]
#[case::tls_1_2_and_http_2(FrontOptions { tls_1_2: true, http2: true, ..FrontOptions::default() })]
#[case::reported_in_http(FrontOptions { reports_in_http: true, ..FrontOptions::default() })]
fn required_client_certificate_is_detected_before_writing(#[case] options: FrontOptions<'static>) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "door");
    let front = FrontProxy::new(cp, options);
    desk.kubeconfig("config", &front.cluster(), &front.user(cp));
    let theirs = desk.kubectl(cp, "config", &[]);
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    for action in ["plan", "provision"] {
        let ran = desk.ask(action, "config", &[]).expect_code(76);
        assert_eq!(code(&ran), "client-certificate-required");
        let error = &ran.document()["error"];
        assert!(error["cause"].as_str().unwrap().contains(REQUIRES_CERTIFICATE), "{error:#}");
        assert!(error["next"].as_str().unwrap().contains("accept clients without a client certificate"), "{error:#}");
        for path in paths(&desk.namespace) {
            assert!(cp.get(&path).is_none(), "{action} leaves {path}");
        }
    }
    // A decommission needs no holder of the token.
    desk.ask("decommission", "config", &[]).expect_code(0);

    // The same front proxy for a user without a certificate, and for an existing credential.
    desk.kubeconfig("bare", &front.cluster(), &admin(cp));
    assert!(!desk.kubectl(cp, "bare", &[]).status.success());
    for action in ["plan", "provision", "decommission"] {
        let ran = desk.ask(action, "bare", &[]).expect_code(76);
        assert_eq!(code(&ran), "client-certificate-required", "{action}: {}", ran.stderr);
        assert!(ran.stderr.contains(REQUIRES_CERTIFICATE), "{}", ran.stderr);
    }
}

#[test]
fn optional_client_certificate_does_not_block_the_token() {
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
    assert_eq!(requests("config"), requests("token"), "the detection costs no request");
    for action in ["plan", "provision", "decommission"] {
        desk.ask(action, "config", &[]).expect_code(0);
    }
}

#[test]
fn rejected_client_certificate_is_reported() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "stranger");
    for options in [FrontOptions::default(), FrontOptions { tls_1_2: true, ..FrontOptions::default() }] {
        let front = FrontProxy::new(cp, options);
        let stranger = FrontProxy::new(cp, options);
        desk.kubeconfig("config", &front.cluster(), &stranger.user(cp));
        assert!(!desk.kubectl(cp, "config", &[]).status.success());
        let ran: Ran = desk.ask("plan", "config", &[]).expect_code(69);
        assert_eq!(code(&ran), "tls");
        assert!(ran.stderr.contains("does not accept the client certificate"), "{}", ran.stderr);
    }
}
