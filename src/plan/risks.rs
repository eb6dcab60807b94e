//! Risks of the rules and ClusterRoles of the params: as findings, and scope by scope. Pure.

use std::collections::BTreeMap;

use crate::{
    diagnostics::finding::{Code, Finding, Severity},
    k8s::grant::{Grants, Scope},
    rbac::{
        Rule,
        risk::{Requested, Risk, risks},
    },
};

/// A risk of an entry of the params in one of its scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScopedRisk {
    /// Its code.
    pub(crate) code: Code,
    /// Its severity in this scope.
    pub(crate) severity: Severity,
    /// JSON pointer to the element of the params.
    pub(crate) pointer: String,
    /// The scope.
    pub(crate) scope: Scope,
}

/// An entry of the params whose rules are judged.
#[derive(Clone, Copy)]
struct Judged<'a> {
    pointer: &'a str,
    source: Option<&'a str>,
    /// The name, if it is a ClusterRole.
    cluster_role: Option<&'a str>,
}

/// The findings about risks of the requested rules and ClusterRoles, and the same scope by scope. A finding is about one
/// entry of the params and one code, with the severity of the scope where it is worst. `rules_of` knows the rules of
/// ClusterRoles by their names; `server` is the version of the server, if it is known.
pub(crate) fn judge<'a>(
    grants: &'a Grants,
    rules_of: &dyn Fn(&str) -> Option<&'a [Rule]>,
    server: Option<(u32, u32)>,
) -> (Vec<Finding>, Vec<ScopedRisk>) {
    let (entries, requested) = requested(grants, rules_of);
    let all: Vec<Requested<'_>> = requested.iter().map(|(_, rule, scope)| (*rule, scope.namespace())).collect();
    let mut worst: BTreeMap<(usize, &str), Risk> = BTreeMap::new();
    let mut scoped: BTreeMap<(usize, &str, &Scope), ScopedRisk> = BTreeMap::new();
    for risk in risks(&all, server) {
        let (entry, _, scope) = requested[risk.rule];
        let Some(code) = Code::of_risk(risk.code()) else { continue };
        let severity = Severity::from(risk.severity);
        let here = (entry, risk.code(), scope);
        if scoped.get(&here).is_none_or(|known| known.severity < severity) {
            let pointer = pointer(entries[entry], &risk);
            scoped.insert(here, ScopedRisk { code, severity, pointer, scope: scope.clone() });
        }
        let anywhere = (entry, risk.code());
        if worst.get(&anywhere).is_none_or(|known| known.severity < risk.severity) {
            worst.insert(anywhere, risk);
        }
    }
    let findings = worst.into_iter().filter_map(|((entry, _), risk)| finding(entries[entry], &risk, all[risk.rule]));
    (findings.collect(), scoped.into_values().collect())
}

/// The entries of the params, and their rules in each scope with the number of the entry.
fn requested<'a>(
    grants: &'a Grants,
    rules_of: &dyn Fn(&str) -> Option<&'a [Rule]>,
) -> (Vec<Judged<'a>>, Vec<(usize, &'a Rule, &'a Scope)>) {
    let (mut entries, mut requested) = (Vec::new(), Vec::new());
    for rule in grants.requested() {
        requested.extend(rule.scopes.iter().map(|scope| (entries.len(), &rule.rule, scope)));
        entries.push(Judged { pointer: &rule.pointer, source: rule.source.as_deref(), cluster_role: None });
    }
    for role in grants.requested_roles() {
        let name = role.name.as_str();
        for rule in rules_of(name).unwrap_or_default() {
            requested.extend(role.scopes.iter().map(|scope| (entries.len(), rule, scope)));
        }
        entries.push(Judged { pointer: &role.pointer, source: role.source.as_deref(), cluster_role: Some(name) });
    }
    (entries, requested)
}

fn pointer(entry: Judged<'_>, risk: &Risk) -> String {
    let element = if entry.cluster_role.is_some() { "/name" } else { risk.pointer.as_str() };
    format!("{}{element}", entry.pointer)
}

fn finding(entry: Judged<'_>, risk: &Risk, requested: Requested<'_>) -> Option<Finding> {
    let alternative = risk.alternative(requested);
    let instead = alternative.text;
    let mut help = alternative.shown().map_or_else(
        || instead.to_owned(),
        |rule| format!("{instead}, such as {}", serde_json::to_string(&rule).unwrap_or_default()),
    );
    let mut text = risk.consequence();
    if let Some(name) = entry.cluster_role {
        text = format!("ClusterRole {name}: {text}");
        help = format!("instead of this ClusterRole, list the rules that are needed: {help}");
    }
    let finding = Finding::remark(Code::of_risk(risk.code())?, text).severity(risk.severity.into());
    Some(finding.at(pointer(entry, risk)).source(entry.source.map(str::to_owned)).help(help))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        k8s::{
            grant::{RequestedRole, RequestedRule},
            name::ClusterRoleName,
        },
        rbac::default_cluster_role,
    };

    fn scopes(scopes: &[&str]) -> Vec<Scope> {
        scopes.iter().map(|scope| Scope::parse(scope).unwrap()).collect()
    }

    fn rule(pointer: &str, resource: &str, verb: &str, of: &[&str]) -> RequestedRule {
        let rule = json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]});
        RequestedRule {
            pointer: pointer.to_owned(),
            source: None,
            rule: serde_json::from_value(rule).unwrap(),
            scopes: scopes(of),
        }
    }

    fn role(name: &str, of: &[&str]) -> RequestedRole {
        let name = ClusterRoleName::parse(name).unwrap();
        RequestedRole { pointer: "/cluster_roles/0".to_owned(), source: None, name, scopes: scopes(of) }
    }

    fn judged(rules: Vec<RequestedRule>, cluster_roles: Vec<RequestedRole>) -> (Vec<Finding>, Vec<ScopedRisk>) {
        judge(&Grants::new(rules, cluster_roles, &scopes(&["home"])[0]), &|name| default_cluster_role(name), None)
    }

    #[test]
    fn finding_has_the_worst_severity_of_its_scopes() {
        let (findings, scoped) = judged(vec![rule("/rules/0", "secrets", "get", &["a", "kube-system"])], vec![]);
        let found: Vec<_> = findings.iter().map(|it| (it.code.as_str(), it.severity, it.pointer.as_deref())).collect();
        assert_eq!(found, [("risk-r03", Severity::Critical, Some("/rules/0/resources/0"))]);
        let by_scope: Vec<_> = scoped.iter().map(|it| (it.scope.to_string(), it.severity)).collect();
        assert_eq!(by_scope, [("a".to_owned(), Severity::High), ("kube-system".to_owned(), Severity::Critical)]);
    }

    #[test]
    fn cluster_role_has_one_finding_for_each_code() {
        let (findings, _) = judged(vec![], vec![role("edit", &["a", "b"])]);
        let codes: Vec<&str> = findings.iter().map(|it| it.code.as_str()).collect();
        for code in ["risk-r03", "risk-r05", "risk-r06", "risk-r07"] {
            assert_eq!(codes.iter().filter(|it| **it == code).count(), 1, "{code} in {codes:?}");
        }
        let named = |it: &Finding| {
            it.pointer.as_deref() == Some("/cluster_roles/0/name") && it.message.contains("ClusterRole edit")
        };
        assert!(findings.iter().all(named), "{findings:?}");
    }

    #[test]
    fn cluster_admin_is_critical_wherever_it_is_bound() {
        for scope in ["a", "*"] {
            let (findings, _) = judged(vec![], vec![role("cluster-admin", &[scope])]);
            let everything = findings.iter().find(|it| it.code == Code::RiskR01);
            assert_eq!(everything.map(|it| it.severity), Some(Severity::Critical), "{scope}");
        }
    }

    #[test]
    fn cluster_role_of_unknown_rules_has_no_risk() {
        assert_eq!(judged(vec![], vec![role("deployer", &["a"])]), (vec![], vec![]));
    }

    /// Writing Secrets is worse where they can also be read, whoever grants that.
    #[test]
    fn rules_of_cluster_roles_combine_with_rules() {
        let severity = |roles| {
            let (findings, _) = judged(vec![rule("/rules/0", "secrets", "create", &["a"])], roles);
            findings.into_iter().find(|it| it.pointer.as_deref() == Some("/rules/0/resources/0")).map(|it| it.severity)
        };
        assert_eq!(severity(vec![role("view", &["a"])]), Some(Severity::High));
        assert_eq!(severity(vec![role("edit", &["a"])]), Some(Severity::Critical));
        assert_eq!(severity(vec![role("edit", &["b"])]), Some(Severity::High));
    }
}
