//! TLS of a client: whom it trusts, and who it is. Where no CA is given it trusts those of the system, and says by
//! which of them the server was verified: that one goes out with the credential.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::CertifiedKey,
};

/// A client certificate with its key.
pub type Identity = Arc<CertifiedKey>;

/// Whom to trust.
#[derive(Clone, Copy)]
pub enum Roots<'a> {
    /// These certificates, in DER.
    Given(&'a [Vec<u8>]),
    /// Whatever the system trusts: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else where it keeps them.
    System,
    /// Nobody: for a server without TLS.
    Nobody,
}

/// The configuration of a client.
pub struct Tls {
    /// As rustls takes it.
    pub config: ClientConfig,
    anchor: Option<Arc<SystemVerifier>>,
}

impl Tls {
    /// Trusts these, and shows what the resolver has to show.
    ///
    /// # Errors
    /// There is nobody to trust.
    pub fn new(roots: Roots<'_>, identity: Option<Arc<dyn ResolvesClientCert>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let (builder, anchor) = match roots {
            Roots::System => {
                let verifier = Arc::new(SystemVerifier::load(provider)?);
                let custom: Arc<dyn ServerCertVerifier> = Arc::clone(&verifier) as _;
                (builder.dangerous().with_custom_certificate_verifier(custom), Some(verifier))
            }
            Roots::Given(certificates) => (builder.with_root_certificates(store(certificates)?), None),
            Roots::Nobody => (builder.with_root_certificates(RootCertStore::empty()), None),
        };
        let config = match identity {
            Some(identity) => {
                let mut config = builder.with_client_cert_resolver(identity);
                // A resumed session would show the certificate of the first one for ever.
                config.resumption = Resumption::disabled();
                config
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config, anchor })
    }

    /// Takes the configuration, and leaves what knows by which of the system's CAs the server is verified.
    #[must_use]
    pub fn split(self) -> (ClientConfig, Anchor) {
        (self.config, Anchor(self.anchor))
    }
}

/// What a verified server stands on.
pub struct Anchor(Option<Arc<SystemVerifier>>);

impl Anchor {
    /// The certificate of the system's CA that the server was verified against, in DER; none before there is a
    /// connection, and where the CA was given.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.0.as_ref()?.found.get().map(AsRef::as_ref)
    }
}

fn store(certificates: &[Vec<u8>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.as_slice().into())?;
    }
    Ok(roots)
}

/// Verifies by the system's CAs, and then looks for the one it was.
#[derive(Debug)]
struct SystemVerifier {
    roots: Vec<CertificateDer<'static>>,
    all: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    found: OnceLock<CertificateDer<'static>>,
}

impl SystemVerifier {
    fn load(provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let roots = rustls_native_certs::load_native_certs().certs;
        let mut store = RootCertStore::empty();
        // A system keeps what nobody can use any more beside what counts.
        store.add_parsable_certificates(roots.iter().cloned());
        if store.is_empty() {
            let text = "no CA is given, and the system has none: neither SSL_CERT_FILE, SSL_CERT_DIR nor its own store";
            return Err(rustls::Error::General(text.to_owned()));
        }
        let all = verifier(store, &provider)?;
        Ok(Self { roots, all, provider, found: OnceLock::new() })
    }
}

fn verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().map_err(|error| rustls::Error::General(error.to_string()))
}

impl ServerCertVerifier for SystemVerifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.all.verify_server_cert(server, intermediates, name, ocsp, now)?;
        if self.found.get().is_none() {
            let suffices = |root: &&CertificateDer<'static>| {
                let mut only = RootCertStore::empty();
                let added = only.add((*root).clone());
                let alone = added.and_then(|()| verifier(only, &self.provider));
                alone.is_ok_and(|it| it.verify_server_cert(server, intermediates, name, ocsp, now).is_ok())
            };
            let root = self.roots.iter().find(suffices).ok_or(CertificateError::UnknownIssuer)?;
            let _ = self.found.set(root.clone());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.all.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.all.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.all.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.all.root_hint_subjects()
    }
}

/// Reads a client certificate and its key, both PEM.
///
/// # Errors
/// What is wrong with them, without a part of them.
pub fn identity(certificate: &[u8], key: &[u8]) -> Result<Identity, &'static str> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or("is not the PEM of a certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "goes with a key that is not the PEM of a private key")?;
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "goes with a key that belongs to another certificate",
        _ => "or its key cannot be used",
    })?;
    Ok(Arc::new(pair))
}
