//! `check` of several files: each is judged, each finding has its file, line and column, and SARIF is what the standard
//! defines. `sarif-schema-2.1.0.json` is the schema of that standard, unchanged (copyright OASIS Open; the copy comes from
//! the crate serde-sarif 0.8.0, MIT licence).

use std::{fs, path::Path, process::Command, sync::LazyLock};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ran, binary};

pub(crate) const SOUND: &str =
    r#"{"namespace": "team-a", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}"#;

/// Sound params with a dead rule in line 5 and a risk in line 6.
const JUDGED: &str = r#"{
	"md_metadata": { "name_prefix": "demo" },
	"namespace": "team-a",
	"rules": [
		{ "apiGroups": ["apps"], "resources": ["deployment"], "verbs": ["get"] },
		{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }
	]
}
"#;

/// Params with a wrong namespace in line 2 and a rule without verbs in line 3.
pub(crate) const REFUSED: &str = r#"{
  "namespace": "Team_A",
  "rules": [ { "apiGroups": [""], "resources": ["pods"] } ]
}
"#;

pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = binary();
    command.current_dir(folder).arg("check").args(arguments);
    command
}

fn check(folder: &TempDir, arguments: &[&str]) -> Ran {
    Ran::of(&mut command(folder.path(), arguments))
}

fn check_with_stdin(folder: &TempDir, arguments: &[&str], stdin: &str) -> Ran {
    Ran::with_stdin(&mut command(folder.path(), arguments), stdin)
}

fn texts<'a>(finding: &'a Value, keys: &[&str]) -> Vec<&'a str> {
    keys.iter().map(|key| finding[key].as_str().unwrap_or("-")).collect()
}

/// Source, code and pointer of each finding.
fn found(document: &Value) -> Vec<Vec<&str>> {
    document["findings"].as_array().unwrap().iter().map(|it| texts(it, &["source", "code", "pointer"])).collect()
}

#[test]
fn several_files_are_all_judged() {
    let folder = folder(&[("ok.json", SOUND), ("params/judged.json", JUDGED), ("refused.json", REFUSED)]);
    let ran = check(&folder, &["--json", "ok.json", "params/judged.json", "refused.json"]).expect_code(65);
    let document = ran.document();
    let expected = [
        ["params/judged.json", "unknown-resource", "/rules/0/resources/0"],
        ["params/judged.json", "risk-r03", "/rules/1/resources/0"],
        ["refused.json", "schema", "/namespace"],
        ["refused.json", "schema", "/rules/0"],
    ];
    assert_eq!(found(&document), expected);
    assert_eq!((&document["name"], &document["namespace"]), (&Value::Null, &Value::Null));
    let error = ran.expect_error("input-refused");
    assert_eq!((&error["object"], &error["cause"]), (&json!("refused.json"), &json!("2 problems in the input")));
}

#[rstest]
#[case::sound(&["ok.json", "judged.json"], 0)]
#[case::refused_first(&["refused.json", "ok.json"], 65)]
#[case::refused_last(&["ok.json", "judged.json", "refused.json"], 65)]
#[case::params_too(&["ok.json", "--params", "refused.json"], 65)]
#[case::twice(&["ok.json", "ok.json"], 0)]
fn worst_file_decides_the_exit_code(#[case] arguments: &[&str], #[case] code: i32) {
    let folder = folder(&[("ok.json", SOUND), ("judged.json", JUDGED), ("refused.json", REFUSED)]);
    check(&folder, arguments).expect_code(code);
    check(&folder, &[arguments, &["--json"]].concat()).expect_code(code);
    check(&folder, &[arguments, &["--sarif"]].concat()).expect_code(code);
}

#[test]
fn one_file_has_name_namespace_and_source() {
    let folder = folder(&[("judged.json", JUDGED)]);
    let document = check(&folder, &["--json", "./judged.json"]).expect_code(0).document();
    assert_eq!((&document["name"], &document["namespace"]), (&json!("demo"), &json!("team-a")));
    assert_eq!(found(&document)[0], ["./judged.json", "unknown-resource", "/rules/0/resources/0"]);
}

#[test]
fn log_of_files_begins_with_file_line_and_column() {
    let folder =
        folder(&[("judged.json", JUDGED), ("params/refused.json", REFUSED), ("broken.json", "{\n  \"a\": x\n}")]);
    let ran = check(&folder, &["judged.json", "params/refused.json", "broken.json"]).expect_code(65);
    for beginning in [
        "judged.json:5:42 high /rules/0/resources/0: the group `apps` has no resource `deployment` [unknown-resource]",
        "judged.json:6:38 high /rules/1/resources/0: allows reading every Secret",
        "params/refused.json:2:16 high /namespace: has an invalid format",
        "params/refused.json:3:14 high /rules/0: the field `verbs` is missing",
        "broken.json:2:8 high broken.json is not valid JSON: line 2, column 8 [schema]",
    ] {
        assert!(ran.stderr.lines().any(|line| line.starts_with(beginning)), "{beginning}\n{}", ran.stderr);
    }
    let cause = "2 of 3 files are refused: params/refused.json: input-refused, 2 problems in the input; broken.json: ";
    assert!(ran.stderr.contains(cause), "{}", ran.stderr);
    let by_stdin = check_with_stdin(&folder, &[], JUDGED).expect_code(0);
    assert!(by_stdin.stderr.contains("\nhigh         /rules/0/resources/0: "), "{}", by_stdin.stderr);
    let with_stdin = check_with_stdin(&folder, &["-", "judged.json"], REFUSED).expect_code(65);
    assert!(with_stdin.stderr.contains("\nstdin:2:16 high /namespace: "), "{}", with_stdin.stderr);
}

#[rstest]
#[case::missing("missing.json", "cannot read missing.json: No such file")]
#[case::directory("folder", "cannot read folder: Is a directory")]
#[case::empty("empty.json", "empty.json is empty")]
#[case::binary("binary.json", "binary.json is not valid UTF-8")]
#[case::package("package.json", "this is not a params document")]
#[case::list("list.json", "the params must be of type object")]
#[case::text("text.json", "the params must be of type object")]
#[case::manifest("manifest.json", "a manifest of kind ConfigMap cannot be read as params")]
fn file_without_params_is_reported_beside_others(#[case] name: &str, #[case] message: &str) {
    let manifest = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}"#;
    let folder = folder(&[
        ("judged.json", JUDGED),
        ("folder/a.json", SOUND),
        ("empty.json", "\n"),
        ("package.json", r#"{"name": "a", "version": "1.0.0"}"#),
        ("list.json", "[]"),
        ("text.json", "\"a\""),
        ("manifest.json", manifest),
    ]);
    fs::write(folder.path().join("binary.json"), b"\xff\xfa").unwrap();
    let ran = check(&folder, &["--json", name, "judged.json"]).expect_code(65);
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    let refusal = &findings[0];
    assert_eq!(texts(refusal, &["source", "code"]), [name, "schema"]);
    assert!(refusal["message"].as_str().unwrap().starts_with(message), "{refusal}");
    assert!(found(&document).contains(&vec!["judged.json", "risk-r03", "/rules/1/resources/0"]), "{document:#}");
    assert!(findings.iter().all(|finding| finding["code"] != "unknown-param"), "{document:#}");
}

/// Many findings of one file leave those of the next one complete.
#[test]
fn findings_are_condensed_file_by_file() {
    let rules = vec![json!({"apiGroups": ["apps"], "resources": ["deployment"], "verbs": ["get"]}); 60];
    let many = json!({"namespace": "team-a", "rules": rules}).to_string();
    let folder = folder(&[("one.json", &many), ("two.json", &many)]);
    let document = check(&folder, &["--json", "one.json", "two.json"]).expect_code(0).document();
    for source in ["one.json", "two.json"] {
        let dead = found(&document).into_iter().filter(|it| it[..2] == [source, "unknown-resource"]).count();
        assert_eq!(dead, 50, "{source}");
    }
}

#[rstest]
#[case::two_formats(&["--json", "--sarif", "a"], "cannot be used with")]
#[case::stdin_twice(&["-", "-"], "stdin is named more than once")]
#[case::stdin_in_params_too(&["-", "--params", "-"], "stdin is named more than once")]
fn impossible_combination_is_a_usage_error(#[case] arguments: &[&str], #[case] text: &str) {
    let ran = check(&folder(&[]), arguments).expect_code(64);
    assert!(ran.stderr.contains(text), "{}", ran.stderr);
    assert_eq!(ran.stdout.is_empty(), !arguments.contains(&"--json"), "{}", ran.stdout);
}

/// A SARIF log that is valid by the public schema.
#[track_caller]
pub(crate) fn sarif(text: &str) -> Value {
    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let mut schema: Value = serde_json::from_str(include_str!("sarif-schema-2.1.0.json")).unwrap();
        // As published it is no regular expression; the program writes no language.
        for part in ["run", "toolComponent"] {
            let language = schema["definitions"][part]["properties"]["language"].as_object_mut().unwrap();
            assert_eq!(language.remove("pattern").unwrap(), "^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$");
        }
        jsonschema::draft7::new(&schema).unwrap()
    });
    let document: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no document: {text}"));
    let problems: Vec<String> =
        SCHEMA.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "invalid SARIF: {problems:#?}");
    // What the schema cannot say: the index of a rule, and what code scanning requires beyond it.
    let run = &document["runs"][0];
    for result in run["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        let rule = &run["tool"]["driver"]["rules"][index];
        assert_eq!(rule["id"], result["ruleId"]);
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(rule[text]["text"].as_str().is_some_and(|text| text.ends_with('.')), "{rule:#}");
        }
        let score: f64 = rule["properties"]["security-severity"].as_str().unwrap().parse().unwrap();
        assert!((0.0..=10.0).contains(&score), "{rule:#}");
        assert!(result["locations"][0]["physicalLocation"]["region"]["startLine"].is_u64(), "{result:#}");
    }
    document
}

/// Rule, level, file, line, column and pointer of each result.
pub(crate) fn shown(document: &Value) -> Vec<String> {
    let results = document["runs"][0]["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            let location = &result["locations"][0];
            let (file, region) =
                (&location["physicalLocation"]["artifactLocation"]["uri"], &location["physicalLocation"]["region"]);
            let pointer = &location["logicalLocations"][0]["fullyQualifiedName"];
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {}:{}:{} {}",
                text(&result["ruleId"]),
                text(&result["level"]),
                text(file),
                region["startLine"],
                region["startColumn"],
                text(pointer)
            )
        })
        .collect()
}

#[test]
fn sarif_is_valid_and_names_the_line() {
    let low = r#"{"namespace": "a", "rules": [
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["deletecollection"]}], "nonsense": 1}"#;
    let folder = folder(&[
        ("params/judged.json", JUDGED),
        ("refused.json", REFUSED),
        ("a b#\u{e4}.json", low),
        ("ok.json", SOUND),
        ("broken.json", "{\n"),
    ]);
    let absolute = folder.path().canonicalize().unwrap().join("refused.json");
    let files =
        ["./params/judged.json", absolute.to_str().unwrap(), "a b#\u{e4}.json", "ok.json", "broken.json", "gone"];
    let ran = check(&folder, &[&["--sarif"], &files[..]].concat()).expect_code(65);
    let document = sarif(&ran.stdout);
    let expected = [
        "unknown-resource error params/judged.json:5:42 /rules/0/resources/0",
        "risk-r03 error params/judged.json:6:38 /rules/1/resources/0",
        "schema error refused.json:2:16 /namespace",
        "schema error refused.json:3:14 /rules/0",
        "risk-r37 warning a%20b%23%C3%A4.json:3:62 /rules/1/verbs/0",
        "unknown-param note a%20b%23%C3%A4.json:3:97 /nonsense",
        "risk-r30 note a%20b%23%C3%A4.json:2:43 /rules/0/resources/0",
        "schema error broken.json:2:1 -",
        "schema error gone:1:1 -",
    ];
    assert_eq!(shown(&document), expected);
    let driver = &document["runs"][0]["tool"]["driver"];
    assert_eq!((&driver["name"], &driver["version"]), (&json!("k8s-token"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(driver["rules"].as_array().unwrap().len(), 6, "one for each code: {driver:#}");
    let dead = &document["runs"][0]["results"][0]["message"]["text"];
    assert_eq!(dead, "the group `apps` has no resource `deployment`: use `deployments`");
    assert!(ran.stderr.contains("failed       input-refused (exit 65)"), "the log is printed as well: {}", ran.stderr);
}

#[test]
fn sarif_without_findings_is_valid() {
    let folder = folder(&[("ok.json", SOUND)]);
    let document = sarif(&check(&folder, &["--sarif", "ok.json"]).expect_code(0).stdout);
    assert_eq!((shown(&document), &document["runs"][0]["tool"]["driver"]["rules"]), (Vec::new(), &json!([])));
}

#[test]
fn sarif_of_params_option_names_file() {
    let folder = folder(&[]);
    let document = sarif(&check_with_stdin(&folder, &["--sarif"], JUDGED).expect_code(0).stdout);
    assert_eq!(shown(&document)[0], "unknown-resource error stdin:5:42 /rules/0/resources/0");
    let folder = self::folder(&[("params/a.json", JUDGED)]);
    let document = sarif(&check(&folder, &["--sarif", "--params", "params/a.json"]).expect_code(0).stdout);
    assert_eq!(shown(&document)[0], "unknown-resource error params/a.json:5:42 /rules/0/resources/0");
}

/// A risk that a waiver accepts is in the document, and a forge does not alert about it.
#[test]
fn accepted_risk_is_suppressed_in_sarif() {
    let with = |max_severity: &str| {
        let waiver = json!({"code": "risk-r03", "max_severity": max_severity, "reason": "nightly backup", "until": "9999-12-31"});
        let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
        let params = json!({"namespace": "a", "rules": [rule], "guardrails": {"accept": [waiver]}});
        let folder = folder(&[("a.json", &params.to_string())]);
        let document = sarif(&check(&folder, &["--sarif", "a.json"]).expect_code(0).stdout);
        let results = document["runs"][0]["results"].as_array().unwrap().clone();
        results.into_iter().find(|result| result["ruleId"] == "risk-r03").unwrap()["suppressions"].clone()
    };
    assert_eq!(with("high"), json!([{"kind": "external", "justification": "nightly backup"}]));
    assert_eq!(with("medium"), json!(null), "a waiver up to less accepts nothing");
}

/// Each refused file keeps its reason, whatever is wrong with the others.
#[test]
fn cause_of_several_files_names_guardrail() {
    let risky = r#"{"namespace": "a", "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}"#;
    let folder = folder(&[("risky.json", risky), ("refused.json", REFUSED), ("ok.json", SOUND)]);
    let cause = |files: &[&str], code: i32| {
        let ran = check(&folder, &[&["--json", "--max-risk", "low"], files].concat()).expect_code(code);
        ran.document()["error"]["cause"].as_str().unwrap().to_owned()
    };
    let refusal = "above --max-risk low: /rules/0/resources/0 (risk-r03 high in a)";
    assert_eq!(cause(&["risky.json", "ok.json"], 78), refusal);
    let both = cause(&["risky.json", "refused.json", "ok.json"], 65);
    assert!(both.contains(&format!("risky.json: guardrail, {refusal}; refused.json: input-refused, ")), "{both}");
}

/// Forges tell by it which findings are new.
#[test]
fn sarif_fingerprint_outlives_a_moved_line() {
    let moved = JUDGED.replacen('{', "{\n\n", 1);
    let folder = folder(&[("a.json", JUDGED), ("moved/a.json", &moved), ("b.json", JUDGED)]);
    let prints = |place: &str, file: &str| -> Vec<String> {
        let ran = Ran::of(&mut command(&folder.path().join(place), &["--sarif", file])).expect_code(0);
        let document = sarif(&ran.stdout);
        let results = document["runs"][0]["results"].as_array().unwrap().clone();
        results.iter().map(|result| result["partialFingerprints"].to_string()).collect()
    };
    let there = prints(".", "a.json");
    assert_ne!(there[0], there[1]);
    assert_eq!(prints("moved", "a.json"), there);
    assert_ne!(prints(".", "b.json"), there);
}
