//! Help texts: commands in sections, examples below, and the options of every command only on request.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

/// Commands by purpose; a test holds that every command is listed.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("First steps", &["init", "demo", "run", "check"]),
    ("Look", &["status", "health", "explain", "audit", "whoami", "version"]),
    ("Tokens", &["token", "scan"]),
    ("Accounts and access", &["user", "group", "role", "grant", "service"]),
    ("The gateway itself", &["reload", "store", "cluster", "schema", "completion", "man"]),
];

/// Command lines to copy; a test parses each of them.
const EXAMPLES: &str = include_str!("examples.txt");

/// The command tree with sections, examples and short help.
pub(super) fn style(command: Command) -> Command {
    let sections = sections(&command);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{sections}\nOptions:\n{{options}}{{after-help}}"
    );
    let mut command = command.help_template(template);
    for name in names(&command) {
        command = command.mut_subcommand(&name, |inner| subcommand(inner, &name));
    }
    command
}

fn subcommand(command: Command, path: &str) -> Command {
    let mut command = command
        .disable_help_flag(true)
        .arg(Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print help"));
    for name in names(&command) {
        let path = format!("{path} {name}");
        command = command.mut_subcommand(&name, |inner| subcommand(inner, &path));
    }
    let mut text = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
    if !command.has_subcommands() {
        let call = format!("permgate {path} ");
        let examples: Vec<&str> = EXAMPLES.lines().filter(|line| line.contains(&call)).collect();
        if !examples.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "Examples:\n  {}\n", examples.join("\n  "));
        }
        let _ = write!(text, "`permgate help {path}` also lists the options that every command takes.");
    }
    command.after_help(text.trim_end().to_owned())
}

fn names(command: &Command) -> Vec<String> {
    command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect()
}

fn sections(command: &Command) -> String {
    let mut text = String::new();
    for (heading, names) in SECTIONS {
        let _ = write!(text, "\n{heading}:\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:<11} {about}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::{Cli, command};

    #[test]
    fn every_command_is_in_a_section() {
        let mut listed: Vec<&str> = SECTIONS.iter().flat_map(|(_, names)| *names).copied().collect();
        listed.sort_unstable();
        let cli = Cli::command();
        let mut all: Vec<&str> =
            cli.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
        all.sort_unstable();
        assert_eq!(listed, all);
    }

    #[test]
    fn examples_are_of_commands_that_exist_and_parse() {
        for line in EXAMPLES.lines() {
            let line = line.split_once("| ").map_or(line, |(_, line)| line);
            let line = line.split_once(" >").map_or(line, |(line, _)| line);
            let parsed = command().try_get_matches_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err().map(|error| error.to_string()));
        }
    }

    /// Every option has a help text, and the help of a command omits the options of every command.
    #[test]
    fn help_is_short_and_complete() {
        fn walk(command: &mut Command, path: &str) {
            let help = command.render_help().to_string();
            assert!(path == "permgate" || !help.contains("--token-file"), "{path}: {help}");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{path} {}", arg.get_id());
            }
            let names: Vec<String> = names(command);
            for name in names.iter().filter(|name| *name != "help") {
                if let Some(inner) = command.find_subcommand_mut(name) {
                    assert!(inner.get_about().is_some(), "{path} {name}");
                    walk(inner, &format!("{path} {name}"));
                }
            }
        }
        let mut command = command();
        command.build();
        walk(&mut command, "permgate");
    }
}
