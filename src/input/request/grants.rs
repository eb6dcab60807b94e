//! `rules` and `cluster_roles` of the params as a list of grants: rules for the same scope share a Role. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    diagnostics::finding::{self, Finding},
    input::documents::Origin,
    k8s::{
        grant::{Grants, Place, RequestedRole, RequestedRule, Scope},
        name::ClusterRoleName,
    },
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

/// The grants of the params, and a blocking finding for each entry that cannot be read: none is dropped silently. A
/// decommission ignores those findings, because what was granted is in the inventory.
pub(crate) fn parse(params: &Value, origin: &Origin, home: &Place) -> (Grants, Vec<Finding>) {
    let (mut requested, mut cluster_roles, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for (pointer, entry) in entries(params, "rules") {
        match rule(entry, home) {
            Ok((rule, scopes)) => {
                requested.push(RequestedRule { source: origin.source(&pointer), pointer, rule, scopes });
            }
            Err(why) => findings.push(Finding::blocking(finding::Code::Schema, pointer, why)),
        }
    }
    for (pointer, entry) in entries(params, "cluster_roles") {
        match role(entry, home) {
            Ok((name, scopes)) => {
                cluster_roles.push(RequestedRole { source: origin.source(&pointer), pointer, name, scopes });
            }
            Err(why) => findings.push(Finding::blocking(finding::Code::Schema, pointer, why)),
        }
    }
    (Grants::new(requested, cluster_roles, &home.scope), findings)
}

fn rule(entry: &Value, home: &Place) -> Result<(Rule, Vec<Scope>), &'static str> {
    let entry = ScopedRule::deserialize(entry).map_err(|_| UNREADABLE)?;
    Ok((entry.rule, scopes(entry.namespaces.as_deref(), home)?))
}

fn role(entry: &Value, home: &Place) -> Result<(ClusterRoleName, Vec<Scope>), &'static str> {
    let entry = ScopedRole::deserialize(entry).map_err(|_| UNREADABLE)?;
    let scopes = scopes(entry.namespaces.as_deref(), home)?;
    Ok((ClusterRoleName::parse(&entry.name)?, scopes))
}

const UNREADABLE: &str = "has an invalid structure";

fn entries<'a>(params: &'a Value, key: &'static str) -> impl Iterator<Item = (String, &'a Value)> {
    let list = params.get(key).and_then(Value::as_array).into_iter().flatten();
    list.enumerate().map(move |(index, entry)| (format!("/{key}/{index}"), entry))
}

/// The scopes of an entry: the home namespace, unless it lists others.
fn scopes(namespaces: Option<&[String]>, home: &Place) -> Result<Vec<Scope>, &'static str> {
    match namespaces {
        None => Ok(vec![home.scope.clone()]),
        Some(namespaces) => namespaces.iter().map(|text| Scope::parse(text)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::grant::RoleSource;
    use serde_json::json;

    fn parsed(params: &Value) -> Vec<(String, Vec<String>)> {
        let home = Place::new(Scope::parse("team-m").unwrap(), RoleSource::Rules);
        let place = |place: &Place| match &place.role_source {
            RoleSource::Rules => place.scope.to_string(),
            RoleSource::ClusterRole(name) => format!("{} {}", place.scope, name.as_str()),
        };
        let resources = |rules: &[Rule]| rules.iter().flat_map(|rule| rule.resources.clone()).collect();
        parse(params, &Origin::Instance, &home)
            .0
            .iter()
            .map(|grant| (place(&grant.place), resources(&grant.rules)))
            .collect()
    }

    fn expected(grants: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        grants.iter().map(|(place, resources)| ((*place).to_owned(), owned(resources))).collect()
    }

    #[test]
    fn rules_of_one_scope_share_a_role() {
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
    fn scope_without_rules_gets_no_role() {
        assert_eq!(
            parsed(&json!({"cluster_roles": [{"name": "view", "namespaces": ["b"]}]})),
            expected(&[("b view", &[])])
        );
        assert_eq!(parsed(&json!({"rules": []})), vec![]);
    }

    #[test]
    fn decommission_reads_valid_grants_of_invalid_params() {
        let params =
            json!({"rules": [1, {"verbs": "get"}, null], "cluster_roles": [{"name": "a/b"}, {"name": "view"}, {}]});
        assert_eq!(parsed(&params), expected(&[("team-m view", &[])]));
        let home = Place::new(Scope::parse("team-m").unwrap(), RoleSource::Rules);
        let findings = parse(&params, &Origin::Instance, &home).1;
        let pointers: Vec<_> = findings.iter().filter_map(|finding| finding.pointer.as_deref()).collect();
        let unread = ["/rules/0", "/rules/1", "/rules/2", "/cluster_roles/0", "/cluster_roles/2"];
        assert_eq!(pointers, unread, "and says what it cannot");
        assert_eq!(parsed(&json!({"rules": {}, "cluster_roles": null})), vec![]);
    }

    #[test]
    fn requested_rules_keep_pointer_and_scopes() {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let params = json!({"rules": [rule, {"verbs": 1}, {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "namespaces": ["*", "b"]}]});
        let home = Place::new(Scope::parse("team-m").unwrap(), RoleSource::Rules);
        let grants = parse(&params, &Origin::Instance, &home).0;
        let requested: Vec<(&str, &str, Vec<String>)> = grants
            .requested()
            .iter()
            .map(|it| {
                let scopes = it.scopes.iter().map(ToString::to_string).collect();
                (it.pointer.as_str(), it.rule.resources[0].as_str(), scopes)
            })
            .collect();
        let scopes = |scopes: &[&str]| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = [("/rules/0", "pods", scopes(&["team-m"])), ("/rules/2", "nodes", scopes(&["*", "b"]))];
        assert_eq!(requested, expected);
    }
}
