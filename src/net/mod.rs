//! Connections: DNS, TCP, proxies, TLS, logins, retries.

pub(crate) mod backoff;
pub(crate) mod error;
pub(crate) mod login;
pub(crate) mod proxy_connector;
pub(crate) mod retry;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod watched;
