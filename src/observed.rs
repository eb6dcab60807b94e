//! What the server has at the places of our objects: the form in which `cluster/` hands it to `plan.rs`. Pure data.

use crate::object::{Kind, Live, TOKEN_SECRET};

/// The state of the home namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// There.
    Active,
    /// To be made.
    #[default]
    Absent,
    /// On its way out: nothing can be made in it.
    Terminating,
    /// The parent credential may not look; later requests will tell.
    Unknown,
}

/// What the server has at the places of our objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The home namespace.
    pub home: Home,
    /// The ServiceAccount.
    pub service_account: Option<Live>,
    /// The Role.
    pub role: Option<Live>,
    /// The RoleBinding.
    pub binding: Option<Live>,
    /// The Secret of the newest generation.
    pub secret: Option<Live>,
    /// The first Secret and the one before the newest, by number, when they are still there: left by runs that
    /// overtook each other.
    pub earlier: Vec<(u32, Live)>,
}

impl Observed {
    /// The number of the token Secret to have: the newest when it is there, else the next one. A name is never used
    /// twice in the life of a ServiceAccount, because the same name means the same token, even after its deletion.
    #[must_use]
    pub fn wanted_generation(&self) -> u32 {
        let gone = self.service_account.is_some() && self.secret.is_none();
        if gone || self.is_stale() { self.newest().saturating_add(1) } else { self.newest() }
    }

    /// The Secrets that have to go, by number: those of earlier generations, and the newest when it can never hold a
    /// token, because its type is another and cannot be changed.
    pub fn retired(&self) -> impl Iterator<Item = (u32, &Live)> {
        let earlier = self.earlier.iter().map(|(generation, live)| (*generation, live));
        let stale = self.secret.as_ref().filter(|_| self.is_stale()).map(|live| (self.newest(), live));
        earlier.chain(stale)
    }

    fn is_stale(&self) -> bool {
        self.secret.as_ref().and_then(|live| live.fields.get("type")).is_some_and(|kind| kind != TOKEN_SECRET)
    }

    /// The number of the newest token Secret that was ever made, or 1.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.service_account.as_ref().and_then(Live::generation).unwrap_or(1)
    }

    /// The object of this kind, if it is of use.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Option<&Live> {
        match kind {
            Kind::ServiceAccount => self.service_account.as_ref(),
            Kind::Role => self.role.as_ref(),
            Kind::RoleBinding => self.binding.as_ref(),
            Kind::Secret => self.secret.as_ref().filter(|_| !self.is_stale()),
            Kind::Namespace => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_generation_is_never_used_twice() {
        let account = |generation: &str| {
            let annotations = BTreeMap::from([(crate::object::GENERATION.to_owned(), generation.to_owned())]);
            Some(Live { annotations, ..Live::default() })
        };
        let seen = |service_account, secret| Observed { service_account, secret, ..Observed::default() };
        assert_eq!(seen(None, None).wanted_generation(), 1);
        assert_eq!(seen(account("1"), Some(Live::default())).wanted_generation(), 1);
        assert_eq!(seen(account("1"), None).wanted_generation(), 2);
        assert_eq!(seen(account("7"), None).wanted_generation(), 8);
    }
}
