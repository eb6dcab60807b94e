//! Fixtures of the tests of this folder: a request, the live objects of its instance, and the snapshot of both. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    credential::access_checks::Review,
    diagnostics::secret::Token,
    endpoint::{
        connection::{ClusterLogin, Connection, Server, ServerTrust, Shape},
        proxy::Route,
    },
    input::request::{Instance, Request},
    k8s::{
        grant::{Grants, Place, RequestedRole, RequestedRule, RoleSource, Scope},
        helm_release::HELM,
        name::{ClusterRoleName, InstanceName, Namespace},
        object::{Kind, Live, MANAGED_BY, MANAGER, Manifest},
        object_names::Names,
        ownership::{NAME, NAMESPACE},
        record::{AccountRecord, SlotNumbers},
    },
    plan::{
        adoption::evidence::Evidence,
        desired,
        observed::{LiveGrant, Observed, Presence},
        preflight::compare,
        snapshot::{ParentAccess, Snapshot},
        token_slots::{Slot, TokenSlots, Unusable},
    },
    rbac::Rule,
};

/// The home namespace of the instance `demo`.
pub(crate) const HOME: &str = "home";

/// The state that a run starts from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    /// The verbs of each desired Role.
    pub(crate) rules: BTreeMap<Scope, Vec<&'static str>>,
    /// Scopes in which the ClusterRole `view` is to be bound.
    pub(crate) cluster_role: BTreeSet<Scope>,
    /// The live objects.
    pub(crate) live: BTreeMap<Place, Objects>,
    /// The inventory of the ServiceAccount, if there is one.
    pub(crate) recorded: Option<BTreeSet<Place>>,
    pub(crate) has_home: bool,
    pub(crate) adopts: bool,
}

/// Live objects of one place.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// The verbs of the Role.
    pub(crate) verbs: Vec<&'static str>,
    /// Whether the binding refers to the right role; none where there is no binding.
    pub(crate) binding: Option<bool>,
}

impl Case {
    /// A new instance with these grants, in the notation of the tables: `b get list` is a Role in namespace `b` with
    /// these verbs on pods, `b/view` a binding of the ClusterRole `view` there; `*` is the whole cluster.
    pub(crate) fn new(grants: &[&'static str]) -> Self {
        let mut case = Self { has_home: true, ..Self::default() };
        for grant in grants {
            match entry(grant) {
                (Place { scope, role_source: RoleSource::Rules, .. }, verbs) => drop(case.rules.insert(scope, verbs)),
                (place, _) => {
                    assert!(grant.ends_with("/view"), "{grant}: a case binds no other ClusterRole");
                    case.cluster_role.insert(place.scope);
                }
            }
        }
        case
    }

    /// The same with a ServiceAccount, which records the home namespace, and with the objects of these grants, which it
    /// records too.
    pub(crate) fn with(mut self, live: &[&'static str]) -> Self {
        let recorded = self.recorded.insert(BTreeSet::from([place(HOME)]));
        for (place, verbs) in live.iter().map(|grant| entry(grant)) {
            recorded.insert(place.clone());
            self.live.insert(place, Objects { verbs, binding: Some(true) });
        }
        self
    }

    /// The request, and the snapshot of the cluster.
    pub(crate) fn start(&self) -> (Request, Snapshot) {
        let request = request(self);
        let snapshot = snapshot(self, &request);
        (request, snapshot)
    }
}

/// A place and the verbs of its Role, in the notation of [`Case::new`].
fn entry(grant: &'static str) -> (Place, Vec<&'static str>) {
    let mut words = grant.split(' ');
    (place(words.next().unwrap()), words.collect())
}

/// A place in the notation of [`Case::new`].
pub(crate) fn place(text: &str) -> Place {
    let (scope, role) = text.split_once('/').map_or((text, None), |(scope, role)| (scope, Some(role)));
    let role = role.map(|role| RoleSource::ClusterRole(ClusterRoleName::parse(role).unwrap()));
    Place::new(Scope::parse(scope).unwrap(), role.unwrap_or(RoleSource::Rules))
}

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

pub(crate) fn request(case: &Case) -> Request {
    let (name, namespace) = (InstanceName::parse("demo").unwrap(), namespace(HOME));
    let requested = case.rules.iter().enumerate().map(|(index, (scope, verbs))| RequestedRule {
        pointer: format!("/rules/{index}"),
        source: None,
        rule: rule(verbs),
        scopes: vec![scope.clone()],
    });
    let scopes = case.cluster_role.iter().cloned().collect();
    let name_of_role = ClusterRoleName::parse("view").unwrap();
    let roles =
        vec![RequestedRole { pointer: "/cluster_roles/0".to_owned(), source: None, name: name_of_role, scopes }];
    Request {
        grants: Grants::new(requested.collect(), roles, &Scope::Namespace(namespace.clone())),
        instance: Instance {
            names: Names::of(&name, &namespace),
            name,
            namespace,
            labels: BTreeMap::new(),
            platform_id: None,
        },
        connection: Connection {
            server: Server::parse("https://127.0.0.1").unwrap(),
            ca: ServerTrust::System,
            tls_server_name: None,
            route: Route::Direct,
            login: ClusterLogin::Token(Token::parse("a-token").unwrap()),
            token_is_from_file: false,
            shape: Shape::Flat,
            infrastructure: None,
            specs: None,
            names_namespace: false,
            context: None,
        },
    }
}

/// A rule with these verbs on pods.
pub(crate) fn rule(verbs: &[&str]) -> Rule {
    serde_json::from_value(json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs})).unwrap()
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An object of the instance with these fields of its kind.
pub(crate) fn live(fields: &[(&str, Value)]) -> Live {
    Live {
        uid: "1".to_owned(),
        labels: map(&[(MANAGED_BY, MANAGER)]),
        annotations: map(&[(NAME, "demo"), (NAMESPACE, HOME)]),
        fields: fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        ..Live::default()
    }
}

/// An object of another party.
pub(crate) fn foreign() -> Live {
    Live { labels: map(&[(MANAGED_BY, "flux")]), ..Live::default() }
}

/// An object of the Helm release of version 1.0.0.
pub(crate) fn original() -> Live {
    Live {
        labels: map(&[(MANAGED_BY, HELM), ("helm.sh/chart", "k8s-token-0.1.0")]),
        annotations: map(&[("meta.helm.sh/release-name", "demo"), ("meta.helm.sh/release-namespace", HOME)]),
        ..Live::default()
    }
}

/// The same object, held by these finalizers while it is being deleted.
pub(crate) fn deleting(live: Live, finalizers: &[&str]) -> Live {
    Live { deleting: Some(finalizers.iter().map(ToString::to_string).collect()), ..live }
}

/// An object exactly as k8s-token has applied it.
pub(crate) fn applied(Manifest { body, .. }: &Manifest) -> Live {
    let strings =
        |map: &str| serde_json::from_value::<BTreeMap<String, String>>(body["metadata"][map].clone()).unwrap();
    let own =
        body.as_object().unwrap().iter().filter(|(key, _)| !["apiVersion", "kind", "metadata"].contains(&key.as_str()));
    let fields: BTreeMap<String, Value> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    Live {
        owned_labels: strings("labels").into_keys().collect(),
        owned_annotations: strings("annotations").into_keys().collect(),
        labels: strings("labels"),
        annotations: strings("annotations"),
        managers: fields.keys().map(|key| (key.clone(), MANAGER.to_owned())).collect(),
        fields,
        ..Live::default()
    }
}

/// The snapshot after a provision with these grants: nothing differs from what they ask for.
pub(crate) fn settled(grants: &[&'static str]) -> Snapshot {
    let (request, mut snapshot) = Case::new(grants).start();
    let (desired, _) = compare(&request, &snapshot);
    snapshot.observed.service_account = Some(applied(&desired.service_account));
    snapshot.observed.record = desired.record;
    snapshot.observed.slots = slots(1, &[(1, applied(&desired.secret), None)]);
    for granted in &desired.grants {
        let (role, binding) = (granted.role.as_ref().map(applied), Some(applied(&granted.binding)));
        snapshot.observed.places.insert(granted.place.clone(), LiveGrant { role, binding, denied: Vec::new() });
    }
    snapshot
}

/// The token Secrets of these slots, each with its object and the reason why it is unusable.
pub(crate) fn slots(newest: u32, secrets: &[(u32, Live, Option<&str>)]) -> TokenSlots {
    let slot = |(number, live, why): &(u32, Live, Option<&str>)| Slot {
        number: *number,
        live: live.clone(),
        is_own: live.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER),
        token: None,
        cas: BTreeSet::new(),
        unusable: why.map(|why| Unusable { field: "/data/token", why: why.to_owned() }),
    };
    TokenSlots::new(Some(SlotNumbers { newest, replaced: None }), secrets.iter().map(slot).collect())
}

pub(crate) fn snapshot(case: &Case, request: &Request) -> Snapshot {
    let inventory = case.recorded.iter().flatten().cloned().collect();
    let mut observed = Observed {
        service_account: case.recorded.is_some().then(|| live(&[])),
        record: AccountRecord { inventory, ..AccountRecord::default() },
        ..Observed::default()
    };
    let presence = if case.has_home { Presence::Active } else { Presence::Absent };
    observed.namespaces.insert(request.instance.namespace.clone(), presence);
    for (place, Objects { verbs, binding }) in &case.live {
        let is_read = request.grants.wants(place) || *place == request.instance.names.home();
        if !is_read && !observed.record.inventory.contains(place) {
            continue;
        }
        let binding = binding.map(|is_right| {
            let mut fields = desired::binding(request, place).body;
            if !is_right {
                fields["roleRef"]["name"] = json!("another");
            }
            live(&[("roleRef", fields["roleRef"].take()), ("subjects", fields["subjects"].take())])
        });
        let role = place.has_role().then(|| live(&[("rules", json!([rule(verbs)]))]));
        observed.places.insert(place.clone(), LiveGrant { role, binding, denied: Vec::new() });
    }
    Snapshot {
        observed,
        server_version: None,
        parent_access: ParentAccess::default(),
        denied: Vec::new(),
        inventory_is_whole: true,
        adoption: Evidence { is_there: case.adopts, ..Evidence::default() },
        too_old: None,
    }
}

/// A complete review of the parent's permissions: `create,patch roles demo-token` is a rule for one object, without its
/// name for all; `verb /path` is a rule for a path. `*` is every resource of every group.
pub(crate) fn review(rules: &[&str]) -> Review {
    Review { rules: rules.iter().map(|text| parent_rule(text)).collect(), complete: true }
}

fn parent_rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split(' ').collect();
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let verbs = words[0].split(',').map(str::to_owned).collect();
    if words[1].starts_with('/') {
        return Rule { verbs, non_resource_urls: owned(&words[1..2]), ..Rule::default() };
    }
    let group = match words[1] {
        "*" => "*",
        "selfsubjectrulesreviews" => "authorization.k8s.io",
        resource if resource.contains("role") => Kind::Role.group(),
        _ => "",
    };
    Rule {
        verbs,
        api_groups: owned(&[group]),
        resources: owned(&words[1..2]),
        resource_names: owned(&words[2..]),
        ..Rule::default()
    }
}
