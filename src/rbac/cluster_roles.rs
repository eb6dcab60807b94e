//! The ClusterRoles that every API server has for users, with the rules that Kubernetes itself gives them. Pure.
//!
//! `cluster_roles.json` has the rules of all known releases together; `tests/cluster/guardrails.rs` writes it and compares it
//! with a real server.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::rbac::Rule;

/// The rules of a default ClusterRole by its name; a cluster may have aggregated further rules into it.
pub(crate) fn default_cluster_role(name: &str) -> Option<&'static [Rule]> {
    static ROLES: LazyLock<BTreeMap<String, Vec<Rule>>> =
        LazyLock::new(|| serde_json::from_str(include_str!("cluster_roles.json")).unwrap_or_default());
    ROLES.get(name).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_cluster_roles_are_those_for_users() {
        for (name, is_known) in
            [("cluster-admin", true), ("admin", true), ("edit", true), ("view", true), ("system:node", false)]
        {
            assert_eq!(default_cluster_role(name).is_some_and(|rules| !rules.is_empty()), is_known, "{name}");
        }
    }
}
