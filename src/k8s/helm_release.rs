//! The original bundle, version 1.0.0: one Helm release of the chart `k8s-token` for each instance. How its objects are
//! recognised, and how Helm's fields become ours. Pure.

use std::{collections::BTreeMap, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::k8s::{
    object::{Live, MANAGED_BY, MANAGER, Reference, TOKEN_SECRET},
    record::AdoptionRecord,
};

/// The value of [`MANAGED_BY`] on objects of Helm.
pub const HELM: &str = "Helm";
/// The name of the original bundle's chart.
pub const CHART: &str = "k8s-token";
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
pub enum Release {
    /// It is an object of the original bundle's release of this very instance.
    Original,
    /// It is an object of another release, or of another chart; the text says of which.
    Other(String),
}

/// Judges an object that is managed by Helm. The chart's Secret carries no label of the chart, so it is known by what
/// it is for.
#[must_use]
pub fn release_of(live: &Live, name: &str, namespace: &str) -> Release {
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
#[must_use]
pub fn names_our_chart(live: &Live) -> bool {
    live.labels.get(CHART_LABEL).is_some_and(|chart| is_our_chart(chart))
}

fn is_our_chart(chart: &str) -> bool {
    let version = chart.strip_prefix(CHART).and_then(|rest| rest.strip_prefix('-'));
    version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
}

/// The longest name that Helm gives a release (chartutil, `maxReleaseNameLen`); as a label, a longer one could not even
/// be looked for.
const LONGEST_RELEASE: usize = 53;

/// True when Helm can have a release of this name.
#[must_use]
pub const fn can_be_release(name: &str) -> bool {
    name.len() <= LONGEST_RELEASE
}

/// True when an object of the original bundle carries the platform's mark of this very instance: a tag with the name of
/// the package, as it was called at first, or of the instance. A namesake elsewhere carries another.
#[must_use]
pub fn is_marked(live: &Live, tags: &BTreeMap<String, String>) -> bool {
    let marks = ["md-package", "md-instance"].into_iter();
    marks.filter_map(|key| live.labels.get_key_value(key)).any(|(key, mark)| tags.get(key) == Some(mark))
}

/// The labels by which Helm finds the Secrets that it keeps its releases in.
#[must_use]
pub fn release_selector(release: &str) -> String {
    format!("owner=helm,name={release}")
}

/// The number of the revision of this very release that a Secret of this name holds, as in `sh.helm.release.v1.demo.v3`.
#[must_use]
pub fn revision(secret: &str, release: &str) -> Option<u64> {
    let revision = secret.strip_prefix("sh.helm.release.v1.")?.strip_prefix(release)?;
    let number = revision.strip_prefix(".v")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// What a revision tells.
pub struct Revision {
    /// The name of its chart.
    pub chart: String,
    /// Whether the parent credential of today stands in it.
    pub exposes: bool,
}

/// Reads a revision, which Helm keeps as base64 of packed JSON; `parent` is the token that is looked for in it. None for
/// what is no revision.
#[must_use]
pub fn read(revision: &[u8], parent: Option<&str>) -> Option<Revision> {
    #[derive(Deserialize)]
    struct Document {
        chart: Chart,
    }
    #[derive(Deserialize)]
    struct Chart {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }

    let packed = STANDARD.decode(revision).ok()?;
    let mut document = String::new();
    GzDecoder::new(packed.as_slice()).take(UNPACKED).read_to_string(&mut document).ok()?;
    let Document { chart } = serde_json::from_str(&document).ok()?;
    // As it stands: nothing that is in a token is escaped in JSON.
    Some(Revision { chart: chart.metadata.name, exposes: parent.is_some_and(|token| document.contains(token)) })
}

/// A Secret holds 1 MiB at most, and a chart that unpacks to more than this is not ours, which has five short files.
const UNPACKED: u64 = 16 << 20;

/// The fields of an object that we ever write, as managed fields name them. What else Helm may hold, such as the
/// `data` of a Secret, must not become ours: our next apply would take it away.
const FIELDS: [&str; 5] = ["f:metadata", "f:roleRef", "f:rules", "f:subjects", "f:type"];
/// Those in the metadata.
const METADATA: [&str; 2] = ["f:annotations", "f:labels"];

/// The managed fields of an object after Helm has handed its fields over to us; none when Helm holds nothing of it.
///
/// An apply alone would leave Helm as the owner of what it once wrote, and then a tag that goes away would stay. This
/// is what `kubectl apply --server-side` does for those who come from its client-side form (client-go,
/// `util/csaupgrade`). Helm 3 writes as an Update, Helm 4 as an Apply.
#[must_use]
pub fn handed_over(entries: &[Value]) -> Option<Vec<Value>> {
    let mut moved = Map::new();
    let mut kept = Vec::new();
    let mut version = Value::Null;
    for entry in entries {
        if !is_helms(entry) {
            kept.push(entry.clone());
            continue;
        }
        let (ours, theirs) = split(entry.get("fieldsV1").and_then(Value::as_object).cloned().unwrap_or_default());
        merge(&mut moved, ours);
        version = entry["apiVersion"].clone();
        if !theirs.is_empty() {
            let mut rest = entry.clone();
            rest["fieldsV1"] = Value::Object(theirs);
            kept.push(rest);
        }
    }
    if moved.is_empty() {
        return None;
    }
    let ours = kept.iter().position(|entry| is_ours(entry) && entry["apiVersion"] == version);
    if let Some(index) = ours {
        let mut fields = kept[index].get("fieldsV1").and_then(Value::as_object).cloned().unwrap_or_default();
        merge(&mut fields, moved);
        kept[index]["fieldsV1"] = Value::Object(fields);
    } else {
        kept.push(json!({
            "manager": MANAGER, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": moved,
        }));
    }
    Some(kept)
}

/// True for our own entry of the managed fields.
#[must_use]
pub fn is_ours(entry: &Value) -> bool {
    entry["manager"] == MANAGER && entry["operation"] == "Apply"
}

/// True for an entry of Helm. The command line is called `helm`; a program that has Helm built in is known by what
/// only Helm writes.
#[must_use]
pub fn is_helms(entry: &Value) -> bool {
    let annotations = entry.pointer("/fieldsV1/f:metadata/f:annotations");
    let wrote = annotations.is_some_and(|keys| keys.get(format!("f:{RELEASE_NAME}")).is_some());
    entry.get("subresource").is_none() && !is_ours(entry) && (entry["manager"] == "helm" || wrote)
}

/// Fields that become ours, and those that stay.
fn split(fields: Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let (mut ours, mut theirs) = (Map::new(), Map::new());
    for (key, value) in fields {
        match value {
            Value::Object(metadata) if key == "f:metadata" => {
                let (named, others): (Map<_, _>, Map<_, _>) =
                    metadata.into_iter().partition(|(key, _)| METADATA.contains(&key.as_str()));
                for (side, part) in [(&mut ours, named), (&mut theirs, others)] {
                    if !part.is_empty() {
                        side.insert(key.clone(), Value::Object(part));
                    }
                }
            }
            value if FIELDS.contains(&key.as_str()) => drop(ours.insert(key, value)),
            value => drop(theirs.insert(key, value)),
        }
    }
    (ours, theirs)
}

fn merge(into: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(have)), Value::Object(more)) => merge(have, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// What there is to take over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TakeOver {
    /// True while Secrets of the release may be there.
    pub under_way: bool,
    /// The record of it when the run is done.
    pub record: Option<AdoptionRecord>,
    /// The revisions that can be deleted.
    pub revisions: Vec<Reference>,
    /// What keeps the parent from the others, in words.
    pub stuck: Option<String>,
}

impl TakeOver {
    /// The record of it until the release's Secrets are deleted.
    #[must_use]
    pub fn record_on_the_way(&self) -> Option<AdoptionRecord> {
        self.record.clone().map(|record| AdoptionRecord { pending: record.pending || self.under_way, ..record })
    }
}

/// True for an object that Helm manages.
#[must_use]
pub fn is_managed_by_helm(live: &Live) -> bool {
    live.labels.get(MANAGED_BY).is_some_and(|manager| manager == HELM)
}

#[cfg(test)]
mod tests {
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
    #[case::anothers_secret(&[], &[RELEASE[0], RELEASE[1], (ACCOUNT, "other")], Some(TOKEN_SECRET), false)]
    #[case::a_secret_of_another_chart(
        &[(CHART_LABEL, "web-1.0.0")], &[RELEASE[0], RELEASE[1], (ACCOUNT, "demo-token")], Some(TOKEN_SECRET), false
    )]
    fn an_instance_is_known_by_release_and_chart(
        #[case] labels: &[(&str, &str)],
        #[case] annotations: &[(&str, &str)],
        #[case] kind: Option<&str>,
        #[case] original: bool,
    ) {
        let judged = release_of(&live(labels, annotations, kind), "demo", "team-a");
        assert_eq!(judged == Release::Original, original, "{judged:?}");
    }

    #[test]
    fn a_revision_is_one_of_exactly_this_release() {
        for (secret, is) in [
            ("sh.helm.release.v1.demo.v1", Some(1)),
            ("sh.helm.release.v1.demo.v12", Some(12)),
            ("sh.helm.release.v1.demo.v", None),
            ("sh.helm.release.v1.demo.vx", None),
            ("sh.helm.release.v1.demo.v+1", None),
            ("sh.helm.release.v1.demo.v1.v2", None),
            ("sh.helm.release.v1.demo-2.v1", None),
            ("sh.helm.release.v1.other.v1", None),
            ("demo.v1", None),
        ] {
            assert_eq!(revision(secret, "demo"), is, "{secret}");
        }
    }

    #[test]
    fn a_revision_tells_its_chart_and_whether_a_token_is_in_it() {
        use std::io::Write as _;

        let packed = |text: &str| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(text.as_bytes()).unwrap();
            STANDARD.encode(packer.finish().unwrap())
        };
        let revision = packed(
            r#"{"name": "demo", "chart": {"metadata": {"name": "k8s-token", "version": "0.1.0"}}, "config": {"token": "eyJ.a.b"}}"#,
        );
        let told = |parent| read(revision.as_bytes(), parent).map(|told| (told.chart, told.exposes));
        assert_eq!(told(None), Some((CHART.to_owned(), false)));
        assert_eq!(told(Some("eyJ.a.b")), Some((CHART.to_owned(), true)));
        assert_eq!(told(Some("eyJ.a.c")), Some((CHART.to_owned(), false)));
        for other in [packed("{}"), packed("x"), "x".to_owned(), STANDARD.encode("x"), String::new()] {
            assert!(read(other.as_bytes(), None).is_none(), "{other}");
        }
    }

    #[test]
    fn what_helm_wrote_becomes_ours_and_what_it_holds_besides_stays() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:md-project": {}}, "f:annotations": {"f:meta.helm.sh/release-name": {}},
                           "f:finalizers": {"v:\"x\"": {}}},
            "f:type": {},
            "f:data": {"f:token": {}},
        });
        let helm = |operation: &str| json!({"manager": "helm", "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "t", "fieldsV1": fields});
        let controller = json!({"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:token": {}}}});
        for operation in ["Update", "Apply"] {
            let after = handed_over(&[helm(operation), controller.clone()]).unwrap();
            let entry = |manager: &str| after.iter().find(|entry| entry["manager"] == manager).unwrap();
            let rest = json!({"f:metadata": {"f:finalizers": {"v:\"x\"": {}}}, "f:data": {"f:token": {}}});
            assert_eq!(entry("helm")["fieldsV1"], rest);
            assert_eq!(entry("kube-controller-manager"), &controller);
            let ours = entry(MANAGER);
            assert_eq!(ours["operation"], "Apply");
            let moved = json!({
                "f:metadata": {"f:labels": {".": {}, "f:md-project": {}}, "f:annotations": {"f:meta.helm.sh/release-name": {}}},
                "f:type": {},
            });
            assert_eq!(ours["fieldsV1"], moved);
            assert_eq!(handed_over(&after[1..]), None, "and nothing is left to hand over");
        }
    }

    #[test]
    fn fields_join_those_that_are_ours_already() {
        let ours = json!({"manager": MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}});
        let helm = json!({"manager": "helm", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:metadata": {"f:labels": {"f:b": {}}}}});
        let after = handed_over(&[ours, helm]).unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0]["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}}}));
    }
}
