//! What a token is and may do: its claims, the access checks, the documents that it is handed on in. Pure.

pub mod access_checks;
pub mod artifact;
pub mod claims;
pub mod defaults;
pub mod kubeconfig;
