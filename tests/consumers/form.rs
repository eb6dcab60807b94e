//! The form of the params, as the platform shows it, in a real browser; and the submitted params, on a real cluster.
//! Params that the form accepts are accepted by the provisioner with the same meaning; params that one of them refuses
//! are refused by the other at the same field with the same message of massdriver.yaml. `UPDATE_PICTURE=1 cargo test -p
//! consumers form` rewrites the picture in docs/massdriver.md.

mod browser;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::OnceLock,
};

use browser::Outcome;
use serde_json::{Value, json};
use testbed::ControlPlane;

use crate::{
    root,
    support::{Instance, Ran},
};

/// A case: the steps in the form, and the expected result.
struct Row {
    name: &'static str,
    /// The saved params of the instance.
    params: Value,
    /// Steps of tests/consumers/form/drive.js.
    does: Value,
    expect: Expect,
}

enum Expect {
    /// Submitted, with the same meaning as these params.
    Means(Value),
    /// Refused at these fields, with a message of massdriver.yaml beside each.
    Refused(&'static [&'static str]),
    /// Refused by the browser itself, at these fields.
    Stopped(&'static [&'static str]),
    /// Refused at this field, with the message of a validator: only other programs can enter it, not the form.
    Mistyped(&'static str),
    /// Refused at this field without a message. The platform's form shows no message for a single box.
    Silent(&'static str),
}

use Expect::{Means, Mistyped, Refused, Silent, Stopped};

/// A case that fills in the form of a new instance.
fn new(name: &'static str, does: Value, expect: Expect) -> Row {
    Row { name, params: json!({}), does, expect }
}

/// A case that opens saved params and submits them again.
fn saved(name: &'static str, params: Value, expect: Expect) -> Row {
    Row { name, params, does: json!([]), expect }
}

fn one_rule(rule: &Value) -> Value {
    json!({ "namespace": "default", "rules": [rule] })
}

/// The default rule of a new form, with changes; null removes a field.
fn rule(changes: &Value) -> Value {
    let mut rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] });
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            rule.as_object_mut().unwrap().remove(key);
        } else {
            rule[key] = value.clone();
        }
    }
    one_rule(&rule)
}

/// A limit, and an accepted risk with changes.
fn guardrails(changes: &Value) -> Value {
    let mut accepted = json!({ "code": "risk-r03", "max_severity": "high", "reason": "audit", "until": "2099-03-31", "namespaces": [] });
    for (key, value) in changes.as_object().unwrap() {
        accepted[key] = value.clone();
    }
    json!({ "max_risk": "medium", "accept": [accepted] })
}

fn guarded(changes: &Value) -> Value {
    let mut params = rule(&json!({}));
    params["guardrails"] = guardrails(changes);
    params
}

fn in_team_a(mut params: Value) -> Value {
    params["namespace"] = json!("team-a");
    params
}

fn preset(name: &str) -> Value {
    let schema: Value = serde_json::from_str(&fs::read_to_string(root("schema-params.json")).unwrap()).unwrap();
    let examples = schema["examples"].as_array().unwrap();
    let mut params = examples.iter().find(|example| example["__name"] == name).expect("a preset").clone();
    params.as_object_mut().unwrap().remove("__name");
    params["namespace"] = json!("default");
    params
}

/// The row for the picture in docs/massdriver.md.
const PICTURED: &str = "a preset in a wrong namespace";
const PICTURE: &str = "docs/form.png";

const OTHER_NAMESPACES: &str = "In these namespaces";

fn table() -> Vec<Row> {
    let mut rows = presets();
    rows.extend(filled_in());
    rows.extend(advanced());
    rows.extend(refused());
    rows.extend(opened_again());
    rows
}

fn presets() -> Vec<Row> {
    let choose = |name: &str| json!([["preset", name]]);
    vec![
        new("preset: none", json!([]), Means(rule(&json!({})))),
        new("preset: Admin", choose("Admin"), Means(preset("Admin"))),
        new("preset: Read-only", choose("Read-only"), Means(preset("Read-only"))),
        new("preset: Debugging", choose("Debugging"), Means(preset("Debugging"))),
        new("preset: another one", json!([["preset", "Admin"], ["preset", "Read-only"]]), Means(preset("Read-only"))),
        new(
            "preset: and a namespace",
            json!([["preset", "Debugging"], ["fill", "/namespace", "team-a"]]),
            Means(in_team_a(preset("Debugging"))),
        ),
    ]
}

fn filled_in() -> Vec<Row> {
    vec![
        new("namespace", json!([["fill", "/namespace", "team-a"]]), Means(in_team_a(rule(&json!({}))))),
        new(
            "core group beside another",
            json!([["add", "/rules/0/apiGroups"], ["fill", "/rules/0/apiGroups/1", "apps"]]),
            Means(rule(&json!({ "apiGroups": ["", "apps"] }))),
        ),
        new(
            "core group in a line that was something else",
            json!([["fill", "/rules/0/apiGroups/0", "apps"], ["fill", "/rules/0/apiGroups/0", ""]]),
            Means(rule(&json!({}))),
        ),
        new(
            "all groups and resources",
            json!([["fill", "/rules/0/apiGroups/0", "*"], ["fill", "/rules/0/resources/0", "*"]]),
            Means(rule(&json!({ "apiGroups": ["*"], "resources": ["*"] }))),
        ),
        new(
            "verbs",
            json!([
                ["tick", "/rules/0/verbs", "watch"],
                ["tick", "/rules/0/verbs", "deletecollection"],
                ["untick", "/rules/0/verbs", "get"]
            ]),
            Means(rule(&json!({ "verbs": ["watch", "deletecollection"] }))),
        ),
        new(
            "names",
            json!([
                ["add", "/rules/0/resourceNames"],
                ["fill", "/rules/0/resourceNames/0", "one"],
                ["add", "/rules/0/resourceNames"],
                ["fill", "/rules/0/resourceNames/1", "system:two"]
            ]),
            Means(rule(&json!({ "resourceNames": ["one", "system:two"] }))),
        ),
        new(
            "two rules",
            json!([
                ["add", "/rules"],
                ["fill", "/rules/1/resources/0", "services"],
                ["tick", "/rules/1/verbs", "list"]
            ]),
            Means(json!({ "namespace": "default", "rules": [
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
                { "apiGroups": [""], "resources": ["services"], "verbs": ["get", "list"] },
            ] })),
        ),
        new(
            "mended after a refusal",
            json!([["fill", "/namespace", "Team_A"], ["save"], ["fill", "/namespace", "team-a"]]),
            Means(in_team_a(rule(&json!({})))),
        ),
    ]
}

/// Grants outside the home namespace, and grants beside rules on resources.
fn advanced() -> Vec<Row> {
    vec![
        new(
            "other namespaces",
            json!([
                ["choose", "/rules/0/namespaces", OTHER_NAMESPACES],
                ["add", "/rules/0/namespaces"],
                ["fill", "/rules/0/namespaces/0", "team-a"],
                ["add", "/rules/0/namespaces"],
                ["fill", "/rules/0/namespaces/1", "team-b"]
            ]),
            Means(rule(&json!({ "namespaces": ["team-a", "team-b"] }))),
        ),
        new(
            "whole cluster",
            json!([
                ["choose", "/rules/0/namespaces", OTHER_NAMESPACES],
                ["add", "/rules/0/namespaces"],
                ["fill", "/rules/0/namespaces/0", "*"]
            ]),
            Means(rule(&json!({ "namespaces": ["*"] }))),
        ),
        new(
            "back to the own namespace",
            json!([
                ["choose", "/rules/0/namespaces", OTHER_NAMESPACES],
                ["add", "/rules/0/namespaces"],
                ["fill", "/rules/0/namespaces/0", "team-a"],
                ["choose", "/rules/0/namespaces", "In the namespace above"]
            ]),
            Means(rule(&json!({}))),
        ),
        new(
            "URLs",
            json!([
                ["remove", "/rules/0/apiGroups/0"],
                ["remove", "/rules/0/resources/0"],
                ["add", "/rules/0/nonResourceURLs"],
                ["fill", "/rules/0/nonResourceURLs/0", "/metrics"],
                ["choose", "/rules/0/namespaces", OTHER_NAMESPACES],
                ["add", "/rules/0/namespaces"],
                ["fill", "/rules/0/namespaces/0", "*"]
            ]),
            Means(one_rule(&json!({ "nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"] }))),
        ),
        new(
            "a ClusterRole instead of rules",
            json!([["remove", "/rules/0"], ["add", "/cluster_roles"], ["fill", "/cluster_roles/0/name", "view"]]),
            Means(json!({ "namespace": "default", "cluster_roles": [{ "name": "view" }] })),
        ),
        new(
            "ClusterRoles beside a rule",
            json!([
                ["add", "/cluster_roles"],
                ["fill", "/cluster_roles/0/name", "view"],
                ["choose", "/cluster_roles/0/namespaces", OTHER_NAMESPACES],
                ["add", "/cluster_roles/0/namespaces"],
                ["fill", "/cluster_roles/0/namespaces/0", "team-a"],
                ["add", "/cluster_roles"],
                ["fill", "/cluster_roles/1/name", "system:discovery"]
            ]),
            Means({
                let mut params = rule(&json!({}));
                params["cluster_roles"] =
                    json!([{ "name": "view", "namespaces": ["team-a"] }, { "name": "system:discovery" }]);
                params
            }),
        ),
        new(
            "a limit and an accepted risk",
            json!([
                ["pick", "/guardrails/max_risk", "medium"],
                ["pick", "/guardrails/unknown_resources", "refuse"],
                ["add", "/guardrails/accept"],
                ["pick", "/guardrails/accept/0/code", "risk-r03"],
                ["pick", "/guardrails/accept/0/max_severity", "high"],
                ["fill", "/guardrails/accept/0/reason", "audit"],
                ["fill", "/guardrails/accept/0/until", "2099-03-31"],
                ["add", "/guardrails/accept/0/namespaces"],
                ["fill", "/guardrails/accept/0/namespaces/0", "team-a"]
            ]),
            Means({
                let mut params = rule(&json!({}));
                params["guardrails"] = guardrails(&json!({ "namespaces": ["team-a"] }));
                params["guardrails"]["unknown_resources"] = json!("refuse");
                params
            }),
        ),
        // The list stayed empty, so nothing changed.
        new(
            "other namespaces, and none listed",
            json!([["choose", "/rules/0/namespaces", OTHER_NAMESPACES]]),
            Means(rule(&json!({}))),
        ),
    ]
}

fn refused() -> Vec<Row> {
    let fill = |place: &str, text: &str| json!([["fill", place, text]]);
    let in_namespaces = |lines: &[&str]| {
        let mut does = vec![json!(["choose", "/rules/0/namespaces", OTHER_NAMESPACES])];
        for (index, line) in lines.iter().enumerate() {
            does.push(json!(["add", "/rules/0/namespaces"]));
            if !line.is_empty() {
                does.push(json!(["fill", format!("/rules/0/namespaces/{index}"), line]));
            }
        }
        Value::from(does)
    };
    let of_urls = |url: &str, namespace: &str| {
        json!([
            ["remove", "/rules/0/apiGroups/0"],
            ["remove", "/rules/0/resources/0"],
            ["add", "/rules/0/nonResourceURLs"],
            ["fill", "/rules/0/nonResourceURLs/0", url],
            ["choose", "/rules/0/namespaces", OTHER_NAMESPACES],
            ["add", "/rules/0/namespaces"],
            ["fill", "/rules/0/namespaces/0", namespace]
        ])
    };
    vec![
        new("namespace with a capital", fill("/namespace", "Team_A"), Refused(&["/namespace"])),
        new("namespace with a blank", fill("/namespace", "team a"), Refused(&["/namespace"])),
        new("namespace that is too long", fill("/namespace", &"n".repeat(64)), Refused(&["/namespace"])),
        new("no namespace", fill("/namespace", ""), Stopped(&["/namespace"])),
        new("no rule", json!([["remove", "/rules/0"]]), Refused(&["/rules"])),
        new("no verb", json!([["untick", "/rules/0/verbs", "get"]]), Refused(&["/rules/0/verbs"])),
        new("no group", json!([["remove", "/rules/0/apiGroups/0"]]), Refused(&["/rules/0/apiGroups"])),
        new("no resource", json!([["remove", "/rules/0/resources/0"]]), Refused(&["/rules/0/resources"])),
        new("group with a version", fill("/rules/0/apiGroups/0", "apps/v1"), Refused(&["/rules/0/apiGroups/0"])),
        new("resource by its kind", fill("/rules/0/resources/0", "Pod"), Refused(&["/rules/0/resources/0"])),
        new("resource left blank", fill("/rules/0/resources/0", ""), Stopped(&["/rules/0/resources/0"])),
        new("group twice", json!([["add", "/rules/0/apiGroups"]]), Refused(&["/rules/0/apiGroups"])),
        new(
            "resource twice",
            json!([["add", "/rules/0/resources"], ["fill", "/rules/0/resources/1", "pods"]]),
            Refused(&["/rules/0/resources"]),
        ),
        new("name left blank", json!([["add", "/rules/0/resourceNames"]]), Stopped(&["/rules/0/resourceNames/0"])),
        new(
            "other namespace taken out again",
            json!([
                ["choose", "/rules/0/namespaces", OTHER_NAMESPACES],
                ["add", "/rules/0/namespaces"],
                ["remove", "/rules/0/namespaces/0"]
            ]),
            Refused(&["/rules/0/namespaces"]),
        ),
        new("other namespace with a capital", in_namespaces(&["Team_A"]), Refused(&["/rules/0/namespaces/0"])),
        new("other namespace left blank", in_namespaces(&[""]), Stopped(&["/rules/0/namespaces/0"])),
        new("other namespace twice", in_namespaces(&["a", "a"]), Refused(&["/rules/0/namespaces"])),
        new("whole cluster and a namespace", in_namespaces(&["*", "team-a"]), Refused(&["/rules/0/namespaces"])),
        new(
            "URLs in an ordinary rule",
            json!([["add", "/rules/0/nonResourceURLs"], ["fill", "/rules/0/nonResourceURLs/0", "/metrics"]]),
            Refused(&["/rules/0/apiGroups", "/rules/0/namespaces", "/rules/0/resources"]),
        ),
        new("URL without a slash", of_urls("metrics", "*"), Refused(&["/rules/0/nonResourceURLs/0"])),
        new("URL in a namespace", of_urls("/metrics", "team-a"), Refused(&["/rules/0/namespaces/0"])),
        new("ClusterRole left blank", json!([["add", "/cluster_roles"]]), Stopped(&["/cluster_roles/0/name"])),
        new(
            "ClusterRole with a slash",
            json!([["add", "/cluster_roles"], ["fill", "/cluster_roles/0/name", "a/b"]]),
            Refused(&["/cluster_roles/0/name"]),
        ),
        new(
            "ClusterRole in no namespace",
            json!([
                ["add", "/cluster_roles"],
                ["fill", "/cluster_roles/0/name", "view"],
                ["choose", "/cluster_roles/0/namespaces", OTHER_NAMESPACES],
                ["add", "/cluster_roles/0/namespaces"],
                ["remove", "/cluster_roles/0/namespaces/0"]
            ]),
            Refused(&["/cluster_roles/0/namespaces"]),
        ),
        new(
            "accepted risk left blank",
            json!([["add", "/guardrails/accept"]]),
            Stopped(&[
                "/guardrails/accept/0/code",
                "/guardrails/accept/0/max_severity",
                "/guardrails/accept/0/reason",
                "/guardrails/accept/0/until",
            ]),
        ),
        new(
            "all at once",
            json!([
                ["fill", "/namespace", "Team_A"],
                ["fill", "/rules/0/resources/0", "Pod"],
                ["untick", "/rules/0/verbs", "get"]
            ]),
            Refused(&["/namespace", "/rules/0/resources/0", "/rules/0/verbs"]),
        ),
        new(PICTURED, json!([["preset", "Debugging"], ["fill", "/namespace", "Team_A"]]), Refused(&["/namespace"])),
    ]
}

fn opened_again() -> Vec<Row> {
    let same = |name, params: Value| saved(name, params.clone(), Means(params));
    let views = json!([{ "name": "view", "namespaces": ["*"] }, { "name": "view" }]);
    vec![
        same(
            "saved: everything of a rule",
            rule(&json!({
                "apiGroups": ["apps", ""], "resources": ["pods/log", "*/scale"], "resourceNames": ["a", "system:b"],
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
                "namespaces": ["team-a", "team-b"],
            })),
        ),
        same("saved: whole cluster", rule(&json!({ "namespaces": ["*"] }))),
        same("saved: namespaces not given", rule(&json!({ "namespaces": null }))),
        same("saved: ClusterRoles and no rules", json!({ "namespace": "default", "cluster_roles": views })),
        same("saved: ClusterRoles and no rule", json!({ "namespace": "default", "rules": [], "cluster_roles": views })),
        same(
            "saved: a rule on URLs",
            one_rule(&json!({
                "apiGroups": [], "resources": [], "nonResourceURLs": ["/metrics", "/apis/*"], "verbs": ["get"], "namespaces": ["*"],
            })),
        ),
        // The form adds the groups and resources of a new rule, and reports that they must be removed.
        saved(
            "saved: a rule on URLs as people write it",
            one_rule(&json!({
                "nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"],
            })),
            Refused(&["/rules/0/apiGroups", "/rules/0/resources"]),
        ),
        // The platform removes the field when it opens the form. The provisioner refused it before.
        saved("saved: a misspelt key", rule(&json!({ "resourcesNames": ["a"] })), Means(rule(&json!({})))),
        same("saved: a limit and an accepted risk", guarded(&json!({}))),
        saved("saved: no reason", guarded(&json!({ "reason": " " })), Refused(&["/guardrails/accept/0/reason"])),
        // A day that does not exist is an empty field in the form.
        saved(
            "saved: no such day",
            guarded(&json!({ "until": "2027-02-29" })),
            Stopped(&["/guardrails/accept/0/until"]),
        ),
        saved(
            "saved: risk accepted in a wrong namespace",
            guarded(&json!({ "namespaces": ["Team_A"] })),
            Refused(&["/guardrails/accept/0/namespaces/0"]),
        ),
        same(
            "saved: a preset of the original",
            rule(&json!({
                "apiGroups": ["*"], "resources": ["pods", "pods/log", "pods/portforward"], "verbs": ["get", "list", "create"],
            })),
        ),
        saved("saved: namespaces empty", rule(&json!({ "namespaces": [] })), Refused(&["/rules/0/namespaces"])),
        saved("saved: group null", rule(&json!({ "apiGroups": [null] })), Stopped(&["/rules/0/apiGroups/0"])),
        saved(
            "saved: ClusterRole twice",
            json!({
                "namespace": "default", "cluster_roles": [{ "name": "view" }, { "name": "view" }],
            }),
            Refused(&["/cluster_roles"]),
        ),
        saved(
            "saved: namespaces not a list",
            rule(&json!({ "namespaces": "team-a" })),
            Mistyped("/rules/0/namespaces"),
        ),
        saved("saved: namespace a number", json!({ "namespace": 5 }), Mistyped("/namespace")),
        saved("saved: rules null", json!({ "namespace": "default", "rules": null }), Mistyped("/rules")),
        saved("saved: rules an object", json!({ "namespace": "default", "rules": {} }), Mistyped("/rules")),
        saved("saved: verb *", rule(&json!({ "verbs": ["*"] })), Silent("/rules/0/verbs/0")),
        saved("saved: verb escalate", rule(&json!({ "verbs": ["get", "escalate"] })), Silent("/rules/0/verbs/1")),
        // If another row was submitted in the same page just before, the form's package evaluates one condition wrongly
        // once, and a new instance starts without a rule. The form reports it.
        Row {
            does: json!([["save"], ["another", {}]]),
            ..new("saved: another instance before", json!([]), Refused(&["/rules"]))
        },
    ]
}

/// All rows in one browser: its start takes longer than all rows.
fn outcomes() -> &'static BTreeMap<String, Outcome> {
    static OUTCOMES: OnceLock<BTreeMap<String, Outcome>> = OnceLock::new();
    OUTCOMES.get_or_init(|| {
        let cases: Vec<Value> = table()
            .into_iter()
            .map(|row| {
                let picture =
                    (row.name == PICTURED && std::env::var_os("UPDATE_PICTURE").is_some()).then(|| root(PICTURE));
                json!({ "name": row.name, "params": row.params, "does": row.does, "picture": picture })
            })
            .collect();
        browser::fill_in(&cases)
    })
}

fn control_plane() -> &'static ControlPlane {
    static READY: OnceLock<()> = OnceLock::new();
    let cp = ControlPlane::shared();
    READY.get_or_init(|| {
        for name in ["team-a", "team-b"] {
            cp.post("/api/v1/namespaces", &json!({ "metadata": { "name": name } }));
        }
    });
    cp
}

/// The plan for these params, as the provisioner reads them.
fn plan(params: &Value) -> Ran {
    let mut instance = Instance::new(control_plane().admin(), "default");
    let metadata = instance.params["md_metadata"].take();
    instance.params = params.clone();
    instance.params["md_metadata"] = metadata;
    instance.config = json!({ "namespace": params["namespace"] });
    instance.ask("plan", &[])
}

/// Every message of massdriver.yaml.
fn our_sentences() -> BTreeSet<String> {
    fn collect(schema: &Value, found: &mut BTreeSet<String>) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key == "message" && value.is_object() {
                found.extend(value.as_object().unwrap().values().filter_map(Value::as_str).map(str::to_owned));
            }
            collect(value, found);
        }
        schema.as_array().into_iter().flatten().for_each(|item| collect(item, found));
    }
    let bundle: Value = serde_saphyr::from_str(&fs::read_to_string(root("massdriver.yaml")).unwrap()).unwrap();
    let mut found = BTreeSet::new();
    collect(&bundle["params"], &mut found);
    found
}

/// The locations and messages of the provisioner's findings. For a missing field that is the parent object; in a form
/// the field exists, and is empty.
fn mistakes(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().expect("findings").iter();
    findings
        .filter(|finding| finding["blocking"] == true)
        .map(|finding| {
            let missing = text(&finding["message"])
                .split_once("the field `")
                .and_then(|(_, rest)| rest.split_once("` is missing").map(|(field, _)| format!("/{field}")));
            (text(&finding["pointer"]) + &missing.unwrap_or_default(), text(&finding["help"]))
        })
        .collect()
}

/// The differences of form and provisioner from the row.
fn disagreements(row: &Row, outcome: &Outcome, ran: &Ran) -> Vec<String> {
    let wrong = RefCell::new(Vec::new());
    let expect = |holds: bool, what: String| {
        if !holds {
            wrong.borrow_mut().push(format!("{}: {what}", row.name));
        }
    };
    let document = ran.document();
    let found = mistakes(&document);
    let ours = our_sentences();
    // The condition of a rule: it is reported above the lists that violate it.
    let of_condition = "A rule is either on resources in API groups, or on URLs of the whole cluster.";
    let told: Vec<_> = outcome.complaints.iter().filter(|complaint| complaint.text != of_condition).collect();
    let accepted = !outcome.submitted.is_null();

    expect(accepted == (ran.code == 0), format!("accepted by the form: {accepted}; exit code {}", ran.code));
    expect(accepted || ran.code == 65, format!("exit code {}", ran.code));
    expect(!accepted || outcome.submitted == outcome.data, format!("submitted something else: {}", outcome.submitted));
    for complaint in &outcome.complaints {
        expect(complaint.beside, format!("not beside its field: {complaint:?}"));
    }
    // A location or message that only one of them reports would not help the user.
    let told_at = |places: &[&str], shown: BTreeSet<&str>| {
        expect(shown == places.iter().copied().collect(), format!("the form complains at {shown:?}, not {places:?}"));
        for place in places {
            expect(
                found.iter().any(|(at, _)| at == place),
                format!("the provisioner finds nothing at {place}: {found:?}"),
            );
        }
        for (at, _) in &found {
            let known = places.iter().any(|place| place == at || place.starts_with(&format!("{at}/")));
            expect(known, format!("only the provisioner finds a mistake at {at}"));
        }
    };
    match &row.expect {
        Means(by_hand) => {
            expect(accepted, format!("refused: {:?} {:?} {found:?}", outcome.complaints, outcome.stopped));
            let by_hand = plan(by_hand).document();
            for key in ["permissions", "changes", "findings", "outcome"] {
                expect(document[key] == by_hand[key], format!("other {key} than by hand: {}", outcome.data));
            }
        }
        Refused(places) => {
            told_at(places, told.iter().map(|complaint| complaint.pointer.as_str()).collect());
            for complaint in told {
                expect(ours.contains(&complaint.text), format!("not our sentence: {complaint:?}"));
                let same = found.contains(&(complaint.pointer.clone(), complaint.text.clone()));
                expect(same, format!("the provisioner says something else than {complaint:?}: {found:?}"));
            }
        }
        Stopped(places) => {
            told_at(places, outcome.stopped.iter().map(|complaint| complaint.pointer.as_str()).collect());
        }
        Mistyped(place) => told_at(&[place], told.iter().map(|complaint| complaint.pointer.as_str()).collect()),
        Silent(place) => {
            expect(told.is_empty(), format!("not silent any more: {told:?}"));
            expect(found.iter().any(|(at, help)| at == place && ours.contains(help)), format!("{found:?}"));
        }
    }
    wrong.into_inner()
}

#[track_caller]
fn expect_agreement(rows: &[Row]) {
    let wrong: Vec<String> = rows
        .iter()
        .flat_map(|row| {
            let outcome = &outcomes()[row.name];
            disagreements(row, outcome, &plan(&outcome.data))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn presets_work() {
    expect_agreement(&presets());
}

#[test]
fn form_input_becomes_the_same_grants() {
    expect_agreement(&filled_in());
    expect_agreement(&advanced());
}

#[test]
fn form_and_provisioner_report_the_same_mistakes() {
    expect_agreement(&refused());
}

#[test]
fn form_and_provisioner_agree_on_saved_params() {
    expect_agreement(&opened_again());
}

#[test]
fn documents_contain_a_picture_of_the_form() {
    assert!(outcomes().contains_key(PICTURED), "the picture is taken while the table runs");
    let picture = fs::read(root(PICTURE)).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < 200 << 10, "{} bytes", picture.len());
    let page = fs::read_to_string(root("docs/massdriver.md")).unwrap();
    assert!(page.contains(&format!("]({})", PICTURE.trim_start_matches("docs/"))));
}
