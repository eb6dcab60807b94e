//! Endpoints: where a server is, and how to log in there. Pure.

pub mod client_certificate;
pub mod connection;
pub mod host;
pub mod proxy;
