//! The pipelines in docs/ci.md: their shell lines are executed as GitHub and GitLab do it.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, process::Command};

use rstest::rstest;
use serde_json::Value;

use crate::{
    check_files::{REFUSED, SOUND, folder, sarif, shown},
    support::{PROGRAM, Ran},
};

/// The examples that check params: the script, and the files that it leaves for a later step.
fn examples() -> BTreeMap<&'static str, (String, Vec<String>)> {
    let page = fs::read_to_string("docs/ci.md").unwrap();
    let mut found = BTreeMap::new();
    for block in page.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next()) {
        let example: Value = serde_saphyr::from_str(block).unwrap();
        if let Some(steps) = example.pointer("/jobs/check/steps") {
            let steps = steps.as_array().unwrap();
            let lines: Vec<&str> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
            let files = steps.iter().filter_map(|step| step["with"]["sarif_file"].as_str()).map(str::to_owned);
            found.insert("GitHub", (lines.join("\n"), files.collect()));
        } else if let Some(script) = example.pointer("/check/script") {
            let lines: Vec<&str> = script.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
            let files = example["check"]["artifacts"]["paths"].as_array().unwrap().iter();
            found.insert("GitLab", (lines.join("\n"), files.map(|file| file.as_str().unwrap().to_owned()).collect()));
        }
    }
    found
}

#[rstest]
fn pipeline_example_ends_with_the_worst_file(
    #[values("GitHub", "GitLab")] system: &str,
    #[values((SOUND, 0, 0), (REFUSED, 65, 2))] (other, code, results): (&str, i32, usize),
) {
    let (script, files) = examples().remove(system).expect(system);
    let folder = folder(&[("params/a.json", SOUND), ("params/b.json", other), ("package.json", "{}")]);
    fs::create_dir(folder.path().join("bin")).unwrap();
    symlink(PROGRAM, folder.path().join("bin/k8s-token")).unwrap();
    let mut shell = Command::new("bash");
    shell.current_dir(folder.path()).env_clear().env("PATH", format!("{}/bin:/usr/bin:/bin", folder.path().display()));
    shell.args(if system == "GitHub" { &["-e", "-c"][..] } else { &["-e", "-o", "pipefail", "-c"] }).arg(script);
    let ran = Ran::of(&mut shell).expect_code(code);
    assert_eq!(ran.stderr.contains("failed       input-refused (exit 65)"), code == 65, "{}", ran.stderr);
    let [file] = &files[..] else { panic!("{files:?}") };
    let log = sarif(&fs::read_to_string(folder.path().join(file)).unwrap());
    assert_eq!(shown(&log).len(), results);
    assert!(shown(&log).iter().all(|result| result.contains(" params/b.json:")), "{log:#}");
}
