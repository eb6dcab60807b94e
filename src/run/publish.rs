//! The delivery to Massdriver: the connection is opened while the credential is tested, and used after that.

use std::time::Instant;

use crate::{
    credential::artifact::Artifact,
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    input::request::{FIELD, Platform},
    net::{error::TransportError, transport},
    platform::{self, Publisher},
    run::Run,
};

/// An open connection to Massdriver, or why there is none; none where nothing is published.
pub(super) type Dialled = Option<Result<transport::Http, TransportError>>;

/// Opens the connection. An error is reported by [`publish`].
pub(super) async fn dial(run: &Run<'_>, platform: Option<&Platform>) -> Dialled {
    Some(platform::dial(platform?, &run.session.budget).await)
}

/// The finding that Massdriver had a credential of an instance that has no object in this cluster.
pub(super) fn cluster_changed(run: &Run<'_>) -> Finding {
    let name = &run.request.instance.name;
    let text = format!(
        "Massdriver already had a credential of {name}, and this cluster had no object of it: if the connection was \
         changed to another cluster, or the namespace was changed, the earlier credential still works there"
    );
    let help = format!(
        "decommission the earlier credential by hand: k8s-token decommission --name {name}, with a login to the other \
         cluster"
    );
    Finding::remark(finding::Code::ClusterChanged, text).help(help)
}

/// Publishes the credential. True if it replaces that of an earlier deployment.
pub(super) async fn publish(
    run: &Run<'_>,
    platform: Option<&Platform>,
    dialled: Dialled,
    artifact: &Artifact,
) -> Result<bool, Failure> {
    let Some(platform) = platform else { return Ok(false) };
    platform.clear_text().into_iter().for_each(|finding| run.report.finding(finding));
    let started = Instant::now();
    let _waiting = run.report.waiting("publishing the credential");
    let title =
        format!("Kubernetes token {} for namespace {}", run.request.instance.name, run.request.instance.namespace);
    let publishing = async {
        Publisher::connect(platform, run.session.retry_context().within(platform::TIME), dialled)
            .await?
            .publish(&title, artifact)
            .await
    };
    let replaced = publishing.await.map_err(|failure| {
        let has_it = if failure.outcome_unknown { "may not have it yet" } else { "does not have it yet" };
        failure
            .state(format!("the credential is in the cluster, tested and working; Massdriver {has_it}"))
            .next("fix this and deploy again: the same credential will be published")
    })?;
    let what = format!("field {} at {}", FIELD, platform.address());
    run.report.step("publish", &what, Some(started.elapsed()));
    Ok(replaced)
}
