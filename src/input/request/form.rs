//! The format of the published document, and whether it will match its schema: validated with an example token. Pure.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    credential::artifact::{self, Form},
    diagnostics::{
        finding::{self, Finding},
        text::presentable_pointer,
    },
    endpoint::connection::{Connection, ServerTrust, Shape},
    input::{documents::ArtifactsSchema, request::config::ArtifactOptions},
    k8s::object_names::Names,
    schema::Schema,
};

/// The format of the published document, after an example has passed its schema.
pub(crate) fn parse(
    schema: &ArtifactsSchema,
    options: ArtifactOptions,
    connection: &Connection,
    names: &Names,
    findings: &mut Vec<Finding>,
) -> Option<Form> {
    let shape = options.shape.unwrap_or(connection.shape);
    let (source, document, is_bundles) = match bundle_type(schema).filter(|document| shape_of(document) == Some(shape))
    {
        Some(document) => ("bundle/schema-artifacts.json", document, true),
        None => ("the type kubernetes-cluster", artifact::embedded_type(shape), false),
    };
    let declares_namespace = is_bundles && document.pointer("/properties/namespace").is_some();
    let has_namespace =
        shape == Shape::Flat && options.emit_namespace.unwrap_or(connection.names_namespace || declares_namespace);
    let schema = match Schema::new(document) {
        Ok(schema) => schema,
        Err(problem) => {
            findings.push(Finding::blocking(finding::Code::Schema, "", format!("{source} is {problem}")));
            return None;
        }
    };
    let form = Form { shape, namespace: has_namespace.then(|| names.namespace().clone()), schema };
    match try_example(&form, source, connection, names) {
        Ok(()) => Some(form),
        Err(mut problems) => {
            findings.append(&mut problems);
            None
        }
    }
}

/// The type of the published document that the bundle declares, if any.
fn bundle_type(schema: &ArtifactsSchema) -> Option<Value> {
    match schema {
        ArtifactsSchema::Absent => None,
        ArtifactsSchema::Embedded => Some(artifact::embedded_type(Shape::Flat)),
        ArtifactsSchema::Own(schema) => schema.pointer("/properties/token").cloned(),
    }
}

/// Validates an example document; `source` is the name of its schema.
fn try_example(form: &Form, source: &str, connection: &Connection, names: &Names) -> Result<(), Vec<Finding>> {
    let ca = match &connection.ca {
        ServerTrust::Given(ca) => Cow::Borrowed(ca.as_base64()),
        ServerTrust::System => Cow::Owned(artifact::example_ca()),
    };
    let token = artifact::example_token(names.namespace().as_str(), names.object()).ok_or_else(Vec::new)?;
    let unfit = |problem: Finding| Finding {
        message: format!("the credential document would not match {source}: {}", problem.message),
        ..problem
    };
    let artifact =
        form.fill(connection, &ca, &token).map_err(|problems| problems.into_iter().map(unfit).collect::<Vec<_>>())?;
    // A token that is a common word may occur anywhere.
    let parent = connection.login.token().filter(|token| token.is_distinctive());
    match parent.and_then(|token| artifact.place_of(token)) {
        None => Ok(()),
        Some(place) => {
            let text = format!(
                "the connection's own token is also in {}, and would be published with the credential",
                presentable_pointer(&place)
            );
            Err(vec![Finding::refusal(finding::Code::Connection, text)])
        }
    }
}

/// The shape that a type describes, if any.
fn shape_of(schema: &Value) -> Option<Shape> {
    let has = |key: &str| {
        let required = schema.get("required").and_then(Value::as_array);
        required.is_some_and(|required| required.iter().any(|name| name == key))
            || schema.get("properties").is_some_and(|properties| properties.get(key).is_some())
    };
    match (has("authentication"), has("data")) {
        (true, _) => Some(Shape::Flat),
        (false, true) => Some(Shape::Legacy),
        (false, false) => None,
    }
}
