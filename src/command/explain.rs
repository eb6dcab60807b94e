//! explain: what params, or an existing credential, allow, as a table.

use std::collections::BTreeSet;

use crate::{
    cli::{ExplainOptions, Source, Subject},
    command::{announce, tell, until_stopped},
    diagnostics::{error::Failure, finding::Finding},
    env::Environment,
    input::{
        documents::{self, Strictness},
        request,
    },
    k8s::name::InstanceName,
    plan::{
        access_matrix::{access_matrix, granted_rules},
        judgement::{judge, unknown_roles},
    },
    rbac::{Catalog, default_cluster_role},
    report::Report,
    run::{Explained, explain_credential, explain_params},
};

/// Runs the command.
pub(crate) async fn run(options: &ExplainOptions, environment: &Environment, report: &Report) -> Result<(), Failure> {
    let timeout = request::timeout_or_default(options.timeout_seconds);
    let Explained { cells, findings, home, unknown } = match &options.subject {
        Subject::Credential { artifact, namespace } => {
            let (inputs, findings) = documents::credential_alone(artifact, namespace.clone(), environment);
            let (credential, remarks) = request::credential(&inputs, false, findings).map_err(not_a_credential)?;
            let budget = announce(report, None, &credential.connection, None, timeout, remarks);
            let work = explain_credential(&credential, budget, report);
            until_stopped("explain", false, report, work).await?
        }
        Subject::Params { source, live: false } => offline(source, report)?,
        Subject::Params { source, live: true } => {
            let (inputs, findings) = documents::load(source, Strictness::Strict, environment);
            let ((checked, connection), remarks) =
                request::check_with_connection(&inputs, findings).map_err(Failure::input)?;
            let budget = announce(report, None, &connection, None, timeout, remarks);
            tell_instance(&checked, report);
            let work = explain_params(&checked.params, &connection, budget, report);
            until_stopped("explain", false, report, work).await?
        }
    };
    // A wildcard stands beside the verbs that it becomes.
    let allowed = cells.iter().filter(|cell| !cell.dead && cell.permission.verb() != "*").count();
    report.access(cells, &home, &unknown, !options.json);
    tell(report, findings);
    report.done(&format!("{allowed} permission{}", if allowed == 1 { "" } else { "s" }));
    Ok(())
}

/// The failure to read a credential, with the option for params: other commands take params as an argument.
fn not_a_credential(mut findings: Vec<Finding>) -> Failure {
    if let Some(finding) = findings.iter_mut().find(|finding| finding.help.is_none()) {
        finding.help = Some("to explain params, pass them with --params".to_owned());
    }
    Failure::input(findings)
}

/// By what Kubernetes itself serves, and the ClusterRoles that every server has.
fn offline(source: &Source, report: &Report) -> Result<Explained, Failure> {
    let (inputs, findings) = documents::params_of_run(source);
    let (checked, remarks) = request::check(&inputs, findings).map_err(Failure::input)?;
    tell_instance(&checked, report);
    tell(report, remarks);
    let grants = &checked.params.grants;
    let rules_of = |name: &str| default_cluster_role(name);
    let mut findings = judge(grants, &rules_of, Catalog::embedded(), None).findings;
    findings.extend(unknown_roles(grants, &rules_of, |name| {
        let text = format!("ClusterRole {name} is not in the table: its rules are unknown without a cluster");
        (text, "add --live or --context, and it is read from the cluster")
    }));
    let cells = access_matrix(&granted_rules(grants, &rules_of), Catalog::embedded(), None);
    let unknown = grants.requested_roles().iter().map(|role| role.name.as_str().to_owned());
    let unknown: BTreeSet<String> = unknown.filter(|name| rules_of(name).is_none()).collect();
    let home = checked.params.namespace.as_str().to_owned();
    Ok(Explained { cells, findings, home, unknown: unknown.into_iter().collect() })
}

fn tell_instance(checked: &request::Checked, report: &Report) {
    report.instance(checked.name.as_ref().map(InstanceName::as_str), checked.params.namespace.as_str());
}
