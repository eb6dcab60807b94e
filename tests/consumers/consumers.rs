//! Consumers of the bundle, the credential and the program: the form for the params in a real browser, bundles that use
//! the credential, and the commit hook. Needs Node.js, Chromium and pre-commit; `.ci/install` installs what is missing, and
//! `cargo test --workspace` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and read files"
)]

mod downstream;
mod form;
mod pre_commit;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

/// A file of the repository.
fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
