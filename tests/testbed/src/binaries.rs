//! The binaries of etcd, kube-apiserver, kube-controller-manager and kubectl, and of helm if requested: built once from
//! the Go modules in `versions/` into a cache outside the repository. The control plane may also come from
//! `KUBEBUILDER_ASSETS`. Uses the cache, runs `go`, reports progress on stderr.
//!
//! A finished set is found without Go: its folder is keyed by everything that determines the binaries (go.mod with its
//! `go` and `toolchain` lines, go.sum, flags, operating system, processor). The Go release that built it is not part of
//! the key, but recorded in `built-with.txt` beside the binaries; to build with another one, delete the folder.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Doing, Error};
use crate::random;

/// The default folder of `versions/` (without `k8s-`).
const DEFAULT_VERSION: &str = "1.37";
/// The folder of the Go modules. Tests run where they were built, so the source tree exists.
const VERSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/versions");
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The four programs, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) etcd: PathBuf,
    pub(crate) api_server: PathBuf,
    pub(crate) controller_manager: PathBuf,
    pub(crate) kubectl: PathBuf,
}

/// One program to build: import path, and the build time on two idle cores with a cold cache.
struct Target {
    name: &'static str,
    package: &'static str,
    takes: &'static str,
}

const ETCD: &[Target] = &[Target { name: "etcd", package: "go.etcd.io/etcd/server/v3", takes: "40 s" }];

const KUBERNETES: &[Target] = &[
    Target { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver", takes: "3 to 4 min" },
    Target {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        takes: "1 min",
    },
    Target { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl", takes: "30 s" },
];

/// Its base name becomes the field manager in managedFields.
const HELM: &str = "helm";

/// By major version: an unused one is not built.
const fn helm_targets(major: u8) -> &'static [Target] {
    match major {
        3 => &[Target { name: HELM, package: "helm.sh/helm/v3/cmd/helm", takes: "2 min" }],
        _ => &[Target { name: HELM, package: "helm.sh/helm/v4/cmd/helm", takes: "2 min" }],
    }
}

/// Finds or builds helm of this major version.
pub(crate) fn helm(major: u8) -> Result<PathBuf, Error> {
    let cache = cache()?;
    let module = Module::read(&format!("helm-{major}"), &format!("helm.sh/helm/v{major}"), helm_targets(major))?;
    let program = module.finished(&cache).join(HELM);
    if !program.is_file() {
        let _lock = lock(&cache)?;
        module.build(&cache)?;
    }
    Ok(program)
}

/// One Go module of `versions/` and what is built from it.
struct Module {
    folder: String,
    directory: PathBuf,
    /// The release, as `v1.37.2`.
    release: String,
    flags: Vec<String>,
    targets: &'static [Target],
    inputs: Vec<u8>,
}

impl Binaries {
    /// Finds or builds the four programs. `version` names a folder `versions/k8s-<version>`; without it,
    /// `K8S_TOKEN_TESTBED_VERSION` and then the default decide, and `KUBEBUILDER_ASSETS` is used if set.
    pub(crate) fn find_or_build(version: Option<&str>) -> Result<Self, Error> {
        let asked = version
            .map(str::to_owned)
            .or_else(|| variable("K8S_TOKEN_TESTBED_VERSION").and_then(|v| v.into_string().ok()));
        if asked.is_none()
            && let Some(assets) = variable("KUBEBUILDER_ASSETS").map(PathBuf::from)
        {
            let set = Self::of(&assets, &assets);
            let missing: Vec<_> = set.missing().collect();
            if missing.is_empty() {
                return Ok(set);
            }
            say(&format!("KUBEBUILDER_ASSETS is ignored: {} has no {}", assets.display(), missing.join(", ")));
        }
        let version = asked.as_deref().unwrap_or(DEFAULT_VERSION);
        let cache = cache()?;
        let etcd = Module::read("etcd", "go.etcd.io/etcd/server/v3", ETCD)?;
        let kubernetes = Module::read(&format!("k8s-{version}"), "k8s.io/kubernetes", KUBERNETES)?;
        let set = Self::of(&etcd.finished(&cache), &kubernetes.finished(&cache));
        if set.missing().next().is_none() {
            return Ok(set);
        }
        let _lock = lock(&cache)?;
        etcd.build(&cache)?;
        kubernetes.build(&cache)?;
        Ok(set)
    }

    fn of(etcd: &Path, kubernetes: &Path) -> Self {
        Self {
            etcd: etcd.join("etcd"),
            api_server: kubernetes.join("kube-apiserver"),
            controller_manager: kubernetes.join("kube-controller-manager"),
            kubectl: kubernetes.join("kubectl"),
        }
    }

    fn missing(&self) -> impl Iterator<Item = &str> {
        [&self.etcd, &self.api_server, &self.controller_manager, &self.kubectl]
            .into_iter()
            .filter(|path| !path.is_file())
            .filter_map(|path| path.file_name()?.to_str())
    }
}

impl Module {
    fn read(folder: &str, of: &str, targets: &'static [Target]) -> Result<Self, Error> {
        let directory = Path::new(VERSIONS).join(folder);
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).doing(format_args!(
                "reading {} (there must be a folder with go.mod and go.sum for every version)",
                path.display()
            ))
        };
        let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
        let release = go_mod
            .lines()
            .filter_map(|line| line.trim().strip_prefix(of)?.strip_prefix(" v"))
            .find_map(|rest| rest.split_whitespace().next())
            .map(|number| format!("v{number}"))
            .ok_or_else(|| Error::new(format!("{folder}/go.mod requires no {of}")))?;
        let flags = flags(of, &release);
        let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
        let inputs = format!("{go_mod}\0{go_sum}\0{flags:?}\0{system}\0{processor}").into_bytes();
        Ok(Self { folder: folder.to_owned(), directory, release, flags, targets, inputs })
    }

    /// The folder in the cache that holds this module's finished binaries.
    fn finished(&self, cache: &Path) -> PathBuf {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.inputs);
        let key = random::hex(&digest.as_ref()[..8]);
        cache.join(format!("{}-{key}", self.folder))
    }

    /// Builds what is missing. Called only under the lock.
    fn build(&self, cache: &Path) -> Result<(), Error> {
        let finished = self.finished(cache);
        fs::create_dir_all(&finished).doing(format_args!("making {}", finished.display()))?;
        for target in self.targets {
            let path = finished.join(target.name);
            if path.is_file() {
                continue;
            }
            // A unique name: a build whose owner was killed may still be writing. Its files are removed.
            let stem = format!(".{}.unfinished-", target.name);
            for leftover in fs::read_dir(&finished).into_iter().flatten().flatten() {
                if leftover.file_name().to_string_lossy().starts_with(&stem) {
                    let _ = fs::remove_file(leftover.path());
                }
            }
            let unfinished = finished.join(format!("{stem}{}", std::process::id()));
            self.build_one(target, &unfinished, &finished)?;
            fs::rename(&unfinished, &path).doing(format_args!("naming {}", path.display()))?;
        }
        Ok(())
    }

    fn build_one(&self, target: &Target, out: &Path, folder: &Path) -> Result<(), Error> {
        let name = target.name;
        let go = self.go(name)?;
        let _ = fs::write(folder.join("built-with.txt"), format!("{go}\n"));
        let log = folder.join("build.log");
        let log_file = File::create(&log).doing(format_args!("making {}", log.display()))?;
        say(&format!("building {name} {} with {go} (about {} on two cores, once) ...", self.release, target.takes));
        let start = Instant::now();
        let mut build = go_command()
            .args(["build", "-mod=readonly", "-trimpath"])
            .args(&self.flags)
            .arg("-o")
            .arg(out)
            .arg(target.package)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .doing("starting go build")?;
        let mut beat = Instant::now();
        let status = loop {
            if let Some(status) = build.try_wait().doing("waiting for go build")? {
                break status;
            }
            if beat.elapsed() >= HEARTBEAT {
                beat = Instant::now();
                say(&format!("building {name} ... {} s", start.elapsed().as_secs()));
            }
            sleep(Duration::from_millis(100));
        };
        if !status.success() {
            return Err(Error::new(format!("go build of {name} {} failed ({status}):\n{}", self.release, tail(&log))));
        }
        say(&format!("built {name} in {} s", start.elapsed().as_secs().max(1)));
        Ok(())
    }

    /// The release of Go that would build this module, or an error that says how to install it.
    fn go(&self, name: &str) -> Result<String, Error> {
        let needed = fs::read_to_string(self.directory.join("go.mod"))
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("go ").map(str::to_owned))
            .unwrap_or_default();
        let ready_made = match name {
            HELM => "",
            _ => {
                ", or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kube-controller-manager and kubectl"
            }
        };
        let without = |problem: &str| {
            Error::new(format!(
                "{name} {} has to be built once and {problem}.\n\
                 Either install Go {needed} or newer (https://go.dev/dl){ready_made}, or set \
                 K8S_TOKEN_TESTBED_CACHE to a cache that another machine of this kind has filled.",
                self.release
            ))
        };
        let asked = go_command()
            .args(["env", "GOVERSION"])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|cause| without(&format!("there is no `go` on PATH ({cause})")))?;
        if !asked.status.success() {
            let said = String::from_utf8_lossy(&asked.stderr).trim().to_owned();
            return Err(without(&format!("`go` cannot do it: {said}")));
        }
        Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
    }
}

/// `go`, without environment variables that would change the result.
fn go_command() -> Command {
    let mut go = Command::new("go");
    go.env("CGO_ENABLED", "0").env("GOWORK", "off");
    for name in ["GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT"] {
        go.env_remove(name);
    }
    go
}

/// Without version flags `/version` would report v0.0.0-master, and helm only its minor version.
fn flags(of: &str, release: &str) -> Vec<String> {
    let mut linker = "-s -w".to_owned();
    let mut flags = Vec::new();
    let mut set = |variable: &str, value: &str| {
        let _ = write!(linker, " -X {variable}={value}");
    };
    if of == "k8s.io/kubernetes" {
        let mut numbers = release.trim_start_matches('v').split('.');
        let major = numbers.next().unwrap_or_default();
        let minor = numbers.next().unwrap_or_default();
        set("k8s.io/component-base/version.gitVersion", release);
        set("k8s.io/component-base/version.gitMajor", major);
        set("k8s.io/component-base/version.gitMinor", minor);
        set("k8s.io/component-base/version.gitTreeState", "clean");
        set("k8s.io/component-base/version.gitCommit", "0000000");
        set("k8s.io/client-go/pkg/version.gitVersion", release);
        flags.extend(["-pgo=off", "-tags", "grpcnotrace"].map(str::to_owned));
    }
    if of.starts_with("helm.sh/helm/") {
        set(&format!("{of}/internal/version.version"), release);
    }
    flags.extend(["-ldflags".to_owned(), linker]);
    flags
}

/// The cache folder, which outlives a checkout.
fn cache() -> Result<PathBuf, Error> {
    let cache = variable("K8S_TOKEN_TESTBED_CACHE")
        .map(PathBuf::from)
        .or_else(|| {
            let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let base = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
            Some(base.join("k8s-token-testbed"))
        })
        .ok_or_else(|| Error::new("no place for binaries: set K8S_TOKEN_TESTBED_CACHE, XDG_CACHE_HOME or HOME"))?;
    fs::create_dir_all(&cache).doing(format_args!("making {}", cache.display()))?;
    Ok(cache)
}

/// A lock for one builder at a time, across processes. Released when the file is closed, also if this process is
/// killed.
fn lock(cache: &Path) -> Result<File, Error> {
    let path = cache.join("lock");
    let lock = File::create(&path).doing(format_args!("making {}", path.display()))?;
    let start = Instant::now();
    let mut said = None::<Instant>;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(cause)) => {
                return Err(Error::new(format!("locking {}: {cause}", path.display())));
            }
        }
        if said.is_none_or(|said| said.elapsed() >= HEARTBEAT) {
            said = Some(Instant::now());
            say(&format!(
                "waiting for another process that is building what tests need (it holds {}) ... {} s",
                path.display(),
                start.elapsed().as_secs()
            ));
        }
        sleep(Duration::from_millis(200));
    }
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The end of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// A progress line for the user, written directly to stderr: the test harness captures the output of the print macros
/// until the test has failed.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "testbed: {line}");
}
