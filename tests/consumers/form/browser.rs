//! The browser with the form in it: what it needs is installed when it is not there, once for a version of it.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};

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
    let schema = |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(name).unwrap()).unwrap() };
    let task = json!({
        "modules": modules(),
        "chromium": chromium(),
        "schema": schema("schema-params.json"),
        "uiSchema": schema("schema-ui.json"),
        "cases": cases,
    });
    let mut node = Command::new(program(&["node"], "Node.js 20 or later, with npm"))
        .arg("tests/form/drive.js")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    node.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "tests/form/drive.js failed; what it said stands above");
    let answer: Answer = serde_json::from_slice(&output.stdout).expect("an answer of tests/form/drive.js");
    assert_eq!(answer.problems, Vec::<String>::new());
    answer.outcomes
}

/// The packages of the lock file, in a folder of their own for each state of it.
fn modules() -> PathBuf {
    let parts = ["package.json", "package-lock.json", ".npmrc"];
    let mut hasher = DefaultHasher::new();
    for part in parts {
        fs::read(Path::new("tests/form").join(part)).unwrap().hash(&mut hasher);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("form-{:016x}", hasher.finish()));
    if !folder.exists() {
        let half = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for part in parts {
            fs::copy(Path::new("tests/form").join(part), half.path().join(part)).unwrap();
        }
        // The packages are code that runs here: no more of it than is needed.
        let mut npm = Command::new(program(&["npm"], "Node.js 20 or later, with npm"));
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(half.path()).stdout(Stdio::null());
        assert!(npm.status().expect("npm starts").success(), "npm ci failed in a copy of tests/form");
        // Where somebody else was first, theirs is the same.
        let half = half.keep();
        if fs::rename(&half, &folder).is_err() {
            fs::remove_dir_all(half).unwrap();
        }
    }
    folder.join("node_modules")
}

/// Debian's Chromium, or what stands for it elsewhere.
fn chromium() -> PathBuf {
    const NAMES: [&str; 6] = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ];
    if find(&NAMES).is_none() && nix::unistd::Uid::effective().is_root() && find(&["apt-get"]).is_some() {
        for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends", "chromium"]] {
            let status = Command::new("apt-get").args(arguments).stdout(Stdio::null()).status();
            assert!(status.expect("apt-get starts").success(), "apt-get {} failed", arguments.join(" "));
        }
    }
    program(&NAMES, "Chromium or Chrome; on Debian: apt-get install chromium")
}

fn program(names: &[&str], what: &str) -> PathBuf {
    find(names).unwrap_or_else(|| panic!("this test needs {what}"))
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}
