//! `permgate completion SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, failure::Failure, output::print};

#[derive(Debug, Args)]
pub(super) struct Completion {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "permgate", &mut script);
        print(String::from_utf8_lossy(&script).trim_end())
    }
}
