//! Risks of requested rules: the catalogue, and how rules are compared with it. Pure.

mod catalog;
mod judge;

pub use catalog::{CATALOG, Entry, Level, Target, Together, Verbs};
pub(crate) use judge::{Requested, Risk, risks};
