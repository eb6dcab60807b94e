//! provision: observe, compare, apply what widens, test the token, apply what narrows, deliver.

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeSet,
    time::Instant,
};

use crate::{
    cluster::{ApiError, ApiErrorKind},
    credential::{
        artifact::Artifact,
        claims::{self, Account},
    },
    diagnostics::{
        error::{Code, Exit, Failure},
        secret::Token,
    },
    input::request::{Delivery, Platform},
    k8s::{fetched::TokenSecret, object::Kind},
    plan::{
        copies::rights_elsewhere,
        desired::Desired,
        diff::{ChangeKind, Plan, all_permissions, granted_rules, held_at, permission_changes, stale_objects},
        preflight::{compare, preflight_failure, remarks},
        server_ca::ca_differs,
        snapshot::Snapshot,
        token_slots::{Slot, Unusable},
    },
    rbac::{Coverage, PermissionChanges, PermissionRecord},
    report::TokenFacts,
    run::{
        Run, adopt,
        apply::{Apply, Widened},
        diagnosis::{explain_rejection, is_token_rejected, lost_race},
        former_namespace, judgement,
        proof::{self, Expectation, ProofError, RevokedAccess},
        publish::{Dialled, cluster_changed, dial, publish},
    },
};

/// Creates or updates the credential, tests it, and delivers it: to Massdriver, then to `deliver`.
///
/// # Errors
/// The step that failed; running again continues from there.
pub(crate) async fn provision(
    run: &Run<'_>,
    delivery: &Delivery,
    deliver: impl FnOnce(&Artifact) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let created = CreatedCredential::default();
    let work = async {
        let result = establish(run, &created, delivery, deliver).await;
        judgement::report_late(run, result.is_err()).await;
        result
    };
    let result = run.beside_discovery(Box::pin(work)).await;
    match (result, created.account.get()) {
        (Err(EstablishError { failure, token_refused }), Some(uid)) if failure.code.exit() == Exit::Unproved => {
            let token = created.token.take();
            match lost_race(run, uid, &failure).await {
                Some(conflict) => Err(conflict),
                None if token_refused => Err(explain_rejection(run, uid, token.as_ref(), failure).await),
                None => Err(failure),
            }
        }
        (result, _) => result.map_err(|error| error.failure),
    }
}

/// The failure to create or to test a credential.
struct EstablishError {
    failure: Failure,
    /// Whether the server rejects the new token with 401.
    token_refused: bool,
}

impl From<Failure> for EstablishError {
    fn from(failure: Failure) -> Self {
        Self { failure, token_refused: false }
    }
}

impl From<ApiError> for EstablishError {
    fn from(error: ApiError) -> Self {
        Failure::from(error).into()
    }
}

impl From<ProofError> for EstablishError {
    fn from(error: ProofError) -> Self {
        let token_refused = matches!(error, ProofError::Unauthorized);
        Self { failure: error.into(), token_refused }
    }
}

/// What was created so far, for the diagnosis of a failed test.
#[derive(Default)]
struct CreatedCredential {
    /// The uid of the ServiceAccount, as soon as it exists.
    account: OnceCell<String>,
    /// The token that was read last.
    token: Cell<Option<Token>>,
}

/// The sequence of a provision.
async fn establish(
    run: &Run<'_>,
    created: &CreatedCredential,
    delivery: &Delivery,
    deliver: impl FnOnce(&Artifact) -> Result<(), Failure>,
) -> Result<(), EstablishError> {
    let platform = delivery.platform.as_ref();
    // The search runs beside it. Its failure is reported after the delivery.
    let (made, former) = tokio::join!(issue_or_replace(run, created, platform), former_namespace::search(run));
    let (snapshot, made) = made?;
    let is_known_here =
        snapshot.observed.is_anything_there() || !matches!(&former, Ok(former) if former.found.is_empty());
    let ProvedCredential { token, dialled, plan, retired, exceeds } = made;

    let ca = run.session.ca().as_base64();
    let artifact = delivery.form.fill(&run.request.connection, ca, &token).map_err(|findings| Failure {
        findings,
        ..Failure::new(
            Code::ArtifactInvalid,
            "building the credential document",
            "the document does not match its schema",
        )
    })?;
    if publish(run, platform, dialled, &artifact).await? && !is_known_here {
        run.report.finding(cluster_changed(run));
    }
    deliver(&artifact)?;
    // Every consumer has the new token now.
    delete_secrets(run, &snapshot, &plan, &retired).await?;
    // The search takes a request: only where the token has more permissions than were granted, or where some were removed.
    if exceeds || removes_binding(&plan) {
        let found = run.session.cluster.list(Kind::RoleBinding, None).await.unwrap_or_default(); // optional for the parent
        for remark in rights_elsewhere(&run.request.instance.names, &snapshot, &found) {
            run.report.finding(remark);
        }
    }
    let unsearched = "the new credential is delivered; running again searches for the instance in other namespaces";
    let former = former.map_err(|error| Failure::from(error).state(unsearched))?;
    Ok(former_namespace::clear(run, &former.found).await?)
}

/// Creates or updates the credential and tests it. A token that the server no longer accepts is replaced.
async fn issue_or_replace(
    run: &Run<'_>,
    created: &CreatedCredential,
    platform: Option<&Platform>,
) -> Result<(Snapshot, ProvedCredential), EstablishError> {
    let mut snapshot = run.survey().await?;
    run.parent_expires().into_iter().for_each(|finding| run.report.finding(finding));
    let made = match issue(run, created, platform, &mut snapshot).await {
        Err(EstablishError { token_refused: true, .. }) if is_token_rejected(run, &snapshot).await => {
            snapshot = run.observe(false, run.session.cluster.version()).await?;
            let (field, why) = ("/data/token", "the server does not accept its token".to_owned());
            if let Some(slot) = snapshot.observed.slots.current_mut() {
                slot.unusable.get_or_insert(Unusable { field, why });
            }
            issue(run, created, platform, &mut snapshot).await?
        }
        made => made?,
    };
    Ok((snapshot, made))
}

/// Whether a binding is deleted.
fn removes_binding(plan: &Plan) -> bool {
    let mut changes = plan.changes.iter();
    changes.any(|change| change.action == ChangeKind::Delete && change.reference.kind == Kind::RoleBinding)
}

/// A credential that was tested.
struct ProvedCredential {
    token: Token,
    dialled: Dialled,
    /// The changes: all are applied except the deletion of retired Secrets.
    plan: Plan,
    /// The token slots whose Secret is deleted after the delivery.
    retired: Vec<u32>,
    /// Whether the token has more permissions in some namespace than were granted there.
    exceeds: bool,
}

/// Creates or updates the credential and tests it.
async fn issue(
    run: &Run<'_>,
    created: &CreatedCredential,
    platform: Option<&Platform>,
    snapshot: &mut Snapshot,
) -> Result<ProvedCredential, EstablishError> {
    let request = run.request;
    let (desired, plan) = compare(request, snapshot);
    if run.guard.guardrails.refuse_unknown() {
        run.resources.settle_completely().await;
    }
    // Before anything can fail: a rule that matches nothing may be the reason.
    if run.resources.is_settled() {
        judgement::report(run);
    }
    let obstacle = preflight_failure(request, snapshot, &desired, &plan);
    if let Some(failure) = judgement::refusal(run, snapshot, &desired, obstacle) {
        return Err(failure.into());
    }
    for remark in remarks(request, snapshot, &desired, &plan) {
        run.report.finding_once(remark); // this may be the second attempt
    }

    Apply { run, snapshot, desired: &desired, plan: &plan }.preflight().await?;
    adopt::adopt_fields(run, &mut snapshot.observed).await?;
    let snapshot = &*snapshot;
    // Before the ServiceAccount records the next slot number: later runs look for Secrets by counting back from it.
    delete_secrets(run, snapshot, &plan, &desired.slots.superseded).await?;
    let apply = Apply { run, snapshot, desired: &desired, plan: &plan };
    // Connecting as the new credential takes as long as two of these requests, and needs no token yet.
    let (objects, connection) = tokio::join!(create_objects(&apply, created), run.session.open_unauthenticated());
    let (widened, changes, token) = objects?;

    let uid = widened.service_account.uid.clone();
    let rules = granted_rules(request, &snapshot.observed);
    let expectation = Expectation { account: account(run, &uid), granted: all_permissions(&rules) };
    let narrowed = || changes.narrowed.iter().map(PermissionRecord::permission).collect();
    let mut kept = desired.kept(request);
    // The connection to Massdriver is opened during the test; nothing is sent before it has passed.
    let proving = async {
        let connection = connection?;
        let connection = if connection.is_fresh() { connection } else { run.session.open_unauthenticated().await? };
        let holder = connection.log_in(&token)?;
        if apply.will_shrink(&widened) {
            proof::prove_wanted(run, &holder, &expectation).await?;
            return Ok((holder, None));
        }
        let held = held_at(&kept, &snapshot.observed);
        let revoked = RevokedAccess {
            narrowed: narrowed(),
            kept: all_permissions(&held).into_iter().collect(),
            cleared: BTreeSet::new(),
        };
        let exceeds = proof::prove(run, &holder, &expectation, &revoked).await?;
        Ok::<_, EstablishError>((holder, Some(exceeds)))
    };
    let (proved, dialled) = tokio::join!(proving, dial(run, platform));
    let exceeds = match proved? {
        (_, Some(exceeds)) => exceeds,
        (holder, None) => {
            kept.extend(apply.shrink(widened).await?);
            let held = held_at(&kept, &snapshot.observed);
            let kept: Coverage<'_> = all_permissions(&held).into_iter().collect();
            run.report.permissions(changes.clone().except(&kept));
            let cleared = stale_objects(request, &snapshot.observed).map(|(place, _)| &place.scope).collect();
            proof::prove(run, &holder, &expectation, &RevokedAccess { narrowed: narrowed(), kept, cleared }).await?
        }
    };
    Ok(ProvedCredential { token, dialled, plan, retired: desired.slots.retired, exceeds })
}

/// Creates and widens the objects, and waits for the token of the token controller.
async fn create_objects<'a>(
    apply: &Apply<'a>,
    created: &CreatedCredential,
) -> Result<(Widened<'a>, PermissionChanges, Token), Failure> {
    let Apply { run, snapshot, desired, .. } = apply;
    let widened = apply.widen().await?;
    let uid = &widened.service_account.uid;
    let _ = created.account.set(uid.clone());
    let changes = permission_changes(run.request, desired, &snapshot.observed, run.resources.catalog());
    if !apply.will_shrink(&widened) {
        run.report.permissions(changes.clone());
    }
    let TokenSecret { token, uid: secret_uid, cas } = wait_for_token(run, snapshot, desired).await?;
    if let Some(finding) = ca_differs(&run.request.connection, run.session.ca(), &cas) {
        run.report.finding_once(finding); // this may be the second attempt
    }
    claims::check(&token, &account(run, uid))?;
    created.token.set(Some(token.clone()));
    run.report.token(TokenFacts {
        fingerprint: token.fingerprint(),
        secret: Some(desired.secret.reference.name.clone()),
        secret_uid: Some(secret_uid),
        expires: None,
    });
    Ok((widened, changes, token))
}

/// The ServiceAccount that the token must belong to.
fn account<'a>(run: &'a Run<'_>, uid: &'a str) -> Account<'a> {
    let instance = &run.request.instance;
    Account { namespace: instance.namespace.as_str(), name: instance.names.object(), uid }
}

/// Deletes the Secrets in these token slots, as planned.
async fn delete_secrets(run: &Run<'_>, snapshot: &Snapshot, plan: &Plan, slots: &[u32]) -> Result<(), Failure> {
    for slot in slots.iter().filter_map(|number| snapshot.observed.slots.get(*number)) {
        let Some(planned) = plan.change(&run.request.instance.names.token_secret(slot.number)) else { continue };
        let started = Instant::now();
        match run.session.cluster.delete(&planned.reference, &slot.live).await {
            Err(error) if !matches!(error.kind, ApiErrorKind::HeldByFinalizers(_)) => return Err(error.into()),
            _ => {} // the token of a Secret that finalizers hold is revoked all the same
        }
        run.report.wrote(planned.action, &planned.reference);
        run.report.change(planned, Some(started.elapsed()));
    }
    Ok(())
}

/// The token that was observed, or the one that the token controller has created since.
async fn wait_for_token(run: &Run<'_>, snapshot: &Snapshot, desired: &Desired) -> Result<TokenSecret, Failure> {
    if let Some(Slot { token: Some(token), live, cas, .. }) = snapshot.observed.slots.usable() {
        run.report.step("token", &short_fingerprint(token), None);
        return Ok(TokenSecret { token: token.clone(), uid: live.uid.clone(), cas: cas.clone() });
    }
    let started = Instant::now();
    let _waiting = run.report.waiting("waiting for the token");
    let secret = run.session.cluster.token(&desired.secret.reference).await?;
    run.report.register(&secret.token);
    run.report.step("token", &short_fingerprint(&secret.token), Some(started.elapsed()));
    Ok(secret)
}

/// The start of the fingerprint, long enough to tell two tokens apart.
pub(super) fn short_fingerprint(token: &Token) -> String {
    token.fingerprint().chars().take("sha256:".len() + 12).collect()
}
