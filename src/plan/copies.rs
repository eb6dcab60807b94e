//! Copies of the instance's objects that another controller made in other namespaces, with their labels and annotations
//! (hierarchical namespaces, Kyverno). A copied binding grants the same ServiceAccount the same permissions there.
//! Pure.

use std::collections::BTreeSet;

use crate::{
    diagnostics::finding::{self, Finding},
    k8s::{
        object::{Kind, Live, Reference},
        object_names::Names,
        ownership::{NAME, Owner},
    },
    plan::snapshot::Snapshot,
};

/// Whether an object with the label and annotations of the instance was created by another controller: it has a name
/// that the instance does not use at that place, or no managed fields of k8s-token.
pub(crate) fn is_copy(names: &Names, object: &Reference, live: &Live) -> bool {
    let away = object.namespace.as_deref() != Some(names.namespace().as_str());
    let misplaced = away && object.name == names.object();
    misplaced || !live.owned_annotations.contains(NAME)
}

/// The bindings of this instance at places that neither the params nor the ServiceAccount list, among the `found`
/// objects of a search by label.
pub(crate) fn rights_elsewhere(names: &Names, snapshot: &Snapshot, found: &[(Reference, Live)]) -> Vec<Finding> {
    let known: BTreeSet<Reference> = snapshot.observed.places.keys().map(|place| names.binding(place)).collect();
    let elsewhere = found
        .iter()
        .filter(|(object, live)| is_binding(object) && names.owner(live) == Owner::Ours && !known.contains(object));
    let finding = |(object, live): &(Reference, Live)| {
        let origin = if is_copy(names, object, live) {
            "another controller copied it there"
        } else {
            "an earlier deployment left it there"
        };
        let account = names.service_account();
        let text = format!("{object} also grants permissions to {account}, where the params grant nothing: {origin}");
        Finding::remark(finding::Code::RightsElsewhere, text)
            .help("exclude the objects of this instance from what that controller copies, and delete the binding")
    };
    elsewhere.map(finding).collect()
}

/// The finding about a copy that a decommission could not delete, with its remaining effect.
pub(crate) fn not_deleted(names: &Names, object: &Reference, why: &str, account_is_gone: bool) -> Finding {
    let account = names.service_account();
    let meaning = match (is_binding(object), account_is_gone) {
        (true, true) => format!(
            "it binds {account}, which no longer exists: it grants nothing, until a ServiceAccount of that name is \
             created again"
        ),
        (true, false) => format!("it binds {account}, which still exists"),
        (false, _) => "it grants nothing without a binding".to_owned(),
    };
    let text = format!(
        "{object} is a copy that another controller made of an object of this instance, and was not deleted ({why}): \
         {meaning}"
    );
    Finding::remark(finding::Code::RightsElsewhere, text)
        .help("make that controller remove its copy, now that the original is deleted, or delete the copy by hand")
}

const fn is_binding(object: &Reference) -> bool {
    matches!(object.kind, Kind::RoleBinding | Kind::ClusterRoleBinding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::name::{InstanceName, Namespace};

    #[test]
    fn copies_are_recognized_by_name_or_field_manager() {
        let names = Names::of(&InstanceName::parse("demo").unwrap(), &Namespace::parse("a").unwrap());
        let ours = Live { owned_annotations: BTreeSet::from([NAME.to_owned()]), ..Live::default() };
        let role = |namespace: &str, name: &str| Reference::new(Kind::Role, namespace, name);
        assert!(!is_copy(&names, &role("a", "demo-token"), &ours));
        assert!(is_copy(&names, &role("a", "demo-token"), &Live::default()));
        assert!(is_copy(&names, &role("b", "demo-token"), &ours), "elsewhere ours have a hash in their names");
        assert!(!is_copy(&names, &role("b", "demo-token-1960e37ce9"), &ours));
        assert!(is_copy(&names, &role("b", "demo-token-1960e37ce9"), &Live::default()));
    }
}
