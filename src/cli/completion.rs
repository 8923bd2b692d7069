//! `permgate completion SHELL`: prints a script with which the shell asks this binary for completions,
//! including names in the store.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use super::{failure::Failure, output::print};

/// The environment variable with which the script calls the binary.
pub(super) const VARIABLE: &str = "PERMGATE_COMPLETE";

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell that reads the script
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Completion {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Elvish => &Elvish,
            Shell::Fish => &Fish,
            Shell::Powershell => &Powershell,
            Shell::Zsh => &Zsh,
        };
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "permgate", "permgate", "permgate", &mut script)?;
        print(String::from_utf8_lossy(&script).trim_end())
    }
}
