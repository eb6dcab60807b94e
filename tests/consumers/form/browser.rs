//! The browser with the form in it. What it needs, `.ci/install` installs: a test never does.

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

/// What came of a case when Save was pressed.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// What stood in the form.
    pub data: Value,
    /// What the platform would have received; null when the form refused.
    pub submitted: Value,
    /// Sentences that are shown.
    pub complaints: Vec<Complaint>,
    /// Fields that the browser itself does not let through, with its own sentence.
    pub stopped: Vec<Complaint>,
}

#[derive(Debug, Deserialize)]
pub struct Complaint {
    pub pointer: String,
    pub text: String,
    /// Whether it can be seen, and in the very field it is about.
    #[serde(default)]
    pub beside: bool,
}

#[derive(Deserialize)]
struct Answer {
    outcomes: BTreeMap<String, Outcome>,
    problems: Vec<String>,
}

/// Goes through the cases: name, params to begin with, steps, and a file for a picture if there is to be one.
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
    let answer: Answer = serde_json::from_slice(&output.stdout).expect("an answer of drive.js");
    assert_eq!(answer.problems, Vec::<String>::new());
    answer.outcomes
}

/// The packages of the lock file, in the versions that it names.
fn modules() -> PathBuf {
    let packages = |file: &str| -> Value {
        let text = fs::read_to_string(here(file)).unwrap_or_else(|_| panic!("{file} is missing: run .ci/install"));
        serde_json::from_str::<Value>(&text).expect("JSON")["packages"].take()
    };
    let (wanted, installed) = (packages("package-lock.json"), packages("node_modules/.package-lock.json"));
    for (name, package) in wanted.as_object().expect("packages") {
        // The lock file itself, and what is only for other platforms.
        if !name.is_empty() && package["optional"] != true {
            assert_eq!(installed[name]["version"], package["version"], "{name} is out of date: run .ci/install");
        }
    }
    here("node_modules")
}

fn here(file: &str) -> PathBuf {
    root("tests/consumers/form").join(file)
}

/// Debian's Chromium, or the name of it elsewhere.
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
