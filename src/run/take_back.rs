//! decommission: the cluster and the platform at once, each whatever the other says; then the proof that the token is
//! dead. The namespace stays.

use std::time::{Duration, Instant};

use super::{Run, rights};
use crate::{
    cluster::{denied, needed},
    connection::Login,
    error::{Code, Failure},
    finding::{Finding, Severity},
    object::{Kind, Live, Owner, Reference},
    observed::Observed,
    plan::{Action, Change},
    publish::{self, Publisher},
    request::Request,
    secret::Token,
};

/// How long a deleted token may still work: the API server remembers a successful login for 10 s, without a flag to
/// change that. The rest is for a slow answer.
const MEMORY: Duration = Duration::from_secs(20);
/// Before the first question. An API server that has not heard of the deletion yet would log the token in once more,
/// and then remember that for 10 s.
const HEARSAY: Duration = Duration::from_millis(50);

/// Between the first two questions; then twice as long, up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Takes the credential back; false when nothing of it was left.
///
/// # Errors
/// What could not be finished, the cluster's side first. The other side is finished all the same.
pub async fn decommission(run: &Run<'_>) -> Result<bool, Failure> {
    let (cluster, platform) = tokio::join!(cluster_side(run), platform_side(run));
    match (cluster, platform) {
        (Err(failure), Err(other)) => {
            let text = format!("the platform's record is not deleted either: {}", other.cause);
            run.report.finding(Finding::remark("platform-record", Severity::High, text));
            Err(failure)
        }
        (Err(failure), Ok(_)) => Err(failure),
        (Ok(deleted), platform) => match platform {
            Ok(retracted) => Ok(deleted || retracted),
            Err(failure) => Err(failure.state("the cluster is clean; the platform's record is still there")),
        },
    }
}

async fn platform_side(run: &Run<'_>) -> Result<bool, Failure> {
    let Some(platform) = &run.request.platform else { return Ok(false) };
    let started = Instant::now();
    let retracting = async { Publisher::connect(platform, &run.budget).await?.retract().await };
    let found = publish::in_time(platform, &run.budget, retracting).await?;
    let what = if found { "record deleted" } else { "no record left" };
    run.report.step("platform", &format!("{what} at {}", platform.address()), Some(started.elapsed()));
    Ok(found)
}

async fn cluster_side(run: &Run<'_>) -> Result<bool, Failure> {
    let cluster = run.connect().await?;
    let sight = run.observe(&cluster).await?;
    let (request, observed) = (run.request, &sight.observed);
    let objects = order(request, observed);
    let unseen = |object: &Reference| sight.denied.contains(&needed("get", object));
    let owner = |live: &Live| live.owner(request.name.as_str(), request.namespace.as_str());
    let ours = |live: &Live| owner(live) == Owner::Ours;
    let there = objects.iter().filter(|(object, live)| live.map_or_else(|| unseen(object), ours));
    let there: Vec<Reference> = there.map(|(object, _)| object.clone()).collect();

    let mut missing = sight.denied.clone();
    let mut deleted = Vec::new();
    for (object, live) in objects {
        let Some(live) = live else { continue };
        if let Owner::Foreign(whose) = owner(live) {
            let text = format!("{object} is left alone: {whose}");
            run.report.finding(Finding::remark("foreign-object", Severity::Info, text));
            continue;
        }
        if object.kind == Kind::ServiceAccount && !missing.is_empty() {
            break; // what is left is found through it
        }
        let started = Instant::now();
        match cluster.delete(&object, live).await {
            Ok(()) => {
                deleted.push(object.clone());
                run.report.wrote(Action::Delete, &object);
                let change = Change { action: Action::Delete, reference: object, fields: Vec::new() };
                run.report.change(&change, Some(started.elapsed()));
            }
            Err(mut failure) if failure.code == Code::MissingPermission => missing.append(&mut failure.missing),
            Err(mut failure) => {
                failure.missing.append(&mut missing);
                return Err(failure);
            }
        }
    }
    if !missing.is_empty() {
        missing.extend(rights::undeletable(&sight, &there));
        missing.sort();
        missing.dedup();
        return Err(denied("deleting the objects", missing));
    }
    for (generation, token) in &sight.tokens {
        if deleted.contains(&request.secret(*generation)) {
            prove_dead(run, token).await.map_err(|failure| {
                failure
                    .state("everything is deleted; whether the token is dead is not proved, and a repeat cannot ask")
                    .next("use the old token by hand: it must be answered by 401")
            })?;
        }
    }
    Ok(!deleted.is_empty())
}

/// What has to go, in this order. The binding first: that cuts access within milliseconds, while a deleted Secret
/// counts after up to 10 s. The ServiceAccount last: it remembers the number of the newest Secret.
fn order<'a>(request: &Request, observed: &'a Observed) -> Vec<(Reference, Option<&'a Live>)> {
    let earlier = observed.earlier.iter().map(|(generation, live)| (request.secret(*generation), Some(live)));
    let newest = (request.secret(observed.newest()), observed.secret.as_ref());
    let role = (request.object(Kind::Role), observed.role.as_ref());
    let (binding, account) = (observed.binding.as_ref(), observed.service_account.as_ref());
    let first = std::iter::once((request.object(Kind::RoleBinding), binding));
    first.chain(earlier).chain([newest, role, (request.object(Kind::ServiceAccount), account)]).collect()
}

/// Uses the token until the server refuses it.
async fn prove_dead(run: &Run<'_>, token: &Token) -> Result<(), Failure> {
    const DOING: &str = "proving that the token is dead";

    let started = Instant::now();
    tokio::time::sleep(HEARSAY).await;
    let cluster = run.connect_as(&Login::Token(token.clone())).await?;
    let limit = run.budget.at_most(MEMORY);
    let mut pause = FIRST_PAUSE;
    loop {
        match cluster.identity().await {
            Err(failure) if failure.code == Code::Unauthorized => break,
            // The last question may be cut short by the end of the run.
            Err(failure) if failure.code != Code::Timeout || started.elapsed() < limit => {
                return Err(failure);
            }
            Ok(_) | Err(_) if started.elapsed() >= limit => {
                let cause = format!("the server still accepts it after {} s", started.elapsed().as_secs());
                return Err(Failure::new(Code::TokenStillAccepted, DOING, cause));
            }
            Ok(_) | Err(_) => {
                if pause == FIRST_PAUSE {
                    run.report.step("wait", "the server remembers tokens in use for up to 10 s", None);
                }
                tokio::time::sleep(pause.min(limit.saturating_sub(started.elapsed()))).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
    run.report.step("prove", "the token is refused with 401", Some(started.elapsed()));
    Ok(())
}
