//! A proxy as in company networks: CONNECT, SOCKS 5 and plain requests on one port, with or without TLS, with or
//! without a login. Targets are configured by name, so that tests need no DNS.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::control_plane::ControlPlane;
use crate::error::OrFail;
use crate::intercepting_proxy::acceptor;

/// The behaviour of a proxy.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// The target of each `host:port`; any other is unreachable (502).
    pub ways: Vec<(String, SocketAddr)>,
    /// The required user and password.
    pub login: Option<(String, String)>,
    /// Answers every CONNECT with this status instead.
    pub status: Option<u16>,
}

/// A running proxy. Stops on drop.
pub struct ProxyServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    options: ProxyOptions,
    acceptor: TlsAcceptor,
    asked: Mutex<Vec<String>>,
}

impl ProxyOptions {
    /// Adds a target: `host:port` leads to the server of this URL (`https://127.0.0.1:<port>`).
    #[must_use]
    pub fn way(mut self, name: &str, server: &str) -> Self {
        let address = server.rsplit('/').next().unwrap_or_default().parse().or_fail("reading an address");
        self.ways.push((name.to_owned(), address));
        self
    }

    /// Requires this login.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }
}

impl ProxyServer {
    /// Starts on a free port; its certificate is signed by this control plane's CA.
    #[must_use]
    pub fn start(control_plane: &ControlPlane, options: ProxyOptions) -> Self {
        let acceptor = acceptor(control_plane).or_fail("making a proxy's certificate");
        let shared = Arc::new(Shared { options, acceptor, asked: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").or_fail("opening a proxy");
        let address = listener.local_addr().or_fail("opening a proxy");
        listener.set_nonblocking(true).or_fail("opening a proxy");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail("creating a runtime");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, _stop: stop }
    }

    /// `127.0.0.1:<port>`, for a URL of any scheme.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far: `CONNECT host:port`, `SOCKS host:port`, `GET http://..`.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked().clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let mut first = [0];
            // The first byte of a client tells the protocol. A closed connection is no error.
            let _ = match stream.peek(&mut first).await.map(|_| first[0]) {
                Ok(5) => shared.socks(stream).await,
                Ok(22) => match shared.acceptor.accept(stream).await {
                    Ok(stream) => shared.http(stream).await,
                    Err(_) => None,
                },
                Ok(_) => shared.http(stream).await,
                Err(_) => None,
            };
        });
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, name: &str) -> Option<SocketAddr> {
        self.options.ways.iter().find(|(known, _)| known == name).map(|(_, address)| *address)
    }

    async fn http(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let mut words = head.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        self.asked().push(format!("{method} {target}"));
        let answer = |status: u16| format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        if let Some((user, password)) = &self.options.login {
            let wanted = format!("proxy-authorization: basic {}", STANDARD.encode(format!("{user}:{password}")));
            if !head.lines().any(|line| line.eq_ignore_ascii_case(&wanted)) {
                client.write_all(answer(407).as_bytes()).await.ok()?;
                return None;
            }
        }
        if let Some(status) = self.options.status {
            client.write_all(answer(status).as_bytes()).await.ok()?;
            return None;
        }
        let plain = target.strip_prefix("http://");
        let name = plain.map_or(target.as_str(), |rest| rest.split('/').next().unwrap_or_default());
        let Some(address) = self.way(name) else {
            client.write_all(answer(502).as_bytes()).await.ok()?;
            return None;
        };
        let mut server = TcpStream::connect(address).await.ok()?;
        match plain {
            None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?,
            // Without the Proxy-Authorization header, which is for the proxy only. Further requests on this connection
            // would pass unseen, so it is the last one.
            Some(rest) => {
                let path = rest.find('/').map_or("/", |at| &rest[at..]);
                let (_, headers) = head.split_once("\r\n")?;
                let kept: Vec<&str> = headers
                    .trim_end()
                    .lines()
                    .filter(|line| !line.to_ascii_lowercase().starts_with("proxy-authorization:"))
                    .collect();
                let text = format!("{method} {path} HTTP/1.1\r\n{}\r\nconnection: close\r\n\r\n", kept.join("\r\n"));
                server.write_all(text.as_bytes()).await.ok()?;
            }
        }
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
    }

    /// RFC 1928 and 1929, as far as the tests need them.
    async fn socks(&self, mut client: TcpStream) -> Option<()> {
        let _version = client.read_u8().await.ok()?;
        let mut methods = vec![0; usize::from(client.read_u8().await.ok()?)];
        client.read_exact(&mut methods).await.ok()?;
        let method = if self.options.login.is_some() { 2 } else { 0 };
        if !methods.contains(&method) {
            client.write_all(&[5, 0xff]).await.ok()?;
            return None;
        }
        client.write_all(&[5, method]).await.ok()?;
        if let Some((user, password)) = &self.options.login {
            let _version = client.read_u8().await.ok()?;
            let said = (text(&mut client).await?, text(&mut client).await?);
            let right = said == (user.clone(), password.clone());
            client.write_all(&[1, u8::from(!right)]).await.ok()?;
            right.then_some(())?;
        }
        let mut head = [0; 4];
        client.read_exact(&mut head).await.ok()?;
        let host = match head[3] {
            1 => std::net::Ipv4Addr::from_bits(client.read_u32().await.ok()?).to_string(),
            3 => text(&mut client).await?,
            _ => return None,
        };
        let name = format!("{host}:{}", client.read_u16().await.ok()?);
        self.asked().push(format!("SOCKS {name}"));
        let Some(address) = self.way(&name) else {
            client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
            return None;
        };
        let mut server = TcpStream::connect(address).await.ok()?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
    }
}

/// A length, and a string of that many bytes.
async fn text(client: &mut TcpStream) -> Option<String> {
    let mut bytes = vec![0; usize::from(client.read_u8().await.ok()?)];
    client.read_exact(&mut bytes).await.ok()?;
    String::from_utf8(bytes).ok()
}
