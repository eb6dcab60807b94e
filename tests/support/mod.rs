//! Fixtures for tests that run the real binary: an instance in the platform's layout, the binary, and the result of a
//! run.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

pub mod stops;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{ControlPlane, Era, Persona, Platform};

/// The name of every instance; each test has a namespace of its own.
pub const NAME: &str = "ecomm-prod-demo-x7k2";
/// The name of its objects.
pub const OBJECT: &str = "ecomm-prod-demo-x7k2-token";

/// The formats of a connection in the platform's eras.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everything under `data`.
    Legacy,
    /// Flat, with infrastructure and specs.
    Full,
    /// Flat, with nothing but the authentication.
    Bare,
}

/// An instance: documents in a directory, an environment, a platform.
pub struct Instance {
    pub directory: TempDir,
    pub namespace: String,
    /// The first namespace, which names its organization.
    pub home: String,
    pub params: Value,
    pub connection: Value,
    pub config: Value,
    pub platform: Platform,
}

impl Instance {
    /// An instance in this namespace that may read pods, with this parent.
    pub fn new(parent: &Persona, namespace: &str) -> Self {
        Self::of_era(parent, namespace, Era::Dependencies, Shape::Bare)
    }

    pub fn of_era(parent: &Persona, namespace: &str, era: Era, shape: Shape) -> Self {
        let authentication = parent.connection()["authentication"].clone();
        let infrastructure = json!({
            "arn": "arn:aws:eks:eu-west-1:123456789012:cluster/demo",
            "oidc_issuer_url": "https://oidc.example.com/id/1",
        });
        let specs =
            json!({"kubernetes": {"cloud": "aws", "distribution": "eks", "version": "1.36", "platform_version": "1"}});
        let connection = match shape {
            Shape::Bare => json!({"authentication": authentication}),
            Shape::Full => json!({"authentication": authentication, "infrastructure": infrastructure, "specs": specs}),
            Shape::Legacy => {
                json!({"data": {"authentication": authentication, "infrastructure": infrastructure}, "specs": specs})
            }
        };
        let params = json!({
            "namespace": namespace,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
            "md_metadata": {
                "name_prefix": NAME,
                "default_tags": {"managed-by": "massdriver", "md-project": "ecomm"},
                "deployment": {"id": "1"},
                "observability": {"alarm_webhook_url": "https://example.com"},
            },
        });
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            namespace: namespace.to_owned(),
            home: namespace.to_owned(),
            params,
            connection,
            config: json!({"namespace": namespace}),
            platform: Platform::start(era),
        }
    }

    pub fn rules(mut self, rules: &Value) -> Self {
        self.params["rules"] = rules.clone();
        self
    }

    fn write(&self) {
        let put = |name: &str, document: &Value| {
            fs::write(self.directory.path().join(name), document.to_string()).expect("a document");
        };
        let slots = json!({"kubernetes_cluster": self.connection});
        put("params.json", &self.params);
        put("config.json", &self.config);
        put("envs.json", &json!({}));
        put("secrets.json", &json!({}));
        put("connections.json", &slots);
        if self.platform.era() == Era::Dependencies {
            put("dependencies.json", &slots);
        }
    }

    /// Runs as the platform does: no arguments, working directory, environment.
    pub fn act(&self, action: &str) -> Ran {
        self.write();
        let mut command = binary();
        command.current_dir(self.directory.path()).envs(self.environment());
        Ran::of(command.env("MASSDRIVER_DEPLOYMENT_ACTION", action))
    }

    /// Runs as a command with `--json`.
    pub fn ask(&self, action: &str, more: &[&str]) -> Ran {
        Ran::of(&mut self.command(action, more))
    }

    /// The command of [`Self::ask`], not started.
    pub fn command(&self, action: &str, more: &[&str]) -> Command {
        self.write();
        let mut command = binary();
        command.args([action, "--json", "--instance-dir"]).arg(self.directory.path()).args(more);
        command.envs(self.environment());
        command
    }

    /// The environment of a step. All instances have the same name, so each has an organization of its own: an instance
    /// found in two namespaces counts as moved.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.platform.env();
        environment.push(("MASSDRIVER_ORGANIZATION_ID", format!("acme-{}", self.home)));
        environment
    }

    /// Provisions, and returns the published credential.
    pub fn provision(&self) -> Value {
        self.act("provision").expect_code(0);
        self.platform.resource("token").expect("a published artifact")
    }

    /// Provisions, and returns the published token.
    pub fn token(&self) -> String {
        token_of(&self.provision())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The token in a credential of either format.
pub fn token_of(artifact: &Value) -> String {
    let token =
        artifact.pointer("/authentication/user/token").or_else(|| artifact.pointer("/data/authentication/user/token"));
    token.and_then(Value::as_str).expect("a token in the artifact").to_owned()
}

/// Starts an action of [`Instance::command`], and captures its output.
pub fn start(instance: &Instance, action: &str, more: &[&str]) -> Child {
    spawn(&mut instance.command(action, more))
}

/// Starts a command, and captures its output.
pub fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

/// Waits for the end of a run.
pub fn finish(child: Child) -> Ran {
    Ran::from(child.wait_with_output().expect("the binary ends"))
}

/// The real binary, as cargo has built it for these tests.
pub const PROGRAM: &str =
    match (option_env!("CARGO_BIN_EXE_k8s-token"), option_env!("CARGO_BIN_EXE_k8s-token-for-consumers")) {
        (Some(path), _) | (None, Some(path)) => path,
        (None, None) => panic!("not a test of this workspace"),
    };

/// The real binary, without the environment of this process.
pub fn binary() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().stdin(Stdio::null());
    command
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the binary runs"))
    }

    /// The run of a command with this text on standard input. It may end without reading it, as after a usage error.
    pub fn with_stdin(command: &mut Command, text: &str) -> Self {
        let mut child = spawn(command.stdin(Stdio::piped()));
        let _ = std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes());
        finish(child)
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The document on stdout, validated against the published schema.
    #[track_caller]
    pub fn document(&self) -> Value {
        static FORM: LazyLock<jsonschema::Validator> =
            LazyLock::new(|| jsonschema::validator_for(&schema(true)).expect("a schema"));
        let document = serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no document: {self:?}"));
        let problems: Vec<String> =
            FORM.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "invalid by docs/output.schema.json: {problems:#?}");
        document
    }

    /// The error code of the run.
    #[track_caller]
    pub fn error_code(&self) -> String {
        self.document()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The error of a failed run with this code, with all fields.
    #[track_caller]
    pub fn expect_error(&self, code: &str) -> Value {
        let document = self.document();
        let error = &document["error"];
        assert_eq!(document["outcome"], "failed");
        assert_eq!(error["code"], code, "{document:#}");
        assert_eq!(error["exit"], self.code);
        for field in ["doing", "cause", "state", "next"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {error}");
        }
        error.clone()
    }

    /// The findings of a code.
    #[track_caller]
    pub fn findings(&self, code: &str) -> Vec<Value> {
        let mut findings = self.document()["findings"].as_array().expect("findings").clone();
        findings.retain(|finding| finding["code"] == code);
        findings
    }

    /// The duration by the run's own clock, without its start and the reading of its output on a busy machine.
    #[track_caller]
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.document()["duration_ms"].as_u64().expect("a duration"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The published schema of the document; closed, it accepts only the listed keys.
pub fn schema(closed: bool) -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(map) => {
                map.values_mut().for_each(close);
                if map.contains_key("required") {
                    map.insert("additionalProperties".to_owned(), json!(false));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut schema = serde_json::from_str(include_str!("../../docs/output.schema.json")).expect("a schema");
    if closed {
        close(&mut schema);
    }
    schema
}

/// The paths of the four objects.
pub fn paths(namespace: &str) -> [String; 4] {
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let core = format!("/api/v1/namespaces/{namespace}");
    [
        format!("{core}/serviceaccounts/{OBJECT}"),
        format!("{rbac}/roles/{OBJECT}"),
        format!("{rbac}/rolebindings/{OBJECT}"),
        format!("{core}/secrets/{OBJECT}"),
    ]
}

/// uid and resourceVersion of each existing object of the four.
pub fn versions(control_plane: &ControlPlane, namespace: &str) -> Vec<(String, String)> {
    let objects = paths(namespace).into_iter().filter_map(|path| control_plane.get(&path));
    let field = |object: &Value, name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    objects.map(|object| (field(&object, "uid"), field(&object, "resourceVersion"))).collect()
}

/// The status of a read with this token: 200, 401, 403, 404.
pub fn status(control_plane: &ControlPlane, token: &str, path: &str) -> u16 {
    control_plane.request("GET", path, Some(token), None).status
}

/// The findings of a document, without those of every run whose cluster and platform are on loopback.
pub fn unusual_findings(document: &Value) -> Vec<Value> {
    let mut findings = document["findings"].as_array().expect("findings").clone();
    findings.retain(|finding| finding["code"] != "local-address" && finding["code"] != "clear-text");
    findings
}

/// The changes of the document, as `(action, kind)`.
pub fn changes(document: &Value) -> Vec<(String, String)> {
    let text = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
    let changes = document["changes"].as_array().expect("changes");
    changes.iter().map(|change| (text(change, "action"), text(change, "kind"))).collect()
}

/// The code of each finding of a document.
pub fn codes(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().expect("findings");
    findings.iter().filter_map(|finding| finding["code"].as_str()).collect()
}

/// The names of all Secrets in a namespace.
pub fn secrets(control_plane: &ControlPlane, namespace: &str) -> Vec<String> {
    let list = control_plane.get(&format!("/api/v1/namespaces/{namespace}/secrets")).expect("a list");
    let secrets = list["items"].as_array().expect("Secrets");
    secrets.iter().map(|secret| secret["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}
