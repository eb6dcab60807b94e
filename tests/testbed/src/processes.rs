//! The processes of a control plane and their directory, bound to the lifetime of this process: however it ends (drop,
//! exit, `kill -9`), they are killed and the directory is removed.
//!
//! Without unsafe code, and identical on Linux and macOS: every component joins a process group led by a `cat` on a
//! pipe that only this process holds, so that a component is in the group from its first instruction. A shell outside
//! the group waits on a second such pipe; when this process ends, the kernel closes both, and the shell kills the group
//! and removes the directory.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::binaries::tail;
use crate::error::{Doing, Error};
use crate::random;

/// `$1` is the group, `$2` the directory. `-s KILL`, because dash does not know `kill -9 --`. The removal is repeated,
/// because a dying process may still be writing.
const WATCHDOG: &str = r#"
cat >/dev/null
kill -s KILL -- "-$1"
tries=0
while [ -e "$2" ] && [ "$tries" -lt 100 ]; do
  rm -rf -- "$2"
  tries=$((tries + 1))
  [ -e "$2" ] && sleep 0.05
done
"#;

/// `GOGC` of the components: they collect garbage when the heap is four times what is in use, not twice. Their memory
/// serves for minutes, while two processors serve all of them.
const GARBAGE_COLLECTION: &str = "300";

pub(crate) struct Processes {
    directory: PathBuf,
    group: i32,
    leader: Child,
    watchdog: Child,
}

/// One running component.
pub(crate) struct Component {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Processes {
    /// An empty group, and an empty directory with access for this user only.
    pub(crate) fn new() -> Result<Self, Error> {
        // Short, because a Unix socket in it may have 103 characters on macOS.
        let name = format!("testbed-{}", random::hex(&random::bytes::<6>()));
        let directory = std::env::temp_dir().join(name);
        let leader = quiet("cat").process_group(0).spawn().doing("starting cat")?;
        let group = i32::try_from(leader.id()).doing("reading a process id")?;
        let watchdog = quiet("sh")
            .args(["-c", WATCHDOG, "testbed-watchdog"])
            .arg(group.to_string())
            .arg(&directory)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .doing("starting sh")?;
        // Created only now, when the watchdog exists that removes it.
        DirBuilder::new().mode(0o700).create(&directory).doing(format_args!("making {}", directory.display()))?;
        Ok(Self { directory, group, leader, watchdog })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a component; its output is written to `<name>.log`.
    pub(crate) fn start(&self, name: &'static str, program: &Path, arguments: &[String]) -> Result<Component, Error> {
        let log = self.directory.join(format!("{name}.log"));
        let out = File::create(&log).doing(format_args!("making {}", log.display()))?;
        let err = out.try_clone().doing("sharing a log")?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear() // no proxy, no GODEBUG: the same run everywhere
            .env("HOME", &self.directory)
            .env("GOGC", GARBAGE_COLLECTION)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(self.group)
            .spawn()
            .doing(format_args!("starting {}", program.display()))?;
        Ok(Component { name, log, child })
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        drop(self.leader.stdin.take());
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
        let _ = self.leader.wait();
    }
}

impl Component {
    /// An error with the end of the log if the component has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::new(format!("{} ended ({status}):\n{}", self.name, tail(&self.log)))),
            Err(cause) => Err(Error::new(format!("watching {}: {cause}", self.name))),
        }
    }

    /// A timeout error with the end of the log.
    pub(crate) fn late(&self, waited_for: &str) -> Error {
        Error::new(format!(
            "{waited_for} did not happen in time; the log of {} ends with:\n{}",
            self.name,
            tail(&self.log)
        ))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, as `STOP`.
    pub(crate) fn signal(&mut self, name: &str) -> Result<(), Error> {
        self.check()?; // the id of an ended process may belong to another one
        // The kill of the shell: small systems have no program of that name.
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "testbed-signal", name])
            .arg(self.id().to_string())
            .status()
            .doing("running sh")?;
        if sent.success() { Ok(()) } else { Err(Error::new(format!("kill -s {name} {}: {sent}", self.id()))) }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A helper process without output that lives as long as its stdin is open.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
