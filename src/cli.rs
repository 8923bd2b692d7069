//! The command line: noun and verb. Data alone on stdout, words on stderr, a secret never as an
//! argument.

mod audit;
mod check;
mod client;
mod completion;
mod demo;
mod explain;
mod failure;
mod grant;
mod group;
mod health;
mod import;
mod man;
mod offline;
mod output;
mod reload;
mod role;
mod run;
mod scan;
mod schema;
mod store;
mod target;
mod token;
mod user;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use self::{failure::Failure, output::Format};

/// A reverse-proxy authorization gateway for permanent tokens.
#[derive(Debug, Parser)]
#[command(name = "permgate", version, arg_required_else_help = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 denied, 4 not found, \
                          5 admin listener not reached";

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The configuration [default: gateway.toml, to which no token is sent]
    #[arg(short, long, global = true, value_name = "FILE", env = "PERMGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The admin listener: unix:PATH or http://HOST:PORT; else as the configuration says
    #[arg(long, global = true, value_name = "ADDRESS", env = target::ADMIN_VARIABLE, num_args = 0..=1, default_missing_value = "")]
    pub(crate) admin: Option<String>,
    /// A file with the token to ask with; else PERMGATE_TOKEN; a unix socket needs none
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Open the store itself; only while no gateway runs on it
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// How data is printed
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

impl Global {
    /// The file that was named, or the one in the working directory.
    pub(crate) fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new("gateway.toml"))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP reloads, SIGUSR1 reopens the access log
    Run,
    /// Validate the configuration as `run` would and tell every mistake
    Check(check::Check),
    /// Try it out: an example upstream, a gateway and the lines to type
    Demo {
        /// Run the lines, show each outcome, and fail if one is not as it should be
        #[arg(long)]
        script: bool,
    },
    /// Tell how a request would be decided, step by step
    Explain(explain::Explain),
    /// Put the changed configuration in force, all of it or nothing
    Reload,
    /// Ask whether the gateway takes requests
    Health,
    /// Print the JSON Schema of the configuration
    Schema,
    /// Find tokens in files, diffs and standard input, offline; for a pre-commit hook
    ///
    /// Exit codes: 0 nothing was found, 1 something was, 2 usage, or a path that cannot be read.
    Scan(scan::Scan),
    /// Permanent tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Accounts that own tokens
    #[command(subcommand)]
    User(user::User),
    /// Groups, which services name as their readers
    #[command(subcommand)]
    Group(group::Group),
    /// Roles: named sets of permissions
    #[command(subcommand)]
    Role(role::Role),
    /// Roles given to users and groups
    #[command(subcommand)]
    Grant(grant::Grant),
    /// What was changed, and by whom
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Backup and restore
    #[command(subcommand)]
    Store(store::Store),
    /// Print a completion script
    Completion(completion::Completion),
    /// Print the manual page, or write the pages of all commands into a directory
    Man(man::Man),
}

/// Parses the arguments, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, on stdout; the rest is usage.
            let code = if error.use_stderr() { failure::USAGE } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(failure::FAILED),
            };
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Run => run::run(&global),
        Command::Demo { script } => demo::run(script),
        Command::Check(check) => check.run(&global),
        Command::Explain(explain) => explain.run(&global),
        Command::Reload => reload::run(&global),
        Command::Health => health::run(&global),
        Command::Schema => schema::run(),
        Command::Scan(scan) => scan.run(&global),
        Command::Token(token) => token.run(&global),
        Command::User(user) => user.run(&global),
        Command::Group(group) => group.run(&global),
        Command::Role(role) => role.run(&global),
        Command::Grant(grant) => grant.run(&global),
        Command::Audit(audit) => audit.run(&global),
        Command::Store(store) => store.run(&global),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_parses_and_what_does_not() {
        let check = |line: &str, expected: bool| {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), expected, "{line}: {:?}", parsed.err().map(|e| e.to_string()));
        };
        check("permgate run", true);
        check("permgate -c other.toml run", true);
        check("permgate run --config other.toml", true);
        check("permgate demo --script", true);
        check("permgate check -o json", true);
        check("permgate explain GET /api/issues --user ann", true);
        check("permgate explain GET /api/issues --user ann --token-id abcdefghijkl", false);
        check("permgate token create --user ann --name ci --scope youtrack --scope hub:read", true);
        check("permgate token create --user ann --name ci", false);
        check("permgate token create --user ann --name ci --scope youtrack --token secret", false);
        check("permgate token list --unused-for 90d -o id", true);
        check("permgate token list -o yaml", false);
        check("permgate token import tokens.ndjson --make-owners", true);
        check("permgate scan", true);
        check("permgate scan - src", true);
        check("permgate user add ann --admin", true);
        check("permgate user add --admin ann", true);
        check("permgate --offline user add ann --admin", true);
        check("permgate user add bot --kind service --invite", false);
        check("permgate user ban ann", false);
        check("permgate user ban ann --reason left", true);
        check("permgate group add hub-admins ann", true);
        check("permgate grant add system-admin --user ann", true);
        check("permgate grant add system-admin", false);
        check("permgate grant add system-admin --user ann --group staff", false);
        check("permgate --offline user list", true);
        check("permgate audit tail --follow", true);
        check("permgate completion fish", true);
        check("permgate", false);
        check("permgate tokens", false);
    }
}
