//! What must be there: `Request -> Desired`, every object as an apply body. Pure and infallible.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        core::v1::{Secret, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::{
    grant::{Authority, Grant, Place, Scope},
    inventory::Inventory,
    object::{GENERATION, INVENTORY, Kind, MANAGED_BY, MANAGER, Manifest, NAME, NAMESPACE, Reference, TOKEN_SECRET},
    rbac::Rule,
    request::Request,
};

/// Marks objects of the platform; the original bundle sets the same.
const DEPLOYED_WITH: (&str, &str) = ("app.kubernetes.io/deployed-with", "massdriver.cloud");

/// The objects of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The number of the token Secret.
    pub generation: u32,
    /// Every place that stays.
    pub inventory: Inventory,
    /// The identity; remembers the two.
    pub service_account: Manifest,
    /// What it may do, in the order of the request.
    pub grants: Vec<Granted>,
    /// Where the token controller puts the token.
    pub secret: Manifest,
}

/// The objects of one grant.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// Where they are.
    pub place: Place,
    /// Our own Role or ClusterRole; none when an existing ClusterRole is bound.
    pub role: Option<Manifest>,
    /// The binding.
    pub binding: Manifest,
}

impl Desired {
    /// The objects that grant this request; `generation` is the number of the token Secret, 1 for the first. `kept` are
    /// places of earlier requests that cannot be cleared.
    #[must_use]
    pub fn new(request: &Request, generation: u32, kept: Vec<Place>) -> Self {
        let inventory = request.inventory_with(kept);
        let secret = request.names.secret(generation);
        let account_of = [("kubernetes.io/service-account.name", request.names.object().to_owned())];
        Self {
            generation,
            service_account: service_account(request, generation, &inventory),
            grants: request.grants.iter().map(|grant| granted(request, grant)).collect(),
            secret: Manifest {
                body: body(&Secret {
                    metadata: metadata(request, &secret, account_of),
                    type_: Some(TOKEN_SECRET.to_owned()),
                    ..Secret::default()
                }),
                reference: secret,
            },
            inventory,
        }
    }
}

impl Desired {
    /// The places that stay although the request does not want them.
    #[must_use]
    pub fn kept(&self, request: &Request) -> BTreeSet<Place> {
        self.inventory.places().filter(|place| !request.wants(place)).cloned().collect()
    }
}

/// The ServiceAccount, with this inventory.
#[must_use]
pub fn service_account(request: &Request, generation: u32, inventory: &Inventory) -> Manifest {
    let reference = request.names.service_account();
    let generation = (GENERATION, generation.to_string());
    let inventory = inventory.text(&request.names.home()).map(|text| (INVENTORY, text));
    let metadata = metadata(request, &reference, std::iter::once(generation).chain(inventory));
    Manifest { body: body(&ServiceAccount { metadata, ..ServiceAccount::default() }), reference }
}

fn granted(request: &Request, grant: &Grant) -> Granted {
    let role = grant.place.has_role().then(|| role(request, &grant.place.scope, &grant.rules));
    Granted { place: grant.place.clone(), role, binding: binding(request, &grant.place) }
}

/// Our own Role or ClusterRole of a scope, with these rules.
#[must_use]
pub fn role(request: &Request, scope: &Scope, rules: &[Rule]) -> Manifest {
    let reference = request.names.role(scope);
    let metadata = metadata(request, &reference, []);
    let rules = Some(rules.iter().map(policy_rule).collect());
    let body = match scope {
        Scope::Namespace(_) => body(&Role { metadata, rules }),
        Scope::Cluster => body(&ClusterRole { metadata, rules, ..ClusterRole::default() }),
    };
    Manifest { reference, body }
}

/// The binding of a place.
#[must_use]
pub fn binding(request: &Request, place: &Place) -> Manifest {
    let reference = request.names.binding(place);
    let metadata = metadata(request, &reference, []);
    let role_ref = match &place.authority {
        Authority::Rules => request.names.role(&place.scope),
        Authority::ClusterRole(name) => Reference::at_cluster(Kind::ClusterRole, name.as_str()),
    };
    let role_ref = RoleRef {
        api_group: role_ref.kind.group().to_owned(),
        kind: role_ref.kind.as_str().to_owned(),
        name: role_ref.name,
    };
    let subjects = Some(vec![Subject {
        kind: Kind::ServiceAccount.as_str().to_owned(),
        name: request.names.object().to_owned(),
        // Legal to omit in a RoleBinding; scanners then show a dangling subject.
        namespace: Some(request.namespace.to_string()),
        ..Subject::default()
    }]);
    let body = match place.scope {
        Scope::Namespace(_) => body(&RoleBinding { metadata, role_ref, subjects }),
        Scope::Cluster => body(&ClusterRoleBinding { metadata, role_ref, subjects }),
    };
    Manifest { reference, body }
}

fn metadata(
    request: &Request,
    reference: &Reference,
    more: impl IntoIterator<Item = (&'static str, String)>,
) -> ObjectMeta {
    let ours = [(NAME, request.name.to_string()), (NAMESPACE, request.namespace.to_string())];
    let annotations = ours.into_iter().chain(more).map(|(key, value)| (key.to_owned(), value));
    ObjectMeta {
        name: Some(reference.name.clone()),
        namespace: reference.namespace.clone(),
        labels: Some(labels(&request.labels)),
        annotations: Some(annotations.collect()),
        ..ObjectMeta::default()
    }
}

/// The tags of the instance; our own labels win over a tag of the same key.
fn labels(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = [(MANAGED_BY, MANAGER), DEPLOYED_WITH].map(|(key, value)| (key.to_owned(), value.to_owned()));
    tags.clone().into_iter().chain(ours).collect()
}

fn policy_rule(rule: &Rule) -> PolicyRule {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    PolicyRule {
        api_groups: some(&rule.api_groups),
        resources: some(&rule.resources),
        resource_names: some(&rule.resource_names),
        verbs: rule.verbs.clone(),
        non_resource_urls: some(&rule.non_resource_urls),
    }
}

/// The apply body of a typed object. Kubernetes types have string keys only, so that this cannot fail; an empty
/// body would be refused by the server.
fn body<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
