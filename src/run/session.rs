//! A session: a connection that is open and logged in, with the CA that the server was verified against.

use std::{cell::Cell, time::Instant};

use rustls::pki_types::ServerName;

use crate::{
    budget::Budget,
    cluster::{ApiError, Cluster, Endpoint, UnauthenticatedConnection},
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding},
    },
    endpoint::connection::{CaBundle, ClusterLogin, Connection, ServerTrust},
    net::backoff::RetryContext,
    report::Report,
};

/// The connection of a command, with its time limit and its report.
pub(crate) struct Session<'a> {
    /// Server and login.
    pub(crate) connection: &'a Connection,
    /// The open connection.
    pub(crate) cluster: Cluster<'a>,
    /// Time and requests of the run.
    pub(crate) budget: Budget,
    report: &'a Report,
    /// The CA for every further connection; it is published with the credential.
    ca: CaBundle,
    /// Whether the finding `tls-server-name` was reported.
    name_is_reported: Cell<bool>,
}

impl<'a> Session<'a> {
    /// Connects and logs in.
    pub(crate) async fn connect(
        connection: &'a Connection,
        budget: Budget,
        report: &'a Report,
    ) -> Result<Self, Failure> {
        let started = Instant::now();
        // A login command that prompts has the terminal for itself.
        let is_alone = matches!(&connection.login, ClusterLogin::Kubeconfig(user) if user.is_interactive());
        let waiting = (!is_alone).then(|| report.waiting("connecting to the cluster"));
        let given = match &connection.ca {
            ServerTrust::Given(ca) => Some(ca),
            ServerTrust::System => None,
        };
        let endpoint = Endpoint { connection, ca: given, name: connection.tls_server_name.as_ref() };
        let context = RetryContext { budget: budget.clone(), observer: report };
        let cluster = Cluster::connect(endpoint, &connection.login, context).await?;
        drop(waiting);
        let what = format!("{} ({})", connection.server.as_str(), cluster.protocol);
        report.step("connect", &what, Some(started.elapsed()));
        let ca = given.or(cluster.verified_by.as_ref()).cloned().ok_or_else(|| {
            let cause = "the system CA that verified the server is not known";
            Failure::new(Code::Tls, "connecting to the cluster", cause).on(connection.server.as_str())
        })?;
        Ok(Self { connection, cluster, budget, report, ca, name_is_reported: Cell::new(false) })
    }

    /// The CA that the server was verified against.
    pub(crate) const fn ca(&self) -> &CaBundle {
        &self.ca
    }

    /// The context of retries.
    pub(crate) fn retry_context(&self) -> RetryContext<'a> {
        RetryContext { budget: self.budget.clone(), observer: self.report }
    }

    /// Another connection to the same server, as this user.
    pub(crate) async fn connect_as(&self, login: &ClusterLogin) -> Result<Cluster<'a>, ApiError> {
        Cluster::connect(self.endpoint(self.connection.tls_server_name.as_ref()), login, self.retry_context()).await
    }

    /// A connection as a user of the published document opens it, without a login. The document has no field for a
    /// tls-server-name: if the server cannot be verified without it, that is reported, and the name is used.
    pub(crate) async fn open_unauthenticated(&self) -> Result<UnauthenticatedConnection<'a>, ApiError> {
        let open = async |name| UnauthenticatedConnection::open(self.endpoint(name), self.retry_context()).await;
        let Some(name) = &self.connection.tls_server_name else { return open(None).await };
        match open(None).await {
            Err(error) if error.is_tls() => {
                if !self.name_is_reported.replace(true) {
                    self.report.finding(name_is_lost(&name.to_str()));
                }
                open(Some(name)).await
            }
            connection => connection,
        }
    }

    fn endpoint<'b>(&'b self, name: Option<&'b ServerName<'static>>) -> Endpoint<'b> {
        Endpoint { connection: self.connection, ca: Some(&self.ca), name }
    }
}

/// The finding that the published document has no field for the name that the server's certificate is valid for.
fn name_is_lost(name: &str) -> Finding {
    let text = format!(
        "the server's certificate is for {name} and not for the host of its URL, and the credential document has no \
         field for that: its users must set the name themselves"
    );
    let help = format!("use kubectl --tls-server-name {name}, or a server URL that the certificate is valid for");
    Finding::remark(finding::Code::TlsServerName, text).help(help)
}
