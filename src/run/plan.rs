//! plan: what a provision would do, and whether it would succeed, without a write.

use std::cmp::Reverse;

use futures_util::future::{join, join_all};

use crate::{
    cluster::ApiErrorKind,
    diagnostics::{
        error::{Code, Failure},
        finding::{Finding, Severity, condensed},
    },
    k8s::object::{Kind, Live, Manifest},
    plan::{
        copies::rights_elsewhere,
        desired::Desired,
        diff::{Change, ChangeKind, Plan, change, permission_changes},
        observed::Presence,
        parent_access::with_hint,
        preflight::{DryRun, compare, dry_runs, preflight_failure, remarks},
        server_ca::ca_differs,
        snapshot::Snapshot,
    },
    run::{
        Run, former_namespace, judgement,
        proof::{EVERYTHING, unlimited},
    },
};

/// Shows what a provision would do: all steps up to the first write, with a dry run of each change where possible. The
/// findings follow the changes, the worst first. True if there are changes.
///
/// # Errors
/// What a provision would fail with, as far as reads can tell.
pub(crate) async fn plan(run: &Run<'_>) -> Result<bool, Failure> {
    let mut findings = Vec::new();
    let result = run.beside_discovery(Box::pin(look_ahead(run, &mut findings))).await;
    if result.is_ok() {
        findings.extend(run.request.connection.limits());
    }
    findings.sort_by_key(|finding| Reverse(finding.severity));
    for finding in condensed(findings) {
        run.report.finding(finding);
    }
    result
}

/// Reports the changes, and collects the findings.
async fn look_ahead(run: &Run<'_>, findings: &mut Vec<Finding>) -> Result<bool, Failure> {
    if run.request.connection.tls_server_name.is_some() {
        run.session.open_unauthenticated().await?; // reports a server name that users of the credential would lack
    }
    let (snapshot, former) = join(run.survey(), former_namespace::search(run)).await;
    let (snapshot, former) = (snapshot?, former?);
    let (desired, mut plan) = compare(run.request, &snapshot);
    let obstacle = preflight_failure(run.request, &snapshot, &desired, &plan);
    findings.extend(remarks(run.request, &snapshot, &desired, &plan));
    let kept = snapshot.observed.slots.usable().filter(|slot| slot.is_own);
    findings.extend(kept.and_then(|slot| ca_differs(&run.request.connection, run.session.ca(), &slot.cas)));
    findings.extend(run.parent_expires());

    if snapshot.parent_access.lacks_rbac_defaults() && is_unlimited(run).await {
        findings.push(unlimited("the credential"));
    }
    // Before the first deployment there is nothing to copy. A search that is denied or fails does not stop a provision.
    let copies = async {
        match snapshot.observed.service_account {
            Some(_) => run.session.cluster.list(Kind::RoleBinding, None).await.unwrap_or_default(),
            None => Vec::new(),
        }
    };
    let (former, bindings) = join(former_namespace::observe(run, &former.found), copies).await;
    findings.extend(rights_elsewhere(&run.request.instance.names, &snapshot, &bindings));
    for home in former? {
        let then = "a provision deletes them once the new credential is delivered";
        findings.extend(home.remarks(run.request, Severity::High, then));
        let (left, stays) = home.to_delete();
        findings.extend(stays);
        plan.changes.extend(left.not_yet_deleted().cloned().map(Change::delete));
    }
    let mut verdict = Ok(());
    if obstacle.is_none() {
        verdict = preview(run, &snapshot, &desired, &mut plan).await;
    }
    // A plan writes nothing that could wait for it.
    if run.guard.guardrails.refuse_unknown() {
        run.resources.settle_completely().await;
    } else {
        run.resources.settle().await;
    }
    findings.extend(judgement::findings(run));
    let refused = judgement::refusal(run, &snapshot, &desired, obstacle);
    for change in &plan.changes {
        run.report.change(change, None);
    }
    let changes = !plan.is_empty();
    let catalog = run.resources.catalog();
    run.report.permissions(permission_changes(run.request, &desired, &snapshot.observed, catalog));
    match refused {
        Some(failure) => Err(failure),
        None => verdict.map(|()| changes),
    }
}

/// Whether an authorizer other than RBAC allows the ServiceAccount everything, even before it exists; false if unknown.
async fn is_unlimited(run: &Run<'_>) -> bool {
    let verdict = run.session.cluster.allowed_to(&run.request.instance.names.service_account(), EVERYTHING).await;
    verdict.is_ok_and(|verdict| verdict.is_by_another_authorizer())
}

/// A dry run of each change; what the server cannot dry-run is simulated. If the namespace does not exist yet, only its
/// creation can be dry-run there. The token Secret that is kept is not: the API server would record a use of the token
/// (`kubernetes.io/legacy-token-last-used`), and a plan changes nothing.
async fn preview(run: &Run<'_>, snapshot: &Snapshot, desired: &Desired, plan: &mut Plan) -> Result<(), Failure> {
    let home = &run.request.instance.namespace;
    let absent = snapshot.observed.presence(home) == Presence::Absent;
    if absent {
        run.session.cluster.dry_run_namespace(home).await?;
    }
    let mut dry_runs = dry_runs(snapshot, desired, plan);
    dry_runs.retain(|dry_run| !absent || dry_run.manifest.reference.namespace.as_deref() != Some(home.as_str()));
    // The result of the dry run counts: admission may add to a change, or undo it.
    for (dry_run, outcome) in dry_run_all(run, snapshot, dry_runs).await? {
        let change = plan.changes.iter_mut().find(|change| change.reference == dry_run.manifest.reference);
        let change = change.filter(|change| change.action != ChangeKind::Adopt); // Helm still owns fields that will be removed
        if let (Some(change), Some(live), Some(outcome)) = (change, dry_run.live, outcome) {
            change.fields = outcome.differences(live);
            if change.fields.is_empty() {
                change.action = ChangeKind::Unchanged;
            }
        }
    }
    Ok(())
}

/// The result of each dry run; none if an admission webhook does not support dry runs.
///
/// # Errors
/// The first refusal, with what the others add.
pub(crate) async fn dry_run_all<'a>(
    run: &Run<'_>,
    snapshot: &Snapshot,
    dry_runs: Vec<DryRun<'a>>,
) -> Result<Vec<(DryRun<'a>, Option<Live>)>, Failure> {
    let outcomes = join_all(dry_runs.into_iter().map(async |dry_run| {
        match run.session.cluster.dry_run(dry_run.manifest, dry_run.live).await {
            Ok(Some(outcome)) if !run.request.instance.owns(&outcome) => {
                Err(ownership_lost("dry run: applying", dry_run.manifest, &outcome))
            }
            Ok(outcome) => Ok((dry_run, outcome)),
            Err(error) => Err(match (dry_run.place, &error.kind) {
                (Some(place), ApiErrorKind::NotGrantable(_)) => {
                    with_hint(run.request, snapshot, &[place], error.into())
                }
                _ => error.into(),
            }),
        }
    }));
    Failure::all(outcomes.await)
}

/// The failure of an apply after which an admission policy leaves the object without its ownership labels: nothing
/// could delete it later.
pub(crate) fn ownership_lost(doing: &str, manifest: &Manifest, made: &Live) -> Failure {
    let fields = change(manifest, Some(made)).fields.join(" ");
    let cause = format!(
        "an admission policy changes {fields}, by which k8s-token recognises its objects; it could not delete the \
         object later"
    );
    Failure::new(Code::Refused, doing, cause).on(manifest.reference.to_string())
}
