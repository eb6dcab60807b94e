//! The bundles of examples/downstream: valid for the platform, and consistent with their steps.

use std::{fs, path::Path};

use rstest::rstest;
use serde_json::{Value, json};

use super::{mass, mass::Bundle, validator};

fn example(name: &str) -> (Bundle, String) {
    let folder = format!("examples/downstream/{name}");
    (Bundle::read(Path::new(&format!("{folder}/massdriver.yaml"))), folder)
}

#[rstest]
fn examples_follow_the_rules_of_the_platform(#[values("helm", "opentofu")] name: &str) {
    let (bundle, folder) = example(name);
    let matches = |pattern: &str, text: &str| validator(&json!({"pattern": pattern})).is_valid(&json!(text));
    assert!(matches("^[a-z][a-z0-9-]+[a-z0-9]$", bundle.text("name")) && bundle.text("name").len() <= 53);
    assert!(matches(r"^\d+\.\d+\.\d+$", bundle.text("version")));
    assert!((10..=1024).contains(&bundle.text("description").chars().count()));
    assert!(bundle.block("ui").is_object() && bundle.block("resources") == &json!({}));
    assert_eq!(bundle.lint(), Vec::<String>::new());

    // The slot that the cluster itself would be connected to.
    let slots = json!({"kubernetes_cluster": {"resource_type": "kubernetes-cluster", "required": true}});
    assert_eq!(bundle.block("dependencies"), &slots);

    let [step] = &bundle.block("steps").as_array().expect("steps")[..] else { panic!("one step") };
    assert_eq!(step["provisioner"], name);
    assert!(mass::BUILT_IN_PROVISIONERS.contains(&name));
    let path = step["path"].as_str().expect("a path");
    assert!(matches("^[a-zA-Z0-9][a-zA-Z0-9_-]*$", path));
    assert!(Path::new(&folder).join(path).is_dir());

    let schema: Value = serde_json::from_str(&bundle.schemas()["schema-params.json"]).expect("JSON");
    let params = validator(&schema);
    let presets = schema["examples"].as_array().expect("presets");
    assert!(!presets.is_empty() && presets.iter().all(|preset| params.is_valid(preset)), "{presets:?}");
    assert!(!params.is_valid(&json!({})));
}

/// `mass bundle lint` compares them, too.
#[test]
fn chart_values_match_the_params() {
    let (bundle, folder) = example("helm");
    let values = fs::read_to_string(format!("{folder}/chart/values.yaml")).expect("values");
    let values: Value = serde_saphyr::from_str(&values).expect("YAML");
    let names = |block: &Value| block.as_object().expect("a mapping").keys().cloned().collect::<Vec<_>>();
    let (mut values, mut params) = (names(&values), names(&bundle.block("params")["properties"]));
    values.sort();
    params.sort();
    assert_eq!(values, params);
}
