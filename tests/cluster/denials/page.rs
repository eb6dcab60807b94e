//! docs/who-said-no.md, made from the table.

use std::fmt::Write as _;

use super::table::{End, Row, table};

const PAGE: &str = "docs/who-said-no.md";

const HEAD: &str = "# Who said no

What can refuse a request on an API server, or in front of one, and what comes of it in each action: the code of the
error (README has its exit code and what to do), whether the request is sent again, what the log says and which of the
four objects are there afterwards. Each row is held by `tests/cluster/denials.rs` against a real API server, which also
makes this page: `UPDATE_DOCS=1 cargo test --test cluster denials`.

A policy or a webhook may deny under any status code and in any words, those of RBAC, of a quota or of an overloaded
server among them. Whatever it says, it is `refused`, at once, and the log quotes it. A webhook that cannot be asked is a
fault: it is tried five times, named, and nothing has gone through.

In the rows without a resource, changes to the ServiceAccount are refused: it is made first, together with the Role, and
deleted last.

| Who says no | `plan` | `provision` | `decommission` | Sent again | The log says | Left by a provision | Left by a decommission |
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
fn the_page_is_the_table() {
    let mut page = HEAD.to_owned();
    for row in table() {
        writeln!(page, "{}", line(&row)).unwrap();
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let there = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(there == page, "{PAGE} is not what the table makes of it: UPDATE_DOCS=1 cargo test --test cluster denials");
}
