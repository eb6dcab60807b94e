//! provision: look, compare, widen, prove, shrink, hand out.

use std::{cell::OnceCell, collections::BTreeSet, time::Instant};

use super::{
    Run,
    compare::{compare, refusal, remarks},
    converge::Converge,
    former,
    look::Sight,
    proof::{self, Claim, Taken},
    take_over,
};
use crate::{
    artifact::Artifact,
    cluster::Cluster,
    connection::CaBundle,
    credential::{Expected, Unfit, check_claims},
    desired::Desired,
    error::{Code, Exit, Failure},
    finding::{Finding, Severity},
    object::Live,
    observed::Observed,
    plan::{Plan, all_atoms, granted_rules, held_at, leftovers},
    publish::{self, Publisher},
    rbac::{Coverage, Tuple},
    report::TokenFacts,
    secret::Token,
    transport::{self, Trouble},
};

/// Makes the credential, proves it, and hands it out: to the platform, then to `deliver`.
///
/// # Errors
/// Which step failed; a repeat goes on from there.
pub async fn provision(run: &Run<'_>, deliver: impl FnOnce(&Artifact) -> Result<(), Failure>) -> Result<(), Failure> {
    let cluster = run.connect().await?;
    let account = OnceCell::new();
    let result = establish(run, &cluster, &account, deliver).await;
    match (result, account.get()) {
        (Err(failure), Some(uid)) if failure.code.exit() == Exit::Unproved => {
            Err(overtaken(run, &cluster, uid, failure).await)
        }
        (result, _) => result,
    }
}

/// A token does not work when its ServiceAccount is gone: then another run is the cause, and not what that led to.
async fn overtaken(run: &Run<'_>, cluster: &Cluster<'_>, uid: &str, failure: Failure) -> Failure {
    let account = run.request.names.service_account();
    let what = match cluster.get(&account).await {
        Ok(Some(seen)) if seen.live.uid != uid => "deleted and made again",
        Ok(None) => "deleted",
        Ok(Some(_)) | Err(_) => return failure,
    };
    let cause = format!("it was {what} while this run was at work: by another run, perhaps");
    Failure::new(Code::Conflict, failure.doing, cause).on(account.to_string())
}

/// All of it. `account` gets the uid of the ServiceAccount as soon as that is there.
async fn establish(
    run: &Run<'_>,
    cluster: &Cluster<'_>,
    account: &OnceCell<String>,
    deliver: impl FnOnce(&Artifact) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut sight = run.look(cluster).await?;
    let was_here = sight.observed.is_anything_there() || !sight.former_homes.is_empty();
    let made = match make(run, cluster, account, &mut sight).await {
        Err(failure) if failure.code == Code::AnotherCluster && is_dead(run, &sight).await => {
            sight = run.look(cluster).await?;
            let (field, why) = ("/data/token", "the server does not accept the token in it".to_owned());
            sight.observed.unfit.get_or_insert(Unfit { field, why });
            make(run, cluster, account, &mut sight).await?
        }
        made => made?,
    };
    let Made { token, dialled, plan } = made;

    let ca = run.ca().map(CaBundle::as_base64).unwrap_or_default();
    let artifact = run.request.form.fill(&run.request.connection, ca, &token).map_err(|findings| Failure {
        findings,
        ..Failure::new(Code::ArtifactInvalid, "building the artifact", "it does not fit its schema")
    })?;
    if hand_over(run, dialled, &artifact).await? && !was_here {
        run.report.finding(cluster_changed(run));
    }
    deliver(&artifact)?;
    retire(run, cluster, &sight, &plan).await?;
    former::clear(run, cluster, &sight).await
}

/// Whether the token of a Secret that was there before is dead: the server does not accept it, and is that of our
/// cluster. So it is when the key that tokens are signed with was replaced, or when somebody wrote into the Secret.
async fn is_dead(run: &Run<'_>, sight: &Sight) -> bool {
    let Observed { service_account: Some(account), unfit: None, .. } = &sight.observed else { return false };
    // The connection of a run that was misled is to the right cluster: another one tells.
    let asked = async { run.connect().await?.get(&run.request.names.service_account()).await };
    sight.token(sight.observed.newest()).is_some()
        && matches!(asked.await, Ok(Some(seen)) if seen.live.uid == account.uid)
}

/// What was made.
struct Made {
    /// Proved.
    token: Token,
    /// An open connection to the platform.
    dialled: Option<Result<transport::Http, Trouble>>,
    /// What was done, but for what goes at the end.
    plan: Plan,
}

/// Makes the credential and proves it.
async fn make(
    run: &Run<'_>,
    cluster: &Cluster<'_>,
    account: &OnceCell<String>,
    sight: &mut Sight,
) -> Result<Made, Failure> {
    let request = run.request;
    let (desired, mut plan) = compare(request, sight);
    if let Some(failure) = refusal(request, sight, &desired, &plan) {
        return Err(failure);
    }
    for remark in remarks(request, sight, &desired, &plan) {
        run.report.finding_once(remark); // this may be the second attempt
    }

    let mut permissions = std::mem::take(&mut plan.permissions);
    Converge { run, cluster, sight, desired: &desired, plan: &plan }.preflight().await?;
    take_over::take_fields(run, cluster, &mut sight.observed).await?;
    let sight = &*sight;
    let converge = Converge { run, cluster, sight, desired: &desired, plan: &plan };
    let narrowed = permissions.narrowed.clone();
    let making = async {
        let widened = converge.widen().await?;
        let _ = account.set(widened.service_account.uid.clone());
        if !converge.will_shrink(&widened) {
            run.report.permissions(std::mem::take(&mut permissions));
        }
        let (token, secret) = token(run, cluster, sight, &desired).await?;
        Ok((widened, token, secret))
    };
    // Connecting as the new credential takes as long as two of these requests, and needs no token yet.
    let (made, line) = tokio::join!(making, run.open_line());
    let (widened, token, secret) = made?;
    let uid = widened.service_account.uid.clone();
    let expected =
        Expected { namespace: request.namespace.as_str(), service_account: request.names.object(), uid: &uid };
    check_claims(&token, &expected)?;
    run.report.token(TokenFacts {
        fingerprint: token.fingerprint(),
        secret: Some(desired.secret.reference.name.clone()),
        secret_uid: Some(secret.uid),
        expires: None,
    });
    let rules = granted_rules(request, &sight.observed);
    let claim = Claim { expected, granted: all_atoms(&rules) };
    let shrinks = converge.will_shrink(&widened);
    let kept = desired.kept(request);
    let held = held_at(&kept, &sight.observed);
    let lost = Taken {
        narrowed: narrowed.iter().map(Tuple::atom).collect(),
        kept: all_atoms(&held).into_iter().collect(),
        cleared: BTreeSet::new(),
    };
    // The platform is called while the proof is going on; it hears nothing before that is done.
    let proving = async {
        let line = line?;
        let line = if line.is_fresh() { line } else { run.open_line().await? };
        let holder = line.log_in(&token)?;
        if shrinks {
            proof::prove_wanted(run, &holder, &claim).await?;
        } else {
            proof::prove(run, cluster, &holder, &claim, &lost).await?;
        }
        Ok::<_, Failure>(holder)
    };
    let (holder, dialled) = tokio::join!(proving, dial(run));
    let holder = holder?;
    if shrinks {
        let kept = kept.iter().cloned().chain(converge.shrink(widened).await?).collect();
        let held = held_at(&kept, &sight.observed);
        let kept: Coverage<'_> = all_atoms(&held).into_iter().collect();
        permissions.narrowed.retain(|tuple| !kept.covers(tuple.atom()));
        let cleared = leftovers(request, &sight.observed).map(|(place, _)| &place.scope).collect();
        let lost = Taken { kept, cleared, ..lost };
        run.report.permissions(permissions);
        proof::prove(run, cluster, &holder, &claim, &lost).await?;
    }
    Ok(Made { token, dialled, plan })
}

/// Deletes the Secrets that have been replaced, now that everybody has the new token.
async fn retire(run: &Run<'_>, cluster: &Cluster<'_>, sight: &Sight, plan: &Plan) -> Result<(), Failure> {
    for (generation, live) in sight.observed.retired() {
        if let Some(planned) = plan.change(&run.request.names.secret(generation)) {
            let started = Instant::now();
            match cluster.delete(&planned.reference, live).await {
                Err(failure) if failure.code != Code::BeingDeleted => return Err(failure),
                _ => {} // one that finalizers hold has a dead token all the same
            }
            run.report.wrote(planned.action, &planned.reference);
            run.report.change(planned, Some(started.elapsed()));
        }
    }
    Ok(())
}

/// The token that was seen at the first look, or the one that the controller has made by now.
async fn token(
    run: &Run<'_>,
    cluster: &Cluster<'_>,
    sight: &Sight,
    desired: &Desired,
) -> Result<(Token, Live), Failure> {
    if let (Some(token), Some(live)) = (sight.token(sight.observed.newest()), sight.observed.secret()) {
        run.report.step("token", &short(token), None);
        return Ok((token.clone(), live.clone()));
    }
    let started = Instant::now();
    let _waiting = run.report.waiting("waiting for the token");
    let (token, live) = cluster.token(&desired.secret.reference).await?;
    run.report.learn(&token);
    run.report.step("token", &short(&token), Some(started.elapsed()));
    Ok((token, live))
}

/// As much of the fingerprint as tells two tokens apart.
pub(super) fn short(token: &Token) -> String {
    token.fingerprint().chars().take("sha256:".len() + 12).collect()
}

/// Opens the connection that will be needed. What is wrong with it is told when it is.
async fn dial(run: &Run<'_>) -> Option<Result<transport::Http, Trouble>> {
    Some(publish::dial(run.request.platform.as_ref()?, &run.budget).await)
}

/// That the platform had a credential of an instance of which this cluster had nothing.
fn cluster_changed(run: &Run<'_>) -> Finding {
    let name = &run.request.name;
    let text = format!(
        "the platform had a credential of {name} already, and this cluster had nothing of it: if the connection was \
         pointed at another cluster, or the namespace was changed, the earlier credential still works there"
    );
    let help =
        format!("decommission it there by hand: k8s-token decommission --name {name}, with that cluster's login");
    Finding::remark("cluster-changed", Severity::Medium, text).help(help)
}

/// True when the platform had something published by an earlier deployment.
async fn hand_over(
    run: &Run<'_>,
    dialled: Option<Result<transport::Http, Trouble>>,
    artifact: &Artifact,
) -> Result<bool, Failure> {
    let Some(platform) = &run.request.platform else { return Ok(false) };
    platform.clear_text().into_iter().for_each(|finding| run.report.finding(finding));
    let started = Instant::now();
    let _waiting = run.report.waiting("publishing the artifact");
    let title = format!("Kubernetes token {} for namespace {}", run.request.name, run.request.namespace);
    let publishing = async {
        Publisher::connect(platform, run.patience().within(publish::TIME), dialled)
            .await?
            .publish(&title, artifact)
            .await
    };
    let replaced = publishing.await.map_err(|failure| {
        let has_it = if failure.unsettled { "may not have it yet" } else { "does not have it yet" };
        failure
            .state(format!("the credential is in the cluster, proved and working; the platform {has_it}"))
            .next("deploy again when that is mended: the same credential is published")
    })?;
    let what = format!("field {} at {}", crate::request::FIELD, platform.address());
    run.report.step("publish", &what, Some(started.elapsed()));
    Ok(replaced)
}
