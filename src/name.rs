//! The names of things: an instance, its namespace, its objects. Parsed once; what exists is valid in every place
//! where the server will look at it. Pure.

use std::fmt;

use crate::{
    grant::{Authority, Place, Scope},
    object::{Kind, Reference},
    secret::sha256,
};

/// A namespace: DNS-1123 label, 1 to 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace(String);

impl Namespace {
    /// Checks the name.
    ///
    /// # Errors
    /// What would be right, without the value.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() <= 63 && is_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a namespace has 1 to 63 lower-case letters, digits and hyphens, a letter or digit at both ends")
        }
    }

    /// As the server writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The instance's name: DNS-1123 subdomain, so that the names made from it are valid for a ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(String);

impl InstanceName {
    /// 253 characters of a Kubernetes name, less `-token-` and the ten digits of the largest generation.
    pub const MAX: usize = 253 - 17;

    /// Checks the name.
    ///
    /// # Errors
    /// What would be right, without the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the name is empty".to_owned());
        }
        if text.len() > Self::MAX {
            return Err(format!("a name has at most {} characters, this one {}", Self::MAX, text.chars().count()));
        }
        if !text.split('.').all(is_label) {
            return Err("a name has lower-case letters, digits, hyphens and dots, a letter or digit at both ends of \
                        each part"
                .to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// As the platform writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an existing ClusterRole: one segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterRoleName(String);

impl ClusterRoleName {
    /// Checks the name, as the server does (apimachinery, `IsValidPathSegmentName`).
    ///
    /// # Errors
    /// What would be right, without the value.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let bad = text.is_empty() || text == "." || text == ".." || text.contains(['/', '%']);
        if bad || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
            Err("a ClusterRole's name has 1 to 253 characters, and neither /, % nor control characters among them")
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// As the server writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names of an instance's objects: in the home namespace those of the original bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    instance: InstanceName,
    home: Namespace,
    object: String,
}

/// The longest name that the server takes for most kinds.
const LONGEST: usize = 253;
/// Hexadecimal digits of a hash in a name. Two names meet only when all before the hash is equal too: among a
/// thousand instances of one name in as many namespaces, once in two million times.
const DIGITS: usize = 10;

impl Names {
    /// The names for this instance.
    #[must_use]
    pub fn of(instance: &InstanceName, home: &Namespace) -> Self {
        Self { instance: instance.clone(), home: home.clone(), object: format!("{instance}-token") }
    }

    /// `<name>-token`: ServiceAccount, and Role and RoleBinding in the home namespace.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The ServiceAccount.
    #[must_use]
    pub fn service_account(&self) -> Reference {
        Reference::new(Kind::ServiceAccount, self.home.as_str(), &self.object)
    }

    /// The token Secret of a generation: `<name>-token`, then `<name>-token-2`, and so on.
    #[must_use]
    pub fn secret(&self, generation: u32) -> Reference {
        let name = if generation <= 1 { self.object.clone() } else { format!("{}-{generation}", self.object) };
        Reference::new(Kind::Secret, self.home.as_str(), &name)
    }

    /// The place of the home namespace's own Role: always ours, whatever is asked for.
    #[must_use]
    pub fn home(&self) -> Place {
        Place::new(Scope::Namespace(self.home.clone()), Authority::Rules)
    }

    /// Our own Role or ClusterRole of a scope.
    #[must_use]
    pub fn role(&self, scope: &Scope) -> Reference {
        let name = if self.is_home(scope) { self.object.clone() } else { self.hashed(&[&self.instance_hash()]) };
        scope.reference(Kind::Role, Kind::ClusterRole, &name)
    }

    /// The binding of a place. Every place has one of its own, because what a binding refers to cannot be changed:
    /// another role is another binding, and the new one can be there before the old one goes.
    #[must_use]
    pub fn binding(&self, place: &Place) -> Reference {
        let Place { scope, authority, stand_in } = place;
        let name = match (authority, stand_in) {
            (Authority::Rules, false) => self.role(scope).name,
            (authority, stand_in) => {
                let role = match authority {
                    Authority::Rules => "Role",
                    Authority::ClusterRole(name) => &format!("ClusterRole/{}", name.as_str()),
                };
                let what = if *stand_in { format!("{role}/stand-in") } else { role.to_owned() };
                let hash = hash(&format!("{}/{}/{what}", self.home, self.instance));
                if self.is_home(scope) { self.hashed(&[&hash]) } else { self.hashed(&[&self.instance_hash(), &hash]) }
            }
        };
        scope.reference(Kind::RoleBinding, Kind::ClusterRoleBinding, &name)
    }

    /// All objects of a place, in the order in which they go.
    #[must_use]
    pub fn objects(&self, place: &Place) -> Vec<Reference> {
        let role = place.has_role().then(|| self.role(&place.scope));
        std::iter::once(self.binding(place)).chain(role).collect()
    }

    fn is_home(&self, scope: &Scope) -> bool {
        scope.namespace() == Some(self.home.as_str())
    }

    /// Tells instances of one name in different namespaces apart.
    fn instance_hash(&self) -> String {
        hash(&format!("{}/{}", self.home, self.instance))
    }

    /// `<name>-token-<hash>`; a name that would be too long is cut before the hash, which is that of the whole.
    fn hashed(&self, hashes: &[&str]) -> String {
        let tail = hashes.join("-");
        format!("{:.*}-{tail}", LONGEST - tail.len() - 1, self.object)
    }
}

fn hash(text: &str) -> String {
    let mut hash = sha256(text.as_bytes());
    hash.truncate(DIGITS);
    hash
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A tag as a label, or why the server would refuse it.
///
/// # Errors
/// A sentence without the value.
pub fn label(key: &str, value: &serde_json::Value) -> Result<String, &'static str> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label));
    if name.is_empty() || !prefix_ok || !is_label_text(name) {
        return Err("its key is not the key of a label");
    }
    let value = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(flag) => flag.to_string(),
        _ => return Err("its value is neither text, number nor boolean"),
    };
    if is_label_text(&value) {
        Ok(value)
    } else {
        Err("a label has at most 63 letters, digits, dots, hyphens and underscores, a letter or digit at both ends")
    }
}

fn is_label_text(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && text.bytes().all(inner) && ends(bytes.first()) && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        for bad in ["", "../x", "a/b", "a?b", "a b", "A", "-a", "a-", "a..b", "a.", "\u{e4}", "a\n", &"a".repeat(237)] {
            assert!(InstanceName::parse(bad).is_err(), "{bad:?} passed as a name");
            assert!(Namespace::parse(bad).is_err(), "{bad:?} passed as a namespace");
        }
        assert!(Namespace::parse("a.b").is_err());
        assert!(Namespace::parse(&"a".repeat(64)).is_err());
        assert!(InstanceName::parse("ecomm-prod-api-abc1").is_ok());
        assert!(InstanceName::parse(&"a".repeat(236)).is_ok());
    }

    #[test]
    fn the_first_secret_has_the_original_name_and_no_name_comes_twice() {
        let names = names("demo", "team-a");
        assert_eq!(
            [1, 2, 3].map(|generation| names.secret(generation).name),
            ["demo-token", "demo-token-2", "demo-token-3"]
        );
    }

    fn names(instance: &str, home: &str) -> Names {
        Names::of(&InstanceName::parse(instance).unwrap(), &Namespace::parse(home).unwrap())
    }

    fn scope(text: &str) -> Scope {
        Scope::parse(text).unwrap()
    }

    fn places() -> Vec<Place> {
        let authorities = ["view", "edit"].map(|name| Authority::ClusterRole(ClusterRoleName::parse(name).unwrap()));
        let authorities = [Authority::Rules].into_iter().chain(authorities);
        let places = authorities
            .flat_map(|authority| ["team-a", "team-b", "*"].map(|text| Place::new(scope(text), authority.clone())));
        places.flat_map(|place| [place.clone().stand_in(), place]).collect()
    }

    #[test]
    fn at_home_the_names_are_those_of_the_original_and_elsewhere_they_tell_namesakes_apart() {
        let (one, other) = (names("demo", "team-a"), names("demo", "team-b"));
        assert_eq!(one.role(&scope("team-a")).to_string(), "Role team-a/demo-token");
        assert_eq!(one.binding(&one.home()).to_string(), "RoleBinding team-a/demo-token");
        let elsewhere = one.role(&scope("team-c")).name;
        assert_eq!(elsewhere, "demo-token-1960e37ce9", "stable for ever: objects in clusters bear it");
        assert_eq!(one.role(&scope("*")), Reference::at_cluster(Kind::ClusterRole, &elsewhere));
        assert_ne!(one.role(&scope("*")), other.role(&scope("*")));
        assert_ne!(one.role(&scope("team-c")), other.role(&scope("team-c")));
    }

    #[test]
    fn no_two_places_share_a_binding_however_long_the_name_is() {
        for instance in ["demo", &"n".repeat(InstanceName::MAX), &format!("{}b", "n".repeat(InstanceName::MAX - 1))] {
            let mut seen = std::collections::BTreeSet::new();
            for home in ["team-a", "team-b"] {
                let names = names(instance, home);
                for place in places() {
                    let binding = names.binding(&place);
                    assert!(binding.name.len() <= 253, "{binding}");
                    assert!(binding.name.starts_with(&instance[..200.min(instance.len())]));
                    assert!(seen.insert(binding.clone()), "{binding} twice");
                }
            }
        }
        let [one, other] = ["a", "b"].map(|end| names(&format!("{}{end}", "n".repeat(235)), "team-a"));
        assert_ne!(one.role(&scope("*")), other.role(&scope("*")), "what is cut off still counts");
    }

    #[test]
    fn the_name_of_a_cluster_role_stays_in_its_place_in_a_path() {
        for bad in ["", ".", "..", "a/b", "a%2fb", "a\nb", &"a".repeat(254)] {
            assert!(ClusterRoleName::parse(bad).is_err(), "{bad:?} passed");
        }
        for good in ["view", "system:aggregate-to-view", "My Role"] {
            assert!(ClusterRoleName::parse(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn tags_become_labels_or_are_refused() {
        assert_eq!(label("md-project", &json!("ecomm")).unwrap(), "ecomm");
        assert_eq!(label("example.com/count", &json!(3)).unwrap(), "3");
        assert_eq!(label("on", &json!(true)).unwrap(), "true");
        assert_eq!(label("empty", &json!("")).unwrap(), "");
        for (key, value) in [
            ("a b", json!("x")),
            ("a", json!("x y")),
            ("a", json!("me@example")),
            ("a", json!("x".repeat(64))),
            ("", json!("x")),
            ("a", json!(null)),
            ("a", json!({})),
            ("-a", json!("x")),
            ("A.b/c", json!("x")),
            ("a/b/c", json!("x")),
            ("/a", json!("x")),
        ] {
            assert!(label(key, &value).is_err(), "{key:?}: {value} passed");
        }
    }
}
