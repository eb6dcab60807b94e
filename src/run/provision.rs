//! provision: look, compare, widen, prove, shrink, hand out.

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeSet,
    time::Instant,
};

use crate::{
    cluster::{ApiError, ApiErrorKind},
    credential::{
        artifact::Artifact,
        claims::{self, Account, signing_key},
    },
    diagnostics::{
        error::{Code, Exit, Failure},
        finding::{self, Finding},
        secret::Token,
    },
    input::request::{Delivery, Platform},
    k8s::object::{Kind, Live, Reference},
    net::{error::TransportError, transport},
    plan::{
        copies::rights_elsewhere,
        desired::Desired,
        diff::{ChangeKind, Plan, all_permissions, granted_rules, held_at, stale_objects},
        observed::Observed,
        preflight::{compare, preflight_failure, remarks},
        snapshot::Snapshot,
        token_slots::{Slot, Unusable},
    },
    platform::{self, Publisher},
    rbac::{Coverage, PermissionRecord},
    report::TokenFacts,
    run::{
        Run, adopt,
        apply::{Apply, Widened},
        former_namespace,
        proof::{self, Expectation, ProofError, RevokedAccess},
    },
};

/// Makes the credential, proves it, and hands it out: to the platform, then to `deliver`.
///
/// # Errors
/// Which step failed; a repeat goes on from there.
pub(crate) async fn provision(
    run: &Run<'_>,
    delivery: &Delivery,
    deliver: impl FnOnce(&Artifact) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unproved = Unproved::default();
    let result = establish(run, &unproved, delivery, deliver).await;
    match (result, unproved.account.get()) {
        (Err(EstablishError { failure, token_refused }), Some(uid)) if failure.code.exit() == Exit::Unproved => {
            let token = unproved.token.take();
            match lost_race(run, uid, &failure).await {
                Some(conflict) => Err(conflict),
                None if token_refused => Err(explain_rejection(run, uid, token.as_ref(), failure).await),
                None => Err(failure),
            }
        }
        (result, _) => result.map_err(|error| error.failure),
    }
}

/// The failure of making or proving a credential.
struct EstablishError {
    failure: Failure,
    /// Whether the server answers the new token with 401.
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

/// What is known of a credential before it is proved.
#[derive(Default)]
struct Unproved {
    /// The uid of the ServiceAccount, as soon as that is there.
    account: OnceCell<String>,
    /// The token that was used last.
    token: Cell<Option<Token>>,
}

/// The failure of a run whose objects another run deletes: then that is the cause, and not what it led to. A decommission
/// deletes bindings first, then Secrets, and the ServiceAccount last.
async fn lost_race(run: &Run<'_>, uid: &str, failure: &Failure) -> Option<Failure> {
    let (request, cluster) = (run.request, &run.session.cluster);
    let account = request.instance.names.service_account();
    let revoked = |object: &Reference, what: &str| {
        let cause = format!("it was {what} during this run, perhaps by another run");
        Some(Failure::new(Code::Conflict, failure.doing.clone(), cause).on(object.to_string()))
    };
    match cluster.get(&account).await {
        Ok(Some(seen)) if seen.live.uid != uid => return revoked(&account, "deleted and created again"),
        Ok(None) => return revoked(&account, "deleted"),
        Ok(Some(_)) | Err(_) => {}
    }
    let binding = request.instance.names.binding(&request.grants.first()?.place);
    let is_deleted = failure.code == Code::TokenSecretVanished && matches!(cluster.get(&binding).await, Ok(None));
    if is_deleted { revoked(&binding, "deleted") } else { None }
}

/// The likely cause of a 401 for the token of a ServiceAccount that is there: the key that signed it, or a second
/// cluster at the same address.
async fn explain_rejection(run: &Run<'_>, uid: &str, token: Option<&Token>, failure: Failure) -> Failure {
    const CAUSE: &str = "401: the server rejects the token that its own cluster has issued";
    const ONE_CLUSTER: &str =
        "check that only one cluster answers at the connection's server, and that the CA belongs to that cluster";

    match reaches_account(run, uid).await {
        Some(false) => {
            let cause = format!("{CAUSE}: a new connection to the same address reaches another cluster");
            Failure { cause, ..failure.next(ONE_CLUSTER) }
        }
        None => failure,
        Some(true) => {
            let key = token.and_then(signing_key);
            let published = run.session.cluster.signing_keys().await.unwrap_or_default();
            let why = match key {
                Some(key) if !published.is_empty() && !published.contains(&key) => format!(
                    "kube-controller-manager signed it with the key {key}, and the API server publishes other keys \
                     ({})",
                    published.join(", ")
                ),
                _ => {
                    "most likely kube-controller-manager signs with a key that the API server does not trust".to_owned()
                }
            };
            let next = "make --service-account-key-file of the API server contain the key of \
                        --service-account-private-key-file of kube-controller-manager, then run again: the Secret of \
                        this attempt is reused or replaced";
            Failure { cause: format!("{CAUSE}: {why}"), ..failure.next(next) }
        }
    }
}

/// Whether a new connection reaches the cluster of this ServiceAccount; none when it cannot tell.
async fn reaches_account(run: &Run<'_>, uid: &str) -> Option<bool> {
    let asked: Result<_, ApiError> = async {
        let cluster = run.session.connect_as(&run.request.connection.login).await?;
        cluster.get(&run.request.instance.names.service_account()).await
    }
    .await;
    match asked {
        Ok(seen) => Some(seen.is_some_and(|seen| seen.live.uid == uid)),
        Err(error) => error.is_unauthorized().then_some(false),
    }
}

/// All of it.
async fn establish(
    run: &Run<'_>,
    unproved: &Unproved,
    delivery: &Delivery,
    deliver: impl FnOnce(&Artifact) -> Result<(), Failure>,
) -> Result<(), EstablishError> {
    let platform = delivery.platform.as_ref();
    // Nothing waits for the search but what happens after the delivery.
    let (made, former) = tokio::join!(make_or_replace(run, unproved, platform), former_namespace::search(run));
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
    // Everybody has the new token by now.
    delete_secrets(run, &snapshot, &plan, &retired).await?;
    // The search costs a request, and is made where rights are more than granted, or where some have been taken away.
    if exceeds || takes_away(&plan) {
        let found = run.session.cluster.list(Kind::RoleBinding, None).await.unwrap_or_default(); // whoever may not, cannot tell
        for remark in rights_elsewhere(&run.request.instance.names, &snapshot, &found) {
            run.report.finding(remark);
        }
    }
    let unsearched = "the new credential is delivered; running again searches for the instance in other namespaces";
    let former = former.map_err(|error| Failure::from(error).state(unsearched))?;
    Ok(former_namespace::clear(run, &former.found).await?)
}

/// Makes the credential and proves it. A token that the server does not accept any more is found by its use; then another
/// one takes its place.
async fn make_or_replace(
    run: &Run<'_>,
    unproved: &Unproved,
    platform: Option<&Platform>,
) -> Result<(Snapshot, ProvedCredential), EstablishError> {
    let mut snapshot = run.survey().await?;
    let made = match make(run, unproved, platform, &mut snapshot).await {
        Err(EstablishError { token_refused: true, .. }) if is_token_rejected(run, &snapshot).await => {
            snapshot = run.observe(false, run.session.cluster.version()).await?;
            let (field, why) = ("/data/token", "the server does not accept its token".to_owned());
            if let Some(slot) = snapshot.observed.slots.current_mut() {
                slot.unusable.get_or_insert(Unusable { field, why });
            }
            make(run, unproved, platform, &mut snapshot).await?
        }
        made => made?,
    };
    Ok((snapshot, made))
}

/// Whether the token of a Secret that was there before is dead: the server does not accept it, and is that of our
/// cluster. So it is when the key that tokens are signed with was replaced, or when somebody wrote into the Secret.
async fn is_token_rejected(run: &Run<'_>, snapshot: &Snapshot) -> bool {
    let Observed { service_account: Some(account), slots, .. } = &snapshot.observed else { return false };
    // The connection of a run that was misled is to the right cluster: another one tells.
    slots.usable().is_some_and(|slot| slot.token.is_some()) && reaches_account(run, &account.uid).await == Some(true)
}

/// Whether a binding goes.
fn takes_away(plan: &Plan) -> bool {
    let mut changes = plan.changes.iter();
    changes.any(|change| change.action == ChangeKind::Delete && change.reference.kind == Kind::RoleBinding)
}

/// What was made.
struct ProvedCredential {
    /// Proved.
    token: Token,
    /// An open connection to the platform.
    dialled: Option<Result<transport::Http, TransportError>>,
    /// What was done, but for what goes at the end.
    plan: Plan,
    /// The token slots whose Secret goes at the end.
    retired: Vec<u32>,
    /// Whether the token may do more in some namespace than is granted there.
    exceeds: bool,
}

/// Makes the credential and proves it.
async fn make(
    run: &Run<'_>,
    unproved: &Unproved,
    platform: Option<&Platform>,
    snapshot: &mut Snapshot,
) -> Result<ProvedCredential, EstablishError> {
    let request = run.request;
    let (desired, plan) = compare(request, snapshot);
    if let Some(failure) = preflight_failure(request, snapshot, &desired, &plan) {
        return Err(failure.into());
    }
    for remark in remarks(request, snapshot, &desired, &plan) {
        run.report.finding_once(remark); // this may be the second attempt
    }

    Apply { run, snapshot, desired: &desired, plan: &plan }.preflight().await?;
    adopt::adopt_fields(run, &mut snapshot.observed).await?;
    let snapshot = &*snapshot;
    // Before the ServiceAccount records the next number, because a Secret is found by its distance to that.
    delete_secrets(run, snapshot, &plan, &desired.slots.superseded).await?;
    let apply = Apply { run, snapshot, desired: &desired, plan: &plan };
    // Connecting as the new credential takes as long as two of these requests, and needs no token yet.
    let (created, connection) = tokio::join!(create(&apply, unproved), run.session.open_unauthenticated());
    let (widened, token) = created?;

    let uid = widened.service_account.uid.clone();
    let rules = granted_rules(request, &snapshot.observed);
    let expectation = Expectation { account: account(run, &uid), granted: all_permissions(&rules) };
    let narrowed = || plan.permissions.narrowed.iter().map(PermissionRecord::permission).collect();
    let mut kept = desired.kept(request);
    // The platform is called while the proof is going on; it hears nothing before that is done.
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
            run.report.permissions(plan.permissions.clone().except(&kept));
            let cleared = stale_objects(request, &snapshot.observed).map(|(place, _)| &place.scope).collect();
            proof::prove(run, &holder, &expectation, &RevokedAccess { narrowed: narrowed(), kept, cleared }).await?
        }
    };
    Ok(ProvedCredential { token, dialled, plan, retired: desired.slots.retired, exceeds })
}

/// Creates and widens the objects, and returns the token that the controller has made of them.
async fn create<'a>(apply: &Apply<'a>, unproved: &Unproved) -> Result<(Widened<'a>, Token), Failure> {
    let Apply { run, snapshot, desired, plan } = apply;
    let widened = apply.widen().await?;
    let uid = &widened.service_account.uid;
    let _ = unproved.account.set(uid.clone());
    if !apply.will_shrink(&widened) {
        run.report.permissions(plan.permissions.clone());
    }
    let (token, secret) = token(run, snapshot, desired).await?;
    claims::check(&token, &account(run, uid))?;
    unproved.token.set(Some(token.clone()));
    run.report.token(TokenFacts {
        fingerprint: token.fingerprint(),
        secret: Some(desired.secret.reference.name.clone()),
        secret_uid: Some(secret.uid),
        expires: None,
    });
    Ok((widened, token))
}

/// The ServiceAccount that the token has to be of.
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

/// The token that was seen at the first look, or the one that the controller has made by now.
async fn token(run: &Run<'_>, snapshot: &Snapshot, desired: &Desired) -> Result<(Token, Live), Failure> {
    if let Some(Slot { token: Some(token), live, .. }) = snapshot.observed.slots.usable() {
        run.report.step("token", &short_fingerprint(token), None);
        return Ok((token.clone(), live.clone()));
    }
    let started = Instant::now();
    let _waiting = run.report.waiting("waiting for the token");
    let (token, live) = run.session.cluster.token(&desired.secret.reference).await?;
    run.report.register(&token);
    run.report.step("token", &short_fingerprint(&token), Some(started.elapsed()));
    Ok((token, live))
}

/// As much of the fingerprint as tells two tokens apart.
pub(super) fn short_fingerprint(token: &Token) -> String {
    token.fingerprint().chars().take("sha256:".len() + 12).collect()
}

/// Opens the connection that will be needed. What is wrong with it is told when it is.
async fn dial(run: &Run<'_>, platform: Option<&Platform>) -> Option<Result<transport::Http, TransportError>> {
    Some(platform::dial(platform?, &run.session.budget).await)
}

/// That the platform had a credential of an instance of which this cluster had nothing.
fn cluster_changed(run: &Run<'_>) -> Finding {
    let name = &run.request.instance.name;
    let text = format!(
        "Massdriver already had a credential of {name}, and this cluster had no object of it: if the connection was \
         changed to another cluster, or the namespace was changed, the earlier credential still works there"
    );
    let help = format!(
        "decommission the earlier credential by hand: k8s-token decommission --name {name}, with a login to the other \
         cluster"
    );
    Finding::remark(finding::Code::ClusterChanged, text).help(help)
}

/// True when the platform had something published by an earlier deployment.
async fn publish(
    run: &Run<'_>,
    platform: Option<&Platform>,
    dialled: Option<Result<transport::Http, TransportError>>,
    artifact: &Artifact,
) -> Result<bool, Failure> {
    let Some(platform) = platform else { return Ok(false) };
    platform.clear_text().into_iter().for_each(|finding| run.report.finding(finding));
    let started = Instant::now();
    let _waiting = run.report.waiting("publishing the credential");
    let title =
        format!("Kubernetes token {} for namespace {}", run.request.instance.name, run.request.instance.namespace);
    let publishing = async {
        Publisher::connect(platform, run.session.retry_context().within(platform::TIME), dialled)
            .await?
            .publish(&title, artifact)
            .await
    };
    let replaced = publishing.await.map_err(|failure| {
        let has_it = if failure.outcome_unknown { "may not have it yet" } else { "does not have it yet" };
        failure
            .state(format!("the credential is in the cluster, tested and working; Massdriver {has_it}"))
            .next("fix this and deploy again: the same credential will be published")
    })?;
    let what = format!("field {} at {}", crate::input::request::FIELD, platform.address());
    run.report.step("publish", &what, Some(started.elapsed()));
    Ok(replaced)
}
