//! The sequences: plan, provision, decommission, in the words of operator.md. Owns the order of things; what each
//! step means is decided by the pure files, and done by `cluster/` and `publish.rs`.

mod adopt;
mod apply;
mod decommission;
mod former_namespace;
mod observe;
mod plan;
mod proof;
mod provision;
mod remove;
mod session;
mod verify;

pub use decommission::decommission;
pub use plan::plan;
pub use provision::provision;
pub use verify::verify;

use std::{cell::OnceCell, time::Instant};

use session::Session;

use crate::{
    budget::Budget,
    cluster::ApiError,
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    endpoint::connection::Trust,
    input::request::Request,
    k8s::record::INVENTORY,
    plan::snapshot::Sight,
    report::Report,
};

/// What a command about the grants of an instance works with.
pub struct Run<'a> {
    /// The instance and its grants.
    pub request: &'a Request,
    /// Where it prints to.
    pub report: &'a Report,
    /// The cluster.
    pub session: Session<'a>,
    /// The server's version, once it was asked.
    server_version: OnceCell<String>,
}

impl<'a> Run<'a> {
    /// Connects to the cluster of the request.
    ///
    /// # Errors
    /// Which step on the way failed.
    pub async fn connect(request: &'a Request, budget: Budget, report: &'a Report) -> Result<Self, Failure> {
        let session = Session::connect(&request.connection, budget, report).await?;
        if matches!(request.connection.ca, Trust::System) {
            let text =
                "no CA given: a CA from the system trust store verified the server, and is included in the credential";
            report.finding(Finding::remark(finding::Code::SystemCa, text));
        }
        Ok(Self { request, report, session, server_version: OnceCell::new() })
    }

    /// The server's version; none before the first look, and from a server that hides it.
    fn server_version(&self) -> Option<&str> {
        self.server_version.get().map(String::as_str)
    }

    /// The first look at the cluster of a run after which a holder will use the token. A holder shows no client
    /// certificate: where the parent showed one, the server's version is asked for without it, so that a server that
    /// requires one is found before anything is made, and at no additional request.
    async fn survey(&self) -> Result<Sight, Failure> {
        let cluster = &self.session.cluster;
        let refused = OnceCell::new();
        let version = async {
            if cluster.showed_certificate() {
                let anonymous = async { self.session.open_line().await?.version_without_certificate().await };
                match anonymous.await {
                    Ok(Some(version)) => return Ok(version),
                    Ok(None) => {}
                    Err(error) => drop(refused.set(error)),
                }
            }
            cluster.version().await
        };
        let sight = self.look(true, version).await?;
        match refused.into_inner() {
            Some(error) => Err(error.into()),
            None => Ok(sight),
        }
    }

    /// Looks at what is there, and where something is to be `proved`, whether the server can be asked for that.
    async fn look(
        &self,
        proved: bool,
        version: impl Future<Output = Result<String, ApiError>>,
    ) -> Result<Sight, Failure> {
        let started = Instant::now();
        let _waiting = self.report.waiting("reading the current state");
        let Request { instance, connection, grants } = self.request;
        let parent = connection.login.token();
        let sight = observe::look(&self.session.cluster, &instance.names, grants, parent, proved, version).await?;
        self.learn(&sight);
        let version = sight.server_version.as_deref().unwrap_or("of unknown version");
        self.report.step("observe", &format!("Kubernetes {version}"), Some(started.elapsed()));
        self.report.server_version(sight.server_version.clone());
        if let Some(version) = &sight.server_version {
            let _ = self.server_version.set(version.clone());
        }
        if !sight.inventory_is_whole {
            let text =
                format!("the annotation {INVENTORY} of the ServiceAccount cannot be read, so not every place is known");
            self.report.finding(Finding::remark(finding::Code::InventoryUnreadable, text).help(
                "look for objects of this instance in other namespaces, or decommission with permission to \
                           list in the whole cluster",
            ));
        }
        Ok(sight)
    }

    /// Tells the redactor what tokens were seen.
    fn learn(&self, sight: &Sight) {
        sight.observed.slots.iter().filter_map(|slot| slot.token.as_ref()).for_each(|token| self.report.learn(token));
    }
}
