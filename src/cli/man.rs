//! `permgate man`: prints the manual page, or writes the pages of all commands.

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
    /// The directory in the older form of this command
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
            return clap_mangen::generate_to(pages(), &directory).map_err(unwritable);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(pages()).render(&mut page)?;
        print(String::from_utf8_lossy(&page).trim_end())
    }
}

/// Man pages describe the options of every command, which short help omits.
fn pages() -> clap::Command {
    command().mut_args(|arg| arg.hide_short_help(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_describes_the_options_of_every_command() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().to_owned();
        assert!(Man { directory: Some(at.clone()), all: None }.run().is_ok());
        for page in ["permgate.1", "permgate-token-list.1", "permgate-store-backup.1"] {
            let text = fs::read_to_string(at.join(page)).expect(page);
            for words in ["The admin listener to talk to", "How data is printed", "Open the store itself"] {
                assert!(text.contains(words), "{page}: {words}\n{text}");
            }
        }
    }
}
