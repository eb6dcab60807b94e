//! Objects that Helm manages: which of them belong to the release of version 1.0.0, which is one release of the chart
//! `k8s-token` for each instance. What becomes of that release is decided in `plan/adoption/`. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::k8s::object::{Live, MANAGED_BY, MANAGER, TOKEN_SECRET};

/// The value of [`MANAGED_BY`] on objects of Helm.
pub(crate) const HELM: &str = "Helm";
/// The name of the original bundle's chart.
pub(crate) const CHART: &str = "k8s-token";
/// Says which chart an object came from, as in `k8s-token-0.1.0`. Helm knows nothing of it; charts set it.
const CHART_LABEL: &str = "helm.sh/chart";
/// Annotation of Helm: the release.
const RELEASE_NAME: &str = "meta.helm.sh/release-name";
/// Annotation of Helm: where the release is.
const RELEASE_NAMESPACE: &str = "meta.helm.sh/release-namespace";
/// Names the ServiceAccount of a token Secret.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// What an object of a Helm release is to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// It is an object of the original bundle's release of this very instance.
    Original,
    /// It is an object of another release, or of another chart; the text says of which.
    Other(String),
}

/// Judges an object that is managed by Helm. The chart's Secret carries no label of the chart, so it is known by what
/// it is for.
pub(crate) fn release_of(live: &Live, name: &str, namespace: &str) -> Release {
    let annotation = |key: &str| live.annotations.get(key).map_or("", String::as_str);
    let (release, home) = (annotation(RELEASE_NAME), annotation(RELEASE_NAMESPACE));
    if release != name || home != namespace {
        return Release::Other(match (release, home) {
            ("", _) | (_, "") => "it is managed by Helm, and its annotations name no release".to_owned(),
            _ => format!("it belongs to the Helm release {release} of namespace {home}"),
        });
    }
    let chart = live.labels.get(CHART_LABEL).map(String::as_str);
    let ours = match chart {
        Some(chart) => is_our_chart(chart),
        None => {
            live.fields.get("type").is_some_and(|kind| kind == TOKEN_SECRET)
                && annotation(ACCOUNT) == format!("{name}-token")
        }
    };
    if ours {
        return Release::Original;
    }
    Release::Other(match chart {
        Some(chart) => {
            format!("it belongs to the Helm release {release}, whose chart is {chart} and not {CHART}")
        }
        None => format!("it belongs to the Helm release {release}, and nothing shows that its chart is {CHART}"),
    })
}

/// True when the label says beyond doubt that the object came from the original bundle's chart.
pub(crate) fn names_our_chart(live: &Live) -> bool {
    live.labels.get(CHART_LABEL).is_some_and(|chart| is_our_chart(chart))
}

fn is_our_chart(chart: &str) -> bool {
    let version = chart.strip_prefix(CHART).and_then(|rest| rest.strip_prefix('-'));
    version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
}

/// True when an object of the original bundle carries the platform's mark of this very instance: a tag with the name of
/// the package, as it was called at first, or of the instance. A namesake elsewhere carries another.
pub(crate) fn is_marked(live: &Live, tags: &BTreeMap<String, String>) -> bool {
    let marks = ["md-package", "md-instance"].into_iter();
    marks.filter_map(|key| live.labels.get_key_value(key)).any(|(key, mark)| tags.get(key) == Some(mark))
}

/// True for our own entry of the managed fields.
pub(crate) fn is_ours(entry: &Value) -> bool {
    entry["manager"] == MANAGER && entry["operation"] == "Apply"
}

/// True for an entry of Helm. The command line is called `helm`; a program that has Helm built in is known by what
/// only Helm writes.
pub(crate) fn is_helms(entry: &Value) -> bool {
    let annotations = entry.pointer("/fieldsV1/f:metadata/f:annotations");
    let wrote = annotations.is_some_and(|keys| keys.get(format!("f:{RELEASE_NAME}")).is_some());
    entry.get("subresource").is_none() && !is_ours(entry) && (entry["manager"] == "helm" || wrote)
}

/// True for an object that Helm manages.
pub(crate) fn is_managed_by_helm(live: &Live) -> bool {
    live.labels.get(MANAGED_BY).is_some_and(|manager| manager == HELM)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(labels: &[(&str, &str)], annotations: &[(&str, &str)], kind: Option<&str>) -> Live {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let fields = kind.map(|kind| ("type".to_owned(), json!(kind))).into_iter().collect();
        Live { labels: owned(labels), annotations: owned(annotations), fields, ..Live::default() }
    }

    const RELEASE: [(&str, &str); 2] = [(RELEASE_NAME, "demo"), (RELEASE_NAMESPACE, "team-a")];

    #[rstest::rstest]
    #[case::the_chart(&[(CHART_LABEL, "k8s-token-0.1.0")], &RELEASE, None, true)]
    #[case::another_chart(&[(CHART_LABEL, "k8s-token-proxy-0.1.0")], &RELEASE, None, false)]
    #[case::no_chart(&[], &RELEASE, None, false)]
    #[case::another_release(&[(CHART_LABEL, "k8s-token-0.1.0")], &[(RELEASE_NAME, "demo-2"), RELEASE[1]], None, false)]
    #[case::another_namespace(&[(CHART_LABEL, "k8s-token-0.1.0")], &[RELEASE[0], (RELEASE_NAMESPACE, "b")], None, false)]
    #[case::no_release(&[(CHART_LABEL, "k8s-token-0.1.0")], &[], None, false)]
    #[case::the_secret(&[], &[RELEASE[0], RELEASE[1], (ACCOUNT, "demo-token")], Some(TOKEN_SECRET), true)]
    #[case::its_secret_of_another_type(&[], &[RELEASE[0], RELEASE[1], (ACCOUNT, "demo-token")], Some("Opaque"), false)]
    #[case::foreign_secret(&[], &[RELEASE[0], RELEASE[1], (ACCOUNT, "other")], Some(TOKEN_SECRET), false)]
    #[case::a_secret_of_another_chart(
        &[(CHART_LABEL, "web-1.0.0")], &[RELEASE[0], RELEASE[1], (ACCOUNT, "demo-token")], Some(TOKEN_SECRET), false
    )]
    fn helm_object_is_identified_by_release_and_chart(
        #[case] labels: &[(&str, &str)],
        #[case] annotations: &[(&str, &str)],
        #[case] kind: Option<&str>,
        #[case] original: bool,
    ) {
        let judged = release_of(&live(labels, annotations, kind), "demo", "team-a");
        assert_eq!(judged == Release::Original, original, "{judged:?}");
    }
}
