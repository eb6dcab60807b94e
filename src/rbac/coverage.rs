//! Which permissions a set of rules covers, by the server's own test for escalation: every single permission asked
//! for needs one single permission held that is equal or wider in each part. Source: kubernetes component-helpers,
//! auth/rbac/validation/policy_comparator.go. Pure.

use std::collections::{BTreeSet, HashSet};

use super::{Atom, Rule, Tuple, atoms};

/// The permissions that somebody holds, ready to be asked.
pub struct Coverage<'a> {
    held: HashSet<Atom<'a>>,
}

impl<'a> FromIterator<Atom<'a>> for Coverage<'a> {
    fn from_iter<I: IntoIterator<Item = Atom<'a>>>(held: I) -> Self {
        Self { held: held.into_iter().collect() }
    }
}

impl<'a> Coverage<'a> {
    /// All permissions of these rules.
    #[must_use]
    pub fn of(rules: &'a [Rule]) -> Self {
        atoms(rules).collect()
    }

    /// True when one held permission is equal to or wider than this one.
    #[must_use]
    pub fn covers(&self, asked: Atom<'_>) -> bool {
        wider(asked, |candidate| self.held.contains(&candidate))
    }

    /// True when another held permission is wider than this one.
    fn covers_strictly(&self, asked: Atom<'_>) -> bool {
        wider(asked, |candidate| candidate != asked && self.held.contains(&candidate))
    }
}

/// Tries every permission that would cover the asked one: at most 24, whatever the number of rules.
fn wider(asked: Atom<'_>, mut held: impl FnMut(Atom<'_>) -> bool) -> bool {
    let any_subresource = asked.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let resources = [Some(asked.resource), Some("*"), any_subresource.as_deref()];
    for resource in resources.into_iter().flatten() {
        for group in [asked.group, "*"] {
            for verb in [asked.verb, "*"] {
                for name in [asked.name, None] {
                    if held(Atom { group, resource, name, verb }) {
                        return true;
                    }
                }
            }
        }
    }
    false
}

/// What changes for the holder when the old rules are replaced by the new ones.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Permissions {
    /// What was not held before: the largest tuples, none that matches nothing.
    pub widened: Vec<Tuple>,
    /// What is not held any more, likewise.
    pub narrowed: Vec<Tuple>,
    /// How many single permissions of the new rules were held before.
    pub unchanged: usize,
}

/// Compares two lists of rules by what they allow, not by how they are written.
#[must_use]
pub fn difference(old: &[Rule], new: &[Rule], namespace: Option<&str>) -> Permissions {
    let asked: HashSet<Atom<'_>> = atoms(new).filter(|atom| !atom.is_dead()).collect();
    let before = Coverage::of(old);
    Permissions {
        widened: tuples(beyond(new, &before), namespace),
        narrowed: tuples(beyond(old, &Coverage::of(new)), namespace),
        unchanged: asked.into_iter().filter(|atom| before.covers(*atom)).count(),
    }
}

/// True when both lists allow the same, however they are ordered, split or merged.
#[must_use]
pub fn same_permissions(one: &[Rule], other: &[Rule]) -> bool {
    beyond(one, &Coverage::of(other)).is_empty() && beyond(other, &Coverage::of(one)).is_empty()
}

/// The largest live permissions of these rules that the coverage lacks.
pub(super) fn beyond<'a>(rules: &'a [Rule], held: &Coverage<'_>) -> BTreeSet<Atom<'a>> {
    let lacking: Coverage<'a> = atoms(rules).filter(|atom| !atom.is_dead() && !held.covers(*atom)).collect();
    lacking.held.iter().copied().filter(|atom| !lacking.covers_strictly(*atom)).collect()
}

fn tuples(atoms: BTreeSet<Atom<'_>>, namespace: Option<&str>) -> Vec<Tuple> {
    atoms.into_iter().map(|atom| atom.tuple(namespace)).collect()
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
        }
    }

    /// held, asked, covered: the rows of the server's own table and the traps of its matching.
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
    fn covers_as_the_server_does(#[case] held: Rule, #[case] asked: Atom<'_>, #[case] covered: bool) {
        assert_eq!(Coverage::of(&[held]).covers(asked), covered);
    }

    #[test]
    fn the_difference_names_the_largest_tuples() {
        let old = [rule(&[""], &["pods"], &["get", "list"], &[])];
        let new = [rule(&[""], &["*"], &["get"], &[]), rule(&[""], &["pods", "services"], &["get"], &[])];
        let difference = difference(&old, &new, Some("a"));
        assert_eq!(difference.widened, [Atom::new("get", "", "*").tuple(Some("a"))]);
        assert_eq!(difference.narrowed, [Atom::new("list", "", "pods").tuple(Some("a"))]);
        assert_eq!(difference.unchanged, 1);
    }

    #[test]
    fn what_matches_nothing_is_no_difference() {
        let old = [rule(&[""], &["pods"], &["get"], &[])];
        let new =
            [rule(&[""], &["pods", "pods/*"], &["get"], &[]), rule(&[""], &["pods"], &["deletecollection"], &["a"])];
        assert!(same_permissions(&old, &new));
        assert_eq!(difference(&old, &new, None), Permissions { unchanged: 1, ..Permissions::default() });
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
        fn order_splits_and_repeats_change_nothing(rules in prop::collection::vec(any_rule(), 0..4)) {
            let mut split: Vec<Rule> = rules
                .iter()
                .flat_map(|one| one.verbs.iter().map(|verb| Rule { verbs: vec![verb.clone()], ..one.clone() }))
                .collect();
            split.reverse();
            split.extend(rules.clone());
            prop_assert!(same_permissions(&rules, &split));
        }

        #[test]
        fn old_less_narrowed_plus_widened_is_new(old in prop::collection::vec(any_rule(), 0..4),
                                                 new in prop::collection::vec(any_rule(), 0..4)) {
            let widened = beyond(&new, &Coverage::of(&old));
            let (before, after) = (Coverage::of(&old), Coverage::of(&new));
            let gained: Coverage<'_> = widened.iter().copied().collect();
            for atom in atoms(&new) {
                prop_assert!(before.covers(atom) || gained.covers(atom));
            }
            for atom in widened {
                prop_assert!(after.covers(atom) && !before.covers(atom));
            }
        }
    }
}
