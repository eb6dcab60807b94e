//! The whole life of a credential on a real Kubernetes control plane, told step by step; then what one costs.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! It builds the program (with the release profile, as it is shipped) and, on first use, the control plane. Everything
//! lives on loopback and in one temporary directory, and is gone afterwards, however this ends. Each line that begins
//! with `[ok]` has been checked: where one is not true, this ends with an error.

#![allow(clippy::print_stdout, reason = "telling a person what happens is what this program is for")]

#[path = "quickstart/cost.rs"]
mod cost;
#[path = "quickstart/stage.rs"]
mod stage;

use anyhow::Result;
use serde_json::{Value, json};
use stage::{Stage, heading, tell};

fn main() -> Result<()> {
    if cost::stopwatch()? {
        return Ok(()); // this was the small process that measures another one
    }
    let stage = Stage::set()?;
    plan_on_nothing(&stage)?;
    provision(&stage)?;
    use_it(&stage)?;
    change_the_rules(&stage)?;
    deploy_again(&stage)?;
    decommission(&stage)?;
    cost::measure(&stage)
}

/// What the credential may do at first: read pods and ConfigMaps.
fn rules() -> Value {
    json!([{"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list", "watch"]}])
}

/// And later: Deployments instead of pods.
fn other_rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
    ])
}

fn plan_on_nothing(stage: &Stage) -> Result<()> {
    heading("1. Plan, before anything exists");
    tell("Massdriver gives a step its input as files, and the action as an environment variable. This is params.json:");
    stage.ask_for(&rules())?;
    stage.print_params(&rules());
    let mark = stage.control_plane.audit().mark();
    let log = stage.provisioner("plan")?;

    stage.ok("the plan creates all five objects", log.matches("\ncreate ").count() == 5)?;
    stage.ok("the API server received no write request (audit log)", stage.writes_since(mark) == 0)?;
    stage.ok("the namespace does not exist yet", stage.get("").is_none())
}

fn provision(stage: &Stage) -> Result<()> {
    heading("2. Provision");
    tell("The same input, another action. The token is tested with the URL and the CA that are published with it.");
    let log = stage.provisioner("provision")?;

    let artifact = stage.published()?;
    let token = stage.token()?;
    stage.ok("the log says that the token was tested", log.contains("\nprove "))?;
    stage.ok("Massdriver has a kubernetes-cluster resource in the field `token`", artifact.is_object())?;
    stage.ok("its server and CA are those of the cluster connection", {
        artifact.pointer("/authentication/cluster") == stage.parent.connection().pointer("/authentication/cluster")
    })?;
    let parent = stage.parent.token.as_str();
    stage.ok("the parent's token is not in it", !artifact.to_string().contains(parent))?;
    stage.ok("neither token is in the log", !log.contains(parent) && !log.contains(&token))
}

fn use_it(stage: &Stage) -> Result<()> {
    heading("3. Use it");
    tell("The published document as a kubeconfig, used by kubectl.");
    stage.write_kubeconfig()?;
    let whoami = stage.kubectl(&["auth", "whoami"]);
    let user = format!("system:serviceaccount:{}:{}", stage.namespace, stage.object());
    stage.ok(
        "kubectl is logged in as the ServiceAccount of this instance",
        whoami.success && whoami.text.contains(&user),
    )?;
    let pods = stage.kubectl(&["get", "configmaps", "--output=name"]);
    let found = pods.success && pods.text.contains("configmap/kube-root-ca.crt");
    stage.ok("a request that a rule allows succeeds, without a --namespace option", found)?;
    let secrets = stage.kubectl(&["get", "secrets"]);
    stage.ok("a request that no rule allows is denied", !secrets.success && secrets.text.contains("(Forbidden)"))
}

fn change_the_rules(stage: &Stage) -> Result<()> {
    heading("4. Change the rules");
    tell("Deployments instead of pods. First the plan:");
    stage.ask_for(&other_rules())?;
    let (role, fingerprint) = (stage.role_uid(), stage.fingerprint()?);
    let plan = stage.provisioner("plan")?;
    stage.ok("the plan lists the added permissions", plan.contains("\nwidened ") && plan.contains("deployments"))?;
    stage.ok("and the removed ones", plan.contains("\nnarrowed ") && plan.contains("pods"))?;

    tell("Then the deployment. The kubeconfig stays the same:");
    stage.provisioner("provision")?;
    stage.ok("the Role was updated in place", role.is_some() && role == stage.role_uid())?;
    stage.ok(&format!("the token did not change ({fingerprint})"), fingerprint == stage.fingerprint()?)?;
    let deployments = stage.kubectl(&["get", "deployments"]);
    stage.ok("the added permission works", deployments.success)?;
    let pods = stage.kubectl(&["get", "pods"]);
    stage.ok("the removed permission is denied", !pods.success && pods.text.contains("(Forbidden)"))
}

fn deploy_again(stage: &Stage) -> Result<()> {
    heading("5. Deploy again without changes");
    let (mark, before) = (stage.control_plane.audit().mark(), stage.objects());
    let log = stage.provisioner("provision")?;
    stage.ok("the API server received no write request", stage.writes_since(mark) == 0)?;
    stage.ok("no object has another uid or resourceVersion", before == stage.objects())?;
    stage.ok("the token was tested again", log.contains("\nprove "))
}

fn decommission(stage: &Stage) -> Result<()> {
    heading("6. Decommission");
    tell(
        "An API server caches a successful login for 10 s. This token was just used, so the confirmation takes a while.",
    );
    let token = stage.token()?;
    stage.ok("the token works before that", stage.status_of(&token) == 200)?;
    stage.provisioner("decommission")?;
    let refused = stage.kubectl(&["get", "configmaps"]);
    stage.ok("kubectl can no longer log in", !refused.success && refused.text.contains("(Unauthorized)"))?;
    stage.ok("the API server rejects the token with 401", stage.status_of(&token) == 401)?;
    let objects = stage.objects();
    stage.ok("ServiceAccount, Role, RoleBinding and Secret are deleted", objects.iter().all(Option::is_none))?;
    stage.ok("the record in Massdriver is deleted", stage.platform.resource("token").is_none())?;
    stage.ok("the namespace still exists", stage.get("").is_some())
}
