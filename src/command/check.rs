//! check: validates params offline, as a provision does before it contacts the cluster, and judges their rules: those that
//! match nothing that Kubernetes itself serves, and those that allow more than they say. Several files are judged one by
//! one, and the worst result decides.

use std::{cmp::Reverse, collections::HashSet, mem};

use crate::{
    cli::{CheckDocument, CheckOptions, ParamsSource},
    command::today,
    diagnostics::{
        error::Failure,
        finding::{Finding, Severity, condensed},
    },
    input::{
        documents::{self, Inputs},
        request::{self, Checked},
    },
    k8s::name::InstanceName,
    plan::{
        guardrails::{Additions, Guard, WaiverFacts},
        judgement::{judge, unknown_roles},
    },
    rbac::{Catalog, default_cluster_role},
    report::Report,
};

/// The judgement of one document.
struct Judged {
    /// Its name in messages.
    name: String,
    /// Everything that was found, located in the text.
    findings: Vec<Finding>,
    /// Its waivers.
    waivers: Vec<WaiverFacts>,
    /// The instance of sound params, else why they are refused.
    result: Result<Checked, Failure>,
}

/// Runs the command.
pub(crate) fn run(options: &CheckOptions, report: &Report) -> Result<(), Failure> {
    // SARIF is about places in files. The lines of the log about `--params` are those of other commands.
    let is_sarif = options.document == Some(CheckDocument::Sarif);
    let files = options.files.iter().map(|source| judged(source, options.max_risk, true));
    let params = options.params.iter().map(|source| judged(source, options.max_risk, is_sarif));
    let (mut findings, mut waivers, mut sound, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for mut judged in files.chain(params) {
        findings.append(&mut judged.findings);
        waivers.append(&mut judged.waivers);
        match judged.result {
            Ok(checked) => sound.push(checked),
            Err(failure) => refused.push((judged.name, failure)),
        }
    }
    report.waivers(waivers);
    if let Some(failure) = worst(refused, sound.len()) {
        return Err(Failure { findings, ..failure });
    }
    if let [Checked { name, params, .. }] = &sound[..] {
        report.instance(name.as_ref().map(InstanceName::as_str), params.namespace.as_str());
    }
    for finding in findings {
        report.finding(finding);
    }
    let total = sound.len();
    report.done(&if total == 1 {
        "the params are valid".to_owned()
    } else {
        format!("the params of {total} files are valid")
    });
    Ok(())
}

/// Reads and judges a document; `is_located` is whether its findings have a position.
fn judged(source: &ParamsSource, max_risk: Option<Severity>, is_located: bool) -> Judged {
    let (inputs, findings, document) = documents::params_with_document(source);
    let mut waivers = Vec::new();
    let (mut findings, result) = match check(&inputs, max_risk, findings, &mut waivers) {
        Ok((checked, remarks)) => (condensed(remarks), Ok(checked)),
        Err(mut failure) => (mem::take(&mut failure.findings), Err(failure)),
    };
    if let Some(document) = document.as_ref().filter(|_| is_located) {
        let text = document.text();
        // An option of the command line may be the source as well.
        for finding in findings.iter_mut().filter(|finding| finding.source.as_deref() == Some(document.name())) {
            finding.position = Some(text.locate(finding.pointer.as_deref().unwrap_or_default()));
        }
    }
    let name = document.map_or_else(|| "the options".to_owned(), |document| document.name().to_owned());
    Judged { name, findings, waivers, result }
}

/// Validates params and judges their rules.
fn check(
    inputs: &Inputs,
    max_risk: Option<Severity>,
    findings: Vec<Finding>,
    waivers: &mut Vec<WaiverFacts>,
) -> Result<(Checked, Vec<Finding>), Failure> {
    let grants = request::readable_grants(inputs);
    let mut judgement = judge(&grants, &|name| default_cluster_role(name), Catalog::embedded(), None);
    let (checked, remarks) = match request::check(inputs, findings) {
        Ok(parsed) => parsed,
        Err(findings) => return Err(Failure::input(with_judged(findings, judgement.findings))),
    };
    let guard = Guard { guardrails: checked.guardrails.clone().limited_to(max_risk), today: today() };
    let mut verdict = guard.verdict(&judgement);
    let reasons: Vec<Option<String>> =
        judgement.findings.iter().map(|finding| guard.accepts(&judgement, finding).map(str::to_owned)).collect();
    for (finding, accepted) in judgement.findings.iter_mut().zip(reasons) {
        finding.accepted = accepted;
    }
    waivers.append(&mut verdict.waivers);
    let refusal = guard.refusal(&judgement, Additions::ALL);
    let mut findings = with_judged(remarks, judgement.findings);
    findings.append(&mut verdict.findings);
    if guard.guardrails.limit_risks() {
        findings.extend(unknown_roles(&grants, &|name| default_cluster_role(name), |name| {
            let text = format!(
                "the rules of ClusterRole {name} are unknown without a cluster, so no max_risk applies to them here"
            );
            (text, "run plan: it reads the ClusterRole from the cluster, and applies every guardrail")
        }));
    }
    // Input errors first, then the most severe.
    findings.sort_by_key(|finding| Reverse((finding.blocking, finding.severity)));
    match refusal {
        Some(refusal) => Err(Failure { findings: condensed(findings), ..refusal }),
        None => Ok((checked, findings)),
    }
}

/// The failure of all files; `sound` is how many are not refused. The lowest exit status is the worst: params that are
/// invalid (65) are not judged as a whole, so that a guardrail would refuse (78) more of them.
fn worst(refused: Vec<(String, Failure)>, sound: usize) -> Option<Failure> {
    let reason = |(name, failure): &(String, Failure)| format!("{name}: {}, {}", failure.code.as_str(), failure.cause);
    let reasons: Vec<String> = refused.iter().map(reason).collect();
    let (name, mut failure) = refused.into_iter().min_by_key(|(_, failure)| failure.code.exit() as u8)?;
    match (reasons.len(), sound) {
        (1, 0) => {}
        (1, _) => failure = failure.on(name),
        (count, _) => {
            let more = if count > LISTED { format!("; and {} more", count - LISTED) } else { String::new() };
            let listed = reasons[..count.min(LISTED)].join("; ");
            failure.cause = format!("{count} of {} files are refused: {listed}{more}", count + sound);
        }
    }
    Some(failure)
}

/// The maximum number of files that the cause of a failure names.
const LISTED: usize = 10;

/// Adds the findings about the rules. A dead element that the schema refuses is not reported twice.
fn with_judged(mut findings: Vec<Finding>, judged: Vec<Finding>) -> Vec<Finding> {
    let refused: HashSet<Option<String>> =
        findings.iter().filter(|finding| finding.blocking).map(|finding| finding.pointer.clone()).collect();
    findings.extend(judged.into_iter().filter(|it| it.code.is_risk() || !refused.contains(&it.pointer)));
    findings.sort_by_key(|finding| Reverse((finding.blocking, finding.severity)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::error::Code;

    /// Code, object and cause of the failure of files that are refused with these codes, beside a number of sound ones.
    fn failure_of(codes: &[Code], sound: usize) -> Option<(Code, Option<String>, String)> {
        let files = codes.iter().enumerate().map(|(number, code)| (number.to_string(), Failure::new(*code, "", "why")));
        worst(files.collect(), sound).map(|failure| (failure.code, failure.object, failure.cause))
    }

    #[test]
    fn failure_of_files_is_the_worst_one() {
        let (input, denied) = (Code::InputRefused, Code::Escalation);
        assert_eq!(failure_of(&[], 2), None);
        assert_eq!(failure_of(&[denied], 0), Some((denied, None, "why".to_owned())));
        assert_eq!(failure_of(&[denied], 2), Some((denied, Some("0".to_owned()), "why".to_owned())));
        let cause = "2 of 3 files are refused: 0: escalation, why; 1: input-refused, why".to_owned();
        assert_eq!(failure_of(&[denied, input], 1), Some((input, None, cause)));
        let (.., cause) = failure_of(&[input; 12], 0).unwrap();
        assert!(cause.starts_with("12 of 12 files are refused: 0: ") && cause.ends_with("; and 2 more"), "{cause}");
    }
}
