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
