//! Polling for events elsewhere.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, fail};

/// Generous: a machine that builds something else at the same time is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Many tests wait at the same time for what takes seconds, such as the rejection of a token: polling more often would
/// slow down the API server.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Polls until there is a value or an error; `None` after `patience`.
pub(crate) fn poll<T>(
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = ask()?;
        if answer.is_some() || start.elapsed() >= patience {
            return Ok(answer);
        }
        sleep(pause);
        pause = (pause * 5 / 4).min(LONGEST_PAUSE);
    }
}

/// Polls until there is a value. Panics after a minute.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    match poll(PATIENCE, || Ok(ask())) {
        Ok(Some(found)) => found,
        _ => fail(format_args!("{what}: still not so after {PATIENCE:?}")),
    }
}
