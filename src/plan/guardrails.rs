//! Guardrails: what of a judgement is refused, and which waivers lift a refusal on a day. Pure.

use std::collections::HashMap;

use jiff::civil::Date;
use serde::Serialize;

use crate::{
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding, Severity},
    },
    input::request::guardrails::{Carrier, Guardrail, Guardrails, Waiver},
    k8s::grant::Scope,
    plan::{judgement::Judgement, risks::ScopedRisk},
};

/// How many days before its end a waiver is a finding.
const NOTICE: i32 = 14;

/// The guardrails of a run on a day.
#[derive(Default)]
pub(crate) struct Guard {
    /// The guardrails.
    pub(crate) guardrails: Guardrails,
    /// The day, in UTC.
    pub(crate) today: Date,
}

/// A waiver, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WaiverFacts {
    /// The code of the risk.
    pub(crate) code: &'static str,
    /// The highest severity that is accepted.
    pub(crate) max_severity: Severity,
    /// Why it is accepted.
    pub(crate) reason: String,
    /// The last day.
    pub(crate) until: String,
    /// Where it is accepted; empty means everywhere.
    pub(crate) namespaces: Vec<String>,
    /// Whether a risk of the rules is accepted by it.
    pub(crate) used: bool,
    /// Where it is set.
    pub(crate) source: &'static str,
}

/// What the waivers say about a judgement.
#[derive(Default)]
pub(crate) struct Verdict {
    /// The findings about waivers.
    pub(crate) findings: Vec<Finding>,
    /// Every waiver.
    pub(crate) waivers: Vec<WaiverFacts>,
}

/// What a run adds. A guardrail stops no run that adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Additions {
    /// Whether it adds a permission that a request can match: limits on risks apply.
    pub(crate) permissions: bool,
    /// Whether it adds a rule at all: unknown resources are refused.
    pub(crate) rules: bool,
}

impl Additions {
    /// Where nothing is granted yet, or where that is unknown.
    pub(crate) const ALL: Self = Self { permissions: true, rules: true };
}

impl Guard {
    /// The waivers of each guardrail, compared with a judgement.
    pub(crate) fn verdict(&self, judgement: &Judgement) -> Verdict {
        let mut verdict = Verdict::default();
        for guardrail in self.guardrails.iter() {
            for waiver in &guardrail.accept {
                let used = judgement.risks.iter().any(|risk| self.lifts(waiver, risk));
                verdict.waivers.push(facts(waiver, guardrail.carrier, used));
                verdict.findings.extend(self.ends(waiver, guardrail.carrier));
                verdict.findings.extend(self.unused(waiver, guardrail.carrier, &judgement.risks));
            }
        }
        verdict
    }

    /// The refusal of what a run adds, if anything is above a limit.
    pub(crate) fn refusal(&self, judgement: &Judgement, adds: Additions) -> Option<Failure> {
        let refused = self.guardrails.iter().flat_map(|guardrail| self.refused(guardrail, judgement));
        let applies = |it: &Refused<'_>| match it {
            Refused::Risks { .. } => adds.permissions,
            Refused::Unknown { .. } => adds.rules,
        };
        let refused: Vec<Refused<'_>> = refused.filter(applies).collect();
        (!refused.is_empty()).then(|| failure(&refused))
    }

    fn is_over(&self, waiver: &Waiver) -> bool {
        waiver.until < self.today
    }

    /// Whether a waiver lifts a limit for a risk today.
    fn lifts(&self, waiver: &Waiver, risk: &ScopedRisk) -> bool {
        !self.is_over(waiver)
            && waiver.code == risk.code
            && risk.severity <= waiver.max_severity
            && is_within(waiver, risk)
    }

    /// The reason for which waivers accept the risk of a finding, if they do in each of its scopes.
    pub(crate) fn accepts(&self, judgement: &Judgement, finding: &Finding) -> Option<&str> {
        let is_same = |risk: &&ScopedRisk| risk.code == finding.code && Some(&risk.pointer) == finding.pointer.as_ref();
        let waivers = || self.guardrails.iter().flat_map(|guardrail| &guardrail.accept);
        waivers().next()?;
        let reason = |risk: &ScopedRisk| waivers().find(|waiver| self.lifts(waiver, risk)).map(|it| it.reason.as_str());
        let reasons: Option<Vec<&str>> = judgement.risks.iter().filter(is_same).map(reason).collect();
        reasons?.first().copied()
    }

    /// What one guardrail refuses: the limit, and everything above it.
    fn refused<'a>(&self, guardrail: &'a Guardrail, judgement: &'a Judgement) -> Vec<Refused<'a>> {
        let is_above = |risk: &&ScopedRisk| {
            let is_lifted = guardrail.accept.iter().any(|waiver| self.lifts(waiver, risk));
            risk.severity > guardrail.max_risk && !is_lifted
        };
        let risks: Vec<&ScopedRisk> = judgement.risks.iter().filter(is_above).collect();
        let is_unknown = |finding: &&Finding| {
            let is_code = matches!(finding.code, finding::Code::UnknownGroup | finding::Code::UnknownResource);
            guardrail.refuses_unknown && is_code && finding.severity > Severity::Info
        };
        let unknown: Vec<&Finding> = judgement.findings.iter().filter(is_unknown).collect();
        let carrier = guardrail.carrier;
        [
            (!risks.is_empty()).then_some(Refused::Risks { carrier, max_risk: guardrail.max_risk, risks }),
            (!unknown.is_empty()).then_some(Refused::Unknown { carrier, findings: unknown }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn ends(&self, waiver: &Waiver, carrier: Carrier) -> Option<Finding> {
        let days = self.today.until(waiver.until).map_or(0, |span| span.get_days());
        let when = match days {
            _ if self.is_over(waiver) => return None,
            0 => "today".to_owned(),
            1 => "tomorrow".to_owned(),
            days if days <= NOTICE => format!("in {days} days"),
            _ => return None,
        };
        let text = format!(
            "the waiver of {} in {} ends {when}: its last day is {} (UTC)",
            waiver.code.as_str(),
            named(carrier),
            waiver.until
        );
        let help = "narrow the rules before that day, or set a later day if the reason still applies";
        let finding = Finding::remark(finding::Code::WaiverEnds, text).at(waiver.pointer.as_str());
        Some(finding.source(waiver.source.clone()).help(help))
    }

    fn unused(&self, waiver: &Waiver, carrier: Carrier, risks: &[ScopedRisk]) -> Option<Finding> {
        let code = waiver.code.as_str();
        let mut same = risks.iter().filter(|risk| risk.code == waiver.code).peekable();
        let why = if self.is_over(waiver) {
            format!("its last day was {} (UTC)", waiver.until)
        } else if same.peek().is_none() {
            format!("nothing in the params has the risk {code}")
        } else if risks.iter().any(|risk| self.lifts(waiver, risk)) {
            return None;
        } else if same.any(|risk| is_within(waiver, risk)) {
            format!("the risk {code} is more severe than {}", waiver.max_severity.as_str())
        } else {
            format!("the risk {code} is in other namespaces")
        };
        let text = format!("the waiver of {code} in {} lifts nothing: {why}", named(carrier));
        let finding = Finding::remark(finding::Code::WaiverUnused, text).at(waiver.pointer.as_str());
        Some(finding.source(waiver.source.clone()).help("remove the waiver"))
    }
}

/// Whether a waiver is for the scope of a risk.
fn is_within(waiver: &Waiver, risk: &ScopedRisk) -> bool {
    let covers = |scope: &Scope| *scope == Scope::Cluster || *scope == risk.scope;
    waiver.namespaces.is_empty() || waiver.namespaces.iter().any(covers)
}

fn facts(waiver: &Waiver, carrier: Carrier, used: bool) -> WaiverFacts {
    WaiverFacts {
        code: waiver.code.as_str(),
        max_severity: waiver.max_severity,
        reason: waiver.reason.clone(),
        until: waiver.until.to_string(),
        namespaces: waiver.namespaces.iter().map(ToString::to_string).collect(),
        used,
        source: carrier.as_str(),
    }
}

/// A carrier in a sentence.
const fn named(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Params => "the params",
        Carrier::Config | Carrier::CommandLine => carrier.as_str(),
    }
}

/// What a limit refuses.
enum Refused<'a> {
    /// Risks above `max_risk`.
    Risks { carrier: Carrier, max_risk: Severity, risks: Vec<&'a ScopedRisk> },
    /// Rules on unknown groups or resources.
    Unknown { carrier: Carrier, findings: Vec<&'a Finding> },
}

impl Refused<'_> {
    fn carrier(&self) -> Carrier {
        match self {
            Self::Risks { carrier, .. } | Self::Unknown { carrier, .. } => *carrier,
        }
    }

    /// The limit, and each element above it with code and severity.
    fn text(&self) -> String {
        match self {
            Self::Risks { carrier, max_risk, risks } => {
                let max_risk = max_risk.as_str();
                let limit = match carrier {
                    Carrier::CommandLine => format!("--max-risk {max_risk}"),
                    Carrier::Params | Carrier::Config => format!("max_risk {max_risk} of {}", named(*carrier)),
                };
                format!("above {limit}: {}", by_pointer(worst(risks)))
            }
            Self::Unknown { carrier, findings } => {
                let each = findings.iter().map(|finding| {
                    let code = format!("{} {}", finding.code.as_str(), finding.severity.as_str());
                    (finding.pointer.as_deref().unwrap_or_default(), code)
                });
                format!("refused by unknown_resources of {}: {}", named(*carrier), by_pointer(each))
            }
        }
    }
}

/// Each element and code once, with the worst severity of its scopes. Where these are several, they are listed: a waiver may
/// lift the limit for the others.
fn worst<'a>(risks: &[&'a ScopedRisk]) -> impl Iterator<Item = (&'a str, String)> {
    let mut known: Vec<(&ScopedRisk, Vec<String>)> = Vec::new();
    for risk in risks {
        let place = risk.scope.namespace().unwrap_or("the whole cluster").to_owned();
        // The scopes of an element follow one another.
        match known.last_mut() {
            Some((worst, places)) if worst.pointer == risk.pointer && worst.code == risk.code => {
                *worst = if worst.severity < risk.severity { risk } else { worst };
                places.push(place);
            }
            _ => known.push((risk, vec![place])),
        }
    }
    known.into_iter().map(|(risk, places)| {
        let places = listed(&places, PLACES);
        let text = format!("{} {} in {places}", risk.code.as_str(), risk.severity.as_str());
        (risk.pointer.as_str(), text)
    })
}

/// As in `/rules/0/resources/1 (risk-r03 high in a), /rules/1/resources/0 (risk-r05 high in a, b)`.
fn by_pointer<'a>(each: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for (pointer, what) in each {
        let position = *positions.entry(pointer).or_insert(groups.len());
        match groups.get_mut(position) {
            Some((_, all)) => all.push(what),
            None => groups.push((pointer, vec![what])),
        }
    }
    let groups: Vec<String> =
        groups.into_iter().map(|(pointer, all)| format!("{pointer} ({})", all.join(", "))).collect();
    listed(&groups, ELEMENTS)
}

/// The most elements that the cause of a refusal lists. The findings have all of them.
const ELEMENTS: usize = 10;

/// The most places of an element that it lists.
const PLACES: usize = 3;

/// The first of these, and how many more there are.
fn listed(all: &[String], most: usize) -> String {
    let shown = all[..all.len().min(most)].join(", ");
    match all.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn failure(refused: &[Refused<'_>]) -> Failure {
    let cause: Vec<String> = refused.iter().map(Refused::text).collect();
    let failure = Failure::new(Code::Guardrail, "comparing the rules with the guardrails", cause.join("; "));
    let is_elsewhere = |it: &Refused<'_>| it.carrier() != Carrier::Params;
    if refused.iter().all(|it| matches!(it, Refused::Unknown { .. })) {
        failure.next("correct or remove these rules, then run again")
    } else if refused.iter().any(is_elsewhere) {
        failure.next(
            "remove or narrow these rules, then run again; risks that the params accept are not accepted by the limits of \
             config.json and --max-risk",
        )
    } else {
        failure // the usual next step
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        input::request::guardrails::tests::guardrails,
        k8s::grant::{Grants, RequestedRule},
        plan::judgement::judge,
        rbac::Catalog,
    };

    const TODAY: &str = "2026-12-31";

    /// The judgement of a rule on Secrets in these namespaces, and one on something unknown.
    fn judgement(namespaces: &[&str]) -> Judgement {
        let rule = |pointer: &str, resource: &str| RequestedRule {
            pointer: pointer.to_owned(),
            source: None,
            rule: serde_json::from_value(json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]}))
                .unwrap(),
            scopes: namespaces.iter().map(|namespace| Scope::parse(namespace).unwrap()).collect(),
        };
        let rules = vec![rule("/rules/0", "secrets"), rule("/rules/1", "podz")];
        let grants = Grants::new(rules, vec![], &Scope::parse("a").unwrap());
        judge(&grants, &|_| None, Catalog::embedded(), None)
    }

    fn guard(params: &Value, config: &Value) -> Guard {
        Guard { guardrails: guardrails(params, config), today: TODAY.parse().unwrap() }
    }

    fn refusal(params: &Value, config: &Value, judgement: &Judgement) -> Option<Failure> {
        guard(params, config).refusal(judgement, Additions::ALL)
    }

    fn waiver(changes: &Value) -> Value {
        let mut waiver = json!({"code": "risk-r03", "max_severity": "high", "reason": "audit", "until": "2027-12-31"});
        for (key, value) in changes.as_object().unwrap() {
            waiver[key] = value.clone();
        }
        waiver
    }

    fn accepting(max_risk: &str, changes: &Value) -> Value {
        json!({"max_risk": max_risk, "accept": [waiver(changes)]})
    }

    /// Columns: the namespaces of a rule on Secrets, the guardrails of the params and of config.json, what the cause of
    /// the refusal says.
    #[rstest]
    #[case::no_limit(&["a"], json!({}), json!(null), None)]
    #[case::limit_not_reached(&["a"], json!({"max_risk": "high"}), json!(null), None)]
    #[case::below(&["a"], json!({"max_risk": "medium"}), json!(null),
        Some("above max_risk medium of the params: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::cluster(&["*"], json!({"max_risk": "high"}), json!(null),
        Some("above max_risk high of the params: /rules/0/resources/0 (risk-r03 critical in the whole cluster)"))]
    #[case::worst_of_scopes(&["a", "kube-system"], json!({"max_risk": "medium"}), json!(null),
        Some("above max_risk medium of the params: /rules/0/resources/0 (risk-r03 critical in a, kube-system)"))]
    #[case::stricter_config(&["a"], json!({"max_risk": "critical"}), json!({"max_risk": "low"}),
        Some("above max_risk low of config.json: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::stricter_params(&["a"], json!({"max_risk": "low"}), json!({"max_risk": "high"}),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::both(&["a"], json!({"max_risk": "low"}), json!({"max_risk": "medium"}),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in a); above max_risk medium of \
              config.json: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::waived(&["a"], accepting("low", &json!({})), json!(null), None)]
    #[case::waived_on_its_last_day(&["a"], accepting("low", &json!({"until": TODAY})), json!(null), None)]
    #[case::waiver_over(&["a"], accepting("low", &json!({"until": "2026-12-30"})), json!(null),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::waiver_of_another_code(&["a"], accepting("low", &json!({"code": "risk-r04"})), json!(null),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::waiver_up_to_less(&["a"], accepting("low", &json!({"max_severity": "medium"})), json!(null),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::waiver_for_one_of_two(&["a", "b"], accepting("low", &json!({"namespaces": ["a"]})), json!(null),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in b)"))]
    #[case::waiver_for_a_namespace_of_the_cluster(&["*"], accepting("low", &json!({"namespaces": ["a"], "max_severity": "critical"})), json!(null),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 critical in the whole cluster)"))]
    #[case::waiver_for_the_cluster(&["a", "b"], accepting("low", &json!({"namespaces": ["*"]})), json!(null), None)]
    #[case::waiver_of_the_params_for_config(&["a"], accepting("critical", &json!({})), json!({"max_risk": "low"}),
        Some("above max_risk low of config.json: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::waiver_of_config_for_itself(&["a"], json!({}), accepting("low", &json!({})), None)]
    #[case::waiver_of_config_for_the_params(&["a"], json!({"max_risk": "low"}), accepting("low", &json!({})),
        Some("above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in a)"))]
    #[case::unknown_resources(&["a"], json!({"unknown_resources": "refuse"}), json!(null),
        Some("refused by unknown_resources of the params: /rules/1/resources/0 (unknown-resource high)"))]
    #[case::unknown_resources_of_config(&["a"], json!({}), json!({"unknown_resources": "refuse"}),
        Some("refused by unknown_resources of config.json: /rules/1/resources/0 (unknown-resource high)"))]
    fn limit_refuses_what_no_own_waiver_lifts(
        #[case] namespaces: &[&str],
        #[case] params: Value,
        #[case] config: Value,
        #[case] expected: Option<&str>,
    ) {
        let refusal = refusal(&params, &config, &judgement(namespaces));
        assert_eq!(refusal.as_ref().map(|failure| failure.cause.as_str()), expected);
        assert!(refusal.is_none_or(|failure| failure.code == Code::Guardrail));
    }

    #[test]
    fn cause_lists_the_first_elements_and_places() {
        let namespaces: Vec<String> = (0..40).map(|number| format!("ns{number}")).collect();
        let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        let refusal = refusal(&json!({"max_risk": "low"}), &json!(null), &judgement(&names)).unwrap();
        let expected =
            "above max_risk low of the params: /rules/0/resources/0 (risk-r03 high in ns0, ns1, ns10 and 37 more)";
        assert_eq!(refusal.cause, expected);
    }

    /// Columns: the guardrails of the params and of config.json, a part of the next step.
    #[rstest]
    #[case::params(json!({"max_risk": "low"}), json!(null), "accept their risks")]
    #[case::config(json!({}), json!({"max_risk": "low"}), "are not accepted by the limits of config.json")]
    #[case::unknown_in_params(json!({"unknown_resources": "refuse"}), json!(null), "correct or remove these rules")]
    #[case::unknown_in_config(json!({}), json!({"unknown_resources": "refuse"}), "correct or remove these rules")]
    fn next_step_fits_what_is_refused(#[case] params: Value, #[case] config: Value, #[case] next: &str) {
        let refusal = refusal(&params, &config, &judgement(&["a"])).unwrap();
        assert!(refusal.next.contains(next), "{}", refusal.next);
    }

    #[test]
    fn guardrail_stops_only_what_a_run_adds() {
        let (risk, unknown) = (json!({"max_risk": "low"}), json!({"unknown_resources": "refuse"}));
        for (guardrails, permissions, rules, is_refused) in [
            (&risk, true, false, true),
            (&risk, false, true, false),
            (&unknown, false, true, true),
            (&unknown, true, false, false),
            (&risk, false, false, false),
        ] {
            let adds = Additions { permissions, rules };
            let refusal = guard(guardrails, &json!(null)).refusal(&judgement(&["a"]), adds);
            assert_eq!(refusal.is_some(), is_refused, "{guardrails} {adds:?}");
        }
    }

    /// Columns: changes of a waiver in the params, its findings, whether it is used.
    #[rstest]
    #[case::in_use(json!({}), &[], true)]
    #[case::ends_in_time(json!({"until": "2027-01-15"}), &[], true)]
    #[case::ends_in_two_weeks(json!({"until": "2027-01-14"}), &["ends in 14 days: its last day is 2027-01-14 (UTC)"], true)]
    #[case::ends_tomorrow(json!({"until": "2027-01-01"}), &["ends tomorrow"], true)]
    #[case::ends_today(json!({"until": TODAY}), &["ends today"], true)]
    #[case::over(json!({"until": "2026-12-30"}), &["lifts nothing: its last day was 2026-12-30 (UTC)"], false)]
    #[case::far_away(json!({"until": "9999-12-31"}), &[], true)]
    #[case::another_code(json!({"code": "risk-r01"}), &["nothing in the params has the risk risk-r01"], false)]
    #[case::up_to_less(json!({"max_severity": "medium"}), &["the risk risk-r03 is more severe than medium"], false)]
    #[case::elsewhere(json!({"namespaces": ["b"]}), &["the risk risk-r03 is in other namespaces"], false)]
    #[case::unused_and_ending(json!({"namespaces": ["b"], "until": TODAY}), &["ends today", "is in other namespaces"], false)]
    fn waiver_that_ends_or_lifts_nothing_is_reported(
        #[case] changes: Value,
        #[case] expected: &[&str],
        #[case] used: bool,
    ) {
        let verdict = guard(&accepting("critical", &changes), &json!(null)).verdict(&judgement(&["a"]));
        let messages: Vec<&str> = verdict.findings.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages.len(), expected.len(), "{messages:?}");
        for (message, part) in messages.iter().zip(expected) {
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        }
        assert!(verdict.findings.iter().all(|it| it.pointer.as_deref() == Some("/guardrails/accept/0")));
        assert_eq!(verdict.waivers.iter().map(|waiver| waiver.used).collect::<Vec<_>>(), [used]);
    }

    /// A waiver of the params cannot help against a limit that is set elsewhere.
    #[rstest]
    #[case::params(json!({"max_risk": "low"}), json!(null), "accept their risks")]
    #[case::config(json!({"max_risk": "low"}), json!({"max_risk": "low"}), "not accepted by the limits of config.json")]
    #[case::unknown(json!({"unknown_resources": "refuse"}), json!(null), "correct or remove")]
    fn next_step_names_waivers_only_where_they_help(#[case] params: Value, #[case] config: Value, #[case] part: &str) {
        let refusal = refusal(&params, &config, &judgement(&["a"])).unwrap();
        assert!(refusal.next.contains(part), "{}", refusal.next);
    }
}
