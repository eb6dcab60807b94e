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
    input::documents::kubeconfig::yaml::{Mapping, Node, Value},
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
