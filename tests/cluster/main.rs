//! Runs of the real binary against a real control plane: every command, and every way in which a run can fail. One
//! process, so that the tests share a control plane and wait at the same time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod commands;
mod copies;
mod decommission;
mod denials;
mod explain;
mod fault_sequences;
mod faults;
mod findings;
mod guardrails;
mod interruptions;
mod judgement;
mod managed_clouds;
mod migration;
mod old_platforms;
mod old_servers;
mod output_schema;
mod parent_login;
mod partial_states;
mod plan;
mod provision;
mod refusals;
mod retries;
mod scope_changes;
mod scopes;
mod server_ca;
mod ways_to_ask;

#[path = "../support/desk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod desk;
#[path = "../support/mod.rs"]
mod support;
