//! The judgement of the requested rules: what in them matches nothing, and what allows more than it says. Pure.

use std::cmp::Reverse;

use crate::{
    diagnostics::finding::Finding,
    k8s::grant::Grants,
    plan::{
        dead_rules,
        risks::{self, ScopedRisk},
    },
    rbac::{Catalog, Rule},
};

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
    let mut findings = dead_rules::findings(grants.requested(), catalog);
    let (mut of_risks, risks) = risks::judge(grants, rules_of, server);
    findings.append(&mut of_risks);
    findings.sort_by_key(|finding| Reverse(finding.severity));
    Judgement { findings, risks }
}
