//! The proof: the new token is used against the very server and CA that go into the artifact, until the server
//! confirms all of it or its time is up.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, Cluster},
    credential::{
        access_checks::{Proof, Questions, Verdict, check_identity},
        claims::Account,
        defaults::{Defaults, Excess},
    },
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding, Severity},
    },
    k8s::{denial::summary, grant::Scope},
    rbac::{Atom, Coverage, Tuple},
    report::Report,
    run::Run,
};

/// The operation that a proof is reported as.
pub const DOING: &str = "testing the credential";
/// How long a grant may take to reach the server that is asked: milliseconds on one API server, a few seconds behind
/// a load balancer under stress.
const PROPAGATION: Duration = Duration::from_secs(5);
/// How many single questions are asked where the server cannot list what it allows.
const SINGLE_QUESTIONS: usize = 50;

/// Everything: what only an authorizer that allows all would allow to whoever has no such Role.
pub const EVERYTHING: Atom<'static> = Atom::new("*", "*", "*");

/// Why a credential is not proved.
#[derive(Debug)]
pub enum ProofError {
    /// The server answers the token with 401.
    Unauthorized,
    /// The server does not confirm these permissions.
    NotConfirmed(Vec<Tuple>),
    /// The server denies the reviews that every authenticated user may create.
    MayNotAsk,
    /// The server does not serve a review that the proof requires.
    ReviewUnsupported(ApiError),
    /// Anything else.
    Other(Failure),
}

impl ProofError {
    /// Whether the API server may merely not have observed the token or the binding yet.
    const fn may_be_propagation(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::NotConfirmed(_))
    }
}

impl From<ApiError> for ProofError {
    fn from(error: ApiError) -> Self {
        match &error.kind {
            ApiErrorKind::Denied { .. } => Self::MayNotAsk, // of the new credential, not of the parent
            ApiErrorKind::ReviewUnsupported(_) => Self::ReviewUnsupported(error),
            _ if error.is_unauthorized() => Self::Unauthorized,
            _ => Self::Other(error.into()),
        }
    }
}

impl From<Failure> for ProofError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<ProofError> for Failure {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::Unauthorized => {
                let cause = "401: the server rejects the token that its own cluster has just issued";
                Self::new(Code::AnotherCluster, DOING, cause)
            }
            ProofError::NotConfirmed(missing) => {
                let cause = format!("the server does not confirm that the credential may {}", summary(&missing));
                Self::new(Code::RulesNotAllowed, DOING, cause)
            }
            ProofError::MayNotAsk => {
                let cause =
                    "the server does not let the token read its own permissions, as every authenticated user may";
                Self::new(Code::RulesNotAllowed, DOING, cause)
            }
            ProofError::ReviewUnsupported(error) => error.into(),
            ProofError::Other(failure) => failure,
        }
    }
}

/// What the credential is said to be.
pub struct Claim<'a> {
    /// Whose token it is.
    pub expected: Account<'a>,
    /// All that it may do.
    pub granted: Vec<Atom<'a>>,
}

/// What a run has taken away.
#[derive(Default)]
pub struct Taken<'a> {
    /// What is not granted any more.
    pub narrowed: Coverage<'a>,
    /// What could not be taken away, which has been said.
    pub kept: Coverage<'a>,
    /// Scopes of earlier requests.
    pub cleared: BTreeSet<&'a Scope>,
}

/// Proves that the token of this connection may do what is granted, while it may still do more.
///
/// # Errors
/// What could not be proved.
pub async fn prove_wanted(run: &Run<'_>, holder: &Cluster<'_>, claim: &Claim<'_>) -> Result<(), ProofError> {
    let started = Instant::now();
    let proof = ask_until(run, holder, claim, &BTreeSet::new(), |_| true).await?;
    let name = claim.expected.name;
    let what = format!("{name}: {} permissions allowed; removing old ones", proof.allowed);
    run.report.step("prove", &what, Some(started.elapsed()));
    Ok(())
}

/// Proves the token of this connection in every scope, and waits until that is gone which the run has taken away. True
/// when it may do more in some namespace than is granted there. `parent` is asked for the bindings that the server has
/// made by itself, where the credential may do more than is known of those.
///
/// # Errors
/// What could not be proved.
pub async fn prove(
    run: &Run<'_>,
    parent: &Cluster<'_>,
    holder: &Cluster<'_>,
    claim: &Claim<'_>,
    taken: &Taken<'_>,
) -> Result<bool, ProofError> {
    let started = Instant::now();
    let lingers = |tuple: &Tuple| taken.narrowed.covers(tuple.atom()) && !taken.kept.covers(tuple.atom());
    let defaults = Defaults::of(run.server_version());
    let gone = |proof: &Proof| proof.unlimited || !defaults.beyond(proof.excess.clone()).iter().any(lingers);
    let mut proof = ask_until(run, holder, claim, &taken.cleared, gone).await?;
    proof.excess.retain(|tuple| !taken.kept.covers(tuple.atom()));
    let excess = beyond_defaults(&defaults, Some(parent), &mut proof).await;
    let name = claim.expected.name;
    let what = format!("{name}: {} permissions allowed, {} adjacent denied", proof.allowed, proof.denied);
    run.report.step("prove", &what, Some(started.elapsed()));
    tell_excess(run.report, &proof, &excess);
    let exceeds = proof.excess.iter().any(|tuple| tuple.atom().namespace.is_some());
    run.report.proof(proof);
    Ok(exceeds)
}

/// Leaves of the excess what is not granted by the server's own defaults. `reader` is asked for the bindings that the
/// server has made by itself, where there is something left; without one, or where it may not read them, what may be a
/// default is kept apart.
pub async fn beyond_defaults(defaults: &Defaults, reader: Option<&Cluster<'_>>, proof: &mut Proof) -> Excess {
    let left = defaults.beyond(std::mem::take(&mut proof.excess));
    let stock = match reader {
        Some(reader) if !left.is_empty() && !proof.unlimited => reader.stock().await.ok(),
        _ => None,
    };
    let excess = defaults.judge(left, stock.as_ref());
    proof.excess = excess.certain.iter().chain(&excess.perhaps).cloned().collect();
    proof.excess.sort();
    excess
}

/// Says what it may do beyond what is granted, and why.
pub fn tell_excess(report: &Report, proof: &Proof, excess: &Excess) {
    if proof.unlimited {
        report.finding(unlimited("the credential"));
        return;
    }
    if !excess.certain.is_empty() {
        let text = format!("other bindings in the cluster also allow the credential to {}", summary(&excess.certain));
        let help = match &excess.altered[..] {
            [] => "look for bindings to this ServiceAccount or to the groups of ServiceAccounts \
                   (system:serviceaccounts, system:serviceaccounts:NAMESPACE)"
                .to_owned(),
            altered => format!("a default of the server was changed: {}", altered.join("; ")),
        };
        report.finding(Finding::remark(finding::Code::Excess, text).help(help));
    }
    if !excess.perhaps.is_empty() {
        let text = format!(
            "bindings of others also allow the credential to {}; that may be a default of this version of Kubernetes",
            summary(&excess.perhaps)
        );
        let help = "let the parent credential list clusterrolebindings and get clusterroles to tell defaults from \
                    other bindings";
        report.finding(Finding::remark(finding::Code::Excess, text).severity(Severity::Low).help(help));
    }
}

/// That an authorizer allows this identity everything.
pub fn unlimited(whom: &str) -> Finding {
    let text =
        format!("an authorizer of the API server other than RBAC allows {whom} everything: Roles limit nothing there");
    Finding::remark(finding::Code::Unlimited, text).help(
        "look at --authorization-mode and --authorization-config of kube-apiserver, and at the policy of its webhook",
    )
}

/// Asks until the server confirms the claim and it is enough, or the time for that is up.
async fn ask_until(
    run: &Run<'_>,
    holder: &Cluster<'_>,
    claim: &Claim<'_>,
    cleared: &BTreeSet<&Scope>,
    enough: impl Fn(&Proof) -> bool,
) -> Result<Proof, ProofError> {
    let started = Instant::now();
    let _waiting = run.report.waiting("testing the credential");
    let questions = Questions::new(&claim.granted);
    // The home namespace whatever is granted there, and (by none) what is allowed in the whole cluster.
    let mut scopes = BTreeSet::from([None, Some(run.request.instance.namespace.as_str())]);
    scopes.extend(run.request.grants.iter().map(|grant| grant.place.scope.namespace()));
    scopes.extend(cleared.iter().map(|scope| scope.namespace()));
    let limit = run.session.budget.at_most(PROPAGATION);
    let mut pause = Duration::from_millis(10);
    loop {
        let late = started.elapsed() >= limit;
        match attempt(holder, &questions, claim, &scopes).await {
            Ok(proof) if late || enough(&proof) => return Ok(proof),
            Err(error) if late || !error.may_be_propagation() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(run.session.budget.at_most(pause)).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Asks once: of a credential that has been there for a while the server has heard.
///
/// # Errors
/// What the server does not confirm.
pub async fn prove_at_once(
    holder: &Cluster<'_>,
    claim: &Claim<'_>,
    scopes: &BTreeSet<Option<&str>>,
) -> Result<Proof, ProofError> {
    let questions = Questions::new(&claim.granted);
    attempt(holder, &questions, claim, scopes).await
}

async fn attempt(
    cluster: &Cluster<'_>,
    questions: &Questions<'_>,
    claim: &Claim<'_>,
    scopes: &BTreeSet<Option<&str>>,
) -> Result<Proof, ProofError> {
    let home = claim.expected.namespace;
    let ask = async |example: Option<Atom<'_>>| match example {
        Some(atom) => cluster.allowed(atom).await.map(Some),
        None => Ok::<_, ApiError>(None),
    };
    let (allowed, denied) = (questions.allowed_example(home), questions.denied_example(home));
    let (identity, reviews, allowed_answer, denied_answer) = tokio::join!(
        cluster.identity(),
        join_all(scopes.iter().map(async |scope| Ok((*scope, cluster.rules(*scope).await?)))),
        ask(allowed),
        ask(denied),
    );
    let identity = identity?;
    check_identity(&identity, &claim.expected)?;
    let reviews: Vec<_> = reviews.into_iter().collect::<Result<_, ApiError>>()?;
    let complete = reviews.iter().all(|(_, review)| review.complete);

    let mut judgement = questions.judge(&reviews);
    let allowed_answer = allowed_answer?;
    let mut asked = vec![(denied, denied_answer?)];
    if let (Some(atom), Some(Verdict { allowed: false, .. })) = (allowed, &allowed_answer) {
        judgement.uncovered.push(atom);
    } else if !complete {
        // The list is a lower bound: what is not on it is asked for, one by one; and so is a grant elsewhere.
        let mut unknown = std::mem::take(&mut judgement.uncovered);
        let rest = unknown.split_off(unknown.len().min(SINGLE_QUESTIONS));
        let answers = join_all(unknown.iter().map(|atom| cluster.allowed(*atom))).await;
        let verdicts: Vec<Verdict> = answers.into_iter().collect::<Result<_, _>>()?;
        for (atom, verdict) in unknown.into_iter().zip(verdicts) {
            if !verdict.allowed {
                judgement.uncovered.push(atom);
            }
        }
        judgement.uncovered.extend(rest);
        let elsewhere = questions.elsewhere_example();
        asked.push((elsewhere, ask(elsewhere).await?));
    }
    if !judgement.uncovered.is_empty() {
        let mut missing: Vec<Tuple> = judgement.uncovered.iter().map(Atom::tuple).collect();
        missing.sort();
        missing.dedup();
        return Err(ProofError::NotConfirmed(missing));
    }
    // Not being on a list that is only a lower bound is no denial: then only what was asked for counts.
    let answers = || asked.iter().filter_map(|(atom, answer)| Some((*atom, answer.as_ref()?)));
    let denials = answers().filter(|(_, verdict)| !verdict.allowed).count();
    let mut excess: BTreeSet<Tuple> = judgement.excess.into_iter().collect();
    excess.extend(answers().filter(|(_, verdict)| verdict.allowed).filter_map(|(atom, _)| Some(atom?.tuple())));
    // Only another authorizer than RBAC can allow all without a binding. Where one has a say, that is asked for.
    let verdicts = || allowed_answer.iter().chain(answers().map(|(_, verdict)| verdict));
    let is_suspicious = verdicts().any(Verdict::is_by_another_authorizer)
        || excess.contains(&EVERYTHING.tuple())
        || (!complete && verdicts().next().is_none());
    let unlimited = is_suspicious && cluster.allowed(EVERYTHING).await?.is_by_another_authorizer();
    Ok(Proof {
        username: identity.username,
        uid: identity.uid,
        allowed: questions.requested(),
        denied: if complete { judgement.denied } else { denials },
        excess: excess.into_iter().collect(),
        unlimited,
        complete,
    })
}
