//! Diagnosis of a credential that was created and does not work: another run, another cluster, or another signing key.

use crate::{
    cluster::ApiError,
    credential::claims::signing_key,
    diagnostics::{
        error::{Code, Failure},
        secret::Token,
    },
    k8s::object::Reference,
    plan::{observed::Observed, snapshot::Snapshot},
    run::Run,
};

/// The conflict with another run that deleted objects of this run, if there was one: that is the cause then, and not what it
/// led to. A decommission deletes bindings first, then Secrets, and the ServiceAccount last.
pub(super) async fn lost_race(run: &Run<'_>, uid: &str, failure: &Failure) -> Option<Failure> {
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

/// The failure with the likely cause of a 401 for the token of an existing ServiceAccount: the key that signed it, or a
/// second cluster at the same address.
pub(super) async fn explain_rejection(run: &Run<'_>, uid: &str, token: Option<&Token>, failure: Failure) -> Failure {
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

/// Whether a new connection reaches the cluster of this ServiceAccount; none if unknown.
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

/// Whether the right cluster rejects the token of a Secret that existed before this run: the signing key was replaced, or
/// the Secret was overwritten.
pub(super) async fn is_token_rejected(run: &Run<'_>, snapshot: &Snapshot) -> bool {
    let Observed { service_account: Some(account), slots, .. } = &snapshot.observed else { return false };
    // The open connection is to the right cluster in any case. A new one shows whether the address leads there.
    slots.usable().is_some_and(|slot| slot.token.is_some()) && reaches_account(run, &account.uid).await == Some(true)
}
