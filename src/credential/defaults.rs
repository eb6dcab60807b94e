//! The permissions that a Kubernetes server grants every ServiceAccount by default: from embedded tables for known
//! versions, and from the server's own bindings for others. Pure.
//!
//! `defaults/` has one document for each release, made from a real server; `tests/cluster/findings.rs` writes them and compares
//! them with a real server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    k8s::object::Live,
    rbac::{Coverage, Permission, PermissionRecord, PermissionTarget, Rule, permissions_of},
};

/// Label and value of the roles and bindings that a server creates and reconciles itself.
pub(crate) const STOCK: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

/// Groups of every ServiceAccount, besides the one named after its namespace.
const EVERYONE: [&str; 2] = ["system:serviceaccounts", "system:authenticated"];

/// The known releases, oldest first.
static RELEASES: LazyLock<Vec<KubernetesRelease>> = LazyLock::new(|| {
    let documents = [
        include_str!("defaults/1.34.json"),
        include_str!("defaults/1.35.json"),
        include_str!("defaults/1.36.json"),
        include_str!("defaults/1.37.json"),
    ];
    documents.into_iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
});

/// ClusterRoles that a release binds to every ServiceAccount.
#[derive(Deserialize)]
struct KubernetesRelease {
    version: String,
    roles: BTreeMap<String, Vec<Rule>>,
}

/// Permissions that every ServiceAccount has on one release of Kubernetes at least.
pub(crate) fn of_any_release() -> Coverage<'static> {
    RELEASES.iter().flat_map(KubernetesRelease::permissions).collect()
}

impl KubernetesRelease {
    fn permissions(&self) -> impl Iterator<Item = Permission<'_>> {
        self.roles.values().flat_map(|rules| permissions_of(rules, None))
    }
}

/// The minor version, as 37 of `v1.37.2-gke.100`.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("v1.")?.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The default permissions of one server.
pub(crate) struct Defaults {
    /// The newest known release that is not newer than the server; all of them if the server's version is unknown.
    releases: &'static [KubernetesRelease],
    /// Whether the server's version is between the oldest and the newest known release.
    is_known: bool,
}

impl Defaults {
    /// The defaults of a server of this version, if it is known.
    pub(crate) fn of(version: Option<&str>) -> Self {
        let known = &RELEASES[..];
        let Some(minor_of_server) = version.and_then(minor) else { return Self { releases: known, is_known: false } };
        let minor_of = |release: &KubernetesRelease| minor(&release.version).unwrap_or_default();
        let up_to_it = known.iter().take_while(|release| minor_of(release) <= minor_of_server).count();
        let releases = known.get(up_to_it.max(1) - 1..up_to_it.max(1)).unwrap_or_default();
        let is_known = up_to_it > 0 && known.last().is_some_and(|newest| minor_of_server <= minor_of(newest));
        Self { releases, is_known }
    }

    /// The permissions among these that are not defaults of this version.
    pub(crate) fn beyond(&self, permissions: Vec<PermissionRecord>) -> Vec<PermissionRecord> {
        let held: Coverage<'_> = self.releases.iter().flat_map(KubernetesRelease::permissions).collect();
        permissions.into_iter().filter(|record| !held.covers(record.permission())).collect()
    }

    /// Judges the permissions left beyond the defaults of this version by the server's own bindings; `stock` is none if the
    /// parent may not read those.
    pub(crate) fn classify(&self, left: Vec<PermissionRecord>, stock: Option<&Stock>) -> Excess {
        let Some(stock) = stock else {
            let (perhaps, certain) = left.into_iter().partition(|record| self.may_be_new(&record.permission()));
            return Excess { certain, perhaps, altered: Vec::new() };
        };
        let granted = stock.granted();
        // Of a release that is known, a role of that name holds what the table says, whoever has written more into it.
        let is_settled = |role: &str| self.is_known && self.releases.iter().any(|known| known.roles.contains_key(role));
        let genuine = granted.iter().filter(|granted| granted.altered_by.is_none() && !is_settled(granted.role));
        let genuine: Coverage<'_> = genuine
            .flat_map(|granted| permissions_of(&granted.rules, None))
            .filter(|permission| !is_wild(permission))
            .collect();
        let certain: Vec<PermissionRecord> =
            left.into_iter().filter(|record| !genuine.covers(record.permission())).collect();
        let grants = |granted: &&DefaultGrant<'_>| {
            let held: Coverage<'_> = permissions_of(&granted.rules, None).collect();
            certain.iter().any(|record| held.covers(record.permission()))
        };
        let altered = granted.iter().filter(grants).map(DefaultGrant::describe).collect();
        Excess { certain, perhaps: Vec::new(), altered }
    }

    /// Whether this may be a default of an unknown release, or of a feature that was enabled later: such defaults have only
    /// ever allowed reading one Kubernetes resource cluster-wide, or a path.
    fn may_be_new(&self, permission: &Permission<'_>) -> bool {
        let reads = ["get", "list", "watch"].contains(&permission.verb)
            && permission.namespace.is_none()
            && !is_wild(permission);
        let plausible = match permission.target {
            PermissionTarget::Resource { group, .. } => group.ends_with(".k8s.io"),
            PermissionTarget::Url(_) => true,
        };
        (!self.is_known && reads && plausible) || of_any_release().covers(*permission)
    }
}

/// No default has ever allowed more than named resources and paths.
fn is_wild(permission: &Permission<'_>) -> bool {
    permission.verb == "*"
        || match permission.target {
            PermissionTarget::Resource { group, resource, .. } => group == "*" || resource.starts_with('*'),
            PermissionTarget::Url(url) => url.trim_matches('/') == "*",
        }
}

/// Permissions beyond the request and the server's defaults.
#[derive(Default)]
pub(crate) struct Excess {
    /// From bindings that are not the server's own.
    pub(crate) certain: Vec<PermissionRecord>,
    /// Possibly defaults of an unknown version.
    pub(crate) perhaps: Vec<PermissionRecord>,
    /// The server's own roles and bindings that grant some of them because they were modified, as text.
    pub(crate) altered: Vec<String>,
}

/// The server's own bindings, and the ClusterRoles that they bind to every ServiceAccount.
#[derive(Default)]
pub(crate) struct Stock {
    /// Bindings with the label [`STOCK`], by name.
    pub(crate) bindings: Vec<(String, Live)>,
    /// ClusterRoles by name.
    pub(crate) roles: BTreeMap<String, Live>,
}

/// One grant to every ServiceAccount by a binding with the label.
struct DefaultGrant<'a> {
    binding: &'a str,
    role: &'a str,
    rules: Vec<Rule>,
    /// Field manager that wrote the binding or the role, if it was not the server.
    altered_by: Option<&'a str>,
}

impl DefaultGrant<'_> {
    fn describe(&self) -> String {
        let Self { binding, role, altered_by, .. } = self;
        let by = altered_by.map(|by| format!(", written by {by}")).unwrap_or_default();
        format!("ClusterRoleBinding {binding} of ClusterRole {role}{by}")
    }
}

impl Stock {
    /// Names of the roles that bindings to every ServiceAccount reference.
    pub(crate) fn roles_of_everyone(bindings: &[(String, Live)]) -> Vec<String> {
        bindings.iter().filter(|(_, binding)| is_for_everyone(binding)).filter_map(|(_, it)| role_of(it)).collect()
    }

    /// The server's own field manager: most of the labelled objects are as the server wrote them.
    fn server(&self) -> Option<&str> {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for (_, binding) in &self.bindings {
            if let Some(manager) = binding.managers.get("roleRef") {
                *times.entry(manager).or_default() += 1;
            }
        }
        times.into_iter().max_by_key(|(manager, times)| (*times, *manager)).map(|(manager, _)| manager)
    }

    fn granted(&self) -> Vec<DefaultGrant<'_>> {
        let server = self.server();
        let everyone = self.bindings.iter().filter(|(_, binding)| is_for_everyone(binding));
        let granted = everyone.filter_map(|(name, binding)| {
            let (role, live) = self.roles.get_key_value(&role_of(binding)?)?;
            let writer = writer(binding, &["roleRef", "subjects"], server).or_else(|| writer(live, &["rules"], server));
            Some(DefaultGrant { binding: name, role, rules: live.rules(), altered_by: writer })
        });
        granted.collect()
    }
}

/// The field manager that wrote one of these fields instead of the server; the label alone proves nothing.
fn writer<'a>(live: &'a Live, fields: &[&str], server: Option<&str>) -> Option<&'a str> {
    const UNKNOWN: &str = "an unknown client";

    let managers = || fields.iter().map(|field| live.managers.get(*field).map(String::as_str));
    match managers().find(|manager| manager.is_none() || *manager != server) {
        Some(manager) => Some(manager.unwrap_or(UNKNOWN)),
        None if live.labels.get(STOCK.0).is_some_and(|value| value == STOCK.1) => None,
        None => Some(UNKNOWN),
    }
}

fn is_for_everyone(binding: &Live) -> bool {
    let subjects = binding.fields.get("subjects").and_then(Value::as_array).into_iter().flatten();
    let mut groups =
        subjects.filter(|subject| subject["kind"] == "Group").filter_map(|subject| subject["name"].as_str());
    groups.any(|group| EVERYONE.contains(&group))
}

fn role_of(binding: &Live) -> Option<String> {
    binding.fields.get("roleRef")?.get("name")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn bundles(verb: &str) -> PermissionRecord {
        Permission::new(verb, "certificates.k8s.io", "clustertrustbundles").record()
    }

    fn reviews() -> PermissionRecord {
        Permission::new("create", "authentication.k8s.io", "selfsubjectreviews").record()
    }

    fn live(fields: &Value, manager: &str) -> Live {
        let fields = fields.as_object().unwrap().clone();
        let managers = fields.keys().map(|field| (field.clone(), manager.to_owned())).collect();
        let labels = BTreeMap::from([(STOCK.0.to_owned(), STOCK.1.to_owned())]);
        Live { fields: fields.into_iter().collect(), managers, labels, ..Live::default() }
    }

    fn binding(role: &str, group: &str, manager: &str) -> (String, Live) {
        let fields = json!({
            "subjects": [{"kind": "Group", "name": group}],
            "roleRef": {"kind": "ClusterRole", "name": role},
        });
        (role.to_owned(), live(&fields, manager))
    }

    fn role(name: &str, verb: &str, resource: &str, manager: &str) -> (String, Live) {
        let rules = json!({"rules": [{"apiGroups": ["new.k8s.io"], "resources": [resource], "verbs": [verb]}]});
        (name.to_owned(), live(&rules, manager))
    }

    #[test]
    fn embedded_defaults_parse() {
        assert_eq!(RELEASES.len(), 4);
        assert!(RELEASES.iter().all(|release| minor(&release.version).is_some() && release.roles.len() >= 4));
    }

    #[rstest]
    #[case::older_than_all(Some("v1.27.1"), 1, false)]
    #[case::the_oldest(Some("v1.34.0"), 1, true)]
    #[case::between(Some("v1.36.3-eks-1234"), 1, true)]
    #[case::the_newest(Some("v1.37.2+k3s1"), 0, true)]
    #[case::newer(Some("v1.38.0"), 0, false)]
    #[case::another_spelling(Some("1.37"), 0, false)]
    #[case::unknown(None, 0, false)]
    fn default_counts_from_its_release_on(#[case] version: Option<&str>, #[case] left: usize, #[case] known: bool) {
        let defaults = Defaults::of(version);
        assert_eq!(defaults.is_known, known);
        assert_eq!(defaults.beyond(vec![bundles("get"), reviews()]).len(), left);
        assert_eq!(defaults.beyond(vec![bundles("delete")]), [bundles("delete")]);
    }

    #[test]
    fn role_written_by_another_client_is_no_default() {
        let thing = |verb: &str, resource: &str| Permission::new(verb, "new.k8s.io", resource).record();
        let stock = |role: (String, Live), binding: (String, Live)| Stock {
            // Whose name is the server's is seen in what else it made.
            bindings: vec![
                self::binding("cluster-admin", "system:masters", "kubelite"),
                self::binding("system:node", "system:nodes", "kubelite"),
                binding,
            ],
            roles: BTreeMap::from([role]),
        };
        let of = |manager: &str, verb: &str, resource: &str| role("system:new", verb, resource, manager);
        let to = |group: &str, manager: &str| binding("system:new", group, manager);
        let all = "system:serviceaccounts";
        for (version, record, stock, is_default) in [
            ("v1.38.0", thing("get", "things"), stock(of("kubelite", "get", "things"), to(all, "kubelite")), true),
            // A feature that is on though it is off by default.
            ("v1.36.0", thing("get", "things"), stock(of("kubelite", "get", "things"), to(all, "kubelite")), true),
            ("v1.38.0", thing("get", "things"), stock(of("kubectl-edit", "get", "things"), to(all, "kubelite")), false),
            ("v1.38.0", thing("get", "things"), stock(of("kubelite", "get", "things"), to(all, "kubectl-edit")), false),
            ("v1.38.0", thing("get", "things"), stock(of("kubelite", "get", "things"), to("devs", "kubelite")), false),
            ("v1.38.0", thing("list", "things"), stock(of("kubelite", "get", "things"), to(all, "kubelite")), false),
            ("v1.38.0", thing("get", "*"), stock(of("kubelite", "get", "*"), to(all, "kubelite")), false),
        ] {
            let excess = Defaults::of(Some(version)).classify(vec![record.clone()], Some(&stock));
            assert_eq!(excess.certain.is_empty(), is_default, "{version} {record:?} {:?}", excess.altered);
        }
    }

    #[test]
    fn role_of_known_release_follows_the_table() {
        let thing = Permission::new("list", "new.k8s.io", "things").record();
        let name = "system:basic-user";
        let stock = Stock {
            bindings: vec![binding(name, "system:authenticated", "kube-apiserver")],
            roles: BTreeMap::from([role(name, "list", "things", "kube-apiserver")]),
        };
        let classify = |version| Defaults::of(Some(version)).classify(vec![thing.clone()], Some(&stock)).certain;
        assert_eq!(classify("v1.37.2"), std::slice::from_ref(&thing));
        assert!(classify("v1.38.0").is_empty(), "a later release may have more in it");
    }

    #[rstest]
    #[case::a_read(Some("v1.38.0"), Permission::new("list", "new.k8s.io", "things"), true)]
    #[case::a_feature_that_came_later(
        Some("v1.36.3"),
        Permission::new("list", "certificates.k8s.io", "clustertrustbundles"),
        true
    )]
    #[case::a_known_release(Some("v1.37.2"), Permission::new("list", "new.k8s.io", "things"), false)]
    #[case::secrets(Some("v1.38.0"), Permission::new("list", "", "secrets"), false)]
    #[case::a_write(Some("v1.38.0"), Permission::new("update", "new.k8s.io", "things"), false)]
    #[case::everything(Some("v1.38.0"), Permission::new("*", "*", "*"), false)]
    #[case::one_namespace(Some("v1.38.0"), Permission::new("list", "new.k8s.io", "things").within(Some("a")), false)]
    #[case::a_vendor(Some("v1.38.0"), Permission::new("list", "example.com", "things"), false)]
    fn unreadable_bindings_excuse_only_reading_one_resource(
        #[case] version: Option<&str>,
        #[case] permission: Permission<'_>,
        #[case] perhaps: bool,
    ) {
        let excess = Defaults::of(version).classify(vec![permission.record()], None);
        assert_eq!((excess.perhaps.len(), excess.certain.len()), (usize::from(perhaps), usize::from(!perhaps)));
    }
}
