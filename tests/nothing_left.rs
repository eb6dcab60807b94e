//! Nothing alive is left behind that was not handed out: whatever fails on the way, the next run and a decommission find
//! every token that was made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::path::PathBuf;

use serde_json::Value;
use support::{Instance, OBJECT, paths, status, token_of};
use testbed::{ControlPlane, Options, eventually, rsa_key};

/// A control plane whose kube-controller-manager signs with a key of its own.
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

    /// From now on this key signs.
    fn sign_with(&self, pem: &str) {
        std::fs::write(&self.key, pem).unwrap();
        self.cp.start_controllers();
    }
}

/// Every token of the instance that is in the cluster, with the name of its Secret.
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
fn tokens_signed_with_a_key_that_the_server_does_not_trust_pile_up_nowhere() {
    let swap = KeySwap::start();
    let cp = &swap.cp;
    let (good, wrong) = (std::fs::read_to_string(&swap.key).unwrap(), rsa_key());
    let [never, before] = ["never", "before"].map(|stem| cp.namespace(stem));
    // One instance that has never worked, and one that did before the key was swapped.
    let [fresh, worked] = [&never, &before].map(|namespace| Instance::new(cp.admin(), namespace));
    let first = worked.token();
    let mut seen = vec![first.clone()];
    let pods = format!("/api/v1/namespaces/{before}/pods");
    eventually("the API server has noted the use of the token", || {
        cp.get(&paths(&before)[3])?["metadata"]["labels"].get("kubernetes.io/legacy-token-last-used").cloned()
    });
    swap.sign_with(&wrong);
    // Its Secret is lost, and the one that takes its place is signed with the wrong key.
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
        assert_eq!(fresh.platform.resource("token"), None, "nothing unproved is handed out");
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
                let changes = support::changes(&again);
                assert!(changes.iter().all(|(action, _)| action == "unchanged"), "{changes:?}");
            });
        }
    });
    for token in seen {
        assert_eq!(status(cp, &token, &pods), 401, "a token that was not handed out is alive");
    }
}

#[test]
fn a_token_that_works_stays_until_one_is_proved_in_its_place_and_what_was_tried_goes() {
    let swap = KeySwap::start();
    let cp = &swap.cp;
    let (good, wrong) = (std::fs::read_to_string(&swap.key).unwrap(), rsa_key());
    let namespace = cp.namespace("kept");
    let instance = Instance::new(cp.admin(), &namespace);
    let first = instance.token();
    swap.sign_with(&wrong);
    let secret = paths(&namespace)[3].clone();
    // A deleted Secret has a successor with another name; so the name of the one in use is not the first.
    cp.delete(&secret);
    swap.sign_with(&good);
    let in_use = instance.token();
    let second = format!("{secret}-2");
    eventually("the API server has noted the use of the token", || {
        cp.get(&second)?["metadata"]["labels"].get("kubernetes.io/legacy-token-last-used").cloned()
    });
    swap.sign_with(&wrong);
    // The Secret that is in use is spoiled, and nothing works until the key is right again.
    cp.merge_patch(&second, &serde_json::json!({"data": {"token": null}}));
    eventually("the controller has filled it", || {
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
    assert!(seen.iter().all(|token| status(cp, token, &pods) == 401), "a token that was not handed out is alive");
    let again = instance.ask("provision", &["--publish"]).expect_code(0).document();
    assert!(support::changes(&again).iter().all(|(action, _)| action == "unchanged"), "{again}");
    instance.ask("decommission", &["--publish"]).expect_code(0);
    assert_eq!(status(cp, &left[0].1, &pods), 401);
    assert!(support::versions(cp, &namespace).is_empty() && tokens(cp, &namespace).is_empty());
}
