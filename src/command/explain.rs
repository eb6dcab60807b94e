//! explain: what params, or an existing credential, allow, as a table.

use std::path::Path;

use crate::{
    cli::{ExplainOptions, Source, Subject},
    command::{announce, tell, until_stopped},
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    env::Environment,
    input::{documents, request},
    k8s::name::{ClusterRoleName, InstanceName, Namespace},
    plan::{
        access_matrix::{access_matrix, granted_rules},
        judgement::judge,
    },
    rbac::{Catalog, default_cluster_role},
    report::Report,
    run::{Explained, explain_credential, explain_params},
};

/// Runs the command.
pub(crate) async fn run(options: &ExplainOptions, environment: &Environment, report: &Report) -> Result<(), Failure> {
    let (explained, home) = match &options.subject {
        Subject::Credential { artifact, namespace } => {
            let further = namespace.as_deref().map(Namespace::parse).transpose().map_err(|problem| {
                Failure::input(vec![Finding::blocking(finding::Code::Schema, "", format!("--namespace: {problem}"))])
            })?;
            credential(artifact, further.as_ref(), options, environment, report).await?
        }
        Subject::Params { source, live: false } => offline(source, report)?,
        Subject::Params { source, live: true } => live(source, options, environment, report).await?,
    };
    let Explained { cells, findings, unknown } = explained;
    let allowed = cells.iter().filter(|cell| !cell.dead).count();
    report.access(cells, &home, !options.json);
    let unknown =
        unknown.iter().map(|name| unknown_role(name, matches!(options.subject, Subject::Params { live: true, .. })));
    tell(report, findings.into_iter().chain(unknown).collect());
    report.done(&format!("{allowed} permissions"));
    Ok(())
}

/// By what Kubernetes itself serves, and the ClusterRoles that every server has.
fn offline(source: &Source, report: &Report) -> Result<(Explained, String), Failure> {
    let (inputs, findings) = documents::params_of_run(source);
    let (checked, remarks) = request::check(&inputs, findings).map_err(Failure::input)?;
    let home = checked.params.namespace.as_str().to_owned();
    report.instance(checked.name.as_ref().map(InstanceName::as_str), &home);
    tell(report, remarks);
    let grants = &checked.params.grants;
    let judgement = judge(grants, &|name| default_cluster_role(name), Catalog::embedded(), None);
    let granted = granted_rules(grants, &|name| default_cluster_role(name));
    let cells = access_matrix(&granted, Catalog::embedded(), None);
    let names = grants.requested_roles().iter().map(|role| &role.name);
    let unknown = names.filter(|name| default_cluster_role(name.as_str()).is_none()).cloned().collect();
    Ok((Explained { cells, findings: judgement.findings, unknown }, home))
}

async fn live(
    source: &Source,
    options: &ExplainOptions,
    environment: &Environment,
    report: &Report,
) -> Result<(Explained, String), Failure> {
    let (inputs, findings) = documents::load(source, documents::Strictness::Strict, environment);
    let ((checked, connection), remarks) = request::check_with_connection(&inputs, findings).map_err(Failure::input)?;
    let home = checked.params.namespace.as_str().to_owned();
    let timeout = request::timeout_or_default(options.timeout_seconds);
    let budget = announce(report, None, &connection, None, timeout, remarks);
    report.instance(checked.name.as_ref().map(InstanceName::as_str), &home);
    let work = explain_params(&checked.params, &connection, budget, report);
    Ok((until_stopped("explain", false, report, work).await?, home))
}

async fn credential(
    artifact: &Path,
    further: Option<&Namespace>,
    options: &ExplainOptions,
    environment: &Environment,
    report: &Report,
) -> Result<(Explained, String), Failure> {
    let (inputs, findings) = documents::credential_alone(artifact, environment);
    let (credential, remarks) = request::credential(&inputs, false, findings).map_err(Failure::input)?;
    let timeout = request::timeout_or_default(options.timeout_seconds);
    let budget = announce(report, None, &credential.connection, None, timeout, remarks);
    let work = explain_credential(&credential, further, budget, report);
    let explained = until_stopped("explain", false, report, work).await?;
    Ok((explained, report.namespace().unwrap_or_default()))
}

/// The finding that the rules of a ClusterRole are not in the table.
fn unknown_role(name: &ClusterRoleName, live: bool) -> Finding {
    let name = name.as_str();
    let (text, help) = if live {
        (
            format!("ClusterRole {name} is not in the table: it does not exist, or your login may not read it"),
            "kubectl get clusterrole shows which of both",
        )
    } else {
        (
            format!("ClusterRole {name} is not in the table: its rules are unknown without a cluster"),
            "add --live or --context, and it is read from the cluster",
        )
    };
    Finding::remark(finding::Code::ClusterRoleUnverified, text).at("/cluster_roles").help(help)
}
