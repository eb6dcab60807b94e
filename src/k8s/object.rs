//! Kubernetes objects: kinds, references, desired objects ([`Manifest`]) and observed ones ([`Live`]). Pure data, never
//! with a Secret's content.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{diagnostics::text::escaped, rbac::Rule};

/// The field manager of this program, and the value of [`MANAGED_BY`].
pub(crate) const MANAGER: &str = "k8s-token";
/// Label: the program that manages an object.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The type of a Secret that the token controller fills.
pub(crate) const TOKEN_SECRET: &str = "kubernetes.io/service-account-token";

/// The kinds of an instance's objects, in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Created if it is missing, never deleted.
    Namespace,
    /// The identity.
    ServiceAccount,
    /// The permissions of the ServiceAccount in a namespace.
    Role,
    /// The cluster-wide permissions of the ServiceAccount.
    ClusterRole,
    /// The grant of permissions in a namespace.
    RoleBinding,
    /// The cluster-wide grant of permissions.
    ClusterRoleBinding,
    /// Contains the token.
    Secret,
}

impl Kind {
    /// As in `kind`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
            Self::RoleBinding => "RoleBinding",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
            Self::Secret => "Secret",
        }
    }

    /// The API group.
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Namespace | Self::ServiceAccount | Self::Secret => "",
            Self::Role | Self::ClusterRole | Self::RoleBinding | Self::ClusterRoleBinding => {
                "rbac.authorization.k8s.io"
            }
        }
    }

    /// As in `apiVersion`.
    pub(crate) fn api_version(self) -> String {
        match self.group() {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// The resource name, as in rules and paths.
    pub(crate) const fn resource(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::ServiceAccount => "serviceaccounts",
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
            Self::Secret => "secrets",
        }
    }
}

/// A reference to an object. Prints as `Role team-a/demo-token`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; none for a Namespace and cluster-scoped objects.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
}

impl Reference {
    /// An object in a namespace.
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    /// A cluster-scoped object.
    pub(crate) fn at_cluster(kind: Kind, name: &str) -> Self {
        Self { kind, namespace: None, name: name.to_owned() }
    }

    /// A Namespace.
    pub(crate) fn namespace(name: &str) -> Self {
        Self::at_cluster(Kind::Namespace, name)
    }

    /// The printing order: the home namespace, then the others by name, then the whole cluster.
    pub(crate) fn place_in_reading_order(&self, home: &str) -> impl Ord + use<'_> {
        let place = match self.namespace.as_deref() {
            None if self.kind == Kind::Namespace => 0,
            None => 2,
            Some(namespace) => u8::from(namespace != home),
        };
        (place, self.namespace.as_deref().filter(|_| place == 1))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{} {}", self.kind.as_str(), self.name),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A desired object: the body of a server-side apply, with the owned fields and no others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    /// Its reference.
    pub(crate) reference: Reference,
    /// The apply body: apiVersion, kind, metadata and the kind's own fields.
    pub(crate) body: Value,
}

/// An observed object, without a Secret's data.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Live {
    /// The uid: differs after deletion and recreation.
    pub(crate) uid: String,
    /// The resourceVersion: differs after every write.
    pub(crate) resource_version: String,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The kind's own fields: `rules`, `subjects`, `roleRef`, `type`.
    pub(crate) fields: BTreeMap<String, Value>,
    /// Labels that the field manager of k8s-token owns; on an object of Helm, those that Helm owns too.
    pub(crate) owned_labels: BTreeSet<String>,
    /// Annotations that the field manager of k8s-token owns; likewise.
    pub(crate) owned_annotations: BTreeSet<String>,
    /// The managed fields; only of an object of Helm.
    pub(crate) managed_fields: Vec<Value>,
    /// The field manager that set each of [`Self::fields`] last: k8s-token if it is one of several.
    pub(crate) managers: BTreeMap<String, String>,
    /// The finalizers that hold it, if it is being deleted: it exists as long as they do.
    pub(crate) deleting: Option<Vec<String>>,
}

impl Live {
    /// The message why an object that is being deleted still exists; none if it is not being deleted.
    pub(crate) fn held(&self) -> Option<String> {
        self.deleting.as_deref().map(held_by)
    }

    /// Pointers to the differences between this state of an object and another, as far as they are read.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (map, ours, theirs) in
            [("labels", &self.labels, &other.labels), ("annotations", &self.annotations, &other.annotations)]
        {
            let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            let differ = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
            found.extend(differ.map(|key| format!("/metadata/{map}/{}", escaped(key))));
        }
        let fields: BTreeSet<&String> = self.fields.keys().chain(other.fields.keys()).collect();
        for field in fields {
            let side = |live: &Self| live.fields.get(field).cloned().unwrap_or_default();
            differing(&format!("/{field}"), &side(self), &side(other), &mut found);
        }
        found.sort();
        found
    }

    /// The rules of a Role or ClusterRole.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.fields.get("rules").and_then(|rules| serde_json::from_value(rules.clone()).ok()).unwrap_or_default()
    }
}

/// The message why an object that is being deleted still exists.
pub(crate) fn held_by(finalizers: &[String]) -> String {
    match finalizers {
        [] => "it is being deleted".to_owned(),
        [one] => format!("it is being deleted, and the finalizer {one} holds it"),
        several => format!("it is being deleted, and the finalizers {} hold it", several.join(", ")),
    }
}

/// Adds pointers to the smallest parts that differ. A list of scalars is one part: the server owns it as a whole.
pub(crate) fn differing(at: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differing(&format!("{at}/{}", escaped(key)), &side(one), &side(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.iter().chain(other).any(Value::is_object) => {
            for index in 0..one.len().max(other.len()) {
                let side = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
                differing(&format!("{at}/{index}"), &side(one), &side(other), found);
            }
        }
        _ if one == other => {}
        _ => found.push(at.to_owned()),
    }
}
