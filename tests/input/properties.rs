//! Properties for any input: no panic, a documented exit code, and no secret in the output or in objects. Thousands of
//! cases run through `fuzzing::evaluate`, some dozens of them through the real binary, which must agree.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_token::{
    error::Exit,
    fuzzing::{ACTIONS, Evaluation, Given, evaluate},
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use testbed::WrongCa;

use crate::support::{Ran, binary};

/// Secrets: longer than any key that is shown, and with letters that no name, namespace, label or resource contains.
const SECRETS: [&str; 3] = [
    "Tk1.parent_S3cret+token/of=the~connection!",
    "Pw2:a_Pass%word&that*stands(elsewhere)",
    "Ky3^a_key<that>was_pasted{somewhere}else",
];

/// A part of a secret counts as a leak.
const PART: usize = 12;

static CA: LazyLock<String> = LazyLock::new(|| WrongCa::new().base64());

/// The documents of a valid instance whose server does not exist.
fn valid_documents() -> [Value; 3] {
    let authentication = json!({
        "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": *CA},
        "user": {"token": SECRETS[0]},
    });
    [
        json!({
            "namespace": "team-a",
            "rules": [
                {"apiGroups": ["", "apps"], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get", "list"]},
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "namespaces": ["*"]},
                {"nonResourceURLs": ["/metrics"], "verbs": ["get"], "namespaces": ["*"]},
            ],
            "cluster_roles": [{"name": "view", "namespaces": ["team-b"]}],
            "md_metadata": {"name_prefix": "demo", "default_tags": {"md-project": "ecomm"}, "deployment": {"id": "1"}},
        }),
        json!({"kubernetes_cluster": {
            "authentication": authentication,
            "infrastructure": {"arn": "arn", "oidc_issuer_url": "https://oidc"},
            "specs": {"kubernetes": {"version": "1.36"}},
        }}),
        json!({
            "namespace": "team-a", "output_shape": "auto", "emit_namespace": true, "timeout_seconds": 60,
            "kubernetes_cluster": {"authentication": {"cluster": {"server": null}, "user": {"token": null}}},
        }),
    ]
}

/// A secret verbatim, or inside other text.
fn secret() -> impl Strategy<Value = String> {
    let forms: [fn(&str) -> String; 9] = [
        str::to_owned,
        |secret| format!("{secret}\r\n"),
        |secret| format!("https://me:{secret}@127.0.0.1:1"),
        |secret| format!("https://127.0.0.1:1/?token={secret}"),
        |secret| format!("http://{secret}"),
        |secret| format!("-----BEGIN CERTIFICATE-----\n{secret}"),
        |secret| STANDARD.encode(format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n")),
        |secret| STANDARD.encode(secret),
        |secret| format!("../{secret}"),
    ];
    (prop::sample::select(&SECRETS[1..]), prop::sample::select(forms.to_vec())).prop_map(|(secret, form)| form(secret))
}

fn key() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 24] = [
        "namespace",
        "rules",
        "cluster_roles",
        "md_metadata",
        "name_prefix",
        "default_tags",
        "apiGroups",
        "resources",
        "resourceNames",
        "verbs",
        "namespaces",
        "nonResourceURLs",
        "name",
        "kubernetes_cluster",
        "data",
        "authentication",
        "cluster",
        "user",
        "server",
        "certificate-authority-data",
        "token",
        "password",
        "output_shape",
        "infrastructure",
    ];
    prop_oneof![4 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned), 2 => secret(), 1 => ".{0,6}"]
}

fn leaf() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 14] = [
        "",
        "*",
        "a",
        "team-b",
        "get",
        "view",
        "pods",
        "/metrics",
        "apps/v1",
        "Team_A",
        "legacy",
        "https://[::1]:1/a",
        "\r\n",
        "a.b",
    ];
    prop_oneof![
        6 => secret().prop_map(Value::from),
        4 => prop::sample::select(&WORDS[..]).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => ".{0,40}".prop_map(Value::from),
        1 => (60..300_usize).prop_map(|length| json!("n".repeat(length))),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4).prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// A change to a document at a numbered location: another value, one more field, or a removal.
#[derive(Clone, Debug)]
enum Change {
    Replace(Value),
    Add(String, Value),
    Remove,
}

fn change() -> impl Strategy<Value = (prop::sample::Index, prop::sample::Index, Change)> {
    let change = prop_oneof![
        4 => anything().prop_map(Change::Replace),
        4 => (key(), anything()).prop_map(|(key, value)| Change::Add(key, value)),
        1 => Just(Change::Remove),
    ];
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), change)
}

/// Pointers to everything in a document.
fn places(at: &str, value: &Value, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let step = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(&step(key), value, found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(&step(&index.to_string()), item, found));
        }
        _ => {}
    }
}

fn changed(documents: &mut [Value; 3], changes: Vec<(prop::sample::Index, prop::sample::Index, Change)>) {
    for (document, place, change) in changes {
        let document = document.get_mut(&mut documents[..]);
        let mut found = Vec::new();
        places("", document, &mut found);
        let place = place.get(&found).clone();
        match change {
            Change::Replace(value) => *document.pointer_mut(&place).unwrap() = value,
            Change::Add(key, value) => match document.pointer_mut(&place).unwrap() {
                Value::Object(map) => drop(map.insert(key, value)),
                Value::Array(items) => items.push(value),
                other => *other = value,
            },
            Change::Remove => {
                let Some((parent, key)) = place.rsplit_once('/') else { continue };
                match document.pointer_mut(parent).unwrap() {
                    Value::Object(map) => drop(map.remove(&key.replace("~1", "/").replace("~0", "~"))),
                    Value::Array(items) => drop(items.remove(key.parse().unwrap())),
                    _ => unreachable!("has a member"),
                }
            }
        }
    }
}

/// Valid documents with some changes, or arbitrary ones.
fn documents() -> impl Strategy<Value = [Value; 3]> {
    prop_oneof![
        8 => prop::collection::vec(change(), 0..5).prop_map(|changes| {
            let mut documents = valid_documents();
            changed(&mut documents, changes);
            documents
        }),
        1 => [anything(), anything(), anything()],
    ]
}

fn texts(documents: &[Value; 3]) -> [String; 3] {
    documents.each_ref().map(Value::to_string)
}

fn evaluated(action: &str, [params, connection, config]: &[String; 3]) -> Evaluation {
    let config = Some(config.as_bytes());
    evaluate(
        action,
        &Given { params: params.as_bytes(), connection: connection.as_bytes(), config, ..Given::default() },
    )
}

/// A secret in the text, or a part of one, raw or in base64.
fn leak(text: &str, secrets: &[&str]) -> Option<String> {
    let encoded = secrets.iter().map(|secret| STANDARD.encode(secret));
    let forms: Vec<String> = secrets.iter().map(ToString::to_string).chain(encoded).collect();
    let mut parts = forms.iter().flat_map(|form| form.as_bytes().windows(PART)).map(String::from_utf8_lossy);
    parts.find(|part| text.contains(&**part)).map(String::from)
}

fn printed(stdout: &str, stderr: &str) -> String {
    let mut document: Value = serde_json::from_str(stdout).unwrap();
    document["server"].take(); // is printed, path included
    format!("{document}\n{stderr}")
}

proptest! {
    #![proptest_config(Config::with_cases(2000))]

    #[test]
    fn no_input_panics_or_leaks_secrets(documents in documents(), action in prop::sample::select(&ACTIONS)) {
        let verdict = evaluated(action, &texts(&documents));
        prop_assert!(matches!(verdict.exit, Exit::Done | Exit::Input), "{:?}", verdict.exit);
        let told = printed(&verdict.stdout, &verdict.stderr);
        prop_assert_eq!(leak(&told, &SECRETS), None, "in {}", told);
        prop_assert!(!verdict.stderr.contains(|char: char| char.is_control() && char != '\n'), "{:?}", verdict.stderr);
        // The params may be in the cluster and the connection in the credential; the parent's token in neither.
        let made = format!("{:?} {:?}", verdict.objects, verdict.artifact);
        prop_assert_eq!(leak(&made, &SECRETS[..1]), None, "in {}", made);
        for (pointer, rule) in &verdict.requested {
            let entry = documents[0].pointer(pointer).expect("a rule of the params");
            for field in ["apiGroups", "resources", "resourceNames", "nonResourceURLs", "verbs"] {
                let said = entry.get(field).filter(|list| **list != json!([]));
                prop_assert_eq!(rule.get(field).filter(|list| **list != json!([])), said, "{} of {}", field, pointer);
            }
        }
        if let Some(artifact) = verdict.artifact {
            let user = artifact.pointer("/authentication/user").or_else(|| artifact.pointer("/data/authentication/user"));
            prop_assert_eq!(user, Some(&json!({"token": "the-new-token"})));
        }
    }
}

proptest! {
    #![proptest_config(Config::with_cases(200))]

    #[test]
    fn random_bytes_do_not_panic(params in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let [sound, connection, config] = texts(&valid_documents());
        let mut broken = sound.into_bytes();
        *at.get_mut(&mut broken) = byte;
        for params in [&params, &broken] {
            let given = Given { params, connection: connection.as_bytes(), config: Some(config.as_bytes()), ..Given::default() };
            let verdict = evaluate("plan", &given);
            prop_assert_eq!(leak(&printed(&verdict.stdout, &verdict.stderr), &SECRETS), None);
        }
    }
}

#[test]
fn valid_documents_are_accepted_and_leaks_are_detectable() {
    let texts = texts(&valid_documents());
    for action in ACTIONS {
        assert_eq!(evaluated(action, &texts).exit, Exit::Done, "otherwise the properties would test nothing: {action}");
    }
    for secret in SECRETS {
        for text in [secret.to_owned(), STANDARD.encode(secret), secret[20..].to_owned()] {
            assert!(leak(&text, &SECRETS).is_some(), "{text}");
        }
    }
}

#[test]
fn binary_agrees_with_the_library() {
    let documents = documents();
    let mut runner = TestRunner::deterministic();
    let (mut refused, mut accepted) = (0, 0);
    for number in 0..60 {
        let action = ACTIONS[number % ACTIONS.len()];
        let texts = texts(&documents.new_tree(&mut runner).unwrap().current());
        let verdict = evaluated(action, &texts);
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in ["params.json", "dependencies.json", "config.json"].iter().zip(&texts) {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let ran = Ran::of(binary().args([action, "--json", "--timeout", "5", "--instance-dir"]).arg(directory.path()));
        let told = printed(&ran.stdout, &ran.stderr);
        assert_eq!(leak(&told, &SECRETS), None, "{texts:#?}\n{told}");
        if verdict.exit == Exit::Input {
            assert_eq!(ran.code, 65, "{texts:#?}\n{told}");
            let findings = |document: &str| {
                let document: Value = serde_json::from_str(document).unwrap();
                document["findings"]
                    .to_string()
                    .replace(directory.path().to_str().unwrap(), "")
                    .replace("/params.json", "params.json")
            };
            let place = |text: String| {
                text.replace("/dependencies.json", "dependencies.json").replace("/config.json", "config.json")
            };
            assert_eq!(place(findings(&ran.stdout)), place(findings(&verdict.stdout)), "{texts:#?}");
            refused += 1;
        } else {
            assert_eq!(ran.code, 69, "no server exists there: {texts:#?}\n{told}");
            accepted += 1;
        }
    }
    assert!(refused > 10 && accepted > 5, "{refused} refused, {accepted} accepted");
}
