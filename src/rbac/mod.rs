//! RBAC as data: rules, the single permissions they consist of, and the tuples shown to users. Their algebra is in
//! `coverage.rs`. Pure; no Kubernetes client, no I/O.

mod coverage;

pub use coverage::{Coverage, Permissions, Widening, difference, same_permissions, widening};

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The verbs that the form offers: every verb of a request for an ordinary resource.
pub const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// A rule as a Role or a ClusterRole contains it: for resources or, in a ClusterRole, for URL paths of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// API groups; `""` is the core group, `*` every group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Plural resource names, with a subresource after a slash; `*` is all of the groups, `*/scale` one subresource of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Verbs; `*` is every verb.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Names of single objects; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// URL paths; `*` at the end covers everything below.
    #[serde(default, rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// The single permissions of this rule in a namespace or cluster-wide: one verb, group, resource and name each, or one
    /// verb and path. A path is in no namespace, so a RoleBinding grants none of them.
    pub fn atoms<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = Atom<'a>> {
        let names = || {
            let all = self.resource_names.is_empty().then_some(None);
            all.into_iter().chain(self.resource_names.iter().map(|name| Some(name.as_str())))
        };
        let resources = self.api_groups.iter().flat_map(move |group| {
            self.resources
                .iter()
                .flat_map(move |resource| names().map(move |name| Target::Resource { group, resource, name }))
        });
        let urls = self.non_resource_urls.iter().filter(move |_| namespace.is_none());
        let targets = resources.chain(urls.map(|url| Target::Url(url.as_str())));
        targets.flat_map(move |target| self.verbs.iter().map(move |verb| Atom { namespace, target, verb }))
    }
}

/// The single permissions of all rules, repeats included.
pub fn atoms<'a>(rules: &'a [Rule], namespace: Option<&'a str>) -> impl Iterator<Item = Atom<'a>> {
    rules.iter().flat_map(move |rule| rule.atoms(namespace))
}

/// One permission, wildcards unexpanded. Ordered for reading: cluster-wide first, then by namespace, resource and verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom<'a> {
    /// Namespace; none means cluster-wide.
    pub namespace: Option<&'a str>,
    /// Resource or path.
    pub target: Target<'a>,
    /// Verb.
    pub verb: &'a str,
}

/// The resource or path that a permission is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target<'a> {
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

impl<'a> Atom<'a> {
    /// A permission on all objects, cluster-wide.
    #[must_use]
    pub const fn new(verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self { namespace: None, target: Target::Resource { group, resource, name: None }, verb }
    }

    /// The same permission on one object; a path is one object already.
    #[must_use]
    pub const fn named(self, name: &'a str) -> Self {
        match self.target {
            Target::Resource { group, resource, .. } => {
                Self { target: Target::Resource { group, resource, name: Some(name) }, ..self }
            }
            Target::Url(_) => self,
        }
    }

    /// The same permission in one namespace, or cluster-wide.
    #[must_use]
    pub const fn within(self, namespace: Option<&'a str>) -> Self {
        Self { namespace, ..self }
    }

    /// Whether no request can ever match it: `pods/*` and `*/*` are no wildcards to the server, a deletecollection never
    /// names an object, and the verb for a path is an HTTP method.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        match self.target {
            Target::Resource { resource, name, .. } => {
                resource.ends_with("/*") || (self.verb == "deletecollection" && name.is_some())
            }
            Target::Url(_) => !["*", "get", "head", "post", "put", "patch", "delete", "options"].contains(&self.verb),
        }
    }

    /// The tuple shown to users.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        let verb = self.verb.to_owned();
        match self.target {
            Target::Resource { group, resource, name } => Tuple::Resource {
                verb,
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: name.map(str::to_owned),
                namespace: self.namespace.map(str::to_owned),
            },
            Target::Url(url) => Tuple::Url { verb, url: url.to_owned() },
        }
    }
}

/// A permission as shown in JSON documents and in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Tuple {
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

impl Tuple {
    /// The permission that this tuple shows.
    #[must_use]
    pub fn atom(&self) -> Atom<'_> {
        match self {
            Self::Resource { verb, group, resource, name, namespace } => {
                let target = Target::Resource { group, resource, name: name.as_deref() };
                Atom { namespace: namespace.as_deref(), target, verb }
            }
            Self::Url { verb, url } => Atom { namespace: None, target: Target::Url(url), verb },
        }
    }

    fn verb(&self) -> &str {
        match self {
            Self::Resource { verb, .. } | Self::Url { verb, .. } => verb,
        }
    }

    /// The tuple without its verb, as in `pods/log in namespace team-a`. The core group is left out.
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
#[must_use]
pub fn sentences(tuples: &[Tuple]) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for tuple in tuples {
        let target = tuple.target();
        let line = *known.entry(target.clone()).or_insert(lines.len());
        match lines.get_mut(line) {
            Some((_, verbs)) => verbs.push(tuple.verb()),
            None => lines.push((target, vec![tuple.verb()])),
        }
    }
    lines.into_iter().map(|(target, verbs)| format!("{} {target}", verbs.join(", "))).collect()
}
