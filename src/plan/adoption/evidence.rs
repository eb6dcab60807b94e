//! The evidence: what tells that an instance was deployed by version 1.0.0, and what Helm has stored of it. Pure.

use crate::{
    k8s::{
        helm_release,
        object::{Live, Reference},
        object_names::Names,
        ownership::Owner,
        record::AdoptionRecord,
    },
    plan::observed::{Found, Observed},
    rbac::Tuple,
};

/// What is known of the Helm release of version 1.0.0.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Whether the release is there, or may be.
    pub is_there: bool,
    /// The Secrets in which Helm stores it.
    pub revisions: Vec<(Reference, Live)>,
    /// Whether the parent credential is in one of them; true if they could not be read.
    pub exposes_parent: bool,
    /// What the parent credential lacks to list them.
    pub missing: Vec<Tuple>,
}

/// True when the release's Secrets have to be looked for: an object at home came from the original's chart without
/// doubt, or an earlier run has begun with the take-over and not finished it. The chart's Secret alone is no proof.
#[must_use]
pub fn is_evident(names: &Names, observed: &Observed, home: Option<&Found>) -> bool {
    let objects =
        observed.service_account.iter().chain(home.iter().flat_map(|found| found.role.iter().chain(&found.binding)));
    let original = |live: &Live| names.owner(live) == Owner::Original && helm_release::names_our_chart(live);
    objects.into_iter().any(original) || record(names, observed).is_some_and(|record| record.pending)
}

/// The record of an adoption, if the ServiceAccount belongs to the instance.
#[must_use]
pub fn record(names: &Names, observed: &Observed) -> Option<AdoptionRecord> {
    let is_own = |live: &Live| names.owner(live) == Owner::Ours;
    let record = observed.record.adoption.clone().filter(|record| record.release == names.instance());
    record.filter(|_| observed.service_account.as_ref().is_some_and(is_own))
}
