//! Credentials: the claims of a token, its access checks, and the documents that contain it. Pure.

pub(crate) mod access_checks;
pub(crate) mod artifact;
pub(crate) mod claims;
pub(crate) mod defaults;
pub(crate) mod kubeconfig;
