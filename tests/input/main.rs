//! Input documents: invalid, unusual, random, and those that a fuzzer has found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod check_files;
mod ci_examples;
mod dead_rules;
mod explain;
mod fuzz_corpus;
mod guardrails;
mod invalid_input;
mod properties;
mod risks;
mod ways_to_ask;

#[path = "../support/mod.rs"]
mod support;
