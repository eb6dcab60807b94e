//! Risks of the rules of the params, as findings. Pure.

use std::collections::BTreeMap;

use crate::{
    diagnostics::finding::{self, Finding},
    k8s::grant::RequestedRule,
    rbac::risk::{Requested, Risk, risks},
};

/// The findings about risks of the requested rules: one for each rule and code, that of the scope where it is worst.
/// `server` is the version of the server, if it is known.
pub(crate) fn findings(rules: &[RequestedRule], server: Option<(u32, u32)>) -> Vec<Finding> {
    let scopes = |(number, rule): (usize, &RequestedRule)| rule.scopes.iter().map(move |_| number).collect::<Vec<_>>();
    let numbers: Vec<usize> = rules.iter().enumerate().flat_map(scopes).collect();
    let requested: Vec<Requested<'_>> =
        rules.iter().flat_map(|rule| rule.scopes.iter().map(move |scope| (&rule.rule, scope.namespace()))).collect();
    let mut worst: BTreeMap<(usize, &str), Risk> = BTreeMap::new();
    for risk in risks(&requested, server) {
        let key = (numbers[risk.rule], risk.code());
        if worst.get(&key).is_none_or(|known| known.severity < risk.severity) {
            worst.insert(key, risk);
        }
    }
    worst
        .into_iter()
        .filter_map(|((number, code), risk)| {
            let alternative = risk.alternative(requested[risk.rule]);
            let text = alternative.text;
            let help = alternative.shown().map_or_else(
                || text.to_owned(),
                |rule| format!("{text}, such as {}", serde_json::to_string(&rule).unwrap_or_default()),
            );
            let finding = Finding::remark(finding::Code::of_risk(code)?, risk.consequence());
            let at = format!("{}{}", rules[number].pointer, risk.pointer);
            Some(finding.severity(risk.severity.into()).at(at).help(help))
        })
        .collect()
}
