//! What holds for any input, whatever it is: the program does not panic, it ends in one of its ways, and what is
//! a secret is nowhere in what it prints or makes. The fuzz target calls it, and `tests/input/fuzz_corpus.rs` does so in
//! every test run, for each file of the corpus.

use k8s_token::{
    error::Exit,
    fuzzing::{ACTIONS, Evaluation, Given, check as check_params, evaluate},
};
use serde_json::Value;

/// Stands between the documents of an input: params, connection, config, form of the params, type of the artifact.
const SEPARATOR: &str = "\n--8<--\n";

/// What carries this text is a secret: the seeds have it where secrets can be. It is longer than any key that is shown,
/// and no name.
pub const CANARY: &str = "C4n4ry_that_must_not_be_in_any_0utput";

/// Shorter tokens are found by accident.
const SHORTEST: usize = 16;

/// Runs one input through all actions.
pub fn run(input: &[u8]) {
    let mut documents = split(input).into_iter();
    let mut next = || documents.next();
    let given = Given {
        params: next().unwrap_or_default(),
        connection: next().unwrap_or_default(),
        config: next(),
        params_schema: next(),
        artifacts_schema: next(),
    };
    for action in ACTIONS {
        let verdict = evaluate(action, &given);
        check(&given, &verdict);
    }
    // The same bytes as a file of the command line, which may be YAML.
    check(&given, &check_params(given.params));
}

fn check(given: &Given<'_>, verdict: &Evaluation) {
    let mut document: Value = serde_json::from_str(&verdict.stdout).expect("one JSON document");
    let refused = verdict.exit == Exit::Input;
    assert!(refused || verdict.exit == Exit::Done, "{:?}", verdict.exit);
    assert_eq!(document["outcome"] == "failed", refused);
    let blocking = |finding: &Value| finding["blocking"] == true;
    assert_eq!(document["findings"].as_array().expect("findings").iter().any(blocking), refused);
    // The server is told, path included.
    document["server"].take();
    let printed = format!("{document} {}", verdict.stderr);
    assert!(!printed.contains(CANARY), "a secret is printed:\n{printed}");
    assert!(!verdict.stderr.chars().any(|char| char.is_control() && char != '\n'), "{:?}", verdict.stderr);

    let made = format!("{printed} {:?} {:?}", verdict.objects, verdict.artifact);
    let also = |document: &[u8], text: &str| String::from_utf8_lossy(document).contains(text);
    for token in tokens(given) {
        // Unless it was given as something else, too, that may be told.
        assert!(also(given.params, &token) || !made.contains(&token), "the parent's token goes on:\n{made}");
    }
}

/// The tokens of connection and config.
fn tokens(given: &Given<'_>) -> Vec<String> {
    let documents = [Some(given.connection), given.config].into_iter().flatten();
    let documents: Vec<Value> = documents.filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect();
    let places = ["", "/data", "/kubernetes_cluster", "/kubernetes_cluster/data"];
    let token = |document: &Value, place: &str| {
        document.pointer(&format!("{place}/authentication/user/token"))?.as_str().map(str::to_owned)
    };
    let tokens = documents.iter().flat_map(|document| places.iter().filter_map(|place| token(document, place)));
    tokens.filter(|token| token.len() >= SHORTEST && !"the-new-token".contains(token.as_str())).collect()
}

fn split(input: &[u8]) -> Vec<&[u8]> {
    let separator = SEPARATOR.as_bytes();
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(separator.len()).position(|window| window == separator) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}
