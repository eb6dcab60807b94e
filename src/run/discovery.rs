//! The server's discovery, read beside everything else: a write waits for it only if a guardrail needs it.

use std::{
    cell::OnceCell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, TOO_LATE},
    k8s::grant::Grants,
    plan::judgement::{Judgement, Resources, judge_live},
    rbac::{Catalog, Rule},
};

/// The longest time that a command waits for the discovery alone, at its end.
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

    /// The result of some work, beside which the discovery is read if there is something to judge. The work waits for no
    /// part of it, and its own first requests are sent before it, so that they get the connection that is open.
    pub(super) async fn beside<T>(
        &self,
        cluster: &Cluster<'_>,
        is_needed: bool,
        mut work: Pin<Box<impl Future<Output = T>>>,
    ) -> T {
        let mut reading = Box::pin(async {
            if !is_needed {
                return Resources::default();
            }
            match cluster.discovery().await {
                // Leaked, because everything that follows borrows from it: a run reads one, and ends with the process.
                Ok(answer) => Resources::of_discovery(answer.leak()),
                Err(why) => Resources::without_discovery(why),
            }
        });
        let mut read = |context: &mut Context<'_>| {
            if !self.is_settled()
                && let Poll::Ready(resources) = reading.as_mut().poll(context)
            {
                let _ = self.found.set(resources);
            }
        };
        let mut is_sent = false;
        poll_fn(|context| {
            if is_sent {
                read(context);
                return work.as_mut().poll(context);
            }
            is_sent = true;
            let done = work.as_mut().poll(context);
            read(context);
            done
        })
        .await
    }

    /// Whether nothing more will come.
    pub(super) fn is_settled(&self) -> bool {
        self.found.get().is_some()
    }

    /// Waits for the discovery until it has come or failed, as part of the work beside it. Only where a guardrail needs it:
    /// its request has a time limit of its own.
    pub(super) async fn settle_completely(&self) {
        poll_fn(|_| if self.is_settled() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Waits for the discovery, as part of the work beside it: not longer than everything else has taken.
    pub(super) async fn settle(&self) {
        // Whatever wakes the reading wakes this too, which is polled after it.
        let _ = tokio::time::timeout(self.started.elapsed().min(GRACE), self.settle_completely()).await;
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
