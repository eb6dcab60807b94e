//! The params: what the form accepts, what it refuses and where, and that it speaks to people.

use rstest::rstest;
use serde_json::{Value, json};

use crate::{bundle, json_file, validator};

/// Params with one rule that is sound but for `changes`, a merge of members; null removes one.
fn with_rule(changes: &Value) -> Value {
    let mut rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] });
    merge(&mut rule, changes);
    json!({ "namespace": "default", "rules": [rule] })
}

fn merge(target: &mut Value, changes: &Value) {
    let target = target.as_object_mut().expect("an object");
    for (key, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            target.remove(key);
        } else {
            target.insert(key.clone(), value.clone());
        }
    }
}

/// Every violation as (JSON pointer, keyword).
fn violations(params: &Value) -> Vec<(String, String)> {
    validator(&json_file("schema-params.json"))
        .iter_errors(params)
        .map(|error| (error.instance_path().to_string(), error.kind().keyword().to_owned()))
        .collect()
}

#[rstest]
#[case::core_group(with_rule(&json!({})))]
#[case::all_groups(with_rule(&json!({ "apiGroups": ["*"], "resources": ["*"] })))]
#[case::core_and_dotted_groups(with_rule(&json!({ "apiGroups": ["", "apps", "networking.k8s.io", "cert-manager.io"] })))]
#[case::group_of_digits(with_rule(&json!({ "apiGroups": ["3scale.net"] })))]
#[case::subresources(with_rule(&json!({ "resources": ["pods/log", "deployments/scale", "*/scale"] })))]
#[case::names_of_metrics(with_rule(&json!({ "apiGroups": ["custom.metrics.k8s.io"], "resources": ["pods/http_requests"] })))]
#[case::dead_but_judged_later(with_rule(&json!({ "resources": ["pods/*", "*/*", "deployments.apps", "pod"] })))]
#[case::all_verbs(with_rule(&json!({ "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] })))]
#[case::names(with_rule(&json!({ "resourceNames": ["a", "kube-root-ca.crt", "system:a:b", "Any Name"] })))]
#[case::no_names_as_a_form_sends_it(with_rule(&json!({ "resourceNames": [] })))]
#[case::longest_namespace(json!({ "namespace": "n".repeat(63), "rules": with_rule(&json!({}))["rules"] }))]
#[case::namespace_of_one_digit(json!({ "namespace": "1", "rules": with_rule(&json!({}))["rules"] }))]
#[case::what_the_platform_adds(json!({
    "namespace": "default", "rules": with_rule(&json!({}))["rules"], "md_metadata": { "name_prefix": "a" }, "later": 1
}))]
#[case::what_the_original_called_debugging(with_rule(&json!({
    "apiGroups": ["*"], "resources": ["pods", "pods/log", "pods/portforward"], "verbs": ["get", "list", "create"]
})))]
fn sound_params_are_accepted(#[case] params: Value) {
    assert_eq!(violations(&params), vec![]);
}

#[rstest]
#[case::no_namespace(json!({ "rules": [] }), &[("", "required"), ("/rules", "minItems")])]
#[case::no_rules(json!({ "namespace": "default" }), &[("", "required")])]
#[case::rules_not_a_list(json!({ "namespace": "default", "rules": {} }), &[("/rules", "type")])]
#[case::namespace_empty(namespace(""), &[("/namespace", "minLength"), ("/namespace", "pattern")])]
#[case::namespace_too_long(namespace(&"n".repeat(64)), &[("/namespace", "maxLength")])]
#[case::namespace_capital(namespace("Team"), &[("/namespace", "pattern")])]
#[case::namespace_underscore(namespace("team_a"), &[("/namespace", "pattern")])]
#[case::namespace_dot(namespace("team.a"), &[("/namespace", "pattern")])]
#[case::namespace_starts_with_hyphen(namespace("-team"), &[("/namespace", "pattern")])]
#[case::namespace_ends_with_hyphen(namespace("team-"), &[("/namespace", "pattern")])]
#[case::namespace_with_line_break(namespace("team\n"), &[("/namespace", "pattern")])]
#[case::namespace_number(json!({ "namespace": 5, "rules": with_rule(&json!({}))["rules"] }), &[("/namespace", "type")])]
#[case::rule_without_groups(with_rule(&json!({ "apiGroups": null })), &[("/rules/0", "required")])]
#[case::rule_without_resources(with_rule(&json!({ "resources": null })), &[("/rules/0", "required")])]
#[case::rule_without_verbs(with_rule(&json!({ "verbs": null })), &[("/rules/0", "required")])]
#[case::misspelt_key_that_would_widen(with_rule(&json!({ "resourcesNames": ["a"] })), &[("/rules/0", "additionalProperties")])]
#[case::empty_groups(with_rule(&json!({ "apiGroups": [] })), &[("/rules/0/apiGroups", "minItems")])]
#[case::empty_resources(with_rule(&json!({ "resources": [] })), &[("/rules/0/resources", "minItems")])]
#[case::empty_verbs(with_rule(&json!({ "verbs": [] })), &[("/rules/0/verbs", "minItems")])]
#[case::group_with_version(with_rule(&json!({ "apiGroups": ["apps/v1"] })), &[("/rules/0/apiGroups/0", "pattern")])]
#[case::group_with_capital(with_rule(&json!({ "apiGroups": ["", "Apps"] })), &[("/rules/0/apiGroups/1", "pattern")])]
#[case::group_with_blank(with_rule(&json!({ "apiGroups": ["apps "] })), &[("/rules/0/apiGroups/0", "pattern")])]
#[case::group_with_wildcard_inside(with_rule(&json!({ "apiGroups": ["*.k8s.io"] })), &[("/rules/0/apiGroups/0", "pattern")])]
#[case::group_twice(with_rule(&json!({ "apiGroups": ["", ""] })), &[("/rules/0/apiGroups", "uniqueItems")])]
#[case::group_null(with_rule(&json!({ "apiGroups": [null] })), &[("/rules/0/apiGroups/0", "not")])]
#[case::group_number(with_rule(&json!({ "apiGroups": [1] })), &[("/rules/0/apiGroups/0", "type")])]
#[case::group_not_in_a_list(with_rule(&json!({ "apiGroups": "apps" })), &[("/rules/0/apiGroups", "type")])]
#[case::resource_kind(with_rule(&json!({ "resources": ["Pod"] })), &[("/rules/0/resources/0", "pattern")])]
#[case::resource_empty(with_rule(&json!({ "resources": [""] })), &[("/rules/0/resources/0", "pattern")])]
#[case::resource_with_blank(with_rule(&json!({ "resources": [" pods"] })), &[("/rules/0/resources/0", "pattern")])]
#[case::resource_with_two_slashes(with_rule(&json!({ "resources": ["apps/deployments/scale"] })), &[("/rules/0/resources/0", "pattern")])]
#[case::resource_open_slash(with_rule(&json!({ "resources": ["pods/"] })), &[("/rules/0/resources/0", "pattern")])]
#[case::resource_partial_wildcard(with_rule(&json!({ "resources": ["pod*"] })), &[("/rules/0/resources/0", "pattern")])]
#[case::name_empty(with_rule(&json!({ "resourceNames": [""] })), &[("/rules/0/resourceNames/0", "minLength")])]
#[case::name_twice(with_rule(&json!({ "resourceNames": ["a", "a"] })), &[("/rules/0/resourceNames", "uniqueItems")])]
#[case::verb_wildcard(with_rule(&json!({ "verbs": ["*"] })), &[("/rules/0/verbs/0", "enum")])]
#[case::verb_escalate(with_rule(&json!({ "verbs": ["get", "escalate"] })), &[("/rules/0/verbs/1", "enum")])]
#[case::verb_capital(with_rule(&json!({ "verbs": ["GET"] })), &[("/rules/0/verbs/0", "enum")])]
#[case::all_at_once(
    with_rule(&json!({ "apiGroups": ["apps/v1"], "resources": ["Pod"], "verbs": ["*"] })),
    &[("/rules/0/apiGroups/0", "pattern"), ("/rules/0/resources/0", "pattern"), ("/rules/0/verbs/0", "enum")]
)]
fn bad_params_are_refused_where_they_are_bad(#[case] params: Value, #[case] expected: &[(&str, &str)]) {
    let mut found = violations(&params);
    found.sort();
    let expected: Vec<_> = expected.iter().map(|(at, keyword)| ((*at).to_owned(), (*keyword).to_owned())).collect();
    assert_eq!(found, expected, "{params}");
}

fn namespace(namespace: &str) -> Value {
    json!({ "namespace": namespace, "rules": with_rule(&json!({}))["rules"] })
}

fn presets() -> Vec<(String, Value)> {
    let bundle = bundle();
    let examples = bundle.block("params")["examples"].as_array().expect("presets");
    examples
        .iter()
        .map(|example| {
            let mut params = example.clone();
            merge(&mut params, &json!({ "__name": null, "namespace": "default" }));
            (example["__name"].as_str().expect("a name").to_owned(), params)
        })
        .collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn presets_have_the_names_of_the_original_and_are_accepted() {
    let presets = presets();
    let names: Vec<_> = presets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Admin", "Read-only", "Debugging"]);
    for (name, params) in &presets {
        assert_eq!(violations(params), vec![], "{name}");
    }
}

#[test]
fn presets_but_admin_reveal_no_secret_and_change_nothing() {
    for (name, params) in presets().into_iter().skip(1) {
        for rule in params["rules"].as_array().expect("rules") {
            let resources = texts(&rule["resources"]);
            assert!(!texts(&rule["apiGroups"]).contains(&"*"), "{name}: {rule}");
            assert!(
                !resources.iter().any(|resource| ["*", "secrets", "pods/exec"].contains(resource)),
                "{name}: {rule}"
            );
            let harmless = |verb: &&str| ["get", "list", "watch"].contains(verb) || resources == ["pods/portforward"];
            assert!(texts(&rule["verbs"]).iter().all(harmless), "{name}: {rule}");
        }
    }
}

/// A subresource is never listed or watched, so a rule for both kinds would be partly dead.
#[test]
fn presets_grant_subresources_only_the_verbs_they_have() {
    for (name, params) in presets() {
        for rule in params["rules"].as_array().expect("rules") {
            let resources = texts(&rule["resources"]);
            if resources.iter().any(|resource| resource.contains('/')) {
                let expected: &[&str] = match resources[..] {
                    ["pods/log"] => &["get"],
                    ["pods/portforward"] => &["get", "create"],
                    _ => panic!("{name}: verbs of {resources:?} are not known to this test"),
                };
                assert_eq!(texts(&rule["verbs"]), expected, "{name}");
            }
        }
    }
}

/// Calls `visit` with the path and each schema of a param, of a member, of an item.
fn each_schema(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        visit(&path, property);
        each_schema(&path, property, visit);
    }
    if let Some(items) = schema.get("items") {
        let path = format!("{path}/-");
        visit(&path, items);
        each_schema(&path, items, visit);
    }
}

#[test]
fn every_field_of_the_form_has_a_title_and_a_description() {
    let mut fields = 0;
    each_schema("", bundle().block("params"), &mut |path, schema| {
        fields += 1;
        for key in ["title", "description"] {
            assert!(schema[key].as_str().is_some_and(|text| !text.is_empty()), "{path} has no {key}");
        }
    });
    assert_eq!(fields, 11);
}

/// A regular expression is no explanation. A message for a keyword that is not there would never be shown.
#[test]
fn every_pattern_has_a_message_and_every_message_a_keyword() {
    each_schema("", bundle().block("params"), &mut |path, schema| {
        if schema.get("pattern").is_some() {
            assert!(schema["message"]["pattern"].is_string(), "{path} has a pattern without message");
        }
        for keyword in schema["message"].as_object().into_iter().flatten().map(|(keyword, _)| keyword) {
            assert!(schema.get(keyword).is_some(), "{path} has a message for {keyword}, which it does not use");
        }
    });
}

#[test]
fn defaults_of_the_form_are_legal_values() {
    each_schema("", bundle().block("params"), &mut |path, schema| {
        if let Some(default) = schema.get("default") {
            assert!(validator(schema).is_valid(default), "{path}: {default}");
        }
    });
}

#[test]
fn namespace_cannot_change_after_the_first_deployment_and_defaults_to_default() {
    let bundle = bundle();
    let namespace = &bundle.block("params")["properties"]["namespace"];
    assert_eq!(namespace["$md.immutable"], true);
    assert_eq!(namespace["default"], "default");
    assert_eq!(bundle.block("params")["required"], json!(["namespace", "rules"]));
}

/// A form drops what nobody typed, unless told that the empty text is a value, and a browser does not send a list
/// with an empty text in it, unless null is allowed too (react-jsonschema-form, `isItemRequired`).
#[test]
fn a_form_can_submit_the_core_group() {
    let bundle = bundle();
    let groups = &bundle.block("ui")["rules"]["items"]["apiGroups"];
    assert_eq!(groups["items"]["ui:emptyValue"], "");
    let items = &bundle.block("params")["properties"]["rules"]["items"]["properties"]["apiGroups"]["items"];
    assert_eq!(items["default"], "");
    assert_eq!(items["type"], json!(["string", "null"]));
    assert!(validator(items).is_valid(&json!("")));
    assert!(!validator(items).is_valid(&json!(null)));
}

/// The UI schema has the shape of the params: below an array comes `items`, below an object its members.
#[test]
fn every_key_of_the_ui_reaches_a_field() {
    fn check(path: &str, ui: &Value, schema: &Value) {
        for (key, below) in ui.as_object().into_iter().flatten() {
            let path = format!("{path}/{key}");
            if key == "ui:order" {
                for name in texts(below).into_iter().filter(|name| *name != "*") {
                    assert!(schema["properties"].get(name).is_some(), "{path} names {name}");
                }
            } else if !key.starts_with("ui:") {
                let reached = if schema["type"] == "array" { schema.get(key) } else { schema["properties"].get(key) };
                check(&path, below, reached.unwrap_or_else(|| panic!("{path} reaches no field")));
            }
        }
    }
    let bundle = bundle();
    check("", bundle.block("ui"), bundle.block("params"));
}
