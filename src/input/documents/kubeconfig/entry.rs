//! One entry of a kubeconfig, field by field. A field of another type than kubectl accepts is reported with its entry
//! and line. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use kube::config::{AuthInfo, AuthProviderConfig, Cluster, ExecConfig, ExecInteractiveMode, NamedExtension};
use secrecy::SecretString;

use crate::{
    diagnostics::{
        finding::{self, Finding},
        text::{self, MASKED},
    },
    input::documents::yaml::{Mapping, Node, Value},
};

/// The location of an entry of a context, a cluster or a user.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryLocation {
    /// `cluster`, `user` or `context`.
    pub(crate) kind: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// The file that it is in.
    pub(crate) file: String,
    lines: BTreeMap<String, usize>,
}

impl EntryLocation {
    /// The location of the entry with this node.
    pub(crate) fn new(kind: &'static str, name: &str, file: &str, node: &Node) -> Self {
        let mut location = Self { kind, name: name.to_owned(), file: file.to_owned(), lines: BTreeMap::new() };
        location.record_lines(&format!("/{kind}"), node, 3);
        location
    }

    fn record_lines(&mut self, pointer: &str, node: &Node, depth: usize) {
        self.lines.insert(pointer.to_owned(), node.line);
        if let (Value::Map(map), Some(depth)) = (&node.value, depth.checked_sub(1)) {
            for (key, node) in map.iter().filter(|(key, _)| text::presentable(key)) {
                self.record_lines(&format!("{pointer}/{}", text::escaped(key)), node, depth);
            }
        }
    }

    /// The entry, and the line of the field or of the closest one around it, as the end of a sentence.
    pub(crate) fn of(&self, pointer: &str) -> String {
        let mut at = pointer;
        let line = loop {
            match (self.lines.get(at), at.rfind('/')) {
                (Some(line), _) => break format!(" line {line}"),
                (None, Some(end)) => at = &at[..end],
                (None, None) => break String::new(),
            }
        };
        format!("({} `{}`,{line} of {})", self.kind, text::sanitize(&self.name, 80), self.file)
    }
}

/// The problems of an entry.
#[derive(Default)]
pub(crate) struct Problems(Vec<Finding>);

impl Problems {
    /// All problems.
    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.0
    }

    /// Adds a problem of a field.
    pub(crate) fn note(&mut self, location: &EntryLocation, pointer: &str, problem: &str) {
        let field = pointer.rsplit('/').next().unwrap_or(pointer);
        let text = format!("{field} {problem} {}", location.of(pointer));
        self.0.push(Finding::blocking(finding::Code::Connection, pointer, text));
    }
}

/// A reader of the fields of one mapping.
struct Fields<'a> {
    location: &'a EntryLocation,
    at: String,
    map: Option<&'a Mapping>,
    problems: &'a mut Problems,
}

impl<'a> Fields<'a> {
    fn of(node: Option<&'a Rc<Node>>, at: String, location: &'a EntryLocation, problems: &'a mut Problems) -> Self {
        let map = match node.map(|node| &node.value) {
            Some(Value::Map(map)) => Some(map),
            None | Some(Value::Null) => None,
            Some(_) => {
                let kind = node.map_or("nothing", |node| node.kind());
                problems.note(location, &at, &format!("must be a mapping, but is {kind}"));
                None
            }
        };
        if map.is_some_and(|map| map.odd_key.is_some()) {
            problems.note(location, &at, "has a key that is not a string");
        }
        Self { location, at, map, problems }
    }

    fn get(&self, key: &str) -> Option<&'a Rc<Node>> {
        self.map?.get(key)
    }

    fn pointer(&self, key: &str) -> String {
        format!("{}/{key}", self.at)
    }

    fn wrong(&mut self, key: &str, wanted: &str, node: &Node) {
        let problem = format!("must be {wanted}, but is {}", node.kind());
        self.problems.note(self.location, &self.pointer(key), &problem);
    }

    /// A string; none if it is empty, which means the same in every field.
    fn text(&mut self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        if let Value::Text(text) = &node.value {
            return Some(text.clone()).filter(|text| !text.is_empty());
        }
        self.wrong(key, "a string", node);
        None
    }

    /// A string that `kubectl config view` masks.
    fn secret(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text::is_masked(&text) {
            self.problems.note(self.location, &self.pointer(key), MASKED);
            return None;
        }
        Some(text)
    }

    fn truth(&mut self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        if let Value::Bool(value) = &node.value {
            return Some(*value);
        }
        self.wrong(key, "true or false", node);
        None
    }

    fn list(&mut self, key: &str) -> Option<&'a [Rc<Node>]> {
        let node = self.get(key)?;
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        self.wrong(key, "a list", node);
        None
    }

    fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        for item in self.list(key)? {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                Value::Null => texts.push(String::new()),
                _ => {
                    let problem = format!("must be a list of strings, but one item is {}", item.kind());
                    self.problems.note(self.location, &self.pointer(key), &problem);
                    return None;
                }
            }
        }
        Some(texts)
    }

    /// The reader of a mapping inside this one.
    fn inner(&mut self, key: &str) -> Option<Fields<'_>> {
        let node = self.get(key)?;
        Some(Fields::of(Some(node), self.pointer(key), self.location, self.problems))
    }

    fn extensions(&mut self) -> Vec<NamedExtension> {
        let mut extensions = Vec::new();
        for (index, item) in self.list("extensions").into_iter().flatten().enumerate() {
            let at = self.pointer(&format!("extensions/{index}"));
            let mut fields = Fields::of(Some(item), at, self.location, self.problems);
            let name = fields.text("name").unwrap_or_default();
            let extension = fields.get("extension").and_then(|node| node.json()).unwrap_or_default();
            extensions.push(NamedExtension { name, extension });
        }
        extensions
    }
}

/// The entries that a context refers to.
pub(crate) struct Named {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The user's name.
    pub(crate) user: String,
}

/// Reads a context.
pub(crate) fn context(node: Option<&Rc<Node>>, location: &EntryLocation, problems: &mut Problems) -> Named {
    let mut fields = Fields::of(node, "/context".to_owned(), location, problems);
    let cluster = fields.text("cluster").unwrap_or_default();
    let user = fields.text("user").unwrap_or_default();
    // The params decide the namespace: that of the context only has to be a string, as for kubectl.
    fields.text("namespace");
    fields.extensions();
    Named { cluster, user }
}

/// Reads a cluster.
pub(crate) fn cluster(node: Option<&Rc<Node>>, location: &EntryLocation, problems: &mut Problems) -> Cluster {
    let mut fields = Fields::of(node, "/cluster".to_owned(), location, problems);
    Cluster {
        server: fields.text("server"),
        insecure_skip_tls_verify: fields.truth("insecure-skip-tls-verify"),
        certificate_authority: fields.text("certificate-authority"),
        certificate_authority_data: fields.secret("certificate-authority-data"),
        proxy_url: fields.text("proxy-url"),
        disable_compression: fields.truth("disable-compression"),
        tls_server_name: fields.text("tls-server-name"),
        extensions: Some(fields.extensions()),
        ..Cluster::default()
    }
}

/// Reads a user.
pub(crate) fn user(node: Option<&Rc<Node>>, location: &EntryLocation, problems: &mut Problems) -> AuthInfo {
    let mut fields = Fields::of(node, "/user".to_owned(), location, problems);
    let secret = |text: Option<String>| text.map(SecretString::from);
    let extra = fields.inner("as-user-extra").map(|mut extra| {
        let keys: Vec<String> = extra.map.iter().flat_map(|map| map.iter()).map(|(key, _)| key.to_owned()).collect();
        keys.into_iter()
            .map(|key| {
                let texts = extra.texts(&key).unwrap_or_default();
                (key, texts)
            })
            .collect()
    });
    let provider = fields.inner("auth-provider").map(|mut provider| {
        let name = provider.text("name").unwrap_or_default();
        let config = provider.inner("config").map_or_else(HashMap::new, |mut config| {
            let keys: Vec<String> =
                config.map.iter().flat_map(|map| map.iter()).map(|(key, _)| key.to_owned()).collect();
            keys.into_iter()
                .map(|key| {
                    let text = config.text(&key).unwrap_or_default();
                    (key, text)
                })
                .collect()
        });
        AuthProviderConfig { name, config, ..AuthProviderConfig::default() }
    });
    fields.extensions();
    AuthInfo {
        username: fields.text("username"),
        password: secret(fields.secret("password")),
        token: secret(fields.secret("token")),
        token_file: fields.text("tokenFile"),
        client_certificate: fields.text("client-certificate"),
        client_certificate_data: fields.secret("client-certificate-data"),
        client_key: fields.text("client-key"),
        client_key_data: secret(fields.secret("client-key-data")),
        impersonate: fields.text("as"),
        impersonate_uid: fields.text("as-uid"),
        impersonate_groups: fields.texts("as-groups"),
        impersonate_user_extra: extra,
        auth_provider: provider,
        exec: fields.inner("exec").map(exec),
        ..AuthInfo::default()
    }
}

fn exec(mut fields: Fields<'_>) -> ExecConfig {
    let mut variables = Vec::new();
    for (index, item) in fields.list("env").into_iter().flatten().enumerate() {
        let at = fields.pointer(&format!("env/{index}"));
        let mut variable = Fields::of(Some(item), at, fields.location, fields.problems);
        let name = variable.text("name").unwrap_or_default();
        let value = variable.text("value").unwrap_or_default();
        if name.is_empty() {
            let at = variable.at.clone();
            variable.problems.note(variable.location, &at, "of env has no name");
        }
        variables.push(HashMap::from([("name".to_owned(), name), ("value".to_owned(), value)]));
    }
    let api_version = fields.text("apiVersion");
    let mode = fields.text("interactiveMode");
    let interactive_mode = match mode.as_deref() {
        Some("Never") => Some(ExecInteractiveMode::Never),
        Some("IfAvailable") => Some(ExecInteractiveMode::IfAvailable),
        Some("Always") => Some(ExecInteractiveMode::Always),
        // Older versions are from before the field existed.
        None if api_version.as_deref() != Some("client.authentication.k8s.io/v1") => {
            Some(ExecInteractiveMode::IfAvailable)
        }
        said => {
            let problem = if said.is_some() { "is invalid" } else { "is missing, but required by v1" };
            let problem = format!("{problem} (expected Never, IfAvailable or Always)");
            fields.problems.note(fields.location, &fields.pointer("interactiveMode"), &problem);
            None
        }
    };
    ExecConfig {
        api_version,
        command: fields.text("command"),
        args: fields.texts("args"),
        env: Some(variables),
        install_hint: fields.text("installHint"),
        interactive_mode,
        provide_cluster_info: fields.truth("provideClusterInfo").unwrap_or_default(),
        ..ExecConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::input::documents::kubeconfig::yaml;

    type Read<T> = fn(Option<&Rc<Node>>, &EntryLocation, &mut Problems) -> T;

    /// What is read of an entry, and its problems, each after its pointer.
    fn entry<T>(kind: &'static str, text: &str, read: Read<T>) -> (T, Vec<String>) {
        let node = yaml::parse(text.as_bytes()).unwrap().root;
        let location = EntryLocation::new(kind, "demo", "config", &node);
        let mut problems = Problems::default();
        let read = read(Some(&node), &location, &mut problems);
        let described = |finding: Finding| format!("{}: {}", finding.pointer.unwrap_or_default(), finding.message);
        (read, problems.into_findings().into_iter().map(described).collect())
    }

    fn problems(kind: &'static str, text: &str) -> Vec<String> {
        match kind {
            "context" => entry(kind, text, context).1,
            "cluster" => entry(kind, text, cluster).1,
            _ => entry(kind, text, user).1,
        }
    }

    #[rstest]
    #[case::context("context", "1: a\ncluster: a\nnamespace: ''\nextensions: []")]
    #[case::nothing("context", "")]
    #[case::null_fields("user", "token: ~\nexec: ~\nas-groups: ~")]
    #[case::empty_fields("user", "token: ''\nclient-key: ''")]
    #[case::unknown_field("cluster", "sever: [1]")]
    #[case::boolean("cluster", "insecure-skip-tls-verify: no")]
    #[case::placeholder_as_a_path("user", "tokenFile: REDACTED")]
    #[case::lists("user", "as-groups: [a, ~]\nas-user-extra: {a: [b], c: ~}")]
    #[case::older_exec("user", "exec: {apiVersion: client.authentication.k8s.io/v1beta1}")]
    #[case::exec("user", "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}")]
    #[case::variable("user", "exec: {env: [{name: a}]}")]
    fn fields_are_accepted_as_by_kubectl(#[case] kind: &'static str, #[case] text: &str) {
        assert_eq!(problems(kind, text), Vec::<String>::new());
    }

    #[rstest]
    #[case::no_mapping("context", "a", "/context: context must be a mapping, but is a string")]
    #[case::odd_key("cluster", "server: a\n~: b", "/cluster: cluster has a key that is not a string")]
    #[case::number("context", "cluster: 1", "/context/cluster: cluster must be a string, but is a number")]
    #[case::namespace("context", "namespace: [a]", "/context/namespace: namespace must be a string, but is a list")]
    #[case::extensions("context", "extensions: {}", "/context/extensions: extensions must be a list")]
    #[case::extension("user", "extensions: [a]", "/user/extensions/0: 0 must be a mapping, but is a string")]
    #[case::mistagged("user", "token: !!int a", "/user/token: token must be a string, but is a value that does not")]
    #[case::boolean_in_quotes(
        "cluster",
        "disable-compression: 'true'",
        "/cluster/disable-compression: disable-compression must be true or false"
    )]
    #[case::masked_ca(
        "cluster",
        "certificate-authority-data: DATA+OMITTED",
        "/cluster/certificate-authority-data: certificate-authority-data contains the placeholder"
    )]
    #[case::masked_token("user", "token: ' REDACTED '", "/user/token: token contains the placeholder")]
    #[case::no_list("user", "as-groups: a", "/user/as-groups: as-groups must be a list, but is a string")]
    #[case::no_list_of_strings(
        "user",
        "as-groups: [a, 1]",
        "/user/as-groups: as-groups must be a list of strings, but one item is a number"
    )]
    #[case::extra("user", "as-user-extra: {a: b}", "/user/as-user-extra/a: a must be a list")]
    #[case::provider("user", "auth-provider: {config: {a: [b]}}", "/user/auth-provider/config/a: a must be a string")]
    #[case::nameless_variable("user", "exec: {env: [{name: a}, {value: b}]}", "/user/exec/env/1: 1 of env has no name")]
    #[case::no_mode(
        "user",
        "exec: {apiVersion: client.authentication.k8s.io/v1}",
        "/user/exec/interactiveMode: interactiveMode is missing, but required by v1"
    )]
    #[case::another_mode(
        "user",
        "exec: {interactiveMode: never}",
        "/user/exec/interactiveMode: interactiveMode is invalid"
    )]
    fn field_of_another_type_is_reported(#[case] kind: &'static str, #[case] text: &str, #[case] problem: &str) {
        let found = problems(kind, text);
        assert!(found.len() == 1 && found[0].starts_with(problem), "{found:?}");
    }

    #[test]
    fn all_problems_of_an_entry_are_reported() {
        let found = problems("user", "username: 1\ntoken: REDACTED\nexec:\n  command: 2\n  args: a");
        let pointers: Vec<&str> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        assert_eq!(pointers, ["/user/username", "/user/token", "/user/exec/command", "/user/exec/args"]);
    }

    #[rstest]
    #[case::itself("/user", "line 2 of")]
    #[case::field("/user/exec/command", "line 4 of")]
    #[case::missing_field("/user/exec/args", "line 4 of")]
    #[case::item_of_a_list("/user/exec/env/0/name", "line 5 of")]
    #[case::another_entry("/cluster/server", ", of")]
    fn location_is_that_of_the_closest_field(#[case] pointer: &str, #[case] line: &str) {
        let text = "\ntoken: a\nexec:\n  command: b\n  env: [\n    {name: c}]";
        let node = yaml::parse(text.as_bytes()).unwrap().root;
        let location = EntryLocation::new("user", "de\nmo", "config", &node).of(pointer);
        assert!(location.starts_with("(user `de mo`,") && location.ends_with("config)"), "{location}");
        assert!(location.contains(line), "{location}");
    }

    #[test]
    fn user_is_read_field_by_field() {
        let text = "username: a\npassword: b\ntoken: c\ntokenFile: d\nclient-certificate: e\nclient-certificate-data: f\n\
                    client-key: g\nclient-key-data: h\nas: i\nas-uid: j\nas-groups: [k, ~]\nas-user-extra: {l: [m]}\n\
                    auth-provider: {name: q, config: {o: p}}";
        let (user, problems) = entry("user", text, user);
        assert_eq!(problems, Vec::<String>::new());
        let secrets =
            [&user.password, &user.token, &user.client_key_data].map(|secret| secret.as_ref().unwrap().expose_secret());
        assert_eq!(secrets, ["b", "c", "h"]);
        let texts = [
            &user.username,
            &user.token_file,
            &user.client_certificate,
            &user.client_certificate_data,
            &user.client_key,
            &user.impersonate,
            &user.impersonate_uid,
        ];
        assert_eq!(texts.map(|text| text.as_deref().unwrap()), ["a", "d", "e", "f", "g", "i", "j"]);
        assert_eq!(user.impersonate_groups.unwrap(), ["k", ""]);
        assert_eq!(user.impersonate_user_extra.unwrap()["l"], ["m"]);
        let provider = user.auth_provider.unwrap();
        assert_eq!((provider.name.as_str(), provider.config["o"].as_str()), ("q", "p"));
    }

    #[rstest]
    #[case::never("interactiveMode: Never", Some(ExecInteractiveMode::Never))]
    #[case::always("interactiveMode: Always", Some(ExecInteractiveMode::Always))]
    #[case::if_available("interactiveMode: IfAvailable", Some(ExecInteractiveMode::IfAvailable))]
    #[case::older("apiVersion: client.authentication.k8s.io/v1beta1", Some(ExecInteractiveMode::IfAvailable))]
    #[case::invalid("interactiveMode: Sometimes", None)]
    fn login_command_is_read(#[case] mode: &str, #[case] expected: Option<ExecInteractiveMode>) {
        let text = format!(
            "exec:\n  command: a\n  args: [b]\n  env: [{{name: c, value: d}}]\n  provideClusterInfo: yes\n  {mode}"
        );
        let exec = entry("user", &text, user).0.exec.unwrap();
        assert_eq!((exec.command.as_deref(), exec.args.as_deref()), (Some("a"), Some(&["b".to_owned()][..])));
        assert_eq!(exec.env.unwrap()[0]["name"], "c");
        assert!(exec.provide_cluster_info);
        assert_eq!(exec.interactive_mode, expected);
    }
}
