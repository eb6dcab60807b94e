//! A kubernetes-cluster document as a kubeconfig. Pure.

use serde_json::Value;

use crate::{
    connection::{self, Connection, Login, Trust},
    credential,
    finding::Finding,
    name::Namespace,
};

/// Writes the kubeconfig. The context's namespace is the one given, else the document's, else the one in the token.
///
/// # Errors
/// What the document lacks.
pub fn render(document: &Value, namespace: Option<&Namespace>) -> Result<String, Vec<Finding>> {
    // The very reading of a connection: an artifact is one.
    let (Connection { server, ca, login, .. }, _) = connection::from_document(document, None)?;
    // A document has nothing else.
    let (Login::Token(token), Trust::Given(ca)) = (login, ca) else { return Err(Vec::new()) };
    let said = document.get("namespace").and_then(Value::as_str).map(str::to_owned);
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
