//! An object as the API server sends it, reduced to what the program works with. Of a Secret's data only the token and the
//! CA certificates leave this file. Pure.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    diagnostics::secret::Token,
    k8s::{
        helm_release,
        object::{Live, MANAGED_BY},
    },
    x509::{
        Certificate,
        pem_blocks::{Block, blocks},
    },
};

/// An object, and the token in it if it is a Secret.
pub(crate) struct FetchedObject {
    /// The object without a Secret's data.
    pub(crate) live: Live,
    /// The token of a Secret.
    pub(crate) token: Option<Token>,
    /// Whether a Secret has any data where its token belongs.
    pub(crate) has_token_data: bool,
    /// The certificates in `ca.crt` of a Secret, in DER.
    pub(crate) cas: BTreeSet<Vec<u8>>,
}

/// A Secret that the token controller has filled.
pub(crate) struct TokenSecret {
    /// The token in it.
    pub(crate) token: Token,
    /// The uid of the Secret.
    pub(crate) uid: String,
    /// The certificates in its `ca.crt`, in DER.
    pub(crate) cas: BTreeSet<Vec<u8>>,
}

/// The fields of a kind that are compared. Never `data`.
const FIELDS: [&str; 5] = ["rules", "subjects", "roleRef", "type", "immutable"];

impl FetchedObject {
    /// Takes the JSON of an object apart. What is absent counts as empty: an object without metadata matches none.
    pub(crate) fn of(object: &Value) -> Self {
        let data = text(object, "/data/token");
        let token = STANDARD.decode(&data).unwrap_or_default();
        let token = std::str::from_utf8(&token).ok().and_then(|token| Token::parse(token).ok());
        let cas = certificates(&text(object, "/data/ca.crt"));
        Self { live: live(object), token, has_token_data: !data.is_empty(), cas }
    }
}

/// The certificates of a bundle, as base64 of PEM. What is none does not leave this file: a Secret may contain a key.
fn certificates(bundle: &str) -> BTreeSet<Vec<u8>> {
    let blocks = blocks(&STANDARD.decode(bundle).unwrap_or_default());
    let certificates = blocks.into_iter().filter(Block::is_ca).map(|block| block.der);
    certificates.filter(|der| Certificate::parse(der).is_ok()).collect()
}

fn live(object: &Value) -> Live {
    let managed = list(object, "/metadata/managedFields");
    let labels = map(object, "/metadata/labels");
    let is_helms = labels.get(MANAGED_BY).is_some_and(|manager| manager == helm_release::HELM);
    // On an object of Helm, Helm's fields are to be adopted.
    let is_owned = |entry: &Value| helm_release::is_ours(entry) || (is_helms && helm_release::is_helms(entry));
    let deleting = object.pointer("/metadata/deletionTimestamp").is_some();
    Live {
        uid: text(object, "/metadata/uid"),
        resource_version: text(object, "/metadata/resourceVersion"),
        labels,
        annotations: map(object, "/metadata/annotations"),
        fields: FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), object.get(*field)?.clone()))).collect(),
        owned_labels: owned_keys(managed, "f:labels", is_owned),
        owned_annotations: owned_keys(managed, "f:annotations", is_owned),
        managers: last_managers(managed),
        managed_fields: if is_helms { managed.to_vec() } else { Vec::new() },
        deleting: deleting.then(|| texts(object, "/metadata/finalizers")),
    }
}

/// The keys of a map in the metadata that these entries of the managed fields own.
fn owned_keys(managed: &[Value], map: &str, is_owned: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let owned = managed.iter().filter(|entry| is_owned(entry));
    let keys = owned.filter_map(|entry| entry.pointer("/fieldsV1/f:metadata")?.get(map)?.as_object()).flatten();
    keys.filter_map(|(key, _)| Some(key.strip_prefix("f:")?.to_owned())).collect()
}

/// The manager that set each top-level field last: this program where it is one of several.
fn last_managers(managed: &[Value]) -> BTreeMap<String, String> {
    let (own, others): (Vec<_>, Vec<_>) = managed.iter().partition(|entry| helm_release::is_ours(entry));
    let managers = others.into_iter().chain(own).flat_map(|entry| {
        let fields = entry.get("fieldsV1").and_then(Value::as_object).into_iter().flatten();
        fields.filter_map(|(key, _)| Some((key.strip_prefix("f:")?.to_owned(), text(entry, "/manager"))))
    });
    managers.collect()
}

/// The text at a JSON pointer; empty when there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The list at a JSON pointer; empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list of texts at a JSON pointer; empty when there is none.
pub(crate) fn texts(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The map of texts at a JSON pointer; empty when there is none.
fn map(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = value.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;
    use testbed::{Forged, Key, Spec};

    use super::*;
    use crate::k8s::object::MANAGER;

    #[rstest]
    #[case::token(json!({"token": STANDARD.encode("a.b.c")}), true, true)]
    #[case::no_data(json!(null), false, false)]
    #[case::empty(json!({"token": ""}), false, false)]
    #[case::line_break(json!({"token": STANDARD.encode("a.b.c\n")}), false, true)]
    #[case::not_base64(json!({"token": "?"}), false, true)]
    #[case::not_utf8(json!({"token": STANDARD.encode([255])}), false, true)]
    fn secret_yields_its_token_and_no_other_data(#[case] data: Value, #[case] token: bool, #[case] filled: bool) {
        let fetched = FetchedObject::of(&json!({"type": "x", "data": data, "stringData": {"a": "b"}}));
        assert_eq!((fetched.token.is_some(), fetched.has_token_data), (token, filled));
        assert_eq!(fetched.live.fields, BTreeMap::from([("type".to_owned(), json!("x"))]));
    }

    #[test]
    fn only_certificates_of_ca_crt_are_kept() {
        let ca = Forged::self_signed(&Spec::ca("kubernetes"), Key::p256());
        let unreadable = pem::encode(&pem::Pem::new("CERTIFICATE", b"secret".as_slice()));
        let bundle = format!("{}{}{}{unreadable}", ca.key.pem(), ca.pem(), ca.pem());
        let cas = |data: &str| FetchedObject::of(&json!({"data": {"ca.crt": data}})).cas;
        assert_eq!(cas(&STANDARD.encode(bundle)), BTreeSet::from([ca.der.clone()]));
        assert_eq!(cas(&ca.pem()), BTreeSet::new(), "not base64");
    }

    fn entry(manager: &str, operation: &str, label: &str) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, format!("f:{label}"): {}}, "f:annotations": {"f:note": {}}},
            "f:rules": {},
        }})
    }

    fn live_of(manager: &str, entries: &[Value]) -> Live {
        let metadata = json!({
            "uid": "u", "resourceVersion": "7", "labels": {MANAGED_BY: manager, "n": 1}, "managedFields": entries,
            "finalizers": ["a/b"],
        });
        FetchedObject::of(&json!({"metadata": metadata})).live
    }

    #[test]
    fn own_field_manager_counts_as_the_last_one() {
        let live = live_of(MANAGER, &[entry(MANAGER, "Apply", "own"), entry("helm", "Update", "helms")]);
        assert_eq!((live.uid.as_str(), live.resource_version.as_str()), ("u", "7"));
        assert_eq!(live.labels.len(), 1, "a label that is no text is none");
        assert_eq!(live.owned_labels, BTreeSet::from(["own".to_owned()]));
        assert_eq!(live.owned_annotations, BTreeSet::from(["note".to_owned()]));
        assert_eq!(live.managers["rules"], MANAGER);
        assert_eq!((live.managed_fields, live.deleting), (vec![], None));
        let live = live_of(MANAGER, &[entry(MANAGER, "Update", "own")]);
        assert!(live.owned_labels.is_empty(), "only an apply owns");
    }

    #[test]
    fn helm_fields_count_as_owned_on_its_objects() {
        let managed = [entry("helm", "Update", "helms"), entry("kubectl-edit", "Update", "theirs")];
        let live = live_of(helm_release::HELM, &managed);
        assert_eq!(live.owned_labels, BTreeSet::from(["helms".to_owned()]));
        assert_eq!(live.managers["rules"], "kubectl-edit");
        assert_eq!(live.managed_fields, managed);
    }

    #[test]
    fn deletion_keeps_the_finalizers() {
        let metadata = json!({"deletionTimestamp": "2026-11-28T00:00:00Z", "finalizers": ["a/b"]});
        assert_eq!(FetchedObject::of(&json!({"metadata": metadata})).live.deleting, Some(vec!["a/b".to_owned()]));
    }
}
