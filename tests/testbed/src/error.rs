//! What can go wrong before a control plane is up, and how everything after that fails: loudly.

use std::fmt;

/// Why a control plane could not be started, in words for the person who started it.
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The same words: this is what `unwrap` and a failing `main` show, and logs have many lines.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for Error {}

/// Puts "what we were doing" in front of the cause.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|cause| Error::new(format!("{what}: {cause}")))
    }
}

/// Ends the test that asked for something the testbed could not do.
#[expect(clippy::panic, reason = "a test support library fails loudly, in one place")]
#[track_caller]
pub(crate) fn fail(message: impl fmt::Display) -> ! {
    panic!("testbed: {message}")
}

/// The value, or the end of the test.
pub(crate) trait OrFail<T> {
    fn or_fail(self, what: impl fmt::Display) -> T;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, what: impl fmt::Display) -> T {
        match self {
            Ok(value) => value,
            Err(cause) => fail(format_args!("{what}: {cause}")),
        }
    }
}
