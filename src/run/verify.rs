//! verify: a credential that somebody holds is used as they would use it, once, with nothing of the parent.

use std::{collections::BTreeSet, time::Instant};

use super::{
    look::is_before_self_subject_review,
    proof::{self, Claim},
    provision::short,
};
use crate::{
    claims::{Account, Claims},
    cluster::{Cluster, Way, too_old},
    connection::Trust,
    defaults::Defaults,
    error::{Code, Failure},
    finding::{Finding, Severity},
    grant::{Grant, Scope},
    name::{InstanceName, Namespace},
    names::Names,
    patience::Patience,
    plan::all_atoms,
    report::TokenFacts,
    request::Credential,
};

/// Proves that the credential works: it is of the ServiceAccount that it says, and of the one that was named, and may
/// do what the params say. Without params, what it may do is only told.
///
/// # Errors
/// What does not hold.
pub async fn verify(credential: &Credential, patience: Patience<'_>) -> Result<(), Failure> {
    let Credential { connection, token, .. } = credential;
    let report = patience.report;
    let claims = Claims::of(token).filter(|claims| claims.account().is_some());
    let (secret, expires) = match &claims {
        Some(claims) => (claims.secret.clone(), claims.expires.clone()),
        None => (None, None),
    };
    let account = claims.as_ref().and_then(Claims::account);
    let account = account.ok_or_else(|| refused("it is not the token of a ServiceAccount".to_owned()));
    if let Ok(account) = &account {
        report.about(credential.name.as_ref().map(InstanceName::as_str), account.namespace);
    }
    report.token(TokenFacts { fingerprint: token.fingerprint(), secret, secret_uid: None, expires });
    report.step("token", &short(token), None);
    let account = account?;
    check_wanted(credential, &account)?;

    let started = Instant::now();
    let waiting = report.waiting("connecting to the cluster");
    let ca = match &connection.ca {
        Trust::Given(ca) => Some(ca),
        Trust::System => None,
    };
    let way = Way { connection, ca, name: connection.tls_server_name.as_ref() };
    let holder = Cluster::connect(way, &connection.login, patience).await?;
    drop(waiting);
    let what = format!("{} ({})", connection.server.as_str(), holder.protocol);
    report.step("connect", &what, Some(started.elapsed()));

    let grants: &[Grant] = credential.wanted.as_ref().map_or(&[], |(_, grants)| grants);
    let rules: Vec<_> = grants.iter().map(|grant| (&grant.place, grant.rules.clone())).collect();
    let claim = Claim { expected: account, granted: all_atoms(&rules) };
    let mut scopes = BTreeSet::from([None, Some(account.namespace)]);
    scopes.extend(grants.iter().map(|grant| grant.place.scope.namespace()));
    let started = Instant::now();
    let waiting = report.waiting("proving the credential");
    let (version, proof) = tokio::join!(holder.version(), proof::prove_at_once(&holder, &claim, &scopes));
    drop(waiting);
    // What knows no such page, and no version either, is no Kubernetes API at all.
    let proof = match (&version, proof) {
        (Err(other), Err(failure)) if failure.code == Code::TooOldServer && other.code == Code::NotKubernetes => {
            return Err(other.clone());
        }
        (Ok(version), Err(failure))
            if failure.code == Code::RulesNotAllowed && is_before_self_subject_review(version) =>
        {
            let review = format!("SelfSubjectReview of authentication.k8s.io/v1 ({version})");
            return Err(too_old(&failure.doing, &review).on(connection.server.as_str()));
        }
        (_, proof) => proof,
    };
    let version = version.ok();
    report.server_version(version.clone());
    let mut proof = proof.map_err(|failure| match failure.code {
        Code::RulesNotAllowed => failure.next("provision again: it puts right what others have changed"),
        _ => failure,
    })?;
    let defaults = Defaults::of(version.as_deref());
    if credential.wanted.is_some() {
        // What a ClusterRole allows is not for its holder to read: there nothing can be told from excess.
        let others =
            || grants.iter().filter_map(|grant| Some((grant.place.authority.cluster_role()?, &grant.place.scope)));
        let names: BTreeSet<&str> = others().map(|(role, _)| role.as_str()).collect();
        if !names.is_empty() {
            let everywhere = others().any(|(_, scope)| *scope == Scope::Cluster);
            let unknown: BTreeSet<Option<&str>> = others().map(|(_, scope)| scope.namespace()).collect();
            proof.excess.retain(|tuple| !everywhere && !unknown.contains(&tuple.atom().namespace));
            proof.complete = false;
            let names: Vec<&str> = names.into_iter().collect();
            let text = format!("what the ClusterRoles allow is not verified: {}", names.join(", "));
            report.finding(Finding::remark("cluster-role-unverified", Severity::Info, text).at("/cluster_roles"));
        }
        let what = format!("{}: {} allowed, {} neighbours denied", account.name, proof.allowed, proof.denied);
        report.step("prove", &what, Some(started.elapsed()));
        let excess = proof::beyond_defaults(&defaults, None, &mut proof).await;
        proof::tell_excess(report, &proof, &excess);
    } else {
        let what = format!("{}: it is the one that it says it is", account.name);
        report.step("prove", &what, Some(started.elapsed()));
        proof::beyond_defaults(&defaults, None, &mut proof).await;
        report.may(&proof.excess);
        if proof.unlimited {
            report.finding(proof::unlimited("the credential"));
        }
    }
    report.proof(proof);
    Ok(())
}

/// Holds what the token says of itself against what it was said to be.
fn check_wanted(credential: &Credential, account: &Account<'_>) -> Result<(), Failure> {
    if let Some((namespace, _)) = &credential.wanted
        && namespace.as_str() != account.namespace
    {
        return Err(refused(format!("its namespace is `{}`, not `{namespace}`", shown(account.namespace))));
    }
    let Some(name) = &credential.name else { return Ok(()) };
    let namespace = Namespace::parse(account.namespace);
    let names = namespace.map(|namespace| Names::of(name, &namespace));
    let wanted = names.as_ref().map(Names::object);
    if wanted == Ok(account.name) {
        return Ok(());
    }
    let has = shown(account.name);
    Err(refused(format!("its ServiceAccount is `{has}`, not `{}`", wanted.unwrap_or_default())))
}

fn shown(text: &str) -> String {
    crate::text::shown(text, 80)
}

fn refused(cause: String) -> Failure {
    Failure::new(Code::WrongIdentity, "judging the claims of the token", cause)
        .next("take the artifact of the instance that is meant")
}
