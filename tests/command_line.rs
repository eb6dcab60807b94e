//! A person's command line: kubeconfigs as kubectl reads them, proxies, certificates, the terminal, and what the
//! program says of itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

#[path = "command_line/desk.rs"]
mod desk;
#[path = "command_line/kubeconfig.rs"]
mod kubeconfig;
#[path = "command_line/lines.rs"]
mod lines;
#[path = "command_line/login.rs"]
mod login;
#[path = "command_line/manual.rs"]
mod manual;
#[path = "command_line/proxy.rs"]
mod proxy;
#[path = "command_line/terminal.rs"]
mod terminal;
#[path = "command_line/trust.rs"]
mod trust;
