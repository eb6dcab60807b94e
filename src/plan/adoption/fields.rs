//! The transfer of field ownership from Helm: the managed fields of an object afterwards. Pure.

use serde_json::{Map, Value, json};

use crate::k8s::{
    helm_release::{is_helms, is_ours},
    object::MANAGER,
};

/// The fields that this program applies, as managed fields name them. Other fields that Helm may own, such as the `data` of
/// a Secret, are not transferred: the next apply would remove them.
const FIELDS: [&str; 5] = ["f:metadata", "f:roleRef", "f:rules", "f:subjects", "f:type"];
/// Those in the metadata.
const METADATA: [&str; 2] = ["f:annotations", "f:labels"];

/// The managed fields of an object after Helm has handed its fields over to us; none when Helm holds nothing of it.
///
/// An apply alone would leave Helm as the owner of what it once wrote, and then a tag that is removed would stay. This
/// is what `kubectl apply --server-side` does for those who come from its client-side form (client-go,
/// `util/csaupgrade`). Helm 3 writes as an Update, Helm 4 as an Apply.
pub(crate) fn transferred_fields(entries: &[Value]) -> Option<Vec<Value>> {
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

/// The fields to transfer, and the others.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_helm_are_transferred_and_others_kept() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:md-project": {}}, "f:annotations": {"f:meta.helm.sh/release-name": {}},
                           "f:finalizers": {"v:\"x\"": {}}},
            "f:type": {},
            "f:data": {"f:token": {}},
        });
        let helm = |operation: &str| json!({"manager": "helm", "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "t", "fieldsV1": fields});
        let controller = json!({"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:token": {}}}});
        for operation in ["Update", "Apply"] {
            let after = transferred_fields(&[helm(operation), controller.clone()]).unwrap();
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
            assert_eq!(transferred_fields(&after[1..]), None, "and nothing is left to hand over");
        }
    }

    #[test]
    fn transferred_fields_merge_with_own_fields() {
        let ours = json!({"manager": MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}});
        let helm = json!({"manager": "helm", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:metadata": {"f:labels": {"f:b": {}}}}});
        let after = transferred_fields(&[ours, helm]).unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0]["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}}}));
    }
}
