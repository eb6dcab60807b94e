//! The inventory in the account record: every place where an instance may have objects. It is written before anything is
//! created there, so that a run that was stopped half-way leaves nothing that cannot be found. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::k8s::{
    grant::{Place, RoleSource, Scope},
    name::ClusterRoleName,
};

/// A set of places. A ServiceAccount without the annotation has one: that of the home namespace's own Role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory(BTreeSet<Place>);

/// The written form.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(flatten)]
    places: WrittenPlaces,
    /// Places of temporary bindings; early builds of version 2.0.0 wrote it.
    #[serde(skip_serializing_if = "WrittenPlaces::is_empty")]
    stand_ins: WrittenPlaces,
}

/// The written form of places of one sort.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct WrittenPlaces {
    /// Scopes with a Role or ClusterRole of the instance.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    rules: BTreeSet<String>,
    /// Scopes in which another ClusterRole is bound, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cluster_roles: BTreeMap<String, BTreeSet<String>>,
    /// What a later version may add.
    #[serde(flatten, skip_serializing)]
    unknown: BTreeMap<String, Value>,
}

impl Inventory {
    /// Maximum length of the inventory of one request, in bytes. All annotations of an object together have 256 KiB
    /// (apimachinery, `TotalAnnotationSizeLimitB`), and between two requests the inventory holds the places of both.
    pub(crate) const LONGEST: usize = 100 << 10;
    /// Maximum length between two requests.
    pub(crate) const LONGEST_ON_THE_WAY: usize = 2 * Self::LONGEST;

    /// The inventory in an annotation, and whether it was understood completely. What was not is left out.
    pub(crate) fn parse(text: Option<&str>, home: &Place) -> (Self, bool) {
        let Some(text) = text else { return (Self::from_iter([home.clone()]), true) };
        let written = serde_json::from_str::<Value>(text).and_then(serde_json::from_value::<Written>);
        let Ok(written) = written else { return (Self::default(), false) };
        let (mut places, is_complete) = written.places.parse();
        let (temporary, are_complete) = written.stand_ins.parse();
        places.extend(temporary.into_iter().map(Place::temporary));
        (Self(places), is_complete && are_complete)
    }

    /// The value of the annotation; none where the home namespace's own Role is the only place.
    pub(crate) fn text(&self, home: &Place) -> Option<String> {
        if self.0.iter().all(|place| place == home) {
            return None;
        }
        let mut written = Written::default();
        for place in &self.0 {
            let places = if place.temporary { &mut written.stand_ins } else { &mut written.places };
            places.add(place);
        }
        serde_json::to_string(&written).ok()
    }

    /// The places.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter()
    }

    /// Whether this place is in the inventory.
    pub(crate) fn contains(&self, place: &Place) -> bool {
        self.0.contains(place)
    }
}

impl FromIterator<Place> for Inventory {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        Self(places.into_iter().collect())
    }
}

impl WrittenPlaces {
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.cluster_roles.is_empty()
    }

    fn add(&mut self, place: &Place) {
        let scopes = match &place.role_source {
            RoleSource::Rules => &mut self.rules,
            RoleSource::ClusterRole(name) => self.cluster_roles.entry(name.as_str().to_owned()).or_default(),
        };
        scopes.insert(place.scope.to_string());
    }

    /// The places that can be understood, and whether these are all.
    fn parse(&self) -> (BTreeSet<Place>, bool) {
        let mut places = BTreeSet::new();
        let mut is_complete = self.unknown.is_empty();
        let mut add = |scopes: &BTreeSet<String>, role_source: Option<RoleSource>| {
            for scope in scopes {
                match (Scope::parse(scope), &role_source) {
                    (Ok(scope), Some(role_source)) => {
                        places.insert(Place::new(scope, role_source.clone()));
                    }
                    _ => is_complete = false,
                }
            }
        };
        add(&self.rules, Some(RoleSource::Rules));
        for (name, scopes) in &self.cluster_roles {
            add(scopes, ClusterRoleName::parse(name).ok().map(RoleSource::ClusterRole));
        }
        (places, is_complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(scope: &str, role: Option<&str>) -> Place {
        let role_source =
            role.map_or(RoleSource::Rules, |name| RoleSource::ClusterRole(ClusterRoleName::parse(name).unwrap()));
        Place::new(Scope::parse(scope).unwrap(), role_source)
    }

    #[test]
    fn home_role_alone_is_not_written() {
        let home = place("a", None);
        let alone = Inventory::from_iter([home.clone()]);
        assert_eq!(alone.text(&home), None);
        assert_eq!(Inventory::parse(None, &home), (alone, true));
        let elsewhere = Inventory::from_iter([place("b", None)]);
        assert_eq!(elsewhere.text(&home).unwrap(), r#"{"rules":["b"]}"#);
        let all =
            [place("b", None), place("*", None), place("a", Some("view")), home.clone().temporary(), home.clone()];
        let inventory = Inventory::from_iter(all);
        let text = r#"{"rules":["*","a","b"],"cluster_roles":{"view":["a"]},"stand_ins":{"rules":["a"]}}"#;
        assert_eq!(inventory.text(&home).unwrap(), text);
        assert_eq!(Inventory::parse(Some(text), &home), (inventory, true));
    }

    #[test]
    fn garbled_values_name_no_other_objects() {
        let home = place("a", None);
        for text in ["", "7", "null", "[1]", "{\"rules\":\"b\"}", "nonsense", "{\"rules\":[1]}", "{\"stand_ins\":7}"] {
            assert_eq!(Inventory::parse(Some(text), &home), (Inventory::default(), false), "{text}");
        }
        let text = r#"{"rules":["../x","b"],"cluster_roles":{"a/b":["c"],"view":["c"]},"more":1}"#;
        let (inventory, whole) = Inventory::parse(Some(text), &home);
        assert!(!whole);
        assert_eq!(inventory, Inventory::from_iter([place("b", None), place("c", Some("view"))]));
        let newer = Inventory::parse(Some(r#"{"rules":["b"],"webhooks":["c"]}"#), &home);
        assert_eq!(newer, (Inventory::from_iter([place("b", None)]), false), "a later version knows more");
        let newer = Inventory::parse(Some(r#"{"stand_ins":{"rules":["b"],"stand_ins":{}}}"#), &home);
        assert_eq!(newer, (Inventory::from_iter([place("b", None).temporary()]), false), "and so may its parts");
    }

    #[test]
    fn thousand_namespaces_fit() {
        let places = (0..1000).map(|number| place(&format!("a-team-of-some-name-{number}"), None));
        let text = places.collect::<Inventory>().text(&place("a", None)).unwrap();
        assert!(text.len() < Inventory::LONGEST / 3);
    }

    proptest! {
        #[test]
        fn inventory_survives_a_round_trip(scopes in prop::collection::vec("[a-z]{1,3}|[*]", 0..6),
                                              roles in prop::collection::vec("[a-z:\"]{1,4}", 0..3)) {
            let home = place("a", None);
            let roles: Vec<Option<&str>> = roles.iter().map(|role| Some(role.as_str())).chain([None]).collect();
            let places = scopes.iter().flat_map(|scope| roles.iter().map(|role| place(scope, *role)));
            let both = places.flat_map(|place| [place.clone().temporary(), place]);
            let inventory: Inventory = both.collect();
            if let Some(text) = inventory.text(&home) {
                prop_assert_eq!(Inventory::parse(Some(&text), &home), (inventory, true));
            }
        }
    }
}
