//! decommission: deletes the objects in the cluster and the record at the platform at the same time, independently;
//! then tests that the token is rejected. The namespace is kept.

use std::time::Instant;

use futures_util::future::join_all;

use crate::{
    budget::Budget,
    cluster::{ApiError, ApiErrorKind, Cluster},
    diagnostics::{
        error::Failure,
        finding::{self, Finding, Severity},
    },
    input::request::{Platform, Request},
    k8s::{
        denial::summary,
        name::Namespace,
        object::{Kind, Live, Reference},
    },
    net::backoff::RetryContext,
    plan::{
        adoption, copies, former_namespace::FormerNamespace, observed::Presence, parent_access,
        preflight::namespaces_gone, removal::Removal, snapshot::Snapshot,
    },
    platform::{self, Publisher},
    rbac::PermissionRecord,
    report::Report,
    run::{
        Run,
        former_namespace::{self, Search},
        remove::{RemovalOutcome, clear, prove_all_dead},
    },
};

/// Deletes the credential; false if nothing of it existed.
///
/// # Errors
/// What could not be finished, the cluster first. The other side is completed nevertheless.
pub(crate) async fn decommission(
    request: &Request,
    platform: Option<&Platform>,
    budget: Budget,
    report: &Report,
) -> Result<bool, Failure> {
    let context = RetryContext { budget: budget.clone(), observer: report };
    let cluster = cluster_side(request, platform.is_some(), budget, report);
    let (cluster, platform) = tokio::join!(cluster, platform_side(platform, context, report));
    match (cluster, platform) {
        (Err(failure), Err(other)) => {
            let text = format!("Massdriver's record is not deleted either: {}", other.cause);
            report.finding(Finding::remark(finding::Code::PlatformRecord, text));
            Err(failure)
        }
        (Err(failure), Ok(_)) => Err(failure),
        (Ok(deleted), platform) => match platform {
            Ok(retracted) => Ok(deleted || retracted),
            Err(failure) => {
                let there = if failure.outcome_unknown { "may still exist" } else { "still exists" };
                Err(failure.state(format!("everything in the cluster is deleted; Massdriver's record {there}")))
            }
        },
    }
}

async fn platform_side(
    platform: Option<&Platform>,
    context: RetryContext<'_>,
    report: &Report,
) -> Result<bool, Failure> {
    let Some(platform) = platform else { return Ok(false) };
    platform.clear_text().into_iter().for_each(|finding| report.finding(finding));
    let started = Instant::now();
    let publisher = Publisher::connect(platform, context.within(platform::TIME), None).await?;
    let found = publisher.retract().await?;
    let what = if found { "record deleted" } else { "no record found" };
    report.step("platform", &format!("{what} at {}", platform.address()), Some(started.elapsed()));
    Ok(found)
}

async fn cluster_side(request: &Request, is_published: bool, budget: Budget, report: &Report) -> Result<bool, Failure> {
    let run = &Run::connect(request, budget, report).await?;
    let Found { snapshot, former, labelled, mut outcome } = Found::read(run).await?;
    let former = former.iter().map(|former| (&former.names, &former.snapshot));
    let homes: Vec<_> = [(&request.instance.names, &snapshot)].into_iter().chain(former).collect();
    let mut there = Vec::new();
    for (names, snapshot) in &homes {
        let mut removal = Removal::of(names, snapshot, &labelled);
        for (object, whose) in std::mem::take(&mut removal.foreign) {
            let text = format!("{object} is not deleted: {whose}");
            run.report.finding(Finding::remark(finding::Code::ForeignObject, text).severity(Severity::Info));
        }
        outcome.missing.append(&mut removal.unseen);
        outcome.missing.extend(snapshot.adoption.missing.iter().cloned());
        clear(run, &removal, &mut outcome).await;
        there.push((snapshot, removal.ours.into_keys().chain(removal.hidden).collect::<Vec<_>>()));
    }
    Failure::all(join_all(homes.iter().map(|(names, snapshot)| prove_all_dead(run, names, snapshot, &outcome))).await)?;
    if !outcome.missing.is_empty() {
        let undeletable = there.iter().flat_map(|(snapshot, objects)| parent_access::missing_delete(snapshot, objects));
        outcome.missing.extend(undeletable);
    }
    let account = request.instance.names.service_account();
    let gone = outcome.deleted.contains(&account) || !there.iter().any(|(_, objects)| objects.contains(&account));
    for (object, why) in &outcome.copies_left {
        run.report.finding(copies::not_deleted(&request.instance.names, object, why, gone));
    }
    let copied = !outcome.copies_left.is_empty();
    let found = outcome.into_result(request)?;
    if !(found || copied || is_published) {
        run.report.finding(nothing_found(request, &snapshot));
    }
    Ok(found)
}

/// What is known of the instance before anything is deleted.
struct Found {
    snapshot: Snapshot,
    former: Vec<FormerNamespace>,
    /// The objects with the label of the program, of this instance and of others.
    labelled: Vec<(Reference, Live)>,
    /// What could not be read: it does not keep the rest from being deleted.
    outcome: RemovalOutcome,
}

impl Found {
    /// Reads it, and reports the findings.
    async fn read(run: &Run<'_>) -> Result<Self, Failure> {
        let (request, cluster) = (run.request, &run.session.cluster);
        let (snapshot, labelled, search) = tokio::join!(
            run.observe(false, cluster.version()),
            list_by_label(cluster, &request.instance.namespace),
            former_namespace::search(run),
        );
        let snapshot = snapshot?;
        let (search, mut failed) = match search {
            Ok(search) => (search, None),
            Err(error) => (Search::default(), Some(Failure::from(error))),
        };
        let former = former_namespace::observe(run, &search.found).await.unwrap_or_else(|failure| {
            failed = Some(failure);
            Vec::new()
        });
        let unsearched: Vec<_> = search.missing.iter().chain(&labelled.unsearched).cloned().collect();
        if !unsearched.is_empty() {
            let text = format!(
                "could not search for objects missing from the ServiceAccount's list: the parent credential lacks {}",
                summary(&unsearched)
            );
            run.report.finding(Finding::remark(finding::Code::NotSearched, text));
        }
        let exposure = adoption::decision::exposure(request, &request.instance.names, &snapshot);
        let of_former = former.iter().flat_map(|it| it.remarks(request, Severity::Info, "they are deleted, too"));
        for remark in namespaces_gone(&snapshot.observed, |_| true).chain(exposure).chain(of_former) {
            run.report.finding(remark);
        }

        let failed = labelled.failed.map(Failure::from).or(failed);
        let mut outcome = RemovalOutcome { failed, ..RemovalOutcome::default() };
        let is_inventory_whole = |former: &FormerNamespace| former.snapshot.inventory_is_whole;
        if !(snapshot.inventory_is_whole && former.iter().all(is_inventory_whole)) {
            // Only the search finds objects that the inventory lacks.
            outcome.missing.extend(labelled.unsearched);
        }
        Ok(Self { snapshot, former, labelled: labelled.found, outcome })
    }
}

/// The finding of a decommission on the command line that found nothing: a repeat, or a mistyped name. At the platform
/// it can only be a repeat.
fn nothing_found(request: &Request, snapshot: &Snapshot) -> Finding {
    let (home, connection) = (&request.instance.namespace, &request.connection);
    let context = connection.context.as_ref().map(|context| format!(" (context {context})")).unwrap_or_default();
    let namespace = match snapshot.observed.presence(home) {
        Presence::Absent => ", and the namespace does not exist either",
        Presence::Active | Presence::Terminating | Presence::Unknown => "",
    };
    let text = format!(
        "no object of the instance {} was found in namespace {home} or elsewhere on {}{context}{namespace}",
        request.instance.name,
        connection.server.as_str()
    );
    Finding::remark(finding::Code::NothingFound, text)
        .help("if it was not decommissioned before, check the name, the namespace and the cluster")
}

/// The result of a search by label, for any instance.
#[derive(Default)]
struct LabelledObjects {
    found: Vec<(Reference, Live)>,
    /// The permissions that the parent credential lacks for a complete search.
    unsearched: Vec<PermissionRecord>,
    /// Any other reason for which a search failed. Known objects are deleted nevertheless.
    failed: Option<ApiError>,
}

impl LabelledObjects {
    /// Adds the result of a list; true if it was a denial.
    fn take(&mut self, answer: Result<Vec<(Reference, Live)>, ApiError>) -> bool {
        match answer {
            Ok(found) => self.found.extend(found),
            Err(ApiError { kind: ApiErrorKind::Denied { mut missing, .. }, .. }) => {
                self.unsearched.append(&mut missing);
                return true;
            }
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
        false
    }
}

/// Searches the whole cluster for objects with the label of k8s-token, as far as the parent credential may list;
/// otherwise the home namespace.
async fn list_by_label(cluster: &Cluster<'_>, home: &Namespace) -> LabelledObjects {
    let everywhere =
        [Kind::RoleBinding, Kind::Role, Kind::ClusterRoleBinding, Kind::ClusterRole].map(|kind| (kind, None));
    let lists = everywhere.into_iter().chain([(Kind::Secret, Some(home))]);
    let answers = join_all(lists.map(async |(kind, namespace)| (kind, cluster.list(kind, namespace).await)));
    let (mut labelled, mut again) = (LabelledObjects::default(), Vec::new());
    for (kind, answer) in answers.await {
        let denied = labelled.take(answer);
        again.extend((denied && matches!(kind, Kind::RoleBinding | Kind::Role)).then_some(kind));
    }
    for answer in join_all(again.into_iter().map(|kind| cluster.list(kind, Some(home)))).await {
        labelled.take(answer);
    }
    labelled
}
