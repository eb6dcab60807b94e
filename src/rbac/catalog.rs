//! The resources that an API server serves, with the verbs of each: those of Kubernetes itself from an embedded table,
//! those of one server from its aggregated discovery. Pure.
//!
//! `catalog.json` has the form of such a discovery, merged from real servers; `tests/cluster/findings.rs` writes it and
//! compares it with a real server.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

/// The verbs of constrained impersonation begin with one of these, and apply to any resource.
const IMPERSONATION: [&str; 2] = ["impersonate:", "impersonate-on:"];

/// Verbs that a server asks about any resource, although no discovery lists them.
const OF_ANY_RESOURCE: [&str; 4] =
    ["*", "use", "unsafe-delete-ignore-read-errors", "request-serviceaccounts-token-audience"];

/// Resources that exist in authorization alone: group, name, whether they are in a namespace, verbs.
const VIRTUAL: [(&str, &str, bool, &[&str]); 10] = [
    ("", "users", false, &["impersonate"]),
    ("", "groups", false, &["impersonate"]),
    ("authentication.k8s.io", "users", false, &[]),
    ("authentication.k8s.io", "groups", false, &[]),
    ("authentication.k8s.io", "nodes", false, &[]),
    ("authentication.k8s.io", "serviceaccounts", true, &[]),
    ("authentication.k8s.io", "uids", false, &["impersonate"]),
    ("authentication.k8s.io", USER_EXTRAS, false, &["impersonate"]),
    ("authentication.k8s.io", "admissionReviewAPIGroups", false, &["attest"]),
    ("certificates.k8s.io", "signers", false, &["approve", "sign", "attest", "request-podcertificate-signer"]),
];

/// Its subresources are the keys of the extra fields of a user, which can be any.
const USER_EXTRAS: &str = "userextras";

/// Stands for any of them.
const ANY_KEY: &str = "scopes";

/// Further verbs of resources that discovery lists.
const FURTHER_VERBS: [(&str, &str, &[&str]); 3] = [
    ("", "serviceaccounts", &["impersonate"]),
    ("rbac.authorization.k8s.io", "roles", &["bind", "escalate"]),
    ("rbac.authorization.k8s.io", "clusterroles", &["bind", "escalate"]),
];

/// Subresources that exist in authorization alone: group, resource, subresource, verbs. What may change the parts of a
/// ResourceClaim, whose certificates are approved by themselves, and which addresses an endpoint may have.
const VIRTUAL_SUBRESOURCES: [(&str, &str, &str, &[&str]); 7] = [
    ("", "endpoints", "restricted", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", "nodeclient", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", "selfnodeclient", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", "selfnodeserver", &["create"]),
    ("discovery.k8s.io", "endpointslices", "restricted", &["create"]),
    ("resource.k8s.io", "resourceclaims", "binding", &["update", "patch"]),
    (
        "resource.k8s.io",
        "resourceclaims",
        "driver",
        &["associated-node:update", "associated-node:patch", "arbitrary-node:update", "arbitrary-node:patch"],
    ),
];

/// Subresources of nodes that a kubelet asks about.
const KUBELET: [&str; 9] = ["checkpoint", "configz", "healthz", "log", "metrics", "pods", "spec", "stats", "statusz"];

/// The subresource that each resource has in authorization: who sets a blocking owner reference may update it.
const FINALIZERS: (&str, &[&str]) = ("finalizers", &["update"]);

/// A resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiResource<'a> {
    /// API group, `""` for the core group.
    pub(crate) group: &'a str,
    /// Lower-case plural, as rules name it.
    pub(crate) name: &'a str,
    /// Kind; empty for a resource that exists in authorization alone.
    pub(crate) kind: &'a str,
    /// Lower-case singular.
    pub(crate) singular: &'a str,
    /// Short names, as kubectl accepts them.
    pub(crate) short_names: Vec<&'a str>,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
    /// Its verbs.
    pub(crate) verbs: Vec<&'a str>,
    /// Its subresources, each with its verbs.
    pub(crate) subresources: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> ApiResource<'a> {
    /// A subresource, as the catalogue holds its name.
    pub(crate) fn subresource(&self, name: &str) -> Option<&'a str> {
        match name {
            _ if self.name == USER_EXTRAS => Some(ANY_KEY),
            _ if name == FINALIZERS.0 && !self.kind.is_empty() => Some(FINALIZERS.0),
            name => self.subresources.get_key_value(name).map(|(name, _)| *name),
        }
    }

    /// The verbs of the resource, or of its subresource; none if there is no such subresource.
    pub(crate) fn verbs_of(&self, subresource: Option<&str>) -> Option<&[&'a str]> {
        match subresource {
            None => Some(&self.verbs),
            Some(_) if self.name == USER_EXTRAS => Some(&self.verbs),
            Some(name) if name == FINALIZERS.0 && !self.kind.is_empty() => Some(FINALIZERS.1),
            Some(name) => self.subresources.get(name).map(Vec::as_slice),
        }
    }

    /// Whether a request for the resource, or its subresource, can have this verb.
    pub(crate) fn takes(&self, subresource: Option<&str>, verb: &str) -> bool {
        self.verbs_of(subresource).is_some_and(|verbs| verbs.contains(&verb)) || is_of_any_resource(verb)
    }

    fn extend(&mut self, verbs: impl IntoIterator<Item = &'a str>) {
        extend(&mut self.verbs, verbs);
    }
}

/// Whether a group is not of Kubernetes itself: CustomResourceDefinitions or API services may add resources to it.
pub(super) fn is_custom(group: &str) -> bool {
    Catalog::embedded().group(group).is_none()
}

/// Whether some release of Kubernetes serves the resource, or its subresource, even if a server does not.
pub(super) fn is_of_kubernetes(group: &str, word: &str) -> bool {
    let (name, subresource) = word.split_once('/').map_or((word, None), |(name, sub)| (name, Some(sub)));
    let resource = Catalog::embedded().resource(group, name);
    resource.is_some_and(|resource| resource.verbs_of(subresource).is_some())
}

/// Whether the verb can be asked about any resource.
fn is_of_any_resource(verb: &str) -> bool {
    OF_ANY_RESOURCE.contains(&verb) || IMPERSONATION.iter().any(|prefix| verb.starts_with(prefix))
}

fn extend<'a>(verbs: &mut Vec<&'a str>, more: impl IntoIterator<Item = &'a str>) {
    for verb in more {
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
}

/// An API group.
#[derive(Debug, Default)]
struct ApiGroup<'a> {
    /// Whether the server could not ask the API service behind it: resources may be missing.
    is_stale: bool,
    resources: BTreeMap<&'a str, ApiResource<'a>>,
}

/// The resources of one or more servers, by group.
#[derive(Debug)]
pub(crate) struct Catalog<'a> {
    groups: BTreeMap<&'a str, ApiGroup<'a>>,
}

impl Catalog<'static> {
    /// What Kubernetes itself serves, in any of the releases the table was made from, alpha and beta APIs included. Parsed
    /// on first use.
    pub(crate) fn embedded() -> &'static Self {
        static CATALOG: LazyLock<Catalog<'static>> =
            LazyLock::new(|| Catalog::of(serde_json::from_str(include_str!("catalog.json")).unwrap_or_default()));
        &CATALOG
    }
}

impl<'a> Catalog<'a> {
    /// What a server serves, by its aggregated discovery at `/apis`; none if this is no such document. The core group is
    /// not in it, and is taken from the embedded table: neither a CustomResourceDefinition nor an APIService adds to it.
    pub(crate) fn of_server(apis: &'a [u8]) -> Option<Self> {
        let list: DiscoveryList<'a> = serde_json::from_slice(apis).ok()?;
        if list.kind != Some("APIGroupDiscoveryList") {
            return None;
        }
        let mut catalog = Self::of(list);
        let core = Catalog::embedded().in_group("").map(|resource| (resource.name, resource.clone()));
        catalog.groups.insert("", ApiGroup { is_stale: false, resources: core.collect() });
        Some(catalog)
    }

    fn of(list: DiscoveryList<'a>) -> Self {
        let mut groups: BTreeMap<&'a str, ApiGroup<'a>> = BTreeMap::new();
        for item in list.items.unwrap_or_default() {
            let name = item.metadata.name.unwrap_or_default();
            let group = groups.entry(name).or_default();
            for version in item.versions.unwrap_or_default() {
                group.is_stale |= version.freshness == Some("Stale");
                for resource in version.resources.unwrap_or_default() {
                    add(&mut group.resources, name, resource);
                }
            }
        }
        let mut catalog = Self { groups };
        catalog.add_what_discovery_omits();
        catalog
    }

    fn add_what_discovery_omits(&mut self) {
        for (group, name, namespaced, verbs) in VIRTUAL {
            let resources = &mut self.groups.entry(group).or_default().resources;
            let verbs = verbs.to_vec();
            resources.entry(name).or_insert(ApiResource { group, name, namespaced, verbs, ..ApiResource::default() });
        }
        for (group, name, verbs) in FURTHER_VERBS {
            if let Some(resource) = self.resource_mut(group, name) {
                resource.extend(verbs.iter().copied());
            }
        }
        for (group, name, subresource, verbs) in VIRTUAL_SUBRESOURCES {
            if let Some(resource) = self.resource_mut(group, name) {
                resource.subresources.entry(subresource).or_insert_with(|| verbs.to_vec());
            }
        }
        if let Some(nodes) = self.resource_mut("", "nodes") {
            for name in KUBELET {
                nodes.subresources.entry(name).or_insert_with(|| vec!["get", "create"]);
            }
        }
    }

    fn resource_mut(&mut self, group: &str, name: &str) -> Option<&mut ApiResource<'a>> {
        self.groups.get_mut(group)?.resources.get_mut(name)
    }

    /// The names of the groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &'a str> {
        self.groups.keys().copied()
    }

    /// The group, as the catalogue holds its name.
    pub(crate) fn group(&self, name: &str) -> Option<&'a str> {
        self.groups.get_key_value(name).map(|(name, _)| *name)
    }

    /// Whether the list of the group's resources may be incomplete.
    pub(crate) fn is_stale(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.is_stale)
    }

    /// The resources of a group.
    pub(crate) fn in_group(&self, group: &str) -> impl Iterator<Item = &ApiResource<'a>> {
        self.groups.get(group).into_iter().flat_map(|group| group.resources.values())
    }

    /// All resources, group by group.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &ApiResource<'a>> {
        self.groups.values().flat_map(|group| group.resources.values())
    }

    /// A resource by its group and plural.
    pub(crate) fn resource(&self, group: &str, name: &str) -> Option<&ApiResource<'a>> {
        self.groups.get(group)?.resources.get(name)
    }
}

/// Adds a resource of one version of its group to those of the other versions.
fn add<'a>(resources: &mut BTreeMap<&'a str, ApiResource<'a>>, group: &'a str, listed: ListedResource<'a>) {
    let Some(name) = listed.resource.filter(|name| !name.is_empty()) else { return };
    let resource = resources.entry(name).or_insert_with(|| ApiResource {
        group,
        name,
        kind: listed.response_kind.and_then(|kind| kind.kind).unwrap_or_default(),
        singular: listed.singular_resource.unwrap_or_default(),
        short_names: listed.short_names.unwrap_or_default(),
        namespaced: listed.scope == Some("Namespaced"),
        ..ApiResource::default()
    });
    resource.extend(listed.verbs.unwrap_or_default());
    for subresource in listed.subresources.unwrap_or_default() {
        let verbs = resource.subresources.entry(subresource.subresource.unwrap_or_default()).or_default();
        extend(verbs, subresource.verbs.unwrap_or_default());
    }
}

/// The parts of an `APIGroupDiscoveryList` that count. They borrow from the document, because that of a cluster with
/// thousands of CustomResourceDefinitions has several MB. A list may be null, as Go writes an empty one.
#[derive(Default, Deserialize)]
struct DiscoveryList<'a> {
    kind: Option<&'a str>,
    #[serde(borrow)]
    items: Option<Vec<ListedGroup<'a>>>,
}

#[derive(Deserialize)]
struct ListedGroup<'a> {
    #[serde(borrow, default)]
    metadata: ListedName<'a>,
    versions: Option<Vec<ListedVersion<'a>>>,
}

#[derive(Default, Deserialize)]
struct ListedName<'a> {
    name: Option<&'a str>,
}

#[derive(Deserialize)]
struct ListedVersion<'a> {
    freshness: Option<&'a str>,
    #[serde(borrow)]
    resources: Option<Vec<ListedResource<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedResource<'a> {
    resource: Option<&'a str>,
    #[serde(borrow)]
    response_kind: Option<ListedKind<'a>>,
    scope: Option<&'a str>,
    singular_resource: Option<&'a str>,
    short_names: Option<Vec<&'a str>>,
    verbs: Option<Vec<&'a str>>,
    subresources: Option<Vec<ListedSubresource<'a>>>,
}

#[derive(Deserialize)]
struct ListedKind<'a> {
    kind: Option<&'a str>,
}

#[derive(Deserialize)]
struct ListedSubresource<'a> {
    subresource: Option<&'a str>,
    #[serde(borrow)]
    verbs: Option<Vec<&'a str>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embedded_catalog_lists_known_resources() {
        let catalog = Catalog::embedded();
        let deployments = catalog.resource("apps", "deployments").unwrap();
        assert_eq!((deployments.kind, deployments.singular), ("Deployment", "deployment"));
        assert_eq!(deployments.short_names, ["deploy"]);
        assert!(deployments.namespaced && deployments.takes(Some("scale"), "patch"));
        assert!(!deployments.takes(Some("scale"), "list") && !deployments.takes(Some("exec"), "get"));
        assert!(!catalog.resource("", "nodes").unwrap().namespaced);
        // On by default since 1.37, alpha, and in two versions of a group.
        for (group, name) in [
            ("certificates.k8s.io", "clustertrustbundles"),
            ("internal.apiserver.k8s.io", "storageversions"),
            ("autoscaling", "horizontalpodautoscalers"),
        ] {
            assert!(catalog.resource(group, name).is_some(), "{name}");
        }
    }

    #[test]
    fn catalog_has_what_discovery_omits() {
        let catalog = Catalog::embedded();
        for (group, name, subresource, verb) in [
            ("apps", "deployments", Some("finalizers"), "update"),
            ("", "nodes", Some("metrics"), "get"),
            ("", "nodes", None, "impersonate-on:arbitrary-node:get"),
            ("", "serviceaccounts", None, "impersonate"),
            ("", "users", None, "impersonate"),
            ("authentication.k8s.io", "userextras", Some("scopes"), "impersonate"),
            ("authentication.k8s.io", "uids", None, "impersonate"),
            ("authentication.k8s.io", "admissionReviewAPIGroups", None, "attest"),
            ("certificates.k8s.io", "signers", None, "approve"),
            ("rbac.authorization.k8s.io", "clusterroles", None, "escalate"),
        ] {
            assert!(catalog.resource(group, name).unwrap().takes(subresource, verb), "{verb} {name} {subresource:?}");
        }
        assert!(!catalog.resource("", "pods").unwrap().takes(None, "escalate"));
    }

    /// The catalogue of a server that lists these groups.
    fn discovered(items: &serde_json::Value) -> String {
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}).to_string()
    }

    #[test]
    fn discovery_with_unreachable_service_is_stale() {
        let list = discovered(&json!([
            {"metadata": {"name": "metrics.k8s.io", "creationTimestamp": null},
             "versions": [{"version": "v1beta1", "freshness": "Stale"}]},
            {"metadata": {"name": "odd"}, "versions": [{"resources": [{}]}, {"resources": null}]},
            {"metadata": {"name": "empty"}, "versions": null},
        ]));
        let catalog = Catalog::of_server(list.as_bytes()).unwrap();
        assert!(catalog.is_stale("metrics.k8s.io") && !catalog.is_stale("") && !catalog.is_stale("odd"));
        assert_eq!((catalog.in_group("odd").count(), catalog.in_group("empty").count()), (0, 0));
        assert!(catalog.resource("", "pods").unwrap().takes(None, "get"), "the core group is that of the table");
        assert!(catalog.resource("apps", "deployments").is_none(), "other groups are those of the server");
    }

    #[rstest::rstest]
    #[case::old_discovery(r#"{"kind": "APIGroupList", "apiVersion": "v1", "groups": []}"#)]
    #[case::status(r#"{"kind": "Status", "code": 403}"#)]
    #[case::other_types(r#"{"kind": "APIGroupDiscoveryList", "items": [1]}"#)]
    #[case::html("<html></html>")]
    #[case::cut_off(r#"{"kind": "APIGroupDiscoveryList", "items": ["#)]
    #[case::nothing("")]
    fn other_documents_are_no_discovery(#[case] answer: &str) {
        assert!(Catalog::of_server(answer.as_bytes()).is_none());
    }
}
