//! Guardrails: limits on what may be granted, in the params, in `config.json` and on the command line. Pure.

use jiff::civil::Date;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    diagnostics::finding::{self, Finding, Severity, set_source},
    input::documents::{CONFIG, Inputs},
    k8s::grant::Scope,
    schema::{self, Schema},
};

/// The key in the params and in `config.json`.
pub(crate) const KEY: &str = "guardrails";

/// The pointer of that key.
const AT: &str = "/guardrails";

/// Where guardrails are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// In the params.
    Params,
    /// In `config.json`, which the form of the params cannot change.
    Config,
    /// By `--max-risk`.
    CommandLine,
}

impl Carrier {
    /// Its name in messages and in the document.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Params => "params",
            Self::Config => "config.json",
            Self::CommandLine => "--max-risk",
        }
    }
}

/// A waiver: a risk that is accepted up to a severity, until the end of a day in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiver {
    /// JSON pointer to it.
    pub(crate) pointer: String,
    /// The document that it is in, for findings.
    pub(crate) source: Option<String>,
    /// The code of the risk.
    pub(crate) code: finding::Code,
    /// The highest severity that is accepted.
    pub(crate) max_severity: Severity,
    /// Why it is accepted.
    pub(crate) reason: String,
    /// The last day.
    pub(crate) until: Date,
    /// Where it is accepted; empty means everywhere.
    pub(crate) namespaces: Vec<Scope>,
}

/// The guardrails of one carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guardrail {
    /// Where they are set.
    pub(crate) carrier: Carrier,
    /// The highest severity of a risk that is not refused.
    pub(crate) max_risk: Severity,
    /// Whether rules on unknown groups and resources are refused.
    pub(crate) refuses_unknown: bool,
    /// The waivers. They lift this limit, and no other carrier's.
    pub(crate) accept: Vec<Waiver>,
}

/// The guardrails of a run: all of them apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guardrails(Vec<Guardrail>);

impl Guardrails {
    /// Adds the limit of the command line.
    #[must_use]
    pub(crate) fn limited_to(mut self, max_risk: Option<Severity>) -> Self {
        let carrier = Carrier::CommandLine;
        self.0.extend(max_risk.map(|max_risk| Guardrail { carrier, max_risk, refuses_unknown: false, accept: vec![] }));
        self
    }

    /// The guardrails of each carrier.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Guardrail> {
        self.0.iter()
    }

    /// Whether rules on unknown groups and resources are refused.
    pub(crate) fn refuse_unknown(&self) -> bool {
        self.0.iter().any(|guardrail| guardrail.refuses_unknown)
    }

    /// Whether risks are refused at all.
    pub(crate) fn limit_risks(&self) -> bool {
        self.0.iter().any(|guardrail| guardrail.max_risk < Severity::Critical)
    }
}

/// The member of a document, as the schema of the params describes it.
#[derive(Deserialize)]
struct Document {
    max_risk: Option<String>,
    unknown_resources: Option<String>,
    #[serde(default)]
    accept: Vec<Entry>,
}

/// An entry of `accept`.
#[derive(Deserialize)]
struct Entry {
    code: String,
    max_severity: String,
    reason: String,
    until: String,
    #[serde(default)]
    namespaces: Vec<String>,
}

/// The guardrails of the params and of `config.json`. The schema has validated those of the params.
pub(crate) fn parse(inputs: &Inputs, findings: &mut Vec<Finding>) -> Guardrails {
    let mut guardrails = Guardrails::default();
    if let Some(document) = inputs.params.get(KEY) {
        let is_refused = findings.iter().any(|it| it.blocking && it.pointer.as_deref().is_some_and(is_within));
        match of_carrier(document, Carrier::Params, inputs.origin.source(AT).as_deref()) {
            Some(guardrail) => guardrails.0.push(guardrail),
            None if is_refused => {}
            None => findings.push(
                Finding::blocking(finding::Code::Schema, AT, "has an invalid structure")
                    .source(inputs.origin.source(AT)),
            ),
        }
    }
    if let Some(document) = inputs.config.get(KEY).filter(|value| !value.is_null()).map(without_nulls) {
        let problems = problems_of_config(&document);
        match of_carrier(&document, Carrier::Config, Some(CONFIG)) {
            Some(guardrail) if problems.is_empty() => guardrails.0.push(guardrail),
            _ => findings.extend(problems),
        }
    }
    guardrails
}

fn is_within(pointer: &str) -> bool {
    pointer.strip_prefix(AT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The document without members that are null: the platform writes null for a program that yields nothing.
fn without_nulls(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(members) = document.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    document
}

/// What the schema of the params refuses in those of `config.json`.
fn problems_of_config(document: &Value) -> Vec<Finding> {
    let params: Value = serde_json::from_str(schema::PARAMS).unwrap_or_default();
    let form = params.pointer("/properties/guardrails").cloned().unwrap_or_default();
    let in_config = |text: String| format!("guardrails of config.json: {text}");
    let mut problems = match Schema::new(form) {
        Ok(form) => form.check(AT, document),
        Err(why) => vec![Finding::blocking(finding::Code::Schema, AT, why)],
    };
    if problems.is_empty() && of_carrier(document, Carrier::Config, None).is_none() {
        problems.push(Finding::blocking(finding::Code::Schema, AT, "have an invalid structure"));
    }
    for problem in &mut problems {
        problem.message = in_config(std::mem::take(&mut problem.message));
    }
    set_source(&mut problems, CONFIG);
    problems
}

/// The guardrails of a document, if all of it can be read.
fn of_carrier(document: &Value, carrier: Carrier, source: Option<&str>) -> Option<Guardrail> {
    let document = Document::deserialize(document).ok()?;
    let waivers = document.accept.into_iter().enumerate().map(|(index, entry)| waiver(index, entry, source));
    Some(Guardrail {
        carrier,
        max_risk: document.max_risk.map_or(Some(Severity::Critical), |level| Severity::limit(&level))?,
        refuses_unknown: document.unknown_resources.is_some_and(|choice| choice == "refuse"),
        accept: waivers.collect::<Option<_>>()?,
    })
}

fn waiver(index: usize, entry: Entry, source: Option<&str>) -> Option<Waiver> {
    let scopes = entry.namespaces.iter().map(|text| Scope::parse(text).ok());
    Some(Waiver {
        pointer: format!("{AT}/accept/{index}"),
        source: source.map(str::to_owned),
        code: finding::Code::of_risk(&entry.code).filter(|code| code.is_risk())?,
        max_severity: Severity::limit(&entry.max_severity)?,
        reason: entry.reason,
        until: entry.until.parse().ok()?,
        namespaces: scopes.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{input::request::tests::inputs, rbac::risk::CATALOG};

    /// Valid input with these guardrails in the params, and in `config.json`.
    fn with(params: &Value, config: &Value) -> Inputs {
        let mut inputs = inputs();
        inputs.params[KEY] = params.clone();
        inputs.config = json!({KEY: config});
        inputs
    }

    /// The guardrails of the params and of `config.json`.
    pub(crate) fn guardrails(params: &Value, config: &Value) -> Guardrails {
        let mut findings = Vec::new();
        let guardrails = parse(&with(params, config), &mut findings);
        assert_eq!(findings, []);
        guardrails
    }

    fn waiver() -> Value {
        json!({"code": "risk-r03", "max_severity": "high", "reason": "audit", "until": "2028-02-29"})
    }

    #[test]
    fn each_carrier_keeps_its_own_limits() {
        let mut accepted = waiver();
        accepted["namespaces"] = json!(["team-a", "*"]);
        let inputs =
            with(&json!({"max_risk": "medium", "accept": [accepted]}), &json!({"unknown_resources": "refuse"}));
        let mut findings = Vec::new();
        let guardrails = parse(&inputs, &mut findings).limited_to(Some(Severity::High));
        assert_eq!(findings, []);
        let limits: Vec<_> = guardrails.iter().map(|it| (it.carrier, it.max_risk, it.refuses_unknown)).collect();
        let expected = [
            (Carrier::Params, Severity::Medium, false),
            (Carrier::Config, Severity::Critical, true),
            (Carrier::CommandLine, Severity::High, false),
        ];
        assert_eq!(limits, expected);
        assert!(guardrails.limit_risks());
        let waiver = &guardrails.iter().next().unwrap().accept[0];
        assert_eq!((waiver.pointer.as_str(), waiver.code.as_str()), ("/guardrails/accept/0", "risk-r03"));
        assert_eq!((waiver.until.to_string().as_str(), waiver.namespaces.len()), ("2028-02-29", 2));
    }

    /// Columns: the guardrails of `config.json`, the pointers that are refused.
    #[rstest]
    #[case::absent(json!(null), &[])]
    #[case::empty(json!({}), &[])]
    #[case::empty_programs(json!({"max_risk": null, "accept": null}), &[])]
    #[case::all(json!({"max_risk": "low", "unknown_resources": "warn", "accept": [waiver()]}), &[])]
    #[case::no_object(json!("high"), &["/guardrails"])]
    #[case::level(json!({"max_risk": "info"}), &["/guardrails/max_risk"])]
    #[case::misspelt(json!({"max_risks": "low"}), &["/guardrails"])]
    #[case::unknown(json!({"unknown_resources": true}), &["/guardrails/unknown_resources", "/guardrails/unknown_resources"])]
    #[case::no_day(json!({"accept": [{"code": "risk-r03", "max_severity": "high", "reason": "a", "until": "2027-02-29"}]}), &["/guardrails/accept/0/until"])]
    fn config_is_validated_like_the_params(#[case] config: Value, #[case] expected: &[&str]) {
        let mut findings = Vec::new();
        let guardrails = parse(&with(&json!({}), &config), &mut findings);
        let pointers: Vec<&str> = findings.iter().filter_map(|finding| finding.pointer.as_deref()).collect();
        assert_eq!(pointers, expected, "{findings:?}");
        assert!(findings.iter().all(|it| it.blocking && it.message.starts_with("guardrails of config.json: ")));
        let is_read = expected.is_empty() && !config.is_null();
        assert_eq!(guardrails.iter().count(), 1 + usize::from(is_read));
    }

    #[test]
    fn form_offers_each_code_of_the_catalogue() {
        let params: Value = serde_json::from_str(schema::PARAMS).unwrap();
        let codes = params.pointer("/properties/guardrails/properties/accept/items/properties/code/enum").unwrap();
        let known: Vec<&str> = CATALOG.iter().map(|entry| entry.code).collect();
        assert_eq!(*codes, json!(known));
    }
}
