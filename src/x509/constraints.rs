//! Name constraints of a CA (RFC 5280, section 4.2.1.10), evaluated as Go evaluates them. Pure.

use std::net::IpAddr;

use crate::x509::{
    Name, Unreadable,
    der::{Element, Reader, Tag},
    host,
};

/// Permitted and excluded subtrees for the names in certificates below a CA.
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
    /// Parses the extension; also returns whether all constraints are of a supported kind.
    pub(crate) fn read(list: Element<'_>) -> Result<(Self, bool), Option<Unreadable>> {
        let mut reader = Reader::new(list.value);
        let mut understood = true;
        let mut subtrees = |number| -> Result<Vec<Subtree>, Option<Unreadable>> {
            let Some(list) = reader.optional(Tag::explicit(number))? else { return Ok(Vec::new()) };
            let mut list = Reader::new(list.value);
            if list.is_empty() {
                return Err(None);
            }
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
        if list.value.is_empty() {
            return Err(None);
        }
        Ok((Self { permitted, excluded }, understood))
    }

    /// Whether there are no constraints.
    pub(crate) fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    /// Whether a certificate below this CA may contain this name.
    pub(crate) fn allow(&self, name: &Name) -> bool {
        // An invalid name could bypass an exclusion: `bad.example.` does not end with `example`.
        if let Name::Dns(name) = name
            && !is_domain(name)
        {
            return false;
        }
        let of_its_kind = |subtree: &&Subtree| subtree.is_about(name);
        let mut permitted = self.permitted.iter().filter(of_its_kind).peekable();
        let is_permitted = permitted.peek().is_none() || permitted.any(|subtree| subtree.covers(name, false));
        is_permitted && !self.excluded.iter().filter(of_its_kind).any(|subtree| subtree.covers(name, true))
    }
}

impl Subtree {
    fn read(base: Element<'_>) -> Result<Option<Self>, Option<Unreadable>> {
        let text = || std::str::from_utf8(base.value).map(str::to_owned).map_err(|_| None);
        // A constraint that no name can match would exclude nothing.
        let domain = || text().and_then(|text| if is_domain(&text) { Ok(text) } else { Err(None) });
        Ok(Some(if base.tag == Tag::implicit(1) {
            let text = text()?;
            if !is_domain(text.rsplit_once('@').map_or(&*text, |(_, domain)| domain)) {
                return Err(None);
            }
            Self::Email(text)
        } else if base.tag == Tag::implicit(2) {
            Self::Dns(domain()?)
        } else if base.tag == Tag::implicit(6) {
            Self::Uri(domain()?)
        } else if base.tag == Tag::implicit(7) {
            let (net, mask) = base.value.split_at(base.value.len() / 2);
            if !is_mask(mask) {
                return Err(None);
            }
            let (net, mask) = host::address(net).zip(host::address(mask)).ok_or(None)?;
            // An IPv4-mapped IPv6 network would match no address in its own form.
            if net != net.to_canonical() {
                return Err(None);
            }
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

    /// A wildcard name is excluded if it matches in its first label, an address in both of its forms.
    fn covers(&self, name: &Name, excludes: bool) -> bool {
        match (self, name) {
            (Self::Dns(domain), Name::Dns(name)) => {
                let pattern_meets = || {
                    let parents = name.strip_prefix("*.").zip(domain.split_once('.'));
                    parents.is_some_and(|(name, (_, domain))| name.eq_ignore_ascii_case(domain))
                };
                is_within(name, domain) || excludes && pattern_meets()
            }
            (Self::Ip { net, mask }, Name::Ip(address)) => {
                let is_in = |address: &IpAddr| match (net, mask, address) {
                    (IpAddr::V4(net), IpAddr::V4(mask), IpAddr::V4(address)) => address & mask == net & mask,
                    (IpAddr::V6(net), IpAddr::V6(mask), IpAddr::V6(address)) => address & mask == net & mask,
                    _ => false,
                };
                is_in(address) || excludes && is_in(&address.to_canonical())
            }
            (Self::Email(wanted), Name::Email(name)) => match (name.rsplit_once('@'), wanted.rsplit_once('@')) {
                (Some((user, host)), Some((wanted, at))) => user == wanted && host.eq_ignore_ascii_case(at),
                (Some((_, host)), None) => is_within(host, wanted),
                (None, _) => excludes, // cannot be evaluated
            },
            (Self::Uri(domain), Name::Uri(uri)) => {
                let authority =
                    uri.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
                let host = authority.rsplit('@').next().unwrap_or("");
                let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
                match host {
                    host if host.is_empty() || host.starts_with('[') || host.parse::<IpAddr>().is_ok() => excludes,
                    host => is_within(host, domain),
                }
            }
            _ => false,
        }
    }
}

/// Whether a name equals a domain or is below it; only below, if the domain starts with a dot.
fn is_within(name: &str, domain: &str) -> bool {
    // On bytes and without allocating: a CA with thousands of constraints can sign for thousands of names.
    let (name, domain) = (name.as_bytes(), domain.as_bytes());
    let Some((rest, end)) = name.len().checked_sub(domain.len()).and_then(|at| name.split_at_checked(at)) else {
        return false;
    };
    end.eq_ignore_ascii_case(domain)
        && (domain.is_empty() || domain.starts_with(b".") || rest.is_empty() || rest.ends_with(b"."))
}

/// Whether a text is a valid domain or wildcard (Go's domainNameValid).
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_graphic());
    text.is_empty() || text.strip_prefix('.').unwrap_or(text).split('.').all(is_label)
}

/// Whether these bytes are a netmask: ones, then zeros.
fn is_mask(bytes: &[u8]) -> bool {
    let ends = bytes.iter().skip_while(|byte| **byte == 0xff).enumerate();
    ends.into_iter().all(|(at, byte)| if at == 0 { byte.leading_ones() == byte.count_ones() } else { *byte == 0 })
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
    fn domain_constraint_matches_subdomains(#[case] name: &str, #[case] domain: &str, #[case] within: bool) {
        assert_eq!(is_within(name, domain), within);
    }

    #[test]
    fn exclusion_overrides_permission() {
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

    #[rstest]
    #[case("api.bad.example.")]
    #[case("api..bad.example")]
    #[case("a b.example")]
    #[case("a\0.example")]
    fn unparsable_name_is_not_allowed(#[case] name: &str) {
        let excluded = vec![Subtree::Dns("bad.example".to_owned())];
        assert!(!Constraints { excluded, ..Constraints::default() }.allow(&Name::Dns(name.to_owned())));
    }

    /// One subtree in `permittedSubtrees` (0) or `excludedSubtrees` (1).
    fn read(list: u8, kind: u8, value: &[u8]) -> Result<Constraints, Option<Unreadable>> {
        let element = |tag: u8, value: &[u8]| [&[tag, u8::try_from(value.len()).unwrap()], value].concat();
        let der = element(0x30, &element(0xa0 | list, &element(0x30, &element(0x80 | kind, value))));
        Constraints::read(Reader::new(&der).any()?).map(|(constraints, _)| constraints)
    }

    #[rstest]
    #[case::ends_with_a_dot(2, b"example.com.")]
    #[case::an_empty_label(2, b"a..com")]
    #[case::a_blank(2, b"a b")]
    #[case::for_mail(1, b"a@example.com.")]
    #[case::for_uris(6, b"example.com.")]
    #[case::a_mask_with_a_hole(7, &[10, 0, 0, 0, 0xff, 0, 0xff, 0])]
    #[case::a_mask_with_a_hole_in_a_byte(7, &[10, 0, 0, 0, 0b1010_0000, 0, 0, 0])]
    #[case::of_a_wrong_length(7, &[10, 0, 0, 0])]
    #[case::ipv4_as_ipv6(7, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0])]
    fn malformed_constraints_are_refused(#[case] kind: u8, #[case] value: &[u8]) {
        assert!(read(0, kind, value).is_err() && read(1, kind, value).is_err());
    }

    #[rstest]
    #[case(&[0x30, 0])]
    #[case(&[0x30, 2, 0xa0, 0])]
    #[case(&[0x30, 2, 0xa1, 0])]
    fn empty_constraints_are_refused(#[case] der: &[u8]) {
        assert!(Constraints::read(Reader::new(der).any().unwrap()).is_err());
    }

    #[test]
    fn address_is_excluded_in_both_forms() {
        let own = Name::Ip([10, 1, 2, 3].into());
        let other = Name::Ip(std::net::Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().into());
        let ten = [10, 0, 0, 0, 0xff, 0, 0, 0];
        let (permitted, excluded) = (read(0, 7, &ten).unwrap(), read(1, 7, &ten).unwrap());
        assert!(permitted.allow(&own) && !permitted.allow(&other));
        assert!(!excluded.allow(&own) && !excluded.allow(&other));
        assert!(!read(1, 7, &[0; 32]).unwrap().allow(&other));
        assert!(read(1, 7, &[0; 32]).unwrap().allow(&own));
    }
}
