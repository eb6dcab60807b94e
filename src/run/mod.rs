//! The sequences: plan, provision, decommission, in the words of operator.md. Owns the order of things; what each
//! step means is decided by the pure files, and done by `cluster/` and `publish.rs`.

mod compare;
mod converge;
mod former;
mod look;
mod plan;
mod proof;
mod provision;
mod rights;
mod take_back;
mod take_over;

pub use plan::plan;
pub use provision::provision;
pub use take_back::decommission;

use std::time::Instant;

use look::{Identity, Sight};

use crate::{
    budget::Budget,
    cluster::{Cluster, Line},
    connection::{Connection, Login},
    error::Failure,
    finding::{Finding, Severity},
    object::INVENTORY,
    patience::Patience,
    report::Report,
    request::Request,
};

/// What a run works with.
pub struct Run<'a> {
    /// What is asked for.
    pub request: &'a Request,
    /// What it has used up.
    pub budget: Budget,
    /// Where it prints to.
    pub report: &'a Report,
}

impl<'a> Run<'a> {
    fn patience(&self) -> Patience<'a> {
        Patience { budget: self.budget.clone(), report: self.report }
    }

    async fn connect(&self) -> Result<Cluster<'a>, Failure> {
        let connection = &self.request.connection;
        let started = Instant::now();
        let cluster = self.connect_as(&connection.login).await?;
        let what = format!("{} ({})", connection.server.as_str(), cluster.protocol);
        self.report.step("connect", &what, Some(started.elapsed()));
        Ok(cluster)
    }

    /// A connection to the very server and CA of the artifact.
    async fn connect_as(&self, login: &Login) -> Result<Cluster<'a>, Failure> {
        let Connection { server, ca, tls_server_name, .. } = &self.request.connection;
        Cluster::connect(server, ca, tls_server_name.as_deref(), login, self.patience()).await
    }

    /// The same, for somebody who will log in later.
    async fn open_line(&self) -> Result<Line<'a>, Failure> {
        let Connection { server, ca, tls_server_name, .. } = &self.request.connection;
        Line::open(server, ca, tls_server_name.as_deref(), self.patience()).await
    }

    async fn look(&self, cluster: &Cluster<'_>) -> Result<Sight, Failure> {
        let started = Instant::now();
        let Request { names, grants, labels, .. } = self.request;
        let identity = self.request.instance.as_deref().map(|instance| Identity { instance, tags: labels });
        let sight = look::look(cluster, names, grants, identity).await?;
        for (_, token) in &sight.tokens {
            self.report.learn(token);
        }
        let version = sight.server_version.as_deref().unwrap_or("of unknown version");
        self.report.step("observe", &format!("Kubernetes {version}"), Some(started.elapsed()));
        self.report.server_version(sight.server_version.clone());
        if !sight.inventory_is_whole {
            let text =
                format!("the annotation {INVENTORY} of the ServiceAccount cannot be read: not every place is known");
            self.report.finding(
                Finding::remark("inventory-unreadable", Severity::High, text)
                    .help("look for objects of this instance elsewhere, or decommission with the right to list"),
            );
        }
        Ok(sight)
    }
}
