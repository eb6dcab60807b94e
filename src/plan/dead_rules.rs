//! Dead rules as findings: the pointer of each element in the params. Pure.

use crate::{
    diagnostics::finding::{Code, Finding},
    k8s::grant::{RequestedRule, Scope},
    rbac::{self, Catalog, DeadCode, RuleInScope},
};

/// The findings about dead elements of the requested rules, judged by the resources of a server. The rules `beside` them
/// are those of ClusterRoles.
pub(crate) fn findings(requested: &[RequestedRule], beside: &[RuleInScope<'_>], catalog: &Catalog<'_>) -> Vec<Finding> {
    let rules: Vec<RuleInScope<'_>> = requested
        .iter()
        .map(|RequestedRule { pointer, rule, scopes, .. }| RuleInScope {
            pointer,
            rule,
            namespaces: scopes.iter().map(Scope::namespace).collect(),
        })
        .collect();
    let finding = |dead: rbac::DeadRule| {
        let (rule, source) = requested.get(dead.rule).map_or(("", None), |it| (it.pointer.as_str(), it.source.clone()));
        Finding::remark(code(dead.code), dead.message)
            .severity(dead.level.into())
            .at(format!("{rule}{}", dead.element))
            .source(source)
            .help(dead.help)
    };
    rbac::dead_rules(&rules, beside, catalog).into_iter().map(finding).collect()
}

const fn code(dead: DeadCode) -> Code {
    match dead {
        DeadCode::UnknownGroup => Code::UnknownGroup,
        DeadCode::UnknownResource => Code::UnknownResource,
        DeadCode::UnknownVerb => Code::UnknownVerb,
        DeadCode::ClusterScopedResource => Code::ClusterScopedResource,
        DeadCode::NamesWithCreate => Code::NamesWithCreate,
        DeadCode::NamesWithList => Code::NamesWithList,
        DeadCode::NamesWildcard => Code::NamesWildcard,
        DeadCode::SubresourceWildcard => Code::SubresourceWildcard,
        DeadCode::RedundantRule => Code::RedundantRule,
    }
}
