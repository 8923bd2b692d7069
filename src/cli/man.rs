//! `permgate man`.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory};

use super::{Cli, failure::Failure, output::print};

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write one page a command into this directory
    #[arg(long, value_name = "DIRECTORY")]
    all: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if let Some(directory) = &self.all {
            fs::create_dir_all(directory)?;
            return Ok(clap_mangen::generate_to(Cli::command(), directory)?);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        print(String::from_utf8_lossy(&page).trim_end())
    }
}
