//! The layout is the data flow: what each file may touch. Lints hold most of it (clippy.toml); this holds the rest.

use std::{fs, path::Path};

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix("src").unwrap().to_string_lossy().into_owned();
            found.push((name, text.split("#[cfg(test)]").next().unwrap().to_owned()));
        }
    }
}

/// What may stand only in these files.
const RULES: &[(&str, &[&str])] = &[
    ("kube::Client", &["cluster/mod.rs"]),
    ("Client, Config", &["cluster/mod.rs"]),
    ("fs::", &["inputs/mod.rs", "output.rs"]),
    ("std::env", &["env.rs", "main.rs", "inputs/kubeconfig.rs"]),
    ("std::io::stdin", &["inputs/mod.rs"]),
    ("stdout()", &["main.rs"]),
    ("stderr()", &["main.rs"]),
    ("jsonschema::", &["schema.rs"]),
    ("Token::expose)", &["cluster/mod.rs"]),
    (".expose()", &["secret.rs", "artifact.rs", "kubeconfig.rs", "publish.rs", "claims.rs"]),
    ("expose_secret()", &["cli.rs", "secret.rs", "request/context.rs", "proxy.rs"]),
    ("process::Command", &["login.rs"]),
    (
        "tokio::",
        &[
            "main.rs",
            "command/mod.rs",
            "login.rs",
            "report.rs",
            "transport.rs",
            "backoff.rs",
            "tunnel.rs",
            "publish.rs",
            "cluster/mod.rs",
            "run/converge.rs",
            "run/look.rs",
            "run/proof.rs",
            "run/provision.rs",
            "run/take_back.rs",
            "run/verify.rs",
        ],
    ),
    (
        "Instant::now",
        &[
            "budget.rs",
            "cluster/mod.rs",
            "run/mod.rs",
            "run/session.rs",
            "run/converge.rs",
            "run/proof.rs",
            "run/provision.rs",
            "run/take_back.rs",
            "run/verify.rs",
            "report.rs",
        ],
    ),
];

#[test]
fn each_side_effect_has_its_file() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    assert!(files.len() > 20, "only {} files found", files.len());
    for (what, allowed) in RULES {
        for (name, text) in &files {
            assert!(!text.contains(what) || allowed.contains(&name.as_str()), "{name} names {what}");
        }
        for name in *allowed {
            let text = files.iter().find(|(file, _)| file == name).map(|(_, text)| text.as_str());
            assert!(
                text.is_some_and(|text| text.contains(what)),
                "{name} has no {what} any more: take it off the list"
            );
        }
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    for (name, text) in files {
        assert!(text.starts_with("//! "), "{name} opens with no paragraph");
    }
}
