//! Users of the control plane: their identity, their permissions, and the two documents for a program (a connection of
//! the platform, a kubeconfig).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::OrFail;

/// A user with a bearer token and exactly the granted permissions.
#[derive(Clone, Debug)]
pub struct Persona {
    /// Its user name in the API server (`system:serviceaccount:...`).
    pub user: String,
    /// Its bearer token, valid for 90 days: a program finds nothing to say about its end.
    pub token: String,
    /// The URL of the API server.
    pub(crate) server: String,
    /// Base64 of the CA's PEM.
    pub(crate) ca: String,
}

impl Persona {
    /// The flat kubernetes-cluster document for this user.
    pub fn connection(&self) -> Value {
        json!({"authentication": {
            "cluster": {"server": self.server, "certificate-authority-data": self.ca},
            "user": {"token": self.token},
        }})
    }

    /// Writes a kubeconfig for this user into `directory`; context `testbed`, namespace `default`.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let user = json!({"token": self.token});
        let name = self.user.rsplit(':').next().unwrap_or("user");
        let path = directory.join(format!("{name}.kubeconfig"));
        let text = format!("{:#}\n", kubeconfig(&self.server, &self.ca, &user));
        fs::write(&path, text).or_fail(format_args!("writing {}", path.display()));
        path
    }

    /// The same user at another address, for example that of a relay.
    #[must_use]
    pub fn with_server(&self, server: &str) -> Self {
        Self { server: server.to_owned(), ..self.clone() }
    }
}

/// A kubeconfig document (JSON is YAML).
pub(crate) fn kubeconfig(server: &str, ca_base64: &str, user: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority-data": ca_base64}}],
        "users": [{"name": "testbed", "user": user}],
    })
}

/// Permissions of a persona.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `None` for the whole cluster.
    pub(crate) namespace: Option<String>,
    pub(crate) rights: Rights,
}

#[derive(Clone, Debug)]
pub(crate) enum Rights {
    Rules(Vec<Value>),
    ClusterRole(String),
}

impl Grant {
    /// These rules in one namespace, by a Role and a RoleBinding.
    pub fn in_namespace(namespace: &str, rules: &[Value]) -> Self {
        Self { namespace: Some(namespace.to_owned()), rights: Rights::Rules(rules.to_vec()) }
    }

    /// These rules in the whole cluster, by a ClusterRole and a ClusterRoleBinding.
    pub fn everywhere(rules: &[Value]) -> Self {
        Self { namespace: None, rights: Rights::Rules(rules.to_vec()) }
    }

    /// An existing ClusterRole such as `admin`, bound in one namespace.
    pub fn cluster_role_in(namespace: &str, name: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), rights: Rights::ClusterRole(name.to_owned()) }
    }

    /// An existing ClusterRole such as `cluster-admin`, bound in the whole cluster.
    pub fn cluster_role(name: &str) -> Self {
        Self { namespace: None, rights: Rights::ClusterRole(name.to_owned()) }
    }
}

/// One RBAC rule: `rule(&[""], &["pods"], &["get", "list"])`.
pub fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}
