//! Errors of the start of a control plane, and panics for everything after that.

use std::fmt;

/// Why a control plane could not be started, for the user who started it.
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

/// The same text as `Display`: `unwrap` and a failing `main` show this one, and logs have many lines.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for Error {}

/// Puts the failed operation in front of the cause.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|cause| Error::new(format!("{what}: {cause}")))
    }
}

/// Panics: the test asked for something that the testbed could not do.
#[expect(clippy::panic, reason = "a test support library fails loudly, in one place")]
#[track_caller]
pub(crate) fn fail(message: impl fmt::Display) -> ! {
    panic!("testbed: {message}")
}

/// The value, or a panic.
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
