//! Backoff between attempts: sleeps, draws jitter, notifies an observer. Which outcomes are retried is decided in
//! `retry.rs`.

use std::{
    fmt::Display,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

use crate::{
    budget::Budget,
    diagnostics::secret::Redactor,
    net::retry::{RetryState, Transient, retry_after},
};

/// The observer of a client: what happens beside its results.
pub(crate) trait Observer {
    /// An attempt failed, and the next one follows after a pause, which ends when the result is dropped.
    fn retrying<'o>(
        &'o self,
        what: &dyn Display,
        transient: &Transient,
        pause: Duration,
        next: (u8, u8),
    ) -> Box<dyn Pausing + 'o>;

    /// The API server sent a `Warning` header.
    fn warned(&self, text: &str);

    /// A conflict turned out to be with an earlier attempt, which had succeeded.
    fn had_succeeded(&self, what: &dyn Display);

    /// The redactor, which has to know the credentials that a login command prints.
    fn redactor(&self) -> Redactor;
}

/// A pause between two attempts, while it lasts.
pub(crate) trait Pausing {}

/// What the requests of one client share: a deadline and an observer.
#[derive(Clone)]
pub(crate) struct RetryContext<'a> {
    /// The time that is left.
    pub(crate) budget: Budget,
    /// The observer of retries and warnings.
    pub(crate) observer: &'a dyn Observer,
}

impl RetryContext<'_> {
    /// The context of an operation with a time limit of its own.
    #[must_use]
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { budget: self.budget.within(limit), ..self.clone() }
    }

    /// The last outcome of a request, and the attempts that it took: repeated while the outcome is transient and another
    /// attempt is allowed.
    pub(crate) async fn retry<T>(
        &self,
        what: &dyn Display,
        mut attempt: impl AsyncFnMut() -> T,
        transient: impl Fn(&T) -> Option<Transient>,
    ) -> (T, RetryState) {
        let mut state = RetryState::default();
        loop {
            state.begin();
            let outcome = attempt().await;
            match transient(&outcome) {
                Some(transient) if self.paused(&mut state, what, &transient).await => {}
                _ => return (outcome, state),
            }
        }
    }

    /// The pause before another attempt; false if there must be none.
    async fn paused(&self, state: &mut RetryState, what: &dyn Display, transient: &Transient) -> bool {
        let Some(pause) = state.pause(transient, self.budget.at_most(Duration::MAX), dice()) else { return false };
        let pausing = self.observer.retrying(what, transient, pause, state.next());
        tokio::time::sleep(pause).await;
        drop(pausing);
        true
    }
}

/// The `Retry-After` header of a response.
pub(crate) fn retry_after_of(headers: &http::HeaderMap) -> Option<Duration> {
    retry_after(headers.get(http::header::RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

/// Jitter between 0 and 1; 0.5 without a source of randomness.
fn dice() -> f64 {
    let mut byte = [128];
    let _ = SystemRandom::new().fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
