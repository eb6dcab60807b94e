//! `cargo run -p testbed`: runs a control plane and a fake platform until Ctrl-C, for experiments. Both are removed
//! afterwards, however this program ends.

#![allow(clippy::print_stdout, reason = "telling a person where things are is all this program does")]

use std::error::Error;
use std::fs;

use serde_json::json;
use testbed::{ControlPlane, Era, Options, Platform};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let control_plane = ControlPlane::start(&Options::default())?;
    let platform = Platform::start(Era::Dependencies);
    let directory = control_plane.directory();
    let kubeconfig = control_plane.admin().kubeconfig(directory);
    let params = directory.join("params.json");
    let rules = [testbed::rule(&[""], &["pods", "configmaps"], &["get", "list", "watch"])];
    fs::write(&params, format!("{:#}\n", json!({"namespace": "demo", "rules": rules})))?;

    // Before it is announced, and not before the start, which Ctrl-C ends by itself.
    let mut stop = signal(SignalKind::interrupt())?;
    println!("Kubernetes {} at {}", control_plane.version(), control_plane.server());
    println!("ready after {:.1} s", control_plane.ready_after().as_secs_f64());
    println!("directory   {}", directory.display());
    println!("audit log   {}", control_plane.audit().path().display());
    for (name, id) in control_plane.process_ids() {
        println!("process     {id} {name}");
    }
    println!("\nTo look around as cluster-admin:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  {} get namespaces", control_plane.kubectl_path().display());
    println!("\nTo see what a token would take:\n");
    println!("  k8s-token plan --params {} --name demo --kubeconfig {}", params.display(), kubeconfig.display());
    println!("\nA platform double, for --publish:\n");
    for (name, value) in platform.env() {
        println!("  export {name}={value}");
    }
    println!("\nCtrl-C ends it and removes everything.");

    stop.recv().await;
    Ok(())
}
