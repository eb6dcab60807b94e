//! Which permissions a set of rules covers, decided as the API server's escalation check decides it: every single
//! permission requested must be covered by one single permission held that is equal or wider in each part. Source:
//! kubernetes component-helpers, auth/rbac/validation/policy_comparator.go. Pure.

use std::collections::{BTreeSet, HashSet};

use crate::rbac::{Permission, PermissionRecord, PermissionTarget, Rule, permissions_of};

/// Permissions held, indexed for lookup. A cluster-wide permission is held in each namespace.
#[derive(Default)]
pub(crate) struct Coverage<'a> {
    held: HashSet<Permission<'a>>,
    wildcards: Wildcards,
}

/// The wildcards that occur among the permissions held: the others need not be tried.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each stands for itself")]
struct Wildcards {
    everywhere: bool,
    verb: bool,
    group: bool,
    resource: bool,
    subresource: bool,
    url: bool,
}

impl<'a> FromIterator<Permission<'a>> for Coverage<'a> {
    fn from_iter<I: IntoIterator<Item = Permission<'a>>>(held: I) -> Self {
        let held: HashSet<Permission<'a>> = held.into_iter().collect();
        let mut wildcards = Wildcards::default();
        for permission in &held {
            wildcards.everywhere |= permission.namespace.is_none();
            wildcards.verb |= permission.verb == "*";
            match permission.target {
                PermissionTarget::Resource { group, resource, .. } => {
                    wildcards.group |= group == "*";
                    wildcards.resource |= resource == "*";
                    wildcards.subresource |= resource.starts_with("*/");
                }
                PermissionTarget::Url(url) => wildcards.url |= url.ends_with('*'),
            }
        }
        Self { held, wildcards }
    }
}

impl Coverage<'_> {
    /// Whether one permission held is equal to or wider than this one.
    pub(crate) fn covers(&self, asked: Permission<'_>) -> bool {
        self.any_wider(asked, |_| true)
    }

    /// Whether another permission held is wider than this one.
    fn covers_strictly(&self, asked: Permission<'_>) -> bool {
        self.any_wider(asked, |candidate| candidate != asked)
    }

    /// Tries every permission that would cover the requested one: at most 48 for a resource, whatever the number of
    /// rules; for a path, four for each of its characters.
    fn any_wider(&self, asked: Permission<'_>, counts: impl Fn(Permission<'_>) -> bool) -> bool {
        let all = self.wildcards;
        let anywhere = |target: PermissionTarget<'_>| {
            once_or_twice(asked.verb, "*", all.verb).any(|verb| {
                once_or_twice(asked.namespace, None, all.everywhere).any(|namespace| {
                    let candidate = Permission { namespace, target, verb };
                    self.held.contains(&candidate) && counts(candidate)
                })
            })
        };
        match asked.target {
            PermissionTarget::Resource { group, resource, name } => {
                let subresource = resource.split_once('/').filter(|_| all.subresource);
                let subresource = subresource.map(|(_, subresource)| format!("*/{subresource}"));
                let resources = once_or_twice(resource, "*", all.resource).chain(subresource.as_deref());
                resources.into_iter().any(|resource| {
                    once_or_twice(group, "*", all.group).any(|group| {
                        once_or_twice(name, None, true)
                            .any(|name| anywhere(PermissionTarget::Resource { group, resource, name }))
                    })
                })
            }
            PermissionTarget::Url(url) => {
                let prefixes = url.char_indices().map(|(end, _)| &url[..end]).chain([url]).filter(|_| all.url);
                let mut patterns = prefixes.map(|prefix| format!("{prefix}*"));
                anywhere(PermissionTarget::Url(url))
                    || patterns.any(|pattern| anywhere(PermissionTarget::Url(&pattern)))
            }
        }
    }
}

/// The value itself, and the wildcard where it differs and is held.
fn once_or_twice<T: Copy + PartialEq>(value: T, wider: T, there: bool) -> impl Iterator<Item = T> {
    std::iter::once(value).chain((there && wider != value).then_some(wider))
}

/// The difference for the credential when the old permissions are replaced by the new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PermissionChanges {
    /// Permissions that were not held before: the widest ones, without those that match nothing.
    pub(crate) widened: Vec<PermissionRecord>,
    /// Permissions that are no longer held, likewise.
    pub(crate) narrowed: Vec<PermissionRecord>,
    /// Number of single permissions of the new rules that were held before.
    pub(crate) unchanged: usize,
}

impl PermissionChanges {
    /// Without what is held all the same.
    #[must_use]
    pub(crate) fn except(mut self, kept: &Coverage<'_>) -> Self {
        self.narrowed.retain(|record| !kept.covers(record.permission()));
        self
    }
}

/// Compares two lists of permissions by what they allow, not by how they are written.
pub(crate) fn difference(old: &[Permission<'_>], new: &[Permission<'_>]) -> PermissionChanges {
    let asked: HashSet<Permission<'_>> =
        new.iter().copied().filter(|permission| !permission.matches_nothing()).collect();
    let (before, after) = (old.iter().copied().collect(), new.iter().copied().collect());
    let records = |permissions: BTreeSet<Permission<'_>>| permissions.iter().map(Permission::record).collect();
    PermissionChanges {
        widened: records(beyond(new, &before)),
        narrowed: records(beyond(old, &after)),
        unchanged: asked.into_iter().filter(|permission| before.covers(*permission)).count(),
    }
}

/// Whether both lists allow the same, however they are ordered, split or merged.
pub(crate) fn same_permissions(one: &[Rule], other: &[Rule]) -> bool {
    let (one, other): (Vec<Permission<'_>>, Vec<Permission<'_>>) =
        (permissions_of(one, None).collect(), permissions_of(other, None).collect());
    beyond(&one, &other.iter().copied().collect()).is_empty()
        && beyond(&other, &one.iter().copied().collect()).is_empty()
}

/// The steps in which the rules of a Role change, so that permissions that are kept are never interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Widening {
    /// Nothing is added: the whole change can wait until the test of the token.
    None,
    /// Nothing is removed: the whole change can be made at once.
    Whole,
    /// Both: first these rules, the union of old and new.
    Between(Vec<Rule>),
}

/// Compares the live rules of a Role with the desired ones.
pub(crate) fn widening(have: &[Rule], want: &[Rule]) -> Widening {
    let (before, after): (Coverage<'_>, Coverage<'_>) =
        (permissions_of(have, None).collect(), permissions_of(want, None).collect());
    let lacks = |held: &Coverage<'_>, rule: &Rule| {
        rule.permissions(None).any(|permission| !permission.matches_nothing() && !held.covers(permission))
    };
    let stale = || have.iter().filter(|rule| lacks(&after, rule));
    match (want.iter().any(|rule| lacks(&before, rule)), stale().next().is_some()) {
        (false, true) => Widening::None,
        (_, false) => Widening::Whole,
        (true, true) => Widening::Between(want.iter().chain(stale()).cloned().collect()),
    }
}

/// The widest of these permissions that the coverage lacks, without those that match nothing.
fn beyond<'a>(permissions: &[Permission<'a>], held: &Coverage<'_>) -> BTreeSet<Permission<'a>> {
    let missing =
        permissions.iter().copied().filter(|permission| !permission.matches_nothing() && !held.covers(*permission));
    let missing: Coverage<'a> = missing.collect();
    missing.held.iter().copied().filter(|permission| !missing.covers_strictly(*permission)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::subsequence};

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> Rule {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Rule {
            api_groups: owned(groups),
            resources: owned(resources),
            verbs: owned(verbs),
            resource_names: owned(names),
            ..Rule::default()
        }
    }

    /// Columns: held, requested, covered. The rows of the server's own table, and the pitfalls of its matching.
    #[rstest::rstest]
    #[case::equal(rule(&[""], &["pods"], &["get"], &[]), Permission::new("get", "", "pods"), true)]
    #[case::other_group(rule(&[""], &["pods"], &["get"], &[]), Permission::new("get", "metrics.k8s.io", "pods"), false)]
    #[case::group_wildcard(rule(&["*"], &["pods"], &["get"], &[]), Permission::new("get", "", "pods"), true)]
    #[case::all_groups_need_the_wildcard(rule(&["", "apps"], &["pods"], &["get"], &[]), Permission::new("get", "*", "pods"), false)]
    #[case::verb_wildcard(rule(&[""], &["pods"], &["*"], &[]), Permission::new("escalate", "", "pods"), true)]
    #[case::all_verbs_need_the_wildcard(rule(&[""], &["pods"], &crate::rbac::VERBS, &[]), Permission::new("*", "", "pods"), false)]
    #[case::subresource_is_its_own(rule(&[""], &["pods"], &["get"], &[]), Permission::new("get", "", "pods/log"), false)]
    #[case::resource_wildcard_has_subresources(rule(&[""], &["*"], &["get"], &[]), Permission::new("get", "", "pods/log"), true)]
    #[case::any_scale(rule(&["apps"], &["*/scale"], &["get"], &[]), Permission::new("get", "apps", "deployments/scale"), true)]
    #[case::any_scale_is_not_any(rule(&["apps"], &["*/scale"], &["get"], &[]), Permission::new("get", "apps", "deployments"), false)]
    #[case::star_after_the_slash_is_no_wildcard(rule(&[""], &["pods/*"], &["get"], &[]), Permission::new("get", "", "pods/log"), false)]
    #[case::no_names_cover_a_name(rule(&[""], &["pods"], &["get"], &[]), Permission::new("get", "", "pods").named("a"), true)]
    #[case::a_name_covers_itself(rule(&[""], &["pods"], &["get"], &["a"]), Permission::new("get", "", "pods").named("a"), true)]
    #[case::a_name_covers_no_other(rule(&[""], &["pods"], &["get"], &["a"]), Permission::new("get", "", "pods").named("b"), false)]
    #[case::a_name_does_not_cover_all(rule(&[""], &["pods"], &["get"], &["a"]), Permission::new("get", "", "pods"), false)]
    fn coverage_matches_the_api_server(#[case] held: Rule, #[case] asked: Permission<'_>, #[case] covered: bool) {
        let held = [held];
        assert_eq!(permissions_of(&held, None).collect::<Coverage<'_>>().covers(asked), covered);
        let here = Some("a");
        assert_eq!(permissions_of(&held, here).collect::<Coverage<'_>>().covers(asked.within(here)), covered);
        assert_eq!(permissions_of(&held, None).collect::<Coverage<'_>>().covers(asked.within(here)), covered);
        assert!(!permissions_of(&held, here).collect::<Coverage<'_>>().covers(asked), "a namespace is not the cluster");
        assert!(!permissions_of(&held, here).collect::<Coverage<'_>>().covers(asked.within(Some("b"))));
    }

    #[test]
    fn difference_lists_the_widest_permissions() {
        let old = [rule(&[""], &["pods"], &["get", "list"], &[])];
        let new = [rule(&[""], &["*"], &["get"], &[]), rule(&[""], &["pods", "services"], &["get"], &[])];
        let at = Some("a");
        let difference = difference(&all(&old, at), &all(&new, at));
        assert_eq!(difference.widened, [Permission::new("get", "", "*").within(at).record()]);
        assert_eq!(difference.narrowed, [Permission::new("list", "", "pods").within(at).record()]);
        assert_eq!(difference.unchanged, 1);
    }

    #[test]
    fn difference_ignores_permissions_that_match_nothing() {
        let old = [rule(&[""], &["pods"], &["get"], &[])];
        let new =
            [rule(&[""], &["pods", "pods/*"], &["get"], &[]), rule(&[""], &["pods"], &["deletecollection"], &["a"])];
        assert!(same_permissions(&old, &new));
        let expected = PermissionChanges { unchanged: 1, ..PermissionChanges::default() };
        assert_eq!(difference(&all(&old, None), &all(&new, None)), expected);
    }

    fn all<'a>(rules: &'a [Rule], namespace: Option<&'a str>) -> Vec<Permission<'a>> {
        permissions_of(rules, namespace).collect()
    }

    #[test]
    fn difference_from_cluster_to_namespace_is_narrowed() {
        let rules = [rule(&[""], &["pods"], &["get"], &[])];
        let (wide, narrow) = (all(&rules, None), all(&rules, Some("a")));
        let get_pods = Permission::new("get", "", "pods").record();
        let expected =
            PermissionChanges { narrowed: vec![get_pods.clone()], unchanged: 1, ..PermissionChanges::default() };
        assert_eq!(difference(&wide, &narrow), expected);
        assert_eq!(
            difference(&narrow, &wide),
            PermissionChanges { widened: vec![get_pods.clone()], ..PermissionChanges::default() }
        );
        let both = [wide, narrow].concat();
        assert_eq!(difference(&both, &[]).narrowed, [get_pods], "the largest says it all");
    }

    #[rstest::rstest]
    #[case("/metrics", "/metrics", true)]
    #[case("/metrics", "/metrics/cadvisor", false)]
    #[case("/metrics*", "/metrics", true)]
    #[case("/metrics/*", "/metrics", false)]
    #[case("/metrics/*", "/metrics/cadvisor", true)]
    #[case("*", "/metrics", true)]
    #[case("*", "/met/*", true)]
    #[case("/met/*", "*", false)]
    #[case("/met/*", "/met/a/*", true)]
    fn star_matches_the_rest_of_a_url(#[case] held: &str, #[case] asked: &str, #[case] covered: bool) {
        let rule = |url: &str| {
            [Rule { verbs: vec!["get".to_owned()], non_resource_urls: vec![url.to_owned()], ..Rule::default() }]
        };
        let (held, asked) = (rule(held), rule(asked));
        assert_eq!(permissions_of(&asked, Some("a")).count(), 0, "a path is in no namespace");
        let asked = permissions_of(&asked, None).next().unwrap();
        assert_eq!(permissions_of(&held, None).collect::<Coverage<'_>>().covers(asked), covered);
        assert!(!permissions_of(&held, None).collect::<Coverage<'_>>().covers(Permission { verb: "put", ..asked }));
    }

    #[test]
    fn role_change_widens_first() {
        let (pods, both) = (rule(&[""], &["pods"], &["get"], &[]), rule(&[""], &["pods"], &["get", "list"], &[]));
        let maps = rule(&[""], &["configmaps"], &["get"], &[]);
        let one = std::slice::from_ref::<Rule>;
        assert_eq!(widening(one(&pods), one(&both)), Widening::Whole);
        assert_eq!(widening(one(&both), one(&pods)), Widening::None);
        assert_eq!(widening(one(&pods), one(&pods)), Widening::Whole, "a label may differ");
        assert_eq!(widening(one(&pods), one(&maps)), Widening::Between(vec![maps.clone(), pods.clone()]));
        assert_eq!(
            widening(&[pods.clone(), maps.clone()], one(&both)),
            Widening::Between(vec![both.clone(), maps]),
            "what is held by the new rules is not said twice"
        );
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        (
            subsequence(vec!["", "apps", "*"], 1..=3),
            subsequence(vec!["pods", "pods/log", "*", "*/log", "secrets"], 1..=3),
            subsequence(vec!["get", "list", "*"], 1..=3),
            subsequence(vec!["a", "b"], 0..=2),
        )
            .prop_map(|(groups, resources, verbs, names)| rule(&groups, &resources, &verbs, &names))
    }

    proptest! {
        #[test]
        fn order_splitting_and_repetition_keep_permissions(rules in prop::collection::vec(any_rule(), 0..4)) {
            let mut split: Vec<Rule> = rules
                .iter()
                .flat_map(|one| one.verbs.iter().map(|verb| Rule { verbs: vec![verb.clone()], ..one.clone() }))
                .collect();
            split.reverse();
            split.extend(rules.clone());
            prop_assert!(same_permissions(&rules, &split));
        }

        #[test]
        fn intermediate_role_holds_old_and_new_permissions(old in prop::collection::vec(any_rule(), 0..4),
                                                           new in prop::collection::vec(any_rule(), 0..4)) {
            if let Widening::Between(between) = widening(&old, &new) {
                prop_assert!(same_permissions(&between, &[old, new].concat()));
            }
        }

        #[test]
        fn old_without_narrowed_plus_widened_equals_new(old in prop::collection::vec(any_rule(), 0..4),
                                                 new in prop::collection::vec(any_rule(), 0..4)) {
            let (before, after): (Coverage<'_>, Coverage<'_>) = (permissions_of(&old, None).collect(), permissions_of(&new, None).collect());
            let widened = beyond(&all(&new, None), &before);
            let gained: Coverage<'_> = widened.iter().copied().collect();
            for permission in permissions_of(&new, None) {
                prop_assert!(before.covers(permission) || gained.covers(permission));
            }
            for permission in widened {
                prop_assert!(after.covers(permission) && !before.covers(permission));
            }
        }
    }
}
