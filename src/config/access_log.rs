//! Checks the access log's file, which must be opened at start.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use super::{Config, Problem, reason};
use crate::proxy::access_log::LogTarget;

impl Config {
    /// The error that a start would get, if any. Does not create the file.
    pub fn access_log_error(&self) -> Option<Problem> {
        let LogTarget::File(path) = &self.log.access else { return None };
        let found = match fs::metadata(path) {
            // A pipe is not opened: that would wait for a reader.
            Ok(metadata) if metadata.is_file() => OpenOptions::new().append(true).open(path).map(drop),
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                fs::metadata(directory.unwrap_or(Path::new("."))).map(drop)
            }
            other => other.map(drop),
        };
        found.err().map(|error| self.access_log_problem(&error))
    }

    pub fn access_log_problem(&self, error: &io::Error) -> Problem {
        let file = match &self.log.access {
            LogTarget::File(path) => format!(" {}", path.display()),
            LogTarget::Off | LogTarget::Stdout => String::new(),
        };
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "create the directory that it is in",
            io::ErrorKind::PermissionDenied => "let the user who runs permgate write there",
            io::ErrorKind::IsADirectory => "name a file in it",
            _ => "",
        };
        let message = format!("cannot open the access log{file}: {}", reason(error));
        self.problem_at_key("log.access", message, advice)
    }
}
