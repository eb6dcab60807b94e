//! Help, manual page and completions, generated from one definition.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use k8s_token::error::{Code, Exit};
use rstest::rstest;

use crate::support::{Ran, binary};

const COMMANDS: [&str; 9] =
    ["plan", "provision", "decommission", "permissions", "check", "verify", "kubeconfig", "completions", "man"];

fn stdout_of(arguments: &[&str]) -> String {
    let ran = Ran::of(binary().args(arguments)).expect_code(0);
    assert_eq!(ran.stderr, "");
    ran.stdout
}

/// Every flag in the help of the commands.
fn flags() -> BTreeSet<String> {
    let helps = COMMANDS.map(|command| stdout_of(&[command, "--help"]));
    let words = helps.iter().flat_map(|help| help.split_whitespace());
    let flags = words
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.trim_end_matches(|char: char| !char.is_ascii_lowercase()).to_owned());
    flags.collect()
}

#[test]
fn help_lists_every_exit_status() {
    let help = stdout_of(&["--help"]);
    let listed: BTreeSet<String> = help
        .lines()
        .skip_while(|line| *line != "Exit status:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let known = Code::ALL.iter().map(|code| code.exit()).chain([Exit::Done, Exit::Changes]);
    assert_eq!(listed, known.map(|exit| (exit as u8).to_string()).collect());
    assert_eq!(stdout_of(&["--version"]), format!("k8s-token {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn manual_page_covers_the_help() {
    let page = stdout_of(&["man"]);
    assert!(page.contains(".TH k8s-token 1"), "{page}");
    for command in COMMANDS {
        assert!(page.contains(&format!(".SH \"K8S-TOKEN {}\"", command.to_uppercase())), "{command}");
    }
    let plain = page.replace('\\', "");
    assert!(!plain.contains("k8s-token-plan"), "there is no such page");
    for flag in flags() {
        assert!(plain.contains(&format!("--{flag}")), "--{flag}");
    }
    for text in ["MASSDRIVER_DEPLOYMENT_ACTION", "Exit status", "HTTPS_PROXY"] {
        assert!(plain.contains(text), "{text}");
    }
}

#[rstest]
#[case("bash", "complete -F")]
#[case("zsh", "#compdef k8s-token")]
#[case("fish", "complete -c k8s-token")]
#[case("powershell", "Register-ArgumentCompleter")]
#[case("elvish", "edit:completion")]
fn each_shell_completes_every_command_and_flag(#[case] shell: &str, #[case] text: &str) {
    let script = stdout_of(&["completions", shell]);
    assert!(script.contains(text), "{script}");
    for word in COMMANDS.into_iter().map(str::to_owned).chain(flags()) {
        assert!(script.contains(&word), "{word}");
    }
}

/// A shell that loads the script uses it.
#[test]
fn bash_completion_works() {
    let script = stdout_of(&["completions", "bash"]);
    // As the shell does it: by the function that is registered for the program.
    let ask = r#"
        function=$(complete -p k8s-token | sed 's/.*-F \([^ ]*\).*/\1/')
        for line in "k8s-token provision --tls" "k8s-token dec" "k8s-token completions z"; do
            COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            $function k8s-token "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}"
        done
    "#;
    let mut bash = Command::new("bash")
        .args(["--noprofile", "--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(format!("{script}\n{ask}").as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--tls-server-name\ndecommission\nzsh\n");
}
