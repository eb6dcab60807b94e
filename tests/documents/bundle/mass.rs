//! The `mass` CLI as a model, in its order of operations: parse massdriver.yaml, give every boolean a default, turn
//! slots into references, resolve the references, write the schemas. Also its lint rules that need no platform. There
//! are two generations of the CLI: one knows `dependencies` and `resources`, the older one `connections` and
//! `artifacts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Map, Value, json};

/// Words by which `mass` takes a step's provisioner for a built-in one, and reads its inputs from files of that tool.
pub const BUILT_IN_PROVISIONERS: [&str; 4] = ["opentofu", "terraform", "helm", "bicep"];

/// Keys that a CLI before Massdriver 2.5 requires; later ones only warn about some.
const REQUIRED_OF_OLD: [&str; 8] =
    ["artifacts", "connections", "description", "name", "params", "schema", "type", "ui"];

/// The generation of the CLI that a massdriver.yaml is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// `dependencies` and `resources`.
    New,
    /// `connections` and `artifacts`.
    Old,
}

pub struct Bundle {
    root: Map<String, Value>,
}

impl Bundle {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("massdriver.yaml can be read");
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Self {
        let mut root: Map<String, Value> = serde_saphyr::from_str(text).expect("massdriver.yaml is a YAML mapping");
        if let Some(params) = root.get_mut("params") {
            give_booleans_a_default(params);
        }
        Self { root }
    }

    pub fn text(&self, key: &str) -> &str {
        self.root[key].as_str().expect("a text")
    }

    pub fn block(&self, key: &str) -> &Value {
        &self.root[key]
    }

    pub fn keys(&self) -> BTreeSet<&str> {
        self.root.keys().map(String::as_str).collect()
    }

    pub fn blocks(&self) -> Blocks {
        if self.root.contains_key("connections") { Blocks::Old } else { Blocks::New }
    }

    /// The input slots, as a schema with references.
    fn inputs(&self) -> Value {
        match self.blocks() {
            Blocks::New => slots(self.block("dependencies")),
            Blocks::Old => self.block("connections").clone(),
        }
    }

    /// The output slots, likewise.
    fn outputs(&self) -> Value {
        match self.blocks() {
            Blocks::New => slots(self.block("resources")),
            Blocks::Old => self.block("artifacts").clone(),
        }
    }

    /// The four files of `mass bundle build`: file name and content.
    pub fn schemas(&self) -> BTreeMap<String, String> {
        let blocks = [
            ("artifacts", self.outputs()),
            ("params", self.block("params").clone()),
            ("connections", self.inputs()),
            ("ui", self.block("ui").clone()),
        ];
        blocks
            .into_iter()
            .map(|(label, block)| {
                let strip_id = matches!(label, "params" | "ui");
                let mut schema = dereference(&block, self.blocks(), strip_id);
                self.add_metadata(label, &mut schema);
                (format!("schema-{label}.json"), marshal(schema))
            })
            .collect()
    }

    fn add_metadata(&self, label: &str, schema: &mut Value) {
        if label == "ui" {
            return;
        }
        let name = self.text("name");
        let id = format!("https://schemas.massdriver.cloud/schemas/bundles/{name}/schema-{label}.json");
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema");
        schema["$id"] = json!(id);
        schema["title"] = json!(name);
        schema["description"] = json!(self.text("description"));
    }

    /// The complaints of `mass bundle lint`, as far as it works offline.
    pub fn lint(&self) -> Vec<String> {
        let mut complaints = name_collisions(self.block("params"), &self.inputs());
        required_matches("params", self.block("params"), &mut complaints);
        for block in ["params", "ui"] {
            unreadable_keywords(block, self.block(block), &mut complaints);
        }
        complaints
    }

    /// Why a CLI of this generation would refuse the bundle, or misread it.
    pub fn refusals(&self, cli: Blocks) -> Vec<String> {
        let mut refusals = Vec::new();
        match cli {
            Blocks::New => {
                // For version 0.0.0 it only warns.
                for old in ["connections", "artifacts"] {
                    if self.root.contains_key(old) && self.text("version") != "0.0.0" {
                        refusals.push(format!("{old} is no block of a released version any more"));
                    }
                }
            }
            Blocks::Old => {
                for key in REQUIRED_OF_OLD.iter().filter(|key| !self.root.contains_key(**key)) {
                    refusals.push(format!("{key} is required"));
                }
                // It reads only the top level of the params, and expects one type for each.
                for (name, param) in self.block("params")["properties"].as_object().into_iter().flatten() {
                    if param.get("type").is_some_and(|kind| !kind.is_string()) {
                        refusals.push(format!("params.{name}: type is not a string"));
                    }
                }
                for block in ["connections", "artifacts"].into_iter().filter_map(|block| self.root.get(block)) {
                    for (slot, entry) in block["properties"].as_object().into_iter().flatten() {
                        let reference = entry["$ref"].as_str().unwrap_or_default();
                        let name = |text: &str| {
                            !text.is_empty() && text.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '-')
                        };
                        if !reference.split('/').all(name) || reference.split('/').count() > 2 {
                            refusals.push(format!("{slot}: `{reference}` is no type"));
                        }
                    }
                }
            }
        }
        refusals
    }
}

/// A form treats a boolean without a default as absent. Arrays are not searched.
fn give_booleans_a_default(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    if map.get("type") == Some(&json!("boolean")) {
        map.entry("default").or_insert(json!(false));
    }
    map.values_mut().for_each(give_booleans_a_default);
}

/// `{slot: {resource_type, required}}` as a schema with references.
fn slots(block: &Value) -> Value {
    let slots = block.as_object().expect("a mapping of slots");
    let properties: Map<String, Value> =
        slots.iter().map(|(name, slot)| (name.clone(), json!({ "$ref": slot["resource_type"] }))).collect();
    let required: Vec<&String> =
        slots.iter().filter(|(_, slot)| slot["required"] == true).map(|(name, _)| name).collect();
    json!({ "properties": properties, "required": required })
}

/// A referenced type is the base, and the keys beside the reference override it.
fn dereference(schema: &Value, blocks: Blocks, strip_id: bool) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(|item| dereference(item, blocks, strip_id)).collect(),
        Value::Object(map) => {
            let mut result = Map::new();
            for (key, value) in map {
                match value {
                    Value::String(reference) if key == "$ref" && !reference.starts_with('#') => {
                        let mut referenced = resource_type(reference, blocks);
                        if strip_id {
                            referenced.remove("$id");
                        }
                        for (key, value) in referenced {
                            result.entry(key).or_insert_with(|| dereference(&value, blocks, strip_id));
                        }
                    }
                    _ => {
                        result.insert(key.clone(), dereference(value, blocks, strip_id));
                    }
                }
            }
            Value::Object(result)
        }
        _ => schema.clone(),
    }
}

/// `[organisation/]name[@version]`, a resource type of the organisation. The file is the platform's response for the
/// newest version at that time.
fn resource_type(reference: &str, blocks: Blocks) -> Map<String, Value> {
    let unversioned = reference.split('@').next().unwrap_or_default();
    let name = unversioned.rsplit('/').next().unwrap_or_default();
    let path = match blocks {
        Blocks::New => format!("tests/resource-types/{name}.json"),
        Blocks::Old => format!("src/schema/{name}-legacy.json"),
    };
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("resource type {reference}: {path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Go's `json.MarshalIndent` with four spaces: keys in byte order, and characters that could end a script element
/// escaped.
fn marshal(mut schema: Value) -> String {
    schema.sort_all_objects();
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(&schema, &mut serializer).expect("JSON into memory");
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    // Outside of strings these characters do not occur in JSON, so no parser is needed.
    let escapes =
        [('<', r"\u003c"), ('>', r"\u003e"), ('&', r"\u0026"), ('\u{2028}', r"\u2028"), ('\u{2029}', r"\u2029")];
    escapes.iter().fold(text, |text, (raw, escape)| text.replace(*raw, escape)) + "\n"
}

fn name_collisions(params: &Value, inputs: &Value) -> Vec<String> {
    let names =
        |schema: &Value| schema["properties"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let (params, inputs): (Vec<String>, Vec<String>) = (names(params), names(inputs));
    params
        .into_iter()
        .filter(|name| inputs.contains(name))
        .map(|name| format!("name-collision: {name} is a param and a dependency"))
        .collect()
}

fn required_matches(path: &str, schema: &Value, complaints: &mut Vec<String>) {
    let properties = &schema["properties"];
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if properties.get(name).is_none() {
            complaints.push(format!("required-match: {path}.{name} is required and not a property"));
        }
    }
    for (name, property) in properties.as_object().into_iter().flatten() {
        required_matches(&format!("{path}.{name}"), property, complaints);
    }
    if let Some(items) = schema.get("items") {
        required_matches(&format!("{path}[]"), items, complaints);
    }
}

/// Keywords that the CLI of mid-2026 cannot read: its rule `required-match` decodes the params into a struct with one
/// type for each keyword (github.com/massdriver-cloud/airlock, pkg/schema/types.go), and reports any other type as an
/// error of the bundle. It ignores keywords that are not in the struct, and everything in `dependencies`.
fn unreadable_keywords(path: &str, schema: &Value, complaints: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        complaints.push(format!("required-match: {path} is not a mapping"));
        return;
    };
    for (keyword, value) in keywords {
        let at = format!("{path}.{keyword}");
        let list = |is: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(is));
        let readable = match keyword.as_str() {
            "$schema" | "$ref" | "$anchor" | "$dynamicRef" | "$comment" | "type" | "title" | "description"
            | "pattern" | "format" | "contentEncoding" | "contentMediaType" => value.is_string(),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minContains"
            | "maxContains" => value.is_u64(),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => value.is_number(),
            "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => value.is_boolean(),
            "required" => list(Value::is_string),
            "enum" | "examples" => value.is_array(),
            "items" | "contains" | "not" | "if" | "then" | "else" | "propertyNames" | "contentSchema" => {
                unreadable_keywords(&at, value, complaints);
                true
            }
            "additionalProperties" => {
                if !value.is_boolean() {
                    unreadable_keywords(&at, value, complaints);
                }
                true
            }
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                for (index, alternative) in value.as_array().into_iter().flatten().enumerate() {
                    unreadable_keywords(&format!("{at}[{index}]"), alternative, complaints);
                }
                value.is_array()
            }
            "properties" | "patternProperties" => {
                for (name, property) in value.as_object().into_iter().flatten() {
                    unreadable_keywords(&format!("{at}.{name}"), property, complaints);
                }
                value.is_object()
            }
            "dependentRequired" => {
                let names = |list: &Value| list.as_array().is_some_and(|names| names.iter().all(Value::is_string));
                value.as_object().is_some_and(|lists| lists.values().all(names))
            }
            _ => true,
        };
        if !readable {
            complaints.push(format!("required-match: {at} is of a type that the CLI cannot read"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marshal_escapes_and_sorts_like_go() {
        let schema = json!({ "b": { "z": [], "$id": "<a&b>\u{2028}" }, "B": {}, "a": true });
        let expected = "{\n    \"B\": {},\n    \"a\": true,\n    \"b\": {\n        \
                        \"$id\": \"\\u003ca\\u0026b\\u003e\\u2028\",\n        \"z\": []\n    }\n}\n";
        assert_eq!(marshal(schema), expected);
    }

    #[test]
    fn keys_beside_a_reference_override_the_type() {
        let schema = json!({ "$ref": "massdriver/kubernetes-cluster@~1", "$comment": "first", "title": "mine" });
        let resolved = dereference(&schema, Blocks::New, false);
        assert_eq!(resolved["title"], "mine");
        assert_eq!(resolved["$comment"], "first");
        assert_eq!(resolved["required"], json!(["authentication"]));
        assert!(resolved.get("$ref").is_none());
    }

    #[test]
    fn booleans_outside_arrays_default_to_false() {
        let mut schema = json!({
            "properties": { "on": { "type": "boolean" }, "kept": { "type": "boolean", "default": true } },
            "oneOf": [{ "type": "boolean" }],
        });
        give_booleans_a_default(&mut schema);
        assert_eq!(schema["properties"]["on"]["default"], false);
        assert_eq!(schema["properties"]["kept"]["default"], true);
        assert!(schema["oneOf"][0].get("default").is_none());
    }

    #[test]
    fn lint_finds_collisions_and_undeclared_required_names() {
        let bundle = Bundle::parse(
            "ui: {}\nparams:\n  required: [missing]\n  properties:\n    cluster:\n      required: [deep]\n      properties: {}\n\
             dependencies:\n  cluster: { resource_type: kubernetes-cluster, required: true }\n",
        );
        let complaints = bundle.lint();
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints[0].starts_with("name-collision: cluster"));
        assert!(complaints[1].starts_with("required-match: params.missing"));
        assert!(complaints[2].starts_with("required-match: params.cluster.deep"));
    }

    #[test]
    fn lint_finds_keywords_of_an_unreadable_type() {
        let complaints = |schema: Value| {
            let mut complaints = Vec::new();
            unreadable_keywords("params", &schema, &mut complaints);
            complaints.into_iter().map(|text| text.split(' ').nth(1).unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let readable = json!({
            "type": "object", "required": ["a"], "additionalProperties": false, "default": { "type": [] },
            "properties": { "type": { "anyOf": [{ "type": "string" }, { "type": "null" }], "maxItems": 0 } },
            "dependencies": { "a": ["b"], "b": { "type": ["string", "null"] } }, "message": { "type": [] },
        });
        assert_eq!(complaints(readable), Vec::<String>::new());
        let unreadable = json!({
            "properties": {
                "a": { "type": ["string", "null"] },
                "b": { "items": [{ "type": "string" }], "minItems": -1 },
                "c": { "not": true, "items": { "then": { "exclusiveMinimum": true, "anyOf": {} } } },
                "d": { "additionalProperties": { "uniqueItems": "yes" }, "required": true },
            },
        });
        let mut places = complaints(unreadable);
        places.sort();
        let expected = [
            "a.type",
            "b.items",
            "b.minItems",
            "c.items.then.anyOf",
            "c.items.then.exclusiveMinimum",
            "c.not",
            "d.additionalProperties.uniqueItems",
            "d.required",
        ];
        assert_eq!(places, expected.map(|place| format!("params.properties.{place}")));
    }
}
