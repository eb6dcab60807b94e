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
use serde_json::Value;
use testbed::Floor;

use crate::stage::{self, Stage, heading, tell};

/// Odd, so that the median is one of them.
const TURNS: usize = 15;
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

pub fn measure(stage: &Stage) -> Result<()> {
    heading("7. What it costs");
    tell("A fresh provision, from the start of the process to its end, with all checks, the proof and the publishing;");
    tell("beside it the floor: only the requests without which there is no credential, one after the other on one");
    tell("connection that is open already, with the wait for the token, and with nothing that looks or thinks.");
    let floor = Floor::new(&stage.control_plane, &stage.parent);
    let rules = crate::rules();
    let list = rules.as_array().context("rules are a list")?;
    let (mut laps, mut runs) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + TURNS {
        let lap = floor.credential(&stage.control_plane.namespace("floor"), "floor-token", list);
        let run = provision(stage, &stage.control_plane.namespace("cost"), &rules)?;
        if turn >= WARM_UP {
            laps.push(lap);
            runs.push(run);
        }
    }

    let bare = median(laps.iter().map(|lap| lap.took));
    let wall = median(runs.iter().map(|run| run.wall));
    let ratio = wall.as_secs_f64() / bare.as_secs_f64();
    println!("\n  {:<28}{:>10}{:>10}{:>12}{:>10}", "", "wall", "CPU", "peak RSS", "requests");
    let requests = median(laps.iter().map(|lap| lap.requests));
    println!("  {:<28}{:>10}{:>10}{:>12}{requests:>10}", "floor: the bare requests", milliseconds(bare), "", "");
    println!(
        "  {:<28}{:>10}{:>10}{:>12}{:>10}",
        "k8s-token provision",
        milliseconds(wall),
        milliseconds(median(runs.iter().map(|run| run.cpu))),
        megabytes(median(runs.iter().map(|run| run.peak_bytes))),
        median(runs.iter().map(|run| run.requests)),
    );
    let verdict = if ratio <= TARGET { "within" } else { "ABOVE" };
    println!("  {:<28}{:>10}   {verdict} the target of {TARGET:.0}x", "ratio", format!("{ratio:.2}x"));
    let fastest = runs.iter().map(|run| run.wall).min().unwrap_or_default();
    let slowest = runs.iter().map(|run| run.wall).max().unwrap_or_default();
    let size = fs::metadata(&stage.binary)?.len();
    println!();
    tell(&format!(
        "Medians of {TURNS} turns; provision took {} to {}. The program is one file of {}.",
        milliseconds(fastest),
        milliseconds(slowest),
        megabytes(size),
    ));
    Ok(())
}

/// One provision in a namespace where nothing of ours is, in a directory of its own.
fn provision(stage: &Stage, namespace: &str, rules: &Value) -> Result<Run> {
    let directory = stage::lay_out(&stage.control_plane, &stage.parent, namespace)?;
    stage::request(&directory, stage.platform.package_name(), namespace, rules)?;
    let mut stopwatch = Command::new(std::env::current_exe()?);
    stopwatch.arg(STOPWATCH).arg(&stage.binary);
    let output = stage.step(stopwatch, "provision", &directory).output()?;
    let log = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "a measured provision failed:\n{log}");
    let report: Vec<u64> =
        String::from_utf8(output.stdout)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [wall, cpu, peak_bytes] = report[..] else { anyhow::bail!("the stopwatch reports something else") };
    let requests = log.trim_end().strip_suffix(" requests").and_then(|line| line.rsplit(' ').next());
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
