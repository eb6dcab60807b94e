//! Instances of version 1.0.0: its helm step, with real helm and a chart written for the tests (`charts/k8s-token`)
//! that creates the same objects. Its second step only reads the Secret, and changes nothing in the cluster.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::error::{OrFail, fail};
use crate::helm::{Helm, HelmRelease};
use crate::helm_step::HelmStep;
use crate::intercepting_proxy::{InterceptingProxy, Verdict};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/k8s-token");

/// An instance of version 1.0.0. `params`, `connection` and `helm` may be changed between two runs.
#[derive(Clone)]
pub struct Original<'a> {
    /// The params from the platform, with `md_metadata`.
    pub params: Value,
    /// The kubernetes-cluster document of its connection, flat or under `data`.
    pub connection: Value,
    /// The helm version in the step's image.
    pub helm: &'static Helm,
    control_plane: &'a ControlPlane,
    step: HelmStep,
}

#[expect(clippy::must_use_candidate, reason = "most runs are for what they do, not for what they print")]
impl<'a> Original<'a> {
    /// An instance that is not deployed yet.
    pub fn new(control_plane: &'a ControlPlane, helm: &'static Helm, params: &Value, connection: &Value) -> Self {
        let step = HelmStep::new(control_plane, helm, Path::new(CHART), params, &Value::Null);
        Self { params: params.clone(), connection: connection.clone(), helm, control_plane, step }
    }

    /// Installs or upgrades; panics on failure. Returns helm's output.
    #[track_caller]
    pub fn provision(&self) -> String {
        expect(true, &self.try_provision())
    }

    /// Installs or upgrades, and returns the result.
    #[track_caller]
    pub fn try_provision(&self) -> Output {
        self.run("provision")
    }

    /// An install or upgrade that the API server refuses, because a tag of the instance is not a valid label. Returns
    /// helm's output.
    #[track_caller]
    pub fn failed_provision(&self) -> String {
        let mut odd = self.clone();
        odd.params["md_metadata"]["default_tags"]["owner"] = json!("somebody@example.com");
        expect(false, &odd.try_provision())
    }

    /// An install or upgrade that is killed before it changes the first object of the chart. The release is then
    /// recorded as pending, and helm refuses to change it from now on. A new tag makes sure that there is a change.
    #[track_caller]
    pub fn killed_provision(&self) {
        let proxy = InterceptingProxy::start(self.control_plane, |request| {
            let objects = ["/serviceaccounts", "/roles", "/rolebindings"];
            let of_chart = objects.iter().any(|plural| request.path.contains(plural));
            if request.write && of_chart { Verdict::CutBefore } else { Verdict::Forward }
        });
        let mut odd = self.clone();
        odd.params["md_metadata"]["default_tags"]["attempt"] = json!("killed");
        for cluster in ["/authentication/cluster", "/data/authentication/cluster"] {
            if let Some(cluster) = odd.connection.pointer_mut(cluster) {
                cluster["server"] = json!(proxy.server());
            }
        }
        let upgrade = odd.command("provision").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        if !proxy.kill_at_cut(&mut upgrade.or_fail("running helm")) {
            fail("helm ended before it changed anything");
        }
    }

    /// A dry run, as the step does for plan. Returns helm's output.
    #[track_caller]
    pub fn plan(&self) -> String {
        expect(true, &self.run("plan"))
    }

    /// Uninstalls, and returns the result.
    #[track_caller]
    pub fn decommission(&self) -> Output {
        self.run("decommission")
    }

    /// The revisions of the release in the namespace, oldest first.
    #[track_caller]
    pub fn releases(&self) -> Vec<HelmRelease> {
        HelmRelease::all(self.control_plane, self.namespace(), self.name())
    }

    /// The name of the release.
    pub fn name(&self) -> &str {
        self.params["md_metadata"]["name_prefix"].as_str().unwrap_or_default()
    }

    /// The namespace of the objects.
    pub fn namespace(&self) -> &str {
        self.params["namespace"].as_str().unwrap_or("default")
    }

    #[track_caller]
    fn run(&self, action: &str) -> Output {
        self.command(action).output().or_fail("running helm")
    }

    /// All documents are values, including the connection with its token: the chart of version 1.0.0 has no
    /// connections.jq, and so the token gets into the release.
    #[track_caller]
    fn command(&self, action: &str) -> Command {
        let mut step = self.step.clone();
        step.helm = self.helm;
        step.params.clone_from(&self.params);
        step.connections = json!({"kubernetes_cluster": self.connection});
        step.command(action).or_fail("preparing helm")
    }
}

/// Helm's output; panics if the result is not the expected one.
#[track_caller]
fn expect(success: bool, output: &Output) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() != success {
        fail(format_args!("helm ended with {}:\n{said}", output.status));
    }
    said
}
