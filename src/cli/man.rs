//! `permgate man`.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{
    command,
    failure::{Failure, reason},
    output::print,
};

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write the pages of all commands into this directory
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The same, as it was written before
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "directory")]
    all: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(directory) = self.directory.or(self.all) {
            let unwritable = |error| {
                Failure::failed(format!("cannot write to {}: {}", directory.display(), reason(&error)))
            };
            fs::create_dir_all(&directory).map_err(unwritable)?;
            return clap_mangen::generate_to(command(), &directory).map_err(unwritable);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page)?;
        print(String::from_utf8_lossy(&page).trim_end())
    }
}
