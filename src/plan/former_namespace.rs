//! A former namespace: one in which an instance of the platform still has objects, because its namespace was changed
//! although the form does not allow that. Pure.

use std::collections::BTreeMap;

use crate::{
    diagnostics::finding::{self, Finding, Severity},
    input::request::Request,
    k8s::{
        denial::lacks,
        helm_release,
        name::Namespace,
        object::{Live, Reference},
        object_names::Names,
        ownership::Owner,
        record::{AccountRecord, INVENTORY},
    },
    plan::{adoption::decision, parent_access, removal::Removal, snapshot::Snapshot},
};

/// What an instance is on the platform, whatever its namespace.
#[derive(Clone, Copy)]
pub(crate) struct PlatformInstance<'a> {
    /// `<organization>/<instance>`, as the ServiceAccount records it.
    pub(crate) id: &'a str,
    /// Labels of the objects.
    pub(crate) tags: &'a BTreeMap<String, String>,
}

/// The namespaces of these ServiceAccounts that belong to the same instance of the platform, except the home namespace.
pub(crate) fn former_namespaces(
    names: &Names,
    instance: PlatformInstance<'_>,
    accounts: &[(Reference, Live)],
) -> Vec<Namespace> {
    let same = accounts.iter().filter_map(|(object, live)| {
        let namespace = Namespace::parse(object.namespace.as_deref()?).ok()?;
        is_same_instance(&names.in_home(&namespace), instance, live).then_some(namespace)
    });
    same.filter(|namespace| namespace != names.namespace()).collect()
}

/// A ServiceAccount of the same name that another party created, or copied, belongs to another instance.
fn is_same_instance(there: &Names, instance: PlatformInstance<'_>, live: &Live) -> bool {
    match there.owner(live) {
        Owner::Ours => {
            let (record, _) = AccountRecord::from_annotations(&live.annotations, &there.home());
            record.instance.as_deref() == Some(instance.id)
        }
        Owner::Original => helm_release::is_marked(live, instance.tags),
        Owner::Foreign(_) => false,
    }
}

/// A former namespace and what is there.
pub(crate) struct FormerNamespace {
    /// The names of the objects there.
    pub(crate) names: Names,
    /// The objects there.
    pub(crate) snapshot: Snapshot,
}

impl FormerNamespace {
    /// The findings: that there is one, and what happens to it.
    pub(crate) fn remarks(&self, request: &Request, severity: Severity, then: &str) -> Vec<Finding> {
        let home = self.names.namespace();
        let text = format!("this instance was in namespace {home} before, and its objects there still exist: {then}");
        let exposed = decision::exposure(request, &self.names, &self.snapshot);
        [Finding::remark(finding::Code::Moved, text).severity(severity)].into_iter().chain(exposed).collect()
    }

    /// The objects to delete, and a finding where something stays.
    pub(crate) fn to_delete(&self) -> (Removal, Option<Finding>) {
        let mut left = Removal::of(&self.names, &self.snapshot, &[]);
        let objects: Vec<Reference> = left.ours.keys().cloned().collect();
        let mut missing = left.unseen.clone();
        missing.extend(parent_access::missing_delete(&self.snapshot, &objects));
        if !missing.is_empty() {
            return (Removal::default(), Some(self.left_behind(&lacks(&missing))));
        }
        if self.snapshot.inventory_is_whole {
            return (left, None);
        }
        // The ServiceAccount stays, because nothing else leads to what is not found now.
        let account = self.names.service_account();
        left.ours.remove(&account);
        let why = format!("the annotation {INVENTORY} of {account} cannot be read, so not every place is known");
        (left, Some(self.left_behind(&why)))
    }

    /// The finding that something stays, and why.
    pub(crate) fn left_behind(&self, why: &str) -> Finding {
        let home = self.names.namespace();
        let text =
            format!("permissions of this instance in its previous namespace {home} may still be in effect: {why}");
        Finding::remark(finding::Code::NotTakenBack, text)
            .help("fix this and run again: each run looks there until nothing is left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::{
        name::InstanceName,
        object::{Kind, MANAGED_BY, MANAGER},
        ownership::{NAME, NAMESPACE},
    };

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Columns: namespace, labels, annotations, whether it is a former namespace of `org/demo`.
    #[rstest::rstest]
    #[case::same_instance("old", &[(MANAGED_BY, MANAGER)], &[(NAME, "demo"), (NAMESPACE, "old"), (ID, "org/demo")], true)]
    #[case::another_instance("old", &[(MANAGED_BY, MANAGER)], &[(NAME, "demo"), (NAMESPACE, "old"), (ID, "org/other")], false)]
    #[case::made_by_hand("old", &[(MANAGED_BY, MANAGER)], &[(NAME, "demo"), (NAMESPACE, "old")], false)]
    #[case::copied_there("copy", &[(MANAGED_BY, MANAGER)], &[(NAME, "demo"), (NAMESPACE, "old"), (ID, "org/demo")], false)]
    #[case::home_namespace("home", &[(MANAGED_BY, MANAGER)], &[(NAME, "demo"), (NAMESPACE, "home"), (ID, "org/demo")], false)]
    #[case::version_1_with_its_tag("old", &[("md-package", "demo"), CHART, HELM], &RELEASE, true)]
    #[case::version_1_with_another_tag("old", &[("md-package", "other"), CHART, HELM], &RELEASE, false)]
    #[case::version_1_without_tag("old", &[CHART, HELM], &RELEASE, false)]
    #[case::foreign("old", &[], &[(ID, "org/demo")], false)]
    fn former_namespace_has_an_account_of_the_same_instance(
        #[case] namespace: &str,
        #[case] labels: &[(&str, &str)],
        #[case] annotations: &[(&str, &str)],
        #[case] is_former: bool,
    ) {
        let names = Names::of(&InstanceName::parse("demo").unwrap(), &Namespace::parse("home").unwrap());
        let live = Live { labels: map(labels), annotations: map(annotations), ..Live::default() };
        let account = (Reference::new(Kind::ServiceAccount, namespace, "demo-token"), live);
        let tags = map(&[("md-package", "demo")]);
        let found = former_namespaces(&names, PlatformInstance { id: "org/demo", tags: &tags }, &[account]);
        assert_eq!(
            found.iter().map(Namespace::as_str).collect::<Vec<_>>(),
            if is_former { vec![namespace] } else { vec![] }
        );
    }

    const ID: &str = "k8s-token.massdriver.cloud/instance";
    const CHART: (&str, &str) = ("helm.sh/chart", "k8s-token-0.1.0");
    const HELM: (&str, &str) = (MANAGED_BY, helm_release::HELM);
    const RELEASE: [(&str, &str); 2] =
        [("meta.helm.sh/release-name", "demo"), ("meta.helm.sh/release-namespace", "old")];
}
