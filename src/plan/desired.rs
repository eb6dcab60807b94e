//! The desired state: `Request -> Desired`, every object as the body of a server-side apply. Pure and infallible.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    input::request::Request,
    k8s::{
        grant::{Grant, Place, RoleSource, Scope},
        object::{Kind, MANAGED_BY, MANAGER, Manifest, Reference, TOKEN_SECRET},
        ownership::{NAME, NAMESPACE},
        record::AccountRecord,
    },
    plan::{adoption::outcome::Adoption, observed::Observed, token_slots::SlotPlan},
    rbac::Rule,
};

/// Label of all objects that the platform deploys, as in version 1.0.0.
const DEPLOYED_WITH: (&str, &str) = ("app.kubernetes.io/deployed-with", "massdriver.cloud");

/// The desired state of one instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    /// What happens to the token slots.
    pub(crate) slots: SlotPlan,
    /// The record of the ServiceAccount when the run is done.
    pub(crate) record: AccountRecord,
    /// The adoption of the Helm release of version 1.0.0.
    pub(crate) adoption: Adoption,
    /// The ServiceAccount, with its record.
    pub(crate) service_account: Manifest,
    /// The objects of each grant, in the order of the request.
    pub(crate) grants: Vec<GrantObjects>,
    /// The Secret in the newest token slot.
    pub(crate) secret: Manifest,
}

/// The objects of one grant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GrantObjects {
    /// Their place.
    pub(crate) place: Place,
    /// The instance's own Role or ClusterRole; none when another ClusterRole is bound.
    pub(crate) role: Option<Manifest>,
    /// The binding.
    pub(crate) binding: Manifest,
}

impl Desired {
    /// The desired state for a request. `kept` are places of earlier requests that cannot be cleared.
    pub(crate) fn new(
        request: &Request,
        observed: &Observed,
        slots: SlotPlan,
        kept: impl IntoIterator<Item = Place>,
        adoption: Adoption,
    ) -> Self {
        let record = AccountRecord {
            slots: slots.numbers,
            inventory: request.grants.iter().map(|grant| grant.place.clone()).chain(kept).collect(),
            // A request by hand does not know it.
            instance: request.instance.platform_id.as_ref().or(observed.record.instance.as_ref()).cloned(),
            adoption: adoption.record.clone(),
        };
        Self {
            service_account: service_account(request, &record),
            grants: request.grants.iter().map(|grant| granted(request, grant)).collect(),
            secret: token_secret(request, slots.numbers.newest),
            slots,
            record,
            adoption,
        }
    }

    /// Places of earlier requests that stay.
    pub(crate) fn kept(&self, request: &Request) -> BTreeSet<Place> {
        self.record.inventory.places().filter(|place| !request.grants.wants(place)).cloned().collect()
    }
}

/// The ServiceAccount with this record.
pub(crate) fn service_account(request: &Request, record: &AccountRecord) -> Manifest {
    let annotations = record.to_annotations(&request.instance.names.home());
    manifest(request, request.instance.names.service_account(), &annotations, json!({}))
}

/// The Secret in a token slot, to be filled by the token controller.
fn token_secret(request: &Request, slot: u32) -> Manifest {
    let account = [("kubernetes.io/service-account.name", request.instance.names.object().to_owned())];
    manifest(request, request.instance.names.token_secret(slot), &account, json!({"type": TOKEN_SECRET}))
}

fn granted(request: &Request, grant: &Grant) -> GrantObjects {
    let role = grant.place.has_role().then(|| role(request, &grant.place.scope, &grant.rules));
    GrantObjects { place: grant.place.clone(), role, binding: binding(request, &grant.place) }
}

/// The instance's own Role or ClusterRole of a scope, with these rules.
pub(crate) fn role(request: &Request, scope: &Scope, rules: &[Rule]) -> Manifest {
    manifest(request, request.instance.names.role(scope), &[], json!({"rules": rules}))
}

/// The binding of a place.
pub(crate) fn binding(request: &Request, place: &Place) -> Manifest {
    let role_ref = match &place.role_source {
        RoleSource::Rules => request.instance.names.role(&place.scope),
        RoleSource::ClusterRole(name) => Reference::at_cluster(Kind::ClusterRole, name.as_str()),
    };
    let own_fields = json!({
        "roleRef": {"apiGroup": role_ref.kind.group(), "kind": role_ref.kind, "name": role_ref.name},
        "subjects": [{
            "kind": Kind::ServiceAccount,
            "name": request.instance.names.object(),
            // Legal to omit in a RoleBinding; scanners then show a dangling subject.
            "namespace": request.instance.namespace.as_str(),
        }],
    });
    manifest(request, request.instance.names.binding(place), &[], own_fields)
}

/// An object of the instance: these annotations beside those that all have, and these fields of its kind. All of them
/// have to be known to the server, because an apply is validated strictly.
fn manifest(request: &Request, reference: Reference, annotations: &[(&str, String)], mut body: Value) -> Manifest {
    let mut metadata = json!({
        "name": reference.name,
        "labels": labels(&request.instance.labels),
        "annotations": {NAME: request.instance.name.as_str(), NAMESPACE: request.instance.namespace.as_str()},
    });
    for (key, value) in annotations {
        metadata["annotations"][*key] = json!(value);
    }
    if let Some(namespace) = &reference.namespace {
        metadata["namespace"] = json!(namespace);
    }
    body["apiVersion"] = json!(reference.kind.api_version());
    body["kind"] = json!(reference.kind);
    body["metadata"] = metadata;
    Manifest { reference, body }
}

/// The tags of the instance, except those whose key is reserved.
fn labels(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = tags.clone();
    labels.extend([(MANAGED_BY, MANAGER), DEPLOYED_WITH].map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        k8s::record::SlotNumbers,
        plan::{
            fixtures::{Case, map, place, request, rule},
            token_slots::SlotPlan,
        },
    };

    fn desired(request: &Request, observed: &Observed, newest: u32, kept: &[&str]) -> Desired {
        let slots = SlotPlan { numbers: SlotNumbers { newest, replaced: None }, ..SlotPlan::default() };
        Desired::new(request, observed, slots, kept.iter().map(|text| place(text)), Adoption::default())
    }

    #[test]
    fn every_object_names_the_instance() {
        let mut request = request(&Case::new(&["home get", "b/view", "* get"]));
        request.instance.labels = map(&[("team", "a"), (MANAGED_BY, "x"), (DEPLOYED_WITH.0, "x")]);
        let desired = desired(&request, &Observed::default(), 1, &[]);
        let grants = desired.grants.iter().flat_map(|granted| granted.role.iter().chain([&granted.binding]));
        let all: Vec<&Manifest> = [&desired.service_account, &desired.secret].into_iter().chain(grants).collect();
        assert_eq!(all.len(), 7);
        for Manifest { reference, body } in all {
            assert_eq!(body["kind"], reference.kind.as_str());
            assert_eq!(body["apiVersion"], reference.kind.api_version());
            assert_eq!(body["metadata"]["name"], reference.name);
            assert_eq!(body["metadata"].get("namespace").and_then(Value::as_str), reference.namespace.as_deref());
            let labels = json!({"team": "a", MANAGED_BY: MANAGER, DEPLOYED_WITH.0: DEPLOYED_WITH.1});
            assert_eq!(body["metadata"]["labels"], labels, "reserved keys win over tags");
            let annotations = &body["metadata"]["annotations"];
            assert_eq!((&annotations[NAME], &annotations[NAMESPACE]), (&json!("demo"), &json!("home")));
        }
    }

    #[rstest::rstest]
    #[case::own_role("home", "RoleBinding home/demo-token", "Role")]
    #[case::own_role_elsewhere("b", "RoleBinding b/demo-token-", "Role")]
    #[case::own_cluster_role("*", "ClusterRoleBinding demo-token-", "ClusterRole")]
    #[case::cluster_role_in_a_namespace("b/view", "RoleBinding b/demo-token-", "ClusterRole")]
    #[case::cluster_role_everywhere("*/view", "ClusterRoleBinding demo-token-", "ClusterRole")]
    fn binding_refers_to_role_and_account(#[case] at: &str, #[case] object: &str, #[case] kind: &str) {
        let request = request(&Case::new(&[]));
        let Manifest { reference, body } = binding(&request, &place(at));
        assert!(reference.to_string().starts_with(object), "{reference}");
        let own = request.instance.names.role(&place(at).scope).name;
        let name = if at.ends_with("view") { "view" } else { &own };
        assert_eq!(body["roleRef"], json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}));
        let account = json!([{"kind": "ServiceAccount", "name": "demo-token", "namespace": "home"}]);
        assert_eq!(body["subjects"], account);
    }

    #[test]
    fn only_own_roles_are_wanted() {
        let request = request(&Case::new(&["home get list", "home/view"]));
        let desired = desired(&request, &Observed::default(), 1, &[]);
        let rules: Vec<_> =
            desired.grants.iter().map(|it| it.role.as_ref().map(|role| role.body["rules"].clone())).collect();
        assert_eq!(rules, [Some(json!([rule(&["get", "list"])])), None]);
    }

    #[test]
    fn secret_is_that_of_the_newest_slot() {
        for (newest, name) in [(1, "demo-token"), (4, "demo-token-4")] {
            let secret = desired(&request(&Case::new(&[])), &Observed::default(), newest, &[]).secret;
            assert_eq!((&*secret.reference.name, &secret.body["type"]), (name, &json!(TOKEN_SECRET)));
            let account = &secret.body["metadata"]["annotations"]["kubernetes.io/service-account.name"];
            assert_eq!(account, "demo-token");
        }
    }

    /// Columns: identity on the platform in the request, in the record before, in the record afterwards.
    #[rstest::rstest]
    #[case::of_the_request(Some("org/a"), Some("org/b"), Some("org/a"))]
    #[case::of_the_record(None, Some("org/b"), Some("org/b"))]
    #[case::unknown(None, None, None)]
    fn record_lists_grants_and_kept_places(
        #[case] requested: Option<&str>,
        #[case] recorded: Option<&str>,
        #[case] wanted: Option<&str>,
    ) {
        let mut request = request(&Case::new(&["home get", "b/view"]));
        request.instance.platform_id = requested.map(str::to_owned);
        let mut observed = Observed::default();
        observed.record.instance = recorded.map(str::to_owned);
        let desired = desired(&request, &observed, 3, &["c"]);
        assert_eq!(desired.record.instance.as_deref(), wanted);
        assert_eq!(desired.record.slots.newest, 3);
        assert_eq!(desired.record.inventory, ["home", "b/view", "c"].into_iter().map(place).collect());
        assert_eq!(desired.kept(&request), BTreeSet::from([place("c")]));
        let annotations = &desired.service_account.body["metadata"]["annotations"];
        for (key, value) in desired.record.to_annotations(&place("home")) {
            assert_eq!(annotations[key], value, "the ServiceAccount has the record");
        }
    }
}
