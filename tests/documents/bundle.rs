//! The bundle as the platform and its users see it: massdriver.yaml, the generated schemas, the runbook, the uploaded
//! files, and the same for old platforms. `UPDATE_SCHEMAS=1 cargo test --test documents` rewrites the files generated
//! from massdriver.yaml, and `UPDATE_DOCS=1` the runbook's copy of the error and warning codes.

mod examples;
mod form;
mod legacy;
mod mass;
mod publish;
mod runbook;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use crate::codes;
use mass::Bundle;
use serde_json::Value;

fn bundle() -> Bundle {
    regenerate_if_requested();
    Bundle::read(Path::new("massdriver.yaml"))
}

fn json_file(path: &str) -> Value {
    regenerate_if_requested();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every generated file: path and content.
fn generated_files() -> BTreeMap<PathBuf, String> {
    let schemas = Bundle::read(Path::new("massdriver.yaml")).schemas();
    let legacy = legacy::files().into_iter().map(|(name, content)| (Path::new("legacy").join(name), content));
    let runbook = std::iter::once((PathBuf::from("operator.md"), codes::runbook()));
    schemas.into_iter().map(|(name, content)| (name.into(), content)).chain(legacy).chain(runbook).collect()
}

/// Rewrites the generated files, if requested, before any test reads one.
fn regenerate_if_requested() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if ["UPDATE_SCHEMAS", "UPDATE_DOCS"].iter().any(|name| std::env::var_os(name).is_some()) {
            for (file, content) in generated_files() {
                fs::write(&file, content).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            }
        }
    });
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(schema).expect("a JSON Schema of draft 7")
}

#[test]
fn generated_files_are_up_to_date() {
    regenerate_if_requested();
    for (file, content) in generated_files() {
        let committed = fs::read_to_string(&file).unwrap_or_default();
        let remedy = "run UPDATE_SCHEMAS=1 UPDATE_DOCS=1 cargo test --test documents";
        assert!(committed == content, "{} is stale: {remedy}", file.display());
    }
}

#[test]
fn bundle_and_program_share_name_and_version() {
    let bundle = bundle();
    assert_eq!(bundle.text("name"), env!("CARGO_PKG_NAME"));
    assert_eq!(bundle.text("version"), env!("CARGO_PKG_VERSION"));
    let image = bundle.block("steps")[0]["provisioner"].as_str().expect("a provisioner");
    assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{image}");
}

#[test]
fn metadata_respects_the_platforms_limits() {
    let bundle = bundle();
    assert!((10..=1024).contains(&bundle.text("description").chars().count()));
    assert!(bundle.block("ui").is_object());
    for block in ["dependencies", "resources"] {
        for (slot, entry) in bundle.block(block).as_object().expect("slots") {
            assert!(entry["resource_type"].is_string() && entry["required"].is_boolean(), "{block}.{slot}");
        }
    }
}

#[test]
fn lint_of_the_cli_passes() {
    assert_eq!(bundle().lint(), Vec::<String>::new());
}

#[test]
fn step_is_not_a_built_in_provisioner() {
    let bundle = bundle();
    let steps = bundle.block("steps").as_array().expect("steps");
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["path"], "src");
    assert_eq!(steps[0]["config"]["namespace"], ".params.namespace");
    assert!(steps[0].get("skip_on_delete").is_none(), "a skipped decommission would leave the token alive");
    let image = steps[0]["provisioner"].as_str().expect("an image");
    assert!(mass::BUILT_IN_PROVISIONERS.iter().all(|word| !image.contains(word)), "{image}");
}

#[test]
fn slots_match_version_1_0_0() {
    let schemas = bundle().schemas();
    let parse = |file: &str| -> Value { serde_json::from_str(&schemas[file]).expect("JSON") };
    assert_eq!(parse("schema-connections.json")["required"], serde_json::json!(["kubernetes_cluster"]));
    assert_eq!(parse("schema-artifacts.json")["required"], serde_json::json!(["token"]));
}

/// Formats of the resource in use, and the types that accept them.
#[test]
fn each_resource_type_accepts_only_its_own_format() {
    let flat_type = json_file("schema-artifacts.json")["properties"]["token"].clone();
    let legacy_type = json_file("src/schema/kubernetes-cluster-legacy.json");
    for (name, payload) in runbook::shapes() {
        let legacy = name.starts_with("legacy");
        assert_eq!(validator(&flat_type).is_valid(&payload), !legacy, "flat type, {name}");
        assert_eq!(validator(&legacy_type).is_valid(&payload), legacy, "legacy type, {name}");
    }
    let mut of_no_cloud = runbook::shapes().remove("legacy with cloud").expect("a shape");
    of_no_cloud["data"]["infrastructure"] = serde_json::json!({});
    assert!(!validator(&legacy_type).is_valid(&of_no_cloud), "an empty infrastructure is not one of a cloud");
}
