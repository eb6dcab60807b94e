//! The commit hook, by the real pre-commit: the example in docs/ci.md refuses a commit with invalid params and lets one
//! with valid params pass. Nothing is downloaded: the repository with the hooks is a local one with the same
//! `.pre-commit-hooks.yaml`.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    root,
    support::{PROGRAM, Ran},
};

const HOOKS: &str = ".pre-commit-hooks.yaml";

/// pre-commit, where `.ci/install` puts it.
fn pre_commit() -> PathBuf {
    let requirements = fs::read_to_string(root("tests/consumers/pre-commit/requirements.txt")).unwrap();
    let version = requirements.lines().find_map(|line| line.strip_prefix("pre-commit==")).expect("its version");
    let cache = || {
        let home = || PathBuf::from(env::var_os("HOME").expect("HOME")).join(".cache");
        env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("k8s-token-ci")
    };
    let tools = env::var_os("K8S_TOKEN_CI_TOOLS").map_or_else(cache, PathBuf::from);
    let program = tools.join(format!("pre-commit-{version}/bin/pre-commit"));
    assert!(program.exists(), "{} is missing: run .ci/install", program.display());
    program
}

/// The example of a configuration in docs/ci.md, for another repository with the hooks.
fn example(hooks: &Path, revision: &str) -> String {
    let page = fs::read_to_string(root("docs/ci.md")).unwrap();
    let mut blocks = page.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next());
    let example = blocks.find(|block| block.starts_with("repos:\n")).expect("the example");
    let replaced = |line: &str| match line.split_once(": ") {
        Some((key, _)) if key.ends_with("repo") => format!("{key}: {}\n", hooks.display()),
        Some((key, _)) if key.ends_with("rev") => format!("{key}: {revision}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(replaced).collect()
}

/// Two repositories in a folder: one with the hooks, one with params.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["hooks", "repository/params", "bin", "home"] {
            fs::create_dir_all(desk.path(folder)).unwrap();
        }
        symlink(PROGRAM, desk.path("bin/k8s-token")).unwrap();
        fs::copy(root(HOOKS), desk.path("hooks").join(HOOKS)).unwrap();
        for folder in ["hooks", "repository"] {
            desk.git(folder, &["init", "--quiet"]);
        }
        desk.git("hooks", &["add", "--all"]);
        desk.git("hooks", &["commit", "--quiet", "--message", "hooks"]);
        let revision = desk.git("hooks", &["rev-parse", "HEAD"]).stdout;
        let configuration = example(&desk.path("hooks"), revision.trim());
        fs::write(desk.path("repository/.pre-commit-config.yaml"), configuration).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command without the configuration and the network of the user.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, folder: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.path("bin").display(), env::var("PATH").unwrap());
        command.current_dir(self.path(folder)).env_clear().env("PATH", path).env("HOME", self.path("home"));
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "test").env(format!("GIT_{role}_EMAIL"), "test@example.com");
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("HTTPS_PROXY", "http://127.0.0.1:1");
        command
    }

    fn git(&self, folder: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command("git", folder).args(arguments)).expect_code(0)
    }

    fn stage(&self, name: &str, text: &str) {
        fs::write(self.path("repository").join(name), text).unwrap();
        self.git("repository", &["add", "--all"]);
    }

    fn commit(&self) -> Ran {
        Ran::of(self.command("git", "repository").args(["commit", "--message", "a change"]))
    }
}

const SOUND: &str =
    r#"{"namespace": "team-a", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}"#;

#[test]
fn commit_hook_refuses_invalid_params() {
    let desk = Desk::new();
    Ran::of(desk.command(pre_commit(), "repository").arg("install")).expect_code(0);
    desk.stage("params/sound.json", SOUND);
    desk.stage("package.json", r#"{"name": "not params"}"#);
    desk.commit().expect_code(0);
    desk.stage("params/wrong.json", "{\n  \"namespace\": \"Team_A\",\n  \"rules\": []\n}\n");
    desk.stage("params/sound.json", &SOUND.replace("pods", "secrets"));
    let refused = desk.commit().expect_code(1);
    let log = format!("{}{}", refused.stdout, refused.stderr);
    assert!(log.contains("exit code: 65\n"), "{log}");
    assert!(log.contains("\nparams/wrong.json:2:16 high /namespace: "), "{log}");
    assert!(log.contains("\nparams/sound.json:1:") && log.contains("[risk-r03]"), "every file is judged: {log}");
    desk.stage("params/wrong.json", SOUND);
    desk.commit().expect_code(0);
}

#[test]
fn hook_definitions_are_valid() {
    let desk = Desk::new();
    Ran::of(desk.command(pre_commit(), "hooks").args(["validate-manifest", HOOKS])).expect_code(0);
    let configuration = ".pre-commit-config.yaml";
    Ran::of(desk.command(pre_commit(), "repository").args(["validate-config", configuration])).expect_code(0);
    let hooks: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(root(HOOKS)).unwrap()).unwrap();
    let ids: Vec<&str> = hooks.as_array().unwrap().iter().map(|hook| hook["id"].as_str().unwrap()).collect();
    let page = fs::read_to_string(root("docs/ci.md")).unwrap();
    for id in ids {
        assert!(page.contains(&format!("`{id}`")), "docs/ci.md does not explain {id}");
    }
}
