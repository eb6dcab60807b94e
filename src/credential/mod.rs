//! Credentials: the claims of a token, its access checks, and the documents that contain it. Pure.

pub mod access_checks;
pub mod artifact;
pub mod claims;
pub mod defaults;
pub mod kubeconfig;
