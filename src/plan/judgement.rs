//! The judgement of the requested rules: what in them matches nothing, and what allows more than it says. Pure.

use std::cmp::Reverse;

use crate::{
    diagnostics::finding::{Code, Finding},
    k8s::grant::{Grants, RequestedRole, Scope},
    plan::{
        dead_rules,
        risks::{self, ScopedRisk},
    },
    rbac::{Catalog, Rule, RuleInScope},
};

/// The resources that rules are judged by: those of the server, else those of the embedded table.
#[derive(Default)]
pub(crate) struct Resources<'a> {
    live: Option<Catalog<'a>>,
    /// Why they are not those of the server, although there are rules.
    missing: Option<String>,
}

impl<'a> Resources<'a> {
    /// Those of a server, by the answer to the request for its discovery.
    pub(crate) fn of_discovery(answer: &'a [u8]) -> Self {
        match Catalog::of_server(answer) {
            None => Self::without_discovery("the answer is no aggregated discovery".to_owned()),
            live => Self { live, missing: None },
        }
    }

    /// Those of the embedded table, and why.
    pub(crate) const fn without_discovery(why: String) -> Self {
        Self { live: None, missing: Some(why) }
    }

    /// The catalogue to judge by.
    pub(crate) fn catalog(&self) -> &Catalog<'a> {
        self.live.as_ref().unwrap_or_else(|| Catalog::embedded())
    }

    /// The finding that custom resources were not judged, if that is so.
    fn gap(&self) -> Option<Finding> {
        let why = self.missing.as_ref()?;
        let text = format!(
            "the server's discovery could not be used ({why}): its own resources were judged by a table of \
             Kubernetes releases, and custom resources not at all"
        );
        let help = "let the identity get /apis, as the ClusterRole system:discovery does for every user";
        Some(Finding::remark(Code::DiscoveryMissing, text).at("/rules").help(help))
    }
}

/// The judgement of the requested rules and ClusterRoles.
pub(crate) struct Judgement {
    /// The findings, the worst first.
    pub(crate) findings: Vec<Finding>,
    /// The risks among them, scope by scope.
    pub(crate) risks: Vec<ScopedRisk>,
}

/// Judges the requested rules, and the ClusterRoles whose rules `rules_of` knows. `server` is the version of the server, if
/// it is known. What in a ClusterRole matches nothing is the business of those who wrote it.
pub(crate) fn judge<'a>(
    grants: &'a Grants,
    rules_of: &dyn Fn(&str) -> Option<&'a [Rule]>,
    catalog: &Catalog<'_>,
    server: Option<(u32, u32)>,
) -> Judgement {
    let of_role = |role: &'a RequestedRole| {
        let namespaces = || role.scopes.iter().map(Scope::namespace).collect();
        let rules = rules_of(role.name.as_str()).unwrap_or_default().iter();
        rules.map(move |rule| RuleInScope { pointer: &role.pointer, rule, namespaces: namespaces() })
    };
    let beside: Vec<RuleInScope<'_>> = grants.requested_roles().iter().flat_map(of_role).collect();
    let mut findings = dead_rules::findings(grants.requested(), &beside, catalog);
    let (mut of_risks, risks) = risks::judge(grants, rules_of, server);
    findings.append(&mut of_risks);
    findings.sort_by_key(|finding| Reverse(finding.severity));
    Judgement { findings, risks }
}

/// A finding for each requested ClusterRole whose rules are not known; `say` words it, with the help.
pub(crate) fn unknown_roles<'a>(
    grants: &'a Grants,
    rules_of: &dyn Fn(&str) -> Option<&'a [Rule]>,
    say: impl Fn(&str) -> (String, &'static str),
) -> Vec<Finding> {
    let unknown = grants.requested_roles().iter().filter(|role| rules_of(role.name.as_str()).is_none());
    let finding = |role: &RequestedRole| {
        let (text, help) = say(role.name.as_str());
        let finding = Finding::remark(Code::ClusterRoleUnverified, text).at(format!("{}/name", role.pointer));
        finding.source(role.source.clone()).help(help)
    };
    unknown.map(finding).collect()
}

/// The same by what a server serves, with the finding that its discovery is missing.
pub(crate) fn judge_live<'a>(
    grants: &'a Grants,
    rules_of: &dyn Fn(&str) -> Option<&'a [Rule]>,
    resources: &Resources<'_>,
    server_version: Option<&str>,
) -> Judgement {
    let mut judgement = judge(grants, rules_of, resources.catalog(), server_version.and_then(release));
    judgement.findings.extend(resources.gap());
    judgement
}

/// Major and minor version, as 1 and 37 of `v1.37.2-gke.100`.
pub(crate) fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v')?.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("v1.37.2", Some((1, 37)))]
    #[case("v1.27.16-eks-a1b2c3", Some((1, 27)))]
    #[case("v1.30+", Some((1, 30)))]
    #[case("", None)]
    #[case("unknown", None)]
    fn release_is_read_from_version(#[case] version: &str, #[case] expected: Option<(u32, u32)>) {
        assert_eq!(release(version), expected);
    }

    #[test]
    fn missing_discovery_falls_back_to_embedded_table() {
        for (resources, has_gap) in [
            (Resources::default(), false),
            (Resources::without_discovery("the server refuses it with 403".to_owned()), true),
            (Resources::of_discovery(b"<html>"), true),
            (Resources::of_discovery(br#"{"kind": "APIGroupDiscoveryList", "items": []}"#), false),
        ] {
            assert_eq!(resources.gap().is_some(), has_gap);
            assert!(resources.catalog().resource("", "pods").is_some());
            let has_apps = resources.catalog().resource("apps", "deployments").is_some();
            assert_eq!(has_apps, resources.live.is_none());
        }
    }
}
