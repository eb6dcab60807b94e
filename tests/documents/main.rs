//! The published files and the documents, compared with the program; no control plane is needed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and read files"
)]

mod bundle;
mod codes;
mod layout;
mod readme;
mod risks;
mod source;
