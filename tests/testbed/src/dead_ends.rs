//! Servers that cannot be reached: one that never answers, one that does not exist.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::error::OrFail;

/// Accepts connections and never sends a byte. Open until this process ends.
#[derive(Debug)]
pub struct SilentServer {
    address: SocketAddr,
}

impl SilentServer {
    /// Starts on a free port.
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
    pub fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    /// `http://127.0.0.1:<port>`, for a platform URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A port without a listener.
#[derive(Clone, Copy, Debug)]
pub struct RefusedPort;

impl RefusedPort {
    /// `https://127.0.0.1:1`: a port below 1024 that no system uses today, so that no other test gets it by accident.
    pub fn server(self) -> &'static str {
        "https://127.0.0.1:1"
    }

    /// The same for a platform URL.
    pub fn url(self) -> &'static str {
        "http://127.0.0.1:1"
    }
}
