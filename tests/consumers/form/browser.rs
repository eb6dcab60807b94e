//! The browser that shows the form. `.ci/install` installs what it needs; a test never does.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::root;

/// The result of a case after Save was pressed.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// The content of the form.
    pub data: Value,
    /// The params that the platform would receive; null if the form refused them.
    pub submitted: Value,
    /// The messages that are shown.
    pub complaints: Vec<Complaint>,
    /// The fields that the browser itself refuses, with its message.
    pub stopped: Vec<Complaint>,
}

#[derive(Debug, Deserialize)]
pub struct Complaint {
    pub pointer: String,
    pub text: String,
    /// Whether the message is visible, and beside its field.
    #[serde(default)]
    pub beside: bool,
}

#[derive(Deserialize)]
struct Answer {
    outcomes: BTreeMap<String, Outcome>,
    problems: Vec<String>,
}

/// Runs the cases: name, initial params, steps, and optionally a file for a picture.
pub fn fill_in(cases: &[Value]) -> BTreeMap<String, Outcome> {
    let schema = |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(root(name)).unwrap()).unwrap() };
    let task = json!({
        "modules": modules(),
        "chromium": chromium(),
        "schema": schema("schema-params.json"),
        "uiSchema": schema("schema-ui.json"),
        "cases": cases,
    });
    let mut node = Command::new(program(&["node"]))
        .arg(here("drive.js"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    node.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "drive.js failed; its messages are above");
    let answer: Answer = serde_json::from_slice(&output.stdout).expect("a result of drive.js");
    assert_eq!(answer.problems, Vec::<String>::new());
    answer.outcomes
}

/// The packages of the lock file, in its versions.
fn modules() -> PathBuf {
    let packages = |file: &str| -> Value {
        let text = fs::read_to_string(here(file)).unwrap_or_else(|_| panic!("{file} is missing: run .ci/install"));
        serde_json::from_str::<Value>(&text).expect("JSON")["packages"].take()
    };
    let (wanted, installed) = (packages("package-lock.json"), packages("node_modules/.package-lock.json"));
    for (name, package) in wanted.as_object().expect("packages") {
        // Except for the lock file itself, and packages of other platforms.
        if !name.is_empty() && package["optional"] != true {
            assert_eq!(installed[name]["version"], package["version"], "{name} is out of date: run .ci/install");
        }
    }
    here("node_modules")
}

fn here(file: &str) -> PathBuf {
    root("tests/consumers/form").join(file)
}

/// Chromium, under Debian's name or another one.
fn chromium() -> PathBuf {
    program(&[
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ])
}

fn program(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found =
        names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()));
    found.unwrap_or_else(|| panic!("no {} on the PATH: run .ci/install", names[0]))
}
