//! k8s-token: turns a namespace, rules and a cluster connection into a proved Kubernetes credential, and takes it
//! back.
//!
//! `src/README.md` is the map of the files, in the order in which data flows through them.

#![warn(clippy::disallowed_methods)]

mod artifact;
mod backoff;
mod budget;
mod claims;
mod cli;
mod cluster;
mod command;
mod connection;
mod credential;
mod defaults;
mod denial;
mod desired;
mod env;
pub mod error;
mod fetched;
pub mod finding;
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod host;
mod inputs;
mod inventory;
mod kubeconfig;
mod login;
mod manual;
mod name;
mod names;
mod object;
mod observed;
mod original;
mod output;
mod ownership;
mod pem_blocks;
mod permissions;
mod plan;
mod proxy;
mod publish;
pub mod rbac;
mod record;
mod report;
mod request;
mod retry;
mod run;
mod schema;
pub mod secret;
mod text;
mod tls;
mod token_slots;
mod transport;
mod transport_error;
mod tunnel;
mod watched;
mod x509;

use std::{ffi::OsString, io::Write};

use env::Environment;
use error::Exit;
use report::{Look, Report};

/// Runs the program: parses, does it, prints, and says how it ended; `terminal` is whether the log goes to one.
pub async fn main(
    arguments: impl IntoIterator<Item = OsString>,
    out: Box<dyn Write>,
    log: Box<dyn Write>,
    terminal: bool,
) -> Exit {
    let environment = Environment::read();
    let report = Report::new(out, log, Look::new(&environment, terminal));
    command::dispatch(arguments.into_iter().collect(), &environment, &report).await
}
