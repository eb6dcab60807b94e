//! The right name for a wrong one: of an API group, a resource, a subresource or a verb. Pure.

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

/// A word of a rule for a sentence; the core group as `""`. One that is longer than any name is not shown: it may be a
/// secret that was pasted into the wrong field.
pub(super) fn quoted(word: &str) -> String {
    if word.is_empty() {
        "`\"\"`".to_owned()
    } else if word.len() <= 63 && word.chars().all(|char| char.is_ascii_graphic() || char == ' ') {
        format!("`{word}`")
    } else {
        format!("of {} characters", word.chars().count())
    }
}

/// A list of words for a sentence.
pub(super) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// The name without a version, as `apps` of `apps/v1`, `""` of `v1`; none if it contains none.
pub(super) fn without_version(group: &str) -> Option<&str> {
    let (name, version) = group.rsplit_once('/').unwrap_or(("", group));
    is_version(version).then_some(name)
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

/// The resource that a wrong name probably means, first among these groups, else among all.
pub(super) fn resource<'c>(catalog: &'c Catalog<'c>, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
    let trimmed = word.trim().trim_matches('"').to_ascii_lowercase();
    let word = trimmed.trim_matches('/');
    match word.split_once('/') {
        Some(("*", subresource)) => any_with_subresource(catalog, groups, subresource),
        Some((name, subresource)) => with_subresource(catalog, groups, name, subresource),
        None => by_other_name(catalog, groups, word)
            .or_else(|| by_subresource(catalog, groups, word))
            .or_else(|| by_spelling(catalog, groups, word)),
    }
}

type Target<'c> = (&'c ApiResource<'c>, Option<&'c str>);

fn suggested(targets: Vec<Target<'_>>, likeness: Likeness) -> Option<Suggestion<'_>> {
    (!targets.is_empty()).then_some(Suggestion { targets, likeness })
}

fn whole<'c>(resources: Vec<&'c ApiResource<'c>>, likeness: Likeness) -> Option<Suggestion<'c>> {
    suggested(resources.into_iter().map(|resource| (resource, None)).collect(), likeness)
}

/// The resources that satisfy a condition: those of the groups, else of any.
fn matching<'c>(
    catalog: &'c Catalog<'c>,
    groups: &[&str],
    fits: impl Fn(&ApiResource<'c>) -> bool,
) -> Vec<&'c ApiResource<'c>> {
    let fits = |resource: &&ApiResource<'c>| is_real(resource) && fits(resource);
    let there: Vec<_> = groups.iter().flat_map(|group| catalog.in_group(group)).filter(fits).collect();
    if there.is_empty() { catalog.resources().filter(fits).collect() } else { there }
}

fn is_real(resource: &ApiResource<'_>) -> bool {
    !resource.kind.is_empty()
}

/// By plural in another group, singular, kind, short name, or with the group as `deployments.apps`.
fn by_other_name<'c>(catalog: &'c Catalog<'c>, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
    let is_called = |resource: &ApiResource<'_>| {
        resource.name == word || resource.singular == word || resource.kind.eq_ignore_ascii_case(word)
    };
    whole(matching(catalog, groups, is_called), Likeness::Same)
        .or_else(|| {
            let resources = matching(catalog, groups, |resource| resource.short_names.contains(&word));
            whole(resources, Likeness::Short)
        })
        .or_else(|| {
            let (name, group) = word.split_once('.')?;
            let group = match group.split_once('.') {
                Some((version, group)) if is_version(version) => group,
                _ if is_version(group) => "",
                _ => group,
            };
            whole(vec![catalog.resource(group, name)?], Likeness::Same)
        })
}

/// By the name of a subresource alone: `log`, `logs`.
fn by_subresource<'c>(catalog: &'c Catalog<'c>, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
    let singular = word.strip_suffix('s').unwrap_or(word);
    let name = [word, singular].into_iter().find_map(|word| {
        catalog.resources().find_map(|resource| resource.subresources.get_key_value(word)).map(|(name, _)| *name)
    })?;
    let has_it = |resource: &ApiResource<'_>| resource.subresources.contains_key(name);
    // `log` is hardly ever that of a node.
    let mut resources = matching(catalog, groups, |resource| has_it(resource) && resource.namespaced);
    if resources.is_empty() {
        resources = matching(catalog, groups, has_it);
    }
    suggested(resources.into_iter().map(|resource| (resource, Some(name))).collect(), Likeness::Short)
}

fn by_spelling<'c>(catalog: &'c Catalog<'c>, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
    let names = |resource: &'c ApiResource<'c>| [resource.name, resource.singular];
    let there = groups.iter().flat_map(|group| catalog.in_group(group)).filter(|it| is_real(it)).flat_map(names);
    let all = || catalog.resources().filter(|it| is_real(it)).flat_map(names);
    if let Some((name, edits)) = nearest(there, word, 3).or_else(|| nearest(all(), word, 3)) {
        let is_called = |resource: &ApiResource<'_>| resource.name == name || resource.singular == name;
        return whole(matching(catalog, groups, is_called), Likeness::Edits(edits));
    }
    let (name, edits) = nearest(subresources(catalog).filter(|name| name.len() > 4), word, 3)?;
    Some(Suggestion { likeness: Likeness::Edits(edits), ..by_subresource(catalog, groups, name)? })
}

fn subresources<'c>(catalog: &'c Catalog<'c>) -> impl Iterator<Item = &'c str> {
    catalog.resources().filter(|it| is_real(it)).flat_map(|resource| resource.subresources.keys().copied())
}

fn any_with_subresource<'c>(catalog: &'c Catalog<'c>, groups: &[&str], word: &str) -> Option<Suggestion<'c>> {
    by_subresource(catalog, groups, word).or_else(|| {
        let (name, edits) = nearest(subresources(catalog), word, 3)?;
        Some(Suggestion { likeness: Likeness::Edits(edits), ..by_subresource(catalog, groups, name)? })
    })
}

/// A resource with a subresource, either of which may be wrong.
fn with_subresource<'c>(
    catalog: &'c Catalog<'c>,
    groups: &[&str],
    name: &str,
    subresource: &str,
) -> Option<Suggestion<'c>> {
    // A group or a version before the slash: `apps/deployments`, `v1/pods`.
    if let Some(group) = catalog.group(name).or_else(|| is_version(name).then_some(""))
        && let Some(resource) = catalog.resource(group, subresource)
    {
        return whole(vec![resource], Likeness::Same);
    }
    let known: Vec<_> = matching(catalog, groups, |resource| resource.name == name);
    let base = if known.is_empty() {
        by_other_name(catalog, groups, name).or_else(|| by_spelling(catalog, groups, name))?
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

/// The most similar of these names with the number of edits, if one is similar enough for the length of the word; of
/// equally similar ones the first.
fn nearest<'n>(names: impl Iterator<Item = &'n str>, word: &str, most: usize) -> Option<(&'n str, usize)> {
    let limit = most.min(match word.len() {
        3..=4 => 1,
        5..=12 => 2,
        13..=63 => 3,
        _ => return None,
    });
    let letters_of_word = letters(word);
    let mut best: Option<(&'n str, usize)> = None;
    for name in names.filter(|name| name.len() > 2 && name.len().abs_diff(word.len()) <= limit) {
        // Each letter that one of them lacks is at least one edit.
        let letters_of_name = letters(name);
        let lacking =
            (letters_of_word & !letters_of_name).count_ones().max((letters_of_name & !letters_of_word).count_ones());
        if lacking as usize > limit {
            continue;
        }
        if let Some(edits) = distance(name, word, limit)
            && best.is_none_or(|(_, fewest)| edits < fewest)
        {
            best = Some((name, edits));
        }
    }
    best
}

/// The letters of a word as a set.
fn letters(word: &str) -> u32 {
    word.bytes().fold(0, |set, byte| set | (1 << (byte % 32)))
}

/// The longest word that is compared.
const LONGEST: usize = 63;

/// The number of edits between two words, up to a limit: insertions, deletions, replacements, and exchanges of neighbours.
fn distance(one: &str, other: &str, limit: usize) -> Option<usize> {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len().max(other.len()) > LONGEST {
        return None;
    }
    let (mut second_last, mut last, mut row) = ([0; LONGEST + 1], [0; LONGEST + 1], [0; LONGEST + 1]);
    for (column, edits) in last.iter_mut().enumerate() {
        *edits = column;
    }
    for (i, a) in one.iter().enumerate() {
        row[0] = i + 1;
        let mut fewest = row[0];
        for (j, b) in other.iter().enumerate() {
            let mut edits = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && other[j - 1] == *a {
                edits = edits.min(second_last[j - 1] + 1);
            }
            row[j + 1] = edits;
            fewest = fewest.min(edits);
        }
        if fewest > limit {
            return None;
        }
        (second_last, last, row) = (last, row, second_last);
    }
    Some(last[other.len()]).filter(|edits| *edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;
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
