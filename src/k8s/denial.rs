//! Denials: the permissions that the parent credential lacks, as a failure and as one line. Pure.

use crate::{
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding},
    },
    k8s::object::{Kind, Reference},
    rbac::{Permission, PermissionRecord, summarize},
};

/// The permission that a request on this object requires. A Namespace is a cluster-scoped object.
pub(crate) fn needed(verb: &str, object: &Reference) -> PermissionRecord {
    let permission = Permission::new(verb, object.kind.group(), object.kind.resource());
    // A POST or a list is authorized without a name.
    let nameless = verb == "list" || (object.kind == Kind::Namespace && verb == "create");
    let permission = if nameless { permission } else { permission.named(&object.name) };
    permission.within(object.namespace.as_deref()).record()
}

/// The failure of requests that the authorizer denies, with all missing permissions.
pub(crate) fn denied(doing: &str, missing: Vec<PermissionRecord>) -> Failure {
    let cause = format!("the parent credential lacks {}", summary(&missing));
    let finding = Finding::remark(finding::Code::MissingPermission, cause.clone());
    Failure { findings: vec![finding], missing, ..Failure::new(Code::MissingPermission, doing, cause) }
}

/// The failure of a grant beyond the permissions of the granter (RBAC's escalation check).
pub(crate) fn not_grantable(doing: &str, missing: Vec<PermissionRecord>) -> Failure {
    let mut cause = format!("the parent credential may not grant permissions it does not hold: {}", summary(&missing));
    if missing.iter().any(is_wildcard) {
        cause.push_str("; a wildcard can only be granted by a credential that holds the wildcard itself");
    }
    let finding = Finding::remark(finding::Code::Escalation, cause.clone());
    Failure { findings: vec![finding], missing, ..Failure::new(Code::Escalation, doing, cause) }
}

/// The first three permissions of a list, and the number of further ones.
pub(crate) fn summary(records: &[PermissionRecord]) -> String {
    let lines = summarize(records);
    let shown = lines.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    match lines.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

fn is_wildcard(record: &PermissionRecord) -> bool {
    matches!(record, PermissionRecord::Resource { verb, group, resource, .. } if [verb, group, resource].contains(&&"*".to_owned()))
}

/// A sentence with the permissions that the parent credential lacks.
pub(crate) fn lacks(missing: &[PermissionRecord]) -> String {
    format!("the parent credential lacks {}", summary(missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::named("get", Reference::new(Kind::Role, "a", "demo"),
        Permission::new("get", "rbac.authorization.k8s.io", "roles").named("demo").within(Some("a")).record())]
    #[case::list("list", Reference::new(Kind::Secret, "a", "demo"), Permission::new("list", "", "secrets").within(Some("a")).record())]
    #[case::post("create", Reference::namespace("a"), Permission::new("create", "", "namespaces").record())]
    #[case::namespace("get", Reference::namespace("a"), Permission::new("get", "", "namespaces").named("a").record())]
    fn request_on_object_needs_permission(
        #[case] verb: &str,
        #[case] object: Reference,
        #[case] permission: PermissionRecord,
    ) {
        assert_eq!(needed(verb, &object), permission);
    }

    #[test]
    fn long_lists_are_truncated_after_three() {
        let records: Vec<PermissionRecord> =
            ["a", "b", "c", "d", "e"].map(|it| Permission::new("get", "", it).record()).into();
        let text = summary(&records);
        assert!(text.ends_with("; and 2 more"), "{text}");
        assert_eq!(text.matches("; ").count(), 3, "{text}");
    }

    #[test]
    fn missing_wildcard_is_explained() {
        let of = |verb| not_grantable("x", vec![Permission::new(verb, "", "pods").record()]).cause;
        assert!(of("*").contains("holds the wildcard itself"));
        assert!(!of("get").contains("wildcard"));
    }
}
