//! The source tree as data: each file with the paths that it names outside its tests, read token by token, so that
//! comments, strings and formatting do not matter.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file of the source.
pub struct Source {
    /// Path below `src/`, as in `plan/diff.rs`.
    pub file: String,
    /// Its module, as in `["plan", "diff"]`; empty for `lib.rs` and `main.rs`.
    pub module: Vec<String>,
    /// Paths that it names, with the line: `use` trees expanded, `self` and `super` resolved to `crate`.
    pub paths: BTreeSet<(usize, Vec<String>)>,
    /// Its text.
    pub text: String,
}

/// Every file below `src/`, in order of its path.
pub fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    read(Path::new("src"), &mut found);
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

fn read(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(parse(&path));
        }
    }
}

fn parse(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let below = path.strip_prefix("src").unwrap();
    let module = module(below);
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut paths = BTreeSet::new();
    collect(tokens, &module, &[], &mut paths);
    Source { file: below.to_string_lossy().into_owned(), module, paths, text }
}

fn module(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        PathBuf::from(file).with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Collects the paths in these tokens; `prefix` is the path in front of the braces of a `use` tree.
fn collect(tokens: TokenStream, module: &[String], prefix: &[String], paths: &mut BTreeSet<(usize, Vec<String>)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let punct =
        |at: usize, what: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == what);
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(hash) if hash.as_char() == '#' && is_test(tokens.get(at + 1)) => {
                // A test-only item: up to its braces or its semicolon.
                at += 2;
                while at < tokens.len() {
                    let ends = punct(at, ';')
                        || matches!(&tokens[at], TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
                    at += 1;
                    if ends {
                        break;
                    }
                }
                continue;
            }
            TokenTree::Ident(first) => {
                let line = first.span().start().line;
                let mut path = prefix.to_vec();
                path.push(first.to_string());
                at += 1;
                while punct(at, ':') && punct(at + 1, ':') {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(next)) => {
                            path.push(next.to_string());
                            at += 3;
                        }
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            collect(group.stream(), module, &path, paths);
                            path.clear();
                            at += 3;
                        }
                        _ => break, // a glob, or the type parameters of a call
                    }
                }
                if path.len() > 1 {
                    paths.insert((line, resolve(path, module)));
                }
                continue;
            }
            TokenTree::Group(group) => collect(group.stream(), module, &[], paths),
            _ => {}
        }
        at += 1;
    }
}

/// Whether this is the `[cfg(test)]` of an attribute.
fn is_test(attribute: Option<&TokenTree>) -> bool {
    matches!(attribute, Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// A path from `crate`, if it starts at the file's own module or above it.
fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let mut path = path;
    path.pop_if(|last| last == "self");
    let ups = path.iter().take_while(|part| *part == "super").count();
    let rest = path[ups..].iter().skip_while(|part| *part == "self").cloned();
    if ups == 0 && path.first().is_none_or(|first| first != "self") {
        return path;
    }
    let base = &module[..module.len().saturating_sub(ups)];
    ["crate".to_owned()].into_iter().chain(base.iter().cloned()).chain(rest).collect()
}
