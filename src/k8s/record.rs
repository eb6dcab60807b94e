//! The account record: everything that an instance's ServiceAccount stores between runs, in its annotations. Pure.
//!
//! Keys and values exist on clusters of users: every format that was ever written stays readable. A value that cannot
//! be read counts as absent. A new field is a new key here, with its place in [`AccountRecord`] and nowhere else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::k8s::{grant::Place, inventory::Inventory};

/// Annotation: number of the newest token slot, written before a Secret is created in it.
const NEWEST_SLOT: &str = "k8s-token.massdriver.cloud/token-generation";
/// Annotation: number of the slot that the newest one replaces, if it does not follow from the newest number. Its
/// Secret may be deleted already.
const REPLACED_SLOT: &str = "k8s-token.massdriver.cloud/token-replaced";
/// Annotation: every place where the instance may have objects, except its own Role and binding in the home namespace;
/// written before anything is created there.
pub(crate) const INVENTORY: &str = "k8s-token.massdriver.cloud/inventory";
/// Annotation: identity of the instance on the platform. Distinguishes an instance whose namespace was changed from
/// another instance of the same name.
const INSTANCE: &str = "k8s-token.massdriver.cloud/instance";
/// Annotation: adoption of the Helm release of version 1.0.0.
const ADOPTION: &str = "k8s-token.massdriver.cloud/taken-over";

/// The record of one ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountRecord {
    /// Token slots in use.
    pub(crate) slots: SlotNumbers,
    /// Places where the instance may have objects.
    pub(crate) inventory: Inventory,
    /// Identity of the instance on the platform, if a run ever knew it.
    pub(crate) instance: Option<String>,
    /// Adoption of the Helm release of version 1.0.0, if there was one.
    pub(crate) adoption: Option<AdoptionRecord>,
}

/// The numbers of the token slots in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotNumbers {
    /// The newest slot; 1 is the first.
    pub(crate) newest: u32,
    /// The slot that the newest one replaces, where that does not follow from the newest number.
    pub(crate) replaced: Option<u32>,
}

impl Default for SlotNumbers {
    fn default() -> Self {
        Self { newest: 1, replaced: None }
    }
}

/// The adoption of the Helm release of version 1.0.0. Recorded before the first object loses Helm's label, so that a run
/// that was stopped half-way leaves no Secret of Helm with a parent credential behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdoptionRecord {
    /// Name of the release.
    pub(crate) release: String,
    /// Fingerprint of the parent credential that was in the release's Secrets; none for a login without a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exposed: Option<String>,
    /// True until all Secrets of the release are deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pending: bool,
}

impl AccountRecord {
    /// The record in the annotations of a ServiceAccount, and whether the inventory in it was understood completely.
    pub(crate) fn from_annotations(annotations: &BTreeMap<String, String>, home: &Place) -> (Self, bool) {
        let text = |key: &str| annotations.get(key).map(String::as_str);
        let number = |key: &str| text(key).and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        let (inventory, is_complete) = Inventory::parse(text(INVENTORY), home);
        let record = Self {
            slots: SlotNumbers { newest: number(NEWEST_SLOT).unwrap_or(1), replaced: number(REPLACED_SLOT) },
            inventory,
            instance: text(INSTANCE).map(str::to_owned),
            adoption: text(ADOPTION).and_then(|adoption| serde_json::from_str(adoption).ok()),
        };
        (record, is_complete)
    }

    /// The annotations that store this record.
    pub(crate) fn to_annotations(&self, home: &Place) -> Vec<(&'static str, String)> {
        let adoption = self.adoption.as_ref().and_then(|adoption| serde_json::to_string(adoption).ok());
        let optional = [
            (REPLACED_SLOT, self.slots.replaced.map(|number| number.to_string())),
            (INSTANCE, self.instance.clone()),
            (INVENTORY, self.inventory.text(home)),
            (ADOPTION, adoption),
        ];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
        [(NEWEST_SLOT, self.slots.newest.to_string())].into_iter().chain(optional).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::k8s::{
        grant::{RoleSource, Scope},
        name::ClusterRoleName,
    };

    fn place(scope: &str) -> Place {
        Place::new(Scope::parse(scope).unwrap(), RoleSource::Rules)
    }

    fn read(annotations: &[(&str, &str)]) -> (AccountRecord, bool) {
        let annotations = annotations
            .iter()
            .map(|(key, value)| (format!("k8s-token.massdriver.cloud/{key}"), (*value).to_owned()))
            .collect();
        AccountRecord::from_annotations(&annotations, &place("home"))
    }

    #[test]
    fn record_is_written_as_on_clusters() {
        let record = AccountRecord {
            slots: SlotNumbers { newest: 7, replaced: Some(3) },
            inventory: Inventory::from_iter([place("home"), place("b"), place("*")]),
            instance: Some("org/demo".to_owned()),
            adoption: Some(AdoptionRecord {
                release: "demo".to_owned(),
                exposed: Some("sha256:1".to_owned()),
                pending: true,
            }),
        };
        let written = [
            ("token-generation", "7"),
            ("token-replaced", "3"),
            ("instance", "org/demo"),
            ("inventory", r#"{"rules":["*","b","home"]}"#),
            ("taken-over", r#"{"release":"demo","exposed":"sha256:1","pending":true}"#),
        ];
        let keyed = written.map(|(key, value)| (format!("k8s-token.massdriver.cloud/{key}"), value.to_owned()));
        let annotations = record.to_annotations(&place("home"));
        assert_eq!(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Vec<_>>(), keyed);
        assert_eq!(read(&written), (record, true));
    }

    #[test]
    fn defaults_need_one_annotation() {
        let home = Inventory::from_iter([place("home")]);
        let record = AccountRecord { inventory: home, ..AccountRecord::default() };
        assert_eq!(read(&[]), (record.clone(), true));
        assert_eq!(record.to_annotations(&place("home")), [(NEWEST_SLOT, "1".to_owned())]);
        let adoption = AdoptionRecord { release: "demo".to_owned(), exposed: None, pending: false };
        let record = AccountRecord { adoption: Some(adoption), ..record };
        assert_eq!(record.to_annotations(&place("home"))[1], (ADOPTION, r#"{"release":"demo"}"#.to_owned()));
    }

    #[rstest::rstest]
    #[case::empty("")]
    #[case::text("yes")]
    #[case::zero("0")]
    #[case::negative("-1")]
    #[case::too_large("4294967296")]
    #[case::spaced(" 2")]
    fn garbled_slot_number_counts_as_absent(#[case] value: &str) {
        let (record, _) = read(&[("token-generation", value), ("token-replaced", value)]);
        assert_eq!(record.slots, SlotNumbers::default());
    }

    #[rstest::rstest]
    #[case::text("yes")]
    #[case::list("[]")]
    #[case::no_release(r#"{"pending":true}"#)]
    #[case::wrong_type(r#"{"release":1}"#)]
    fn garbled_adoption_counts_as_absent(#[case] value: &str) {
        assert_eq!(read(&[("taken-over", value)]).0.adoption, None);
    }

    #[test]
    fn garbled_inventory_is_reported_and_spares_the_rest() {
        let (record, is_complete) = read(&[("inventory", "{"), ("token-generation", "2"), ("instance", "x")]);
        assert!(!is_complete);
        assert_eq!((record.slots.newest, record.instance.as_deref()), (2, Some("x")));
        assert_eq!(record.inventory, Inventory::default());
    }

    prop_compose! {
        fn any_adoption()(release in ".{0,9}", exposed in prop::option::of(".{0,9}"), pending in any::<bool>())
            -> AdoptionRecord
        {
            AdoptionRecord { release, exposed, pending }
        }
    }

    prop_compose! {
        fn any_record()(
            newest in 1..=u32::MAX,
            replaced in prop::option::of(1..=u32::MAX),
            scopes in prop::collection::vec(("[a-z]{1,3}|[*]", prop::option::of("[a-z:\"]{1,4}")), 1..6),
            instance in prop::option::of(".{0,9}"),
            adoption in prop::option::of(any_adoption()),
        ) -> AccountRecord {
            let places = scopes.iter().map(|(scope, role)| {
                let role = role.as_deref().map(|role| ClusterRoleName::parse(role).unwrap());
                let role_source = role.map_or(RoleSource::Rules, RoleSource::ClusterRole);
                Place::new(Scope::parse(scope).unwrap(), role_source)
            });
            AccountRecord {
                slots: SlotNumbers { newest, replaced },
                inventory: places.collect(),
                instance,
                adoption,
            }
        }
    }

    proptest! {
        #[test]
        fn record_survives_a_round_trip(record in any_record()) {
            let written = record.to_annotations(&place("a"));
            let annotations = written.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            prop_assert_eq!(AccountRecord::from_annotations(&annotations, &place("a")), (record, true));
        }

        #[test]
        fn any_annotations_are_read(values in prop::collection::vec(".{0,40}", 5)) {
            let keys = [NEWEST_SLOT, REPLACED_SLOT, INVENTORY, INSTANCE, ADOPTION].map(str::to_owned);
            let annotations = keys.into_iter().zip(values).collect();
            let (record, _) = AccountRecord::from_annotations(&annotations, &place("a"));
            prop_assert!(record.slots.newest > 0);
            let written = record.to_annotations(&place("a"));
            let annotations = written.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let (again, _) = AccountRecord::from_annotations(&annotations, &place("a"));
            prop_assert_eq!(again.slots, record.slots);
            prop_assert_eq!(again.adoption, record.adoption);
        }
    }
}
