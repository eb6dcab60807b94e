//! Keys and certificates: what kubectl takes is taken, and what it refuses is refused. Each row of three tables goes to a
//! real TLS server before the real API server, and to the real kubectl beside it; the tables as they come out are
//! `docs/certificates.md` (`UPDATE_DOCS=1` writes it).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

#[path = "certificates/client.rs"]
mod client;
#[path = "command_line/desk.rs"]
#[allow(dead_code, reason = "this test binary uses a part of it")]
mod desk;
#[path = "certificates/front.rs"]
mod front;
#[path = "certificates/server.rs"]
mod server;
#[path = "certificates/table.rs"]
mod table;
