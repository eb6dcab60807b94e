//! A client certificate with its private key, parsed as Go's `tls.X509KeyPair` parses them. A client only sends the
//! certificate and signs with the key, so the contents of the certificate do not matter here. Pure.

use std::sync::Arc;

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::{CertifiedKey, SigningKey},
};

use crate::x509::{
    self, Certificate, Unreadable,
    pem_blocks::{Block, blocks},
};

/// The crypto provider. It is passed explicitly: rustls panics if it has to choose between two.
pub(crate) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// A client certificate with its private key.
pub(crate) type ClientCertificate = Arc<CertifiedKey>;

/// Parses a client certificate and its key from PEM. Blocks of other types are skipped, so both can be in one file.
///
/// # Errors
/// What is wrong with them, without any part of them.
pub(crate) fn identity(certificate: &[u8], key: &[u8]) -> Result<ClientCertificate, String> {
    let found = blocks(certificate);
    let chain: Vec<_> = found.iter().filter(|block| block.is_certificate()).map(|block| block.der.clone()).collect();
    let Some(first) = chain.first() else {
        let swapped = found.iter().any(Block::is_private_key);
        let with_key = "contains a private key and no certificate: perhaps the certificate and client-key are swapped";
        return Err(if swapped { with_key } else { "is not a certificate in PEM format" }.to_owned());
    };
    let leaf = Certificate::parse(first).map_err(|Unreadable(why)| why.to_owned())?;
    let found = blocks(key);
    let Some(key) = found.iter().find(|block| block.is_private_key()) else {
        let swapped = found.iter().any(Block::is_certificate);
        let with_certificate = "has a client-key that contains a certificate and no private key";
        return Err(
            if swapped { with_certificate } else { "has a key that is not a private key in PEM format" }.to_owned()
        );
    };
    // As in Go, an unencrypted key with an encryption header is accepted.
    let signer = signer(&key.der).ok_or_else(|| {
        if key.is_encrypted() {
            return "has a key that is encrypted with a passphrase, which kubectl does not support either: decrypt the \
                    key, as with `openssl pkey -in KEY -out NEW`"
                .to_owned();
        }
        let kind = x509::key(leaf.key_algorithm, leaf.key);
        format!(
            "has a key that cannot be used: the certificate has {kind}, and the key is damaged, of another type, or of \
             a type that is not supported. Supported are RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and \
             Ed25519: get a certificate for such a key"
        )
    })?;
    // Compares the SubjectPublicKeyInfo; every signer of the provider has one.
    let own = signer.public_key();
    if own.is_some_and(|own| own.as_ref() != leaf.key_info) {
        return Err("has a key that belongs to another certificate".to_owned());
    }
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Ok(Arc::new(CertifiedKey::new(chain, signer)))
}

/// The format is detected from the bytes: Go ignores the type in the BEGIN line, too.
fn signer(der: &[u8]) -> Option<Arc<dyn SigningKey>> {
    let key = PrivateKeyDer::try_from(der).ok()?.clone_key();
    provider().key_provider.load_private_key(key).ok()
}

#[cfg(test)]
mod tests {
    use testbed::{Forged, Key, Spec};

    use super::*;

    fn block(label: &str, content: &[u8]) -> String {
        pem::encode(&pem::Pem::new(label, content))
    }

    #[test]
    fn certificate_with_its_key_is_accepted() {
        for key in [Key::rsa(2048), Key::p256(), Key::p384(), Key::p521(), Key::ed25519()] {
            let client = Forged::self_signed(&Spec::new("admin"), key);
            let issuer = Forged::self_signed(&Spec::ca("ca"), Key::p256());
            let one_file = client.key.pem() + &client.pem() + &issuer.pem();
            let mislabelled = block("RSA PRIVATE KEY", &client.key.pkcs8());
            let text_around = format!("subject=admin\n{}end\n", client.pem());
            for (certificate, key, length) in
                [(client.pem(), client.key.pem(), 1), (one_file.clone(), one_file, 2), (text_around, mislabelled, 1)]
            {
                let identity = identity(certificate.as_bytes(), key.as_bytes()).unwrap();
                assert_eq!((identity.cert.len(), identity.cert[0].as_ref()), (length, client.der.as_slice()));
            }
        }
    }

    #[test]
    fn mismatched_certificate_and_key_are_refused() {
        let client = Forged::self_signed(&Spec::new("admin"), Key::p256());
        let (certificate, key) = (client.pem(), client.key.pem());
        let weak = Forged::self_signed(&Spec::new("admin"), Key::rsa(1024));
        let damaged = block("PRIVATE KEY", &client.key.pkcs8()[1..]);
        let encrypted = block("ENCRYPTED PRIVATE KEY", b"hello");
        for (certificate, key, problem) in [
            (String::new(), key.clone(), "is not a certificate in PEM format"),
            (block("CERTIFICATE REQUEST", &client.der), key.clone(), "is not a certificate in PEM format"),
            (key.clone(), certificate.clone(), "contains a private key and no certificate"),
            (block("CERTIFICATE", b"hello"), key.clone(), "is not the DER of a certificate"),
            (certificate.clone(), String::new(), "has a key that is not a private key in PEM format"),
            (certificate.clone(), certificate.clone(), "has a client-key that contains a certificate"),
            (certificate.clone(), encrypted, "has a key that is encrypted with a passphrase"),
            (certificate.clone(), damaged, "has a key that cannot be used: the certificate has an ECDSA key"),
            (weak.pem(), weak.key.pem(), "has a key that cannot be used: the certificate has an RSA key of 1024 bits"),
            (certificate.clone(), Key::p256().pem(), "has a key that belongs to another certificate"),
            (certificate, Key::ed25519().pem(), "has a key that belongs to another certificate"),
        ] {
            let found = identity(certificate.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(found.starts_with(problem), "{found} (expected {problem})");
        }
    }
}
