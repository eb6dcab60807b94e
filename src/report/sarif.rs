//! Findings as a SARIF 2.1.0 log, which code scanning of forges and editors shows at the line of a file. Pure.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{
    diagnostics::{
        finding::{Code, Finding, Position, Severity},
        secret::sha256,
    },
    rbac::risk::CATALOG,
};

/// The schema, where the standard publishes it.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// What is escaped in one segment of a path: everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The log with these findings. `redact` hides secrets in the name of a file, where escapes could hide them from a later
/// search.
pub(super) fn document(findings: &[Finding], working_directory: &Path, redact: impl Fn(&str) -> String) -> Value {
    let mut rules: Vec<(Code, Severity)> = Vec::new();
    let mut results = Vec::new();
    for finding in findings {
        let index = rules.iter().position(|(code, _)| *code == finding.code).unwrap_or_else(|| {
            rules.push((finding.code, finding.severity));
            rules.len() - 1
        });
        rules[index].1 = rules[index].1.max(finding.severity);
        let file = uri(&redact(finding.source.as_deref().unwrap_or_default()), working_directory);
        results.push(result(finding, index, &file));
    }
    let driver = json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "rules": rules.into_iter().map(|(code, worst)| rule(code, worst)).collect::<Vec<_>>(),
    });
    let run = json!({"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results});
    json!({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})
}

fn result(finding: &Finding, rule: usize, file: &str) -> Value {
    let Finding { code, severity, message, help, position, .. } = finding;
    let pointer = finding.pointer.as_deref().unwrap_or_default();
    let text = help.as_ref().map_or_else(|| message.clone(), |help| format!("{message}: {help}"));
    let mut location = json!({});
    // What an option of the command line contains has no position.
    if let Some(Position { line, column }) = position {
        let region = json!({"startLine": line, "startColumn": column});
        location["physicalLocation"] = json!({"artifactLocation": {"uri": file}, "region": region});
    }
    if !pointer.is_empty() {
        location["logicalLocations"] = json!([{"fullyQualifiedName": pointer}]);
    }
    // A finding stays the same where lines are added above, and while the end of a waiver approaches.
    let distinction = if *code == Code::WaiverEnds { "" } else { message };
    let identity = [code.as_str(), file, pointer, distinction].join("\n");
    let mut result = json!({
        "ruleId": code.as_str(),
        "ruleIndex": rule,
        "level": level(*severity),
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"k8sTokenFinding/v1": sha256(identity.as_bytes())},
        "properties": {"severity": severity.as_str()},
    });
    if let Some(reason) = &finding.accepted {
        result["suppressions"] = json!([{"kind": "external", "justification": reason}]);
    }
    result
}

/// A code as a rule, with the worst severity of its results.
fn rule(code: Code, worst: Severity) -> Value {
    let mut rule = json!({
        "id": code.as_str(),
        "shortDescription": {"text": code.summary()},
        "fullDescription": {"text": code.summary()},
        "help": {"text": "docs/warnings.md explains the code; the message of a result says what to change."},
        "defaultConfiguration": {"level": level(worst)},
        "properties": {"security-severity": score(worst)},
    });
    if let Some(entry) = CATALOG.iter().find(|entry| entry.code == code.as_str()) {
        let consequence = entry.consequence(entry.namespaced.is_none());
        rule["fullDescription"] = json!({"text": format!("{} A rule of this kind {consequence}.", code.summary())});
        let help = format!("Grant something narrower: {}. docs/risks.md explains the code.", entry.instead);
        rule["help"] = json!({"text": help});
        rule["properties"]["tags"] = json!(["security"]);
    }
    rule
}

/// The three levels of SARIF.
const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Info => "note",
    }
}

/// The middle of the range of CVSS scores that has the name of the severity.
const fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.5",
        Severity::Low => "2.0",
        Severity::Info => "0.0",
    }
}

/// The name of a file as a URI: relative to the working directory where that contains it.
fn uri(file: &str, working_directory: &Path) -> String {
    let path = Path::new(file);
    let path = path.strip_prefix(working_directory).unwrap_or(path).to_string_lossy();
    let segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
    let segments: Vec<String> = segments.map(|segment| utf8_percent_encode(segment, ESCAPED).to_string()).collect();
    let start = if path.starts_with('/') { "file:///" } else { "" };
    format!("{start}{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::relative("params/a.json", "params/a.json")]
    #[case::here("./params//./a.json", "params/a.json")]
    #[case::above("../a.json", "../a.json")]
    #[case::below_the_working_directory("/srv/here/params/a.json", "params/a.json")]
    #[case::elsewhere("/srv/here2/a b.json", "file:///srv/here2/a%20b.json")]
    #[case::reserved("a b/c#d?e%f:g.json", "a%20b/c%23d%3Fe%25f%3Ag.json")]
    #[case::not_ascii("\u{e4}.json", "%C3%A4.json")]
    #[case::line_break("a\nb.json", "a%0Ab.json")]
    fn file_name_becomes_a_uri(#[case] file: &str, #[case] expected: &str) {
        assert_eq!(uri(file, Path::new("/srv/here")), expected);
    }

    #[test]
    fn risk_has_consequence_and_alternative() {
        for entry in CATALOG {
            let rule = rule(Code::of_risk(entry.code).unwrap(), Severity::High);
            assert!(rule["help"]["text"].as_str().unwrap().contains(entry.instead), "{rule}");
            assert_ne!(rule["fullDescription"], rule["shortDescription"]);
        }
    }
}
