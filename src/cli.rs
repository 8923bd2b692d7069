//! The command line: `permgate NOUN VERB`. Data goes to stdout, messages to stderr; no secret is an argument.

mod audit;
mod check;
mod client;
mod cluster;
mod complete;
mod confirm;
mod demo;
mod explain;
mod failure;
mod grant;
mod group;
mod health;
mod help;
mod hint;
mod import;
mod init;
mod man;
mod offline;
mod output;
mod owner;
mod role;
mod run;
mod scan;
mod service;
mod status;
mod store;
mod target;
mod time;
mod token;
mod token_file;
mod user;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};
use clap_complete::CompleteEnv;
use serde_json::json;

use self::{client::Client, failure::Failure, output::Format};
use crate::config::key::schema;

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
                          5 admin listener not reached\n\n\
                          `permgate COMMAND --help` explains a command, `permgate --help` also lists the options \
                          that every command takes.";

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Configuration file. If not given, gateway.toml here, to whose listener no token is sent, else
    /// /etc/permgate/gateway.toml
    #[arg(short, long, global = true, hide_short_help = true, value_name = "FILE", env = "PERMGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The admin listener to talk to, unix:PATH or http://HOST:PORT; if not given, that of the configuration
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "ADDRESS",
        env = target::ADMIN_VARIABLE,
        num_args = 0..=1,
        default_missing_value = ""
    )]
    pub(crate) admin: Option<String>,
    /// File with the token to send; if not given, PERMGATE_TOKEN. A unix socket needs no token
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Open the store itself, while no gateway has it open
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) offline: bool,
    /// How data is printed
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t = Format::Table
    )]
    pub(crate) output: Format,
}

impl Global {
    /// The configuration file that was named, else `gateway.toml` in the working directory.
    pub(crate) fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new("gateway.toml"))
    }

    /// Whether the command line itself names the admin listener, not only the variable.
    pub(crate) fn names_admin(&self) -> bool {
        self.admin.is_some() && self.admin != env::var(target::ADMIN_VARIABLE).ok()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration and create the first administrator
    Init(init::Init),
    /// Serve until SIGTERM; SIGHUP reloads, SIGUSR1 reopens the access log
    #[command(aliases = ["serve", "start"])]
    Run,
    /// Validate the configuration and report every error
    Check(check::Check),
    /// Start a demo: an example upstream, a gateway with its page, and commands to try
    Demo {
        /// Run the commands, show each outcome, and fail if one is not as expected
        #[arg(long)]
        script: bool,
    },
    /// Show whether the gateway serves, and what it did in the last hour
    Status,
    /// Show how a request would be decided, step by step
    Explain(explain::Explain),
    /// Apply the changed configuration, all of it or nothing
    Reload,
    /// Check whether the gateway accepts requests
    Health,
    /// Print the JSON Schema of the configuration
    Schema,
    /// Find tokens in files, diffs and standard input, offline; for a pre-commit hook
    #[command(
        after_help = "Exit codes: 0 nothing was found, 1 something was, 2 usage, or a path that cannot be read"
    )]
    Scan(scan::Scan),
    /// Manage permanent tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Manage the accounts that own tokens
    #[command(subcommand)]
    User(user::User),
    /// Manage groups; a service names the groups that may read it
    #[command(subcommand)]
    Group(group::Group),
    /// Manage roles, which are named sets of permissions
    #[command(subcommand)]
    Role(role::Role),
    /// Manage who holds which role
    #[command(subcommand)]
    Grant(grant::Grant),
    /// Show the services that a token can be granted for
    #[command(subcommand)]
    Service(service::Service),
    /// Show what was changed, and who changed it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Back up the store, or restore it
    #[command(subcommand)]
    Store(store::Store),
    /// Set up and inspect a cluster of gateways over one store
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Show the owner of the token in use, and what it may do
    Whoami,
    /// Print the version and how this binary was built
    Version,
    /// Print a completion script
    Completion(complete::Completion),
    /// Print the manual page, or write the pages of all commands into a directory
    Man(man::Man),
}

/// The command tree for parsing, help, man pages and completions.
pub fn command() -> clap::Command {
    help::style(Cli::command())
}

/// Parses a command line, the name of the program first.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = without_empty_variables(command()).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
}

/// Has an empty environment variable count as one that is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| match argument.get_env().map(env::var_os) {
        Some(Some(value)) if value.is_empty() => argument.env(Resettable::Reset),
        _ => argument,
    })
}

/// Parses the arguments, runs the command and reports failures.
pub fn main() -> ExitCode {
    // Ends the process if a shell requests completions.
    CompleteEnv::with_factory(command).var(complete::VARIABLE).complete();
    let cli = match parse(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and succeed; anything else is a usage error. `Error::exit` would
            // also succeed when it cannot write.
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
            ExitCode::from(failure.code)
        }
    }
}

/// Where packages install the configuration.
const MACHINE_CONFIG: &str = "/etc/permgate/gateway.toml";

impl Global {
    /// Falls back to the machine's configuration if none was named and the working directory has none.
    fn with_machine_config(mut self) -> Self {
        if self.config.is_none() && !self.config().exists() && Path::new(MACHINE_CONFIG).exists() {
            self.config = Some(MACHINE_CONFIG.into());
        }
        self
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    // Init writes a new file here, even if the machine has one.
    let global = if matches!(command, Command::Init(_)) { global } else { global.with_machine_config() };
    match command {
        Command::Init(init) => init.run(&global),
        Command::Run => run::run(&global),
        Command::Demo { script } => demo::run(script),
        Command::Check(check) => check.run(&global),
        Command::Status => status::run(&global),
        Command::Explain(explain) => explain.run(&global),
        Command::Reload => reload(&global),
        Command::Health => health::run(&global),
        Command::Schema => output::print(&output::pretty(&schema())),
        Command::Scan(scan) => scan.run(&global),
        Command::Token(token) => token.run(&global),
        Command::User(user) => user.run(&global),
        Command::Group(group) => group.run(&global),
        Command::Role(role) => role.run(&global),
        Command::Grant(grant) => grant.run(&global),
        Command::Service(service) => service.run(&global),
        Command::Audit(audit) => audit.run(&global),
        Command::Store(store) => store.run(&global),
        Command::Cluster(cluster) => cluster.run(&global),
        Command::Whoami => token::whoami(&global),
        Command::Version => version(global.output),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}

fn reload(global: &Global) -> Result<(), Failure> {
    let response = Client::new(global)?.post("/v1/reload", &json!({}))?;
    global.output.done(&response, "the configuration is in force")
}

/// Version, optional features and platform, for bug reports.
fn version(format: Format) -> Result<(), Failure> {
    let (version, arch, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    let etcd = cfg!(feature = "etcd");
    let parts = if etcd { ", with etcd" } else { "" };
    let line = || output::print(&format!("permgate {version} ({arch}-{os}{parts})"));
    format.document(&json!({"version": version, "arch": arch, "os": os, "etcd": etcd}), line, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_sound() {
        command().debug_assert();
    }

    #[test]
    fn what_parses_and_what_does_not() {
        let check = |line: &str, expected: bool| {
            let parsed = command().try_get_matches_from(line.split(' '));
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
        check("permgate user create ann --administrator", true);
        check("permgate token ls", true);
        check("permgate token rm laptop --user ann", true);
        check("permgate token create --user ann --name ci --scope youtrack --expires-in 90", false);
        check("permgate token create --user ann --name ci --scope youtrack --expires-at 2027-01-01", true);
        check("permgate token list --unused-for 90", false);
        check("permgate token rotate laptop --grace 3600", false);
        check("permgate user rm zoe --yes", true);
        check("permgate service list", true);
        check("permgate man pages", true);
        check("permgate man --all pages", true);
        check("permgate --offline user add ann --admin", true);
        check("permgate user ban ann", false);
        check("permgate user ban ann --reason left", true);
        check("permgate group add hub-admins ann", true);
        check("permgate grant add system-admin --user ann", true);
        check("permgate grant add system-admin", false);
        check("permgate grant add system-admin --user ann --group staff", false);
        check("permgate --offline user list", true);
        check("permgate audit tail --follow", true);
        check("permgate serve", true);
        check("permgate user passwd ann", true);
        check("permgate completion fish", true);
        check("permgate", false);
        check("permgate tokens", false);
    }
}
