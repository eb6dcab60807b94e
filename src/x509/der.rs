//! A reader of DER elements that keeps the bytes of each. Pure.

use der::{
    Decode as _, Reader as _, SliceReader,
    asn1::{AnyRef, ObjectIdentifier},
};
use jiff::civil::{DateTime, date};

use crate::x509::Unreadable;

type Problem = Option<Unreadable>;

/// Tags; certificates use no tag number above 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u8);

impl Tag {
    pub(crate) const BOOLEAN: Self = Self(0x01);
    pub(crate) const INTEGER: Self = Self(0x02);
    const BIT_STRING: Self = Self(0x03);
    pub(crate) const OCTET_STRING: Self = Self(0x04);
    const OID: Self = Self(0x06);
    pub(crate) const UTF8_STRING: Self = Self(0x0c);
    pub(crate) const NUMERIC_STRING: Self = Self(0x12);
    pub(crate) const PRINTABLE_STRING: Self = Self(0x13);
    pub(crate) const IA5_STRING: Self = Self(0x16);
    const UTC_TIME: Self = Self(0x17);
    const GENERALIZED_TIME: Self = Self(0x18);
    pub(crate) const SEQUENCE: Self = Self(0x30);
    pub(crate) const SET: Self = Self(0x31);

    /// Tag of an explicitly tagged field.
    pub(crate) const fn explicit(number: u8) -> Self {
        Self(0xa0 | number)
    }

    /// Tag of an implicitly tagged field.
    pub(crate) const fn implicit(number: u8) -> Self {
        Self(0x80 | number)
    }
}

/// A DER element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: Tag,
    pub(crate) value: &'a [u8],
    /// All bytes, tag and length included.
    pub(crate) whole: &'a [u8],
}

/// The bytes not yet read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn finish(&self) -> Result<(), Problem> {
        if self.is_empty() { Ok(()) } else { Err(None) }
    }

    pub(crate) fn any(&mut self) -> Result<Element<'a>, Problem> {
        let mut reader = SliceReader::new(self.0).map_err(|_| None)?;
        if self.0.first().is_some_and(|first| first & 0x1f == 0x1f) {
            return Err(None); // a tag number above 30
        }
        let value = AnyRef::decode(&mut reader).map_err(|_| None)?.value();
        let length = usize::try_from(reader.position()).map_err(|_| None)?;
        let (whole, rest) = self.0.split_at_checked(length).ok_or(None)?;
        self.0 = rest;
        Ok(Element { tag: Tag(*whole.first().ok_or(None)?), value, whole })
    }

    pub(crate) fn expect(&mut self, tag: Tag) -> Result<Element<'a>, Problem> {
        self.optional(tag)?.ok_or(None)
    }

    pub(crate) fn optional(&mut self, tag: Tag) -> Result<Option<Element<'a>>, Problem> {
        if self.0.first() == Some(&tag.0) { self.any().map(Some) } else { Ok(None) }
    }

    pub(crate) fn oid(&mut self) -> Result<ObjectIdentifier, Problem> {
        ObjectIdentifier::from_bytes(self.expect(Tag::OID)?.value).map_err(|_| None)
    }

    /// An INTEGER in its shortest encoding.
    pub(crate) fn integer(&mut self) -> Result<&'a [u8], Problem> {
        match self.expect(Tag::INTEGER)?.value {
            [] | [0, ..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(None),
            value => Ok(value),
        }
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bits(&mut self) -> Result<&'a [u8], Problem> {
        match self.expect(Tag::BIT_STRING)?.value.split_first() {
            Some((0, bits)) => Ok(bits),
            _ => Err(None),
        }
    }

    /// A BIT STRING whose last byte may be partial.
    pub(crate) fn bits_with_rest(&mut self) -> Result<&'a [u8], Problem> {
        match self.expect(Tag::BIT_STRING)?.value.split_first() {
            Some((0, bits)) => Ok(bits),
            // The unused bits must be zero.
            Some((unused @ 1..=7, bits))
                if bits.last().is_some_and(|last| last.trailing_zeros() >= (*unused).into()) =>
            {
                Ok(bits)
            }
            _ => Err(None),
        }
    }

    /// A time, in seconds of Unix time.
    pub(crate) fn time(&mut self) -> Result<i64, Problem> {
        const WRONG: Problem = Some(Unreadable("has an invalid time"));
        let element = self.any()?;
        let text = std::str::from_utf8(element.value).map_err(|_| WRONG)?;
        // Two-digit years end in 2049 (RFC 5280, section 4.1.2.5.1).
        let text = match element.tag {
            Tag::UTC_TIME if text.get(..2).is_some_and(|year| year < "50") => format!("20{text}"),
            Tag::UTC_TIME => format!("19{text}"),
            Tag::GENERALIZED_TIME => text.to_owned(),
            _ => return Err(None),
        };
        // The library would accept blanks, signs and fewer digits.
        let digits = text.strip_suffix('Z').ok_or(WRONG)?;
        if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WRONG);
        }
        let time = DateTime::strptime("%Y%m%d%H%M%S", digits).map_err(|_| WRONG)?;
        // Not converted through a timestamp: its maximum is before the end of 9999, the year that means "no expiry".
        Ok(time.duration_since(date(1970, 1, 1).at(0, 0, 0, 0)).as_secs())
    }
}

/// A BOOLEAN.
pub(crate) fn truth(value: &[u8]) -> Result<bool, Problem> {
    match value {
        [0xff] => Ok(true),
        [0] => Ok(false),
        _ => Err(None),
    }
}

/// A non-negative INTEGER.
pub(crate) fn number(value: &[u8]) -> Result<u32, Problem> {
    match value.first() {
        None | Some(0x80..) => Err(None),
        Some(_) => {
            Ok(value.iter().fold(0_u32, |number, byte| number.saturating_mul(256).saturating_add((*byte).into())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::utc(0x17, "270101000000Z", Some(1_798_761_600))]
    #[case::of_the_last_century(0x17, "700101000001Z", Some(1))]
    #[case::generalized(0x18, "20270101000000Z", Some(1_798_761_600))]
    #[case::no_end(0x18, "99991231235959Z", Some(253_402_300_799))]
    #[case::blanks(0x18, "2027 1 1000000Z", None)]
    #[case::fewer_digits(0x18, "202701010000Z", None)]
    #[case::a_sign(0x18, "+2027010100000Z", None)]
    #[case::no_such_day(0x18, "20270230000000Z", None)]
    #[case::no_zone(0x18, "20270101000000", None)]
    fn times_are_read_or_refused(#[case] tag: u8, #[case] text: &str, #[case] seconds: Option<i64>) {
        let der = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        assert_eq!(Reader::new(&der).time().ok(), seconds);
    }

    #[rstest]
    #[case(&[2, 1, 0], true)]
    #[case(&[2, 2, 0, 0x80], true)]
    #[case(&[2, 0], false)]
    #[case(&[2, 2, 0, 0x7f], false)]
    #[case(&[2, 2, 0xff, 0x80], false)]
    fn integers_must_be_minimal(#[case] der: &[u8], #[case] fits: bool) {
        assert_eq!(Reader::new(der).integer().is_ok(), fits);
    }

    #[rstest]
    #[case(&[3, 2, 2, 0b0000_0100], true)]
    #[case(&[3, 2, 3, 0b0000_0100], false)]
    #[case(&[3, 1, 1], false)]
    #[case(&[3, 2, 8, 0], false)]
    fn bit_string_padding_must_be_zero(#[case] der: &[u8], #[case] fits: bool) {
        assert_eq!(Reader::new(der).bits_with_rest().is_ok(), fits);
    }

    #[rstest]
    #[case::indefinite(&[0x30, 0x80, 0, 0])]
    #[case::non_minimal_length(&[0x04, 0x81, 1, 0])]
    #[case::a_tag_of_several_bytes(&[0x9f, 0x81, 0x01, 0])]
    #[case::too_short(&[0x04, 2, 0])]
    fn invalid_der_is_refused(#[case] bytes: &[u8]) {
        assert!(Reader::new(bytes).any().is_err());
    }
}
