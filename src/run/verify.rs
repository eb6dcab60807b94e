//! verify: the test of an existing credential, with nothing but the credential itself.

use std::{collections::BTreeSet, time::Instant};

use crate::{
    budget::Budget,
    cluster::{ApiError, ApiErrorKind, Cluster},
    credential::{
        access_checks::{AccessChecks, Proof},
        claims::{Account, Claims},
        defaults::Defaults,
    },
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding, condensed},
    },
    input::request::Credential,
    k8s::{
        grant::{Grant, Grants, Scope},
        name::{InstanceName, Namespace},
        object_names::Names,
    },
    plan::diff::all_permissions,
    rbac::Catalog,
    report::{Report, TokenFacts},
    run::{
        discovery::LiveResources,
        observe::is_before_self_subject_review,
        proof::{self, Expectation, ProofError},
        provision::short_fingerprint,
        session::Session,
    },
};

/// Tests that the credential works: that it belongs to the ServiceAccount it claims and to the named instance, and has
/// the permissions of the params. Without params, its permissions are only listed.
pub(crate) async fn verify(credential: &Credential, budget: Budget, report: &Report) -> Result<(), Failure> {
    let Credential { connection, token, .. } = credential;
    let claims = Claims::of(token);
    let account = identify(credential, claims.as_ref(), report)?;
    check_wanted(credential, &account)?;

    let session = Session::connect(connection, budget, report).await?;
    let holder = &session.cluster;

    let no_grants = Grants::default();
    let grants = credential.grants.as_ref().unwrap_or(&no_grants);
    let rules: Vec<_> = grants.iter().map(|grant| (&grant.place, grant.rules.clone())).collect();
    let expectation = Expectation { account, granted: all_permissions(&rules) };
    let name = expectation.account.name;
    let started = Instant::now();
    let waiting = report.waiting("testing the credential");
    let Tested { version, proof, findings, resources } = test(holder, grants, &expectation).await;
    drop(waiting);
    report.server_version(version.as_ref().ok().cloned());
    // Before a failure, which a rule that matches nothing may explain.
    for finding in condensed(findings) {
        report.finding(finding);
    }
    let mut proof = proof.map_err(|error| not_proved(error, &version, connection.server.as_str()))?;
    let defaults = Defaults::of(version.as_deref().ok());
    if credential.grants.is_some() {
        set_cluster_roles_aside(report, grants, &mut proof);
        report.step("prove", &proof::described(name, &proof), Some(started.elapsed()));
        let excess = proof::beyond_defaults(&defaults, None, resources.catalog(), &mut proof).await;
        proof::report_excess(report, &proof, &excess);
    } else {
        let what = format!("{name}: the server confirms its identity");
        report.step("prove", &what, Some(started.elapsed()));
        proof::beyond_defaults(&defaults, None, resources.catalog(), &mut proof).await;
        report.allowed(&proof.excess);
        if proof.unlimited {
            report.finding(proof::unlimited("the credential"));
        }
    }
    report.proof(proof);
    Ok(())
}

/// Reports the token and its ServiceAccount, as the claims name them.
///
/// # Errors
/// The token does not belong to a ServiceAccount.
pub(crate) fn identify<'c>(
    credential: &Credential,
    claims: Option<&'c Claims>,
    report: &Report,
) -> Result<Account<'c>, Failure> {
    let token = &credential.token;
    let claims = claims.filter(|claims| claims.account().is_some());
    let (secret, expires) = match claims {
        Some(claims) => (claims.secret.clone(), claims.expires.map(|end| end.to_string())),
        None => (None, None),
    };
    let account = claims.and_then(Claims::account);
    if let Some(account) = &account {
        report.instance(credential.name.as_ref().map(InstanceName::as_str), account.namespace);
    }
    report.token(TokenFacts { fingerprint: token.fingerprint(), secret, secret_uid: None, expires });
    report.step("token", &short_fingerprint(token), None);
    account.ok_or_else(|| refused("the token does not belong to a ServiceAccount".to_owned()))
}

/// The result of the test.
struct Tested {
    version: Result<String, ApiError>,
    proof: Result<Proof, ProofError>,
    /// The findings about the rules, if the server has answered.
    findings: Vec<Finding>,
    /// What the server serves.
    resources: LiveResources,
}

/// Asks the server about the credential, and judges the rules by what the server serves.
async fn test(holder: &Cluster<'_>, grants: &Grants, expectation: &Expectation<'_>) -> Tested {
    let Expectation { account, granted } = expectation;
    let mut scopes = BTreeSet::from([None, Some(account.namespace)]);
    scopes.extend(grants.iter().map(|grant| grant.place.scope.namespace()));
    let resources = LiveResources::new();
    // Nothing is asked later because of the discovery: to choose the examples, the embedded table is good enough.
    let first = AccessChecks::new(granted, Catalog::embedded());
    let asking = async {
        let (version, answers) = tokio::join!(holder.version(), proof::ask(holder, &first, account, &scopes));
        if answers.is_ok() {
            resources.settle().await;
        }
        (version, answers)
    };
    let (version, answers) = resources.beside(holder, !grants.requested().is_empty(), Box::pin(asking)).await;
    let (proof, findings) = match answers {
        Ok(answers) => {
            let checks = AccessChecks::new(granted, resources.catalog());
            let proof = proof::conclude(holder, &checks, answers).await;
            (proof, resources.judge(grants, &|_| None, version.as_deref().ok()).findings)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    Tested { version, proof, findings, resources }
}

/// The scopes of ClusterRoles are set aside: the credential may not read those, so additional permissions there cannot be
/// distinguished from granted ones.
fn set_cluster_roles_aside(report: &Report, grants: &[Grant], proof: &mut Proof) {
    let others =
        || grants.iter().filter_map(|grant| Some((grant.place.role_source.cluster_role()?, &grant.place.scope)));
    let names: BTreeSet<&str> = others().map(|(role, _)| role.as_str()).collect();
    if names.is_empty() {
        return;
    }
    let everywhere = others().any(|(_, scope)| *scope == Scope::Cluster);
    let unknown: BTreeSet<Option<&str>> = others().map(|(_, scope)| scope.namespace()).collect();
    proof.excess.retain(|record| !everywhere && !unknown.contains(&record.permission().namespace));
    proof.complete = false;
    let names: Vec<&str> = names.into_iter().collect();
    let text = format!("the permissions of these ClusterRoles are not tested: {}", names.join(", "));
    report.finding(Finding::remark(finding::Code::ClusterRoleUnverified, text).at("/cluster_roles"));
}

/// The failure of a test, with the next step for a user of the credential.
pub(crate) fn not_proved(error: ProofError, version: &Result<String, ApiError>, server: &str) -> Failure {
    match (error, version) {
        // A server without this review and without a version is not a Kubernetes API.
        (ProofError::ReviewUnsupported(_), Err(other @ ApiError { kind: ApiErrorKind::NotKubernetes(_), .. })) => {
            other.clone().into()
        }
        (ProofError::NotConfirmed(_) | ProofError::MayNotAsk, Ok(version))
            if is_before_self_subject_review(version) =>
        {
            let review = format!("SelfSubjectReview of authentication.k8s.io/v1 ({version})");
            ApiError::review_unsupported(proof::DOING, &review, server).into()
        }
        (ProofError::Unauthorized, _) => {
            let cause =
                "401: the server rejects the token: it was revoked, it has expired, or it belongs to another cluster";
            Failure::new(Code::TokenRefused, proof::DOING, cause)
        }
        (error @ (ProofError::NotConfirmed(_) | ProofError::MayNotAsk), _) => {
            Failure::from(error).next("provision again: that restores what others have changed")
        }
        (other, _) => other.into(),
    }
}

/// Compares the claims of the token with the expected instance and namespace.
fn check_wanted(credential: &Credential, account: &Account<'_>) -> Result<(), Failure> {
    if let Some(namespace) = &credential.namespace
        && namespace.as_str() != account.namespace
    {
        return Err(refused(format!(
            "the namespace of the token is `{}`, not `{namespace}`",
            sanitize(account.namespace)
        )));
    }
    let Some(name) = &credential.name else { return Ok(()) };
    let namespace = Namespace::parse(account.namespace);
    let names = namespace.map(|namespace| Names::of(name, &namespace));
    let wanted = names.as_ref().map(Names::object);
    if wanted == Ok(account.name) {
        return Ok(());
    }
    let has = sanitize(account.name);
    Err(refused(format!("the ServiceAccount of the token is `{has}`, not `{}`", wanted.unwrap_or_default())))
}

fn sanitize(text: &str) -> String {
    crate::diagnostics::text::sanitize(text, 80)
}

fn refused(cause: String) -> Failure {
    Failure::new(Code::WrongIdentity, "checking the claims of the token", cause)
        .next("use the credential file of the intended instance")
}
