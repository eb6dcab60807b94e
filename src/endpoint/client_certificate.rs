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
