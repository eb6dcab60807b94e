//! What README.md and operator.md promise, held against the program: error codes, exit codes, flags, params, commands.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use k8s_token::error::{Code, Exit};

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|cause| panic!("{path}: {cause}"))
}

/// The cells of every table row below a heading, up to the next heading; without the header of the table.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let section = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}")).1;
    section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .skip(1)
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

fn in_code(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

/// Code in the running text, and the lines of code blocks.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, part) in text.split("```").enumerate() {
        if number % 2 == 1 {
            found.extend(part.lines().map(str::trim).map(str::to_owned));
        } else {
            found.extend(part.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")));
        }
    }
    found
}

fn help(command: Option<&str>) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_k8s-token")).args(command).arg("--help").output().expect("the program");
    assert!(output.status.success(), "{command:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

fn flags(help: &str) -> BTreeSet<&str> {
    let words = help.split_whitespace().filter(|word| word.starts_with("--"));
    words.map(|word| word.trim_end_matches(',')).collect()
}

#[test]
fn the_error_codes_of_the_readme_are_those_of_the_program_in_its_order() {
    let listed: Vec<(String, String)> = rows(&text("README.md"), "### Error codes")
        .into_iter()
        .map(|row| {
            assert_eq!(row.len(), 4, "{row:?}");
            assert!(row.iter().all(|cell| !cell.is_empty()), "cause or remedy is missing: {row:?}");
            (in_code(&row[0]), row[1].clone())
        })
        .collect();
    let known = Code::ALL.iter().map(|code| (code.as_str().to_owned(), (code.exit() as u8).to_string()));
    assert_eq!(listed, known.collect::<Vec<_>>());
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_program() {
    let listed: BTreeSet<String> =
        rows(&text("README.md"), "### Exit codes").into_iter().map(|row| row[0].clone()).collect();
    let known = Code::ALL.iter().map(|code| code.exit()).chain([Exit::Done, Exit::Changes]);
    assert_eq!(listed, known.map(|exit| (exit as u8).to_string()).collect());
}

#[test]
fn the_error_codes_of_the_runbook_exist() {
    let rows = rows(&text("operator.md"), "## Troubleshooting");
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let code = Code::ALL.iter().find(|code| code.as_str() == in_code(&row[0]));
        let code = code.unwrap_or_else(|| panic!("operator.md knows {}, the program does not", row[0]));
        assert_eq!(row[1], (code.exit() as u8).to_string(), "{}", row[0]);
    }
}

#[test]
fn every_command_and_flag_of_the_readme_exists() {
    let top = help(None);
    let commands: Vec<&str> = top
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"plan"), "{top}");
    let readme = text("README.md");
    let mut mentioned = BTreeSet::new();
    for line in code(&readme) {
        let mut words = line.split_whitespace();
        if words.next() != Some("k8s-token") {
            continue;
        }
        let command = words.clone().find(|word| !word.starts_with('-')).filter(|word| commands.contains(word));
        assert!(command.is_some() || line == "k8s-token --help" || line.starts_with("k8s-token provision "), "{line}");
        mentioned.extend(command.map(str::to_owned));
        let help = help(command);
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(flags(&help).contains(flag), "{line}: there is no {flag}");
        }
    }
    assert_eq!(mentioned, commands.iter().map(|command| (*command).to_owned()).collect(), "each command has its place");

    let all: Vec<String> = commands.iter().map(|command| help(Some(command))).collect();
    for flag in code(&readme).iter().filter(|code| code.starts_with("--")) {
        let flag = flag.split_whitespace().next().unwrap_or_default();
        assert!(all.iter().any(|help| flags(help).contains(flag)), "there is no {flag}");
    }
}

#[test]
fn the_params_of_the_readme_are_those_of_the_form() {
    let schema: serde_json::Value = serde_json::from_str(&text("schema-params.json")).expect("JSON");
    let mut known = BTreeSet::new();
    for (name, param) in schema["properties"].as_object().expect("params") {
        let list = |param: &serde_json::Value| if param.get("items").is_some() { "[]" } else { "" };
        known.insert(format!("{name}{}", list(param)));
        for (inner, param) in
            param.pointer("/items/properties").and_then(|inner| inner.as_object()).into_iter().flatten()
        {
            known.insert(format!("{name}[].{inner}{}", list(param)));
        }
    }
    let listed = rows(&text("README.md"), "### Params").into_iter().map(|row| in_code(&row[0]));
    assert_eq!(listed.collect::<BTreeSet<_>>(), known);
}

#[test]
fn ci_runs_the_two_commands_of_the_readme() {
    let (readme, ci) = (text("README.md"), text(".ci/run"));
    for command in ["cargo run --example quickstart", "cargo test --workspace"] {
        assert!(code(&readme).iter().any(|line| line == command), "README.md: {command}");
        assert!(ci.lines().any(|line| line.ends_with(command)), ".ci/run: {command}");
    }
}

#[test]
fn what_the_readme_quotes_of_the_quickstart_is_what_it_says() {
    let source: String =
        ["examples/quickstart.rs", "examples/quickstart/stage.rs", "examples/quickstart/cost.rs"].map(text).concat();
    let readme = text("README.md");
    let claims: Vec<&str> = readme.lines().filter_map(|line| line.trim().strip_prefix("[ok] ")).collect();
    assert!(claims.len() > 5, "{claims:?}");
    for claim in claims {
        let fixed = claim.split('(').next().unwrap_or_default().trim_end();
        assert!(source.contains(fixed), "{claim}");
    }
}

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    for document in [
        "README.md",
        "src/README.md",
        "tests/testbed/README.md",
        "examples/downstream/README.md",
        "docs/migration.md",
        "docs/old-platforms.md",
        "legacy/README.md",
    ] {
        let folder = Path::new(document).parent().expect("a folder");
        for link in text(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            // A heading of the document itself has no file in front of it.
            let target = if file.is_empty() { Path::new(document).to_owned() } else { folder.join(file) };
            let known = link.starts_with("https://") || target.exists();
            assert!(known, "{document}: {link}");
            if !heading.is_empty() && !link.starts_with("https://") {
                let headings = text(&target.display().to_string());
                let anchors: Vec<String> = headings.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
                assert!(anchors.iter().any(|anchor| anchor == heading), "{document}: {link} is none of {anchors:?}");
            }
        }
    }
}

#[test]
fn the_map_of_the_source_names_every_file_and_no_other() {
    let map = text("src/README.md");
    let is_source = |path: &Path| path.extension().is_some_and(|kind| kind == "rs");
    for name in code(&map).iter().filter(|code| is_source(Path::new(code))) {
        assert!(Path::new("src").join(name).exists() || Path::new(name).exists(), "there is no {name}");
    }
    let mut folders = vec![Path::new("src").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if is_source(&path) {
                let name = path.strip_prefix("src").expect("below src").display().to_string();
                assert!(map.contains(&format!("`{name}`")), "src/README.md says nothing of {name}");
            }
        }
    }
}
