//! What must be there: `Request -> Desired`, every object as an apply body. Pure and infallible.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    grant::{Authority, Grant, Place, Scope},
    inventory::Inventory,
    object::{
        GENERATION, INSTANCE, INVENTORY, Kind, MANAGED_BY, MANAGER, Manifest, NAME, NAMESPACE, REPLACED, Reference,
        TAKEN_OVER, TOKEN_SECRET,
    },
    original::{TakeOver, TakenOver},
    rbac::Rule,
    request::Request,
};

/// Marks objects of the platform; the original bundle sets the same.
const DEPLOYED_WITH: (&str, &str) = ("app.kubernetes.io/deployed-with", "massdriver.cloud");

/// The token Secrets, by number, as the ServiceAccount records them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretNumbers {
    /// The one to have, 1 for the first.
    pub newest: u32,
    /// The one that it replaces, where that does not follow from the newest.
    pub replaced: Option<u32>,
}

/// The objects of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The numbers of the token Secrets.
    pub secrets: SecretNumbers,
    /// Every place that stays.
    pub inventory: Inventory,
    /// Which instance of the platform it is, as far as anybody has said.
    pub instance: Option<String>,
    /// What is left of the original bundle, and what is to be remembered of that.
    pub take_over: TakeOver,
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
    /// The objects that grant this request, with these numbers of token Secrets. `kept` are places of earlier requests that cannot be cleared. `instance` is what the ServiceAccount says of itself, for a
    /// request that does not know it.
    #[must_use]
    pub fn new(
        request: &Request,
        secrets: SecretNumbers,
        kept: Vec<Place>,
        instance: Option<&String>,
        take_over: TakeOver,
    ) -> Self {
        let inventory: Inventory = request.grants.iter().map(|grant| grant.place.clone()).chain(kept).collect();
        let instance = request.instance.platform_id.as_ref().or(instance).cloned();
        let secret = request.instance.names.secret(secrets.newest);
        let account_of = [("kubernetes.io/service-account.name", request.instance.names.object().to_owned())];
        Self {
            secrets,
            service_account: service_account(
                request,
                secrets,
                &inventory,
                instance.as_deref(),
                take_over.record.as_ref(),
            ),
            grants: request.grants.iter().map(|grant| granted(request, grant)).collect(),
            secret: manifest(request, secret, &account_of, json!({"type": TOKEN_SECRET})),
            inventory,
            instance,
            take_over,
        }
    }

    /// The places that stay although the request does not want them.
    #[must_use]
    pub fn kept(&self, request: &Request) -> BTreeSet<Place> {
        self.inventory.places().filter(|place| !request.grants.wants(place)).cloned().collect()
    }
}

/// The ServiceAccount, with this inventory, and with what it remembers of a take-over.
#[must_use]
pub fn service_account(
    request: &Request,
    secrets: SecretNumbers,
    inventory: &Inventory,
    instance: Option<&str>,
    taken_over: Option<&TakenOver>,
) -> Manifest {
    let mut remembered = vec![(GENERATION, secrets.newest.to_string())];
    remembered.extend(secrets.replaced.map(|number| (REPLACED, number.to_string())));
    remembered.extend(instance.map(|instance| (INSTANCE, instance.to_owned())));
    remembered.extend(inventory.text(&request.instance.names.home()).map(|text| (INVENTORY, text)));
    remembered.extend(taken_over.map(|record| (TAKEN_OVER, record.text())));
    manifest(request, request.instance.names.service_account(), &remembered, json!({}))
}

fn granted(request: &Request, grant: &Grant) -> Granted {
    let role = grant.place.has_role().then(|| role(request, &grant.place.scope, &grant.rules));
    Granted { place: grant.place.clone(), role, binding: binding(request, &grant.place) }
}

/// Our own Role or ClusterRole of a scope, with these rules.
#[must_use]
pub fn role(request: &Request, scope: &Scope, rules: &[Rule]) -> Manifest {
    manifest(request, request.instance.names.role(scope), &[], json!({"rules": rules}))
}

/// The binding of a place.
#[must_use]
pub fn binding(request: &Request, place: &Place) -> Manifest {
    let role_ref = match &place.authority {
        Authority::Rules => request.instance.names.role(&place.scope),
        Authority::ClusterRole(name) => Reference::at_cluster(Kind::ClusterRole, name.as_str()),
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

/// An object of the instance, with these annotations beside those that all have, and these fields of its kind. What
/// the server does not know it refuses: an apply is validated strictly.
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

/// The tags of the instance; our own labels win over a tag of the same key.
fn labels(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = tags.clone();
    labels.extend([(MANAGED_BY, MANAGER), DEPLOYED_WITH].map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}
