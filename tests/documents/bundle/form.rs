//! The params of massdriver.yaml: the values that the form accepts and refuses, and the texts that it shows.

use rstest::rstest;
use serde_json::{Value, json};

use super::{bundle, json_file, validator};

/// Valid params with one rule, and `changes` merged into it; null removes a field.
fn with_rule(changes: &Value) -> Value {
    let mut rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] });
    merge(&mut rule, changes);
    one_rule(&rule)
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

/// The same for a rule on URLs.
fn with_urls(changes: &Value) -> Value {
    let mut rule = json!({ "nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"] });
    merge(&mut rule, changes);
    one_rule(&rule)
}

fn one_rule(rule: &Value) -> Value {
    json!({ "namespace": "default", "rules": [rule] })
}

/// Valid params with one ClusterRole and no rule, and `changes` merged into it.
fn with_cluster_role(changes: &Value) -> Value {
    let mut role = json!({ "name": "view" });
    merge(&mut role, changes);
    json!({ "namespace": "default", "cluster_roles": [role] })
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
#[case::matching_nothing(with_rule(&json!({ "resources": ["pods/*", "*/*", "deployments.apps", "pod"] })))]
#[case::external_metric(with_rule(&json!({ "apiGroups": ["external.metrics.k8s.io"], "resources": ["datadogmetric@shop:queue", "s1-kafka-topicName", "AWS_SQS_Messages", "a|b=c", "über", "-"] })))]
#[case::virtual_resource(with_rule(&json!({ "resources": ["userextras/acme.com%2fproject", "users/Alice"] })))]
#[case::all_verbs(with_rule(&json!({ "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] })))]
#[case::names(with_rule(&json!({ "resourceNames": ["a", "kube-root-ca.crt", "system:a:b", "Any Name"] })))]
#[case::no_names_as_a_form_sends_it(with_rule(&json!({ "resourceNames": [] })))]
#[case::elsewhere(with_rule(&json!({ "namespaces": ["team-a", "1", "default"] })))]
#[case::longest_namespace_elsewhere(with_rule(&json!({ "namespaces": ["n".repeat(63)] })))]
#[case::everywhere(with_rule(&json!({ "namespaces": ["*"] })))]
#[case::urls(with_urls(&json!({ "nonResourceURLs": ["/metrics", "/apis/*", "/", "/*", "*", "/a-b_c.d~e:1/%20"] })))]
#[case::urls_as_a_form_sends_them(with_urls(&json!({ "apiGroups": [], "resources": [], "resourceNames": [] })))]
#[case::urls_with_all_verbs(with_urls(&json!({ "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] })))]
#[case::no_urls_as_a_form_sends_it(with_rule(&json!({ "nonResourceURLs": [] })))]
#[case::cluster_role(with_cluster_role(&json!({})))]
#[case::cluster_role_of_the_system(with_cluster_role(&json!({ "name": "system:aggregate-to-view" })))]
#[case::cluster_role_by_any_legal_name(with_cluster_role(&json!({ "name": "A b?#\u{e9}" })))]
#[case::cluster_role_of_dots(with_cluster_role(&json!({ "name": "..." })))]
#[case::cluster_role_that_starts_with_a_dot(with_cluster_role(&json!({ "name": ".a" })))]
#[case::cluster_role_with_two_dots(with_cluster_role(&json!({ "name": "..a" })))]
#[case::cluster_role_with_the_longest_name(with_cluster_role(&json!({ "name": "n".repeat(253) })))]
#[case::cluster_role_elsewhere(with_cluster_role(&json!({ "namespaces": ["a", "b"] })))]
#[case::cluster_role_everywhere(with_cluster_role(&json!({ "namespaces": ["*"] })))]
#[case::one_cluster_role_in_two_entries(json!({
    "namespace": "default", "cluster_roles": [{ "name": "view", "namespaces": ["a"] }, { "name": "view" }]
}))]
#[case::cluster_role_and_no_rules_as_a_form_sends_them(json!({
    "namespace": "default", "rules": [], "cluster_roles": [{ "name": "view", "namespaces": null }]
}))]
#[case::cluster_role_beside_rules(json!({
    "namespace": "default", "rules": with_rule(&json!({}))["rules"], "cluster_roles": [{ "name": "view" }]
}))]
#[case::empty_values_of_a_form(json!({
    "namespace": "default", "cluster_roles": [], "rules": [{
        "apiGroups": [""], "resources": ["pods"], "verbs": ["get"],
        "resourceNames": [], "namespaces": null, "nonResourceURLs": []
    }]
}))]
#[case::longest_namespace(json!({ "namespace": "n".repeat(63), "rules": with_rule(&json!({}))["rules"] }))]
#[case::namespace_of_one_digit(json!({ "namespace": "1", "rules": with_rule(&json!({}))["rules"] }))]
#[case::fields_of_the_platform(json!({
    "namespace": "default", "rules": with_rule(&json!({}))["rules"], "md_metadata": { "name_prefix": "a" }, "later": 1
}))]
#[case::debugging_preset_of_version_1(with_rule(&json!({
    "apiGroups": ["*"], "resources": ["pods", "pods/log", "pods/portforward"], "verbs": ["get", "list", "create"]
})))]
fn valid_params_are_accepted(#[case] params: Value) {
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
#[case::group_null(with_rule(&json!({ "apiGroups": [null] })), &[("/rules/0/apiGroups/0", "type")])]
#[case::group_number(with_rule(&json!({ "apiGroups": [1] })), &[("/rules/0/apiGroups/0", "type")])]
#[case::group_not_in_a_list(with_rule(&json!({ "apiGroups": "apps" })), &[("/rules/0/apiGroups", "type")])]
#[case::resource_kind(with_rule(&json!({ "resources": ["Pod"] })), &[("/rules/0/resources/0", "pattern")])]
#[case::resource_kind_with_a_subresource(with_rule(&json!({ "resources": ["Pod/log"] })), &[("/rules/0/resources/0", "pattern")])]
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
#[case::namespaces_empty(with_rule(&json!({ "namespaces": [] })), &[("/rules/0/namespaces", "minItems")])]
#[case::namespaces_twice(with_rule(&json!({ "namespaces": ["a", "a"] })), &[("/rules/0/namespaces", "uniqueItems")])]
#[case::namespaces_not_in_a_list(with_rule(&json!({ "namespaces": "*" })), &[("/rules/0/namespaces", "anyOf")])]
#[case::namespaces_number(with_rule(&json!({ "namespaces": [1] })), &[("/rules/0/namespaces", "anyOf"), ("/rules/0/namespaces/0", "type")])]
#[case::namespaces_blank_line(with_rule(&json!({ "namespaces": [null] })), &[("/rules/0/namespaces", "anyOf"), ("/rules/0/namespaces/0", "type")])]
#[case::namespaces_name_empty(with_rule(&json!({ "namespaces": [""] })), &[("/rules/0/namespaces/0", "pattern")])]
#[case::namespaces_capital(with_rule(&json!({ "namespaces": ["a", "Team_A"] })), &[("/rules/0/namespaces/1", "pattern")])]
#[case::namespaces_prefix(with_rule(&json!({ "namespaces": ["team-*"] })), &[("/rules/0/namespaces/0", "pattern")])]
#[case::namespaces_line_break(with_rule(&json!({ "namespaces": ["*\n"] })), &[("/rules/0/namespaces/0", "pattern")])]
#[case::namespaces_too_long(with_rule(&json!({ "namespaces": ["n".repeat(64)] })), &[("/rules/0/namespaces/0", "maxLength")])]
#[case::everywhere_and_somewhere(with_rule(&json!({ "namespaces": ["*", "a"] })), &[("/rules/0/namespaces", "not")])]
#[case::somewhere_and_everywhere(with_rule(&json!({ "namespaces": ["a", "*"] })), &[("/rules/0/namespaces", "not")])]
#[case::everywhere_twice(with_rule(&json!({ "namespaces": ["*", "*"] })), &[("/rules/0/namespaces", "not"), ("/rules/0/namespaces", "uniqueItems")])]
#[case::urls_null(one_rule(&json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "nonResourceURLs": null })), &[("/rules/0/nonResourceURLs", "type")])]
#[case::urls_not_in_a_list(with_rule(&json!({ "nonResourceURLs": "/x" })), &[("/rules/0/nonResourceURLs", "type")])]
#[case::urls_in_an_ordinary_rule(with_rule(&json!({ "nonResourceURLs": ["/x"] })),
    &[("/rules/0", "required"), ("/rules/0/apiGroups", "maxItems"), ("/rules/0/resources", "maxItems")])]
#[case::urls_with_groups(with_urls(&json!({ "apiGroups": [""] })), &[("/rules/0/apiGroups", "maxItems")])]
#[case::urls_with_resources(with_urls(&json!({ "resources": ["pods"] })), &[("/rules/0/resources", "maxItems")])]
#[case::urls_with_names(with_urls(&json!({ "resourceNames": ["a"] })), &[("/rules/0/resourceNames", "maxItems")])]
#[case::urls_without_namespaces(with_urls(&json!({ "namespaces": null })), &[("/rules/0", "required")])]
#[case::urls_with_namespaces_not_given(one_rule(&json!({ "nonResourceURLs": ["/x"], "verbs": ["get"], "namespaces": null })), &[("/rules/0/namespaces", "not")])]
#[case::urls_in_no_namespace(with_urls(&json!({ "namespaces": [] })), &[("/rules/0/namespaces", "minItems")])]
#[case::urls_in_a_namespace(with_urls(&json!({ "namespaces": ["a"] })), &[("/rules/0/namespaces/0", "const")])]
#[case::urls_also_in_a_namespace(with_urls(&json!({ "namespaces": ["*", "a"] })), &[("/rules/0/namespaces", "not"), ("/rules/0/namespaces/1", "const")])]
#[case::urls_without_verbs(with_urls(&json!({ "verbs": null })), &[("/rules/0", "required")])]
#[case::urls_with_a_verb_of_http(with_urls(&json!({ "verbs": ["get", "post"] })), &[("/rules/0/verbs/1", "enum")])]
#[case::urls_twice(with_urls(&json!({ "nonResourceURLs": ["/a", "/a"] })), &[("/rules/0/nonResourceURLs", "uniqueItems")])]
#[case::url_empty(with_urls(&json!({ "nonResourceURLs": [""] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_without_slash(with_urls(&json!({ "nonResourceURLs": ["metrics"] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_with_host(with_urls(&json!({ "nonResourceURLs": ["https://a/metrics"] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_with_wildcard_inside(with_urls(&json!({ "nonResourceURLs": ["/a/*/b"] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_with_two_wildcards(with_urls(&json!({ "nonResourceURLs": ["/**"] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_with_query(with_urls(&json!({ "nonResourceURLs": ["/metrics?a=b"] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_with_blank(with_urls(&json!({ "nonResourceURLs": ["/metrics "] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::url_with_line_break(with_urls(&json!({ "nonResourceURLs": ["*\n"] })), &[("/rules/0/nonResourceURLs/0", "pattern")])]
#[case::no_urls_and_no_groups(with_rule(&json!({ "nonResourceURLs": [], "apiGroups": null })), &[("/rules/0", "required")])]
#[case::no_urls_and_no_resources(with_rule(&json!({ "nonResourceURLs": [], "resources": [] })), &[("/rules/0/resources", "minItems")])]
#[case::neither_rules_nor_cluster_roles(json!({ "namespace": "default", "rules": [], "cluster_roles": [] }), &[("/rules", "minItems")])]
#[case::no_cluster_roles_and_no_rules(json!({ "namespace": "default", "cluster_roles": [] }), &[("", "required")])]
#[case::rules_null_beside_a_cluster_role(json!({ "namespace": "default", "rules": null, "cluster_roles": [{ "name": "view" }] }), &[("/rules", "type")])]
#[case::cluster_roles_not_a_list(json!({ "namespace": "default", "cluster_roles": {} }), &[("", "required"), ("/cluster_roles", "type")])]
#[case::cluster_role_twice(json!({ "namespace": "default", "cluster_roles": [{ "name": "a" }, { "name": "a" }] }), &[("/cluster_roles", "uniqueItems")])]
#[case::cluster_role_by_its_name_only(json!({ "namespace": "default", "cluster_roles": ["view"] }), &[("/cluster_roles/0", "type")])]
#[case::cluster_role_without_name(with_cluster_role(&json!({ "name": null })), &[("/cluster_roles/0", "required")])]
#[case::cluster_role_with_more(with_cluster_role(&json!({ "namespace": "a" })), &[("/cluster_roles/0", "additionalProperties")])]
#[case::cluster_role_empty(with_cluster_role(&json!({ "name": "" })), &[("/cluster_roles/0/name", "minLength"), ("/cluster_roles/0/name", "pattern")])]
#[case::cluster_role_dot(with_cluster_role(&json!({ "name": "." })), &[("/cluster_roles/0/name", "pattern")])]
#[case::cluster_role_dots(with_cluster_role(&json!({ "name": ".." })), &[("/cluster_roles/0/name", "pattern")])]
#[case::cluster_role_slash(with_cluster_role(&json!({ "name": "a/b" })), &[("/cluster_roles/0/name", "pattern")])]
#[case::cluster_role_percent(with_cluster_role(&json!({ "name": "a%2f" })), &[("/cluster_roles/0/name", "pattern")])]
#[case::cluster_role_too_long(with_cluster_role(&json!({ "name": "n".repeat(254) })), &[("/cluster_roles/0/name", "maxLength")])]
#[case::cluster_role_nowhere(with_cluster_role(&json!({ "namespaces": [] })), &[("/cluster_roles/0/namespaces", "minItems")])]
#[case::cluster_role_everywhere_and_somewhere(with_cluster_role(&json!({ "namespaces": ["*", "a"] })), &[("/cluster_roles/0/namespaces", "not")])]
#[case::all_at_once(
    with_rule(&json!({ "apiGroups": ["apps/v1"], "resources": ["Pod"], "verbs": ["*"] })),
    &[("/rules/0/apiGroups/0", "pattern"), ("/rules/0/resources/0", "pattern"), ("/rules/0/verbs/0", "enum")]
)]
fn invalid_params_are_located(#[case] params: Value, #[case] expected: &[(&str, &str)]) {
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
fn presets_keep_their_names_and_are_valid() {
    let presets = presets();
    let names: Vec<_> = presets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Admin", "Read-only", "Debugging"]);
    for (name, params) in &presets {
        assert_eq!(violations(params), vec![], "{name}");
    }
}

#[test]
fn presets_except_admin_are_read_only_without_secrets() {
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

/// A subresource is never listed or watched: such verbs in its rule would match nothing.
#[test]
fn presets_grant_subresources_only_verbs_they_support() {
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

/// Calls `visit` with the path and each schema below this one: of a property, an item, an alternative, a condition.
fn each_schema(place: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    let members = schema["properties"].as_object().into_iter().flatten();
    let alternatives = schema["anyOf"].as_array().into_iter().flatten().enumerate();
    let below = members
        .map(|(name, member)| (format!("{place}/{name}"), member))
        .chain(alternatives.map(|(index, alternative)| (format!("{place}/anyOf/{index}"), alternative)))
        .chain(
            ["items", "then", "else"].into_iter().filter_map(|key| Some((format!("{place}/{key}"), schema.get(key)?))),
        );
    for (place, schema) in below {
        visit(&place, schema);
        each_schema(&place, schema, visit);
    }
}

#[test]
fn every_form_field_has_title_and_description() {
    let mut fields = 0;
    each_schema("", bundle().block("params"), &mut |place, schema| {
        // A condition changes fields that are declared elsewhere, and an alternative is only a line in a menu.
        if place.contains("/then") || place.contains("/else") {
            return;
        }
        let alternative = place.rsplit('/').nth(1) == Some("anyOf");
        fields += usize::from(!alternative);
        for key in if alternative { ["title", "title"] } else { ["title", "description"] } {
            assert!(schema[key].as_str().is_some_and(|text| !text.is_empty()), "{place} has no {key}");
        }
    });
    assert_eq!(fields, 33);
}

/// Advanced fields are last, and their titles say so.
#[test]
fn advanced_fields_are_labelled_and_come_last() {
    let bundle = bundle();
    let (params, ui) = (bundle.block("params"), bundle.block("ui"));
    let rule = (&params["properties"]["rules"]["items"], &ui["rules"]["items"]);
    for ((schema, ui), advanced) in [((params, ui), 2), (rule, 2)] {
        let order = texts(&ui["ui:order"]);
        let (simple, last) = order.split_at(order.len() - advanced);
        let title = |name: &&str| schema["properties"][*name]["title"].as_str().unwrap_or_default().to_owned();
        assert!(last.iter().all(|name| title(name).ends_with("(advanced)")), "{order:?}");
        assert!(!simple.iter().any(|name| title(name).contains("advanced")), "{order:?}");
    }
}

/// A regular expression explains nothing, and for the other keywords a form only reports a failure. A message for a
/// keyword that is absent would never be shown.
#[test]
fn patterns_and_messages_belong_together() {
    let bundle = bundle();
    let params = bundle.block("params");
    each_schema("", params, &mut |place, schema| {
        for keyword in ["pattern", "const", "not", "anyOf", "if", "minItems", "uniqueItems"] {
            assert!(
                schema.get(keyword).is_none() || schema["message"][keyword].is_string(),
                "{place} has no message for {keyword}"
            );
        }
        // A form merges the condition at the top into the params, and reads the messages there.
        let folded = params.pointer(&format!("/then/properties{place}"));
        for (keyword, message) in schema["message"].as_object().into_iter().flatten() {
            let told = folded.is_some_and(|folded| folded["message"][keyword] == *message);
            assert!(
                schema.get(keyword).is_some() || told,
                "{place} has a message for {keyword}, which it does not use"
            );
        }
    });
}

#[test]
fn form_defaults_are_valid() {
    each_schema("", bundle().block("params"), &mut |place, schema| {
        if let Some(default) = schema.get("default") {
            assert!(validator(schema).is_valid(default), "{place}: {default}");
        }
    });
}

#[test]
fn namespace_is_immutable_and_defaults_to_default() {
    let bundle = bundle();
    let namespace = &bundle.block("params")["properties"]["namespace"];
    assert_eq!(namespace["$md.immutable"], true);
    assert_eq!(namespace["default"], "default");
    assert_eq!(bundle.block("params")["required"], json!(["namespace"]));
}

/// A form fills an optional list with [], which would be an error here. It fills an alternative of type null only when
/// it is shown, and older forms then lose other input. If null is the default from the start, it does neither.
#[test]
fn form_omits_namespaces_by_default() {
    let bundle = bundle();
    let params = &bundle.block("params")["properties"];
    let namespaces = |list: &str| params[list]["items"]["properties"]["namespaces"].clone();
    assert_eq!(namespaces("rules")["anyOf"][0]["type"], "null");
    assert_eq!(namespaces("rules")["anyOf"][0]["default"], json!(null));
    assert!(namespaces("rules")["anyOf"][0].get("default").is_some());
    assert!(namespaces("rules").get("type").is_none(), "beside the menu there would be a list");
    assert_eq!(namespaces("rules"), namespaces("cluster_roles"));
}

/// A form drops a value that was not typed, unless the empty string is declared as a value; and a browser does not
/// submit a list that contains an empty string, unless null is allowed, too (react-jsonschema-form, `isItemRequired`).
#[test]
fn form_can_submit_the_core_group() {
    let bundle = bundle();
    let groups = &bundle.block("ui")["rules"]["items"]["apiGroups"];
    assert_eq!(groups["items"]["ui:emptyValue"], "");
    let items = &bundle.block("params")["properties"]["rules"]["items"]["properties"]["apiGroups"]["items"];
    assert_eq!(items["default"], "");
    assert_eq!(items["type"], "string");
    assert_eq!(items["dependencies"]["length"]["type"], json!(["string", "null"]));
    assert!(validator(items).is_valid(&json!("")));
    assert!(!validator(items).is_valid(&json!(null)));
}

/// The UI schema has the structure of the params: `items` below an array, and the properties below an object.
#[test]
fn every_ui_key_refers_to_a_field() {
    fn check(path: &str, ui: &Value, schema: &Value) {
        for (key, below) in ui.as_object().into_iter().flatten() {
            let path = format!("{path}/{key}");
            if key == "ui:order" {
                for name in texts(below).into_iter().filter(|name| *name != "*") {
                    assert!(schema["properties"].get(name).is_some(), "{path} names {name}");
                }
            } else if !key.starts_with("ui:") {
                let list = schema.get("items").is_some();
                let reached = if list { schema.get(key) } else { schema["properties"].get(key) };
                check(&path, below, reached.unwrap_or_else(|| panic!("{path} refers to no field")));
            }
        }
    }
    let bundle = bundle();
    check("", bundle.block("ui"), bundle.block("params"));
}
