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
    let mut all: Vec<Judged> = files.chain(options.params.iter().map(|path| judged(path, is_sarif))).collect();
    let findings: Vec<Finding> = all.iter_mut().flat_map(|judged| mem::take(&mut judged.findings)).collect();
    let total = all.len();
    let mut results = all.into_iter().map(|judged| judged.result.map_err(|failure| (judged.name, failure)));
    let sound = match (total, results.next()) {
        (1, Some(Ok(checked))) => {
            report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
            "the params are valid".to_owned()
        }
        (1, Some(Err((_, failure)))) => return Err(Failure { findings, ..failure }),
        (_, first) => {
            let refused: Vec<_> = first.into_iter().chain(results).filter_map(Result::err).collect();
            if let Some(failure) = worst(refused, total) {
                return Err(Failure { findings, ..failure });
            }
            format!("the params of {total} files are valid")
        }
    };
    for finding in findings {
        report.finding(finding);
    }
    report.done(&sound);
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

/// The failure of several files. The lowest exit status is the worst: params that are invalid (65) are not judged as a
/// whole, so that they may be more than what a guardrail refuses (78).
fn worst(refused: Vec<(String, Failure)>, total: usize) -> Option<Failure> {
    let names: Vec<String> = refused.iter().map(|(name, _)| name.clone()).collect();
    let (name, mut failure) = refused.into_iter().min_by_key(|(_, failure)| failure.code.exit() as u8)?;
    if names.len() == 1 {
        return Some(failure.on(name));
    }
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    let listed: Vec<String> = names.iter().take(LISTED).cloned().collect();
    failure.cause = format!("{} of {total} files are refused: {}{more}", names.len(), listed.join(", "));
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
