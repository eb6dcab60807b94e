//! Dead rules: elements of rules that match no request, because of a wrong name, a wrong scope, or names where a request
//! has none; and rules that another one covers. Pure.
//!
//! An element is dead if no combination of API group, resource and verb that contains it can match a request: a verb that
//! any of the listed resources supports is sound. What may be a custom resource is never called wrong.

use std::{cell::OnceCell, rc::Rc};

use crate::rbac::{
    RuleInScope,
    catalog::{ApiResource, Catalog, is_custom, is_of_kubernetes},
    reach::{Fit, Groups, Reach, Target, UnclearGroup, Unserved, best_of, may_have_asterisk, targets, unserved},
    redundant::{Coverings, covers_names, covers_resource, covers_scope, covers_word},
    risk::Level,
    suggestion::{self, KnownNames, full_name, listed, quoted},
};

/// HTTP methods, which are the verbs of a path.
const METHODS: [&str; 8] = ["*", "get", "head", "post", "put", "patch", "delete", "options"];

/// The most resources of a group, or subresources of a resource, that a help lists.
const LISTED: usize = 12;

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
    pub(crate) level: Level,
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: String,
}

/// The dead elements of these rules, rule by rule. The rules `beside` them are granted too, and not judged.
pub(crate) fn dead_rules(
    rules: &[RuleInScope<'_>],
    beside: &[RuleInScope<'_>],
    catalog: &Catalog<'_>,
) -> Vec<DeadRule> {
    let coverings = Coverings::of(rules);
    let (everything, names) = (OnceCell::new(), OnceCell::new());
    let patching = rules.iter().chain(beside).filter(|it| covers_word(&it.rule.verbs, "patch"));
    let patching: Vec<&RuleInScope<'_>> = patching.collect();
    let mut dead = Vec::new();
    for (index, it) in rules.iter().enumerate() {
        let mut judge = Judge {
            patching: &patching,
            everything: &everything,
            known_names: &names,
            index,
            it,
            catalog,
            reach: Reach::of_rule(it),
            dead: &mut dead,
        };
        judge.elements();
        if let Some(wider) = coverings.pointer(index) {
            let message = format!("{wider} already allows all of it");
            judge.report(Element::Rule, DeadCode::RedundantRule, Level::Low, message, "remove this rule");
        }
    }
    dead
}

/// An element of a rule.
#[derive(Clone, Copy)]
enum Element {
    /// All of it.
    Rule,
    /// The API group at this index.
    Group(usize),
    /// The resource at this index.
    Resource(usize),
    /// The verb at this index.
    Verb(usize),
    /// The name at this index.
    Name(usize),
}

impl Element {
    /// JSON pointer to it, relative to the rule. Only what is reported needs one.
    fn pointer(self) -> String {
        match self {
            Self::Rule => String::new(),
            Self::Group(at) => format!("/apiGroups/{at}"),
            Self::Resource(at) => format!("/resources/{at}"),
            Self::Verb(at) => format!("/verbs/{at}"),
            Self::Name(at) => format!("/resourceNames/{at}"),
        }
    }
}

/// What a resource of a rule refers to.
enum Referent<'c> {
    /// These resources.
    Known(Rc<[Target<'c>]>),
    /// Perhaps a custom resource.
    Open,
    /// A dead one, which was reported; the resources that it probably means, whatever their scope.
    Dead(Rc<[Target<'c>]>),
}

/// The code of an element that fits no better than this.
const fn dead_code(fit: Fit) -> Option<DeadCode> {
    match fit {
        Fit::NoSuchVerb => Some(DeadCode::UnknownVerb),
        Fit::OutOfScope => Some(DeadCode::ClusterScopedResource),
        Fit::NeverNamed => Some(DeadCode::NamesWithCreate),
        Fit::NamedBySelector | Fit::Matches => None,
    }
}

struct Judge<'a, 'c> {
    /// What `*` in `*` matches.
    everything: &'a OnceCell<Rc<[Target<'c>]>>,
    /// The names of the catalogue, for the look-up of wrong ones.
    known_names: &'a OnceCell<KnownNames<'c>>,
    /// The rules that allow to patch something.
    patching: &'a [&'a RuleInScope<'a>],
    index: usize,
    it: &'a RuleInScope<'a>,
    catalog: &'c Catalog<'c>,
    reach: Reach,
    dead: &'a mut Vec<DeadRule>,
}

impl<'c> Judge<'_, 'c> {
    fn report(&mut self, element: Element, code: DeadCode, level: Level, message: String, help: impl Into<String>) {
        let element = element.pointer();
        self.dead.push(DeadRule { rule: self.index, element, code, level, message, help: help.into() });
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
                self.report(Element::Verb(at), DeadCode::UnknownVerb, Level::High, message, help);
            }
        }
    }

    // Groups.

    fn groups(&mut self) -> Groups<'c> {
        let rule = self.it.rule;
        let (groups, unclear) = Groups::of(self.catalog, rule.api_groups.iter().map(String::as_str));
        for UnclearGroup { at, level, message, help, .. } in unclear {
            self.report(Element::Group(at), DeadCode::UnknownGroup, level, message, help);
        }
        groups
    }

    /// Reports groups without any of the resources, unless one of those is misspelt, or was reported as one that the
    /// group may get.
    fn idle_groups(&mut self, groups: &Groups<'c>, referents: &[Referent<'c>]) {
        if groups.is_open {
            return;
        }
        let mut targets = Vec::new();
        let mut has_open = false;
        for referent in referents {
            match referent {
                Referent::Known(known) => targets.extend(known.iter()),
                Referent::Open => has_open = true,
                Referent::Dead(_) => return,
            }
        }
        for (at, name) in &groups.at {
            let Some(at) = at else { continue };
            let is_wild = || self.it.rule.resources.iter().any(|resource| resource == "*");
            if targets.iter().any(|(resource, _)| resource.group == *name) || is_wild() {
                continue;
            }
            let message = format!("the group {} has none of the rule's resources", quoted(name));
            let (level, message, help) = match is_custom(name) {
                true if has_open => continue,
                true => {
                    let help = "nothing to do if its custom resources will be installed in the cluster; otherwise \
                                remove the group";
                    (Level::Info, format!("{message} at present"), help)
                }
                false => (Level::High, message, "remove the group, or add the resource of it that is missing"),
            };
            self.report(Element::Group(*at), DeadCode::UnknownResource, level, message, help);
        }
    }

    // Resources.

    fn resource(&mut self, at: usize, word: &str, groups: &Groups<'c>) -> Referent<'c> {
        let element = Element::Resource(at);
        if let Some(name) = word.strip_suffix("/*") {
            self.subresource_wildcard(element, word, name, groups);
            return Referent::Dead(Rc::default());
        }
        if groups.is_open || groups.at.is_empty() {
            return Referent::Open;
        }
        let known = if groups.is_wild && word == "*" {
            Rc::clone(self.everything.get_or_init(|| targets(self.catalog, groups, word).into()))
        } else {
            targets(self.catalog, groups, word).into()
        };
        if known.is_empty() {
            return self.unknown_resource(element, word, groups);
        }
        if !self.it.is_namespaced() || known.iter().all(|(resource, _)| resource.namespaced) {
            return Referent::Known(known);
        }
        let fits = |verb: &String| self.reach.best(&known, verb, true);
        let best = self.it.rule.verbs.iter().map(fits).max();
        if best != Some(Fit::OutOfScope) {
            return Referent::Known(known);
        }
        let message = match word {
            "*" => "the resources of the group are in no namespace, so a rule for namespaces matches none".to_owned(),
            _ => format!("{} is in no namespace, so a rule for namespaces never matches it", quoted(word)),
        };
        self.report(element, DeadCode::ClusterScopedResource, Level::High, message, CLUSTER_WIDE);
        Referent::Dead(known)
    }

    fn subresource_wildcard(&mut self, element: Element, word: &str, name: &str, groups: &Groups<'c>) {
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
        self.report(element, DeadCode::SubresourceWildcard, Level::High, message, help);
    }

    fn unknown_resource(&mut self, element: Element, word: &str, groups: &Groups<'c>) -> Referent<'c> {
        let Some(Unserved { level, meant }) = unserved(self.catalog, self.known_names, groups, word) else {
            return Referent::Open;
        };
        let names: Vec<&str> = if groups.is_wild { Vec::new() } else { groups.names().collect() };
        let message = match names.as_slice() {
            [] => format!("there is no resource {}", quoted(word)),
            [group] => format!("the group {} has no resource {}", quoted(group), quoted(word)),
            groups => format!("none of the groups {} has a resource {}", listed(groups.iter().copied()), quoted(word)),
        };
        let is_of_kubernetes = !groups.is_wild && names.iter().any(|group| is_of_kubernetes(group, word));
        let help = match &meant {
            _ if is_of_kubernetes => {
                "other releases of Kubernetes serve it, or it has to be enabled on the API server".to_owned()
            }
            Some(meant) => meant.help(if groups.is_wild { None } else { Some(&names) }),
            None => self.help_without_suggestion(word, &names),
        };
        if level == Level::Info {
            let message = format!("{message} at present, so it cannot be checked");
            let help =
                format!("nothing to do if its custom resources will be installed in the cluster; otherwise {help}");
            self.report(element, DeadCode::UnknownResource, level, message, help);
            return Referent::Open;
        }
        self.report(element, DeadCode::UnknownResource, level, message, help);
        Referent::Dead(meant.map(|meant| meant.targets.into()).unwrap_or_default())
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

    /// Reports verbs that fit none of the resources; returns for each verb whether it does not.
    fn verbs(&mut self, referents: &[Referent<'c>]) -> Vec<bool> {
        let rule = self.it.rule;
        let mut dead = Vec::with_capacity(rule.verbs.len());
        for (at, verb) in rule.verbs.iter().enumerate() {
            let fit = |referent: &Referent<'c>| match referent {
                Referent::Open => self.reach.fit_of_any(verb),
                Referent::Dead(meant) if meant.is_empty() => Fit::Matches,
                Referent::Dead(meant) => self.reach.best(meant, verb, false),
                Referent::Known(known) => self.reach.best(known, verb, true),
            };
            let best = best_of(referents, Fit::Matches, fit).unwrap_or(Fit::Matches);
            let element = Element::Verb(at);
            dead.push(dead_code(best).is_some());
            match best {
                Fit::NoSuchVerb => self.unknown_verb(element, verb, referents),
                Fit::OutOfScope => {
                    let message = format!(
                        "{} on {} never matches in a rule for namespaces",
                        quoted(verb),
                        listed(rule.resources.iter().map(String::as_str))
                    );
                    self.report(element, DeadCode::ClusterScopedResource, Level::High, message, CLUSTER_WIDE);
                }
                Fit::NeverNamed => self.names_with_create(element, verb, referents),
                Fit::NamedBySelector => {
                    let message =
                        format!("{} with resourceNames works only for clients that select a single name", quoted(verb));
                    let help = "clients need the field selector metadata.name=NAME; for all others put the verb into a \
                                rule without resourceNames";
                    self.report(element, DeadCode::NamesWithList, Level::Low, message, help);
                }
                Fit::Matches => {}
            }
        }
        dead
    }

    fn unknown_verb(&mut self, element: Element, verb: &str, referents: &[Referent<'c>]) {
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
        self.report(element, DeadCode::UnknownVerb, Level::High, message, help);
    }

    fn names_with_create(&mut self, element: Element, verb: &str, referents: &[Referent<'c>]) {
        let applies = verb == "create"
            && referents.iter().flat_map(Referent::targets).any(|target| {
                self.reach.fit(*target, verb, false) == Fit::NeverNamed && self.may_patch_a_name(target.0)
            });
        let verb = quoted(verb);
        if applies {
            let message =
                format!("{verb} with resourceNames works only for server-side apply of names that may be patched");
            let help = "clients that create objects otherwise need the verb in a rule without resourceNames";
            self.report(element, DeadCode::NamesWithCreate, Level::Medium, message, help);
        } else {
            let message = format!("{verb} with resourceNames never matches, because the request contains no name");
            let help = "put the verb into a rule without resourceNames";
            self.report(element, DeadCode::NamesWithCreate, Level::High, message, help);
        }
    }

    /// Whether rules allow to patch objects that this one names, wherever it applies.
    fn may_patch_a_name(&self, resource: &ApiResource<'_>) -> bool {
        let rule = self.it.rule;
        self.it.namespaces.iter().all(|namespace| {
            std::iter::once(&self.it).chain(self.patching).any(|other| {
                covers_scope(&other.namespaces, *namespace)
                    && covers_word(&other.rule.verbs, "patch")
                    && covers_word(&other.rule.api_groups, resource.group)
                    && covers_resource(&other.rule.resources, resource.name)
                    && rule
                        .resource_names
                        .iter()
                        .any(|name| covers_names(&other.rule.resource_names, std::slice::from_ref(name)))
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
            let fit = |verb: &&String| self.reach.best(known, verb, true);
            let Some(best) = best_of(&living, Fit::NamedBySelector, fit) else { return };
            let element = Element::Resource(at);
            let Some(code) = dead_code(best) else { continue };
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
                    let verbs = listed(verbs_of(known.iter()));
                    (format!("{} has none of the rule's verbs", quoted(word)), format!("use {verbs}"))
                }
            };
            self.report(element, code, Level::High, message, help);
        }
    }

    // Names.

    fn wildcard_names(&mut self) {
        let rule = self.it.rule;
        for (at, name) in rule.resource_names.iter().enumerate().filter(|(_, name)| name.contains('*')) {
            if rule.resources.iter().any(|resource| may_have_asterisk(resource, name)) {
                continue;
            }
            let message = format!("{} in resourceNames is a literal name: `*` is no wildcard there", quoted(name));
            let help = "leave resourceNames out to allow all objects, or list their names";
            self.report(Element::Name(at), DeadCode::NamesWildcard, Level::High, message, help);
        }
    }
}

const CLUSTER_WIDE: &str = "set the rule's namespaces to [\"*\"], which grants it in the whole cluster";

impl<'c> Referent<'c> {
    fn targets(&self) -> &[Target<'c>] {
        match self {
            Self::Known(targets) | Self::Dead(targets) => targets,
            Self::Open => &[],
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::Rule;
    use proptest::prelude::*;
    use serde_json::json;

    /// Scope (namespaces, or `*`), groups (`-` is the core group), resources, verbs, names; then the findings, each with
    /// pointer, code, severity and a part of its help. Rows without findings are sound.
    const TABLE: &str = r#"
a | - | pods | get,list,watch | >
a | - | pods | get,list,watch,create,update,patch,delete,deletecollection | >
a | - | pods/log | get | >
a | - | pods,pods/log | get,list,watch | >
a | - | pods/exec,pods/attach,pods/portforward | get,create | >
a | - | pods/exec | create | a >
a | - | pods/eviction | create | a >
* | resource.k8s.io | resourceclaims/binding | update,patch | >
* | resource.k8s.io | resourceclaims/driver | associated-node:update,arbitrary-node:patch | gpu.example.com >
* | certificates.k8s.io | certificatesigningrequests/nodeclient,certificatesigningrequests/selfnodeclient | create | >
a | - | endpoints/restricted | create | >
a | discovery.k8s.io | endpointslices/restricted | create | >
a | v1.apps | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | apps.v1 | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | rbac.k8s.io | roles | get | > /apiGroups/0 unknown-group high: use `rbac.authorization.k8s.io`
a | v1.things.example.com | widgets | get | > /apiGroups/0 unknown-group info
a | - | pods/binding | create | a >
a | - | pods/ephemeralcontainers | get,patch,update | >
a | - | pods/resize | get,patch,update | >
a | - | pods/status | get,patch,update | >
a | - | pods/proxy,services/proxy | get,create,update,patch,delete | >
a | - | secrets | get | a,b >
a | - | secrets | get,update,patch,delete | a >
a | - | configmaps,secrets | get,list,watch | >
a | - | serviceaccounts/token | create | a >
a | - | serviceaccounts | impersonate | a >
a | - | serviceaccounts | get,list | >
a | - | bindings | create | >
a | - | endpoints,services | get,list,watch | >
a | - | services/status | get | >
a | - | replicationcontrollers/scale | get,update,patch | >
a | - | persistentvolumeclaims | get,list,watch,create,delete | >
a | - | resourcequotas,limitranges,podtemplates | get,list | >
a | -,events.k8s.io | events | get,list,watch | >
a | - | events | create,patch | >
a | apps | deployments | get,list,watch | >
a | apps | deployments,statefulsets,daemonsets,replicasets,controllerrevisions | get,list,watch | >
a | apps | deployments/scale | get,patch,update | >
a | apps | deployments,deployments/scale,deployments/status | get,list,patch | >
a | apps | deployments/finalizers | update | >
a | -,apps,batch | pods,deployments,jobs | get,list,watch | >
a | apps | * | get | >
a | apps | */scale | get,update,patch | >
a | - | */scale | patch | >
a | * | */scale | patch | >
a | * | */status | get | >
a | * | */finalizers | update | >
a | * | * | get,list,watch,create,update,patch,delete | >
* | * | * | * | >
* | * | * | get,list,watch | >
a | * | pods | get | >
a | * | deployments | get,list | >
a | * | workflows | get,list | >
a | * | services | get | >
a | * | rules,tokens,limits,quotas,jobsets | get | >
a | batch | jobs,cronjobs | get,list,watch,create,delete | >
a | batch | jobs/status,cronjobs/status | get | >
a | autoscaling | horizontalpodautoscalers | get,list,watch | >
a | autoscaling | horizontalpodautoscalers/status | get | >
a | policy | poddisruptionbudgets | get,list | >
a | networking.k8s.io | ingresses,networkpolicies | get,list,watch | >
a | networking.k8s.io | ingresses/status | update | >
a | discovery.k8s.io | endpointslices | get,list,watch | >
a | coordination.k8s.io | leases | get,create,update | >
a | coordination.k8s.io | leases | get,update,patch | lock >
a | rbac.authorization.k8s.io | roles,rolebindings | get,list,watch,create,update,patch,delete | >
a | rbac.authorization.k8s.io | roles | escalate,bind | >
a | rbac.authorization.k8s.io | clusterroles | bind | view >
a | authorization.k8s.io | localsubjectaccessreviews | create | >
a | resource.k8s.io | resourceclaims,resourceclaimtemplates | get,list,watch | >
a | storage.k8s.io | csistoragecapacities | get,list | >
a | certificates.k8s.io | podcertificaterequests | get,list | >
a | scheduling.k8s.io | podgroups,workloads | get | >
a | - | namespaces | get | >
a | - | namespaces | get,patch,update,delete | a >
a | - | namespaces/status,namespaces/finalize | get,update | >
a,b | - | namespaces | get | b >
a | - | pods,namespaces | get,list,watch | >
a | -,metrics.k8s.io | nodes,pods | get,list | > /apiGroups/1 unknown-group info
a | metrics.k8s.io | pods | get,list | > /apiGroups/0 unknown-group info: nothing to do
a | argoproj.io | workflows,cronworkflows | get,fly | > /apiGroups/0 unknown-group info
a | -,argoproj.io | workflow | get | > /apiGroups/1 unknown-group info
a | autoscaling.k8s.io | verticalpodautoscalers | get | > /apiGroups/0 unknown-group info
a | scheduling.x-k8s.io | podgroups | get | > /apiGroups/0 unknown-group info
a | networking.istio.io | virtualservices | get | > /apiGroups/0 unknown-group info
a | networking.gke.io | frontendconfigs | get | > /apiGroups/0 unknown-group info
a | gateway.networking.k8s.io | gateways,httproutes | get | > /apiGroups/0 unknown-group info
a | snapshot.storage.k8s.io | volumesnapshots | get | > /apiGroups/0 unknown-group info
a | custom.metrics.k8s.io | pods/requests_per_second | get | > /apiGroups/0 unknown-group info
a | external.metrics.k8s.io | datadogmetric@shop:queue | get,list | > /apiGroups/0 unknown-group info
a | app.k8s.io | applications | get | > /apiGroups/0 unknown-group info
a | apps.openshift.io | deploymentconfigs | get | > /apiGroups/0 unknown-group info
a | serving.knative.dev | services | get,create | x > /apiGroups/0 unknown-group info
a | extensions,apps | deployments | get | > /apiGroups/0 unknown-group low: `apps`
a | extensions | ingresses | get | > /apiGroups/0 unknown-group low: `networking.k8s.io`
a | frobnicators | frobs | get | > /apiGroups/0 unknown-group low: kubectl api-resources
* | - | nodes | get,list,watch | >
* | - | nodes/proxy | get,create | >
* | - | nodes/metrics | get | >
* | - | nodes/stats,nodes/log,nodes/spec,nodes/configz,nodes/healthz,nodes/pods | get | >
* | - | nodes,nodes/metrics,services,endpoints,pods | get,list,watch | >
* | - | nodes/status | get,patch | >
* | - | namespaces | get,list,watch,create,delete | >
* | - | persistentvolumes | get,list | >
* | - | componentstatuses | get,list | >
* | - | users,groups | impersonate | >
* | - | users,groups,serviceaccounts | impersonate | jane >
* | authentication.k8s.io | uids,userextras/scopes | impersonate | >
* | authentication.k8s.io | users,groups,uids | impersonate:user-info | >
* | - | pods | impersonate-on:user-info:list | >
a | - | pods | impersonate-on:serviceaccount:list | >
a | authentication.k8s.io | serviceaccounts | impersonate:serviceaccount | >
* | authentication.k8s.io | tokenreviews | create | >
* | authentication.k8s.io | admissionReviewAPIGroups | attest | >
* | authorization.k8s.io | subjectaccessreviews,selfsubjectaccessreviews | create | >
* | certificates.k8s.io | certificatesigningrequests | get,list,watch,create | >
* | certificates.k8s.io | certificatesigningrequests/approval | update,patch | >
* | certificates.k8s.io | signers | approve,sign | example.com/* >
* | certificates.k8s.io | signers | attest | example.com/a >
* | certificates.k8s.io | clustertrustbundles | get,list,watch | >
* | rbac.authorization.k8s.io | clusterroles,clusterrolebindings | get,list,create | >
* | rbac.authorization.k8s.io | clusterroles | bind,escalate | >
* | apiextensions.k8s.io | customresourcedefinitions | get,list | >
* | apiregistration.k8s.io | apiservices | get | >
* | admissionregistration.k8s.io | validatingwebhookconfigurations | get,list | >
* | admissionregistration.k8s.io | validatingadmissionpolicies,mutatingadmissionpolicies | get | >
* | storage.k8s.io | storageclasses,csinodes,csidrivers,volumeattachments | get,list,watch | >
* | networking.k8s.io | ingressclasses,ipaddresses,servicecidrs | get,list | >
* | node.k8s.io | runtimeclasses | get,list | >
* | scheduling.k8s.io | priorityclasses | get,list | >
* | flowcontrol.apiserver.k8s.io | flowschemas | get | >
* | internal.apiserver.k8s.io | storageversions | get | >
* | storagemigration.k8s.io | storageversionmigrations | get,list | >
* | resource.k8s.io | deviceclasses,resourceslices,devicetaintrules | get,list | >
a | core | pods | get | > /apiGroups/0 unknown-group high: use `""`
a | v1 | pods | get | > /apiGroups/0 unknown-group high: use `""`
a | core/v1 | pods | get | > /apiGroups/0 unknown-group high: use `""`
a | api | pods | get | > /apiGroups/0 unknown-group high: use `""`
a | Core | pods | get | > /apiGroups/0 unknown-group high: use `""`
a | "" | pods | get | > /apiGroups/0 unknown-group high: use `""`
a | apps/v1 | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | batch/v1beta1 | cronjobs | get | > /apiGroups/0 unknown-group high: use `batch`
a | networking.k8s.io/v1 | ingresses | get | > /apiGroups/0 unknown-group high: use `networking.k8s.io`
a | argoproj.io/v1alpha1 | workflows | get | > /apiGroups/0 unknown-group high: use `argoproj.io`
a | Apps | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | app | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | aps | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | apps.k8s.io | deployments | get | > /apiGroups/0 unknown-group high: use `apps`
a | batch.k8s.io | jobs | get | > /apiGroups/0 unknown-group high: use `batch`
a | policy.k8s.io | poddisruptionbudgets | get | > /apiGroups/0 unknown-group high: use `policy`
a | networking | ingresses | get | > /apiGroups/0 unknown-group high: use `networking.k8s.io`
a | rbac | roles | get | > /apiGroups/0 unknown-group high: use `rbac.authorization.k8s.io`
a | rbac.authorization | roles | get | > /apiGroups/0 unknown-group high: use `rbac.authorization.k8s.io`
a | rbac.authorisation.k8s.io | roles | get | > /apiGroups/0 unknown-group high: use `rbac.authorization.k8s.io`
a | netwroking.k8s.io | ingresses | get | > /apiGroups/0 unknown-group high: use `networking.k8s.io`
* | storage | storageclasses | get | > /apiGroups/0 unknown-group high: use `storage.k8s.io`
a | discovery | endpointslices | get | > /apiGroups/0 unknown-group high: use `discovery.k8s.io`
a | coordination.k8s | leases | get | > /apiGroups/0 unknown-group high: use `coordination.k8s.io`
a | autoscalling | horizontalpodautoscalers | get | > /apiGroups/0 unknown-group high: use `autoscaling`
a | -,core | pods | get | > /apiGroups/1 unknown-group high: use `""`
a | apps/v1 | deployment | get | > /apiGroups/0 unknown-group high: use `apps` & /resources/0 unknown-resource high: use `deployments`
a | apps | deployment | get | > /resources/0 unknown-resource high: use `deployments`
a | apps | Deployment | get | > /resources/0 unknown-resource high: use `deployments`
a | apps | deploy | get | > /resources/0 unknown-resource high: use `deployments`
a | apps | deploymnets | get | > /resources/0 unknown-resource high: use `deployments`
a | apps | deployments,statefulset | get | > /resources/1 unknown-resource high: use `statefulsets`
a | apps | sts,ds,rs | get | > /resources/0 unknown-resource high: `statefulsets` & /resources/1 unknown-resource high: `daemonsets` & /resources/2 unknown-resource high: `replicasets`
a | - | deployments | get | > /resources/0 unknown-resource high: use `deployments` with the group `apps`
a | - | deployment | get | > /resources/0 unknown-resource high: use `deployments` with the group `apps`
a | - | ingresses | get | > /resources/0 unknown-resource high: use `ingresses` with the group `networking.k8s.io`
a | - | jobs | get | > /resources/0 unknown-resource high: use `jobs` with the group `batch`
a | apps | pods | get | > /resources/0 unknown-resource high: use `pods` with the group `""`
a | apps | jobs | get | > /resources/0 unknown-resource high: use `jobs` with the group `batch`
a | networking.k8s.io | endpointslices | get | > /resources/0 unknown-resource high: use `endpointslices` with the group `discovery.k8s.io`
a | - | deployments.apps | get | > /resources/0 unknown-resource high: use `deployments` with the group `apps`
a | - | deployments.v1.apps | get | > /resources/0 unknown-resource high: use `deployments` with the group `apps`
a | - | pods.v1 | get | > /resources/0 unknown-resource high: use `pods`
a | - | v1/pods | get | > /resources/0 unknown-resource high: use `pods`
a | - | apps/deployments | get | > /resources/0 unknown-resource high: use `deployments` with the group `apps`
a | - | workflows.argoproj.io | get | > /resources/0 unknown-resource high: use `workflows` with the group `argoproj.io`
a | - | pod | get | > /resources/0 unknown-resource high: use `pods`
a | - | Pod | get | > /resources/0 unknown-resource high: use `pods`
a | - | PODS | get | > /resources/0 unknown-resource high: use `pods`
a | - | po | get | > /resources/0 unknown-resource high: use `pods`
a | - | svc,cm | get | > /resources/0 unknown-resource high: use `services` & /resources/1 unknown-resource high: use `configmaps`
a | - | sa | get | > /resources/0 unknown-resource high: use `serviceaccounts`
a | - | pvc | get | > /resources/0 unknown-resource high: use `persistentvolumeclaims`
a | - | secret | get | > /resources/0 unknown-resource high: use `secrets`
a | - | configmap | get | > /resources/0 unknown-resource high: use `configmaps`
a | - | confgmaps | get | > /resources/0 unknown-resource high: use `configmaps`
a | - | service-accounts | get | > /resources/0 unknown-resource high: use `serviceaccounts`
a | - | persistentvolumeclaim | get | > /resources/0 unknown-resource high: use `persistentvolumeclaims`
a | - | logs | get | > /resources/0 unknown-resource high: use `pods/log`
a | - | log | get | > /resources/0 unknown-resource high: use `pods/log`
a | - | pods/logs | get | > /resources/0 unknown-resource high: use `pods/log`
a | - | pod/log | get | > /resources/0 unknown-resource high: use `pods/log`
a | - | exec | create | > /resources/0 unknown-resource high: use `pods/exec`
a | - | portforward | create | > /resources/0 unknown-resource high: use `pods/portforward`
a | - | portfoward | create | > /resources/0 unknown-resource high: use `pods/portforward`
a | - | pods/portfoward | create | > /resources/0 unknown-resource high: use `pods/portforward`
a | - | pods/port-forward | create | > /resources/0 unknown-resource high: use `pods/portforward`
a | - | pods/scale | get | > /resources/0 unknown-resource high: use one of
a | - | configmaps/status | get | > /resources/0 unknown-resource high: no subresource
a | - | serviceaccounts/tokens | create | > /resources/0 unknown-resource high: use `serviceaccounts/token`
a | - | deployments/scale | patch | > /resources/0 unknown-resource high: use `deployments/scale` with the group `apps`
a | apps | deployment/scale | patch | > /resources/0 unknown-resource high: use `deployments/scale`
a | apps | deployments/scales | patch | > /resources/0 unknown-resource high: use `deployments/scale`
a | apps | deployments/log | get | > /resources/0 unknown-resource high: use one of
a | apps | */scales | patch | > /resources/0 unknown-resource high: /scale`
a | batch | job,cronjob | get | > /resources/0 unknown-resource high: use `jobs` & /resources/1 unknown-resource high: use `cronjobs`
a | batch | pipelines | get | > /resources/0 unknown-resource high: use one of `cronjobs`, `jobs`
a | autoscaling | hpa | get | > /resources/0 unknown-resource high: use `horizontalpodautoscalers`
a | policy | pdb | get | > /resources/0 unknown-resource high: use `poddisruptionbudgets`
* | policy | podsecuritypolicies | use | > /resources/0 unknown-resource high: use one of
a | networking.k8s.io | ingress | get | > /resources/0 unknown-resource high: use `ingresses`
a | networking.k8s.io | netpol,networkpolicys | get | > /resources/0 unknown-resource high: use `networkpolicies` & /resources/1 unknown-resource high: use `networkpolicies`
a | rbac.authorization.k8s.io | role,rolebinding | get | > /resources/0 unknown-resource high: use `roles` & /resources/1 unknown-resource high: use `rolebindings`
a | -,apps | pods,deployment | get | > /resources/1 unknown-resource high: use `deployments`
a | -,apps | deployments | get | > /apiGroups/0 unknown-resource high: remove the group
a | * | pod | get | > /resources/0 unknown-resource high: use `pods`
a | * | Deployment | get | > /resources/0 unknown-resource high: use `deployments`
a | * | deploymets | get | > /resources/0 unknown-resource low: use `deployments`
a | * | deploy | get | > /resources/0 unknown-resource low: use `deployments`
a | - | nodes | get | > /resources/0 cluster-scoped-resource high: ["*"]
a | - | pods,nodes | get,list | > /resources/1 cluster-scoped-resource high
a | * | nodes | get | > /resources/0 cluster-scoped-resource high
a | - | nodes/proxy | get | > /resources/0 cluster-scoped-resource high
a | - | persistentvolumes | get,list | > /resources/0 cluster-scoped-resource high
a | - | node | get | > /resources/0 unknown-resource high: use `nodes`
a,b | storage.k8s.io | storageclasses | get | > /resources/0 cluster-scoped-resource high
a | rbac.authorization.k8s.io | clusterroles | get,list | > /resources/0 cluster-scoped-resource high
a | rbac.authorization.k8s.io | clusterroles | escalate | > /resources/0 cluster-scoped-resource high
a | rbac.authorization.k8s.io | roles,clusterrolebindings | get | > /resources/1 cluster-scoped-resource high
a | networking.k8s.io | ingressclasses | get | > /resources/0 cluster-scoped-resource high
a | apiextensions.k8s.io | customresourcedefinitions | get | > /resources/0 cluster-scoped-resource high
a | node.k8s.io | * | get | > /resources/0 cluster-scoped-resource high
a | certificates.k8s.io | signers | approve | x/y > /resources/0 cluster-scoped-resource high
a | authentication.k8s.io | tokenreviews | create | > /resources/0 cluster-scoped-resource high
a | - | namespaces | list | > /resources/0 cluster-scoped-resource high
a | - | namespaces | list,watch,create | > /resources/0 cluster-scoped-resource high
a | - | namespaces | get,list | > /verbs/1 cluster-scoped-resource high
a | - | namespaces | get | b > /resources/0 cluster-scoped-resource high
a | - | users | impersonate | jane > /resources/0 cluster-scoped-resource high
a | - | pods/log | get,list | > /verbs/1 unknown-verb high: use `get`
a | - | pods/log | list,watch | > /verbs/0 unknown-verb high & /verbs/1 unknown-verb high
a | - | pods,pods/log | list,watch | > /resources/1 unknown-verb high: use `get`
a | - | pods,pods/exec | list | > /resources/1 unknown-verb high: use `get`, `create`
a | - | pods/exec | get,delete | > /verbs/1 unknown-verb high
a | - | pods/log | delete | > /verbs/0 unknown-verb high
a | - | pods/eviction | get | > /verbs/0 unknown-verb high: use `create`
a | - | serviceaccounts/token | get,create | > /verbs/0 unknown-verb high: use `create`
a | - | bindings | get,create | > /verbs/0 unknown-verb high
a | - | services/proxy | list | > /verbs/0 unknown-verb high
a | apps | deployments/scale | get,create | > /verbs/1 unknown-verb high
a | apps | deployments/scale | delete | > /verbs/0 unknown-verb high
a | apps | deployments/finalizers | list,update | > /verbs/0 unknown-verb high
a | authorization.k8s.io | localsubjectaccessreviews | get | > /verbs/0 unknown-verb high
* | authorization.k8s.io | * | list | > /verbs/0 unknown-verb high: use `create`
* | - | nodes/metrics | list | > /verbs/0 unknown-verb high: use `get`
* | - | namespaces | deletecollection | > /verbs/0 unknown-verb high
* | - | namespaces,nodes | get,deletecollection | >
* | - | componentstatuses | create | > /verbs/0 unknown-verb high
* | - | nodes/proxy | list | > /verbs/0 unknown-verb high
* | - | users | get | > /verbs/0 unknown-verb high: use `impersonate`
a | - | pods | gets | > /verbs/0 unknown-verb high: use `get`
a | - | pods | read | > /verbs/0 unknown-verb high: use `get`, `list`, `watch`
a | - | pods | post,put | > /verbs/0 unknown-verb high: use `create` & /verbs/1 unknown-verb high: use `update`
a | - | pods | delete-collection | > /verbs/0 unknown-verb high: use `deletecollection`
a | - | pods | fly | > /verbs/0 unknown-verb high
a | - | pods | escalate | > /verbs/0 unknown-verb high
a | rbac.authorization.k8s.io | rolebindings | bind | > /verbs/0 unknown-verb high
a | - | configmaps | create | x > /verbs/0 names-with-create high: without resourceNames
a | - | configmaps | get,create | x > /verbs/1 names-with-create high
a | - | configmaps | create,patch | x > /verbs/0 names-with-create medium: create objects otherwise
a | - | configmaps | deletecollection | x > /verbs/0 names-with-create high
a | - | configmaps | patch,deletecollection | x > /verbs/1 names-with-create high
a | - | pods,pods/exec | create | x > /resources/0 names-with-create high
a | - | pods,pods/exec | get,create | x >
* | rbac.authorization.k8s.io | clusterroles | create | x > /verbs/0 names-with-create high
a | - | configmaps | list | x > /verbs/0 names-with-list low: metadata.name
a | - | configmaps | get,list,watch | x > /verbs/1 names-with-list low & /verbs/2 names-with-list low
a | - | configmaps | get | * > /resourceNames/0 names-wildcard high: leave resourceNames out
a | - | configmaps | get | a,* > /resourceNames/1 names-wildcard high
a | - | configmaps | get | app-* > /resourceNames/0 names-wildcard high
a | - | configmaps | get,list,create | * > /resourceNames/0 names-wildcard high
a | - | pods/* | get | > /resources/0 subresource-wildcard high: `pods/log`
a | - | pods,pods/* | get | > /resources/1 subresource-wildcard high
a | * | */* | get | > /resources/0 subresource-wildcard high: use `*`
a | apps | deployments/* | get | > /resources/0 subresource-wildcard high: `deployments/scale`
* | authentication.k8s.io | userextras/* | impersonate | > /resources/0 subresource-wildcard high
"#;

    fn words(text: &str) -> Vec<String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| if word == "-" { String::new() } else { word.to_owned() }).collect()
    }

    fn rule(groups: &str, resources: &str, verbs: &str, names: &str) -> Rule {
        Rule {
            api_groups: words(groups),
            resources: words(resources),
            verbs: words(verbs),
            resource_names: words(names),
            ..Rule::default()
        }
    }

    fn urls(urls: &str, verbs: &str) -> Rule {
        Rule { verbs: words(verbs), non_resource_urls: words(urls), ..Rule::default() }
    }

    fn scopes(text: &str) -> Vec<Option<&str>> {
        text.split(',').map(str::trim).map(|scope| (scope != "*").then_some(scope)).collect()
    }

    fn name(code: DeadCode) -> &'static str {
        match code {
            DeadCode::UnknownGroup => "unknown-group",
            DeadCode::UnknownResource => "unknown-resource",
            DeadCode::UnknownVerb => "unknown-verb",
            DeadCode::ClusterScopedResource => "cluster-scoped-resource",
            DeadCode::NamesWithCreate => "names-with-create",
            DeadCode::NamesWithList => "names-with-list",
            DeadCode::NamesWildcard => "names-wildcard",
            DeadCode::SubresourceWildcard => "subresource-wildcard",
            DeadCode::RedundantRule => "redundant-rule",
        }
    }

    /// As in `/verbs/0 unknown-verb high`.
    fn summary(dead: &DeadRule) -> String {
        format!("{} {} {:?}", dead.element, name(dead.code), dead.level).to_lowercase()
    }

    #[test]
    fn dead_elements_are_found_and_sound_ones_are_not() {
        let mut wrong = Vec::new();
        let rows: Vec<&str> = TABLE.lines().filter(|line| !line.is_empty()).collect();
        assert!(rows.len() >= 200, "{} rows", rows.len());
        for row in rows {
            let (asked, expected) = row.split_once('>').unwrap();
            let [scope, groups, resources, verbs, names] = asked.split('|').collect::<Vec<_>>()[..] else {
                panic!("{row}")
            };
            let rule = rule(groups, resources, verbs, names);
            let it = RuleInScope { pointer: "/rules/0", rule: &rule, namespaces: scopes(scope) };
            let found = dead_rules(&[it], &[], Catalog::embedded());
            let expected: Vec<(String, &str)> = expected
                .split(" & ")
                .filter(|text| !text.trim().is_empty())
                .map(|text| text.split_once(": ").unwrap_or((text, "")))
                .map(|(what, help)| (what.trim().to_lowercase(), help.trim()))
                .collect();
            let same = found.len() == expected.len()
                && found.iter().zip(&expected).all(|(found, (what, help))| {
                    summary(found) == *what && found.help.contains(help) && !found.message.is_empty()
                });
            if !same {
                let found: Vec<String> =
                    found.iter().map(|it| format!("{} ({}): {}", summary(it), it.message, it.help)).collect();
                wrong.push(format!("{row}\n    {}", found.join("\n    ")));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn paths_take_http_methods() {
        let rule = urls("/metrics", "get,list,create");
        let it = RuleInScope { pointer: "/rules/0", rule: &rule, namespaces: vec![None] };
        let found = dead_rules(&[it], &[], Catalog::embedded());
        let found: Vec<String> = found.iter().map(summary).collect();
        assert_eq!(found, ["/verbs/1 unknown-verb high", "/verbs/2 unknown-verb high"]);
    }

    /// The rules, each with its scope, and which of them are redundant: index and pointer of the wider one.
    #[rstest::rstest]
    #[case::equal(&[("a", "-|pods|get"), ("a", "-|pods|get")], &[(1, "/rules/0")])]
    #[case::narrower_verbs(&[("a", "-|pods|get"), ("a", "-|pods|get,list")], &[(0, "/rules/1")])]
    #[case::narrower_names(&[("a", "-|pods|get|x"), ("a", "-|pods|get")], &[(0, "/rules/1")])]
    #[case::other_names(&[("a", "-|pods|get|x"), ("a", "-|pods|get|y")], &[])]
    #[case::all_names_are_wider(&[("a", "-|pods|get"), ("a", "-|pods|get|x")], &[(1, "/rules/0")])]
    #[case::cluster_covers_namespace(&[("a", "-|pods|get"), ("*", "-|pods|get")], &[(0, "/rules/1")])]
    #[case::other_namespace(&[("a", "-|pods|get"), ("b", "-|pods|get")], &[])]
    #[case::one_of_two_namespaces(&[("a,b", "-|pods|get"), ("b", "-|pods|get")], &[(1, "/rules/0")])]
    #[case::only_together(&[("a", "-|pods,services|get"), ("a", "-|pods|get"), ("a", "-|services|get")], &[(1, "/rules/0"), (2, "/rules/0")])]
    #[case::wildcard_group(&[("a", "*|pods|get"), ("a", "-|pods|get")], &[(1, "/rules/0")])]
    #[case::wildcard_resource(&[("a", "-|*|get"), ("a", "-|pods/log|get")], &[(1, "/rules/0")])]
    #[case::any_scale(&[("a", "apps|*/scale|get"), ("a", "apps|deployments/scale|get")], &[(1, "/rules/0")])]
    #[case::subresource_is_its_own(&[("a", "-|pods|get"), ("a", "-|pods/log|get")], &[])]
    #[case::two_rules_are_needed(&[("a", "-|pods|get"), ("a", "-|services|get"), ("a", "-|pods,services|get")], &[(0, "/rules/2"), (1, "/rules/2")])]
    fn covered_rule_is_redundant(#[case] rules: &[(&str, &str)], #[case] expected: &[(usize, &str)]) {
        let pointers: Vec<String> = (0..rules.len()).map(|at| format!("/rules/{at}")).collect();
        let parsed: Vec<Rule> = rules
            .iter()
            .map(|(_, text)| {
                let parts: Vec<&str> = text.split('|').collect();
                rule(parts[0], parts[1], parts[2], parts.get(3).copied().unwrap_or_default())
            })
            .collect();
        let asked: Vec<RuleInScope<'_>> = rules
            .iter()
            .zip(&parsed)
            .zip(&pointers)
            .map(|(((scope, _), rule), pointer)| RuleInScope { pointer, rule, namespaces: scopes(scope) })
            .collect();
        let found = dead_rules(&asked, &[], Catalog::embedded());
        let redundant = found.iter().filter(|it| it.code == DeadCode::RedundantRule);
        let found: Vec<(usize, &str)> = redundant.map(|it| (it.rule, it.message.split(' ').next().unwrap())).collect();
        assert_eq!(found, expected);
    }

    /// A rule that is not judged, of a ClusterRole, and one of two names.
    #[test]
    fn patch_of_a_name_lets_apply_create_it() {
        let (create, patch) = (rule("-", "secrets", "create", "a,b"), rule("-", "secrets", "patch", "a"));
        let scoped = |rule| RuleInScope { pointer: "", rule, namespaces: vec![Some("x")] };
        let level = |beside: &[RuleInScope<'_>]| dead_rules(&[scoped(&create)], beside, Catalog::embedded())[0].level;
        assert_eq!([level(&[]), level(&[scoped(&patch)])], [Level::High, Level::Medium]);
    }

    #[test]
    fn patch_in_another_rule_lets_apply_create_objects() {
        let rules = [rule("-", "configmaps", "create", "x"), rule("-", "*", "patch", "")];
        let severity = |scope: &'static str| {
            let scopes = [vec![Some("a")], scopes(scope)];
            let asked: Vec<RuleInScope<'_>> = rules
                .iter()
                .zip(scopes)
                .map(|(rule, namespaces)| RuleInScope { pointer: "", rule, namespaces })
                .collect();
            dead_rules(&asked, &[], Catalog::embedded())[0].level
        };
        assert_eq!([severity("a"), severity("*"), severity("b")], [Level::Medium, Level::Medium, Level::High]);
    }

    #[test]
    fn group_of_unreachable_service_is_not_judged() {
        let list = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"freshness": "Stale"}]},
        ]});
        let list = list.to_string();
        let rule = rule("metrics.k8s.io", "pods,anything", "get,fly", "");
        let it = RuleInScope { pointer: "", rule: &rule, namespaces: vec![Some("a")] };
        let found = dead_rules(&[it], &[], &Catalog::of_server(list.as_bytes()).unwrap());
        assert_eq!(found.iter().map(summary).collect::<Vec<_>>(), ["/apigroups/0 unknown-group info"]);
    }

    #[test]
    fn pasted_secret_is_not_printed() {
        let secret = "S3CRET".repeat(20);
        let rule = rule(&secret, &format!("pods,{secret},{secret}/log,{secret}/*"), &secret, &format!("{secret}*"));
        let it = RuleInScope { pointer: "", rule: &rule, namespaces: vec![Some("a")] };
        let found = dead_rules(&[it], &[], Catalog::embedded());
        assert!(!found.is_empty());
        assert!(!format!("{found:?}").to_lowercase().contains("s3cret"), "{found:#?}");
        let core = super::tests::rule("-", &format!("{secret},x.{secret}.y"), "get", "");
        let it = RuleInScope { pointer: "", rule: &core, namespaces: vec![Some("a")] };
        assert!(!format!("{:?}", dead_rules(&[it], &[], Catalog::embedded())).to_lowercase().contains("s3cret"));
    }

    proptest! {
        /// What discovery lists is sound where it is: in a namespace, or at cluster scope.
        #[test]
        fn rule_of_catalog_entries_is_never_dead(choice in prop::collection::vec((0_usize..1000, 0_usize..1000), 1..6),
                                                 cluster in any::<bool>()) {
            let catalog = Catalog::embedded();
            let all: Vec<Target<'_>> = catalog
                .resources()
                .flat_map(|it| std::iter::once((it, None)).chain(it.subresources.keys().map(move |sub| (it, Some(*sub)))))
                .filter(|(it, sub)| (cluster || it.namespaced) && !it.verbs_of(*sub).unwrap_or_default().is_empty())
                .collect();
            let mut rule = Rule::default();
            let add = |list: &mut Vec<String>, word: &str| {
                if !list.iter().any(|known| known == word) {
                    list.push(word.to_owned());
                }
            };
            for (at, verb) in choice {
                let (resource, subresource) = all[at % all.len()];
                let verbs = resource.verbs_of(subresource).unwrap();
                add(&mut rule.api_groups, resource.group);
                add(&mut rule.resources, &full_name(resource.name, subresource));
                add(&mut rule.verbs, verbs[verb % verbs.len()]);
            }
            let it = RuleInScope { pointer: "", rule: &rule, namespaces: vec![(!cluster).then_some("a")] };
            prop_assert_eq!(dead_rules(&[it], &[], catalog), vec![]);
        }
    }
}
