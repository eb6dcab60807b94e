//! `rules` and `cluster_roles` of the params as a list of grants: rules for the same scope share a Role. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    finding::{self, Finding},
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

/// Takes the params apart, and says of each entry that cannot be read where it is and why: a grant must not be dropped
/// without a word. A decommission does not care: what was ever granted stands in the inventory.
#[must_use]
pub fn parse(params: &Value, home: &Place) -> (Vec<Grant>, Vec<Finding>) {
    let mut grants: BTreeMap<Place, Vec<Rule>> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut refuse =
        |pointer: String, why: String| findings.push(Finding::blocking(finding::Code::Schema, pointer, why));
    for (pointer, entry) in entries(params, "rules") {
        match ScopedRule::deserialize(entry).map_err(|_| UNREADABLE).and_then(|entry| {
            let scopes = scopes(entry.namespaces.as_deref(), home)?;
            Ok((scopes, entry.rule))
        }) {
            Ok((scopes, rule)) => {
                for scope in scopes {
                    grants.entry(Place::new(scope, Authority::Rules)).or_default().push(rule.clone());
                }
            }
            Err(why) => refuse(pointer, why.to_owned()),
        }
    }
    for (pointer, entry) in entries(params, "cluster_roles") {
        match ScopedRole::deserialize(entry).map_err(|_| UNREADABLE).and_then(|entry| {
            let scopes = scopes(entry.namespaces.as_deref(), home)?;
            Ok((scopes, ClusterRoleName::parse(&entry.name)?))
        }) {
            Ok((scopes, name)) => {
                for scope in scopes {
                    grants.entry(Place::new(scope, Authority::ClusterRole(name.clone()))).or_default();
                }
            }
            Err(why) => refuse(pointer, why.to_owned()),
        }
    }
    let mut grants: Vec<Grant> = grants.into_iter().map(|(place, rules)| Grant { place, rules }).collect();
    grants.sort_by_key(|grant| grant.place.scope != home.scope);
    (grants, findings)
}

const UNREADABLE: &str = "is not of the form that it should have";

fn entries<'a>(params: &'a Value, key: &'static str) -> impl Iterator<Item = (String, &'a Value)> {
    let list = params.get(key).and_then(Value::as_array).into_iter().flatten();
    list.enumerate().map(move |(index, entry)| (format!("/{key}/{index}"), entry))
}

/// Where an entry applies: in the home namespace, unless it says otherwise.
fn scopes(namespaces: Option<&[String]>, home: &Place) -> Result<Vec<Scope>, &'static str> {
    match namespaces {
        None => Ok(vec![home.scope.clone()]),
        Some(namespaces) => namespaces.iter().map(|text| Scope::parse(text)).collect(),
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
        parse(params, &home).0.iter().map(|grant| (place(&grant.place), resources(&grant.rules))).collect()
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
        let home = Place::new(Scope::parse("team-m").unwrap(), Authority::Rules);
        let findings = parse(&params, &home).1;
        let pointers: Vec<_> = findings.iter().filter_map(|finding| finding.pointer.as_deref()).collect();
        let unread = ["/rules/0", "/rules/1", "/rules/2", "/cluster_roles/0", "/cluster_roles/2"];
        assert_eq!(pointers, unread, "and says what it cannot");
        assert_eq!(parsed(&json!({"rules": {}, "cluster_roles": null})), vec![]);
    }
}
