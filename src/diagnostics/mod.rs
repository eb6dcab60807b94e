//! Errors, findings, secrets, and text for the log. Pure.

pub mod error;
pub mod finding;
pub mod secret;
pub(crate) mod text;
