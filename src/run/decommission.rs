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
    plan::{adoption, copies, observed::Presence, parent_access, preflight::gone, removal::Left, snapshot::Sight},
    platform::{self, Publisher},
    rbac::Tuple,
    report::Report,
    run::{
        Run, former_namespace,
        remove::{Outcome, clear, prove_all_dead},
    },
};

/// Deletes the credential; false if nothing of it existed.
///
/// # Errors
/// What could not be finished, the cluster first. The other side is completed nevertheless.
pub async fn decommission(
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
                let there = if failure.unsettled { "may still exist" } else { "still exists" };
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
    let cluster = &run.session.cluster;
    let (sight, swept, search) = tokio::join!(
        run.look(false, cluster.version()),
        sweep(cluster, &request.instance.namespace),
        former_namespace::search(run),
    );
    let sight = sight?;
    // What is in the home namespace is deleted, whether former namespaces can be read or not.
    let (former, unsearched, unread) = match search {
        Ok(search) => match former_namespace::observe(run, &search.found).await {
            Ok(former) => (former, search.missing, None),
            Err(failure) => (Vec::new(), search.missing, Some(failure)),
        },
        Err(error) => (Vec::new(), Vec::new(), Some(Failure::from(error))),
    };
    let unsearched: Vec<Tuple> = unsearched.iter().chain(&swept.unsearched).cloned().collect();
    if !unsearched.is_empty() {
        let text = format!(
            "could not search for objects missing from the ServiceAccount's list: the parent credential lacks {}",
            summary(&unsearched)
        );
        run.report.finding(Finding::remark(finding::Code::NotSearched, text));
    }
    for remark in
        gone(&sight.observed, |_| true).chain(adoption::decision::exposure(request, &request.instance.names, &sight))
    {
        run.report.finding(remark);
    }
    for home in &former {
        for remark in home.remarks(request, Severity::Info, "they are deleted, too") {
            run.report.finding(remark);
        }
    }

    let failed = swept.failed.clone().map(Failure::from).or(unread);
    let mut outcome = Outcome { failed, ..Outcome::default() };
    let known = former.iter().map(|home| &home.sight).chain([&sight]).all(|sight| sight.inventory_is_whole);
    if !(swept.unsearched.is_empty() || known) {
        outcome.missing.extend(swept.unsearched.iter().cloned()); // only a search finds objects that the inventory lacks
    }
    let homes = former.iter().map(|home| (&home.names, &home.sight));
    let homes: Vec<_> = [(&request.instance.names, &sight)].into_iter().chain(homes).collect();
    let mut there = Vec::new();
    for (names, sight) in &homes {
        let mut left = Left::of(names, sight, &swept.found);
        for (object, whose) in std::mem::take(&mut left.foreign) {
            let text = format!("{object} is not deleted: {whose}");
            run.report.finding(Finding::remark(finding::Code::ForeignObject, text).severity(Severity::Info));
        }
        outcome.missing.append(&mut left.unseen);
        outcome.missing.extend(sight.adoption.missing.iter().cloned());
        clear(run, &left, &mut outcome).await;
        there.push((sight, left.ours.into_keys().chain(left.hidden).collect::<Vec<_>>()));
    }
    Failure::all(join_all(homes.iter().map(|(names, sight)| prove_all_dead(run, names, sight, &outcome))).await)?;
    if !outcome.missing.is_empty() {
        outcome.missing.extend(there.iter().flat_map(|(sight, objects)| parent_access::undeletable(sight, objects)));
    }
    let account = request.instance.names.service_account();
    let gone = outcome.deleted.contains(&account) || !there.iter().any(|(_, objects)| objects.contains(&account));
    for (object, why) in &outcome.copies_left {
        run.report.finding(copies::left(&request.instance.names, object, why, gone));
    }
    let copied = !outcome.copies_left.is_empty();
    let found = outcome.judge(request)?;
    if !(found || copied || is_published) {
        run.report.finding(nothing_found(request, &sight));
    }
    Ok(found)
}

/// The finding of a decommission on the command line that found nothing: a repeat, or a mistyped name. At the platform
/// it can only be a repeat.
fn nothing_found(request: &Request, sight: &Sight) -> Finding {
    let (home, connection) = (&request.instance.namespace, &request.connection);
    let context = connection.context.as_ref().map(|context| format!(" (context {context})")).unwrap_or_default();
    let namespace = match sight.observed.presence(home) {
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
struct Swept {
    found: Vec<(Reference, Live)>,
    /// The permissions that the parent credential lacks for a complete search.
    unsearched: Vec<Tuple>,
    /// Any other reason for which a search failed. Known objects are deleted nevertheless.
    failed: Option<ApiError>,
}

impl Swept {
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
async fn sweep(cluster: &Cluster<'_>, home: &Namespace) -> Swept {
    let everywhere =
        [Kind::RoleBinding, Kind::Role, Kind::ClusterRoleBinding, Kind::ClusterRole].map(|kind| (kind, None));
    let lists = everywhere.into_iter().chain([(Kind::Secret, Some(home))]);
    let answers = join_all(lists.map(async |(kind, namespace)| (kind, cluster.list(kind, namespace).await)));
    let (mut swept, mut again) = (Swept::default(), Vec::new());
    for (kind, answer) in answers.await {
        let denied = swept.take(answer);
        again.extend((denied && matches!(kind, Kind::RoleBinding | Kind::Role)).then_some(kind));
    }
    for answer in join_all(again.into_iter().map(|kind| cluster.list(kind, Some(home)))).await {
        swept.take(answer);
    }
    swept
}
