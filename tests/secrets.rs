//! Token leaks: the tokens of the parent, the issued credential and the platform are searched for, raw and in base64,
//! in all output, all objects of the cluster, the audit log, the platform's requests and every file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{fs, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rstest::rstest;
use serde_json::{Value, json};
use support::{Instance, NAME, Ran, Shape, binary, paths, token_of};
use testbed::{
    ControlPlane, Era, Grant, Helm, InterceptingProxy, Original, Persona, ProxyOptions, ProxyServer, Verdict,
};

/// A sequence of this many letters does not occur by chance.
const PART: usize = 12;

/// A secret in every encoding in which it could leak.
struct Canary {
    name: &'static str,
    forms: Vec<String>,
}

impl Canary {
    fn new(name: &'static str, secret: &str) -> Self {
        let mut forms = vec![secret.to_owned(), STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
        // Inside a longer base64 text it starts at one of three offsets; its ends depend on the adjacent bytes.
        for offset in 1..3 {
            let shifted = STANDARD.encode(["\0".repeat(offset).as_bytes(), secret.as_bytes()].concat());
            forms.push(shifted[4..shifted.len() - 4].to_owned());
        }
        // A part would be a leak as well: the signature alone, for example.
        forms.push(secret[secret.len() - 32..].to_owned());
        Self { name, forms }
    }

    fn found_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form))
    }

    /// Not even a part, as at the end of a truncated text. Only for places without any token: two tokens of one cluster
    /// have parts in common.
    #[track_caller]
    fn expect_no_part_in(&self, place: &str, text: &str) {
        for form in [&self.forms[0], &self.forms[1]] {
            let part = form.as_bytes().windows(PART).map(String::from_utf8_lossy).find(|part| text.contains(&**part));
            assert_eq!(part, None, "a part of the {} token is in {place}:\n{text}", self.name);
        }
    }

    #[track_caller]
    fn expect_absent_from(&self, place: &str, text: &str) {
        assert!(!self.found_in(text), "the {} token is in {place}", self.name);
    }
}

fn files(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            found.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

#[test]
fn search_finds_encoded_secrets() {
    let canary = Canary::new("test", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl");
    for lead in ["", "a", "ab", "user:"] {
        let secret = &canary.forms[0];
        assert!(canary.found_in(&STANDARD.encode(format!("{lead}{secret}\n"))), "after {lead:?}");
    }
}

/// Fields into which a token might be pasted by mistake.
const MISPLACED: [&str; 8] = [
    "/namespace",
    "/rules/0/verbs/0",
    "/rules/0/apiGroups/0",
    "/rules/0/namespaces/0",
    "/cluster_roles/0/name",
    "/cluster_roles/0/namespaces/0",
    "/md_metadata/name_prefix",
    "/rules/0",
];

/// An instance with grants in every kind of scope.
fn instance_in_all_scopes(parent: &Persona, namespace: &str) -> Instance {
    let mut instance = Instance::new(parent, namespace);
    instance.params["rules"][0]["namespaces"] = json!(["*"]);
    instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": ["default"]}]);
    instance
}

/// A run with verbose environment variables and its own temporary directory.
fn run_verbosely(instance: &Instance, action: &str, more: &[&str], temporary: &Path) -> Ran {
    let mut command = instance.command(action, more);
    command.env("TMPDIR", temporary).env("HOME", temporary).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    Ran::of(&mut command)
}

#[test]
fn no_token_leaks_outside_its_destinations() {
    let cp = ControlPlane::shared();
    let parent = cp.persona("canary", &[Grant::cluster_role("cluster-admin")]);
    let namespace = cp.namespace("canary");
    let temporary = tempfile::tempdir().unwrap();
    let mut output = String::new();
    let mut said = |ran: Ran| {
        output.push_str(&ran.stdout);
        output.push_str(&ran.stderr);
    };
    let run =
        |instance: &Instance, action: &str, more: &[&str]| run_verbosely(instance, action, more, temporary.path());

    let instance = Instance::of_era(&parent, &namespace, Era::Dependencies, support::Shape::Full);
    let mut secrets = vec![Canary::new("parent", &parent.token), Canary::new("platform", instance.platform.token())];
    said(run(&instance, "plan", &[]).expect_code(0));
    said(run(&instance, "provision", &["--publish"]).expect_code(0));
    let issued = token_of(&instance.platform.resource("token").unwrap());
    secrets.push(Canary::new("issued", &issued));
    said(run(&instance, "provision", &["--publish"]).expect_code(0));
    // More scopes, and back.
    said(run(&instance_in_all_scopes(&parent, &namespace), "provision", &["--publish"]).expect_code(0));
    said(run(&instance, "provision", &["--publish"]).expect_code(0));
    // Every failure that is possible once the tokens are known.
    for _ in 0..5 {
        instance.platform.fail_next(500, &format!("echo: {issued} {} {}", parent.token, instance.platform.token()));
    }
    said(run(&instance, "provision", &["--publish"]).expect_code(69));
    for (pointer, value) in [
        ("/authentication/cluster/server", json!("https://127.0.0.1:1")),
        ("/authentication/cluster/server", json!(format!("https://{}@127.0.0.1", parent.token))),
        ("/authentication/cluster/certificate-authority-data", json!(STANDARD.encode(&parent.token))),
        ("/authentication/user/token", json!(format!("{}\n", parent.token))),
        ("/authentication/user", json!(parent.token)),
    ] {
        let mut broken = Instance::new(&parent, &namespace);
        *broken.connection.pointer_mut(pointer).unwrap() = value;
        let ran = run(&broken, "provision", &[]);
        assert_ne!(ran.code, 0);
        said(ran);
    }
    for place in MISPLACED {
        let mut misplaced = instance_in_all_scopes(&parent, &namespace);
        let at = misplaced.params.pointer_mut(place).unwrap();
        *at = json!(parent.token);
        misplaced.config = json!({});
        said(run(&misplaced, "provision", &[]).expect_code(65));
    }
    let dump = cp.dump_everything();

    let [parents, platforms, issueds] = &secrets[..] else { unreachable!() };
    for request in instance.platform.requests() {
        let text = format!("{} {}", request.path, request.body);
        parents.expect_absent_from("a request to the platform", &text);
        platforms.expect_absent_from("a request to the platform", &text);
    }
    for secret in &secrets {
        secret.expect_absent_from("the output", &output);
        secret.expect_no_part_in("the output", &output);
    }
    let ca = cp.ca_base64();
    assert!(!output.contains(&ca[40..100]), "no CA in the log");
    // The issued token is in its Secret; nowhere else in the cluster.
    let secret = cp.get(&paths(&namespace)[3]).unwrap();
    let home = secret["data"]["token"].as_str().unwrap();
    assert!(dump.contains(home), "the dump must contain Secrets, otherwise the test is void");
    parents.expect_absent_from("an object of the cluster", &dump);
    platforms.expect_absent_from("an object of the cluster", &dump);
    issueds.expect_absent_from("another object of the cluster", &dump.replace(home, "").replace(&issued, ""));
    for (name, log) in cp.logs() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        for secret in &secrets {
            secret.expect_absent_from(&format!("the log of {name}"), &text);
        }
    }
    let audit = fs::read_to_string(cp.audit().path()).unwrap();
    assert!(audit.contains(&namespace), "the audit log must contain this run, otherwise the test is void");
    for secret in &secrets {
        secret.expect_absent_from("the audit log", &audit);
    }
    let mut left = Vec::new();
    files(temporary.path(), &mut left);
    assert!(left.is_empty(), "temporary files are left: {left:?}");
    let inputs = ["dependencies.json", "connections.json"];
    files(instance.directory.path(), &mut left);
    for (file, text) in left.iter().filter(|(file, _)| !inputs.iter().any(|input| file.ends_with(input))) {
        for secret in &secrets {
            secret.expect_absent_from(file, text);
        }
    }

    let artifact = instance.path("artifact.json");
    fs::write(&artifact, instance.platform.resource("token").unwrap().to_string()).unwrap();
    let gone = run(&instance, "decommission", &["--publish"]).expect_code(0);
    for secret in &secrets {
        secret.expect_absent_from("the output of decommission", &format!("{}{}", gone.stdout, gone.stderr));
    }
    let kubeconfig = Ran::of(binary().arg("kubeconfig").arg(&artifact)).expect_code(0);
    assert!(kubeconfig.stdout.contains(&issued), "the platform gets the token");
    issueds.expect_absent_from("the log of kubeconfig", &kubeconfig.stderr);
    parents.expect_absent_from("a kubeconfig", &kubeconfig.stdout);
}

/// Messages of another program that contain a secret: before the place of truncation, behind it, and across it.
fn texts_with(secret: &str) -> Vec<String> {
    [0, 60, 110, 190, 290].map(|length| format!("{}{secret}", "so it said, ".repeat(30).split_at(length).0)).to_vec()
}

fn output_of(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

#[test]
fn tokens_echoed_by_the_cluster_are_redacted() {
    let cp = ControlPlane::shared();
    let parent = cp.persona("echo", &[Grant::cluster_role("cluster-admin")]);
    let near = Instance::new(&parent, &cp.namespace("echo"));
    let issued = near.token();
    let role = paths(&near.namespace)[1].clone();
    let secrets = [Canary::new("parent", &parent.token), Canary::new("issued", &issued)];
    // The replaced responses: the first and the later ones about the Role, the version, the reviews of the token's
    // identity.
    let said =
        |action: &str, echoed: &[(&'static str, Verdict)]| -> String {
            let (role, echoed, mut looks) = (role.clone(), echoed.to_vec(), 0);
            // The first review is that of the parent, except in a decommission.
            let mut parent_asked = action == "decommission";
            let proxy =
                InterceptingProxy::start(cp, move |request| {
                    looks += usize::from(request.path == role);
                    let place =
                        match request.path.as_str() {
                            path if path == role && looks == 1 => "first",
                            path if path == role => "later",
                            path if path.contains("/selfsubjectreviews") => {
                                if std::mem::replace(&mut parent_asked, true) { "holder" } else { "parent" }
                            }
                            path => path,
                        };
                    echoed.iter().find(|(at, _)| *at == place).map_or(Verdict::Forward, |(_, verdict)| verdict.clone())
                });
            let far = Instance::new(&parent.with_server(&proxy.server()), &near.namespace);
            output_of(&far.ask(action, &["--timeout", "8"]))
        };
    let plain = |status: u16, text: &str| Verdict::Reply(status, Vec::new(), text.to_owned());
    for text in texts_with(&parent.token) {
        let retried = said("plan", &[("first", plain(503, &text)), ("later", Verdict::refusal(422, "Invalid", &text))]);
        assert!(retried.contains("\nretry ") && retried.contains("422"), "{retried}");
        let refused = said("plan", &[("first", plain(400, &text))]);
        let warning = ("warning", format!("299 - \"{text}\""));
        let headers = vec![warning, ("content-type", "application/json".to_owned())];
        let version = Verdict::Reply(200, headers, json!({"gitVersion": text}).to_string());
        let warned = said("plan", &[("/version", version)]);
        assert!(warned.contains("the server warns"), "{warned}");
        for output in [retried, refused, warned] {
            secrets[0].expect_no_part_in("the output", &output);
        }
    }
    for text in texts_with(&issued) {
        let output = said("provision", &[("holder", plain(503, &text))]);
        assert!(output.contains("\nretry "), "{output}");
        for secret in &secrets {
            secret.expect_no_part_in("the output", &output);
        }
    }
}

#[test]
fn tokens_echoed_by_the_platform_are_redacted() {
    let cp = ControlPlane::shared();
    let parent = cp.persona("echo", &[Grant::cluster_role("cluster-admin")]);
    let instance = Instance::new(&parent, &cp.namespace("echo"));
    let (issued, platform) = (instance.token(), instance.platform.token().to_owned());
    let secrets = [("parent", &parent.token), ("issued", &issued), ("platform", &platform)];
    let canaries = secrets.map(|(name, secret)| Canary::new(name, secret));
    for (_, secret) in secrets {
        for text in texts_with(secret) {
            let faults: [&dyn Fn(); 4] = [
                &|| instance.platform.fail_next(502, &text),
                &|| instance.platform.fail_next(422, &json!({"errors": {"payload": [text]}}).to_string()),
                &|| instance.platform.fail_next(400, &json!({"error": text}).to_string()),
                &|| {
                    let place = format!("/{}", text.replace([' ', ','], "-"));
                    instance.platform.fail_next_with(301, &[("location", &place)], "");
                },
            ];
            for fault in faults {
                fault();
                let ran = instance.ask("provision", &["--publish"]);
                assert!(ran.code == 69 || ran.stderr.contains("\nretry "), "{}", ran.stderr);
                for canary in &canaries {
                    canary.expect_no_part_in("the output", &output_of(&ran));
                }
            }
        }
    }
}

/// The leak of version 1.0.0: the connection's token in the Helm release Secrets.
#[rstest]
fn adoption_leaves_no_parent_token_behind(#[values(3, 4)] major: u8) {
    let cp = ControlPlane::shared();
    let parent = cp.persona("exposed", &[Grant::cluster_role("cluster-admin")]);
    let namespace = cp.namespace("exposed");
    let instance = Instance::of_era(&parent, &namespace, Era::Dependencies, Shape::Legacy);
    let helm = if major == 3 { Helm::v3() } else { Helm::v4() };
    let theirs = Original::new(cp, helm, &instance.params, &instance.connection);
    theirs.provision();
    theirs.failed_provision();
    let exposed = Canary::new("parent", &parent.token);
    let platform = Canary::new("platform", instance.platform.token());
    assert!(exposed.found_in(&cp.dump_everything()), "the leak exists, and is found in the packed release");

    let mut output = String::new();
    let mut run = |action: &str, more: &[&str]| {
        let mut command = instance.command(action, more);
        output.push_str(&output_of(&Ran::of(command.env("RUST_LOG", "trace")).expect_code(0)));
    };
    run("plan", &[]);
    run("provision", &["--publish"]);
    let dump = cp.dump_everything();
    let issued = Canary::new("issued", &token_of(&instance.platform.resource("token").unwrap()));
    assert!(issued.found_in(&dump), "the token is still where it was");
    run("provision", &["--publish"]);
    run("decommission", &["--publish"]);
    assert!(output.contains("parent-exposed"), "the outcome is reported");
    for secret in [&exposed, &platform] {
        secret.expect_absent_from("an object of the cluster", &dump);
    }
    for secret in [&exposed, &platform, &issued] {
        secret.expect_no_part_in("the output", &output);
    }
    for request in instance.platform.requests() {
        exposed.expect_absent_from("a request to the platform", &request.body.to_string());
    }
    let left = cp.dump_everything();
    issued.expect_absent_from("the cluster after the decommission", &left);
    exposed.expect_absent_from("the cluster after the decommission", &left);
}

/// Logins of a kubeconfig: an exec plugin, a proxy with a password, another server name.
#[test]
fn kubeconfig_logins_and_passwords_are_redacted() {
    const PASSWORD: &str = "a-p4ssword-of-a-proxy";
    let cp = ControlPlane::shared();
    let parent = cp.persona("person", &[Grant::cluster_role("cluster-admin")]);
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let params = put("params.json", &json!({"namespace": cp.namespace("person"), "rules": rules}).to_string());
    let version = "client.authentication.k8s.io/v1";
    let status = json!({"token": parent.token});
    let printed = json!({"apiVersion": version, "kind": "ExecCredential", "status": status}).to_string();
    let credential = put("credential", &printed);
    let way = "10.0.0.1:6443";
    let proxy = ProxyServer::start(cp, ProxyOptions::default().way(way, cp.server()).login("me", PASSWORD));
    let arguments = json!(["-c", format!("echo '{}' >&2; cat {}", parent.token, credential.display())]);
    let exec = json!({"apiVersion": version, "command": "/bin/sh", "args": arguments, "interactiveMode": "Never"});
    let proxied = |password: &str| json!(format!("http://me:{password}@{}", proxy.address()));
    let kubeconfig = |cluster: Value, user: Value| {
        let document = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
        });
        put("config", &document.to_string())
    };
    let cluster = |url: Value| {
        json!({
            "server": format!("https://{way}"), "certificate-authority-data": cp.ca_base64(), "proxy-url": url,
            "tls-server-name": "localhost",
        })
    };
    let mut output = String::new();
    let mut run = |action: &str, config: &Path, code: i32| {
        let mut command = binary();
        command.env("PATH", "/usr/bin:/bin").args([action, "--json", "--name", NAME, "--timeout", "60", "--params"]);
        command.arg(&params).arg("--kubeconfig").arg(config);
        output.push_str(&output_of(&Ran::of(&mut command).expect_code(code)));
    };
    let good = kubeconfig(cluster(proxied(PASSWORD)), json!({"exec": exec}));
    for action in ["plan", "provision", "decommission"] {
        run(action, &good, 0);
    }
    run("plan", &kubeconfig(cluster(proxied("a-wr0ng-password")), json!({"exec": exec})), 69);
    fs::write(&credential, &printed[..printed.len() - 2]).unwrap();
    run("plan", &kubeconfig(cluster(proxied(PASSWORD)), json!({"exec": exec})), 69);
    run("plan", &kubeconfig(cluster(proxied(PASSWORD)), json!({"token": format!("{} x", parent.token)})), 65);
    assert!(output.contains(&proxy.address()), "the proxy is named");
    Canary::new("parent", &parent.token).expect_no_part_in("the output", &output);
    assert!(!output.contains(PASSWORD) && !output.contains("a-wr0ng-password"), "{output}");
    // Help and manual page contain nothing of the environment.
    for arguments in [&["completions", "bash"][..], &["man"], &["--help"], &["plan", "--help"]] {
        let mut command = binary();
        command.args(arguments).env("MASSDRIVER_TOKEN", &parent.token).env("HTTPS_PROXY", PASSWORD);
        let said = output_of(&Ran::of(&mut command).expect_code(0));
        assert!(!said.contains(PASSWORD) && !said.contains(&parent.token[..PART]), "{arguments:?}");
    }
}

/// `check` quotes no value of its input, in the log, in JSON and in SARIF, with a token in any place of a file or as its
/// name.
#[test]
fn check_prints_no_token_of_its_input() {
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{}.{}", URL_SAFE_NO_PAD.encode([7; 60]), URL_SAFE_NO_PAD.encode([9; 60]));
    let canary = Canary::new("misplaced", &token);
    let directory = tempfile::tempdir().unwrap();
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "namespaces": ["*"]});
    let sound = json!({
        "namespace": "team-a", "rules": [rule], "cluster_roles": [{"name": "view", "namespaces": ["default"]}],
        "md_metadata": {"name_prefix": NAME, "default_tags": {"a": "b"}},
    });
    let more = ["/rules/0/resources/0", "/md_metadata/default_tags/a", "/cluster_roles", "/rules", ""];
    let mut texts = vec![
        format!("{{\"namespace\": {token}}}"),
        token.clone(),
        json!({&token: 1}).to_string(),
        format!("{{\"rules\": [{{\"{token}\": 1, \"{token}\": 2}}]}}"),
    ];
    for place in MISPLACED.iter().chain(&more) {
        let mut misplaced = sound.clone();
        *misplaced.pointer_mut(place).unwrap() = json!(token);
        texts.push(misplaced.to_string());
    }
    let mut files = vec![token];
    for (number, text) in texts.iter().enumerate() {
        let file = format!("{number}.json");
        fs::write(directory.path().join(&file), text).unwrap();
        files.push(file);
    }
    for format in ["--json", "--sarif"] {
        let ran = Ran::of(binary().current_dir(directory.path()).args(["check", format]).args(&files)).expect_code(65);
        let output = output_of(&ran);
        canary.expect_no_part_in("the output of check", &output);
        let named = |file: &str| output.contains(&format!("\n{file}:"));
        let silent: Vec<&str> = files[1..].iter().map(String::as_str).filter(|file| !named(file)).collect();
        assert_eq!(silent, ["8.json"], "only the name of a ClusterRole may look like a token: {output}");
    }
}
