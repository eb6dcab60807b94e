//! The adoption of an instance that was deployed by version 1.0.0, a Helm release of the chart `k8s-token`. Its objects are
//! kept, and with them the token; the Secrets in which Helm stores the release are deleted, because they contain the
//! parent credential. It is used in three places:
//!
//! 1. The snapshot has an [`evidence::Evidence`]: what was found of the release.
//! 2. The desired state has a [`outcome::Adoption`], decided in [`decision`]: what is recorded and deleted.
//! 3. Before the first apply, the field ownership of Helm is transferred: [`fields`].
//!
//! `run/adopt.rs` reads the evidence (1) and transfers field ownership (3). Pure.

pub(crate) mod decision;
pub(crate) mod evidence;
pub(crate) mod fields;
pub(crate) mod outcome;
pub(crate) mod release;
