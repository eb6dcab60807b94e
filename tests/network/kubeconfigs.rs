//! Kubeconfigs are accepted and refused as by kubectl: hundreds of files, each made from a valid one by one change, are
//! read by the program and by kubectl. Both accept the same files, and log in as the same user at the same server;
//! docs/kubeconfigs.md lists every difference.

#![allow(clippy::too_many_lines, reason = "a table is as long as it is")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::ControlPlane;

use crate::support::{NAME, Ran, binary};

/// One kubeconfig, or a list of them.
struct Case {
    /// The change.
    name: String,
    files: Vec<(&'static str, Vec<u8>)>,
    /// KUBECONFIG instead of `--kubeconfig`; `@` is replaced by the directory.
    list: Option<&'static str>,
}

impl Case {
    fn of(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), files: vec![("config", text.into())], list: None }
    }
}

/// The result of a case: why it was refused, or the user.
type Outcome = Result<String, String>;

/// A directory with the files that logins refer to.
struct Desk {
    directory: tempfile::TempDir,
    namespace: String,
}

impl Desk {
    fn new(cp: &ControlPlane) -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap(), namespace: cp.namespace("kubeconfigs") };
        let alice = cp.client_certificate("alice", &["system:masters"]);
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        desk.put("params.json", json!({"namespace": desk.namespace, "rules": rules}).to_string().as_bytes());
        desk.put("alice.crt", alice.certificate.as_bytes());
        desk.put("alice.key", alice.key.as_bytes());
        desk.put("ca.pem", cp.ca_pem().as_bytes());
        desk.put("token", format!("{}\n", cp.admin().token).as_bytes());
        let printed = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": cp.admin().token}});
        desk.put("login", format!("#!/bin/sh\necho '{printed}'\n").as_bytes());
        fs::set_permissions(desk.path("login"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(desk.path("directory")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn set_environment(&self, command: &mut Command, case: &Case) {
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path("nowhere")).stdin(Stdio::null());
        match case.list {
            Some(list) => command.env("KUBECONFIG", list.replace('@', self.directory.path().to_str().unwrap())),
            None => command.arg("--kubeconfig").arg(self.path("config")),
        };
    }

    /// Runs both programs.
    fn run(&self, cp: &ControlPlane, case: &Case) -> (Outcome, Outcome, Ran) {
        for (name, bytes) in &case.files {
            self.put(name, bytes);
        }
        let mut kubectl = Command::new(cp.kubectl_path());
        self.set_environment(&mut kubectl, case);
        kubectl.args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
        let output = kubectl.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let theirs = if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) };

        let mut command = binary();
        command.args(["plan", "--json", "--name", NAME, "--params"]).arg(self.path("params.json"));
        let mark = fs::metadata(cp.audit().path()).unwrap().len();
        self.set_environment(&mut command, case);
        let ran = Ran::of(&mut command);
        let ours = if ran.code == 0 {
            let document = ran.document();
            let server = document["server"].as_str().unwrap_or_default();
            assert_eq!(server.trim_end_matches('/'), cp.server(), "{}", case.name);
            Ok(user_in(&self.namespace, cp, mark).unwrap_or_else(|| panic!("{}: no request was seen", case.name)))
        } else {
            Err(format!("{}: {}", ran.code, ran.stderr))
        };
        for (name, _) in &case.files {
            fs::remove_file(self.path(name)).unwrap();
        }
        (theirs, ours, ran)
    }
}

/// The user of a request in this namespace, by the audit log from this offset on. The log is written at the same time:
/// an incomplete line is ignored.
fn user_in(namespace: &str, cp: &ControlPlane, from: u64) -> Option<String> {
    let mut file = fs::File::open(cp.audit().path()).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let events = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    events.filter(|event| event["objectRef"]["namespace"] == namespace).find_map(|event| {
        let user = event.pointer("/impersonatedUser/username").or_else(|| event.pointer("/user/username"));
        user.and_then(Value::as_str).map(str::to_owned)
    })
}

/// Valid logins.
fn logins(cp: &ControlPlane) -> Vec<(&'static str, Value)> {
    let alice = cp.client_certificate("alice", &["system:masters"]);
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "interactiveMode": "Never",
        "args": ["a"], "env": [{"name": "A", "value": "b"}], "provideClusterInfo": true, "installHint": "get it"});
    vec![
        ("token", json!({"token": cp.admin().token})),
        (
            "certificate",
            json!({"client-certificate-data": STANDARD.encode(&alice.certificate), "client-key-data": STANDARD.encode(&alice.key)}),
        ),
        ("exec", json!({ "exec": exec })),
        ("file", json!({"tokenFile": "token"})),
    ]
}

/// A kubeconfig with the current context and another one.
fn good(cp: &ControlPlane, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "preferences": {"colors": true}, "extensions": [],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "here", "namespace": "shop", "extensions": []}},
            {"name": "other", "context": {"cluster": "other", "user": "other", "namespace": "shop"}},
        ],
        "clusters": [
            {"name": "here", "cluster": {"server": cp.server(), "certificate-authority-data": cp.ca_base64(),
                "tls-server-name": "127.0.0.1", "proxy-url": "", "disable-compression": true,
                "insecure-skip-tls-verify": false, "extensions": [{"name": "a", "extension": {"b": 1}}]}},
            {"name": "other", "cluster": {"server": "https://127.0.0.1:1", "certificate-authority": "gone.pem"}},
        ],
        "users": [
            {"name": "here", "user": user},
            {"name": "other", "user": {"token": "other", "as": "nobody", "as-groups": ["a"], "client-certificate": "gone",
                "auth-provider": {"name": "gcp", "config": {"a": "b"}},
                "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "args": [], "env": []}}},
        ],
    })
}

/// The locations of single changes.
fn pointers(document: &Value, at: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(map) => {
            for (key, value) in map {
                let pointer = format!("{at}/{key}");
                found.push(pointer.clone());
                pointers(value, &pointer, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// The document with another value at this location; without the field, if there is none.
fn changed(document: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut document = document.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(key.to_owned(), value),
        None => parent.remove(key),
    };
    document
}

fn mutations(cp: &ControlPlane, cases: &mut Vec<Case>) {
    let values = [
        ("null", json!(null)),
        ("empty", json!("")),
        ("number", json!(5)),
        ("truth", json!(true)),
        ("list", json!(["x"])),
        ("mapping", json!({})),
        ("empty list", json!([])),
    ];
    for (index, (login, user)) in logins(cp).into_iter().enumerate() {
        let document = good(cp, &user);
        cases.push(Case::of(format!("{login}: as it is"), document.to_string()));
        let mut places = Vec::new();
        pointers(&document, "", &mut places);
        for place in places {
            let is_unused = ["/contexts/1", "/clusters/1", "/users/1"].iter().any(|entry| place.starts_with(entry));
            // Fields that all logins share are changed for one of them.
            if index != 0 && !place.starts_with("/users/0/user/") {
                continue;
            }
            for (what, value) in &values {
                if is_unused && !["null", "number"].contains(what) {
                    continue;
                }
                let text = changed(&document, &place, Some(value.clone())).to_string();
                cases.push(Case::of(format!("{login}: {place} is {what}"), text));
            }
            if !is_unused {
                cases.push(Case::of(
                    format!("{login}: {place} is absent"),
                    changed(&document, &place, None).to_string(),
                ));
                // The same field again with another value: the later one counts.
                let key = place.rsplit('/').next().unwrap();
                let marker = format!("{key}\u{1}");
                let parent = &place[..place.len() - key.len()];
                let twice = changed(&document, &format!("{parent}{marker}"), Some(json!("again")));
                let again = serde_json::to_string(&marker).unwrap();
                let text = twice.to_string().replace(&again, &serde_json::to_string(key).unwrap());
                cases.push(Case::of(format!("{login}: {place} stands twice"), text));
            }
        }
    }
}

/// Fields of the selected user that a login does not have already.
fn users(cp: &ControlPlane, cases: &mut Vec<Case>) {
    let token = cp.admin().token.clone();
    let v1 = "client.authentication.k8s.io/v1";
    for (index, more) in [
        json!({"as": "carol", "as-groups": ["system:masters"]}),
        json!({"as": "carol", "as-groups": ["system:masters"], "as-uid": "7", "as-user-extra": {"Scopes/a": ["x", "y"]}}),
        json!({"as-groups": ["viewers"]}),
        json!({"as-uid": "7"}),
        json!({"as-user-extra": {"a": ["b"]}}),
        json!({"as-user-extra": {"a": []}}),
        json!({"as-user-extra": {}, "as-groups": [], "as-uid": "", "as": ""}),
        json!({"as": 5}),
        json!({"as-groups": "viewers"}),
        json!({"as-groups": [5]}),
        json!({"as-user-extra": {"a": "b"}}),
        json!({"token": "REDACTED"}),
        json!({"token": format!("{token} ")}),
        json!({"token": format!("{token}\n")}),
        json!({"tokenFile": "token", "token": "stale"}),
        json!({"tokenFile": "gone"}),
        json!({"tokenFile": "gone", "token": ""}),
        json!({"tokenFile": "directory", "token": ""}),
        json!({"username": "me", "password": "x"}),
        json!({"username": "me"}),
        json!({"password": "x"}),
        json!({"username": "", "password": ""}),
        json!({"username": 5}),
        json!({"client-key-data": "aGk="}),
        json!({"client-key": "gone"}),
        json!({"client-certificate": "gone", "client-key": "gone"}),
        json!({"client-certificate": "alice.crt", "client-key": "alice.key"}),
        json!({"client-certificate": "./directory/../alice.crt", "client-key": "alice.key", "token": null}),
        json!({"client-certificate": "alice.crt", "token": null}),
        json!({"client-certificate": "alice.crt", "client-key": "alice.key", "client-key-data": "aGk="}),
        json!({"client-certificate": "alice.crt", "client-key": "alice.key", "client-certificate-data": "aGk="}),
        json!({"client-certificate": "alice.crt", "client-key": "alice.key", "username": "me", "password": "x", "token": null}),
        json!({"client-certificate-data": "DATA+OMITTED", "client-key-data": "DATA+OMITTED", "token": null}),
        json!({"auth-provider": {"name": "gcp", "config": null}}),
        json!({"auth-provider": {"name": "gcp"}, "token": null}),
        json!({"auth-provider": null}),
        json!({"auth-provider": {}}),
        json!({"auth-provider": {"name": "oidc", "config": {"idp-issuer-url": "https://127.0.0.1:1", "client-id": "a"}}}),
        json!({"exec": {}}),
        json!({"exec": {"apiVersion": v1, "command": "./login"}}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Never"}}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": ""}, "token": null}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Sometimes"}, "token": null}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Always"}, "token": null}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Never", "env": [{"value": "x"}]}, "token": null}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Never", "env": [null]}, "token": null}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Never", "args": [null], "env": null}, "token": null}),
        json!({"exec": {"apiVersion": v1, "command": "./gone", "interactiveMode": "Never"}, "token": null}),
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "./login"}}),
        json!({"exec": {"apiVersion": v1, "command": "./login", "interactiveMode": "Never"}, "auth-provider": {"name": "gcp"}, "token": null}),
        json!({"unknown": {"a": [1]}, "Token": "x", "TOKEN": 5}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut user = json!({"token": token});
        for (key, value) in more.as_object().unwrap() {
            user[key] = value.clone();
        }
        cases.push(Case::of(format!("user {index}: {}", more.to_string().replace(&token, "TOKEN")), good(cp, &user).to_string()));
    }
}

fn clusters(cp: &ControlPlane, cases: &mut Vec<Case>) {
    let ca = cp.ca_base64();
    let wrapped = format!("{}\n{}", &ca[..64], &ca[64..]);
    let spaced = format!("{} {}", &ca[..64], &ca[64..]);
    let (host, address) = (cp.server().to_owned(), cp.server().trim_start_matches("https://").to_owned());
    for (what, field, value) in [
        ("wrapped", "certificate-authority-data", json!(wrapped)),
        ("with a blank", "certificate-authority-data", json!(spaced)),
        ("printed without --raw", "certificate-authority-data", json!("DATA+OMITTED")),
        ("no base64", "certificate-authority-data", json!("!")),
        ("no PEM", "certificate-authority-data", json!("aGk=")),
        ("beside the data", "certificate-authority", json!("ca.pem")),
        ("gone", "certificate-authority", json!("gone.pem")),
        ("false", "insecure-skip-tls-verify", json!(false)),
        ("beside a CA", "insecure-skip-tls-verify", json!(true)),
        ("in words", "insecure-skip-tls-verify", json!("false")),
        ("no URL", "proxy-url", json!("me@proxy")),
        ("another scheme", "proxy-url", json!("ftp://127.0.0.1:1")),
        ("wrong", "tls-server-name", json!("example.com")),
        ("without scheme", "server", json!(address)),
        ("http", "server", json!(format!("http://{address}"))),
        ("with a slash", "server", json!(format!("{host}/"))),
        ("with a blank", "server", json!(format!("{host} "))),
        ("an extension without a name", "extensions", json!([{"extension": 1}])),
        ("an extension without anything", "extensions", json!([{"name": "a"}])),
        ("an extension that is none", "extensions", json!([5])),
        ("unknown", "unknown", json!(5)),
    ] {
        let document = changed(&good(cp, &logins(cp)[0].1), &format!("/clusters/0/cluster/{field}"), Some(value));
        cases.push(Case::of(format!("cluster: {field} is {what}"), document.to_string()));
    }
    for (what, field, value) in [
        ("certificate-authority alone", "certificate-authority", json!("ca.pem")),
        ("insecure-skip-tls-verify alone", "insecure-skip-tls-verify", json!(true)),
    ] {
        let document = changed(&good(cp, &logins(cp)[0].1), "/clusters/0/cluster/certificate-authority-data", None);
        let document = changed(&document, &format!("/clusters/0/cluster/{field}"), Some(value));
        cases.push(Case::of(format!("cluster: {what}"), document.to_string()));
    }
}

/// The file as a whole: notation, encoding, documents, aliases.
fn texts(cp: &ControlPlane, cases: &mut Vec<Case>) {
    let (server, ca, token) = (cp.server(), cp.ca_base64(), cp.admin().token.as_str());
    let yaml = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts:\n- name: here\n  context: {{cluster: here, user: here}}\n\
         clusters:\n- name: here\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\nusers:\n- name: here\n  user:\n    token: {token}\n"
    );
    let other = yaml.replace("127.0.0.1", "127.0.0.9").replace("here", "there");
    let json = good(cp, &logins(cp)[0].1).to_string();
    let wide = |unit: fn(u16) -> [u8; 2], text: &str| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let mut deep = |what: &str, levels: usize| {
        let text = format!("{yaml}unknown: {}{}\n", "[".repeat(levels), "]".repeat(levels));
        cases.push(Case::of(format!("text: {what}"), text));
    };
    deep("nested 300 levels deep", 300);
    deep("nested 5,000 levels deep", 5000);
    let inner = json.trim_end_matches('}');
    for (what, text) in [
        ("YAML", yaml.clone()),
        ("a token with blanks behind it", yaml.replace(&format!("token: {token}"), &format!("token: \"{token}  \""))),
        ("a token with a blank before it", yaml.replace(&format!("token: {token}"), &format!("token: \" {token}\""))),
        ("empty", String::new()),
        ("blank", "\n\n".to_owned()),
        ("a comment", "# nothing\n".to_owned()),
        ("null", "null".to_owned()),
        ("a word", "hello".to_owned()),
        ("a number", "5".to_owned()),
        ("a list", "[]".to_owned()),
        ("a mapping", "{}".to_owned()),
        ("kind of another document", yaml.replace("kind: Config", "kind: Secret")),
        ("another version", yaml.replace("apiVersion: v1", "apiVersion: v2")),
        ("a version in a group", yaml.replace("apiVersion: v1", "apiVersion: apps/v1")),
        ("Kind for kind", yaml.replace("kind: Config", "Kind: Secret")),
        ("current-Context", yaml.replace("current-context", "Current-Context")),
        ("pasted together, good last", format!("{other}{yaml}")),
        ("pasted together, good first", format!("{yaml}{other}")),
        ("pasted together in JSON", format!("{inner}{}", json.replacen('{', ",", 1)).replacen("]}\"", "]}\"", 1)),
        ("two JSON documents", format!("{json}{json}")),
        ("two JSON documents on two lines", format!("{json}\n{json}")),
        ("two documents, good first", format!("{yaml}---\n{other}")),
        ("two documents, good last", format!("---\n{other}---\n{yaml}")),
        ("an empty document first", format!("---\n---\n{yaml}")),
        ("a marker first", format!("---\n{yaml}")),
        ("an end marker", format!("{yaml}...\n")),
        ("a broken second document", format!("{yaml}---\n[\n")),
        ("a directive", format!("%YAML 1.1\n---\n{yaml}")),
        ("a directive of YAML 1.2", format!("%YAML 1.2\n---\n{yaml}")),
        ("CRLF", yaml.replace('\n', "\r\n")),
        ("byte order mark", format!("\u{feff}{yaml}")),
        ("NUL", format!("{yaml}# \0\n")),
        ("a bell", format!("{yaml}# \u{7}\n")),
        ("non-ASCII characters", yaml.replace("here", "h\u{e9}r\u{1f600}")),
        ("a tab for an indent", yaml.replace("    token", "\ttoken")),
        ("a tab before a comment", yaml.replace("kind: Config", "kind: Config\t# yes")),
        ("an unclosed quote", yaml.replace("kind: Config", "kind: \"Config")),
        ("a name that is a number", yaml.replace("here", "5")),
        ("a name that is a truth value in YAML 1.1", yaml.replace("here", "on")),
        ("a name that is a truth value, quoted", yaml.replace("here", "'on'")),
        ("a name that is a date", yaml.replace("here", "2026-11-28")),
        ("a name that is null", yaml.replace("here", "~")),
        ("a name with underscores", yaml.replace("here", "1_000")),
        ("a name in octal", yaml.replace("here", "0o17")),
        ("a name that is an address", yaml.replace("here", "10.0.0.1")),
        ("a name like a float", yaml.replace("here", "1e3")),
        ("a name like base 60", yaml.replace("here", "190:20")),
        ("a name that is a number by tag", yaml.replace("here", "!!str 5")),
        ("a tag that does not fit", yaml.replace("kind: Config", "kind: !!int Config")),
        ("a tag of another", yaml.replace("kind: Config", "kind: !mine Config")),
        ("a tag without a name", yaml.replace("kind: Config", "kind: ! Config")),
        ("a token in !!binary", yaml.replace(token, &format!("!!binary {}", STANDARD.encode(token)))),
        ("a token in a block", yaml.replace(token, &format!("|\n      {token}"))),
        ("a token in a stripped block", yaml.replace(token, &format!("|-\n      {token}"))),
        ("a token in a folded block", yaml.replace(token, &format!(">-\n      {token}"))),
        (
            "a token in two folded lines",
            yaml.replace(token, &format!(">-\n      {}\n      {}", &token[..9], &token[9..])),
        ),
        ("a CA in a block", yaml.replace(ca, &format!("|\n      {}\n      {}", &ca[..64], &ca[64..]))),
        ("a CA in a folded block", yaml.replace(ca, &format!(">\n      {}\n      {}", &ca[..64], &ca[64..]))),
        ("a CA in quotes over lines", yaml.replace(ca, &format!("\"{}\\\n      {}\"", &ca[..64], &ca[64..]))),
        ("an alias", format!("{}x: &t {token}\n", yaml.replace(token, "*t"))),
        ("an anchor before its alias", format!("x: &t {token}\n{}", yaml.replace(token, "*t"))),
        ("an anchor that is not there", yaml.replace(token, "*gone")),
        (
            "a merge key",
            format!("x: &u {{token: {token}}}\n{}", yaml.replace(&format!("    token: {token}"), "    <<: *u")),
        ),
        (
            "a merge key after",
            format!(
                "x: &u {{token: {token}}}\n{}",
                yaml.replace(&format!("token: {token}"), "token: stale\n    <<: *u")
            ),
        ),
        (
            "a merge key before",
            format!(
                "x: &u {{token: stale}}\n{}",
                yaml.replace(&format!("token: {token}"), &format!("<<: *u\n    token: {token}"))
            ),
        ),
        (
            "a merge list",
            format!(
                "x: &u {{token: {token}}}\ny: &v {{token: stale}}\n{}",
                yaml.replace(&format!("token: {token}"), "<<: [*u, *v]")
            ),
        ),
        ("a merge of no mapping", yaml.replace(&format!("token: {token}"), "<<: 5")),
        ("an anchor in itself", format!("{yaml}x: &x [*x]\n")),
        ("a key that is null", format!("{yaml}~: 5\n")),
        ("a key that is a list", format!("{yaml}? [a]\n: 5\n")),
        ("a key that is a number", format!("{yaml}5: 5\n")),
        ("no number at all", format!("{yaml}unknown: .nan\n")),
        (
            "a context twice",
            yaml.replace("contexts:\n", "contexts:\n- name: here\n  context: {cluster: here, user: here}\n"),
        ),
        ("a cluster twice", yaml.replace("clusters:\n", "clusters:\n- name: here\n  cluster: {server: x}\n")),
        ("a user twice", yaml.replace("users:\n", "users:\n- name: here\n  user: {token: x}\n")),
        (
            "another user twice",
            yaml.replace("users:\n", "users:\n- name: a\n  user: {token: x}\n- name: a\n  user: {token: x}\n"),
        ),
        (
            "no names at all",
            yaml.replace("name: here", "name: ''")
                .replace("cluster: here, user: here", "")
                .replace("current-context: here", ""),
        ),
        (
            "no contexts and no names",
            "clusters:\n- cluster: {server: S, certificate-authority-data: C}\nusers:\n- user: {token: T}\n"
                .replace("{server: S", &format!("{{server: {server}"))
                .replace("C}", &format!("{ca}}}"))
                .replace("T}", &format!("{token}}}")),
        ),
        ("an entry that is null", yaml.replace("users:\n", "users:\n- null\n")),
        ("an entry that is a text", yaml.replace("users:\n", "users:\n- hello\n")),
        ("an entry without a name", yaml.replace("users:\n", "users:\n- user: {token: x}\n")),
        ("an empty context", yaml.replace("contexts:\n", "contexts:\n- {}\n")),
        (
            "a provider without config",
            yaml.replace("users:\n", "users:\n- name: a\n  user: {auth-provider: {name: gcp, config: null}}\n"),
        ),
        (
            "a mode that is empty",
            yaml.replace("users:\n", "users:\n- name: a\n  user: {exec: {interactiveMode: ''}}\n"),
        ),
        (
            "an extension without one",
            yaml.replace("clusters:\n", "clusters:\n- name: a\n  cluster: {extensions: [{name: a}]}\n"),
        ),
        ("a very long name", yaml.replace("here", &"h".repeat(900))),
        ("quoted keys", yaml.replace("token:", "\"token\":")),
        ("comments everywhere", yaml.replace('\n', " # c\n")),
        ("trailing blanks", yaml.replace('\n', "  \n")),
        ("no line break at the end", yaml.trim_end().to_owned()),
        ("indented as a whole", format!("  {}\n", yaml.trim_end().replace('\n', "\n  "))),
        ("a form feed at the end", format!("{yaml}\u{c}")),
        ("JSON with tabs", json.replace("\"users\"", "\t\"users\"")),
        ("JSON with a comma too many", json.replace("\"kind\":\"Config\"", "\"kind\":\"Config\",")),
        ("JSON cut short", json[..json.len() - 2].to_owned()),
        ("JSON with escapes", json.replace("\"here\"", "\"h\\u0065re\"")),
    ] {
        cases.push(Case::of(format!("text: {what}"), text));
    }
    for (what, bytes) in [
        ("UTF-16 of a small end", [vec![0xff, 0xfe], wide(u16::to_le_bytes, &yaml)].concat()),
        ("UTF-16 of a big end", [vec![0xfe, 0xff], wide(u16::to_be_bytes, &yaml)].concat()),
        ("UTF-16 without a mark", wide(u16::to_le_bytes, &yaml)),
        ("Latin-1", [yaml.as_bytes(), b"# \xe9\n"].concat()),
        ("half a character of UTF-16", [vec![0xff, 0xfe], wide(u16::to_le_bytes, &yaml), vec![0x20]].concat()),
    ] {
        cases.push(Case::of(format!("text: {what}"), bytes));
    }
}

/// Lists of files.
fn lists(cp: &ControlPlane, cases: &mut Vec<Case>) {
    let entry = |list: &str, kind: &str, value: Value| json!({list: [{"name": "here", kind: value}]});
    let cluster = json!({"server": cp.server(), "certificate-authority": "ca.pem"});
    let up = json!({"server": cp.server(), "certificate-authority": "../ca.pem"});
    let context = json!({"current-context": "here", "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}]});
    let user = |token: &str| entry("users", "user", json!({"token": token}));
    let token = cp.admin().token.as_str();
    let parts = |cluster: &Value, user: Value| -> Vec<(&'static str, Vec<u8>)> {
        let bytes = |value: &Value| value.to_string().into_bytes();
        vec![("a", bytes(&context)), ("b", bytes(&entry("clusters", "cluster", cluster.clone()))), ("c", bytes(&user))]
    };
    let all = parts(&cluster, user(token));
    let mut add = |name: &str, list: &'static str, files: Vec<(&'static str, Vec<u8>)>| {
        cases.push(Case { name: format!("list: {name}"), files, list: Some(list) });
    };
    let with = |name: &'static str, text: &[u8]| [all.clone(), vec![(name, text.to_vec())]].concat();
    add("three parts", "@/a:@/b:@/c", all.clone());
    add("another order", "@/c:@/b:@/a", all.clone());
    add("a part that is missing", "@/a:@/b", all.clone());
    add("a file that is missing", "@/a:@/gone:@/b:@/c", all.clone());
    add("empty names", ":@/a::@/b:@/c:", all.clone());
    add("the same file twice", "@/a:@/a:@/b:@/c:@/c", all.clone());
    add("nothing but colons", "::", all.clone());
    add("no file that exists", "@/gone:@/none", all.clone());
    add("a directory", "@/a:@/directory:@/b:@/c", all.clone());
    add("a file below a file", "@/a:@/a/b:@/b:@/c", all.clone());
    add("a home that is not written out", "~/a:@/a:@/b:@/c", all.clone());
    add("the first user counts", "@/a:@/b:@/c:@/d", with("d", user("other").to_string().as_bytes()));
    add("the second user does not count", "@/d:@/a:@/b:@/c", with("d", user("other").to_string().as_bytes()));
    add("the first current context counts", "@/a:@/d:@/b:@/c", with("d", br#"{"current-context": "x"}"#));
    add("the second current context does not count", "@/d:@/a:@/b:@/c", with("d", br#"{"current-context": "x"}"#));
    add("an empty current context does not count", "@/d:@/a:@/b:@/c", with("d", br#"{"current-context": ""}"#));
    add("a broken file", "@/a:@/b:@/c:@/d", with("d", b"{"));
    add("another kind of file", "@/a:@/b:@/c:@/d", with("d", br#"{"kind": "Secret", "apiVersion": "v1"}"#));
    add("an empty file", "@/a:@/b:@/c:@/d", with("d", b""));
    add("a file relative to its own", "@/a:@/sub/b:@/c", {
        let mut files = parts(&up, user(token));
        files[1].0 = "sub/b";
        files
    });
    add("a file relative to another one", "@/a:@/sub/b:@/c", {
        let mut files = parts(&cluster, user(token));
        files[1].0 = "sub/b";
        files
    });
}

/// The remaining differences, as the page lists them: the change, and why the programs differ.
fn differences() -> BTreeMap<String, String> {
    let page = fs::read_to_string("docs/kubeconfigs.md").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once("` | "));
    rows.map(|(pattern, reason)| (pattern.to_owned(), reason.to_owned())).collect()
}

fn is_of(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None => name == pattern,
    }
}

#[test]
fn kubeconfigs_are_accepted_and_refused_like_kubectl() {
    let cp = ControlPlane::shared();
    let mut cases = Vec::new();
    mutations(cp, &mut cases);
    users(cp, &mut cases);
    clusters(cp, &mut cases);
    texts(cp, &mut cases);
    lists(cp, &mut cases);
    let count = cases.len();
    assert!(count >= 300, "only {count} files");
    let (queue, found) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let desk = Desk::new(cp);
                loop {
                    let Some(case) = queue.lock().unwrap().pop() else { break };
                    let (theirs, ours, ran) = desk.run(cp, &case);
                    assert!(
                        !ran.stdout.contains(&cp.admin().token) && !ran.stderr.contains(&cp.admin().token),
                        "{}",
                        case.name
                    );
                    found.lock().unwrap().push((case.name, theirs, ours));
                }
            });
        }
    });
    let (found, known) = (found.into_inner().unwrap(), differences());
    let accepted = found.iter().filter(|(_, _, ours)| ours.is_ok()).count();
    let mut unmet: Vec<&String> = known.keys().collect();
    let mut problems = Vec::new();
    for (name, theirs, ours) in &found {
        let same = match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        let reason = known.keys().find(|pattern| is_of(name, pattern));
        match (same, reason) {
            (true, _) => {}
            (false, Some(pattern)) => unmet.retain(|other| *other != pattern),
            (false, None) => problems.push(format!("{name}\n  kubectl: {theirs:?}\n  k8s-token: {ours:?}")),
        }
        // A file is refused before the first packet, except for what only the server can check.
        if let Err(problem) = ours {
            assert!(problem.starts_with("65") || problem.starts_with("69"), "{name}: {problem}");
        }
    }
    problems.sort();
    assert!(problems.is_empty(), "{} of {count} differ:\n{}", problems.len(), problems.join("\n"));
    assert!(unmet.is_empty(), "docs/kubeconfigs.md lists differences that do not exist: {unmet:?}");
    assert!(accepted > 100 && count - accepted > 100, "{accepted} of {count} were accepted");
}

#[test]
fn kubeconfigs_of_two_instances_can_be_merged() {
    let cp = ControlPlane::shared();
    let directory = tempfile::tempdir().unwrap();
    let personas = [cp.persona("one", &[]), cp.persona("two", &[])];
    let paths: Vec<String> = personas
        .iter()
        .map(|persona| {
            let artifact = directory.path().join("artifact.json");
            fs::write(&artifact, persona.connection().to_string()).unwrap();
            let text = Ran::of(binary().arg("kubeconfig").arg(&artifact)).expect_code(0).stdout;
            let path = directory.path().join(persona.user.replace(':', "-"));
            fs::write(&path, text).unwrap();
            path.display().to_string()
        })
        .collect();
    let host = cp.server().trim_start_matches("https://");
    for persona in &personas {
        let [.., namespace, account] = persona.user.split(':').collect::<Vec<_>>()[..] else {
            panic!("a ServiceAccount")
        };
        let context = format!("{account}.{namespace}@{host}");
        let mut kubectl = Command::new(cp.kubectl_path());
        kubectl.env_clear().env("HOME", directory.path()).env("KUBECONFIG", paths.join(":")).stdin(Stdio::null());
        kubectl.args(["--context", &context, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
        let output = kubectl.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), persona.user, "{output:?}");
    }
}
