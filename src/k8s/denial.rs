//! Denials: the permissions that the parent credential lacks, as a failure and as one line. Pure.

use crate::{
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding},
    },
    k8s::object::{Kind, Reference},
    rbac::{Atom, Tuple, sentences},
};

/// The permission that a request on this object requires. A Namespace is a cluster-scoped object.
#[must_use]
pub fn needed(verb: &str, object: &Reference) -> Tuple {
    let atom = Atom::new(verb, object.kind.group(), object.kind.resource());
    // A POST or a list is authorized without a name.
    let nameless = verb == "list" || (object.kind == Kind::Namespace && verb == "create");
    let atom = if nameless { atom } else { atom.named(&object.name) };
    atom.within(object.namespace.as_deref()).tuple()
}

/// The failure of requests that the authorizer denies, with all missing permissions.
#[must_use]
pub fn denied(doing: &str, missing: Vec<Tuple>) -> Failure {
    let cause = format!("the parent credential lacks {}", summary(&missing));
    let finding = Finding::remark(finding::Code::MissingPermission, cause.clone());
    Failure { findings: vec![finding], missing, ..Failure::new(Code::MissingPermission, doing, cause) }
}

/// The failure of a grant beyond the permissions of the granter (RBAC's escalation check).
#[must_use]
pub fn not_grantable(doing: &str, missing: Vec<Tuple>) -> Failure {
    let mut cause = format!("the parent credential may not grant permissions it does not hold: {}", summary(&missing));
    if missing.iter().any(is_wildcard) {
        cause.push_str("; a wildcard can only be granted by a credential that holds the wildcard itself");
    }
    let finding = Finding::remark(finding::Code::Escalation, cause.clone());
    Failure { findings: vec![finding], missing, ..Failure::new(Code::Escalation, doing, cause) }
}

/// The first three permissions of a list, and the number of further ones.
#[must_use]
pub fn summary(tuples: &[Tuple]) -> String {
    let lines = sentences(tuples);
    let shown = lines.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    match lines.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

fn is_wildcard(tuple: &Tuple) -> bool {
    matches!(tuple, Tuple::Resource { verb, group, resource, .. } if [verb, group, resource].contains(&&"*".to_owned()))
}

/// A sentence with the permissions that the parent credential lacks.
#[must_use]
pub fn lacks(missing: &[Tuple]) -> String {
    format!("the parent credential lacks {}", summary(missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::named("get", Reference::new(Kind::Role, "a", "demo"),
        Atom::new("get", "rbac.authorization.k8s.io", "roles").named("demo").within(Some("a")).tuple())]
    #[case::list("list", Reference::new(Kind::Secret, "a", "demo"), Atom::new("list", "", "secrets").within(Some("a")).tuple())]
    #[case::post("create", Reference::namespace("a"), Atom::new("create", "", "namespaces").tuple())]
    #[case::namespace("get", Reference::namespace("a"), Atom::new("get", "", "namespaces").named("a").tuple())]
    fn request_on_object_needs_permission(#[case] verb: &str, #[case] object: Reference, #[case] permission: Tuple) {
        assert_eq!(needed(verb, &object), permission);
    }

    #[test]
    fn long_lists_are_truncated_after_three() {
        let tuples: Vec<Tuple> = ["a", "b", "c", "d", "e"].map(|it| Atom::new("get", "", it).tuple()).into();
        let text = summary(&tuples);
        assert!(text.ends_with("; and 2 more"), "{text}");
        assert_eq!(text.matches("; ").count(), 3, "{text}");
    }

    #[test]
    fn missing_wildcard_is_explained() {
        let of = |verb| not_grantable("x", vec![Atom::new(verb, "", "pods").tuple()]).cause;
        assert!(of("*").contains("holds the wildcard itself"));
        assert!(!of("get").contains("wildcard"));
    }
}
