//! Which requests a permission can match, by the resources of a server: the groups and resources that its words mean, and
//! how a verb fits them. The judgement of rules (`lint.rs`) and the lists of permissions follow from the same answers.
//! Pure.

use std::{cell::OnceCell, collections::HashMap};

use crate::rbac::{
    Coverage, Permission, PermissionTarget, Rule, RuleInScope,
    catalog::{ApiResource, Catalog, is_custom},
    risk::Level,
    suggestion::{self, KnownNames, Likeness, Suggestion, quoted},
};

/// A resource with its subresource.
pub(super) type Target<'c> = (&'c ApiResource<'c>, Option<&'c str>);

/// How a request for a resource with a verb can match, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    NoSuchVerb,
    OutOfScope,
    NeverNamed,
    NamedBySelector,
    Matches,
}

/// The best fit of these, or the first that is good enough; none if there are none.
pub(super) fn best_of<T>(list: &[T], enough: Fit, fit: impl Fn(&T) -> Fit) -> Option<Fit> {
    let mut best = None;
    for it in list {
        best = best.max(Some(fit(it)));
        if best >= Some(enough) {
            break;
        }
    }
    best
}

/// The resourceNames of a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// All objects are allowed.
    All,
    /// Only wildcards, which were meant to allow all.
    Wildcards,
    /// Single objects.
    Some,
}

impl Names {
    fn of(rule: &Rule) -> Self {
        match rule.resource_names.as_slice() {
            [] => Self::All,
            names if names.iter().all(|name| name.contains('*')) => Self::Wildcards,
            _ => Self::Some,
        }
    }
}

/// Where a rule or a permission applies, and to which objects.
pub(super) struct Reach {
    is_namespaced: bool,
    names: Names,
    /// Whether it is for the Namespace object of a namespace where it applies, perhaps among others.
    has_own_namespace: bool,
}

impl Reach {
    pub(super) fn of_rule(it: &RuleInScope<'_>) -> Self {
        let names = Names::of(it.rule);
        let own = |name: &String| it.namespaces.contains(&Some(name.as_str()));
        let has_own_namespace = names != Names::Some || it.rule.resource_names.iter().any(own);
        Self { is_namespaced: it.is_namespaced(), names, has_own_namespace }
    }

    fn of_permission(namespace: Option<&str>, name: Option<&str>) -> Self {
        let names = if name.is_some() { Names::Some } else { Names::All };
        let has_own_namespace = name.is_none() || name == namespace;
        Self { is_namespaced: namespace.is_some(), names, has_own_namespace }
    }

    /// The best fit of a verb for one of these resources.
    pub(super) fn best(&self, targets: &[Target<'_>], verb: &str, minds_scope: bool) -> Fit {
        let at_best = match self.names {
            Names::Some if ["list", "watch"].contains(&verb) => Fit::NamedBySelector,
            _ => Fit::Matches,
        };
        best_of(targets, at_best, |target| self.fit(*target, verb, minds_scope)).unwrap_or(Fit::NoSuchVerb)
    }

    /// How a request for the resource with this verb matches.
    pub(super) fn fit(&self, (resource, subresource): Target<'_>, verb: &str, minds_scope: bool) -> Fit {
        if !resource.takes(subresource, verb) {
            Fit::NoSuchVerb
        } else if minds_scope && self.is_namespaced && !self.role_reaches((resource, subresource), verb) {
            Fit::OutOfScope
        } else if self.names != Names::Some {
            Fit::Matches
        } else if subresource.is_none() && ["create", "deletecollection"].contains(&verb) {
            Fit::NeverNamed
        } else if ["list", "watch"].contains(&verb) {
            Fit::NamedBySelector
        } else {
            Fit::Matches
        }
    }

    /// How a request for a resource that is not known matches: one for a collection has no name, whatever it is of.
    pub(super) fn fit_of_any(&self, verb: &str) -> Fit {
        if self.names == Names::Some && verb == "deletecollection" { Fit::NeverNamed } else { Fit::Matches }
    }

    /// Whether a Role grants this: besides what is in its namespace, requests for the Namespace object itself, and the
    /// right to bind ClusterRoles in it.
    fn role_reaches(&self, (resource, subresource): Target<'_>, verb: &str) -> bool {
        match (resource.group, resource.name, subresource) {
            _ if resource.namespaced => true,
            ("", "namespaces", _) => {
                !["list", "watch", "create", "deletecollection"].contains(&verb) && self.has_own_namespace
            }
            ("rbac.authorization.k8s.io", "clusterroles", None) => ["bind", "*"].contains(&verb),
            _ => false,
        }
    }
}

/// Whether a name with an asterisk can be meant: that of a signer ends with one for all its names, and names of users can
/// be any.
pub(super) fn may_have_asterisk(resource: &str, name: &str) -> bool {
    match resource {
        "signers" => name.ends_with("/*"),
        "users" | "groups" | "uids" => name != "*",
        _ => resource.starts_with("userextras"),
    }
}

/// A group whose resources have moved to others.
const REMOVED_GROUP: &str = "extensions";

/// The groups of a rule.
pub(super) struct Groups<'c> {
    /// Known groups, with their index where the rule names them so.
    pub(super) at: Vec<(Option<usize>, &'c str)>,
    /// Whether one may have custom resources.
    pub(super) is_open: bool,
    /// Whether one is the wildcard.
    pub(super) is_wild: bool,
}

impl<'c> Groups<'c> {
    /// What these names refer to, and those that are not known, or not completely.
    pub(super) fn of<'n>(
        catalog: &Catalog<'c>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> (Self, Vec<UnclearGroup<'c>>) {
        let mut groups = Self { at: Vec::new(), is_open: false, is_wild: false };
        let mut unclear = Vec::new();
        for (at, name) in names.into_iter().enumerate() {
            match catalog.group(name) {
                _ if name == "*" => groups.is_wild = true,
                Some(known) if catalog.is_stale(known) => {
                    groups.is_open = true;
                    let message = format!(
                        "the API service of the group {} does not answer, so it cannot be checked",
                        quoted(name)
                    );
                    let help = "check the APIService".to_owned();
                    unclear.push(UnclearGroup { at, level: Level::Info, message, help, meant: None });
                }
                Some(known) => groups.add(Some(at), known),
                None => {
                    let found = unknown_group(catalog, at, name);
                    groups.is_open |= found.meant.is_none() && name != REMOVED_GROUP;
                    if let Some(meant) = found.meant {
                        groups.add(None, meant);
                    }
                    unclear.push(found);
                }
            }
        }
        if groups.is_wild {
            groups.at = catalog.groups().map(|name| (None, name)).collect();
        }
        (groups, unclear)
    }

    fn add(&mut self, at: Option<usize>, name: &'c str) {
        if self.names().all(|known| known != name) {
            self.at.push((at, name));
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'c str> {
        self.at.iter().map(|(_, name)| *name)
    }
}

/// A group of a rule that the server does not serve, or not completely.
pub(super) struct UnclearGroup<'c> {
    /// Its index.
    pub(super) at: usize,
    /// High if no request can match it.
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) help: String,
    /// The known group that it probably means.
    meant: Option<&'c str>,
}

/// An unknown group.
fn unknown_group<'c>(catalog: &Catalog<'c>, at: usize, name: &str) -> UnclearGroup<'c> {
    let unquoted = name.trim().trim_matches(['"', '\'']).trim().to_ascii_lowercase();
    let known = |plain: &&str| catalog.group(plain).is_some();
    let plain =
        suggestion::without_version(&unquoted).or_else(|| suggestion::without_version_label(&unquoted).filter(known));
    let (plain, has_version) = (plain.unwrap_or(&unquoted), plain.is_some());
    let plain = plain.trim_matches('/');
    let core = ["", "core", "api", "legacy", "core.k8s.io"];
    let meant = if core.contains(&plain) { catalog.group("") } else { catalog.group(plain) };
    let meant = meant.or_else(|| suggestion::group(catalog, plain));
    let help = |right: &str| format!("use {}", quoted(right));
    let (level, message, help) = if has_version {
        let message = format!("the group {} contains a version, which matches no group", quoted(name));
        (Level::High, message, help(meant.unwrap_or(plain)))
    } else if meant == Some("") {
        (Level::High, format!("the core group is written `\"\"`, not {}", quoted(name)), help(""))
    } else if unquoted != name {
        let message = format!("the group {} contains blanks, quotes or capital letters", quoted(name));
        (Level::High, message, help(meant.unwrap_or(plain)))
    } else if let Some(meant) = meant {
        (Level::High, format!("there is no API group {}", quoted(name)), help(meant))
    } else if name == REMOVED_GROUP {
        let help = "use `apps` for workloads, `networking.k8s.io` for ingresses and networkpolicies";
        (Level::Low, "the group `extensions` is no longer served".to_owned(), help.to_owned())
    } else if !is_custom(name) {
        let help = "other releases of Kubernetes serve it, or it has to be enabled on the API server";
        (Level::Low, format!("this server does not serve the group {}", quoted(name)), help.to_owned())
    } else if name.contains('.') {
        let message = format!("the group {} is not known, so its resources cannot be checked", quoted(name));
        let help = "nothing to do if its custom resources are, or will be, installed in the cluster";
        (Level::Info, message, help.to_owned())
    } else {
        let message = format!("there is no API group {} in Kubernetes", quoted(name));
        let help = "look it up with `kubectl api-resources`: a group of custom resources contains a dot";
        (Level::Low, message, help.to_owned())
    };
    UnclearGroup { at, level, message, help, meant }
}

/// A resource that no group of a rule serves.
pub(super) struct Unserved<'c> {
    /// High if no request can match it, info if it may be a custom resource that is installed later.
    pub(super) level: Level,
    /// The resources that it probably means.
    pub(super) meant: Option<Suggestion<'c>>,
}

/// What a word means that is no resource of these groups; none if nothing can be said, because it may be a custom resource.
pub(super) fn unserved<'c>(
    catalog: &'c Catalog<'c>,
    known_names: &OnceCell<KnownNames<'c>>,
    groups: &Groups<'c>,
    word: &str,
) -> Option<Unserved<'c>> {
    if word == "*" {
        return None;
    }
    let names: Vec<&str> = if groups.is_wild { Vec::new() } else { groups.names().collect() };
    let meant = known_names.get_or_init(|| KnownNames::of(catalog)).resource(&names, word);
    let likeness = meant.as_ref().map(|meant| meant.likeness);
    let level = match likeness {
        _ if !groups.is_wild && !names.iter().any(|group| is_custom(group)) => Level::High,
        _ if !groups.is_wild => level_in_custom_groups(catalog, &names, word, meant.as_ref()),
        Some(Likeness::Same) => Level::High,
        // It may be a custom resource.
        Some(Likeness::Short) if !word.ends_with('s') || word == "logs" => Level::Low,
        Some(Likeness::Edits(1)) if word.len() > 6 => Level::Low,
        _ => return None,
    };
    Some(Unserved { level, meant })
}

/// High for another word for a resource of these groups, and for a subresource that a resource of theirs lacks. All else
/// may be installed later.
fn level_in_custom_groups(catalog: &Catalog<'_>, groups: &[&str], word: &str, meant: Option<&Suggestion<'_>>) -> Level {
    let is_of_groups = |meant: &Suggestion<'_>| meant.targets.iter().any(|(it, _)| groups.contains(&it.group));
    let is_close = |meant: &Suggestion<'_>| meant.likeness <= Likeness::Edits(1);
    let has_resource = |name: &str| groups.iter().any(|group| catalog.resource(group, name).is_some());
    let is_misnamed = meant.is_some_and(|meant| is_of_groups(meant) && is_close(meant));
    if is_misnamed || word.split_once('/').is_some_and(|(name, _)| has_resource(name)) {
        Level::High
    } else {
        Level::Info
    }
}

/// What a resource of a rule matches in known groups.
pub(super) fn targets<'c>(catalog: &'c Catalog<'c>, groups: &Groups<'c>, word: &str) -> Vec<Target<'c>> {
    let (name, subresource) = match word.split_once('/') {
        Some((name, subresource)) => (name, Some(subresource)),
        None => (word, None),
    };
    let mut found = Vec::new();
    for group in groups.names() {
        if name == "*" {
            for resource in catalog.in_group(group) {
                found.extend(target(resource, subresource));
                if subresource.is_none() {
                    found.extend(resource.subresources.keys().map(|name| (resource, Some(*name))));
                }
            }
        } else if let Some(resource) = catalog.resource(group, name) {
            found.extend(target(resource, subresource));
        }
    }
    found
}

/// The resource with this subresource, if it has it.
fn target<'c>(resource: &'c ApiResource<'c>, subresource: Option<&str>) -> Option<Target<'c>> {
    match subresource {
        None => Some((resource, None)),
        Some(name) => resource.subresource(name).map(|name| (resource, Some(name))),
    }
}

/// The permissions that a request can match, as far as the catalogue knows. What may be a custom resource counts, and what
/// is granted nowhere else too: create with a name, which server-side apply uses together with patch.
pub(crate) fn matchable<'a>(permissions: &[Permission<'a>], catalog: &Catalog<'_>) -> Vec<Permission<'a>> {
    let mut meanings: HashMap<(&str, &str), Meaning<'_>> = HashMap::new();
    let (known_names, held) = (OnceCell::new(), OnceCell::new());
    let may_patch = |permission: &Permission<'a>| {
        let held: &Coverage<'a> = held.get_or_init(|| permissions.iter().copied().collect());
        permission.verb == "create" && held.covers(Permission { verb: "patch", ..*permission })
    };
    let mut can_match = |permission: &Permission<'a>| {
        let PermissionTarget::Resource { group, resource, name } = permission.target else { return true };
        if name.is_some_and(|name| name.contains('*') && !may_have_asterisk(resource, name)) {
            return false;
        }
        match meanings.entry((group, resource)).or_insert_with(|| Meaning::of(catalog, &known_names, group, resource)) {
            Meaning::Nothing => false,
            Meaning::Perhaps => true,
            Meaning::These(targets) => {
                match Reach::of_permission(permission.namespace, name).best(targets, permission.verb, true) {
                    Fit::NoSuchVerb | Fit::OutOfScope => false,
                    Fit::NeverNamed => may_patch(permission),
                    Fit::NamedBySelector | Fit::Matches => true,
                }
            }
        }
    };
    permissions.iter().copied().filter(|it| !it.matches_nothing() && can_match(it)).collect()
}

/// What a group and a resource mean to a server.
enum Meaning<'c> {
    /// No request can be about them.
    Nothing,
    /// Custom resources that are not known.
    Perhaps,
    /// These resources.
    These(Vec<Target<'c>>),
}

impl<'c> Meaning<'c> {
    fn of(catalog: &'c Catalog<'c>, known_names: &OnceCell<KnownNames<'c>>, group: &str, resource: &str) -> Self {
        let (groups, unclear) = Groups::of(catalog, [group]);
        if group == REMOVED_GROUP && !unclear.is_empty() || unclear.iter().any(|it| it.level == Level::High) {
            return Self::Nothing;
        }
        if groups.is_open {
            return Self::Perhaps;
        }
        match targets(catalog, &groups, resource) {
            none if none.is_empty() => match unserved(catalog, known_names, &groups, resource) {
                Some(Unserved { level: Level::High, .. }) => Self::Nothing,
                _ => Self::Perhaps,
            },
            some => Self::These(some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::{permissions_of, summarize};
    use serde_json::{Value, json};

    /// A server with the groups `apps` and `example.com`: Widgets in namespaces, Engines at cluster scope.
    fn discovery() -> String {
        let resource = |name: &str, kind: &str, scope: &str| {
            json!({"resource": name, "singularResource": kind.to_lowercase(), "responseKind": {"kind": kind}, "scope": scope,
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
                "subresources": [{"subresource": "status", "verbs": ["get", "patch", "update"]}]})
        };
        let group = |name: &str, resources: &[Value]| json!({"metadata": {"name": name}, "versions": [{"version": "v1", "resources": resources}]});
        let items = [
            group("apps", &[resource("deployments", "Deployment", "Namespaced")]),
            group(
                "example.com",
                &[resource("widgets", "Widget", "Namespaced"), resource("engines", "Engine", "Cluster")],
            ),
            json!({"metadata": {"name": "down.io"}, "versions": [{"version": "v1", "freshness": "Stale"}]}),
        ];
        json!({"kind": "APIGroupDiscoveryList", "items": items}).to_string()
    }

    /// Scope, rule, and the permissions of it that a request can match.
    #[rstest::rstest]
    #[case::sound("a", "apps|deployments|get,list", &["get, list deployments of apps in namespace a"])]
    #[case::unknown_resource("a", "apps|deployment,deployments|get", &["get deployments of apps in namespace a"])]
    #[case::each_group_has_its_own("a", "-,apps|pods,deployments|get",
        &["get pods in namespace a", "get deployments of apps in namespace a"])]
    #[case::unknown_verb("a", "-|pods/log|get,list,watch", &["get pods/log in namespace a"])]
    #[case::cluster_scoped("a", "-|nodes,pods|get", &["get pods in namespace a"])]
    #[case::cluster_scoped_everywhere("*", "-|nodes|get", &["get nodes at cluster scope"])]
    #[case::own_namespace("a", "-|namespaces|get,list", &["get namespaces in namespace a"])]
    #[case::own_namespace_by_name("a", "-|namespaces|get|a,b", &["get namespaces \"a\" in namespace a"])]
    #[case::create_with_name("a", "-|configmaps|get,create|x", &["get configmaps \"x\" in namespace a"])]
    #[case::create_to_apply("a", "-|configmaps|create,patch|x", &["create, patch configmaps \"x\" in namespace a"])]
    #[case::deletecollection_with_name("a", "-|configmaps|deletecollection|x", &[])]
    #[case::list_with_name("a", "-|configmaps|list|x", &["list configmaps \"x\" in namespace a"])]
    #[case::asterisk_in_name("a", "-|configmaps|get|app-*,x", &["get configmaps \"x\" in namespace a"])]
    #[case::names_of_signer("*", "certificates.k8s.io|signers|approve|x.io/*", &["approve signers of certificates.k8s.io \"x.io/*\" at cluster scope"])]
    #[case::subresource_wildcard("a", "-|pods/*|get", &[])]
    #[case::group_with_version("a", "apps/v1|deployments|get", &[])]
    #[case::group_in_capitals("a", "Apps|deployments|get", &[])]
    #[case::group_that_was_removed("a", "extensions|ingresses|get", &[])]
    #[case::group_that_is_not_there("a", "later.io|things|get", &["get things of later.io in namespace a"])]
    #[case::group_that_does_not_answer("a", "down.io|things|fly", &["fly things of down.io in namespace a"])]
    #[case::custom_resource("a", "example.com|widgets,widgets/status|get", &["get widgets of example.com in namespace a", "get widgets/status of example.com in namespace a"])]
    #[case::custom_resource_at_cluster_scope("a", "example.com|engines|get", &[])]
    #[case::custom_resource_that_is_misspelt("a", "example.com|widget,wigdets,Widget|get", &[])]
    #[case::custom_resource_that_is_not_there("a", "example.com|gadgets|get", &["get gadgets of example.com in namespace a"])]
    #[case::subresource_that_is_not_there("a", "example.com|widgets/scale|get", &[])]
    #[case::all_of_a_group("a", "apps|*|*", &["* * of apps in namespace a"])]
    #[case::all("a", "*|*|get", &["get * of every group in namespace a"])]
    #[case::all_groups("a", "*|deployments,deployment,gadgets|get", &["get deployments of every group in namespace a", "get gadgets of every group in namespace a"])]
    fn only_what_a_request_matches_is_kept(#[case] scope: &str, #[case] rule: &str, #[case] expected: &[&str]) {
        let text = discovery();
        let catalog = Catalog::of_server(text.as_bytes()).unwrap();
        let parts: Vec<Vec<String>> = rule
            .split('|')
            .map(|part| part.split(',').map(|word| if word == "-" { String::new() } else { word.to_owned() }).collect())
            .collect();
        let [api_groups, resources, verbs, names @ ..] = &parts[..] else { panic!("{rule}") };
        let rule = Rule {
            api_groups: api_groups.clone(),
            resources: resources.clone(),
            verbs: verbs.clone(),
            resource_names: names.first().cloned().unwrap_or_default(),
            ..Rule::default()
        };
        let rules = [rule];
        let permissions: Vec<_> = permissions_of(&rules, (scope != "*").then_some(scope)).collect();
        let kept: Vec<_> = matchable(&permissions, &catalog).iter().map(Permission::record).collect();
        assert_eq!(summarize(&kept), expected);
    }

    #[rstest::rstest]
    #[case::resource("apps", "statefulsets", "unknown-resource high")]
    #[case::subresource("apps", "deployments/scale", "unknown-resource high")]
    #[case::group("policy", "poddisruptionbudgets", "unknown-group low")]
    fn resource_of_another_release_is_named_as_such(
        #[case] group: &str,
        #[case] resource: &str,
        #[case] expected: &str,
    ) {
        let text = discovery();
        let catalog = Catalog::of_server(text.as_bytes()).unwrap();
        let words = |word: &str| vec![word.to_owned()];
        let rule =
            Rule { api_groups: words(group), resources: words(resource), verbs: words("get"), ..Rule::default() };
        let it = RuleInScope { pointer: "", rule: &rule, namespaces: vec![Some("a")] };
        let found = crate::rbac::dead_rules(&[it], &[], &catalog);
        let [found] = &found[..] else { panic!("{found:#?}") };
        let code = if found.code == crate::rbac::DeadCode::UnknownGroup { "unknown-group" } else { "unknown-resource" };
        assert_eq!(format!("{code} {:?}", found.level).to_lowercase(), expected);
        assert!(found.help.contains("other releases of Kubernetes serve it"), "{}", found.help);
    }

    /// The findings and the lists of permissions say the same: a rule of one permission is dead or it is kept.
    #[test]
    fn dead_rule_is_no_permission() {
        let text = discovery();
        let catalog = Catalog::of_server(text.as_bytes()).unwrap();
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let groups = ["", "apps", "apps/v1", "example.com", "later.io", "down.io", "*", "networking"];
        let resources = [
            "pods",
            "pods/log",
            "pods/*",
            "nodes",
            "namespaces",
            "deployment",
            "deployments",
            "widgets",
            "widget",
            "*",
        ];
        let verbs = ["get", "list", "create", "deletecollection", "escalate", "*"];
        let pairs: Vec<_> = groups.iter().flat_map(|group| resources.iter().map(move |it| (group, it))).collect();
        for ((group, resource), verb) in pairs.iter().flat_map(|pair| verbs.iter().map(move |verb| (*pair, verb))) {
            for (namespace, name) in [(None, None), (Some("a"), None), (Some("a"), Some("a")), (None, Some("x*"))] {
                let rule = Rule {
                    api_groups: words(&[group]),
                    resources: words(&[resource]),
                    verbs: words(&[verb]),
                    resource_names: name.map(|name| words(&[name])).unwrap_or_default(),
                    ..Rule::default()
                };
                let it = RuleInScope { pointer: "", rule: &rule, namespaces: vec![namespace] };
                let found = crate::rbac::dead_rules(&[it], &[], &catalog);
                let is_dead = found.iter().any(|it| it.level == Level::High);
                let kept = matchable(&rule.permissions(namespace).collect::<Vec<_>>(), &catalog);
                assert_eq!(kept.is_empty(), is_dead, "{rule:?} in {namespace:?}: {found:#?}");
            }
        }
    }
}
