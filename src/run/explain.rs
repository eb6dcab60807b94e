//! explain: what params allow in a cluster, and what an existing credential allows.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use futures_util::future::join_all;

use crate::{
    budget::Budget,
    cluster::{ApiError, ApiErrorKind},
    credential::{access_checks::AccessChecks, claims::Claims, defaults::Defaults},
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    endpoint::connection::Connection,
    input::request::{Credential, Params},
    k8s::{
        grant::{Grants, RequestedRule, Scope},
        name::ClusterRoleName,
        object::{Kind, Reference},
    },
    plan::{
        access_matrix::{Access, access_matrix, granted_rules},
        judgement::{release, unknown_roles},
    },
    rbac::{Catalog, PermissionRecord, Rule},
    report::Report,
    run::{
        discovery::LiveResources,
        proof::{self, unlimited},
        session::Session,
        verify::{identify, not_proved},
    },
};

/// What is allowed, and the findings about it.
pub(crate) struct Explained {
    /// The cells of the matrix.
    pub(crate) cells: Vec<Access>,
    /// The findings, the worst first.
    pub(crate) findings: Vec<Finding>,
    /// The namespace that comes first.
    pub(crate) home: String,
    /// The ClusterRoles whose rules are not known.
    pub(crate) unknown: Vec<String>,
}

/// What params allow, by what the cluster serves and by the rules that the ClusterRoles have now.
pub(crate) async fn explain_params(
    params: &Params,
    connection: &Connection,
    budget: Budget,
    report: &Report,
) -> Result<Explained, Failure> {
    let session = Session::connect(connection, budget, report).await?;
    let cluster = &session.cluster;
    let names: BTreeSet<&ClusterRoleName> = params.grants.requested_roles().iter().map(|role| &role.name).collect();
    let started = Instant::now();
    let waiting = report.waiting("reading what the cluster serves");
    let resources = LiveResources::new();
    let reading = async {
        let roles = names.iter().map(async |name| {
            let reference = Reference::at_cluster(Kind::ClusterRole, name.as_str());
            ((*name).clone(), cluster.get(&reference).await)
        });
        let read = tokio::join!(cluster.version(), join_all(roles));
        resources.settle().await;
        read
    };
    let is_needed = !params.grants.requested().is_empty() || !names.is_empty();
    let (version, read) = resources.beside(cluster, is_needed, Box::pin(reading)).await;
    drop(waiting);
    // A server may hide its version from this login.
    let version = match version {
        Err(ApiError { kind: ApiErrorKind::Denied { .. }, .. }) => None,
        version => Some(version?),
    };
    report.server_version(version.clone());
    report.step(
        "observe",
        &format!("Kubernetes {}", version.as_deref().unwrap_or("of unknown version")),
        Some(started.elapsed()),
    );
    let mut roles: BTreeMap<ClusterRoleName, Vec<Rule>> = BTreeMap::new();
    for (name, role) in read {
        match role {
            Ok(Some(role)) => drop(roles.insert(name, role.live.rules())),
            Ok(None) | Err(ApiError { kind: ApiErrorKind::Denied { .. }, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let rules_of =
        |name: &str| roles.iter().find(|(known, _)| known.as_str() == name).map(|(_, rules)| rules.as_slice());
    let judgement = resources.judge(&params.grants, &rules_of, version.as_deref());
    let granted = granted_rules(&params.grants, &rules_of);
    let cells = access_matrix(&granted, resources.catalog(), version.as_deref().and_then(release));
    let mut findings = judgement.findings;
    findings.extend(unknown_roles(&params.grants, &rules_of, |name| {
        let text = format!("ClusterRole {name} is not in the table: it does not exist, or your login may not read it");
        (text, "kubectl get clusterrole shows which of both")
    }));
    let unknown = names.iter().map(|name| name.as_str().to_owned()).filter(|name| rules_of(name).is_none()).collect();
    Ok(Explained { cells, findings, home: params.namespace.as_str().to_owned(), unknown })
}

/// What a credential allows beyond what every ServiceAccount may: in its namespace, in that of `--namespace` and in the
/// whole cluster, as the server lists it.
pub(crate) async fn explain_credential(
    credential: &Credential,
    budget: Budget,
    report: &Report,
) -> Result<Explained, Failure> {
    let claims = Claims::of(&credential.token);
    let account = identify(credential, claims.as_ref(), report)?;
    let session = Session::connect(&credential.connection, budget, report).await?;
    let holder = &session.cluster;
    let name = account.name;
    let mut scopes = BTreeSet::from([None, Some(account.namespace)]);
    scopes.extend(credential.namespace.as_ref().map(|namespace| Some(namespace.as_str())));
    let started = Instant::now();
    let waiting = report.waiting("asking what the credential allows");
    let resources = LiveResources::new();
    // Nothing is claimed, so only the lists of the server count.
    let nothing = AccessChecks::new(&[], Catalog::embedded());
    let asking = async {
        let answers = tokio::join!(holder.version(), proof::ask(holder, &nothing, &account, &scopes));
        resources.settle().await;
        answers
    };
    let (version, answers) = resources.beside(holder, true, Box::pin(asking)).await;
    let proof = match answers {
        Ok(answers) => proof::conclude(holder, &nothing, answers).await,
        Err(error) => Err(error),
    };
    drop(waiting);
    report.server_version(version.as_ref().ok().cloned());
    let mut proof = proof.map_err(|error| not_proved(error, &version, credential.connection.server.as_str()))?;
    report.step("prove", &format!("{name}: the server confirms its identity"), Some(started.elapsed()));
    let asked: Vec<&str> = scopes.iter().flatten().copied().collect();
    let asked =
        format!("namespace {} and the whole cluster; --namespace asks in another namespace, too", asked.join(", "));
    report.step("asked", &asked, None);
    if !proof.complete {
        report.step("", "the server cannot list everything that it allows: the table may lack permissions", None);
    }
    proof::beyond_defaults(&Defaults::of(version.as_deref().ok()), None, resources.catalog(), &mut proof).await;
    let grants = as_grants(&proof.excess);
    let judgement = resources.judge(&grants, &|_| None, version.as_deref().ok());
    let mut findings = without_place(judgement.findings);
    findings.extend(proof.unlimited.then(|| unlimited("the credential")));
    findings.sort_by_key(|finding| Reverse(finding.severity));
    let granted = granted_rules(&grants, &|_| None);
    let version = version.as_deref().ok().and_then(release);
    let cells = access_matrix(&granted, resources.catalog(), version);
    report.proof(proof);
    Ok(Explained { cells, findings, home: account.namespace.to_owned(), unknown: Vec::new() })
}

/// The findings about rules that no document contains: each risk once, without a place. What matches nothing is nobody's
/// mistake there.
fn without_place(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let is_of_use = finding.code.is_risk() || finding.code == finding::Code::DiscoveryMissing;
        if is_of_use && kept.iter().all(|known| known.code != finding.code) {
            let help = finding.help.filter(|_| !finding.code.is_risk());
            kept.push(Finding { pointer: None, help, ..finding });
        }
    }
    kept
}

/// Permissions that a server lists, as rules: those that differ only in the verb share one.
fn as_grants(records: &[PermissionRecord]) -> Grants {
    let mut rules: BTreeMap<(Option<&str>, Rule), Vec<String>> = BTreeMap::new();
    for record in records {
        let (namespace, rule, verb) = match record {
            PermissionRecord::Url { verb, url } => {
                (None, Rule { non_resource_urls: vec![url.clone()], ..Rule::default() }, verb)
            }
            PermissionRecord::Resource { verb, group, resource, name, namespace } => {
                let rule = Rule {
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    resource_names: name.iter().cloned().collect(),
                    ..Rule::default()
                };
                (namespace.as_deref(), rule, verb)
            }
        };
        rules.entry((namespace, rule)).or_default().push(verb.clone());
    }
    let requested = rules.into_iter().filter_map(|((namespace, rule), verbs)| {
        let scope = Scope::parse(namespace.unwrap_or("*")).ok()?;
        Some(RequestedRule { pointer: String::new(), source: None, rule: Rule { verbs, ..rule }, scopes: vec![scope] })
    });
    Grants::new(requested.collect(), Vec::new(), &Scope::Cluster)
}
