//! Subject alternative names of a server certificate, and whether they match the dialled host. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::x509::{
    Name, Unreadable,
    der::{Element, Reader, Tag},
};

/// Number of names listed in a message.
const SHOWN: usize = 8;

/// Parses subject alternative names of the types that are evaluated.
pub(super) fn names(list: Element<'_>) -> Result<Vec<Name>, Option<Unreadable>> {
    let mut names = Vec::new();
    let mut list = Reader::new(list.value);
    while !list.is_empty() {
        let Element { tag, value, .. } = list.any()?;
        let text = || match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() => Ok(text.to_owned()),
            _ => Err(Some(Unreadable("has an alternative name that is not ASCII"))),
        };
        if tag == Tag::implicit(1) {
            names.push(Name::Email(text()?));
        } else if tag == Tag::implicit(2) {
            names.push(Name::Dns(text()?));
        } else if tag == Tag::implicit(6) {
            names.push(Name::Uri(text()?));
        } else if tag == Tag::implicit(7) {
            names.push(Name::Ip(address(value).ok_or(Some(Unreadable("has an IP address of invalid length")))?));
        }
    }
    Ok(names)
}

/// An address of four or sixteen bytes, in the form given.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into())
}

/// Whether a certificate with these names is valid for this host.
pub(super) fn matches(names: &[Name], host: &str) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        let is_it = |ip: &IpAddr| ip.to_canonical() == address.to_canonical();
        return names.iter().any(|name| matches!(name, Name::Ip(ip) if is_it(ip)));
    }
    let host = host.to_ascii_lowercase();
    let fits = |pattern: &str| {
        let pattern = pattern.to_ascii_lowercase();
        let plain = host.strip_suffix('.').unwrap_or(&host);
        if is_host(plain, false) && is_host(&pattern, true) {
            let (mut labels, mut wanted) = (plain.split('.'), pattern.split('.'));
            let first =
                matches!((labels.next(), wanted.next()), (Some(label), Some(want)) if want == "*" || want == label);
            first && labels.eq(wanted)
        } else {
            !["", "."].contains(&host.as_str()) && host == pattern
        }
    };
    names.iter().any(|name| matches!(name, Name::Dns(pattern) if fits(pattern)))
}

/// Whether this is a valid host name or, in a certificate, a wildcard: `*` replaces the whole first label.
fn is_host(name: &str, is_pattern: bool) -> bool {
    let fits = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(fits)
    };
    let labels = name.split('.').enumerate();
    name != "*" && labels.into_iter().all(|(at, label)| (is_pattern && at == 0 && label == "*") || fits(label))
}

/// These names on one line.
pub(super) fn list_names(names: &[Name]) -> Option<String> {
    let texts: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            Name::Dns(name) => Some(crate::diagnostics::text::sanitize(name, 120)),
            Name::Ip(address) => Some(address.to_string()),
            Name::Email(_) | Name::Uri(_) => None,
        })
        .collect();
    match texts.as_slice() {
        [] => None,
        some if some.len() <= SHOWN => Some(some.join(", ")),
        many => Some(format!("{} and {} more", many[..SHOWN].join(", "), many.len() - SHOWN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("api.example.com", "api.example.com", true)]
    #[case("API.example.com", "api.EXAMPLE.com", true)]
    #[case("api.example.com", "api.example.com.", true)]
    #[case("api.example.com.", "api.example.com", false)]
    #[case("*.example.com", "api.example.com", true)]
    #[case("*.example.com", "a.api.example.com", false)]
    #[case("*.example.com", "example.com", false)]
    #[case("a*.example.com", "api.example.com", false)]
    #[case("api.*.com", "api.example.com", false)]
    #[case("*", "localhost", false)]
    #[case("api_1.example.com", "api_1.example.com", true)]
    #[case("127.0.0.1", "127.0.0.1", false)]
    #[case("", "localhost", false)]
    fn dns_names_are_matched_against_the_host(#[case] name: &str, #[case] host: &str, #[case] fits: bool) {
        assert_eq!(matches(&[Name::Dns(name.to_owned())], host), fits);
    }

    #[rstest]
    #[case(&[127, 0, 0, 1], "127.0.0.1", true)]
    #[case(&[127, 0, 0, 1], "127.0.0.2", false)]
    #[case(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1], "127.0.0.1", true)]
    #[case(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "::1", true)]
    #[case(&[127, 0, 0, 1], "localhost", false)]
    fn ip_addresses_are_matched_against_the_host(#[case] bytes: &[u8], #[case] host: &str, #[case] fits: bool) {
        assert_eq!(matches(&[Name::Ip(address(bytes).unwrap())], host), fits);
    }
}
