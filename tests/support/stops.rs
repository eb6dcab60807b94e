//! Runs that are interrupted at one of their requests, or joined by a second run there. A request is identified by
//! method and path, as in a recorded run: the reads of a run are concurrent, so that the same number is another request
//! each time.

use std::{
    collections::BTreeMap,
    fmt,
    process::{Child, Command},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{ControlPlane, Intercepted, InterceptingProxy, Verdict};

use super::{Instance, OBJECT, Ran, finish, spawn};

/// The interruption of a run at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGKILL before the request reaches the server.
    KilledBefore,
    /// SIGKILL after the server has executed the request, and before the response.
    KilledAfter,
    /// SIGTERM while the request hangs.
    Terminated,
}

/// One request of a run, in a notation that fits the same run of another instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    pub method: String,
    pub path: String,
    /// Its index among requests with the same method and path, from 1.
    pub nth: usize,
    pub write: bool,
}

impl Step {
    /// Whether every such run sends the request. Reads are repeated until the response is right, more or less often;
    /// and the number of pages of a list depends on other tests.
    pub fn is_deterministic(&self) -> bool {
        self.nth == 1 && !self.path.contains("continue=")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ({})", self.method, self.path, self.nth)
    }
}

/// The same instance, connected through this proxy.
fn instance_through(proxy: &InterceptingProxy, cp: &ControlPlane, near: &Instance) -> Instance {
    let parent = cp.admin().with_server(&proxy.server());
    Instance { params: near.params.clone(), ..Instance::new(&parent, &near.namespace) }
}

/// The action of [`instance_through`], in the environment of the instance itself: both have one platform.
fn command(far: &Instance, near: &Instance, action: &str, more: &[&str]) -> Command {
    let mut command = far.command(action, more);
    command.envs(near.environment());
    command
}

/// The path without the names that differ from instance to instance.
fn normalized(path: &str, names: &[&str]) -> String {
    let path = names.iter().enumerate().fold(path.to_owned(), |path, (index, name)| {
        path.split('/')
            .map(|part| if part == *name { format!("{{{index}}}") } else { part.to_owned() })
            .collect::<Vec<_>>()
            .join("/")
    });
    // Objects outside the home namespace have hashes in their names, of the home namespace and of the bound role.
    let hashed = format!("{OBJECT}-");
    let mut parts = path.split(&hashed);
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| {
        let end = part.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
        format!("{hashed}#{end}")
    });
    first + &rest.collect::<String>()
}

/// The requests of an undisturbed run of this action, in order of arrival. `names` are the namespaces of the instance,
/// in the same order for each.
pub fn recorded(cp: &ControlPlane, near: &Instance, names: &[&str], action: &str, more: &[&str]) -> Vec<Step> {
    let proxy = InterceptingProxy::start(cp, |_| Verdict::Forward);
    let far = instance_through(&proxy, cp, near);
    Ran::of(&mut command(&far, near, action, more)).expect_code(0);
    let mut seen = BTreeMap::new();
    let steps: Vec<Step> = proxy
        .requests()
        .into_iter()
        .map(|Intercepted { method, path, write, .. }| {
            let path = normalized(&path, names);
            let nth: &mut usize = seen.entry((method.clone(), path.clone())).or_default();
            *nth += 1;
            Step { method, path, nth: *nth, write }
        })
        .collect();
    assert!(steps.iter().any(|step| step.write), "a run that writes: {steps:#?}");
    steps
}

/// Recognizes the request of a recorded run.
fn watch(step: &Step, names: &[&str]) -> impl FnMut(&Intercepted) -> bool + Send + use<> {
    let (step, mut met) = (step.clone(), 0);
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    move |request| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let same = request.method == step.method && normalized(&request.path, &names) == step.path;
        met += usize::from(same);
        same && met == step.nth
    }
}

/// Starts the action and interrupts it at this request. False if the run ended without it.
pub fn stopped(
    cp: &ControlPlane,
    near: &Instance,
    names: &[&str],
    (action, more): (&str, &[&str]),
    step: &Step,
    how: Stop,
) -> bool {
    let mut is_it = watch(step, names);
    let proxy = InterceptingProxy::start(cp, move |request| match (is_it(request), how) {
        (false, _) => Verdict::Forward,
        (true, Stop::KilledAfter) => Verdict::CutAfter,
        (true, Stop::KilledBefore | Stop::Terminated) => Verdict::CutBefore,
    });
    let far = instance_through(&proxy, cp, near);
    let started = Instant::now();
    let mut child = spawn(&mut command(&far, near, action, more));
    if how != Stop::Terminated {
        let cut = proxy.kill_at_cut(&mut child);
        proxy.settled();
        return cut;
    }
    while !proxy.wait_for_cut(Duration::from_millis(20)) {
        if child.try_wait().expect("a child").is_some() {
            finish(child).expect_code(0);
            return false;
        }
    }
    expect_terminated(child, started, &format!("{action}, {step}"));
    proxy.settled(); // other requests of the run may still be on their way
    true
}

/// Sends SIGTERM to a run that started at this time, and checks that it ends in time with the right error.
pub fn expect_terminated(child: Child, started: Instant, at: &str) -> Ran {
    let before = signal(&child, started, Signal::SIGTERM);
    let ran = finish(child).expect_code(143);
    let document = ran.document();
    let took = ran.duration().saturating_sub(before);
    assert!(took < Duration::from_secs(5), "{at}: {took:?} after the signal");
    assert_eq!(document["error"]["code"], "terminated", "{at}");
    assert!(document["error"]["next"].as_str().is_some_and(|next| next.contains("again")), "{at}: {document:#}");
    ran
}

/// Sends a signal to a run that started at this time, and returns its age.
pub fn signal(child: &Child, started: Instant, signal: Signal) -> Duration {
    let before = started.elapsed();
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), signal).expect("a running child");
    before
}

/// Calls the closure for each request of a recorded run. It returns true if the run was interrupted; only a repeated
/// read may be missed.
pub fn for_each_step(steps: &[Step], run: impl Fn(&Step) -> bool + Sync) {
    let missed = Mutex::new(Vec::new());
    ten_at_once(steps, |step| {
        if !run(step) && step.is_deterministic() {
            missed.lock().expect("no other panic").push(step.to_string());
        }
    });
    let missed = missed.into_inner().expect("no panic");
    assert_eq!(missed, [""; 0], "no run reached these requests");
}

/// Calls the closure for each item, ten at a time: most of the time is spent waiting for the rejection of tokens.
pub fn ten_at_once<T: Sync>(items: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::SeqCst)) {
                    run(item);
                }
            });
        }
    });
}

/// One of two overlapping runs.
pub struct Runner<'a> {
    pub instance: &'a Instance,
    pub names: &'a [&'a str],
    pub action: &'a str,
    pub more: &'a [&'a str],
}

/// Starts the second run when the first is about to send this request, and releases the first as soon as the second has
/// sent a request: the runs overlap. Both have the platform of the second.
pub fn overlapping(cp: &ControlPlane, first: &Runner, step: &Step, second: &Runner) -> [Ran; 2] {
    let ((reached, wait_for_reached), (begun, wait_for_begun)) = (mpsc::channel(), mpsc::channel());
    let mut is_it = watch(step, first.names);
    let one = InterceptingProxy::start(cp, move |request| {
        if is_it(request) {
            reached.send(()).expect("a waiting receiver");
            wait_for_begun.recv_timeout(PATIENCE).expect("a request of the second run");
        }
        Verdict::Forward
    });
    let other = InterceptingProxy::start(cp, move |_| {
        let _ = begun.send(()); // only the first is waited for
        Verdict::Forward
    });
    let runs = [(first, &one), (second, &other)];
    let instances = runs.map(|(runner, proxy)| instance_through(proxy, cp, runner.instance));
    let start = |index: usize, runner: &Runner| {
        spawn(&mut command(&instances[index], second.instance, runner.action, runner.more))
    };
    let earlier = start(0, first);
    wait_for_reached.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no run reached {step}"));
    let later = start(1, second);
    [earlier, later].map(finish)
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Some of the requests that every such run sends, spread over the whole run.
pub fn spread(steps: &[Step], count: usize) -> Vec<Step> {
    let certain: Vec<&Step> = steps.iter().filter(|step| step.is_deterministic()).collect();
    (0..count).map(|index| certain[index * certain.len() / count].clone()).collect()
}
