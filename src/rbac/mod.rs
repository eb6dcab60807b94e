//! RBAC as data: rules, the single permissions they consist of, and the records shown to users. Their algebra is in
//! `coverage.rs`, the judgement of rules in `lint.rs` and `risk/`. Pure; no Kubernetes client, no I/O.

mod catalog;
mod cluster_roles;
mod coverage;
mod lint;
mod reach;
mod redundant;
pub mod risk;
mod suggestion;

pub(crate) use catalog::Catalog;
pub(crate) use cluster_roles::default_cluster_role;
pub(crate) use coverage::{Coverage, PermissionChanges, Widening, difference, same_permissions, widening};

pub(crate) use lint::{DeadCode, DeadRule, dead_rules};
pub(crate) use reach::matchable;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The verbs that the form offers: every verb of a request for an ordinary resource.
pub(crate) const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// A rule as a Role or a ClusterRole contains it: for resources or, in a ClusterRole, for URL paths of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    /// API groups; `""` is the core group, `*` every group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    /// Plural resource names, with a subresource after a slash; `*` is all of the groups, `*/scale` one subresource of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    /// Verbs; `*` is every verb.
    #[serde(default)]
    pub(crate) verbs: Vec<String>,
    /// Names of single objects; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    /// URL paths; `*` at the end covers everything below.
    #[serde(default, rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) non_resource_urls: Vec<String>,
}

impl Rule {
    /// The single permissions of this rule in a namespace or cluster-wide: one verb, group, resource and name each, or one
    /// verb and path. A path is in no namespace, so a RoleBinding grants none of them.
    pub(crate) fn permissions<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = Permission<'a>> {
        let names = || {
            let all = self.resource_names.is_empty().then_some(None);
            all.into_iter().chain(self.resource_names.iter().map(|name| Some(name.as_str())))
        };
        let resources = self.api_groups.iter().flat_map(move |group| {
            self.resources
                .iter()
                .flat_map(move |resource| names().map(move |name| PermissionTarget::Resource { group, resource, name }))
        });
        let urls = self.non_resource_urls.iter().filter(move |_| namespace.is_none());
        let targets = resources.chain(urls.map(|url| PermissionTarget::Url(url.as_str())));
        targets.flat_map(move |target| self.verbs.iter().map(move |verb| Permission { namespace, target, verb }))
    }
}

/// A rule and where it applies.
pub(crate) struct RuleInScope<'a> {
    /// Its JSON pointer, for the messages about other rules.
    pub(crate) pointer: &'a str,
    /// The rule.
    pub(crate) rule: &'a Rule,
    /// Its namespaces; none means cluster-wide.
    pub(crate) namespaces: Vec<Option<&'a str>>,
}

impl RuleInScope<'_> {
    /// Whether it applies in namespaces only.
    pub(crate) fn is_namespaced(&self) -> bool {
        !self.namespaces.is_empty() && self.namespaces.iter().all(Option::is_some)
    }
}

/// The single permissions of all rules, repeats included.
pub(crate) fn permissions_of<'a>(
    rules: &'a [Rule],
    namespace: Option<&'a str>,
) -> impl Iterator<Item = Permission<'a>> {
    rules.iter().flat_map(move |rule| rule.permissions(namespace))
}

/// One permission, wildcards unexpanded. Ordered for reading: cluster-wide first, then by namespace, resource and verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Permission<'a> {
    /// Namespace; none means cluster-wide.
    pub(crate) namespace: Option<&'a str>,
    /// Resource or path.
    pub(crate) target: PermissionTarget<'a>,
    /// Verb.
    pub(crate) verb: &'a str,
}

/// The resource or path that a permission is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PermissionTarget<'a> {
    /// Objects of the API.
    Resource {
        /// API group.
        group: &'a str,
        /// Resource, with its subresource.
        resource: &'a str,
        /// Name of the one object; none means all.
        name: Option<&'a str>,
    },
    /// A URL path of the API server.
    Url(&'a str),
}

impl<'a> Permission<'a> {
    /// A permission on all objects, cluster-wide.
    pub(crate) const fn new(verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self { namespace: None, target: PermissionTarget::Resource { group, resource, name: None }, verb }
    }

    /// The same permission on one object; a path is one object already.
    #[must_use]
    pub(crate) const fn named(self, name: &'a str) -> Self {
        match self.target {
            PermissionTarget::Resource { group, resource, .. } => {
                Self { target: PermissionTarget::Resource { group, resource, name: Some(name) }, ..self }
            }
            PermissionTarget::Url(_) => self,
        }
    }

    /// The same permission in one namespace, or cluster-wide.
    #[must_use]
    pub(crate) const fn within(self, namespace: Option<&'a str>) -> Self {
        Self { namespace, ..self }
    }

    /// Whether no request can ever match it: `pods/*` and `*/*` are no wildcards to the server, a deletecollection never
    /// names an object, and the verb for a path is an HTTP method.
    pub(crate) fn matches_nothing(&self) -> bool {
        match self.target {
            PermissionTarget::Resource { resource, name, .. } => {
                resource.ends_with("/*") || (self.verb == "deletecollection" && name.is_some())
            }
            PermissionTarget::Url(_) => {
                !["*", "get", "head", "post", "put", "patch", "delete", "options"].contains(&self.verb)
            }
        }
    }

    /// The record shown to users.
    pub(crate) fn record(&self) -> PermissionRecord {
        let verb = self.verb.to_owned();
        match self.target {
            PermissionTarget::Resource { group, resource, name } => PermissionRecord::Resource {
                verb,
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: name.map(str::to_owned),
                namespace: self.namespace.map(str::to_owned),
            },
            PermissionTarget::Url(url) => PermissionRecord::Url { verb, url: url.to_owned() },
        }
    }
}

/// A permission as shown in JSON documents and in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub(crate) enum PermissionRecord {
    /// A permission on a resource.
    Resource {
        /// Verb.
        verb: String,
        /// API group, `""` for the core group.
        group: String,
        /// Resource, with its subresource.
        resource: String,
        /// Name of the one object; none means all.
        name: Option<String>,
        /// Namespace; none means cluster-wide.
        namespace: Option<String>,
    },
    /// A permission on a URL path of the API server.
    Url {
        /// HTTP method, lower case.
        verb: String,
        /// Path; `*` at the end covers everything below.
        url: String,
    },
}

impl PermissionRecord {
    /// The permission that this record shows.
    pub(crate) fn permission(&self) -> Permission<'_> {
        match self {
            Self::Resource { verb, group, resource, name, namespace } => {
                let target = PermissionTarget::Resource { group, resource, name: name.as_deref() };
                Permission { namespace: namespace.as_deref(), target, verb }
            }
            Self::Url { verb, url } => Permission { namespace: None, target: PermissionTarget::Url(url), verb },
        }
    }

    /// Its verb.
    pub(crate) fn verb(&self) -> &str {
        match self {
            Self::Resource { verb, .. } | Self::Url { verb, .. } => verb,
        }
    }

    /// The record without its verb, as in `pods/log in namespace team-a`. The core group is left out.
    fn target(&self) -> String {
        let Self::Resource { group, resource, name, namespace, .. } = self else {
            return match self {
                Self::Url { url, .. } | Self::Resource { resource: url, .. } => url.clone(),
            };
        };
        let group = match group.as_str() {
            "" => String::new(),
            "*" => " of every group".to_owned(),
            group => format!(" of {group}"),
        };
        let name = name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let place = namespace
            .as_ref()
            .map_or_else(|| " at cluster scope".to_owned(), |namespace| format!(" in namespace {namespace}"));
        format!("{resource}{group}{name}{place}")
    }
}

/// One sentence for each resource with all its verbs: `get, list pods in namespace team-a`.
pub(crate) fn summarize(records: &[PermissionRecord]) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for record in records {
        let target = record.target();
        let line = *known.entry(target.clone()).or_insert(lines.len());
        match lines.get_mut(line) {
            Some((_, verbs)) => verbs.push(record.verb()),
            None => lines.push((target, vec![record.verb()])),
        }
    }
    lines.into_iter().map(|(target, verbs)| format!("{} {target}", verbs.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn rule(rule: Value) -> Rule {
        serde_json::from_value(rule).unwrap()
    }

    /// Columns: rule, namespace, its permissions as sentences.
    #[rstest]
    #[case::each_verb(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}), Some("a"), &["get pods in namespace a", "list pods in namespace a"])]
    #[case::each_group_and_resource(json!({"apiGroups": ["", "apps"], "resources": ["a", "b"], "verbs": ["get"]}), None,
        &["get a at cluster scope", "get b at cluster scope", "get a of apps at cluster scope", "get b of apps at cluster scope"])]
    #[case::each_name(json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x", "y"], "verbs": ["get"]}), None,
        &["get pods \"x\" at cluster scope", "get pods \"y\" at cluster scope"])]
    #[case::path(json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]}), None, &["get /healthz"])]
    #[case::path_in_a_namespace(json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]}), Some("a"), &[])]
    #[case::no_group(json!({"resources": ["pods"], "verbs": ["get"]}), None, &[])]
    #[case::no_verb(json!({"apiGroups": [""], "resources": ["pods"]}), None, &[])]
    fn rule_consists_of_single_permissions(
        #[case] text: Value,
        #[case] namespace: Option<&str>,
        #[case] permissions: &[&str],
    ) {
        let rules = [rule(text)];
        let found: Vec<PermissionRecord> = permissions_of(&rules, namespace).map(|it| it.record()).collect();
        assert_eq!(found.iter().flat_map(|it| summarize(std::slice::from_ref(it))).collect::<Vec<_>>(), permissions);
        for (record, permission) in found.iter().zip(permissions_of(&rules, namespace)) {
            assert_eq!(record.permission(), permission, "nothing is lost in the record");
        }
    }

    #[rstest]
    #[case::all(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["x"]}))]
    #[case::path(json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}))]
    #[case::without_lists(json!({"verbs": []}))]
    fn rule_keeps_its_form_on_the_server(#[case] text: Value) {
        assert_eq!(json!(rule(text.clone())), text);
    }

    #[rstest]
    #[case::resource(Permission::new("get", "", "pods"), false)]
    #[case::subresource(Permission::new("get", "", "pods/log"), false)]
    #[case::subresource_of_all(Permission::new("get", "", "*/scale"), false)]
    #[case::all_subresources(Permission::new("get", "", "pods/*"), true)]
    #[case::collection(Permission::new("deletecollection", "", "pods"), false)]
    #[case::collection_of_one_name(Permission::new("deletecollection", "", "pods").named("x"), true)]
    #[case::delete_of_one_name(Permission::new("delete", "", "pods").named("x"), false)]
    #[case::path(Permission { namespace: None, target: PermissionTarget::Url("/healthz"), verb: "head" }, false)]
    #[case::path_with_every_verb(Permission { namespace: None, target: PermissionTarget::Url("/healthz"), verb: "*" }, false)]
    #[case::path_with_a_resource_verb(Permission { namespace: None, target: PermissionTarget::Url("/healthz"), verb: "list" }, true)]
    fn some_permissions_match_no_request(#[case] permission: Permission<'_>, #[case] matches_nothing: bool) {
        assert_eq!(permission.matches_nothing(), matches_nothing);
    }

    #[test]
    fn path_takes_no_name() {
        let path = Permission { namespace: None, target: PermissionTarget::Url("/healthz"), verb: "get" };
        assert_eq!(path.named("x"), path);
        let pod = Permission::new("get", "", "pods");
        assert_ne!(pod.named("x"), pod);
        assert_eq!(pod.within(Some("a")).within(None), pod);
    }

    #[test]
    fn records_keep_their_form_for_users() {
        let pod = Permission::new("get", "", "pods").within(Some("a")).record();
        let shown = json!({"verb": "get", "group": "", "resource": "pods", "name": null, "namespace": "a"});
        assert_eq!(json!(pod), shown);
        let path = PermissionRecord::Url { verb: "get".to_owned(), url: "/healthz".to_owned() };
        assert_eq!(json!(path), json!({"verb": "get", "url": "/healthz"}));
    }

    #[test]
    fn summary_lists_verbs_by_resource() {
        let pods = |verb| Permission::new(verb, "", "pods");
        let records = [
            pods("get").within(Some("a")),
            Permission::new("get", "*", "pods/log"),
            pods("list").within(Some("a")),
            pods("list").within(Some("b")),
            pods("get").named("x").within(Some("a")),
            pods("get"),
        ];
        assert_eq!(
            summarize(&records.map(|permission| permission.record())),
            [
                "get, list pods in namespace a",
                "get pods/log of every group at cluster scope",
                "list pods in namespace b",
                "get pods \"x\" in namespace a",
                "get pods at cluster scope",
            ]
        );
    }
}
