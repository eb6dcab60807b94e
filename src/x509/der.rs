//! Elements of DER, one after the other, each with its own bytes. Pure.

use der::{
    Decode as _, Reader as _, SliceReader,
    asn1::{AnyRef, ObjectIdentifier},
};
use jiff::{civil::DateTime, tz::TimeZone};

use super::Unreadable;

type Problem = Option<Unreadable>;

/// The first byte of an element: types with a higher number are in no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u8);

impl Tag {
    pub const BOOLEAN: Self = Self(0x01);
    pub const INTEGER: Self = Self(0x02);
    pub const BIT_STRING: Self = Self(0x03);
    pub const OCTET_STRING: Self = Self(0x04);
    pub const OID: Self = Self(0x06);
    pub const UTC_TIME: Self = Self(0x17);
    pub const GENERALIZED_TIME: Self = Self(0x18);
    pub const SEQUENCE: Self = Self(0x30);
    pub const SET: Self = Self(0x31);

    /// A field with a number around its own type.
    pub const fn explicit(number: u8) -> Self {
        Self(0xa0 | number)
    }

    /// A field with a number in place of its own type.
    pub const fn implicit(number: u8) -> Self {
        Self(0x80 | number)
    }
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    pub tag: Tag,
    pub value: &'a [u8],
    /// Tag and length included.
    pub whole: &'a [u8],
}

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn finish(&self) -> Result<(), Problem> {
        if self.is_empty() { Ok(()) } else { Err(None) }
    }

    pub fn any(&mut self) -> Result<Element<'a>, Problem> {
        let mut reader = SliceReader::new(self.0).map_err(|_| None)?;
        let value = AnyRef::decode(&mut reader).map_err(|_| None)?.value();
        let length = usize::try_from(reader.position()).map_err(|_| None)?;
        let (whole, rest) = self.0.split_at_checked(length).ok_or(None)?;
        self.0 = rest;
        Ok(Element { tag: Tag(*whole.first().ok_or(None)?), value, whole })
    }

    pub fn expect(&mut self, tag: Tag) -> Result<Element<'a>, Problem> {
        self.optional(tag)?.ok_or(None)
    }

    pub fn optional(&mut self, tag: Tag) -> Result<Option<Element<'a>>, Problem> {
        if self.0.first() == Some(&tag.0) { self.any().map(Some) } else { Ok(None) }
    }

    pub fn oid(&mut self) -> Result<ObjectIdentifier, Problem> {
        ObjectIdentifier::from_bytes(self.expect(Tag::OID)?.value).map_err(|_| None)
    }

    /// A bit string of whole bytes.
    pub fn bits(&mut self) -> Result<&'a [u8], Problem> {
        match self.expect(Tag::BIT_STRING)?.value.split_first() {
            Some((0, bits)) => Ok(bits),
            _ => Err(None),
        }
    }

    /// A bit string of which the last byte need not be whole.
    pub fn bits_with_rest(&mut self) -> Result<&'a [u8], Problem> {
        match self.expect(Tag::BIT_STRING)?.value.split_first() {
            Some((0..=7, bits)) => Ok(bits),
            _ => Err(None),
        }
    }

    /// Seconds of Unix time.
    pub fn time(&mut self) -> Result<i64, Problem> {
        const WRONG: Problem = Some(Unreadable("has a time that is none"));
        let element = self.any()?;
        let text = std::str::from_utf8(element.value).map_err(|_| WRONG)?;
        // Years of two digits end in 2049 (RFC 5280, section 4.1.2.5.1).
        let text = match element.tag {
            Tag::UTC_TIME if text.get(..2).is_some_and(|year| year < "50") => format!("20{text}"),
            Tag::UTC_TIME => format!("19{text}"),
            Tag::GENERALIZED_TIME => text.to_owned(),
            _ => return Err(None),
        };
        let time = DateTime::strptime("%Y%m%d%H%M%SZ", &text).map_err(|_| WRONG)?;
        Ok(time.to_zoned(TimeZone::UTC).map_err(|_| WRONG)?.timestamp().as_second())
    }
}

/// A number that is not negative.
pub fn number(value: &[u8]) -> Result<u32, Problem> {
    match value.first() {
        None | Some(0x80..) => Err(None),
        Some(_) => {
            Ok(value.iter().fold(0_u32, |number, byte| number.saturating_mul(256).saturating_add((*byte).into())))
        }
    }
}
