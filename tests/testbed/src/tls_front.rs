//! A server that terminates TLS in front of the API server, with any certificate, and passes on every byte, as a load
//! balancer or front proxy does. Uses loopback.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::control_plane::ControlPlane;
use crate::error::{Doing, Error, OrFail};
use crate::forge::Forged;

/// The response of nginx to a client without a certificate.
const PAGE: &str = "<html><head><title>400 No required SSL certificate was sent</title></head></html>\r\n";

/// Differences from the default: TLS 1.2 and 1.3, HTTP/1.1, no client certificate requested.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrontOptions<'a> {
    /// The CA of the required client certificates.
    pub client_ca: Option<&'a Forged>,
    /// A missing client certificate is reported by HTTP instead of a TLS alert.
    pub reports_in_http: bool,
    /// TLS 1.2 only.
    pub tls_1_2: bool,
    /// HTTP/2 as well.
    pub http2: bool,
}

/// A running front proxy. Stops on drop.
pub struct TlsFront {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl fmt::Debug for TlsFront {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsFront").field("address", &self.address).finish_non_exhaustive()
    }
}

impl TlsFront {
    /// Starts it in front of this control plane, with this chain, the server's own certificate first.
    #[must_use]
    #[track_caller]
    pub fn start(control_plane: &ControlPlane, chain: &[&Forged], options: FrontOptions<'_>) -> Self {
        Self::open(control_plane, chain, options).or_fail("starting a TLS server")
    }

    fn open(control_plane: &ControlPlane, chain: &[&Forged], options: FrontOptions<'_>) -> Result<Self, Error> {
        let front = Arc::new(Front::new(control_plane, chain, options)?);
        let listener = TcpListener::bind("127.0.0.1:0").doing("listening")?;
        let address = listener.local_addr().doing("listening")?;
        listener.set_nonblocking(true).doing("listening")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing("creating a runtime")?;
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = front.serve(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, _stop: stop })
    }

    /// `https://<host>:<port>`; the host must lead to loopback.
    pub fn server(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }
}

struct Front {
    acceptor: TlsAcceptor,
    /// Over HTTP/1.1, and over HTTP/2.
    connectors: [TlsConnector; 2],
    server: String,
    reports_in_http: bool,
}

/// Presents one certificate for every name.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Front {
    fn new(control_plane: &ControlPlane, chain: &[&Forged], options: FrontOptions<'_>) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions: &[&SupportedProtocolVersion] =
            if options.tls_1_2 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
        let key = chain.first().map(|leaf| leaf.key.pkcs8()).ok_or_else(|| Error::new("a chain has a leaf"))?;
        let key = PrivateKeyDer::try_from(key).doing("reading a key")?;
        let key = provider.key_provider.load_private_key(key).doing("reading a key")?;
        let certificates = chain.iter().map(|it| CertificateDer::from(it.der.clone())).collect();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .doing("choosing TLS versions")?;
        let builder = match options.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.der.clone().into()).doing("reading the CA of clients")?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                let verifier = if options.reports_in_http { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().doing("asking for certificates")?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(certificates, key)))));
        let protocols: &[&[u8]] = if options.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();

        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(control_plane.ca_pem().as_bytes()).doing("reading the CA")?;
        roots.add(ca).doing("reading the CA")?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("choosing TLS versions")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = |protocol: &[u8]| {
            let mut client = client.clone();
            client.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(client))
        };
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            connectors: [connector(b"http/1.1"), connector(b"h2")],
            server: control_plane.server().trim_start_matches("https://").to_owned(),
            reports_in_http: options.reports_in_http,
        })
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        while let Ok((stream, _)) = listener.accept().await {
            let front = Arc::clone(&self);
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let _ = front.pass(stream).await; // a client that was refused, or closed the connection
            });
        }
    }

    async fn pass(&self, stream: tokio::net::TcpStream) -> std::io::Result<()> {
        let mut client = self.acceptor.accept(stream).await?;
        let session = client.get_ref().1;
        if self.reports_in_http && session.peer_certificates().is_none() {
            let _ = client.read(&mut [0; 4096]).await?;
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length:";
            client.write_all(format!("{head} {}\r\n\r\n{PAGE}", PAGE.len()).as_bytes()).await?;
            return client.shutdown().await;
        }
        let connector = &self.connectors[usize::from(session.alpn_protocol() == Some(b"h2"))];
        let server = tokio::net::TcpStream::connect(&self.server).await?;
        server.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let mut server = connector.connect(name, server).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
    }
}
