//! Rows of a table, tried by both programs, and the page made of them.

use std::{
    fmt::Write as _,
    fs,
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;
use testbed::ControlPlane;

use crate::{
    certificates::{client, server},
    desk::{Desk, code, refusals},
    support::Ran,
};

/// One row: a kubeconfig, and the expected result.
pub struct Row {
    pub what: &'static str,
    pub cluster: Value,
    pub user: Value,
    /// The system trust store, as PEM.
    pub system: Option<String>,
    /// The error code, and a part of the message; none if the row is accepted.
    pub refused: Option<(&'static str, &'static str)>,
    /// Why kubectl accepts what is refused here.
    pub differs: Option<&'static str>,
    /// Server that runs while the row is tried.
    #[allow(dead_code, reason = "it ends when it is dropped")]
    pub front: Option<testbed::TlsFront>,
}

/// Tries all rows, and returns the lines of the table.
pub fn try_rows(cp: &ControlPlane, stem: &str, rows: &[Row]) -> String {
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let desk = Desk::new(cp, stem);
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(problem) = attempt(cp, &desk, row) {
                        problems.lock().unwrap().push(format!("{}: {problem}", row.what));
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} of {} rows:\n{}", problems.len(), rows.len(), problems.join("\n"));
    let mut table = String::from("| What | kubectl | k8s-token | Note |\n|---|---|---|---|\n");
    for row in rows {
        let ours = row.refused.map_or_else(|| "taken".to_owned(), |(code, _)| format!("refused: `{code}`"));
        let theirs = if row.refused.is_none() || row.differs.is_some() { "taken" } else { "refused" };
        let note = match (row.differs, row.refused) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some((_, words))) => format!("\"{}\"", words.replace('"', "'")),
            (None, None) => String::new(),
        };
        let _ = writeln!(table, "| {} | {theirs} | {ours} | {note} |", row.what);
    }
    table
}

fn attempt(cp: &ControlPlane, desk: &Desk, row: &Row) -> Result<(), String> {
    desk.kubeconfig("config", &row.cluster, &row.user);
    let system = row.system.as_ref().map(|pem| desk.put("system.pem", pem));
    let theirs = kubectl(cp, desk, system.as_deref());
    let mut command = desk.command("plan", &[]);
    command.arg("--kubeconfig").arg(desk.path("config"));
    command.envs(system.map(|path| ("SSL_CERT_FILE", path)));
    let ours = Ran::of(&mut command);
    let said = String::from_utf8_lossy(&theirs.stderr);
    let takes = row.refused.is_none() || row.differs.is_some();
    if theirs.status.success() != takes {
        return Err(format!("kubectl takes it: {}; {said}", !takes));
    }
    let Some((wanted, words)) = row.refused else {
        return if ours.code == 0 { Ok(()) } else { Err(format!("refused: {}", ours.stderr)) };
    };
    let found = code(&ours);
    let told = match found.as_str() {
        "input-refused" => refusals(&ours).into_iter().map(|(_, message)| message).collect(),
        _ => ours.document()["error"]["cause"].as_str().unwrap_or_default().to_owned(),
    };
    let is_dump =
        ["Other(", "OtherError", "InvalidCertificate", "AlertReceived"].iter().any(|it| ours.stderr.contains(it));
    if found != wanted || !told.contains(words) || is_dump {
        return Err(format!("wanted {wanted} with {words:?}; found {found}: {told}\n  ({said})"));
    }
    Ok(())
}

fn kubectl(cp: &ControlPlane, desk: &Desk, system: Option<&std::path::Path>) -> Output {
    let mut command = Command::new(cp.kubectl_path());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", desk.path("nowhere")).stdin(Stdio::null());
    command.envs(system.map(|path| ("SSL_CERT_FILE", path)));
    command.arg("--kubeconfig").arg(desk.path("config")).args(["auth", "whoami"]).output().unwrap()
}

const HEAD: &str = "# Keys and certificates

Which server certificates, CAs and client certificates are accepted. The rule: what kubectl accepts is accepted, and what
it refuses is refused, because users of a credential connect with kubectl or another program in Go. The certificate of a
server is verified step by step as Go's crypto/x509 does it.

`tests/network/certificates.rs` tries each row with both programs, with a real TLS server in front of a real API server, and
writes this page. In the tables, `taken` means accepted.

Where the two differ, the note gives the reason; else it quotes the message of k8s-token. Limits that are in no table:

- RSA keys need 2048 to 8192 bits, on both sides.
- A server must offer TLS 1.2 or 1.3 with AES-GCM or ChaCha20. Go also speaks TLS 1.2 with AES-CBC.
- A certificate that requires a policy (policyConstraints) is refused.
";

#[test]
fn certificates_are_accepted_and_refused_like_kubectl() {
    let cp = ControlPlane::shared();
    let (servers, systems, clients) = (server::given(cp), server::system(cp), client::rows(cp));
    let mut page = HEAD.to_owned();
    for (title, stem, rows) in [
        ("The server's certificate, and the CA that is given", "servers", servers),
        ("The CAs of the system, where none is given", "systems", systems),
        ("The client certificate and its key", "clients", clients),
    ] {
        let _ = write!(page, "\n## {title}\n\n{}", try_rows(cp, stem, &rows));
    }
    let path = "docs/certificates.md";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, &page).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == page, "{path} is out of date: UPDATE_DOCS=1 cargo test --test network certificates");
}
