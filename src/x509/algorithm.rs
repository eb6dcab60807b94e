//! Names of key and signature algorithms for messages, and which keys are supported. Pure.

use std::borrow::Cow;

use ::der::asn1::ObjectIdentifier;

use crate::x509::der::{Reader, Tag};

/// Supported sizes of RSA keys, in bits.
const RSA: std::ops::RangeInclusive<usize> = 2048..=8192;

const SIGNATURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.2", "MD2 with RSA"),
    ("1.2.840.113549.1.1.4", "MD5 with RSA"),
    ("1.2.840.113549.1.1.5", "SHA-1 with RSA"),
    ("1.3.14.3.2.29", "SHA-1 with RSA"),
    ("1.2.840.113549.1.1.14", "SHA-224 with RSA"),
    ("1.2.840.113549.1.1.11", "SHA-256 with RSA"),
    ("1.2.840.113549.1.1.12", "SHA-384 with RSA"),
    ("1.2.840.113549.1.1.13", "SHA-512 with RSA"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.10040.4.3", "SHA-1 with DSA"),
    ("2.16.840.1.101.3.4.3.2", "SHA-256 with DSA"),
    ("1.2.840.10045.4.1", "SHA-1 with ECDSA"),
    ("1.2.840.10045.4.3.1", "SHA-224 with ECDSA"),
    ("1.2.840.10045.4.3.2", "SHA-256 with ECDSA"),
    ("1.2.840.10045.4.3.3", "SHA-384 with ECDSA"),
    ("1.2.840.10045.4.3.4", "SHA-512 with ECDSA"),
    ("1.3.101.112", "Ed25519"),
    ("1.3.101.113", "Ed448"),
];

const CURVES: &[(&str, &str)] = &[
    ("1.2.840.10045.3.1.1", "P-192"),
    ("1.3.132.0.33", "P-224"),
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.132.0.35", "P-521"),
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
    ("1.2.156.10197.1.301", "SM2"),
];

fn known(table: &'static [(&str, &str)], id: &ObjectIdentifier) -> Cow<'static, str> {
    let id = id.to_string();
    let found = table.iter().find(|(known, _)| *known == id);
    found.map_or_else(|| format!("of the algorithm {id}").into(), |(_, name)| (*name).into())
}

/// A signature algorithm, named by its AlgorithmIdentifier.
pub(super) fn signature(algorithm: &[u8]) -> Cow<'static, str> {
    match Reader::new(algorithm).oid() {
        Ok(id) => known(SIGNATURES, &id),
        Err(_) => "of an unknown algorithm".into(),
    }
}

/// A public key, as in "an RSA key of 1024 bits".
pub(crate) fn key(algorithm: &[u8], key: &[u8]) -> String {
    let mut parts = Reader::new(algorithm);
    let Ok(id) = parts.oid() else { return "a key of an unknown algorithm".to_owned() };
    match id.to_string().as_str() {
        "1.2.840.113549.1.1.1" => match rsa_bits(key) {
            Some(bits) => format!("an RSA key of {bits} bits"),
            None => "an RSA key".to_owned(),
        },
        "1.2.840.113549.1.1.10" => "an RSA key for PSS only".to_owned(),
        "1.2.840.10040.4.1" => "a DSA key".to_owned(),
        "1.2.840.10045.2.1" => match parts.oid() {
            Ok(curve) => format!("an ECDSA key on the curve {}", known(CURVES, &curve)),
            Err(_) => "an ECDSA key on an unnamed curve".to_owned(),
        },
        "1.3.101.112" => "an Ed25519 key".to_owned(),
        "1.3.101.113" => "an Ed448 key".to_owned(),
        id => format!("a key of the algorithm {id}"),
    }
}

/// False for an RSA key of an unsupported size, and for ML-DSA, which the crypto provider supports but only the newest Go
/// accepts in certificates. The curves are checked by the provider.
pub(super) fn is_fit(algorithm: &[u8], key: &[u8]) -> bool {
    let Ok(id) = Reader::new(algorithm).oid() else { return false };
    match id.to_string().as_str() {
        "1.2.840.113549.1.1.1" => rsa_bits(key).is_some_and(|bits| RSA.contains(&bits)),
        "1.2.840.10045.2.1" | "1.3.101.112" => true,
        _ => false,
    }
}

fn rsa_bits(key: &[u8]) -> Option<usize> {
    let parts = Reader::new(key).expect(Tag::SEQUENCE).ok()?;
    let modulus = Reader::new(parts.value).expect(Tag::INTEGER).ok()?.value;
    let digits = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
    Some(digits.len() * 8 - usize::try_from(digits.first()?.leading_zeros()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::rsa_without_a_key(&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0], false)]
    #[case::ecdsa(&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], true)]
    #[case::ed25519(&[6, 3, 0x2b, 0x65, 0x70], true)]
    #[case::ml_dsa_65(&[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 0x12], false)]
    #[case::none(&[], false)]
    fn key_algorithms_are_accepted_or_refused(#[case] algorithm: &[u8], #[case] fit: bool) {
        assert_eq!(is_fit(algorithm, &[]), fit);
    }
}
