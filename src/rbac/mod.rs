//! RBAC as data: rules, the single permissions they consist of, and the tuples that people read.
//! The algebra over them is in `coverage.rs`. Pure; no Kubernetes client, no I/O.

mod coverage;

pub use coverage::{Coverage, Permissions, difference, same_permissions};

use serde::{Deserialize, Serialize};

/// The verbs of the form: all that a request to an ordinary resource can be.
pub const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// A rule on resources, as `rules[]` of the params and of a Role hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// API groups; `""` is the core group, `*` all.
    #[serde(default)]
    pub api_groups: Vec<String>,
    /// Plural names, with a subresource after a slash; `*` all of the groups, `*/scale` one subresource of all.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Verbs; `*` all.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Names of single objects; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
}

impl Rule {
    /// The single permissions of this rule: one verb, group, resource and name each.
    pub fn atoms(&self) -> impl Iterator<Item = Atom<'_>> {
        let names = || {
            let all = self.resource_names.is_empty().then_some(None);
            all.into_iter().chain(self.resource_names.iter().map(|name| Some(name.as_str())))
        };
        self.api_groups.iter().flat_map(move |group| {
            self.resources.iter().flat_map(move |resource| {
                names().flat_map(move |name| self.verbs.iter().map(move |verb| Atom { group, resource, name, verb }))
            })
        })
    }
}

/// The single permissions of all rules, repeats included.
pub fn atoms(rules: &[Rule]) -> impl Iterator<Item = Atom<'_>> {
    rules.iter().flat_map(Rule::atoms)
}

/// One permission, wildcards unexpanded. Ordered as people read a list: group, resource, name, verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom<'a> {
    /// API group.
    pub group: &'a str,
    /// Resource, with its subresource.
    pub resource: &'a str,
    /// The one object, or all.
    pub name: Option<&'a str>,
    /// Verb.
    pub verb: &'a str,
}

impl<'a> Atom<'a> {
    /// A permission on all objects.
    #[must_use]
    pub const fn new(verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self { group, resource, name: None, verb }
    }

    /// The same on one object.
    #[must_use]
    pub const fn named(self, name: &'a str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// True when no request can ever match it: `pods/*` and `*/*` are no wildcards to the server, and a
    /// deletecollection never carries a name.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.resource.ends_with("/*") || (self.verb == "deletecollection" && self.name.is_some())
    }

    /// The tuple that is printed; `namespace` none at cluster scope.
    #[must_use]
    pub fn tuple(&self, namespace: Option<&str>) -> Tuple {
        Tuple::Resource {
            verb: self.verb.to_owned(),
            group: self.group.to_owned(),
            resource: self.resource.to_owned(),
            name: self.name.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
        }
    }
}

/// A permission as it stands in documents and in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Tuple {
    /// On a resource.
    Resource {
        /// Verb.
        verb: String,
        /// API group, `""` for the core group.
        group: String,
        /// Resource, with its subresource.
        resource: String,
        /// The one object, or all.
        name: Option<String>,
        /// Namespace; none at cluster scope.
        namespace: Option<String>,
    },
    /// On a URL path of the API server.
    Url {
        /// Verb, as in HTTP, lower case.
        verb: String,
        /// Path, with a `*` at its end for all below.
        url: String,
    },
}

impl Tuple {
    fn verb(&self) -> &str {
        match self {
            Self::Resource { verb, .. } | Self::Url { verb, .. } => verb,
        }
    }

    /// The tuple without its verb, as in `pods/log in namespace team-a`. The core group goes without saying.
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

/// Tuples as people say them, one target a line with all its verbs: `get, list pods in namespace team-a`.
#[must_use]
pub fn sentences(tuples: &[Tuple]) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for tuple in tuples {
        let target = tuple.target();
        match lines.iter_mut().find(|(known, _)| *known == target) {
            Some((_, verbs)) => verbs.push(tuple.verb()),
            None => lines.push((target, vec![tuple.verb()])),
        }
    }
    lines.into_iter().map(|(target, verbs)| format!("{} {target}", verbs.join(", "))).collect()
}
