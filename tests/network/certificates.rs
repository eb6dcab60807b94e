//! Keys and certificates: accepted and refused as kubectl does. Each row of three tables is tried by the program
//! against a real TLS server in front of the real API server, and by the real kubectl; the resulting tables are
//! `docs/certificates.md` (`UPDATE_DOCS=1` writes it).

mod client;
mod front;
mod server;
mod table;
