//! Invalid command lines: usage errors exit with 64, unreadable input with 65, and neither sends a packet.

use std::{
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Stdio,
};

use rstest::rstest;
use serde_json::{Value, json};
use testbed::ControlPlane;

use crate::{
    desk::{Desk, admin, cluster, code},
    support::{Ran, binary},
};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEyMzQ1Njc4OTAifQ.e30.c2ln";

#[rstest]
#[case::unknown_flag(&["plan", "--params", "p", "--frobnicate"], "unexpected argument '--frobnicate'")]
#[case::timeout_zero(&["plan", "--params", "p", "--timeout", "0"], "--timeout")]
#[case::timeout_negative(&["plan", "--params", "p", "--timeout", "-1"], "unexpected argument '-1'")]
#[case::timeout_text(&["plan", "--params", "p", "--timeout", "soon"], "--timeout")]
#[case::timeout_long(&["plan", "--params", "p", "--timeout", "86401"], "--timeout")]
#[case::twice(&["plan", "--params", "p", "--params", "q"], "cannot be used multiple times")]
#[case::value_missing(&["plan", "--params"], "a value is required")]
#[case::output_of_a_plan(&["plan", "--params", "p", "--output", "x"], "unexpected argument '--output'")]
#[case::directory_and_name(&["plan", "--instance-dir", "d", "--tls-server-name", "n"], "cannot be used with")]
#[case::context_of_a_connection(&["plan", "--params", "p", "--connection", "c", "--context", "x"], "cannot be used with")]
#[case::no_artifact(&["kubeconfig"], "<FILE>")]
#[case::two_artifacts(&["kubeconfig", "a", "b"], "unexpected argument 'b'")]
#[case::no_shell(&["completions"], "<SHELL>")]
#[case::unknown_shell(&["completions", "csh"], "possible values")]
#[case::help_of_nothing(&["help"], "unrecognized subcommand")]
fn usage_errors_exit_with_64(#[case] arguments: &[&str], #[case] text: &str) {
    let ran = Ran::of(binary().args(arguments)).expect_code(64);
    assert!(ran.stderr.contains(text), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[rstest]
#[case::of_plan(&["plan", "--json"], json!("plan"), "--params <FILE>")]
#[case::of_check(&["check", "--json", "--name", "x"], json!("check"), "unexpected argument '--name'")]
#[case::with_value(&["verify", "a", "--json=yes"], json!("verify"), "unexpected value 'yes'")]
#[case::two_documents(&["provision", "--params", "p", "--output", "-", "--json"], json!("provision"), "both write to stdout")]
#[case::unknown_command(&["pln", "--json"], json!(null), "unrecognized subcommand 'pln'")]
#[case::secret(&["plan", "--json", TOKEN], json!("plan"), "unexpected argument '[REDACTED]'")]
fn usage_error_with_json_prints_document(#[case] arguments: &[&str], #[case] action: Value, #[case] cause: &str) {
    let ran = Ran::of(binary().args(arguments)).expect_code(64);
    let document = ran.document();
    assert_eq!((&document["action"], &document["outcome"]), (&action, &json!("failed")));
    let error = &document["error"];
    assert_eq!((&error["code"], &error["exit"], &error["object"]), (&json!("usage"), &json!(64), &Value::Null));
    assert!(error["cause"].as_str().unwrap().contains(cause), "{error:#}");
    assert!(ran.stderr.contains("Usage:") || ran.stderr.contains("both write"), "{}", ran.stderr);
    assert!(!format!("{ran:?}").contains(&TOKEN[..12]), "{ran:?}");
}

#[test]
fn usage_names_only_required_options() {
    let ran = Ran::of(binary().args(["plan"])).expect_code(64);
    assert!(ran.stderr.contains("k8s-token plan --params <FILE> [--name <NAME>] [OPTIONS]"), "{}", ran.stderr);
}

/// A misplaced argument is quoted, and may be a token.
#[rstest]
#[case::word(&["kubeconfig", "a", TOKEN], "unexpected argument '[REDACTED]'")]
#[case::command(&[TOKEN], "unrecognized subcommand '[REDACTED]'")]
#[case::value(&["plan", "--params", "p", "--timeout", TOKEN], "invalid value '[REDACTED]'")]
#[case::value_of_an_option(&["plan", "--params", "p", "--timeout=eyJhbGciOiJSUzI1NiIsImtpZCI6IjEyMzQ1Njc4OTAifQ.e30.c2ln"], "invalid value '[REDACTED]'")]
#[case::unknown_option(&["plan", "--token=eyJhbGciOiJSUzI1NiIsImtpZCI6IjEyMzQ1Njc4OTAifQ.e30.c2ln"], "unexpected argument '--token'")]
#[case::cursor(&["kubeconfig", "a", "b\u{1b}[2J\nc"], "unexpected argument 'b [2J")]
fn usage_error_redacts_arguments_that_look_like_tokens(#[case] arguments: &[&str], #[case] text: &str) {
    let ran = Ran::of(binary().args(arguments)).expect_code(64);
    assert!(ran.stderr.contains(text), "{}", ran.stderr);
    assert!(!ran.stderr.contains(&TOKEN[..12]) && !ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
}

/// A token in the place of a file name appears in the message that the file does not exist.
#[rstest]
#[case::artifact(&["verify", TOKEN])]
#[case::artifact_as_a_kubeconfig(&["kubeconfig", TOKEN])]
#[case::params(&["check", "--params", TOKEN])]
#[case::file(&["check", TOKEN])]
#[case::kubeconfig(&["plan", "--params", "p", "--name", "n", "--kubeconfig", TOKEN])]
#[case::of_openshift(&["verify", "sha256~Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6"])]
fn token_given_as_a_file_name_is_redacted(#[case] arguments: &[&str]) {
    let ran = Ran::of(binary().args(arguments)).expect_code(65);
    assert!(ran.stderr.contains("[REDACTED]"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(&TOKEN[..12]) && !ran.stderr.contains("Zm9vYmFy"), "{}", ran.stderr);
}

#[test]
fn usage_error_redacts_tokens_of_the_environment() {
    let mut command = binary();
    let ran = Ran::of(command.args(["kubeconfig", "a", "short-token"]).env("MASSDRIVER_TOKEN", "short-token"));
    let ran = ran.expect_code(64);
    assert!(ran.stderr.contains("[REDACTED]") && !ran.stderr.contains("short-token"), "{}", ran.stderr);
}

#[test]
fn params_are_read_from_stdin() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "stdin");
    let kubeconfig = desk.kubeconfig("config", &cluster(cp), &admin(cp));
    let params = std::fs::read_to_string(desk.path("params.json")).unwrap();
    let run = |text: &str| {
        let mut command = binary();
        command.args(["plan", "--json", "--name", "demo", "--params", "-", "--kubeconfig"]).arg(&kubeconfig);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        Ran::from(child.wait_with_output().unwrap())
    };
    run(&params).expect_code(0);
    let ran = run("").expect_code(65);
    assert!(ran.stderr.contains("stdin is empty"), "{}", ran.stderr);
}

#[test]
fn directory_is_not_a_document() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "directory");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    let here = desk.directory.path().display().to_string();
    for more in [["--params", here.as_str()], ["--connection", &here], ["--kubeconfig", &here]] {
        let mut command = binary();
        command.args(["plan", "--json", "--name", "demo"]).args(more);
        if more[0] == "--params" {
            command.arg("--kubeconfig").arg(desk.path("config"));
        } else {
            command.arg("--params").arg(desk.path("params.json"));
        }
        let ran = Ran::of(&mut command).expect_code(65);
        assert_eq!(code(&ran), "input-refused");
        assert!(ran.stderr.contains(&format!("cannot read {here}: Is a directory")), "{}", ran.stderr);
    }
    let ran = Ran::of(binary().args(["kubeconfig", &here])).expect_code(65);
    assert!(ran.stderr.contains("Is a directory"), "{}", ran.stderr);
    let ran = Ran::of(binary().args(["plan", "--json", "--instance-dir", "/nowhere/at/all"])).expect_code(65);
    assert!(ran.stderr.contains("cannot read /nowhere/at/all/params.json"), "{}", ran.stderr);
}

#[test]
fn unwritable_output_is_refused_before_the_first_packet() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "output");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    std::fs::create_dir(desk.path("folder")).unwrap();
    symlink(desk.path("folder"), desk.path("link")).unwrap();
    let mark = cp.audit().mark();
    for target in ["folder", "link", "no/such/folder/file", "params.json/file", ".."] {
        let ran = desk.ask("provision", "config", &["--output", desk.path(target).to_str().unwrap()]).expect_code(65);
        assert_eq!(code(&ran), "output-not-writable", "{target}");
    }
    let ran = desk.ask("provision", "config", &["--output", "/dev/null"]).expect_code(65);
    assert!(ran.stderr.contains("not a regular file"), "{}", ran.stderr);
    assert_eq!(
        cp.audit().of(&cp.admin().user, mark).iter().filter(|event| event.namespace == desk.namespace).count(),
        0
    );
}

#[test]
fn output_symlink_survives_success_and_failure() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "link");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    let target = desk.put("target.json", "old");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
    let link = desk.path("link.json");
    symlink("target.json", &link).unwrap();
    let output = ["--output", link.to_str().unwrap()];
    desk.kubeconfig("stale", &cluster(cp), &serde_json::json!({"token": "stale"}));
    desk.ask("provision", "stale", &output).expect_code(69);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "old");
    desk.ask("provision", "config", &output).expect_code(0);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let artifact: Value = serde_json::from_str(&std::fs::read_to_string(&target).unwrap()).unwrap();
    assert_eq!(artifact["namespace"], desk.namespace);
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600, "whatever it was before");
    let names: Vec<_> = std::fs::read_dir(desk.directory.path()).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".target")), "{names:?}");
}

/// Order of precedence: `--namespace`, the credential file, the claims of the token.
#[test]
fn kubeconfig_namespace_follows_the_order_of_precedence() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "order");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    let file = desk.path("artifact.json");
    desk.ask("provision", "config", &["--output", file.to_str().unwrap()]).expect_code(0);
    let mut artifact: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let namespace = |artifact: &Value, more: &[&str]| {
        desk.put("artifact.json", &artifact.to_string());
        let ran = Ran::of(binary().arg("kubeconfig").arg(&file).args(more)).expect_code(0);
        desk.put("theirs", &ran.stdout);
        let mut kubectl = std::process::Command::new(cp.kubectl_path());
        kubectl.env_clear().arg("--kubeconfig").arg(desk.path("theirs"));
        let output = kubectl.args(["config", "view", "--minify", "-o", "jsonpath={..namespace}"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    artifact["namespace"] = "from-the-artifact".into();
    assert_eq!(namespace(&artifact, &["--namespace", "from-the-flag"]), "from-the-flag");
    assert_eq!(namespace(&artifact, &[]), "from-the-artifact");
    artifact.as_object_mut().unwrap().remove("namespace");
    assert_eq!(namespace(&artifact, &[]), desk.namespace);
    // From stdin as well.
    let mut command = binary();
    let mut child = command.args(["kubeconfig", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(artifact.to_string().as_bytes()).unwrap();
    assert!(Ran::from(child.wait_with_output().unwrap()).expect_code(0).stdout.contains("kind: Config"));
}
