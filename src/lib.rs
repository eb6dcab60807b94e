//! k8s-token: creates, tests and deletes a narrowly scoped Kubernetes credential.
//!
//! `src/README.md` is the map of the files, floor by floor.
//!
//! The program is what is released. The library has a public surface for the binary and the tests only, and makes no
//! promise of stability:
//!
//! | item | who uses it |
//! |---|---|
//! | [`main`] | `src/main.rs` |
//! | [`error`]: `Exit`, `Code` | `src/main.rs`; tests that hold documents, manual page and output schema to the codes |
//! | [`finding`]: `Severity`, `Code` | the same tests |
//! | [`risk`]: `CATALOG` | the test that writes docs/risks.md |
//! | [`secret`]: `Token` | its doctests, which prove that it cannot be printed; fingerprints in tests and the quickstart |
//! | `fuzzing` | property tests, the fuzz target, and the benchmark of `examples/instructions.sh` |

#![warn(unreachable_pub, clippy::disallowed_methods, clippy::disallowed_types)]

mod budget;
mod cli;
mod cluster;
mod command;
mod credential;
mod diagnostics;
mod endpoint;
mod env;
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod k8s;
mod net;
mod output_file;
mod plan;
mod platform;
mod rbac;
mod report;
mod run;
mod schema;
mod x509;

pub use diagnostics::{error, finding, secret};
pub use rbac::risk;

use std::{ffi::OsString, io::Write};

use env::Environment;
use error::Exit;
use report::{LogStyle, Report};

/// Runs the program: parses the arguments, runs the command, prints, and returns the exit status; `terminal` is whether
/// the log is printed on one.
pub async fn main(
    arguments: impl IntoIterator<Item = OsString>,
    out: Box<dyn Write>,
    log: Box<dyn Write>,
    terminal: bool,
) -> Exit {
    let environment = Environment::read();
    let report = Report::new(out, log, LogStyle::new(&environment, terminal));
    command::dispatch(arguments.into_iter().collect(), &environment, &report).await
}
