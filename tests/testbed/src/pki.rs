//! The certificates of a control plane, and wrong ones for tests. Pure: keys and certificates are PEM text, no file is
//! written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SigningKey as _,
};

use crate::error::{Doing, Error};

/// A client certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS#8).
    pub key: String,
}

impl ClientCertificate {
    /// A certificate for a user, signed by an unknown CA.
    pub fn with_unknown_ca(user: &str) -> Self {
        let signed = Authority::new("somebody-else").and_then(|authority| authority.client(user, &[]));
        crate::error::OrFail::or_fail(signed, "making a stranger's certificate")
    }
}

/// A certificate authority that signs servers and clients.
pub(crate) struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().doing("making a key")?;
        let issuer = CertifiedIssuer::self_signed(params, key).doing("making the CA")?;
        Ok(Self { name: name.to_owned(), issuer })
    }

    /// Its common name, its only name attribute.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Signs with ECDSA on P-256 and SHA-256.
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.issuer.key().sign(bytes).doing("signing")
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for an API server on loopback, with every name that clients use.
    pub(crate) fn server(&self) -> Result<ClientCertificate, Error> {
        let mut params = params("kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            SanType::DnsName("localhost".try_into().doing("naming the server")?),
        ];
        self.sign(&params)
    }

    /// A certificate for a user (common name) in groups (organizations), as the API server reads it.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Result<ClientCertificate, Error> {
        let mut params = params(user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // rcgen keeps one value per type, and knows two spellings of "organization".
        let spellings = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if groups.len() > spellings.len() {
            return Err(Error::new("a client certificate has at most two groups here"));
        }
        for (spelling, group) in spellings.into_iter().zip(groups) {
            params.distinguished_name.push(spelling, *group);
        }
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<ClientCertificate, Error> {
        let key = KeyPair::generate().doing("making a key")?;
        let certificate = params.signed_by(&key, &self.issuer).doing("signing a certificate")?;
        Ok(ClientCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A certificate authority that has signed nothing: the wrong CA for a connection.
#[derive(Clone, Debug)]
pub struct WrongCa {
    pem: String,
}

impl WrongCa {
    /// A new one.
    pub fn new() -> Self {
        let authority = Authority::new("somebody-else");
        Self { pem: crate::error::OrFail::or_fail(authority, "making another CA").pem() }
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Base64 of the PEM, as in `certificate-authority-data`.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.pem)
    }
}

impl Default for WrongCa {
    fn default() -> Self {
        Self::new()
    }
}

/// An EC P-256 key: the ServiceAccount signing key of a cluster whose token signatures differ every time. The public
/// half is added because the API server derives it only from RSA keys and SEC 1.
pub(crate) fn ec_key() -> Result<String, Error> {
    let key = KeyPair::generate().doing("making a key")?;
    Ok(key.serialize_pem() + &key.public_key_pem())
}

/// PEM around DER.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out + &format!("\n-----END {label}-----\n")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
