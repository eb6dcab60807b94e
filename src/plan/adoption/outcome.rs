//! The result of the decision, as the desired state has it. Pure.

use crate::k8s::{object::Reference, record::AdoptionRecord};

/// The adoption of a Helm release by a provision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Adoption {
    /// Whether Secrets of the release may be there.
    pub(crate) under_way: bool,
    /// The record of the ServiceAccount when the run is done.
    pub(crate) record: Option<AdoptionRecord>,
    /// The Secrets of the release that can be deleted.
    pub(crate) revisions: Vec<Reference>,
    /// Why the others cannot be deleted, in words.
    pub(crate) stuck: Option<String>,
}

impl Adoption {
    /// The record of the ServiceAccount until the Secrets of the release are deleted.
    pub(crate) fn record_on_the_way(&self) -> Option<AdoptionRecord> {
        self.record.clone().map(|record| AdoptionRecord { pending: record.pending || self.under_way, ..record })
    }
}
