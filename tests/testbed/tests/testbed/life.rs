//! Start and end of control planes: with or without Go, from ready-made binaries, or waiting for another process; and
//! nothing is left behind, however their owner ends.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use testbed::{ControlPlane, Options, eventually};

/// The testbed binary, and its output.
struct Running {
    child: Child,
    directory: PathBuf,
    processes: Vec<String>,
}

fn testbed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reads the output until the control plane is running; panics with its stderr otherwise.
fn await_running(mut child: Child) -> Running {
    let (mut directory, mut processes) = (None, Vec::new());
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["directory", path] => directory = Some(PathBuf::from(path)),
            ["process", id, _] => processes.push(id.to_owned()),
            ["Ctrl-C", ..] => break,
            _ => {}
        }
    }
    let Some(directory) = directory else {
        let mut said = String::new();
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        panic!("the testbed did not start: {said}");
    };
    assert_eq!(processes.len(), 3);
    Running { child, directory, processes }
}

fn is_alive(id: &str) -> bool {
    // A zombie counts as ended; another process reaps it.
    let state = Command::new("ps").args(["-o", "stat=", "-p", id]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

fn assert_gone(running: &Running) {
    eventually("the end of everything", || {
        let gone = !running.directory.exists() && !running.processes.iter().any(|id| is_alive(id));
        gone.then_some(())
    });
}

#[test]
fn processes_end_with_a_killed_owner() {
    let mut running = await_running(testbed().spawn().unwrap());
    assert!(running.processes.iter().all(|id| is_alive(id)) && running.directory.is_dir());
    running.child.kill().unwrap(); // SIGKILL
    running.child.wait().unwrap();
    assert_gone(&running);
}

#[test]
fn processes_end_with_owner_killed_during_start() {
    let _ = ControlPlane::shared(); // so that nothing is built below
    for after in [10, 30, 100, 300, 1000, 2000] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = testbed().env("TMPDIR", directory.path()).spawn().unwrap();
        sleep(Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the end of everything", || {
            let all = Command::new("ps").args(["-A", "-o", "args="]).output().unwrap();
            let all = String::from_utf8_lossy(&all.stdout).into_owned();
            let left = fs::read_dir(directory.path()).unwrap().count();
            (left == 0 && !all.contains(directory.path().to_str().unwrap())).then_some(())
        });
    }
}

#[test]
fn processes_end_on_ctrl_c() {
    let mut running = await_running(testbed().spawn().unwrap());
    let id = running.child.id().to_string();
    Command::new("sh").args(["-c", "kill -s INT $0", &id]).status().unwrap();
    assert!(running.child.wait().unwrap().success());
    // Ctrl-C returns after everything has been removed, not before.
    assert!(!running.directory.exists());
    assert_gone(&running);
}

#[test]
fn processes_end_on_drop() {
    let control_plane = ControlPlane::start(&Options::default()).unwrap();
    let directory = control_plane.directory().to_owned();
    let ids: Vec<_> = control_plane.process_ids().iter().map(|(_, id)| id.to_string()).collect();
    drop(control_plane);
    assert!(!directory.exists());
    assert!(!ids.iter().any(|id| is_alive(id)));
}

/// A PATH with the programs that the watchdog needs, and without Go.
fn path_without_go(directory: &Path) -> PathBuf {
    let bin = directory.join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["sh", "cat", "rm", "sleep"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(name))
            .find(|path| path.is_file());
        symlink(found.unwrap(), bin.join(name)).unwrap();
    }
    bin
}

#[test]
fn filled_cache_needs_no_go() {
    let _ = ControlPlane::shared(); // fills it
    let directory = tempfile::tempdir().unwrap();
    let path = path_without_go(directory.path());
    let mut running = await_running(testbed().env("PATH", path).spawn().unwrap());
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert_gone(&running);
}

#[test]
fn kubebuilder_assets_are_used() {
    let kubectl = ControlPlane::shared().kubectl_path();
    let (set, cache) = (kubectl.parent().unwrap(), kubectl.ancestors().nth(2).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let assets = directory.path().join("assets");
    fs::create_dir(&assets).unwrap();
    let folders = [set.to_owned()].into_iter().chain(fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()));
    for binary in folders.filter(|folder| folder.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let binary = binary.unwrap();
        let _ = symlink(binary.path(), assets.join(binary.file_name())); // the first of a name
    }
    let mut start = testbed();
    start.env("PATH", path_without_go(directory.path()));
    start.env("K8S_TOKEN_TESTBED_CACHE", directory.path().join("empty")).env_remove("K8S_TOKEN_TESTBED_VERSION");
    let mut running = await_running(start.env("KUBEBUILDER_ASSETS", &assets).spawn().unwrap());
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert_gone(&running);

    // Without the controllers the set is incomplete.
    fs::remove_file(assets.join("kube-controller-manager")).unwrap();
    let said = start.output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("KUBEBUILDER_ASSETS is ignored"), "{said}");
    assert!(said.contains("has no kube-controller-manager"), "{said}");
}

#[test]
fn waiting_and_missing_go_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let lock = File::create(cache.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut start = testbed();
    start.env("PATH", path_without_go(directory.path()));
    let mut child = start.env("K8S_TOKEN_TESTBED_CACHE", &cache).env_remove("KUBEBUILDER_ASSETS").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waiting = lines.next().unwrap().unwrap();
    assert!(waiting.contains("waiting for another process"), "{waiting}");
    lock.unlock().unwrap();
    let said: Vec<_> = lines.map(Result::unwrap).collect();
    let said = said.join("\n");
    assert!(!child.wait().unwrap().success());
    for needed in ["etcd v", "no `go` on PATH", "install Go 1.", "KUBEBUILDER_ASSETS", "K8S_TOKEN_TESTBED_CACHE"] {
        assert!(said.contains(needed), "no {needed:?} in: {said}");
    }
}
