//! Which request is sent again, after what, and after what pause. Pure: the time that is left and the dice are handed
//! in.
//!
//! The outcome decides and not the request, because every request of this program is made so that a repeat does no
//! harm: reads, reviews and dry runs store nothing; an apply names the version that it goes over, or that nothing may
//! be there; a deletion names the uid; a namespace that is there is as good as one that is made; at the platform a
//! field is replaced, and a record that is gone is deleted. A request of another kind must not come this way.

use std::time::Duration;

use crate::{
    error::Failure,
    text::shown,
    transport_error::TransportError::{self, Dns, Login, Lost, Proxy, Refused, Timeout, Tls},
};

/// How often a request is sent, the first time included.
const TRIES: u8 = 5;
/// The same where nothing at all came back: that alone takes as long as an answer is waited for.
const SILENT_TRIES: u8 = 2;
/// Before the second try; then twice as long each time. Together with the dice four pauses take 4 to 7.5 s.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Something that a moment may mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened, in one line.
    pub what: String,
    /// What became of the request.
    pub fate: Fate,
    /// How long the server asks to be left alone.
    pub after: Option<Duration>,
}

/// What became of a request that has no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was done about it.
    Untouched,
    /// It may have been carried out all the same.
    Unknown,
    /// The same, and all the time for an answer is used up.
    Silence,
}

impl Fault {
    /// Judges the status of an answer: overloaded, or an error of the server or of what is before it. All other
    /// refusals would come again.
    #[must_use]
    pub fn of_status(status: u16, text: &str, after: Option<Duration>) -> Option<Self> {
        let fate = match status {
            429 => Fate::Untouched,
            408 | 500 | 502 | 503 | 504 => Fate::Unknown,
            _ => return None,
        };
        let text = shown(text.trim(), 120);
        let what = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
        Some(Self { what, fate, after })
    }

    /// Judges a connection that failed. A certificate or a login is not better the second time.
    #[must_use]
    pub fn of_transport(error: &TransportError) -> Option<Self> {
        let fate = match error {
            Dns | Refused(_) => Fate::Untouched,
            Lost(_) => Fate::Unknown,
            Timeout(_) => Fate::Silence,
            Tls(_) | Login { .. } | Proxy(_) => return None,
        };
        Some(Self { what: error.to_string(), fate, after: None })
    }
}

/// The tries of one request.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    begun: u8,
    silent: u8,
    in_doubt: bool,
    /// Longer than the time that is left.
    too_long: Option<Duration>,
}

impl Tries {
    /// It is sent, once more.
    pub const fn begin(&mut self) {
        self.begun += 1;
    }

    /// The pause before the next try, after one that ended like this; none when there is to be no other. `dice` is
    /// between 0 and 1.
    pub fn again(&mut self, fault: &Fault, left: Duration, dice: f64) -> Option<Duration> {
        self.in_doubt |= fault.fate != Fate::Untouched;
        self.silent += u8::from(fault.fate == Fate::Silence);
        if self.begun >= TRIES || self.silent >= SILENT_TRIES {
            return None;
        }
        // Scattered, so that those who failed together do not come back together.
        let longest = FIRST_PAUSE * (1 << self.begun.saturating_sub(1));
        let pause = longest.mul_f64(0.5 + dice / 2.0);
        let asked = fault.after.map(|after| after.saturating_add(longest.mul_f64(dice)));
        let pause = asked.map_or(pause, |asked| asked.max(pause));
        if pause < left {
            return Some(pause);
        }
        self.too_long = fault.after;
        None
    }

    /// The number of the try that comes next, and of the last one.
    #[must_use]
    pub const fn next(&self) -> (u8, u8) {
        (self.begun + 1, TRIES)
    }

    /// True when an earlier try may have been carried out, and nobody has heard of it.
    #[must_use]
    pub const fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The failure, with what there is to say of the tries before it.
    #[must_use]
    pub fn told(&self, mut failure: Failure) -> Failure {
        if self.begun > 1 {
            failure.cause = format!("{} (tried {} times)", failure.cause, self.begun);
        }
        if let Some(after) = self.too_long {
            failure.cause = format!(
                "{}; it asks to be left alone for {} s, which is more than is left",
                failure.cause,
                after.as_secs()
            );
        }
        failure
    }
}

/// `Retry-After`: seconds, or a date, which is compared with our own clock.
#[must_use]
pub fn retry_after(value: &str, now: std::time::SystemTime) -> Option<Duration> {
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
    use crate::error::Code;
    use rstest::rstest;

    const AGES: Duration = Duration::from_secs(180);

    #[rstest]
    #[case(429, Some(Fate::Untouched))]
    #[case(408, Some(Fate::Unknown))]
    #[case(500, Some(Fate::Unknown))]
    #[case(502, Some(Fate::Unknown))]
    #[case(503, Some(Fate::Unknown))]
    #[case(504, Some(Fate::Unknown))]
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
    fn a_status_is_worth_another_try_or_not(#[case] status: u16, #[case] fate: Option<Fate>) {
        assert_eq!(Fault::of_status(status, "", None).map(|fault| fault.fate), fate);
    }

    #[rstest]
    #[case(Dns, Some(Fate::Untouched))]
    #[case(Refused("x".to_owned()), Some(Fate::Untouched))]
    #[case(Lost("x".to_owned()), Some(Fate::Unknown))]
    #[case(Timeout("no answer"), Some(Fate::Silence))]
    #[case(Tls(crate::tls::Fault::of(&rustls::Error::DecryptError)), None)]
    #[case(Login { cause: "x".to_owned(), hint: None }, None)]
    #[case(Proxy("x".to_owned()), None)]
    fn so_is_a_connection(#[case] error: TransportError, #[case] fate: Option<Fate>) {
        assert_eq!(Fault::of_transport(&error).map(|fault| fault.fate), fate);
    }

    fn fault(fate: Fate, after: Option<u64>) -> Fault {
        Fault { what: String::new(), fate, after: after.map(Duration::from_secs) }
    }

    /// Milliseconds of the pauses until it is given up.
    fn pauses(fault: &Fault, left: Duration, dice: f64) -> Vec<u128> {
        let mut tries = Tries::default();
        let next = || {
            tries.begin();
            tries.again(fault, left, dice).map(|pause| pause.as_millis())
        };
        std::iter::from_fn(next).collect()
    }

    #[rstest]
    #[case::shortest(Fate::Unknown, None, 0.0, &[250, 500, 1000, 2000])]
    #[case::longest(Fate::Unknown, None, 1.0, &[500, 1000, 2000, 4000])]
    #[case::a_silence_is_long_enough(Fate::Silence, None, 0.0, &[250])]
    #[case::never_before_it_was_asked_for(Fate::Untouched, Some(1), 0.0, &[1000, 1000, 1000, 2000])]
    #[case::but_not_all_at_once(Fate::Untouched, Some(3), 1.0, &[3500, 4000, 5000, 7000])]
    #[case::at_once_is_not_at_once(Fate::Untouched, Some(0), 0.0, &[250, 500, 1000, 2000])]
    fn pauses_grow_and_are_bounded(
        #[case] fate: Fate,
        #[case] after: Option<u64>,
        #[case] dice: f64,
        #[case] expected: &[u128],
    ) {
        assert_eq!(pauses(&fault(fate, after), AGES, dice), expected);
    }

    #[test]
    fn no_pause_outlasts_the_run() {
        assert_eq!(pauses(&fault(Fate::Unknown, None), Duration::from_millis(900), 1.0), [500]);
        assert_eq!(pauses(&fault(Fate::Untouched, Some(u64::MAX)), AGES, 0.5), [0; 0]);
        let mut tries = Tries::default();
        assert_eq!(tries.again(&fault(Fate::Untouched, Some(3600)), AGES, 0.5), None);
        let told = tries.told(Failure::new(Code::ServerError, "x", "429: busy"));
        assert_eq!(told.cause, "429: busy; it asks to be left alone for 3600 s, which is more than is left");
    }

    #[test]
    fn the_tries_are_counted_and_doubt_stays() {
        let mut tries = Tries::default();
        assert_eq!(tries.told(Failure::new(Code::Conflict, "x", "409")).cause, "409");
        for (fate, in_doubt) in [(Fate::Untouched, false), (Fate::Unknown, true), (Fate::Untouched, true)] {
            tries.begin();
            tries.again(&fault(fate, None), AGES, 0.5);
            assert_eq!(tries.in_doubt(), in_doubt);
        }
        assert_eq!(tries.told(Failure::new(Code::ServerError, "x", "503")).cause, "503 (tried 3 times)");
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
    fn retry_after_is_seconds_or_a_date(#[case] value: &str, #[case] seconds: Option<u64>) {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs));
    }
}
