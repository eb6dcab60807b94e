//! A directory with params and kubeconfigs for this program and for kubectl.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::ControlPlane;

use crate::support::{NAME, Ran, binary};

pub struct Desk {
    pub directory: TempDir,
    pub namespace: String,
}

impl Desk {
    pub fn new(cp: &ControlPlane, stem: &str) -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap(), namespace: cp.namespace(stem) };
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        desk.put("params.json", &json!({"namespace": desk.namespace, "rules": rules}).to_string());
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// An executable script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.put(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A kubeconfig with one context, `here`.
    pub fn kubeconfig(&self, name: &str, cluster: &Value, user: &Value) -> PathBuf {
        let document = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "here", "user": user}],
        });
        self.put(name, &document.to_string())
    }

    /// This program, with no environment but a PATH.
    pub fn command(&self, action: &str, more: &[&str]) -> Command {
        let mut command = binary();
        command
            .env("PATH", "/usr/bin:/bin")
            .args([action, "--json", "--name", NAME, "--params"])
            .arg(self.path("params.json"))
            .args(more);
        command
    }

    /// This program with a kubeconfig.
    pub fn ask(&self, action: &str, kubeconfig: &str, more: &[&str]) -> Ran {
        Ran::of(self.command(action, more).arg("--kubeconfig").arg(self.path(kubeconfig)))
    }

    /// kubectl with the same kubeconfig; prints the user as the server sees it.
    pub fn kubectl(&self, cp: &ControlPlane, kubeconfig: &str, more: &[&str]) -> Output {
        let mut command = Command::new(cp.kubectl_path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path("nowhere")).stdin(Stdio::null());
        command.arg("--kubeconfig").arg(self.path(kubeconfig)).args(more);
        command.args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).output().unwrap()
    }
}

/// A cluster entry of a kubeconfig.
pub fn cluster(cp: &ControlPlane) -> Value {
    json!({"server": cp.server(), "certificate-authority-data": cp.ca_base64()})
}

/// The user entry of a kubeconfig with the admin's token.
pub fn admin(cp: &ControlPlane) -> Value {
    json!({"token": cp.admin().token})
}

pub fn code(ran: &Ran) -> String {
    ran.document()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Codes and pointers of the findings that refused the input.
pub fn refusals(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    findings.iter().map(|finding| (text(&finding["pointer"]), text(&finding["message"]))).collect()
}
