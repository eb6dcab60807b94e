//! Ownership of an object on the cluster: whether it belongs to an instance, to its Helm release of version 1.0.0, or to
//! another party. Decided by one label and two annotations that every object of an instance carries. Pure.

use crate::k8s::{
    helm_release::{self, Release},
    object::{Live, MANAGED_BY, MANAGER},
};

/// Annotation of every object: the instance's name, as the platform calls it.
pub(crate) const NAME: &str = "k8s-token.massdriver.cloud/name";
/// Annotation of every object: the instance's home namespace.
pub(crate) const NAMESPACE: &str = "k8s-token.massdriver.cloud/namespace";

/// The owner of an object, as seen by one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This instance.
    Ours,
    /// This instance's Helm release of version 1.0.0: the object can be adopted.
    Original,
    /// Another party; the text names it, as far as the object tells.
    Foreign(String),
}

/// The owner of an object, seen by the instance of this name and home namespace.
pub(crate) fn owner(live: &Live, name: &str, namespace: &str) -> Owner {
    let manager = live.labels.get(MANAGED_BY).map(String::as_str);
    let instance = (live.annotations.get(NAME), live.annotations.get(NAMESPACE));
    match (manager, instance) {
        (Some(MANAGER), (Some(owner), Some(home))) if owner == name && home == namespace => Owner::Ours,
        (Some(MANAGER), (Some(owner), Some(home))) => {
            Owner::Foreign(format!("it belongs to the k8s-token instance {owner} of namespace {home}"))
        }
        (Some(MANAGER), _) => Owner::Foreign(format!(
            "its k8s-token annotations were removed; if it belongs to this instance, restore {NAME}: {name} and \
             {NAMESPACE}: {namespace}"
        )),
        (Some(helm_release::HELM), _) => match helm_release::release_of(live, name, namespace) {
            Release::Original => Owner::Original,
            Release::Other(whose) => Owner::Foreign(whose),
        },
        (Some(other), _) => Owner::Foreign(format!("it is managed by {other}")),
        (None, _) if !live.owned_annotations.is_empty() => Owner::Foreign(format!(
            "k8s-token created it, and its label {MANAGED_BY} was removed; if it belongs to this instance, restore the \
             value {MANAGER}"
        )),
        (None, _) => Owner::Foreign("no label or annotation shows who manages it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::own(Some(MANAGER), &[(NAME, "demo"), (NAMESPACE, "a")], false, None)]
    #[case::of_another_name(Some(MANAGER), &[(NAME, "other"), (NAMESPACE, "a")], false, Some("instance other of namespace a"))]
    #[case::of_another_namespace(Some(MANAGER), &[(NAME, "demo"), (NAMESPACE, "b")], false, Some("instance demo of namespace b"))]
    #[case::no_namespace(Some(MANAGER), &[(NAME, "demo")], true, Some("annotations were removed"))]
    #[case::no_annotation(Some(MANAGER), &[], false, Some("annotations were removed"))]
    #[case::of_helm(Some(helm_release::HELM), &[(NAME, "demo"), (NAMESPACE, "a")], false, Some("managed by Helm"))]
    #[case::of_another_manager(Some("flux"), &[(NAME, "demo"), (NAMESPACE, "a")], true, Some("managed by flux"))]
    #[case::label_removed(None, &[(NAME, "demo"), (NAMESPACE, "a")], true, Some("was removed; if it belongs to this instance"))]
    #[case::annotations_copied(None, &[(NAME, "demo"), (NAMESPACE, "a")], false, Some("no label or annotation shows who manages it"))]
    fn owner_follows_from_label_and_annotations(
        #[case] manager: Option<&str>,
        #[case] annotations: &[(&str, &str)],
        #[case] applied_here: bool,
        #[case] foreign: Option<&str>,
    ) {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let live = Live {
            labels: manager.map(|manager| (MANAGED_BY.to_owned(), manager.to_owned())).into_iter().collect(),
            annotations: annotations.iter().map(text).collect(),
            owned_annotations: applied_here.then(|| NAME.to_owned()).into_iter().collect(),
            ..Live::default()
        };
        match (owner(&live, "demo", "a"), foreign) {
            (Owner::Ours, None) => {}
            (Owner::Foreign(whose), Some(part)) => assert!(whose.contains(part), "{whose}"),
            (owner, _) => panic!("{owner:?}"),
        }
    }
}
