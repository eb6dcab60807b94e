//! Rules that another rule covers. A rule is a product of lists, so one rule covers another exactly if each of its lists
//! covers that of the other; a test compares this with `Coverage`. Pure.

use std::collections::{HashMap, HashSet};

use crate::rbac::{Rule, RuleInScope};

/// The most rules that each one is compared with: the time is linear in their number.
const COMPARED: usize = 2000;

/// The most namespaces of a rule that is found by each of them.
const FOUND_BY: usize = 8;

/// The longest list that is searched word by word.
const SHORT: usize = 32;

/// Rules by what another rule must contain to cover them, so that not each is compared with each.
pub(super) struct Coverings<'a> {
    rules: &'a [RuleInScope<'a>],
    shapes: Vec<Shape>,
    /// Rules for single objects, by name and namespace.
    by_name: ByWord<'a>,
    /// Rules for all objects, by resource and namespace.
    by_resource: ByWord<'a>,
    /// Rules for all objects with a wildcard for resources, for paths, or for many namespaces.
    others: Vec<usize>,
}

/// The indexes of rules, by a word and a namespace.
type ByWord<'a> = HashMap<(&'a str, Option<&'a str>), Vec<usize>>;

impl<'a> Coverings<'a> {
    pub(super) fn of(rules: &'a [RuleInScope<'a>]) -> Self {
        let shapes = rules.iter().map(Shape::of).collect();
        let (mut by_name, mut by_resource, mut others) = (ByWord::new(), ByWord::new(), Vec::new());
        for (index, RuleInScope { rule, namespaces, .. }) in rules.iter().enumerate() {
            let Rule { resources, resource_names, non_resource_urls, .. } = rule;
            let is_wild = resource_names.is_empty() && resources.iter().any(|word| is_wild_resource(word));
            if is_wild || !non_resource_urls.is_empty() || namespaces.len() > FOUND_BY {
                others.push(index);
                continue;
            }
            let (map, words) = match resource_names.as_slice() {
                [] => (&mut by_resource, resources),
                _ => (&mut by_name, resource_names),
            };
            for word in words {
                for namespace in namespaces {
                    map.entry((word.as_str(), *namespace)).or_default().push(index);
                }
            }
        }
        Self { rules, shapes, by_name, by_resource, others }
    }

    /// The pointer of another rule that covers this one; of two equal rules the later is covered.
    pub(super) fn pointer(&self, index: usize) -> Option<&'a str> {
        let (narrow, shape) = (self.rules.get(index)?, self.shapes.get(index)?);
        let rule = narrow.rule;
        let is_for_resources = !rule.api_groups.is_empty() && !rule.resources.is_empty();
        if rule.verbs.is_empty() || !is_for_resources && rule.non_resource_urls.is_empty() {
            return None; // it grants nothing
        }
        let covers = |at: &usize| {
            *at != index
                && self.shapes.get(*at).is_some_and(|wide| wide.may_cover(shape))
                && self
                    .rules
                    .get(*at)
                    .is_some_and(|wide| covers(wide, narrow) && (*at < index || !covers(narrow, wide)))
        };
        let first = |list: &[usize]| list.iter().copied().take(COMPARED).find(covers);
        let namespace = narrow.namespaces.first().copied().flatten();
        let listed = |map: &ByWord<'a>, words: &'a [String], namespace| {
            words.first().and_then(|word| map.get(&(word.as_str(), namespace))).and_then(|list| first(list))
        };
        let found = [
            first(&self.others),
            listed(&self.by_resource, &rule.resources, None),
            listed(&self.by_resource, &rule.resources, namespace),
            listed(&self.by_name, &rule.resource_names, None),
            listed(&self.by_name, &rule.resource_names, namespace),
        ];
        let earliest = found.into_iter().flatten().min()?;
        self.rules.get(earliest).map(|wide| wide.pointer)
    }
}

/// The lists of a rule as sets of hashes: most rules that cannot cover it are recognised without a look at their words.
struct Shape {
    verbs: u64,
    groups: u64,
    resources: u64,
    names: u64,
    urls: u64,
    scopes: u64,
}

impl Shape {
    fn of(it: &RuleInScope<'_>) -> Self {
        let rule = it.rule;
        Self {
            verbs: set(&rule.verbs, |word| word == "*"),
            groups: set(&rule.api_groups, |word| word == "*"),
            resources: set(&rule.resources, is_wild_resource),
            names: if rule.resource_names.is_empty() { WILD } else { set(&rule.resource_names, |_| false) },
            urls: set(&rule.non_resource_urls, |url| url.ends_with('*')),
            scopes: it.namespaces.iter().fold(0, |set, namespace| set | namespace.map_or(WILD, bit)),
        }
    }

    /// Whether the rule may cover another one.
    fn may_cover(&self, other: &Self) -> bool {
        let may = |wide: u64, narrow: u64| narrow & !wide == 0 || wide & WILD != 0;
        // What differs most comes first.
        may(self.groups, other.groups)
            && (may(self.names, other.names) || other.resources == 0)
            && may(self.resources, other.resources)
            && may(self.verbs, other.verbs)
            && may(self.scopes, other.scopes)
            && may(self.urls, other.urls)
    }
}

/// Marks a list with a wildcard, which may cover any word.
const WILD: u64 = 1 << 63;

/// The hashes of words, wildcards as a mark.
fn set(words: &[String], is_wild: impl Fn(&str) -> bool) -> u64 {
    words.iter().fold(0, |set, word| set | if is_wild(word) { WILD } else { bit(word) })
}

/// The hash of a word as one bit: FNV-1a, reduced.
fn bit(word: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    1 << ((word.bytes().fold(0xcbf2_9ce4_8422_2325, step) >> 32) % 63)
}

/// Whether a rule allows all that another one allows, wherever that applies.
fn covers(wide: &RuleInScope<'_>, narrow: &RuleInScope<'_>) -> bool {
    let (rule, other) = (wide.rule, narrow.rule);
    let is_for_resources = !other.api_groups.is_empty() && !other.resources.is_empty();
    let is_star = |word: &str| word == "*";
    narrow.namespaces.iter().all(|namespace| covers_scope(&wide.namespaces, *namespace))
        && all(&rule.verbs, &other.verbs, is_star, covers_word)
        && (!is_for_resources
            || all(&rule.api_groups, &other.api_groups, is_star, covers_word)
                && all(&rule.resources, &other.resources, is_wild_resource, covers_resource)
                && covers_names(&rule.resource_names, &other.resource_names))
        && all(&rule.non_resource_urls, &other.non_resource_urls, |url| url.ends_with('*'), covers_url)
}

/// Whether a list covers each word of another one; `is_wild` are the words that cover others.
fn all(
    wide: &[String],
    narrow: &[String],
    is_wild: impl Fn(&str) -> bool,
    covers: impl Fn(&[String], &str) -> bool,
) -> bool {
    if wide.len() <= SHORT {
        return narrow.iter().all(|word| covers(wide, word));
    }
    let known: HashSet<&String> = wide.iter().collect();
    let wild: Vec<String> = wide.iter().filter(|word| is_wild(word)).cloned().collect();
    narrow.iter().all(|word| known.contains(word) || covers(&wild, word))
}

/// Whether rules with these names apply to all objects that others apply to: no names are all objects.
pub(super) fn covers_names(wide: &[String], narrow: &[String]) -> bool {
    wide.is_empty() || !narrow.is_empty() && all(wide, narrow, |_| false, |list, name| list.iter().any(|it| it == name))
}

/// Whether a rule for these namespaces applies in this one.
pub(super) fn covers_scope(wide: &[Option<&str>], namespace: Option<&str>) -> bool {
    wide.iter().any(|scope| scope.is_none() || *scope == namespace)
}

/// Whether a list of groups or verbs contains this one.
pub(super) fn covers_word(list: &[String], word: &str) -> bool {
    list.iter().any(|known| known == "*" || known == word)
}

fn is_wild_resource(word: &str) -> bool {
    word == "*" || word.starts_with("*/")
}

/// Whether a list of resources contains this one.
pub(super) fn covers_resource(list: &[String], word: &str) -> bool {
    let subresource = word.split_once('/').map(|(_, subresource)| subresource);
    covers_word(list, word)
        || list.iter().any(|known| known.strip_prefix("*/").is_some_and(|it| Some(it) == subresource))
}

fn covers_url(list: &[String], url: &str) -> bool {
    list.iter().any(|known| known == url || known.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::{Coverage, permissions_of};
    use proptest::{prelude::*, sample::subsequence};

    fn owned(list: Vec<&str>) -> Vec<String> {
        list.into_iter().map(str::to_owned).collect()
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let lists = (
            subsequence(vec!["", "apps", "*"], 1..=3),
            subsequence(vec!["pods", "pods/log", "*", "*/log", "secrets"], 1..=3),
            subsequence(vec!["get", "list", "*"], 1..=3),
            subsequence(vec!["a", "b"], 0..=2),
        );
        lists.prop_map(|(groups, resources, verbs, names)| Rule {
            api_groups: owned(groups),
            resources: owned(resources),
            verbs: owned(verbs),
            resource_names: owned(names),
            ..Rule::default()
        })
    }

    fn any_url_rule() -> impl Strategy<Value = Rule> {
        let lists = (subsequence(vec!["/a", "/a/b", "/a*", "*"], 1..=3), subsequence(vec!["get", "post", "*"], 1..=2));
        lists.prop_map(|(paths, verbs)| Rule {
            verbs: owned(verbs),
            non_resource_urls: owned(paths),
            ..Rule::default()
        })
    }

    proptest! {
        #[test]
        fn covering_rules_agree_with_coverage(wide in prop_oneof![any_rule(), any_url_rule()],
                                              narrow in prop_oneof![any_rule(), any_url_rule()]) {
            let held = [wide.clone()];
            let held: Coverage<'_> = permissions_of(&held, None).collect();
            let expected = narrow.permissions(None).all(|permission| held.covers(permission));
            let at = |rule| RuleInScope { pointer: "", rule, namespaces: vec![None] };
            prop_assert_eq!(covers(&at(&wide), &at(&narrow)), expected);
            let rules = [at(&wide), at(&narrow)];
            prop_assert_eq!(Coverings::of(&rules).pointer(1).is_some(), expected);
        }
    }
}
