//! `rules` and `cluster_roles` of the params as a list of grants: rules for the same scope share a Role. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    grant::{Authority, Grant, Place, Scope},
    name::ClusterRoleName,
    rbac::Rule,
};

/// An entry of `rules`.
#[derive(Deserialize)]
struct ScopedRule {
    #[serde(flatten)]
    rule: Rule,
    namespaces: Option<Vec<String>>,
}

/// An entry of `cluster_roles`.
#[derive(Deserialize)]
struct ScopedRole {
    name: String,
    namespaces: Option<Vec<String>>,
}

/// Takes params of the form that the schema has proved. For a decommission nothing has been proved, and nothing is
/// lost with an entry that cannot be read: what was ever granted stands in the inventory.
#[must_use]
pub fn parse(params: &Value, home: &Place) -> Vec<Grant> {
    let mut grants: BTreeMap<Place, Vec<Rule>> = BTreeMap::new();
    for entry in entries(params, "rules").filter_map(|entry| ScopedRule::deserialize(entry).ok()) {
        for scope in scopes(entry.namespaces.as_deref(), home) {
            grants.entry(Place::new(scope, Authority::Rules)).or_default().push(entry.rule.clone());
        }
    }
    for entry in entries(params, "cluster_roles").filter_map(|entry| ScopedRole::deserialize(entry).ok()) {
        let Ok(name) = ClusterRoleName::parse(&entry.name) else { continue };
        for scope in scopes(entry.namespaces.as_deref(), home) {
            grants.entry(Place::new(scope, Authority::ClusterRole(name.clone()))).or_default();
        }
    }
    let mut grants: Vec<Grant> = grants.into_iter().map(|(place, rules)| Grant { place, rules }).collect();
    grants.sort_by_key(|grant| grant.place.scope != home.scope);
    grants
}

fn entries<'a>(params: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    params.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Where an entry applies: in the home namespace, unless it says otherwise.
fn scopes(namespaces: Option<&[String]>, home: &Place) -> Vec<Scope> {
    match namespaces {
        None => vec![home.scope.clone()],
        Some(namespaces) => namespaces.iter().filter_map(|text| Scope::parse(text).ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(params: &Value) -> Vec<(String, Vec<String>)> {
        let home = Place::new(Scope::parse("team-m").unwrap(), Authority::Rules);
        let place = |place: &Place| match &place.authority {
            Authority::Rules => place.scope.to_string(),
            Authority::ClusterRole(name) => format!("{} {}", place.scope, name.as_str()),
        };
        let resources = |rules: &[Rule]| rules.iter().flat_map(|rule| rule.resources.clone()).collect();
        parse(params, &home).iter().map(|grant| (place(&grant.place), resources(&grant.rules))).collect()
    }

    fn expected(grants: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        grants.iter().map(|(place, resources)| ((*place).to_owned(), owned(resources))).collect()
    }

    #[test]
    fn rules_of_one_scope_share_a_role_and_home_comes_first() {
        let rule = |resource: &str, namespaces: Value| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"], "namespaces": namespaces});
        let params = json!({
            "rules": [
                rule("pods", json!(["team-a", "team-m"])),
                rule("services", json!(null)),
                rule("nodes", json!(["*"])),
                rule("secrets", json!(["team-a"])),
            ],
            "cluster_roles": [
                {"name": "view"},
                {"name": "edit", "namespaces": ["team-z"]},
                {"name": "view", "namespaces": ["*", "team-m"]},
            ],
        });
        assert_eq!(
            parsed(&params),
            expected(&[
                ("team-m", &["pods", "services"]),
                ("team-m view", &[]),
                ("team-a", &["pods", "secrets"]),
                ("team-z edit", &[]),
                ("*", &["nodes"]),
                ("* view", &[]),
            ])
        );
    }

    #[test]
    fn a_scope_without_rules_has_nothing_the_home_namespace_included() {
        assert_eq!(
            parsed(&json!({"cluster_roles": [{"name": "view", "namespaces": ["b"]}]})),
            expected(&[("b view", &[])])
        );
        assert_eq!(parsed(&json!({"rules": []})), vec![]);
    }

    #[test]
    fn a_decommission_reads_what_it_can() {
        let params =
            json!({"rules": [1, {"verbs": "get"}, null], "cluster_roles": [{"name": "a/b"}, {"name": "view"}, {}]});
        assert_eq!(parsed(&params), expected(&[("team-m view", &[])]));
        assert_eq!(parsed(&json!({"rules": {}, "cluster_roles": null})), vec![]);
    }
}
