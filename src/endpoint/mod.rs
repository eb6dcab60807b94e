//! Endpoints: where a server is, and how to log in there. Pure.

pub(crate) mod client_certificate;
pub(crate) mod connection;
pub(crate) mod host;
pub(crate) mod proxy;
