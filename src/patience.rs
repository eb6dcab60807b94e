//! The wait between two tries of one request: the clock, the dice, and the line in the log. What is tried again, and
//! after which pause, `retry.rs` says.

use std::{
    fmt::Display,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

use crate::{
    budget::Budget,
    report::Report,
    retry::{Fault, Tries, retry_after},
};

/// Waits for what one connection is asked.
#[derive(Clone)]
pub struct Patience<'a> {
    /// What is left of the time.
    pub budget: Budget,
    /// Where each wait is said.
    pub report: &'a Report,
}

impl Patience<'_> {
    /// For a part of the run with a time of its own.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { budget: self.budget.within(limit), ..self.clone() }
    }

    /// Waits before another try of `what`; false when there is to be none.
    pub async fn again(&self, tries: &mut Tries, what: &dyn Display, fault: &Fault) -> bool {
        let Some(pause) = tries.again(fault, self.budget.at_most(Duration::MAX), dice()) else { return false };
        let pausing = self.report.retry(what, fault, pause, tries.next());
        tokio::time::sleep(pause).await;
        drop(pausing);
        true
    }
}

/// How long an answer with these headers asks to be left alone.
#[must_use]
pub fn asked_for(headers: &http::HeaderMap) -> Option<Duration> {
    retry_after(headers.get(http::header::RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

/// Between 0 and 1. Without randomness, in the middle.
fn dice() -> f64 {
    let mut byte = [128];
    let _ = SystemRandom::new().fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
