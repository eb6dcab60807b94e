//! Keys and certificates: what kubectl takes is taken, and what it refuses is refused. Each row of three tables goes to a
//! real TLS server before the real API server, and to the real kubectl beside it; the tables as they come out are
//! `docs/certificates.md` (`UPDATE_DOCS=1` writes it).

mod client;
mod front;
mod server;
mod table;
