//! Connections: kubeconfigs and exec plugins as kubectl reads them, proxies, certificates, and the command line. Nearly
//! every test runs kubectl beside the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod certificates;
mod command_line;
mod kubeconfigs;

#[path = "../support/desk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod desk;
#[path = "../support/mod.rs"]
mod support;
