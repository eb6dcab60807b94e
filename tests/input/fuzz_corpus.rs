//! Every input of the fuzz target's corpus: the seeds, and everything that a fuzzer has found.

#[path = "../../fuzz/harness.rs"]
mod harness;

use std::{fs, path::Path};

#[test]
fn fuzz_corpus_neither_panics_nor_leaks_secrets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/inputs");
    let (mut files, mut secrets) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap().flatten() {
        let input = fs::read(entry.path()).unwrap();
        let run = std::panic::catch_unwind(|| harness::run(&input));
        assert!(run.is_ok(), "{}", entry.path().display());
        files += 1;
        secrets += usize::from(String::from_utf8_lossy(&input).contains(harness::CANARY));
    }
    assert!(files >= 10 && secrets >= 10, "{files} files, {secrets} of them with a secret in it");
}
