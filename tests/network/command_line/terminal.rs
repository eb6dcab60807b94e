//! Output that only a terminal gets: colours, and a last line that shows what the run waits for.

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    thread,
};

use serde_json::json;
use testbed::{ControlPlane, Options};

use crate::{
    desk::Desk,
    support::{Instance, Ran, binary},
};

/// Runs a command with its stderr on a terminal; returns the output and the exit code.
fn on_a_terminal(command: &mut Command) -> (String, i32) {
    let pair = nix::pty::openpty(None, None).unwrap();
    let theirs: OwnedFd = pair.slave;
    let child = command.stderr(Stdio::from(theirs)).stdout(Stdio::null()).spawn();
    // The program owns the last copy of the other end, which closes when the program ends.
    command.stderr(Stdio::null());
    let mut ours = File::from(pair.master);
    let reader = thread::spawn(move || {
        let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
        // Reading from a closed terminal is an error.
        while let Ok(read) = ours.read(&mut chunk) {
            if read == 0 {
                break;
            }
            text.extend_from_slice(&chunk[..read]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let code = child.unwrap().wait().unwrap().code().unwrap_or(-1);
    (reader.join().unwrap(), code)
}

/// A run without a token controller waits until its timeout.
fn provision_without_token_controller(instance: &Instance, kind: Option<&str>, more: &[(&str, &str)]) -> String {
    let mut command = instance.command("provision", &["--timeout", "3"]);
    command.envs(more.iter().copied());
    if let Some(kind) = kind {
        command.env("TERM", kind);
    }
    let (text, code) = on_a_terminal(&mut command);
    assert_eq!(code, 76, "{text}");
    assert!(text.contains("token-controller-absent"), "{text}");
    text
}

const WAIT: &str = "waiting for the token, ";

#[test]
fn wait_progress_is_shown_only_on_a_terminal() {
    let options = Options { no_token_controller: true, ..Options::default() };
    let cp = ControlPlane::start(&options).unwrap();
    let instance = Instance::new(cp.admin(), &cp.namespace("waiting"));
    let text = provision_without_token_controller(&instance, Some("xterm"), &[]);
    assert!(text.contains(&format!("\r\x1b[K...          {WAIT}1 s")), "{text:?}");
    assert!(text.contains("\x1b[31mfailed\x1b[0m"), "{text:?}");
    let drawn = text.matches(WAIT).count();
    assert!(text.matches("\r\x1b[K").count() > drawn, "each is erased again: {text:?}");
    // A final message has a line of its own.
    let lines: Vec<&str> = text.split("\r\n").filter(|line| line.contains("failed")).collect();
    assert!(
        lines.iter().all(|line| !line.contains(WAIT) || line.rsplit('\r').next().unwrap().contains("failed")),
        "{lines:?}"
    );

    let text = provision_without_token_controller(&instance, Some("xterm"), &[("NO_COLOR", "1")]);
    assert!(text.contains(WAIT) && !text.contains("\x1b[3"), "{text:?}");
    let text = provision_without_token_controller(&instance, Some("xterm"), &[("NO_COLOR", "")]);
    assert!(text.contains("\x1b[31m"), "an empty variable counts as unset: {text:?}");
    for kind in [Some("dumb"), None] {
        let text = provision_without_token_controller(&instance, kind, &[]);
        assert!(!text.contains(WAIT) && !text.contains('\x1b'), "{text:?}");
    }
    let mut command = instance.command("provision", &["--timeout", "3"]);
    let ran = Ran::of(command.env("TERM", "xterm")).expect_code(76);
    assert!(!ran.stderr.contains(WAIT) && !ran.stderr.contains(['\x1b', '\r']), "{:?}", ran.stderr);
}

#[test]
fn wait_for_token_rejection_is_shown() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("dying"));
    instance.ask("provision", &[]).expect_code(0);
    let (text, code) = on_a_terminal(instance.command("decommission", &[]).env("TERM", "xterm"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("waiting until the token is rejected, "), "{text:?}");
    assert!(text.contains("\x1b[32mdone\x1b[0m"), "{text:?}");
}

#[test]
fn help_has_no_colours() {
    let (text, _) = on_a_terminal(binary().env("TERM", "xterm"));
    assert!(text.contains("Usage:") && !text.contains('\x1b'), "{text:?}");
}

/// An interactive exec plugin gets the terminal; one that must not ask does not.
#[test]
fn interactive_exec_plugin_uses_the_terminal() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "person");
    let version = "client.authentication.k8s.io/v1";
    let credential = json!({"apiVersion": version, "kind": "ExecCredential", "status": {"token": cp.admin().token}});
    let script = format!("echo 'Touch your key' >&2; read answer; [ \"$answer\" = touched ] && echo '{credential}'");
    let login = desk.script("login", &script);
    for (mode, code) in [("Always", 0), ("IfAvailable", 0), ("Never", 69)] {
        let exec = json!({"apiVersion": version, "command": login, "interactiveMode": mode});
        desk.kubeconfig("config", &crate::desk::cluster(cp), &json!({ "exec": exec }));
        let pair = nix::pty::openpty(None, None).unwrap();
        let mut ours = File::from(pair.master);
        std::io::Write::write_all(&mut ours, b"touched\n").unwrap();
        let mut command = desk.command("plan", &[]);
        command.arg("--kubeconfig").arg(desk.path("config")).stdin(Stdio::from(pair.slave));
        let ran = Ran::of(&mut command).expect_code(code);
        assert_eq!(ran.stderr.contains("Touch your key"), code == 0, "{mode}: {}", ran.stderr);
    }
    // With stdin in use, the plugin has no terminal to ask at.
    let exec = json!({"apiVersion": version, "command": login, "interactiveMode": "Always"});
    desk.kubeconfig("config", &crate::desk::cluster(cp), &json!({ "exec": exec }));
    let mut command = binary();
    command.args(["plan", "--json", "--name", "demo", "--params", "-", "--kubeconfig"]).arg(desk.path("config"));
    let ran = Ran::of(command.stdin(File::open(desk.path("params.json")).unwrap())).expect_code(65);
    assert!(ran.stderr.contains("standard input is not a terminal"), "{}", ran.stderr);
}
