//! The folder `legacy`: the same bundle for a CLI before Massdriver 2.5, which knows only `connections` and
//! `artifacts`. It is generated from the main bundle, file by file.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::{
    bundle, json_file,
    mass::{Blocks, Bundle},
    regenerate_if_requested,
};
use crate::codes;

/// Copied unchanged.
const COPIED: [&str; 3] = [".mdignore", "CHANGELOG.md", "icon.svg"];

/// Written by hand: which folder is for which CLI, and a file so that the step's directory is not empty.
const HAND_WRITTEN: [&str; 2] = ["README.md", "src/README.md"];

const HEAD: &str = "\
# The bundle for a `mass` CLI and a Massdriver from before 2.5, which know connections and artifacts only. Made from
# ../massdriver.yaml by `UPDATE_SCHEMAS=1 cargo test --test documents`: a change belongs there.
schema: draft-07
type: application
";

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The main massdriver.yaml with its two blocks in the old format, and the keys that old CLIs require at the top. The
/// rest is copied verbatim, comments included.
fn massdriver_yaml(main: &str) -> String {
    let mut old = HEAD.to_owned();
    let is_comment = |line: &str| line.starts_with('#');
    let blocks = Bundle::parse(main);
    let mut within = "";
    for line in main.lines().skip_while(|line| is_comment(line)) {
        if line.starts_with(|first: char| first.is_ascii_lowercase()) {
            within = line.split(':').next().unwrap_or_default();
            match within {
                "dependencies" => old.push_str(&references("connections", blocks.block(within))),
                "resources" => old.push_str(&references("artifacts", blocks.block(within))),
                _ => {}
            }
        }
        if !["dependencies", "resources"].contains(&within) {
            old.push_str(line);
            old.push('\n');
        }
    }
    old
}

/// Slots as a block of the old format, in which a type has no version.
fn references(block: &str, slots: &Value) -> String {
    let slots = slots.as_object().expect("slots");
    let required: Vec<&str> =
        slots.iter().filter(|(_, slot)| slot["required"] == true).map(|(name, _)| name.as_str()).collect();
    let entries = slots.iter().map(|(name, slot)| {
        let reference = slot["resource_type"].as_str().expect("a type").split('@').next().unwrap_or_default();
        format!("    {name}:\n      $ref: {reference}\n")
    });
    let entries = entries.collect::<Vec<_>>().concat();
    format!("{block}:\n  required: [{}]\n  properties:\n{entries}\n", required.join(", "))
}

fn legacy() -> Bundle {
    regenerate_if_requested();
    Bundle::read(Path::new("legacy/massdriver.yaml"))
}

/// Every generated file of the folder, with its expected content.
pub fn files() -> BTreeMap<String, String> {
    let yaml = massdriver_yaml(&text("massdriver.yaml"));
    let mut files = Bundle::parse(&yaml).schemas();
    files.insert("massdriver.yaml".to_owned(), yaml);
    files.extend(COPIED.map(|name| (name.to_owned(), text(name))));
    files.insert("operator.md".to_owned(), codes::runbook());
    files
}

#[test]
fn legacy_folder_contains_only_known_files() {
    regenerate_if_requested();
    let mut there: Vec<String> = files().into_keys().collect();
    there.extend(HAND_WRITTEN.map(str::to_owned));
    there.sort();
    let mut found: Vec<String> = ignore::WalkBuilder::new("legacy")
        .standard_filters(false)
        .build()
        .map(|entry| entry.expect("a readable folder"))
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(|entry| entry.path().strip_prefix("legacy").expect("below it").display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, there);
}

/// Compared as parsed by a CLI, not as text.
#[test]
fn legacy_bundle_differs_only_in_inputs_and_outputs() {
    let (main, legacy) = (bundle(), legacy());
    let shared = |bundle: &Bundle| -> Vec<(String, Value)> {
        let of_one: [&str; 6] = ["schema", "type", "dependencies", "resources", "connections", "artifacts"];
        let keys = bundle.keys().into_iter().filter(|key| !of_one.contains(key));
        keys.map(|key| (key.to_owned(), bundle.block(key).clone())).collect()
    };
    for (of_main, of_legacy) in shared(&main).iter().zip(shared(&legacy)) {
        assert!(*of_main == of_legacy, "{} differs", of_main.0);
    }
    assert_eq!(shared(&main).len(), shared(&legacy).len());
    let keys: Vec<String> = shared(&main).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["description", "name", "params", "steps", "ui", "version"]);

    for (old, new) in [("connections", "dependencies"), ("artifacts", "resources")] {
        let (old, new) = (legacy.block(old), main.block(new).as_object().expect("slots"));
        assert_eq!(old["properties"].as_object().map(serde_json::Map::len), Some(new.len()));
        for (name, slot) in new {
            assert_eq!(old["properties"][name], json!({ "$ref": slot["resource_type"] }), "{name}");
            let required = old["required"].as_array().expect("required").contains(&json!(name));
            assert_eq!(slot["required"], required, "{name}");
        }
    }
}

/// The folders are easily confused: each CLI mishandles the other folder, the older one without an error.
#[test]
fn each_folder_works_with_its_own_cli() {
    let (main, legacy) = (bundle(), legacy());
    assert_eq!((main.blocks(), legacy.blocks()), (Blocks::New, Blocks::Old));
    assert_eq!(main.refusals(Blocks::New), Vec::<String>::new());
    assert_eq!(legacy.refusals(Blocks::Old), Vec::<String>::new());
    assert_eq!(legacy.lint(), Vec::<String>::new());

    assert_eq!(legacy.refusals(Blocks::New).len(), 2, "{:?}", legacy.refusals(Blocks::New));
    let missing = main.refusals(Blocks::Old);
    assert!(["artifacts", "connections"].iter().all(|block| missing.contains(&format!("{block} is required"))));
}

#[test]
fn legacy_schemas_inline_the_legacy_type() {
    let of_type = json_file("src/schema/kubernetes-cluster-legacy.json");
    let (inputs, outputs) = (json_file("legacy/schema-connections.json"), json_file("legacy/schema-artifacts.json"));
    assert_eq!(inputs["properties"], json!({ "kubernetes_cluster": of_type }));
    assert_eq!(outputs["properties"], json!({ "token": of_type }));
    let keys: Vec<&String> = of_type.as_object().expect("a schema").keys().collect();
    assert_eq!(keys, ["$md", "$schema", "description", "properties", "required", "title", "type"]);
    assert_eq!(of_type["required"], json!(["data"]));
    for same in ["schema-params.json", "schema-ui.json"] {
        assert!(text(Path::new("legacy").join(same)) == text(same), "{same} differs");
    }
}
