//! Former namespaces of an instance: search, observation and deletion. In a provision the search runs beside the creation
//! of the credential, and its failure is reported after the delivery.

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind},
    diagnostics::{error::Failure, finding::Severity},
    input::request::Instance,
    k8s::{denial::lacks, name::Namespace, object::Kind},
    plan::{
        former_namespace::{FormerNamespace, PlatformInstance, former_namespaces},
        removal::Removal,
    },
    rbac::PermissionRecord,
    run::{
        Run, observe,
        remove::{self, RemovalOutcome},
    },
};

/// The result of the search.
#[derive(Default)]
pub(crate) struct Search {
    /// The former namespaces.
    pub(crate) found: Vec<Namespace>,
    /// What the parent credential lacks to search.
    pub(crate) missing: Vec<PermissionRecord>,
}

/// Searches all namespaces for ServiceAccounts of the instance. Only a run of the platform knows which instance it is.
///
/// # Errors
/// Any fault but a denial.
pub(crate) async fn search(run: &Run<'_>) -> Result<Search, ApiError> {
    let Instance { names, labels, platform_id, .. } = &run.request.instance;
    let Some(id) = platform_id else { return Ok(Search::default()) };
    match run.session.cluster.namesakes(Kind::ServiceAccount, names.object()).await {
        Ok(accounts) => {
            let found = former_namespaces(names, PlatformInstance { id, tags: labels }, &accounts);
            Ok(Search { found, missing: Vec::new() })
        }
        Err(ApiError { kind: ApiErrorKind::Denied { missing, .. }, .. }) => Ok(Search { found: Vec::new(), missing }),
        Err(error) => Err(error),
    }
}

/// Reads each former namespace.
///
/// # Errors
/// Any fault but a denial.
pub(crate) async fn observe(run: &Run<'_>, found: &[Namespace]) -> Result<Vec<FormerNamespace>, Failure> {
    let cluster = &run.session.cluster;
    let former = found.iter().map(async |namespace| -> Result<FormerNamespace, Failure> {
        let names = run.request.instance.names.in_home(namespace);
        let parent = run.request.connection.login.token();
        let snapshot = observe::observe(cluster, &names, &[], parent, false, cluster.version()).await?;
        run.register_tokens(&snapshot);
        Ok(FormerNamespace { names, snapshot })
    });
    Failure::all(join_all(former).await)
}

/// Deletes what is in former namespaces, after the new credential is delivered.
///
/// # Errors
/// What could not be finished for another reason than a denial or a finalizer; running again continues from there.
pub(crate) async fn clear(run: &Run<'_>, found: &[Namespace]) -> Result<(), Failure> {
    for former in observe(run, found).await? {
        let then = "they are deleted now that the new credential is delivered";
        for remark in former.remarks(run.request, Severity::High, then) {
            run.report.finding(remark);
        }
        let (removal, stays) = former.to_delete();
        if let Some(finding) = stays {
            run.report.finding(finding);
        }
        if !removal.ours.is_empty() {
            delete(run, &former, &removal).await?;
        }
    }
    Ok(())
}

async fn delete(run: &Run<'_>, former: &FormerNamespace, removal: &Removal) -> Result<(), Failure> {
    // Secrets of Helm that may not be listed are found again by the ServiceAccount.
    let mut outcome = RemovalOutcome::default();
    outcome.missing.extend(former.snapshot.adoption.missing.iter().cloned());
    remove::clear(run, removal, &mut outcome).await;
    let held = outcome
        .held
        .iter()
        .map(|failure| format!("{}: {}", failure.object.as_deref().unwrap_or_default(), failure.cause));
    let denied = (!outcome.missing.is_empty()).then(|| lacks(&outcome.missing));
    for why in held.chain(denied) {
        run.report.finding(former.left_behind(&why));
    }
    remove::prove_all_dead(run, &former.names, &former.snapshot, &outcome).await?;
    outcome.failed.take().map_or(Ok(()), |failure| {
        let home = former.names.namespace();
        Err(failure.state(format!("the new credential is delivered; the one of namespace {home} is not deleted yet")))
    })
}
