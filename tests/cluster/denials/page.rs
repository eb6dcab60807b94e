//! docs/who-said-no.md, generated from the table.

use std::fmt::Write as _;

use super::table::{End, Row, table};

const PAGE: &str = "docs/who-said-no.md";

const HEAD: &str = "# Refusals: who can reject a request

Everything in an API server, or in front of one, that can refuse a request, and the result for each action: the
[error code](troubleshooting.md#error-codes), whether the request is retried, what the log says, and which of the four
objects exist afterwards. `tests/cluster/denials.rs` tests each row against a real API server, and writes this page.

An admission policy or webhook may deny with any status code and in any words, including those of RBAC, of a quota or of
an overloaded server. The run then always ends with `refused`, at once, and the log quotes it. A webhook that the server
cannot call is a temporary error: it is tried five times and named, and nothing was changed.

In the rows without a resource, changes to the ServiceAccount are refused. It is created first, together with the Role,
and deleted last.

| Refused by | `plan` | `provision` | `decommission` | Retried | The log says | Left by a provision | Left by a decommission |
|---|---|---|---|---|---|---|---|
";

fn code(end: End) -> String {
    if end.code == "ok" { "gets through".to_owned() } else { format!("`{}`", end.code) }
}

fn left(end: End) -> &'static str {
    if end.left.is_empty() { "nothing" } else { end.left }
}

fn line(row: &Row) -> String {
    let faults = ["server-error", "connection-lost", "timeout"];
    let again = if faults.contains(&row.provision.code) { "yes" } else { "no" };
    let says: Vec<String> = row.says.iter().map(|words| format!("`{}`", words.trim().replace('|', "\\|"))).collect();
    let (plan, provision, decommission) = (code(row.plan), code(row.provision), code(row.decommission));
    let (made, kept) = (left(row.provision), left(row.decommission));
    format!(
        "| {} | {plan} | {provision} | {decommission} | {again} | {} | {made} | {kept} |",
        row.who,
        says.join(" \u{2026} ")
    )
}

#[test]
fn page_matches_the_table() {
    let mut page = HEAD.to_owned();
    for row in table() {
        writeln!(page, "{}", line(&row)).unwrap();
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let there = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(there == page, "{PAGE} is out of date: UPDATE_DOCS=1 cargo test --test cluster denials");
}
