//! Everything the acts stand on: the program, a cluster, a platform, an instance's directory, and a narrator.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_token::secret::Token;
use serde_json::{Value, json};
use testbed::{AuditEvent, ControlPlane, Era, Grant, Mark, Options, Persona, Platform};

pub struct Stage {
    /// The program as it is shipped.
    pub binary: PathBuf,
    pub control_plane: ControlPlane,
    pub platform: Platform,
    /// Whose credential is in the cluster connection. An ordinary user as far as the API server is concerned, so that
    /// the audit log tells its requests from everybody else's.
    pub parent: Persona,
    pub namespace: String,
    /// What `/massdriver` is in the provisioner's container.
    pub directory: PathBuf,
}

/// What kubectl said, and whether it was content.
pub struct Said {
    pub success: bool,
    pub text: String,
}

impl Stage {
    pub fn set() -> Result<Self> {
        heading("0. The stage");
        tell("Building the program, and starting etcd, kube-apiserver, kube-controller-manager and a platform double.");
        let binary = build()?;
        let control_plane = ControlPlane::start(&Options::default())?;
        let platform = Platform::start(Era::Dependencies);
        let parent = control_plane.persona("massdriver", &[Grant::cluster_role("cluster-admin")]);
        let namespace = control_plane.unused_namespace("team-a");
        let directory = lay_out(&control_plane, &parent, "massdriver")?;
        println!("  Kubernetes {} at {}", control_plane.version(), control_plane.server());
        println!("  ready after {:.1} s", control_plane.ready_after().as_secs_f64());
        Ok(Self { binary, control_plane, platform, parent, namespace, directory })
    }

    /// Puts params.json and config.json into the instance's directory, as the platform does.
    pub fn ask_for(&self, rules: &Value) -> Result<()> {
        request(&self.directory, self.platform.package_name(), &self.namespace, rules)
    }

    pub fn print_params(&self, rules: &Value) {
        quote(&params(self.platform.package_name(), &self.namespace, rules));
    }

    /// Runs the program as the platform runs a step: no arguments, the action in the environment, the documents in
    /// the working directory. The log, which has to be that of a success.
    pub fn provisioner(&self, action: &str) -> Result<String> {
        println!("\n  $ MASSDRIVER_DEPLOYMENT_ACTION={action} k8s-token");
        let output = self.step(Command::new(&self.binary), action, &self.directory).output()?;
        let log = String::from_utf8(output.stderr)?;
        quote(&log);
        ensure!(output.status.success(), "{action} ended with {}", output.status);
        ensure!(output.stdout.is_empty(), "{action} wrote to stdout");
        println!();
        Ok(format!("\n{log}"))
    }

    /// The environment and the directory of a step.
    pub fn step(&self, mut command: Command, action: &str, directory: &Path) -> Command {
        command
            .env_clear()
            .envs(self.platform.env())
            .env("MASSDRIVER_DEPLOYMENT_ACTION", action)
            .current_dir(directory)
            .stdin(Stdio::null());
        command
    }

    /// The artifact, as the platform has it.
    pub fn published(&self) -> Result<Value> {
        self.platform.resource("token").context("nothing is published under the field `token`")
    }

    pub fn token(&self) -> Result<String> {
        let artifact = self.published()?;
        let token = artifact.pointer("/authentication/user/token").and_then(Value::as_str);
        Ok(token.context("the artifact has no token")?.to_owned())
    }

    /// Names the token without giving it away.
    pub fn fingerprint(&self) -> Result<String> {
        let token = Token::parse(&self.token()?).map_err(anyhow::Error::msg)?;
        Ok(token.fingerprint().chars().take("sha256:".len() + 12).collect())
    }

    pub fn write_kubeconfig(&self) -> Result<()> {
        write_secret(&self.directory.join("artifact.json"), format!("{:#}", self.published()?).as_bytes())?;
        println!("\n  $ k8s-token kubeconfig artifact.json > kubeconfig");
        let mut command = Command::new(&self.binary);
        let output = command.args(["kubeconfig", "artifact.json"]).env_clear().current_dir(&self.directory).output()?;
        quote(&String::from_utf8(output.stderr)?);
        ensure!(output.status.success(), "kubeconfig ended with {}", output.status);
        write_secret(&self.directory.join("kubeconfig"), &output.stdout)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Said {
        println!("\n  $ kubectl {}", arguments.join(" "));
        let Output { status, stdout, stderr } =
            self.control_plane.kubectl(&self.directory.join("kubeconfig"), arguments);
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        quote(&text);
        Said { success: status.success(), text }
    }

    /// HTTP status of a question that every user of the cluster may ask.
    pub fn status_of(&self, token: &str) -> u16 {
        self.control_plane.request("GET", "/api", Some(token), None).status
    }

    /// An object below the namespace, or the namespace itself; seen by the cluster's own administrator.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.control_plane.get(&format!("/api/v1/namespaces/{}{path}", self.namespace))
    }

    /// Name of the ServiceAccount, the Role, the RoleBinding and the Secret.
    pub fn object(&self) -> String {
        format!("{}-token", self.platform.package_name())
    }

    fn rbac(&self, resource: &str) -> Option<Value> {
        let api = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", self.namespace);
        self.control_plane.get(&format!("{api}/{resource}/{}", self.object()))
    }

    pub fn role_uid(&self) -> Option<Value> {
        self.rbac("roles")?.pointer("/metadata/uid").cloned()
    }

    /// uid and resourceVersion of the four objects, `None` for one that is not there.
    pub fn objects(&self) -> Vec<Option<(Value, Value)>> {
        let object = self.object();
        let core = ["serviceaccounts", "secrets"].map(|resource| self.get(&format!("/{resource}/{object}")));
        let rbac = ["roles", "rolebindings"].map(|resource| self.rbac(resource));
        let identity = |object: Value| {
            let metadata = &object["metadata"];
            (metadata["uid"].clone(), metadata["resourceVersion"].clone())
        };
        core.into_iter().chain(rbac).map(|object| object.map(identity)).collect()
    }

    /// How many changes the parent has asked the API server for.
    pub fn writes_since(&self, mark: Mark) -> usize {
        self.control_plane
            .audit()
            .of(&self.parent.user, mark)
            .iter()
            .filter(|event| AuditEvent::is_write(event))
            .count()
    }

    /// A claim that was checked; one that is not true ends it all.
    pub fn ok(&self, claim: &str, truth: bool) -> Result<()> {
        if !truth {
            let logs = self.control_plane.audit().path().display().to_string();
            bail!("not true: {claim} (the API server's view was in {logs})");
        }
        println!("  [ok] {claim}");
        Ok(())
    }
}

/// A directory as the platform lays it out, but for what is asked for.
pub fn lay_out(control_plane: &ControlPlane, parent: &Persona, name: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = control_plane.directory().join(name);
    let bundle = directory.join("bundle");
    fs::create_dir_all(&bundle)?;
    for file in ["massdriver.yaml", "schema-params.json", "schema-artifacts.json", "schema-connections.json"] {
        fs::copy(root.join(file), bundle.join(file)).with_context(|| format!("copying {file}"))?;
    }
    let dependencies = json!({ "kubernetes_cluster": parent.connection() });
    write_secret(&directory.join("dependencies.json"), dependencies.to_string().as_bytes())?;
    for file in ["envs.json", "secrets.json"] {
        fs::write(directory.join(file), "{}")?;
    }
    Ok(directory)
}

/// params.json with the platform's metadata, and config.json as the step's `config` of massdriver.yaml makes it.
pub fn request(directory: &Path, name: &str, namespace: &str, rules: &Value) -> Result<()> {
    fs::write(directory.join("params.json"), params(name, namespace, rules))?;
    fs::write(directory.join("config.json"), json!({ "namespace": namespace }).to_string())?;
    Ok(())
}

/// A rule a line, because people read it.
fn params(name: &str, namespace: &str, rules: &Value) -> String {
    let rules: Vec<String> = rules.as_array().into_iter().flatten().map(|rule| format!("    {rule}")).collect();
    let metadata = json!({"name_prefix": name, "default_tags": {"md-project": "ecomm", "md-environment": "prod"}});
    format!(
        "{{\n  \"namespace\": {},\n  \"rules\": [\n{}\n  ],\n  \"md_metadata\": {metadata}\n}}\n",
        json!(namespace),
        rules.join(",\n"),
    )
}

/// Builds the program that is shipped, unless it is up to date, and says where it is. An example cannot name a
/// binary of its package, so cargo is asked for it.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").context("run this with `cargo run --example quickstart`")?;
    // <target>/<profile>/examples/quickstart
    let this = std::env::current_exe()?;
    let target = this.ancestors().nth(3).context("this is not where cargo puts an example")?;
    let mut command = Command::new(cargo);
    // `cargo run` describes this package in variables that build scripts look at. With them cargo would find ring
    // changed, and build it and all that stands on it once more, now and after the next plain `cargo build`.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let status = command
        .args(["build", "--release", "--locked", "--bin", "k8s-token", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    ensure!(status.success(), "the program cannot be built");
    Ok(target.join("release/k8s-token"))
}

/// For files with a token in them.
fn write_secret(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(content)?)
}

pub fn heading(text: &str) {
    println!("\n{text}\n{}", "=".repeat(text.len()));
}

pub fn tell(text: &str) {
    println!("  {text}");
}

/// What another program printed.
fn quote(text: &str) {
    for line in text.lines() {
        println!("{}", format!("  | {line}").trim_end());
    }
}
