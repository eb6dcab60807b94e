//! Guardrails against a real server: what is above a limit is refused before any write, and a run that adds no permission
//! is never stopped. ClusterRoles are judged by the rules that they have in the cluster.

use std::{collections::BTreeMap, fs};

use jiff::{ToSpan as _, tz::TimeZone};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, Options, Persona, evaluate_config, eventually, rule};

use crate::support::{Instance, OBJECT, Ran, codes, paths, versions};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn parent(stem: &str) -> Persona {
    ControlPlane::shared().persona(stem, &[Grant::cluster_role("cluster-admin")])
}

/// An instance that may read Secrets (high), with these guardrails in its params.
fn reads_secrets(parent: &Persona, namespace: &str, guardrails: &Value) -> Instance {
    let mut instance = Instance::new(parent, namespace).rules(&json!([rule(&[""], &["secrets"], &["get", "list"])]));
    instance.params["guardrails"] = guardrails.clone();
    instance
}

/// A day so many days from now, in UTC.
fn in_days(days: i64) -> String {
    let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
    today.checked_add(days.days()).unwrap().to_string()
}

fn waiver(until: &str) -> Value {
    json!({"code": "risk-r03", "max_severity": "high", "reason": "backup of team a", "until": until})
}

/// Runs a command that a guardrail refuses: nothing is written, nor sent to the platform.
#[track_caller]
fn refused(instance: &Instance, parent: &Persona, action: &str, more: &[&str]) -> (Ran, Value) {
    let cp = ControlPlane::shared();
    let (mark, before) = (cp.audit().mark(), versions(cp, &instance.namespace));
    let ran = instance.ask(action, more).expect_code(78);
    let error = ran.expect_error("guardrail");
    let events = cp.audit().of(&parent.user, mark);
    let writes: Vec<&String> = events.iter().filter(|it| it.is_write()).map(|it| &it.uri).collect();
    assert_eq!((writes, events.is_empty()), (Vec::<&String>::new(), false));
    assert_eq!(versions(cp, &instance.namespace), before);
    assert_eq!(instance.platform.requests().len(), 0);
    assert_eq!(error["state"], "nothing was changed");
    (ran, error)
}

#[test]
fn risk_above_limit_is_refused_before_any_write() {
    let (cp, parent) = (ControlPlane::shared(), parent("above"));
    let namespace = cp.unused_namespace("above");
    let instance = reads_secrets(&parent, &namespace, &json!({"max_risk": "medium"}));
    for action in ["plan", "provision"] {
        let (ran, error) = refused(&instance, &parent, action, &[]);
        let expected =
            format!("above max_risk medium of the params: /rules/0/resources/0 (risk-r03 high in {namespace})");
        assert_eq!(error["cause"], json!(expected));
        assert_eq!(ran.findings("risk-r03")[0]["pointer"], "/rules/0/resources/0");
        let found = ran.stderr.find("[risk-r03]").unwrap();
        assert!(found < ran.stderr.find("guardrail (exit 78)").unwrap(), "{}", ran.stderr);
        let planned = ran.document()["changes"].as_array().unwrap().len();
        assert_eq!(planned, if action == "plan" { 5 } else { 0 }, "a plan shows all of it");
        assert_eq!(ran.stderr.contains("planned      5 changes; 1 high finding"), action == "plan", "{}", ran.stderr);
    }
    assert!(cp.get(&format!("/api/v1/namespaces/{namespace}")).is_none());

    // As the platform starts it.
    let ran = instance.act("provision").expect_code(78);
    assert!(ran.stderr.contains("guardrail (exit 78)"), "{}", ran.stderr);
    assert_eq!(instance.platform.resource("token"), None);
}

#[test]
fn run_that_adds_no_permission_is_never_stopped() {
    let (cp, parent) = (ControlPlane::shared(), parent("same"));
    let namespace = cp.namespace("same");
    let mut instance = reads_secrets(&parent, &namespace, &json!({}));
    instance.ask("provision", &[]).expect_code(0);
    instance.params["guardrails"] = json!({"max_risk": "low", "unknown_resources": "refuse"});
    for action in ["plan", "provision"] {
        let ran = instance.ask(action, &[]).expect_code(0);
        assert!(codes(&ran.document()).contains(&"risk-r03"), "{}", ran.stderr);
    }
    // A harmless rule beside one above the limit, and one that matches nothing.
    let harmless = rule(&[""], &["configmaps"], &["get"]);
    let kept = instance.params["rules"][0].clone();
    instance.params["rules"] = json!([kept, harmless]);
    for action in ["plan", "provision"] {
        let (_, error) = refused(&instance, &parent, action, &[]);
        assert!(error["cause"].as_str().unwrap().contains("/rules/0/resources/0"), "{error}");
    }
    instance.params["guardrails"] = json!({"unknown_resources": "refuse"});
    instance.params["rules"] = json!([kept, rule(&[""], &["podz"], &["get"])]);
    let (_, error) = refused(&instance, &parent, "provision", &[]);
    let cause = "refused by unknown_resources of the params: /rules/1/resources/0 (unknown-resource high)";
    assert_eq!(error["cause"], cause);

    instance.params["guardrails"] = json!({"max_risk": "low"});
    instance.params["rules"] = json!([rule(&[""], &["secrets"], &["get"])]);
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert_eq!(ran.document()["permissions"]["narrowed"].as_array().unwrap().len(), 1);

    // A rule that matches nothing adds nothing, whatever the rules beside it allow.
    let dead = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["*"]});
    instance.params["rules"] = json!([rule(&[""], &["secrets"], &["get"]), dead, rule(&[""], &["pod"], &["get"])]);
    for action in ["plan", "provision"] {
        let document = instance.ask(action, &[]).expect_code(0).document();
        assert_eq!(document["permissions"]["widened"], json!([]), "{action}");
    }
    instance.params["rules"] = json!([rule(&[""], &["secrets"], &["get"])]);
    instance.ask("provision", &[]).expect_code(0);

    // Without its ServiceAccount there is no one who holds anything.
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{OBJECT}");
    cp.delete(&account);
    eventually("the token is deleted", || cp.get(&paths(&namespace)[3]).is_none().then_some(()));
    refused(&instance, &parent, "provision", &[]);
    instance.ask("decommission", &[]).expect_code(0);
}

/// Columns: guardrails of the params, those of config.json, `--max-risk`, whether it is refused, a part of the cause.
#[rstest]
#[case::waived(json!({"max_risk": "low", "accept": [waiver(&in_days(30))]}), json!(null), None, None)]
#[case::waiver_over(json!({"max_risk": "low", "accept": [waiver(&in_days(-2))]}), json!(null), None, Some("low of the params"))]
#[case::config_is_stricter(json!({"max_risk": "high"}), json!({"max_risk": "medium"}), None, Some("medium of config.json"))]
#[case::config_is_not_waived(json!({"accept": [waiver(&in_days(30))]}), json!({"max_risk": "medium"}), None, Some("medium of config.json"))]
#[case::config_waives_itself(json!({}), json!({"max_risk": "low", "accept": [waiver(&in_days(30))]}), None, None)]
#[case::option_is_stricter(json!({"max_risk": "high"}), json!({}), Some("low"), Some("--max-risk low"))]
#[case::option_is_not_waived(json!({"accept": [waiver(&in_days(30))]}), json!(null), Some("low"), Some("--max-risk low"))]
#[case::option_is_laxer(json!({"max_risk": "medium"}), json!(null), Some("critical"), Some("medium of the params"))]
#[case::nothing_above(json!({"max_risk": "high"}), json!({"max_risk": "high"}), Some("high"), None)]
fn strictest_limit_applies_and_waivers_lift_their_own(
    #[case] params: Value,
    #[case] config: Value,
    #[case] option: Option<&str>,
    #[case] refusal: Option<&str>,
) {
    let cp = ControlPlane::shared();
    let mut instance = reads_secrets(cp.admin(), &cp.namespace("strict"), &params);
    instance.config["guardrails"] = config;
    let more: Vec<&str> = option.iter().flat_map(|level| ["--max-risk", level]).collect();
    let ran = instance.ask("plan", &more).expect_code(if refusal.is_some() { 78 } else { 0 });
    if let Some(part) = refusal {
        let cause = ran.expect_error("guardrail")["cause"].to_string();
        assert!(cause.contains(part), "{cause}");
    }
}

#[test]
fn waivers_are_shown_and_reported_before_their_end() {
    let cp = ControlPlane::shared();
    let unused = json!({"code": "risk-r01", "max_severity": "critical", "reason": "no", "until": in_days(60)});
    let guardrails = json!({"max_risk": "low", "accept": [waiver(&in_days(7)), unused]});
    let instance = reads_secrets(cp.admin(), &cp.namespace("shown"), &guardrails);
    let ran = instance.ask("provision", &[]).expect_code(0);
    let line = format!("accepted     risk-r03 up to high until {}: backup of team a\n", in_days(7));
    assert!(ran.stderr.contains(&line), "{line} is not in\n{}", ran.stderr);
    let waivers = ran.document()["waivers"].clone();
    let used: Vec<(&Value, &Value)> = waivers.as_array().unwrap().iter().map(|it| (&it["code"], &it["used"])).collect();
    assert_eq!(used, [(&json!("risk-r03"), &json!(true)), (&json!("risk-r01"), &json!(false))]);
    assert_eq!(ran.findings("waiver-ends")[0]["pointer"], "/guardrails/accept/0");
    assert_eq!(ran.findings("waiver-unused")[0]["pointer"], "/guardrails/accept/1");
}

/// The step's config in docs/massdriver.md, evaluated as the platform does.
#[test]
fn documented_step_limits_the_form() {
    let page = fs::read_to_string("docs/massdriver.md").unwrap();
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let bundle: Value = serde_saphyr::from_str(block).unwrap();
    let own: Value = serde_saphyr::from_str(&fs::read_to_string("massdriver.yaml").unwrap()).unwrap();
    assert_eq!(bundle["steps"][0]["path"], own["steps"][0]["path"]);
    let parent = parent("step");
    let of_the_form = json!({"max_risk": "critical", "accept": [waiver(&in_days(30))]});
    let mut instance = reads_secrets(&parent, &ControlPlane::shared().namespace("step"), &of_the_form);
    instance.config = evaluate_config(&bundle["steps"][0]["config"], &json!({"params": instance.params}));
    assert_eq!(instance.config["guardrails"]["max_risk"], "medium");
    let (_, error) = refused(&instance, &parent, "provision", &[]);
    assert!(error["cause"].as_str().unwrap().contains("max_risk medium of config.json"), "{error}");
    assert!(error["next"].as_str().unwrap().contains("not accepted by the limits of config.json"), "{error}");
    instance.params["rules"] = json!([rule(&[""], &["pods"], &["get"])]);
    instance.provision();
}

/// Columns: a ClusterRole, its namespaces, the limit, a risk above it.
#[rstest]
#[case::administrator("cluster-admin", json!(["*"]), "high", Some("risk-r01"))]
#[case::administrator_of_a_namespace("cluster-admin", json!(null), "high", Some("risk-r01"))]
#[case::editor("edit", json!(null), "medium", Some("risk-r03"))]
#[case::editor_of_the_cluster("edit", json!(["*"]), "high", Some("risk-r03"))]
#[case::editor_within_the_limit("edit", json!(null), "critical", None)]
#[case::viewer("view", json!(null), "medium", None)]
fn cluster_role_is_judged_by_its_live_rules(
    #[case] name: &str,
    #[case] namespaces: Value,
    #[case] max_risk: &str,
    #[case] above: Option<&str>,
) {
    let (cp, parent) = (ControlPlane::shared(), parent("role"));
    let mut instance = Instance::new(&parent, &cp.namespace("role"));
    instance.params["cluster_roles"] = json!([{"name": name, "namespaces": namespaces}]);
    match above {
        Some(code) => {
            for action in ["plan", "provision"] {
                let (ran, error) = refused(&instance, &parent, action, &["--max-risk", max_risk]);
                let finding = &ran.findings(code)[0];
                assert_eq!(finding["pointer"], "/cluster_roles/0/name");
                assert!(
                    finding["message"].as_str().unwrap().starts_with(&format!("ClusterRole {name}: ")),
                    "{finding}"
                );
                assert!(error["cause"].as_str().unwrap().contains(code), "{error}");
            }
        }
        None => drop(instance.ask("plan", &["--max-risk", max_risk]).expect_code(0)),
    }
}

/// The rules of a ClusterRole can change between two runs: what it gained is no permission that this run adds.
#[test]
fn own_cluster_role_is_refused_by_its_content() {
    let (cp, parent) = (ControlPlane::shared(), parent("deployer"));
    let namespace = cp.namespace("deployer");
    let path = format!("{RBAC}/clusterroles");
    let body = |resource: &str| json!({"metadata": {"name": namespace}, "rules": [rule(&[""], &[resource], &["get"])]});
    cp.post(&path, &body("pods"));
    let mut instance = Instance::new(&parent, &namespace);
    instance.params["cluster_roles"] = json!([{"name": namespace}]);
    instance.params["guardrails"] = json!({"max_risk": "medium"});
    instance.ask("provision", &[]).expect_code(0);
    cp.put(&format!("{path}/{namespace}"), &body("secrets"));
    let ran = instance.ask("provision", &[]).expect_code(0);
    assert_eq!(ran.findings("risk-r03")[0]["severity"], "high");
    instance.params["cluster_roles"] = json!([{"name": namespace, "namespaces": [namespace, cp.namespace("more")]}]);
    refused(&instance, &parent, "provision", &[]);
    instance.ask("decommission", &[]).expect_code(0);
}

const EMBEDDED: &str = "src/rbac/cluster_roles.json";

/// Rules of several releases together: `check` does not know the server.
#[test]
fn embedded_cluster_roles_are_those_of_the_server() {
    let cp = ControlPlane::start(&Options::default()).unwrap(); // no test has aggregated anything into its ClusterRoles
    let text = fs::read_to_string(EMBEDDED).unwrap_or_default();
    let mut known: BTreeMap<String, Vec<Value>> = serde_json::from_str(&text).unwrap_or_default();
    for name in ["cluster-admin", "admin", "edit", "view"] {
        let rules = eventually("the ClusterRole is aggregated", || {
            cp.get(&format!("{RBAC}/clusterroles/{name}"))?["rules"].as_array().filter(|it| !it.is_empty()).cloned()
        });
        let of_role = known.entry(name.to_owned()).or_default();
        for rule in rules {
            if !of_role.contains(&rule) {
                of_role.push(rule);
            }
        }
    }
    let text = |(name, rules): (&String, &Vec<Value>)| {
        let rules: Vec<String> = rules.iter().map(Value::to_string).collect();
        format!("{}:[\n{}\n]", json!(name), rules.join(",\n"))
    };
    let complete = format!("{{{}}}\n", known.iter().map(text).collect::<Vec<_>>().join(",\n"));
    if std::env::var_os("UPDATE_DEFAULTS").is_some() {
        fs::write(EMBEDDED, &complete).unwrap();
    }
    let embedded = fs::read_to_string(EMBEDDED).unwrap_or_default();
    assert!(embedded == complete, "{EMBEDDED} lacks rules of Kubernetes {}: UPDATE_DEFAULTS=1 adds them", cp.version());
}
