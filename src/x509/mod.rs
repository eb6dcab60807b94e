//! X.509 certificates, parsed as Go's crypto/x509 parses them, so that a certificate that kubectl accepts is accepted here.
//! Versions 1 to 3; fields that neither of them needs are not parsed. Pure.

mod algorithm;
mod constraints;
mod der;
mod host;
pub(crate) mod pem_blocks;
mod verify;

use std::net::IpAddr;

pub(crate) use algorithm::key;
pub(crate) use verify::{Flaw, Judge};

use ::der::asn1::ObjectIdentifier;
use constraints::Constraints;
use der::{Element, Reader, Tag};

/// Extended key usage: any.
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// Extended key usage: server authentication.
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const ISSUER_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Length in characters of a name in a message.
const SHOWN: usize = 120;

/// Why a certificate cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// A parsed certificate; its fields borrow from its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Certificate<'a> {
    /// The whole certificate.
    pub(crate) der: &'a [u8],
    /// Version 1, 2 or 3.
    pub(crate) version: u8,
    /// AlgorithmIdentifier of the public key.
    pub(crate) key_algorithm: &'a [u8],
    /// Public key.
    pub(crate) key: &'a [u8],
    /// SubjectPublicKeyInfo: algorithm and key.
    pub(crate) key_info: &'a [u8],
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    /// Seconds of Unix time.
    valid: (i64, i64),
    extensions: Extensions<'a>,
}

/// Parsed extensions; only version 3 has any.
#[derive(Clone, Debug, Default)]
struct Extensions<'a> {
    basic: Option<BasicConstraints>,
    /// Whether the key usage permits signing certificates; none if there is no key usage.
    may_sign: Option<bool>,
    usages: Vec<ObjectIdentifier>,
    alternative_names: Option<&'a [u8]>,
    names: Vec<Name>,
    constraints: Constraints,
    key_id: &'a [u8],
    issuer_key_id: &'a [u8],
    /// Critical extensions that are not supported.
    unhandled: Vec<ObjectIdentifier>,
}

#[derive(Clone, Copy, Debug)]
struct BasicConstraints {
    ca: bool,
    longest_path: Option<u32>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Dns(String),
    Ip(IpAddr),
    Email(String),
    Uri(String),
}

impl<'a> Certificate<'a> {
    /// Parses a certificate.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Unreadable> {
        const MALFORMED: Unreadable = Unreadable("is not the DER of a certificate");
        Self::read(der).map_err(|problem| problem.unwrap_or(MALFORMED))
    }

    /// An error without text is an encoding error.
    fn read(bytes: &'a [u8]) -> Result<Self, Option<Unreadable>> {
        let mut outer = Reader::new(bytes);
        let whole = outer.expect(Tag::SEQUENCE)?;
        outer.finish()?;
        let mut certificate = Reader::new(whole.value);
        let signed = certificate.expect(Tag::SEQUENCE)?;
        let algorithm = certificate.expect(Tag::SEQUENCE)?;
        let signature = certificate.bits()?;

        let mut body = Reader::new(signed.value);
        let version = match body.optional(Tag::explicit(0))? {
            Some(version) => match Reader::new(version.value).integer()? {
                [version @ 0..=2] => version + 1,
                _ => return Err(Some(Unreadable("has an invalid version"))),
            },
            None => 1,
        };
        if body.integer()?.first().is_some_and(|first| first & 0x80 != 0) {
            return Err(Some(Unreadable("has a negative serial number, which Go rejects")));
        }
        if body.expect(Tag::SEQUENCE)?.value != algorithm.value {
            return Err(Some(Unreadable("names two different algorithms for its signature")));
        }
        let issuer = body.expect(Tag::SEQUENCE)?;
        check_name(issuer)?;
        let mut validity = Reader::new(body.expect(Tag::SEQUENCE)?.value);
        let valid = (validity.time()?, validity.time()?);
        let subject = body.expect(Tag::SEQUENCE)?;
        check_name(subject)?;
        let key_info = body.expect(Tag::SEQUENCE)?;
        let mut parts = Reader::new(key_info.value);
        let key_algorithm = parts.expect(Tag::SEQUENCE)?;
        let key = parts.bits()?;
        let mut extensions = Extensions::default();
        if version > 1 {
            body.optional(Tag::implicit(1))?;
            body.optional(Tag::implicit(2))?;
        }
        if version == 3
            && let Some(list) = body.optional(Tag::explicit(3))?
        {
            extensions = Extensions::read(Reader::new(list.value).expect(Tag::SEQUENCE)?)?;
        }
        Ok(Self {
            der: whole.whole,
            version,
            key_algorithm: key_algorithm.value,
            key,
            key_info: key_info.whole,
            signed: signed.whole,
            algorithm: algorithm.value,
            signature,
            issuer: issuer.whole,
            subject: subject.whole,
            valid,
            extensions,
        })
    }

    /// When it begins and when it ends to be valid, in seconds of Unix time.
    pub(crate) const fn validity(&self) -> (i64, i64) {
        self.valid
    }

    /// The subject, sanitized.
    pub(crate) fn subject(&self) -> String {
        name(self.subject)
    }

    /// The issuer, sanitized.
    pub(crate) fn issuer(&self) -> String {
        name(self.issuer)
    }
}

impl<'a> Extensions<'a> {
    fn read(list: Element<'a>) -> Result<Self, Option<Unreadable>> {
        let mut found = Self::default();
        let mut seen = Vec::new();
        let mut list = Reader::new(list.value);
        while !list.is_empty() {
            let mut extension = Reader::new(list.expect(Tag::SEQUENCE)?.value);
            let id = extension.oid()?;
            let critical =
                extension.optional(Tag::BOOLEAN)?.map(|it| der::truth(it.value)).transpose()?.unwrap_or(false);
            let value = extension.expect(Tag::OCTET_STRING)?.value;
            if seen.contains(&id) {
                return Err(Some(Unreadable("has an extension twice")));
            }
            seen.push(id);
            let understood = found
                .take(id, value)
                .map_err(|problem| Some(problem.unwrap_or(Unreadable("has an extension with invalid encoding"))))?;
            if critical && [KEY_ID, ISSUER_KEY_ID].contains(&id) {
                return Err(Some(Unreadable("has a critical key identifier, which Go rejects")));
            }
            if critical && !understood {
                found.unhandled.push(id);
            }
        }
        Ok(found)
    }

    /// False for an extension that is not supported.
    fn take(&mut self, id: ObjectIdentifier, value: &'a [u8]) -> Result<bool, Option<Unreadable>> {
        let mut reader = Reader::new(value);
        match id.to_string().as_str() {
            "2.5.29.14" => self.key_id = reader.expect(Tag::OCTET_STRING)?.value,
            "2.5.29.15" => {
                let bits = reader.bits_with_rest()?;
                let any = bits.iter().any(|byte| *byte != 0);
                self.may_sign = any.then(|| bits.first().is_some_and(|first| first & 0b0000_0100 != 0));
            }
            "2.5.29.17" => {
                self.alternative_names = Some(value);
                self.names = host::names(reader.expect(Tag::SEQUENCE)?)?;
                return Ok(!self.names.is_empty());
            }
            "2.5.29.19" => {
                let mut basic = Reader::new(reader.expect(Tag::SEQUENCE)?.value);
                let ca = basic.optional(Tag::BOOLEAN)?.map(|ca| der::truth(ca.value)).transpose()?.unwrap_or(false);
                let mut path = basic;
                let longest_path = match basic.optional(Tag::INTEGER)? {
                    Some(_) => Some(der::number(path.integer()?)?),
                    None => None,
                };
                self.basic = Some(BasicConstraints { ca, longest_path });
            }
            "2.5.29.30" => {
                let (constraints, understood) = Constraints::read(reader.expect(Tag::SEQUENCE)?)?;
                reader.finish()?;
                self.constraints = constraints;
                return Ok(understood);
            }
            "2.5.29.35" => {
                let mut authority = Reader::new(reader.expect(Tag::SEQUENCE)?.value);
                self.issuer_key_id = authority.optional(Tag::implicit(0))?.map_or(&[], |id| id.value);
            }
            "2.5.29.37" => {
                let mut usages = Reader::new(reader.expect(Tag::SEQUENCE)?.value);
                while !usages.is_empty() {
                    self.usages.push(usages.oid()?);
                }
            }
            // A constraint that requires a policy is not supported, and fails in Go even if it is not critical.
            "2.5.29.36" => {
                let mut policy = Reader::new(reader.expect(Tag::SEQUENCE)?.value);
                if policy.optional(Tag::implicit(0))?.is_some() {
                    self.unhandled.push(id);
                }
                return Ok(false);
            }
            // Revocation endpoints and policies: without a required policy they change nothing.
            "2.5.29.31" | "2.5.29.32" | "2.5.29.33" | "2.5.29.54" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Whether a distinguished name is well formed and its strings contain only what their types allow: Go rejects others.
fn check_name(name: Element<'_>) -> Result<(), Option<Unreadable>> {
    const WRONG: Unreadable = Unreadable("has a name with characters that its encoding does not allow");
    let mut sets = Reader::new(name.value);
    while !sets.is_empty() {
        let mut set = Reader::new(sets.expect(Tag::SET)?.value);
        while !set.is_empty() {
            let mut pair = Reader::new(set.expect(Tag::SEQUENCE)?.value);
            pair.oid()?;
            let Element { tag, value, .. } = pair.any()?;
            // Asterisk and ampersand are accepted, as in Go, because real certificates contain them.
            let is_printable = |byte: &u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(byte);
            let is_right = match tag {
                Tag::PRINTABLE_STRING => value.iter().all(is_printable),
                Tag::UTF8_STRING => std::str::from_utf8(value).is_ok(),
                Tag::IA5_STRING => value.is_ascii(),
                Tag::NUMERIC_STRING => value.iter().all(|byte| byte.is_ascii_digit() || *byte == b' '),
                _ => true,
            };
            if !is_right {
                return Err(Some(WRONG));
            }
        }
    }
    Ok(())
}

/// A distinguished name on one line: the common name, or all attributes.
fn name(bytes: &[u8]) -> String {
    let mut parts: Vec<(ObjectIdentifier, String)> = Vec::new();
    let mut collect = || -> Result<(), Option<Unreadable>> {
        let mut sets = Reader::new(Reader::new(bytes).expect(Tag::SEQUENCE)?.value);
        while !sets.is_empty() {
            let mut set = Reader::new(sets.expect(Tag::SET)?.value);
            while !set.is_empty() {
                let mut pair = Reader::new(set.expect(Tag::SEQUENCE)?.value);
                parts.push((pair.oid()?, String::from_utf8_lossy(pair.any()?.value).into_owned()));
            }
        }
        Ok(())
    };
    let _ = collect(); // what can be parsed is shown
    let common = parts.iter().find(|(id, _)| *id == COMMON_NAME).map(|(_, name)| name.clone());
    let all = || parts.iter().map(|(_, part)| part.as_str()).collect::<Vec<_>>().join(", ");
    let text = common.filter(|name| !name.is_empty()).unwrap_or_else(all);
    if text.is_empty() {
        "without a name".to_owned()
    } else {
        format!("\"{}\"", crate::diagnostics::text::sanitize(&text, SHOWN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::printable(0x13, b"A (B) *.c & d", true)]
    #[case::printable_with_an_underscore(0x13, b"a_b", false)]
    #[case::printable_with_an_at_sign(0x13, b"a@b", false)]
    #[case::utf8(0x0c, "M\u{fc}ller_".as_bytes(), true)]
    #[case::invalid_utf8(0x0c, b"M\xfcller", false)]
    #[case::ia5(0x16, b"a@b_c", true)]
    #[case::invalid_ia5(0x16, b"\xfc", false)]
    #[case::numeric(0x12, b"1 2", true)]
    #[case::invalid_numeric(0x12, b"a", false)]
    #[case::t61(0x14, b"M\xfcller", true)]
    fn name_strings_are_accepted_or_refused(#[case] tag: u8, #[case] text: &[u8], #[case] taken: bool) {
        let element = |tag: u8, value: &[u8]| [&[tag, u8::try_from(value.len()).unwrap()], value].concat();
        let pair = [&[6, 3, 0x55, 4, 3], element(tag, text).as_slice()].concat();
        let der = element(0x30, &element(0x31, &element(0x30, &pair)));
        assert_eq!(check_name(Reader::new(&der).any().unwrap()).is_ok(), taken);
    }
}
