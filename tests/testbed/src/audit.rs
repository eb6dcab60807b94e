//! The audit log of the API server: its policy, and a reader. The server writes a line before it sends the response, so
//! the log contains every request of a program that has ended.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::OrFail;

/// No content of Secrets and tokens; Roles and bindings in full; no requests of controllers.
pub(crate) const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
- level: None
  users: ["system:apiserver", "system:kube-controller-manager"]
  verbs: ["get", "list", "watch"]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
  verbs: ["get", "list", "watch"]
- level: None
  users: ["system:apiserver", "system:kube-controller-manager"]
  resources:
  - {group: "", resources: ["events"]}
  - {group: "events.k8s.io"}
  - {group: "coordination.k8s.io"}
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
  resources:
  - {group: "", resources: ["events"]}
  - {group: "events.k8s.io"}
  - {group: "coordination.k8s.io"}
- level: Metadata
  resources:
  - {group: "", resources: ["secrets", "serviceaccounts", "serviceaccounts/token"]}
- level: RequestResponse
  resources:
  - {group: "rbac.authorization.k8s.io"}
- level: Metadata
"#;

/// The audit log of one control plane.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// An offset in the log; see [`Audit::since`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// One answered request.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// `get`, `list`, `create`, `patch`, ...; the HTTP method for non-resource URLs.
    pub verb: String,
    /// Path and query as they were sent.
    pub uri: String,
    /// The authenticated user.
    pub user: String,
    /// The User-Agent header.
    pub user_agent: String,
    /// Empty for cluster-scoped resources and non-resource URLs.
    pub namespace: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural, as `secrets`; empty for non-resource URLs.
    pub resource: String,
    /// As `token`; empty for most requests.
    pub subresource: String,
    /// Name of the object; empty for lists, and if the server generates the name.
    pub name: String,
    /// HTTP status of the response.
    pub code: u16,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// When the request arrived.
    pub received: jiff::Timestamp,
    /// When the response was ready (for a watch: when it ended).
    pub answered: jiff::Timestamp,
    /// The whole event.
    pub raw: Value,
}

impl Audit {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The log file, one JSON document per line.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The end of the last complete line: the server may be writing the next one at this moment.
    pub fn mark(&self) -> Mark {
        let end = match File::open(&self.path) {
            // No request has been logged yet.
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(0),
            log => log.and_then(end_of_last_line),
        };
        Mark(end.or_fail("reading the audit log"))
    }

    /// All requests after `mark`, of every user.
    pub fn since(&self, mark: Mark) -> Vec<AuditEvent> {
        let mut text = String::new();
        let mut log = File::open(&self.path).or_fail("opening the audit log");
        log.seek(SeekFrom::Start(mark.0)).and_then(|_| log.read_to_string(&mut text)).or_fail("reading the audit log");
        // Without its line break the last line is incomplete.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).or_fail("reading the audit log"))
            .map(AuditEvent::read)
            .collect()
    }

    /// The requests of one user after `mark`: tests of one binary share a control plane.
    pub fn of(&self, user: &str, mark: Mark) -> Vec<AuditEvent> {
        let mut events = self.since(mark);
        events.retain(|event| event.user == user);
        events
    }
}

/// The offset after the last line break, searched from the end because the log grows large.
fn end_of_last_line(mut log: impl Read + Seek) -> io::Result<u64> {
    const CHUNK: u64 = 16 << 10;
    let mut end = log.seek(SeekFrom::End(0))?;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        log.seek(SeekFrom::Start(start))?;
        chunk.clear();
        log.by_ref().take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

impl AuditEvent {
    fn read(raw: Value) -> Self {
        let text = |pointer: &str| {
            let found = raw.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let time = |pointer: &str| text(pointer).parse().or_fail(format_args!("reading {pointer} of an audit event"));
        let uri = text("/requestURI");
        let code = raw.pointer("/responseStatus/code").and_then(Value::as_u64);
        let in_body = raw.pointer("/requestObject/dryRun");
        Self {
            verb: text("/verb"),
            dry_run: uri.contains("dryRun=All") || in_body.is_some_and(|value| !value.is_null()),
            user: text("/user/username"),
            user_agent: text("/userAgent"),
            namespace: text("/objectRef/namespace"),
            group: text("/objectRef/apiGroup"),
            resource: text("/objectRef/resource"),
            subresource: text("/objectRef/subresource"),
            name: text("/objectRef/name"),
            code: code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            received: time("/requestReceivedTimestamp"),
            answered: time("/stageTimestamp"),
            uri,
            raw,
        }
    }

    /// Whether the request changes something: no dry run, and no review such as `selfsubjectaccessreviews`. A
    /// TokenRequest counts: it creates a credential.
    pub fn is_write(&self) -> bool {
        let writes = ["create", "update", "patch", "delete", "deletecollection"];
        writes.contains(&self.verb.as_str()) && !self.dry_run && !self.resource.ends_with("reviews")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn mark_ignores_an_incomplete_last_line() {
        let long = "x".repeat(40_000);
        for (log, expected) in [
            (String::new(), 0),
            ("{\"half".to_owned(), 0),
            ("{}\n".to_owned(), 3),
            ("{}\n{\"half".to_owned(), 3),
            (format!("{{}}\n{long}"), 3),
            (format!("{long}\n{long}\n{long}"), 80_002),
        ] {
            assert_eq!(end_of_last_line(Cursor::new(&log)).unwrap(), expected, "{} bytes", log.len());
        }
    }
}
