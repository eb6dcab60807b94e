//! The documents compared with the program: codes, exit codes, options, params, commands, examples, links. A page is
//! found by its content, so that text can move.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use k8s_token::{
    error::{Code, Exit},
    finding,
};
use serde_json::Value;

use crate::{
    codes::{Entry, entries, section},
    risks,
};

const CODES: &str = "docs/troubleshooting.md";
const WARNINGS: &str = "docs/warnings.md";
const OPTIONS: &str = "docs/cli.md";
const PARAMS: &str = "docs/configuration.md";
const README_LINES: usize = 250;

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|cause| panic!("{path}: {cause}"))
}

/// Paths of all documents, and their text.
fn documents() -> Vec<(String, String)> {
    let not_ours = |name: &std::ffi::OsStr| !["target", "node_modules"].iter().any(|folder| name == *folder);
    let walk = ignore::WalkBuilder::new(".").filter_entry(move |entry| not_ours(entry.file_name())).build();
    let paths = walk.map(|entry| entry.expect("a readable checkout").into_path());
    let mut found: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .map(|path| path.strip_prefix(".").expect("below this folder").display().to_string())
        .collect();
    found.sort();
    assert!(found.len() > 20, "{found:?}");
    found.into_iter().map(|path| (path.clone(), text(&path))).collect()
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

/// Code blocks: the language, and the text.
fn blocks(text: &str) -> Vec<(String, String)> {
    let parts = text.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    parts.map(|(language, block)| (language.to_owned(), block.to_owned())).collect()
}

/// Code in running text.
fn inline_code(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "))).collect()
}

fn k8s_token(arguments: &[&str], stdin: &str, directory: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_k8s-token"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // A program that does not read its input closes the pipe.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("an end")
}

fn help(command: Option<&str>) -> String {
    let arguments: Vec<&str> = command.into_iter().chain(["--help"]).collect();
    let output = k8s_token(&arguments, "", Path::new("."));
    assert!(output.status.success(), "{command:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

fn flags(help: &str) -> BTreeSet<&str> {
    let words = help.split_whitespace().filter(|word| word.starts_with("--"));
    words.map(|word| word.trim_end_matches(',')).collect()
}

fn commands() -> Vec<String> {
    let top = help(None);
    let lines = top.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<String> = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(commands.iter().any(|command| command == "plan"), "{top}");
    commands
}

/// The sources of the program without their tests, with each string on one line.
fn sources() -> String {
    let mut found = String::new();
    for entry in ignore::WalkBuilder::new("src").build() {
        let path = entry.expect("a readable folder").into_path();
        if path.extension().is_some_and(|kind| kind == "rs") {
            let source = text(&path.display().to_string());
            found.push_str(source.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
    let mut joined = found.split("\\\n");
    let first = joined.next().unwrap_or_default().to_owned();
    joined.fold(first, |text, more| text + more.trim_start()).replace("\\\"", "\"")
}

fn finding_codes() -> BTreeSet<String> {
    finding::Code::ALL.iter().map(|code| code.as_str().to_owned()).collect()
}

fn entries_of(page: &str, headings: &[&str]) -> Vec<Entry> {
    let page = text(page);
    headings.iter().flat_map(|heading| entries(section(&page, heading))).collect()
}

fn error_entries() -> Vec<Entry> {
    entries_of(CODES, &["## Error codes"])
}

fn warning_entries() -> Vec<Entry> {
    entries_of(WARNINGS, &["## Input errors", "## Warning codes"])
}

fn risk_entries() -> Vec<Entry> {
    entries_of(risks::PAGE, &["## Risk codes"])
}

#[test]
fn each_error_code_is_documented() {
    let listed: Vec<(String, String)> = error_entries().into_iter().map(|entry| (entry.code, entry.kind)).collect();
    let mut known: Vec<(String, String)> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), format!("Exit {}.", code.exit() as u8))).collect();
    known.sort();
    assert_eq!(
        listed.iter().map(|(code, _)| code).collect::<Vec<_>>(),
        known.iter().map(|(code, _)| code).collect::<Vec<_>>()
    );
    for ((code, kind), (_, exit)) in listed.iter().zip(&known) {
        assert!(kind == exit || *kind == format!("{exit} Command line only."), "{code}: {kind}");
    }
}

#[test]
fn each_finding_code_is_documented() {
    let entries = warning_entries().into_iter().chain(risk_entries());
    let mut listed: Vec<String> = entries.map(|entry| entry.code).collect();
    let sorted = listed.clone();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), sorted.len(), "a code has two entries");
    assert!(risk_entries().iter().all(|entry| entry.code.starts_with("risk-")), "{}", risks::PAGE);
    let errors: BTreeSet<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let found = finding_codes();
    assert!(found.len() > 30, "{found:?}");
    let known: Vec<String> = found.difference(&errors).cloned().collect();
    assert_eq!(listed, known);
    let warnings = text(WARNINGS);
    let both = found.intersection(&errors).filter(|code| !warnings.contains(&format!("`{code}`")));
    assert_eq!(both.collect::<Vec<_>>(), Vec::<&String>::new(), "error codes that are findings as well");
}

#[test]
fn documented_severities_match_the_program() {
    for entry in warning_entries().into_iter().chain(risk_entries()) {
        let code = finding::Code::ALL.iter().find(|code| code.as_str() == entry.code).unwrap();
        let words: BTreeSet<&str> = entry.kind.split(|letter: char| !letter.is_ascii_alphabetic()).collect();
        if words.contains("Blocking") {
            continue;
        }
        for severity in ["info", "low", "medium", "high", "critical"] {
            let known = code.severities().iter().any(|known| known.as_str() == severity);
            assert_eq!(words.contains(severity), known, "{}: {}", entry.code, entry.kind);
        }
    }
}

#[test]
fn documents_name_only_known_findings() {
    let known = finding_codes();
    let mut named = 0;
    for (document, text) in documents() {
        let text = text.replace('\n', " ").replace("warning `", "finding `");
        for rest in text.split("finding `").skip(1) {
            let code = rest.split('`').next().unwrap();
            assert!(known.contains(code), "{document} names the finding {code}");
            named += 1;
        }
    }
    assert!(named > 4, "only {named} findings are named");
}

#[test]
fn each_entry_has_meaning_check_and_fix() {
    for entry in error_entries().iter().chain(&warning_entries()) {
        for part in ["**Meaning.** ", "**Check.** ", "**Fix.** "] {
            assert_eq!(entry.text.matches(part).count(), 1, "{}: {part}", entry.code);
        }
        assert!(!entry.text.contains("]("), "{}: the runbook cannot follow a link", entry.code);
        assert!(!entry.text.contains("{{"), "{}: the runbook is a template", entry.code);
    }
}

/// The parts of a sample log between its gaps that do not occur in the program.
fn missing_quotes<'a>(line: &'a str, sources: &str) -> Vec<&'a str> {
    let parts = line.split('…').map(|part| part.trim_matches([' ', ':', ';', ',', '.']));
    parts.filter(|part| part.len() > 2 && !sources.contains(part)).collect()
}

/// `UPDATE_DOCS=1` rewrites the first line of a sample log, and its `next` line.
#[test]
fn sample_logs_of_errors_quote_the_program() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let mut page = text(CODES);
        for entry in error_entries() {
            if let Some(sample) = &entry.sample {
                page = page.replacen(sample, &with_current_error(&entry.code, sample), 1);
            }
        }
        fs::write(CODES, page).expect(CODES);
    }
    let sources = sources();
    let mut samples = 0;
    for Entry { code, sample, .. } in error_entries() {
        let Some(sample) = sample else { continue };
        samples += 1;
        assert_eq!(sample, with_current_error(&code, &sample), "UPDATE_DOCS=1 cargo test --test documents");
        for cause in sample.lines().filter_map(|line| line.strip_prefix("  cause")) {
            assert_eq!(missing_quotes(cause, &sources), Vec::<&str>::new(), "{code}: not a text of the program");
        }
    }
    assert!(samples > 30, "{samples}");
}

fn with_current_error(code: &str, sample: &str) -> String {
    let known = Code::ALL.iter().find(|known| known.as_str() == code).unwrap_or_else(|| panic!("{code}"));
    let next = known.next_step();
    let line = |line: &str| match line.split_whitespace().next() {
        Some("failed") => format!("{:<12} {code} (exit {})\n", "failed", known.exit() as u8),
        Some("next") => format!("{:<12} {next}\n", "  next"),
        _ => format!("{line}\n"),
    };
    sample.lines().map(line).collect()
}

#[test]
fn sample_logs_of_warnings_quote_the_program() {
    let sources = sources();
    let mut samples = 0;
    for Entry { code, sample, .. } in warning_entries() {
        let Some(sample) = sample else { continue };
        samples += 1;
        for line in sample.lines() {
            let said = line.get(12..).unwrap_or_default().trim().trim_end_matches(&format!("[{code}]"));
            assert_eq!(missing_quotes(said, &sources), Vec::<&str>::new(), "{code}: not a text of the program");
        }
    }
    assert!(samples > 15, "{samples}");
}

#[test]
fn documented_exit_codes_match_the_program() {
    let known = Code::ALL.iter().map(|code| code.exit()).chain([Exit::Done, Exit::Changes]);
    let known: BTreeSet<String> = known.map(|exit| (exit as u8).to_string()).collect();
    let tables: Vec<Vec<Vec<String>>> = documents()
        .iter()
        .filter(|(_, text)| text.contains("\n## Exit codes\n"))
        .map(|(_, text)| rows(text, "## Exit codes"))
        .collect();
    assert_eq!(tables.len(), 2, "README.md and {CODES}");
    for table in &tables {
        assert_eq!(table, &tables[0]);
        assert_eq!(table.iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>(), known);
    }
}

#[test]
fn runbook_documents_each_deployment_code() {
    let runbook = text("operator.md");
    for entry in error_entries().iter().chain(&warning_entries()) {
        let is_there = runbook.contains(&format!("\n### {}\n", entry.code));
        assert_eq!(is_there, entry.concerns_deployments(), "{}: UPDATE_DOCS=1 cargo test --test documents", entry.code);
    }
}

/// The words of a shell line, without quotes; an operator that ends a command is a word of its own.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for sign in line.chars() {
        match (quote, sign) {
            (Some(open), sign) if sign == open => quote = None,
            (None, '\'' | '"') => quote = Some(sign),
            (None, '|' | '>' | '<' | ';' | '&') => words.extend([std::mem::take(&mut word), sign.to_string()]),
            (None, sign) if sign.is_whitespace() => words.push(std::mem::take(&mut word)),
            (_, sign) => word.push(sign),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The arguments of each invocation of the program in a shell line, by its name or by that of its image.
fn runs(line: &str, commands: &[String]) -> Vec<Vec<String>> {
    let words = shell_words(line.trim().trim_start_matches("$ "));
    let ends = |word: &String| ["|", ">", "<", ";", "&", "#"].contains(&word.as_str());
    let mut found = Vec::new();
    for (number, word) in words.iter().enumerate() {
        let begins = number == 0 || ends(&words[number - 1]);
        let known = words.get(number + 1).is_some_and(|next| commands.contains(next));
        let in_comment = words[..number].iter().any(|word| word == "#");
        if word == "k8s-token" && (begins || known) && !in_comment {
            found.push(words[number + 1..].iter().take_while(|word| !ends(word)).cloned().collect());
        }
    }
    found
}

/// Executed in an empty directory: a command line that parses ends with an exit code other than 64.
#[test]
fn commands_in_code_blocks_parse() {
    let (empty, commands) = (tempfile::tempdir().expect("a temporary directory"), commands());
    let mut used = BTreeSet::new();
    for (path, text) in documents() {
        let shells = blocks(&text)
            .into_iter()
            .filter(|(language, _)| ["", "bash", "sh", "console", "yaml"].contains(&language.as_str()));
        for (_, block) in shells {
            for arguments in block.replace("\\\n", " ").lines().flat_map(|line| runs(line, &commands)) {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let output = k8s_token(&arguments, "", empty.path());
                let said = String::from_utf8_lossy(&output.stderr);
                assert_ne!(output.status.code(), Some(64), "{path}: {arguments:?}: {said}");
                used.extend(arguments.first().map(|command| (*command).to_owned()));
            }
        }
    }
    let unused: Vec<_> = commands.iter().filter(|command| !used.contains(*command) && *command != "help").collect();
    assert_eq!(unused, Vec::<&String>::new(), "commands without an example");
}

#[test]
fn command_invocations_in_a_line_are_found() {
    let commands = ["plan", "check"].map(str::to_owned);
    let found = |line: &str| runs(line, &commands).iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("$ k8s-token plan --params p > plan.json"), ["plan --params p"]);
    assert_eq!(found("echo '{\"a\": 1}' | k8s-token plan --params -"), ["plan --params -"]);
    assert_eq!(found("k8s-token plna --name a   # a comment"), ["plna --name a"]);
    assert_eq!(found("docker run --rm k8s-token check < params.json"), ["check"]);
    assert_eq!(found("docker build --tag k8s-token ."), Vec::<String>::new());
}

#[test]
fn commands_in_running_text_exist() {
    let commands = commands();
    for (path, text) in documents() {
        for code in inline_code(&text).iter().filter(|code| code.starts_with("k8s-token ") && !code.contains('…')) {
            let words: Vec<&str> = code.split_whitespace().skip(1).collect();
            let command = words.iter().find(|word| !word.starts_with('-')).copied();
            let command = command.filter(|word| commands.iter().any(|command| command == word));
            assert!(command.is_some() || words[0].starts_with("--"), "{path}: {code}");
            let help = help(command);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(flags(&help).contains(flag), "{path}: {code}: there is no {flag}");
            }
        }
    }
}

#[test]
fn documented_options_match_the_program() {
    let page = text(OPTIONS);
    let listed: BTreeSet<String> =
        rows(&page, "## Options of plan, provision and decommission").into_iter().map(|row| in_code(&row[0])).collect();
    let helps: Vec<String> = ["plan", "provision", "decommission"].map(|command| help(Some(command))).into();
    let known: BTreeSet<String> = helps.iter().flat_map(|help| flags(help)).map(str::to_owned).collect();
    assert_eq!(listed, known.into_iter().filter(|flag| flag != "--help").collect());
    let listed: Vec<String> =
        rows(&format!("\n{page}"), "# The command line").into_iter().map(|row| in_code(&row[0])).collect();
    let known =
        commands().into_iter().filter(|command| command != "help").map(|command| format!("k8s-token {command}"));
    assert_eq!(listed, known.collect::<Vec<_>>());
}

#[test]
fn documented_params_match_the_form() {
    fn collect(schema: &Value, path: &str, known: &mut BTreeSet<String>) {
        for (name, param) in schema["properties"].as_object().into_iter().flatten() {
            let items = param.get("items");
            let path = format!("{path}{name}{}", if items.is_some() { "[]" } else { "" });
            collect(items.unwrap_or(param), &format!("{path}."), known);
            known.insert(path);
        }
    }

    let schema: Value = serde_json::from_str(&text("schema-params.json")).expect("JSON");
    let mut known = BTreeSet::new();
    collect(&schema, "", &mut known);
    let listed = rows(&text(PARAMS), "## Params").into_iter().map(|row| in_code(&row[0]));
    assert_eq!(listed.collect::<BTreeSet<_>>(), known);
}

#[test]
fn ci_runs_both_commands_of_the_readme() {
    let (readme, ci) = (text("README.md"), text(".ci/run"));
    for command in ["cargo run --example quickstart", ".ci/install && cargo test --workspace"] {
        assert!(blocks(&readme).iter().any(|(_, block)| block.trim() == command), "README.md: {command}");
        for step in command.split(" && ") {
            assert!(ci.lines().any(|line| line.ends_with(step)), ".ci/run: {step}");
        }
    }
}

#[test]
fn readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= README_LINES, "{lines} lines: move some to a page in docs/");
}

fn is_valid(schema: &Value, document: &Value) -> Vec<String> {
    let validator =
        jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(schema).expect("a JSON Schema of draft 7");
    validator.iter_errors(document).map(|error| error.to_string()).collect()
}

/// Params pass `check`, and credentials match their type.
#[test]
fn json_examples_are_valid() {
    let flat: Value = serde_json::from_str(&text("schema-artifacts.json")).expect("JSON");
    let flat = &flat["properties"]["token"];
    let legacy: Value = serde_json::from_str(&text("src/schema/kubernetes-cluster-legacy.json")).expect("JSON");
    let (mut params, mut credentials) = (0, 0);
    for (path, text) in documents() {
        for (_, block) in blocks(&text).into_iter().filter(|(language, _)| language == "json") {
            let example: Value =
                serde_json::from_str(&block).unwrap_or_else(|error| panic!("{path}: {error}: {block}"));
            if example.get("authentication").is_some() {
                credentials += 1;
                assert_eq!(is_valid(flat, &example), Vec::<String>::new(), "{path}: {block}");
            } else if example.get("data").is_some() {
                credentials += 1;
                assert_eq!(is_valid(&legacy, &example), Vec::<String>::new(), "{path}: {block}");
            } else {
                params += 1;
                let output = k8s_token(&["check"], &block, Path::new("."));
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && !said.contains("unknown-param"), "{path}: {block}: {said}");
            }
        }
    }
    assert!(params >= 4 && credentials >= 2, "{params} {credentials}");
}

#[test]
fn yaml_examples_parse() {
    for (path, text) in documents() {
        for (_, block) in blocks(&text).into_iter().filter(|(language, _)| language == "yaml") {
            let parsed: Result<Value, _> = serde_saphyr::from_str(&block);
            assert!(parsed.is_ok(), "{path}: {block}: {:?}", parsed.err());
        }
    }
}

/// The log on the page, compared with the snapshot.
#[test]
fn documented_log_matches_the_snapshot() {
    let page = text("docs/how-it-works.md");
    let log = blocks(&page).into_iter().find(|(language, _)| language == "text").expect("a log").1;
    let snapshot = text("tests/cluster/snapshots/cluster__provision__provision.snap");
    let words = |line: &str| -> Vec<String> {
        let word = |word: &str| match word {
            word if word.starts_with("https://") => "URL".to_owned(),
            word if word.starts_with("sha256:") => "sha256:#".to_owned(),
            word if word.starts_with("v1.") => "v#".to_owned(),
            word if word.parse::<u64>().is_ok() && !line.contains("allowed") => "#".to_owned(),
            word if word.strip_prefix('(').is_some_and(|word| word.parse::<u64>().is_ok()) => "(#".to_owned(),
            word => word.to_owned(),
        };
        line.strip_suffix(" ms").map_or_else(
            || line.split_whitespace().map(word).collect(),
            // The duration is the last number.
            |line| {
                let mut words: Vec<String> = line.split_whitespace().map(word).collect();
                words.pop();
                words.into_iter().chain(["#", "ms"].map(str::to_owned)).collect()
            },
        )
    };
    let lines: Vec<&str> = snapshot.split("\n---\n").nth(1).expect("a log").lines().collect();
    for line in log.lines() {
        let line = words(line).join(" ");
        assert!(lines.contains(&line.as_str()), "{line:?} is not in {lines:#?}");
    }
}

/// The anchor of a heading, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_resolve() {
    for (document, text) in documents() {
        let folder = Path::new(&document).parent().expect("a folder");
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            // A link to a heading of the same document has no file.
            let target = if file.is_empty() { Path::new(&document).to_owned() } else { folder.join(file) };
            assert!(target.exists(), "{document}: {link}");
            if !heading.is_empty() {
                let headings = fs::read_to_string(&target).expect("a document");
                let anchors: Vec<String> = headings.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
                assert!(anchors.iter().any(|anchor| anchor == heading), "{document}: {link} is not in {anchors:?}");
            }
        }
    }
}

#[test]
fn source_map_lists_exactly_the_source_files() {
    let map = text("src/README.md");
    let is_source = |path: &Path| path.extension().is_some_and(|kind| kind == "rs");
    for name in inline_code(&map).iter().filter(|code| is_source(Path::new(code))) {
        assert!(Path::new("src").join(name).exists() || Path::new(name).exists(), "there is no {name}");
    }
    for entry in ignore::WalkBuilder::new("src").build() {
        let path = entry.expect("a readable folder").into_path();
        if is_source(&path) {
            let name = path.strip_prefix("src").expect("below src").display().to_string();
            assert!(map.contains(&format!("`{name}`")), "src/README.md does not list {name}");
        }
    }
}
