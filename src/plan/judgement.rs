//! The judgement of the requested rules: what in them matches nothing, and what allows more than it says. Pure.

use std::cmp::Reverse;

use crate::{
    diagnostics::finding::Finding,
    k8s::grant::Grants,
    plan::{dead_rules, risks},
    rbac::Catalog,
};

/// The findings about the requested rules, the worst first. `server` is the version of the server, if it is known.
pub(crate) fn judge(grants: &Grants, catalog: &Catalog<'_>, server: Option<(u32, u32)>) -> Vec<Finding> {
    let mut findings = dead_rules::findings(grants.requested(), catalog);
    findings.extend(risks::findings(grants.requested(), server));
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}
