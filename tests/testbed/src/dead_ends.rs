//! Servers that are none: one that never answers, one that is not there.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::error::OrFail;

/// Accepts connections and never says a word. Open until this process ends.
#[derive(Debug)]
pub struct SilentServer {
    address: SocketAddr,
}

impl SilentServer {
    /// On a port of its own.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").or_fail("opening a silent server");
        let address = listener.local_addr().or_fail("opening a silent server");
        thread::spawn(move || {
            let _open: Vec<_> = listener.incoming().collect();
        });
        Self { address }
    }

    /// `https://127.0.0.1:<port>`.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    /// `http://127.0.0.1:<port>`, for a platform.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A port that nobody listens on.
#[derive(Clone, Copy, Debug)]
pub struct RefusedPort;

impl RefusedPort {
    /// `https://127.0.0.1:1`: a port below 1024 that no system serves today, so that no other test can
    /// be given it by accident.
    #[must_use]
    pub fn server(self) -> &'static str {
        "https://127.0.0.1:1"
    }

    /// The same for a platform.
    #[must_use]
    pub fn url(self) -> &'static str {
        "http://127.0.0.1:1"
    }
}
