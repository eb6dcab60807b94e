//! Kubeconfigs that work with kubectl work here, or are refused with a reason.

use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ClientCertificate, ControlPlane};

use crate::{
    desk::{Desk, admin, cluster, code, refusals},
    support::{Ran, binary},
};

fn whoami(output: std::process::Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn kubeconfig_list_is_merged_first_value_wins() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "merged");
    desk.put("one/pki/ca.pem", cp.ca_pem());
    desk.put("two/token", &format!("{}\n", cp.admin().token));
    // Relative to the file that contains it; kubectl writes an empty current-context if there is none.
    let one = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "",
        "contexts": [],
        "clusters": [{"name": "here", "cluster": {"server": cp.server(), "certificate-authority": "pki/ca.pem"}}],
        "users": null,
    });
    let two = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "here", "user": {"tokenFile": "token"}}],
    });
    let three = json!({
        "current-context": "there",
        "users": [{"name": "here", "user": {"token": "another"}}],
    });
    let files = [("one/config", one), ("two/config", two), ("three/config", three)];
    let mut paths: Vec<String> =
        files.iter().map(|(name, text)| desk.put(name, &text.to_string()).display().to_string()).collect();
    paths.insert(1, desk.path("missing").display().to_string());
    paths.insert(2, String::new());
    let list = paths.join(":");

    let mut kubectl = std::process::Command::new(cp.kubectl_path());
    let output = kubectl
        .env_clear()
        .env("KUBECONFIG", &list)
        .args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])
        .output()
        .unwrap();
    assert_eq!(whoami(output), cp.admin().user);
    let mark = cp.audit().mark();
    Ran::of(desk.command("provision", &[]).env("KUBECONFIG", &list)).expect_code(0);
    assert!(!cp.audit().of(&cp.admin().user, mark).is_empty());
    // A single file is used alone.
    let ran = desk.ask("plan", "three/config", &[]).expect_code(65);
    assert!(refusals(&ran)[0].1.contains("has no context `there`"), "{}", ran.stderr);
}

#[test]
fn kubeconfig_defaults_to_the_home_directory() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "home");
    desk.kubeconfig(".kube/config", &cluster(cp), &admin(cp));
    Ran::of(desk.command("plan", &[]).env("HOME", desk.directory.path())).expect_code(0);
    let ran = Ran::of(&mut desk.command("plan", &[])).expect_code(65);
    assert!(refusals(&ran)[0].1.contains("KUBECONFIG nor HOME is set"), "{}", ran.stderr);
    let ran = Ran::of(desk.command("plan", &[]).env("HOME", "/nowhere")).expect_code(65);
    assert!(
        refusals(&ran)[0].1.contains("/nowhere/.kube/config does not exist: pass a kubeconfig with --kubeconfig"),
        "{}",
        ran.stderr
    );
}

#[rstest]
#[case::no_yaml("{ token: s3cret-s3cret", "is not a kubeconfig")]
#[case::another_document("[s3cret-s3cret]", "is not a kubeconfig")]
#[case::wrong_type(
    r#"{"current-context": {"s3cret-s3cret": 1}}"#,
    "current-context must be a string, but is a mapping (line 1 of "
)]
#[case::another_kind("kind: s3cret-s3cret", "has a kind other than Config (line 1)")]
#[case::binary("\u{0}\u{1}s3cret-s3cret", "is not a kubeconfig")]
#[case::empty("", "has no current context")]
fn invalid_kubeconfig_is_named_without_content(#[case] text: &str, #[case] problem: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "broken");
    let good = desk.kubeconfig("good", &cluster(cp), &admin(cp));
    let broken = desk.put("broken", text);
    let ran = desk.ask("plan", "broken", &[]).expect_code(65);
    assert!(refusals(&ran)[0].1.contains(problem), "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("s3cret"));
    // One invalid file in a list fails the run, as for kubectl; a file whose fields are not needed does not.
    let list = format!("{}:{}", good.display(), broken.display());
    let ran = Ran::of(desk.command("plan", &[]).env("KUBECONFIG", list));
    assert_eq!(ran.code, if problem.contains("current") { 0 } else { 65 }, "{}", ran.stderr);
    if ran.code == 65 {
        assert!(ran.stderr.contains("/broken is not a kubeconfig"), "{}", ran.stderr);
    }
}

#[test]
fn missing_files_are_reported() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "missing");
    for (kubeconfig, problem) in [("nothing", "cannot read"), ("", "cannot read")] {
        let ran = desk.ask("plan", kubeconfig, &[]).expect_code(65);
        assert!(refusals(&ran)[0].1.contains(problem), "{}", ran.stderr);
    }
    let ran = Ran::of(desk.command("plan", &[]).env("KUBECONFIG", "/nowhere/a:/nowhere/b")).expect_code(65);
    assert!(refusals(&ran)[0].1.contains("no file of KUBECONFIG exists"), "{}", ran.stderr);
    for (user, file) in [
        (json!({"tokenFile": "gone"}), "gone"),
        (json!({"client-certificate": "gone.crt", "client-key": "gone.key"}), "gone.crt"),
    ] {
        desk.kubeconfig("config", &cluster(cp), &user);
        let ran = desk.ask("plan", "config", &[]).expect_code(65);
        assert!(refusals(&ran)[0].1.contains(&format!("{file}: No such file")), "{}", ran.stderr);
    }
}

#[test]
fn context_is_selected_like_kubectl() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "contexts");
    let document = json!({
        "current-context": "nobody",
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "admin"}},
            {"name": "nobody", "context": {"cluster": "here", "user": "gone"}},
            {"name": "nowhere", "context": {"cluster": "gone", "user": "admin"}},
        ],
        "clusters": [{"name": "here", "cluster": cluster(cp)}],
        "users": [{"name": "admin", "user": admin(cp)}],
    });
    desk.put("config", &document.to_string());
    desk.ask("plan", "config", &["--context", "here"]).expect_code(0);
    for (more, problem) in [
        (&[][..], "no user `gone`"),
        (&["--context", "nowhere"][..], "no cluster `gone`"),
        (&["--context", "else"][..], "no context `else`; it has the contexts here, nobody, nowhere"),
    ] {
        let ran = desk.ask("plan", "config", more).expect_code(65);
        assert_eq!(code(&ran), "input-refused");
        assert!(refusals(&ran)[0].1.contains(problem), "{}", ran.stderr);
    }
}

#[test]
fn login_uses_the_same_user_as_kubectl() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "who");
    let alice = cp.client_certificate("alice", &["system:masters"]);
    desk.put("alice.crt", &alice.certificate);
    desk.put("alice.key", &alice.key);
    desk.put("token", &format!("{}\n\n", cp.admin().token));
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let script = desk.script("never", "touch \"$0.ran\"; exit 1");
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": script, "interactiveMode": "Never"});
    for (user, name) in [
        (json!({"token": cp.admin().token}), cp.admin().user.as_str()),
        (json!({"token": "stale", "tokenFile": "token"}), cp.admin().user.as_str()),
        (json!({"client-certificate": "alice.crt", "client-key": "alice.key"}), "alice"),
        (
            json!({"client-certificate-data": base64(&alice.certificate), "client-key-data": base64(&alice.key)}),
            "alice",
        ),
        // The server checks the certificate first.
        (json!({"client-certificate": "alice.crt", "client-key": "alice.key", "token": cp.admin().token}), "alice"),
        (json!({"token": cp.admin().token, "exec": exec}), cp.admin().user.as_str()),
        (json!({"token": cp.admin().token, "as": "carol", "as-groups": ["system:masters"]}), "carol"),
    ] {
        desk.kubeconfig("config", &cluster(cp), &user);
        assert_eq!(whoami(desk.kubectl(cp, "config", &[])), name, "{user}");
        let acting = user.get("as").is_some();
        let mark = cp.audit().mark();
        desk.ask("provision", "config", &[]).expect_code(0);
        let seen = cp.audit().of(if acting { &cp.admin().user } else { name }, mark);
        assert!(!seen.is_empty(), "{name} was seen by the server");
    }
    assert!(!desk.path("never.ran").exists(), "an exec plugin runs only without another login");
}

#[test]
fn impersonation_is_applied() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "acting");
    desk.kubeconfig("config", &cluster(cp), &json!({"token": cp.admin().token, "as": "nobody-at-all"}));
    let ran = desk.ask("provision", "config", &[]).expect_code(77);
    assert_eq!(code(&ran), "missing-permission");
}

#[rstest]
#[case::password(json!({"username": "me", "password": "s3cret-s3cret"}), "/user/username", "not supported")]
#[case::provider(json!({"auth-provider": {"name": "gcp", "config": {"access-token": "s3cret-s3cret"}}}), "/user/auth-provider", "kubelogin")]
#[case::nothing(json!({}), "/user", "has no supported login")]
#[case::empty(json!({"token": ""}), "/user", "has no supported login")]
#[case::token(json!({"token": "s3cret s3cret"}), "/user/token", "contains whitespace")]
#[case::impersonation(json!({"token": "abc", "as": "s3cret\ns3cret"}), "/user/as", "not allowed in an HTTP header")]
#[case::no_key(json!({"client-certificate-data": "aGVsbG8="}), "/user/client-certificate", "has no client-key")]
#[case::no_pem(json!({"client-certificate-data": "aGVsbG8=", "client-key-data": "aGVsbG8="}), "/user/client-certificate", "not a certificate in PEM format")]
#[case::no_base64(json!({"client-certificate-data": "s3cret!", "client-key-data": "s3cret!"}), "/user/client-certificate", "base64")]
#[case::old_api(json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}), "/user/exec/apiVersion", "v1beta1")]
#[case::no_command(json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}}), "/user/exec/command", "is missing")]
#[case::no_terminal(json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "interactiveMode": "Always"}}),
    "/user/exec/interactiveMode", "is not a terminal")]
fn unsupported_login_is_located(#[case] user: Value, #[case] pointer: &str, #[case] problem: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "refused");
    desk.kubeconfig("config", &cluster(cp), &user);
    let ran = desk.ask("plan", "config", &[]).expect_code(65);
    let found = refusals(&ran);
    assert!(found.len() == 1 && found[0].0 == pointer && found[0].1.contains(problem), "{found:?}");
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("s3cret"));
}

#[test]
fn client_certificate_must_match_its_key() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "pair");
    desk.put("one.crt", &cp.client_certificate("one", &[]).certificate);
    desk.put("two.key", &cp.client_certificate("two", &[]).key);
    desk.kubeconfig("config", &cluster(cp), &json!({"client-certificate": "one.crt", "client-key": "two.key"}));
    let ran = desk.ask("plan", "config", &[]).expect_code(65);
    assert!(refusals(&ran)[0].1.contains("belongs to another certificate"), "{}", ran.stderr);
    assert!(!desk.kubectl(cp, "config", &[]).status.success());
    // Valid, but signed by a CA that the server does not know.
    let stranger = ClientCertificate::with_unknown_ca("alice");
    desk.put("alice.crt", &stranger.certificate);
    desk.put("alice.key", &stranger.key);
    desk.kubeconfig("config", &cluster(cp), &json!({"client-certificate": "alice.crt", "client-key": "alice.key"}));
    assert_eq!(code(&desk.ask("plan", "config", &[]).expect_code(69)), "unauthorized");
}

#[rstest]
#[case::insecure("insecure-skip-tls-verify", json!(true), "any server could receive the credential")]
#[case::name("tls-server-name", json!("s3cret s3cret"), "a DNS name or an IP address")]
#[case::proxy("proxy-url", json!("me:s3cret@proxy"), "http://, https:// or socks5://")]
#[case::ca("certificate-authority-data", json!("s3cret!"), "is not base64")]
#[case::server("server", json!("http://127.0.0.1"), "a token is never sent unencrypted")]
#[case::no_server("server", json!(""), "is missing")]
fn unusable_cluster_entry_is_located(#[case] field: &str, #[case] value: Value, #[case] problem: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "refused");
    let mut cluster = cluster(cp);
    cluster[field] = value;
    desk.kubeconfig("config", &cluster, &admin(cp));
    let ran = desk.ask("plan", "config", &[]).expect_code(65);
    let found = refusals(&ran);
    assert!(found.len() == 1 && found[0].0 == format!("/cluster/{field}") && found[0].1.contains(problem), "{found:?}");
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("s3cret"));
}

#[test]
fn platform_mode_ignores_kubeconfig_of_the_environment() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "platform");
    let kubeconfig = desk.kubeconfig(".kube/config", &cluster(cp), &admin(cp));
    let mut command = binary();
    command.env("HOME", desk.directory.path()).env("KUBECONFIG", kubeconfig).current_dir(desk.directory.path());
    let ran = Ran::of(command.env("MASSDRIVER_DEPLOYMENT_ACTION", "plan")).expect_code(65);
    assert!(ran.stderr.contains("neither ./dependencies.json nor ./connections.json"), "{}", ran.stderr);
}

/// A kubeconfig in YAML, one field per line, that ends with this field of its user.
fn lines(cp: &ControlPlane, user: &str) -> String {
    format!(
        "kind: Config\ncurrent-context: here\ncontexts:\n- name: here\n  context: {{cluster: here, user: me}}\n\
         clusters:\n- name: here\n  cluster:\n    server: {}\n    certificate-authority-data: {}\n\
         users:\n- name: me\n  user:\n    {user}\n",
        cp.server(),
        cp.ca_base64(),
    )
}

#[rstest]
#[case::type_of_a_field(
    "token: 5",
    "/user/token",
    "token must be a string, but is a number (quote it if a string is meant) (user `me`, line 14 of "
)]
#[case::groups_alone(
    "{token: abc, as-groups: [viewers]}",
    "/user/as",
    "as is missing, but as-uid, as-groups and as-user-extra require it"
)]
#[case::uid_alone("{token: abc, as-uid: a}", "/user/as", "as is missing")]
#[case::extra_alone("{token: abc, as-user-extra: {a: [b]}}", "/user/as", "as is missing")]
#[case::masked_token("token: REDACTED", "/user/token", "`kubectl config view --raw` (user `me`, line 14 of ")]
#[case::masked_key(
    "{client-certificate: x, client-key-data: DATA+OMITTED}",
    "/user/client-key-data",
    "config view --raw"
)]
#[case::mode(
    "exec: {apiVersion: client.authentication.k8s.io/v1, command: x}",
    "/user/exec/interactiveMode",
    "interactiveMode is missing"
)]
#[case::variable(
    "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Never, env: [{value: s3cret}]}",
    "/user/exec/env/0",
    "has no name"
)]
fn invalid_user_is_reported_with_field_and_line(#[case] user: &str, #[case] pointer: &str, #[case] problem: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "broken-user");
    desk.put("config", &lines(cp, user));
    let ran = desk.ask("plan", "config", &[]).expect_code(65);
    let found = refusals(&ran);
    assert!(found.iter().any(|(at, text)| at == pointer && text.contains(problem)), "{found:?}");
    assert!(found.iter().all(|(_, text)| text.contains("user `me`, line 14 of ")), "{found:?}");
    // verify reads kubeconfigs the same way.
    let mut command = crate::support::binary();
    let ran = Ran::of(command.args(["verify", "--json"]).arg(desk.path("config"))).expect_code(65);
    assert_eq!(refusals(&ran).iter().filter(|(at, _)| at == pointer).count(), 1, "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("s3cret"));
}

#[test]
fn two_kubeconfigs_in_one_file_are_a_finding() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "pasted");
    let good = lines(cp, &format!("token: {}", cp.admin().token));
    let other = good.replace("here", "there").replace("127.0.0.1", "127.0.0.9");
    for (text, told) in [
        (format!("{other}{good}"), "again at line 15: the last one is used"),
        (format!("{good}---\n{other}"), "another document begins at line 15: only the first one is used"),
    ] {
        desk.put("config", &text);
        let ran = desk.ask("plan", "config", &[]).expect_code(0);
        let document = ran.document();
        let finding = &document["findings"][0];
        assert_eq!(
            (&finding["code"], &finding["severity"]),
            (&json!("kubeconfig-in-parts"), &json!("low")),
            "{document}"
        );
        assert!(finding["message"].as_str().unwrap().contains(told), "{finding}");
    }
}

#[test]
fn redacted_kubectl_output_is_recognized() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "masked");
    let cluster = json!({"server": cp.server(), "certificate-authority-data": "DATA+OMITTED"});
    let document = json!({"authentication": {"cluster": cluster, "user": {"token": "REDACTED"}}});
    let path = desk.put("connection.json", &document.to_string());
    let ran = Ran::of(desk.command("plan", &[]).arg("--connection").arg(path)).expect_code(65);
    let found = refusals(&ran);
    assert!(
        found.len() == 2 && found.iter().all(|(_, text)| text.contains("`kubectl config view --raw`")),
        "{found:?}"
    );
}

#[test]
fn pod_without_kubeconfig_gets_a_hint() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "pod");
    for variable in [("HOME", "/nowhere"), ("KUBECONFIG", "/nowhere/config"), ("KUBECONFIG", "")] {
        let mut command = desk.command("plan", &[]);
        let ran =
            Ran::of(command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env(variable.0, variable.1)).expect_code(65);
        assert!(
            refusals(&ran)[0].1.contains("runs in a pod") && ran.stderr.contains("--connection FILE"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn long_context_list_is_truncated() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "many");
    let names = (10..40).map(|number| json!({"name": format!("c{number}\u{1b}[31m")}));
    desk.put("config", &json!({"contexts": names.collect::<Vec<_>>()}).to_string());
    let ran = desk.ask("plan", "config", &["--context", "c"]).expect_code(65);
    let text = &refusals(&ran)[0].1;
    assert!(text.contains("no context `c`; it has the contexts c10") && text.ends_with("and 20 more"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}
