//! Consumers of the bundle and the credential: the form for the params in a real browser, and bundles that use the
//! credential. Needs Node.js and Chromium, which `.ci/install` installs; `cargo test --workspace` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and read files"
)]

mod downstream;
mod form;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

/// A file of the repository.
fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
