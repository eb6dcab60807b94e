//! Deadline and request counter of a run. The one clock that bounds every wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The deadline and the request counter of a run, shared by all its connections.
#[derive(Clone)]
pub(crate) struct Budget {
    deadline: Instant,
    requests: Arc<AtomicU32>,
}

impl Budget {
    /// Starts the clock of a run.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, requests: Arc::default() }
    }

    /// A part of the run with a shorter deadline; its requests count for the run.
    #[must_use]
    pub(crate) fn within(&self, limit: Duration) -> Self {
        let deadline = Instant::now() + self.at_most(limit);
        Self { deadline, ..self.clone() }
    }

    /// Time left of the run, at most this much.
    pub(crate) fn at_most(&self, limit: Duration) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(limit)
    }

    /// Counts one request.
    pub(crate) fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of requests so far, to the cluster and the platform.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}
