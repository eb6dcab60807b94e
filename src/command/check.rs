//! check: validates params offline, as a provision does before it contacts the cluster, and judges their rules: those that
//! match nothing that Kubernetes itself serves, and those that allow more than they say. Several files are judged one by
//! one, and the worst result decides.

use std::{collections::HashSet, mem, path::Path};

use crate::{
    cli::{CheckDocument, CheckOptions},
    diagnostics::{
        error::Failure,
        finding::{Finding, condensed},
    },
    input::{
        documents::{self, Document, Inputs},
        request::{self, Checked},
    },
    k8s::{grant::Grants, name::InstanceName},
    plan::judgement::judge,
    rbac::Catalog,
    report::Report,
};

/// The judgement of one document.
struct Judged {
    /// Its name in messages.
    name: String,
    /// Everything that was found, located in the text.
    findings: Vec<Finding>,
    /// The instance of sound params, else why they are refused.
    result: Result<Checked, Failure>,
}

/// Runs the command.
pub(crate) fn run(options: &CheckOptions, report: &Report) -> Result<(), Failure> {
    // SARIF is about files only.
    let is_sarif = options.document == Some(CheckDocument::Sarif);
    let files = options.files.iter().map(|path| judged(path, true));
    let params = options.params.iter().map(|path| judged(path, is_sarif));
    let (mut findings, mut sound, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for mut judged in files.chain(params) {
        findings.append(&mut judged.findings);
        match judged.result {
            Ok(checked) => sound.push(checked),
            Err(failure) => refused.push((judged.name, failure)),
        }
    }
    if let Some(failure) = worst(refused, sound.len()) {
        return Err(Failure { findings, ..failure });
    }
    if let [Checked { name, params }] = &sound[..] {
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

/// Reads and judges a document; `is_source` is whether its findings name it as their source.
fn judged(path: &Path, is_source: bool) -> Judged {
    let document = Document::read(path);
    let (inputs, findings) = documents::params_of(&document, None);
    let (mut findings, result) = match check(&inputs, findings) {
        Ok((checked, remarks)) => (condensed(remarks), Ok(checked)),
        Err(mut failure) => (mem::take(&mut failure.findings), Err(failure)),
    };
    let text = document.text();
    for finding in &mut findings {
        finding.position = Some(text.locate(finding.pointer.as_deref().unwrap_or_default()));
        if is_source {
            finding.source = Some(document.name().to_owned());
        }
    }
    Judged { name: document.name().to_owned(), findings, result }
}

/// Validates params and judges their rules.
fn check(inputs: &Inputs, findings: Vec<Finding>) -> Result<(Checked, Vec<Finding>), Failure> {
    let grants = request::readable_grants(inputs);
    match request::check(inputs, findings) {
        Ok((checked, remarks)) => Ok((checked, with_judged(remarks, &grants))),
        Err(findings) => Err(Failure::input(with_judged(findings, &grants))),
    }
}

/// The failure of all files; `sound` is how many are not refused. The lowest exit status is the worst: params that are
/// invalid (65) are not judged as a whole, so that a guardrail would refuse (78) more of them.
fn worst(refused: Vec<(String, Failure)>, sound: usize) -> Option<Failure> {
    let names: Vec<String> = refused.iter().map(|(name, _)| name.clone()).collect();
    let (name, mut failure) = refused.into_iter().min_by_key(|(_, failure)| failure.code.exit() as u8)?;
    match (names.len(), sound) {
        (1, 0) => {}
        (1, _) => failure = failure.on(name),
        (count, _) => {
            let more = if count > LISTED { format!(" and {} more", count - LISTED) } else { String::new() };
            let listed = names[..count.min(LISTED)].join(", ");
            failure.cause = format!("{count} of {} files are refused: {listed}{more}", count + sound);
        }
    }
    Some(failure)
}

/// The maximum number of files that the cause of a failure names.
const LISTED: usize = 10;

/// Adds the findings about the rules. A dead element that the schema refuses is not reported twice.
fn with_judged(mut findings: Vec<Finding>, grants: &Grants) -> Vec<Finding> {
    let refused: HashSet<Option<String>> =
        findings.iter().filter(|finding| finding.blocking).map(|finding| finding.pointer.clone()).collect();
    let judged = judge(grants, Catalog::embedded(), None).into_iter();
    findings.extend(judged.filter(|it| it.code.is_risk() || !refused.contains(&it.pointer)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::error::Code;

    /// Code, object and cause of the failure of files that are refused with these codes, beside a number of sound ones.
    fn told(codes: &[Code], sound: usize) -> Option<(Code, Option<String>, String)> {
        let files = codes.iter().enumerate().map(|(number, code)| (number.to_string(), Failure::new(*code, "", "why")));
        worst(files.collect(), sound).map(|failure| (failure.code, failure.object, failure.cause))
    }

    #[test]
    fn failure_of_files_is_the_worst_one() {
        let (input, denied) = (Code::InputRefused, Code::Escalation);
        assert_eq!(told(&[], 2), None);
        assert_eq!(told(&[denied], 0), Some((denied, None, "why".to_owned())));
        assert_eq!(told(&[denied], 2), Some((denied, Some("0".to_owned()), "why".to_owned())));
        let cause = "2 of 3 files are refused: 0, 1".to_owned();
        assert_eq!(told(&[denied, input], 1), Some((input, None, cause.clone())));
        assert_eq!(told(&[input, denied], 1), Some((input, None, cause)));
        let (.., cause) = told(&[input; 12], 0).unwrap();
        assert_eq!(cause, "12 of 12 files are refused: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }
}
