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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::namespace(Kind::Namespace, "v1", "namespaces")]
    #[case::service_account(Kind::ServiceAccount, "v1", "serviceaccounts")]
    #[case::secret(Kind::Secret, "v1", "secrets")]
    #[case::role(Kind::Role, "rbac.authorization.k8s.io/v1", "roles")]
    #[case::cluster_role(Kind::ClusterRole, "rbac.authorization.k8s.io/v1", "clusterroles")]
    #[case::role_binding(Kind::RoleBinding, "rbac.authorization.k8s.io/v1", "rolebindings")]
    #[case::cluster_role_binding(Kind::ClusterRoleBinding, "rbac.authorization.k8s.io/v1", "clusterrolebindings")]
    fn kind_has_version_and_resource(#[case] kind: Kind, #[case] api_version: &str, #[case] resource: &str) {
        assert_eq!((&*kind.api_version(), kind.resource()), (api_version, resource));
        assert_eq!(json!(kind), kind.as_str());
        assert_eq!(kind.as_str().to_lowercase() + "s", resource);
    }

    #[test]
    fn references_print_namespace_and_name() {
        assert_eq!(Reference::new(Kind::Role, "a", "demo").to_string(), "Role a/demo");
        assert_eq!(Reference::at_cluster(Kind::ClusterRole, "view").to_string(), "ClusterRole view");
        assert_eq!(Reference::namespace("a").to_string(), "Namespace a");
    }

    #[test]
    fn references_are_printed_from_home_to_cluster() {
        let role = |namespace| Reference::new(Kind::Role, namespace, "x");
        let ordered = [
            vec![Reference::namespace("home"), role("home")],
            vec![role("a")],
            vec![role("z")],
            vec![Reference::at_cluster(Kind::ClusterRole, "a"), Reference::at_cluster(Kind::ClusterRoleBinding, "b")],
        ];
        for (at, group) in ordered.iter().enumerate() {
            for (other, one) in
                ordered.iter().enumerate().flat_map(|(other, group)| group.iter().map(move |it| (other, it)))
            {
                let order = group[0].place_in_reading_order("home").cmp(&one.place_in_reading_order("home"));
                assert_eq!(order, at.cmp(&other), "{} and {one}", group[0]);
            }
        }
    }

    #[rstest]
    #[case::not_deleted(None, None)]
    #[case::no_finalizer(Some(""), Some("it is being deleted"))]
    #[case::one_finalizer(Some("a/b"), Some("it is being deleted, and the finalizer a/b holds it"))]
    #[case::two_finalizers(Some("a b"), Some("it is being deleted, and the finalizers a, b hold it"))]
    fn held_object_names_its_finalizers(#[case] finalizers: Option<&str>, #[case] text: Option<&str>) {
        let deleting = finalizers.map(|list| list.split_whitespace().map(str::to_owned).collect());
        assert_eq!(Live { deleting, ..Live::default() }.held().as_deref(), text);
    }

    #[rstest]
    #[case::equal(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 2}]}), &[])]
    #[case::scalar(json!(1), json!(2), &["/x"])]
    #[case::nested(json!({"a": {"b": 1, "c": 1}}), json!({"a": {"b": 2, "c": 1}}), &["/x/a/b"])]
    #[case::key_on_one_side(json!({"a": 1}), json!({"b": 1}), &["/x/a", "/x/b"])]
    #[case::null_is_absent(json!({"a": null}), json!({}), &[])]
    #[case::key_with_slash(json!({"a/b": 1}), json!({}), &["/x/a~1b"])]
    #[case::list_of_scalars(json!(["a", "b"]), json!(["a", "c"]), &["/x"])]
    #[case::list_of_objects(json!([{"a": 1}, {"a": 2}]), json!([{"a": 1}, {"a": 3}]), &["/x/1/a"])]
    #[case::list_with_an_object(json!([1, {"a": 1}]), json!([1, {"a": 2}]), &["/x/1/a"])]
    #[case::longer_list_of_objects(json!([{"a": 1}]), json!([{"a": 1}, {"a": 2}]), &["/x/1"])]
    #[case::list_becomes_empty(json!([{"a": 1}]), json!([]), &["/x/0"])]
    #[case::another_type(json!({"a": 1}), json!([1]), &["/x"])]
    fn difference_points_to_smallest_part(#[case] one: Value, #[case] other: Value, #[case] pointers: &[&str]) {
        for (one, other) in [(&one, &other), (&other, &one)] {
            let mut found = Vec::new();
            differing("/x", one, other, &mut found);
            assert_eq!(found, pointers);
        }
    }

    fn changed(change: impl FnOnce(&mut Live)) -> Vec<String> {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let one = Live { labels: map("a", "1"), annotations: map("b/c", "1"), ..Live::default() };
        let mut other = one.clone();
        change(&mut other);
        one.differences(&other)
    }

    #[test]
    fn differences_ignore_versions_and_managers() {
        let set = |map: &mut BTreeMap<String, String>, key: &str| drop(map.insert(key.to_owned(), "2".to_owned()));
        assert_eq!(changed(|_| {}), [""; 0]);
        assert_eq!(changed(|it| it.resource_version = "2".to_owned()), [""; 0]);
        assert_eq!(changed(|it| set(&mut it.managers, "rules")), [""; 0]);
        assert_eq!(changed(|it| set(&mut it.labels, "a")), ["/metadata/labels/a"]);
        assert_eq!(changed(|it| set(&mut it.labels, "new")), ["/metadata/labels/new"]);
        assert_eq!(changed(|it| it.annotations.clear()), ["/metadata/annotations/b~1c"]);
        assert_eq!(changed(|it| drop(it.fields.insert("type".to_owned(), json!("Opaque")))), ["/type"]);
    }

    #[rstest]
    #[case::rules(json!([{"verbs": ["get"]}]), 1)]
    #[case::none(json!(null), 0)]
    #[case::garbled(json!([{"verbs": "get"}]), 0)]
    fn rules_are_read_from_their_field(#[case] rules: Value, #[case] count: usize) {
        let live = Live { fields: BTreeMap::from([("rules".to_owned(), rules)]), ..Live::default() };
        assert_eq!(live.rules().len(), count);
        assert!(Live::default().rules().is_empty());
    }
}
