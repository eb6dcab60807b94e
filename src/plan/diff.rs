//! Comparison of desired and observed objects: `(Desired, Observed) -> Plan`. Only owned fields are compared, so that
//! writes of others to other fields (token data, last-used labels, admission defaults) are no drift. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::{
    diagnostics::text::escaped,
    input::request::Request,
    k8s::{
        grant::{Grant, Place, RoleSource},
        helm_release,
        object::{Live, MANAGER, Manifest, Reference, differing},
        ownership::Owner,
    },
    plan::{
        desired::{self, Desired},
        guardrails::Additions,
        observed::{Observed, Presence},
        token_slots::Slot,
    },
    rbac::{Catalog, Permission, PermissionChanges, Rule, difference, matchable, permissions_of, same_permissions},
};

/// The change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeKind {
    /// It does not exist.
    Create,
    /// Some of the owned fields differ.
    Update,
    /// Version 1.0.0 of the bundle created it: it is adopted, and fields that differ are updated.
    Adopt,
    /// An immutable field differs: it is deleted and created again.
    Replace,
    /// It is deleted.
    Delete,
    /// Nothing differs.
    Unchanged,
}

impl ChangeKind {
    /// As it is printed.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Adopt => "adopt",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Unchanged => "unchanged",
        }
    }
}

/// An object and its change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The change.
    pub(crate) action: ChangeKind,
    /// The object.
    pub(crate) reference: Reference,
    /// JSON pointers to the fields that differ; empty if the whole object does.
    pub(crate) fields: Vec<String>,
}

impl Change {
    /// The deletion of an object.
    pub(crate) const fn delete(reference: Reference) -> Self {
        Self { action: ChangeKind::Delete, reference, fields: Vec::new() }
    }

    /// The order in which changes are printed: place by place, created objects before deleted ones.
    pub(crate) fn reading_order(&self, home: &str) -> impl Ord + use<'_> {
        let Reference { kind, name, .. } = &self.reference;
        (self.reference.place_in_reading_order(home), self.action == ChangeKind::Delete, *kind, name)
    }
}

impl Serialize for Change {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut change = serializer.serialize_struct("Change", 5)?;
        change.serialize_field("action", &self.action)?;
        change.serialize_field("kind", &self.reference.kind)?;
        change.serialize_field("namespace", &self.reference.namespace)?;
        change.serialize_field("name", &self.reference.name)?;
        change.serialize_field("fields", &self.fields)?;
        change.end()
    }
}

/// An object with a required name that belongs to someone else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// The object.
    pub(crate) reference: Reference,
    /// A sentence about its owner.
    pub(crate) whose: String,
}

/// An object of the instance that was changed by someone else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// The object.
    pub(crate) reference: Reference,
    /// JSON pointers to the fields that were changed.
    pub(crate) fields: Vec<String>,
    /// The field managers that changed it, as far as its managed fields show.
    pub(crate) by: BTreeSet<String>,
    /// Whether the change affects permissions or their subject.
    pub(crate) grants: bool,
}

/// The changes of a provision.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// One for each object, in printing order: the home namespace, the other namespaces by name, the whole cluster.
    pub(crate) changes: Vec<Change>,
    /// Objects of someone else with a required name.
    pub(crate) foreign: Vec<Foreign>,
    /// Objects that were changed by someone else; all are restored.
    pub(crate) drift: Vec<Drift>,
}

impl Plan {
    /// Compares desired and observed objects.
    pub(crate) fn new(request: &Request, desired: &Desired, observed: &Observed) -> Self {
        let home = request.instance.namespace.as_str();
        let mut plan = Self::default();
        if observed.presence(&request.instance.namespace) == Presence::Absent {
            plan.push(ChangeKind::Create, Reference::namespace(home));
        }
        plan.compare(request, &desired.service_account, observed.service_account.as_ref());
        for granted in &desired.grants {
            if let Some(role) = &granted.role {
                plan.compare(request, role, observed.role(&granted.place));
            }
            plan.compare(request, &granted.binding, observed.binding(&granted.place));
        }
        plan.compare(request, &desired.secret, observed.slots.usable().map(|slot| &slot.live));
        for (_, reference, _) in to_delete(request, desired, observed) {
            plan.push(ChangeKind::Delete, reference);
        }
        if let Some(Slot { number, unusable: Some(unusable), .. }) = observed.slots.current() {
            let (reference, fields) = (request.instance.names.token_secret(*number), vec![unusable.field.to_owned()]);
            plan.drift.push(Drift { reference, fields, by: BTreeSet::new(), grants: true });
        }
        for slot in desired.slots.superseded.iter().chain(&desired.slots.retired) {
            plan.push(ChangeKind::Delete, request.instance.names.token_secret(*slot));
        }
        plan.sort(request);
        plan
    }

    /// Adds deletions of other objects.
    pub(crate) fn delete(&mut self, request: &Request, objects: &[Reference]) {
        for object in objects {
            self.push(ChangeKind::Delete, object.clone());
        }
        self.sort(request);
    }

    fn sort(&mut self, request: &Request) {
        let home = request.instance.namespace.as_str();
        self.changes.sort_by(|one, other| one.reading_order(home).cmp(&other.reading_order(home)));
    }

    fn push(&mut self, action: ChangeKind, reference: Reference) {
        self.changes.push(Change { action, reference, fields: Vec::new() });
    }

    fn compare(&mut self, request: &Request, manifest: &Manifest, live: Option<&Live>) {
        let owner = live.map(|live| request.instance.owner(live));
        if let Some(Owner::Foreign(whose)) = owner {
            self.foreign.push(Foreign { reference: manifest.reference.clone(), whose });
            return;
        }
        // Objects of version 1.0.0 differ because another program created them: that is no drift.
        let ours = live.filter(|_| owner == Some(Owner::Ours));
        self.drift.extend(ours.and_then(|live| drift(manifest, live)));
        self.changes.push(change(manifest, live));
    }

    /// The change of this object, if it does not belong to someone else.
    pub(crate) fn change(&self, object: &Reference) -> Option<&Change> {
        self.changes.iter().find(|change| change.reference == *object)
    }

    /// Whether a provision would write nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.iter().all(|change| change.action == ChangeKind::Unchanged)
    }
}

/// The places of earlier configurations, and the objects there: binding first, in the order of deletion.
pub(crate) fn stale_objects<'a>(
    request: &'a Request,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a Place, Vec<(Reference, &'a Live)>)> {
    let left = observed.places.iter().filter(|(place, _)| !request.grants.wants(place));
    left.map(|(place, found)| {
        let binding = found.binding.iter().map(|live| (request.instance.names.binding(place), live));
        let role = found.role.iter().map(|live| (request.instance.names.role(&place.scope), live));
        (place, binding.chain(role).collect())
    })
}

/// The objects to delete: those of the instance at places of earlier configurations, except places that cannot be
/// cleared.
pub(crate) fn to_delete<'a>(
    request: &'a Request,
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a Place, Reference, &'a Live)> {
    let left = stale_objects(request, observed).filter(|(place, _)| !desired.record.inventory.contains(place));
    let objects =
        left.flat_map(|(place, objects)| objects.into_iter().map(move |(object, live)| (place, object, live)));
    objects.filter(|(_, _, live)| request.instance.owns(live))
}

/// The permissions granted at these places, as far as known.
pub(crate) fn held_at<'a>(places: &'a BTreeSet<Place>, observed: &Observed) -> Vec<(&'a Place, Vec<Rule>)> {
    places.iter().map(|place| (place, observed.rules(place))).collect()
}

/// The permissions that are added and removed: what the live bindings grant now, compared with the params and with
/// places that cannot be cleared; without those that no request for what the catalogue lists can match.
pub(crate) fn permission_changes(
    request: &Request,
    desired: &Desired,
    observed: &Observed,
    catalog: &Catalog<'_>,
) -> PermissionChanges {
    changes_among(request, desired, observed, |permissions| matchable(&permissions, catalog))
}

/// The same among the permissions that are counted.
fn changes_among(
    request: &Request,
    desired: &Desired,
    observed: &Observed,
    counted: impl for<'p> Fn(Vec<Permission<'p>>) -> Vec<Permission<'p>>,
) -> PermissionChanges {
    let bound = observed.places.iter().filter(|(place, found)| {
        let binding = found.binding.as_ref().filter(|binding| request.instance.owns(binding));
        binding.is_some_and(|binding| {
            binds(binding, &desired::binding(request, place), request.instance.namespace.as_str())
        })
    });
    let held: Vec<(&Place, Vec<Rule>)> = bound.map(|(place, _)| (place, observed.rules(place))).collect();
    let wanted = granted_rules(request, observed);
    let kept = desired.kept(request);
    let kept = held_at(&kept, observed);
    let (held, wanted) = (counted(all_permissions(&held)), counted(all_permissions(&wanted)));
    difference(&held, &wanted).except(&all_permissions(&kept).into_iter().collect())
}

/// What a provision adds. Without the ServiceAccount no one has any permission, whatever its bindings say.
pub(crate) fn additions(request: &Request, desired: &Desired, observed: &Observed, catalog: &Catalog<'_>) -> Additions {
    if observed.service_account.is_none() {
        return Additions::ALL;
    }
    let permissions = permission_changes(request, desired, observed, catalog);
    let rules = changes_among(request, desired, observed, |all| all);
    Additions { permissions: !permissions.widened.is_empty(), rules: !rules.widened.is_empty() }
}

/// The requested permissions, place by place: the rules, and those that the existing ClusterRoles contain now.
pub(crate) fn granted_rules<'a>(request: &'a Request, observed: &Observed) -> Vec<(&'a Place, Vec<Rule>)> {
    let rules = |grant: &'a Grant| match grant.place.role_source {
        RoleSource::Rules => grant.rules.clone(),
        RoleSource::ClusterRole(_) => observed.rules(&grant.place),
    };
    request.grants.iter().map(|grant| (&grant.place, rules(grant))).collect()
}

/// Every single permission of these rules, with its scope.
pub(crate) fn all_permissions<'a>(rules: &'a [(&Place, Vec<Rule>)]) -> Vec<Permission<'a>> {
    rules.iter().flat_map(|(place, rules)| permissions_of(rules, place.scope.namespace())).collect()
}

/// Whether a live binding binds the role of this place to the instance's ServiceAccount, whatever else it binds. A
/// subject without a namespace, as version 1.0.0 wrote it, is in the binding's own namespace.
fn binds(binding: &Live, wanted: &Manifest, home: &str) -> bool {
    let ours = &wanted.body["subjects"][0];
    let beside = wanted.reference.namespace.as_deref() == Some(home);
    let is_ours = |subject: &Value| {
        let short = beside && subject.get("namespace").is_none();
        ["kind", "name"].iter().all(|key| subject[key] == ours[key])
            && (short || subject["namespace"] == ours["namespace"])
    };
    let subjects = binding.fields.get("subjects").and_then(Value::as_array);
    binding.fields.get("roleRef") == Some(&wanted.body["roleRef"])
        && subjects.is_some_and(|subjects| subjects.iter().any(is_ours))
}

/// The change that turns the live object into the manifest.
pub(crate) fn change(manifest: &Manifest, live: Option<&Live>) -> Change {
    let reference = manifest.reference.clone();
    let Some(live) = live else {
        return Change { action: ChangeKind::Create, reference, fields: Vec::new() };
    };
    let fields = differences(manifest, live);
    let action = if fields.is_empty() {
        ChangeKind::Unchanged
    } else if fields.iter().any(|field| field.starts_with("/roleRef")) {
        // roleRef is immutable, by validation of RoleBinding. So is the type of a Secret: one of another type is
        // retired.
        ChangeKind::Replace
    } else if helm_release::is_managed_by_helm(live) {
        ChangeKind::Adopt // one of someone else is refused before
    } else {
        ChangeKind::Update
    };
    Change { action, reference, fields }
}

/// Drift: differences that another field manager wrote last. If k8s-token still owns the field, the configuration changed.
/// A top-level field that was removed has no entry in the managed fields, and counts as drift, because every manifest sets
/// it. A label or an annotation that was removed does not count.
fn drift(manifest: &Manifest, live: &Live) -> Option<Drift> {
    let theirs = |field: &String| match field.trim_start_matches('/').split('/').collect::<Vec<_>>()[..] {
        ["metadata", "labels", key] => is_owned_by_others(key, &live.labels, &live.owned_labels),
        ["metadata", "annotations", key] => is_owned_by_others(key, &live.annotations, &live.owned_annotations),
        [field, ..] => live.managers.get(field).is_none_or(|manager| manager != MANAGER),
        [] => false,
    };
    let fields: Vec<String> = differences(manifest, live).into_iter().filter(theirs).collect();
    let top = fields.iter().filter_map(|field| field.split('/').nth(1)).filter(|field| *field != "metadata");
    let by = top.clone().filter_map(|field| live.managers.get(field).cloned()).collect();
    let grants = top.count() > 0;
    (!fields.is_empty()).then(|| Drift { reference: manifest.reference.clone(), fields, by, grants })
}

/// Whether the live object has this label or annotation, and another field manager owns it.
fn is_owned_by_others(key: &str, have: &BTreeMap<String, String>, owned: &BTreeSet<String>) -> bool {
    let is = |known: &String| escaped(known) == key;
    have.keys().any(is) && !owned.iter().any(is)
}

/// Pointers to the fields that a server-side apply of the manifest would change.
fn differences(manifest: &Manifest, live: &Live) -> Vec<String> {
    let mut fields = Vec::new();
    let metadata = &manifest.body["metadata"];
    let maps =
        [("labels", &live.labels, &live.owned_labels), ("annotations", &live.annotations, &live.owned_annotations)];
    for (map, have, owned) in maps {
        let want: BTreeMap<&str, &Value> =
            metadata[map].as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value)).collect();
        let differ = want.iter().filter(|(key, value)| have.get(**key).map(String::as_str) != value.as_str());
        let gone = owned.iter().filter(|key| !want.contains_key(key.as_str()) && have.contains_key(*key));
        let keys = differ.map(|(key, _)| *key).chain(gone.map(String::as_str));
        fields.extend(keys.map(|key| format!("/metadata/{map}/{}", escaped(key))));
    }
    for (field, want) in manifest.body.as_object().into_iter().flatten() {
        if matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let have = live.fields.get(field).unwrap_or(&Value::Null);
        if field == "rules" && same_rules(have, want) {
            continue;
        }
        differing(&format!("/{field}"), have, want, &mut fields);
    }
    fields.sort();
    fields
}

/// Equivalent rules are equal: no write, no change. What cannot be read as rules is different.
fn same_rules(have: &Value, want: &Value) -> bool {
    let parse = |rules: &Value| serde_json::from_value::<Vec<Rule>>(rules.clone()).ok();
    matches!((parse(have), parse(want)), (Some(have), Some(want)) if same_permissions(&have, &want))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        k8s::object::Kind,
        plan::{
            fixtures::{Case, request, settled},
            preflight::compare,
        },
    };

    /// Columns: the grants, those of the last provision, whether the ServiceAccount exists, whether permissions are added.
    #[rstest]
    #[case::same(&["home get list"], &["home get list"], true, false)]
    #[case::fewer_verbs(&["home get"], &["home get list"], true, false)]
    #[case::fewer_namespaces(&["home get"], &["home get", "b get"], true, false)]
    #[case::one_namespace_of_the_cluster(&["home get"], &["* get"], true, false)]
    #[case::more_verbs(&["home get list"], &["home get"], true, true)]
    #[case::other_verbs(&["home list"], &["home get"], true, true)]
    #[case::more_namespaces(&["home get", "b get"], &["home get"], true, true)]
    #[case::cluster(&["* get"], &["home get"], true, true)]
    #[case::no_one_to_hold_them(&["home get"], &["home get"], false, true)]
    fn additions_are_permissions_that_were_not_held(
        #[case] wanted: &[&'static str],
        #[case] before: &[&'static str],
        #[case] account: bool,
        #[case] expected: bool,
    ) {
        let (request, mut snapshot) = (request(&Case::new(wanted)), settled(before));
        snapshot.observed.service_account = snapshot.observed.service_account.filter(|_| account);
        let (desired, _) = compare(&request, &snapshot);
        let adds = additions(&request, &desired, &snapshot.observed, Catalog::embedded());
        assert_eq!(adds, Additions { permissions: expected, rules: expected });
    }

    fn role(rules: &Value) -> Manifest {
        let metadata = json!({"labels": {"a/b": "1"}, "annotations": {"x": "y"}});
        Manifest {
            reference: Reference::new(Kind::Role, "a", "demo-token"),
            body: json!({"metadata": metadata, "rules": rules}),
        }
    }

    fn live(rules: &Value) -> Live {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Live {
            labels: map("a/b", "1"),
            annotations: map("x", "y"),
            fields: BTreeMap::from([("rules".to_owned(), rules.clone())]),
            ..Live::default()
        }
    }

    fn pods(verbs: &[&str]) -> Value {
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}])
    }

    #[test]
    fn foreign_labels_and_annotations_are_no_difference() {
        let mut live = live(&pods(&["list", "get"]));
        live.labels.insert("theirs".to_owned(), "x".to_owned());
        live.annotations.insert("kubernetes.io/service-account.uid".to_owned(), "u".to_owned());
        assert_eq!(change(&role(&pods(&["get", "list"])), Some(&live)).action, ChangeKind::Unchanged);
    }

    #[test]
    fn differences_are_listed_by_pointer() {
        let mut drifted = live(&pods(&["get"]));
        drifted.labels.insert("a/b".to_owned(), "2".to_owned());
        drifted.annotations.clear();
        let change = change(&role(&pods(&["get", "list"])), Some(&drifted));
        assert_eq!(change.action, ChangeKind::Update);
        assert_eq!(change.fields, ["/metadata/annotations/x", "/metadata/labels/a~1b", "/rules/0/verbs"]);
    }

    #[test]
    fn owned_label_that_is_unwanted_is_removed() {
        let mut live = live(&pods(&["get"]));
        live.labels.insert("old".to_owned(), "x".to_owned());
        live.owned_labels.insert("old".to_owned());
        assert_eq!(change(&role(&pods(&["get"])), Some(&live)).fields, ["/metadata/labels/old"]);
    }

    #[test]
    fn drift_differs_from_changed_input() {
        let mut live = live(&pods(&["get"]));
        let wanted = role(&pods(&["get", "list"]));
        let by = |manager: &str| BTreeMap::from([("rules".to_owned(), manager.to_owned())]);
        live.managers = by(MANAGER);
        assert_eq!(drift(&wanted, &live), None);
        live.managers = by("kubectl-edit");
        let found = drift(&wanted, &live).unwrap();
        assert_eq!((found.fields, found.grants), (vec!["/rules/0/verbs".to_owned()], true));
        assert_eq!(found.by, BTreeSet::from(["kubectl-edit".to_owned()]));
        live.managers = by(MANAGER);
        live.labels.insert("a/b".to_owned(), "theirs".to_owned());
        let found = drift(&wanted, &live).unwrap();
        assert_eq!((found.fields, found.grants), (vec!["/metadata/labels/a~1b".to_owned()], false));
        live.owned_labels.insert("a/b".to_owned());
        assert_eq!(drift(&wanted, &live), None, "a tag with another value");
        live.labels.clear();
        live.owned_labels.clear();
        assert_eq!(drift(&wanted, &live), None, "a new tag, or one that somebody has removed");
    }

    #[test]
    fn unmanaged_rule_format_is_a_difference() {
        let mut rules = pods(&["get"]);
        rules.as_array_mut().unwrap().push(json!({"nonResourceURLs": ["/x"], "verbs": ["get"]}));
        assert_eq!(change(&role(&pods(&["get"])), Some(&live(&rules))).fields, ["/rules/1"]);
    }

    #[test]
    fn immutable_difference_leads_to_replacement() {
        let reference = Reference::new(Kind::RoleBinding, "a", "demo-token");
        let binding = Manifest { reference, body: json!({"metadata": {}, "roleRef": {"kind": "Role", "name": "a"}}) };
        let mut live = Live::default();
        live.fields.insert("roleRef".to_owned(), json!({"kind": "Role", "name": "b"}));
        assert_eq!(change(&binding, Some(&live)).action, ChangeKind::Replace);
        assert_eq!(change(&binding, None).action, ChangeKind::Create);
    }
}
