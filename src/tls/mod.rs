//! TLS of a client: whom it trusts, and who it is. Where no CA is given it trusts those of the system, and says by
//! which of them the server was verified: that one goes out with the credential.

mod fault;
mod identity;
mod verifier;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    sign::CertifiedKey,
};

pub use fault::{Fault, Kind};
pub use identity::{Identity, identity};
use verifier::Verifier;

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

/// What is done with keys. One for all: rustls panics where it has to choose between two.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// The configuration of a client.
pub struct Tls {
    /// As rustls takes it.
    pub config: ClientConfig,
    /// What knows how its handshakes go.
    pub witness: Witness,
}

impl Tls {
    /// Trusts these, and shows what the resolver has to show.
    ///
    /// # Errors
    /// There is nobody to trust.
    pub fn new(roots: Roots<'_>, identity: Option<Arc<dyn ResolvesClientCert>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let verifier = Arc::new(match roots {
            Roots::Given(certificates) => Verifier::of(certificates.to_vec(), &provider),
            Roots::System => Verifier::of_the_system(&provider)?,
            Roots::Nobody => Verifier::of(Vec::new(), &provider),
        });
        let resolver = Arc::new(Resolver { identity, ..Resolver::default() });
        let anchor = matches!(roots, Roots::System).then(|| Arc::clone(&verifier));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // so rustls calls every verifier but webpki's
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&resolver) as _);
        if resolver.identity.is_some() {
            // A resumed session would show the certificate of the first one for ever.
            config.resumption = Resumption::disabled();
        }
        Ok(Self { config, witness: Witness { anchor, resolver } })
    }
}

/// How the handshakes with one server went.
#[derive(Clone)]
pub struct Witness {
    anchor: Option<Arc<Verifier>>,
    resolver: Arc<Resolver>,
}

impl Witness {
    /// The certificate of the system's CA that the server was verified against, in DER; none before there is a
    /// connection, and where the CA was given.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.anchor.as_ref()?.found()
    }

    /// Whether the server asked for a client certificate, and got one.
    #[must_use]
    pub fn showed_certificate(&self) -> bool {
        self.resolver.showed.load(Ordering::Relaxed)
    }

    /// A connection has ended with this error: an alert about certificates is remembered.
    pub fn saw(&self, error: &std::io::Error) {
        let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(fault) = error.map(Fault::of).filter(Fault::is_about_certificates) {
            let _ = self.resolver.refusal.set(fault); // the first stays
        }
    }

    /// What the server has said of the client certificate, or of there being none, if it has refused that.
    #[must_use]
    pub fn refusal(&self) -> Option<Fault> {
        self.resolver.refusal.get().map(|fault| self.explain(fault.clone()))
    }

    /// Says more of a failure, knowing whether the server asked for a certificate.
    #[must_use]
    pub fn explain(&self, fault: Fault) -> Fault {
        if self.resolver.asked.load(Ordering::Relaxed) { fault.when_asked(self.showed_certificate()) } else { fault }
    }
}

/// Shows what there is to show, and remembers whether it was asked for.
#[derive(Debug, Default)]
struct Resolver {
    identity: Option<Arc<dyn ResolvesClientCert>>,
    asked: AtomicBool,
    showed: AtomicBool,
    refusal: OnceLock<Fault>,
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        let identity = self.identity.as_ref()?.resolve(issuers, schemes)?;
        self.showed.store(true, Ordering::Relaxed);
        Some(identity)
    }

    fn has_certs(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.has_certs())
    }
}
