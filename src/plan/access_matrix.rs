//! What rules allow, as a matrix: a row for each resource in each scope, a cell for each verb. Pure.
//!
//! A cell is allowed if any rule allows it: the row of pods also shows what `*` in another rule allows on pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use serde::Serialize;

use crate::{
    diagnostics::finding::Severity,
    k8s::{grant::Grants, name::ClusterRoleName},
    rbac::{
        Catalog, Coverage, Permission, PermissionRecord, PermissionTarget, Rule, VERBS, matchable, permissions_of,
        risk::{Requested, Risk, risks},
    },
};

/// Rules that are granted in one scope.
pub(crate) struct GrantedRules<'a> {
    /// The namespace; none means the whole cluster.
    pub(crate) namespace: Option<&'a str>,
    /// The rules.
    pub(crate) rules: &'a [Rule],
    /// The ClusterRole that contains them; none for rules that are asked for one by one.
    pub(crate) cluster_role: Option<&'a str>,
}

/// The rules of grants in each of their scopes; those of the ClusterRoles as far as `rules_of` knows them.
pub(crate) fn granted_rules<'a>(
    grants: &'a Grants,
    rules_of: &dyn Fn(&str) -> Option<&'a [Rule]>,
) -> Vec<GrantedRules<'a>> {
    let granted = grants.iter().filter_map(|grant| {
        let namespace = grant.place.scope.namespace();
        let cluster_role = grant.place.role_source.cluster_role().map(ClusterRoleName::as_str);
        let rules = match cluster_role {
            Some(name) => rules_of(name)?,
            None => &grant.rules,
        };
        Some(GrantedRules { namespace, rules, cluster_role })
    });
    granted.collect()
}

/// A cell: a permission, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Access {
    /// Verb, resource and scope, or verb and path.
    #[serde(flatten)]
    pub(crate) permission: PermissionRecord,
    /// Whether a rule allows it.
    pub(crate) asked: bool,
    /// The ClusterRoles that allow it.
    pub(crate) cluster_roles: Vec<String>,
    /// The codes of its risks.
    pub(crate) risks: Vec<&'static str>,
    /// The severity of the worst of them.
    pub(crate) severity: Option<Severity>,
    /// Whether no request can match it.
    pub(crate) dead: bool,
}

/// The cells of the matrix, scope by scope and row by row. The verb `*` also becomes each verb of the resource. `server` is
/// the version of the server, if it is known.
pub(crate) fn access_matrix(
    granted: &[GrantedRules<'_>],
    catalog: &Catalog<'_>,
    server: Option<(u32, u32)>,
) -> Vec<Access> {
    let sources = Sources::of(granted);
    let judged = JudgedRules::of(granted, server);
    let mut rows: BTreeMap<(Option<&str>, PermissionTarget<'_>), BTreeSet<&str>> = BTreeMap::new();
    for it in granted {
        for permission in permissions_of(it.rules, it.namespace) {
            rows.entry((permission.namespace, permission.target)).or_default().insert(permission.verb);
        }
    }
    let cells = rows.into_iter().flat_map(|((namespace, target), mut verbs)| {
        verbs.extend(usual_verbs(target, catalog));
        verbs.into_iter().map(move |verb| Permission { namespace, target, verb })
    });
    let allowed: Vec<_> = cells.filter_map(|cell| Some((cell, sources.of_cell(cell)?))).collect();
    let matchable: HashSet<Permission<'_>> =
        matchable(&allowed.iter().map(|(cell, _)| *cell).collect::<Vec<_>>(), catalog).into_iter().collect();
    // What in a ClusterRole matches nothing is the business of those who wrote it.
    let counts = |(cell, (asked, _)): &(Permission<'_>, (bool, Vec<String>))| *asked || matchable.contains(cell);
    let access = |(cell, (asked, cluster_roles)): (Permission<'_>, (bool, Vec<String>))| {
        let dead = !matchable.contains(&cell);
        let (risks, severity) = if dead { (Vec::new(), None) } else { judged.risks_of(cell) };
        Access { permission: cell.record(), asked, cluster_roles, risks, severity, dead }
    };
    allowed.into_iter().filter(counts).map(access).collect()
}

/// What allows permissions: the rules, and each ClusterRole.
struct Sources<'a> {
    rules: Coverage<'a>,
    cluster_roles: Vec<(&'a str, Coverage<'a>)>,
}

impl<'a> Sources<'a> {
    fn of(granted: &[GrantedRules<'a>]) -> Self {
        let of = |role: Option<&str>| -> Coverage<'a> {
            let granted = granted.iter().filter(move |it| it.cluster_role == role);
            granted.flat_map(|it| permissions_of(it.rules, it.namespace)).collect()
        };
        let names: BTreeSet<&str> = granted.iter().filter_map(|it| it.cluster_role).collect();
        Self { rules: of(None), cluster_roles: names.into_iter().map(|name| (name, of(Some(name)))).collect() }
    }

    /// Whether a rule allows it, and the ClusterRoles that do; none if nothing does.
    fn of_cell(&self, cell: Permission<'_>) -> Option<(bool, Vec<String>)> {
        let roles = self.cluster_roles.iter().filter(|(_, coverage)| coverage.covers(cell));
        let roles: Vec<String> = roles.map(|(name, _)| (*name).to_owned()).collect();
        let asked = self.rules.covers(cell);
        (asked || !roles.is_empty()).then_some((asked, roles))
    }
}

/// The verbs that a request for it can have, as far as they are known.
fn usual_verbs<'c>(target: PermissionTarget<'_>, catalog: &'c Catalog<'_>) -> Vec<&'c str> {
    let PermissionTarget::Resource { group, resource, .. } = target else { return Vec::new() };
    let (name, subresource) = match resource.split_once('/') {
        Some((name, subresource)) => (name, Some(subresource)),
        None => (resource, None),
    };
    let known = catalog.resource(group, name).and_then(|it| it.verbs_of(subresource));
    known.map_or_else(|| VERBS.to_vec(), <[&str]>::to_vec)
}

/// The permission as a rule.
fn as_rule(cell: Permission<'_>) -> Rule {
    let verbs = vec![cell.verb.to_owned()];
    match cell.target {
        PermissionTarget::Resource { group, resource, name } => Rule {
            api_groups: vec![group.to_owned()],
            resources: vec![resource.to_owned()],
            resource_names: name.map(str::to_owned).into_iter().collect(),
            verbs,
            ..Rule::default()
        },
        PermissionTarget::Url(url) => Rule { non_resource_urls: vec![url.to_owned()], verbs, ..Rule::default() },
    }
}

/// The risks of all rules together: some are more severe in combination.
struct JudgedRules<'a> {
    by_code: HashMap<&'static str, Vec<RiskyRule<'a>>>,
    server: Option<(u32, u32)>,
}

/// A rule with a risk.
struct RiskyRule<'a> {
    severity: Severity,
    namespace: Option<&'a str>,
    permissions: Rc<Coverage<'a>>,
}

impl<'a> JudgedRules<'a> {
    fn of(granted: &[GrantedRules<'a>], server: Option<(u32, u32)>) -> Self {
        let requested: Vec<Requested<'a>> =
            granted.iter().flat_map(|it| it.rules.iter().map(|rule| (rule, it.namespace))).collect();
        let mut coverages: HashMap<usize, Rc<Coverage<'a>>> = HashMap::new();
        let mut by_code: HashMap<_, Vec<_>> = HashMap::new();
        for risk in risks(&requested, server) {
            let (rule, namespace) = requested[risk.rule];
            let permissions =
                coverages.entry(risk.rule).or_insert_with(|| Rc::new(rule.permissions(namespace).collect())).clone();
            let rule = RiskyRule { severity: risk.severity.into(), namespace, permissions };
            by_code.entry(risk.code()).or_default().push(rule);
        }
        Self { by_code, server }
    }

    /// The codes of the risks of a permission, and the severity of the worst: that of the rules which allow it there.
    fn risks_of(&self, cell: Permission<'_>) -> (Vec<&'static str>, Option<Severity>) {
        let rule = as_rule(cell);
        let own = risks(&[(&rule, cell.namespace)], self.server);
        let severity = |risk: &Risk| {
            let together = self.by_code.get(risk.code()).into_iter().flatten();
            let together = together.filter(|it| it.namespace == cell.namespace && it.permissions.covers(cell));
            together.map(|it| it.severity).chain([risk.severity.into()]).max()
        };
        (own.iter().map(Risk::code).collect(), own.iter().filter_map(severity).max())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UNKNOWN: Option<(u32, u32)> = None;

    fn rules(rules: Value) -> Vec<Rule> {
        serde_json::from_value(rules).unwrap()
    }

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
        json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
    }

    /// Each cell as verb, row, marks and risks: `get pods x`, where `x` is a rule, `o` a ClusterRole and `-` dead.
    fn cells(granted: &[(Option<&str>, Option<&str>, Value)]) -> Vec<String> {
        let granted: Vec<_> =
            granted.iter().map(|(namespace, role, it)| (*namespace, *role, rules(it.clone()))).collect();
        let granted: Vec<GrantedRules<'_>> = granted
            .iter()
            .map(|(namespace, cluster_role, rules)| GrantedRules {
                namespace: *namespace,
                rules,
                cluster_role: *cluster_role,
            })
            .collect();
        let shown = |access: Access| {
            let row = match &access.permission {
                PermissionRecord::Resource { verb, group, resource, name, namespace } => {
                    let name = name.as_ref().map(|name| format!("={name}")).unwrap_or_default();
                    format!("{}:{verb} {resource}.{group}{name}", namespace.as_deref().unwrap_or("*"))
                }
                PermissionRecord::Url { verb, url } => format!("{verb} {url}"),
            };
            let roles = access.cluster_roles.iter().map(|role| format!("o({role})"));
            let marks = access.asked.then(|| "x".to_owned()).into_iter().chain(roles);
            let marks = marks.chain(access.dead.then(|| "-".to_owned()));
            let marks: Vec<String> = marks.chain(access.risks.iter().map(ToString::to_string)).collect();
            assert_eq!(access.severity.is_some(), !access.risks.is_empty());
            format!("{row} {}", marks.join(" "))
        };
        access_matrix(&granted, Catalog::embedded(), UNKNOWN).into_iter().map(shown).collect()
    }

    #[test]
    fn each_verb_of_each_resource_is_a_cell() {
        let granted = [(Some("a"), None, json!([rule(&[""], &["services"], &["get", "list"])]))];
        assert_eq!(cells(&granted), ["a:get services. x", "a:list services. x"]);
    }

    #[test]
    fn rule_and_cluster_role_share_a_cell() {
        let granted = [
            (Some("a"), None, json!([rule(&[""], &["services"], &["get"])])),
            (Some("a"), Some("view"), json!([rule(&[""], &["services"], &["get", "list"])])),
        ];
        assert_eq!(cells(&granted), ["a:get services. x o(view)", "a:list services. o(view)"]);
    }

    #[test]
    fn wider_rule_counts_in_every_row() {
        let granted = [
            (Some("a"), None, json!([rule(&["apps"], &["deployments/scale"], &["get"])])),
            (None, Some("wide"), json!([rule(&["apps"], &["*"], &["patch"])])),
        ];
        let expected = [
            "*:patch *.apps o(wide) risk-r07 risk-r36",
            "a:get deployments/scale.apps x",
            "a:patch deployments/scale.apps o(wide)",
        ];
        assert_eq!(cells(&granted), expected);
    }

    #[test]
    fn wildcard_verb_becomes_the_verbs_of_the_resource() {
        let granted = [(Some("a"), None, json!([rule(&[""], &["pods/log"], &["*"])]))];
        assert_eq!(cells(&granted), ["a:* pods/log. x risk-r30", "a:get pods/log. x risk-r30"]);
        let granted = [(Some("a"), None, json!([rule(&["example.com"], &["widgets"], &["*"])]))];
        assert_eq!(cells(&granted).len(), 1 + VERBS.len(), "a custom resource may have any of the usual verbs");
    }

    #[test]
    fn cell_that_no_request_matches_is_dead() {
        let granted = [(
            Some("a"),
            None,
            json!([
                rule(&["apps"], &["deployment"], &["get"]),
                rule(&[""], &["pods/log"], &["delete"]),
                rule(&[""], &["nodes"], &["get"]),
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"], "resourceNames": ["c"]},
            ]),
        )];
        let expected = [
            "a:create configmaps.=c x -",
            "a:get configmaps.=c x",
            "a:get nodes. x -",
            "a:delete pods/log. x -",
            "a:get deployment.apps x -",
        ];
        assert_eq!(cells(&granted), expected);
    }

    #[test]
    fn named_create_with_patch_is_not_dead() {
        let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"], "resourceNames": ["c"]});
        let granted = [(Some("a"), None, json!([rule]))];
        assert_eq!(cells(&granted), ["a:create configmaps.=c x", "a:patch configmaps.=c x risk-r25"]);
    }

    #[test]
    fn risk_is_as_severe_as_in_combination() {
        let severity = |resources: &[&str]| {
            let rules: Vec<Rule> = rules(json!([rule(&[""], resources, &["create", "get"])]));
            let granted = [GrantedRules { namespace: Some("a"), rules: &rules, cluster_role: None }];
            let cells = access_matrix(&granted, Catalog::embedded(), UNKNOWN);
            let log = cells.into_iter().find(|cell| cell.risks.contains(&"risk-r30"));
            log.and_then(|cell| cell.severity)
        };
        assert_eq!(severity(&["pods/log"]), Some(Severity::Low));
        assert_eq!(
            severity(&["pods/log", "pods"]),
            Some(Severity::Medium),
            "a holder who starts a pod chooses what it logs"
        );
    }

    #[test]
    fn paths_have_methods() {
        let rule = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get", "list"]});
        assert_eq!(cells(&[(None, None, json!([rule]))]), ["get /metrics x", "list /metrics x -"]);
    }
}
