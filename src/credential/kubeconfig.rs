//! A kubernetes-cluster document as a kubeconfig. Pure.

use serde_json::Value;

use crate::{
    credential::claims::Claims,
    diagnostics::{finding::Finding, secret::Token, text::sanitize},
    endpoint::connection::{ClusterLogin, Connection, Server, ServerTrust},
    k8s::name::Namespace,
};

/// A kubeconfig with this document and the connection that it describes. The context's namespace is the one given, else the document's, else the one in the token.
pub(crate) fn render(
    document: &Value,
    connection: Connection,
    namespace: Option<&Namespace>,
) -> Result<String, Vec<Finding>> {
    let Connection { server, ca, login, .. } = connection;
    // A document contains nothing else.
    let (ClusterLogin::Token(token), ServerTrust::Given(ca)) = (login, ca) else { return Err(Vec::new()) };
    let said = document.get("namespace").and_then(Value::as_str).map(str::to_owned);
    let namespace = match namespace {
        Some(namespace) => Some(namespace.clone()),
        None => said.or_else(|| Claims::of(&token)?.namespace).and_then(|text| Namespace::parse(&text).ok()),
    };
    let name = name(&server, &token);
    // A JSON string is a YAML string, so that no value can break out.
    let quoted = |text: &str| Value::from(text).to_string();
    let namespace = namespace.map(|namespace| format!("\n    namespace: {}", quoted(namespace.as_str())));
    Ok(format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {}
    certificate-authority-data: {}
users:
- name: {name}
  user:
    token: {}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}{}
current-context: {name}
",
        quoted(server.as_str()),
        quoted(&ca.as_base64().split_ascii_whitespace().collect::<String>()),
        quoted(token.expose()),
        namespace.unwrap_or_default(),
        name = quoted(&name),
    ))
}

/// `<name>.<namespace>@<host>`: differs from instance to instance and from server to server, so that several
/// kubeconfigs merge. A port and a path belong to the host where they are not the usual ones: clusters on one machine,
/// or behind one Rancher, differ in nothing else.
fn name(server: &Server, token: &Token) -> String {
    let claims = Claims::of(token);
    let owner = match claims.as_ref().and_then(Claims::account) {
        Some(account) => {
            let instance = account.name.strip_suffix("-token").unwrap_or(account.name);
            format!("{}.{}", sanitize(instance, 253), sanitize(account.namespace, 63))
        }
        // For a token that is not of a ServiceAccount, only the token itself identifies the credential.
        None => format!("token-{}", token.fingerprint().chars().skip("sha256:".len()).take(10).collect::<String>()),
    };
    let uri = server.uri();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let port = uri.port_u16().filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
    format!("{owner}@{host}{port}{}", uri.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::usual("https://Example.com", "shop-prod-token", "shop-prod.web@example.com")]
    #[case::usual_port("https://example.com:443/", "shop-prod-token", "shop-prod.web@example.com")]
    #[case::port("https://127.0.0.1:6443", "shop-prod-token", "shop-prod.web@127.0.0.1:6443")]
    #[case::path(
        "https://example.com/k8s/clusters/c-1",
        "shop-prod-token",
        "shop-prod.web@example.com/k8s/clusters/c-1"
    )]
    #[case::ipv6("https://[::1]:6443", "shop-prod-token", "shop-prod.web@[::1]:6443")]
    #[case::another_account("https://example.com", "deployer", "deployer.web@example.com")]
    fn entry_name_identifies_instance_and_server(#[case] server: &str, #[case] account: &str, #[case] wanted: &str) {
        let claims = json!({
            "kubernetes.io/serviceaccount/namespace": "web",
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": "1",
        });
        let token = Token::parse(&format!("a.{}.c", URL_SAFE_NO_PAD.encode(claims.to_string()))).unwrap();
        assert_eq!(name(&Server::parse(server).unwrap(), &token), wanted);
    }

    #[test]
    fn opaque_tokens_are_named_by_fingerprint() {
        let server = Server::parse("https://example.com").unwrap();
        let [one, two] = ["opaque-one", "opaque-two"].map(|token| name(&server, &Token::parse(token).unwrap()));
        assert!(one != two && one.starts_with("token-") && one.ends_with("@example.com"), "{one} {two}");
    }
}
