//! Former homes: other namespaces in which this very instance of the platform still has objects, because its namespace
//! was changed although the form does not let anybody do that. What is there is found, told, and taken back.

use futures_util::future::join_all;

use crate::{
    cluster::Cluster,
    diagnostics::{
        error::Failure,
        finding::{self, Finding, Severity},
    },
    input::request::Request,
    k8s::{denial::lacks, name::Namespace, object::Reference, object_names::Names, record::INVENTORY},
    plan::{adoption, parent_access, removal::Left, snapshot::Sight},
    run::{
        Run, observe,
        remove::{self, Outcome},
    },
};

/// A former home.
pub struct FormerHome {
    /// What the objects are called there.
    pub names: Names,
    /// What is there.
    pub sight: Sight,
}

/// Looks at each former home.
///
/// # Errors
/// Any fault but a denial.
pub async fn look(run: &Run<'_>, cluster: &Cluster<'_>, sight: &Sight) -> Result<Vec<FormerHome>, Failure> {
    let homes = sight.former_homes.iter().map(async |home| -> Result<FormerHome, Failure> {
        let names = run.request.instance.names.in_home(home);
        let parent = run.request.connection.login.token();
        let sight = observe::look(cluster, &names, &[], None, parent, false, cluster.version()).await?;
        run.learn(&sight);
        Ok(FormerHome { names, sight })
    });
    Failure::all(join_all(homes).await)
}

/// Takes back what is in former homes, now that the new credential is handed out.
///
/// # Errors
/// What could not be finished for another reason than a denial or a finalizer; a repeat goes on from there.
pub async fn clear(run: &Run<'_>, cluster: &Cluster<'_>, sight: &Sight) -> Result<(), Failure> {
    for home in look(run, cluster, sight).await? {
        let then = "they are deleted now that the new credential is delivered";
        for remark in home.remarks(run.request, Severity::High, then) {
            run.report.finding(remark);
        }
        let (left, stays) = home.going();
        if let Some(finding) = stays {
            run.report.finding(finding);
        }
        if !left.ours.is_empty() {
            home.clear(run, cluster, &left).await?;
        }
    }
    Ok(())
}

impl FormerHome {
    /// That it is one, and what comes of that.
    #[must_use]
    pub fn remarks(&self, request: &Request, severity: Severity, then: &str) -> Vec<Finding> {
        let home = self.names.namespace();
        let text = format!("this instance was in namespace {home} before, and its objects there still exist: {then}");
        let exposed = adoption::exposure(request, &self.names, &self.sight);
        [Finding::remark(finding::Code::Moved, text).severity(severity)].into_iter().chain(exposed).collect()
    }

    /// What goes, and why something stays.
    #[must_use]
    pub fn going(&self) -> (Left, Option<Finding>) {
        let mut left = Left::of(&self.names, &self.sight, &[]);
        let objects: Vec<Reference> = left.ours.keys().cloned().collect();
        let mut missing = left.unseen.clone();
        missing.extend(parent_access::undeletable(&self.sight, &objects));
        let home = self.names.namespace();
        if !missing.is_empty() {
            return (Left::default(), Some(left_behind(home, &lacks(&missing))));
        }
        if self.sight.inventory_is_whole {
            return (left, None);
        }
        // It stays, because nothing else leads to what is not found now.
        let account = self.names.service_account();
        left.ours.remove(&account);
        let why = format!("the annotation {INVENTORY} of {account} cannot be read, so not every place is known");
        (left, Some(left_behind(home, &why)))
    }

    async fn clear(&self, run: &Run<'_>, cluster: &Cluster<'_>, left: &Left) -> Result<(), Failure> {
        // Secrets of Helm that may not be looked for are found again by the ServiceAccount.
        let mut outcome = Outcome::default();
        outcome.missing.extend(self.sight.revisions_denied.iter().cloned());
        remove::clear(run, cluster, left, &mut outcome).await;
        let home = self.names.namespace();
        let held = outcome
            .held
            .iter()
            .map(|failure| format!("{}: {}", failure.object.as_deref().unwrap_or_default(), failure.cause));
        let denied = (!outcome.missing.is_empty()).then(|| lacks(&outcome.missing));
        for why in held.chain(denied) {
            run.report.finding(left_behind(home, &why));
        }
        remove::prove_all_dead(run, &self.names, &self.sight, &outcome).await?;
        outcome.failed.take().map_or(Ok(()), |failure| {
            Err(failure
                .state(format!("the new credential is delivered; the one of namespace {home} is not deleted yet")))
        })
    }
}

/// A former home in which something stays, and why.
fn left_behind(home: &Namespace, why: &str) -> Finding {
    let text = format!("permissions of this instance in its previous namespace {home} may still be in effect: {why}");
    Finding::remark(finding::Code::NotTakenBack, text)
        .help("fix this and run again: each run looks there until nothing is left")
}
