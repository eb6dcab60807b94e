//! A kubernetes-cluster document as a kubeconfig. Pure.

use serde_json::Value;

use crate::{
    connection::{CaBundle, Server},
    credential,
    finding::Finding,
    name::Namespace,
    secret::Token,
};

/// Writes the kubeconfig. The context's namespace is the one given, else the document's, else the one in the token.
///
/// # Errors
/// What the document lacks.
pub fn render(document: &Value, namespace: Option<&Namespace>) -> Result<String, Vec<Finding>> {
    let home = if document.get("authentication").is_some() { document } else { &document["data"] };
    let mut findings = Vec::new();
    let mut field = |pointer: &str| {
        let value = home.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if value.is_empty() {
            let text = format!("not a kubernetes-cluster document: `{}` is missing", pointer.trim_start_matches('/'));
            findings.push(Finding::blocking("schema", pointer, text));
        }
        value
    };
    let server = field("/authentication/cluster/server");
    let ca = field("/authentication/cluster/certificate-authority-data");
    let token = field("/authentication/user/token");
    if !findings.is_empty() {
        return Err(findings);
    }
    let mut refuse = |pointer: &str, problem: &str| findings.push(Finding::blocking("connection", pointer, problem));
    let server = Server::parse(server).map_err(|problem| refuse("/authentication/cluster/server", problem));
    let pointer = "/authentication/cluster/certificate-authority-data";
    let ca = CaBundle::parse(ca).map_err(|problem| refuse(pointer, problem));
    let token = Token::parse(token).map_err(|problem| refuse("/authentication/user/token", problem));
    let (Ok(server), Ok(ca), Ok(token)) = (server, ca, token) else { return Err(findings) };

    let said = home.get("namespace").and_then(Value::as_str).map(str::to_owned);
    let namespace = match namespace {
        Some(namespace) => Some(namespace.clone()),
        None => said.or_else(|| credential::namespace_of(&token)).and_then(|text| Namespace::parse(&text).ok()),
    };
    // A JSON string is a YAML string: no value can leave its place.
    let quoted = |text: &str| Value::from(text).to_string();
    let namespace = namespace.map(|namespace| format!("\n    namespace: {}", quoted(namespace.as_str())));
    Ok(format!(
        "apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster:
    server: {}
    certificate-authority-data: {}
users:
- name: k8s-token
  user:
    token: {}
contexts:
- name: k8s-token
  context:
    cluster: cluster
    user: k8s-token{}
current-context: k8s-token
",
        quoted(server.as_str()),
        quoted(&ca.as_base64().split_ascii_whitespace().collect::<String>()),
        quoted(token.expose()),
        namespace.unwrap_or_default(),
    ))
}
