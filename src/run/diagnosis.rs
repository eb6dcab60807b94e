//! Diagnosis of a credential that was created and does not work: another run, another cluster, or another signing key.

use std::time::Duration;

use crate::{
    cluster::ApiError,
    credential::claims::signing_key,
    diagnostics::{
        error::{Code, Failure},
        secret::Token,
    },
    plan::{observed::Observed, snapshot::Snapshot},
    run::Run,
};

/// How long a decommission takes from the deletion of the Secret to that of the ServiceAccount: two requests, each of them
/// slow on a server under stress.
const UNTIL_ACCOUNT_IS_DELETED: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600), Duration::from_secs(2)];

/// The conflict with another run that deleted objects of this run, if there was one: that is the cause then, and not what it
/// led to.
pub(super) async fn lost_race(run: &Run<'_>, uid: &str, failure: &Failure) -> Option<Failure> {
    let cluster = &run.session.cluster;
    let account = run.request.instance.names.service_account();
    let lost = |what: &str| {
        let cause = format!("it was {what} during this run, perhaps by another run");
        Some(Failure::new(Code::Conflict, failure.doing.clone(), cause).on(account.to_string()))
    };
    // A Secret is deleted before its ServiceAccount: whether that follows is seen a moment later.
    let pauses: &[Duration] = if failure.code == Code::TokenSecretVanished { &UNTIL_ACCOUNT_IS_DELETED } else { &[] };
    for pause in [Duration::ZERO].iter().chain(pauses) {
        tokio::time::sleep(*pause).await;
        match cluster.get(&account).await {
            Ok(Some(seen)) if seen.live.uid != uid => return lost("deleted and created again"),
            Ok(None) => return lost("deleted"),
            Ok(Some(_)) => {}
            Err(_) => return None,
        }
    }
    None
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
