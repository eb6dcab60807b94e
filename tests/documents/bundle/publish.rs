//! What a publish uploads: .mdignore on a copy of the folder, with the files added that a working tree has.

use std::{collections::BTreeSet, fs, path::Path};

use ignore::{
    Match, WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rstest::rstest;

const UPLOADED: [&str; 10] = [
    "CHANGELOG.md",
    "README.md",
    "icon.svg",
    "massdriver.yaml",
    "operator.md",
    "schema-artifacts.json",
    "schema-connections.json",
    "schema-params.json",
    "schema-ui.json",
    "src/README.md",
];

/// Build output, secrets of a local run, state of other tools, hidden files, namesakes further down.
const LYING_ABOUT: [&str; 12] = [
    "README.md",
    "target/debug/k8s-token",
    "target/README.md",
    ".git/config",
    ".env",
    "params.json",
    "connections.json",
    "src/.hidden",
    "src/deeper/README.md",
    "src/README.md.orig",
    "tests/massdriver.yaml",
    "src/terraform.tfstate",
];

/// The same files as in this folder, all empty, and those above.
fn checkout(folder: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    let touch = |path: &Path| {
        let path = copy.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, "").expect("a file");
    };
    let not_made_by_us = |name: &std::ffi::OsStr| name != "target" && name != ".git";
    for entry in WalkBuilder::new(folder)
        .standard_filters(false)
        .filter_entry(move |entry| not_made_by_us(entry.file_name()))
        .build()
    {
        let entry = entry.expect("a readable checkout");
        if entry.file_type().is_some_and(|kind| kind.is_file()) {
            touch(entry.path().strip_prefix(folder).expect("below the folder"));
        }
    }
    for path in LYING_ABOUT {
        touch(Path::new(path));
    }
    fs::copy(Path::new(folder).join(".mdignore"), copy.path().join(".mdignore")).expect(".mdignore");
    copy
}

fn files(walk: &mut WalkBuilder, root: &Path) -> BTreeSet<String> {
    walk.build()
        .map(|entry| entry.expect("a readable entry"))
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(|entry| entry.path().strip_prefix(root).expect("below the root").to_string_lossy().into_owned())
        .collect()
}

fn uploaded() -> BTreeSet<String> {
    UPLOADED.map(str::to_owned).into()
}

/// As git reads such a file: what lies below an ignored directory is not looked at.
#[rstest]
fn a_publish_uploads_what_the_platform_reads_and_nothing_else(#[values(".", "legacy")] folder: &str) {
    let checkout = checkout(folder);
    let mut walk = WalkBuilder::new(checkout.path());
    walk.standard_filters(false).add_custom_ignore_filename(".mdignore");
    assert_eq!(files(&mut walk, checkout.path()), uploaded());
}

/// As the library of `mass` reads it: each line covers all that is below its matches, and the last line that
/// matches wins, also below an ignored directory.
#[rstest]
fn it_makes_no_difference_that_the_cli_lets_the_last_matching_line_win(#[values(".", "legacy")] folder: &str) {
    let checkout = checkout(folder);
    let text = fs::read_to_string(checkout.path().join(".mdignore")).expect(".mdignore");
    let lines: Vec<Gitignore> = text
        .lines()
        .map(|line| {
            let mut builder = GitignoreBuilder::new(checkout.path());
            builder.add_line(None, line).expect("a pattern");
            builder.build().expect("a pattern")
        })
        .collect();
    let mut everything = WalkBuilder::new(checkout.path());
    everything.standard_filters(false);
    let kept: BTreeSet<String> = files(&mut everything, checkout.path())
        .into_iter()
        .filter(|path| {
            let last =
                lines.iter().rev().map(|line| line.matched_path_or_any_parents(path, false)).find(|m| !m.is_none());
            !matches!(last, Some(Match::Ignore(_)))
        })
        .collect();
    assert_eq!(kept, uploaded());
}
