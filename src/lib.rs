//! k8s-token
