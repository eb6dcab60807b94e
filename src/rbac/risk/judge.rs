//! Which risks a request has: rules compared with the catalogue as the API server matches them, with wildcards, groups,
//! names, subresources, scopes and the version of the server. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::LazyLock,
};

use crate::rbac::{
    Catalog, Rule,
    reach::may_have_asterisk,
    risk::catalog::{
        CATALOG, CLUSTER_SCOPED, Element, Entry, Facts, Level, Narrower, PARTS, READ, SYSTEM_NAMESPACES, Target,
        USUAL_GROUPS, Verbs, Within,
    },
};

/// The version of a server from which on a connection by GET (exec, attach, portforward) also needs create.
const CREATE_FOR_UPGRADES: (u32, u32) = (1, 35);

/// A rule with its namespace; none means the whole cluster.
pub(crate) type Requested<'a> = (&'a Rule, Option<&'a str>);

/// A risk of a request.
#[derive(Clone, Debug)]
pub(crate) struct Risk {
    /// Its entry in the catalogue.
    pub(crate) entry: &'static Entry,
    /// Its level here.
    pub(crate) severity: Level,
    /// Index of the rule among those requested.
    pub(crate) rule: usize,
    /// JSON pointer to the element, relative to the rule.
    pub(crate) pointer: String,
    whole_cluster: bool,
    together: Option<&'static str>,
    only_get: bool,
    /// Whether it is limited to the objects of resourceNames.
    named: bool,
    target: Option<&'static Target>,
    server: Option<(u32, u32)>,
}

impl Risk {
    /// Its code.
    pub(crate) const fn code(&self) -> &'static str {
        self.entry.code
    }

    /// What a holder could do, in one line.
    pub(crate) fn consequence(&self) -> String {
        let mut text = self.entry.consequence(self.whole_cluster);
        if self.named {
            text += "; limited to the objects in resourceNames";
        }
        if self.only_get {
            text += "; get is enough on servers before 1.35";
        }
        if let Some(together) = self.together {
            text += "; together ";
            text += together;
        }
        text
    }

    /// What to grant instead: in words, and as a rule where the requested one covers a less severe one.
    pub(crate) fn alternative(&self, (rule, namespace): Requested<'_>) -> Alternative {
        let found = self.entry.narrower.iter().find_map(|narrower| {
            let rule = self.narrowed(rule, *narrower)?;
            let risks = risks(&[(&rule, namespace)], self.server);
            let is_catalogued = !matches!(narrower, Narrower::Without(_));
            risks.iter().all(|risk| risk.severity < self.severity).then_some((rule, is_catalogued))
        });
        let (rule, is_catalogued) = found.unzip();
        Alternative { text: self.entry.instead, rule, is_catalogued: is_catalogued.unwrap_or_default() }
    }

    /// The verbs that a request for the resource can have in the scope of the risk, as far as that is known.
    fn sound_verbs(&self, group: &str, resource: &str) -> Verbs {
        let (name, subresource) = match resource.split_once('/') {
            Some((name, subresource)) => (name, Some(subresource)),
            None => (resource, None),
        };
        let Some(known) = Catalog::embedded().resource(group, name) else { return Verbs::ALL };
        let verbs = known.verbs_of(subresource).unwrap_or_default();
        let verbs = verbs.iter().fold(Verbs::NONE, |verbs, verb| verbs | Verbs::named(verb));
        match (known.namespaced || self.whole_cluster, name) {
            (true, _) => verbs,
            (false, "namespaces") => verbs.without(Verbs::LIST | Verbs::CREATE | Verbs::DELETECOLLECTION),
            (false, _) => Verbs::NONE,
        }
    }

    fn narrowed(&self, rule: &Rule, narrower: Narrower) -> Option<Rule> {
        let own = Asked::of(rule);
        let on = |group: &str, resources: &[&str], verbs: Verbs, names: Vec<String>| {
            let verbs = resources.iter().fold(verbs, |verbs, resource| verbs.both(self.sound_verbs(group, resource)));
            let verbs: Vec<String> = own.verbs.both(verbs).names().map(str::to_owned).collect();
            (!verbs.is_empty()).then(|| Rule {
                api_groups: vec![group.to_owned()],
                resources: resources.iter().map(ToString::to_string).collect(),
                verbs,
                resource_names: names,
                non_resource_urls: Vec::new(),
            })
        };
        match (narrower, self.target) {
            // In a Role only the own Namespace has a name that matches, so a name limits nothing there.
            (Narrower::Named(_), Some(target)) if target.within == Within::OwnNamespace && !self.whole_cluster => None,
            (Narrower::Named(verbs), Some(target)) if !own.named => {
                on(target.group, &[target.resource], verbs, vec!["NAME".to_owned()])
            }
            (Narrower::Only(verbs), Some(target)) => {
                let get = own.verbs.both(verbs).both(Verbs::GET);
                let verbs = if own.named && get != Verbs::NONE { get } else { verbs };
                on(target.group, &[target.resource], verbs, rule.resource_names.clone())
            }
            (Narrower::Some(group, resources, verbs), None) if own.has_group(group) => {
                on(group, resources, verbs, rule.resource_names.clone())
            }
            (Narrower::OneGroup, None) => {
                let known = rule.resources.iter().find_map(|resource| {
                    USUAL_GROUPS
                        .iter()
                        .find(|(_, resources)| resources.contains(&resource.as_str()))
                        .map(|(group, resources)| (*group, resources.iter().find(|known| **known == resource.as_str())))
                });
                let (group, resource) = known?;
                on(group, &[*resource?], READ, rule.resource_names.clone())
            }
            (Narrower::Without(verbs), None) => {
                let all = rule.verbs.iter().any(|verb| verb == "*");
                let usual = if all { crate::rbac::VERBS.map(str::to_owned).to_vec() } else { rule.verbs.clone() };
                let kept: Vec<String> = usual.into_iter().filter(|verb| !Verbs::named(verb).any(verbs)).collect();
                (!kept.is_empty()).then(|| Rule { verbs: kept, ..rule.clone() })
            }
            _ => None,
        }
    }
}

/// What to grant instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// In words.
    pub(crate) text: &'static str,
    /// As a rule that the requested one covers, and that has no risk as severe.
    pub(crate) rule: Option<Rule>,
    /// Whether groups and resources of that rule are those of the catalogue.
    is_catalogued: bool,
}

impl Alternative {
    /// The rule without any value of the requested one: names become `NAME`.
    pub(crate) fn shown(self) -> Option<Rule> {
        let mut rule = self.rule.filter(|_| self.is_catalogued)?;
        if !rule.resource_names.is_empty() {
            rule.resource_names = vec!["NAME".to_owned()];
        }
        Some(rule)
    }
}

/// The risks of a request; `server` is its version, if known. In the order of the rules, then of the catalogue; the
/// same permissions have the same risks however they are split into rules.
pub(crate) fn risks(requested: &[Requested<'_>], server: Option<(u32, u32)>) -> Vec<Risk> {
    let index = &*INDEX;
    let asked: Vec<Asked<'_>> = requested.iter().map(|(rule, _)| Asked::of(rule)).collect();
    let mut hits: Vec<Vec<Hit>> = Vec::with_capacity(requested.len());
    for (asked, (_, namespace)) in asked.iter().zip(requested) {
        hits.push(index.hits(asked, *namespace, server));
    }
    drop_create_without_patch(requested, &asked, &mut hits);
    let everything = everything(requested, &asked);
    let mut facts = AllFacts::default();
    for (((rule, namespace), hits), is_all) in requested.iter().zip(&mut hits).zip(&everything) {
        for hit in hits.iter_mut() {
            hit.facts = hit.own_facts();
            let elsewhere = hit.place_is_named && namespace.is_none();
            if elsewhere {
                rule.resource_names.iter().for_each(|name| facts.add(Some(name), hit.facts));
            } else {
                facts.add(*namespace, hit.facts);
            }
        }
        if is_all.is_some() {
            facts.add(*namespace, Facts::EVERYTHING);
        }
    }
    same_secrets(requested, &mut hits, &mut facts);

    let of_rule = |number: usize| {
        of_rule(number, requested[number], &asked[number], &hits[number], &facts, everything[number], server)
    };
    let mut found: Vec<Risk> = (0..requested.len()).flat_map(of_rule).collect();
    if found.iter().any(|risk| risk.code() == "risk-r03") {
        found.retain(|risk| risk.code() != "risk-r04");
    }
    found
}

/// The risks of one rule, in the order of the catalogue: for each entry that of the resource where it is worst.
fn of_rule(
    number: usize,
    (rule, namespace): Requested<'_>,
    asked: &Asked<'_>,
    hits: &[Hit],
    facts: &AllFacts,
    everything: Option<usize>,
    server: Option<(u32, u32)>,
) -> Vec<Risk> {
    let mut own: BTreeMap<usize, Risk> = BTreeMap::new();
    let mut add = |entry: usize, risk: Risk| match own.get_mut(&entry) {
        Some(known) if known.severity >= risk.severity => {}
        Some(known) => *known = risk,
        None => drop(own.insert(entry, risk)),
    };
    let base = |entry: usize, pointer: String| Risk {
        entry: &CATALOG[entry],
        severity: CATALOG[entry].level(namespace),
        rule: number,
        pointer,
        whole_cluster: namespace.is_none(),
        together: None,
        only_get: false,
        named: false,
        target: None,
        server,
    };
    for hit in hits {
        let Some(entry) = hit.entry else { continue };
        let others = match namespace {
            None if hit.place_is_named => facts.of_names(&rule.resource_names),
            namespace => facts.reached(namespace),
        };
        let catalogued = &CATALOG[entry];
        let pointer = match catalogued.element {
            Element::Resource => format!("/resources/{}", hit.resource),
            Element::Verb => format!("/verbs/{}", asked.verb_at(hit.target.verbs)),
        };
        let together = catalogued.together.iter().find(|it| hit.facts.any(it.own) && others.any(it.other));
        let severity = hit.level(catalogued, namespace);
        add(
            entry,
            Risk {
                severity: if together.is_some() { severity.raised() } else { severity },
                together: together.map(|together| together.text),
                only_get: hit.target.get_before_1_35 && hit.verbs == Verbs::GET,
                // The text of risk-r04 names them.
                named: hit.named && !hit.place_is_named && catalogued.code != "risk-r04",
                target: Some(hit.target),
                ..base(entry, pointer)
            },
        );
    }
    if let Some(resource) = everything {
        add(position("risk-r01"), base(position("risk-r01"), format!("/resources/{resource}")));
    }
    if let Some(verb) = asked.constrained_impersonation() {
        add(position("risk-r15"), base(position("risk-r15"), format!("/verbs/{verb}")));
    }
    if let Some(group) = asked.every_group(namespace) {
        add(position("risk-r35"), base(position("risk-r35"), format!("/apiGroups/{group}")));
    }
    if let Some(resource) = asked.every_resource(namespace) {
        let entry = position("risk-r36");
        let risk = base(entry, format!("/resources/{resource}"));
        let severity = if asked.has_group("") { risk.severity } else { Level::Medium };
        add(entry, Risk { severity, ..risk });
    }
    if let Some(verb) = asked.deletes_collections(namespace) {
        add(position("risk-r37"), base(position("risk-r37"), format!("/verbs/{verb}")));
    }
    own.into_values().collect()
}

/// The position of a code in the catalogue.
fn position(code: &str) -> usize {
    CATALOG.iter().position(|entry| entry.code == code).unwrap_or_default()
}

impl Entry {
    /// The level in a namespace, or in the whole cluster.
    fn level(&self, namespace: Option<&str>) -> Level {
        let Some(namespace) = namespace else { return self.cluster };
        let usual = self.namespaced.unwrap_or(self.cluster);
        match self.code {
            "risk-r25" if namespace == "kube-system" => self.cluster,
            _ if SYSTEM_NAMESPACES.contains(&namespace) => self.system.unwrap_or(usual),
            _ => usual,
        }
    }
}

/// A rule, prepared for comparisons.
struct Asked<'a> {
    rule: &'a Rule,
    verbs: Verbs,
    named: bool,
    /// Sorted.
    groups: Vec<&'a str>,
    wildcard_group: bool,
    /// Index of the resource `*`.
    wildcard_resource: Option<usize>,
}

impl<'a> Asked<'a> {
    fn of(rule: &'a Rule) -> Self {
        let mut groups: Vec<&str> = rule.api_groups.iter().map(String::as_str).collect();
        groups.sort_unstable();
        Self {
            rule,
            verbs: rule.verbs.iter().fold(Verbs::NONE, |verbs, verb| verbs | Verbs::named(verb)),
            named: !rule.resource_names.is_empty(),
            wildcard_group: groups.contains(&"*"),
            groups,
            wildcard_resource: rule.resources.iter().position(|resource| resource == "*"),
        }
    }

    fn has_group(&self, group: &str) -> bool {
        self.wildcard_group || self.groups.binary_search(&group).is_ok()
    }

    /// Whether it allows nothing on resources.
    fn grants_nothing(&self) -> bool {
        self.rule.verbs.is_empty() || self.groups.is_empty() || self.names_nothing()
    }

    /// Whether each name is a wildcard, which as a name is that of no object.
    fn names_nothing(&self) -> bool {
        let may_be = |name: &String| {
            !name.contains('*') || self.rule.resources.iter().any(|resource| may_have_asterisk(resource, name))
        };
        self.named && !self.rule.resource_names.iter().any(may_be)
    }

    /// Index of the resource `*`, where it reaches anything: a Role reaches nothing in groups without namespaced resources,
    /// and no deletecollection has a name.
    fn every_resource(&self, namespace: Option<&str>) -> Option<usize> {
        let catalog = Catalog::embedded();
        let has_none = |group: &&str| {
            let mut resources = catalog.in_group(group).peekable();
            resources.peek().is_some() && resources.all(|resource| !resource.namespaced)
        };
        let is_out_of_scope = || namespace.is_some() && self.groups.iter().all(has_none);
        let is_unnamed = self.named && self.rule.verbs.iter().all(|verb| verb == "deletecollection");
        self.wildcard_resource.filter(|_| !self.grants_nothing() && !is_unnamed && !is_out_of_scope())
    }

    /// Index of the first verb that is one of these.
    fn verb_at(&self, verbs: Verbs) -> usize {
        self.rule.verbs.iter().position(|verb| Verbs::named(verb).any(verbs)).unwrap_or_default()
    }

    fn constrained_impersonation(&self) -> Option<usize> {
        let is = |verb: &String| verb.starts_with("impersonate:") || verb.starts_with("impersonate-on:");
        let on_something = !self.groups.is_empty() && !self.rule.resources.is_empty();
        self.rule.verbs.iter().position(is).filter(|_| on_something && !self.names_nothing())
    }

    /// Index of the group `*`, where resources are listed that can exist.
    fn every_group(&self, namespace: Option<&str>) -> Option<usize> {
        let of_collections = Verbs::LIST | Verbs::CREATE | Verbs::DELETECOLLECTION;
        let reaches = |resource: &String| match resource.as_str() {
            "namespaces" => namespace.is_none() || self.verbs.without(of_collections) != Verbs::NONE,
            resource => namespace.is_none() || !CLUSTER_SCOPED.iter().any(|(_, known)| known.contains(&resource)),
        };
        let listed = self.rule.resources.iter().any(|resource| !resource.ends_with("/*") && reaches(resource));
        let is_risk = listed && self.wildcard_resource.is_none() && !self.grants_nothing();
        self.rule.api_groups.iter().position(|group| group == "*").filter(|_| is_risk)
    }

    /// Index of the verb that allows deletecollection, where a resource has it.
    fn deletes_collections(&self, namespace: Option<&str>) -> Option<usize> {
        let is_dead = |resource: &str| {
            let of_group = |group: &&str| {
                CLUSTER_SCOPED.iter().any(|(known, resources)| known == group && resources.contains(&resource))
            };
            match resource {
                "*" => self.every_resource(namespace).is_none(),
                _ if resource.contains('/') => true,
                _ => namespace.is_some() && !self.wildcard_group && self.groups.iter().all(of_group),
            }
        };
        let reaches = !self.named && self.rule.resources.iter().any(|resource| !is_dead(resource));
        let has = self.verbs.any(Verbs::DELETECOLLECTION) && reaches && !self.groups.is_empty();
        has.then(|| self.verb_at(Verbs::DELETECOLLECTION))
    }
}

/// A resource of the catalogue that a rule reaches.
struct Hit {
    entry: Option<usize>,
    target: &'static Target,
    /// The verbs that have an effect.
    verbs: Verbs,
    named: bool,
    /// Index of the resource in the rule.
    resource: usize,
    /// Whether the names are those of namespaces.
    place_is_named: bool,
    facts: Facts,
}

impl Hit {
    fn own_facts(&self) -> Facts {
        let (fact, create) = (self.target.fact, self.verbs.any(Verbs::CREATE));
        if fact == Facts::START_PODS && !create {
            return Facts::NONE;
        }
        if fact == Facts::WRITE_SECRETS {
            return match (self.named, create) {
                (false, true) => fact.and(Facts::CREATE_SECRETS),
                (false, false) | (true, true) => fact,
                (true, false) => Facts::NONE,
            };
        }
        fact
    }

    fn level(&self, entry: &Entry, namespace: Option<&str>) -> Level {
        let level = self.target.level().unwrap_or_else(|| entry.level(namespace));
        let lower = self.named && entry.lower_with_names && !self.verbs.any(Verbs::CREATE);
        if lower { level.lowered() } else { level }
    }

    /// Whether names limit a create of it: it has no name in the request, unless it is a subresource.
    fn is_created_without_name(&self) -> bool {
        self.named && self.verbs.any(Verbs::CREATE) && !self.target.resource.contains('/')
    }
}

/// The catalogue by resource.
struct Index {
    targets: Vec<(Option<usize>, &'static Target)>,
    by_resource: HashMap<&'static str, Vec<usize>>,
    by_subresource: HashMap<&'static str, Vec<usize>>,
}

/// Made on first use.
static INDEX: LazyLock<Index> = LazyLock::new(Index::new);

impl Index {
    fn new() -> Self {
        let of_entry =
            |(number, entry): (usize, &'static Entry)| entry.targets.iter().map(move |target| (Some(number), target));
        let targets: Vec<(Option<usize>, &'static Target)> =
            CATALOG.iter().enumerate().flat_map(of_entry).chain(PARTS.iter().map(|target| (None, target))).collect();
        let (mut by_resource, mut by_subresource) = (HashMap::new(), HashMap::new());
        for (number, (_, target)) in targets.iter().enumerate() {
            by_resource.entry(target.resource).or_insert_with(Vec::new).push(number);
            if let Some((_, subresource)) = target.resource.split_once('/') {
                by_subresource.entry(subresource).or_insert_with(Vec::new).push(number);
            }
        }
        Self { targets, by_resource, by_subresource }
    }

    /// The resources of the catalogue that a rule reaches.
    fn hits(&self, asked: &Asked<'_>, namespace: Option<&str>, server: Option<(u32, u32)>) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        if asked.names_nothing() {
            return hits;
        }
        for (resource, text) in asked.rule.resources.iter().enumerate() {
            let all = (text == "*").then_some(0..self.targets.len()).into_iter().flatten();
            let same = self.by_resource.get(known_name(text)).into_iter().flatten().copied();
            let sub = text.strip_prefix("*/").and_then(|sub| self.by_subresource.get(sub)).into_iter().flatten();
            for number in all.chain(same).chain(sub.copied()) {
                let (entry, target) = self.targets[number];
                let is_known = |hit: &Hit| hit.entry == entry && std::ptr::eq(hit.target, target);
                if asked.has_group(target.group) && !hits.iter().any(is_known) {
                    hits.extend(hit(asked, namespace, server, entry, target, resource));
                }
            }
        }
        hits
    }
}

/// The name under which the catalogue has a resource: each key of userextras is a subresource.
fn known_name(resource: &str) -> &str {
    if resource.starts_with("userextras/") { "userextras" } else { resource }
}

fn hit(
    asked: &Asked<'_>,
    namespace: Option<&str>,
    server: Option<(u32, u32)>,
    entry: Option<usize>,
    target: &'static Target,
    resource: usize,
) -> Option<Hit> {
    let names = &asked.rule.resource_names;
    let mut verbs = asked.verbs.both(target.verbs);
    match (target.within, namespace) {
        (Within::Cluster, Some(_)) => return None,
        // The server takes the namespace of such a request for the name.
        (Within::OwnNamespace, Some(own)) if asked.named && !names.iter().any(|name| name == own) => return None,
        _ => {}
    }
    if target.get_before_1_35 && server.is_some_and(|version| version >= CREATE_FOR_UPGRADES) {
        verbs = verbs.without(Verbs::GET);
    }
    if asked.named && !target.resource.contains('/') {
        verbs = verbs.without(Verbs::DELETECOLLECTION);
    }
    let code = entry.map(|entry| CATALOG[entry].code);
    let is_none = match code {
        Some("risk-r03") => asked.named,
        Some("risk-r04") => !asked.named,
        Some("risk-r21") => asked.named && !names.iter().any(|name| name.starts_with("kubernetes.io/")),
        _ => false,
    };
    let place_is_named = target.within == Within::OwnNamespace && asked.named;
    let hit = Hit { entry, target, verbs, named: asked.named, resource, place_is_named, facts: Facts::NONE };
    (!is_none && verbs != Verbs::NONE).then_some(hit)
}

/// Drops a create that is limited by names, because a POST has none: it stays where the same names can be patched,
/// because server-side apply is a PATCH that creates.
fn drop_create_without_patch(requested: &[Requested<'_>], asked: &[Asked<'_>], hits: &mut [Vec<Hit>]) {
    let is_open = |hit: &Hit, asked: &Asked<'_>| hit.is_created_without_name() && !asked.verbs.any(Verbs::PATCH);
    let any = hits.iter().zip(asked).any(|(hits, asked)| hits.iter().any(|hit| is_open(hit, asked)));
    if !any {
        return;
    }
    // Names that can be patched, by namespace and resource; none for all names.
    let mut patched: HashSet<(Option<&str>, &str, &str, Option<&str>)> = HashSet::new();
    for ((rule, namespace), (hits, asked)) in requested.iter().zip(hits.iter().zip(asked)) {
        for hit in hits.iter().filter(|_| asked.verbs.any(Verbs::PATCH)) {
            let (group, resource) = (hit.target.group, hit.target.resource);
            if hit.named {
                let names = rule.resource_names.iter();
                patched.extend(names.map(|name| (*namespace, group, resource, Some(name.as_str()))));
            } else {
                patched.insert((*namespace, group, resource, None));
            }
        }
    }
    for ((rule, namespace), (hits, asked)) in requested.iter().zip(hits.iter_mut().zip(asked)) {
        for hit in hits.iter_mut().filter(|hit| is_open(hit, asked)) {
            let (group, resource) = (hit.target.group, hit.target.resource);
            let is_patched = [*namespace, None].into_iter().any(|place| {
                let mut names = rule.resource_names.iter();
                patched.contains(&(place, group, resource, None))
                    || names.any(|name| patched.contains(&(place, group, resource, Some(name.as_str()))))
            });
            if !is_patched {
                hit.verbs = hit.verbs.without(Verbs::CREATE);
            }
        }
        hits.retain(|hit| hit.verbs != Verbs::NONE);
    }
}

/// Marks the Secrets that can be created by name, with server-side apply, and read by the same name.
fn same_secrets(requested: &[Requested<'_>], hits: &mut [Vec<Hit>], facts: &mut AllFacts) {
    let is_create = |hit: &Hit| hit.named && hit.target.fact == Facts::WRITE_SECRETS && hit.verbs.any(Verbs::CREATE);
    let is_read = |hit: &Hit| hit.named && hit.target.fact == Facts::READ_NAMED_SECRETS;
    if !hits.iter().flatten().any(is_create) {
        return;
    }
    let created = secret_names(requested, hits, is_create);
    let read = secret_names(requested, hits, is_read);
    for ((rule, namespace), hits) in requested.iter().zip(hits.iter_mut()) {
        for hit in hits.iter_mut() {
            let others = match (is_create(hit), is_read(hit)) {
                (true, _) => &read,
                (_, true) => &created,
                _ => continue,
            };
            let meets = |name: &String| match namespace {
                None => others.anywhere.contains(name.as_str()),
                own => [*own, None].into_iter().any(|place| others.places.contains(&(place, name.as_str()))),
            };
            if rule.resource_names.iter().any(meets) {
                hit.facts = hit.facts.and(Facts::CREATE_AND_READ_NAMED);
                facts.add(*namespace, Facts::CREATE_AND_READ_NAMED);
            }
        }
    }
}

/// Names of Secrets.
struct SecretNames<'a> {
    places: HashSet<(Option<&'a str>, &'a str)>,
    anywhere: HashSet<&'a str>,
}

/// The names in rules with such a hit.
fn secret_names<'a>(requested: &[Requested<'a>], hits: &[Vec<Hit>], of: impl Fn(&Hit) -> bool) -> SecretNames<'a> {
    let with = requested.iter().zip(hits).filter(|(_, hits)| hits.iter().any(&of));
    let names =
        with.flat_map(|((rule, namespace), _)| rule.resource_names.iter().map(|name| (*namespace, name.as_str())));
    let places: HashSet<_> = names.collect();
    SecretNames { anywhere: places.iter().map(|(_, name)| *name).collect(), places }
}

/// For each rule that has a part in everything, the index of its resource `*`: rules of one scope are judged together.
fn everything(requested: &[Requested<'_>], asked: &[Asked<'_>]) -> Vec<Option<usize>> {
    const ALL: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let of = |asked: &Asked<'_>| {
        let star = asked.wildcard_resource.filter(|_| asked.wildcard_group && !asked.named);
        star.map(|resource| (resource, asked.verbs))
    };
    let mut held: HashMap<Option<&str>, Verbs> = HashMap::new();
    for ((_, namespace), asked) in requested.iter().zip(asked) {
        if let Some((_, verbs)) = of(asked) {
            let known = held.entry(*namespace).or_default();
            *known = *known | verbs;
        }
    }
    let all = ALL.iter().fold(Verbs::NONE, |verbs, verb| verbs | Verbs::named(verb));
    let cluster = held.get(&None).copied().unwrap_or_default();
    let is_all = |namespace: Option<&str>| {
        let own = held.get(&namespace).copied().unwrap_or_default();
        (own | cluster).both(all) == all
    };
    let parts = requested.iter().zip(asked);
    parts
        .map(|((_, namespace), asked)| {
            of(asked).filter(|(_, verbs)| verbs.any(all) && is_all(*namespace)).map(|(resource, _)| resource)
        })
        .collect()
}

/// The facts of a request, by namespace.
#[derive(Default)]
struct AllFacts {
    cluster: Facts,
    namespaces: HashMap<String, Facts>,
    all: Facts,
}

impl AllFacts {
    fn add(&mut self, namespace: Option<&str>, facts: Facts) {
        if facts == Facts::NONE {
            return;
        }
        self.all = self.all.and(facts);
        match namespace {
            None => self.cluster = self.cluster.and(facts),
            Some(namespace) => {
                let known = self.namespaces.entry(namespace.to_owned()).or_default();
                *known = known.and(facts);
            }
        }
    }

    fn of(&self, namespace: &str) -> Facts {
        self.namespaces.get(namespace).copied().unwrap_or_default().and(self.cluster)
    }

    /// The facts that a permission meets: in its namespace and in the whole cluster; cluster-wide all of them.
    fn reached(&self, namespace: Option<&str>) -> Facts {
        namespace.map_or(self.all, |namespace| self.of(namespace))
    }

    fn of_names(&self, namespaces: &[String]) -> Facts {
        namespaces.iter().fold(self.cluster, |facts, namespace| facts.and(self.of(namespace)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::{Coverage, DeadRule, RuleInScope, VERBS, dead_rules, permissions_of};
    use proptest::{prelude::*, sample::subsequence};
    use rstest::rstest;

    /// A rule as `GROUPS RESOURCES VERBS [NAMES]`, each separated by commas; the core group is `core`.
    fn rule(text: &str) -> Rule {
        let mut parts = text.split_whitespace().map(|part| {
            part.split(',').map(|item| if item == "core" { String::new() } else { item.to_owned() }).collect()
        });
        let mut part = || parts.next().unwrap_or_default();
        Rule { api_groups: part(), resources: part(), verbs: part(), resource_names: part(), ..Rule::default() }
    }

    /// Rules with their places, as `PLACE: RULE; PLACE: RULE`; a place is a namespace or `*`.
    fn rules(text: &str) -> Vec<(Rule, Option<&str>)> {
        let one = |text: &str| text.trim().split_once(": ").map(|(place, text)| (place.to_owned(), rule(text)));
        let all = text.split(';').map(|text| one(text).unwrap());
        let places = text.split(';').map(|text| text.trim().split(':').next().unwrap());
        all.zip(places).map(|((_, rule), place)| (rule, (place != "*").then_some(place))).collect()
    }

    fn judged(rules: &[(Rule, Option<&str>)], server: Option<(u32, u32)>) -> Vec<Risk> {
        let requested: Vec<Requested<'_>> = rules.iter().map(|(rule, place)| (rule, *place)).collect();
        risks(&requested, server)
    }

    /// Risks as `r03 high`, with the number of the rule in front where there are several.
    fn summary(text: &str, server: Option<(u32, u32)>) -> String {
        let rules = rules(text);
        let one = |risk: &Risk| {
            let number = if rules.len() == 1 { String::new() } else { format!("{}:", risk.rule) };
            format!("{number}{} {}", risk.code().trim_start_matches("risk-"), risk.severity.as_str())
        };
        judged(&rules, server).iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn expect(table: &str, server: Option<(u32, u32)>) {
        let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let wrong: Vec<String> = lines
            .filter_map(|line| {
                let (text, expected) = line.split_once("=>").unwrap_or_else(|| panic!("{line}"));
                let found = summary(text, server);
                (found != expected.trim()).then(|| format!("{text}=>{} but {found}", expected.trim()))
            })
            .collect();
        assert_eq!(wrong, Vec::<String>::new());
    }

    /// A request, and its risks: each code in a namespace, in the whole cluster, in a system namespace, with names, and
    /// near misses.
    const SEVERITIES: &str = "
        a: * * get,list,watch,create,update,patch,delete => r01 critical, r03 critical, r05 critical, r06 critical, r07 critical, r08 high, r09 critical, r10 high, r11 high, r12 medium, r14 high, r18 critical, r19 high, r24 critical, r25 low, r27 medium, r28 medium, r29 medium, r30 medium, r32 high, r33 high, r36 high
        a: rbac.authorization.k8s.io roles * => r02 critical, r16 critical, r17 critical, r19 high, r37 medium
        a: rbac.authorization.k8s.io rolebindings * => r02 critical, r18 high, r37 medium
        *: rbac.authorization.k8s.io clusterroles * => r02 critical, r16 critical, r17 critical, r19 high, r37 medium
        *: rbac.authorization.k8s.io clusterrolebindings * => r02 critical, r18 critical, r37 medium
        a: rbac.authorization.k8s.io clusterrolebindings * =>
        a: core secrets get => r03 high
        a: core secrets list => r03 high
        a: core secrets watch => r03 high
        *: core secrets get => r03 critical
        kube-system: core secrets get => r03 critical
        kube-public: core secrets get => r03 critical
        kube-node-lease: core secrets get => r03 critical
        a: core secrets get,list x => r04 medium
        *: core secrets get x => r04 medium
        kube-system: core secrets get x => r04 medium
        a: core secrets delete =>
        a: core secrets create => r05 high
        a: core secrets update => r05 high
        a: core secrets patch => r05 high
        kube-system: core secrets create => r05 critical
        *: core secrets create => r05 critical
        a: core secrets update,patch x => r05 medium
        kube-system: core secrets patch x => r05 high
        a: core secrets create x =>
        a: core secrets create,patch x => r05 high
        a: core pods create => r06 high
        kube-system: core pods create => r06 critical
        *: core pods create => r06 critical
        a: core pods create x =>
        a: core pods create,patch x => r06 high, r08 medium
        a: apps deployments create => r07 high
        a: apps daemonsets,statefulsets,replicasets patch => r07 high
        a: core replicationcontrollers update => r07 high
        a: batch jobs,cronjobs create => r07 high
        a: extensions deployments create => r07 high
        a: argoproj.io workflows create => r07 high
        a: argoproj.io cronworkflows create => r07 high
        a: tekton.dev taskruns,pipelineruns create => r07 high
        a: serving.knative.dev services create => r07 high
        a: kubevirt.io virtualmachines create => r07 high
        *: apps deployments update x => r07 medium
        a: apps deployments update,patch x => r07 medium
        a: apps deployments delete =>
        a: core pods update => r08 high
        a: core pods patch x => r08 medium
        a: core pods/exec create => r09 high
        a: core pods/exec get => r09 high
        a: core pods/exec create x => r09 high
        kube-system: core pods/exec create => r09 critical
        *: core pods/exec create => r09 critical
        a: core pods/attach create => r10 high
        a: core pods/attach get => r10 high
        a: core pods/ephemeralcontainers patch => r11 high
        a: core pods/ephemeralcontainers get =>
        a: core pods/portforward create => r12 medium
        a: core pods/proxy get => r12 medium
        a: core services/proxy create => r12 medium
        *: core nodes/proxy get => r13 critical
        *: core nodes/proxy delete n1 => r13 critical
        a: core nodes/proxy get =>
        a: core serviceaccounts/token create => r14 high
        a: core serviceaccounts/token create x => r14 high
        *: core serviceaccounts/token create => r14 critical
        kube-system: core serviceaccounts/token create x => r14 critical
        *: core users impersonate => r15 critical
        *: core groups impersonate system:masters => r15 critical
        a: core serviceaccounts impersonate x => r15 critical
        a: core users impersonate =>
        *: authentication.k8s.io uids,userextras/scopes impersonate => r15 critical
        *: authentication.k8s.io users impersonate:user-info => r15 critical
        a: core pods impersonate-on:serviceaccount:list => r15 critical
        *: authentication.k8s.io nodes impersonate:arbitrary-node n1 => r15 critical
        a: authentication.k8s.io serviceaccounts impersonate:serviceaccount => r15 critical
        a: rbac.authorization.k8s.io roles escalate => r16 critical
        a: rbac.authorization.k8s.io roles escalate x => r16 critical
        *: rbac.authorization.k8s.io clusterroles escalate => r16 critical
        a: rbac.authorization.k8s.io clusterroles escalate =>
        a: rbac.authorization.k8s.io roles bind => r17 critical
        *: rbac.authorization.k8s.io clusterroles bind view => r17 critical
        a: rbac.authorization.k8s.io clusterroles bind => r17 critical
        a: rbac.authorization.k8s.io rolebindings create => r18 high
        *: rbac.authorization.k8s.io rolebindings create => r18 critical
        *: rbac.authorization.k8s.io clusterrolebindings patch => r18 critical
        a: rbac.authorization.k8s.io rolebindings patch x => r18 medium
        *: rbac.authorization.k8s.io rolebindings patch x => r18 high
        a: rbac.authorization.k8s.io roles patch => r19 high
        *: rbac.authorization.k8s.io clusterroles create => r19 high
        a: rbac.authorization.k8s.io roles patch x => r19 medium
        *: certificates.k8s.io certificatesigningrequests/approval update => r20 high
        *: certificates.k8s.io signers approve => r20 high
        *: certificates.k8s.io certificatesigningrequests create =>
        a: certificates.k8s.io signers approve =>
        *: certificates.k8s.io signers sign => r21 high
        *: certificates.k8s.io signers sign kubernetes.io/kube-apiserver-client => r21 high
        *: certificates.k8s.io signers sign example.com/mine =>
        *: admissionregistration.k8s.io mutatingwebhookconfigurations create => r22 critical
        *: admissionregistration.k8s.io validatingadmissionpolicies delete => r22 critical
        *: admissionregistration.k8s.io validatingadmissionpolicybindings delete x => r22 high
        *: admissionregistration.k8s.io validatingwebhookconfigurations patch x => r22 high
        *: admissionregistration.k8s.io mutatingadmissionpolicies,mutatingadmissionpolicybindings create => r22 critical
        a: admissionregistration.k8s.io mutatingwebhookconfigurations create =>
        *: core persistentvolumes create => r23 high
        *: core persistentvolumes create x =>
        *: core persistentvolumes create,patch x => r23 high
        a: core persistentvolumes create =>
        *: core namespaces patch => r24 high
        *: core namespaces patch b => r24 medium
        a: core namespaces update => r24 high
        a: core namespaces update a => r24 medium
        a: core namespaces/status patch => r24 high
        a: core namespaces/status get =>
        *: core namespaces/status update => r24 high
        a: core namespaces/finalize update => r24 high
        a: core namespaces/finalize patch =>
        a: core namespaces/status patch b =>
        a: core secrets get,patch *  =>
        a: core secrets get *,x => r04 medium
        a: * * get * =>
        a: apps * deletecollection x =>
        a: apps * get,deletecollection x => r36 medium
        a: apiextensions.k8s.io * get,patch =>
        a: admissionregistration.k8s.io * * =>
        *: node.k8s.io * get => r36 medium
        a: * nodes,clusterroles get =>
        *: * nodes get => r35 medium
        a: * namespaces list =>
        a: * namespaces get => r35 medium
        a: core namespaces update b =>
        a: core namespaces get,create =>
        a: core configmaps update => r25 low
        a: core configmaps patch x => r25 info
        kube-public: core configmaps update => r25 low
        kube-system: core configmaps update => r25 critical
        kube-system: core configmaps update coredns => r25 high
        *: core configmaps patch => r25 critical
        a: core configmaps create,delete =>
        *: core nodes update => r26 high
        *: core nodes/status patch => r26 high
        *: core nodes delete => r26 high
        a: core nodes update =>
        a: core pods delete =>
        a: core pods/status patch => r27 medium
        a: core pods/status patch x => r27 low
        a: core services/status patch => r27 low
        a: core services/status patch x => r27 info
        a: core services create => r28 medium
        a: core endpoints patch => r28 medium
        a: discovery.k8s.io endpointslices create => r28 medium
        a: networking.k8s.io ingresses,networkpolicies update => r28 medium
        a: gateway.networking.k8s.io httproutes patch => r28 medium
        a: core services patch x => r28 low
        a: core services delete =>
        a: core events delete => r29 medium
        a: events.k8s.io events delete => r29 medium
        a: core events create,patch =>
        a: core pods/log get => r30 low
        a: core pods/log delete =>
        *: apiextensions.k8s.io customresourcedefinitions create => r31 high
        *: apiregistration.k8s.io apiservices patch x => r31 medium
        a: apiregistration.k8s.io apiservices patch =>
        a: core serviceaccounts create => r32 medium
        a: core serviceaccounts patch x => r32 low
        a: external-secrets.io secretstores get => r33 high
        *: external-secrets.io clustersecretstores list => r33 high
        a: bitnami.com sealedsecrets watch => r33 high
        a: argoproj.io applications get => r33 high
        a: argoproj.io applications create => r33 high
        a: kustomize.toolkit.fluxcd.io kustomizations patch => r33 high
        a: helm.toolkit.fluxcd.io helmreleases update => r33 high
        a: helm.toolkit.fluxcd.io helmreleases get =>
        a: * widgets get => r35 medium
        a: * pods/* get =>
        a: apps * get => r36 medium
        a: example.com * list => r36 medium
        a: core widgets deletecollection => r37 medium
        a: core widgets deletecollection x =>
        a: core nodes deletecollection =>
        *: core nodes deletecollection => r26 high, r37 medium
        a: core pods/log deletecollection =>
        a: core pods get,list,watch =>
        a: apps deployments get,list,watch =>
    ";

    #[test]
    fn each_code_has_its_severities() {
        expect(SEVERITIES, None);
    }

    #[test]
    fn get_counts_as_connect_before_1_35_only() {
        let table = |get: &str| {
            format!(
                "a: core pods/exec get => {get}
                 a: core pods/exec create => r09 high
                 a: core pods/proxy get => r12 medium"
            )
        };
        expect(&table("r09 high"), None);
        expect(&table("r09 high"), Some((1, 34)));
        expect(&table(""), Some((1, 35)));
        expect("a: core pods/portforward,pods/attach get =>", Some((1, 37)));
        expect("a: core pods/portforward,pods/attach get => r10 high, r12 medium", Some((1, 34)));
        expect("a: * * get => r03 high, r09 high, r10 high, r12 medium, r30 low, r33 high, r36 high", Some((1, 34)));
        expect("a: * * get => r03 high, r12 medium, r30 low, r33 high, r36 high", Some((1, 37)));
    }

    #[test]
    fn combinations_raise_their_parts() {
        expect(
            "
            a: core secrets get,create => r03 critical, r05 critical
            a: core secrets list; a: core secrets patch => 0:r03 critical, 1:r05 critical
            a: core secrets get; b: core secrets create => 0:r03 high, 1:r05 high
            a: core secrets get; *: core secrets create => 0:r03 critical, 1:r05 critical
            a: core secrets get x; a: core secrets create => 0:r04 high, 1:r05 critical
            a: core secrets get,create,patch x => r04 high, r05 critical
            a: core secrets get x; a: core secrets create,patch y => 0:r04 medium, 1:r05 high
            a: core secrets get x; a: core secrets create x; a: core secrets patch x => 0:r04 high, 1:r05 critical, 2:r05 medium
            a: core secrets get x; a: core secrets update x => 0:r04 medium, 1:r05 medium
            a: core secrets get x; b: core secrets get => 1:r03 high
            a: core pods create; a: core pods/log get => 0:r06 critical, 1:r30 medium
            a: core pods,pods/exec create => r06 critical, r09 critical
            a: core pods create; b: core pods/exec create => 0:r06 high, 1:r09 high
            a: rbac.authorization.k8s.io rolebindings create; a: rbac.authorization.k8s.io roles bind x => 0:r18 critical, 1:r17 critical
            a: core namespaces patch; a: core pods create => 0:r24 critical, 1:r06 critical
            a: core namespaces/status patch; a: core pods create => 0:r24 critical, 1:r06 critical
            a: core namespaces patch a; a: apps deployments create => 0:r24 high, 1:r07 critical
            *: core namespaces patch b; a: core pods create => 0:r24 medium, 1:r06 high
            *: core namespaces patch a; a: core pods create => 0:r24 high, 1:r06 critical
            *: core namespaces patch; a: core pods create => 0:r24 critical, 1:r06 critical
            *: certificates.k8s.io certificatesigningrequests/approval update; *: certificates.k8s.io signers approve => 0:r20 critical, 1:r20 critical
            *: certificates.k8s.io signers approve; *: certificates.k8s.io certificatesigningrequests create => 0:r20 critical
            *: certificates.k8s.io certificatesigningrequests/approval patch; *: certificates.k8s.io certificatesigningrequests create => 0:r20 critical
            *: certificates.k8s.io signers sign; *: certificates.k8s.io certificatesigningrequests/status update => 0:r21 critical
            *: core nodes update; a: core pods delete => 0:r26 critical
            a: core serviceaccounts patch; a: core pods create => 0:r32 high, 1:r06 high
            a: core secrets create x; a: core secrets patch x => 0:r05 high, 1:r05 medium
            a: core secrets create x; a: core secrets patch => 0:r05 high, 1:r05 high
            a: core secrets create x; b: core secrets patch x => 1:r05 medium
            a: * * get,list,watch; a: * * create,update,patch,delete,bind => 0:r01 critical, 0:r03 critical, 0:r09 critical, 0:r10 high, 0:r12 medium, 0:r30 medium, 0:r33 high, 0:r36 high, 1:r01 critical, 1:r05 critical, 1:r06 critical, 1:r07 critical, 1:r08 high, 1:r09 critical, 1:r10 high, 1:r11 high, 1:r12 medium, 1:r14 high, 1:r17 critical, 1:r18 critical, 1:r19 high, 1:r24 critical, 1:r25 low, 1:r27 medium, 1:r28 medium, 1:r29 medium, 1:r32 high, 1:r33 high, 1:r36 high
            ",
            None,
        );
    }

    /// The mistakes of scanners that judge credentials after they were issued.
    #[test]
    fn mistakes_of_scanners_are_avoided() {
        expect(
            "
            a: metrics.k8s.io pods get,create =>
            a: example.com secrets get =>
            a: serving.example.com services create =>
            a: core * create => r05 high, r06 critical, r07 high, r09 critical, r10 high, r12 medium, r14 high, r28 medium, r32 high, r36 high
            a: core pods * => r06 high, r08 high, r37 medium
            a: * secrets list => r03 high, r35 medium
            a: core */exec create => r09 high
            a: * */exec create => r09 high, r35 medium
            *: core */proxy get => r12 medium, r13 critical
            a: core pods/* create =>
            a: core */* create =>
            a: core */token create => r14 high
            a: rbac.authorization.k8s.io roles patch => r19 high
            a: apps deployments patch => r07 high
            a: rbac.authorization.k8s.io rolebindings bind =>
            *: rbac.authorization.k8s.io clusterrolebindings bind =>
            a: core secrets get only-this => r04 medium
            a: core secrets get * =>
            a: legacy secrets get =>
            a: core nodes get,list,update,delete =>
            a: core persistentvolumes create,delete =>
            ",
            None,
        );
        // The core group has no other name.
        let spelled = Rule { api_groups: vec!["core".to_owned()], ..rule("core secrets get") };
        assert!(risks(&[(&spelled, Some("a"))], None).is_empty());
    }

    #[rstest]
    #[case("a: core pods,secrets delete,get", "risk-r03", "/resources/1")]
    #[case("a: core,rbac.authorization.k8s.io roles get,escalate", "risk-r16", "/verbs/1")]
    #[case("a: core,rbac.authorization.k8s.io roles get,*", "risk-r17", "/verbs/1")]
    #[case("a: core,* widgets get", "risk-r35", "/apiGroups/1")]
    #[case("a: apps widgets,* get", "risk-r36", "/resources/1")]
    #[case("a: apps widgets get,deletecollection", "risk-r37", "/verbs/1")]
    #[case("a: core services/status,pods/status patch", "risk-r27", "/resources/1")]
    fn pointer_names_the_worst_element(#[case] text: &str, #[case] code: &str, #[case] pointer: &str) {
        let found = judged(&rules(text), None);
        let risk = found.iter().find(|risk| risk.code() == code).unwrap();
        assert_eq!(risk.pointer, pointer);
    }

    #[test]
    fn alternative_is_a_narrower_rule() {
        let alternative = |text: &str, code: &str| {
            let rules = rules(text);
            let risk = judged(&rules, None).into_iter().find(|risk| risk.code() == code).unwrap();
            risk.alternative((&rules[0].0, rules[0].1)).rule
        };
        assert_eq!(alternative("a: core secrets,pods get", "risk-r03"), Some(rule("core secrets get NAME")));
        assert_eq!(alternative("a: core secrets list", "risk-r03"), Some(rule("core secrets list NAME")));
        assert_eq!(
            alternative("a: apps deployments get,list,patch x", "risk-r07"),
            Some(rule("apps deployments get x"))
        );
        assert_eq!(alternative("a: * * *", "risk-r03"), Some(rule("core secrets get NAME")));
        assert_eq!(alternative("a: apps * get,patch", "risk-r07"), Some(rule("apps deployments patch NAME")));
        assert_eq!(alternative("a: apps deployments get,patch x", "risk-r07"), Some(rule("apps deployments get x")));
        assert_eq!(alternative("a: * pods get", "risk-r35"), Some(rule("core pods get")));
        assert_eq!(alternative("a: * secrets get", "risk-r35"), None);
        assert_eq!(alternative("a: core namespaces get,list,patch", "risk-r24"), Some(rule("core namespaces get")));
        assert_eq!(alternative("a: core namespaces patch", "risk-r24"), None);
        assert_eq!(alternative("*: core namespaces patch", "risk-r24"), Some(rule("core namespaces patch NAME")));
        let approval = "*: certificates.k8s.io certificatesigningrequests/approval get,list,watch,update";
        let get = "certificates.k8s.io certificatesigningrequests/approval get";
        assert_eq!(alternative(approval, "risk-r20"), Some(rule(get)));
        assert_eq!(alternative("a: core pods/exec create", "risk-r09"), None);
        assert_eq!(alternative("a: core widgets get,deletecollection", "risk-r37"), Some(rule("core widgets get")));
        let all = alternative("a: * * *", "risk-r01").unwrap();
        assert_eq!(all, rule("apps deployments get,list,watch,patch"));
    }

    /// Whatever is asked on whatever the catalogue knows, what is shown instead has no element that matches nothing.
    #[test]
    fn alternatives_have_no_dead_element() {
        let everything =
            "get,list,watch,create,update,patch,delete,deletecollection,escalate,bind,impersonate,approve,sign,*";
        let mut shown = 0;
        for (entry, target) in CATALOG.iter().flat_map(|entry| entry.targets.iter().map(move |target| (entry, target)))
        {
            for verbs in everything.split(',').chain([everything, "get,list,watch,update,patch"]) {
                for namespace in [Some("a"), None] {
                    let asked = Rule {
                        api_groups: vec![target.group.to_owned()],
                        resources: vec![target.resource.to_owned()],
                        verbs: verbs.split(',').map(str::to_owned).collect(),
                        ..Rule::default()
                    };
                    for risk in risks(&[(&asked, namespace)], None) {
                        let Some(rule) = risk.alternative((&asked, namespace)).shown() else { continue };
                        let it = RuleInScope { pointer: "", rule: &rule, namespaces: vec![namespace] };
                        let dead = dead_rules(&[it], &[], Catalog::embedded());
                        let is_serious = |dead: &&DeadRule| dead.level > Level::Low;
                        assert_eq!(
                            dead.iter().find(is_serious),
                            None,
                            "{} {verbs} in {namespace:?}: {rule:?}",
                            entry.code
                        );
                        shown += 1;
                    }
                }
            }
        }
        assert!(shown > 100, "{shown}");
    }

    #[test]
    fn consequence_names_scope_and_combination() {
        let text = |text: &str| judged(&rules(text), None)[0].consequence();
        assert!(text("*: core secrets get").contains("in the whole cluster"));
        assert!(text("a: core secrets get").contains("in the namespace"));
        assert!(text("a: core secrets get,create").contains("together with write access to Secrets"));
        assert!(text("a: core pods/exec get").ends_with("get is enough on servers before 1.35"));
        assert!(!text("a: core pods/exec create").contains("1.35"));
    }

    /// Each preset of the form that is at least high names the worst risk in the comment above it.
    #[test]
    fn presets_explain_high_risks() {
        let text = include_str!("../../../massdriver.yaml");
        let bundle: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let presets = bundle["params"]["examples"].as_array().unwrap();
        let mut found = Vec::new();
        for preset in presets {
            let rules: Vec<Rule> = serde_json::from_value(preset["rules"].clone()).unwrap();
            let requested: Vec<Requested<'_>> = rules.iter().map(|rule| (rule, Some("team-a"))).collect();
            let risks = risks(&requested, None);
            let worst = risks.iter().map(|risk| risk.severity).max().unwrap();
            let first = risks.iter().find(|risk| risk.severity == worst).unwrap();
            let name = preset["__name"].as_str().unwrap();
            let before = text.split(&format!("    - __name: {name}\n")).next().unwrap();
            let comment: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with("    #")).collect();
            let explains = comment.iter().any(|line| line.contains(first.code()));
            assert!(worst < Level::High || explains, "{name} does not explain {}", first.code());
            found.push(format!("{name}: {} {}", first.code(), worst.as_str()));
        }
        assert_eq!(found, ["Admin: risk-r01 critical", "Read-only: risk-r30 low", "Debugging: risk-r12 medium"]);
    }

    #[test]
    fn entries_are_complete_and_in_order() {
        let codes: Vec<&str> = CATALOG.iter().map(|entry| entry.code).collect();
        let expected: Vec<String> =
            (1..=37).filter(|number| *number != 34).map(|number| format!("risk-r{number:02}")).collect();
        assert_eq!(codes, expected);
        for entry in CATALOG {
            assert!(!entry.consequence.is_empty() && !entry.instead.is_empty(), "{}", entry.code);
            assert!(!entry.targets.is_empty() || !entry.when.is_empty(), "{}", entry.code);
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let groups = ["", "*", "apps", "rbac.authorization.k8s.io", "certificates.k8s.io", "argoproj.io", "batch"];
        let resources = [
            "*",
            "*/exec",
            "secrets",
            "pods",
            "pods/exec",
            "pods/log",
            "pods/status",
            "deployments",
            "jobs",
            "roles",
            "rolebindings",
            "clusterroles",
            "namespaces",
            "nodes",
            "configmaps",
            "signers",
            "applications",
            "widgets",
            "services",
            "serviceaccounts",
            "events",
        ];
        let verbs = [VERBS.to_vec(), vec!["*", "escalate", "bind", "impersonate", "approve", "sign"]].concat();
        let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        (
            subsequence(groups.to_vec(), 1..=2),
            subsequence(resources.to_vec(), 1..=3),
            subsequence(verbs, 1..=4),
            subsequence(vec!["x", "a"], 0..=1),
        )
            .prop_map(move |(groups, resources, verbs, names)| Rule {
                api_groups: owned(groups),
                resources: owned(resources),
                verbs: owned(verbs),
                resource_names: owned(names),
                ..Rule::default()
            })
    }

    fn any_place() -> impl Strategy<Value = Option<&'static str>> {
        prop::sample::select(vec![None, Some("a"), Some("kube-system")])
    }

    /// The worst severity of each code.
    fn worst(risks: &[Risk]) -> BTreeMap<&'static str, Level> {
        let mut worst = BTreeMap::new();
        for risk in risks {
            let known = worst.entry(risk.code()).or_insert(risk.severity);
            *known = risk.severity.max(*known);
        }
        worst
    }

    proptest! {
        #[test]
        fn alternatives_are_covered_and_less_severe(rule in any_rule(), place in any_place(), new in any::<bool>()) {
            let server = new.then_some((1, 37));
            let held: Coverage<'_> = rule.permissions(place).collect();
            for risk in risks(&[(&rule, place)], server) {
                let Some(narrower) = risk.alternative((&rule, place)).rule else { continue };
                prop_assert!(!narrower.verbs.is_empty());
                let named = narrower.permissions(place).all(|permission| held.covers(permission));
                prop_assert!(named, "{narrower:?} is not covered by {rule:?}");
                for left in risks(&[(&narrower, place)], server) {
                    prop_assert!(left.severity < risk.severity, "{} {narrower:?}", left.code());
                }
            }
        }

        #[test]
        fn severities_are_those_of_the_catalogue(rules in prop::collection::vec((any_rule(), any_place()), 1..4)) {
            for risk in judged(&rules, None) {
                prop_assert!(risk.entry.levels().contains(&risk.severity), "{} {:?}", risk.code(), risk.severity);
            }
        }

        #[test]
        fn splitting_and_order_keep_the_risks(rules in prop::collection::vec((any_rule(), any_place()), 1..4)) {
            let whole = worst(&judged(&rules, None));
            let mut split: Vec<(Rule, Option<&str>)> = rules
                .iter()
                .flat_map(|(rule, place)| {
                    let of_verb = |verb: &String| (Rule { verbs: vec![verb.clone()], ..rule.clone() }, *place);
                    rule.verbs.iter().map(of_verb).collect::<Vec<_>>()
                })
                .collect();
            split.reverse();
            prop_assert_eq!(worst(&judged(&split, None)), whole);
        }

        #[test]
        fn more_permissions_never_lower_a_risk(rules in prop::collection::vec((any_rule(), any_place()), 1..3), more in any_rule()) {
            let before = worst(&judged(&rules, None));
            let wider: Vec<(Rule, Option<&str>)> = rules.iter().cloned().chain([(more, Some("a"))]).collect();
            let after = worst(&judged(&wider, None));
            for (code, level) in before.iter().filter(|(code, _)| **code != "risk-r04") {
                prop_assert!(after.get(code).is_some_and(|now| now >= level), "{code}");
            }
        }

        #[test]
        fn cluster_scope_is_never_less_severe(rule in any_rule()) {
            let cluster = worst(&risks(&[(&rule, None)], None));
            for place in ["b", "kube-system"] {
                for (code, level) in worst(&risks(&[(&rule, Some(place))], None)) {
                    prop_assert!(cluster.get(code).is_some_and(|wide| *wide >= level), "{code} in {place}");
                }
            }
        }
    }

    /// Server-side apply creates a named object with create and patch, also where these are in two rules: so patch is found
    /// wherever create is.
    #[test]
    fn patch_is_known_of_every_resource_whose_creation_counts() {
        let targets = || INDEX.targets.iter().map(|(_, target)| *target);
        for created in targets().filter(|it| it.verbs.any(Verbs::CREATE) && !it.resource.contains('/')) {
            let is_patch = |it: &&Target| {
                it.verbs.any(Verbs::PATCH) && it.group == created.group && it.resource == created.resource
            };
            assert!(targets().any(|it| is_patch(&it)), "{} {}", created.group, created.resource);
        }
    }

    #[test]
    fn risks_of_permissions_that_match_nothing_are_none() {
        let dead = [rule("core pods/* *"), rule("core */* *")];
        assert!(permissions_of(&dead, None).all(|permission| permission.matches_nothing()));
        assert!(dead.iter().all(|rule| risks(&[(rule, None)], None).is_empty()));
    }
}
