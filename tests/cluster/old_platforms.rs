//! Old platforms with a real cluster: an instance of the bundle in `legacy`, and the example for consumers that read
//! only `.data` (docs/old-platforms.md).

use std::{fs, path::Path};

use rstest::rstest;
use serde_json::{Map, Value, json};
use testbed::{ControlPlane, Era};

use crate::support::{Instance, Shape, paths, status, token_of, versions};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

/// The files that a publish of this folder uploads; tests/documents/bundle.rs tests the list.
fn lay_out_bundle(instance: &Instance, folder: &str) {
    let uploaded = ignore::WalkBuilder::new(folder)
        .standard_filters(false)
        .add_custom_ignore_filename(".mdignore")
        .filter_entry(|entry| !["target", ".git"].iter().any(|name| entry.file_name() == *name))
        .build();
    for entry in uploaded.map(Result::unwrap).filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())) {
        let to = instance.path("bundle").join(entry.path().strip_prefix(folder).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(entry.path(), to).unwrap();
    }
}

fn schema_of_field(path: impl AsRef<Path>) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::draft7::new(&schema["properties"]["token"]).unwrap()
}

fn legacy_type() -> jsonschema::Validator {
    let text = fs::read_to_string("src/schema/kubernetes-cluster-legacy.json").unwrap();
    jsonschema::draft7::new(&serde_json::from_str(&text).unwrap()).unwrap()
}

#[test]
fn legacy_bundle_works_on_an_old_platform() {
    let cp = control_plane();
    let namespace = cp.namespace("legacy");
    let instance = Instance::of_era(cp.admin(), &namespace, Era::Artifacts, Shape::Legacy);
    lay_out_bundle(&instance, "legacy");
    assert!(instance.path("bundle/src/README.md").exists(), "the directory of the step is there");

    instance.act("plan").expect_code(0);
    assert!(!instance.path("dependencies.json").exists() && instance.path("connections.json").exists());
    assert_eq!(versions(cp, &namespace), vec![]);
    assert_eq!(instance.platform.requests().len(), 0);

    let artifact = instance.provision();
    let published = instance.platform.requests().into_iter().find(|request| request.status == 201).unwrap();
    assert_eq!(
        (published.path.as_str(), &published.body["type"]),
        ("/v1/artifacts", &json!(format!("acme-{namespace}/kubernetes-cluster")))
    );
    assert_eq!(published.body["data"], artifact["data"], "as clients of that time sent it");
    let keys: Vec<&String> = artifact.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["data", "specs"]);
    assert_eq!(artifact["data"]["infrastructure"], instance.connection["data"]["infrastructure"]);
    assert!(schema_of_field("legacy/schema-artifacts.json").is_valid(&artifact));
    let token = token_of(&artifact);
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    assert_eq!(status(cp, &token, &pods), 200);

    let before = versions(cp, &namespace);
    assert_eq!(instance.token(), token, "running again");
    assert_eq!(versions(cp, &namespace), before);

    instance.act("decommission").expect_code(0);
    assert_eq!(instance.platform.resource("token"), None);
    assert!(paths(&namespace).iter().all(|path| cp.get(path).is_none()));
    assert_eq!(status(cp, &token, &pods), 401);
}

/// The type as organizations have it: with an identifier, nested schemas, and a pattern that strict engines refuse.
#[test]
fn unusual_type_schema_of_old_platforms_is_accepted() {
    let cp = control_plane();
    let namespace = cp.namespace("legacy-type");
    let instance = Instance::of_era(cp.admin(), &namespace, Era::Artifacts, Shape::Legacy);
    lay_out_bundle(&instance, "legacy");
    let path = instance.path("bundle/schema-artifacts.json");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let of_type = &mut schema["properties"]["token"];
    of_type["$id"] = json!("https://schemas.massdriver.cloud/kubernetes-cluster");
    for cloud in of_type["properties"]["data"]["properties"]["infrastructure"]["oneOf"].as_array_mut().unwrap() {
        cloud["$schema"] = json!("http://json-schema.org/draft-07/schema");
        for member in cloud["properties"].as_object_mut().unwrap().values_mut() {
            member["$schema"] = json!("http://json-schema.org/draft-07/schema");
        }
    }
    of_type["properties"]["data"]["properties"]["infrastructure"]["oneOf"][1]["properties"]["ari"]["pattern"] =
        json!(r"^/subscriptions/[a-zA-Z0-9-_.()]+/providers/Microsoft\.[a-zA-Z]+/[a-zA-Z]+(?:/[a-zA-Z0-9-_.()]+)+$");
    fs::write(&path, schema.to_string()).unwrap();
    instance.act("plan").expect_code(0);
}

/// The step's `config` in the first block of the page, each value evaluated. A jq program there is a path or a JSON
/// literal.
fn config_of_the_example(params: &Value) -> Map<String, Value> {
    let page = fs::read_to_string("docs/old-platforms.md").unwrap();
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let bundle: Value = serde_saphyr::from_str(block).unwrap();
    let main: Value = serde_saphyr::from_str(&fs::read_to_string("massdriver.yaml").unwrap()).unwrap();
    assert_eq!(bundle["steps"][0]["path"], main["steps"][0]["path"]);
    assert_eq!(bundle["steps"][0]["provisioner"], main["steps"][0]["provisioner"]);
    let config = bundle["steps"][0]["config"].as_object().unwrap();
    let evaluated = config.iter().map(|(key, program)| {
        let program = program.as_str().expect("a program is a string");
        let value = match program.strip_prefix(".params.") {
            Some(name) => params[name].clone(),
            None => serde_json::from_str(program).unwrap_or_else(|_| panic!("{key}: {program} is no literal")),
        };
        (key.clone(), value)
    });
    evaluated.collect()
}

#[rstest]
#[case::bare("bare", Shape::Bare, Era::Resources)]
#[case::of_a_cloud("cloud", Shape::Full, Era::Resources)]
#[case::on_an_old_platform("old", Shape::Full, Era::Artifacts)]
fn documented_config_turns_flat_connection_into_legacy_credential(
    #[case] name: &str,
    #[case] shape: Shape,
    #[case] era: Era,
) {
    let cp = control_plane();
    let namespace = cp.namespace(name);
    let mut instance = Instance::of_era(cp.admin(), &namespace, era, shape);
    lay_out_bundle(&instance, "."); // with a flat schema-artifacts.json
    let config = config_of_the_example(&instance.params);
    assert_eq!(config["output_shape"], "legacy");
    instance.config = config.into();

    let artifact = instance.provision();
    assert!(!schema_of_field(instance.path("bundle/schema-artifacts.json")).is_valid(&artifact), "that one is flat");
    let errors: Vec<String> = legacy_type().iter_errors(&artifact).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    let mut expected = json!({ "data": { "authentication": instance.connection["authentication"] } });
    expected["data"]["authentication"]["user"]["token"] = json!(token_of(&artifact));
    if shape == Shape::Full {
        expected["data"]["infrastructure"] = instance.connection["infrastructure"].clone();
        expected["specs"] = instance.connection["specs"].clone();
    }
    assert_eq!(artifact, expected);

    // An old helm image reads `.data.authentication` and nothing else.
    let of_helm = &artifact["data"]["authentication"];
    assert_eq!(of_helm["cluster"], instance.connection["authentication"]["cluster"]);
    let token = of_helm["user"]["token"].as_str().unwrap();
    assert_eq!(status(cp, token, &format!("/api/v1/namespaces/{namespace}/pods")), 200);

    // Without the option the credential has the format of the connection.
    instance.config.as_object_mut().unwrap().remove("output_shape");
    let flat = instance.provision();
    assert!(schema_of_field(instance.path("bundle/schema-artifacts.json")).is_valid(&flat));
    assert_eq!(token_of(&flat), token);
}

/// The flat type accepts any infrastructure, the legacy type does not: the legacy type is the one that counts.
#[test]
fn legacy_credential_is_validated_against_the_legacy_type() {
    let cp = control_plane();
    let namespace = cp.namespace("checked");
    let mut instance = Instance::of_era(cp.admin(), &namespace, Era::Resources, Shape::Full);
    lay_out_bundle(&instance, ".");
    instance.connection["infrastructure"] = json!({ "datacenter": "one" });
    instance.act("plan").expect_code(0);
    instance.config = config_of_the_example(&instance.params).into();
    let ran = instance.act("provision").expect_code(65);
    assert!(ran.stderr.contains("/data/infrastructure"), "{}", ran.stderr);
    assert_eq!(versions(cp, &namespace), vec![], "refused before the first write");
    assert_eq!(instance.platform.requests().len(), 0);
}
