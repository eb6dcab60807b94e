//! Shell completions and the manual page, made of the definition of the command line. Pure.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The completion script of a shell.
pub(crate) fn completions(command: &mut Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    if shell != Shell::Bash {
        clap_complete::generate(shell, command, name, &mut script);
        return text(script);
    }
    // A hyphen in the program's name makes clap_complete (4.6.11) name its states in two ways, and none is ever found.
    let plain = name.replace('-', "_");
    clap_complete::generate(shell, command, &plain, &mut script);
    text(script).replace(&format!(" {plain}\n"), &format!(" {name}\n"))
}

/// The manual page: the program, then each of its commands.
pub(crate) fn page(mut command: Command) -> String {
    command.build(); // propagates the common settings to all commands
    // The commands are on this very page, and have none of their own.
    let mut page = rendered(|out| Man::new(command.clone()).render(out)).replace(".SH EXTRA", ".SH NOTES");
    for name in command.get_subcommands().map(Command::get_name) {
        page = page.replace(&format!("k8s\\-token\\-{name}(1)"), &format!("k8s\\-token {name}"));
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("k8s-token {}", command.get_name());
        let man = Man::new(command.clone().bin_name(&name));
        let body = rendered(|out| {
            man.render_synopsis_section(out)?;
            man.render_description_section(out)?;
            man.render_options_section(out)?;
            man.render_extra_section(out)
        });
        let body = body.replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n");
        page = format!("{page}.SH \"{}\"\n{}", name.to_uppercase(), body.replace(".SH ", ".SS "));
    }
    page
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    let _ = render(&mut out); // writing to memory does not fail
    text(out)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}
