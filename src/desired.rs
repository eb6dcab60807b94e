//! What must be there: `Request -> Desired`, the four objects as apply bodies. Pure and infallible.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Secret, ServiceAccount},
        rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::{
    object::{GENERATION, Kind, MANAGED_BY, MANAGER, Manifest, NAME, NAMESPACE, Reference, TOKEN_SECRET},
    rbac::Rule,
    request::Request,
};

/// Marks objects of the platform; the original bundle sets the same.
const DEPLOYED_WITH: (&str, &str) = ("app.kubernetes.io/deployed-with", "massdriver.cloud");

/// The objects of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The identity; remembers the number of the token Secret.
    pub service_account: Manifest,
    /// What it may do.
    pub role: Manifest,
    /// That it may do it.
    pub binding: Manifest,
    /// Where the token controller puts the token.
    pub secret: Manifest,
}

impl Desired {
    /// The objects that grant this request; `generation` is the number of the token Secret, 1 for the first.
    #[must_use]
    pub fn new(request: &Request, generation: u32) -> Self {
        let names = &request.names;
        let meta = |name: &str, more: &[(&str, &str)]| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(request.namespace.to_string()),
            labels: Some(labels(&request.labels)),
            annotations: Some(annotations(request, more)),
            ..ObjectMeta::default()
        };
        let manifest = |kind: Kind, name: &str, object: Value| Manifest {
            reference: Reference::new(kind, request.namespace.as_str(), name),
            body: object,
        };

        let object = names.object();
        let secret = names.secret(generation);
        Self {
            service_account: manifest(
                Kind::ServiceAccount,
                object,
                body(&ServiceAccount {
                    metadata: meta(object, &[(GENERATION, &generation.to_string())]),
                    ..ServiceAccount::default()
                }),
            ),
            role: manifest(
                Kind::Role,
                object,
                body(&Role {
                    metadata: meta(object, &[]),
                    rules: Some(request.rules.iter().map(policy_rule).collect()),
                }),
            ),
            binding: manifest(
                Kind::RoleBinding,
                object,
                body(&RoleBinding {
                    metadata: meta(object, &[]),
                    role_ref: RoleRef {
                        api_group: Kind::Role.group().to_owned(),
                        kind: Kind::Role.as_str().to_owned(),
                        name: object.to_owned(),
                    },
                    subjects: Some(vec![Subject {
                        kind: Kind::ServiceAccount.as_str().to_owned(),
                        name: object.to_owned(),
                        // Legal to omit in a RoleBinding; scanners then show a dangling subject.
                        namespace: Some(request.namespace.to_string()),
                        ..Subject::default()
                    }]),
                }),
            ),
            secret: manifest(
                Kind::Secret,
                &secret,
                body(&Secret {
                    metadata: meta(&secret, &[("kubernetes.io/service-account.name", object)]),
                    type_: Some(TOKEN_SECRET.to_owned()),
                    ..Secret::default()
                }),
            ),
        }
    }

    /// All four, in the order in which they are made.
    #[must_use]
    pub fn manifests(&self) -> [&Manifest; 4] {
        [&self.service_account, &self.role, &self.binding, &self.secret]
    }
}

/// The tags of the instance; our own labels win over a tag of the same key.
fn labels(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = [(MANAGED_BY, MANAGER), DEPLOYED_WITH].map(|(key, value)| (key.to_owned(), value.to_owned()));
    tags.clone().into_iter().chain(ours).collect()
}

fn annotations(request: &Request, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let (name, home) = (request.name.as_str(), request.namespace.as_str());
    let ours = [(NAME, name), (NAMESPACE, home)];
    ours.into_iter().chain(more.iter().copied()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn policy_rule(rule: &Rule) -> PolicyRule {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    PolicyRule {
        api_groups: some(&rule.api_groups),
        resources: some(&rule.resources),
        resource_names: some(&rule.resource_names),
        verbs: rule.verbs.clone(),
        non_resource_urls: None,
    }
}

/// The apply body of a typed object. Kubernetes types have string keys only, so that this cannot fail; an empty
/// body would be refused by the server.
fn body<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
