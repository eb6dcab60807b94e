//! The sequences: plan, provision, decommission, in the words of operator.md. Owns the order of things; what each
//! step means is decided by the pure files, and done by `cluster/` and `publish.rs`.

mod compare;
mod converge;
mod copies;
mod former;
mod look;
mod plan;
mod proof;
mod provision;
mod rights;
mod take_back;
mod take_over;
mod verify;

pub use plan::plan;
pub use provision::provision;
pub use take_back::decommission;
pub use verify::verify;

use std::{
    cell::{Cell, OnceCell},
    time::Instant,
};

use futures_util::future::join;
use look::{Identity, Sight};
use rustls::pki_types::ServerName;

use crate::{
    budget::Budget,
    cluster::{Cluster, Line, Way},
    connection::{CaBundle, Login, Trust},
    error::{Code, Failure},
    finding::{Finding, Severity},
    patience::Patience,
    record::INVENTORY,
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
    /// The CA of the system that the server was verified against.
    verified_by: OnceCell<CaBundle>,
    /// The server's version, once it was asked.
    server_version: OnceCell<String>,
    /// Whether it was said that the artifact cannot say the server's name.
    said: Cell<bool>,
}

impl<'a> Run<'a> {
    /// A run that has done nothing yet.
    #[must_use]
    pub const fn new(request: &'a Request, budget: Budget, report: &'a Report) -> Self {
        Self {
            request,
            budget,
            report,
            verified_by: OnceCell::new(),
            server_version: OnceCell::new(),
            said: Cell::new(false),
        }
    }

    /// The server's version; none before the first look, and from a server that hides it.
    fn server_version(&self) -> Option<&str> {
        self.server_version.get().map(String::as_str)
    }

    fn patience(&self) -> Patience<'a> {
        Patience { budget: self.budget.clone(), report: self.report }
    }

    async fn connect(&self) -> Result<Cluster<'a>, Failure> {
        let connection = &self.request.connection;
        let started = Instant::now();
        // A command that talks to somebody has the terminal for itself.
        let alone = matches!(&connection.login, Login::Kubeconfig(person) if person.talks());
        let waiting = (!alone).then(|| self.report.waiting("connecting to the cluster"));
        let cluster = self.connect_as(&connection.login).await?;
        drop(waiting);
        let what = format!("{} ({})", connection.server.as_str(), cluster.protocol);
        self.report.step("connect", &what, Some(started.elapsed()));
        if let Some(ca) = &cluster.verified_by {
            let text = "no CA is given: the server is verified by one of the system's, which goes into the artifact";
            self.report.finding(Finding::remark("system-ca", Severity::Info, text));
            let _ = self.verified_by.set(ca.clone());
        }
        Ok(cluster)
    }

    /// A connection to the very server and CA of the artifact.
    async fn connect_as(&self, login: &Login) -> Result<Cluster<'a>, Failure> {
        let name = self.request.connection.tls_server_name.as_ref();
        Cluster::connect(self.way(name), login, self.patience()).await
    }

    /// The same, for somebody who will log in later: a holder of the artifact, which cannot say another name for the
    /// server than its host. Where that does not do, it is said, and the name is used all the same.
    async fn open_line(&self) -> Result<Line<'a>, Failure> {
        let open = async |name| Line::open(self.way(name), self.patience()).await;
        let Some(name) = &self.request.connection.tls_server_name else { return open(None).await };
        match open(None).await {
            Err(failure) if matches!(failure.code, Code::Tls | Code::TlsUnknownIssuer) => {
                if !self.said.replace(true) {
                    let name = name.to_str();
                    let text = format!(
                        "the server's certificate is for {name} and not for the host of its URL, and an artifact cannot \
                         say that: whoever uses it has to be told"
                    );
                    let help = format!("kubectl --tls-server-name {name}, or a server URL that the certificate is for");
                    self.report.finding(Finding::remark("tls-server-name", Severity::High, text).help(help));
                }
                open(Some(name)).await
            }
            line => line,
        }
    }

    fn way<'b>(&'b self, name: Option<&'b ServerName<'static>>) -> Way<'b> {
        Way { connection: &self.request.connection, ca: self.ca(), name }
    }

    /// The CA that the server is verified against; none before one of the system's is found.
    fn ca(&self) -> Option<&CaBundle> {
        match &self.request.connection.ca {
            Trust::Given(ca) => Some(ca),
            Trust::System => self.verified_by.get(),
        }
    }

    /// The first look, and at the same time the way of a holder of the artifact, who shows no client certificate: a
    /// server that lets in none but those who do is found before anything is made.
    async fn survey(&self, cluster: &Cluster<'_>) -> Result<Sight, Failure> {
        let knocking =
            async { if cluster.showed_certificate() { self.open_line().await?.knock().await } else { Ok(()) } };
        let (sight, knocked) = join(self.look(cluster, true), knocking).await;
        let sight = sight?;
        knocked.map(|()| sight)
    }

    /// Looks at what is there, and where something is to be `proved`, whether the server can be asked for that.
    async fn look(&self, cluster: &Cluster<'_>, proved: bool) -> Result<Sight, Failure> {
        let started = Instant::now();
        let _waiting = self.report.waiting("looking at what is there");
        let Request { names, grants, labels, connection, .. } = self.request;
        let identity = self.request.instance.as_deref().map(|instance| Identity { instance, tags: labels });
        let sight = look::look(cluster, names, grants, identity, connection.login.token(), proved).await?;
        self.learn(&sight);
        let version = sight.server_version.as_deref().unwrap_or("of unknown version");
        self.report.step("observe", &format!("Kubernetes {version}"), Some(started.elapsed()));
        self.report.server_version(sight.server_version.clone());
        if let Some(version) = &sight.server_version {
            let _ = self.server_version.set(version.clone());
        }
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

    /// Tells the redactor what tokens were seen.
    fn learn(&self, sight: &Sight) {
        sight.observed.slots.iter().filter_map(|slot| slot.token.as_ref()).for_each(|token| self.report.learn(token));
    }
}
