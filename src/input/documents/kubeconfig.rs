//! A kubeconfig as kubectl reads it: finds the files, the context, its cluster and its user, and reads the files that
//! these name. Other entries are not read.

mod entry;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use kube::config::{AuthInfo, Cluster};
use secrecy::SecretString;

use crate::{
    diagnostics::{
        finding::{self, Finding},
        text::sanitize,
    },
    env::{self, Environment},
    input::documents::{
        absolute, exists, read_file,
        yaml::{self, Mapping, Node, Value},
    },
};
pub(crate) use entry::{EntryLocation, Problems};

/// One context of a kubeconfig.
pub(crate) struct Context {
    /// Its name.
    pub(crate) name: String,
    /// The server and its CA.
    pub(crate) cluster: Cluster,
    /// Where that entry is.
    pub(crate) cluster_location: EntryLocation,
    /// The login.
    pub(crate) user: AuthInfo,
    /// Where that entry is.
    pub(crate) user_location: EntryLocation,
    /// The content of the file `certificate-authority`, if set.
    pub(crate) authority: Option<Vec<u8>>,
    /// The content of the file `client-certificate`, if set.
    pub(crate) certificate: Option<Vec<u8>>,
    /// The content of the file `client-key`, if set.
    pub(crate) key: Option<Vec<u8>>,
    /// Whether a login command can prompt at a terminal; false until the reader of standard input has set it.
    pub(crate) terminal: bool,
    /// Problems of the three entries.
    pub(crate) problems: Vec<Finding>,
    /// Findings that do not block.
    pub(crate) remarks: Vec<Finding>,
}

/// Reads the context, its cluster and its user.
///
/// # Errors
/// What is missing, quoting no secret.
pub(crate) fn read(
    path: Option<&Path>,
    context: Option<&str>,
    environment: &Environment,
) -> Result<Context, Vec<Finding>> {
    let (paths, wanted) = match path {
        Some(path) => (vec![path.to_owned()], true),
        None => found(environment)?,
    };
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.display().to_string();
        let file = match read_file(&path) {
            Ok(bytes) => File::parse(&bytes, &name, directory_of(&path)),
            // Files of a list may be missing: they are ignored, as in kubectl.
            Err(cause) if cause.kind() == ErrorKind::NotFound && !wanted => continue,
            Err(cause) => Err(format!("cannot read {name}: {cause}")),
        };
        match file {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(Finding::refusal(finding::Code::Connection, problem)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if files.is_empty() {
        return Err(refused(nothing("no file of KUBECONFIG exists", environment)));
    }
    choose(&files, context)
}

/// Whether a text is meant as a kubeconfig, in YAML or JSON.
pub(crate) fn recognized(bytes: &[u8]) -> bool {
    let Ok(document) = yaml::parse(bytes) else { return false };
    let Value::Map(root) = &document.root.value else { return false };
    let is_config = |kind: &Rc<Node>| matches!(&kind.value, Value::Text(kind) if kind == "Config");
    root.member("clusters").is_some() || root.member("kind").is_some_and(is_config)
}

/// Reads the current context of one kubeconfig; its paths are relative to this directory.
///
/// # Errors
/// What is missing, quoting no secret.
pub(crate) fn parse(bytes: &[u8], name: &str, directory: &Path) -> Result<Context, Vec<Finding>> {
    let file = File::parse(bytes, name, absolute(directory)).map_err(refused)?;
    choose(&[file], None)
}

fn refused(problem: String) -> Vec<Finding> {
    vec![Finding::refusal(finding::Code::Connection, problem)]
}

/// One parsed kubeconfig file.
struct File {
    name: String,
    directory: PathBuf,
    root: Rc<Node>,
    next: Option<usize>,
}

impl File {
    fn parse(bytes: &[u8], name: &str, directory: PathBuf) -> Result<Self, String> {
        let refusal = |problem: &str| format!("{name} is not a kubeconfig: it {problem}");
        let document = yaml::parse(bytes).map_err(|problem| refusal(&problem))?;
        let file = Self { name: name.to_owned(), directory, root: document.root, next: document.next };
        if !matches!(file.root.value, Value::Null | Value::Map(_)) {
            return Err(refusal(&format!("is {} (line {})", file.root.kind(), file.root.line)));
        }
        if file.member("clusters").is_none() && ["authentication", "data"].iter().any(|key| file.member(key).is_some())
        {
            return Err(refusal("is a kubernetes-cluster document: pass it with --connection"));
        }
        if let Some(place) = file.map().and_then(|map| map.odd_key) {
            return Err(refusal(&format!("has a key that is not a string ({place})")));
        }
        for (key, noun, right) in [("kind", "a kind", "Config"), ("apiVersion", "an apiVersion", "v1")] {
            match file.member(key) {
                None => {}
                Some(node) if matches!(&node.value, Value::Text(text) if text == right || text.is_empty()) => {}
                Some(node) => return Err(refusal(&format!("has {noun} other than {right} (line {})", node.line))),
            }
        }
        Ok(file)
    }

    fn map(&self) -> Option<&Mapping> {
        if let Value::Map(map) = &self.root.value { Some(map) } else { None }
    }

    fn member(&self, key: &str) -> Option<&Rc<Node>> {
        self.map()?.get(key)
    }

    fn wrong(&self, key: &str, wanted: &str, node: &Node) -> String {
        format!("{key} must be {wanted}, but is {} (line {} of {})", node.kind(), node.line, self.name)
    }

    /// The entries of a list, each with its name.
    fn entries(&self, list: &str) -> Result<impl Iterator<Item = (&str, &Mapping)>, String> {
        let items = match self.member(list).map(|node| (&node.value, node)) {
            None => &[][..],
            Some((Value::List(items), _)) => items,
            Some((_, node)) => return Err(self.wrong(list, "a list", node)),
        };
        Ok(items.iter().filter_map(|item| match &item.value {
            Value::Map(map) => match map.get("name").map(|name| &name.value) {
                None => Some(("", map)),
                Some(Value::Text(name)) => Some((name.as_str(), map)),
                Some(_) => None,
            },
            _ => None,
        }))
    }

    /// The finding about a file that was pasted together from two: which of its parts kubectl uses.
    fn in_parts(&self) -> Option<Finding> {
        const OWN: [&str; 6] = ["apiVersion", "kind", "clusters", "contexts", "users", "current-context"];
        let repeated = self.map().into_iter().flat_map(|map| &map.repeated);
        let (keys, lines): (BTreeSet<&str>, Vec<usize>) = repeated
            .filter(|(key, _)| OWN.contains(&key.as_str()))
            .map(|(key, place)| (key.as_str(), place.line))
            .unzip();
        let text = if let Some(line) = lines.first() {
            let keys: Vec<&str> = keys.into_iter().collect();
            format!(
                "{} occur more than once, again at line {line}: the last one is used, as in kubectl",
                keys.join(", ")
            )
        } else {
            format!("another document begins at line {}: only the first one is used, as in kubectl", self.next?)
        };
        let help = "merge the parts into one kubeconfig: `KUBECONFIG=one:two kubectl config view --flatten --raw` \
                    merges two files";
        Some(Finding::remark(finding::Code::KubeconfigInParts, format!("{}: {text}", self.name)).help(help))
    }
}

/// An entry that was found.
struct FoundEntry<'a> {
    file: &'a File,
    node: Option<&'a Rc<Node>>,
    location: EntryLocation,
}

/// Finds an entry by its name, in the first file that contains one.
fn find<'a>(files: &'a [File], list: &str, kind: &'static str, name: &str) -> Result<Option<FoundEntry<'a>>, String> {
    let field = kind;
    for file in files {
        let mut named = file.entries(list)?.filter(|(candidate, _)| *candidate == name).map(|(_, map)| map);
        let Some(map) = named.next() else { continue };
        if named.next().is_some() {
            return Err(format!("{} has the {kind} `{}` twice: remove one of them", file.name, sanitize(name, 80)));
        }
        let node = map.get(field);
        let location = EntryLocation::new(
            kind,
            name,
            &file.name,
            node.map_or(&Node { line: line_of(map), column: 1, value: Value::Null }, Rc::as_ref),
        );
        return Ok(Some(FoundEntry { file, node, location }));
    }
    Ok(None)
}

/// The first line of a mapping's members, for a mapping without a line of its own.
fn line_of(map: &Mapping) -> usize {
    map.iter().map(|(_, node)| node.line).min().unwrap_or(1)
}

/// Reads the named context, or the current one.
fn choose(files: &[File], context: Option<&str>) -> Result<Context, Vec<Finding>> {
    let name = match context {
        Some(name) => name,
        None => current(files).map_err(refused)?,
    };
    let found = find(files, "contexts", "context", name).map_err(refused)?;
    if found.is_none() && (context.is_some() || !name.is_empty()) {
        return Err(refused(format!("the kubeconfig has no context `{}`; {}", sanitize(name, 80), known(files))));
    }
    // Without a context name, kubectl uses the entries without a name.
    let mut problems = Problems::default();
    let named = match &found {
        Some(found) => entry::context(found.node, &found.location, &mut problems),
        None => entry::Named { cluster: String::new(), user: String::new() },
    };
    let clusters = find(files, "clusters", "cluster", &named.cluster);
    let users = find(files, "users", "user", &named.user);
    let (cluster, user) = match (clusters, users) {
        (Ok(Some(cluster)), Ok(Some(user))) => (cluster, user),
        _ if found.is_none() && named.cluster.is_empty() => {
            let text = format!("the kubeconfig has no current context: choose one with --context; {}", known(files));
            return Err(refused(text));
        }
        (clusters, users) => {
            let of = found.as_ref().map(|found| format!(" {}", found.location.of("/context"))).unwrap_or_default();
            let missing = |found: Result<Option<FoundEntry<'_>>, String>, kind: &str, name: &str| match found {
                Ok(Some(_)) => None,
                Ok(None) if name.is_empty() => Some(format!("the context has no {kind}{of}")),
                Ok(None) => {
                    Some(format!("the kubeconfig has no {kind} `{}`, which its context names{of}", sanitize(name, 80)))
                }
                Err(problem) => Some(problem),
            };
            let missing = [missing(clusters, "cluster", &named.cluster), missing(users, "user", &named.user)];
            let mut findings = problems.into_findings();
            findings.extend(
                missing.into_iter().flatten().map(|problem| Finding::refusal(finding::Code::Connection, problem)),
            );
            return Err(findings);
        }
    };
    let remarks = files.iter().filter_map(File::in_parts).collect();
    Ok(Context { remarks, ..contents(name, &cluster, &user, problems) })
}

/// The current context: that of the first file that sets one.
fn current(files: &[File]) -> Result<&str, String> {
    for file in files {
        match file.member("current-context").map(|node| (&node.value, node)) {
            None => {}
            Some((Value::Text(name), _)) if name.is_empty() => {}
            Some((Value::Text(name), _)) => return Ok(name),
            Some((_, node)) => return Err(file.wrong("current-context", "a string", node)),
        }
    }
    Ok("")
}

/// The existing contexts, as the end of a sentence.
fn known(files: &[File]) -> String {
    const SHOWN: usize = 10;
    let entries = files.iter().flat_map(|file| file.entries("contexts").into_iter().flatten());
    let names: BTreeSet<&str> = entries.map(|(name, _)| name).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return "it has no contexts".to_owned();
    }
    let told: Vec<String> = names.iter().take(SHOWN).map(|name| sanitize(name, 80)).collect();
    match names.len() - told.len() {
        0 => format!("it has the contexts {}", told.join(", ")),
        more => format!("it has the contexts {} and {more} more", told.join(", ")),
    }
}

/// Reads the cluster and the user of a context, and the files that they refer to.
fn contents(
    name: &str,
    cluster_entry: &FoundEntry<'_>,
    user_entry: &FoundEntry<'_>,
    mut problems: Problems,
) -> Context {
    let cluster = entry::cluster(cluster_entry.node, &cluster_entry.location, &mut problems);
    let mut user = entry::user(user_entry.node, &user_entry.location, &mut problems);
    let authority = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(_), Some(_)) => {
            let problem = "and certificate-authority-data are both set, which kubectl rejects: keep one of them";
            problems.note(&cluster_entry.location, "/cluster/certificate-authority", problem);
            None
        }
        (_, file) => cluster_entry.content("certificate-authority", file.as_deref(), &mut problems),
    };
    let mut part = |field: &str, data: bool, file: &Option<String>| match file {
        Some(_) if data => {
            let problem = format!("and {field}-data are both set, which kubectl rejects: keep one of them");
            problems.note(&user_entry.location, &format!("/user/{field}"), &problem);
            None
        }
        file => user_entry.content(field, file.as_deref(), &mut problems),
    };
    let (mut certificate, mut key) = (None, None);
    // A key without its certificate is ignored, as by kubectl.
    if user.client_certificate.is_some() || user.client_certificate_data.is_some() {
        certificate = part("client-certificate", user.client_certificate_data.is_some(), &user.client_certificate);
        key = part("client-key", user.client_key_data.is_some(), &user.client_key);
    }
    // kubectl prefers the file, because it may be renewed, and trims the line break at its end.
    let token = user.token_file.as_ref().map(|file| read_file(&user_entry.path(file)));
    let token = match token {
        Some(Err(cause)) if user.token.is_none() => {
            let file = user_entry.path(user.token_file.as_deref().unwrap_or_default());
            problems.note(&user_entry.location, "/user/tokenFile", &unreadable(&file, &cause));
            None
        }
        Some(Ok(bytes)) => String::from_utf8(bytes).ok(),
        _ => None,
    };
    let token = token.as_deref().map(str::trim).filter(|token| !token.is_empty());
    user.token_file = user.token_file.filter(|_| token.is_some());
    user.token = token.map(SecretString::from).or(user.token);
    // A command is searched in PATH, unless it is a path.
    if let Some(command) = user.exec.as_mut().and_then(|exec| exec.command.as_mut())
        && command.contains('/')
    {
        *command = user_entry.path(command).display().to_string();
    }
    Context {
        name: name.to_owned(),
        cluster,
        cluster_location: cluster_entry.location.clone(),
        user,
        user_location: user_entry.location.clone(),
        authority,
        certificate,
        key,
        terminal: false,
        problems: problems.into_findings(),
        remarks: Vec::new(),
    }
}

impl FoundEntry<'_> {
    /// The path of a file that the entry refers to: relative to the kubeconfig, without resolving symbolic links, as in
    /// Go.
    fn path(&self, file: &str) -> PathBuf {
        if Path::new(file).is_absolute() {
            return PathBuf::from(file);
        }
        let mut path = PathBuf::new();
        for component in self.file.directory.join(file).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir if matches!(path.components().next_back(), Some(Component::Normal(_))) => {
                    path.pop();
                }
                Component::ParentDir if path.has_root() => {}
                other => path.push(other),
            }
        }
        path
    }

    fn content(&self, field: &str, file: Option<&str>, problems: &mut Problems) -> Option<Vec<u8>> {
        let file = self.path(file?);
        let noted = |cause: std::io::Error| {
            problems.note(&self.location, &format!("/{}/{field}", self.location.kind), &unreadable(&file, &cause));
        };
        read_file(&file).map_err(noted).ok()
    }
}

fn unreadable(file: &Path, cause: &std::io::Error) -> String {
    format!("cannot be read: {}: {cause}", sanitize(&file.display().to_string(), 300))
}

/// The directory of a kubeconfig, as an absolute path: a command relative to it must not be searched in PATH.
fn directory_of(path: &Path) -> PathBuf {
    absolute(path).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The files of KUBECONFIG, some of which may be missing, else the one in the home directory; and whether it must
/// exist.
fn found(environment: &Environment) -> Result<(Vec<PathBuf>, bool), Vec<Finding>> {
    if let Some(list) = environment.get(env::KUBECONFIG) {
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        let named = std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty());
        files.extend(named.filter(|file| seen.insert(file.clone())));
        return Ok((files, false));
    }
    let Some(home) = environment.get(env::HOME) else {
        return Err(refused(nothing("neither --connection, --kubeconfig, KUBECONFIG nor HOME is set", environment)));
    };
    let file = Path::new(home).join(".kube/config");
    if !exists(&file) {
        return Err(refused(nothing(&format!("{} does not exist", file.display()), environment)));
    }
    Ok((vec![file], true))
}

/// The message that there is no kubeconfig, with the options that help.
fn nothing(cause: &str, environment: &Environment) -> String {
    if !environment.is_in_a_pod() {
        return format!(
            "{cause}: pass a kubeconfig with --kubeconfig, or a kubernetes-cluster document with --connection"
        );
    }
    format!(
        "{cause}, and k8s-token runs in a pod, whose own ServiceAccount is not used by default: pass --kubeconfig \
         FILE, or --connection FILE with the server, the CA and the token of the parent credential"
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret as _;

    use super::*;

    /// No file can be in this directory.
    const DIRECTORY: &str = "/dev/null";

    fn parsed(name: &str, text: &str) -> Result<File, String> {
        File::parse(text.as_bytes(), name, DIRECTORY.into())
    }

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.message).collect()
    }

    /// Server and token of the chosen context, or the problems. The files are named `0`, `1` and so on.
    fn chosen(files: &[&str], context: Option<&str>) -> Result<(String, String), Vec<String>> {
        let files: Vec<File> =
            files.iter().enumerate().map(|(at, text)| parsed(&at.to_string(), text).unwrap()).collect();
        let context = choose(&files, context).map_err(messages)?;
        let token = context.user.token.map(|token| token.expose_secret().to_owned()).unwrap_or_default();
        let server = context.cluster.server.unwrap_or_default();
        if context.problems.is_empty() { Ok((server, token)) } else { Err(messages(context.problems)) }
    }

    const CLUSTERS: &str = "clusters: [{name: c, cluster: {server: C}}, {name: d, cluster: {server: D}}]";
    const USERS: &str = "users: [{name: u, user: {token: U}}]";
    const CONTEXTS: &str =
        "contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: d, user: u}}]";
    const NAMELESS: &str = "clusters: [{cluster: {server: C}}]\nusers: [{name: '', user: {token: U}}]";

    fn all(more: &str) -> String {
        format!("{more}\n{CONTEXTS}\n{CLUSTERS}\n{USERS}")
    }

    #[test]
    fn context_is_found_as_by_kubectl() {
        let current = &*all("current-context: a");
        let second = "current-context: b\nclusters: [{name: c, cluster: {server: X}}, {name: x, cluster: {server: X}}]";
        for (files, context, server) in [
            (&[current][..], None, "C"),
            (&[current], Some("b"), "D"),
            (&[NAMELESS], None, "C"),
            (&[current, second], None, "C"),
            (&[second, current], None, "D"),
            (&[second, current], Some("a"), "X"),
            (&["current-context: ''", current], None, "C"),
            (&["current-context: ~", current], None, "C"),
            (&[CONTEXTS, CLUSTERS, USERS], Some("b"), "D"),
            (&["current-context: a", "", current], None, "C"),
        ] {
            assert_eq!(chosen(files, context), Ok((server.to_owned(), "U".to_owned())), "{files:?} {context:?}");
        }
    }

    /// A kubeconfig whose context `a` has these fields.
    fn naming(fields: &str) -> String {
        format!("contexts:\n- name: a\n  context: {{{fields}}}\n{CLUSTERS}\n{USERS}")
    }

    fn eleven_contexts() -> String {
        (10..21).fold("contexts:".to_owned(), |text, number| format!("{text}\n- name: {number}x"))
    }

    #[rstest]
    #[case::unknown_context(all(""), Some("x"), &["the kubeconfig has no context `x`; it has the contexts a, b"])]
    #[case::empty_name(all(""), Some(""), &["the kubeconfig has no context ``; it has the contexts a, b"])]
    #[case::unknown_current_context(all("current-context: x"), None, &["the kubeconfig has no context `x`; it has the contexts a, b"])]
    #[case::no_current_context(all(""), None, &["the kubeconfig has no current context: choose one with --context; it has the contexts a, b"])]
    #[case::empty(String::new(), None, &["the kubeconfig has no current context: choose one with --context; it has no contexts"])]
    #[case::many_contexts(eleven_contexts(), Some("x"), &["the kubeconfig has no context `x`; it has the contexts 10x, 11x, 12x, 13x, 14x, 15x, 16x, 17x, 18x, 19x and 1 more"])]
    #[case::unknown_cluster(naming("cluster: x, user: u"), Some("a"), &["the kubeconfig has no cluster `x`, which its context names (context `a`, line 3 of 0)"])]
    #[case::two_problems(naming("user: x"), Some("a"), &["the context has no cluster (context `a`, line 3 of 0)", "the kubeconfig has no user `x`, which its context names (context `a`, line 3 of 0)"])]
    #[case::number(naming("cluster: 1, user: u"), Some("a"), &["cluster must be a string, but is a number (quote it if a string is meant) (context `a`, line 3 of 0)", "the context has no cluster (context `a`, line 3 of 0)"])]
    #[case::context_twice(all("").replace("name: b", "name: a"), Some("a"), &["0 has the context `a` twice: remove one of them"])]
    #[case::cluster_twice(all("").replace("name: d", "name: c"), Some("a"), &["0 has the cluster `c` twice: remove one of them"])]
    #[case::current_context_is_no_string("current-context: 1".to_owned(), None, &["current-context must be a string, but is a number (quote it if a string is meant) (line 1 of 0)"])]
    #[case::contexts_are_no_list("contexts: {}".to_owned(), Some("a"), &["contexts must be a list, but is a mapping (line 1 of 0)"])]
    fn missing_entries_are_reported_together(
        #[case] text: String,
        #[case] name: Option<&str>,
        #[case] problems: &[&str],
    ) {
        assert_eq!(chosen(&[&text], name).unwrap_err(), problems);
    }

    #[rstest]
    #[case::list("- a", Some("is a list (line 1)"))]
    #[case::text("a", Some("is a string (line 1)"))]
    #[case::connection("authentication: {}", Some("is a kubernetes-cluster document: pass it with --connection"))]
    #[case::legacy_connection("data: {}", Some("is a kubernetes-cluster document: pass it with --connection"))]
    #[case::clusters_and_data("data: {}\nclusters: []", None)]
    #[case::odd_key("kind: Config\n~: a", Some("has a key that is not a string (line 2, column 1)"))]
    #[case::another_kind("kind: Secret", Some("has a kind other than Config (line 1)"))]
    #[case::another_version("kind: Config\napiVersion: v2", Some("has an apiVersion other than v1 (line 2)"))]
    #[case::no_yaml("a: [", Some("is not valid YAML (line 1, column 4)"))]
    #[case::empty("", None)]
    #[case::empty_kind("kind: ''\napiVersion: v1", None)]
    fn other_documents_are_no_kubeconfig(#[case] text: &str, #[case] problem: Option<&str>) {
        let expected = problem.map(|problem| format!("config is not a kubeconfig: it {problem}"));
        assert_eq!(parsed("config", text).err(), expected);
    }

    #[rstest]
    #[case::clusters("clusters:", true)]
    #[case::kind("kind: Config", true)]
    #[case::json(r#"{"clusters": []}"#, true)]
    #[case::another_kind("kind: Secret", false)]
    #[case::connection("authentication: {cluster: {}}", false)]
    #[case::list("[clusters]", false)]
    #[case::no_yaml("clusters: [", false)]
    fn kubeconfig_is_recognized(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(recognized(text.as_bytes()), expected);
    }

    #[rstest]
    #[case::whole("kind: Config\nusers: []", None)]
    #[case::repeated(
        "kind: Config\nusers: []\nkind: Config\nusers: []",
        Some("config: kind, users occur more than once, again at line 3")
    )]
    #[case::unread_key_repeated("preferences: {}\npreferences: {}", None)]
    #[case::two_documents("kind: Config\n---\nkind: Config", Some("config: another document begins at line 2"))]
    fn merged_parts_are_reported(#[case] text: &str, #[case] remark: Option<&str>) {
        let found = parsed("config", text).unwrap().in_parts().map(|finding| finding.message);
        assert_eq!(
            found.as_ref().map(|found| found.split(": the ").next().unwrap().split(": only").next().unwrap()),
            remark
        );
    }

    #[rstest]
    #[case::absolute("/home/a/.kube", "/etc/../ca", "/etc/../ca")]
    #[case::beside("/home/a/.kube", "ca", "/home/a/.kube/ca")]
    #[case::dots("/home/a/.kube", "./b/./../ca", "/home/a/.kube/ca")]
    #[case::above("/home/a/.kube", "../ca", "/home/a/ca")]
    #[case::above_the_root("/home", "../../../ca", "/ca")]
    #[case::above_a_relative_directory("kube", "../../ca", "../ca")]
    fn paths_are_relative_to_the_kubeconfig(#[case] directory: &str, #[case] file: &str, #[case] expected: &str) {
        let owner = File::parse(b"", "config", directory.into()).unwrap();
        let entry = FoundEntry { file: &owner, node: None, location: EntryLocation::default() };
        assert_eq!(entry.path(file).to_str(), Some(expected));
    }

    /// Columns: fields of the cluster, fields of the user, the beginnings of the problems.
    #[rstest]
    #[case::ca_twice("certificate-authority: f, certificate-authority-data: d", "token: t", &["certificate-authority and certificate-authority-data are both set"])]
    #[case::ca_file("certificate-authority: f", "token: t", &["certificate-authority cannot be read: /dev/null/f:"])]
    #[case::certificate_twice("", "client-certificate: f, client-certificate-data: d", &["client-certificate and client-certificate-data are both set"])]
    #[case::key_twice("", "client-certificate-data: d, client-key: f, client-key-data: d", &["client-key and client-key-data are both set"])]
    #[case::certificate_files("", "client-certificate: f, client-key: g", &["client-certificate cannot be read: /dev/null/f:", "client-key cannot be read: /dev/null/g:"])]
    #[case::key_without_certificate("", "client-key: f, client-key-data: d", &[])]
    #[case::token_file("", "tokenFile: f", &["tokenFile cannot be read: /dev/null/f:"])]
    #[case::token_file_beside_a_token("", "tokenFile: f, token: t", &[])]
    fn files_of_an_entry_are_read(#[case] cluster: &str, #[case] user: &str, #[case] problems: &[&str]) {
        let text = format!("clusters: [{{cluster: {{{cluster}}}}}]\nusers: [{{user: {{{user}}}}}]");
        let found = messages(
            parse(text.as_bytes(), "config", Path::new(DIRECTORY)).unwrap_or_else(|found| panic!("{found:?}")).problems,
        );
        assert_eq!(found.len(), problems.len(), "{found:?}");
        assert!(found.iter().zip(problems).all(|(found, problem)| found.starts_with(problem)), "{found:?}");
    }

    #[rstest]
    #[case::in_path("login", "login")]
    #[case::relative("./login", "/dev/null/login")]
    #[case::below("bin/login", "/dev/null/bin/login")]
    #[case::absolute("/bin/login", "/bin/login")]
    fn login_command_with_a_slash_is_a_path(#[case] command: &str, #[case] expected: &str) {
        let text = format!("clusters: [{{cluster: {{}}}}]\nusers: [{{user: {{exec: {{command: {command}}}}}}}]");
        let context =
            parse(text.as_bytes(), "config", Path::new(DIRECTORY)).unwrap_or_else(|found| panic!("{found:?}"));
        assert_eq!(context.user.exec.unwrap().command.as_deref(), Some(expected));
    }

    #[rstest]
    #[case::list(&[(env::KUBECONFIG, "a::b:a"), (env::HOME, "/h")], Ok(&["a", "b"][..]))]
    #[case::no_home(&[], Err("neither --connection, --kubeconfig, KUBECONFIG nor HOME is set: pass"))]
    #[case::no_file(&[(env::HOME, "/dev/null")], Err("/dev/null/.kube/config does not exist: pass"))]
    #[case::pod(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], Err("neither --connection, --kubeconfig, KUBECONFIG nor HOME is set, and k8s-token runs in a pod"))]
    fn default_kubeconfig_is_found(
        #[case] variables: &[(&'static str, &str)],
        #[case] expected: Result<&[&str], &str>,
    ) {
        let environment = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        match (found(&environment).map_err(messages), expected) {
            (Ok((files, must_exist)), Ok(expected)) => {
                assert_eq!((files, must_exist), (expected.iter().map(PathBuf::from).collect(), false));
            }
            (Err(found), Err(problem)) => assert!(found.len() == 1 && found[0].starts_with(problem), "{found:?}"),
            (found, _) => panic!("{found:?}"),
        }
    }
}
