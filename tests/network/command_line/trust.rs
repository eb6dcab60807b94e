//! The CAs that a kubeconfig trusts, and those in the published credential.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, WrongCa};

use crate::{
    desk::{Desk, admin, cluster, code, refusals},
    support::{Instance, OBJECT, Ran, binary, status, token_of},
};

fn server(cp: &ControlPlane) -> Value {
    json!({"server": cp.server()})
}

fn der(pem: &[u8]) -> Vec<Vec<u8>> {
    pem::parse_many(pem).unwrap().into_iter().map(pem::Pem::into_contents).collect()
}

#[test]
fn system_ca_is_used_and_published() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "system");
    desk.kubeconfig("config", &server(cp), &admin(cp));
    // A realistic trust store: many CAs in one file, or many files in a directory, some of them irrelevant.
    let many = format!("{}\n# ours\n{}{}", WrongCa::new().pem(), cp.ca_pem(), WrongCa::new().pem());
    let file = desk.put("certs.pem", &many);
    desk.put("certs/0a0a0a0a.0", WrongCa::new().pem());
    desk.put("certs/0b0b0b0b.0", cp.ca_pem());
    desk.put("certs/notes.txt", "nothing");
    let directory = desk.path("certs");
    for (variable, value) in [("SSL_CERT_FILE", &file), ("SSL_CERT_DIR", &directory)] {
        if variable == "SSL_CERT_DIR" {
            // An empty value counts as absent, for kubectl, too.
            let mut empty = server(cp);
            empty["certificate-authority-data"] = json!("");
            desk.kubeconfig("config", &empty, &admin(cp));
        }
        let artifact = desk.path("artifact.json");
        for action in ["plan", "provision", "provision", "decommission", "provision"] {
            let mut command = desk.command(action, &[]);
            command.arg("--kubeconfig").arg(desk.path("config")).env(variable, value);
            if action == "provision" {
                command.arg("--output").arg(&artifact);
            }
            let document = Ran::of(&mut command).expect_code(0).document();
            let told = document["findings"].as_array().unwrap().iter().any(|finding| finding["code"] == "system-ca");
            assert!(told, "{document:#}");
        }
        let artifact: Value = serde_json::from_str(&std::fs::read_to_string(&artifact).unwrap()).unwrap();
        let ca = artifact["authentication"]["cluster"]["certificate-authority-data"].as_str().unwrap();
        assert_eq!(der(&STANDARD.decode(ca).unwrap()), der(cp.ca_pem().as_bytes()), "only that CA");
        assert_eq!(status(cp, &token_of(&artifact), &format!("/api/v1/namespaces/{}/pods/x", desk.namespace)), 404);
        // The credential contains the CA: the system trust store is not needed any more.
        let text = Ran::of(binary().arg("kubeconfig").arg(desk.path("artifact.json"))).expect_code(0).stdout;
        desk.put("theirs", &text);
        let whoami = desk.kubectl(cp, "theirs", &[]);
        let user = format!("system:serviceaccount:{}:{OBJECT}", desk.namespace);
        assert_eq!(String::from_utf8_lossy(&whoami.stdout), user);
    }
}

#[test]
fn issuer_unknown_to_system_trust_store_is_refused() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "strange");
    desk.kubeconfig("config", &server(cp), &admin(cp));
    let strange = desk.put("strange.pem", WrongCa::new().pem());
    let nobody = desk.put("nobody.pem", "nothing");
    for (file, wanted, cause) in [
        (&strange, "tls-unknown-issuer", "none of the system's CAs signed the server's certificate"),
        (&nobody, "tls", "no CA was given, and the system has none"),
    ] {
        let mut command = desk.command("provision", &[]);
        command.arg("--kubeconfig").arg(desk.path("config")).env("SSL_CERT_FILE", file);
        let ran = Ran::of(&mut command).expect_code(69);
        assert_eq!(code(&ran), wanted);
        assert!(ran.stderr.contains(cause) && ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    }
    // A given CA is the only one that counts.
    let mut wrong = cluster(cp);
    wrong["certificate-authority-data"] = json!(WrongCa::new().base64());
    desk.kubeconfig("config", &wrong, &admin(cp));
    let system = desk.put("system.pem", cp.ca_pem());
    let mut command = desk.command("provision", &[]);
    command.arg("--kubeconfig").arg(desk.path("config")).env("SSL_CERT_FILE", system);
    assert_eq!(code(&Ran::of(&mut command).expect_code(69)), "tls-unknown-issuer");
}

#[test]
fn connection_without_ca_is_refused() {
    let cp = ControlPlane::shared();
    let mut instance = Instance::new(cp.admin(), "default");
    let path = instance.path("ca.pem");
    std::fs::write(&path, cp.ca_pem()).unwrap();
    instance.connection["authentication"]["cluster"].as_object_mut().unwrap().remove("certificate-authority-data");
    let ran = Ran::of(instance.command("provision", &[]).env("SSL_CERT_FILE", path)).expect_code(65);
    assert!(refusals(&ran)[0].1.contains("lacks the field `certificate-authority-data`"), "{}", ran.stderr);
}

/// 0.0.0.0 leads to the server, but its certificate does not contain it.
fn cluster_with_uncertified_name(cp: &ControlPlane) -> Value {
    let mut cluster = cluster(cp);
    cluster["server"] = json!(cp.server().replace("127.0.0.1", "0.0.0.0"));
    cluster
}

fn has_server_name_finding(ran: &Ran) -> bool {
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    findings.iter().filter(|finding| finding["code"] == "tls-server-name").count() == 1
}

#[test]
fn tls_server_name_is_used_and_reported() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "name");
    desk.kubeconfig("config", &cluster_with_uncertified_name(cp), &admin(cp));
    assert!(!desk.kubectl(cp, "config", &[]).status.success());
    assert_eq!(code(&desk.ask("provision", "config", &[]).expect_code(69)), "tls");
    let name = ["--tls-server-name", "localhost"];
    assert!(desk.kubectl(cp, "config", &name).status.success());
    for action in ["plan", "provision", "provision", "decommission"] {
        let ran = desk.ask(action, "config", &name).expect_code(0);
        assert_eq!(has_server_name_finding(&ran), action != "decommission", "{}", ran.stderr);
    }
    assert_eq!(code(&desk.ask("plan", "config", &["--tls-server-name", "elsewhere"]).expect_code(69)), "tls");
    let ran = desk.ask("plan", "config", &["--tls-server-name", "no name"]).expect_code(65);
    assert!(refusals(&ran)[0].1.starts_with("--tls-server-name is not a valid server name"), "{}", ran.stderr);

    // The field of the kubeconfig; the flag overrides it, for both programs.
    let mut named = cluster_with_uncertified_name(cp);
    named["tls-server-name"] = json!("elsewhere");
    desk.kubeconfig("config", &named, &admin(cp));
    assert!(!desk.kubectl(cp, "config", &[]).status.success());
    assert_eq!(code(&desk.ask("plan", "config", &[]).expect_code(69)), "tls");
    assert!(desk.kubectl(cp, "config", &name).status.success());
    assert!(has_server_name_finding(&desk.ask("provision", "config", &name).expect_code(0)));
    named["tls-server-name"] = json!("localhost");
    desk.kubeconfig("config", &named, &admin(cp));
    assert!(has_server_name_finding(&desk.ask("provision", "config", &[]).expect_code(0)));
    // A holder who gets the credential from a platform could not be informed.
    let ran = desk.ask("provision", "config", &["--publish"]).expect_code(65);
    assert!(ran.stderr.contains("a tls-server-name cannot be published"), "{}", ran.stderr);
}

#[test]
fn unneeded_tls_server_name_is_not_reported() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "unneeded");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    for name in ["localhost", "127.0.0.1"] {
        let ran = desk.ask("provision", "config", &["--tls-server-name", name]).expect_code(0);
        assert!(!has_server_name_finding(&ran), "{}", ran.stderr);
    }
}

#[test]
fn connection_accepts_tls_server_name() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "connection");
    let mut connection = cp.admin().connection();
    connection["authentication"]["cluster"]["server"] = cluster_with_uncertified_name(cp)["server"].clone();
    let file = desk.put("connection.json", &connection.to_string());
    let mut command = desk.command("provision", &["--tls-server-name", "localhost"]);
    assert!(has_server_name_finding(&Ran::of(command.arg("--connection").arg(file)).expect_code(0)));
}
