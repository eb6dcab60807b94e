//! A kubeconfig as kubectl reads it: finds the files, the context, its cluster and its user, and reads the files that
//! these name. Other entries are not read.

mod entry;
mod yaml;

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
    input::documents::{absolute, exists, read_file},
};
pub(crate) use entry::{EntryLocation, Problems};
use yaml::{Mapping, Node, Value};

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
        if let Some(line) = file.map().and_then(|map| map.odd_key) {
            return Err(refusal(&format!("has a key that is not a string (line {line})")));
        }
        for (key, right) in [("kind", "Config"), ("apiVersion", "v1")] {
            match file.member(key) {
                None => {}
                Some(node) if matches!(&node.value, Value::Text(text) if text == right || text.is_empty()) => {}
                Some(node) => return Err(refusal(&format!("has a {key} other than {right} (line {})", node.line))),
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
        let (keys, lines): (BTreeSet<&str>, Vec<usize>) =
            repeated.filter(|(key, _)| OWN.contains(&key.as_str())).map(|(key, line)| (key.as_str(), *line)).unzip();
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
            node.map_or(&Node { line: line_of(map), value: Value::Null }, Rc::as_ref),
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
