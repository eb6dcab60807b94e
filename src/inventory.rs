//! The inventory: every place where something of an instance may be, as an annotation of its ServiceAccount. It is
//! written before anything is made there, so that a run that died half-way leaves nothing that cannot be found. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    grant::{Authority, Place, Scope},
    name::ClusterRoleName,
};

/// Places. A ServiceAccount without the annotation has one: that of the home namespace's own Role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory(BTreeSet<Place>);

/// The members of the list.
const KINDS: [&str; 3] = ["rules", "cluster_roles", "stand_ins"];

/// As it is written: the scopes of our own Roles, and those of each ClusterRole.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Listed {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    rules: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cluster_roles: BTreeMap<String, BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stand_ins: Option<Box<Listed>>,
}

impl Inventory {
    /// How long the list of a request may be, in bytes. All annotations of an object together have 256 KiB
    /// (apimachinery, `TotalAnnotationSizeLimitB`), and on the way from one request to another both lists stand there.
    pub const LONGEST: usize = 100 << 10;
    /// How long the list may be on the way.
    pub const LONGEST_ON_THE_WAY: usize = 2 * Self::LONGEST;

    /// Takes the annotation of a ServiceAccount that is there. What cannot be understood is left out, and false says so.
    #[must_use]
    pub fn parse(text: Option<&str>, home: &Place) -> (Self, bool) {
        let Some(text) = text else { return (Self::from_iter([home.clone()]), true) };
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        // A later version may know more kinds of places.
        let known = |map: &Map<String, Value>| map.keys().all(|key| KINDS.contains(&key.as_str()));
        let known = value.as_object().is_some_and(known);
        let Ok(listed) = serde_json::from_value::<Listed>(value) else { return (Self::default(), false) };
        let mut places = BTreeSet::new();
        let mut whole = listed.places(&mut places) && known;
        if let Some(listed) = listed.stand_ins {
            let mut stand_ins = BTreeSet::new();
            whole &= listed.places(&mut stand_ins) && listed.stand_ins.is_none();
            places.extend(stand_ins.into_iter().map(Place::stand_in));
        }
        (Self(places), whole)
    }

    /// The value of the annotation; none where the home namespace's own Role is all there is.
    #[must_use]
    pub fn text(&self, home: &Place) -> Option<String> {
        if self.0.iter().all(|place| place == home) {
            return None;
        }
        let mut listed = Listed::default();
        for place in &self.0 {
            let listed = if place.stand_in { listed.stand_ins.get_or_insert_default() } else { &mut listed };
            let scopes = match &place.authority {
                Authority::Rules => &mut listed.rules,
                Authority::ClusterRole(name) => listed.cluster_roles.entry(name.as_str().to_owned()).or_default(),
            };
            scopes.insert(place.scope.to_string());
        }
        serde_json::to_string(&listed).ok()
    }

    /// The places.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter()
    }

    /// True when this place is on the list.
    #[must_use]
    pub fn contains(&self, place: &Place) -> bool {
        self.0.contains(place)
    }
}

impl FromIterator<Place> for Inventory {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        Self(places.into_iter().collect())
    }
}

impl Listed {
    /// Adds what can be understood; false when that is not all of it.
    fn places(&self, places: &mut BTreeSet<Place>) -> bool {
        let mut whole = true;
        let mut add = |scopes: &BTreeSet<String>, authority: &Authority| {
            for scope in scopes {
                match Scope::parse(scope) {
                    Ok(scope) => drop(places.insert(Place::new(scope, authority.clone()))),
                    Err(_) => whole = false,
                }
            }
        };
        add(&self.rules, &Authority::Rules);
        let mut names = true;
        for (name, scopes) in &self.cluster_roles {
            match ClusterRoleName::parse(name) {
                Ok(name) => add(scopes, &Authority::ClusterRole(name)),
                Err(_) => names = false,
            }
        }
        whole && names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(scope: &str, role: Option<&str>) -> Place {
        let authority =
            role.map_or(Authority::Rules, |name| Authority::ClusterRole(ClusterRoleName::parse(name).unwrap()));
        Place::new(Scope::parse(scope).unwrap(), authority)
    }

    #[test]
    fn the_home_role_alone_goes_without_saying() {
        let home = place("a", None);
        let alone = Inventory::from_iter([home.clone()]);
        assert_eq!(alone.text(&home), None);
        assert_eq!(Inventory::parse(None, &home), (alone, true));
        let elsewhere = Inventory::from_iter([place("b", None)]);
        assert_eq!(elsewhere.text(&home).unwrap(), r#"{"rules":["b"]}"#);
        let all = [place("b", None), place("*", None), place("a", Some("view")), home.clone().stand_in(), home.clone()];
        let inventory = Inventory::from_iter(all);
        let text = r#"{"rules":["*","a","b"],"cluster_roles":{"view":["a"]},"stand_ins":{"rules":["a"]}}"#;
        assert_eq!(inventory.text(&home).unwrap(), text);
        assert_eq!(Inventory::parse(Some(text), &home), (inventory, true));
    }

    #[test]
    fn what_others_write_into_it_names_nothing_but_places() {
        let home = place("a", None);
        for text in ["", "7", "{\"rules\":\"b\"}", "nonsense", "{\"rules\":[1]}"] {
            assert_eq!(Inventory::parse(Some(text), &home), (Inventory::default(), false), "{text}");
        }
        let text = r#"{"rules":["../x","b"],"cluster_roles":{"a/b":["c"],"view":["c"]},"more":1}"#;
        let (inventory, whole) = Inventory::parse(Some(text), &home);
        assert!(!whole);
        assert_eq!(inventory, Inventory::from_iter([place("b", None), place("c", Some("view"))]));
        let newer = Inventory::parse(Some(r#"{"rules":["b"],"webhooks":["c"]}"#), &home);
        assert_eq!(newer, (Inventory::from_iter([place("b", None)]), false), "a later version knows more");
    }

    #[test]
    fn a_thousand_namespaces_are_no_trouble() {
        let places = (0..1000).map(|number| place(&format!("a-team-of-some-name-{number}"), None));
        let text = places.collect::<Inventory>().text(&place("a", None)).unwrap();
        assert!(text.len() < Inventory::LONGEST / 3);
    }

    proptest! {
        #[test]
        fn it_survives_the_way_there_and_back(scopes in prop::collection::vec("[a-z]{1,3}|[*]", 0..6),
                                              roles in prop::collection::vec("[a-z:\"]{1,4}", 0..3)) {
            let home = place("a", None);
            let roles: Vec<Option<&str>> = roles.iter().map(|role| Some(role.as_str())).chain([None]).collect();
            let places = scopes.iter().flat_map(|scope| roles.iter().map(|role| place(scope, *role)));
            let both = places.flat_map(|place| [place.clone().stand_in(), place]);
            let inventory: Inventory = both.collect();
            if let Some(text) = inventory.text(&home) {
                prop_assert_eq!(Inventory::parse(Some(&text), &home), (inventory, true));
            }
        }
    }
}
