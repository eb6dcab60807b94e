//! The connection of a kubernetes-cluster document, with the overrides of `config.json`. Pure.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
        text::{self, quote_key},
    },
    endpoint::{
        connection::{CaBundle, ClusterLogin, Connection, Server, ServerTrust, Shape},
        proxy::Route,
    },
    input::documents::SLOT,
};

/// Fields of a kubeconfig's cluster besides the server and its CA. They are ignored in a connection.
const OTHERS_OF_CLUSTER: [&str; 6] = [
    "certificate-authority",
    "disable-compression",
    "extensions",
    "insecure-skip-tls-verify",
    "proxy-url",
    "tls-server-name",
];

/// Fields of a kubeconfig's user besides the token. They are ignored in a connection, which is reported: they may have
/// been set on purpose.
const OTHERS_OF_USER: [&str; 13] = [
    "as",
    "as-groups",
    "as-uid",
    "as-user-extra",
    "auth-provider",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "exec",
    "password",
    "tokenFile",
    "username",
];

/// Reads a connection from a document, with findings about it; `overrides` is `kubernetes_cluster` of `config.json`,
/// whose strings take precedence over the document's.
///
/// # Errors
/// Every problem, with pointers into the document that it is in.
pub(crate) fn parse(document: &Value, overrides: Option<&Value>) -> Result<(Connection, Vec<Finding>), Vec<Finding>> {
    let mut findings = Vec::new();
    let overridden = overrides.and_then(|value| overriding(value, &mut findings));
    let found = slot(document).and_then(|slot| {
        // All fields may be in config.json.
        let anywhere = || overridden.map(|_| Slot { at: format!("/{SLOT}"), members: Cow::default() });
        slot.or_else(anywhere).ok_or_else(|| {
            let text = format!("the field `{SLOT}` is missing: no cluster is connected (required)");
            let help = if document.get("clusters").is_some() {
                "this is a kubeconfig: pass it with --kubeconfig"
            } else {
                "a kubernetes-cluster document has `authentication`, at its top or under `data`"
            };
            Finding::blocking(finding::Code::Schema, "", text).help(help)
        })
    });
    let slot = match found {
        Ok(slot) => slot,
        Err(problem) => {
            findings.push(problem);
            return Err(findings);
        }
    };
    let members = slot.members.as_ref();
    let (shape, home, base) = match (present(members, "authentication"), present(members, "data")) {
        (None, Some(Value::Object(data))) => (Shape::Legacy, data, slot.at + "/data"),
        _ => (Shape::Flat, members, slot.at),
    };
    let mut reader = Reader { home, overridden, base: &base, findings: &mut findings };
    let server = reader.part("cluster", "server", Server::parse);
    let ca = reader.part("cluster", "certificate-authority-data", CaBundle::parse);
    let token = reader.part("user", "token", Token::parse);
    reader.other_logins();
    let (Some(server), Some(ca), Some(token)) = (server, ca, token) else { return Err(findings) };
    if findings.iter().any(|finding| finding.blocking) {
        return Err(findings);
    }
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let alone = members.keys().all(|key| key == "authentication" || present(members, key).is_none());
    let connection = Connection {
        server,
        ca: ServerTrust::Given(ca),
        tls_server_name: None,
        route: Route::Direct,
        login: ClusterLogin::Token(token),
        shape,
        infrastructure: object(home.get("infrastructure")).filter(|map| !map.is_empty()),
        specs: object(members.get("specs")),
        names_namespace: shape == Shape::Flat && (alone || present(members, "namespace").is_some()),
        context: None,
    };
    Ok((connection, findings))
}

/// A member that is set; null counts as absent.
fn present<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

/// A kubernetes-cluster document and its location.
struct Slot<'a> {
    at: String,
    members: Cow<'a, Map<String, Value>>,
}

/// Finds the kubernetes-cluster document, under its key or as the whole document.
fn slot(document: &Value) -> Result<Option<Slot<'_>>, Finding> {
    let must_be_object = |at: String, what: &str| {
        Finding::blocking(
            finding::Code::Schema,
            at,
            format!("{what} must be a kubernetes-cluster document, an object (type)"),
        )
    };
    let Some(map) = document.as_object() else {
        return Err(must_be_object(String::new(), "the connection"));
    };
    match present(map, SLOT) {
        Some(Value::Object(slot)) => Ok(Some(Slot { at: format!("/{SLOT}"), members: Cow::Borrowed(slot) })),
        Some(_) => Err(must_be_object(format!("/{SLOT}"), &format!("`{SLOT}`"))),
        None if ["authentication", "data"].iter().any(|key| map.contains_key(*key)) => {
            Ok(Some(Slot { at: String::new(), members: Cow::Borrowed(map) }))
        }
        None => Ok(None),
    }
}

/// `authentication` of the overrides, if set. A misspelt field would leave the credential in the wrong cluster, so no
/// unknown field is ignored.
fn overriding<'a>(overrides: &'a Value, findings: &mut Vec<Finding>) -> Option<&'a Map<String, Value>> {
    let mut object = |value: &'a Value, at: &str, known: &[&str], others: &[&str]| {
        let Some(map) = value.as_object() else {
            let text = format!("{} of config.json must be of type object (type)", last(at));
            findings.push(Finding::blocking(finding::Code::Schema, at, text));
            return None;
        };
        let unknown = map.keys().filter(|key| !known.contains(&key.as_str()) && !others.contains(&key.as_str()));
        findings.extend(unknown.map(|key| {
            let text = format!("unknown field {} in config.json (additionalProperties)", quote_key(key));
            Finding::blocking(finding::Code::Schema, at, text).help(format!("known fields: {}", known.join(", ")))
        }));
        Some(map)
    };
    let at = format!("/{SLOT}/authentication");
    let overridden = overrides.get("authentication").filter(|value| !value.is_null())?;
    let authentication = object(overridden, &at, &["cluster", "user"], &[])?;
    for (section, known, others) in [
        ("cluster", &["server", "certificate-authority-data"][..], &OTHERS_OF_CLUSTER[..]),
        ("user", &["token"], &OTHERS_OF_USER),
    ] {
        if let Some(value) = present(authentication, section) {
            object(value, &format!("{at}/{section}"), known, others);
        }
    }
    Some(authentication)
}

fn last(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or(pointer)
}

/// A reader of the three strings of a connection.
struct Reader<'a> {
    home: &'a Map<String, Value>,
    overridden: Option<&'a Map<String, Value>>,
    base: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    /// Parses one string, from `config.json` if it is set there; or records why not.
    fn part<T>(&mut self, section: &str, key: &str, parse: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let theirs = self.overridden.and_then(|map| present(map.get(section)?.as_object()?, key));
        let (base, source) = match theirs {
            Some(_) => (format!("/{SLOT}"), " of config.json"),
            None => (self.base.to_owned(), ""),
        };
        let pointer = format!("{base}/authentication/{section}/{key}");
        let found = match theirs {
            Some(value) => Ok(value),
            None => self.find(section, key),
        };
        let problem = match found {
            Ok(Value::String(text)) => match unmasked(text).and_then(&parse) {
                Ok(part) => return Some(part),
                Err(problem) => {
                    Finding::blocking(finding::Code::Connection, pointer, format!("{key}{source} {problem}"))
                }
            },
            Ok(_) => Finding::blocking(
                finding::Code::Schema,
                pointer,
                format!("{key}{source} must be of type string (type)"),
            ),
            Err(problem) => problem,
        };
        if !self.findings.contains(&problem) {
            self.findings.push(problem);
        }
        None
    }

    /// Finds a string in the document; or the problem of the first step that is wrong. A missing member is reported at
    /// its own location.
    fn find(&self, section: &str, key: &str) -> Result<&Value, Finding> {
        let (mut map, mut at) = (self.home, self.base.to_owned());
        for step in ["authentication", section] {
            map = match present(map, step) {
                Some(Value::Object(inner)) => inner,
                Some(_) => {
                    return Err(Finding::blocking(
                        finding::Code::Schema,
                        format!("{at}/{step}"),
                        format!("{step} must be of type object (type)"),
                    ));
                }
                None => return Err(missing_field(step, at)),
            };
            at = format!("{at}/{step}");
        }
        present(map, key).ok_or_else(|| missing_field(key, at))
    }

    /// Reports other logins, which are ignored.
    fn other_logins(&mut self) {
        let theirs = self.overridden.and_then(|map| map.get("user"));
        let own = self.home.get("authentication").and_then(|authentication| authentication.get("user"));
        for (user, base, source) in [(own, self.base, "the connection"), (theirs, "/kubernetes_cluster", "config.json")]
        {
            let others = OTHERS_OF_USER.iter().filter(|key| user.and_then(|user| user.get(*key)).is_some());
            let others = others.copied().collect::<Vec<_>>().join(", ");
            if !others.is_empty() {
                let text = format!("{source} contains other login fields ({others}); they are ignored");
                let at = format!("{base}/authentication/user");
                self.findings.push(Finding::remark(finding::Code::LoginIgnored, text).at(at));
            }
        }
    }
}

/// The string, unless it is kubectl's placeholder for a secret.
fn unmasked(text: &str) -> Result<&str, &'static str> {
    if text::is_masked(text) { Err(text::MASKED) } else { Ok(text) }
}

fn missing_field(field: &str, at: String) -> Finding {
    Finding::blocking(
        finding::Code::Schema,
        at,
        format!("the kubernetes-cluster document lacks the field `{field}` (required)"),
    )
}
