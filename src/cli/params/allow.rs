//! The syntax of `--allow`: `VERBS RESOURCES`, each a list with commas. A resource is written as kubectl writes it:
//! `deployments.apps/scale` is the subresource `scale` of `deployments` in the group `apps`; without a dot it is of the
//! core group. Whether the words mean anything is judged as in any rule. Pure.

use serde_json::{Value, json};

use crate::diagnostics::text::presentable;

const EXAMPLE: &str = "get,list pods,deployments.apps";

/// The rules that a text says: one for each API group, because a rule allows each of its resources in each of its groups.
///
/// # Errors
/// What is wrong with the syntax, and an example.
pub(super) fn rules(text: &str) -> Result<Vec<Value>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (verbs, resources) = match words[..] {
        [verbs, resources] => (list("verbs", verbs)?, list("resources", resources)?),
        [] => return Err(wrong("is empty", EXAMPLE)),
        [_] => return Err(wrong("has no resources", EXAMPLE)),
        _ => return Err(wrong("has more than two words", &corrected(text))),
    };
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for resource in resources {
        let (group, resource) = split(resource)?;
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, resources)) => resources.push(resource),
            None => groups.push((group, vec![resource])),
        }
    }
    let rule = |(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    Ok(groups.into_iter().map(rule).collect())
}

fn list<'a>(what: &str, text: &'a str) -> Result<Vec<&'a str>, String> {
    let items: Vec<&str> = text.split(',').collect();
    if items.contains(&"") { Err(wrong(&format!("has an empty entry among its {what}"), EXAMPLE)) } else { Ok(items) }
}

/// The API group of a resource, and the resource with its subresource.
fn split(text: &str) -> Result<(&str, String), String> {
    let (name, subresource) = text.split_once('/').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let (resource, group) = name.split_once('.').map_or((name, None), |(resource, group)| (resource, Some(group)));
    if text.starts_with('/') {
        let text =
            "names a URL, which is not a resource (expected rules with nonResourceURLs in a file for --params, or";
        return Err(format!("{text} resources, as in --allow '{EXAMPLE}')"));
    }
    if resource.is_empty() || group == Some("") || subresource.is_some_and(|it| it.is_empty() || it.contains('/')) {
        let example = "get,patch deployments.apps/scale";
        return Err(wrong("has a resource that is not written RESOURCE.GROUP/SUBRESOURCE", example));
    }
    let subresource = subresource.map(|it| format!("/{it}")).unwrap_or_default();
    Ok((group.unwrap_or_default(), format!("{resource}{subresource}")))
}

fn wrong(problem: &str, example: &str) -> String {
    format!("{problem} (expected verbs, a space, and resources, as in --allow '{example}')")
}

/// The text without blanks around its commas, if that leaves two words; else an example.
fn corrected(text: &str) -> String {
    let mut joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for blank in [" ,", ", "] {
        joined = joined.replace(blank, ",");
    }
    let words: Vec<&str> = joined.split(' ').collect();
    let is_fit = words.len() == 2 && joined.split([' ', ',']).all(|word| !word.is_empty() && presentable(word));
    if is_fit { joined } else { EXAMPLE.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one("get pods", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]))]
    #[case::lists(" get,list\tpods,services ", json!([{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]}]))]
    #[case::group("get deployments.apps", json!([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}]))]
    #[case::subresource("patch deployments.apps/scale", json!([{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]}]))]
    #[case::long_group("get certificates.cert-manager.io", json!([{"apiGroups": ["cert-manager.io"], "resources": ["certificates"], "verbs": ["get"]}]))]
    #[case::wildcards("* *.*", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))]
    #[case::core_wildcard("get *,*/scale", json!([{"apiGroups": [""], "resources": ["*", "*/scale"], "verbs": ["get"]}]))]
    #[case::twice("get,get pods,pods", json!([{"apiGroups": [""], "resources": ["pods", "pods"], "verbs": ["get", "get"]}]))]
    #[case::groups("get pods,deployments.apps,pods/log", json!([
        {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
    ]))]
    fn allow_becomes_one_rule_for_each_group(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(rules(text).map(Value::from), Ok(expected));
    }

    #[rstest]
    #[case::empty(" ", "is empty", EXAMPLE)]
    #[case::verbs_alone("get,list", "has no resources", EXAMPLE)]
    #[case::blanks("get, list pods ,services", "has more than two words", "get,list pods,services")]
    #[case::three_words("get pods services", "has more than two words", EXAMPLE)]
    #[case::secret("get pods, 0123456789012345678901234567890123456789", "has more than two words", EXAMPLE)]
    #[case::comma("get,,list pods", "empty entry among its verbs", EXAMPLE)]
    #[case::last_comma("get pods,", "empty entry among its resources", EXAMPLE)]
    #[case::no_group("get deployments.", "RESOURCE.GROUP/SUBRESOURCE", "get,patch deployments.apps/scale")]
    #[case::no_resource("get .apps", "RESOURCE.GROUP/SUBRESOURCE", "deployments.apps/scale")]
    #[case::no_subresource("get pods/", "RESOURCE.GROUP/SUBRESOURCE", "deployments.apps/scale")]
    #[case::two_subresources("get pods/log/x", "RESOURCE.GROUP/SUBRESOURCE", "deployments.apps/scale")]
    #[case::url("get /metrics", "names a URL", EXAMPLE)]
    fn wrong_syntax_is_refused_with_an_example(#[case] text: &str, #[case] problem: &str, #[case] example: &str) {
        let refusal = rules(text).unwrap_err();
        assert!(refusal.contains(problem) && refusal.contains(example), "{refusal}");
        assert!(!refusal.contains("0123456789"), "{refusal}");
    }

    #[test]
    fn examples_of_refusals_are_accepted() {
        for text in ["", "get, list pods", "get .a", "get /a", "get"] {
            let refusal = rules(text).unwrap_err();
            let (_, rest) = refusal.rsplit_once("--allow '").unwrap();
            assert!(rules(rest.split('\'').next().unwrap()).is_ok(), "{refusal}");
        }
    }

    proptest! {
        /// The tuples of the rules are the product of the verbs and the resources, each in its own group.
        #[test]
        fn allow_grants_exactly_what_is_written(
            verbs in prop::collection::vec("get|list|watch|[*]", 1..4),
            resources in prop::collection::vec(("pods|nodes|[*]", "|apps|batch|a[.]b|[*]", "|log|scale|[*]"), 1..8),
        ) {
            let written = |(resource, group, sub): &(String, String, String)| {
                let dot = if group.is_empty() { "" } else { "." };
                let slash = if sub.is_empty() { "" } else { "/" };
                (format!("{resource}{dot}{group}{slash}{sub}"), group.clone(), format!("{resource}{slash}{sub}"))
            };
            let written: Vec<_> = resources.iter().map(written).collect();
            let names: Vec<&str> = written.iter().map(|(text, ..)| text.as_str()).collect();
            let rules = rules(&format!("{} {}", verbs.join(","), names.join(","))).unwrap();
            let mut expected: Vec<_> = verbs.iter().flat_map(|verb| {
                written.iter().map(move |(_, group, resource)| (verb.clone(), group.clone(), resource.clone()))
            }).collect();
            let texts = |value: &Value| -> Vec<String> {
                value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
            };
            let mut granted = Vec::new();
            for rule in &rules {
                for verb in texts(&rule["verbs"]) {
                    for group in texts(&rule["apiGroups"]) {
                        granted.extend(texts(&rule["resources"]).into_iter().map(|it| (verb.clone(), group.clone(), it)));
                    }
                }
            }
            expected.sort();
            granted.sort();
            prop_assert_eq!(granted, expected);
        }
    }
}
