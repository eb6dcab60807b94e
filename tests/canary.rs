//! No token reaches a place where it does not belong: the parent's, the issued one and the platform's are searched for,
//! raw and in base64, in all output, all objects of the cluster, the audit log, the platform's requests and every file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{fs, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;
use support::{Instance, Ran, binary, paths, token_of};
use testbed::{ControlPlane, Era, Grant, Persona};

/// A secret in every form in which it could leak.
struct Canary {
    name: &'static str,
    forms: Vec<String>,
}

impl Canary {
    fn new(name: &'static str, secret: &str) -> Self {
        let mut forms = vec![secret.to_owned(), STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
        // Inside a longer base64 text it starts at one of three offsets; its ends then depend on the neighbours.
        for offset in 1..3 {
            let shifted = STANDARD.encode(["\0".repeat(offset).as_bytes(), secret.as_bytes()].concat());
            forms.push(shifted[4..shifted.len() - 4].to_owned());
        }
        // A part of it would be a leak as well: its signature alone, for one.
        forms.push(secret[secret.len() - 32..].to_owned());
        Self { name, forms }
    }

    fn found_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form))
    }

    #[track_caller]
    fn absent_from(&self, place: &str, text: &str) {
        assert!(!self.found_in(text), "the {} token is in {place}", self.name);
    }
}

fn files(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            found.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

#[test]
fn the_search_finds_what_is_there() {
    let canary = Canary::new("test", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl");
    for lead in ["", "a", "ab", "user:"] {
        let secret = &canary.forms[0];
        assert!(canary.found_in(&STANDARD.encode(format!("{lead}{secret}\n"))), "after {lead:?}");
    }
}

/// Where a token might be pasted by mistake.
const MISPLACED: [&str; 8] = [
    "/namespace",
    "/rules/0/verbs/0",
    "/rules/0/apiGroups/0",
    "/rules/0/namespaces/0",
    "/cluster_roles/0/name",
    "/cluster_roles/0/namespaces/0",
    "/md_metadata/name_prefix",
    "/rules/0",
];

/// An instance with something in every kind of scope.
fn wide(parent: &Persona, namespace: &str) -> Instance {
    let mut instance = Instance::new(parent, namespace);
    instance.params["rules"][0]["namespaces"] = json!(["*"]);
    instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": ["default"]}]);
    instance
}

#[test]
fn no_token_is_where_it_does_not_belong() {
    let cp = ControlPlane::shared();
    let parent = cp.persona("canary", &[Grant::cluster_role("cluster-admin")]);
    let namespace = cp.namespace("canary");
    let temporary = tempfile::tempdir().unwrap();
    let mut output = String::new();
    let mut said = |ran: Ran| {
        output.push_str(&ran.stdout);
        output.push_str(&ran.stderr);
    };
    let run = |instance: &Instance, action: &str, more: &[&str]| {
        let mut command = instance.command(action, more);
        Ran::of(
            command
                .env("TMPDIR", temporary.path())
                .env("HOME", temporary.path())
                .env("RUST_LOG", "trace")
                .env("RUST_BACKTRACE", "1"),
        )
    };

    let instance = Instance::of_era(&parent, &namespace, Era::Dependencies, support::Shape::Full);
    let mut secrets = vec![Canary::new("parent", &parent.token), Canary::new("platform", instance.platform.token())];
    said(run(&instance, "plan", &[]).expect_code(0));
    said(run(&instance, "provision", &["--publish"]).expect_code(0));
    let issued = token_of(&instance.platform.resource("token").unwrap());
    secrets.push(Canary::new("issued", &issued));
    said(run(&instance, "provision", &["--publish"]).expect_code(0));
    // More scopes, and back.
    said(run(&wide(&parent, &namespace), "provision", &["--publish"]).expect_code(0));
    said(run(&instance, "provision", &["--publish"]).expect_code(0));
    // Everything that can fail once the tokens are known.
    for _ in 0..5 {
        instance.platform.fail_next(500, &format!("echo: {issued} {} {}", parent.token, instance.platform.token()));
    }
    said(run(&instance, "provision", &["--publish"]).expect_code(69));
    for (pointer, value) in [
        ("/authentication/cluster/server", json!("https://127.0.0.1:1")),
        ("/authentication/cluster/server", json!(format!("https://{}@127.0.0.1", parent.token))),
        ("/authentication/cluster/certificate-authority-data", json!(STANDARD.encode(&parent.token))),
        ("/authentication/user/token", json!(format!("{}\n", parent.token))),
        ("/authentication/user", json!(parent.token)),
    ] {
        let mut broken = Instance::new(&parent, &namespace);
        *broken.connection.pointer_mut(pointer).unwrap() = value;
        let ran = run(&broken, "provision", &[]);
        assert_ne!(ran.code, 0);
        said(ran);
    }
    for place in MISPLACED {
        let mut misplaced = wide(&parent, &namespace);
        let at = misplaced.params.pointer_mut(place).unwrap();
        *at = json!(parent.token);
        misplaced.config = json!({});
        said(run(&misplaced, "provision", &[]).expect_code(65));
    }
    let dump = cp.dump_everything();

    let [parents, platforms, issueds] = &secrets[..] else { unreachable!() };
    for secret in &secrets {
        secret.absent_from("the output", &output);
    }
    // The echo is longer than what is shown of an answer, which is cut in the middle of a token.
    assert!(!output.contains("eyJhbGci"), "the beginning of a token is in the output");
    for request in instance.platform.requests() {
        let text = format!("{} {}", request.path, request.body);
        parents.absent_from("a request to the platform", &text);
        platforms.absent_from("a request to the platform", &text);
    }
    // The Secret is where the issued token lives; nowhere else in the cluster.
    let secret = cp.get(&paths(&namespace)[3]).unwrap();
    let home = secret["data"]["token"].as_str().unwrap();
    assert!(dump.contains(home), "the dump holds Secrets, or it would prove nothing");
    parents.absent_from("an object of the cluster", &dump);
    platforms.absent_from("an object of the cluster", &dump);
    issueds.absent_from("another object of the cluster", &dump.replace(home, "").replace(&issued, ""));
    for (name, log) in cp.logs() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        for secret in &secrets {
            secret.absent_from(&format!("the log of {name}"), &text);
        }
    }
    let audit = fs::read_to_string(cp.audit().path()).unwrap();
    assert!(audit.contains(&namespace), "the audit log tells of this run, or it would prove nothing");
    for secret in &secrets {
        secret.absent_from("the audit log", &audit);
    }
    let mut left = Vec::new();
    files(temporary.path(), &mut left);
    assert!(left.is_empty(), "temporary files are left: {left:?}");
    let inputs = ["dependencies.json", "connections.json"];
    files(instance.directory.path(), &mut left);
    for (file, text) in left.iter().filter(|(file, _)| !inputs.iter().any(|input| file.ends_with(input))) {
        for secret in &secrets {
            secret.absent_from(file, text);
        }
    }

    let artifact = instance.path("artifact.json");
    fs::write(&artifact, instance.platform.resource("token").unwrap().to_string()).unwrap();
    let gone = run(&instance, "decommission", &["--publish"]).expect_code(0);
    for secret in &secrets {
        secret.absent_from("the output of decommission", &format!("{}{}", gone.stdout, gone.stderr));
    }
    let kubeconfig = Ran::of(binary().arg("kubeconfig").arg(&artifact)).expect_code(0);
    assert!(kubeconfig.stdout.contains(&issued), "that is what it is for");
    issueds.absent_from("the log of kubeconfig", &kubeconfig.stderr);
    parents.absent_from("a kubeconfig", &kubeconfig.stdout);
}
