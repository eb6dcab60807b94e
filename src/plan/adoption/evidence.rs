//! The evidence that an instance was deployed by version 1.0.0, and what Helm has stored of it. Pure.

use crate::{
    k8s::{
        helm_release,
        object::{Live, Reference},
        object_names::Names,
        ownership::Owner,
        record::AdoptionRecord,
    },
    plan::observed::{LiveGrant, Observed},
    rbac::PermissionRecord,
};

/// What is known of the Helm release of version 1.0.0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Whether the release is there, or may be.
    pub(crate) is_there: bool,
    /// The Secrets in which Helm stores it.
    pub(crate) revisions: Vec<(Reference, Live)>,
    /// Whether the parent credential is in one of them; true if they could not be read.
    pub(crate) exposes_parent: bool,
    /// What the parent credential lacks to list them.
    pub(crate) missing: Vec<PermissionRecord>,
}

/// True when the release's Secrets have to be looked for: an object at home came from the original's chart without
/// doubt, or an earlier run has begun with the take-over and not finished it. The chart's Secret alone is no proof.
pub(crate) fn is_evident(names: &Names, observed: &Observed, home: Option<&LiveGrant>) -> bool {
    let objects =
        observed.service_account.iter().chain(home.iter().flat_map(|found| found.role.iter().chain(&found.binding)));
    let original = |live: &Live| names.owner(live) == Owner::Original && helm_release::names_our_chart(live);
    objects.into_iter().any(original) || record(names, observed).is_some_and(|record| record.pending)
}

/// The record of an adoption, if the ServiceAccount belongs to the instance.
pub(crate) fn record(names: &Names, observed: &Observed) -> Option<AdoptionRecord> {
    let is_own = |live: &Live| names.owner(live) == Owner::Ours;
    let record = observed.record.adoption.clone().filter(|record| record.release == names.instance());
    record.filter(|_| observed.service_account.as_ref().is_some_and(is_own))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::k8s::{
        name::{InstanceName, Namespace},
        object::{MANAGED_BY, MANAGER},
        ownership::{NAME, NAMESPACE},
        record::AccountRecord,
    };

    const CHART: (&str, &str) = ("helm.sh/chart", "k8s-token-0.1.0");
    const RELEASE: [(&str, &str); 2] =
        [("meta.helm.sh/release-name", "demo"), ("meta.helm.sh/release-namespace", "home")];
    const OURS: [(&str, &str); 2] = [(NAME, "demo"), (NAMESPACE, "home")];

    fn names() -> Names {
        Names::of(&InstanceName::parse("demo").unwrap(), &Namespace::parse("home").unwrap())
    }

    fn live(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Live {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Live { labels: map(labels), annotations: map(annotations), ..Live::default() }
    }

    fn of_version_1() -> Live {
        live(&[(MANAGED_BY, helm_release::HELM), CHART], &RELEASE)
    }

    #[test]
    fn release_is_evident_from_an_account_role_or_binding_of_its_chart() {
        let is_evident = |account: Option<Live>, found: Option<LiveGrant>| {
            is_evident(&names(), &Observed { service_account: account, ..Observed::default() }, found.as_ref())
        };
        let role = |role| Some(LiveGrant { role: Some(role), ..LiveGrant::default() });
        let binding = |binding| Some(LiveGrant { binding: Some(binding), ..LiveGrant::default() });
        assert!(is_evident(Some(of_version_1()), None));
        assert!(is_evident(None, role(of_version_1())));
        assert!(is_evident(None, binding(of_version_1())));
        assert!(!is_evident(None, None));
        assert!(!is_evident(Some(live(&[(MANAGED_BY, MANAGER), CHART], &OURS)), None), "adopted already");
        assert!(!is_evident(Some(live(&[(MANAGED_BY, helm_release::HELM)], &RELEASE)), None), "of an unknown chart");
    }

    #[rstest::rstest]
    #[case::pending(MANAGER, "demo", true, true)]
    #[case::done(MANAGER, "demo", false, false)]
    #[case::of_another_release(MANAGER, "other", true, false)]
    #[case::of_a_foreign_account("argocd", "demo", true, false)]
    fn adoption_that_was_interrupted_is_evident_from_the_record(
        #[case] manager: &str,
        #[case] release: &str,
        #[case] pending: bool,
        #[case] evident: bool,
    ) {
        let adoption = AdoptionRecord { release: release.to_owned(), exposed: None, pending };
        let observed = Observed {
            service_account: Some(live(&[(MANAGED_BY, manager)], &OURS)),
            record: AccountRecord { adoption: Some(adoption), ..AccountRecord::default() },
            ..Observed::default()
        };
        assert_eq!(is_evident(&names(), &observed, None), evident);
    }
}
