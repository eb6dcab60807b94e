//! k8s-token
fn main() {}
