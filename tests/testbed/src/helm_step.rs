//! A bundle step run by the platform's helm provisioner, with real helm: the input it reads, and the command line it
//! builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::error::{OrFail, fail};
use crate::helm::{Helm, HelmRelease};

/// A helm step of one instance. All fields may be changed between two runs.
#[derive(Clone, Debug)]
pub struct HelmStep {
    /// The helm version in the provisioner's image.
    pub helm: &'static Helm,
    /// The step's directory: a chart.
    pub chart: PathBuf,
    /// The params from the platform, with `md_metadata`.
    pub params: Value,
    /// The resource that each slot is connected to.
    pub connections: Value,
    /// The step's `config` with jq programs, as in massdriver.yaml.
    pub config: Value,
    /// The image is older than the end of May 2026, and reads the cluster only below `data`.
    pub only_data: bool,
    directory: PathBuf,
}

impl HelmStep {
    /// A step that reads both formats of a connection. Nothing is executed yet.
    pub fn new(
        control_plane: &ControlPlane,
        helm: &'static Helm,
        chart: &Path,
        params: &Value,
        connections: &Value,
    ) -> Self {
        let directory = control_plane.directory().join(control_plane.unique("helm-step"));
        fs::create_dir(&directory).or_fail(format_args!("making {}", directory.display()));
        Self {
            helm,
            chart: chart.to_owned(),
            params: params.clone(),
            connections: connections.clone(),
            config: json!({"namespace": ".params.namespace"}),
            only_data: false,
            directory,
        }
    }

    /// The helm command of this action (`plan`, `provision`, `decommission`), not started.
    ///
    /// # Errors
    /// If the connection lacks a field, the step ends before it starts helm, with this message.
    pub fn command(&self, action: &str) -> Result<Command, String> {
        let cluster = self.cluster()?;
        let config = self.evaluated_config();
        let release = config["release_name"].as_str().unwrap_or_else(|| self.name());
        let namespace = config["namespace"].as_str().unwrap_or("default");
        let mut helm = self.helm.command(&self.directory);
        match action {
            "plan" | "provision" => {
                helm.args(["upgrade", release]).arg(&self.chart).args(["--install", "--namespace", namespace]);
                helm.arg("--create-namespace");
                for values in self.values() {
                    helm.arg("-f").arg(values);
                }
                if action == "plan" {
                    helm.arg("--dry-run");
                }
            }
            "decommission" => {
                helm.args(["uninstall", release, "--namespace", namespace]);
            }
            _ => fail(format_args!("a helm step has no action {action}")),
        }
        for (flag, but_not_for) in [("debug", ""), ("wait", ""), ("wait_for_jobs", "decommission")] {
            if config[flag] != false && action != but_not_for {
                helm.arg(format!("--{}", flag.replace('_', "-")));
            }
        }
        if let Some(timeout) = config["timeout"].as_str() {
            helm.args(["--timeout", timeout]);
        }
        let ca = self.write("ca_cert.pem", &cluster.ca);
        helm.args(["--kube-apiserver", &cluster.server, "--kube-token", &cluster.token, "--kube-ca-file"]).arg(ca);
        Ok(helm)
    }

    /// The revisions of the step's release, oldest first.
    #[track_caller]
    pub fn releases(&self, control_plane: &ControlPlane) -> Vec<HelmRelease> {
        let config = self.evaluated_config();
        let namespace = config["namespace"].as_str().unwrap_or("default");
        HelmRelease::all(control_plane, namespace, config["release_name"].as_str().unwrap_or_else(|| self.name()))
    }

    fn name(&self) -> &str {
        self.params["md_metadata"]["name_prefix"].as_str().unwrap_or_default()
    }

    /// The platform evaluates the config before it starts the step.
    fn evaluated_config(&self) -> Value {
        let inputs = json!({"params": self.params, "dependencies": self.connections, "connections": self.connections});
        evaluate_config(&self.config, &inputs)
    }

    fn cluster(&self) -> Result<Cluster, String> {
        let configured = &self.evaluated_config()["kubernetes_cluster"];
        let payload = &self.connections["kubernetes_cluster"];
        let mut authentication = match (payload.get("authentication"), configured.is_null()) {
            // The config overrides the connection.
            (_, false) if self.only_data => configured["data"]["authentication"].clone(),
            (Some(flat), _) if !self.only_data => flat.clone(),
            _ => payload["data"]["authentication"].clone(),
        };
        if !self.only_data {
            merge(&mut authentication, &configured["authentication"]);
        }
        let needed = |pointer: &str, name: &str| {
            let found = authentication.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
            found
                .map(str::to_owned)
                .ok_or_else(|| format!("Missing required field \"{name}\" in kubernetes credentials."))
        };
        let (server, token) = (needed("/cluster/server", "server")?, needed("/user/token", "token")?);
        let ca = needed("/cluster/certificate-authority-data", "certificate-authority-data")?;
        Ok(Cluster { server, token, ca: STANDARD.decode(ca).or_fail("decoding the CA") })
    }

    /// One values file for each document, made by the chart's jq program if it has one.
    fn values(&self) -> [PathBuf; 4] {
        [
            ("connections", self.connections.clone(), self.connections.clone()),
            ("params", self.params.clone(), self.params.clone()),
            ("envs", json!({}), json!({"envs": {}})),
            ("secrets", json!({}), json!({"secrets": {}})),
        ]
        .map(|(name, document, otherwise)| {
            let program = fs::read_to_string(self.chart.join(format!("{name}.jq"))).ok();
            let values = program.map_or(otherwise, |program| evaluate(&program, &document));
            self.write(&format!("{name}_values.json"), values.to_string().as_bytes())
        })
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, content).or_fail(format_args!("writing {}", path.display()));
        path
    }
}

struct Cluster {
    server: String,
    token: String,
    ca: Vec<u8>,
}

/// The `config` of a step as the platform evaluates it: each string is a jq program on the instance's documents.
#[track_caller]
pub fn evaluate_config(config: &Value, inputs: &Value) -> Value {
    match config {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), evaluate_config(value, inputs))).collect(),
        Value::String(program) => evaluate(program, inputs),
        other => other.clone(),
    }
}

/// Merges single fields over a document.
fn merge(target: &mut Value, over: &Value) {
    match (target, over) {
        (Value::Object(target), Value::Object(over)) => {
            for (key, value) in over {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (target, value) => *target = value.clone(),
    }
}

/// The subset of jq that these bundles use: a JSON constant, or a path of plain names. Panics at any other program.
fn evaluate(program: &str, input: &Value) -> Value {
    let lines = program.lines().filter(|line| !line.trim_start().starts_with('#'));
    let program = lines.collect::<Vec<_>>().join("\n");
    let program = program.trim();
    if let Ok(constant) = serde_json::from_str(program) {
        return constant;
    }
    let plain = |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    match program.strip_prefix('.').map(|path| path.split('.')) {
        Some(mut path) if path.clone().all(plain) => {
            path.try_fold(input, |value, name| value.get(name)).cloned().unwrap_or_default()
        }
        _ => fail(format_args!("not a constant and not a path: {program}")),
    }
}
