//! Server certificate verifier for rustls: chains are verified by `x509/`, signatures by the crypto provider.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
};

use crate::x509::{Certificate, Flaw, Judge, Unreadable};

/// Verifies servers against its CAs, and records the CA of the last successful verification: a handshake can fail after
/// that, and the next connection can reach a server with another CA.
#[derive(Debug)]
pub(crate) struct Verifier {
    roots: Vec<Vec<u8>>,
    by_system: bool,
    algorithms: WebPkiSupportedAlgorithms,
    /// Index of that CA; none before the first verification.
    found: AtomicUsize,
}

impl Verifier {
    /// A verifier with these CAs, in DER.
    pub(crate) fn of(roots: Vec<Vec<u8>>, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            by_system: false,
            algorithms: provider.signature_verification_algorithms,
            found: AtomicUsize::new(usize::MAX),
        }
    }

    /// A verifier with the system trust store.
    ///
    /// # Errors
    /// The store is empty.
    pub(crate) fn of_the_system(provider: &CryptoProvider) -> Result<Self, Error> {
        let roots = rustls_native_certs::load_native_certs().certs;
        // System trust stores also contain unusable certificates.
        let roots: Vec<_> =
            roots.iter().map(|root| root.to_vec()).filter(|root| Certificate::parse(root).is_ok()).collect();
        if roots.is_empty() {
            let text = "no CA was given, and the system has none (neither in SSL_CERT_FILE and SSL_CERT_DIR nor in its \
                        trust store)";
            return Err(Error::General(text.to_owned()));
        }
        Ok(Self { by_system: true, ..Self::of(roots, provider) })
    }

    /// The CA that verified the server, in DER.
    pub(crate) fn found(&self) -> Option<&[u8]> {
        self.roots.get(self.found.load(Ordering::Relaxed)).map(Vec::as_slice)
    }
}

fn refused(flaw: Flaw) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(flaw))))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>, whose: &str) -> Result<Certificate<'a>, Error> {
    Certificate::parse(certificate).map_err(|Unreadable(why)| {
        refused(Flaw::Other {
            cause: format!("{whose} {why}"),
            next: "reissue the server's certificate, then run again",
        })
    })
}

fn host(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = parse(server, "the server's certificate")?;
        let sent = intermediates.iter().map(|it| parse(it, "an intermediate certificate that the server sent"));
        let intermediates = sent.collect::<Result<Vec<_>, _>>()?;
        let roots: Vec<_> =
            self.roots.iter().enumerate().filter_map(|(at, root)| Some((at, Certificate::parse(root).ok()?))).collect();
        let (places, roots): (Vec<_>, Vec<_>) = roots.into_iter().unzip();
        let judge = Judge {
            roots: &roots,
            by_system: self.by_system,
            intermediates: &intermediates,
            now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            algorithms: self.algorithms.all,
        };
        let place = judge.judge(&leaf, &host(name)).map_err(refused)?;
        if let Some(place) = places.get(place) {
            self.found.store(*place, Ordering::Relaxed);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(certificate, "the server's certificate")?;
        let mut mapping = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
        // In TLS 1.2 the scheme does not determine the curve.
        let fitting = mapping
            .next()
            .and_then(|(_, some)| some.iter().find(|it| it.public_key_alg_id().as_ref() == certificate.key_algorithm));
        let verified = fitting.map(|it| it.verify_signature(certificate.key, message, signature.signature()));
        match verified {
            Some(Ok(())) => Ok(HandshakeSignatureValid::assertion()),
            Some(Err(_)) | None => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(certificate, "the server's certificate")?;
        let key = SubjectPublicKeyInfoDer::from(certificate.key_info);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        // Schemes that are not accepted in a certificate are not offered: a server with two certificates would choose that one.
        let is_post_quantum = |scheme: &SignatureScheme| {
            matches!(scheme, SignatureScheme::ML_DSA_44 | SignatureScheme::ML_DSA_65 | SignatureScheme::ML_DSA_87)
        };
        self.algorithms.supported_schemes().into_iter().filter(|scheme| !is_post_quantum(scheme)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testbed::{Forged, Key, Spec};

    #[test]
    fn offered_signature_schemes_match_kubectl() {
        let verifier = Verifier::of(Vec::new(), &rustls::crypto::aws_lc_rs::default_provider());
        let schemes = verifier.supported_verify_schemes();
        assert!(schemes.contains(&SignatureScheme::ED25519) && !schemes.contains(&SignatureScheme::ML_DSA_65));
    }

    #[test]
    fn recorded_ca_verified_the_last_server() {
        let cas = ["one", "other"].map(|name| Forged::self_signed(&Spec::ca(name), Key::p256()));
        let roots = cas.iter().map(|ca| ca.der.clone()).collect();
        let verifier = Verifier::of(roots, &rustls::crypto::aws_lc_rs::default_provider());
        assert_eq!(verifier.found(), None);
        let name = ServerName::try_from("localhost").unwrap();
        let verify = |server: &Forged| {
            let server = CertificateDer::from(server.der.as_slice());
            verifier.verify_server_cert(&server, &[], &name, &[], UnixTime::now())
        };
        for ca in &cas {
            verify(&Forged::signed_by(ca, &Spec::server(), Key::p256())).unwrap();
            assert_eq!(verifier.found(), Some(ca.der.as_slice()));
        }
        let stranger = Forged::self_signed(&Spec::ca("third"), Key::p256());
        assert!(verify(&Forged::signed_by(&stranger, &Spec::server(), Key::p256())).is_err());
        assert_eq!(verifier.found(), Some(cas[1].der.as_slice()));
    }
}
