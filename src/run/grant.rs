//! plan and provision: look, compare, change what differs, prove it, hand it out.

use std::time::{Duration, Instant};

use super::{Run, proof, rights};
use crate::{
    artifact::Artifact,
    cluster::{Cluster, Sight, denied, needed},
    credential::{Expected, check_claims},
    desired::Desired,
    error::{Code, Failure},
    finding::{Finding, Severity},
    object::{Kind, Live, Manifest, Reference},
    observed::Home,
    plan::{Action, Change, Plan, change},
    publish::{self, Publisher},
    report::TokenFacts,
    secret::Token,
};

/// Shows what provision would do: everything up to the first write, with the server's own verdict on each object
/// where it can give one. True when there are changes.
///
/// # Errors
/// What a provision would fail with, as far as reads can tell.
pub async fn plan(run: &Run<'_>) -> Result<bool, Failure> {
    let cluster = run.connect().await?;
    let sight = run.observe(&cluster).await?;
    let (desired, mut plan) = compare(run, &sight);
    let refused = refusal(run, &sight, &plan);

    let mut verdict = Ok(());
    if refused.is_none() {
        verdict = preview(&cluster, &sight, &desired, &mut plan).await;
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

/// Makes the credential, proves it, and hands it out: to the platform, then to `deliver`.
///
/// # Errors
/// Which step failed; a repeat goes on from there.
pub async fn provision(run: &Run<'_>, deliver: impl FnOnce(&Artifact) -> Result<(), Failure>) -> Result<(), Failure> {
    let cluster = run.connect().await?;
    let sight = run.observe(&cluster).await?;
    let (desired, mut plan) = compare(run, &sight);
    if let Some(failure) = refusal(run, &sight, &plan) {
        return Err(failure);
    }

    let converged = converge(run, &cluster, &sight, &desired, &plan).await;
    let service_account = converged.map_err(|failure| hidden_home(run, &sight, failure))?;
    let permissions = std::mem::take(&mut plan.permissions);
    let narrowed = permissions.narrowed.clone();
    run.report.permissions(permissions);
    let (token, secret) = token(run, &cluster, &sight, &desired).await?;
    let expected = Expected {
        namespace: run.request.namespace.as_str(),
        service_account: run.request.names.object(),
        uid: &service_account.uid,
    };
    check_claims(&token, &expected)?;
    run.report.token(TokenFacts {
        fingerprint: token.fingerprint(),
        secret: desired.secret.reference.name.clone(),
        secret_uid: secret.uid,
        expires: None,
    });
    // The platform is called while the proof is going on; it hears nothing before that is done.
    let (proved, publisher) = tokio::join!(proof::prove(run, &token, &expected, &narrowed), dial(run));
    proved?;

    let artifact = run.request.form.fill(&run.request.connection, &token).map_err(|findings| Failure {
        findings,
        ..Failure::new(Code::ArtifactInvalid, "building the artifact", "it does not fit its schema")
    })?;
    hand_over(run, publisher, &artifact).await?;
    deliver(&artifact)?;
    retire(run, &cluster, &sight, &plan).await
}

/// Whoever may not look at the namespace finds out that it is not there when something is to be made in it.
fn hidden_home(run: &Run<'_>, sight: &Sight, failure: Failure) -> Failure {
    if failure.code != Code::NamespaceAbsent || sight.observed.home != Home::Unknown {
        return failure;
    }
    let home = Reference::namespace(run.request.namespace.as_str());
    let lacking = denied(&failure.doing, vec![needed("get", &home), needed("create", &home)]);
    Failure { cause: format!("the namespace is not there, and {}", lacking.cause), object: failure.object, ..lacking }
}

/// Deletes the Secrets that have been replaced, now that everybody has the new token.
async fn retire(run: &Run<'_>, cluster: &Cluster, sight: &Sight, plan: &Plan) -> Result<(), Failure> {
    for (generation, live) in sight.observed.retired() {
        if let Some(planned) = plan.change(&run.request.secret(generation)) {
            let started = Instant::now();
            cluster.delete(&planned.reference, live).await?;
            record(run, planned, started.elapsed());
        }
    }
    Ok(())
}

fn compare(run: &Run<'_>, sight: &Sight) -> (Desired, Plan) {
    let request = run.request;
    // What may not be looked at cannot be told from what is not there.
    let blind = !sight.denied.is_empty();
    let generation = if blind { sight.observed.newest() } else { sight.observed.wanted_generation() };
    let desired = Desired::new(request, generation);
    let plan = Plan::new(request, &desired, &sight.observed);
    (desired, plan)
}

/// What is known to stand in the way before anything is tried.
fn refusal(run: &Run<'_>, sight: &Sight, plan: &Plan) -> Option<Failure> {
    obstacles(sight, plan).or_else(|| rights::lacking(run.request, sight, plan))
}

/// What stands in the way whoever asks.
fn obstacles(sight: &Sight, plan: &Plan) -> Option<Failure> {
    const DOING: &str = "comparing what is there with what is wanted";

    if let Some(first) = plan.foreign.first() {
        let cause = format!("it exists and is not ours: {}", first.whose);
        let mut failure = Failure::new(Code::ForeignObject, DOING, cause).on(first.reference.to_string());
        failure.findings = plan
            .foreign
            .iter()
            .map(|foreign| {
                let text = format!("{} is not ours: {}", foreign.reference, foreign.whose);
                Finding::remark("foreign-object", Severity::High, text)
            })
            .collect();
        return Some(failure);
    }
    (sight.observed.home == Home::Terminating)
        .then(|| Failure::new(Code::NamespaceTerminating, DOING, "the namespace is being deleted"))
}

/// Lets the server try each change. What it cannot try is simulated: in a namespace that is not there yet nothing can
/// be tried, and a binding to a Role that is not there yet only by those who may bind anything.
async fn preview(cluster: &Cluster, sight: &Sight, desired: &Desired, plan: &mut Plan) -> Result<(), Failure> {
    if sight.observed.home == Home::Absent {
        return Ok(());
    }
    let observed = &sight.observed;
    let planned = &*plan;
    let try_one = async |manifest: &Manifest| {
        let change = planned.change(&manifest.reference);
        let wanted = change.is_some_and(|change| matches!(change.action, Action::Create | Action::Update));
        let kind = manifest.reference.kind;
        if !wanted || (kind == Kind::RoleBinding && observed.role.is_none()) {
            return Ok(None);
        }
        cluster.dry_run(manifest, observed.of(kind)).await.map(Some)
    };
    let (service_account, role, binding, secret) = tokio::join!(
        try_one(&desired.service_account),
        try_one(&desired.role),
        try_one(&desired.binding),
        try_one(&desired.secret),
    );
    let (one, other) = (Failure::both(service_account, role), Failure::both(binding, secret));
    let ((service_account, role), (binding, secret)) = Failure::both(one, other)?;
    // What the server makes of it counts: admission may add to a change, or undo it.
    for (manifest, outcome) in desired.manifests().into_iter().zip([service_account, role, binding, secret]) {
        let (Some(outcome), Some(live)) = (outcome, observed.of(manifest.reference.kind)) else { continue };
        let change = plan.changes.iter_mut().find(|change| change.reference == manifest.reference);
        if let Some(change) = change {
            change.fields = outcome.differences(live);
            if change.fields.is_empty() {
                change.action = Action::Unchanged;
            }
        }
    }
    Ok(())
}

/// Changes what differs. The ServiceAccount is written before the Secret, because it remembers the Secret's number,
/// and because the token controller deletes the Secret of a ServiceAccount that is not there; the Role before the
/// binding, because the server looks at it when it judges the binding.
async fn converge(
    run: &Run<'_>,
    cluster: &Cluster,
    sight: &Sight,
    desired: &Desired,
    plan: &Plan,
) -> Result<Live, Failure> {
    if sight.observed.home == Home::Absent {
        let started = Instant::now();
        cluster.create_namespace(&run.request.namespace).await?;
        let reference = Reference::namespace(run.request.namespace.as_str());
        record(run, &Change { action: Action::Create, reference, fields: Vec::new() }, started.elapsed());
    }
    let observed = &sight.observed;
    let make = async |manifest: &Manifest| {
        let live = observed.of(manifest.reference.kind);
        let planned = plan.change(&manifest.reference).cloned().unwrap_or_else(|| change(manifest, live));
        let started = Instant::now();
        let made = match (planned.action, live) {
            (Action::Unchanged, Some(live)) => {
                run.report.change(&planned, None);
                return Ok(live.clone());
            }
            (Action::Replace, Some(live)) => {
                cluster.delete(&manifest.reference, live).await?;
                run.report.wrote(Action::Delete, &manifest.reference);
                cluster.apply(manifest, None).await?
            }
            (_, live) => cluster.apply(manifest, live).await?,
        };
        record(run, &planned, started.elapsed());
        Ok(made)
    };
    let (service_account, role) = tokio::join!(make(&desired.service_account), make(&desired.role));
    let (service_account, _) = Failure::both(service_account, role)?;
    let (binding, secret) = tokio::join!(make(&desired.binding), make(&desired.secret));
    Failure::both(binding, secret)?;
    Ok(service_account)
}

fn record(run: &Run<'_>, change: &Change, took: Duration) {
    run.report.wrote(change.action, &change.reference);
    run.report.change(change, Some(took));
}

/// The token that was seen at the first look, or the one that the controller has made by now.
async fn token(run: &Run<'_>, cluster: &Cluster, sight: &Sight, desired: &Desired) -> Result<(Token, Live), Failure> {
    if let (Some(token), Some(live)) = (sight.token(sight.observed.newest()), sight.observed.of(Kind::Secret)) {
        run.report.step("token", &short(token), None);
        return Ok((token.clone(), live.clone()));
    }
    let started = Instant::now();
    let (token, live) = cluster.token(&desired.secret.reference).await?;
    run.report.learn(&token);
    run.report.step("token", &short(&token), Some(started.elapsed()));
    Ok((token, live))
}

/// As much of the fingerprint as tells two tokens apart.
fn short(token: &Token) -> String {
    token.fingerprint().chars().take("sha256:".len() + 12).collect()
}

async fn dial<'a>(run: &Run<'a>) -> Option<Result<Publisher<'a>, Failure>> {
    let platform = run.request.platform.as_ref()?;
    Some(publish::in_time(platform, &run.budget, Publisher::connect(platform, &run.budget)).await)
}

async fn hand_over(
    run: &Run<'_>,
    publisher: Option<Result<Publisher<'_>, Failure>>,
    artifact: &Artifact,
) -> Result<(), Failure> {
    let (Some(platform), Some(publisher)) = (&run.request.platform, publisher) else { return Ok(()) };
    let started = Instant::now();
    let publishing = async {
        let title = format!("Kubernetes token {} for namespace {}", run.request.name, run.request.namespace);
        publisher?.publish(&title, artifact).await
    };
    publish::in_time(platform, &run.budget, publishing).await.map_err(|failure| {
        failure
            .state("the credential is in the cluster, proved and working; the platform does not have it yet")
            .next("deploy again when that is mended: the same credential is published")
    })?;
    let what = format!("field {} at {}", crate::request::FIELD, platform.address());
    run.report.step("publish", &what, Some(started.elapsed()));
    Ok(())
}
