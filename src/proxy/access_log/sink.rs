//! The target that the log thread writes to.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{authz::administration::names, proxy::access_log::LogTarget};

pub enum Sink {
    Off,
    Stdout,
    /// Stdout is a terminal: lines are formatted for people.
    Terminal,
    File {
        path: PathBuf,
        file: File,
    },
}

impl Sink {
    pub fn open(target: LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Off => Self::Off,
            LogTarget::Stdout if io::stdout().is_terminal() => Self::Terminal,
            LogTarget::Stdout => Self::Stdout,
            LogTarget::File(path) => {
                let file = append(&path)?;
                Self::File { path, file }
            }
        })
    }

    /// Opens the file again. On an error lines still go to the old file.
    pub fn reopen(&mut self) {
        if let Self::File { path, file } = self {
            match append(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => tracing::error!(path = %path.display(), %error, "cannot reopen the access log"),
            }
        }
    }

    pub fn write(&mut self, lines: &[u8]) {
        let written = match self {
            Self::Off => Ok(()),
            Self::Terminal => io::stdout().lock().write_all(format_for_terminal(lines).as_bytes()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Self::File { file, .. } => file.write_all(lines),
        };
        if let Err(error) = written {
            tracing::error!(%error, "cannot write the access log");
        }
    }
}

/// Formats JSON lines for people: time, status, method, path, service, user, reason and duration.
fn format_for_terminal(lines: &[u8]) -> String {
    let mut text = String::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
        let word = |field: &str| record[field].as_str().unwrap_or_default();
        let time = word("time").get(11..19).unwrap_or_default();
        let mut rendered = format!("{time} {} {} {}", record["status"], word("method"), word("path"));
        for field in ["service", "user"] {
            if !word(field).is_empty() {
                rendered = format!("{rendered}  {}", word(field));
            }
        }
        if !matches!(word("reason"), "ok" | "ok_anonymous" | "answered") {
            rendered = format!("{rendered}  {}", word("reason"));
        }
        rendered = format!("{rendered}  {:.0} ms", record["duration_ms"].as_f64().unwrap_or_default());
        text.extend(rendered.chars().map(names::printable));
        text.push('\n');
    }
    text
}

/// Creates the file with mode 0640, because it names people and paths. An existing file keeps its mode.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_output_is_readable_and_has_no_control_characters() {
        let lines = concat!(
            r#"{"time":"2026-11-28T08:00:01.123Z","reason":"ok","status":200,"method":"GET","path":"/api","service":"app","user":"ann","duration_ms":3.4}"#,
            "\n",
            r#"{"time":"2026-11-28T08:00:02.000Z","reason":"missing_credentials","status":401,"method":"GET","path":"/\u001b[2J\u202egpj","service":null,"user":null,"duration_ms":0.2}"#,
            "\n",
        );
        assert_eq!(
            format_for_terminal(lines.as_bytes()),
            "08:00:01 200 GET /api  app  ann  3 ms\n08:00:02 401 GET /\u{fffd}[2J\u{fffd}gpj  missing_credentials  0 ms\n",
        );
    }
}
