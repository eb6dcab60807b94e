//! Bundles that use the credential (examples/downstream): the Helm example is deployed with the published credential by
//! real helm 3 and 4, with sufficient and with insufficient permissions; the OpenTofu example is parsed. Tests hold its
//! README to the rules and messages that it shows.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Era, Helm, HelmStep, Options, evaluate_config};

use crate::support::{Instance, OBJECT, Shape};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/downstream");
const RELEASE: &str = "shop-prod-web-a1b2";

/// A control plane with the controllers of Deployments, so that helm has something to wait for.
fn control_plane() -> &'static ControlPlane {
    static STARTED: OnceLock<ControlPlane> = OnceLock::new();
    STARTED.get_or_init(|| {
        let controller_arguments = vec!["--controllers=deployment,replicaset".to_owned()];
        ControlPlane::start(&Options { controller_arguments, ..Options::default() }).unwrap()
    })
}

fn helm(major: u8) -> &'static Helm {
    if major == 3 { Helm::v3() } else { Helm::v4() }
}

fn readme() -> String {
    fs::read_to_string(format!("{EXAMPLES}/README.md")).unwrap()
}

/// The code blocks of a language in the README.
fn blocks(language: &str) -> Vec<String> {
    let readme = readme();
    let parts = readme.split("```").skip(1).step_by(2);
    parts.filter_map(|part| part.strip_prefix(&format!("{language}\n")).map(str::to_owned)).collect()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The rules that the README recommends for the example.
fn recommended() -> Vec<Value> {
    let params = fs::read_to_string(format!("{EXAMPLES}/helm/k8s-token.params.json")).unwrap();
    let params: Value = serde_json::from_str(&params).unwrap();
    params["rules"].as_array().unwrap().clone()
}

/// The permissions of a rule: one verb on one resource each.
fn permissions(rules: &[Value]) -> BTreeSet<String> {
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut atoms = BTreeSet::new();
    for rule in rules {
        let place = texts(rule, "namespaces").join(",");
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                atoms.extend(texts(rule, "verbs").iter().map(|verb| format!("{verb} {group}/{resource} {place}")));
            }
        }
    }
    atoms
}

/// An instance of k8s-token, and one of the example that is connected to it.
struct Downstream {
    token: Instance,
    step: HelmStep,
}

impl Downstream {
    fn new(major: u8, rules: &[Value]) -> Self {
        let namespace = control_plane().namespace("shop");
        let token = Instance::new(control_plane().admin(), &namespace).rules(&json!(rules));
        let params = json!({
            "namespace": namespace,
            "replicas": 1,
            "greeting": "Hello",
            "md_metadata": {"name_prefix": RELEASE, "default_tags": {"managed-by": "massdriver"}},
        });
        let connections = json!({"kubernetes_cluster": token.provision()});
        let chart = PathBuf::from(format!("{EXAMPLES}/helm/chart"));
        let mut step = HelmStep::new(control_plane(), helm(major), &chart, &params, &connections);
        step.config =
            yaml(&fs::read_to_string(format!("{EXAMPLES}/helm/massdriver.yaml")).unwrap())["steps"][0]["config"]
                .clone();
        Self { token, step }
    }

    /// Deploys k8s-token with other rules and passes the credential on.
    fn grant(&mut self, rules: &[Value]) {
        self.token.params["rules"] = json!(rules);
        self.step.connections["kubernetes_cluster"] = self.token.provision();
    }

    fn secret_token(&self) -> String {
        crate::support::token_of(&self.step.connections["kubernetes_cluster"])
    }

    /// Whether helm succeeded, and its output.
    fn act(&self, action: &str) -> (bool, String) {
        let mut command = self.step.command(action).unwrap();
        let output = thread::scope(|scope| {
            let helm = scope.spawn(|| command.output().unwrap());
            while !helm.is_finished() {
                self.mark_pods_ready();
                thread::sleep(Duration::from_millis(20));
            }
            helm.join().unwrap()
        });
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }

    #[track_caller]
    fn succeed(&self, action: &str) -> String {
        let (done, said) = self.act(action);
        assert!(done, "{action}: {said}");
        said
    }

    #[track_caller]
    fn fail(&self, action: &str) -> String {
        let (done, said) = self.act(action);
        assert!(!done, "{action}: {said}");
        said
    }

    /// Marks each Pod as ready, as a node would: the control plane has none.
    fn mark_pods_ready(&self) {
        let pods = self.path("pods");
        let list = control_plane().get(&pods).unwrap();
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        for pod in list["items"].as_array().unwrap().iter().filter(|pod| pod["status"]["phase"] != "Running") {
            let path = format!("{pods}/{}/status", pod["metadata"]["name"].as_str().unwrap());
            let admin = &control_plane().admin().token;
            // The Pod may be deleted already.
            let _ = control_plane().request("PATCH", &path, Some(admin), Some(&ready));
        }
    }

    fn path(&self, below: &str) -> String {
        format!("/api/v1/namespaces/{}/{below}", self.token.namespace)
    }

    fn page(&self) -> Option<Value> {
        control_plane().get(&self.path(&format!("configmaps/{RELEASE}")))
    }

    fn server(&self) -> Option<Value> {
        control_plane().get(&format!("/apis/apps/v1/namespaces/{}/deployments/{RELEASE}", self.token.namespace))
    }
}

/// The rules that the README's commands derive from a deployment's log.
fn missing_rules(log: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("deployment.log"), log).unwrap();
    let [script] = &blocks("sh")[..] else { panic!("one script") };
    let output = Command::new("sh").args(["-c", script]).current_dir(&directory).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rules = String::from_utf8(output.stdout).unwrap();
    if rules.is_empty() { Vec::new() } else { yaml(&rules).as_array().unwrap().clone() }
}

#[rstest]
fn helm_example_works_with_the_recommended_rules(#[values(3, 4)] major: u8) {
    let mut downstream = Downstream::new(major, &recommended());
    let token = downstream.secret_token();
    downstream.succeed("plan");
    assert!(downstream.page().is_none() && downstream.server().is_none());

    let said = downstream.succeed("provision");
    assert!(!said.contains(&token), "the token is in the log");
    assert_eq!(downstream.page().unwrap()["data"]["index.html"], "Hello");
    assert_eq!(downstream.server().unwrap()["status"]["readyReplicas"], 1);

    // Only the first install needs to create the namespace.
    let after: Vec<_> = recommended().into_iter().filter(|rule| rule["namespaces"].is_null()).collect();
    assert_eq!(after.len(), recommended().len() - 1);
    downstream.grant(&after);
    assert_eq!(downstream.secret_token(), token, "a redeploy of k8s-token keeps the token");
    downstream.step.params["greeting"] = json!("Good morning");
    downstream.step.params["replicas"] = json!(2);
    downstream.succeed("provision");
    assert_eq!(downstream.page().unwrap()["data"]["index.html"], "Good morning");
    assert_eq!(downstream.server().unwrap()["status"]["readyReplicas"], 2);

    let releases = downstream.step.releases(control_plane());
    assert_eq!(releases.len(), 2);
    for release in releases {
        assert!(!release.document.to_string().contains(&token), "the token is in revision {}", release.revision);
        assert!(release.document["config"]["greeting"].is_string());
    }

    downstream.succeed("decommission");
    assert!(downstream.page().is_none() && downstream.server().is_none());
    assert!(downstream.step.releases(control_plane()).is_empty());
}

/// Starts with the rules that no message asks for, and reaches those of the README by the messages alone.
#[test]
fn error_messages_lead_to_the_recommended_rules() {
    let (asked_for, known): (Vec<_>, Vec<_>) = recommended()
        .into_iter()
        .partition(|rule| rule["resources"] != json!(["secrets"]) && rule["resources"] != json!(["replicasets"]));
    assert_eq!(known.len(), 2);
    let mut named = BTreeSet::new();
    for major in [3, 4] {
        let mut rules = known.clone();
        let mut downstream = Downstream::new(major, &rules);
        for (action, greeting) in [("provision", "Hello"), ("provision", "Good morning"), ("decommission", "")] {
            downstream.step.params["greeting"] = json!(greeting);
            loop {
                let (done, said) = downstream.act(action);
                if done {
                    break;
                }
                let before = permissions(&rules);
                let missing = missing_rules(&said);
                named.extend(permissions(&missing));
                rules.extend(missing);
                assert!(permissions(&rules) != before, "helm {major}, {action}: no new rule in {said}");
                downstream.grant(&rules);
            }
        }
        assert!(downstream.page().is_none() && downstream.server().is_none());
    }
    assert_eq!(named, permissions(&asked_for));
}

#[rstest]
fn missing_permission_is_named_by_the_error_message(#[values(3, 4)] major: u8) {
    let mut downstream = Downstream::new(major, &recommended());
    downstream.succeed("provision");
    let deployed = (downstream.page(), downstream.server());

    // The same chart with a Service, then with a ConfigMap for a foreign namespace.
    let elsewhere = control_plane().namespace("elsewhere");
    for (template, group, resource, namespace) in [
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n".to_owned(),
            "",
            "services",
            &downstream.token.namespace.clone(),
        ),
        (
            format!("kind: ConfigMap\napiVersion: v1\nmetadata: {{name: web, namespace: {elsewhere}}}\n"),
            "",
            "configmaps",
            &elsewhere,
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let chart = directory.path().join("chart");
        copy_directory(&downstream.step.chart, &chart);
        fs::write(chart.join("templates/more.yaml"), template).unwrap();
        let example = std::mem::replace(&mut downstream.step.chart, chart);
        let said = downstream.fail("provision");
        let expected = format!(
            "User \"system:serviceaccount:{}:{OBJECT}\" cannot get resource \"{resource}\" in API group \"{group}\" \
             in the namespace \"{namespace}\"",
            downstream.token.namespace
        );
        assert!(said.contains(&expected), "{said}");
        assert_eq!(missing_rules(&said), [json!({"apiGroups": [group], "resources": [resource], "verbs": ["get"]})]);
        downstream.step.chart = example;
        assert_eq!((downstream.page(), downstream.server()), deployed);
    }
}

#[test]
fn readme_derives_the_rule_from_its_example_message() {
    let readme = readme();
    let (_, message) = readme.split_once("\nError: ...").unwrap();
    let rules = missing_rules(message.split("```").next().unwrap());
    let shown = blocks("yaml").into_iter().find(|block| block.starts_with("- {")).unwrap();
    assert_eq!(json!(rules), yaml(&shown));
    assert_eq!(rules, [json!({"apiGroups": [""], "resources": ["services"], "verbs": ["get"]})]);
    let everywhere = r#"cannot create resource \"namespaces\" in API group \"\" at the cluster scope"#;
    let rule = json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"], "namespaces": ["*"]});
    assert_eq!(missing_rules(everywhere), [rule]);
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The README's first case of a message that does not name the rule, with its solution.
#[rstest]
fn unfinished_helm_release_error_names_no_rule(#[values(3, 4)] major: u8) {
    let mut rules = recommended();
    assert_eq!(rules[0]["resources"], json!(["secrets"]));
    rules[0]["verbs"] = json!(["get", "list", "create", "delete"]);
    let mut downstream = Downstream::new(major, &rules);
    downstream.act("provision");
    let releases = downstream.step.releases(control_plane());
    assert_eq!(releases.len(), 1);
    assert_eq!(releases[0].status, "pending-install");

    let said = downstream.fail("provision");
    let symptom = "another operation (install/upgrade/rollback) is in progress";
    assert!(said.contains(symptom) && readme().contains(symptom), "{said}");
    assert!(missing_rules(&said).is_empty(), "{said}");

    downstream.grant(&recommended());
    downstream.fail("provision");
    downstream.succeed("decommission");
    downstream.succeed("provision");
}

/// The README's second case.
#[test]
fn helm_4_without_replica_set_access_times_out() {
    let rules: Vec<_> = recommended().into_iter().filter(|rule| rule["resources"] != json!(["replicasets"])).collect();
    let mut downstream = Downstream::new(4, &rules);
    downstream.step.config["timeout"] = json!("\"5s\"");
    let said = downstream.fail("provision");
    assert!(said.contains("not ready. status: Unknown") && readme().contains("not ready. status: Unknown"), "{said}");
    assert!(missing_rules(&said).is_empty(), "{said}");
}

/// The remedy for an image that reads only `.data`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Remedy {
    Nothing,
    LegacyArtifact,
    ReshapedByTheStep,
}

#[rstest]
fn images_that_read_only_data_need_a_remedy(
    #[values(Remedy::Nothing, Remedy::LegacyArtifact, Remedy::ReshapedByTheStep)] remedy: Remedy,
) {
    let configs: Vec<_> = blocks("yaml").into_iter().filter(|block| block.contains("config:")).collect();
    let [of_token, of_step] = &configs[..] else { panic!("{configs:?}") };
    let config = |block: &str| yaml(block)["steps"][0]["config"].clone();

    let mut downstream = Downstream::new(3, &recommended());
    downstream.step.only_data = true;
    match remedy {
        Remedy::Nothing => {
            let refused = downstream.step.command("provision").unwrap_err();
            assert!(refused.contains("\"server\"") && readme().contains(&refused), "{refused}");
            return;
        }
        Remedy::LegacyArtifact => {
            let inputs = json!({"params": downstream.token.params});
            downstream.token.config = evaluate_config(&config(of_token), &inputs);
            assert_eq!(downstream.token.config["output_shape"], "legacy");
            downstream.grant(&recommended());
        }
        Remedy::ReshapedByTheStep => downstream.step.config = config(of_step),
    }
    let artifact = &downstream.step.connections["kubernetes_cluster"];
    assert_eq!(artifact.get("data").is_some(), remedy == Remedy::LegacyArtifact);
    assert!(downstream.token.connection.get("data").is_none(), "the connection itself is flat");
    downstream.succeed("provision");

    // The same step with a newer image.
    downstream.step.only_data = false;
    downstream.step.params["greeting"] = json!("Good morning");
    downstream.succeed("provision");
    assert_eq!(downstream.page().unwrap()["data"]["index.html"], "Good morning");
}

/// The files of an OpenTofu step, as blocks.
fn module() -> Vec<hcl::Block> {
    let directory = format!("{EXAMPLES}/opentofu/src");
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    let parsed = files.iter().map(|path| {
        let text = fs::read_to_string(path).unwrap();
        hcl::parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
    });
    parsed.flat_map(|body| body.into_blocks().collect::<Vec<_>>()).collect()
}

fn variables() -> Vec<(String, hcl::Expression)> {
    let variables = module().into_iter().filter(|block| block.identifier() == "variable");
    let variables = variables.map(|block| {
        let type_of = block.body().attributes().find(|attribute| attribute.key() == "type").expect("a type");
        (block.labels()[0].as_str().to_owned(), type_of.expr().clone())
    });
    variables.collect()
}

/// The type errors that OpenTofu would report for this value of a variable.
fn objections(type_of: &hcl::Expression, value: &Value, at: &str, found: &mut Vec<String>) {
    use hcl::Expression::{FuncCall, Object, Variable};
    let sound = match type_of {
        Variable(name) => match name.as_str() {
            "string" => value.is_string() || value.is_number() || value.is_boolean(),
            other => panic!("{at}: type {other}"),
        },
        FuncCall(call) => match (call.name.name.as_str(), &call.args[..]) {
            ("object", [Object(members)]) if value.is_object() => {
                for (key, member) in members {
                    let key = key.to_string();
                    let at = format!("{at}.{key}");
                    match (member, value.get(&key)) {
                        (FuncCall(call), None | Some(Value::Null)) if call.name.name.as_str() == "optional" => {}
                        (FuncCall(call), Some(value)) if call.name.name.as_str() == "optional" => {
                            objections(&call.args[0], value, &at, found);
                        }
                        (_, None) => found.push(format!("{at} is missing")),
                        (member, Some(value)) => objections(member, value, &at, found),
                    }
                }
                true
            }
            ("map", [of]) if value.is_object() => {
                for (key, value) in value.as_object().unwrap() {
                    objections(of, value, &format!("{at}.{key}"), found);
                }
                true
            }
            ("object" | "map", _) => false,
            (other, _) => panic!("{at}: type {other}"),
        },
        other => panic!("{at}: type {other:?}"),
    };
    if !sound {
        found.push(format!("{at} has another type"));
    }
}

/// The type of an attribute of an object type; `optional` is unwrapped.
fn member(type_of: &hcl::Expression, name: &str) -> Option<hcl::Expression> {
    use hcl::Expression::{FuncCall, Object};
    match type_of {
        FuncCall(call) if call.name.name.as_str() == "optional" => member(&call.args[0], name),
        FuncCall(call) => match &call.args[..] {
            [Object(members)] => members.iter().find(|(key, _)| key.to_string() == name).map(|(_, of)| of.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Every `var.a.b.c` of the module, as a list of names.
fn uses() -> Vec<Vec<String>> {
    let of_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let mut found = Vec::new();
    for file in ["main.tf", "providers.tf"] {
        let text = fs::read_to_string(format!("{EXAMPLES}/opentofu/src/{file}")).unwrap();
        let paths = text.split("var.").skip(1).map(|rest| rest.split(|letter| !of_name(letter)).next().unwrap());
        found.extend(paths.map(|path| path.split('.').map(str::to_owned).collect::<Vec<_>>()));
    }
    assert!(found.len() > 5, "{found:?}");
    found
}

#[test]
fn opentofu_module_declares_the_inputs_of_its_bundle() {
    let bundle = yaml(&fs::read_to_string(format!("{EXAMPLES}/opentofu/massdriver.yaml")).unwrap());
    let names = |block: &Value| block.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut inputs = names(&bundle["params"]["properties"]);
    inputs.extend(names(&bundle["dependencies"]));
    inputs.insert("md_metadata".to_owned());
    assert_eq!(variables().into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(), inputs);
    for path in uses() {
        let (_, declared) = variables().into_iter().find(|(name, _)| *name == path[0]).unwrap();
        let member = path[1..].iter().try_fold(declared, |type_of, name| member(&type_of, name));
        assert!(member.is_some(), "var.{} is not declared", path.join("."));
    }
    let provider = module().into_iter().find(|block| block.identifier() == "provider").unwrap();
    let login: Vec<_> = provider.body().attributes().map(hcl::Attribute::key).collect();
    assert_eq!(login, ["host", "cluster_ca_certificate", "token"]);
}

#[rstest]
fn opentofu_module_accepts_a_flat_credential(#[values(Shape::Bare, Shape::Full)] shape: Shape) {
    let namespace = control_plane().namespace("facts");
    let token = Instance::of_era(control_plane().admin(), &namespace, Era::Dependencies, shape);
    let artifact = token.provision();
    assert_eq!(artifact.get("infrastructure").is_some(), shape == Shape::Full);
    let (_, type_of) = variables().into_iter().find(|(name, _)| name == "kubernetes_cluster").unwrap();
    let mut found = Vec::new();
    objections(&type_of, &artifact, "kubernetes_cluster", &mut found);
    assert_eq!(found, [""; 0]);
    let (_, type_of) = variables().into_iter().find(|(name, _)| name == "md_metadata").unwrap();
    objections(&type_of, &token.params["md_metadata"], "md_metadata", &mut found);
    assert_eq!(found, [""; 0]);

    // Values that are type errors.
    objections(&type_of, &json!({"default_tags": {"md-project": ["ecomm"]}}), "md_metadata", &mut found);
    assert_eq!(found, ["md_metadata.name_prefix is missing", "md_metadata.default_tags.md-project has another type"]);
}
