//! Deletion of an instance's objects, and the test that its tokens are rejected afterwards.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, authorizer_says},
    credential::claims::Claims,
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding},
        secret::Token,
    },
    endpoint::connection::ClusterLogin,
    input::request::Request,
    k8s::{
        denial::denied,
        object::{Kind, Reference},
        object_names::Names,
    },
    plan::{
        diff::{Change, ChangeKind},
        removal::Removal,
        snapshot::Snapshot,
    },
    rbac::PermissionRecord,
    run::Run,
};

/// The time limit for a deleted token to be rejected: the API server caches a successful login for 10 s, which no flag
/// changes. The rest is for slow responses.
const TOKEN_CACHE: Duration = Duration::from_secs(20);
/// The pause before the first request. An API server that has not observed the deletion yet would accept the token once
/// more, and cache that for 10 s.
const DELETION_PROPAGATION: Duration = Duration::from_millis(50);

/// The pause between the first two requests; doubled each time, up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The outcome of the deletion of an instance's objects.
#[derive(Default)]
pub(crate) struct RemovalOutcome {
    /// Objects whose deletion was accepted.
    pub(crate) deleted: Vec<Reference>,
    /// Those of them that finalizers still hold.
    pub(crate) held: Vec<Failure>,
    /// The permissions that the parent credential lacks.
    pub(crate) missing: Vec<PermissionRecord>,
    /// The authorizer's reasons.
    pub(crate) reasons: BTreeSet<String>,
    /// Any other reason for which an object still exists.
    pub(crate) failed: Option<Failure>,
    /// Copies of the instance's objects that were made by others and not deleted, each with the reason.
    pub(crate) copies_left: Vec<(Reference, String)>,
}

impl RemovalOutcome {
    /// Whether no object of the instance is left.
    const fn is_complete(&self) -> bool {
        self.held.is_empty() && self.missing.is_empty() && self.failed.is_none()
    }

    /// Whether there were objects, all of which are deleted.
    pub(crate) fn into_result(mut self, request: &Request) -> Result<bool, Failure> {
        let account = request.instance.names.service_account();
        if let Some(failure) = self.failed {
            return Err(Failure { missing: self.missing, ..failure });
        }
        if !self.missing.is_empty() {
            self.missing.sort();
            self.missing.dedup();
            let mut failure = denied("deleting the objects", self.missing).next(format!(
                "grant the listed permissions to the parent credential, then run again; {account} is kept until then, \
                 because it stores the list of places; if one of them no longer exists for good, delete the \
                 ServiceAccount by hand"
            ));
            for reason in self.reasons {
                failure.cause = format!("{}; {reason}", failure.cause);
            }
            return Err(failure);
        }
        let findings = self.held.iter().map(|failure| {
            let object = failure.object.as_deref().unwrap_or_default();
            let text = format!("{object}: {}", failure.cause);
            Finding::remark(finding::Code::BeingDeleted, text)
        });
        let findings = findings.collect();
        match self.held.into_iter().next() {
            Some(failure) => Err(Failure { findings, ..failure }.state(
                "everything else is deleted, and no token is left; running again finishes once the finalizers are done",
            )),
            None => Ok(!self.deleted.is_empty()),
        }
    }
}

/// Deletes the objects of the instance. Bindings first, because that revokes access within milliseconds, while the
/// deletion of a Secret takes effect after up to 10 s. The ServiceAccount last, and only when all else is deleted: it
/// stores the number of the newest token slot, and the list of places. A failed deletion does not stop the others.
pub(crate) async fn clear(run: &Run<'_>, removal: &Removal, outcome: &mut RemovalOutcome) {
    for stage in [
        &[Kind::RoleBinding, Kind::ClusterRoleBinding][..],
        &[Kind::Secret],
        &[Kind::Role, Kind::ClusterRole],
        &[Kind::ServiceAccount],
    ] {
        if stage == [Kind::ServiceAccount] && !outcome.is_complete() {
            break; // its inventory leads to what is left
        }
        let objects = removal.ours.iter().chain(&removal.copies).filter(|(object, _)| stage.contains(&object.kind));
        let answers = join_all(objects.map(async |(object, live)| {
            let started = Instant::now();
            let answer = run.session.cluster.delete(object, live).await;
            if answer.as_ref().err().is_none_or(is_held) {
                // Repeating an accepted deletion is no change.
                if live.deleting.is_none() {
                    run.report.wrote(ChangeKind::Delete, object);
                    run.report.change(&Change::delete(object.clone()), Some(started.elapsed()));
                }
            }
            (object.clone(), answer)
        }));
        for (object, answer) in answers.await {
            match answer {
                Ok(()) => outcome.deleted.push(object),
                Err(error) if removal.copies.contains_key(&object) && is_kept_by_others(&error) => {
                    outcome.copies_left.push((object, Failure::from(error).cause));
                }
                Err(error) if is_held(&error) => {
                    outcome.deleted.push(object);
                    outcome.held.push(error.into());
                }
                Err(ApiError { kind: ApiErrorKind::Denied { mut missing, reason }, .. }) => {
                    outcome.missing.append(&mut missing);
                    if !reason.is_empty() {
                        outcome.reasons.insert(authorizer_says(&reason));
                    }
                }
                Err(error) => drop(outcome.failed.get_or_insert(error.into())),
            }
        }
    }
}

/// Whether a copy is kept by its own controller, which has to delete it.
const fn is_kept_by_others(error: &ApiError) -> bool {
    is_held(error) || error.is_conflict() || error.is_denied() || error.is_refused()
}

/// Whether finalizers delay a deletion.
const fn is_held(error: &ApiError) -> bool {
    matches!(error.kind, ApiErrorKind::HeldByFinalizers(_))
}

/// Tests that the tokens of an instance are rejected, if their Secrets were deleted in this run. A foreign token in one
/// of them is never used, not even for this test.
///
/// # Errors
/// A token that is still accepted, or that could not be tested.
pub(crate) async fn prove_all_dead(
    run: &Run<'_>,
    names: &Names,
    snapshot: &Snapshot,
    outcome: &RemovalOutcome,
) -> Result<(), Failure> {
    let is_own = |token: &&Token| {
        Claims::of(token).is_some_and(|claims| claims.is_of(names.namespace().as_str(), names.object()))
    };
    for slot in snapshot.observed.slots.iter() {
        if let Some(token) = slot.token.as_ref().filter(is_own)
            && outcome.deleted.contains(&names.token_secret(slot.number))
        {
            prove_dead(run, token).await.map_err(|failure| {
                failure
                    .state(
                        "its Secret is deleted; whether its token is rejected is not confirmed, and running again \
                            cannot test it",
                    )
                    .next("try the old token by hand: the server must answer 401")
            })?;
        }
    }
    Ok(())
}

/// Uses the token until the server rejects it.
async fn prove_dead(run: &Run<'_>, token: &Token) -> Result<(), Failure> {
    const DOING: &str = "testing that the token is rejected";

    let started = Instant::now();
    let _waiting = run.report.waiting("waiting until the token is rejected");
    tokio::time::sleep(DELETION_PROPAGATION).await;
    let cluster = run.session.connect_as(&ClusterLogin::Token(token.clone())).await?;
    let limit = run.session.budget.at_most(TOKEN_CACHE);
    let (mut pause, mut accepted) = (FIRST_PAUSE, false);
    loop {
        // An old server, or a gateway, may not serve the review: then any other request answers 401 to a deleted token.
        let answer = match cluster.identity().await {
            Err(error) if error.is_denied() || matches!(error.kind, ApiErrorKind::ReviewUnsupported(_)) => {
                cluster.version().await.map(drop)
            }
            answer => answer.map(drop),
        };
        accepted |= answer.is_ok();
        match answer {
            Err(error) if error.is_unauthorized() => break,
            // The last request may be cut short by the end of the run.
            Err(error) if !error.is_timeout() || !accepted || started.elapsed() < limit => {
                return Err(error.into());
            }
            Ok(()) | Err(_) if started.elapsed() >= limit => {
                let cause = format!("the server still accepts the token after {} s", started.elapsed().as_secs());
                return Err(Failure::new(Code::TokenStillAccepted, DOING, cause));
            }
            Ok(()) | Err(_) => {
                if pause == FIRST_PAUSE {
                    run.report.step("wait", "the API server caches a used token for up to 10 s", None);
                }
                tokio::time::sleep(pause.min(limit.saturating_sub(started.elapsed()))).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
    run.report.step("prove", "the token is rejected with 401", Some(started.elapsed()));
    Ok(())
}
