//! An HTTPS client of the API server for arranging and asserting, with any credential. Blocking, without retries; every
//! status is returned.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::error::{Doing, Error};
use crate::pki::ClientCertificate;

/// A response of the server.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The body as received.
    pub text: String,
    /// The body as JSON, `null` if it is not JSON.
    pub body: Value,
}

/// A connection pool to one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: String,
    agent: Agent,
}

impl Client {
    pub(crate) fn new(server: &str, ca: &str, identity: Option<&ClientCertificate>) -> Result<Self, Error> {
        let ca = Certificate::from_pem(ca.as_bytes()).doing("reading the CA")?;
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[ca.to_owned()]));
        if let Some(identity) = identity {
            let chain = Certificate::from_pem(identity.certificate.as_bytes()).doing("reading a certificate")?;
            let key = PrivateKey::from_pem(identity.key.as_bytes()).doing("reading a key")?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&[chain], key)));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(30)))
            .user_agent("testbed")
            .build();
        Ok(Self { server: server.to_owned(), agent: Agent::new_with_config(config) })
    }

    /// `path` begins with a slash. A PATCH is a JSON merge patch.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        bearer_token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Response, Error> {
        self.send_accepting("application/json", method, path, bearer_token, body)
    }

    /// Like `send`, with this list of media types for the response.
    pub(crate) fn send_accepting(
        &self,
        accepted: &str,
        method: &str,
        path: &str,
        bearer_token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Response, Error> {
        let what = format!("{method} {path}");
        let verb = Method::from_bytes(method.as_bytes()).doing(&what)?;
        let kind = match verb {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request =
            Request::builder().method(verb).uri(format!("{}{path}", self.server)).header("accept", accepted);
        if let Some(token) = bearer_token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", kind);
                self.agent.run(request.body(body.to_string()).doing(&what)?)
            }
            None => self.agent.run(request.body(()).doing(&what)?),
        };
        let mut answer = answer.doing(&what)?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().doing(&what)?;
        Ok(Response {
            status: answer.status().as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }
}
