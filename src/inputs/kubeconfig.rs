//! A kubeconfig as kubectl reads it: finds the files, the context, its cluster and its user, and reads what these name.

use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::SecretString;

use super::read_file;

use crate::cli::{Environment, env};

/// One context of a kubeconfig.
pub struct Context {
    /// Its name.
    pub name: String,
    /// The server and its CA.
    pub cluster: Cluster,
    /// The login.
    pub user: AuthInfo,
    /// Content of `certificate-authority`, when it is a file.
    pub authority: Option<Vec<u8>>,
    /// Content of `client-certificate`, likewise.
    pub certificate: Option<Vec<u8>>,
    /// Content of `client-key`, likewise.
    pub key: Option<Vec<u8>>,
    /// Whether a login command can ask somebody at a terminal; not before whoever reads standard input has said so.
    pub terminal: bool,
}

/// Reads the context's parts.
///
/// # Errors
/// What is missing, in one line that quotes no secret.
pub fn read(path: Option<&Path>, context: Option<&str>, environment: &Environment) -> Result<Context, String> {
    let files = match path {
        Some(path) => vec![path.to_owned()],
        None => found(environment)?,
    };
    let mut merged = Kubeconfig::default();
    for file in &files {
        // The reader's own errors quote the text around a fault, and that may be a token.
        let mut one = Kubeconfig::read_from(file).map_err(|error| match error {
            kube::config::KubeconfigError::ReadConfig(cause, _) => format!("cannot read {}: {cause}", file.display()),
            _ => format!("{} is not a kubeconfig", file.display()),
        })?;
        // What is empty says nothing, and the next file may: kubectl writes an empty name where it has none.
        one.current_context = one.current_context.filter(|name| !name.is_empty());
        (one.kind, one.api_version) = (None, None);
        merged = merged.merge(one).map_err(|_| format!("{} does not go with the files before it", file.display()))?;
    }
    context_of(&merged, context)
}

/// A text that is meant as a kubeconfig, in YAML or JSON.
#[must_use]
pub fn recognized(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let document: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let is_one = document.get("clusters").is_some() || document.get("kind").is_some_and(|kind| kind == "Config");
    is_one.then_some(text)
}

/// Reads the parts of the current context of one kubeconfig; what it names is relative to this directory.
///
/// # Errors
/// What is missing, in one line that quotes no secret.
pub fn parse(text: &str, name: &str, directory: &Path) -> Result<Context, String> {
    let mut one = Kubeconfig::from_yaml(text).map_err(|_| format!("{name} is not a kubeconfig"))?;
    let whole = |file: &mut Option<String>| {
        if let Some(file) = file.as_mut().filter(|file| !file.is_empty()) {
            *file = directory.join(&*file).display().to_string();
        }
    };
    for cluster in one.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        whole(&mut cluster.certificate_authority);
    }
    for user in one.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        [&mut user.client_certificate, &mut user.client_key, &mut user.token_file].into_iter().for_each(whole);
    }
    context_of(&one, None)
}

fn context_of(merged: &Kubeconfig, context: Option<&str>) -> Result<Context, String> {
    let context = match (context, &merged.current_context) {
        (Some(name), _) => name,
        (None, Some(name)) if !name.is_empty() => name,
        _ => return Err("the kubeconfig has no current context: name one with --context".to_owned()),
    };
    let named = merged.contexts.iter().find(|candidate| candidate.name == context);
    let Some(named) = named.and_then(|named| named.context.as_ref()) else {
        let known: Vec<&str> = merged.contexts.iter().map(|context| context.name.as_str()).collect();
        return Err(format!("the kubeconfig has no context `{context}`; it has {}", known.join(", ")));
    };
    let cluster = merged.clusters.iter().find(|candidate| candidate.name == named.cluster);
    let mut cluster = cluster
        .and_then(|cluster| cluster.cluster.clone())
        .ok_or_else(|| format!("the kubeconfig has no cluster `{}`", named.cluster))?;
    let user_name = named.user.clone().unwrap_or_default();
    let user = merged.auth_infos.iter().find(|candidate| candidate.name == user_name);
    let mut user = user
        .and_then(|user| user.auth_info.clone())
        .ok_or_else(|| format!("the kubeconfig has no user `{user_name}`"))?;
    // Data counts before a file, and is none when it is empty.
    cluster.certificate_authority_data = cluster.certificate_authority_data.filter(|data| !data.is_empty());
    user.client_certificate_data = user.client_certificate_data.filter(|data| !data.is_empty());
    let file = |data: bool, file: &Option<String>| match file.as_deref().filter(|file| !data && !file.is_empty()) {
        Some(file) => read_file(Path::new(file)).map(Some).map_err(|cause| format!("cannot read {file}: {cause}")),
        None => Ok(None),
    };
    let authority = file(cluster.certificate_authority_data.is_some(), &cluster.certificate_authority)?;
    let certificate = file(user.client_certificate_data.is_some(), &user.client_certificate)?;
    let key = file(user.client_key_data.is_some(), &user.client_key)?;
    // kubectl prefers the file, as something else may renew it, and drops the line break that such files end in.
    let token = match file(false, &user.token_file) {
        Err(cause) if user.token.is_none() => return Err(cause),
        read => read.unwrap_or_default().and_then(|bytes| String::from_utf8(bytes).ok()),
    };
    let token = token.as_deref().map(str::trim).filter(|token| !token.is_empty());
    user.token = token.map(SecretString::from).or(user.token);
    Ok(Context { name: context.to_owned(), cluster, user, authority, certificate, key, terminal: false })
}

/// KUBECONFIG, a list of files of which some may be missing, else the one in the home directory.
fn found(environment: &Environment) -> Result<Vec<PathBuf>, String> {
    if let Some(list) = environment.get(env::KUBECONFIG) {
        let files: Vec<PathBuf> =
            std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty() && file.exists()).collect();
        return if files.is_empty() { Err("no file of KUBECONFIG exists".to_owned()) } else { Ok(files) };
    }
    let home = environment.get(env::HOME).ok_or("neither --connection, --kubeconfig, KUBECONFIG nor HOME is set")?;
    Ok(vec![Path::new(home).join(".kube/config")])
}
