//! The right name for a wrong one: of an API group, a resource, a subresource or a verb. Pure.

use std::{collections::HashMap, ops::Range};

use crate::rbac::{
    VERBS,
    catalog::{ApiResource, Catalog, is_custom},
};

/// The most names that a sentence lists.
const LISTED: usize = 3;

/// The resources that a wrong name probably means.
pub(super) struct Suggestion<'c> {
    /// Each with its subresource.
    pub(super) targets: Vec<(&'c ApiResource<'c>, Option<&'c str>)>,
    /// How sure it is.
    pub(super) likeness: Likeness,
}

/// How a wrong name resembles the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Likeness {
    /// It is the kind or the singular, or the plural of another group.
    Same,
    /// It is a short name, or a subresource without its resource.
    Short,
    /// It differs by this number of edits.
    Edits(usize),
}

impl Suggestion<'_> {
    /// As in "use `deployments` with the group `apps`"; the group only where the rule has groups, and has another one.
    pub(super) fn help(&self, groups: Option<&[&str]>) -> String {
        let is_listed = |group: &str| groups.is_none_or(|groups| groups.contains(&group));
        let (there, elsewhere): (Vec<_>, Vec<_>) =
            self.targets.iter().partition(|(resource, _)| is_listed(resource.group));
        let shown = if there.is_empty() { elsewhere } else { there };
        let shown = shown.iter().take(LISTED).map(|(resource, subresource)| {
            let name = full_name(resource.name, *subresource);
            if is_listed(resource.group) {
                format!("`{name}`")
            } else {
                format!("`{name}` with the group {}", quoted(resource.group))
            }
        });
        let mut shown: Vec<String> = shown.collect();
        shown.dedup();
        format!("use {}", shown.join(" or "))
    }
}

/// `pods`, `pods/log`.
pub(super) fn full_name(resource: &str, subresource: Option<&str>) -> String {
    subresource.map_or_else(|| resource.to_owned(), |subresource| format!("{resource}/{subresource}"))
}

/// A word of a rule for a sentence; the core group as `""`. One that is unlike a name is not shown: it may be a secret that
/// was pasted into the wrong field.
pub(super) fn quoted(word: &str) -> String {
    if word.is_empty() {
        "`\"\"`".to_owned()
    } else if is_like_a_name(word) {
        format!("`{word}`")
    } else {
        format!("of {} characters", word.chars().count())
    }
}

/// Whether a word has at most the length of a name, and no long part with digits: tokens and keys have.
fn is_like_a_name(word: &str) -> bool {
    let mut parts = word.split(|char: char| !char.is_ascii_alphanumeric());
    let is_plain = |part: &str| part.len() <= LONGEST_MIXED || part.chars().all(|char| char.is_ascii_alphabetic());
    word.len() <= 63 && word.chars().all(|char| char.is_ascii_graphic() || char == ' ') && parts.all(is_plain)
}

/// The longest part of a word that may contain digits.
const LONGEST_MIXED: usize = 20;

/// A list of words for a sentence.
pub(super) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// The name without a version, as `apps` of `apps/v1`, `""` of `v1`; none if it contains none.
pub(super) fn without_version(group: &str) -> Option<&str> {
    let (name, version) = group.rsplit_once('/').unwrap_or(("", group));
    is_version(version).then_some(name)
}

/// The name without a version that is one of its labels, as `apps` of `v1.apps` and of `apps.v1`.
pub(super) fn without_version_label(group: &str) -> Option<&str> {
    let first = group.split_once('.').filter(|(version, _)| is_version(version)).map(|(_, name)| name);
    first.or_else(|| group.rsplit_once('.').filter(|(_, version)| is_version(version)).map(|(name, _)| name))
}

/// Whether this is an API version: `v1`, `v2beta1`.
fn is_version(text: &str) -> bool {
    let rest = text.strip_prefix('v').unwrap_or_default();
    let number = rest.trim_start_matches(|char: char| char.is_ascii_digit());
    rest.len() > number.len()
        && (number.is_empty()
            || ["alpha", "beta"].iter().any(|stage| {
                number.strip_prefix(stage).is_some_and(|digits| digits.chars().all(|char| char.is_ascii_digit()))
            }))
}

/// The known group that a wrong name probably means.
pub(super) fn group<'a>(catalog: &Catalog<'a>, name: &str) -> Option<&'a str> {
    // Groups of custom resources that resemble those of Kubernetes.
    let is_of_others =
        name == "autoscaling.k8s.io" || [".x-k8s.io", ".k3s.io", ".k0s.io"].iter().any(|domain| name.ends_with(domain));
    if is_of_others {
        return None;
    }
    let groups = || catalog.groups().filter(|group| !group.is_empty());
    let is_meant = |group: &&str| {
        // `networking`, `rbac.authorization`, `rbac`; `apps.k8s.io`; `networking.k8s`.
        group.strip_suffix(".k8s.io").is_some_and(|short| short == name || short.split('.').next() == Some(name))
            || name.strip_suffix(".k8s.io") == Some(*group)
            // `rbac.k8s.io`.
            || name.strip_suffix(".k8s.io").is_some_and(|short| {
                group.strip_suffix(".k8s.io").and_then(|known| known.split_once('.')).is_some_and(|(first, _)| first == short)
            })
            || group.strip_suffix(".io") == Some(name)
    };
    groups()
        .find(is_meant)
        .or_else(|| nearest(groups().filter(|group| !is_custom(group)), name, 2).map(|(group, _)| group))
        .or_else(|| groups().find(|group| is_custom(group) && is_misspelt(group, name)))
}

/// Whether a name is that of a custom group with a mistake in one long word. Vendors have many groups that differ in a
/// short one, such as `ec2.aws.upbound.io` and `ecs.aws.upbound.io`, of which a cluster may have one and get the other.
fn is_misspelt(group: &str, name: &str) -> bool {
    if group.len().abs_diff(name.len()) > 2 {
        return false; // a cluster may have thousands of groups
    }
    let differs = |(one, other): &(&str, &str)| one != other;
    let mut differing = group.split('.').zip(name.split('.')).filter(differs);
    let (Some((one, other)), None) = (differing.next(), differing.next()) else { return false };
    let shorter = one.len().min(other.len());
    let limit = if shorter < 8 { 1 } else { 2 };
    group.split('.').count() == name.split('.').count() && shorter >= 5 && distance(one, other, limit).is_some()
}

type Target<'c> = (&'c ApiResource<'c>, Option<&'c str>);

fn suggested(targets: Vec<Target<'_>>, likeness: Likeness) -> Option<Suggestion<'_>> {
    (!targets.is_empty()).then_some(Suggestion { targets, likeness })
}

fn whole<'c>(resources: Vec<&'c ApiResource<'c>>, likeness: Likeness) -> Option<Suggestion<'c>> {
    suggested(resources.into_iter().map(|resource| (resource, None)).collect(), likeness)
}

/// Resources by a name.
type ByName<'c, N> = HashMap<N, Vec<&'c ApiResource<'c>>>;

/// The names of a catalogue, prepared for look-ups: each of a thousand rules may have a wrong one. Everything in the order
/// of the catalogue, without resources that exist in authorization alone.
pub(super) struct KnownNames<'c> {
    catalog: &'c Catalog<'c>,
    /// By plural, singular and kind, in lower case.
    by_name: ByName<'c, String>,
    by_short_name: ByName<'c, &'c str>,
    by_subresource: ByName<'c, &'c str>,
    /// Plurals and singulars.
    spellings: Vec<Spelling<'c>>,
    /// Those of a group.
    of_group: HashMap<&'c str, Range<usize>>,
    subresources: Vec<Spelling<'c>>,
}

impl<'c> KnownNames<'c> {
    pub(super) fn of(catalog: &'c Catalog<'c>) -> Self {
        let (mut by_name, mut by_short_name, mut by_subresource) = (ByName::new(), ByName::new(), ByName::new());
        let (mut spellings, mut subresources) = (Vec::new(), Vec::new());
        let mut of_group: HashMap<&str, Range<usize>> = HashMap::new();
        for resource in catalog.resources().filter(|resource| !resource.kind.is_empty()) {
            let mut names =
                vec![resource.name.to_owned(), resource.singular.to_owned(), resource.kind.to_ascii_lowercase()];
            names.sort();
            names.dedup();
            for name in names {
                by_name.entry(name).or_insert_with(Vec::new).push(resource);
            }
            for name in &resource.short_names {
                by_short_name.entry(*name).or_insert_with(Vec::new).push(resource);
            }
            for name in resource.subresources.keys() {
                let of_name = by_subresource.entry(*name).or_insert_with(Vec::new);
                if of_name.is_empty() {
                    subresources.push(Spelling::of(name));
                }
                of_name.push(resource);
            }
            let start = spellings.len();
            spellings.extend([resource.name, resource.singular].map(Spelling::of));
            of_group.entry(resource.group).or_insert(start..start).end = spellings.len();
        }
        Self { catalog, by_name, by_short_name, by_subresource, spellings, of_group, subresources }
    }

    /// The resource that a wrong name probably means, first among these groups, else among all.
    pub(super) fn resource(&self, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
        let trimmed = word.trim().trim_matches('"').to_ascii_lowercase();
        let word = trimmed.trim_matches('/');
        match word.split_once('/') {
            Some(("*", subresource)) => self.any_with_subresource(groups, subresource),
            Some((name, subresource)) => self.with_subresource(groups, name, subresource),
            None => self
                .by_other_name(groups, word)
                .or_else(|| self.by_subresource(groups, word))
                .or_else(|| self.by_spelling(groups, word)),
        }
    }

    /// The resources of a name that satisfy a condition: those of the groups, else of any.
    fn among(
        groups: &[&str],
        found: Option<&Vec<&'c ApiResource<'c>>>,
        fits: impl Fn(&ApiResource<'c>) -> bool,
    ) -> Vec<&'c ApiResource<'c>> {
        let all: Vec<&'c ApiResource<'c>> = found.into_iter().flatten().copied().filter(|it| fits(it)).collect();
        let of_group = |group: &&str| all.iter().copied().filter(|it| it.group == *group).collect::<Vec<_>>();
        let there: Vec<&'c ApiResource<'c>> = groups.iter().flat_map(of_group).collect();
        if there.is_empty() { all } else { there }
    }

    /// By plural in another group, singular, kind, short name, or with the group as `deployments.apps`.
    fn by_other_name(&self, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
        whole(Self::among(groups, self.by_name.get(word), |_| true), Likeness::Same)
            .or_else(|| whole(Self::among(groups, self.by_short_name.get(word), |_| true), Likeness::Short))
            .or_else(|| {
                let (name, group) = word.split_once('.')?;
                let group = match group.split_once('.') {
                    Some((version, group)) if is_version(version) => group,
                    _ if is_version(group) => "",
                    _ => group,
                };
                whole(vec![self.catalog.resource(group, name)?], Likeness::Same)
            })
    }

    /// By the name of a subresource alone: `log`, `logs`.
    fn by_subresource(&self, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
        let singular = word.strip_suffix('s').unwrap_or(word);
        let (name, of_name) = [word, singular].into_iter().find_map(|word| self.by_subresource.get_key_value(word))?;
        // `log` is hardly ever that of a node.
        let mut resources = Self::among(groups, Some(of_name), |resource| resource.namespaced);
        if resources.is_empty() {
            resources = Self::among(groups, Some(of_name), |_| true);
        }
        suggested(resources.into_iter().map(|resource| (resource, Some(*name))).collect(), Likeness::Short)
    }

    fn by_spelling(&self, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
        let of_group = |group| self.spellings.get(self.of_group.get(group)?.clone());
        let there = groups.iter().filter_map(|group| of_group(*group)).flatten().copied();
        let all = || self.spellings.iter().copied();
        if let Some((name, edits)) = nearest_of(there, word, 3).or_else(|| nearest_of(all(), word, 3)) {
            let is_called = |resource: &ApiResource<'_>| resource.name == name || resource.singular == name;
            return whole(Self::among(groups, self.by_name.get(name), is_called), Likeness::Edits(edits));
        }
        let long = self.subresources.iter().filter(|known| known.word.len() > 4).copied();
        let (name, edits) = nearest_of(long, word, 3)?;
        Some(Suggestion { likeness: Likeness::Edits(edits), ..self.by_subresource(groups, name)? })
    }

    fn any_with_subresource(&self, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
        self.by_subresource(groups, word).or_else(|| {
            let (name, edits) = nearest_of(self.subresources.iter().copied(), word, 3)?;
            Some(Suggestion { likeness: Likeness::Edits(edits), ..self.by_subresource(groups, name)? })
        })
    }

    /// A resource with a subresource, either of which may be wrong.
    fn with_subresource(&self, groups: &[&str], name: &str, subresource: &str) -> Option<Suggestion<'c>> {
        // A group or a version before the slash: `apps/deployments`, `v1/pods`.
        if let Some(group) = self.catalog.group(name).or_else(|| is_version(name).then_some(""))
            && let Some(resource) = self.catalog.resource(group, subresource)
        {
            return whole(vec![resource], Likeness::Same);
        }
        let known = Self::among(groups, self.by_name.get(name), |resource| resource.name == name);
        let base = if known.is_empty() {
            self.by_other_name(groups, name).or_else(|| self.by_spelling(groups, name))?
        } else {
            whole(known, Likeness::Same)?
        };
        let mut likeness = base.likeness;
        let mut targets: Vec<Target<'c>> = Vec::new();
        for (resource, _) in base.targets {
            let names = || resource.subresources.keys().copied();
            let singular = subresource.strip_suffix('s').unwrap_or(subresource);
            let same =
                names().find(|it| *it == subresource || *it == singular || it.strip_suffix('s') == Some(subresource));
            if let Some(found) = same {
                targets.push((resource, Some(found)));
            } else if let Some((found, edits)) = nearest(names(), subresource, 3) {
                likeness = likeness.max(Likeness::Edits(edits));
                targets.push((resource, Some(found)));
            }
        }
        suggested(targets, likeness)
    }
}

/// The verbs that a wrong one probably means.
pub(super) fn verbs(word: &str) -> Vec<&'static str> {
    let word = word.trim().to_ascii_lowercase();
    match word.as_str() {
        "read" | "view" | "describe" | "show" => vec!["get", "list", "watch"],
        "write" | "edit" | "modify" => vec!["create", "update", "patch", "delete"],
        "post" | "add" => vec!["create"],
        "apply" => vec!["create", "patch"],
        "put" | "replace" => vec!["update"],
        "remove" => vec!["delete"],
        _ => nearest(VERBS.into_iter(), &word.replace(['-', '_'], ""), 2).into_iter().map(|(verb, _)| verb).collect(),
    }
}

/// A known word, prepared for comparisons.
#[derive(Clone, Copy)]
struct Spelling<'n> {
    word: &'n str,
    /// Its letters as a set.
    letters: u32,
}

impl<'n> Spelling<'n> {
    fn of(word: &'n str) -> Self {
        Self { word, letters: word.bytes().fold(0, |set, byte| set | (1 << (byte % 32))) }
    }

    /// The least number of edits between them: each letter that one of them lacks is one at least.
    fn fewest_edits(&self, other: &Self) -> usize {
        let lacking = (self.letters & !other.letters).count_ones().max((other.letters & !self.letters).count_ones());
        self.word.len().abs_diff(other.word.len()).max(lacking as usize)
    }
}

/// The most similar of these names with the number of edits, if one is similar enough for the length of the word; of
/// equally similar ones the first.
fn nearest<'n>(names: impl Iterator<Item = &'n str>, word: &str, most: usize) -> Option<(&'n str, usize)> {
    nearest_of(names.map(Spelling::of), word, most)
}

/// The same of names that were prepared.
fn nearest_of<'n>(names: impl Iterator<Item = Spelling<'n>>, word: &str, most: usize) -> Option<(&'n str, usize)> {
    let limit = most.min(match word.len() {
        3..=4 => 1,
        5..=12 => 2,
        13..=63 => 3,
        _ => return None,
    });
    let spelling = Spelling::of(word);
    let mut best: Option<(&'n str, usize)> = None;
    for name in names {
        // Only a better one is looked for.
        let Some(limit) = best.map_or(Some(limit), |(_, fewest)| fewest.checked_sub(1)) else { break };
        if name.word.len() > 2
            && name.fewest_edits(&spelling) <= limit
            && let Some(edits) = distance(name.word, word, limit)
        {
            best = Some((name.word, edits));
        }
    }
    best
}

/// The longest word that is compared.
const LONGEST: usize = 63;

/// The number of edits between two words, up to a limit: insertions, deletions, replacements, and exchanges of
/// neighbours. Only pairs of letters whose places differ by the limit at most are compared: others need more edits.
fn distance(one: &str, other: &str, limit: usize) -> Option<usize> {
    // What both begin or end with needs no edit.
    let start = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one.as_bytes()[start..], &other.as_bytes()[start..]);
    let end = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[..one.len() - end], &other[..other.len() - end]);
    if one.len().max(other.len()) > LONGEST || one.len().abs_diff(other.len()) > limit {
        return None;
    }
    // The last three rows of the table, by the number of the row modulo 3; what is not compared is out of reach.
    let mut rows = [[u8::MAX - 1; LONGEST + 2]; 3];
    for (edits, column) in (0..).zip(rows[0].iter_mut().take(limit.min(LONGEST) + 1)) {
        *column = edits;
    }
    for (i, a) in (1_usize..).zip(one) {
        let [row, last, second_last] = [i % 3, (i + 2) % 3, (i + 1) % 3];
        let (from, to) = (i.saturating_sub(limit).max(1), (i + limit).min(other.len()));
        rows[row][from - 1] = if i <= limit { rows[last][0] + 1 } else { u8::MAX - 1 };
        rows[row][to + 1] = u8::MAX - 1;
        let mut fewest = rows[row][from - 1];
        for j in from..=to {
            let b = other[j - 1];
            let replaced = rows[last][j - 1] + u8::from(*a != b);
            let mut edits = replaced.min(rows[last][j] + 1).min(rows[row][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 2] == b && other[j - 2] == *a {
                edits = edits.min(rows[second_last][j - 2] + 1);
            }
            rows[row][j] = edits;
            fewest = fewest.min(edits);
        }
        if usize::from(fewest) > limit {
            return None;
        }
    }
    Some(usize::from(rows[one.len() % 3][other.len()])).filter(|edits| *edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("pods", "pods", 0)]
    #[case("pods", "pdos", 1)]
    #[case("pods", "pod", 1)]
    #[case("deployments", "deploymnet", 2)]
    #[case("", "pods", 4)]
    fn distance_counts_edits(#[case] one: &str, #[case] other: &str, #[case] edits: usize) {
        assert_eq!(distance(one, other, 5), Some(edits));
        assert_eq!(distance(other, one, edits), Some(edits));
    }

    /// The whole table, as in a textbook.
    fn table_distance(one: &str, other: &str) -> usize {
        let (one, other) = (one.as_bytes(), other.as_bytes());
        let mut table = vec![vec![0; other.len() + 1]; one.len() + 1];
        for i in 0..=one.len() {
            for j in 0..=other.len() {
                table[i][j] = if i.min(j) == 0 {
                    i.max(j)
                } else {
                    let replaced = table[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                    let edits = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                    let is_exchange = i.min(j) > 1 && one[i - 2] == other[j - 1] && one[i - 1] == other[j - 2];
                    if is_exchange { edits.min(table[i - 2][j - 2] + 1) } else { edits }
                };
            }
        }
        table[one.len()][other.len()]
    }

    proptest! {
        #[test]
        fn distance_within_a_limit_is_the_whole_distance(one in "[abc]{0,9}", other in "[abc]{0,9}", limit in 0_usize..5) {
            let whole = distance(&one, &other, LONGEST);
            let between = |one: &str, other: &str| distance(&format!("xx{one}yy"), &format!("xx{other}yy"), LONGEST);
            prop_assert_eq!(whole, between(&one, &other));
            prop_assert_eq!(whole, Some(table_distance(&one, &other)));
            prop_assert_eq!(whole, distance(&other, &one, LONGEST));
            prop_assert!(whole.is_some_and(|edits| edits <= one.len().max(other.len())));
            prop_assert_eq!(distance(&one, &other, limit), whole.filter(|edits| *edits <= limit));
        }
    }

    #[rstest]
    #[case("cert-manager.io", "cert-manger.io", true)]
    #[case("example.com", "exmaple.com", true)]
    #[case("ec2.aws.upbound.io", "ecs.aws.upbound.io", false)]
    #[case("example.com", "example.org", false)]
    #[case("example.com", "v1.example.com", false)]
    #[case("example.com", "example.com", false)]
    fn misspelt_custom_group_is_recognized(#[case] group: &str, #[case] name: &str, #[case] misspelt: bool) {
        assert_eq!(is_misspelt(group, name), misspelt);
    }

    #[rstest]
    #[case("apps/v1", Some("apps"))]
    #[case("v1", Some(""))]
    #[case("batch/v1beta1", Some("batch"))]
    #[case("apps", None)]
    #[case("vm", None)]
    #[case("a/vault", None)]
    fn version_is_cut_off(#[case] group: &str, #[case] name: Option<&str>) {
        assert_eq!(without_version(group), name);
    }
}
