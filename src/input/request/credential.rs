//! The input of verify: a credential from a credential file or a kubeconfig, and its expected properties. Pure.

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
    },
    endpoint::connection::{ClusterLogin, Connection},
    input::{
        documents::{Inputs, Strictness},
        request::{Params, Parsed, connection, params, settle},
    },
    k8s::{
        grant::Grants,
        name::{InstanceName, Namespace},
    },
};

/// A credential, and its expected properties.
pub(crate) struct Credential {
    /// Its server, CA and token.
    pub(crate) connection: Connection,
    /// Its token.
    pub(crate) token: Token,
    /// The instance that it has to belong to, if given.
    pub(crate) name: Option<InstanceName>,
    /// The namespace that it has to belong to, if given.
    pub(crate) namespace: Option<Namespace>,
    /// The grants that it has to have, if given.
    pub(crate) grants: Option<Grants>,
}

/// Parses a credential, and the params that it has to match, if any.
pub(crate) fn parse(inputs: &Inputs, has_params: bool, mut findings: Vec<Finding>) -> Parsed<Credential> {
    let params = if has_params { params::parse(inputs, Strictness::Strict, &mut findings) } else { None };
    let (namespace, grants) = match params {
        Some(Params { namespace, grants }) => (Some(namespace), Some(grants)),
        None if has_params => (None, None),
        None => (params::namespace_option(inputs, &mut findings), None),
    };
    let name = params::name_if_any(inputs, &mut findings);
    // A credential is tested at its own server, whatever the instance's config.json sets.
    let connection = connection(inputs, None, &mut findings);
    let token = connection.as_ref().and_then(|connection| match &connection.login {
        ClusterLogin::Token(token) => Some(token.clone()),
        ClusterLogin::Kubeconfig(_) => {
            let text = "the kubeconfig does not log in with a token only (expected the token of a ServiceAccount)";
            findings.push(Finding::blocking(finding::Code::Connection, "/user", text));
            None
        }
    });
    let credential =
        connection.zip(token).map(|(connection, token)| Credential { connection, token, name, namespace, grants });
    settle(credential, findings)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::{
        diagnostics::secret::sha256,
        input::{
            documents::{ClusterInput, kubeconfig},
            request::tests::{inputs, located},
        },
    };

    fn kubeconfig(user: &serde_json::Value) -> ClusterInput {
        let cluster = json!({"server": "https://a.example.com"});
        let text = json!({"clusters": [{"cluster": cluster}], "users": [{"user": user}]}).to_string();
        let context = kubeconfig::parse(text.as_bytes(), "config", Path::new("/"));
        ClusterInput::Kubeconfig(Box::new(context.unwrap_or_else(|problems| panic!("{problems:?}"))))
    }

    /// Name and whether there are params; or code and pointer of each finding.
    fn parsed(inputs: &Inputs, has_params: bool) -> Result<(Option<String>, bool), Vec<String>> {
        match parse(inputs, has_params, Vec::new()) {
            Ok((it, _)) => Ok((it.name.map(|name| name.as_str().to_owned()), it.grants.is_some())),
            Err(findings) => Err(located(&findings).into_iter().map(|(code, at)| format!("{code} {at}")).collect()),
        }
    }

    #[test]
    fn credential_is_the_token_of_its_document() {
        let login = json!({"token": "the-parents-token"});
        for cluster in [inputs().cluster, kubeconfig(&login)] {
            let (credential, findings) = parse(&Inputs { cluster, ..inputs() }, true, Vec::new()).ok().unwrap();
            assert_eq!(credential.token.fingerprint(), format!("sha256:{}", sha256(b"the-parents-token")));
            assert_eq!(findings, []);
        }
        let token_as = json!({"token": "the-parents-token", "as": "admin"});
        let command = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "login"}});
        for user in [token_as, command] {
            let inputs = Inputs { cluster: kubeconfig(&user), ..inputs() };
            assert_eq!(parsed(&inputs, true), Err(vec!["connection /user".to_owned()]), "{user}");
        }
    }

    #[test]
    fn expected_properties_are_optional() {
        let only = |params: serde_json::Value, name: Option<&str>| Inputs {
            params,
            name: name.map(str::to_owned),
            ..inputs()
        };
        let named = |name: &str| Some(name.to_owned());
        let problem = |finding: &str| Err(vec![finding.to_owned()]);
        for (inputs, has_params, expected) in [
            (inputs(), true, Ok((named("demo"), true))),
            (only(json!(null), None), false, Ok((None, false))),
            (only(json!(null), Some("b")), false, Ok((named("b"), false))),
            (only(json!(null), Some("B")), false, problem("name ")),
            (only(json!({"namespace": "a", "cluster_roles": [{"name": "view"}]}), None), true, Ok((None, true))),
            (only(json!({"cluster_roles": [{"name": "view"}]}), None), true, problem("schema ")),
        ] {
            assert_eq!(parsed(&inputs, has_params), expected, "{} {:?}", inputs.params, inputs.name);
        }
    }

    #[test]
    fn server_of_config_is_not_used() {
        let config =
            json!({"kubernetes_cluster": {"authentication": {"cluster": {"server": "https://b.example.com"}}}});
        let (credential, _) = parse(&Inputs { config, ..inputs() }, true, Vec::new()).ok().unwrap();
        assert_eq!(credential.connection.server.as_str(), "https://a.example.com");
    }
}
