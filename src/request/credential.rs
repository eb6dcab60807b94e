//! A credential that is there, as an artifact or a kubeconfig holds it, and what it has to be. Pure.

use secrecy::SecretString;

use super::{Terms, check, connection, keep, name};
use crate::{
    cli::{Action, Publishing},
    connection::{Connection, Login},
    finding::{self, Finding},
    grant::Grant,
    inputs::Inputs,
    name::{InstanceName, Namespace},
    secret::Token,
};

/// The credential, and what is known of it.
pub struct Credential {
    /// Its server, CA and token.
    pub connection: Connection,
    /// The token once more.
    pub token: Token,
    /// The instance that it has to be of, if that is said.
    pub name: Option<InstanceName>,
    /// Where it has to be and what it has to be allowed, if that is said.
    pub wanted: Option<(Namespace, Vec<Grant>)>,
}

impl Credential {
    /// The password of the proxy on the way.
    #[must_use]
    pub fn password(&self) -> Option<&SecretString> {
        self.connection.route.proxy()?.secret()
    }
}

/// Parses a credential, and the params that it has to fit if there are any; all problems at once.
#[must_use]
pub fn parse(inputs: &Inputs, has_params: bool, mut findings: Vec<Finding>) -> (Option<Credential>, Vec<Finding>) {
    let (mut wanted, mut named) = (None, None);
    if has_params {
        let (params, found) = check(inputs, findings);
        findings = found;
        if let Some(params) = params {
            wanted = Some((params.namespace, params.grants));
            named = params.name;
        }
    } else if inputs.name.is_some() {
        named = name(inputs, &mut findings);
    }
    let terms = Terms { action: Action::Plan, publish: Publishing::Never, timeout_seconds: None };
    let connection = keep(&mut findings, connection(inputs, &terms)).map(|(connection, mut remarks)| {
        findings.append(&mut remarks);
        connection
    });
    let token = connection.as_ref().and_then(|connection| match &connection.login {
        Login::Token(token) => Some(token.clone()),
        Login::Kubeconfig(_) => {
            let text =
                "the kubeconfig does not log in with a token alone: what is verified is that of a ServiceAccount";
            findings.push(Finding::blocking(finding::Code::Connection, "/user", text));
            None
        }
    });
    let refused = findings.iter().any(|finding| finding.blocking);
    let credential = match (connection, token) {
        (Some(connection), Some(token)) if !refused => Some(Credential { connection, token, name: named, wanted }),
        _ => None,
    };
    (credential, findings)
}
