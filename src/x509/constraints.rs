//! Name constraints of a CA: for which names it may vouch, as Go judges them. Pure.

use std::net::IpAddr;

use super::{
    Name, Unreadable,
    der::{Element, Reader, Tag},
    host,
};

/// What the names beneath a CA have to be, and must not be.
#[derive(Clone, Debug, Default)]
pub(super) struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

#[derive(Clone, Debug)]
enum Subtree {
    Dns(String),
    Ip { net: IpAddr, mask: IpAddr },
    Email(String),
    Uri(String),
}

impl Constraints {
    /// Also says whether all of them are understood.
    pub fn read(list: Element<'_>) -> Result<(Self, bool), Option<Unreadable>> {
        let mut reader = Reader::new(list.value);
        let mut understood = true;
        let mut subtrees = |number| -> Result<Vec<Subtree>, Option<Unreadable>> {
            let Some(list) = reader.optional(Tag::explicit(number))? else { return Ok(Vec::new()) };
            let mut list = Reader::new(list.value);
            let mut found = Vec::new();
            while !list.is_empty() {
                let base = Reader::new(list.expect(Tag::SEQUENCE)?.value).any()?;
                match Subtree::read(base)? {
                    Some(subtree) => found.push(subtree),
                    None => understood = false,
                }
            }
            Ok(found)
        };
        let (permitted, excluded) = (subtrees(0)?, subtrees(1)?);
        reader.finish()?;
        Ok((Self { permitted, excluded }, understood))
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    /// Whether a certificate beneath may have this name.
    pub fn allow(&self, name: &Name) -> bool {
        let of_its_kind = |subtree: &&Subtree| subtree.is_about(name);
        let mut permitted = self.permitted.iter().filter(of_its_kind).peekable();
        let is_permitted = permitted.peek().is_none() || permitted.any(|subtree| subtree.covers(name, false));
        is_permitted && !self.excluded.iter().filter(of_its_kind).any(|subtree| subtree.covers(name, true))
    }
}

impl Subtree {
    fn read(base: Element<'_>) -> Result<Option<Self>, Option<Unreadable>> {
        let text = || std::str::from_utf8(base.value).map(str::to_owned).map_err(|_| None);
        Ok(Some(if base.tag == Tag::implicit(1) {
            Self::Email(text()?)
        } else if base.tag == Tag::implicit(2) {
            Self::Dns(text()?)
        } else if base.tag == Tag::implicit(6) {
            Self::Uri(text()?)
        } else if base.tag == Tag::implicit(7) {
            let (net, mask) = base.value.split_at(base.value.len() / 2);
            // Of one family, which an address in both forms would not be.
            let (net, mask) = host::address(net).zip(host::address(mask)).ok_or(None)?;
            Self::Ip { net, mask }
        } else {
            return Ok(None);
        }))
    }

    fn is_about(&self, name: &Name) -> bool {
        matches!(
            (self, name),
            (Self::Dns(_), Name::Dns(_))
                | (Self::Ip { .. }, Name::Ip(_))
                | (Self::Email(_), Name::Email(_))
                | (Self::Uri(_), Name::Uri(_))
        )
    }

    /// A pattern is excluded with the first name that it fits.
    fn covers(&self, name: &Name, excludes: bool) -> bool {
        match (self, name) {
            (Self::Dns(domain), Name::Dns(name)) => {
                let parent = |name: &str| name.split_once('.').map(|(_, parent)| parent.to_ascii_lowercase());
                let pattern_meets = excludes && name.starts_with("*.") && parent(name) == parent(domain);
                is_within(name, domain) || pattern_meets
            }
            (Self::Ip { net, mask }, Name::Ip(address)) => match (net, mask, address) {
                (IpAddr::V4(net), IpAddr::V4(mask), IpAddr::V4(address)) => address & mask == net & mask,
                (IpAddr::V6(net), IpAddr::V6(mask), IpAddr::V6(address)) => address & mask == net & mask,
                _ => false,
            },
            (Self::Email(wanted), Name::Email(name)) => match (name.rsplit_once('@'), wanted.rsplit_once('@')) {
                (Some((user, host)), Some((wanted, at))) => user == wanted && host.eq_ignore_ascii_case(at),
                (Some((_, host)), None) => is_within(host, wanted),
                (None, _) => excludes, // not to be judged
            },
            (Self::Uri(domain), Name::Uri(uri)) => {
                let authority =
                    uri.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
                let host = authority.rsplit('@').next().unwrap_or("");
                let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
                match host {
                    "" => excludes,
                    host => is_within(host, domain),
                }
            }
            _ => false,
        }
    }
}

/// Whether a name is a domain or beneath it; beneath alone, where the domain begins with a dot.
fn is_within(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let Some(rest) = name.strip_suffix(&domain) else { return false };
    domain.is_empty() || domain.starts_with('.') || rest.is_empty() || rest.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("api.example.com", "example.com", true)]
    #[case("example.com", "example.com", true)]
    #[case("EXAMPLE.com", "example.COM", true)]
    #[case("badexample.com", "example.com", false)]
    #[case("api.example.com", ".example.com", true)]
    #[case("example.com", ".example.com", false)]
    #[case("anything", "", true)]
    fn a_name_is_within_a_domain_or_not(#[case] name: &str, #[case] domain: &str, #[case] within: bool) {
        assert_eq!(is_within(name, domain), within);
    }

    #[test]
    fn what_is_not_constrained_is_allowed_and_an_exclusion_wins() {
        let dns = |name: &str| Name::Dns(name.to_owned());
        let constraints = Constraints {
            permitted: vec![Subtree::Dns("example.com".to_owned())],
            excluded: vec![Subtree::Dns("bad.example.com".to_owned())],
        };
        assert!(constraints.allow(&dns("api.example.com")));
        assert!(constraints.allow(&Name::Ip([127, 0, 0, 1].into())));
        assert!(!constraints.allow(&dns("localhost")));
        assert!(!constraints.allow(&dns("a.bad.example.com")));
        assert!(!constraints.allow(&dns("*.example.com")));
    }
}
