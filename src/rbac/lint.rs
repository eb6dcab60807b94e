//! Dead rules: elements of rules that match no request, because of a wrong name, a wrong scope, or names where a request
//! has none; and rules that another one covers. Pure.
//!
//! An element is dead if every combination of group, resource and verb that contains it is: a verb that one of several
//! resources has is sound. What may be a custom resource is never called wrong.

use crate::rbac::{
    Rule,
    catalog::{ApiResource, Catalog},
    suggestion::{self, Likeness, full_name, listed, quoted},
};

/// HTTP methods, which are the verbs of a path.
const METHODS: [&str; 8] = ["*", "get", "head", "post", "put", "patch", "delete", "options"];

/// The most resources of a group, or subresources of a resource, that a help lists.
const LISTED: usize = 12;

/// A rule to judge.
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
    fn is_namespaced(&self) -> bool {
        !self.namespaces.is_empty() && self.namespaces.iter().all(Option::is_some)
    }
}

/// Why an element is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DeadCode {
    /// There is no such API group.
    UnknownGroup,
    /// The group has no such resource.
    UnknownResource,
    /// The resource has no such verb.
    UnknownVerb,
    /// The resource is in no namespace, and the rule is for namespaces.
    ClusterScopedResource,
    /// A create or deletecollection request has no name.
    NamesWithCreate,
    /// A list or watch request has a name only with a field selector.
    NamesWithList,
    /// A wildcard among names is a literal name.
    NamesWildcard,
    /// There is no wildcard for subresources.
    SubresourceWildcard,
    /// Another rule covers it.
    RedundantRule,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// It cannot be judged.
    Info,
    /// It is harmless, or may be right.
    Low,
    /// It works for some clients.
    Medium,
    /// It matches nothing.
    High,
}

/// A dead element of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadRule {
    /// Index of the rule.
    pub(crate) rule: usize,
    /// JSON pointer to the element, relative to the rule; empty for the whole rule.
    pub(crate) element: String,
    /// Why it is dead.
    pub(crate) code: DeadCode,
    /// How much that matters.
    pub(crate) weight: Weight,
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: String,
}

/// The dead elements of these rules, rule by rule.
pub(crate) fn dead_rules(rules: &[RuleInScope<'_>], catalog: &Catalog<'_>) -> Vec<DeadRule> {
    let shapes: Vec<Shape> = rules.iter().map(|it| Shape::of(it.rule)).collect();
    let mut dead = Vec::new();
    for (index, it) in rules.iter().enumerate() {
        let mut judge = Judge { rules, index, it, catalog, names: Names::of(it.rule), dead: &mut dead };
        judge.elements();
        if let Some(wider) = covering(rules, &shapes, index) {
            let message = format!("{wider} already allows all of it");
            judge.report("", DeadCode::RedundantRule, Weight::Low, message, "remove this rule");
        }
    }
    dead
}

/// A resource with its subresource.
type Target<'c> = (&'c ApiResource<'c>, Option<&'c str>);

/// What a resource of a rule refers to.
enum Referent<'c> {
    /// These resources.
    Known(Vec<Target<'c>>),
    /// Perhaps a custom resource.
    Open,
    /// A dead one, which was reported; the resources that it probably means, whatever their scope.
    Dead(Vec<Target<'c>>),
}

/// How a request for a resource with a verb can match the rule, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    NoSuchVerb,
    OutOfScope,
    NeverNamed,
    NamedBySelector,
    Matches,
}

impl Fit {
    /// The code of an element that fits no better than this.
    const fn dead_code(self) -> Option<DeadCode> {
        match self {
            Self::NoSuchVerb => Some(DeadCode::UnknownVerb),
            Self::OutOfScope => Some(DeadCode::ClusterScopedResource),
            Self::NeverNamed => Some(DeadCode::NamesWithCreate),
            Self::NamedBySelector | Self::Matches => None,
        }
    }
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

struct Judge<'a, 'c> {
    rules: &'a [RuleInScope<'a>],
    index: usize,
    it: &'a RuleInScope<'a>,
    catalog: &'c Catalog<'c>,
    names: Names,
    dead: &'a mut Vec<DeadRule>,
}

impl<'c> Judge<'_, 'c> {
    fn report(&mut self, element: &str, code: DeadCode, weight: Weight, message: String, help: impl Into<String>) {
        let element = element.to_owned();
        self.dead.push(DeadRule { rule: self.index, element, code, weight, message, help: help.into() });
    }

    fn elements(&mut self) {
        let rule = self.it.rule;
        if rule.resources.is_empty() {
            return self.paths();
        }
        let groups = self.groups();
        let mut referents = Vec::with_capacity(rule.resources.len());
        for (at, word) in rule.resources.iter().enumerate() {
            referents.push(self.resource(at, word, &groups));
        }
        self.idle_groups(&groups, &referents);
        let dead = self.verbs(&referents);
        self.resources_without_verbs(&referents, &dead);
        self.wildcard_names();
    }

    /// Rules for paths: the verbs are HTTP methods.
    fn paths(&mut self) {
        if self.it.rule.non_resource_urls.is_empty() {
            return;
        }
        for (at, verb) in self.it.rule.verbs.iter().enumerate() {
            if !METHODS.contains(&verb.as_str()) {
                let message = format!("{} is no HTTP method, so it matches no path", quoted(verb));
                let help = "use get, patch or delete for nonResourceURLs";
                self.report(&format!("/verbs/{at}"), DeadCode::UnknownVerb, Weight::High, message, help);
            }
        }
    }

    // Groups.

    fn groups(&mut self) -> Groups<'c> {
        let catalog = self.catalog;
        let rule = self.it.rule;
        let mut groups = Groups { at: Vec::new(), is_open: false, is_wild: false };
        for (at, name) in rule.api_groups.iter().enumerate() {
            let element = format!("/apiGroups/{at}");
            if name == "*" {
                groups.is_wild = true;
            } else if let Some(known) = catalog.group(name) {
                if catalog.is_stale(known) {
                    groups.is_open = true;
                    let message =
                        format!("the API service of the group {} does not answer, so it cannot be checked", quoted(name));
                    self.report(&element, DeadCode::UnknownGroup, Weight::Info, message, "check the APIService");
                } else {
                    groups.at.push((Some(at), known));
                }
            } else {
                let meant = self.unknown_group(&element, name);
                groups.is_open |= meant.is_none() && name != REMOVED_GROUP;
                groups.at.extend(meant.map(|meant| (None, meant)));
            }
        }
        if groups.is_wild {
            groups.at = catalog.groups().map(|name| (None, name)).collect();
        }
        groups
    }

    /// Reports an unknown group; returns the known one that it means.
    fn unknown_group(&mut self, element: &str, name: &str) -> Option<&'c str> {
        let catalog = self.catalog;
        let mut report = |weight, message: String, help: String| {
            self.report(element, DeadCode::UnknownGroup, weight, message, help);
        };
        let unquoted = name.trim().trim_matches(['"', '\'']).trim().to_ascii_lowercase();
        let (plain, has_version) = match suggestion::without_version(&unquoted) {
            Some(plain) => (plain, true),
            None => (unquoted.as_str(), false),
        };
        let plain = plain.trim_matches('/');
        let core = ["", "core", "api", "legacy", "core.k8s.io"];
        let meant = if core.contains(&plain) { catalog.group("") } else { catalog.group(plain) };
        let meant = meant.or_else(|| suggestion::group(catalog, plain));
        let help = |right: &str| format!("use {}", quoted(right));
        if has_version {
            let message = format!("the group {} contains a version, which matches no group", quoted(name));
            report(Weight::High, message, help(meant.unwrap_or(plain)));
        } else if meant == Some("") {
            report(Weight::High, format!("the core group is written `\"\"`, not {}", quoted(name)), help(""));
        } else if unquoted != name {
            let message = format!("the group {} contains blanks, quotes or capital letters", quoted(name));
            report(Weight::High, message, help(meant.unwrap_or(plain)));
        } else if let Some(meant) = meant {
            report(Weight::High, format!("there is no API group {}", quoted(name)), help(meant));
        } else if name == REMOVED_GROUP {
            let help = "use `apps` for workloads, `networking.k8s.io` for ingresses and networkpolicies";
            report(Weight::Low, "the group `extensions` is no longer served".to_owned(), help.to_owned());
        } else if name.contains('.') {
            let message = format!("the group {} is not known, so its resources cannot be checked", quoted(name));
            let help = "nothing to do if its custom resources are, or will be, installed in the cluster";
            report(Weight::Info, message, help.to_owned());
        } else {
            let message = format!("there is no API group {} in Kubernetes", quoted(name));
            let help = "look it up with `kubectl api-resources`: a group of custom resources contains a dot";
            report(Weight::Low, message, help.to_owned());
        }
        meant
    }

    /// Reports groups without any of the resources, unless one of those is misspelt.
    fn idle_groups(&mut self, groups: &Groups<'c>, referents: &[Referent<'c>]) {
        let mut targets = Vec::new();
        for referent in referents {
            match referent {
                Referent::Known(known) => targets.extend(known),
                Referent::Open => {}
                Referent::Dead(_) => return,
            }
        }
        for (at, name) in &groups.at {
            let Some(at) = at else { continue };
            let is_wild = || self.it.rule.resources.iter().any(|resource| resource == "*");
            if targets.iter().all(|(resource, _)| resource.group != *name) && !is_wild() {
                let message = format!("the group {} has none of the rule's resources", quoted(name));
                let help = "remove the group, or add the resource of it that is missing";
                self.report(&format!("/apiGroups/{at}"), DeadCode::UnknownResource, Weight::High, message, help);
            }
        }
    }

    // Resources.

    fn resource(&mut self, at: usize, word: &str, groups: &Groups<'c>) -> Referent<'c> {
        let element = format!("/resources/{at}");
        if let Some(name) = word.strip_suffix("/*") {
            self.subresource_wildcard(&element, word, name, groups);
            return Referent::Dead(Vec::new());
        }
        if groups.is_open || groups.at.is_empty() {
            return Referent::Open;
        }
        let known = targets(self.catalog, groups, word);
        if known.is_empty() {
            return self.unknown_resource(&element, word, groups);
        }
        if !self.it.is_namespaced() {
            return Referent::Known(known);
        }
        let fits = |verb: &String| self.best(&known, verb, true);
        let best = self.it.rule.verbs.iter().map(fits).max();
        if best != Some(Fit::OutOfScope) {
            return Referent::Known(known);
        }
        let message = match word {
            "*" => "the resources of the group are in no namespace, so a rule for namespaces matches none".to_owned(),
            _ => format!("{} is in no namespace, so a rule for namespaces never matches it", quoted(word)),
        };
        self.report(&element, DeadCode::ClusterScopedResource, Weight::High, message, CLUSTER_WIDE);
        Referent::Dead(known)
    }

    fn subresource_wildcard(&mut self, element: &str, word: &str, name: &str, groups: &Groups<'c>) {
        let known = groups.at.iter().find_map(|(_, group)| self.catalog.resource(group, name));
        let subresources = known.map(|it| it.subresources.keys().map(|sub| full_name(name, Some(sub))));
        let help = match subresources {
            Some(names) if names.len() > 0 => {
                let names: Vec<String> = names.take(LISTED).collect();
                format!("list those that are needed: {}", listed(names.iter().map(String::as_str)))
            }
            _ if name == "*" => "use `*` for all resources with their subresources".to_owned(),
            _ => "list the subresources that are needed".to_owned(),
        };
        let message = format!("{} matches nothing: there is no wildcard after the slash", quoted(word));
        self.report(element, DeadCode::SubresourceWildcard, Weight::High, message, help);
    }

    fn unknown_resource(&mut self, element: &str, word: &str, groups: &Groups<'c>) -> Referent<'c> {
        if word == "*" {
            return Referent::Open;
        }
        let catalog = self.catalog;
        let names: Vec<&str> = if groups.is_wild { Vec::new() } else { groups.names().collect() };
        let meant = suggestion::resource(catalog, &names, word);
        let likeness = meant.as_ref().map(|meant| meant.likeness);
        let weight = match (groups.is_wild, likeness) {
            (false, _) | (true, Some(Likeness::Same)) => Weight::High,
            // It may be a custom resource.
            (true, Some(Likeness::Short)) if !word.ends_with('s') || word == "logs" => Weight::Low,
            (true, Some(Likeness::Edits(1))) if word.len() > 6 => Weight::Low,
            (true, _) => return Referent::Open,
        };
        let message = match names.as_slice() {
            [] => format!("there is no resource {}", quoted(word)),
            [group] => format!("the group {} has no resource {}", quoted(group), quoted(word)),
            groups => format!("none of the groups {} has a resource {}", listed(groups.iter().copied()), quoted(word)),
        };
        let help = match &meant {
            Some(meant) => meant.help(if groups.is_wild { None } else { Some(&names) }),
            None => self.help_without_suggestion(word, &names),
        };
        self.report(element, DeadCode::UnknownResource, weight, message, help);
        Referent::Dead(meant.map(|meant| meant.targets).unwrap_or_default())
    }

    fn help_without_suggestion(&self, word: &str, groups: &[&str]) -> String {
        if let Some((name, _)) = word.split_once('/')
            && let Some(resource) = groups.iter().find_map(|group| self.catalog.resource(group, name))
        {
            let names: Vec<String> =
                resource.subresources.keys().take(LISTED).map(|sub| full_name(name, Some(sub))).collect();
            return match names.as_slice() {
                [] => format!("use {}, which has no subresource", quoted(name)),
                names => format!("use one of {}", listed(names.iter().map(String::as_str))),
            };
        }
        if let Some((name, group)) = word.split_once('.')
            && group.contains('.')
        {
            return format!("use {} with the group {}", quoted(name), quoted(group));
        }
        let resources: Vec<&str> = match groups {
            [group] => self.catalog.in_group(group).filter(|it| !it.kind.is_empty()).map(|it| it.name).collect(),
            _ => Vec::new(),
        };
        match resources.len() {
            1..=LISTED => format!("use one of {}", listed(resources)),
            _ => "look it up with `kubectl api-resources`".to_owned(),
        }
    }

    // Verbs.

    /// The best fit of a verb for one of these resources.
    fn best(&self, targets: &[Target<'c>], verb: &str, minds_scope: bool) -> Fit {
        let mut best = Fit::NoSuchVerb;
        for target in targets {
            best = best.max(self.fit(*target, verb, minds_scope));
            if best == Fit::Matches {
                break;
            }
        }
        best
    }

    fn fit(&self, (resource, subresource): Target<'c>, verb: &str, minds_scope: bool) -> Fit {
        if !resource.takes(subresource, verb) {
            Fit::NoSuchVerb
        } else if minds_scope && self.it.is_namespaced() && !self.role_reaches((resource, subresource), verb) {
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

    /// Whether a Role grants this: besides what is in its namespace, requests for the Namespace object itself, and the
    /// right to bind ClusterRoles in it.
    fn role_reaches(&self, (resource, subresource): Target<'_>, verb: &str) -> bool {
        match (resource.group, resource.name, subresource) {
            _ if resource.namespaced => true,
            ("", "namespaces", _) => {
                let own = |name: &String| self.it.namespaces.contains(&Some(name.as_str()));
                let names = &self.it.rule.resource_names;
                !["list", "watch", "create", "deletecollection"].contains(&verb)
                    && (self.names != Names::Some || names.iter().any(own))
            }
            ("rbac.authorization.k8s.io", "clusterroles", None) => ["bind", "*"].contains(&verb),
            _ => false,
        }
    }

    /// Reports verbs that fit none of the resources; returns for each verb whether it does not.
    fn verbs(&mut self, referents: &[Referent<'c>]) -> Vec<bool> {
        let rule = self.it.rule;
        let mut dead = Vec::with_capacity(rule.verbs.len());
        for (at, verb) in rule.verbs.iter().enumerate() {
            let fits = referents.iter().map(|referent| match referent {
                Referent::Open => Fit::Matches,
                Referent::Dead(meant) if meant.is_empty() => Fit::Matches,
                Referent::Dead(meant) => self.best(meant, verb, false),
                Referent::Known(known) => self.best(known, verb, true),
            });
            let best = fits.max().unwrap_or(Fit::Matches);
            let element = format!("/verbs/{at}");
            dead.push(best.dead_code().is_some());
            match best {
                Fit::NoSuchVerb => self.unknown_verb(&element, verb, referents),
                Fit::OutOfScope => {
                    let message = format!(
                        "{} on {} never matches in a rule for namespaces",
                        quoted(verb),
                        listed(rule.resources.iter().map(String::as_str))
                    );
                    self.report(&element, DeadCode::ClusterScopedResource, Weight::High, message, CLUSTER_WIDE);
                }
                Fit::NeverNamed => self.names_with_create(&element, verb, referents),
                Fit::NamedBySelector => {
                    let message =
                        format!("{} with resourceNames works only for clients that select a single name", quoted(verb));
                    let help = "clients need the field selector metadata.name=NAME; for all others put the verb into a \
                                rule without resourceNames";
                    self.report(&element, DeadCode::NamesWithList, Weight::Low, message, help);
                }
                Fit::Matches => {}
            }
        }
        dead
    }

    fn unknown_verb(&mut self, element: &str, verb: &str, referents: &[Referent<'c>]) {
        let rule = self.it.rule;
        let taken = verbs_of(referents.iter().flat_map(Referent::targets));
        let similar = suggestion::verbs(verb);
        let similar: Vec<&str> = similar.into_iter().filter(|verb| taken.contains(verb)).collect();
        let message = match rule.resources.as_slice() {
            [resource] => format!("{} has no verb {}", quoted(resource), quoted(verb)),
            _ => format!("none of the resources has a verb {}", quoted(verb)),
        };
        let help = match (taken.contains(&verb), similar.is_empty()) {
            (false, false) if !super::VERBS.contains(&verb) => format!("use {}", listed(similar)),
            _ => format!("use {}", listed(taken)),
        };
        self.report(element, DeadCode::UnknownVerb, Weight::High, message, help);
    }

    fn names_with_create(&mut self, element: &str, verb: &str, referents: &[Referent<'c>]) {
        let applies = verb == "create"
            && referents.iter().flat_map(Referent::targets).any(|target| {
                self.fit(*target, verb, false) == Fit::NeverNamed && self.may_patch_all_names(target.0)
            });
        let verb = quoted(verb);
        if applies {
            let message = format!("{verb} with resourceNames works only for server-side apply, together with `patch`");
            let help = "clients that create objects otherwise need the verb in a rule without resourceNames";
            self.report(element, DeadCode::NamesWithCreate, Weight::Medium, message, help);
        } else {
            let message = format!("{verb} with resourceNames never matches, because the request contains no name");
            let help = "put the verb into a rule without resourceNames";
            self.report(element, DeadCode::NamesWithCreate, Weight::High, message, help);
        }
    }

    /// Whether the rules allow to patch all objects that this one names, wherever it applies.
    fn may_patch_all_names(&self, resource: &ApiResource<'_>) -> bool {
        self.it.namespaces.iter().all(|namespace| {
            self.it.rule.resource_names.iter().all(|name| {
                let allows = |other: &RuleInScope<'_>| {
                    let rule = other.rule;
                    covers_scope(&other.namespaces, *namespace)
                        && covers_word(&rule.verbs, "patch")
                        && covers_word(&rule.api_groups, resource.group)
                        && covers_word(&rule.resources, resource.name)
                        && (rule.resource_names.is_empty() || rule.resource_names.contains(name))
                };
                allows(self.it) || self.rules.iter().any(allows)
            })
        })
    }

    /// Reports resources that have none of the verbs which another resource has.
    fn resources_without_verbs(&mut self, referents: &[Referent<'c>], dead: &[bool]) {
        let rule = self.it.rule;
        let living: Vec<&String> =
            rule.verbs.iter().zip(dead).filter(|(_, dead)| !**dead).map(|(verb, _)| verb).collect();
        for ((at, word), referent) in rule.resources.iter().enumerate().zip(referents) {
            let Referent::Known(known) = referent else { continue };
            let Some(best) = living.iter().map(|verb| self.best(known, verb, true)).max() else { return };
            let element = format!("/resources/{at}");
            let Some(code) = best.dead_code() else { continue };
            let (message, help) = match code {
                DeadCode::NamesWithCreate => (
                    format!("none of the verbs matches {} with resourceNames", quoted(word)),
                    "put the resource into a rule without resourceNames".to_owned(),
                ),
                DeadCode::ClusterScopedResource => (
                    format!("none of the verbs matches {} in a rule for namespaces", quoted(word)),
                    CLUSTER_WIDE.to_owned(),
                ),
                _ => {
                    let verbs = listed(verbs_of(known));
                    (format!("{} has none of the rule's verbs", quoted(word)), format!("use {verbs}"))
                }
            };
            self.report(&element, code, Weight::High, message, help);
        }
    }

    // Names.

    fn wildcard_names(&mut self) {
        let rule = self.it.rule;
        for (at, name) in rule.resource_names.iter().enumerate().filter(|(_, name)| name.contains('*')) {
            let may_be_meant = |resource: &String| match resource.as_str() {
                "signers" => name.ends_with("/*"),
                "users" | "groups" | "uids" => name != "*",
                _ => resource.starts_with("userextras"),
            };
            if rule.resources.iter().any(may_be_meant) {
                continue;
            }
            let message = format!("{} in resourceNames is a literal name: `*` is no wildcard there", quoted(name));
            let help = "leave resourceNames out to allow all objects, or list their names";
            self.report(&format!("/resourceNames/{at}"), DeadCode::NamesWildcard, Weight::High, message, help);
        }
    }
}

/// A group whose resources have moved to others.
const REMOVED_GROUP: &str = "extensions";

const CLUSTER_WIDE: &str = "set the rule's namespaces to [\"*\"], which grants it in the whole cluster";

/// The groups of a rule.
struct Groups<'c> {
    /// Known groups, with their index where the rule names them so.
    at: Vec<(Option<usize>, &'c str)>,
    /// Whether one may have custom resources.
    is_open: bool,
    /// Whether one is the wildcard.
    is_wild: bool,
}

impl<'c> Groups<'c> {
    fn names(&self) -> impl Iterator<Item = &'c str> {
        self.at.iter().map(|(_, name)| *name)
    }
}

impl<'c> Referent<'c> {
    fn targets(&self) -> &[Target<'c>] {
        match self {
            Self::Known(targets) | Self::Dead(targets) => targets,
            Self::Open => &[],
        }
    }
}

/// What a resource of a rule matches in known groups.
fn targets<'c>(catalog: &'c Catalog<'c>, groups: &Groups<'c>, word: &str) -> Vec<Target<'c>> {
    let (name, subresource) = match word.split_once('/') {
        Some((name, subresource)) => (name, Some(subresource)),
        None => (word, None),
    };
    let mut found = Vec::new();
    for group in groups.names() {
        if name == "*" {
            for resource in catalog.in_group(group) {
                match subresource {
                    Some(subresource) => found.extend(target(resource, Some(subresource))),
                    None => {
                        found.push((resource, None));
                        found.extend(resource.subresources.keys().map(|name| (resource, Some(*name))));
                    }
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

/// The verbs of these resources.
fn verbs_of<'t, 'c: 't>(targets: impl IntoIterator<Item = &'t Target<'c>>) -> Vec<&'c str> {
    let mut verbs: Vec<&str> = Vec::new();
    for (resource, subresource) in targets {
        for verb in resource.verbs_of(*subresource).unwrap_or_default() {
            if !verbs.contains(verb) {
                verbs.push(verb);
            }
        }
    }
    verbs.sort_by_key(|verb| super::VERBS.iter().position(|known| known == verb).unwrap_or(usize::MAX));
    verbs
}

// Rules that others cover. A rule is a product of lists, so one rule covers another exactly if each of its lists covers
// that of the other; a test compares this with `Coverage`.

/// The lists of a rule as sets of hashes, wildcards left out: which rules cannot cover it shows without their words.
struct Shape {
    verbs: u64,
    groups: u64,
    resources: u64,
    urls: u64,
}

impl Shape {
    fn of(rule: &Rule) -> Self {
        let resources = |word: &String| !is_wild_resource(word);
        Self {
            verbs: set(rule.verbs.iter().filter(|word| *word != "*"), &rule.verbs),
            groups: set(rule.api_groups.iter().filter(|word| *word != "*"), &rule.api_groups),
            resources: set(rule.resources.iter().filter(|word| resources(word)), &rule.resources),
            urls: set(rule.non_resource_urls.iter().filter(|url| !url.ends_with('*')), &rule.non_resource_urls),
        }
    }

    /// Whether the rule may cover another one.
    fn may_cover(&self, other: &Self) -> bool {
        let may = |wide: u64, narrow: u64| narrow & !wide == 0 || wide & WILD != 0;
        may(self.verbs, other.verbs)
            && may(self.groups, other.groups)
            && may(self.resources, other.resources)
            && may(self.urls, other.urls)
    }
}

/// Marks a list with a wildcard, which may cover any word.
const WILD: u64 = 1 << 63;

/// The hashes of words; marked if the list has others.
fn set<'w>(words: impl Iterator<Item = &'w String>, list: &[String]) -> u64 {
    let mut count = 0;
    let set = words.fold(0, |set, word| {
        count += 1;
        // FNV-1a
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        set | 1 << ((hash >> 32) % 63)
    });
    if count < list.len() { set | WILD } else { set }
}

/// The pointer of another rule that covers this one: of equal rules the earlier.
fn covering<'a>(rules: &[RuleInScope<'a>], shapes: &[Shape], index: usize) -> Option<&'a str> {
    let (narrow, shape) = (rules.get(index)?, shapes.get(index)?);
    let grants_nothing = narrow.rule.verbs.is_empty()
        || (narrow.rule.api_groups.is_empty() || narrow.rule.resources.is_empty())
            && narrow.rule.non_resource_urls.is_empty();
    if grants_nothing {
        return None;
    }
    let covers = |(at, (wide, of_wide)): &(usize, (&RuleInScope<'a>, &Shape))| {
        *at != index
            && of_wide.may_cover(shape)
            && covers(wide, narrow)
            && (*at < index || !covers(narrow, wide))
    };
    let found = rules.iter().zip(shapes).enumerate().find(covers);
    found.map(|(_, (wide, _))| wide.pointer)
}

/// Whether a rule allows all that another one allows, wherever that applies.
fn covers(wide: &RuleInScope<'_>, narrow: &RuleInScope<'_>) -> bool {
    let (rule, other) = (wide.rule, narrow.rule);
    let all = |list: &[String], covers: &dyn Fn(&str) -> bool| list.iter().all(|word| covers(word));
    let resources = || {
        other.api_groups.is_empty()
            || other.resources.is_empty()
            || all(&other.api_groups, &|group| covers_word(&rule.api_groups, group))
                && all(&other.resources, &|resource| covers_resource(&rule.resources, resource))
                && (rule.resource_names.is_empty()
                    || !other.resource_names.is_empty()
                        && all(&other.resource_names, &|name| rule.resource_names.iter().any(|known| known == name)))
    };
    let urls = || all(&other.non_resource_urls, &|url| covers_url(&rule.non_resource_urls, url));
    all(&other.verbs, &|verb| covers_word(&rule.verbs, verb))
        && narrow.namespaces.iter().all(|namespace| covers_scope(&wide.namespaces, *namespace))
        && resources()
        && urls()
}

fn covers_scope(wide: &[Option<&str>], namespace: Option<&str>) -> bool {
    wide.iter().any(|scope| scope.is_none() || *scope == namespace)
}

fn covers_word(list: &[String], word: &str) -> bool {
    list.iter().any(|known| known == "*" || known == word)
}

fn is_wild_resource(word: &str) -> bool {
    word == "*" || word.starts_with("*/")
}

fn covers_resource(list: &[String], word: &str) -> bool {
    let subresource = word.split_once('/').map(|(_, subresource)| subresource);
    covers_word(list, word) || list.iter().any(|known| known.strip_prefix("*/").is_some_and(|it| Some(it) == subresource))
}

fn covers_url(list: &[String], url: &str) -> bool {
    list.iter().any(|known| known == url || known.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix)))
}
