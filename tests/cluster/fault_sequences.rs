//! No unpublished token stays valid: whichever step fails, the next run and a decommission find every token that was
//! created.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testbed::{ControlPlane, InterceptingProxy, Options, Verdict, eventually, rsa_key};

use crate::support::{
    Instance, OBJECT, Ran, binary, paths, status,
    stops::{Step, recorded},
    token_of,
};

/// A control plane whose kube-controller-manager has a signing key of its own.
struct KeySwap {
    cp: ControlPlane,
    key: PathBuf,
    _directory: tempfile::TempDir,
}

impl KeySwap {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, trusted) = (directory.path().join("signing.key"), directory.path().join("trusted.key"));
        let pem = rsa_key();
        std::fs::write(&key, &pem).unwrap();
        std::fs::write(&trusted, &pem).unwrap();
        let cp = ControlPlane::start(&Options {
            api_server_arguments: vec![format!("--service-account-key-file={}", trusted.display())],
            controller_arguments: vec![format!("--service-account-private-key-file={}", key.display())],
            ..Options::default()
        });
        Self { cp: cp.unwrap(), key, _directory: directory }
    }

    /// Replaces the signing key.
    fn sign_with(&self, pem: &str) {
        std::fs::write(&self.key, pem).unwrap();
        self.cp.start_controllers();
    }
}

/// Every token of the instance in the cluster, with the name of its Secret.
fn tokens(cp: &ControlPlane, namespace: &str) -> Vec<(String, String)> {
    let list = cp.get(&format!("/api/v1/namespaces/{namespace}/secrets")).unwrap();
    let secrets = list["items"].as_array().unwrap().iter().filter_map(|secret| {
        let name = secret["metadata"]["name"].as_str()?.to_owned();
        let token = secret["data"]["token"].as_str().unwrap_or_default();
        let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token).ok()?;
        Some((name, String::from_utf8(token).ok()?))
    });
    secrets.filter(|(name, _)| name.starts_with(OBJECT)).collect()
}

fn names(tokens: &[(String, String)]) -> Vec<&str> {
    tokens.iter().map(|(name, _)| name.trim_start_matches(OBJECT)).collect()
}

#[test]
fn tokens_signed_with_untrusted_key_do_not_accumulate() {
    let swap = KeySwap::start();
    let cp = &swap.cp;
    let (good, wrong) = (std::fs::read_to_string(&swap.key).unwrap(), rsa_key());
    let [never, before] = ["never", "before"].map(|stem| cp.namespace(stem));
    // An instance that has never worked, and one that worked before the key was replaced.
    let [fresh, worked] = [&never, &before].map(|namespace| Instance::new(cp.admin(), namespace));
    let first = worked.token();
    let mut seen = vec![first.clone()];
    let pods = format!("/api/v1/namespaces/{before}/pods");
    eventually("the API server has noted the use of the token", || {
        cp.get(&paths(&before)[3])?["metadata"]["labels"].get("kubernetes.io/legacy-token-last-used").cloned()
    });
    swap.sign_with(&wrong);
    // Its Secret is deleted, and the successor is signed with the wrong key.
    cp.delete(&paths(&before)[3]);
    for round in 1..=3 {
        let fail = |instance: &Instance| {
            let document = instance.ask("provision", &["--publish"]).expect_code(76).document();
            let error = &document["error"];
            assert_eq!(error["code"], "another-cluster", "{error}");
            let said = format!("{} {}", error["cause"], error["next"]);
            for word in ["kube-controller-manager", "--service-account-key-file", "publishes other keys"] {
                assert!(said.contains(word), "{word}: {said}");
            }
        };
        std::thread::scope(|scope| {
            for instance in [&fresh, &worked] {
                scope.spawn(move || fail(instance));
            }
        });
        assert_eq!(fresh.platform.resource("token"), None, "no untested credential is published");
        for namespace in [&never, &before] {
            let tokens = tokens(cp, namespace);
            assert_eq!(tokens.len(), 1, "round {round}, {namespace}: {:?}", names(&tokens));
            seen.extend(tokens.into_iter().map(|(_, token)| token));
        }
    }
    swap.sign_with(&good);
    std::thread::scope(|scope| {
        for (instance, namespace) in [(&fresh, &never), (&worked, &before)] {
            scope.spawn(move || {
                let handed_out = instance.token();
                let left = tokens(cp, namespace);
                assert_eq!(
                    left.iter().map(|(_, token)| token).collect::<Vec<_>>(),
                    [&handed_out],
                    "{:?}",
                    names(&left)
                );
                assert_eq!(status(cp, &handed_out, &format!("/api/v1/namespaces/{namespace}/pods")), 200);
                let again = instance.ask("provision", &["--publish"]).expect_code(0).document();
                let changes = crate::support::changes(&again);
                assert!(changes.iter().all(|(action, _)| action == "unchanged"), "{changes:?}");
            });
        }
    });
    for token in seen {
        assert_eq!(status(cp, &token, &pods), 401, "an unpublished token is still accepted");
    }
}

#[test]
fn working_token_is_kept_until_successor_is_proved() {
    let swap = KeySwap::start();
    let cp = &swap.cp;
    let (good, wrong) = (std::fs::read_to_string(&swap.key).unwrap(), rsa_key());
    let namespace = cp.namespace("kept");
    let instance = Instance::new(cp.admin(), &namespace);
    let first = instance.token();
    swap.sign_with(&wrong);
    let secret = paths(&namespace)[3].clone();
    // The successor of a deleted Secret has another name, so that the Secret in use is not the first one.
    cp.delete(&secret);
    swap.sign_with(&good);
    let in_use = instance.token();
    let second = format!("{secret}-2");
    eventually("the API server has noted the use of the token", || {
        cp.get(&second)?["metadata"]["labels"].get("kubernetes.io/legacy-token-last-used").cloned()
    });
    swap.sign_with(&wrong);
    // The Secret in use becomes unusable, and every run fails until the key is right again.
    cp.merge_patch(&second, &json!({"data": {"token": null}}));
    eventually("the controller has written the token", || {
        let filled = tokens(cp, &namespace);
        filled.iter().any(|(_, token)| !token.is_empty() && *token != in_use).then_some(())
    });
    let mut seen = vec![first, in_use];
    for after in [["-2", "-3"], ["-2", "-4"]] {
        instance.ask("provision", &["--publish"]).expect_code(76);
        let tokens = tokens(cp, &namespace);
        assert_eq!(names(&tokens), after);
        seen.extend(tokens.into_iter().map(|(_, token)| token));
    }
    swap.sign_with(&good);
    let artifact: Value = instance.provision();
    let left = tokens(cp, &namespace);
    assert_eq!(names(&left), ["-5"]);
    assert_eq!(left[0].1, token_of(&artifact));
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    assert!(seen.iter().all(|token| status(cp, token, &pods) == 401), "an unpublished token is still accepted");
    let again = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert!(crate::support::changes(&again).iter().all(|(action, _)| action == "unchanged"), "{again}");
    instance.ask("decommission", &["--publish"]).expect_code(0);
    assert_eq!(status(cp, &left[0].1, &pods), 401);
    assert!(crate::support::versions(cp, &namespace).is_empty() && tokens(cp, &namespace).is_empty());
}

/// A pseudo-random sequence, reproducible by its seed (SplitMix64).
struct Choices(u64);

impl Choices {
    /// A number in `0..below`.
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next(all.len())]
    }
}

/// The number of requests of an undisturbed run before its first write, and from there on. Repeated reads count once,
/// so that the number is the same each time.
struct Lengths {
    looks: usize,
    rest: usize,
}

impl Lengths {
    fn of(instance: &Instance, action: &str) -> Self {
        let names = [instance.namespace.as_str()];
        let mut steps = recorded(ControlPlane::shared(), instance, &names, action, &["--publish"]);
        steps.retain(Step::is_deterministic);
        let looks = steps.iter().position(|step| step.write).expect("a write");
        Self { looks, rest: steps.len() - looks }
    }
}

/// Counts of a first provision, and of the decommission after it.
static LENGTHS: LazyLock<(Lengths, Lengths)> = LazyLock::new(|| {
    let cp = ControlPlane::shared();
    let instance = Instance::new(cp.admin(), &cp.namespace("lengths"));
    (Lengths::of(&instance, "provision"), Lengths::of(&instance, "decommission"))
});

/// A fault during a run, or between two runs.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL before or after the n-th request is executed.
    Killed { action: &'static str, n: usize, after: bool },
    /// SIGTERM while the n-th request hangs.
    Terminated { action: &'static str, n: usize },
    /// This response to every request from the n-th on.
    Failing { action: &'static str, n: usize, code: u16, reason: &'static str },
    /// A lost response to the n-th request.
    Lost { n: usize },
    /// The platform refuses the credential.
    Unpublished,
    /// The token Secrets are deleted.
    SecretDeleted,
    /// The token Secrets are changed so that they are unusable.
    SecretSpoiled,
    /// The tokens are rejected.
    TokenInvalidated,
    /// The ServiceAccount is deleted.
    AccountDeleted,
    /// The ServiceAccount is deleted and restored, as from a backup.
    AccountRestored,
    /// A decommission without a fault.
    Decommissioned,
}

impl Fault {
    fn choose(choices: &mut Choices) -> Self {
        let action = choices.of(&["provision", "provision", "provision", "decommission"]);
        // Faults during reads are of little interest: one of the writes is chosen, or the requests between and after
        // them.
        let lengths = if action == "provision" { &LENGTHS.0 } else { &LENGTHS.1 };
        let n = lengths.looks + choices.next(lengths.rest);
        match choices.next(14) {
            0..3 => Self::Killed { action, n, after: choices.next(2) == 0 },
            3 => Self::Terminated { action, n },
            4 => Self::Failing { action, n, code: 500, reason: "InternalError" },
            5 => Self::Failing { action, n, code: 403, reason: "Forbidden" },
            6 => Self::Lost { n },
            7 | 8 => Self::Unpublished,
            9 => Self::SecretDeleted,
            10 => Self::SecretSpoiled,
            11 => Self::TokenInvalidated,
            12 => choices.of(&[Self::AccountDeleted, Self::AccountRestored]),
            _ => Self::Decommissioned,
        }
    }

    /// Applies the fault.
    fn apply(self, cp: &ControlPlane, instance: &Instance) {
        let namespace = &instance.namespace;
        let secrets = || {
            tokens(cp, namespace).into_iter().map(|(name, _)| format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
        };
        let account = &paths(namespace)[0];
        match self {
            Self::Killed { action, n, after } => {
                let cut = if after { Verdict::CutAfter } else { Verdict::CutBefore };
                let (proxy, mut command) = command_through_proxy(cp, instance, action, n, cut, false);
                let _ = proxy.kill_at_cut(&mut command.spawn().unwrap()); // unless the run has ended before
            }
            Self::Terminated { action, n } => {
                let (proxy, mut command) = command_through_proxy(cp, instance, action, n, Verdict::CutBefore, false);
                let mut child = command.spawn().unwrap();
                while child.try_wait().unwrap().is_none() {
                    if proxy.wait_for_cut(Duration::from_millis(20)) {
                        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
                        assert_eq!(child.wait().unwrap().code(), Some(143));
                    }
                }
            }
            Self::Failing { action, n, code, reason } => {
                let refusal = Verdict::refusal(code, reason, "not today");
                let (_proxy, mut command) = command_through_proxy(cp, instance, action, n, refusal, true);
                command.status().unwrap();
            }
            Self::Lost { n } => {
                let (_proxy, mut command) = command_through_proxy(cp, instance, "provision", n, Verdict::Lose, false);
                command.status().unwrap();
            }
            Self::Unpublished => {
                let mut command = instance.command("provision", &["--publish"]);
                let code = Ran::of(command.env("MASSDRIVER_TOKEN", "refused")).code;
                assert!([69, 76].contains(&code), "{code}"); // unless the run does not get that far
            }
            Self::SecretDeleted => secrets().for_each(|secret| drop(cp.delete(&secret))),
            Self::SecretSpoiled => secrets().for_each(|secret| {
                cp.merge_patch(&secret, &json!({"data": {"token": "c3BvaWxlZA=="}}));
            }),
            Self::TokenInvalidated => secrets().for_each(|secret| {
                let label = json!({"kubernetes.io/legacy-token-invalid-since": "2026-11-28"});
                cp.merge_patch(&secret, &json!({"metadata": {"labels": label}}));
            }),
            Self::AccountDeleted => drop(cp.delete(account)),
            Self::AccountRestored => {
                let Some(mut before) = cp.get(account) else { return };
                cp.delete(account);
                for field in ["uid", "resourceVersion", "creationTimestamp"] {
                    before["metadata"].as_object_mut().unwrap().remove(field);
                }
                cp.post(account.rsplit_once('/').unwrap().0, &before);
            }
            Self::Decommissioned => drop(instance.ask("decommission", &["--publish"]).expect_code(0)),
        }
    }
}

/// A command for an action of this instance through a proxy that gives this verdict from the n-th request on, or for
/// that request alone.
fn command_through_proxy(
    cp: &ControlPlane,
    instance: &Instance,
    action: &str,
    n: usize,
    verdict: Verdict,
    on: bool,
) -> (InterceptingProxy, Command) {
    let proxy = InterceptingProxy::start(cp, move |request| {
        let meant = if on { request.number >= n } else { request.number == n };
        if meant { verdict.clone() } else { Verdict::Forward }
    });
    let mut far = instance.connection.clone();
    far["authentication"]["cluster"]["server"] = json!(proxy.server());
    let directory = instance.path("far");
    std::fs::create_dir_all(&directory).unwrap();
    for (name, document) in [
        ("params.json", &instance.params),
        ("config.json", &instance.config),
        ("dependencies.json", &json!({"kubernetes_cluster": far})),
    ] {
        std::fs::write(directory.join(name), document.to_string()).unwrap();
    }
    let mut command = binary();
    command.args([action, "--publish", "--timeout", "6", "--instance-dir"]).arg(directory);
    command.envs(instance.environment()).stdout(Stdio::null()).stderr(Stdio::null());
    (proxy, command)
}

/// The property: after any faults, a successful run leaves exactly one valid token, the published one.
struct Sequence<'a> {
    cp: &'a ControlPlane,
    seed: u64,
    choices: Choices,
    instance: Instance,
    story: Vec<Fault>,
    /// Every token that ever existed.
    seen: BTreeSet<String>,
}

impl<'a> Sequence<'a> {
    fn start(cp: &'a ControlPlane, seed: u64) -> Self {
        let mut choices = Choices(seed);
        let instance = Instance::new(cp.admin(), &cp.namespace("sequence"));
        if choices.next(3) > 0 {
            instance.provision();
        }
        Self { cp, seed, choices, instance, story: Vec::new(), seen: BTreeSet::new() }
    }

    fn history(&self) -> String {
        format!("seed {}, {:?}", self.seed, self.story)
    }

    fn record_tokens(&mut self) {
        let tokens = tokens(self.cp, &self.instance.namespace);
        assert!(tokens.len() <= 2, "{}: too many Secrets: {:?}", self.history(), names(&tokens));
        self.seen.extend(tokens.into_iter().map(|(_, token)| token).filter(|token| token.contains('.')));
    }

    /// One fault.
    fn step(&mut self) {
        self.record_tokens();
        let fault = Fault::choose(&mut self.choices);
        self.story.push(fault);
        fault.apply(self.cp, &self.instance);
        self.record_tokens();
    }

    /// A run that fails because no token works.
    fn fail(&mut self) {
        let ran = self.instance.ask("provision", &["--publish"]);
        assert_eq!(ran.code, 76, "{}: {}", self.history(), ran.stderr);
        self.record_tokens();
    }

    /// A successful run, and a decommission.
    fn end(mut self) {
        let (cp, told) = (self.cp, self.history());
        let Instance { namespace, platform, .. } = &self.instance;
        let ran = self.instance.ask("provision", &["--publish"]);
        assert_eq!(ran.code, 0, "{told}: {}", ran.stderr);
        let handed_out = token_of(&platform.resource("token").expect("an artifact"));
        let left = tokens(cp, namespace);
        assert!(left.len() == 1 && left[0].1 == handed_out, "{told}: {:?}", names(&left));
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        assert_eq!(status(cp, &handed_out, &pods), 200, "{told}");
        self.seen.remove(&handed_out);
        for token in &self.seen {
            // The server caches authenticated tokens for 10 s.
            eventually(&format!("{told}: a token that was not handed out is dead"), || {
                (status(cp, token, &pods) == 401).then_some(())
            });
        }
        let again = self.instance.ask("provision", &["--publish"]).document();
        assert!(crate::support::changes(&again).iter().all(|(action, _)| action == "unchanged"), "{told}: {again:#}");
        let gone = self.instance.ask("decommission", &["--publish"]);
        assert_eq!(gone.code, 0, "{told}: {}", gone.stderr);
        assert!(crate::support::versions(cp, namespace).is_empty() && tokens(cp, namespace).is_empty(), "{told}");
        assert_eq!(status(cp, &handed_out, &pods), 401, "{told}");
    }
}

/// Runs a closure for each sequence, all at the same time.
fn for_each_at_once<'a>(sequences: &mut [Sequence<'a>], act: impl Fn(&mut Sequence<'a>) + Sync) {
    std::thread::scope(|scope| {
        for sequence in sequences {
            let act = &act;
            scope.spawn(move || act(sequence));
        }
    });
}

/// `K8S_TOKEN_SEEDS=from..to` selects other seeds.
fn seeds(few: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(seeds) = std::env::var("K8S_TOKEN_SEEDS") else { return few };
    let (from, to) = seeds.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn one_live_token_remains_after_any_fault_sequence() {
    let seeds = seeds(0..24);
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| *seed < seeds.end) {
                    let mut sequence = Sequence::start(ControlPlane::shared(), seed);
                    for _ in 0..2 + sequence.choices.next(4) {
                        sequence.step();
                    }
                    sequence.end();
                }
            });
        }
    });
}

#[test]
fn one_live_token_remains_after_untrusted_key_faults() {
    let swap = KeySwap::start();
    let (good, wrong) = (std::fs::read_to_string(&swap.key).unwrap(), rsa_key());
    let mut sequences: Vec<Sequence> = Vec::new();
    std::thread::scope(|scope| {
        let started: Vec<_> = seeds(0..12)
            .map(|seed| {
                scope.spawn({
                    let cp = &swap.cp;
                    move || Sequence::start(cp, seed)
                })
            })
            .collect();
        sequences.extend(started.into_iter().map(|sequence| sequence.join().unwrap()));
    });
    for_each_at_once(&mut sequences, Sequence::step);
    swap.sign_with(&wrong);
    for_each_at_once(&mut sequences, |sequence| {
        // The existing token may work until its Secret is deleted.
        Fault::SecretSpoiled.apply(sequence.cp, &sequence.instance);
        sequence.story.push(Fault::SecretSpoiled);
        sequence.fail();
        sequence.step();
        sequence.fail();
    });
    swap.sign_with(&good);
    for_each_at_once(&mut sequences, Sequence::step);
    std::thread::scope(|scope| {
        for sequence in sequences {
            scope.spawn(|| sequence.end());
        }
    });
}
