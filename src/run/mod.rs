//! The sequences of requests: plan, provision, decommission, verify. What a step means is decided by the pure files, and
//! done by `cluster/` and `platform.rs`.

mod adopt;
mod apply;
mod decommission;
mod diagnosis;
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
pub(crate) use plan::plan;
pub(crate) use provision::provision;
pub(crate) use verify::verify;

use std::{cell::OnceCell, future::poll_fn, pin::pin, task::Poll, time::Instant};

use session::Session;

use crate::{
    budget::Budget,
    cluster::{ApiError, Cluster, TOO_LATE},
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    endpoint::connection::ServerTrust,
    input::request::Request,
    k8s::{grant::Grants, record::INVENTORY},
    plan::{
        guardrails::Guard,
        judgement::{Discovery, Resources},
        snapshot::Snapshot,
    },
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
    /// The server's discovery, once the first observation is over.
    discovery: OnceCell<Discovery>,
}

/// What a server says it serves, if there are rules to judge. The first attempt counts.
async fn discover(cluster: &Cluster<'_>, grants: &Grants) -> Discovery {
    if grants.requested().is_empty() {
        return Discovery::Unneeded;
    }
    cluster.discovery().await.map_or_else(Discovery::Missing, Discovery::Read)
}

/// The result of some work, and the discovery as far as it has come when the work is done: nothing waits for it. It is
/// polled first, so that its request is the first one.
async fn beside<T>(work: impl Future<Output = T>, discovery: impl Future<Output = Discovery>) -> (T, Discovery) {
    let mut work = pin!(work);
    let mut discovery = pin!(discovery);
    let mut found = None;
    let done = poll_fn(|context| {
        if found.is_none()
            && let Poll::Ready(answer) = discovery.as_mut().poll(context)
        {
            found = Some(answer);
        }
        work.as_mut().poll(context)
    })
    .await;
    (done, found.unwrap_or_else(|| Discovery::Missing(TOO_LATE.to_owned())))
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
        let guard = Guard::default();
        Ok(Self { request, report, session, server_version: OnceCell::new(), guard, discovery: OnceCell::new() })
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

    /// What rules are judged by: the server's discovery, as far as it came beside the first observation.
    fn resources(&self) -> Resources<'_> {
        self.discovery.get().map(Discovery::resources).unwrap_or_default()
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
        let observing = self.observe(true, version);
        let (snapshot, discovery) = beside(observing, discover(cluster, &self.request.grants)).await;
        let _ = self.discovery.set(discovery);
        let snapshot = snapshot?;
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
