//! The floors of the source: the direction of imports, and the side effects of each floor. Paths are read token by
//! token, so that formatting and comments do not matter.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, sources};

/// The side effects that a floor may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Neither clock, disk, environment, process, network nor a runtime.
    Pure,
    /// Some of these: [`EFFECTS`] lists them.
    Effects,
}
use Kind::{Effects, Pure};

/// The floors, the highest first: each imports only from those below it.
const FLOORS: &[(&str, Kind)] = &[
    ("main", Effects),
    ("fuzzing", Pure),
    ("lib", Pure),
    ("command", Effects),
    ("run", Effects),
    ("report", Effects),
    ("output_file", Effects),
    ("platform", Effects),
    ("cluster", Effects),
    ("net", Effects),
    ("plan", Pure),
    ("input", Effects),
    ("cli", Pure),
    ("env", Effects),
    ("credential", Pure),
    ("endpoint", Pure),
    ("schema", Pure),
    ("k8s", Pure),
    ("x509", Pure),
    ("diagnostics", Pure),
    ("rbac", Pure),
    ("budget", Effects),
];

/// Paths that only these files may name, by their first segments.
const EFFECTS: &[(&str, &[&str])] = &[
    ("std::fs", &["input/documents/mod.rs", "output_file.rs"]),
    ("std::env", &["env.rs", "input/documents/kubeconfig.rs", "main.rs"]),
    ("std::io::stdin", &["input/documents/mod.rs"]),
    ("std::io::stdout", &["main.rs"]),
    ("std::io::stderr", &["main.rs"]),
    ("std::process", &["main.rs", "net/login.rs"]),
    ("std::time::SystemTime", &["command/mod.rs", "net/backoff.rs", "net/retry.rs", "run/mod.rs"]),
    (
        "std::time::Instant",
        &[
            "budget.rs",
            "cluster/mod.rs",
            "report.rs",
            "run/apply.rs",
            "run/decommission.rs",
            "run/discovery.rs",
            "run/explain.rs",
            "run/mod.rs",
            "run/proof.rs",
            "run/provision.rs",
            "run/publish.rs",
            "run/remove.rs",
            "run/session.rs",
            "run/verify.rs",
        ],
    ),
    (
        "tokio",
        &[
            "cluster/mod.rs",
            "command/mod.rs",
            "main.rs",
            "net/backoff.rs",
            "net/login.rs",
            "net/proxy_connector.rs",
            "net/transport.rs",
            "platform.rs",
            "report.rs",
            "run/decommission.rs",
            "run/diagnosis.rs",
            "run/discovery.rs",
            "run/explain.rs",
            "run/observe.rs",
            "run/proof.rs",
            "run/provision.rs",
            "run/remove.rs",
            "run/verify.rs",
        ],
    ),
    ("hyper", &["net/proxy_connector.rs", "net/watched.rs"]),
    ("h2", &["net/transport.rs"]),
    ("kube::Client", &["cluster/mod.rs"]),
    ("jsonschema", &["schema.rs"]),
];

fn floor(source: &Source) -> String {
    match source.file.as_str() {
        "main.rs" => "main".to_owned(),
        _ => source.module.first().cloned().unwrap_or_else(|| "lib".to_owned()),
    }
}

#[test]
fn imports_point_to_lower_floors() {
    let rank = |floor: &str| FLOORS.iter().position(|(name, _)| *name == floor);
    let mut upwards = Vec::new();
    for source in sources() {
        let own = rank(&floor(&source)).unwrap_or_else(|| panic!("{} is on no floor", source.file));
        for (line, path) in &source.paths {
            let [first, other, ..] = &path[..] else { continue };
            if first != "crate" {
                continue;
            }
            // Re-exports of lib.rs are not a floor.
            let Some(other) = rank(other) else { continue };
            if other < own {
                upwards.push(format!("src/{}:{line} imports {}", source.file, path.join("::")));
            }
        }
    }
    assert_eq!(upwards, Vec::<String>::new());
}

#[test]
fn imports_between_files_are_acyclic() {
    let sources = sources();
    let files: BTreeMap<&[String], usize> = sources
        .iter()
        .enumerate()
        .filter(|(_, source)| source.file != "main.rs")
        .map(|(at, source)| (&source.module[..], at))
        .collect();
    let mut imports = vec![BTreeSet::<usize>::new(); sources.len()];
    for (at, source) in sources.iter().enumerate() {
        for (_, path) in source.paths.iter().filter(|(_, path)| path[0] == "crate") {
            // The longest prefix that is a module is the imported file.
            let file = (1..path.len()).rev().find_map(|end| files.get(&path[1..=end]));
            imports[at].extend(file.filter(|file| **file != at));
        }
    }
    let reaches = |from: usize, to: usize| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            next.extend(imports[at].iter().copied().filter(|file| seen.insert(*file)));
        }
        seen.contains(&to)
    };
    let in_circles: Vec<&str> =
        (0..sources.len()).filter(|at| reaches(*at, *at)).map(|at| sources[at].file.as_str()).collect();
    assert_eq!(in_circles, Vec::<&str>::new());
}

/// Whether a path starts with another one.
fn names(path: &[String], what: &str) -> bool {
    let what: Vec<&str> = what.split("::").collect();
    path.len() >= what.len() && path.iter().zip(&what).all(|(one, other)| one == other)
}

#[test]
fn side_effects_stay_in_their_files() {
    let sources = sources();
    for (what, allowed) in EFFECTS {
        let found: Vec<&str> = sources
            .iter()
            .filter(|source| source.paths.iter().any(|(_, path)| names(path, what)))
            .map(|source| source.file.as_str())
            .collect();
        assert_eq!(found, *allowed, "files that name {what}");
    }
    for source in &sources {
        let floor = floor(source);
        let is_pure = FLOORS.iter().any(|(name, kind)| *name == floor && *kind == Pure);
        let touched = EFFECTS.iter().any(|(what, allowed)| *what != "jsonschema" && allowed.contains(&&*source.file));
        assert!(!(is_pure && touched), "src/{} is on a pure floor", source.file);
    }
}

/// The bytes of a token are exposed only where they are sent or written into the credential.
#[test]
fn token_bytes_are_exposed_only_where_sent() {
    const ALLOWED: &[(&str, &[&str])] = &[
        (
            ".expose()",
            &[
                "credential/artifact.rs",
                "credential/claims.rs",
                "credential/kubeconfig.rs",
                "diagnostics/secret.rs",
                "platform.rs",
            ],
        ),
        ("Token::expose)", &["cluster/mod.rs"]),
        ("expose_secret()", &["cli.rs", "diagnostics/secret.rs", "endpoint/proxy.rs", "input/request/context.rs"]),
    ];
    let sources = sources();
    for (call, allowed) in ALLOWED {
        let text = |source: &Source| source.text.split("#[cfg(test)]").next().unwrap().to_owned();
        let found: Vec<&str> =
            sources.iter().filter(|source| text(source).contains(call)).map(|source| source.file.as_str()).collect();
        assert_eq!(found, *allowed, "files that call {call}");
    }
}

#[test]
fn each_file_begins_with_a_summary() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "src/{} has no summary", source.file);
    }
}
