//! `permgate completion SHELL`: prints a script with which the shell asks this binary for completions,
//! including names in the store.

use clap::Args;
use clap_complete::{Shell, env::Shells};

use super::{failure::Failure, output::print};

/// The environment variable with which the script calls the binary.
pub(super) const VARIABLE: &str = "PERMGATE_COMPLETE";

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell that reads the script
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell.to_string()).expect("every shell of the enum is built in");
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "permgate", "permgate", "permgate", &mut script)?;
        print(String::from_utf8_lossy(&script).trim_end())
    }
}
