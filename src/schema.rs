//! JSON Schema: compiles a schema, and turns validation errors into findings that quote no value. The only file that
//! uses the validator. Pure.

use std::sync::LazyLock;

use jsonschema::{
    ValidationError,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value};

use crate::diagnostics::finding::{self, Finding};

/// The schema of the params.
pub(crate) const PARAMS: &str = include_str!("../schema-params.json");
/// The schema of the published document, in the flat shape.
pub(crate) const ARTIFACTS: &str = include_str!("../schema-artifacts.json");
/// The bundle itself; only compared with the platform's copy.
pub(crate) const BUNDLE: &str = include_str!("../massdriver.yaml");
/// The schema of the published document in the legacy shape, everything under `data`.
pub(crate) const LEGACY_CLUSTER: &str = include_str!("schema/kubernetes-cluster-legacy.json");

/// The presets of the params: their names, and the params themselves.
pub(crate) static PRESETS: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
    let mut schema: Value = serde_json::from_str(PARAMS).unwrap_or_default();
    let presets = schema.get_mut("examples").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let named = |mut preset: Value| match preset.as_object_mut()?.remove("__name")? {
        Value::String(name) => Some((name, preset)),
        _ => None,
    };
    presets.into_iter().filter_map(named).collect()
});

/// A compiled schema.
pub(crate) struct Schema {
    document: Value,
    validator: jsonschema::Validator,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Why it is not a valid schema, in one line.
    pub(crate) fn new(document: Value) -> Result<Self, String> {
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft7)
            .offline()
            .build(&document)
            .map_err(|error| format!("not a usable JSON Schema: at {}", error.schema_path()))?;
        Ok(Self { document, validator })
    }

    /// Compiles the part of an object's schema that can apply to this document: absent fields cannot be wrong, and
    /// compiling the patterns of the optional params takes a large part of the time before the cluster is contacted.
    ///
    /// # Errors
    /// Why it is not a valid schema, in one line.
    pub(crate) fn for_object(mut schema: Value, document: &Map<String, Value>) -> Result<Self, String> {
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            for (_, property) in properties.iter_mut().filter(|(name, _)| !document.contains_key(*name)) {
                *property = Value::Bool(true);
            }
        }
        Self::new(schema)
    }

    /// Whether the schema has a property of this name at its top.
    pub(crate) fn has_property(&self, name: &str) -> bool {
        self.document.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    /// All violations, as blocking findings of code `schema`, each pointer below `base`.
    pub(crate) fn check(&self, base: &str, document: &Value) -> Vec<Finding> {
        self.validator.iter_errors(document).flat_map(|error| self.findings(base, &error)).collect()
    }

    fn findings(&self, base: &str, error: &ValidationError<'_>) -> Vec<Finding> {
        let pointer = format!("{base}{}", error.instance_path());
        let keyword = error.kind().keyword();
        let one =
            |text: String| Finding::blocking(finding::Code::Schema, pointer.clone(), format!("{text} ({keyword})"));
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = self.siblings(error, "properties");
                unexpected
                    .iter()
                    .map(|field| {
                        let field = crate::diagnostics::text::quote_key(field);
                        one(format!("unknown field {field}")).help(format!("known fields: {known}"))
                    })
                    .collect()
            }
            kind => {
                vec![match (kind, self.message(error)) {
                    // A regular expression is omitted if there is a sentence.
                    (ValidationErrorKind::Pattern { .. }, Some(message)) => {
                        one("has an invalid format".to_owned()).help(message)
                    }
                    (kind, Some(message)) => one(describe(kind)).help(message),
                    (kind, None) => one(describe(kind)),
                }]
            }
        }
    }

    /// The schema's own message for a violation of this keyword: `message.<keyword>`.
    fn message(&self, error: &ValidationError<'_>) -> Option<String> {
        let path = error.schema_path().to_string();
        let (parent, keyword) = path.rsplit_once('/')?;
        self.document.pointer(&format!("{parent}/message/{keyword}"))?.as_str().map(str::to_owned)
    }

    /// The keys of another keyword next to the violated one.
    fn siblings(&self, error: &ValidationError<'_>, keyword: &str) -> String {
        let path = error.schema_path().to_string();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let keys = self.document.pointer(&format!("{parent}/{keyword}")).and_then(Value::as_object);
        keys.map(|keys| keys.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default()
    }
}

/// The message of a violation, without the value: it may be a secret that was pasted into the wrong field.
fn describe(kind: &ValidationErrorKind) -> String {
    match kind {
        ValidationErrorKind::Required { property } => {
            format!("the field `{}` is missing", property.as_str().unwrap_or_default())
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => format!("must be of type {kind}"),
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> = options.as_array().into_iter().flatten().map(plain).collect();
            format!("must be one of {}", options.join(", "))
        }
        ValidationErrorKind::Constant { expected_value } => format!("must be {}", plain(expected_value)),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} {}", plural(*limit, "item")),
        ValidationErrorKind::MaxItems { limit: 0 } => "must be empty".to_owned(),
        ValidationErrorKind::MaxItems { limit } => format!("must have at most {limit} {}", plural(*limit, "item")),
        ValidationErrorKind::UniqueItems => "contains an item twice".to_owned(),
        ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("must have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("must have at most {limit} characters"),
        ValidationErrorKind::Pattern { pattern } => format!("does not match the pattern {pattern}"),
        ValidationErrorKind::OneOfNotValid { .. } | ValidationErrorKind::AnyOf { .. } => {
            "matches none of the allowed forms".to_owned()
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => "matches more than one of the allowed forms".to_owned(),
        _ => "is not allowed here".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(params: &Value) -> Vec<(String, String)> {
        let form = Schema::new(serde_json::from_str(PARAMS).unwrap()).unwrap();
        let mut told: Vec<_> = form
            .check("", params)
            .into_iter()
            .map(|finding| {
                (finding.pointer.unwrap(), format!("{}. {}", finding.message, finding.help.unwrap_or_default()))
            })
            .collect();
        told.sort();
        told
    }

    fn in_namespaces(namespaces: &Value) -> Vec<(String, String)> {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "namespaces": namespaces});
        told(&json!({"namespace": "a", "rules": [rule]}))
    }

    fn tells(told: &[(String, String)], expected: &[(&str, &str)]) {
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for ((at, told), (place, part)) in told.iter().zip(expected) {
            assert!(at == place && told.contains(part), "{at}: {told}");
        }
    }

    #[test]
    fn reduced_schema_finds_the_same_violations() {
        let whole = Schema::new(serde_json::from_str(PARAMS).unwrap()).unwrap();
        for params in [
            json!({}),
            json!({"namespace": "A"}),
            json!({"namespace": "a", "rules": []}),
            json!({"namespace": "a", "rules": [{"verbs": ["x"]}], "unknown": 1}),
            json!({"rules": [], "cluster_roles": [{"name": "a/b"}]}),
            json!({"cluster_roles": [{"name": "view", "namespaces": ["A"]}]}),
        ] {
            let schema = serde_json::from_str(PARAMS).unwrap();
            let part = Schema::for_object(schema, params.as_object().unwrap()).unwrap();
            assert_eq!(part.check("", &params), whole.check("", &params), "{params}");
            assert!(part.has_property("cluster_roles") && !part.has_property("unknown"));
        }
    }

    /// The form has the list as one of two alternatives; what is wrong in it is told as if it had none.
    #[test]
    fn anyof_violations_keep_location_and_message() {
        tells(&in_namespaces(&json!(null)), &[]);
        tells(&in_namespaces(&json!(["a", "b"])), &[]);
        tells(&in_namespaces(&json!([])), &[("/rules/0/namespaces", "1 item (minItems). List at least one")]);
        tells(
            &in_namespaces(&json!(["*", "a"])),
            &[("/rules/0/namespaces", "(not). * already covers every namespace")],
        );
        let wrong = [("/rules/0/namespaces/0", "(pattern). A namespace consists"), ("/rules/0/namespaces/2", "63")];
        tells(&in_namespaces(&json!(["Team_A", "a", "n".repeat(64)])), &wrong);
        tells(&in_namespaces(&json!("a")), &[("/rules/0/namespaces", "(anyOf). Namespaces must be a list")]);
    }

    #[test]
    fn url_rule_reports_all_violations_at_once() {
        let rule = json!({
            "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"],
            "nonResourceURLs": ["metrics"], "namespaces": ["a"],
        });
        let expected = [
            ("/rules/0/apiGroups", "must be empty (maxItems). A rule on URLs cannot have API groups"),
            ("/rules/0/namespaces/0", "must be * (const). URLs are not in a namespace"),
            ("/rules/0/nonResourceURLs/0", "(pattern). Enter the path only"),
            ("/rules/0/resourceNames", "must be empty (maxItems). A rule on URLs cannot have resource names"),
            ("/rules/0/resources", "must be empty (maxItems). A rule on URLs cannot have resources"),
        ];
        tells(&told(&json!({"namespace": "a", "rules": [rule]})), &expected);
        let rule = json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]});
        let expected = [("/rules/0", "the field `namespaces` is missing (required). URLs are not in a namespace")];
        tells(&told(&json!({"namespace": "a", "rules": [rule]})), &expected);
    }

    #[test]
    fn schema_message_replaces_the_pattern() {
        let rule = json!({"apiGroups": ["apps/v1"], "resources": ["Pod"], "verbs": ["get"]});
        let told = told(&json!({"namespace": "a", "rules": [rule]}));
        let expected = [
            ("/rules/0/apiGroups/0", "has an invalid format (pattern). An API group is written"),
            ("/rules/0/resources/0", "has an invalid format (pattern). A resource is a lower-case plural"),
        ];
        tells(&told, &expected);
        assert!(!told.iter().any(|(_, text)| text.contains('^')), "{told:?}");
        let foreign = Schema::new(json!({"pattern": "^a+$"})).unwrap().check("", &json!("b"));
        assert_eq!(foreign[0].message, "does not match the pattern ^a+$ (pattern)");
    }

    #[test]
    fn rules_are_required_without_cluster_roles() {
        for cluster_roles in [json!([]), json!("view")] {
            let params = json!({"namespace": "a", "rules": [], "cluster_roles": cluster_roles});
            let found = told(&params).into_iter().filter(|(at, _)| at == "/rules").collect::<Vec<_>>();
            tells(&found, &[("/rules", "1 item (minItems). Add at least one rule")]);
        }
        tells(&told(&json!({"namespace": "a"})), &[("", "the field `rules` is missing (required)")]);
    }
}
