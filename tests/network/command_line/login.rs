//! Exec plugins of a kubeconfig (client.authentication.k8s.io).

use std::{fs, process::Stdio, time::Instant};

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ClientCertificate, ControlPlane};

use crate::{
    desk::{Desk, cluster, code},
    support::{Ran, stops::expect_terminated},
};

const V1: &str = "client.authentication.k8s.io/v1";

fn exec(version: &str, more: &Value) -> Value {
    let mut exec = json!({"apiVersion": version, "command": "./login", "interactiveMode": "Never"});
    for (key, value) in more.as_object().unwrap() {
        exec[key] = value.clone();
    }
    json!({ "exec": exec })
}

fn credential(version: &str, status: &Value) -> String {
    json!({"apiVersion": version, "kind": "ExecCredential", "status": status}).to_string()
}

/// A command that records each run, and prints the n-th of these answers at its n-th run.
fn login(desk: &Desk, answers: &[String]) {
    for (number, answer) in answers.iter().enumerate() {
        desk.put(&format!("answer-{}", number + 1), answer);
    }
    let last = answers.len();
    let lines = [
        "cd \"$(dirname \"$0\")\"".to_owned(),
        "printf '%s' \"$KUBERNETES_EXEC_INFO\" > told".to_owned(),
        "printf '%s|' \"$@\" \"$GREETING\" > said".to_owned(),
        "echo again >> runs".to_owned(),
        "n=$(wc -l < runs)".to_owned(),
        format!("[ \"$n\" -gt {last} ] && n={last}"),
        "cat \"answer-$((n))\"".to_owned(),
    ];
    let _ = fs::remove_file(desk.path("runs"));
    desk.script("login", &lines.join("\n"));
}

fn runs(desk: &Desk) -> usize {
    fs::read_to_string(desk.path("runs")).unwrap_or_default().lines().count()
}

#[rstest]
#[case::v1(V1)]
#[case::v1beta1("client.authentication.k8s.io/v1beta1")]
fn exec_plugin_runs_once_with_kubectls_environment(#[case] version: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "exec");
    let alice = cp.client_certificate("alice", &["system:masters"]);
    let mut here = cluster(cp);
    here["extensions"] =
        json!([{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "us", "n": [1, null]}}]);
    let more = json!({
        "args": ["a b", "c"], "env": [{"name": "GREETING", "value": "hello"}], "provideClusterInfo": true,
    });
    desk.kubeconfig("config", &here, &exec(version, &more));
    for (status, user) in [
        (json!({"token": cp.admin().token, "expirationTimestamp": "2040-01-01T00:00:00Z"}), cp.admin().user.as_str()),
        (json!({"clientCertificateData": alice.certificate, "clientKeyData": alice.key}), "alice"),
    ] {
        let read = |name: &str| fs::read_to_string(desk.path(name)).unwrap();
        login(&desk, &[credential(version, &status)]);
        let theirs = desk.kubectl(cp, "config", &[]);
        assert_eq!(String::from_utf8_lossy(&theirs.stdout), user, "{}", String::from_utf8_lossy(&theirs.stderr));
        let (told, said): (Value, String) = (serde_json::from_str(&read("told")).unwrap(), read("said"));

        login(&desk, &[credential(version, &status)]);
        let mark = cp.audit().mark();
        let ran = desk.ask("provision", "config", &[]).expect_code(0);
        for secret in [cp.admin().token.as_str(), alice.key.lines().nth(1).unwrap()] {
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(secret), "the output of the plugin is a secret");
        }
        assert_eq!(runs(&desk), 1, "the plugin runs once");
        assert_eq!(said, read("said"));
        assert_eq!(told, serde_json::from_str::<Value>(&read("told")).unwrap(), "kubectl's description of the cluster");
        assert!(!cp.audit().of(user, mark).is_empty(), "{user} was seen by the server");
    }
}

/// `./login` is beside the kubeconfig, by whatever path that is given, and never a program of that name on the PATH.
#[rstest]
#[case::bare("config")]
#[case::here("./config")]
#[case::below("below/../config")]
fn relative_exec_command_is_resolved_beside_the_kubeconfig(#[case] config: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "beside");
    desk.put("below/file", "");
    desk.kubeconfig("config", &cluster(cp), &exec(V1, &json!({})));
    login(&desk, &[credential(V1, &json!({"token": cp.admin().token}))]);
    let elsewhere = tempfile::tempdir().unwrap();
    let decoy = elsewhere.path().join("login");
    fs::copy("/bin/false", &decoy).unwrap();
    let mut command = desk.command("plan", &["--kubeconfig", config]);
    command.current_dir(desk.directory.path()).env("PATH", elsewhere.path());
    // The script itself needs its tools.
    let script = fs::read_to_string(desk.path("login")).unwrap();
    desk.script("login", &script.replacen("#!/bin/sh\n", "PATH=/usr/bin:/bin\n", 1));
    Ran::of(&mut command).expect_code(0);
    assert_eq!(runs(&desk), 1);
}

#[test]
fn exec_plugin_runs_again_after_401() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "again");
    desk.kubeconfig("config", &cluster(cp), &exec(V1, &json!({})));
    let good = credential(V1, &json!({"token": cp.admin().token}));
    let stale = credential(V1, &json!({"token": "a-stale-token"}));
    let certificate = |it: &ClientCertificate| {
        credential(V1, &json!({"clientCertificateData": it.certificate, "clientKeyData": it.key}))
    };
    let stranger = certificate(&ClientCertificate::with_unknown_ca("alice"));
    let alice = certificate(&cp.client_certificate("alice", &["system:masters"]));
    // Many requests are pending when the first of them is rejected, and each is repeated as the new user: on a
    // connection of the old user it would be rejected again. Repeated several times, because it depends on timing.
    let pairs = [[&stale, &good], [&stranger, &alice], [&stale, &alice], [&stranger, &good]];
    for answers in pairs.into_iter().cycle().take(3 * pairs.len()) {
        login(&desk, &answers.map(Clone::clone));
        desk.ask("provision", "config", &[]).expect_code(0);
        assert_eq!(runs(&desk), 2);
    }
    login(&desk, std::slice::from_ref(&stale));
    let ran = desk.ask("provision", "config", &[]).expect_code(69);
    assert_eq!((code(&ran).as_str(), runs(&desk)), ("unauthorized", 2), "not for ever");
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("a-stale-token"));
}

#[rstest]
#[case::nothing("", "did not print an ExecCredential")]
#[case::a_token("s3cret-s3cret-s3cret", "did not print an ExecCredential")]
#[case::yaml_of_another_kind("kind: Pod\ntoken: s3cret-s3cret", "did not print an ExecCredential")]
#[case::another_version(
    r#"{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential","status":{"token":"s3cret-s3cret"}}"#,
    "another version"
)]
#[case::no_status(r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential"}"#, "neither a token nor")]
#[case::half(
    r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"clientKeyData":"s3cret-s3cret"}}"#,
    "only one of client certificate and key"
)]
#[case::bad_pair(
    r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"clientCertificateData":"s3cret","clientKeyData":"s3cret"}}"#,
    "not a certificate in PEM format"
)]
#[case::bad_token(
    r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"s3cret s3cret"}}"#,
    "a token that contains whitespace"
)]
fn invalid_exec_credential_is_not_quoted(#[case] answer: &str, #[case] problem: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "answers");
    login(&desk, &[answer.to_owned()]);
    desk.kubeconfig("config", &cluster(cp), &exec(V1, &json!({})));
    let ran = desk.ask("plan", "config", &[]).expect_code(69);
    assert_eq!(code(&ran), "login-failed");
    assert!(ran.stderr.contains(problem), "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn exec_credential_may_be_yaml() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "yaml");
    let yaml = format!("apiVersion: {V1}\nkind: ExecCredential\nstatus:\n  token: {}\n", cp.admin().token);
    login(&desk, &[yaml]);
    desk.kubeconfig("config", &cluster(cp), &exec(V1, &json!({})));
    assert_eq!(String::from_utf8_lossy(&desk.kubectl(cp, "config", &[]).stdout), cp.admin().user);
    desk.ask("plan", "config", &[]).expect_code(0);
}

#[test]
fn missing_exec_command_shows_its_install_hint() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "hint");
    let more = json!({"command": "no-such-login", "installHint": "get it at example.com\u{1b}[31m"});
    desk.kubeconfig("config", &cluster(cp), &exec(V1, &more));
    let ran = desk.ask("plan", "config", &[]).expect_code(69);
    let error = &ran.document()["error"];
    assert_eq!(error["code"], "login-failed");
    assert!(error["cause"].as_str().unwrap().contains("no-such-login` was not found"), "{error}");
    assert!(error["next"].as_str().unwrap().contains("get it at example.com"), "{error}");
    assert!(!ran.stderr.contains('\u{1b}'));
}

#[test]
fn sigterm_ends_the_exec_plugin() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "stop");
    desk.script("login", "echo $$ > \"$(dirname \"$0\")/pid\"; exec sleep 600");
    let kubeconfig = desk.kubeconfig("config", &cluster(cp), &exec(V1, &json!({})));
    let mut command = desk.command("plan", &[]);
    command.arg("--kubeconfig").arg(kubeconfig).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let child = command.spawn().unwrap();
    let pid = testbed::eventually("the command runs", || {
        fs::read_to_string(desk.path("pid")).ok().filter(|pid| pid.ends_with('\n'))
    });
    expect_terminated(child, started, "a login");
    // Killed, and perhaps not reaped yet by its new parent.
    testbed::eventually("the command has ended", || {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
}
