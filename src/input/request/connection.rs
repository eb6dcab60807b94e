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
    input::documents::{CONFIG, SLOT},
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
        token_is_from_file: false,
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
            findings.push(Finding::blocking(finding::Code::Schema, at, text).source(CONFIG.to_owned()));
            return None;
        };
        let unknown = map.keys().filter(|key| !known.contains(&key.as_str()) && !others.contains(&key.as_str()));
        findings.extend(unknown.map(|key| {
            let text = format!("unknown field {} in config.json (additionalProperties)", quote_key(key));
            let finding = Finding::blocking(finding::Code::Schema, at, text).source(CONFIG.to_owned());
            finding.help(format!("known fields: {}", known.join(", ")))
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
        let problem = problem.source(theirs.map(|_| CONFIG.to_owned()));
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
        for (user, base, source) in [(own, self.base, "the connection"), (theirs, "/kubernetes_cluster", CONFIG)] {
            let others = OTHERS_OF_USER.iter().filter(|key| user.and_then(|user| user.get(*key)).is_some());
            let others = others.copied().collect::<Vec<_>>().join(", ");
            if !others.is_empty() {
                let text = format!("{source} contains other login fields ({others}); they are ignored");
                let at = format!("{base}/authentication/user");
                let file = (source == CONFIG).then(|| source.to_owned());
                self.findings.push(Finding::remark(finding::Code::LoginIgnored, text).at(at).source(file));
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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::input::request::tests::{authentication, ca};

    /// The document with these members at its top.
    fn with(mut document: Value, members: &Value) -> Value {
        document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        document
    }

    fn flat() -> Value {
        json!({"authentication": authentication()})
    }

    /// The connection; its problems are no problem of the table.
    fn connection(document: &Value, overrides: Option<&Value>) -> (Connection, Vec<Finding>) {
        parse(document, overrides).unwrap_or_else(|problems| panic!("{document}: {problems:?}"))
    }

    #[test]
    fn both_shapes_are_read() {
        let legacy = json!({"data": {"authentication": authentication()}});
        let null = json!({"authentication": null, "data": {"authentication": authentication()}});
        for (document, shape, names_namespace) in [
            (flat(), Shape::Flat, true),
            (with(flat(), &json!({"namespace": "a"})), Shape::Flat, true),
            (with(flat(), &json!({"specs": {}, "namespace": "a"})), Shape::Flat, true),
            (with(flat(), &json!({"specs": null})), Shape::Flat, true),
            (with(flat(), &json!({"specs": {}})), Shape::Flat, false),
            (with(flat(), &json!({"data": {}})), Shape::Flat, false),
            (legacy.clone(), Shape::Legacy, false),
            (with(legacy, &json!({"namespace": "a"})), Shape::Legacy, false),
            (null, Shape::Legacy, false),
        ] {
            for document in [json!({"kubernetes_cluster": document}), document] {
                let (connection, findings) = connection(&document, None);
                assert_eq!((connection.shape, connection.names_namespace), (shape, names_namespace), "{document}");
                assert_eq!((connection.server.as_str(), findings), ("https://a.example.com", vec![]));
            }
        }
    }

    #[test]
    fn copied_fields_are_those_of_the_shape() {
        let (infrastructure, specs) = (json!({"arn": "a"}), json!({"kubernetes": {}}));
        let flat = with(flat(), &json!({"infrastructure": infrastructure, "specs": specs}));
        let data = json!({"authentication": authentication(), "infrastructure": infrastructure, "specs": 1});
        let legacy = json!({"data": data, "specs": specs, "infrastructure": 1});
        for document in [flat, legacy] {
            let (connection, _) = connection(&document, None);
            assert_eq!(connection.infrastructure.map(Value::from), Some(infrastructure.clone()), "{document}");
            assert_eq!(connection.specs.map(Value::from), Some(specs.clone()), "{document}");
        }
        let empty = connection(&with(self::flat(), &json!({"infrastructure": {}, "specs": {}})), None).0;
        assert_eq!((empty.infrastructure, empty.specs), (None, Some(Map::new())));
    }

    /// Pointer and beginning of the message of every finding.
    fn assert_findings(findings: &[Finding], expected: &[(&str, &str)]) {
        let found: Vec<_> = findings.iter().map(|it| (it.pointer.as_deref().unwrap_or("-"), &*it.message)).collect();
        let fits =
            |((at, text), (pointer, start)): (&(&str, &str), &(&str, &str))| at == pointer && text.starts_with(start);
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(fits), "{found:?}");
    }

    /// A valid document but for the value at this pointer.
    fn altered(pointer: &str, value: Value) -> Value {
        let mut document = flat();
        *document.pointer_mut(pointer).unwrap() = value;
        document
    }

    const MISSING: &str = "the kubernetes-cluster document lacks the field";

    #[rstest]
    #[case::list(json!([]), &[("", "the connection must be a kubernetes-cluster document, an object")])]
    #[case::nothing(json!({}), &[("", "the field `kubernetes_cluster` is missing")])]
    #[case::null(json!({"kubernetes_cluster": null}), &[("", "the field `kubernetes_cluster` is missing")])]
    #[case::string(json!({"kubernetes_cluster": "a"}), &[("/kubernetes_cluster", "`kubernetes_cluster` must be")])]
    #[case::empty(json!({"kubernetes_cluster": {}}), &[("/kubernetes_cluster", MISSING)])]
    #[case::empty_legacy(json!({"data": {}}), &[("/data", MISSING)])]
    #[case::no_object(json!({"authentication": []}), &[("/authentication", "authentication must be of type object")])]
    #[case::no_sections(json!({"authentication": {}}), &[("/authentication", MISSING), ("/authentication", MISSING)])]
    #[case::user(altered("/authentication/user", json!("a")), &[("/authentication/user", "user must be of type object")])]
    #[case::no_token(altered("/authentication/user", json!({})), &[("/authentication/user", MISSING)])]
    #[case::number(altered("/authentication/user/token", json!(1)), &[("/authentication/user/token", "token must be of type string")])]
    #[case::token(altered("/authentication/user/token", json!("a b")), &[("/authentication/user/token", "token contains whitespace")])]
    #[case::masked(altered("/authentication/user/token", json!("REDACTED")), &[("/authentication/user/token", "token contains the placeholder")])]
    #[case::two_problems(altered("/authentication/cluster", json!({"server": "http://a"})), &[("/authentication/cluster/server", "server is http"), ("/authentication/cluster", MISSING)])]
    fn every_problem_of_a_document_is_located(#[case] document: Value, #[case] expected: &[(&str, &str)]) {
        let problems = parse(&document, None).err().unwrap();
        assert!(problems.iter().all(|problem| problem.blocking));
        assert_findings(&problems, expected);
    }

    #[test]
    fn kubeconfig_is_recognized() {
        let problems = parse(&json!({"clusters": []}), None).err().unwrap();
        assert_eq!(problems[0].help.as_deref(), Some("this is a kubeconfig: pass it with --kubeconfig"));
    }

    /// A document with another server alone, as overrides.
    fn other_server() -> Value {
        json!({"authentication": {"cluster": {"server": "https://b.example.com"}}})
    }

    fn without_server() -> Value {
        altered("/authentication/cluster", json!({"certificate-authority-data": ca()}))
    }

    #[rstest]
    #[case::another(flat(), other_server(), "https://b.example.com")]
    #[case::missing_in_the_document(without_server(), other_server(), "https://b.example.com")]
    #[case::no_document(json!({}), flat(), "https://a.example.com")]
    #[case::null(flat(), json!({"authentication": {"cluster": {"server": null}, "user": null}}), "https://a.example.com")]
    #[case::all_null(flat(), json!({"authentication": null}), "https://a.example.com")]
    #[case::empty(flat(), json!({}), "https://a.example.com")]
    fn strings_of_config_take_precedence(#[case] document: Value, #[case] overrides: Value, #[case] server: &str) {
        let (connection, findings) = connection(&document, Some(&overrides));
        assert_eq!((connection.server.as_str(), findings), (server, vec![]));
    }

    #[rstest]
    #[case::no_object(json!(1), "", "authentication of config.json must be")]
    #[case::unknown_section(json!({"users": {}}), "", "unknown field `users` in config.json")]
    #[case::no_cluster(json!({"cluster": []}), "/cluster", "cluster of config.json must be of type object")]
    #[case::cluster(json!({"cluster": {"sever": "a"}}), "/cluster", "unknown field `sever` in config.json")]
    #[case::user(json!({"user": {"tokens": "a"}}), "/user", "unknown field `tokens` in config.json")]
    #[case::number(json!({"user": {"token": 1}}), "/user/token", "token of config.json must be")]
    #[case::empty(json!({"user": {"token": ""}}), "/user/token", "token of config.json is empty")]
    fn invalid_field_of_config_blocks(#[case] authentication: Value, #[case] at: &str, #[case] problem: &str) {
        let problems = parse(&flat(), Some(&json!({"authentication": authentication}))).err().unwrap();
        assert_findings(&problems, &[(&format!("/kubernetes_cluster/authentication{at}"), problem)]);
    }

    #[test]
    fn other_logins_are_ignored_and_reported() {
        let mut document = flat();
        document["authentication"]["user"]["username"] = json!("admin");
        document["authentication"]["user"]["exec"] = json!({});
        document["authentication"]["cluster"]["insecure-skip-tls-verify"] = json!(true);
        let overrides = json!({"authentication": {"user": {"as": "a"}, "cluster": {"proxy-url": "a"}}});
        let (_, findings) = connection(&document, Some(&overrides));
        assert!(findings.iter().all(|finding| !finding.blocking && finding.code == finding::Code::LoginIgnored));
        let expected = [
            ("/authentication/user", "the connection contains other login fields (exec, username)"),
            ("/kubernetes_cluster/authentication/user", "config.json contains other login fields (as)"),
        ];
        assert_findings(&findings, &expected);
    }
}
