//! Decisions: the desired objects, the differences, the obstacles. Pure.

pub(crate) mod access_matrix;
pub(crate) mod adoption;
pub(crate) mod copies;
pub(crate) mod dead_rules;
pub(crate) mod desired;
pub(crate) mod diff;
#[cfg(test)]
mod fixtures;
pub(crate) mod former_namespace;
pub(crate) mod guardrails;
pub(crate) mod judgement;
pub(crate) mod observed;
pub(crate) mod parent_access;
pub(crate) mod parent_login;
pub(crate) mod parent_role;
pub(crate) mod preflight;
pub(crate) mod removal;
pub(crate) mod risks;
pub(crate) mod server_ca;
pub(crate) mod snapshot;
pub(crate) mod token_slots;
pub(crate) mod waves;
