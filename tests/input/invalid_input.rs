//! Unusual input: refused input is located before the first packet, accepted input works on the real server, and
//! decommission ignores invalid input that is irrelevant to it.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Era, InterceptingProxy, RefusedPort, SilentServer, Verdict, WrongCa};

use crate::support::{Instance, NAME, OBJECT, Ran, Shape, binary, paths, status, token_of, versions};

fn control_plane() -> &'static ControlPlane {
    ControlPlane::shared()
}

/// An instance that was never provisioned.
fn instance(stem: &str) -> Instance {
    Instance::new(control_plane().admin(), &control_plane().namespace(stem))
}

/// Sets a value in a document of the instance: `/params/namespace`.
fn set(instance: &mut Instance, place: &str, value: Value) {
    let mut all = json!({"params": instance.params, "connection": instance.connection, "config": instance.config});
    let (parent, key) = place.rsplit_once('/').unwrap();
    match all.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        object => object[key] = value,
    }
    let mut take = |document: &str| all[document].take();
    (instance.params, instance.connection, instance.config) = (take("params"), take("connection"), take("config"));
}

/// Runs with other bytes as one document, or with something else at its path.
fn with_file(instance: &Instance, action: &str, names: &[&str], make: impl Fn(&std::path::Path)) -> Ran {
    let mut command = instance.command(action, &[]);
    for name in names {
        let path = instance.path(name);
        let _ = std::fs::remove_file(&path);
        make(&path);
    }
    Ran::of(&mut command)
}

const CONNECTION: [&str; 2] = ["dependencies.json", "connections.json"];

/// A finding of the document, if there is one.
fn finding<'a>(document: &'a Value, code: &str, pointer: Option<&str>) -> Option<&'a Value> {
    let findings = document["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["code"] == code && finding["pointer"].as_str() == pointer)
}

/// Checks that the run was refused for this reason, before the first packet.
#[track_caller]
fn expect_refused(ran: &Ran, code: &str, pointer: Option<&str>, message: &str) {
    assert_eq!(ran.code, 65, "{ran:#?}");
    let document = ran.document();
    assert_eq!((&document["error"]["code"], &document["requests"]), (&json!("input-refused"), &json!(0)));
    let finding = finding(&document, code, pointer).unwrap_or_else(|| panic!("no {code} at {pointer:?}: {document:#}"));
    assert_eq!(finding["blocking"], true, "{finding}");
    let text = format!("{} {}", finding["message"], finding["help"]);
    assert!(text.contains(message), "{message:?} is not in {text}");
    assert!(ran.stderr.contains(message), "{message:?} is not in the log:\n{}", ran.stderr);
}

fn utf_16(text: &str) -> Vec<u8> {
    "\u{feff}".chars().chain(text.chars()).flat_map(|char| (char as u16).to_le_bytes()).collect()
}

#[rstest]
#[case::empty(b"", "is empty")]
#[case::blank(b" \r\n", "is empty")]
#[case::cut_off(br#"{"namespace": "S3CRET"#, "is incomplete JSON: line 1, column 21")]
#[case::more_behind(b"{} S3CRET", "is not valid JSON: line 1, column 4")]
#[case::yaml(b"namespace: S3CRET", "is not valid JSON: line 1, column 2")]
#[case::nan(br#"{"a": NaN}"#, "is not valid JSON: line 1, column 7")]
#[case::huge_number(br#"{"a": 1e999}"#, "contains a number that is too large")]
#[case::latin_1(b"{\"a\": \"S3CRET\xe4\"}", "is not valid UTF-8 (at byte 13")]
fn invalid_json_is_reported_by_name_without_content(#[case] bytes: &[u8], #[case] sentence: &str) {
    let instance = instance("nodocument");
    let write = |path: &std::path::Path| std::fs::write(path, bytes).unwrap();
    for (names, told) in [(&["params.json"][..], "params.json"), (&CONNECTION, "dependencies.json")] {
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        let told = if blank && told == CONNECTION[0] { "neither ".to_owned() } else { format!("{told} {sentence}") };
        for action in ["plan", "decommission"] {
            let ran = with_file(&instance, action, names, write);
            expect_refused(&ran, "schema", Some(""), &told);
            assert!(!format!("{ran:?}").contains("S3CRET"), "{ran:?}");
        }
    }
    // config.json may be empty; if it cannot be read, it may contain another namespace.
    let ran = with_file(&instance, "decommission", &["config.json"], write);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        ran.expect_code(0);
    } else {
        expect_refused(&ran, "schema", Some(""), &format!("config.json {sentence}"));
    }
}

#[test]
fn directories_devices_and_oversized_files_are_refused() {
    let instance = instance("nofile");
    for names in [&["params.json"][..], &CONNECTION, &["config.json"]] {
        let ran = with_file(&instance, "plan", names, |path| std::fs::create_dir(path).unwrap());
        expect_refused(&ran, "schema", Some(""), &format!("{}: Is a directory", names[0]));
        for name in names {
            std::fs::remove_dir(instance.path(name)).unwrap();
        }
        let ran = with_file(&instance, "plan", names, |path| symlink("/dev/zero", path).unwrap());
        expect_refused(&ran, "schema", Some(""), &format!("{}: larger than 8 MiB", names[0]));
        let ran = with_file(&instance, "plan", names, |path| std::fs::write(path, utf_16("{}")).unwrap());
        expect_refused(&ran, "schema", Some(""), &format!("{} is UTF-16: save it as UTF-8", names[0]));
        let deep = "[".repeat(100_000);
        let ran = with_file(&instance, "plan", names, |path| std::fs::write(path, &deep).unwrap());
        expect_refused(&ran, "schema", Some(""), &format!("{} is nested deeper than 127 levels", names[0]));
    }
    let ran = with_file(&instance, "plan", &["params.json"], |_| ());
    expect_refused(&ran, "schema", Some(""), "params.json: No such file");
    let ran = with_file(&instance, "plan", &CONNECTION, |_| ());
    expect_refused(&ran, "schema", Some(""), "neither ");
}

#[test]
fn byte_order_mark_and_missing_config_are_accepted() {
    let instance = instance("mark");
    let marked = |path: &std::path::Path| {
        let document = match path.file_name().and_then(|name| name.to_str()) {
            Some("params.json") => instance.params.clone(),
            Some("config.json") => json!({}),
            _ => json!({"kubernetes_cluster": instance.connection}),
        };
        std::fs::write(path, format!("\u{feff}{document}\r\n")).unwrap();
    };
    let all = ["params.json", "config.json", "dependencies.json", "connections.json"];
    with_file(&instance, "plan", &all, marked).expect_code(0);
    for content in [None, Some("null"), Some("{}"), Some("\u{feff}")] {
        let write = |path: &std::path::Path| content.into_iter().for_each(|text| std::fs::write(path, text).unwrap());
        with_file(&instance, "plan", &["config.json"], write).expect_code(0);
    }
    // The platform writes both, and one of them may be empty.
    with_file(&instance, "plan", &["dependencies.json"], |path| std::fs::write(path, "null").unwrap()).expect_code(0);
    with_file(&instance, "plan", &["connections.json"], |_| ()).expect_code(0);
}

#[test]
fn named_pipe_is_read_and_can_be_interrupted() {
    let instance = instance("pipe");
    let (params, connection) = (instance.path("mine.json"), instance.path("theirs.json"));
    std::fs::write(&connection, instance.connection.to_string()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&params).status().unwrap().success());
    let start = || {
        let mut command = binary();
        command.args(["plan", "--json", "--name", NAME, "--connection"]).arg(&connection).arg("--params").arg(&params);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let child = start();
    std::fs::write(&params, instance.params.to_string()).unwrap(); // returns when the pipe is read
    Ran::from(child.wait_with_output().unwrap()).expect_code(0);
    let mut child = start();
    assert!(child.try_wait().unwrap().is_none());
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().signal(), Some(15), "no changes, so no state is reported");

    let mut command = binary();
    command.args(["plan", "--json", "--name", NAME, "--params", "-", "--connection"]).arg(&connection);
    let ran = Ran::of(command.stdin(std::fs::File::open("/dev/zero").unwrap()));
    expect_refused(&ran, "schema", Some(""), "cannot read stdin: larger than 8 MiB");
}

const SERVER: &str = "/kubernetes_cluster/authentication/cluster/server";
const CA: &str = "/kubernetes_cluster/authentication/cluster/certificate-authority-data";
const TOKEN: &str = "/kubernetes_cluster/authentication/user/token";

/// Location, value, code, pointer, and part of the message.
type Row = (&'static str, Value, &'static str, &'static str, &'static str);

#[track_caller]
fn expect_all_refused(rows: Vec<Row>) {
    for (place, value, code, pointer, message) in rows {
        let mut instance = Instance::new(control_plane().admin(), "default");
        instance.config = json!({"kubernetes_cluster": {"authentication": {"cluster": {}, "user": {}}}});
        let row = format!("{place} = {}", value.to_string().chars().take(80).collect::<String>());
        set(&mut instance, place, value);
        for action in ["plan", "provision"] {
            let ran = instance.ask(action, &[]);
            let pointer = Some(pointer).filter(|pointer| *pointer != "-");
            let check = std::panic::catch_unwind(|| expect_refused(&ran, code, pointer, message));
            assert!(check.is_ok(), "{row}");
            assert!(!ran.stdout.contains("S3CRET") && !ran.stderr.contains("S3CRET"), "{row}: {ran:?}");
        }
    }
}

#[test]
fn invalid_params_are_located() {
    const NO_OBJECT: &str = "the params must be of type object (type)";
    const MISSING: &str = "the field `namespace` is missing (required)";
    let rule = |key: &str, value: Value| {
        let mut rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        rule[key] = value;
        rule
    };
    let long = "S3CRET".repeat(10);
    expect_all_refused(vec![
        ("/params", json!(null), "schema", "", NO_OBJECT),
        ("/params", json!([]), "schema", "", NO_OBJECT),
        ("/params", json!("S3CRET"), "schema", "", NO_OBJECT),
        ("/params", json!(7), "schema", "", NO_OBJECT),
        ("/params", json!({}), "schema", "", MISSING),
        ("/params/namespace", json!(null), "schema", "/namespace", "must be of type string"),
        ("/params/namespace", json!(7), "schema", "/namespace", "must be of type string"),
        ("/params/namespace", json!(""), "schema", "/namespace", "must not be empty"),
        ("/params/namespace", json!("S3CRET team"), "schema", "/namespace", "lower-case letters"),
        ("/params/namespace", json!("a.b"), "schema", "/namespace", "lower-case letters"),
        ("/params/namespace", json!("team-a\n"), "schema", "/namespace", "lower-case letters"),
        ("/params/namespace", json!("\u{442}eam"), "schema", "/namespace", "lower-case letters"),
        ("/params/namespace", json!("n".repeat(64)), "schema", "/namespace", "at most 63 characters"),
        ("/params/namespace", json!("n".repeat(1 << 20)), "schema", "/namespace", "at most 63 characters"),
        ("/params/rules", json!(null), "schema", "/rules", "must be of type array"),
        ("/params/rules", json!({}), "schema", "/rules", "must be of type array"),
        ("/params/rules", json!([]), "schema", "/rules", "at least 1 item"),
        ("/params/rules/0", json!(null), "schema", "/rules/0", "must be of type object"),
        ("/params/rules/0", json!("S3CRET"), "schema", "/rules/0", "must be of type object"),
        ("/params/rules/0", json!({}), "schema", "/rules/0", "the field `verbs` is missing"),
        ("/params/rules/0/resources", json!([7]), "schema", "/rules/0/resources/0", "must be of type string"),
        ("/params/rules/0/resources", json!([null]), "schema", "/rules/0/resources/0", "must be of type string"),
        ("/params/rules/0/verbs", json!([]), "schema", "/rules/0/verbs", "at least 1 item"),
        ("/params/rules/0/verbs", json!(["get", "get"]), "schema", "/rules/0/verbs", "an item twice"),
        ("/params/rules/0/verbs", json!("get"), "schema", "/rules/0/verbs", "must be of type array"),
        (
            "/params/rules/0",
            rule("resourceName", json!(["S3CRET"])),
            "schema",
            "/rules/0",
            "unknown field `resourceName`",
        ),
        ("/params/rules/0", rule("namespace", json!("S3CRET")), "schema", "/rules/0", "known fields: apiGroups"),
        ("/params/rules/0", rule(&long, json!(1)), "schema", "/rules/0", "unknown field with a name of 60 characters"),
        ("/params/rules/0", rule("namespaces", json!("S3CRET")), "schema", "/rules/0/namespaces", "a list of names"),
        (
            "/params/rules/0",
            rule("namespaces", json!(["*", "a"])),
            "schema",
            "/rules/0/namespaces",
            "list nothing beside it",
        ),
        ("/params/cluster_roles", json!({}), "schema", "/cluster_roles", "must be of type array"),
        (
            "/params/cluster_roles",
            json!([{"name": "S3CRET/x"}]),
            "schema",
            "/cluster_roles/0/name",
            "contains no slash",
        ),
        (
            "/params/cluster_roles",
            json!([{"name": "view", "rules": []}]),
            "schema",
            "/cluster_roles/0",
            "unknown field `rules`",
        ),
    ]);
}

#[test]
fn name_must_be_a_dns_subdomain() {
    const AT: &str = "/md_metadata/name_prefix";
    const FORM: &str = "lower-case letters, digits, hyphens and dots";
    let bad = [
        "S3CRET",
        "a_b",
        "a b",
        "-a",
        "a-",
        ".a",
        "a.",
        "a..b",
        "a.-b",
        "\u{e4}",
        "a/b",
        "../x",
        "a\n",
        "{{ name }}",
        "a%20b",
        "system:a",
        " a",
    ];
    let mut rows: Vec<Row> =
        bad.iter().map(|name| ("/params/md_metadata/name_prefix", json!(name), "name", AT, FORM)).collect();
    rows.extend([
        ("/params/md_metadata/name_prefix", json!(""), "name", AT, "is empty"),
        (
            "/params/md_metadata/name_prefix",
            json!("n".repeat(237)),
            "name",
            AT,
            "at most 236 characters, and this one has 237",
        ),
        ("/params/md_metadata/name_prefix", json!("\u{e4}".repeat(200)), "name", AT, FORM),
        ("/params/md_metadata/name_prefix", json!("n".repeat(1 << 20)), "name", AT, "this one has 1048576"),
        ("/params/md_metadata/name_prefix", json!(null), "name", AT, "must be of type string"),
        ("/params/md_metadata/name_prefix", json!(["S3CRET"]), "name", AT, "must be of type string"),
        ("/params/md_metadata", json!({}), "name", "/md_metadata", "set name_prefix"),
        ("/params/md_metadata", json!(null), "name", "/md_metadata", "must be of type object"),
        ("/params/md_metadata", json!("S3CRET"), "name", "/md_metadata", "must be of type object"),
    ]);
    expect_all_refused(rows);
}

#[test]
fn invalid_connection_is_located() {
    const AUTHENTICATION: &str = "/kubernetes_cluster/authentication";
    const NO_SLOT: &str = "no cluster is connected (required)";
    expect_all_refused(vec![
        ("/connection", json!(null), "schema", "/kubernetes_cluster", "lacks the field `authentication`"),
        ("/connection", json!([]), "schema", "/kubernetes_cluster", "an object (type)"),
        ("/connection", json!("S3CRET"), "schema", "/kubernetes_cluster", "an object (type)"),
        (
            "/connection",
            json!({"endpoint": "S3CRET"}),
            "schema",
            "/kubernetes_cluster",
            "lacks the field `authentication`",
        ),
        ("/connection", json!({"data": "S3CRET"}), "schema", "/kubernetes_cluster", "lacks the field `authentication`"),
        (
            "/connection",
            json!({"data": {"authentication": 7}}),
            "schema",
            "/kubernetes_cluster/data/authentication",
            "must be of type object",
        ),
        ("/connection/authentication", json!("S3CRET"), "schema", AUTHENTICATION, "must be of type object"),
        (
            "/connection/authentication/cluster",
            json!(["S3CRET"]),
            "schema",
            "/kubernetes_cluster/authentication/cluster",
            "must be of type object",
        ),
        (
            "/connection/authentication/user",
            json!("S3CRET"),
            "schema",
            "/kubernetes_cluster/authentication/user",
            "must be of type object",
        ),
        ("/connection/authentication/user", json!(null), "schema", AUTHENTICATION, "lacks the field `user`"),
        (
            "/connection/authentication/user/token",
            json!(null),
            "schema",
            "/kubernetes_cluster/authentication/user",
            "lacks the field `token`",
        ),
        ("/connection/authentication/user/token", json!({"S3CRET": 1}), "schema", TOKEN, "must be of type string"),
        ("/connection/authentication/cluster/server", json!(6443), "schema", SERVER, "must be of type string"),
    ]);
    // Without an override in config.json.
    let mut instance = instance("noslot");
    instance.connection = Value::Null;
    for action in ["plan", "provision", "decommission"] {
        expect_refused(&instance.ask(action, &[]), "schema", Some(""), NO_SLOT);
    }
    let ran = with_file(&instance, "plan", &CONNECTION, |path| std::fs::write(path, r#"{"other": {}}"#).unwrap());
    expect_refused(&ran, "schema", Some(""), NO_SLOT);
    let ran = with_file(&instance, "plan", &CONNECTION, |path| std::fs::write(path, r#"["S3CRET"]"#).unwrap());
    expect_refused(&ran, "schema", Some(""), "the connection must be a kubernetes-cluster document");
}

#[test]
fn invalid_parent_token_is_explained() {
    let at = "/connection/authentication/user/token";
    expect_all_refused(vec![
        (at, json!(""), "connection", TOKEN, "token is empty"),
        (
            at,
            json!("S3CRET\r\n"),
            "connection",
            TOKEN,
            "token ends with a line break: remove the line break where the token is stored",
        ),
        (at, json!("S3CRET\n"), "connection", TOKEN, "token ends with a line break"),
        (at, json!("S3CRET\r\nS3CRET"), "connection", TOKEN, "token contains whitespace or other characters"),
        (at, json!("Bearer S3CRET"), "connection", TOKEN, "token contains whitespace or other characters"),
        (at, json!("S3CRET\u{0}"), "connection", TOKEN, "token contains whitespace or other characters"),
        (at, json!("\u{feff}S3CRET"), "connection", TOKEN, "token contains whitespace or other characters"),
        (at, json!("S3CRET".repeat(20_000)), "connection", TOKEN, "token is longer than 64 KiB"),
    ]);
}

#[test]
fn invalid_server_url_is_explained() {
    const AT: &str = "/connection/authentication/cluster/server";
    const FORM: &str = "server is not the URL of a server (expected https://host";
    const USER: &str = "server contains a user name: remove it, because the login is the token";
    const QUERY: &str = "server contains a query or a fragment";
    const PORT: &str = "server has an invalid port";
    const HOST: &str = "server has an invalid host";
    const LETTERS: &str = "Punycode (xn--...)";
    let rows = [
        ("", "server is empty"),
        ("http://S3CRET:6443", "server is http: a token is never sent unencrypted, use the https URL"),
        ("HTTP://S3CRET", "server is http"),
        ("ftp://S3CRET", FORM),
        ("S3CRET:6443", FORM),
        ("//S3CRET", FORM),
        ("https:/S3CRET", FORM),
        ("https://", FORM),
        ("https:///S3CRET", FORM),
        ("https://S3CRET@", USER),
        ("https://me:S3CRET@127.0.0.1:1/path", USER),
        ("http://me:S3CRET@127.0.0.1", "server is http"),
        ("https://127.0.0.1:1/?token=S3CRET", QUERY),
        ("https://127.0.0.1:1/?", QUERY),
        ("https://127.0.0.1:1#S3CRET", QUERY),
        ("https://127.0.0.1:99999", PORT),
        ("https://127.0.0.1:0", PORT),
        ("https://127.0.0.1:", PORT),
        ("https://127.0.0.1:S3CRET", PORT),
        ("https://[::1]:99999", PORT),
        ("https://::1:6443", FORM),
        ("https://[::1", FORM),
        ("https://[::1%25eth0]:6443", HOST),
        ("https://[S3CRET]:6443", HOST),
        ("https://127.1", HOST),
        ("https://a..S3CRET", HOST),
        ("https://k\u{fc}bernetes.example:6443", LETTERS),
        ("https://\u{4f8b}\u{3048}.\u{30c6}\u{30b9}\u{30c8}", LETTERS),
        ("https://127.0.0.1:1/k\u{fc}che", LETTERS),
        (" https://127.0.0.1:1", "server contains whitespace"),
        ("https://127.0.0.1:1\r\n", "server contains whitespace"),
        ("https://127.0.0.1:1/a b", "server contains whitespace"),
        ("https://S3CRET\\@127.0.0.1", USER),
        ("https://S3CRET,https://b", PORT),
    ];
    expect_all_refused(rows.into_iter().map(|(url, why)| (AT, json!(url), "connection", SERVER, why)).collect());
    let long = format!("https://127.0.0.1:1/{}", "S3CRET".repeat(20_000));
    expect_all_refused(vec![(AT, json!(long), "connection", SERVER, FORM)]);
}

#[test]
fn invalid_ca_is_explained() {
    const NONE: &str = "contains no certificate in PEM format";
    let at = "/connection/authentication/cluster/certificate-authority-data";
    let pem = WrongCa::new().pem().to_owned();
    let encoded = STANDARD.encode(&pem);
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = "-----BEGIN EC PRIVATE KEY-----\nUzNDUkVU\n-----END EC PRIVATE KEY-----\n";
    let rows = [
        (String::new(), "certificate-authority-data is empty"),
        (pem.clone(), "is plain PEM (expected the base64 encoding of PEM)"),
        (pem.replace('\n', "\\n"), "is plain PEM"),
        (format!("# our CA\r\n{pem}"), "is plain PEM"),
        ("S3CRET!".to_owned(), "is not base64"),
        (encoded.trim_end_matches('=').chars().skip(1).collect(), "is not base64"),
        (STANDARD.encode(&encoded), "is base64-encoded twice: decode it once"),
        (der, "is the base64 encoding of DER (expected that of PEM)"),
        (STANDARD.encode("S3CRET"), NONE),
        (STANDARD.encode(key), "contains a private key (expected certificates only)"),
        (STANDARD.encode(format!("{pem}{key}")), "contains a private key"),
        (STANDARD.encode(format!("\u{feff}{pem}")), "whose BEGIN marker is not at the start of a line"),
        (STANDARD.encode(pem.replace('\n', "\\n")), NONE),
        (STANDARD.encode(utf_16(&pem)), NONE),
        (
            STANDARD.encode("-----BEGIN CERTIFICATE-----\nUzNDUkVU\n-----END CERTIFICATE-----\n"),
            "contains no readable certificate",
        ),
    ];
    expect_all_refused(rows.into_iter().map(|(ca, why)| (at, json!(ca), "connection", CA, why)).collect());
}

#[test]
fn invalid_config_is_located() {
    const AT: &str = "/kubernetes_cluster/authentication";
    let cluster = "/kubernetes_cluster/authentication/cluster";
    let user = "/kubernetes_cluster/authentication/user";
    expect_all_refused(vec![
        ("/config", json!([]), "schema", "-", "config.json must be of type object"),
        ("/config", json!("S3CRET"), "schema", "-", "config.json must be of type object"),
        ("/config/namespace", json!(7), "schema", "/namespace", "namespace of config.json: must be of type string"),
        (
            "/config/namespace",
            json!("S3CRET"),
            "schema",
            "/namespace",
            "namespace of config.json: has an invalid format",
        ),
        ("/config/namespace", json!(""), "schema", "/namespace", "namespace of config.json: must not be empty"),
        ("/config/output_shape", json!("S3CRET"), "schema", "/output_shape", "must be auto, legacy or flat"),
        ("/config/output_shape", json!(7), "schema", "/output_shape", "must be auto, legacy or flat"),
        ("/config/emit_namespace", json!("true"), "schema", "/emit_namespace", "must be true or false"),
        ("/config/timeout_seconds", json!("180"), "schema", "/timeout_seconds", "a whole number from 1 to 86400"),
        ("/config/timeout_seconds", json!(0), "schema", "/timeout_seconds", "a whole number from 1 to 86400"),
        ("/config/timeout_seconds", json!(-1), "schema", "/timeout_seconds", "a whole number from 1 to 86400"),
        ("/config/timeout_seconds", json!(1.5), "schema", "/timeout_seconds", "a whole number from 1 to 86400"),
        ("/config/timeout_seconds", json!(1e18), "schema", "/timeout_seconds", "a whole number from 1 to 86400"),
        ("/config/kubernetes_cluster", json!("S3CRET"), "schema", "/kubernetes_cluster", "must be of type object"),
        ("/config/kubernetes_cluster/authentication", json!("S3CRET"), "schema", AT, "must be of type object"),
        ("/config/kubernetes_cluster/authentication/cluster", json!([]), "schema", cluster, "must be of type object"),
        ("/config/kubernetes_cluster/authentication/user", json!("S3CRET"), "schema", user, "must be of type object"),
        (
            "/config/kubernetes_cluster/authentication/cluster/server",
            json!(7),
            "schema",
            SERVER,
            "server of config.json must be of type string",
        ),
        (
            "/config/kubernetes_cluster/authentication/cluster/server",
            json!("http://S3CRET"),
            "connection",
            SERVER,
            "server of config.json is http",
        ),
        (
            "/config/kubernetes_cluster/authentication/cluster/certificate-authority-data",
            json!("S3CRET!"),
            "connection",
            CA,
            "certificate-authority-data of config.json is not base64",
        ),
        (
            "/config/kubernetes_cluster/authentication/user/token",
            json!("S3CRET\n"),
            "connection",
            TOKEN,
            "token of config.json ends with a line break",
        ),
        // A misspelt override would leave the credential in another cluster.
        (
            "/config/kubernetes_cluster/authentication/cluster/sever",
            json!("S3CRET"),
            "schema",
            cluster,
            "unknown field `sever` in config.json",
        ),
        (
            "/config/kubernetes_cluster/authentication/user/Token",
            json!("S3CRET"),
            "schema",
            user,
            "unknown field `Token` in config.json",
        ),
        (
            "/config/kubernetes_cluster/authentication/server",
            json!("S3CRET"),
            "schema",
            AT,
            "unknown field `server` in config.json",
        ),
        (
            "/config/kubernetes_cluster/auth",
            json!({"cluster": {"server": "S3CRET"}}),
            "schema",
            "/kubernetes_cluster/auth",
            "unknown field `auth` in kubernetes_cluster of config.json",
        ),
        (
            "/config/kubernetes_cluster/data",
            json!({"authentication": {"cluster": {"server": "S3CRET"}}}),
            "schema",
            "/kubernetes_cluster/data",
            "unknown field `data` in kubernetes_cluster of config.json",
        ),
    ]);
}

#[test]
fn duplicate_keys_are_located() {
    let instance = instance("double");
    let (params, connection) =
        (instance.params.to_string(), json!({"kubernetes_cluster": instance.connection}).to_string());
    let double =
        |text: &str, key: &str, more: &str| text.replacen(&format!("\"{key}\":"), &format!("{more},\"{key}\":"), 1);
    for (names, text, pointer) in [
        (&["params.json"][..], double(&params, "namespace", "\"namespace\":\"S3CRET\""), "/namespace"),
        (&["params.json"], double(&params, "verbs", "\"verbs\":[\"S3CRET\"]"), "/rules/0/verbs"),
        (&["params.json"], double(&params, "name_prefix", "\"name_prefix\":\"S3CRET\""), "/md_metadata/name_prefix"),
        (&CONNECTION, double(&connection, "server", "\"server\":\"S3CRET\""), SERVER),
        (&CONNECTION, double(&connection, "token", "\"token\":\"S3CRET\""), TOKEN),
        (&["config.json"], r#"{"namespace":"S3CRET","namespace":"a"}"#.to_owned(), "/namespace"),
    ] {
        let ran = with_file(&instance, "plan", names, |path| std::fs::write(path, &text).unwrap());
        expect_refused(&ran, "duplicate-key", Some(pointer), &format!("{} contains a key twice", names[0]));
        assert!(!format!("{ran:?}").contains("S3CRET"), "{ran:?}");
    }
}

/// The server must not be contacted before the input has been validated.
#[test]
fn all_input_errors_are_reported_without_a_packet() {
    let mut instance = instance("atonce");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = format!("https://me:S3CRET@{}", listener.local_addr().unwrap());
    instance.connection = json!({"data": {"authentication": {
        "cluster": {"server": server, "certificate-authority-data": "-----BEGIN CERTIFICATE-----"},
        "user": {"token": "S3CRET\r\n", "password": "S3CRET"}}}});
    instance.params = json!({
        "namespace": "S3CRET", "typo": "S3CRET", "cluster_roles": [{"name": "a/b"}, {"nam": "S3CRET"}],
        "rules": [{"apiGroups": ["apps/v1"], "resources": ["S3CRET pods"], "verbs": ["*"], "more": "S3CRET"}, "S3CRET"],
        "md_metadata": {"name_prefix": "S3CRET", "default_tags": {"a b": "S3CRET", "c": "S3CRET d"}},
    });
    instance.config = json!({"output_shape": "S3CRET", "emit_namespace": 1, "timeout_seconds": "S3CRET", "typo": 1,
        "kubernetes_cluster": {"authentication": {"user": {"tok": "S3CRET"}}}});
    let mut command = instance.command("provision", &["--publish"]);
    let ran = Ran::of(command.env("MASSDRIVER_URL", "ftp://S3CRET").env("MASSDRIVER_TOKEN", "S3CRET S3CRET"));
    let document = ran.document();
    let has = |code: &str, pointer: Option<&str>| {
        assert!(finding(&document, code, pointer).is_some(), "{code} {pointer:?}: {document:#}");
    };
    for pointer in [
        "/namespace",
        "/rules/0",
        "/rules/0/apiGroups/0",
        "/rules/0/verbs/0",
        "/rules/1",
        "/cluster_roles/0/name",
        "/cluster_roles/1",
        "/timeout_seconds",
        "/kubernetes_cluster/authentication/user",
    ] {
        has("schema", Some(pointer));
    }
    for part in ["cluster/server", "cluster/certificate-authority-data", "user/token"] {
        has("connection", Some(&format!("/kubernetes_cluster/data/authentication/{part}")));
    }
    has("name", Some("/md_metadata/name_prefix"));
    has("unknown-param", Some("/typo"));
    has("unknown-config", Some("/typo"));
    has("label-dropped", Some("/md_metadata/default_tags/a b"));
    has("label-dropped", Some("/md_metadata/default_tags/c"));
    has("connection", None); // the platform's URL and token
    assert_eq!((ran.code, &document["requests"]), (65, &json!(0)));
    assert!(!format!("{ran:?}").contains("S3CRET"), "{ran:?}");
    assert!(listener.accept().is_err(), "a packet was sent");
    assert!(instance.platform.requests().is_empty());
}

#[test]
fn repeated_findings_are_limited_per_code() {
    let mut instance = instance("drown");
    instance.params["rules"] = json!(vec!["S3CRET"; 10_000]);
    instance.params["md_metadata"]["default_tags"] =
        (0..1000).map(|tag| (format!("no label {tag}"), json!(1))).collect();
    instance.connection["authentication"]["user"]["token"] = json!("S3CRET\n");
    let ran = instance.ask("plan", &[]);
    expect_refused(&ran, "connection", Some(TOKEN), "ends with a line break");
    let document = ran.document();
    let findings = document["findings"].as_array().unwrap();
    let of = |code: &str| findings.iter().filter(|finding| finding["code"] == code).collect::<Vec<_>>();
    assert_eq!((of("schema").len(), of("label-dropped").len()), (50, 50));
    assert!(of("schema")[49]["message"].as_str().unwrap().ends_with("(and 9950 more of this kind)"), "{document:#}");
    assert!(ran.stderr.lines().count() < 200, "{}", ran.stderr);
}

/// All at once: a decommission waits until the server rejects a token that was used just before.
fn for_each_at_once<T: Sync>(rows: &[T], check: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        let checks: Vec<_> = rows.iter().map(|row| scope.spawn(|| check(row))).collect();
        assert!(checks.into_iter().map(std::thread::ScopedJoinHandle::join).all(|check| check.is_ok()), "see above");
    });
}

#[test]
fn names_of_any_length_work() {
    for_each_at_once(&[1, 2, 36, 37, 53, 54, 57, 58, 62, 63, 64, 67, 100, 127, 128, 199, 200, 236], |length| {
        let cp = control_plane();
        let mut instance = instance("names");
        let cycle = "a-long.name0.of-some1-convention--x.".chars().cycle();
        let name: String = cycle.take(length - 1).chain(['z']).collect();
        let name = name.replace(".z", "xz").replace("-.", "x.");
        assert_eq!(name.len(), *length);
        instance.params["md_metadata"]["name_prefix"] = json!(name);
        instance.params["rules"][0]["namespaces"] = json!(["*"]);
        // Another test changes `view` at the same time.
        instance.params["cluster_roles"] = json!([{"name": "system:kube-dns"}]);
        let token = instance.token();
        let again = instance.ask("provision", &[]).expect_code(0).document();
        assert!(crate::support::changes(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/{name}-token", instance.namespace);
        assert!(cp.get(&account).is_some(), "{account}");
        instance.act("decommission").expect_code(0);
        assert_eq!(cp.get(&account), None);
        assert_eq!(status(cp, &token, "/api"), 401);
    });
}

#[test]
fn tags_that_are_invalid_labels_are_dropped() {
    let cp = control_plane();
    let mut instance = instance("tags");
    let long = "k".repeat(64);
    let tags = json!({
        "md-project": "ecomm", "Cost_Center": "A.1", "example.com/team": "a", "count": 3, "share": 0.5, "on": true, "empty": "",
        "app.kubernetes.io/name": "demo", "k".repeat(63): "v".repeat(63), "app.kubernetes.io/managed-by": "somebody",
        "owner": "me@example.com", "note": "two words", "line": "a\nb", "null": null, "list": ["a"], "map": {}, "": "x", "a b": "x",
        "-a": "x", "Upper.case/a": "x", "a/b/c": "x", "\u{fc}ber": "x", "umlaut": "\u{fc}", "end-": "x", "value": "x-",
        "long-value": "v".repeat(64), long.clone(): "x",
    });
    instance.params["md_metadata"]["default_tags"] = tags;
    let document = instance.ask("provision", &[]).expect_code(0).document();
    let expected = json!({
        "md-project": "ecomm", "Cost_Center": "A.1", "example.com/team": "a", "count": "3", "share": "0.5", "on": "true",
        "empty": "", "app.kubernetes.io/name": "demo", "k".repeat(63): "v".repeat(63),
        "app.kubernetes.io/managed-by": "k8s-token", "app.kubernetes.io/deployed-with": "massdriver.cloud",
    });
    for path in paths(&instance.namespace) {
        let mut labels = cp.get(&path).unwrap()["metadata"]["labels"].clone();
        // A label of the server itself, on a Secret whose token was used.
        labels.as_object_mut().unwrap().remove("kubernetes.io/legacy-token-last-used");
        assert_eq!(labels, expected, "{path}");
    }
    let dropped: Vec<&Value> =
        document["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == "label-dropped").collect();
    assert_eq!(dropped.len(), 17, "{dropped:#?}");
    assert!(dropped.iter().all(|finding| finding["severity"] == "low" && finding["blocking"] == false));
    for key in ["owner", "note", "null", "a b", "a~1b~1c", "long-value"] {
        let pointer = format!("/md_metadata/default_tags/{key}");
        assert!(finding(&document, "label-dropped", Some(&pointer)).is_some(), "{pointer}");
    }
    let unnamed = finding(&document, "label-dropped", Some("/md_metadata/default_tags")).unwrap();
    assert!(unnamed["message"].as_str().unwrap().contains("the tag with a name of 64 characters"), "{unnamed}");
    for tags in [json!("text"), json!([1]), json!(7)] {
        instance.params["md_metadata"]["default_tags"] = tags;
        let document = instance.ask("provision", &[]).expect_code(0).document();
        assert!(finding(&document, "label-dropped", Some("/md_metadata/default_tags")).is_some(), "{document:#}");
    }
    instance.params["md_metadata"]["default_tags"] = Value::Null;
    assert_eq!(instance.ask("provision", &[]).expect_code(0).document()["findings"], json!([]));
}

#[test]
fn tags_cannot_change_permissions() {
    let cp = control_plane();
    let mut instance = instance("aggregate");
    instance.params["rules"] =
        json!([{"apiGroups": ["example.com"], "resources": ["gadgets"], "verbs": ["list"], "namespaces": ["*"]}]);
    instance.params["md_metadata"]["default_tags"] = json!({
        "rbac.authorization.k8s.io/aggregate-to-view": "true", "kubernetes.io/legacy-token-invalid-since": "2020-01-01",
    });
    let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
    for tag in ["rbac.authorization.k8s.io~1aggregate-to-view", "kubernetes.io~1legacy-token-invalid-since"] {
        let about = |finding: &&Value| {
            finding["code"] == "label-dropped"
                && finding["message"].as_str().unwrap().contains("Kubernetes gives its key a meaning")
        };
        assert_eq!(document["findings"].as_array().unwrap().iter().filter(about).count(), 2, "{tag}: {document:#}");
    }
    let token = token_of(&instance.platform.resource("token").unwrap());
    assert_eq!(
        status(cp, &token, "/apis/example.com/v1/gadgets"),
        404,
        "allowed, and the test of the token passes: the resource does not exist"
    );
    // The aggregation controller reacts within a second if there is something to aggregate.
    let marker = json!({"metadata": {"name": format!("marker-{}", instance.namespace), "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["marker.example.com"], "resources": ["markers"], "verbs": ["get"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    cp.post(roles, &marker);
    let view = testbed::eventually("a marker is aggregated to view", || {
        let view = cp.get(&format!("{roles}/view"))?.to_string();
        view.contains("marker.example.com").then_some(view)
    });
    assert!(!view.contains("gadgets"), "the rules of the instance were aggregated to the ClusterRole view");
    cp.delete(&format!("{roles}/marker-{}", instance.namespace));
}

#[test]
fn ca_bundle_is_accepted_and_published_unchanged() {
    let cp = control_plane();
    let mut instance = instance("bundle");
    let (other, own) = (WrongCa::new().pem().to_owned(), cp.ca_pem());
    let commented = format!("# first\n{}\n# ours\n{own}\n", other.replace('\n', "\r\n"));
    let wrapped = |pem: &str| {
        let encoded = STANDARD.encode(pem);
        encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\r\n")
    };
    for ca in [STANDARD.encode(format!("{other}{own}")), wrapped(&commented), format!("{}\n", STANDARD.encode(own))] {
        set(&mut instance, "/connection/authentication/cluster/certificate-authority-data", json!(ca));
        let artifact = instance.provision();
        assert_eq!(artifact["authentication"]["cluster"]["certificate-authority-data"], ca);
        // Read by another program: a kubeconfig for kubectl.
        let file = instance.path("artifact.json");
        std::fs::write(&file, artifact.to_string()).unwrap();
        let config = instance.path("kubeconfig");
        std::fs::write(&config, Ran::of(binary().arg("kubeconfig").arg(&file)).expect_code(0).stdout).unwrap();
        let ran = cp.kubectl(&config, &["get", "pods"]);
        assert!(ran.status.success(), "{ran:?}");
    }
    set(&mut instance, "/connection/authentication/cluster/certificate-authority-data", json!(STANDARD.encode(other)));
    assert_eq!(instance.ask("plan", &[]).expect_code(69).document()["error"]["code"], "tls-unknown-issuer");
}

/// The server behind another loopback address.
fn relay_on_ipv6(server: &str) -> String {
    let upstream = server.strip_prefix("https://").unwrap().to_owned();
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&upstream).unwrap());
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to).and_then(|_| to.flush());
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    format!("https://{address}")
}

#[test]
fn server_url_is_published_unchanged() {
    let cp = control_plane();
    let port = cp.server().rsplit(':').next().unwrap();
    let v6 = relay_on_ipv6(cp.server());
    assert!(v6.starts_with("https://[::1]:"));
    for server in [
        format!("{}/", cp.server()),
        format!("HTTPS://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("https://LocalHost:{port}//"),
        v6.clone(),
        format!("{v6}/"),
    ] {
        let mut instance = instance("url");
        set(&mut instance, "/connection/authentication/cluster/server", json!(server));
        let document = instance.ask("provision", &["--publish"]).expect_code(0).document();
        assert_eq!(document["server"], server);
        let artifact = instance.platform.resource("token").unwrap();
        assert_eq!(artifact["authentication"]["cluster"]["server"], server);
        assert_eq!(status(cp, &token_of(&artifact), &format!("/api/v1/namespaces/{}/pods", instance.namespace)), 200);
    }
}

#[rstest]
fn server_url_may_have_a_path(#[values("", "/")] end: &str) {
    const PREFIX: &str = "/k8s/clusters/c-m-x7k2";
    let cp = control_plane();
    let proxy = InterceptingProxy::start(cp, |request| match request.path.strip_prefix(PREFIX) {
        Some(path) if path.starts_with('/') => Verdict::ForwardAs(path.to_owned()),
        _ => Verdict::refusal(404, "NotFound", "the server could not find the requested resource"),
    });
    let server = format!("{}{PREFIX}{end}", proxy.server());
    let instance = Instance::new(&cp.admin().with_server(&server), &cp.namespace("beneath"));
    let artifact = instance.provision();
    assert_eq!(artifact["authentication"]["cluster"]["server"], server);
    assert_eq!(instance.act("provision").expect_code(0).code, 0);
    instance.act("decommission").expect_code(0);
    assert!(versions(cp, &instance.namespace).is_empty());
    let astray: Vec<_> = proxy.requests().into_iter().filter(|request| !request.path.starts_with(PREFIX)).collect();
    assert_eq!(astray, []);
}

#[rstest]
fn other_login_fields_are_ignored_and_not_published(#[values(Shape::Bare, Shape::Legacy)] shape: Shape) {
    let cp = control_plane();
    let mut instance = Instance::of_era(cp.admin(), &cp.namespace("logins"), Era::Dependencies, shape);
    let at = if shape == Shape::Legacy { "/data/authentication" } else { "/authentication" };
    let token = instance.connection.pointer(&format!("{at}/user/token")).unwrap().clone();
    let user = instance.connection.pointer_mut(&format!("{at}/user")).unwrap();
    *user = json!({
        "token": token, "client-certificate-data": "S3CRET1", "client-key-data": "S3CRET2", "username": "S3CRET3",
        "password": "S3CRET4", "exec": {"command": "S3CRET5", "env": [{"name": "X", "value": "S3CRET6"}]},
        "auth-provider": {"name": "S3CRET7"}, "tokenFile": "/S3CRET8", "as": "S3CRET9", "of-another-kind": "S3CRET10",
    });
    let cluster = instance.connection.pointer_mut(&format!("{at}/cluster")).unwrap();
    for (key, value) in [
        ("insecure-skip-tls-verify", json!(true)),
        ("proxy-url", json!("http://S3CRET11")),
        ("more", json!("S3CRET12")),
    ] {
        cluster[key] = value;
    }
    for action in ["plan", "provision", "decommission"] {
        let more = &["--publish"][..usize::from(action != "plan")];
        let ran = instance.ask(action, more).expect_code(0);
        let document = ran.document();
        let pointer = format!("/kubernetes_cluster{at}/user");
        let told = finding(&document, "login-ignored", Some(&pointer)).unwrap_or_else(|| panic!("{document:#}"));
        for login in
            ["client-certificate-data", "client-key-data", "username", "password", "exec", "auth-provider", "tokenFile"]
        {
            assert!(told["message"].as_str().unwrap().contains(login), "{told}");
            assert!(ran.stderr.contains(login), "{}", ran.stderr);
        }
        assert_eq!(told["severity"], "info");
        assert!(!format!("{ran:?}").contains("S3CRET"), "{ran:?}");
        if action == "provision" {
            let artifact = instance.platform.resource("token").unwrap();
            let keys = |map: &str| {
                artifact
                    .pointer(&format!("{at}/{map}"))
                    .and_then(Value::as_object)
                    .map(|map| map.keys().cloned().collect::<Vec<_>>())
            };
            assert_eq!(keys("user").unwrap(), ["token"]);
            assert_eq!(keys("cluster").unwrap(), ["certificate-authority-data", "server"]);
            assert!(!artifact.to_string().contains("S3CRET"));
        }
    }
    for request in instance.platform.requests() {
        assert!(!request.body.to_string().contains("S3CRET"), "{request:?}");
    }
}

/// The three fields, and connections in which they are wrong or absent.
#[rstest]
#[case::wrong(Shape::Bare, |authentication: Value| json!({"authentication": authentication}))]
#[case::legacy(Shape::Legacy, |authentication: Value| json!({"data": {"authentication": authentication}, "specs": {}}))]
fn config_overrides_each_connection_field_separately(#[case] shape: Shape, #[case] document: fn(Value) -> Value) {
    let cp = control_plane();
    let good = cp.admin().connection()["authentication"].clone();
    let wrong = json!({
        "cluster": {"server": RefusedPort.server(), "certificate-authority-data": WrongCa::new().base64()},
        "user": {"token": "not-a-token"},
    });
    let fields = [("cluster", "server"), ("cluster", "certificate-authority-data"), ("user", "token")];
    for (section, field) in fields {
        let mut instance = instance("override");
        let mut given = good.clone();
        given[section][field] = wrong[section][field].clone();
        instance.connection = document(given);
        assert_eq!(instance.ask("plan", &[]).code, 69, "{field}");
        // Null overrides nothing.
        instance.config = json!({"kubernetes_cluster": {"authentication": {section: {field: null}}}});
        assert_eq!(instance.ask("plan", &[]).code, 69, "{field}");
        instance.config = json!({"kubernetes_cluster": {"authentication": {section: {field: good[section][field]}}}});
        let artifact = instance.provision();
        let inner = if shape == Shape::Legacy { &artifact["data"] } else { &artifact };
        assert_eq!(inner["authentication"]["cluster"], good["cluster"], "the credential contains the tested URL");
    }
    // A wrong override fails like a wrong connection.
    for (section, field) in fields {
        let mut instance = instance("override");
        instance.connection = document(good.clone());
        instance.config = json!({"kubernetes_cluster": {"authentication": {section: {field: wrong[section][field]}}}});
        assert_eq!(instance.ask("plan", &[]).code, 69, "{field}");
    }
}

#[rstest]
#[case::foreign(json!({"authentication": {"endpoint": "https://x", "cluster_ca_certificate": "x", "token": "x"}}))]
#[case::empty(json!({}))]
#[case::null(Value::Null)]
fn config_completes_a_connection_of_another_format(#[case] connection: Value) {
    let cp = control_plane();
    let mut instance = instance("remapped");
    instance.connection = connection;
    assert_eq!(instance.ask("plan", &[]).code, 65);
    instance.config = json!({"kubernetes_cluster": {"authentication": cp.admin().connection()["authentication"]}});
    let artifact = instance.provision();
    assert_eq!(artifact["authentication"]["cluster"], cp.admin().connection()["authentication"]["cluster"]);
    instance.act("decommission").expect_code(0);
    assert!(versions(cp, &instance.namespace).is_empty());
}

#[test]
fn null_fields_of_a_connection_are_absent() {
    let cp = control_plane();
    let authentication = cp.admin().connection()["authentication"].clone();
    for (connection, flat) in [
        (
            json!({"authentication": authentication, "data": null, "infrastructure": null, "specs": null, "namespace": null}),
            true,
        ),
        (json!({"authentication": authentication, "data": {"authentication": {}}}), true),
        (json!({"authentication": authentication, "infrastructure": {}, "specs": "text"}), true),
        (json!({"authentication": null, "data": {"authentication": authentication, "infrastructure": {}}}), false),
        (json!({"data": {"authentication": authentication, "infrastructure": null, "more": 1}, "more": [1]}), false),
    ] {
        let mut instance = instance("null");
        instance.connection = connection.clone();
        let artifact = instance.provision();
        let inner = if flat { &artifact } else { &artifact["data"] };
        let keys: Vec<_> = inner.as_object().unwrap().keys().filter(|key| *key != "namespace").collect();
        assert_eq!(keys, ["authentication"], "{connection}");
        assert!(!artifact.to_string().contains(":null"), "{artifact}");
        assert_eq!(artifact.get("data").is_none(), flat);
    }
}

#[test]
fn config_options_take_effect() {
    let cp = control_plane();
    let mut instance = instance("options");
    let artifact = |instance: &Instance| {
        let artifact = instance.provision();
        (artifact.get("data").is_some(), artifact.get("namespace").is_some())
    };
    for (shape, legacy) in
        [(json!("auto"), false), (json!("flat"), false), (json!("legacy"), true), (json!(null), false)]
    {
        for (emit, says) in [(json!(true), true), (json!(false), false), (json!(null), true)] {
            instance.config = json!({"output_shape": shape, "emit_namespace": emit});
            assert_eq!(artifact(&instance), (legacy, says && !legacy), "{}", instance.config);
        }
    }
    // config.namespace wins, and a finding reports it.
    let home = instance.namespace.clone();
    instance.act("decommission").expect_code(0);
    for theirs in [json!("elsewhere"), json!("Not A Name"), Value::Null] {
        instance.params["namespace"] = theirs.clone();
        instance.config = json!({"namespace": home});
        let document = instance.ask("plan", &[]).expect_code(0).document();
        assert_eq!(document["namespace"], home);
        let told = finding(&document, "namespace-overridden", Some("/namespace"));
        assert_eq!(told.is_some(), theirs.is_string(), "{document:#}");
    }
    assert!(versions(cp, &home).is_empty());
    // The command line wins over both.
    set(&mut instance, "/connection/authentication/cluster/server", json!(SilentServer::start().server()));
    instance.config = json!({"namespace": home, "timeout_seconds": 1});
    assert_eq!(instance.ask("plan", &[]).expect_code(69).document()["error"]["code"], "timeout");
    instance.config = json!({"namespace": home, "timeout_seconds": 80_000});
    assert_eq!(instance.ask("plan", &["--timeout", "1"]).expect_code(69).document()["error"]["code"], "timeout");
}

#[test]
fn unknown_fields_of_platform_documents_are_ignored() {
    let mut instance = instance("unknown");
    let odd = json!({"S3CRET": ["S3CRET", null, {}]});
    for place in [
        "/params/md_metadata/package",
        "/params/md_metadata/target",
        "/params/md_metadata/deployment",
        "/params/md_metadata/new",
        "/connection/new",
        "/connection/authentication/new",
        "/connection/authentication/cluster/new",
        "/connection/authentication/user/new",
    ] {
        set(&mut instance, place, odd.clone());
    }
    assert!(crate::support::unusual_findings(&instance.ask("plan", &[]).expect_code(0).document()).is_empty());
    let long = "S3CRET".repeat(10);
    for place in ["/params/new", "/params/Rules", "/config/output_shap", "/config/release_name"] {
        set(&mut instance, place, odd.clone());
    }
    set(&mut instance, "/config/kubernetes_cluster", json!({"specs": odd}));
    set(&mut instance, &format!("/params/{long}"), json!(1));
    set(&mut instance, "/params/line\nfailed   [2J", json!(1));
    for action in ["plan", "provision", "provision", "decommission"] {
        let ran = instance.ask(action, &[]).expect_code(0);
        let document = ran.document();
        let low = |code: &str, pointer: &str, part: &str| {
            let found =
                finding(&document, code, Some(pointer)).unwrap_or_else(|| panic!("{code} {pointer}: {document:#}"));
            assert_eq!((&found["severity"], &found["blocking"]), (&json!("low"), &json!(false)));
            assert!(found["message"].as_str().unwrap().contains(part), "{found}");
        };
        if action != "decommission" {
            low("unknown-param", "/new", "unknown param `new`: it has no effect");
            low("unknown-param", "/Rules", "unknown param `Rules`: it has no effect");
            low("unknown-param", "", "unknown param with a name of");
        }
        low("unknown-config", "/output_shap", "unknown option `output_shap` in config.json: it has no effect");
        low("unknown-config", "/release_name", "unknown option `release_name`");
        low("unknown-config", "/kubernetes_cluster/specs", "in kubernetes_cluster of config.json");
        assert!(!ran.stderr.contains(&long) && !ran.stderr.contains("S3CRETS3CRET"), "{}", ran.stderr);
        assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains("\nfailed"), "{}", ran.stderr);
    }
}

/// The decommission would delete from a cluster other than the intended one.
#[test]
fn decommission_refuses_misspelt_server_override() {
    let mut instance = instance("misspelt");
    let token = instance.token();
    let server = json!({"cluster": {"server": "https://127.0.0.1:1"}});
    for (key, member) in [("auth", server.clone()), ("data", json!({"authentication": server}))] {
        instance.config = json!({"namespace": instance.namespace, "kubernetes_cluster": {key: member}});
        let document = instance.ask("decommission", &[]).expect_code(65).document();
        let pointer = format!("/kubernetes_cluster/{key}");
        assert!(finding(&document, "schema", Some(&pointer)).is_some(), "{pointer}: {document:#}");
    }
    assert_eq!(status(control_plane(), &token, "/api"), 200);
}

/// Only input that locates the instance counts; provision refuses or ignores the rest.
#[test]
fn decommission_ignores_irrelevant_invalid_input() {
    let places: Vec<String> = (0..3000).map(|number| format!("a-namespace-of-forty-characters-{number:08}")).collect();
    let rows = [
        ("/params/rules", json!(null)),
        ("/params/rules", json!("x")),
        ("/params/rules", json!({})),
        ("/params/rules", json!([null, 7, "x", [], {}, {"verbs": 7}, {"verbs": ["*"], "namespaces": "x"}])),
        ("/params/rules/0/namespaces", json!(["A B", "../x", "*", "c", 7])),
        ("/params/rules/0/namespaces", json!(places)), // more than any instance can have
        ("/params/cluster_roles", json!([{"name": "a/b"}, {"name": 7}, 7, {"name": "view", "namespaces": 7}])),
        ("/params/cluster_roles", json!("view")),
        ("/params/md_metadata/default_tags", json!({"a b": {}, "c": "d e"})),
        ("/params/md_metadata/default_tags", json!("x")),
        ("/params/md_metadata/deployment", json!(7)),
        ("/params/unknown", json!({"a": 1})),
        ("/config/output_shape", json!("round")),
        ("/config/emit_namespace", json!("perhaps")),
        ("/config/timeout_seconds", json!("soon")),
        ("/config/outputshape", json!(7)),
        ("/config", json!([])),
        ("/config", json!("x")),
        ("/connection/infrastructure", json!("x")),
        ("/connection/specs", json!([7])),
        ("/connection/data", json!("x")),
        ("/connection/namespace", json!(7)),
        ("/connection/authentication/user/exec", json!(7)),
    ];
    for_each_at_once(&rows, |(place, value)| {
        let cp = control_plane();
        let mut instance = instance("lenient");
        let token = instance.token();
        set(&mut instance, place, value.clone());
        instance.act("decommission").expect_code(0);
        assert_eq!(cp.get(&paths(&instance.namespace)[0]), None, "{place}: {value}");
        assert_eq!(status(cp, &token, "/api"), 401, "{place}: {value}");
    });
}

/// A document, and an alteration of its text.
type Odd = (&'static str, fn(&str) -> String);

#[test]
fn decommission_ignores_irrelevant_invalid_documents() {
    let rows: [Odd; 8] = [
        ("params.json", |text| text.replacen("\"verbs\":", "\"verbs\":[],\"verbs\":", 1)),
        ("params.json", |text| text.replacen("\"default_tags\":", "\"default_tags\":{},\"default_tags\":", 1)),
        ("params.json", |text| text.replacen('{', &format!("{{\"{0}\":1,\"{0}\":2,", "k".repeat(40)), 1)),
        ("config.json", |text| text.replacen('{', "{\"output_shape\":1,\"output_shape\":2,", 1)),
        ("bundle/schema-params.json", |_| "{\"type\": 7}".to_owned()),
        ("bundle/schema-params.json", |_| "no JSON".to_owned()),
        ("bundle/schema-artifacts.json", |_| "{\"properties\": {\"token\": false}}".to_owned()),
        ("bundle/massdriver.yaml", |_| "\t: [".to_owned()),
    ];
    for_each_at_once(&rows, |(name, odd)| {
        let cp = control_plane();
        let instance = instance("lenientfile");
        let token = instance.token();
        std::fs::create_dir(instance.path("bundle")).unwrap();
        let text = std::fs::read_to_string(instance.path(name)).unwrap_or_default();
        let write = |path: &std::path::Path| std::fs::write(path, odd(&text)).unwrap();
        with_file(&instance, "decommission", &[name], write).expect_code(0);
        assert_eq!(status(cp, &token, "/api"), 401, "{name}");
    });
}

#[test]
fn decommission_requires_valid_instance_location() {
    let rows: [Odd; 6] = [
        ("params.json", |text| text.replacen('{', "{\"namespace\":\"elsewhere\",", 1)),
        ("params.json", |text| text.replacen("\"name_prefix\":", "\"name_prefix\":\"other\",\"name_prefix\":", 1)),
        ("params.json", |text| text.replacen('{', "{\"md_metadata\":{\"name_prefix\":\"other\"},", 1)),
        ("dependencies.json", |text| text.replacen("\"server\":", "\"server\":\"https://other\",\"server\":", 1)),
        ("config.json", |_| "{\"namespace\":\"a\",\"namespace\":\"b\"}".to_owned()),
        ("config.json", |_| "{\"namespace\":\"elsewh".to_owned()),
    ];
    let instance = instance("strict");
    let token = instance.token();
    for (name, odd) in rows {
        let text = std::fs::read_to_string(instance.path(name)).unwrap();
        let write = |path: &std::path::Path| std::fs::write(path, odd(&text)).unwrap();
        let ran = with_file(&instance, "decommission", &[name], write);
        assert_eq!(ran.expect_code(65).document()["requests"], 0, "{name}");
    }
    assert_ne!(status(control_plane(), &token, "/api"), 401, "nothing was done");
    instance.act("decommission").expect_code(0);
}

#[test]
fn objects_too_large_for_the_server_are_refused() {
    let cp = control_plane();
    let mut instance = instance("big");
    let long = "gadgets".repeat(34);
    let rule = |number: usize| json!({"apiGroups": ["example.com"], "resources": [format!("{long}{number}")], "verbs": ["get"]});
    instance.params["rules"] = (0..12_000).map(rule).collect();
    for action in ["plan", "provision"] {
        let ran = instance.ask(action, &["--timeout", "100"]);
        let document = ran.document();
        assert_eq!(document["error"]["code"], "refused", "{}", document["error"]);
    }
    instance.act("decommission").expect_code(0);
    assert!(versions(cp, &instance.namespace).is_empty());
    // The longest token that is accepted: the server decides.
    instance.params["rules"] = json!([rule(0)]);
    set(&mut instance, "/connection/authentication/user/token", json!("t".repeat(64 << 10)));
    let ran = instance.ask("plan", &[]);
    assert_eq!(ran.document()["error"]["code"], "unauthorized", "{}", ran.stderr);
    assert_eq!(OBJECT, format!("{NAME}-token"));
}

#[test]
fn foreign_annotations_cannot_forge_log_lines() {
    let cp = control_plane();
    let instance = instance("forged");
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", instance.namespace);
    let forged = "x\n\u{1b}[2K\rdone         credential tested and delivered";
    let annotations =
        json!({"k8s-token.massdriver.cloud/name": forged, "k8s-token.massdriver.cloud/namespace": forged});
    let labels = json!({"app.kubernetes.io/managed-by": "k8s-token"});
    cp.post(&accounts, &json!({"metadata": {"name": OBJECT, "labels": labels, "annotations": annotations}}));
    let ran = instance.ask("provision", &[]).expect_code(73);
    assert!(!ran.stderr.lines().any(|line| line.starts_with("done")), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains('\r'), "{:?}", ran.stderr);
}
