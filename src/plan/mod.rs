//! Decisions: the desired objects, the differences, the obstacles. Pure.

pub mod adoption;
pub mod copies;
pub mod desired;
pub mod diff;
pub mod former_namespace;
pub mod observed;
pub mod parent_access;
pub mod parent_role;
pub mod preflight;
pub mod removal;
pub mod snapshot;
pub mod token_slots;
pub mod waves;
