//! Every reason for which an API server can refuse a request, in plan, provision and decommission: the error code, the
//! number of attempts, the log, and the objects that remain. docs/who-said-no.md shows the same table.

mod arrange;
mod elsewhere;
mod page;
mod table;

use std::{
    collections::HashMap,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use table::{Denier, End, Row, Scene, table};
use testbed::{ControlPlane, InterceptingProxy, Options, Verdict, WebhookAnswer, WebhookServer};

use crate::support::{Instance, Ran, paths};

static CONTROL_PLANE: LazyLock<ControlPlane> = LazyLock::new(|| {
    let plugins = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let options = Options { api_server_arguments: vec![plugins.to_owned()], ..Options::default() };
    ControlPlane::start(&options).expect("a separate control plane")
});

fn control_plane() -> &'static ControlPlane {
    &CONTROL_PLANE
}

static ANSWERS: Mutex<Option<HashMap<String, WebhookAnswer>>> = Mutex::new(None);
static WEBHOOKS: LazyLock<WebhookServer> = LazyLock::new(|| {
    WebhookServer::start(control_plane(), |path, _| {
        let answers = ANSWERS.lock().unwrap();
        answers.as_ref().and_then(|answers| answers.get(path)).cloned().expect("an answer under this path")
    })
});

/// The URL of a webhook that gives this answer.
fn answering(path: &str, answer: WebhookAnswer) -> String {
    ANSWERS.lock().unwrap().get_or_insert_default().insert(path.to_owned(), answer);
    WEBHOOKS.url(path)
}

/// The kinds of the instance's objects that exist.
fn remaining_kinds(namespace: &str) -> String {
    let kinds = ["ServiceAccount", "Role", "RoleBinding", "Secret"].into_iter().zip(paths(namespace));
    let there = kinds.filter(|(_, path)| control_plane().get(path).is_some());
    there.map(|(kind, _)| kind).collect::<Vec<_>>().join(", ")
}

/// Runs an action through a gateway and compares the result.
fn run(row: &Row, denier: &mut Denier<'_>, action: &str, namespace: &str, expected: End) -> Result<Ran, String> {
    let cp = control_plane();
    let parent = denier.parent.as_ref().unwrap_or(cp.admin());
    let verdict = std::sync::Arc::new(Mutex::new(denier.verdict.take()));
    let shared = std::sync::Arc::clone(&verdict);
    let proxy = InterceptingProxy::start(cp, move |request| match shared.lock().unwrap().as_mut() {
        Some(decide) => decide(request),
        None => Verdict::Forward,
    });
    let ran = Instance::new(&parent.with_server(&proxy.server()), namespace).ask(action, &[]);
    let on = row.on.split('.').next().unwrap();
    let asked = proxy.requests().iter().filter(|request| arrange::changes(request, namespace, on)).count();
    denier.verdict = verdict.lock().unwrap().take();
    let document = ran.document();
    let error = &document["error"];
    let code = error["code"].as_str().unwrap_or("ok");
    let found = (code, asked, remaining_kinds(namespace));
    let mut problems = Vec::new();
    if found != (expected.code, expected.asked, expected.left.to_owned()) {
        problems.push(format!("{found:?} instead of {expected:?}"));
    }
    if expected.code != "ok" || row.only_warns() {
        let unsaid = row.says.iter().filter(|words| !ran.stderr.contains(**words));
        problems.extend(unsaid.map(|words| format!("no {words:?}")));
    }
    let retried = ran.stderr.contains("\nretry ");
    if retried != ["server-error", "connection-lost"].contains(&expected.code) {
        problems.push(format!("retried: {retried}"));
    }
    if code == "refused" {
        if ran.stderr.contains("may have succeeded") {
            problems.push("a denial is said to be in doubt".to_owned());
        }
        if !document["missing_permissions"].as_array().unwrap().is_empty() {
            problems.push("a denial is said to be a missing permission".to_owned());
        }
    }
    if problems.is_empty() { Ok(ran) } else { Err(format!("{action}: {}\n{}", problems.join("; "), ran.stderr)) }
}

/// One variant of a row, in namespaces of its own.
fn variant(row: &Row, variant: usize) -> Vec<String> {
    let cp = control_plane();
    let mut problems = Vec::new();
    let on = row.on.split('.').next().unwrap();
    for deleting in [false, true] {
        let namespace = cp.namespace("no");
        if deleting {
            Instance::new(cp.admin(), &namespace).ask("provision", &[]).expect_code(0);
        }
        let scene = Scene { cp, namespace: &namespace, on: row.on, variant };
        let mut denier = (row.arrange)(&scene);
        let expected = if deleting { row.decommission } else { row.provision };
        if denier.verdict.is_none() && expected.asked > 0 && expected.code != "ok" {
            arrange::await_in_force(cp, denier.parent.as_ref().unwrap_or(cp.admin()), &namespace, on, deleting);
        }
        if row.only_warns() {
            arrange::await_in_audit_log(cp, &namespace, on);
        }
        let actions: &[(&str, End)] = if deleting {
            &[("decommission", row.decommission)]
        } else {
            &[("plan", row.plan), ("provision", row.provision)]
        };
        for (action, expected) in actions {
            problems.extend(run(row, &mut denier, action, &namespace, *expected).err());
            if *action == "plan" && !expected.left.is_empty() {
                cp.delete(&arrange::path(&namespace, on)); // objects of the other client
            }
        }
        drop(std::mem::take(&mut denier.admission));
        for path in denier.made.iter().rev() {
            cp.delete(path);
        }
    }
    problems.into_iter().map(|problem| format!("{} (variant {variant}): {problem}", row.who)).collect()
}

#[test]
fn every_denial_ends_as_the_table_states() {
    LazyLock::force(&WEBHOOKS);
    let rows = table();
    let todo: Vec<(&Row, usize)> =
        rows.iter().flat_map(|row| (0..row.variants).map(move |variant| (row, variant))).collect();
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some((row, number)) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| variant(row, *number)))
                        .unwrap_or_else(|_| vec![format!("{} (variant {number}): the test itself failed", row.who)]);
                    problems.lock().unwrap().extend(found);
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
