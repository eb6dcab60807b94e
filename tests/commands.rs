//! The commands beside plan, provision and decommission: what they say holds, held against what these do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use rstest::rstest;
use serde_json::{Value, json};
use support::{NAME, Ran, binary};
use testbed::ControlPlane;

/// Runs a command that reads standard input.
fn fed(command: &mut Command, text: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Ran::from(child.wait_with_output().unwrap())
}

fn check(params: &str) -> Ran {
    fed(binary().args(["check", "--json"]), params)
}

fn pods() -> Value {
    json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
}

#[rstest]
#[case::sound(json!({"namespace": "team-a", "rules": [pods()]}))]
#[case::unknown(json!({"namespace": "team-a", "rules": [pods()], "colour": "red"}))]
#[case::tag(json!({"namespace": "team-a", "rules": [pods()], "md_metadata": {"default_tags": {"a b": "c"}}}))]
#[case::namespace(json!({"namespace": "Team_A", "rules": [pods()]}))]
#[case::name(json!({"namespace": "team-a", "rules": [pods()], "md_metadata": {"name_prefix": "Not A Name"}}))]
#[case::nothing(json!({}))]
#[case::list(json!([]))]
#[case::misspelt(json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceName": ["a"]}]}))]
#[case::several(json!({"namespace": "-", "rules": [{"verbs": ["fly"]}, 1], "cluster_roles": [{"name": "a/b"}]}))]
#[case::places(json!({"rules": [{
    "apiGroups": [""], "resources": ["pods"], "verbs": ["get"],
    "namespaces": (0..6000).map(|number| format!("{number:060}")).collect::<Vec<_>>(),
}]}))]
fn a_check_finds_what_a_provision_finds_before_the_first_packet(#[case] params: Value) {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name)
    };
    let file = put("params.json", &params.to_string());
    // Nobody listens there: what is not refused before the first packet ends with 69.
    let connection = ControlPlane::shared().admin().connection().to_string();
    let connection = connection.replace(&ControlPlane::shared().server(), "https://127.0.0.1:1");
    let connection = put("connection.json", &connection);
    let mut provision = binary();
    provision.args(["provision", "--json", "--timeout", "1", "--params"]).arg(&file);
    provision.arg("--connection").arg(&connection);
    if params.pointer("/md_metadata/name_prefix").is_none() {
        provision.args(["--name", NAME]);
    }
    let provisioned = Ran::of(&mut provision);
    let theirs = provisioned.document();

    let ran = Ran::of(binary().args(["check", "--json", "--params"]).arg(&file));
    let document = ran.document();
    assert_eq!(document["findings"], theirs["findings"]);
    assert_eq!(ran.code, if provisioned.code == 65 { 65 } else { 0 }, "{provisioned:?}");
    if ran.code == 65 {
        assert_eq!(document["error"], theirs["error"]);
    } else {
        assert_eq!((&document["error"], &document["namespace"]), (&Value::Null, &params["namespace"]));
        assert_eq!(provisioned.code, 69, "{provisioned:?}");
    }
    assert_eq!(document["action"], "check");
    assert_eq!((&document["server"], &document["requests"]), (&Value::Null, &json!(0)));
    let by_stdin = check(&params.to_string());
    assert_eq!((by_stdin.code, &by_stdin.document()["findings"]), (ran.code, &document["findings"]));
}

#[test]
fn a_check_reads_one_document_and_says_what_it_is_about() {
    let sound = json!({"namespace": "team-a", "rules": [pods()]}).to_string();
    let ran = fed(binary().arg("check"), &sound).expect_code(0);
    assert_eq!(ran.stdout, "", "the log goes to stderr");
    assert!(ran.stderr.contains("team-a") && ran.stderr.contains("the params are sound"), "{}", ran.stderr);
    let named = json!({"namespace": "team-a", "rules": [pods()], "md_metadata": {"name_prefix": NAME}});
    assert_eq!(check(&sound).document()["name"], Value::Null);
    assert_eq!(check(&named.to_string()).document()["name"], NAME);

    for (text, problem) in [
        ("", "stdin is empty"),
        ("{", "stdin"),
        (r#"{"namespace": "a", "namespace": "b", "rules": []}"#, "stdin has a key twice"),
    ] {
        let ran = fed(binary().arg("check"), text).expect_code(65);
        assert!(ran.stderr.contains(problem), "{}", ran.stderr);
    }
    let ran = Ran::of(binary().args(["check", "--params", "/nowhere/params.json"])).expect_code(65);
    assert!(ran.stderr.contains("cannot read /nowhere/params.json"), "{}", ran.stderr);
    for arguments in [&["check", "params.json"][..], &["check", "--connection", "c"], &["check", "--name", "n"]] {
        Ran::of(binary().args(arguments)).expect_code(64);
    }
}
