//! The files that a publish uploads: .mdignore applied to a copy of the folder and typical files of a working tree.

use std::{collections::BTreeSet, fs, path::Path};

use ignore::{
    Match, WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rstest::rstest;

/// The files that Massdriver reads, in both folders.
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

/// Build output, secrets of a local run, state of other tools, hidden files, files of the same name in subfolders.
const UNPUBLISHED: [&str; 12] = [
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

/// A copy of this folder with empty files, and the files above.
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
    for path in UNPUBLISHED {
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

/// The documents that the README.md of the main folder links to are uploaded with it.
fn uploaded(folder: &str) -> BTreeSet<String> {
    let mut files: BTreeSet<String> = UPLOADED.map(str::to_owned).into();
    if folder == "." {
        let pages = fs::read_dir("docs").expect("docs").map(|entry| entry.expect("an entry").path());
        files.extend(pages.filter(|path| path.is_file()).map(|path| path.display().to_string()));
        files.extend(["CONTRIBUTING.md", "LICENSE", "examples/downstream/README.md"].map(str::to_owned));
    }
    files
}

/// Massdriver shows these documents without the rest of the repository.
#[rstest]
fn uploaded_documents_link_to_uploaded_files(#[values(".", "legacy")] folder: &str) {
    let uploaded = uploaded(folder);
    let mut links = 0;
    for document in uploaded.iter().filter(|path| Path::new(path).extension().is_some_and(|kind| kind == "md")) {
        let text = fs::read_to_string(Path::new(folder).join(document)).expect("a document");
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if link.is_empty() || link.starts_with("https://") {
                continue;
            }
            let mut target = Path::new(document).parent().expect("a folder").to_owned();
            for part in link.split('/') {
                if part == ".." { assert!(target.pop(), "{document}: {link}") } else { target.push(part) }
            }
            assert!(uploaded.contains(&target.display().to_string()), "{document}: {link} is not uploaded");
            links += 1;
        }
    }
    assert_eq!(links > 0, folder == ".", "{links} links");
}

/// The rules of git: files below an ignored directory are not considered.
#[rstest]
fn publish_uploads_only_the_listed_files(#[values(".", "legacy")] folder: &str) {
    let checkout = checkout(folder);
    let mut walk = WalkBuilder::new(checkout.path());
    walk.standard_filters(false).add_custom_ignore_filename(".mdignore");
    assert_eq!(files(&mut walk, checkout.path()), uploaded(folder));
}

/// The rules of the library of `mass`: each line covers everything below its matches, and the last matching line wins,
/// also below an ignored directory.
#[rstest]
fn publish_uploads_the_same_with_last_match_rules(#[values(".", "legacy")] folder: &str) {
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
    assert_eq!(kept, uploaded(folder));
}
