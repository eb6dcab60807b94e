//! Connections: DNS, TCP, proxies, TLS, logins, retries.

pub mod backoff;
pub mod error;
pub mod login;
pub mod proxy_connector;
pub mod retry;
pub mod tls;
pub mod transport;
pub mod watched;
