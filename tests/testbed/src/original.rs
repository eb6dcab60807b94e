//! Instances of the original bundle: what its helm step does, with real helm and a chart that was written
//! for the tests (`charts/k8s-token`) and leaves the same objects. The original's second step only reads
//! the Secret and changes nothing in the cluster.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::error::{OrFail, fail};
use crate::helm::{Helm, HelmRelease};
use crate::intercepting_proxy::{InterceptingProxy, Verdict};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/k8s-token");

/// An instance of the original bundle. `params` and `connection` may be changed between two runs.
#[derive(Clone)]
pub struct Original<'a> {
    /// As the platform hands them over, with `md_metadata`.
    pub params: Value,
    /// The kubernetes-cluster document that it is connected to, flat or under `data`.
    pub connection: Value,
    /// Which helm the step's image has.
    pub helm: &'static Helm,
    control_plane: &'a ControlPlane,
    directory: PathBuf,
}

#[expect(clippy::must_use_candidate, reason = "most runs are for what they do, not for what they print")]
impl<'a> Original<'a> {
    /// Nothing happens yet.
    #[must_use]
    pub fn new(control_plane: &'a ControlPlane, helm: &'static Helm, params: &Value, connection: &Value) -> Self {
        let directory = control_plane.directory().join(control_plane.unique("original"));
        fs::create_dir(&directory).or_fail(format_args!("making {}", directory.display()));
        Self { params: params.clone(), connection: connection.clone(), helm, control_plane, directory }
    }

    /// Installs or upgrades, which has to work. Returns what helm printed.
    #[track_caller]
    pub fn provision(&self) -> String {
        let output = self.try_provision();
        if !output.status.success() {
            fail(format_args!("helm upgrade: {}\n{}", output.status, text(&output)));
        }
        text(&output)
    }

    /// Installs or upgrades, however that ends.
    #[must_use]
    #[track_caller]
    pub fn try_provision(&self) -> Output {
        self.upgrade(&self.server()).output().or_fail("running helm")
    }

    /// An install or upgrade that the API server refuses, as it happens in real life: one of the tags of
    /// the instance is not a label. Returns what helm printed.
    #[track_caller]
    pub fn failed_provision(&self) -> String {
        let mut odd = self.clone();
        odd.params["md_metadata"]["default_tags"]["owner"] = json!("somebody@example.com");
        let output = odd.try_provision();
        if output.status.success() {
            fail(format_args!("helm upgrade was not refused\n{}", text(&output)));
        }
        text(&output)
    }

    /// An install or upgrade whose container is killed before it changes the first object of the chart.
    /// The release is recorded as pending by then, and helm refuses to touch it from now on. A tag that
    /// is new makes sure that there is something to change.
    #[track_caller]
    pub fn killed_provision(&self) {
        let proxy = InterceptingProxy::start(self.control_plane, |request| {
            let objects = ["/serviceaccounts", "/roles", "/rolebindings"];
            let of_chart = objects.iter().any(|plural| request.path.contains(plural));
            if request.write && of_chart { Verdict::CutBefore } else { Verdict::Forward }
        });
        let mut odd = self.clone();
        odd.params["md_metadata"]["default_tags"]["attempt"] = json!("killed");
        let mut upgrade = odd.upgrade(&proxy.server());
        let upgrade = upgrade.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        if !proxy.kill_at_cut(&mut upgrade.or_fail("running helm")) {
            fail("helm ended before it changed anything");
        }
    }

    /// A dry run, as the step's plan is. Returns what helm printed.
    #[track_caller]
    pub fn plan(&self) -> String {
        let output = self.upgrade(&self.server()).arg("--dry-run").output().or_fail("running helm");
        if !output.status.success() {
            fail(format_args!("helm upgrade --dry-run: {}\n{}", output.status, text(&output)));
        }
        text(&output)
    }

    /// Uninstalls, however that ends.
    #[must_use]
    #[track_caller]
    pub fn decommission(&self) -> Output {
        let mut helm = self.helm.command(&self.directory);
        helm.args(["uninstall", self.name(), "--namespace", self.namespace(), "--debug", "--wait"]);
        self.log_in(&mut helm, &self.server());
        helm.output().or_fail("running helm")
    }

    /// The release's revisions that are in the namespace, oldest first.
    #[must_use]
    #[track_caller]
    pub fn releases(&self) -> Vec<HelmRelease> {
        HelmRelease::all(self.control_plane, self.namespace(), self.name())
    }

    /// The name of the release.
    #[must_use]
    pub fn name(&self) -> &str {
        self.params["md_metadata"]["name_prefix"].as_str().unwrap_or_default()
    }

    /// Where the objects are.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.params["namespace"].as_str().unwrap_or("default")
    }

    /// The step's command line. All documents are values, the connection with its token among them:
    /// that is how the token gets into the release.
    fn upgrade(&self, server: &str) -> Command {
        let mut helm = self.helm.command(&self.directory);
        helm.args(["upgrade", self.name(), CHART, "--install"]);
        helm.args(["--namespace", self.namespace(), "--create-namespace"]);
        for (name, document) in [
            ("connections", json!({"kubernetes_cluster": self.connection})),
            ("params", self.params.clone()),
            ("envs", json!({"envs": {}})),
            ("secrets", json!({"secrets": {}})),
        ] {
            helm.arg("-f").arg(self.write(&format!("{name}.json"), document.to_string().as_bytes()));
        }
        helm.args(["--debug", "--wait", "--wait-for-jobs"]);
        self.log_in(&mut helm, server);
        helm
    }

    fn log_in(&self, helm: &mut Command, server: &str) {
        let authentication = self.authentication();
        let token = authentication["user"]["token"].as_str().unwrap_or_default();
        let ca = authentication["cluster"]["certificate-authority-data"].as_str().unwrap_or_default();
        let ca = self.write("ca_cert.pem", &STANDARD.decode(ca).or_fail("decoding the CA"));
        helm.args(["--kube-apiserver", server, "--kube-token", token, "--kube-ca-file"]).arg(ca);
    }

    fn server(&self) -> String {
        self.authentication()["cluster"]["server"].as_str().unwrap_or_default().to_owned()
    }

    fn authentication(&self) -> &Value {
        let flat = self.connection.get("authentication");
        flat.unwrap_or(&self.connection["data"]["authentication"])
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, content).or_fail(format_args!("writing {}", path.display()));
        path
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
