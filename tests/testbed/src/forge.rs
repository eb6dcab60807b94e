//! Forged certificates, encoded byte by byte: any version, any extension, and signature algorithms that current
//! libraries do not offer. For tests of certificate verification. Pure.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

use crate::control_plane::ControlPlane;
use crate::error::{OrFail as _, fail};
use crate::pki;
use crate::rsa::{self, RsaKey, tagged};

const SEQUENCE: u8 = 0x30;
const RSA: &str = "1.2.840.113549.1.1.1";

/// A private key.
#[derive(Debug)]
pub enum Key {
    /// RSA.
    Rsa(Box<RsaPair>),
    /// All other algorithms.
    Other(Box<KeyPair>),
}

/// An RSA key.
#[derive(Debug)]
pub struct RsaPair(RsaKey);

/// The hash of RSA signatures; other keys have a hash of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sign {
    /// SHA-1: broken, and refused by Go.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Key {
    /// An RSA key of this size.
    pub fn rsa(bits: usize) -> Self {
        Self::Rsa(Box::new(RsaPair(rsa::key(bits))))
    }

    /// ECDSA on P-256.
    pub fn p256() -> Self {
        Self::of(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// ECDSA on P-384.
    pub fn p384() -> Self {
        Self::of(&rcgen::PKCS_ECDSA_P384_SHA384)
    }

    /// ECDSA on P-521.
    pub fn p521() -> Self {
        Self::of(&rcgen::PKCS_ECDSA_P521_SHA512)
    }

    /// Ed25519.
    pub fn ed25519() -> Self {
        Self::of(&rcgen::PKCS_ED25519)
    }

    /// A copy of the key, for two certificates.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Rsa(key) => Self::Rsa(Box::new(RsaPair(key.0.clone()))),
            Self::Other(key) => {
                let der = key.serialize_der();
                Self::Other(Box::new(KeyPair::try_from(der.as_slice()).or_fail("reading a key")))
            }
        }
    }

    fn of(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        Self::Other(Box::new(KeyPair::generate_for(algorithm).or_fail("making a key")))
    }

    /// PKCS#8, as DER.
    pub fn pkcs8(&self) -> Vec<u8> {
        match self {
            Self::Other(key) => key.serialize_der(),
            Self::Rsa(key) => {
                let algorithm = sequence(&[oid(RSA), vec![5, 0]]);
                sequence(&[vec![2, 1, 0], algorithm, tagged(4, &key.0.der)])
            }
        }
    }

    /// PKCS#8, as PEM.
    pub fn pem(&self) -> String {
        pki::pem("PRIVATE KEY", &self.pkcs8())
    }

    /// The traditional format as PEM: PKCS#1 or SEC 1. `with_public_key` is for SEC 1 only, where the public key is
    /// optional.
    pub fn traditional_pem(&self, with_public_key: bool) -> String {
        match self {
            Self::Rsa(key) => pki::pem("RSA PRIVATE KEY", &key.0.der),
            Self::Other(key) => {
                let (curve, length) = match key.algorithm() {
                    it if *it == rcgen::PKCS_ECDSA_P256_SHA256 => ("1.2.840.10045.3.1.7", 32),
                    it if *it == rcgen::PKCS_ECDSA_P384_SHA384 => ("1.3.132.0.34", 48),
                    it if *it == rcgen::PKCS_ECDSA_P521_SHA512 => ("1.3.132.0.35", 66),
                    _ => fail("Ed25519 has no traditional format"),
                };
                // PKCS#8 holds it as `04 L 30 .. 02 01 01 04 length scalar`.
                let whole = key.serialize_der();
                let mark = [2, 1, 1, 4, length];
                let at = whole.windows(mark.len()).position(|window| window == mark);
                let at = at.unwrap_or_else(|| fail("no scalar in a key")) + mark.len();
                let scalar = &whole[at..at + usize::from(length)];
                let mut parts = vec![vec![2, 1, 1], tagged(4, scalar), tagged(0xa0, &oid(curve))];
                if with_public_key {
                    let point = [&[0], key.der_bytes()].concat();
                    parts.push(tagged(0xa1, &tagged(3, &point)));
                }
                pki::pem("EC PRIVATE KEY", &sequence(&parts))
            }
        }
    }

    fn public(&self) -> Vec<u8> {
        match self {
            Self::Other(key) => key.subject_public_key_info(),
            Self::Rsa(key) => {
                let bits = [vec![0], key.0.public()].concat();
                sequence(&[sequence(&[oid(RSA), vec![5, 0]]), tagged(3, &bits)])
            }
        }
    }

    /// The AlgorithmIdentifier of its signatures.
    fn algorithm(&self, sign: Sign) -> Vec<u8> {
        match self {
            Self::Rsa(_) => sequence(&[oid(sign.with_rsa()), vec![5, 0]]),
            Self::Other(key) => match key.algorithm() {
                it if *it == rcgen::PKCS_ECDSA_P256_SHA256 => sequence(&[oid("1.2.840.10045.4.3.2")]),
                it if *it == rcgen::PKCS_ECDSA_P384_SHA384 => sequence(&[oid("1.2.840.10045.4.3.3")]),
                it if *it == rcgen::PKCS_ECDSA_P521_SHA512 => sequence(&[oid("1.2.840.10045.4.3.4")]),
                _ => sequence(&[oid("1.3.101.112")]),
            },
        }
    }

    fn sign(&self, sign: Sign, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Other(key) => key.sign(bytes).or_fail("signing"),
            Self::Rsa(key) => {
                let (hash, id) = sign.hash();
                let digest = digest::digest(hash, bytes);
                key.0.sign(&sequence(&[sequence(&[oid(id), vec![5, 0]]), tagged(4, digest.as_ref())]))
            }
        }
    }
}

impl Sign {
    const fn with_rsa(self) -> &'static str {
        match self {
            Self::Sha1 => "1.2.840.113549.1.1.5",
            Self::Sha256 => "1.2.840.113549.1.1.11",
            Self::Sha384 => "1.2.840.113549.1.1.12",
            Self::Sha512 => "1.2.840.113549.1.1.13",
        }
    }

    const fn hash(self) -> (&'static digest::Algorithm, &'static str) {
        match self {
            Self::Sha1 => (&SHA1_FOR_LEGACY_USE_ONLY, "1.3.14.3.2.26"),
            Self::Sha256 => (&SHA256, "2.16.840.1.101.3.4.2.1"),
            Self::Sha384 => (&SHA384, "2.16.840.1.101.3.4.2.2"),
            Self::Sha512 => (&SHA512, "2.16.840.1.101.3.4.2.3"),
        }
    }
}

/// The fields of a certificate.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Version: 1, 2 or 3.
    pub version: u8,
    /// Serial number, as the bytes of an INTEGER.
    pub serial: Vec<u8>,
    /// Common name.
    pub name: String,
    /// Organizations; an API server reads them as groups.
    pub groups: Vec<String>,
    /// Start and end of the validity, as `YYYYMMDDHHMMSSZ`.
    pub valid: (&'static str, &'static str),
    /// Extensions of version 3.
    pub extensions: Vec<Vec<u8>>,
    /// The hash of an RSA signature on it.
    pub sign: Sign,
}

impl Spec {
    /// A certificate with this common name, a long validity and no extensions.
    pub fn new(name: &str) -> Self {
        Self {
            version: 3,
            serial: vec![7],
            name: name.to_owned(),
            groups: Vec::new(),
            valid: ("20250101000000Z", "20991231235959Z"),
            extensions: Vec::new(),
            sign: Sign::default(),
        }
    }

    /// Adds an extension.
    #[must_use]
    pub fn with(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    /// A valid CA.
    pub fn ca(name: &str) -> Self {
        Self::new(name).with(extension::basic(true, None)).with(extension::key_usage(true))
    }

    /// A valid server certificate for loopback.
    pub fn server() -> Self {
        Self::new("kube-apiserver")
            .with(extension::basic(false, None))
            .with(extension::usages(&[extension::SERVER]))
            .with(extension::names(&["localhost"], &[&[127, 0, 0, 1]]))
    }

    fn subject(&self) -> Vec<u8> {
        let attribute = |id: &str, text: &str| tagged(0x31, &sequence(&[oid(id), tagged(0x0c, text.as_bytes())]));
        let mut parts: Vec<Vec<u8>> = self.groups.iter().map(|group| attribute("2.5.4.10", group)).collect();
        parts.push(attribute("2.5.4.3", &self.name));
        sequence(&parts)
    }

    fn body(&self, key: &Key, issuer: &[u8], algorithm: &[u8]) -> Vec<u8> {
        let mut parts = Vec::new();
        if self.version > 1 {
            parts.push(tagged(0xa0, &[2, 1, self.version - 1]));
        }
        let time = |text: &str| match text.as_bytes() {
            [b'2', b'0', b'0'..=b'4', ..] => tagged(0x17, &text.as_bytes()[2..]),
            _ => tagged(0x18, text.as_bytes()),
        };
        let valid = sequence(&[time(self.valid.0), time(self.valid.1)]);
        parts.extend([
            tagged(2, &self.serial),
            algorithm.to_vec(),
            issuer.to_vec(),
            valid,
            self.subject(),
            key.public(),
        ]);
        if self.version == 3 && !self.extensions.is_empty() {
            parts.push(tagged(0xa3, &sequence(&self.extensions)));
        }
        sequence(&parts)
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Forged {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its key.
    pub key: Key,
    subject: Vec<u8>,
}

impl Forged {
    /// A self-signed certificate.
    pub fn self_signed(spec: &Spec, key: Key) -> Self {
        let algorithm = key.algorithm(spec.sign);
        let body = spec.body(&key, &spec.subject(), &algorithm);
        let signature = key.sign(spec.sign, &body);
        Self { der: finished(&body, &algorithm, &signature), key, subject: spec.subject() }
    }

    /// A certificate signed by the issuer's key, with the hash in the specification.
    pub fn signed_by(issuer: &impl Issuer, spec: &Spec, key: Key) -> Self {
        let algorithm = issuer.algorithm(spec.sign);
        let body = spec.body(&key, &issuer.subject(), &algorithm);
        let signature = issuer.sign(spec.sign, &body);
        Self { der: finished(&body, &algorithm, &signature), key, subject: spec.subject() }
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        pki::pem("CERTIFICATE", &self.der)
    }

    /// Base64 of the PEM, as in `certificate-authority-data`.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.pem())
    }
}

fn finished(body: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    sequence(&[body.to_vec(), algorithm.to_vec(), tagged(3, &[&[0], signature].concat())])
}

/// A signer of certificates.
pub trait Issuer {
    /// Its name, as DER.
    fn subject(&self) -> Vec<u8>;
    /// The algorithm of its signatures, as DER.
    fn algorithm(&self, sign: Sign) -> Vec<u8>;
    /// A signature.
    fn sign(&self, sign: Sign, bytes: &[u8]) -> Vec<u8>;
}

impl Issuer for Forged {
    fn subject(&self) -> Vec<u8> {
        self.subject.clone()
    }

    fn algorithm(&self, sign: Sign) -> Vec<u8> {
        self.key.algorithm(sign)
    }

    fn sign(&self, sign: Sign, bytes: &[u8]) -> Vec<u8> {
        self.key.sign(sign, bytes)
    }
}

/// The CA of a cluster.
impl Issuer for ControlPlane {
    fn subject(&self) -> Vec<u8> {
        Spec::new(self.authority().name()).subject()
    }

    fn algorithm(&self, _: Sign) -> Vec<u8> {
        sequence(&[oid("1.2.840.10045.4.3.2")])
    }

    fn sign(&self, _: Sign, bytes: &[u8]) -> Vec<u8> {
        self.authority().sign_bytes(bytes).or_fail("signing")
    }
}

/// Extensions, as DER.
pub mod extension {
    use super::{oid, sequence, tagged};

    /// For servers.
    pub const SERVER: &str = "1.3.6.1.5.5.7.3.1";
    /// For clients.
    pub const CLIENT: &str = "1.3.6.1.5.5.7.3.2";
    /// For anything.
    pub const ANY: &str = "2.5.29.37.0";

    /// An extension with any id and value.
    pub fn other(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
        let mut parts = vec![oid(id)];
        if critical {
            parts.push(vec![1, 1, 0xff]);
        }
        parts.push(tagged(4, value));
        sequence(&parts)
    }

    /// Basic constraints.
    pub fn basic(ca: bool, longest_path: Option<u8>) -> Vec<u8> {
        let mut parts = Vec::new();
        if ca {
            parts.push(vec![1, 1, 0xff]);
        }
        parts.extend(longest_path.map(|length| vec![2, 1, length]));
        other("2.5.29.19", true, &sequence(&parts))
    }

    /// Key usage: signing certificates, or digital signatures only.
    pub fn key_usage(signs_certificates: bool) -> Vec<u8> {
        other("2.5.29.15", true, if signs_certificates { &[3, 2, 1, 6] } else { &[3, 2, 7, 0x80] })
    }

    /// Extended key usage.
    pub fn usages(ids: &[&str]) -> Vec<u8> {
        other("2.5.29.37", false, &sequence(&ids.iter().map(|id| oid(id)).collect::<Vec<_>>()))
    }

    /// Subject alternative names.
    pub fn names(dns: &[&str], addresses: &[&[u8]]) -> Vec<u8> {
        let dns = dns.iter().map(|name| tagged(0x82, name.as_bytes()));
        let addresses = addresses.iter().map(|address| tagged(0x87, address));
        other("2.5.29.17", false, &sequence(&dns.chain(addresses).collect::<Vec<_>>()))
    }

    /// Name constraints: permitted and excluded subtrees, each with the tag of its kind (0x82 DNS, 0x87 addresses).
    pub fn constraints(permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> Vec<u8> {
        let list = |tag: u8, some: &[(u8, &[u8])]| {
            let some: Vec<_> = some.iter().map(|(kind, value)| sequence(&[tagged(*kind, value)])).collect();
            if some.is_empty() { Vec::new() } else { tagged(tag, &some.concat()) }
        };
        other("2.5.29.30", true, &sequence(&[list(0xa0, permitted), list(0xa1, excluded)]))
    }
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

/// DER: OBJECT IDENTIFIER.
fn oid(text: &str) -> Vec<u8> {
    let numbers: Vec<u32> = text.split('.').filter_map(|number| number.parse().ok()).collect();
    let [first, second, rest @ ..] = numbers.as_slice() else { fail("not an object identifier") };
    let mut bytes = Vec::new();
    for number in [first * 40 + second].iter().chain(rest) {
        let groups = (32 - number.leading_zeros()).div_ceil(7).max(1);
        for group in (0..groups).rev() {
            let seven = u8::try_from(number >> (group * 7) & 0x7f).unwrap_or_default();
            bytes.push(if group == 0 { seven } else { seven | 0x80 });
        }
    }
    tagged(6, &bytes)
}
