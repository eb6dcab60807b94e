//! docs/risks.md, made from the catalogue of risks in the program. `UPDATE_DOCS=1 cargo test --test documents` rewrites it.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use k8s_token::risk::{CATALOG, Entry, Level};

/// The page with an entry for each risk code.
pub const PAGE: &str = "docs/risks.md";

const INTRODUCTION: &str = "\
# Risks

<!-- Made from src/rbac/risk/catalog.rs: UPDATE_DOCS=1 cargo test --test documents -->

Some permissions allow more than their names say: a credential that may create pods can read every Secret of the
namespace. `k8s-token check` reports them before anything is granted, with a severity, what a holder could do,
and something narrower to grant instead. They change no exit code by
themselves; a guardrail (docs/configuration.md) refuses those above a limit. The verbs `*`, `escalate`, `bind` and
`impersonate` are not accepted in params at all (`schema`, exit 65): their risks are reported beside that error.

Rules are compared as the API server does it: API group, resource, subresource, verb and name count, and a wildcard
raises every code that it reaches. Rules of one request are judged together: some permissions are worse beside others.
A permission that can have no effect is no risk, such as nodes in a Role.

| severity | what a holder could take over |
|---|---|
| critical | a whole namespace or cluster, at once |
| high | a whole namespace, with a further step |
| medium | single applications |
| low, info | little |

## Risk codes
";

/// The page as it should be.
fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for entry in CATALOG {
        let Entry { code, title, when, instead, .. } = entry;
        let kind = or(&by_importance(entry));
        let applies: Vec<String> =
            [targets(entry), (*when).to_owned()].into_iter().filter(|it| !it.is_empty()).collect();
        let consequence = capital(&entry.consequence(entry.namespaced.is_none()));
        let _ = writeln!(page, "\n### {code}\n\nSeverity {kind}.");
        for paragraph in [
            format!("**{title}.** {}", applies.join(" ")),
            format!("**Consequence.** {consequence}."),
            format!("**Severity.** {}", severity(entry)),
            format!("**Instead.** {}.", capital(instead)),
        ] {
            let _ = writeln!(page, "\n{}", wrapped(&paragraph));
        }
    }
    page
}

/// Every severity, that of a Role first.
fn by_importance(entry: &Entry) -> Vec<&'static str> {
    let usual = entry.namespaced.unwrap_or(entry.cluster);
    let others = entry.levels().into_iter().rev().filter(|level| *level != usual);
    [usual].into_iter().chain(others).map(Level::as_str).collect()
}

fn or(words: &[&str]) -> String {
    match words {
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => String::new(),
    }
}

/// Resources by their API group.
type Resources = BTreeMap<&'static str, Vec<&'static str>>;

/// As in `get, list on secrets; create on deployments (apps)`.
fn targets(entry: &Entry) -> String {
    let mut lines: Vec<(Vec<&str>, Resources)> = Vec::new();
    for target in entry.targets {
        let verbs: Vec<&str> = target.verbs.names().collect();
        let line = lines.iter().position(|(known, _)| *known == verbs).unwrap_or_else(|| {
            lines.push((verbs, BTreeMap::new()));
            lines.len() - 1
        });
        lines[line].1.entry(target.group).or_default().push(target.resource);
    }
    let code = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let line = |(verbs, groups): &(Vec<&str>, Resources)| {
        let resources = groups.iter().map(|(group, resources)| match *group {
            "" => code(resources),
            group => format!("{} ({group})", code(resources)),
        });
        format!("{} on {}", code(verbs), resources.collect::<Vec<_>>().join(", "))
    };
    let text = lines.iter().map(line).collect::<Vec<_>>().join("; ");
    if text.is_empty() { text } else { text + "." }
}

/// A paragraph in lines of at most 120 characters.
fn wrapped(paragraph: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in paragraph.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() >= 120 {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

fn severity(entry: &Entry) -> String {
    let mut text = match entry.namespaced {
        None => format!("Cluster-wide {}; no effect in a namespace.", entry.cluster.as_str()),
        Some(level) if level == entry.cluster => format!("{}.", capital(level.as_str())),
        Some(level) => format!("In a namespace {}; cluster-wide {}.", level.as_str(), entry.cluster.as_str()),
    };
    if let Some(level) = entry.otherwise {
        text = format!("{} or {}, as above.", capital(text.trim_end_matches('.')), level.as_str());
    }
    if let Some(system) = entry.system {
        let _ = write!(text, " In kube-system, kube-public and kube-node-lease {}.", system.as_str());
    }
    for target in entry.targets {
        if let Some(level) = target.level() {
            let _ = write!(text, " On `{}` {}.", target.resource, level.as_str());
        }
    }
    if entry.lower_with_names {
        text.push_str(" One lower where `resourceNames` limit it to single objects, unless it can create them.");
    }
    for together in entry.together {
        let _ = write!(text, " One higher together {}.", together.text.replacen(", it ", ": it ", 1));
    }
    text
}

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

#[test]
fn risk_page_is_that_of_the_catalogue() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, page()).expect(PAGE);
    }
    let committed = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(committed == page(), "{PAGE} is stale: run UPDATE_DOCS=1 cargo test --test documents");
}
