//! The names of an instance's objects, in every scope. Pure.

use crate::{
    diagnostics::secret::sha256,
    k8s::{
        grant::{Place, RoleSource, Scope},
        name::{InstanceName, LONGEST, Namespace},
        object::{Kind, Live, Reference},
        ownership::{self, Owner},
    },
};

/// The names of an instance's objects: in the home namespace the same as in version 1.0.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    instance: InstanceName,
    home: Namespace,
    object: String,
}

/// The number of hexadecimal digits of a hash in a name. Two names collide only if everything before the hash is equal
/// too: among a thousand instances of one name in as many namespaces, once in two million times.
const DIGITS: usize = 10;

impl Names {
    /// The names for this instance.
    pub(crate) fn of(instance: &InstanceName, home: &Namespace) -> Self {
        Self { instance: instance.clone(), home: home.clone(), object: format!("{instance}-token") }
    }

    /// The names of the same instance with another home namespace.
    #[must_use]
    pub(crate) fn in_home(&self, home: &Namespace) -> Self {
        Self::of(&self.instance, home)
    }

    /// The instance's name.
    pub(crate) fn instance(&self) -> &str {
        self.instance.as_str()
    }

    /// The home namespace.
    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.home
    }

    /// The owner of an object, seen by this instance.
    pub(crate) fn owner(&self, live: &Live) -> Owner {
        ownership::owner(live, self.instance.as_str(), self.home.as_str())
    }

    /// `<name>-token`: ServiceAccount, and Role and RoleBinding in the home namespace.
    pub(crate) fn object(&self) -> &str {
        &self.object
    }

    /// The ServiceAccount.
    pub(crate) fn service_account(&self) -> Reference {
        Reference::new(Kind::ServiceAccount, self.home.as_str(), &self.object)
    }

    /// The Secret in a token slot: `<name>-token`, then `<name>-token-2`, and so on.
    pub(crate) fn token_secret(&self, slot: u32) -> Reference {
        let name = if slot <= 1 { self.object.clone() } else { format!("{}-{slot}", self.object) };
        Reference::new(Kind::Secret, self.home.as_str(), &name)
    }

    /// The place of the own Role in the home namespace, which always belongs to the instance.
    pub(crate) fn home(&self) -> Place {
        Place::new(Scope::Namespace(self.home.clone()), RoleSource::Rules)
    }

    /// The own Role or ClusterRole of a scope.
    pub(crate) fn role(&self, scope: &Scope) -> Reference {
        let name = if self.is_home(scope) { self.object.clone() } else { self.hashed(&[&self.instance_hash()]) };
        scope.reference(Kind::Role, Kind::ClusterRole, &name)
    }

    /// The binding of a place. Every place has its own, because the roleRef of a binding is immutable: another role is
    /// another binding, and the new one is created before the old one is deleted.
    pub(crate) fn binding(&self, place: &Place) -> Reference {
        let Place { scope, role_source, temporary } = place;
        let name = match (role_source, temporary) {
            (RoleSource::Rules, false) => self.role(scope).name,
            (role_source, temporary) => {
                let role = match role_source {
                    RoleSource::Rules => "Role",
                    RoleSource::ClusterRole(name) => &format!("ClusterRole/{}", name.as_str()),
                };
                let what = if *temporary { format!("{role}/stand-in") } else { role.to_owned() };
                let hash = hash(&format!("{}/{}/{what}", self.home, self.instance));
                if self.is_home(scope) { self.hashed(&[&hash]) } else { self.hashed(&[&self.instance_hash(), &hash]) }
            }
        };
        scope.reference(Kind::RoleBinding, Kind::ClusterRoleBinding, &name)
    }

    /// All objects of a place, in the order of deletion.
    pub(crate) fn objects(&self, place: &Place) -> Vec<Reference> {
        let role = place.has_role().then(|| self.role(&place.scope));
        std::iter::once(self.binding(place)).chain(role).collect()
    }

    fn is_home(&self, scope: &Scope) -> bool {
        scope.namespace() == Some(self.home.as_str())
    }

    /// The hash that distinguishes instances of one name in different namespaces.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::name::ClusterRoleName;

    #[test]
    fn first_token_secret_keeps_its_earlier_name() {
        let names = names("demo", "team-a");
        assert_eq!([1, 2, 3].map(|slot| names.token_secret(slot).name), ["demo-token", "demo-token-2", "demo-token-3"]);
    }

    fn names(instance: &str, home: &str) -> Names {
        Names::of(&InstanceName::parse(instance).unwrap(), &Namespace::parse(home).unwrap())
    }

    fn scope(text: &str) -> Scope {
        Scope::parse(text).unwrap()
    }

    fn places() -> Vec<Place> {
        let role_sources = ["view", "edit"].map(|name| RoleSource::ClusterRole(ClusterRoleName::parse(name).unwrap()));
        let role_sources = [RoleSource::Rules].into_iter().chain(role_sources);
        let places = role_sources
            .flat_map(|role_source| ["team-a", "team-b", "*"].map(|text| Place::new(scope(text), role_source.clone())));
        places.flat_map(|place| [place.clone().temporary(), place]).collect()
    }

    #[test]
    fn names_outside_the_home_namespace_carry_a_hash() {
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
    fn binding_names_are_unique_for_long_names() {
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
}
