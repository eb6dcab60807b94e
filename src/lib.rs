//! k8s-token
pub mod error; pub mod finding; pub mod rbac; pub mod secret;
