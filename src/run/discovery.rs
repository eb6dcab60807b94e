//! The server's discovery, read beside everything else: no write waits for it.

use std::{
    cell::OnceCell,
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, TOO_LATE},
    k8s::grant::Grants,
    plan::judgement::{Judgement, Resources, judge_live},
    rbac::{Catalog, Rule},
};

/// The longest time that a command which writes nothing waits for the discovery alone.
const GRACE: Duration = Duration::from_millis(500);

/// The resources of the server, once its discovery has come.
pub(super) struct LiveResources {
    found: OnceCell<Resources<'static>>,
    started: Instant,
}

impl LiveResources {
    pub(super) fn new() -> Self {
        Self { found: OnceCell::new(), started: Instant::now() }
    }

    /// The result of some work, beside which the discovery is read if there is something to judge. Its request is the
    /// first one, and the work waits for no part of it.
    pub(super) async fn beside<T>(&self, cluster: &Cluster<'_>, is_needed: bool, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut reading = pin!(async {
            if !is_needed {
                return Resources::default();
            }
            match cluster.discovery().await {
                // Leaked, because everything that follows borrows from it: a run reads one, and ends with the process.
                Ok(answer) => Resources::of_discovery(answer.leak()),
                Err(why) => Resources::without_discovery(why),
            }
        });
        poll_fn(|context| {
            if !self.is_settled()
                && let Poll::Ready(resources) = reading.as_mut().poll(context)
            {
                let _ = self.found.set(resources);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Whether nothing more will come.
    pub(super) fn is_settled(&self) -> bool {
        self.found.get().is_some()
    }

    /// Waits for the discovery, as part of the work beside it: not longer than everything else has taken.
    pub(super) async fn settle(&self) {
        // Whatever wakes the reading wakes this too, which is polled after it.
        let settled = poll_fn(|_| if self.is_settled() { Poll::Ready(()) } else { Poll::Pending });
        let _ = tokio::time::timeout(self.started.elapsed().min(GRACE), settled).await;
    }

    /// The resources that requests can be about: as the server says, or as the embedded table has them.
    pub(super) fn catalog(&self) -> &Catalog<'static> {
        self.found.get().map_or_else(|| Catalog::embedded(), Resources::catalog)
    }

    /// The judgement of the requested rules, and of the ClusterRoles whose rules `rules_of` knows.
    pub(super) fn judge<'g>(
        &self,
        grants: &'g Grants,
        rules_of: &dyn Fn(&str) -> Option<&'g [Rule]>,
        server_version: Option<&str>,
    ) -> Judgement {
        match self.found.get() {
            Some(resources) => judge_live(grants, rules_of, resources, server_version),
            None => judge_live(grants, rules_of, &Resources::without_discovery(TOO_LATE.to_owned()), server_version),
        }
    }
}
