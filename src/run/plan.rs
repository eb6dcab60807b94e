//! plan: what provision would do, and whether it would get through, without a write.

use futures_util::future::join_all;

use super::{
    Run,
    compare::{compare, refusal, remarks},
    look::Sight,
};
use crate::{
    cluster::Cluster,
    desired::Desired,
    error::Failure,
    object::{Live, Manifest},
    observed::Presence,
    plan::{Action, Plan},
};

/// Shows what provision would do: everything up to the first write, with the server's own verdict on each object
/// where it can give one. True when there are changes.
///
/// # Errors
/// What a provision would fail with, as far as reads can tell.
pub async fn plan(run: &Run<'_>) -> Result<bool, Failure> {
    let cluster = run.connect().await?;
    let sight = run.look(&cluster).await?;
    let (desired, mut plan) = compare(run.request, &sight);
    let refused = refusal(run.request, &sight, &desired, &plan);
    for remark in remarks(run.request, &sight.observed) {
        run.report.finding(remark);
    }

    let mut verdict = Ok(());
    if refused.is_none() {
        verdict = preview(run, &cluster, &sight, &desired, &mut plan).await;
    }
    for change in &plan.changes {
        run.report.change(change, None);
    }
    let changes = !plan.is_empty();
    run.report.permissions(plan.permissions);
    match refused {
        Some(failure) => Err(failure),
        None => verdict.map(|()| changes),
    }
}

/// Lets the server try each change. What it cannot try is simulated: in a namespace that is not there yet nothing can
/// be tried, and a binding to a Role that is not there yet only by those who may bind anything.
async fn preview(
    run: &Run<'_>,
    cluster: &Cluster,
    sight: &Sight,
    desired: &Desired,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let home = &run.request.namespace;
    let tried = trials(sight, desired, plan);
    let tried = tried.filter(|(manifest, _)| {
        sight.observed.presence(home) != Presence::Absent
            || manifest.reference.namespace.as_deref() != Some(home.as_str())
    });
    let outcomes = join_all(tried.map(async |(manifest, live)| {
        let outcome = cluster.dry_run(manifest, live).await?;
        Ok((manifest, live, outcome))
    }));
    let outcomes = Failure::all(outcomes.await)?;
    // What the server makes of it counts: admission may add to a change, or undo it.
    for (manifest, live, outcome) in outcomes {
        let change = plan.changes.iter_mut().find(|change| change.reference == manifest.reference);
        if let (Some(change), Some(live)) = (change, live) {
            change.fields = outcome.differences(live);
            if change.fields.is_empty() {
                change.action = Action::Unchanged;
            }
        }
    }
    Ok(())
}

/// The changes that the server can try, each with what is there.
pub fn trials<'a>(
    sight: &'a Sight,
    desired: &'a Desired,
    plan: &Plan,
) -> impl Iterator<Item = (&'a Manifest, Option<&'a Live>)> {
    let observed = &sight.observed;
    let account = (&desired.service_account, observed.service_account.as_ref());
    let secret = (&desired.secret, observed.secret());
    let grants = desired.grants.iter().flat_map(|granted| {
        let role = granted.role.as_ref().map(|role| (role, observed.role(&granted.place)));
        let bindable = role.is_none_or(|(_, live)| live.is_some());
        let binding = bindable.then(|| (&granted.binding, observed.binding(&granted.place)));
        role.into_iter().chain(binding)
    });
    let all = std::iter::once(account).chain(grants).chain([secret]);
    let tried: Vec<_> = all
        .filter(|(manifest, _)| {
            let change = plan.change(&manifest.reference);
            change.is_some_and(|change| matches!(change.action, Action::Create | Action::Update))
        })
        .collect();
    tried.into_iter()
}
