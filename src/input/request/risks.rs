//! Risks of the rules of the params, as findings. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    diagnostics::finding::{self, Finding},
    input::{documents::Inputs, request::grants},
    k8s::{
        grant::{Place, RequestedRule, RoleSource, Scope},
        name::Namespace,
    },
    rbac::risk::{Requested, Risk, risks},
};

/// The risks of the rules, the worst first; also of params that are refused for another reason, as far as their rules
/// can be read. The version of the server is unknown.
pub(crate) fn findings(inputs: &Inputs) -> Vec<Finding> {
    let namespace = inputs.params.get("namespace").and_then(Value::as_str).unwrap_or_default();
    // A namespace that is refused is judged as any other.
    let Ok(home) = Namespace::parse(namespace).or_else(|_| Namespace::parse("default")) else { return Vec::new() };
    let home = Place::new(Scope::Namespace(home), RoleSource::Rules);
    of_rules(grants::parse(&inputs.params, &home).0.requested())
}

/// One finding for each rule and code: that of the scope where it is worst.
fn of_rules(rules: &[RequestedRule]) -> Vec<Finding> {
    let scopes = |(number, rule): (usize, &RequestedRule)| rule.scopes.iter().map(move |_| number).collect::<Vec<_>>();
    let numbers: Vec<usize> = rules.iter().enumerate().flat_map(scopes).collect();
    let requested: Vec<Requested<'_>> =
        rules.iter().flat_map(|rule| rule.scopes.iter().map(move |scope| (&rule.rule, scope.namespace()))).collect();
    let mut worst: BTreeMap<(usize, &str), Risk> = BTreeMap::new();
    for risk in risks(&requested, None) {
        let key = (numbers[risk.rule], risk.code());
        if worst.get(&key).is_none_or(|known| known.severity < risk.severity) {
            worst.insert(key, risk);
        }
    }
    let mut found: Vec<Finding> = worst
        .into_iter()
        .filter_map(|((number, code), risk)| {
            let alternative = risk.alternative(requested[risk.rule]);
            let help = alternative.shown().map_or_else(
                || alternative.text.to_owned(),
                |rule| format!("{}, such as {}", alternative.text, serde_json::to_string(&rule).unwrap_or_default()),
            );
            let finding = Finding::remark(finding::Code::of_risk(code)?, risk.consequence());
            let at = format!("{}{}", rules[number].pointer, risk.pointer);
            Some(finding.severity(risk.severity.into()).at(at).help(help))
        })
        .collect();
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}
