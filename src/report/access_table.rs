//! What rules allow, as a table for people: resources by verbs, scope by scope, 80 columns wide where names allow it. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    diagnostics::{finding::Severity, text::sanitize},
    plan::access_matrix::Access,
    rbac::PermissionRecord,
};

/// The verbs with a column of their own. Others are listed at the end of the row.
const COLUMNS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];

/// The least and the greatest width of the first column: the verbs beside it end at column 80. A longer name is on a line of
/// its own.
const FIRST: std::ops::RangeInclusive<usize> = 34..=38;

/// The longest label of a row.
const LONGEST: usize = 120;

/// The table, with a legend of the marks in it; `home` is the namespace that comes first. The `unknown` ClusterRoles allow
/// something that is not in it.
pub(crate) fn access_table(cells: &[Access], home: &str, unknown: &[String]) -> String {
    let mut scopes: BTreeMap<(u8, &str), BTreeMap<String, Vec<&Access>>> = BTreeMap::new();
    for cell in cells {
        let (scope, label) = place_and_label(&cell.permission);
        let order = match scope {
            Some(namespace) if namespace == home => 0,
            Some(_) => 1,
            None => 2,
        };
        scopes.entry((order, scope.unwrap_or_default())).or_default().entry(label).or_default().push(cell);
    }
    let widths = scopes.values().flat_map(BTreeMap::keys).map(|label| label.chars().count() + 3);
    let widest = widths.filter(|width| FIRST.contains(width)).max();
    let first = widest.unwrap_or(*FIRST.start());
    let mut text = String::new();
    for ((order, namespace), rows) in &scopes {
        let heading = if *order == 2 { "whole cluster".to_owned() } else { format!("namespace {namespace}") };
        let _ = writeln!(text, "{heading:<first$}{}", COLUMNS.join(" "));
        for (label, cells) in rows {
            let _ = writeln!(text, "{}", row(label, cells, first).trim_end());
        }
        text.push('\n');
    }
    if cells.is_empty() && unknown.is_empty() {
        return "nothing is allowed\n".to_owned();
    }
    for role in unknown {
        let _ = writeln!(text, "ClusterRole {role}: unknown, so what it allows is not in this table");
    }
    text + &legend(cells)
}

fn row(label: &str, cells: &[&Access], first: usize) -> String {
    let label = format!("  {label}");
    let mut row =
        if label.chars().count() < first { format!("{label:<first$}") } else { format!("{label}\n{:<first$}", "") };
    for verb in COLUMNS {
        let mark = cells.iter().find(|cell| cell.permission.verb() == verb).map(|cell| mark(cell));
        let _ = write!(row, "{:<width$}", mark.unwrap_or_default(), width = verb.len() + 1);
    }
    let others = cells.iter().filter(|cell| !COLUMNS.contains(&cell.permission.verb()));
    let others: Vec<String> =
        others.map(|cell| format!("{} {}", sanitize(cell.permission.verb(), LONGEST), mark(cell))).collect();
    row + &others.join(", ")
}

const fn is_risky(cell: &Access) -> bool {
    matches!(cell.severity, Some(Severity::Medium | Severity::High | Severity::Critical))
}

fn mark(cell: &Access) -> String {
    let origin = match cell {
        Access { dead: true, .. } => "-",
        Access { asked: true, .. } => "x",
        Access { .. } => "o",
    };
    if is_risky(cell) { format!("{origin}!") } else { origin.to_owned() }
}

/// The explanation of each mark that occurs.
fn legend(cells: &[Access]) -> String {
    let mut roles: Vec<&str> = cells.iter().flat_map(|cell| &cell.cluster_roles).map(String::as_str).collect();
    roles.sort_unstable();
    roles.dedup();
    let through = format!("o  allowed only through {}", roles.join(", "));
    let marks: [(bool, &str); 4] = [
        (cells.iter().any(|cell| cell.asked && !cell.dead), "x  allowed by a rule"),
        (cells.iter().any(|cell| !cell.asked && !cell.dead), &through),
        (cells.iter().any(is_risky), "!  a risk of severity medium or above"),
        (cells.iter().any(|cell| cell.dead), "-  asked for, but no request matches it"),
    ];
    marks.iter().filter(|(occurs, _)| *occurs).fold(String::new(), |text, (_, line)| text + line + "\n")
}

/// The namespace, and the resource as kubectl writes it: `deployments.apps/scale`, `secrets "db"`.
fn place_and_label(permission: &PermissionRecord) -> (Option<&str>, String) {
    match permission {
        PermissionRecord::Url { url, .. } => (None, sanitize(url, LONGEST)),
        PermissionRecord::Resource { group, resource, name, namespace, .. } => {
            let (plural, subresource) = match resource.split_once('/') {
                Some((plural, subresource)) => (plural, format!("/{subresource}")),
                None => (resource.as_str(), String::new()),
            };
            let group = if group.is_empty() { String::new() } else { format!(".{group}") };
            let name = name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
            (namespace.as_deref(), sanitize(&format!("{plural}{group}{subresource}{name}"), LONGEST))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(verb: &str, resource: &str, group: &str, namespace: Option<&str>) -> Access {
        Access {
            permission: PermissionRecord::Resource {
                verb: verb.to_owned(),
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: None,
                namespace: namespace.map(str::to_owned),
            },
            asked: true,
            cluster_roles: Vec::new(),
            risks: Vec::new(),
            severity: None,
            dead: false,
        }
    }

    #[test]
    fn table_lists_home_first_and_the_cluster_last() {
        let url = PermissionRecord::Url { verb: "get".to_owned(), url: "/metrics".to_owned() };
        let cells = [
            Access { permission: url, ..cell("get", "", "", None) },
            cell("get", "nodes", "", None),
            cell("get", "pods", "", Some("a")),
            Access { severity: Some(Severity::High), ..cell("create", "pods/exec", "", Some("home")) },
            Access { dead: true, ..cell("get", "deployment", "apps", Some("home")) },
            Access {
                asked: false,
                cluster_roles: vec!["edit".to_owned()],
                ..cell("patch", "deployments/scale", "apps", Some("home"))
            },
            Access { severity: Some(Severity::Low), ..cell("get", "deployments/scale", "apps", Some("home")) },
            Access {
                severity: Some(Severity::Medium),
                ..cell("deletecollection", "deployments/scale", "apps", Some("home"))
            },
        ];
        let expected = "\
namespace home                    get list watch create update patch delete
  deployment.apps                 -
  deployments.apps/scale          x                            o            deletecollection x!
  pods/exec                                      x!

namespace a                       get list watch create update patch delete
  pods                            x

whole cluster                     get list watch create update patch delete
  /metrics                        x
  nodes                           x

x  allowed by a rule
o  allowed only through edit
!  a risk of severity medium or above
-  asked for, but no request matches it
";
        assert_eq!(access_table(&cells, "home", &[]), expected);
    }

    #[test]
    fn long_name_is_on_a_line_of_its_own() {
        let long = cell("get", "horizontalpodautoscalers/status", "autoscaling", Some("home"));
        let table = access_table(&[long, cell("delete", "pods", "", Some("home"))], "home", &[]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[1..3],
            ["  horizontalpodautoscalers.autoscaling/status", "                                  x"]
        );
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
    }

    #[test]
    fn names_are_quoted_and_sanitized() {
        let named = PermissionRecord::Resource {
            verb: "get".to_owned(),
            group: String::new(),
            resource: "secrets".to_owned(),
            name: Some("db\u{1b}[31m".to_owned()),
            namespace: Some("home".to_owned()),
        };
        let table = access_table(&[Access { permission: named, ..cell("get", "", "", None) }], "home", &[]);
        assert!(table.contains("  secrets \"db"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table:?}");
        assert!(!table.contains("through") && !table.contains('!'), "only the marks that occur are explained: {table}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(access_table(&[], "home", &[]), "nothing is allowed\n");
        let unknown = access_table(&[], "home", &["deployer".to_owned()]);
        assert_eq!(unknown, "ClusterRole deployer: unknown, so what it allows is not in this table\n");
    }
}
