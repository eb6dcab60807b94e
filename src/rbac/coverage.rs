//! Which permissions a set of rules covers, decided as the API server's escalation check decides it: every single
//! permission requested must be covered by one single permission held that is equal or wider in each part. Source:
//! kubernetes component-helpers, auth/rbac/validation/policy_comparator.go. Pure.

use std::collections::{BTreeSet, HashSet};

use crate::rbac::{Atom, Rule, Target, Tuple, atoms};

/// Permissions held, indexed for lookup. A cluster-wide permission is held in each namespace.
#[derive(Default)]
pub struct Coverage<'a> {
    held: HashSet<Atom<'a>>,
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

impl<'a> FromIterator<Atom<'a>> for Coverage<'a> {
    fn from_iter<I: IntoIterator<Item = Atom<'a>>>(held: I) -> Self {
        let held: HashSet<Atom<'a>> = held.into_iter().collect();
        let mut wildcards = Wildcards::default();
        for atom in &held {
            wildcards.everywhere |= atom.namespace.is_none();
            wildcards.verb |= atom.verb == "*";
            match atom.target {
                Target::Resource { group, resource, .. } => {
                    wildcards.group |= group == "*";
                    wildcards.resource |= resource == "*";
                    wildcards.subresource |= resource.starts_with("*/");
                }
                Target::Url(url) => wildcards.url |= url.ends_with('*'),
            }
        }
        Self { held, wildcards }
    }
}

impl Coverage<'_> {
    /// Whether one permission held is equal to or wider than this one.
    #[must_use]
    pub fn covers(&self, asked: Atom<'_>) -> bool {
        self.any_wider(asked, |_| true)
    }

    /// Whether another permission held is wider than this one.
    fn covers_strictly(&self, asked: Atom<'_>) -> bool {
        self.any_wider(asked, |candidate| candidate != asked)
    }

    /// Tries every permission that would cover the requested one: at most 48 for a resource, whatever the number of
    /// rules; for a path, four for each of its characters.
    fn any_wider(&self, asked: Atom<'_>, counts: impl Fn(Atom<'_>) -> bool) -> bool {
        let all = self.wildcards;
        let anywhere = |target: Target<'_>| {
            once_or_twice(asked.verb, "*", all.verb).any(|verb| {
                once_or_twice(asked.namespace, None, all.everywhere).any(|namespace| {
                    let candidate = Atom { namespace, target, verb };
                    self.held.contains(&candidate) && counts(candidate)
                })
            })
        };
        match asked.target {
            Target::Resource { group, resource, name } => {
                let subresource = resource.split_once('/').filter(|_| all.subresource);
                let subresource = subresource.map(|(_, subresource)| format!("*/{subresource}"));
                let resources = once_or_twice(resource, "*", all.resource).chain(subresource.as_deref());
                resources.into_iter().any(|resource| {
                    once_or_twice(group, "*", all.group).any(|group| {
                        once_or_twice(name, None, true).any(|name| anywhere(Target::Resource { group, resource, name }))
                    })
                })
            }
            Target::Url(url) => {
                let prefixes = url.char_indices().map(|(end, _)| &url[..end]).chain([url]).filter(|_| all.url);
                let mut patterns = prefixes.map(|prefix| format!("{prefix}*"));
                anywhere(Target::Url(url)) || patterns.any(|pattern| anywhere(Target::Url(&pattern)))
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
pub struct Permissions {
    /// Permissions that were not held before: the widest ones, without those that match nothing.
    pub widened: Vec<Tuple>,
    /// Permissions that are no longer held, likewise.
    pub narrowed: Vec<Tuple>,
    /// Number of single permissions of the new rules that were held before.
    pub unchanged: usize,
}

impl Permissions {
    /// Without what is held all the same.
    #[must_use]
    pub fn except(mut self, kept: &Coverage<'_>) -> Self {
        self.narrowed.retain(|tuple| !kept.covers(tuple.atom()));
        self
    }
}

/// Compares two lists of permissions by what they allow, not by how they are written.
#[must_use]
pub fn difference(old: &[Atom<'_>], new: &[Atom<'_>]) -> Permissions {
    let asked: HashSet<Atom<'_>> = new.iter().copied().filter(|atom| !atom.is_dead()).collect();
    let (before, after) = (old.iter().copied().collect(), new.iter().copied().collect());
    let tuples = |atoms: BTreeSet<Atom<'_>>| atoms.iter().map(Atom::tuple).collect();
    Permissions {
        widened: tuples(beyond(new, &before)),
        narrowed: tuples(beyond(old, &after)),
        unchanged: asked.into_iter().filter(|atom| before.covers(*atom)).count(),
    }
}

/// Whether both lists allow the same, however they are ordered, split or merged.
#[must_use]
pub fn same_permissions(one: &[Rule], other: &[Rule]) -> bool {
    let (one, other): (Vec<Atom<'_>>, Vec<Atom<'_>>) = (atoms(one, None).collect(), atoms(other, None).collect());
    beyond(&one, &other.iter().copied().collect()).is_empty()
        && beyond(&other, &one.iter().copied().collect()).is_empty()
}

/// The steps in which the rules of a Role change, so that permissions that are kept are never interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Widening {
    /// Nothing is added: the whole change can wait until the test of the token.
    None,
    /// Nothing is removed: the whole change can be made at once.
    Whole,
    /// Both: first these rules, the union of old and new.
    Between(Vec<Rule>),
}

/// Compares the live rules of a Role with the desired ones.
#[must_use]
pub fn widening(have: &[Rule], want: &[Rule]) -> Widening {
    let (before, after): (Coverage<'_>, Coverage<'_>) = (atoms(have, None).collect(), atoms(want, None).collect());
    let lacks = |held: &Coverage<'_>, rule: &Rule| rule.atoms(None).any(|atom| !atom.is_dead() && !held.covers(atom));
    let stale = || have.iter().filter(|rule| lacks(&after, rule));
    match (want.iter().any(|rule| lacks(&before, rule)), stale().next().is_some()) {
        (false, true) => Widening::None,
        (_, false) => Widening::Whole,
        (true, true) => Widening::Between(want.iter().chain(stale()).cloned().collect()),
    }
}

/// The widest of these permissions that the coverage lacks, without those that match nothing.
fn beyond<'a>(permissions: &[Atom<'a>], held: &Coverage<'_>) -> BTreeSet<Atom<'a>> {
    let lacking = permissions.iter().copied().filter(|atom| !atom.is_dead() && !held.covers(*atom));
    let lacking: Coverage<'a> = lacking.collect();
    lacking.held.iter().copied().filter(|atom| !lacking.covers_strictly(*atom)).collect()
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
    #[case::equal(rule(&[""], &["pods"], &["get"], &[]), Atom::new("get", "", "pods"), true)]
    #[case::other_group(rule(&[""], &["pods"], &["get"], &[]), Atom::new("get", "metrics.k8s.io", "pods"), false)]
    #[case::group_wildcard(rule(&["*"], &["pods"], &["get"], &[]), Atom::new("get", "", "pods"), true)]
    #[case::all_groups_need_the_wildcard(rule(&["", "apps"], &["pods"], &["get"], &[]), Atom::new("get", "*", "pods"), false)]
    #[case::verb_wildcard(rule(&[""], &["pods"], &["*"], &[]), Atom::new("escalate", "", "pods"), true)]
    #[case::all_verbs_need_the_wildcard(rule(&[""], &["pods"], &crate::rbac::VERBS, &[]), Atom::new("*", "", "pods"), false)]
    #[case::subresource_is_its_own(rule(&[""], &["pods"], &["get"], &[]), Atom::new("get", "", "pods/log"), false)]
    #[case::resource_wildcard_has_subresources(rule(&[""], &["*"], &["get"], &[]), Atom::new("get", "", "pods/log"), true)]
    #[case::any_scale(rule(&["apps"], &["*/scale"], &["get"], &[]), Atom::new("get", "apps", "deployments/scale"), true)]
    #[case::any_scale_is_not_any(rule(&["apps"], &["*/scale"], &["get"], &[]), Atom::new("get", "apps", "deployments"), false)]
    #[case::star_after_the_slash_is_no_wildcard(rule(&[""], &["pods/*"], &["get"], &[]), Atom::new("get", "", "pods/log"), false)]
    #[case::no_names_cover_a_name(rule(&[""], &["pods"], &["get"], &[]), Atom::new("get", "", "pods").named("a"), true)]
    #[case::a_name_covers_itself(rule(&[""], &["pods"], &["get"], &["a"]), Atom::new("get", "", "pods").named("a"), true)]
    #[case::a_name_covers_no_other(rule(&[""], &["pods"], &["get"], &["a"]), Atom::new("get", "", "pods").named("b"), false)]
    #[case::a_name_does_not_cover_all(rule(&[""], &["pods"], &["get"], &["a"]), Atom::new("get", "", "pods"), false)]
    fn coverage_matches_the_api_server(#[case] held: Rule, #[case] asked: Atom<'_>, #[case] covered: bool) {
        let held = [held];
        assert_eq!(atoms(&held, None).collect::<Coverage<'_>>().covers(asked), covered);
        let here = Some("a");
        assert_eq!(atoms(&held, here).collect::<Coverage<'_>>().covers(asked.within(here)), covered);
        assert_eq!(atoms(&held, None).collect::<Coverage<'_>>().covers(asked.within(here)), covered);
        assert!(!atoms(&held, here).collect::<Coverage<'_>>().covers(asked), "a namespace is not the cluster");
        assert!(!atoms(&held, here).collect::<Coverage<'_>>().covers(asked.within(Some("b"))));
    }

    #[test]
    fn difference_lists_the_widest_permissions() {
        let old = [rule(&[""], &["pods"], &["get", "list"], &[])];
        let new = [rule(&[""], &["*"], &["get"], &[]), rule(&[""], &["pods", "services"], &["get"], &[])];
        let at = Some("a");
        let difference = difference(&all(&old, at), &all(&new, at));
        assert_eq!(difference.widened, [Atom::new("get", "", "*").within(at).tuple()]);
        assert_eq!(difference.narrowed, [Atom::new("list", "", "pods").within(at).tuple()]);
        assert_eq!(difference.unchanged, 1);
    }

    #[test]
    fn difference_ignores_permissions_that_match_nothing() {
        let old = [rule(&[""], &["pods"], &["get"], &[])];
        let new =
            [rule(&[""], &["pods", "pods/*"], &["get"], &[]), rule(&[""], &["pods"], &["deletecollection"], &["a"])];
        assert!(same_permissions(&old, &new));
        let expected = Permissions { unchanged: 1, ..Permissions::default() };
        assert_eq!(difference(&all(&old, None), &all(&new, None)), expected);
    }

    fn all<'a>(rules: &'a [Rule], namespace: Option<&'a str>) -> Vec<Atom<'a>> {
        atoms(rules, namespace).collect()
    }

    #[test]
    fn difference_from_cluster_to_namespace_is_narrowed() {
        let rules = [rule(&[""], &["pods"], &["get"], &[])];
        let (wide, narrow) = (all(&rules, None), all(&rules, Some("a")));
        let get_pods = Atom::new("get", "", "pods").tuple();
        let expected = Permissions { narrowed: vec![get_pods.clone()], unchanged: 1, ..Permissions::default() };
        assert_eq!(difference(&wide, &narrow), expected);
        assert_eq!(
            difference(&narrow, &wide),
            Permissions { widened: vec![get_pods.clone()], ..Permissions::default() }
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
        assert_eq!(atoms(&asked, Some("a")).count(), 0, "a path is in no namespace");
        let asked = atoms(&asked, None).next().unwrap();
        assert_eq!(atoms(&held, None).collect::<Coverage<'_>>().covers(asked), covered);
        assert!(!atoms(&held, None).collect::<Coverage<'_>>().covers(Atom { verb: "put", ..asked }));
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
            let (before, after): (Coverage<'_>, Coverage<'_>) = (atoms(&old, None).collect(), atoms(&new, None).collect());
            let widened = beyond(&all(&new, None), &before);
            let gained: Coverage<'_> = widened.iter().copied().collect();
            for atom in atoms(&new, None) {
                prop_assert!(before.covers(atom) || gained.covers(atom));
            }
            for atom in widened {
                prop_assert!(after.covers(atom) && !before.covers(atom));
            }
        }
    }
}
