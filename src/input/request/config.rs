//! The options of `config.json`, each read where it is used. The platform writes this file for provisioners of many
//! kinds, so an unknown option is ignored, except those of the cluster. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    diagnostics::{
        finding::{self, Finding},
        text::quote_key,
    },
    endpoint::connection::Shape,
    input::{
        documents::{SLOT, Strictness},
        request::{guardrails, pointer},
    },
};

/// The default time limit of a run.
const TIMEOUT: Duration = Duration::from_secs(180);

/// The known options.
const OPTIONS: [&str; 6] = ["namespace", SLOT, "output_shape", "emit_namespace", "timeout_seconds", guardrails::KEY];

/// Members of a kubernetes-cluster document that are neither server nor login.
const WITHOUT_SERVER: [&str; 3] = ["infrastructure", "namespace", "specs"];

/// The options of the published document, as far as they are set.
#[derive(Clone, Copy)]
pub(crate) struct ArtifactOptions {
    /// `output_shape`, unless `auto`.
    pub(crate) shape: Option<Shape>,
    /// `emit_namespace`.
    pub(crate) emit_namespace: Option<bool>,
}

/// An option that is set; null counts as absent.
fn option<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    config.get(key).filter(|value| !value.is_null())
}

/// Notes unknown options, and parts that have the wrong type as a whole.
pub(crate) fn check(config: &Value, strictness: Strictness, findings: &mut Vec<Finding>) {
    let Some(map) = config.as_object() else {
        findings.extend(match (config.is_null(), strictness) {
            (true, _) => None,
            (false, Strictness::Strict) => {
                Some(Finding::refusal(finding::Code::Schema, "config.json must be of type object (type)"))
            }
            // It cannot mean that the instance is elsewhere.
            (false, Strictness::OnlyWhatLocatesTheInstance) => {
                let text = "config.json is not an object: it has no effect";
                Some(Finding::remark(finding::Code::UnknownConfig, text))
            }
        });
        return;
    };
    let cluster = option(config, SLOT);
    if cluster.is_some_and(|cluster| !cluster.is_object()) {
        let text = "kubernetes_cluster of config.json must be of type object (type)";
        findings.push(Finding::blocking(finding::Code::Schema, pointer("", SLOT), text));
    }
    for key in map.keys().filter(|key| !OPTIONS.contains(&key.as_str())) {
        findings.push(no_effect(key, "", ""));
    }
    for key in cluster.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        match key.as_str() {
            "authentication" => {}
            key if WITHOUT_SERVER.contains(&key) => {
                findings.push(no_effect(key, "kubernetes_cluster of ", "/kubernetes_cluster"));
            }
            key => findings.push(misspelt(key)),
        }
    }
}

/// The finding about an unknown option.
fn no_effect(key: &str, part: &str, at: &str) -> Finding {
    let text = format!("unknown option {} in {part}config.json: it has no effect", quote_key(key));
    Finding::remark(finding::Code::UnknownConfig, text).at(pointer(at, key))
}

/// The blocking finding about an unknown member of the cluster, for every command. It may be meant to set another
/// server: then the credential would be created in, or deleted from, the wrong cluster.
fn misspelt(key: &str) -> Finding {
    let text = format!("unknown field {} in kubernetes_cluster of config.json (additionalProperties)", quote_key(key));
    Finding::blocking(finding::Code::Schema, pointer("/kubernetes_cluster", key), text)
        .help("known fields: authentication, with cluster.server, cluster.certificate-authority-data and user.token")
}

/// The time limit of a run: `asked` on the command line, else `timeout_seconds`.
pub(crate) fn timeout(
    config: &Value,
    asked: Option<u64>,
    strictness: Strictness,
    findings: &mut Vec<Finding>,
) -> Duration {
    let configured = option(config, "timeout_seconds");
    let seconds = configured.and_then(Value::as_u64).filter(|seconds| (1..=86_400).contains(seconds));
    if configured.is_some() && seconds.is_none() && strictness == Strictness::Strict {
        let text = "timeout_seconds of config.json must be a whole number from 1 to 86400";
        findings.push(Finding::blocking(finding::Code::Schema, "/timeout_seconds", text));
    }
    timeout_or_default(asked.or(seconds))
}

/// The time limit of a run; the default if none is given.
pub(crate) fn timeout_or_default(seconds: Option<u64>) -> Duration {
    seconds.map_or(TIMEOUT, Duration::from_secs)
}

/// The options of the published document.
pub(crate) fn artifact(config: &Value, findings: &mut Vec<Finding>) -> ArtifactOptions {
    let shape = match option(config, "output_shape").map(|value| value.as_str().unwrap_or_default()) {
        None | Some("auto") => None,
        Some("flat") => Some(Shape::Flat),
        Some("legacy") => Some(Shape::Legacy),
        Some(_) => {
            let text = "output_shape of config.json must be auto, legacy or flat";
            findings.push(Finding::blocking(finding::Code::Schema, "/output_shape", text));
            None
        }
    };
    let emit_namespace = match option(config, "emit_namespace") {
        None => None,
        Some(Value::Bool(emit)) => Some(*emit),
        Some(_) => {
            let text = "emit_namespace of config.json must be true or false";
            findings.push(Finding::blocking(finding::Code::Schema, "/emit_namespace", text));
            None
        }
    };
    ArtifactOptions { shape, emit_namespace }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// Code, pointer and whether it refuses.
    fn checked(config: &Value, strictness: Strictness) -> Vec<(&'static str, String, bool)> {
        let mut findings = Vec::new();
        check(config, strictness, &mut findings);
        let of = |finding: Finding| (finding.code.as_str(), finding.pointer.unwrap_or_default(), finding.blocking);
        findings.into_iter().map(of).collect()
    }

    #[rstest]
    #[case::absent(json!(null), &[])]
    #[case::options(json!({"namespace": "a", "kubernetes_cluster": {"authentication": {}}, "timeout_seconds": 1}), &[])]
    #[case::no_cluster(json!({"kubernetes_cluster": null}), &[])]
    #[case::of_another_provisioner(json!({"release_name": 1}), &[("unknown-config", "/release_name", false)])]
    #[case::specs(json!({"kubernetes_cluster": {"specs": 1}}), &[("unknown-config", "/kubernetes_cluster/specs", false)])]
    #[case::misspelt(json!({"kubernetes_cluster": {"auth": 1}}), &[("schema", "/kubernetes_cluster/auth", true)])]
    #[case::legacy(json!({"kubernetes_cluster": {"data": {}}}), &[("schema", "/kubernetes_cluster/data", true)])]
    #[case::no_object(json!({"kubernetes_cluster": "x"}), &[("schema", "/kubernetes_cluster", true)])]
    fn unknown_fields_are_refused_only_beside_server(
        #[case] config: Value,
        #[case] expected: &[(&'static str, &str, bool)],
    ) {
        let expected: Vec<_> =
            expected.iter().map(|(code, at, blocking)| (*code, (*at).to_owned(), *blocking)).collect();
        for strictness in [Strictness::Strict, Strictness::OnlyWhatLocatesTheInstance] {
            assert_eq!(checked(&config, strictness), expected);
        }
    }

    #[rstest]
    #[case(json!({}), None, 180, true)]
    #[case(json!({"timeout_seconds": null}), None, 180, true)]
    #[case(json!({"timeout_seconds": 7}), None, 7, true)]
    #[case(json!({"timeout_seconds": 7}), Some(9), 9, true)]
    #[case(json!({"timeout_seconds": 0}), None, 180, false)]
    #[case(json!({"timeout_seconds": 86_401}), Some(9), 9, false)]
    #[case(json!({"timeout_seconds": "7"}), None, 180, false)]
    fn command_line_timeout_wins_invalid_one_is_refused(
        #[case] config: Value,
        #[case] asked: Option<u64>,
        #[case] seconds: u64,
        #[case] is_sound: bool,
    ) {
        let mut findings = Vec::new();
        assert_eq!(timeout(&config, asked, Strictness::Strict, &mut findings), Duration::from_secs(seconds));
        assert_eq!(findings.is_empty(), is_sound, "{findings:?}");
        findings.clear();
        assert_eq!(
            timeout(&config, asked, Strictness::OnlyWhatLocatesTheInstance, &mut findings),
            Duration::from_secs(seconds)
        );
        assert!(findings.is_empty(), "a decommission does not depend on it");
    }
}
