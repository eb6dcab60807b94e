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
    k8s::name::InstanceName,
};

/// A credential, and its expected properties.
pub(crate) struct Credential {
    /// Its server, CA and token.
    pub(crate) connection: Connection,
    /// Its token.
    pub(crate) token: Token,
    /// The instance that it has to belong to, if given.
    pub(crate) name: Option<InstanceName>,
    /// The namespace that it has to belong to and the grants that it has to have, if given.
    pub(crate) params: Option<Params>,
}

/// Parses a credential, and the params that it has to match, if any.
pub(crate) fn parse(inputs: &Inputs, has_params: bool, mut findings: Vec<Finding>) -> Parsed<Credential> {
    let params = if has_params { params::parse(inputs, Strictness::Strict, &mut findings) } else { None };
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
    let credential = connection.zip(token).map(|(connection, token)| Credential { connection, token, name, params });
    settle(credential, findings)
}
