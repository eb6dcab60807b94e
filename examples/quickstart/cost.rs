//! What one fresh provision costs, beside the least that it could cost: both against the same control plane, turn by
//! turn, so that whatever else the machine does hits both.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};
use serde_json::{Value, json};
use testbed::Floor;

use crate::stage::{self, Stage, heading, tell};

/// Before the ones that count: the first runs fill caches of the API server and of the disk.
const WARM_UP: usize = 2;
/// The bound on wall time, as a multiple of the floor.
const TARGET: f64 = 2.0;

/// One run of the program, from the start of its process to its end.
struct Run {
    wall: Duration,
    cpu: Duration,
    peak_bytes: u64,
    requests: u32,
}

/// What is measured.
struct Work {
    what: &'static str,
    /// Odd, so that the median is one of them.
    turns: usize,
    rules: Value,
    /// Where the rules apply; none for the instance's own namespace.
    namespaces: Vec<String>,
}

pub fn measure(stage: &Stage) -> Result<()> {
    heading("7. What it costs");
    tell("A fresh provision, from the start of the process to its end, with all checks, the proof and the publishing;");
    tell("beside it the floor: only the requests without which there is no credential, one after the other on one");
    tell("connection that is open already, with the wait for the token, and with nothing that looks or thinks.");
    println!("\n  {:<30}{:>10}{:>10}{:>12}{:>10}", "", "wall", "CPU", "peak RSS", "requests");
    let simple = Work { what: "one namespace", turns: 15, rules: crate::rules(), namespaces: Vec::new() };
    let (fastest, slowest) = compare(stage, &simple)?;
    // The other end of the scale: everything that has not to wait for something else is done at the same time.
    let namespaces: Vec<String> = (0..50).map(|_| stage.control_plane.namespace("many")).collect();
    let rule = |number| {
        let resource = format!("things{number}");
        json!({"apiGroups": ["example.com"], "resources": [resource], "verbs": ["get", "list"], "namespaces": namespaces})
    };
    let rules: Vec<Value> = (0..200).map(rule).collect();
    compare(stage, &Work { what: "50 namespaces, 200 rules", turns: 5, rules: rules.into(), namespaces })?;
    let size = fs::metadata(&stage.binary)?.len();
    println!();
    tell(&format!(
        "In one namespace a provision took {} to {}. The program is one file of {}.",
        milliseconds(fastest),
        milliseconds(slowest),
        megabytes(size),
    ));
    Ok(())
}

/// Measures the floor and the program at one piece of work, and returns the program's fastest and slowest turn.
fn compare(stage: &Stage, work: &Work) -> Result<(Duration, Duration)> {
    let floor = Floor::new(&stage.control_plane, &stage.parent);
    let mut bare: Vec<Value> = work.rules.as_array().context("rules are a list")?.clone();
    for rule in bare.iter_mut().filter_map(Value::as_object_mut) {
        rule.remove("namespaces");
    }
    let (mut laps, mut runs) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + work.turns {
        let home = stage.control_plane.namespace("floor");
        let own = [home.clone()];
        let namespaces = if work.namespaces.is_empty() { &own } else { &work.namespaces[..] };
        let lap = floor.credential(&home, &format!("{home}-token"), namespaces, &bare);
        let run = provision(stage, &stage.control_plane.namespace("cost"), &work.rules)?;
        if turn >= WARM_UP {
            laps.push(lap);
            runs.push(run);
        }
    }

    let bare = median(laps.iter().map(|lap| lap.took));
    let wall = median(runs.iter().map(|run| run.wall));
    let ratio = wall.as_secs_f64() / bare.as_secs_f64();
    println!("  {}, medians of {} turns", work.what, work.turns);
    let requests = median(laps.iter().map(|lap| lap.requests));
    println!("  {:<30}{:>10}{:>10}{:>12}{requests:>10}", "  floor: the bare requests", milliseconds(bare), "", "");
    println!(
        "  {:<30}{:>10}{:>10}{:>12}{:>10}",
        "  k8s-token provision",
        milliseconds(wall),
        milliseconds(median(runs.iter().map(|run| run.cpu))),
        megabytes(median(runs.iter().map(|run| run.peak_bytes))),
        median(runs.iter().map(|run| run.requests)),
    );
    let verdict = if ratio <= TARGET { "within" } else { "ABOVE" };
    println!("  {:<30}{:>10}   {verdict} the target of {TARGET:.0}x", "  ratio", format!("{ratio:.2}x"));
    let fastest = runs.iter().map(|run| run.wall).min().unwrap_or_default();
    let slowest = runs.iter().map(|run| run.wall).max().unwrap_or_default();
    Ok((fastest, slowest))
}

/// One provision in a namespace where nothing of ours is, in a directory of its own.
fn provision(stage: &Stage, namespace: &str, rules: &Value) -> Result<Run> {
    let directory = stage::lay_out(&stage.control_plane, &stage.parent, namespace)?;
    stage::request(&directory, stage.platform.package_name(), namespace, rules)?;
    let mut stopwatch = Command::new(std::env::current_exe()?);
    stopwatch.arg(STOPWATCH).arg(&stage.binary);
    // An organization of its own for each: one instance that comes up in another namespace has moved, and that is
    // not what is measured here.
    let mut step = stage.step(stopwatch, "provision", &directory);
    let output = step.env("MASSDRIVER_ORGANIZATION_ID", format!("acme-{namespace}")).output()?;
    let log = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "a measured provision failed:\n{log}");
    let report: Vec<u64> =
        String::from_utf8(output.stdout)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [wall, cpu, peak_bytes] = report[..] else { anyhow::bail!("the stopwatch reports something else") };
    let requests = log.trim_end().strip_suffix(" requests)").and_then(|line| line.rsplit(' ').next());
    Ok(Run {
        wall: Duration::from_micros(wall),
        cpu: Duration::from_micros(cpu),
        peak_bytes,
        requests: requests.context("the log does not end with a number of requests")?.parse()?,
    })
}

const STOPWATCH: &str = "--stopwatch";

/// With `--stopwatch PROGRAM` this process does nothing but run PROGRAM and report wall time and CPU time in
/// microseconds and the peak of its memory in bytes. A process of its own, because the kernel counts the memory of
/// the starting process as the child's until the child is its own program, and because what it says of children is
/// a sum over all of them: here there is one small parent with one child.
pub fn stopwatch() -> Result<bool> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(STOPWATCH.as_ref()) {
        return Ok(false);
    }
    let program = PathBuf::from(arguments.next().context("--stopwatch takes a program")?);
    let (wall, status) = time(&program)?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = |time: TimeVal| time.num_microseconds();
    let cpu = microseconds(usage.user_time()) + microseconds(usage.system_time());
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    println!("{} {cpu} {}", wall.as_micros(), usage.max_rss() * unit);
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(true)
}

fn time(program: &Path) -> Result<(Duration, std::process::ExitStatus)> {
    let start = Instant::now();
    let status = Command::new(program).status()?;
    Ok((start.elapsed(), status))
}

fn median<T: Ord + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
