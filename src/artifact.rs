//! The artifact: a kubernetes-cluster document with our token, in the shape of the connection. Pure.

use serde_json::{Map, Value, json};

use crate::{
    connection::{Connection, Shape},
    name::Namespace,
    schema::{self, Schema},
    secret::Token,
    text::escaped,
};

/// What an artifact of this request looks like: everything but the token.
pub struct Form {
    /// Flat or legacy.
    pub shape: Shape,
    /// The namespace to say, if it is to be said.
    pub namespace: Option<Namespace>,
    /// What it has to fit.
    pub schema: Schema,
}

/// A finished artifact. It holds the token, and is therefore neither `Debug` nor `Serialize`.
pub struct Artifact(Value);

impl Form {
    /// The embedded type and nothing more.
    #[must_use]
    pub fn embedded(shape: Shape) -> Option<Self> {
        let schema = Schema::new(schema::cluster(shape)).ok()?;
        Some(Self { shape, namespace: None, schema })
    }

    /// Puts the token where the parent's was, and beside it the CA (in base64) that the server was verified against;
    /// nothing of the parent's login is taken over.
    ///
    /// # Errors
    /// Where it does not fit the schema, without a value.
    pub fn fill(
        &self,
        connection: &Connection,
        ca: &str,
        token: &Token,
    ) -> Result<Artifact, Vec<crate::finding::Finding>> {
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
    /// The document, for the platform and for `--output`: the two places it may go.
    pub(crate) const fn document(&self) -> &Value {
        &self.0
    }

    /// As a file holds it.
    pub(crate) fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }

    /// Where in the document this token stands, if it does: the parent's must not be handed on.
    pub(crate) fn place_of(&self, token: &Token) -> Option<String> {
        place_of(token.expose(), "", &self.0)
    }
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
