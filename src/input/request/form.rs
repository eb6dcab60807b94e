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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        input::request::{connection, tests::authentication},
        k8s::name::{InstanceName, Namespace},
    };

    const FLAT: Option<Shape> = Some(Shape::Flat);
    const LEGACY: Option<Shape> = Some(Shape::Legacy);

    fn names() -> Names {
        Names::of(&InstanceName::parse("demo").unwrap(), &Namespace::parse("home").unwrap())
    }

    /// A connection of this shape with these members.
    fn connection_of(shape: Shape, members: &Value) -> Connection {
        let mut document = json!({"authentication": authentication()});
        if shape == Shape::Legacy {
            document = json!({"data": document});
        }
        document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        connection::parse(&document, None).unwrap_or_else(|problems| panic!("{problems:?}")).0
    }

    fn parsed(
        schema: &ArtifactsSchema,
        options: ArtifactOptions,
        connection: &Connection,
    ) -> Result<Form, Vec<Finding>> {
        let mut findings = Vec::new();
        parse(schema, options, connection, &names(), &mut findings).ok_or(findings)
    }

    const AUTO: ArtifactOptions = ArtifactOptions { shape: None, emit_namespace: None };

    fn own(token: &Value) -> ArtifactsSchema {
        ArtifactsSchema::Own(json!({"properties": {"token": token}}))
    }

    /// Columns: shape of the connection, `output_shape`, `emit_namespace`, shape of the document, whether it contains the
    /// namespace. The connection has `specs` and no namespace, so its shape alone does not imply one.
    #[rstest]
    #[case::flat(Shape::Flat, None, None, Shape::Flat, false)]
    #[case::legacy(Shape::Legacy, None, None, Shape::Legacy, false)]
    #[case::flat_to_legacy(Shape::Flat, LEGACY, None, Shape::Legacy, false)]
    #[case::legacy_to_flat(Shape::Legacy, FLAT, None, Shape::Flat, false)]
    #[case::with_namespace(Shape::Flat, None, Some(true), Shape::Flat, true)]
    #[case::legacy_has_no_namespace(Shape::Legacy, None, Some(true), Shape::Legacy, false)]
    fn options_decide_the_format(
        #[case] connection: Shape,
        #[case] shape: Option<Shape>,
        #[case] emit_namespace: Option<bool>,
        #[case] expected: Shape,
        #[case] has_namespace: bool,
    ) {
        let connection = connection_of(connection, &json!({"specs": {}}));
        let form =
            parsed(&ArtifactsSchema::Absent, ArtifactOptions { shape, emit_namespace }, &connection).ok().unwrap();
        assert_eq!((form.shape, form.namespace.is_some()), (expected, has_namespace));
    }

    /// Columns: members of the connection, schema of the bundle, `emit_namespace`, whether the document contains the
    /// namespace.
    #[test]
    fn namespace_follows_connection_and_bundle() {
        let declaring = || own(&json!({"required": ["authentication"], "properties": {"namespace": {}}}));
        let silent = || own(&json!({"required": ["authentication"]}));
        let (specs, namespace) = (json!({"specs": {}}), json!({"specs": {}, "namespace": "a"}));
        for (members, schema, emit_namespace, expected) in [
            (&specs, ArtifactsSchema::Absent, None, false),
            (&namespace, ArtifactsSchema::Absent, None, true),
            (&namespace, ArtifactsSchema::Absent, Some(false), false),
            (&specs, declaring(), None, true),
            (&specs, declaring(), Some(false), false),
            (&specs, silent(), None, false),
            (&namespace, silent(), None, true),
        ] {
            let options = ArtifactOptions { shape: None, emit_namespace };
            let form = parsed(&schema, options, &connection_of(Shape::Flat, members)).ok().unwrap();
            assert_eq!(
                form.namespace.map(|it| it.as_str().to_owned()),
                expected.then(|| "home".to_owned()),
                "{members}"
            );
        }
    }

    #[test]
    fn document_has_to_match_the_bundle() {
        let (flat, legacy) = (connection_of(Shape::Flat, &json!({})), connection_of(Shape::Legacy, &json!({})));
        let demanding = json!({"required": ["authentication", "specs"]});
        let legacy_demanding = json!({"properties": {"data": {}}, "required": ["specs"]});
        let unmatched = "the credential document would not match bundle/schema-artifacts.json: ";
        for (schema, connection, problem) in [
            (ArtifactsSchema::Embedded, &flat, None),
            (ArtifactsSchema::Embedded, &legacy, None),
            (own(&json!({"required": ["authentication"]})), &flat, None),
            (own(&demanding), &flat, Some(unmatched)),
            (own(&demanding), &legacy, None),
            (own(&legacy_demanding), &legacy, Some(unmatched)),
            (own(&legacy_demanding), &flat, None),
            (own(&json!({"required": ["specs"]})), &flat, None),
            (
                own(&json!({"required": ["authentication"], "type": 1})),
                &flat,
                Some("bundle/schema-artifacts.json is not a usable"),
            ),
        ] {
            let findings = parsed(&schema, AUTO, connection).err().unwrap_or_default();
            let found: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
            assert_eq!(found.len(), usize::from(problem.is_some()), "{found:?}");
            assert!(found.iter().all(|found| found.starts_with(problem.unwrap_or_default())), "{found:?}");
        }
    }

    /// Columns: the token of the connection, its `infrastructure`, whether the token would be published.
    #[rstest]
    #[case::elsewhere("the-parents-token", json!({"arn": "a"}), false)]
    #[case::inside("the-parents-token", json!({"arn": "x the-parents-token y"}), true)]
    #[case::common_word("token", json!({"arn": "token"}), false)]
    fn token_of_the_connection_is_not_published(
        #[case] token: &str,
        #[case] infrastructure: Value,
        #[case] is_refused: bool,
    ) {
        let mut authentication = authentication();
        authentication["user"]["token"] = json!(token);
        let document = json!({"authentication": authentication, "infrastructure": infrastructure});
        let connection = connection::parse(&document, None).ok().unwrap().0;
        let findings = parsed(&ArtifactsSchema::Absent, AUTO, &connection).err().unwrap_or_default();
        let message =
            "the connection's own token is also in /infrastructure/arn, and would be published with the credential";
        let expected = if is_refused { vec![message] } else { vec![] };
        assert_eq!(findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>(), expected);
    }
}
