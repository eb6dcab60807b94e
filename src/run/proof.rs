//! The test of the new token, with the server and CA that are published with it. Repeated until the server confirms all
//! checks or the time limit passes.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, Cluster},
    credential::{
        access_checks::{AccessChecks, AccessDecision, Proof, Review, TokenIdentity, check_identity},
        claims::Account,
        defaults::{Defaults, Excess},
    },
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding, Severity},
    },
    k8s::{denial::summary, grant::Scope},
    rbac::{Catalog, Coverage, Permission, PermissionRecord, matchable},
    report::Report,
    run::Run,
};

/// The operation in the messages of a failed test.
pub(crate) const DOING: &str = "testing the credential";
/// The time limit for a grant to reach the queried API server: milliseconds on a single one, a few seconds behind a
/// load balancer under stress.
const PROPAGATION: Duration = Duration::from_secs(5);
/// The maximum number of single access reviews, for a server that cannot list all permissions.
const SINGLE_QUESTIONS: usize = 50;

/// All permissions. Without a Role that grants them, only an authorizer other than RBAC allows them.
pub(crate) const EVERYTHING: Permission<'static> = Permission::new("*", "*", "*");

/// Why a credential failed its test.
#[derive(Debug)]
pub(crate) enum ProofError {
    /// The server answers the token with 401.
    Unauthorized,
    /// The server does not confirm these permissions.
    NotConfirmed(Vec<PermissionRecord>),
    /// The server denies the reviews that every authenticated user may create.
    MayNotAsk,
    /// The server does not serve a review that the test requires.
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

/// The expected identity and permissions of a credential.
pub(crate) struct Expectation<'a> {
    /// The expected ServiceAccount.
    pub(crate) account: Account<'a>,
    /// The permissions that it has to have.
    pub(crate) granted: Vec<Permission<'a>>,
}

/// What a test found, as a line of the log.
pub(crate) fn described(name: &str, proof: &Proof) -> String {
    match proof.allowed {
        0 => format!("{name}: its identity; the rules contain no permission that a request can match"),
        allowed => format!("{name}: {allowed} permissions allowed, {} adjacent denied", proof.denied),
    }
}

/// The permissions that a run has removed.
#[derive(Default)]
pub(crate) struct RevokedAccess<'a> {
    /// Permissions that are no longer granted.
    pub(crate) narrowed: Coverage<'a>,
    /// Permissions that could not be removed, which was reported.
    pub(crate) kept: Coverage<'a>,
    /// Scopes of earlier configurations.
    pub(crate) cleared: BTreeSet<&'a Scope>,
}

/// Tests that the token has the requested permissions, while it may still have more.
pub(crate) async fn prove_wanted(
    run: &Run<'_>,
    holder: &Cluster<'_>,
    expectation: &Expectation<'_>,
) -> Result<(), ProofError> {
    let started = Instant::now();
    let proof = ask_until(run, holder, expectation, &BTreeSet::new(), |_| true).await?;
    let name = expectation.account.name;
    let what = format!("{name}: {} permissions allowed; removing old ones", proof.allowed);
    run.report.step("prove", &what, Some(started.elapsed()));
    Ok(())
}

/// Tests the token in every scope, and waits until removed permissions are denied. True if it has more permissions in
/// some namespace than were granted there. The parent credential reads the server's default bindings, if the token has permissions
/// beyond the known defaults.
pub(crate) async fn prove(
    run: &Run<'_>,
    holder: &Cluster<'_>,
    expectation: &Expectation<'_>,
    revoked: &RevokedAccess<'_>,
) -> Result<bool, ProofError> {
    let started = Instant::now();
    let lingers = |record: &PermissionRecord| {
        revoked.narrowed.covers(record.permission()) && !revoked.kept.covers(record.permission())
    };
    let defaults = Defaults::of(run.server_version());
    let gone = |proof: &Proof| proof.unlimited || !defaults.beyond(proof.excess.clone()).iter().any(lingers);
    let mut proof = ask_until(run, holder, expectation, &revoked.cleared, gone).await?;
    proof.excess.retain(|record| !revoked.kept.covers(record.permission()));
    let excess = beyond_defaults(&defaults, Some(&run.session.cluster), run.resources.catalog(), &mut proof).await;
    let name = expectation.account.name;
    run.report.step("prove", &described(name, &proof), Some(started.elapsed()));
    report_excess(run.report, &proof, &excess);
    let exceeds = proof.excess.iter().any(|record| record.permission().namespace.is_some());
    run.report.proof(proof);
    Ok(exceeds)
}

/// Removes the server's defaults from the additional permissions, and what no request can match. `reader` reads the server's default bindings, if any
/// permissions remain; without a reader, or if it may not read them, possible defaults are kept apart.
pub(crate) async fn beyond_defaults(
    defaults: &Defaults,
    reader: Option<&Cluster<'_>>,
    catalog: &Catalog<'_>,
    proof: &mut Proof,
) -> Excess {
    let left = defaults.beyond(std::mem::take(&mut proof.excess));
    let left: Vec<PermissionRecord> = {
        let permissions: Vec<Permission<'_>> = left.iter().map(PermissionRecord::permission).collect();
        matchable(&permissions, catalog).iter().map(Permission::record).collect()
    };
    let stock = match reader {
        Some(reader) if !left.is_empty() && !proof.unlimited => reader.stock().await.ok(),
        _ => None,
    };
    let excess = defaults.classify(left, stock.as_ref());
    proof.excess = excess.certain.iter().chain(&excess.perhaps).cloned().collect();
    proof.excess.sort();
    excess
}

/// Reports the additional permissions and their source.
pub(crate) fn report_excess(report: &Report, proof: &Proof, excess: &Excess) {
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

/// The finding that an authorizer allows this identity everything.
pub(crate) fn unlimited(whom: &str) -> Finding {
    let text =
        format!("an authorizer of the API server other than RBAC allows {whom} everything: Roles limit nothing there");
    Finding::remark(finding::Code::Unlimited, text).help(
        "look at --authorization-mode and --authorization-config of kube-apiserver, and at the policy of its webhook",
    )
}

/// Repeats the test until the server confirms the claim and the result is sufficient, or the time limit passes.
async fn ask_until(
    run: &Run<'_>,
    holder: &Cluster<'_>,
    expectation: &Expectation<'_>,
    cleared: &BTreeSet<&Scope>,
    enough: impl Fn(&Proof) -> bool,
) -> Result<Proof, ProofError> {
    let started = Instant::now();
    let _waiting = run.report.waiting("testing the credential");
    // The home namespace, whatever is granted there, and (as none) the whole cluster.
    let mut scopes = BTreeSet::from([None, Some(run.request.instance.namespace.as_str())]);
    scopes.extend(run.request.grants.iter().map(|grant| grant.place.scope.namespace()));
    scopes.extend(cleared.iter().map(|scope| scope.namespace()));
    let mut checks = Checks::new(run, expectation);
    let limit = run.session.budget.at_most(PROPAGATION);
    let mut pause = Duration::from_millis(10);
    loop {
        let late = started.elapsed() >= limit;
        match attempt(run, holder, &mut checks, expectation, &scopes).await {
            Ok(proof) if late || enough(&proof) => return Ok(proof),
            Err(error) if late || !error.may_be_propagation() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(run.session.budget.at_most(pause)).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// The answers of the server about a credential, asked at once.
pub(crate) struct Answers<'a> {
    identity: TokenIdentity,
    /// The listed permissions by namespace, and those of the whole cluster.
    reviews: Vec<(Option<&'a str>, Review)>,
    /// A permission that was asked for by itself, because it must be allowed.
    allowed: Option<(Permission<'a>, AccessDecision)>,
    /// One that was asked for because it must be denied.
    denied: Option<(Permission<'a>, AccessDecision)>,
}

/// The checks of a credential by what the server is known to serve.
struct Checks<'a> {
    current: AccessChecks<'a>,
    /// Whether the discovery had come, or will not.
    is_settled: bool,
}

impl<'a> Checks<'a> {
    fn new(run: &Run<'_>, expectation: &Expectation<'a>) -> Self {
        let current = AccessChecks::new(&expectation.granted, run.resources.catalog());
        Self { current, is_settled: run.resources.is_settled() }
    }
}

async fn attempt<'a>(
    run: &Run<'_>,
    holder: &Cluster<'_>,
    checks: &mut Checks<'a>,
    expectation: &Expectation<'a>,
    scopes: &BTreeSet<Option<&'a str>>,
) -> Result<Proof, ProofError> {
    let answers = ask(holder, &checks.current, &expectation.account, scopes).await?;
    if !checks.is_settled {
        *checks = Checks::new(run, expectation);
    }
    conclude(holder, &checks.current, answers).await
}

/// Asks the server about the credential of this connection, which has to be that of this account, in these scopes.
pub(crate) async fn ask<'a>(
    cluster: &Cluster<'_>,
    checks: &AccessChecks<'a>,
    account: &Account<'_>,
    scopes: &BTreeSet<Option<&'a str>>,
) -> Result<Answers<'a>, ProofError> {
    let decide = async |example: Option<Permission<'a>>| match example {
        Some(permission) => Ok(Some((permission, cluster.allowed(permission).await?))),
        None => Ok::<_, ApiError>(None),
    };
    let (identity, reviews, allowed, denied) = tokio::join!(
        cluster.identity(),
        join_all(scopes.iter().map(async |scope| Ok((*scope, cluster.rules(*scope).await?)))),
        decide(checks.allowed_example(account.namespace)),
        decide(checks.denied_example(account.namespace)),
    );
    // The identity first: that the token is rejected, or is another one, explains all else.
    let identity = identity?;
    check_identity(&identity, account)?;
    let reviews = reviews.into_iter().collect::<Result<_, ApiError>>()?;
    Ok(Answers { identity, reviews, allowed: allowed?, denied: denied? })
}

/// Compares the answers with what is expected. The checks may be others than those that were asked with, if the discovery
/// came in the meantime. Permissions that are on no list are asked for one by one.
pub(crate) async fn conclude(
    cluster: &Cluster<'_>,
    checks: &AccessChecks<'_>,
    answers: Answers<'_>,
) -> Result<Proof, ProofError> {
    let Answers { identity, reviews, allowed, denied } = answers;
    let complete = reviews.iter().all(|(_, review)| review.complete);
    let mut result = checks.evaluate(&reviews);
    let mut asked = Vec::from_iter(denied);
    let refused = allowed.as_ref().filter(|(permission, decision)| !decision.allowed && checks.includes(permission));
    if let Some((permission, _)) = refused {
        result.uncovered.push(*permission);
    } else if !complete {
        // The list is incomplete: permissions that are not on it are checked one by one, and so is one elsewhere.
        let mut unknown = std::mem::take(&mut result.uncovered);
        let rest = unknown.split_off(unknown.len().min(SINGLE_QUESTIONS));
        let answers = join_all(unknown.iter().map(|permission| cluster.allowed(*permission))).await;
        let decisions: Vec<AccessDecision> = answers.into_iter().collect::<Result<_, _>>()?;
        for (permission, decision) in unknown.into_iter().zip(decisions) {
            if !decision.allowed {
                result.uncovered.push(permission);
            }
        }
        result.uncovered.extend(rest);
        if let Some(elsewhere) = checks.elsewhere_example() {
            asked.push((elsewhere, cluster.allowed(elsewhere).await?));
        }
    }
    if !result.uncovered.is_empty() {
        let mut missing: Vec<PermissionRecord> = result.uncovered.iter().map(Permission::record).collect();
        missing.sort();
        missing.dedup();
        return Err(ProofError::NotConfirmed(missing));
    }
    // Absence from an incomplete list is no denial: then only single checks count.
    let denials = asked.iter().filter(|(_, decision)| !decision.allowed).count();
    let mut excess: BTreeSet<PermissionRecord> = result.excess.into_iter().collect();
    excess.extend(asked.iter().filter(|(_, decision)| decision.allowed).map(|(permission, _)| permission.record()));
    // Only an authorizer other than RBAC can allow everything without a binding. If one took part in a decision, that
    // is checked.
    let decisions = || allowed.iter().chain(&asked).map(|(_, decision)| decision);
    let is_suspicious = decisions().any(AccessDecision::is_by_another_authorizer)
        || excess.contains(&EVERYTHING.record())
        || (!complete && decisions().next().is_none());
    let unlimited = is_suspicious && cluster.allowed(EVERYTHING).await?.is_by_another_authorizer();
    Ok(Proof {
        username: identity.username,
        uid: identity.uid,
        allowed: checks.requested(),
        denied: if complete { result.denied } else { denials },
        excess: excess.into_iter().collect(),
        unlimited,
        complete,
    })
}
