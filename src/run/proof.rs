//! The proof: the new token is used against the very server and CA that go into the artifact, until the server
//! confirms all of it or its time is up.

use std::time::{Duration, Instant};

use super::Run;
use crate::{
    cluster::{Cluster, summary},
    connection::Login,
    credential::{Expected, Proof, Questions, check_identity},
    error::{Code, Failure},
    finding::{Finding, Severity},
    rbac::Tuple,
    secret::Token,
};

const DOING: &str = "proving the credential";
/// How long a grant may take to reach the server that is asked: milliseconds on one API server, a few seconds behind
/// a load balancer under stress.
const PROPAGATION: Duration = Duration::from_secs(5);
/// How many single questions are asked where the server cannot list what it allows.
const SINGLE_QUESTIONS: usize = 50;

/// Proves the token. `narrowed` is what this run has taken away: the proof waits until that is gone.
///
/// # Errors
/// What could not be proved.
pub async fn prove(run: &Run<'_>, token: &Token, expected: &Expected<'_>, narrowed: &[Tuple]) -> Result<(), Failure> {
    let started = Instant::now();
    let cluster = run.connect_as(&Login::Token(token.clone())).await?;
    let questions = Questions::new(&run.request.rules);
    let limit = run.budget.at_most(PROPAGATION);
    let mut pause = Duration::from_millis(10);
    let proof = loop {
        let late = started.elapsed() >= limit;
        match attempt(run, &cluster, &questions, expected).await {
            Ok(proof) if late || !proof.excess.iter().any(|tuple| narrowed.contains(tuple)) => break proof,
            Err(failure) if late || !passing(&failure) => return Err(explained(failure)),
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(run.budget.at_most(pause)).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    };
    let what = format!("{}: {} allowed, {} neighbours denied", expected.service_account, proof.allowed, proof.denied);
    run.report.step("prove", &what, Some(started.elapsed()));
    if !proof.excess.is_empty() {
        let text = format!("other bindings in the cluster also allow it to {}", summary(&proof.excess));
        run.report.finding(
            Finding::remark("excess", Severity::High, text)
                .help("look for bindings of this ServiceAccount or of the groups of all ServiceAccounts"),
        );
    }
    run.report.proof(proof);
    Ok(())
}

async fn attempt(
    run: &Run<'_>,
    cluster: &Cluster,
    questions: &Questions<'_>,
    expected: &Expected<'_>,
) -> Result<Proof, Failure> {
    let namespace = &run.request.namespace;
    let ask = async |example: Option<_>| match example {
        Some(atom) => cluster.allowed(namespace, atom).await.map(|allowed| Some((atom, allowed))),
        None => Ok(None),
    };
    let (identity, review, allowed, denied) = tokio::join!(
        cluster.identity(),
        cluster.rules(namespace),
        ask(questions.allowed_example()),
        ask(questions.denied_example()),
    );
    let (identity, review) = (identity?, review?);
    check_identity(&identity, expected)?;

    let mut judgement = questions.judge(&review, namespace.as_str());
    if let Some((atom, false)) = allowed? {
        judgement.uncovered.push(atom);
    } else if !review.complete {
        // The list is a lower bound: what is not on it is asked for, one by one.
        let mut unknown = std::mem::take(&mut judgement.uncovered);
        let rest = unknown.split_off(unknown.len().min(SINGLE_QUESTIONS));
        for atom in unknown {
            if !cluster.allowed(namespace, atom).await? {
                judgement.uncovered.push(atom);
            }
        }
        judgement.uncovered.extend(rest);
    }
    if !judgement.uncovered.is_empty() {
        let mut missing: Vec<Tuple> =
            judgement.uncovered.iter().map(|atom| atom.tuple(Some(namespace.as_str()))).collect();
        missing.sort();
        missing.dedup();
        let cause = format!("the server does not confirm that it may {}", summary(&missing));
        return Err(Failure::new(Code::RulesNotAllowed, DOING, cause));
    }
    let denied = denied?;
    // Not being on a list that is only a lower bound is no denial: then only what was asked for counts.
    let neighbours = if review.complete { judgement.denied } else { usize::from(matches!(denied, Some((_, false)))) };
    let mut excess = judgement.excess;
    if let Some((atom, true)) = denied {
        excess.push(atom.tuple(Some(namespace.as_str())));
        excess.sort();
        excess.dedup();
    }
    Ok(Proof {
        username: identity.username,
        uid: identity.uid,
        allowed: questions.requested(),
        denied: neighbours,
        excess,
        complete: review.complete,
    })
}

/// True for what a moment may mend: the API server's caches have not heard of the token or the binding yet.
const fn passing(failure: &Failure) -> bool {
    matches!(failure.code, Code::Unauthorized | Code::RulesNotAllowed)
}

fn explained(failure: Failure) -> Failure {
    match failure.code {
        Code::Unauthorized => {
            let cause = "401: the server of the artifact does not know the token that its own cluster has just made";
            Failure::new(Code::AnotherCluster, DOING, cause)
        }
        // The denial is the new credential's, not the parent's.
        Code::MissingPermission => {
            let cause = "the server does not let the token ask what it may do, as every authenticated user may";
            Failure::new(Code::RulesNotAllowed, DOING, cause)
        }
        _ => failure,
    }
}
