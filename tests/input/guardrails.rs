//! Guardrails without a cluster, as `check` applies them: what is refused, by which limit, and what waivers lift.

use jiff::{ToSpan as _, tz::TimeZone};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ran, binary, codes};

fn check(params: &Value, arguments: &[&str]) -> Ran {
    Ran::with_stdin(binary().arg("check").args(arguments), &params.to_string())
}

/// Params with a rule on this resource of the core group, and these guardrails.
fn reading(resource: &str, guardrails: &Value) -> Value {
    let rule = json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
    json!({"namespace": "team-a", "rules": [rule], "guardrails": guardrails})
}

/// A day so many days from now, in UTC.
fn in_days(days: i64) -> String {
    let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
    today.checked_add(days.days()).unwrap().to_string()
}

fn waiver(changes: &Value) -> Value {
    let mut waiver =
        json!({"code": "risk-r03", "max_severity": "high", "reason": "nightly backup", "until": in_days(100)});
    for (key, value) in changes.as_object().unwrap() {
        waiver[key] = value.clone();
    }
    waiver
}

fn accepting(changes: &Value) -> Value {
    json!({"max_risk": "medium", "accept": [waiver(changes)]})
}

/// Columns: a resource to read, guardrails, options, the exit code, parts of the cause.
#[rstest]
#[case::no_guardrails("secrets", json!({}), &[], 0, &[])]
#[case::as_a_form_sends_them("secrets", json!({"max_risk": "critical", "unknown_resources": "warn", "accept": []}), &[], 0, &[])]
#[case::at_the_limit("secrets", json!({"max_risk": "high"}), &[], 0, &[])]
#[case::above("secrets", json!({"max_risk": "medium"}), &[], 78, &["max_risk medium of the params", "/rules/0/resources/0 (risk-r03 high in team-a)"])]
#[case::low("pods/log", json!({"max_risk": "low"}), &[], 0, &[])]
#[case::option("secrets", json!({}), &["--max-risk", "medium"], 78, &["above --max-risk medium: /rules/0/resources/0"])]
#[case::option_of_all("secrets", json!({}), &["--max-risk", "critical"], 0, &[])]
#[case::option_is_laxer("secrets", json!({"max_risk": "low"}), &["--max-risk", "high"], 78, &["max_risk low of the params"])]
#[case::both("secrets", json!({"max_risk": "low"}), &["--max-risk", "medium"], 78, &["max_risk low of the params", "--max-risk medium"])]
#[case::waived("secrets", accepting(&json!({})), &[], 0, &[])]
#[case::waived_in_its_namespace("secrets", accepting(&json!({"namespaces": ["team-a"]})), &[], 0, &[])]
#[case::waived_everywhere("secrets", accepting(&json!({"namespaces": ["*"]})), &[], 0, &[])]
#[case::waived_elsewhere("secrets", accepting(&json!({"namespaces": ["team-b"]})), &[], 78, &["risk-r03"])]
#[case::waiver_over("secrets", accepting(&json!({"until": "2020-02-29"})), &[], 78, &["risk-r03"])]
#[case::waived_up_to_less("secrets", accepting(&json!({"max_severity": "medium"})), &[], 78, &["risk-r03"])]
#[case::waived_for_the_params_only("secrets", accepting(&json!({})), &["--max-risk", "medium"], 78, &["--max-risk medium"])]
#[case::dead_rule_is_no_risk("podz", json!({"max_risk": "low"}), &[], 0, &[])]
#[case::unknown_resource("podz", json!({"unknown_resources": "refuse"}), &[], 78, &["unknown_resources of the params: /rules/0/resources/0 (unknown-resource high)"])]
#[case::known_resource("secrets", json!({"unknown_resources": "refuse"}), &[], 0, &[])]
fn check_refuses_what_is_above_a_limit(
    #[case] resource: &str,
    #[case] guardrails: Value,
    #[case] options: &[&str],
    #[case] code: i32,
    #[case] cause: &[&str],
) {
    let ran = check(&reading(resource, &guardrails), &[&["--json"], options].concat()).expect_code(code);
    if code == 0 {
        assert!(ran.stderr.contains("the params are valid"), "{}", ran.stderr);
        return;
    }
    let error = ran.expect_error("guardrail");
    for part in cause {
        assert!(error["cause"].as_str().unwrap().contains(part), "{error}");
    }
    assert!(!codes(&ran.document()).is_empty(), "the findings are reported as well");
    assert_eq!(ran.document()["requests"], 0);
}

/// A custom resource cannot be known without a cluster.
#[test]
fn unknown_custom_resource_is_not_refused_offline() {
    let rule = json!({"apiGroups": ["example.com"], "resources": ["gadgets"], "verbs": ["get"]});
    let params = json!({"namespace": "team-a", "rules": [rule], "guardrails": {"unknown_resources": "refuse"}});
    let ran = check(&params, &["--json"]).expect_code(0);
    assert_eq!(ran.findings("unknown-group")[0]["severity"], "info");
}

/// Columns: a change of valid guardrails, the pointer of the mistake.
#[rstest]
#[case::misspelt(json!({"max_risks": "low"}), "/guardrails")]
#[case::level(json!({"max_risk": "info"}), "/guardrails/max_risk")]
#[case::choice(json!({"unknown_resources": "deny"}), "/guardrails/unknown_resources")]
#[case::no_object(json!("low"), "/guardrails")]
#[case::waivers_not_a_list(json!({"accept": waiver(&json!({}))}), "/guardrails/accept")]
#[case::misspelt_member(accepting(&json!({"namespace": ["team-a"]})), "/guardrails/accept/0")]
#[case::unknown_code(accepting(&json!({"code": "risk-r34"})), "/guardrails/accept/0/code")]
#[case::code_of_a_dead_rule(accepting(&json!({"code": "unknown-resource"})), "/guardrails/accept/0/code")]
#[case::severity(accepting(&json!({"max_severity": "High"})), "/guardrails/accept/0/max_severity")]
#[case::empty_reason(accepting(&json!({"reason": ""})), "/guardrails/accept/0/reason")]
#[case::blank_reason(accepting(&json!({"reason": " \t"})), "/guardrails/accept/0/reason")]
#[case::no_such_day(accepting(&json!({"until": "2027-02-29"})), "/guardrails/accept/0/until")]
#[case::no_such_month(accepting(&json!({"until": "2027-13-01"})), "/guardrails/accept/0/until")]
#[case::time(accepting(&json!({"until": "2027-03-31T00:00:00Z"})), "/guardrails/accept/0/until")]
#[case::basic_format(accepting(&json!({"until": "20270331"})), "/guardrails/accept/0/until")]
#[case::number(accepting(&json!({"until": 20_270_331})), "/guardrails/accept/0/until")]
#[case::namespace(accepting(&json!({"namespaces": ["Team_A"]})), "/guardrails/accept/0/namespaces/0")]
fn mistake_in_guardrails_is_an_input_error(#[case] guardrails: Value, #[case] pointer: &str) {
    // An input error comes before the refusal.
    let ran = check(&reading("secrets", &guardrails), &["--json", "--max-risk", "low"]).expect_code(65);
    let mistakes = ran.findings("schema");
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert_eq!((&mistakes[0]["pointer"], &mistakes[0]["blocking"]), (&json!(pointer), &json!(true)));
}

#[rstest]
#[case::code("code")]
#[case::max_severity("max_severity")]
#[case::reason("reason")]
#[case::until("until")]
fn waiver_without_a_member_is_an_input_error(#[case] member: &str) {
    let mut waiver = waiver(&json!({}));
    waiver.as_object_mut().unwrap().remove(member);
    let ran = check(&reading("secrets", &json!({"accept": [waiver]})), &["--json"]).expect_code(65);
    let mistake = &ran.findings("schema")[0];
    assert_eq!(mistake["pointer"], "/guardrails/accept/0");
    assert!(mistake["message"].as_str().unwrap().contains(member), "{mistake}");
}

#[rstest]
#[case::unknown_level("info")]
#[case::capital("High")]
#[case::empty("")]
fn unknown_level_is_a_usage_error(#[case] level: &str) {
    let ran = Ran::of(binary().args(["check", "--max-risk", level])).expect_code(64);
    assert!(ran.stderr.contains("low, medium, high, critical"), "{}", ran.stderr);
}

#[test]
fn decommission_has_no_limit_on_risks() {
    let mut command = binary();
    Ran::of(command.args(["decommission", "--params", "-", "--name", "a", "--max-risk", "low"])).expect_code(64);
}

/// Columns: changes of a waiver, the codes about it, whether it is used.
#[rstest]
#[case::in_use(json!({}), &[], true)]
#[case::ends(json!({"until": in_days(10)}), &["waiver-ends"], true)]
#[case::over(json!({"until": in_days(-2)}), &["waiver-unused"], false)]
#[case::of_another_risk(json!({"code": "risk-r01"}), &["waiver-unused"], false)]
#[case::elsewhere(json!({"namespaces": ["team-b"]}), &["waiver-unused"], false)]
fn waiver_is_reported_with_its_use(#[case] changes: Value, #[case] expected: &[&str], #[case] used: bool) {
    let params = reading("secrets", &json!({"accept": [waiver(&changes)]}));
    let ran = check(&params, &["--json"]).expect_code(0);
    let document = ran.document();
    let found: Vec<&str> = codes(&document).into_iter().filter(|code| code.starts_with("waiver")).collect();
    assert_eq!(found, expected);
    let findings = document["findings"].as_array().unwrap().iter();
    let of_waiver = |it: &&Value| it["code"].as_str().unwrap().starts_with("waiver");
    for finding in findings.filter(of_waiver) {
        assert_eq!((&finding["severity"], &finding["pointer"]), (&json!("low"), &json!("/guardrails/accept/0")));
    }
    let mut expected = waiver(&changes);
    expected["namespaces"] = changes.get("namespaces").cloned().unwrap_or(json!([]));
    (expected["used"], expected["source"]) = (json!(used), json!("params"));
    assert_eq!(document["waivers"], json!([expected]));
    assert_eq!(ran.stderr.contains("accepted     risk-r03 up to high until "), used, "{}", ran.stderr);
}

/// Columns: a ClusterRole, its namespaces, `--max-risk`, the exit code.
#[rstest]
#[case::administrator("cluster-admin", json!(["*"]), "high", 78)]
#[case::administrator_of_a_namespace("cluster-admin", json!(["team-a"]), "high", 78)]
#[case::namespace_administrator("admin", json!(["team-a"]), "medium", 78)]
#[case::editor("edit", json!(["team-a"]), "medium", 78)]
#[case::viewer("view", json!(["team-a"]), "medium", 0)]
#[case::without_limit("cluster-admin", json!(["*"]), "critical", 0)]
fn default_cluster_role_is_judged_offline(
    #[case] name: &str,
    #[case] namespaces: Value,
    #[case] max_risk: &str,
    #[case] code: i32,
) {
    let params = json!({"namespace": "team-a", "cluster_roles": [{"name": name, "namespaces": namespaces}]});
    let ran = check(&params, &["--json", "--max-risk", max_risk]).expect_code(code);
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["pointer"] == "/cluster_roles/0/name"), "{document:#}");
    let mut distinct = codes(&document);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((distinct.len(), findings.is_empty()), (findings.len(), false), "one finding for each code");
    assert!(!codes(&document).contains(&"cluster-role-unverified"));
}

/// Ignorance refuses nothing; but it is said where a limit is set.
#[rstest]
#[case::with_limit(&["--json", "--max-risk", "low"], 1)]
#[case::without_limit(&["--json"], 0)]
fn unknown_cluster_role_is_reported_with_a_limit(#[case] arguments: &[&str], #[case] reported: usize) {
    let params = json!({"namespace": "team-a", "cluster_roles": [{"name": "deployer"}]});
    let ran = check(&params, arguments).expect_code(0);
    let found = ran.findings("cluster-role-unverified");
    assert_eq!(found.len(), reported, "{found:?}");
    assert!(found.iter().all(|it| it["severity"] == "info" && it["pointer"] == "/cluster_roles/0/name"));
}
