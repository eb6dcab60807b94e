//! Retry policy: which outcomes are retried, how often, and after what pause. Pure: the remaining time and the jitter
//! are parameters.
//!
//! The outcome decides, not the request, because every request of this program can be repeated safely: reads, reviews
//! and dry runs store nothing; an apply names the resourceVersion that it replaces, or requires that the object is
//! absent; a deletion names the uid; creating an existing namespace counts as success; at the platform a field is
//! replaced, and deleting an absent record counts as success. Other requests must not be retried here.

use std::time::Duration;

use crate::{
    diagnostics::{error::Failure, text::sanitize},
    net::error::TransportError::{self, Dns, Login, Lost, Proxy, Refused, Timeout, Tls},
};

/// The maximum number of attempts, the first one included.
const MAX_ATTEMPTS: u8 = 5;
/// The maximum number of attempts that time out: each takes the whole time limit of a response.
const MAX_TIMEOUTS: u8 = 2;
/// The pause before the second attempt; doubled each time. With jitter four pauses take 4 to 7.5 s.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A transient failure of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transient {
    /// What happened, in one line.
    pub(crate) what: String,
    /// Whether the request may have been applied.
    pub(crate) outcome: Outcome,
    /// The pause that the server asks for (`Retry-After`).
    pub(crate) after: Option<Duration>,
}

/// Whether a request without a usable response may have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was not processed.
    NotSent,
    /// It may have been applied.
    Unknown,
    /// It may have been applied; the time limit for a response passed.
    TimedOut,
}

impl Transient {
    /// The transient failure of a response: the server is overloaded, or it or a gateway failed. All other refusals are
    /// permanent.
    pub(crate) fn of_status(status: u16, text: &str, after: Option<Duration>) -> Option<Self> {
        let outcome = match status {
            429 => Outcome::NotSent,
            408 | 500 | 502 | 503 | 504 => Outcome::Unknown,
            _ => return None,
        };
        let text = sanitize(text.trim(), 120);
        let what = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
        Some(Self { what, outcome, after })
    }

    /// The transient failure of opening a connection.
    pub(crate) fn of_result<T>(result: &Result<T, TransportError>) -> Option<Self> {
        result.as_ref().err().and_then(Self::of_transport)
    }

    /// The transient failure of a connection. Certificates, logins and proxies fail permanently.
    pub(crate) fn of_transport(error: &TransportError) -> Option<Self> {
        let outcome = match error {
            Dns | Refused(_) => Outcome::NotSent,
            Lost(_) => Outcome::Unknown,
            Timeout(_) => Outcome::TimedOut,
            Tls(_) | Login { .. } | Proxy(_) => return None,
        };
        Some(Self { what: error.to_string(), outcome, after: None })
    }
}

/// The attempts of one request so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetryState {
    begun: u8,
    timeouts: u8,
    outcome_unknown: bool,
    /// A `Retry-After` beyond the remaining time.
    too_long: Option<Duration>,
}

impl RetryState {
    /// Counts another attempt.
    pub(crate) const fn begin(&mut self) {
        self.begun += 1;
    }

    /// The pause before the next attempt after this outcome; none if there must be no other. `dice` is between 0 and 1.
    pub(crate) fn pause(&mut self, transient: &Transient, left: Duration, dice: f64) -> Option<Duration> {
        self.outcome_unknown |= transient.outcome != Outcome::NotSent;
        self.timeouts += u8::from(transient.outcome == Outcome::TimedOut);
        if self.begun >= MAX_ATTEMPTS || self.timeouts >= MAX_TIMEOUTS {
            return None;
        }
        // Jitter, so that clients that failed together do not retry together.
        let longest = FIRST_PAUSE * (1 << self.begun.saturating_sub(1));
        let pause = longest.mul_f64(0.5 + dice / 2.0);
        let asked = transient.after.map(|after| after.saturating_add(longest.mul_f64(dice)));
        let pause = asked.map_or(pause, |asked| asked.max(pause));
        if pause < left {
            return Some(pause);
        }
        self.too_long = transient.after;
        None
    }

    /// The numbers of the next attempt and of the last possible one.
    pub(crate) const fn next(&self) -> (u8, u8) {
        (self.begun + 1, MAX_ATTEMPTS)
    }

    /// Whether an earlier attempt may have been applied.
    pub(crate) const fn outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// The failure, with the number of attempts before it.
    pub(crate) fn describe(&self, mut failure: Failure) -> Failure {
        if self.begun > 1 {
            failure.cause = format!("{} (tried {} times)", failure.cause, self.begun);
        }
        if let Some(after) = self.too_long {
            failure.cause = format!(
                "{}; the server asks for a pause of {} s, longer than the time left for this run",
                failure.cause,
                after.as_secs()
            );
        }
        failure
    }
}

/// The value of a `Retry-After` header: seconds, or a date, relative to the local clock.
pub(crate) fn retry_after(value: &str, now: std::time::SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::error::Code;
    use rstest::rstest;

    const AGES: Duration = Duration::from_secs(180);

    #[rstest]
    #[case(429, Some(Outcome::NotSent))]
    #[case(408, Some(Outcome::Unknown))]
    #[case(500, Some(Outcome::Unknown))]
    #[case(502, Some(Outcome::Unknown))]
    #[case(503, Some(Outcome::Unknown))]
    #[case(504, Some(Outcome::Unknown))]
    #[case(400, None)]
    #[case(401, None)]
    #[case(403, None)]
    #[case(404, None)]
    #[case(405, None)]
    #[case(409, None)]
    #[case(410, None)]
    #[case(413, None)]
    #[case(422, None)]
    #[case(501, None)]
    #[case(505, None)]
    #[case(302, None)]
    fn http_statuses_are_classified(#[case] status: u16, #[case] outcome: Option<Outcome>) {
        assert_eq!(Transient::of_status(status, "", None).map(|transient| transient.outcome), outcome);
    }

    #[rstest]
    #[case(Dns, Some(Outcome::NotSent))]
    #[case(Refused("x".to_owned()), Some(Outcome::NotSent))]
    #[case(Lost("x".to_owned()), Some(Outcome::Unknown))]
    #[case(Timeout("no answer"), Some(Outcome::TimedOut))]
    #[case(Tls(crate::net::tls::Fault::of(&rustls::Error::DecryptError)), None)]
    #[case(Login { cause: "x".to_owned(), hint: None }, None)]
    #[case(Proxy("x".to_owned()), None)]
    fn transport_errors_are_classified(#[case] error: TransportError, #[case] outcome: Option<Outcome>) {
        assert_eq!(Transient::of_transport(&error).map(|transient| transient.outcome), outcome);
    }

    fn transient(outcome: Outcome, after: Option<u64>) -> Transient {
        Transient { what: String::new(), outcome, after: after.map(Duration::from_secs) }
    }

    /// The pauses of a request that always fails like this, in milliseconds.
    fn pauses(transient: &Transient, left: Duration, dice: f64) -> Vec<u128> {
        let mut attempts = RetryState::default();
        let next = || {
            attempts.begin();
            attempts.pause(transient, left, dice).map(|pause| pause.as_millis())
        };
        std::iter::from_fn(next).collect()
    }

    #[rstest]
    #[case::shortest(Outcome::Unknown, None, 0.0, &[250, 500, 1000, 2000])]
    #[case::longest(Outcome::Unknown, None, 1.0, &[500, 1000, 2000, 4000])]
    #[case::one_retry_after_timeout(Outcome::TimedOut, None, 0.0, &[250])]
    #[case::retry_after_is_the_minimum(Outcome::NotSent, Some(1), 0.0, &[1000, 1000, 1000, 2000])]
    #[case::jitter_after_retry_after(Outcome::NotSent, Some(3), 1.0, &[3500, 4000, 5000, 7000])]
    #[case::retry_after_zero(Outcome::NotSent, Some(0), 0.0, &[250, 500, 1000, 2000])]
    fn pauses_grow_and_are_bounded(
        #[case] outcome: Outcome,
        #[case] after: Option<u64>,
        #[case] dice: f64,
        #[case] expected: &[u128],
    ) {
        assert_eq!(pauses(&transient(outcome, after), AGES, dice), expected);
    }

    #[test]
    fn no_pause_outlasts_deadline() {
        assert_eq!(pauses(&transient(Outcome::Unknown, None), Duration::from_millis(900), 1.0), [500]);
        assert_eq!(pauses(&transient(Outcome::NotSent, Some(u64::MAX)), AGES, 0.5), [0; 0]);
        let mut attempts = RetryState::default();
        assert_eq!(attempts.pause(&transient(Outcome::NotSent, Some(3600)), AGES, 0.5), None);
        let described = attempts.describe(Failure::new(Code::ServerError, "x", "429: busy"));
        assert_eq!(
            described.cause,
            "429: busy; the server asks for a pause of 3600 s, longer than the time left for this run"
        );
    }

    #[test]
    fn attempts_are_counted_and_unknown_outcome_persists() {
        let mut attempts = RetryState::default();
        assert_eq!(attempts.describe(Failure::new(Code::Conflict, "x", "409")).cause, "409");
        for (outcome, outcome_unknown) in
            [(Outcome::NotSent, false), (Outcome::Unknown, true), (Outcome::NotSent, true)]
        {
            attempts.begin();
            attempts.pause(&transient(outcome, None), AGES, 0.5);
            assert_eq!(attempts.outcome_unknown(), outcome_unknown);
        }
        assert_eq!(attempts.describe(Failure::new(Code::ServerError, "x", "503")).cause, "503 (tried 3 times)");
    }

    #[rstest]
    #[case("7", Some(7))]
    #[case(" 0 ", Some(0))]
    #[case("Sun, 06 Nov 1994 08:49:47 GMT", Some(10))]
    #[case("Sun, 06 Nov 1994 08:00:00 GMT", Some(0))]
    #[case("soon", None)]
    #[case("-1", None)]
    #[case("1.5", None)]
    #[case("", None)]
    fn retry_after_is_seconds_or_date(#[case] value: &str, #[case] seconds: Option<u64>) {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs));
    }
}
