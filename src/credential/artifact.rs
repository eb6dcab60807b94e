//! The published document, a kubernetes-cluster document with the new token, in the shape of the connection. Pure.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};

use crate::{
    diagnostics::{secret::Token, text::escaped},
    endpoint::connection::{Connection, Shape},
    k8s::name::Namespace,
    schema::{self, Schema},
};

/// The format of the document: everything except the token.
pub(crate) struct Form {
    /// Flat or legacy.
    pub(crate) shape: Shape,
    /// The namespace, if the document contains it.
    pub(crate) namespace: Option<Namespace>,
    /// The schema that it has to match.
    pub(crate) schema: Schema,
}

/// A complete document. It contains the token, and is therefore neither `Debug` nor `Serialize`.
pub(crate) struct Artifact(Value);

/// The embedded type of a kubernetes-cluster document of this shape.
pub(crate) fn embedded_type(shape: Shape) -> Value {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    match shape {
        Shape::Flat => parse(schema::ARTIFACTS).pointer_mut("/properties/token").map(Value::take).unwrap_or_default(),
        Shape::Legacy => parse(schema::LEGACY_CLUSTER),
    }
}

impl Form {
    /// Sets the token in place of the parent's, and the CA (in base64) that verified the server; nothing of the
    /// parent's login is copied.
    ///
    /// # Errors
    /// The locations that do not match the schema, without values.
    pub(crate) fn fill(
        &self,
        connection: &Connection,
        ca: &str,
        token: &Token,
    ) -> Result<Artifact, Vec<crate::diagnostics::finding::Finding>> {
        let authentication = json!({
            "cluster": {
                "server": connection.server.as_str(),
                "certificate-authority-data": ca,
            },
            "user": { "token": token.expose() },
        });
        let mut body = Map::from_iter([("authentication".to_owned(), authentication)]);
        if let Some(infrastructure) = &connection.infrastructure {
            body.insert("infrastructure".to_owned(), infrastructure.clone().into());
        }
        if let Some(namespace) = &self.namespace {
            body.insert("namespace".to_owned(), namespace.as_str().into());
        }
        if self.shape == Shape::Legacy {
            body = Map::from_iter([("data".to_owned(), body.into())]);
        }
        if let Some(specs) = &connection.specs {
            body.insert("specs".to_owned(), specs.clone().into());
        }
        let artifact = Artifact(body.into());
        let findings = self.schema.check("", &artifact.0);
        if findings.is_empty() { Ok(artifact) } else { Err(findings) }
    }
}

impl Artifact {
    /// The document, for the platform and for `--output`, its only two destinations.
    pub(crate) const fn document(&self) -> &Value {
        &self.0
    }

    /// The content of the credential file.
    pub(crate) fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }

    /// The location of this token in the document, if any: the parent's must not be published.
    pub(crate) fn place_of(&self, token: &Token) -> Option<String> {
        place_of(token.expose(), "", &self.0)
    }
}

/// An example of a token as the token controller issues it: a JWT with the claims of a ServiceAccount and an invalid
/// signature of the size of RSA 2048. It shows whether a document with a real token will match a schema that restricts
/// its format.
pub(crate) fn example_token(namespace: &str, service_account: &str) -> Option<Token> {
    let header = json!({ "alg": "RS256", "kid": "k".repeat(43) }); // base64url of SHA-256
    let claims = json!({
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": service_account,
        "kubernetes.io/serviceaccount/service-account.name": service_account,
        "kubernetes.io/serviceaccount/service-account.uid": "00000000-0000-4000-8000-000000000000",
        "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
    });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    Token::parse(&format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0xa5; 256]))).ok()
}

/// An example of a CA in base64-encoded PEM, of a usual length. It signs nothing.
pub(crate) fn example_ca() -> String {
    STANDARD.encode(pem::encode(&pem::Pem::new("CERTIFICATE", [0x30; 780])))
}

fn place_of(token: &str, at: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains(token).then(|| at.to_owned()),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| place_of(token, &format!("{at}/{index}"), item))
        }
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            let at_key = format!("{at}/{}", escaped(key));
            if key.contains(token) { Some(at.to_owned()) } else { place_of(token, &at_key, value) }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns that organizations write into their own type of a kubernetes-cluster.
    #[rstest::rstest]
    #[case(json!({ "pattern": r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$" }))]
    #[case(json!({ "pattern": "^eyJ", "minLength": 500, "maxLength": 4096 }))]
    fn example_token_satisfies_realistic_schemas(#[case] schema: Value) {
        let token = example_token("team-a", "alice-token").unwrap();
        assert_eq!(Schema::new(schema).unwrap().check("", &json!(token.expose())), []);
    }

    #[rstest::rstest]
    #[case(json!({ "pattern": "^LS0tLS1CRUdJTi", "minLength": 1000 }))]
    #[case(json!({ "pattern": "^[A-Za-z0-9+/]+={0,2}$", "contentEncoding": "base64" }))]
    fn example_ca_satisfies_realistic_schemas(#[case] schema: Value) {
        assert_eq!(Schema::new(schema).unwrap().check("", &json!(example_ca())), []);
    }
}
