//! Changes of scope, interrupted by SIGKILL at every request: at no moment is a kept permission missing, an unrequested
//! one granted, or an object absent from the inventory; the repeat reaches a clean state.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::unix::process::ExitStatusExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Stdio,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{AuditEvent, ControlPlane, Intercepted, InterceptingProxy, Options, Verdict};

use crate::support::{Instance, OBJECT, Ran, paths, status};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PREFIX: &str = "k8s-token.massdriver.cloud";
/// Foreign ClusterRoles: resource and verbs.
const CLUSTER_ROLES: [(&str, &[Allowed]); 2] =
    [("reader", &[("pods", &["get", "list"])]), ("lister", &[("pods", &["list"]), ("configmaps", &["get"])])];
/// The home namespace, two others, one without grants, and the whole cluster.
const PLACES: [&str; 5] = ["H", "B", "C", "X", "*"];
/// The number of instances of a change that run at the same time.
const AT_ONCE: usize = 3;
/// The same where some of them wait ten seconds for the rejection of a token.
const AT_ONCE_WAITING: usize = 6;

type Allowed = (&'static str, &'static [&'static str]);
type Where = &'static [&'static str];

/// A control plane of its own: each run searches the whole cluster for its instance name, and these tests create
/// hundreds.
fn control_plane() -> &'static ControlPlane {
    static OWN: LazyLock<ControlPlane> =
        LazyLock::new(|| ControlPlane::start(&Options::default()).expect("a control plane"));
    &OWN
}

/// The requested grants: rules on core resources, and ClusterRoles, each with its scopes.
#[derive(Clone, Copy, PartialEq)]
struct Asked {
    rules: &'static [(Allowed, Where)],
    cluster_roles: &'static [(&'static str, Where)],
}

const NOTHING: Asked = rules(&[]);

const fn rules(rules: &'static [(Allowed, Where)]) -> Asked {
    Asked { rules, cluster_roles: &[] }
}

impl Asked {
    const fn and_cluster_roles(self, cluster_roles: &'static [(&'static str, Where)]) -> Self {
        Self { cluster_roles, ..self }
    }

    fn rights(self) -> Rights {
        let by_role = self.cluster_roles.iter().flat_map(|(name, places)| {
            let allowed = CLUSTER_ROLES.iter().find(|(role, _)| role == name).unwrap().1;
            allowed.iter().map(move |allowed| (*allowed, *places))
        });
        let all = self.rules.iter().copied().chain(by_role);
        all.flat_map(|(allowed, places)| places.iter().flat_map(move |place| permissions_at(place, allowed))).collect()
    }
}

/// A permission in one of [`PLACES`]; in all of them if it is granted in the whole cluster.
type Right = (&'static str, String, String);
type Rights = BTreeSet<Right>;

fn permissions_everywhere(place: &str, resource: &str, verb: &str) -> Vec<Right> {
    let places = PLACES.iter().filter(|known| place == "*" || **known == place);
    places.map(|place| (*place, resource.to_owned(), verb.to_owned())).collect()
}

fn permissions_at(place: &str, (resource, verbs): Allowed) -> Vec<Right> {
    verbs.iter().flat_map(|verb| permissions_everywhere(place, resource, verb)).collect()
}

/// The permissions of rules from the API. Resources outside the core group carry their group.
fn rights_of<'a>(place: &'a str, rules: &'a Value) -> impl Iterator<Item = Right> + 'a {
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        let list = rule[key].as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    rules.as_array().into_iter().flatten().flat_map(move |rule| {
        let (groups, resources, verbs) = (texts(rule, "apiGroups"), texts(rule, "resources"), texts(rule, "verbs"));
        let names = texts(rule, "resourceNames").join(",");
        let mut rights = Vec::new();
        for (group, resource) in groups.iter().flat_map(|group| resources.iter().map(move |one| (group, one))) {
            let resource = [group.as_str(), resource, &names].map(str::to_owned).join("/");
            rights
                .extend(verbs.iter().flat_map(|verb| permissions_everywhere(place, resource.trim_matches('/'), verb)));
        }
        rights
    })
}

/// The real names of H, B, C and the ClusterRoles for one instance.
#[derive(Clone)]
struct Site {
    names: BTreeMap<&'static str, String>,
    /// How often the server's rules review was compared with the stored objects; one counter for each row.
    asked: Arc<AtomicUsize>,
}

impl Site {
    fn new(home_is_there: bool, asked: &Arc<AtomicUsize>) -> Self {
        let cp = control_plane();
        let home = if home_is_there { cp.namespace("ha") } else { cp.unused_namespace("ha") };
        let mut names = BTreeMap::from([("B", cp.namespace("hb")), ("C", cp.namespace("hc"))]);
        for (role, allowed) in CLUSTER_ROLES {
            let name = format!("{role}-{home}");
            let rules = allowed.iter().map(|(resource, verbs)| testbed::rule(&[""], &[resource], verbs));
            let rules: Vec<Value> = rules.collect();
            cp.post(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": name}, "rules": rules}));
            names.insert(role, name);
        }
        names.insert("H", home);
        Self { names, asked: Arc::clone(asked) }
    }

    fn home(&self) -> &str {
        &self.names["H"]
    }

    fn namespace_of<'a>(&'a self, symbol: &'a str) -> &'a str {
        self.names.get(symbol).map_or(symbol, String::as_str)
    }

    /// One of [`PLACES`]; `?` for a foreign namespace.
    fn place(&self, object: &Value) -> &'static str {
        match object["metadata"]["namespace"].as_str() {
            None => "*",
            Some(namespace) => PLACES.into_iter().find(|place| self.namespace_of(place) == namespace).unwrap_or("?"),
        }
    }

    fn params(&self, asked: Asked) -> (Value, Value) {
        let places = |places: Where| places.iter().map(|place| self.namespace_of(place)).collect::<Vec<_>>();
        let rules = asked.rules.iter().map(|((resource, verbs), at)| {
            json!({"apiGroups": [""], "resources": [resource], "verbs": verbs, "namespaces": places(at)})
        });
        let named = asked.cluster_roles.iter();
        let named = named.map(|(name, at)| json!({"name": self.namespace_of(name), "namespaces": places(at)}));
        (rules.collect(), named.collect())
    }

    /// The token Secrets, each with its token if it has one.
    fn secrets(&self) -> BTreeMap<String, Option<String>> {
        let list = control_plane().get(&format!("/api/v1/namespaces/{}/secrets", self.home()));
        let items = list.map(|list| list["items"].as_array().unwrap().clone()).unwrap_or_default();
        let token = |secret: &Value| {
            let token = STANDARD.decode(secret["data"]["token"].as_str()?).unwrap();
            Some(String::from_utf8(token).unwrap())
        };
        items.iter().map(|secret| (text(secret, "/metadata/name").to_owned(), token(secret))).collect()
    }

    fn token(&self) -> Option<String> {
        self.secrets().into_values().next().flatten()
    }

    /// The stored objects at this moment.
    fn stored(&self) -> Stored {
        let cp = control_plane();
        let mut objects = Vec::new();
        for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
            let resource = kind.to_lowercase();
            let selector = "labelSelector=app.kubernetes.io/managed-by=k8s-token";
            let list = cp.get(&format!("{RBAC}/{resource}s?{selector}")).unwrap();
            let ours = list["items"].as_array().unwrap().iter();
            let ours =
                ours.filter(|object| object["metadata"]["annotations"][format!("{PREFIX}/namespace")] == self.home());
            objects.extend(ours.map(|object| (kind, object.clone())));
        }
        for (kind, object) in &objects {
            assert_ne!(self.place(object), "?", "{kind} in a namespace without grants: {object}");
        }
        Stored { site: self.clone(), account: cp.get(&paths(self.home())[0]), objects }
    }

    /// All permissions that the server's rules reviews report for the token.
    fn allowed(&self, token: &str) -> Rights {
        let mut rights = Rights::new();
        for place in PLACES {
            // A missing namespace has only the cluster-wide permissions.
            let namespace = match place {
                "X" => "nowhere",
                "*" => "-",
                place => self.namespace_of(place),
            };
            let Some(rules) = rules_of(token, namespace) else { return Rights::new() };
            rights
                .extend(rights_of(place, &rules).filter(|right| right.0 == place && !SERVER_DEFAULTS.contains(right)));
        }
        rights
    }
}

/// The server's default permissions of every ServiceAccount.
static SERVER_DEFAULTS: LazyLock<Rights> = LazyLock::new(|| {
    let nobody = control_plane().persona("without-rights", &[]);
    rights_of("*", &rules_of(&nobody.token, "-").expect("its token works")).collect()
});

/// The rules review of this token for a namespace; none for a rejected token.
fn rules_of(token: &str, namespace: &str) -> Option<Value> {
    let question = json!({"spec": {"namespace": namespace}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = control_plane().request("POST", path, Some(token), Some(&question));
    if answer.status == 401 {
        return None;
    }
    assert_eq!(answer.status, 201, "{}", answer.text);
    Some(answer.body["status"]["resourceRules"].clone())
}

/// The stored objects of an instance.
struct Stored {
    site: Site,
    account: Option<Value>,
    objects: Vec<(&'static str, Value)>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Stored {
    /// Permissions by binding.
    fn grants(&self) -> BTreeSet<(String, Right)> {
        let (site, mut grants) = (&self.site, BTreeSet::new());
        let subject = json!({"kind": "ServiceAccount", "name": OBJECT, "namespace": site.home()});
        for (kind, binding) in self.objects.iter().filter(|(kind, _)| kind.ends_with("Binding")) {
            if !binding["subjects"].as_array().is_some_and(|subjects| subjects.contains(&subject)) {
                continue;
            }
            let (role_kind, role) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
            let place = site.place(binding);
            let ours = self.objects.iter().find(|(kind, object)| {
                *kind == role_kind
                    && text(object, "/metadata/name") == role
                    && (role_kind == "ClusterRole" || site.place(object) == place)
            });
            let others =
                CLUSTER_ROLES.iter().find(|(name, _)| role_kind == "ClusterRole" && site.namespace_of(name) == role);
            let rights: Vec<Right> = match (ours, others) {
                (Some((_, role)), _) => rights_of(place, &role["rules"]).collect(),
                (None, Some((_, allowed))) => {
                    allowed.iter().flat_map(|allowed| permissions_at(place, *allowed)).collect()
                }
                (None, None) => Vec::new(),
            };
            let binding = format!("{kind} {place}/{}", text(binding, "/metadata/name"));
            grants.extend(rights.into_iter().map(|right| (binding.clone(), right)));
        }
        grants
    }

    fn rights(&self) -> Rights {
        self.grants().into_iter().map(|(_, right)| right).collect()
    }

    /// Whether a binding applies in this scope.
    fn is_bound(&self, place: &str) -> bool {
        let bindings = self.objects.iter().filter(|(kind, _)| kind.ends_with("Binding"));
        bindings.map(|(_, binding)| self.site.place(binding)).any(|bound| bound == place || bound == "*")
    }

    fn inventory(&self) -> Value {
        let annotation = self.account.as_ref().map(|account| &account["metadata"]["annotations"]);
        let text = annotation.and_then(|annotations| annotations[format!("{PREFIX}/inventory")].as_str());
        text.map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
    }

    /// Objects that are missing in the inventory: if the run ended now, no later run would find them.
    fn forgotten(&self) -> Vec<String> {
        let (site, inventory) = (&self.site, self.inventory());
        let mut forgotten = Vec::new();
        for (kind, object) in &self.objects {
            let (place, name) = (site.place(object), text(object, "/metadata/name"));
            // Implied while there is no inventory.
            if (place, name) == ("H", OBJECT) && inventory.is_null() {
                continue;
            }
            let lists = |list: &Value| {
                let scopes = list.as_array().into_iter().flatten();
                scopes.filter_map(Value::as_str).any(|scope| scope == site.namespace_of(place))
            };
            let hashes = name.trim_start_matches(OBJECT).matches('-').count();
            let role = text(object, "/roleRef/name");
            let known = if hashes == usize::from(place != "H") {
                lists(&inventory["rules"]) // its name is that of a Role's binding, whatever it refers to
            } else {
                lists(&inventory["cluster_roles"][role])
            };
            if !known {
                forgotten.push(format!("{kind} {place}/{name}"));
            }
        }
        forgotten
    }

    /// The name of the newest Secret in the record of the ServiceAccount.
    fn secret(&self) -> String {
        let annotations = self.account.as_ref().map(|account| &account["metadata"]["annotations"]);
        let generation = annotations.and_then(|annotations| annotations[format!("{PREFIX}/token-generation")].as_str());
        match generation.expect("a generation") {
            "1" => OBJECT.to_owned(),
            generation => format!("{OBJECT}-{generation}"),
        }
    }

    /// The managed fields of each object, with names that are the same for every instance.
    fn normalized(&self) -> Vec<String> {
        let account = self.account.iter().map(|account| ("ServiceAccount", account.clone()));
        let all = account.chain(self.objects.iter().cloned()).map(|(kind, object)| {
            let mut annotations = object["metadata"]["annotations"].clone();
            if kind == "ServiceAccount" {
                annotations[format!("{PREFIX}/inventory")] = self.inventory();
                annotations[format!("{PREFIX}/token-generation")].take(); // see `secret`
                annotations[format!("{PREFIX}/instance")].take(); // each belongs to an organization of its own
            }
            let own = json!({
                "at": [object["metadata"]["namespace"], object["metadata"]["name"]],
                "labels": object["metadata"]["labels"],
                "annotations": annotations,
                "fields": [object["rules"], object["roleRef"], object["subjects"]],
            });
            let names = self.site.names.iter();
            let own = names.fold(own.to_string(), |text, (symbol, name)| {
                text.replace(&format!("{name:?}"), &format!("{symbol:?}"))
            });
            let hashed = format!("{OBJECT}-");
            let mut parts = own.split(&hashed);
            let start = parts.next().unwrap_or_default().to_owned();
            let unhashed = |part: &str| {
                let end = part.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
                format!("{OBJECT}-#{end}")
            };
            format!("{kind} {start}{}", parts.map(unhashed).collect::<String>())
        });
        let mut all: Vec<String> = all.collect();
        all.sort();
        all
    }
}

/// The start of a leg.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// An empty cluster without the home namespace.
    Scratch,
    /// The instance as requested.
    Deployed,
    /// The wanted objects exist, but the bindings were changed to the ClusterRole `lister`.
    Drifted,
}

/// One run to interrupt.
#[derive(Clone, Copy)]
struct Leg {
    name: &'static str,
    action: &'static str,
    start: Start,
    from: Asked,
    to: Asked,
    /// One in three is decommissioned instead of repeated.
    decommissions: bool,
}

impl Leg {
    const fn provision(name: &'static str, from: Asked, to: Asked) -> Self {
        Self { name, action: "provision", start: Start::Deployed, from, to, decommissions: false }
    }
}

/// The invariants at each moment of a leg: by the stored objects, which are always current, and by the server's
/// reviews.
fn check_invariants(site: &Site, leg: &Leg, stored: &Stored) {
    let (from, to, held) = (leg.from.rights(), leg.to.rights(), stored.rights());
    // A binding whose roleRef was changed by hand is deleted before it is created again.
    let replaced = |right: &&Right| leg.start == Start::Drifted && !stored.is_bound(right.0);
    let missing: Vec<&Right> =
        from.intersection(&to).filter(|right| !held.contains(right) && !replaced(right)).collect();
    assert!(missing.is_empty(), "kept permissions are missing: {missing:?}");
    let excess: Vec<&Right> = held.iter().filter(|right| !from.contains(right) && !to.contains(right)).collect();
    assert!(excess.is_empty(), "unrequested permissions: {excess:?}");
    assert_eq!(stored.forgotten(), [""; 0], "not in the inventory {}", stored.inventory());
    // The server's reviews, as soon as its caches contain the last write; they include foreign bindings.
    let Some(token) = site.token() else { return };
    let (started, mut allowed) = (Instant::now(), site.allowed(&token));
    let mut pause = Duration::from_millis(3);
    while allowed != held && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
        allowed = site.allowed(&token);
    }
    site.asked.fetch_add(1, Ordering::SeqCst);
    let differing: Vec<&Right> = allowed.symmetric_difference(&held).collect();
    assert!(differing.is_empty(), "the rules review and the stored objects differ: {differing:?}");
    for (place, resource, verb) in from.intersection(&to).filter(|right| held.contains(right)) {
        if verb == "list" && ["H", "B", "C"].contains(place) {
            let path = format!("/api/v1/namespaces/{}/{resource}", site.namespace_of(place));
            assert_eq!(status(control_plane(), &token, &path), 200, "{path}");
        }
    }
}

/// An instance, and its current grants.
struct Subject {
    site: Site,
    instance: Instance,
    at: Option<Asked>,
}

impl Subject {
    fn new(home_is_there: bool, asked: &Arc<AtomicUsize>) -> Self {
        let site = Site::new(home_is_there, asked);
        Self { instance: Instance::new(control_plane().admin(), site.home()), site, at: None }
    }

    /// Brings the instance to the start of a leg.
    fn arrange(&mut self, leg: &Leg) {
        let wanted = match leg.start {
            Start::Scratch => {
                *self = Self::new(false, &self.site.asked);
                return;
            }
            Start::Deployed => leg.from,
            Start::Drifted => leg.to,
        };
        if self.at != Some(wanted) {
            self.undisturbed("provision", wanted);
        }
        if leg.start == Start::Drifted {
            self.drift();
        }
        self.at = None;
    }

    fn ask_for(&mut self, asked: Asked, server: &str) {
        let (rules, cluster_roles) = self.site.params(asked);
        self.instance.params["rules"] = rules;
        self.instance.params["cluster_roles"] = cluster_roles;
        self.instance.connection["authentication"]["cluster"]["server"] = json!(server);
    }

    fn undisturbed(&mut self, action: &'static str, asked: Asked) -> Ran {
        self.ask_for(asked, control_plane().server());
        let ran = self.instance.ask(action, &[]).expect_code(0);
        self.at = (action == "provision").then_some(asked);
        ran
    }

    /// Creates the bindings of the instance's Roles again, with another role.
    fn drift(&self) {
        let cp = control_plane();
        for (kind, binding) in &self.site.stored().objects {
            if !kind.ends_with("Binding") || text(binding, "/metadata/name") != text(binding, "/roleRef/name") {
                continue;
            }
            let mut again = binding.clone();
            let metadata = &binding["metadata"];
            again["metadata"] = ["name", "labels", "annotations"]
                .map(|key| (key.to_owned(), metadata[key].clone()))
                .into_iter()
                .collect::<serde_json::Map<_, _>>()
                .into();
            again["roleRef"]["kind"] = json!("ClusterRole");
            again["roleRef"]["name"] = json!(self.site.namespace_of("lister"));
            let path = match binding["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("{RBAC}/namespaces/{namespace}/rolebindings"),
                None => format!("{RBAC}/clusterrolebindings"),
            };
            cp.delete(&format!("{path}/{}", text(binding, "/metadata/name"))).unwrap();
            cp.post(&path, &again);
        }
    }

    /// Runs through this proxy until the run ends by itself or is killed at the cut.
    fn run(&mut self, leg: &Leg, proxy: &InterceptingProxy) -> bool {
        let asked = if leg.action == "decommission" { leg.from } else { leg.to };
        self.ask_for(asked, &proxy.server());
        let mut command = self.instance.command(leg.action, &[]);
        let mut program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let killed = proxy.kill_at_cut(&mut program);
        let output = program.wait_with_output().unwrap();
        if killed {
            assert_eq!(output.status.signal(), Some(9), "the run must be killed, not end by itself");
        } else {
            Ran::from(output).expect_code(0);
        }
        killed
    }

    /// The final state of a leg, however many runs it took.
    fn check_final_state(&mut self, leg: &Leg, expected: &[String], token: Option<&String>) {
        let stored = self.site.stored();
        if leg.to == NOTHING {
            assert_eq!(
                (stored.normalized(), self.site.secrets()),
                (Vec::new(), BTreeMap::new()),
                "objects are left over"
            );
            return;
        }
        let normalised = stored.normalized();
        let there: Vec<_> = normalised.iter().filter(|object| !expected.contains(object)).collect();
        let wanted: Vec<_> = expected.iter().filter(|object| !normalised.contains(object)).collect();
        assert!(normalised == expected, "unexpected objects:\n{there:#?}\nmissing objects:\n{wanted:#?}");
        let end = Leg { from: leg.to, ..*leg };
        check_invariants(&self.site, &end, &stored);
        let secrets = self.site.secrets();
        assert_eq!(secrets.keys().collect::<Vec<_>>(), [&stored.secret()], "one token");
        // A run killed between the ServiceAccount and its first Secret leaves an unused slot number.
        assert!(leg.start == Start::Scratch || stored.secret() == OBJECT);
        assert!(token.is_none_or(|token| secrets.into_values().eq([Some(token.clone())])), "the token has changed");
        self.ask_for(leg.to, control_plane().server());
        self.instance.ask("plan", &["--detailed-exitcode"]).expect_code(0);
        self.at = Some(leg.to);
    }
}

/// The objects of an undisturbed first provision.
fn expected(asked: Asked) -> Vec<String> {
    if asked == NOTHING {
        return Vec::new();
    }
    let mut subject = Subject::new(true, &Arc::default());
    subject.undisturbed("provision", asked);
    subject.site.stored().normalized()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The order of writes in an undisturbed leg: the invariants are checked after every single write. Returns the
/// requests.
fn check_each_write(subject: &mut Subject, leg: &Leg, expected: &[String]) -> Vec<Intercepted> {
    let cp = control_plane();
    subject.arrange(leg);
    let (token, mark) = (subject.site.token(), cp.audit().mark());
    check_invariants(&subject.site, leg, &subject.site.stored());
    // The writes that remove permissions.
    let shrinks = Arc::new(Mutex::new(Vec::new()));
    let (site, observed, leg_seen) = (subject.site.clone(), Arc::clone(&shrinks), *leg);
    let mut before = site.stored();
    let observe = move |write: &Intercepted| {
        let now = site.stored();
        let judged = catch_unwind(AssertUnwindSafe(|| check_invariants(&site, &leg_seen, &now)));
        if let Err(cause) = judged {
            panic!("after {} {}: {}", write.method, write.path, panic_message(cause.as_ref()));
        }
        let lost = match leg_seen.start {
            // A binding to another role was not requested: it is replaced at once, with the permissions of both roles.
            Start::Drifted => {
                let (held, to) = (now.rights(), leg_seen.to.rights());
                let lost = |right: &Right| to.contains(right) && !held.contains(right) && now.is_bound(right.0);
                before.rights().iter().any(lost)
            }
            _ => !before.grants().is_subset(&now.grants()),
        };
        if lost {
            lock(&observed).push(write.number);
        }
        before = now;
    };
    let proxy = InterceptingProxy::one_write_at_a_time(cp, |_| Verdict::Forward, observe);
    assert!(!subject.run(leg, &proxy));
    let requests = proxy.requests();
    if leg.action == "provision" {
        let holder = format!("system:serviceaccount:{}:{OBJECT}", subject.site.home());
        check_removals_follow_the_proof(&requests, &lock(&shrinks), &holder, &cp.audit().since(mark));
    }
    subject.check_final_state(leg, expected, token.as_ref());
    requests
}

/// Writes that remove permissions arrive after the review of the token's identity.
fn check_removals_follow_the_proof(requests: &[Intercepted], shrinks: &[usize], holder: &str, audit: &[AuditEvent]) {
    let proof = audit.iter().filter(|event| event.user == holder && event.resource == "selfsubjectreviews");
    let proved = proof.filter(|event| event.code == 201).map(|event| event.answered).min().expect("a proof");
    let writes: Vec<&Intercepted> = requests.iter().filter(|request| request.write).collect();
    let mut made: Vec<_> =
        audit.iter().filter(|event| event.is_write() && writes.iter().any(|write| write.path == event.uri)).collect();
    made.sort_by_key(|event| event.received);
    // Writes are serialized, so that both lists are in the same order.
    let paths: Vec<&str> = writes.iter().map(|write| write.path.as_str()).collect();
    assert_eq!(made.iter().map(|event| event.uri.as_str()).collect::<Vec<_>>(), paths);
    for (write, event) in writes.iter().zip(made) {
        let early = shrinks.contains(&write.number) && event.received < proved;
        assert!(!early, "{} {} removes permissions before the test of the token", write.method, write.path);
    }
}

/// Where a run is killed.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Before this request.
    Before(usize),
    /// After this write, which has no answer.
    AfterWrite(usize),
}

impl Cut {
    fn proxy(self) -> InterceptingProxy {
        let mut writes = 0;
        InterceptingProxy::start(control_plane(), move |request| {
            writes += usize::from(request.write);
            match self {
                Self::Before(number) if request.number == number => Verdict::CutBefore,
                Self::AfterWrite(number) if request.write && writes == number + 1 => Verdict::CutAfter,
                _ => Verdict::Forward,
            }
        })
    }

    /// The request at the cut.
    fn of(self, requests: &[Intercepted]) -> String {
        let request = match self {
            Self::Before(number) => requests.get(number),
            Self::AfterWrite(number) => requests.iter().filter(|request| request.write).nth(number),
        };
        request.map_or_else(|| "none".to_owned(), |request| format!("{} {}", request.method, request.path))
    }
}

/// The cuts of a leg, from the requests of an undisturbed run: one at its start, and each request from the first write
/// on. A provision ends with a cut that should come too late; if it does not, because the token was tested again,
/// another follows. A decommission ends with the first review of the rejected token.
fn cuts(leg: &Leg, requests: &[Intercepted]) -> VecDeque<(usize, Cut)> {
    let first = requests.iter().position(|request| request.write).expect("a write");
    let question = requests.iter().position(|request| request.path.contains("/selfsubjectreviews"));
    let last = if leg.action == "decommission" { question.expect("a question") } else { requests.len() };
    let writes = requests.iter().filter(|request| request.write).count();
    let before = std::iter::once(0).chain(first..=last).map(Cut::Before);
    before.chain((0..writes).map(Cut::AfterWrite)).enumerate().collect()
}

fn panic_message(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

/// A leg, its expected result, and its remaining cuts.
struct Planned {
    leg: Leg,
    expected: Arc<[String]>,
    requests: usize,
    cuts: VecDeque<(usize, Cut)>,
}

/// The work for a table row, and its results.
#[derive(Default)]
struct Work {
    legs: Vec<Planned>,
    killed: usize,
    missed: usize,
    failures: Vec<String>,
}

impl Work {
    /// The next cut, preferably of a leg that starts in the current state of this subject.
    fn next(&mut self, at: Option<Asked>) -> Option<(usize, usize, Cut)> {
        let fits = |leg: &Leg| Some(if leg.start == Start::Drifted { leg.to } else { leg.from }) == at;
        let left = self.legs.iter_mut().enumerate().filter(|(_, planned)| !planned.cuts.is_empty());
        let (index, planned) = left.min_by_key(|(_, planned)| !fits(&planned.leg))?;
        planned.cuts.pop_front().map(|(number, cut)| (index, number, cut))
    }
}

/// Kills one run and checks the invariants; repeats it, or decommissions the instance, and checks again. False if the
/// run had fewer requests.
fn kill(subject: &mut Subject, leg: &Leg, number: usize, cut: Cut, expected: &[String], at: &mut String) -> bool {
    subject.arrange(leg);
    let token = subject.site.token();
    let proxy = cut.proxy();
    let killed = subject.run(leg, &proxy);
    *at = cut.of(&proxy.requests());
    check_invariants(&subject.site, leg, &subject.site.stored());
    let end =
        if leg.decommissions && number % 3 == 2 { Leg { action: "decommission", to: NOTHING, ..*leg } } else { *leg };
    subject.undisturbed(end.action, if leg.to == NOTHING { leg.from } else { leg.to });
    subject.check_final_state(&end, expected, token.as_ref());
    killed
}

fn worker(work: &Mutex<Work>, asked: &Arc<AtomicUsize>) {
    let mut subject: Option<Subject> = None;
    loop {
        let next = lock(work).next(subject.as_ref().and_then(|subject| subject.at));
        let Some((index, number, cut)) = next else { return };
        let (leg, expected) = {
            let work = lock(work);
            (work.legs[index].leg, Arc::clone(&work.legs[index].expected))
        };
        let mut at = String::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let one = subject.get_or_insert_with(|| Subject::new(leg.start != Start::Scratch, asked));
            kill(one, &leg, number, cut, &expected, &mut at)
        }));
        let mut work = lock(work);
        match outcome {
            Ok(true) => {
                work.killed += 1;
                let planned = &mut work.legs[index];
                if let Cut::Before(request) = cut
                    && request >= planned.requests
                {
                    planned.cuts.push_back((number, Cut::Before(request + 1)));
                }
            }
            Ok(false) => work.missed += 1,
            Err(cause) => {
                work.failures.push(format!(
                    "{}, cut {number}, {cut:?}, {at}: {}",
                    leg.name,
                    panic_message(cause.as_ref())
                ));
                subject = None; // whatever its state is
            }
        }
    }
}

/// Each leg undisturbed, then killed at each of its requests.
fn check_legs(legs: &[Leg], least: usize) {
    let mut work = Work::default();
    let asked = Arc::default();
    let mut subject = Subject::new(true, &asked);
    for leg in legs {
        let expected = expected(leg.to);
        match catch_unwind(AssertUnwindSafe(|| check_each_write(&mut subject, leg, &expected))) {
            Ok(requests) => {
                let cuts = cuts(leg, &requests);
                work.legs.push(Planned { leg: *leg, expected: expected.into(), requests: requests.len(), cuts });
            }
            Err(cause) => work.failures.push(format!("{}, undisturbed: {}", leg.name, panic_message(cause.as_ref()))),
        }
    }
    let waiting = legs.iter().any(|leg| leg.decommissions || leg.action == "decommission");
    let at_once = if waiting { AT_ONCE_WAITING } else { AT_ONCE };
    let planned: usize = work.legs.iter().map(|planned| planned.cuts.len()).sum();
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| worker(&work, &asked));
        }
    });
    let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Work { killed, missed, failures, .. } = work;
    let thread = std::thread::current();
    let row = thread.name().unwrap_or_default();
    assert!(failures.is_empty(), "{row}: {} failures\n{}", failures.len(), failures.join("\n\n"));
    // Each is checked twice, except while there is no token.
    let always = legs.iter().all(|leg| leg.start != Start::Scratch && leg.to != NOTHING && !leg.decommissions);
    let least_asked = if always { 2 * killed } else { killed / 3 };
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked >= least_asked, "{row}: only {asked} rules reviews for {killed} kills");
    assert!(killed >= least, "{row}: only {killed} of at least {least} runs were killed");
    // The last cut of a leg comes too late.
    let enough = killed + 2 * legs.len() >= planned;
    assert!(enough, "{row}: {killed} of {planned} runs were killed, {missed} ended before");
}

const H: Where = &["H"];
const READ: &[&str] = &["get", "list"];

/// The change and its reverse, with at least this number of kills.
#[rstest]
#[case::namespaces_and_the_cluster(
    rules(&[(("pods", READ), &["H", "B"])]),
    rules(&[(("pods", READ), &["*"])]),
    false,
    45
)]
#[case::one_of_the_rules_and_a_cluster_role_beside_it(
    rules(&[(("pods", READ), H), (("services", READ), H)]),
    rules(&[(("services", READ), H)]).and_cluster_roles(&[("reader", H)]),
    true,
    30
)]
#[case::one_namespace_added_one_removed(
    rules(&[(("pods", READ), &["H", "B"])]),
    rules(&[(("pods", READ), &["H", "B", "C"])]),
    false,
    25
)]
#[case::all_other_scopes_removed_and_added(
    rules(&[(("pods", READ), &["H", "B", "C"]), (("services", READ), &["*"])]).and_cluster_roles(&[("lister", &["B"])]),
    rules(&[(("pods", READ), H)]),
    true,
    40
)]
#[case::home_namespace_loses_all_grants(
    rules(&[(("pods", READ), H)]).and_cluster_roles(&[("lister", H)]),
    rules(&[(("pods", READ), &["B"])]).and_cluster_roles(&[("lister", &["C"])]),
    false,
    50
)]
#[case::every_role_changes_one_permission(
    rules(&[(("pods", READ), &["H", "B"]), (("services", READ), &["*"])]),
    rules(&[(("pods", &["list", "watch"]), &["H", "B"]), (("services", &["list", "watch"]), &["*"])]),
    false,
    40
)]
#[case::another_cluster_role_that_overlaps(
    rules(&[]).and_cluster_roles(&[("reader", &["H", "B"])]),
    rules(&[]).and_cluster_roles(&[("lister", &["H", "B"])]),
    false,
    40
)]
fn scope_change_is_safe_at_every_request(
    #[case] one: Asked,
    #[case] other: Asked,
    #[case] decommissions: bool,
    #[case] least: usize,
) {
    let there = Leg { decommissions, ..Leg::provision("there", one, other) };
    check_legs(&[there, Leg::provision("back", other, one)], least);
}

#[rstest]
#[case::at_home_and_elsewhere(
    rules(&[]).and_cluster_roles(&[("lister", &["H", "B"])]),
    rules(&[(("pods", READ), H), (("configmaps", READ), &["B"])]),
    15
)]
#[case::in_the_whole_cluster(rules(&[]).and_cluster_roles(&[("lister", &["*"])]), rules(&[(("configmaps", READ), &["*"])]), 10)]
fn role_bindings_with_another_role_are_replaced(#[case] held: Asked, #[case] asked: Asked, #[case] least: usize) {
    check_legs(&[Leg { start: Start::Drifted, ..Leg::provision("drifted", held, asked) }], least);
}

const ALL: Asked =
    rules(&[(("pods", READ), &["H", "B"]), (("services", READ), &["*"])]).and_cluster_roles(&[("lister", H)]);

#[test]
fn first_provision_is_safe_at_every_request() {
    let first = Leg { start: Start::Scratch, decommissions: true, ..Leg::provision("first", NOTHING, ALL) };
    check_legs(&[first], 20);
}

#[test]
fn decommission_is_safe_at_every_request() {
    check_legs(&[Leg { action: "decommission", ..Leg::provision("last", ALL, NOTHING) }], 16);
}
