//! The sequences of requests: plan, provision, decommission, explain, verify. What a step means is decided by the pure files, and
//! done by `cluster/` and `platform.rs`.

mod adopt;
mod apply;
mod decommission;
mod diagnosis;
mod discovery;
mod explain;
mod former_namespace;
mod judgement;
mod observe;
mod plan;
mod proof;
mod provision;
mod publish;
mod remove;
mod session;
mod verify;

pub(crate) use decommission::decommission;
pub(crate) use explain::{Explained, explain_credential, explain_params};
pub(crate) use plan::plan;
pub(crate) use provision::provision;
pub(crate) use verify::verify;

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    pin::Pin,
    time::{Instant, SystemTime},
};

use discovery::LiveResources;
use jiff::Timestamp;
use session::Session;

use crate::{
    budget::Budget,
    cluster::ApiError,
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    endpoint::connection::ServerTrust,
    input::request::Request,
    k8s::{name::ClusterRoleName, record::INVENTORY},
    plan::{guardrails::Guard, judgement::Judgement, parent_login::parent_expires, snapshot::Snapshot},
    rbac::Rule,
    report::Report,
};

/// The context of a command about the grants of an instance.
pub(crate) struct Run<'a> {
    /// The instance, its grants and the cluster.
    pub(crate) request: &'a Request,
    /// The log and the JSON document.
    pub(crate) report: &'a Report,
    /// The connection to the cluster as the parent credential.
    pub(crate) session: Session<'a>,
    /// The server's version, once it was read.
    server_version: OnceCell<String>,
    /// The limits on what may be granted.
    guard: Guard,
    /// What the server serves.
    resources: LiveResources,
    /// The rules of the requested ClusterRoles, once they were read; none for one that does not exist.
    cluster_roles: OnceCell<BTreeMap<ClusterRoleName, Option<Vec<Rule>>>>,
}

impl<'a> Run<'a> {
    /// Connects to the cluster of the request.
    pub(crate) async fn connect(request: &'a Request, budget: Budget, report: &'a Report) -> Result<Self, Failure> {
        let session = Session::connect(&request.connection, budget, report).await?;
        if matches!(request.connection.ca, ServerTrust::System) {
            let text =
                "no CA given: a CA from the system trust store verified the server, and is included in the credential";
            report.finding(Finding::remark(finding::Code::SystemCa, text));
        }
        Ok(Self {
            request,
            report,
            session,
            server_version: OnceCell::new(),
            guard: Guard::default(),
            resources: LiveResources::new(),
            cluster_roles: OnceCell::new(),
        })
    }

    /// Sets the limits on what may be granted.
    #[must_use]
    pub(crate) fn guarded(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// The server's version; none before the first observation, and from a server that hides it.
    fn server_version(&self) -> Option<&str> {
        self.server_version.get().map(String::as_str)
    }

    /// The result of some work, beside which the server's discovery is read.
    async fn beside_discovery<T>(&self, work: Pin<Box<impl Future<Output = T>>>) -> T {
        let is_needed = !self.request.grants.requested().is_empty();
        self.resources.beside(&self.session.cluster, is_needed, work).await
    }

    /// The judgement of the requested rules and ClusterRoles, by what was read so far.
    fn judgement(&self) -> Judgement {
        let rules_of = |name: &str| {
            let known = self.cluster_roles.get()?.iter().find(|(known, _)| known.as_str() == name);
            known?.1.as_deref()
        };
        self.resources.judge(&self.request.grants, &rules_of, self.server_version())
    }

    /// The finding that the parent's login ends soon. Only after the server has accepted it: else that is the failure.
    fn parent_expires(&self) -> Option<Finding> {
        parent_expires(&self.request.connection, Timestamp::try_from(SystemTime::now()).ok()?)
    }

    /// The first observation of a plan or a provision. Whoever uses the token presents no client certificate: where the
    /// parent presented one, the server's version is read without it, so that a server that requires one is found before
    /// anything is created, and without an additional request.
    async fn survey(&self) -> Result<Snapshot, Failure> {
        let cluster = &self.session.cluster;
        let refused = OnceCell::new();
        let version = async {
            if cluster.showed_certificate() {
                let anonymous =
                    async { self.session.open_unauthenticated().await?.version_without_certificate().await };
                match anonymous.await {
                    Ok(Some(version)) => return Ok(version),
                    Ok(None) => {}
                    Err(error) => drop(refused.set(error)),
                }
            }
            cluster.version().await
        };
        let snapshot = self.observe(true, version).await?;
        match refused.into_inner() {
            Some(error) => Err(error.into()),
            None => Ok(snapshot),
        }
    }

    /// Observes the cluster; where a token is to be `proved`, also whether the server serves the reviews for that.
    async fn observe(
        &self,
        proved: bool,
        version: impl Future<Output = Result<String, ApiError>>,
    ) -> Result<Snapshot, Failure> {
        let started = Instant::now();
        let _waiting = self.report.waiting("reading the current state");
        let Request { instance, connection, grants } = self.request;
        let parent = connection.login.token();
        let snapshot =
            observe::observe(&self.session.cluster, &instance.names, grants, parent, proved, version).await?;
        self.register_tokens(&snapshot);
        let version = snapshot.server_version.as_deref().unwrap_or("of unknown version");
        self.report.step("observe", &format!("Kubernetes {version}"), Some(started.elapsed()));
        self.report.server_version(snapshot.server_version.clone());
        if let Some(version) = &snapshot.server_version {
            let _ = self.server_version.set(version.clone());
        }
        let _ = self.cluster_roles.set(snapshot.observed.cluster_roles.clone());
        if !snapshot.inventory_is_whole {
            let text =
                format!("the annotation {INVENTORY} of the ServiceAccount cannot be read, so not every place is known");
            self.report.finding(Finding::remark(finding::Code::InventoryUnreadable, text).help(
                "look for objects of this instance in other namespaces, or decommission with permission to \
                           list in the whole cluster",
            ));
        }
        Ok(snapshot)
    }

    /// Registers the observed tokens with the redactor.
    fn register_tokens(&self, snapshot: &Snapshot) {
        snapshot
            .observed
            .slots
            .iter()
            .filter_map(|slot| slot.token.as_ref())
            .for_each(|token| self.report.register(token));
    }
}
