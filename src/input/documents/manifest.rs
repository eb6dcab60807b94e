//! A manifest of a Role or ClusterRole as params: its rules in its namespace, or in the whole cluster. Pure.

use serde_json::{Map, Value, json};

use crate::{
    diagnostics::{
        finding::{self, Finding},
        text::{escaped, quote_key},
    },
    input::documents::origin::RoleKind,
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The fields of a rule in a manifest: unlike a rule of the params, it has no namespaces.
const RULE: [&str; 5] = ["apiGroups", "nonResourceURLs", "resourceNames", "resources", "verbs"];

/// Whether a document is meant as a manifest.
pub(crate) fn is_manifest(document: &Value) -> bool {
    ["kind", "apiVersion"].iter().any(|key| document.get(key).is_some_and(|value| !value.is_null()))
}

/// The kind and the rules of a manifest as params, and what is wrong in it, at pointers into the manifest.
///
/// # Errors
/// It is of another kind.
pub(crate) fn params(manifest: &Value) -> Result<(RoleKind, Value, Vec<Finding>), Finding> {
    let kind = kind(manifest)?;
    let mut findings = Vec::new();
    let version = manifest.get("apiVersion").and_then(Value::as_str).and_then(|text| text.split_once('/'));
    if !matches!(version, Some((GROUP, "v1" | "v1beta1" | "v1alpha1"))) {
        let text = format!("apiVersion of a {} must be {GROUP}/v1", kind.as_str());
        findings.push(Finding::blocking(finding::Code::Schema, at(manifest, "apiVersion"), text));
    }
    let mut params = Map::new();
    match manifest.get("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(metadata)) => {
            let is_set = |namespace: &&Value| !namespace.is_null() && **namespace != json!("");
            let namespace = metadata.get("namespace").filter(|_| kind == RoleKind::Role).filter(is_set);
            params.extend(namespace.map(|namespace| ("namespace".to_owned(), namespace.clone())));
        }
        Some(_) => {
            let text = "metadata must be of type object (type)";
            findings.push(Finding::blocking(finding::Code::Schema, "/metadata", text));
        }
    }
    if kind == RoleKind::ClusterRole && manifest.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
        let text = "a ClusterRole with aggregationRule is refused, because its rules are those of other ClusterRoles";
        let help = "grant it as it is with --cluster-role NAME, or remove aggregationRule to grant the listed rules";
        findings.push(Finding::blocking(finding::Code::Schema, "/aggregationRule", text).help(help));
    }
    let rules = manifest.get("rules").filter(|rules| !rules.is_null()).map(|rules| match rules.as_array() {
        Some(list) => list.iter().enumerate().map(|(number, entry)| rule(kind, number, entry, &mut findings)).collect(),
        None => rules.clone(),
    });
    params.extend(rules.map(|rules| ("rules".to_owned(), rules)));
    unknown_fields(manifest, kind, &mut findings);
    Ok((kind, params.into(), findings))
}

impl RoleKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
        }
    }
}

/// The pointer to a member; to the whole manifest if it is missing.
fn at(manifest: &Value, key: &str) -> String {
    if manifest.get(key).is_some() { format!("/{key}") } else { String::new() }
}

fn kind(manifest: &Value) -> Result<RoleKind, Finding> {
    const EXPECTED: &str = "expected one Role, one ClusterRole, or params without kind and apiVersion";

    let refused = |what: &str, help: Option<&str>| {
        let text = format!("{what} cannot be read as params ({EXPECTED})");
        let finding = Finding::blocking(finding::Code::Schema, at(manifest, "kind"), text);
        match help {
            Some(help) => finding.help(help),
            None => finding,
        }
    };
    match manifest.get("kind").filter(|kind| !kind.is_null()) {
        None => Err(refused("a manifest without kind", None)),
        Some(Value::String(kind)) => match kind.as_str() {
            "Role" => Ok(RoleKind::Role),
            "ClusterRole" => Ok(RoleKind::ClusterRole),
            // Only a word that can be a kind is shown: it may be a secret.
            _ if kind.len() > 40 || !kind.starts_with(|char: char| char.is_ascii_uppercase()) || !is_word(kind) => {
                Err(refused("a manifest of another kind", None))
            }
            list if list.ends_with("List") => {
                let help = "pass one of its items: kubectl get role NAME -o yaml prints one Role";
                Err(refused(&format!("a manifest of kind {list}"), Some(help)))
            }
            "RoleBinding" | "ClusterRoleBinding" => {
                let help = "pass the role that it refers to: the manifest of a Role, or --cluster-role NAME";
                Err(refused(&format!("a manifest of kind {kind}"), Some(help)))
            }
            _ => Err(refused(&format!("a manifest of kind {kind}"), None)),
        },
        Some(_) => Err(refused("a manifest whose kind is not a string", None)),
    }
}

fn is_word(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphabetic())
}

/// A rule as in params. Fields that no rule of a manifest has are removed, because they were reported here.
fn rule(kind: RoleKind, number: usize, entry: &Value, findings: &mut Vec<Finding>) -> Value {
    let Some(fields) = entry.as_object() else { return entry.clone() };
    let pointer = format!("/rules/{number}");
    for field in fields.keys().filter(|field| !RULE.contains(&field.as_str())) {
        let text = format!("unknown field {} (additionalProperties)", quote_key(field));
        let help = format!("known fields: {}", RULE.join(", "));
        findings.push(Finding::blocking(finding::Code::Schema, pointer.clone(), text).help(help));
    }
    let known = fields.iter().filter(|(field, value)| RULE.contains(&field.as_str()) && !value.is_null());
    let mut rule: Map<String, Value> = known.map(|(field, value)| (field.clone(), value.clone())).collect();
    let has_urls = rule.get("nonResourceURLs").is_some_and(|urls| urls != &json!([]));
    if kind == RoleKind::Role && has_urls {
        let text = "a Role cannot allow URLs, because they are not in a namespace (expected a ClusterRole)";
        findings.push(Finding::blocking(finding::Code::Schema, format!("{pointer}/nonResourceURLs"), text));
    }
    if kind == RoleKind::ClusterRole || has_urls {
        rule.insert("namespaces".to_owned(), json!(["*"]));
    }
    rule.into()
}

fn unknown_fields(manifest: &Value, kind: RoleKind, findings: &mut Vec<Finding>) {
    let own = |key: &str| {
        matches!(key, "apiVersion" | "kind" | "metadata" | "rules" | "status")
            || key == "aggregationRule" && kind == RoleKind::ClusterRole
    };
    for key in manifest.as_object().into_iter().flat_map(Map::keys).filter(|key| !own(key)) {
        let text = format!("unknown field {} of a {}: it has no effect", quote_key(key), kind.as_str());
        findings.push(Finding::remark(finding::Code::UnknownParam, text).at(format!("/{}", escaped(key))));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const API: &str = "rbac.authorization.k8s.io/v1";

    fn pods() -> Value {
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
    }

    #[test]
    fn manifests_become_params() {
        let everywhere = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "namespaces": ["*"]});
        let urls = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]});
        let urls_everywhere = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"]});
        for (manifest, expected) in [
            (
                json!({"apiVersion": API, "kind": "Role", "metadata": {"name": "a", "namespace": "b", "labels": {}}, "rules": [pods()]}),
                json!({"namespace": "b", "rules": [pods()]}),
            ),
            (json!({"apiVersion": API, "kind": "Role", "rules": [pods()], "status": {}}), json!({"rules": [pods()]})),
            (
                json!({"apiVersion": API, "kind": "ClusterRole", "metadata": {"namespace": "b"}, "rules": [pods(), urls]}),
                json!({"rules": [everywhere, urls_everywhere]}),
            ),
            (json!({"apiVersion": API, "kind": "ClusterRole", "aggregationRule": null, "rules": null}), json!({})),
            (json!({"apiVersion": API, "kind": "Role", "rules": 1}), json!({"rules": 1})),
        ] {
            let (_, params, findings) = params(&manifest).unwrap();
            assert_eq!((params, findings), (expected, vec![]), "{manifest}");
        }
    }

    /// Columns: the manifest, the pointer, a part of the message.
    #[rstest]
    #[case::list(json!({"kind": "List", "items": []}), "/kind", "kind List cannot")]
    #[case::role_list(json!({"kind": "RoleList"}), "/kind", "kind RoleList cannot")]
    #[case::binding(json!({"kind": "RoleBinding"}), "/kind", "kind RoleBinding cannot")]
    #[case::deployment(json!({"kind": "Deployment"}), "/kind", "kind Deployment cannot")]
    #[case::secret(json!({"kind": "S3CRET"}), "/kind", "another kind cannot")]
    #[case::number(json!({"kind": 1}), "/kind", "not a string")]
    #[case::no_kind(json!({"apiVersion": API}), "", "without kind")]
    fn other_kinds_are_refused_by_name(#[case] manifest: Value, #[case] pointer: &str, #[case] problem: &str) {
        let finding = params(&manifest).unwrap_err();
        assert_eq!(finding.pointer.as_deref(), Some(pointer));
        assert!(finding.blocking && finding.message.contains(problem), "{finding:?}");
    }

    /// Columns: a change of a valid manifest, the pointer, a part of the message, whether it blocks.
    #[rstest]
    #[case::version("/apiVersion", json!("v1"), "/apiVersion", "must be rbac.authorization.k8s.io/v1", true)]
    #[case::group("/apiVersion", json!("authorization.openshift.io/v1"), "/apiVersion", "must be rbac", true)]
    #[case::no_version("/apiVersion", json!(null), "/apiVersion", "must be rbac", true)]
    #[case::metadata("/metadata", json!([]), "/metadata", "type object", true)]
    #[case::aggregated("/aggregationRule", json!({"clusterRoleSelectors": []}), "/aggregationRule", "is refused", true)]
    #[case::misspelt("/rules/0/resourceName", json!(["a"]), "/rules/0", "unknown field `resourceName`", true)]
    #[case::namespaces("/rules/0/namespaces", json!(["a"]), "/rules/0", "unknown field `namespaces`", true)]
    #[case::field("/cluster_roles", json!([]), "/cluster_roles", "no effect", false)]
    fn invalid_manifest_is_reported_at_its_field(
        #[case] place: &str,
        #[case] value: Value,
        #[case] pointer: &str,
        #[case] problem: &str,
        #[case] blocks: bool,
    ) {
        let mut manifest = json!({"apiVersion": API, "kind": "ClusterRole", "metadata": {}, "rules": [pods()]});
        let (parent, key) = place.rsplit_once('/').unwrap();
        manifest.pointer_mut(parent).unwrap()[key] = value;
        let (_, params, findings) = params(&manifest).unwrap();
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.pointer.as_deref(), finding.blocking), (Some(pointer), blocks));
        assert!(finding.message.contains(problem), "{finding:?}");
        assert_eq!(params["rules"][0]["resources"][0], "pods", "the rules are judged nevertheless");
    }

    #[test]
    fn urls_of_a_role_are_refused() {
        let rule = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]});
        let (_, params, findings) = params(&json!({"apiVersion": API, "kind": "Role", "rules": [rule]})).unwrap();
        assert_eq!(findings[0].pointer.as_deref(), Some("/rules/0/nonResourceURLs"));
        assert_eq!((findings.len(), &params["rules"][0]["namespaces"]), (1, &json!(["*"])));
    }
}
