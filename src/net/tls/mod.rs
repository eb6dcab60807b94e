//! Client-side TLS: trusted CAs and client certificate. Without a given CA, the system trust store is used, and the CA that
//! verified the server is recorded: it is published with the credential.

mod fault;
mod verifier;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use crate::endpoint::client_certificate::provider;
use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    sign::CertifiedKey,
};

pub(crate) use fault::{Fault, Kind};
use verifier::Verifier;

/// The CAs to trust.
#[derive(Clone, Copy)]
pub(crate) enum TrustRoots<'a> {
    /// These certificates, in DER.
    Given(&'a [Vec<u8>]),
    /// The system trust store: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the platform's own.
    System,
    /// None: for a server without TLS.
    Nobody,
}

/// TLS configuration of a client.
pub(crate) struct Tls {
    /// For rustls.
    pub(crate) config: ClientConfig,
    /// Records the outcome of its handshakes.
    pub(crate) witness: Witness,
}

impl Tls {
    /// Trusts these CAs and presents the resolver's certificate.
    ///
    /// # Errors
    /// No CA to trust.
    pub(crate) fn new(
        roots: TrustRoots<'_>,
        identity: Option<Arc<dyn ResolvesClientCert>>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let verifier = Arc::new(match roots {
            TrustRoots::Given(certificates) => Verifier::of(certificates.to_vec(), &provider),
            TrustRoots::System => Verifier::of_the_system(&provider)?,
            TrustRoots::Nobody => Verifier::of(Vec::new(), &provider),
        });
        let resolver = Arc::new(Resolver { identity, ..Resolver::default() });
        let anchor = matches!(roots, TrustRoots::System).then(|| Arc::clone(&verifier));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // the name rustls gives every verifier but webpki's
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&resolver) as _);
        if resolver.identity.is_some() {
            // A resumed session would present the first certificate again, even after it was renewed.
            config.resumption = Resumption::disabled();
        }
        Ok(Self { config, witness: Witness { anchor, resolver } })
    }
}

/// Outcome of the handshakes with one server.
#[derive(Clone)]
pub(crate) struct Witness {
    anchor: Option<Arc<Verifier>>,
    resolver: Arc<Resolver>,
}

impl Witness {
    /// The CA of the system trust store that verified the server, in DER; none before the first connection, and if a CA
    /// was given.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        self.anchor.as_ref()?.found()
    }

    /// Whether the server requested a client certificate and received one.
    pub(crate) fn showed_certificate(&self) -> bool {
        self.resolver.showed.load(Ordering::Relaxed)
    }

    /// Records the error that ended a connection, if it is an alert about certificates.
    pub(crate) fn saw(&self, error: &std::io::Error) {
        let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(fault) = error.map(Fault::of).filter(Fault::is_about_certificates) {
            let _ = self.resolver.refusal.set(fault); // the first one is kept
        }
    }

    /// The server's alert about the client certificate or its absence, if it has sent one.
    pub(crate) fn refusal(&self) -> Option<Fault> {
        self.resolver.refusal.get().map(|fault| self.explain(fault.clone()))
    }

    /// Refines a failure by whether the server requested a client certificate.
    pub(crate) fn explain(&self, fault: Fault) -> Fault {
        if self.resolver.asked.load(Ordering::Relaxed) { fault.when_asked(self.showed_certificate()) } else { fault }
    }
}

/// Presents the client certificate, and records whether it was requested.
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
