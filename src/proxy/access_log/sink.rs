//! The target that the log thread writes to.

use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::{fs::OFlags, io::Errno};
use serde_json::Value;

use crate::{authz::administration::names, net::LogThrottle, proxy::access_log::LogTarget};

/// A target that lines can be written to.
pub struct OpenTarget {
    target: Target,
    /// The last write ended within a line.
    torn: bool,
    errors: LogThrottle,
}

enum Target {
    Off,
    Stdout,
    /// Stdout is a terminal: lines are formatted for people.
    Terminal,
    File {
        path: PathBuf,
        file: File,
    },
}

impl LogTarget {
    pub fn open(self) -> io::Result<OpenTarget> {
        let target = match self {
            Self::Off => Target::Off,
            Self::Stdout if io::stdout().is_terminal() => Target::Terminal,
            Self::Stdout => Target::Stdout,
            Self::File(path) => {
                let file = append(&path)?;
                Target::File { path, file }
            }
        };
        Ok(OpenTarget { target, torn: false, errors: LogThrottle::default() })
    }
}

impl OpenTarget {
    pub fn is_off(&self) -> bool {
        matches!(self.target, Target::Off)
    }

    /// Opens the file again. On an error lines still go to the old file.
    pub fn reopen(&mut self) {
        if let Target::File { path, file } = &mut self.target {
            match append(path) {
                Ok(fresh) => (*file, self.torn) = (fresh, false),
                Err(error) => tracing::error!(path = %path.display(), %error, "cannot reopen the access log"),
            }
        }
    }

    /// Writes the lines, and returns how many of them are lost. Logs an error once a minute.
    pub fn write(&mut self, lines: &[u8]) -> usize {
        let stdout = io::stdout();
        let (fd, lines) = match &self.target {
            Target::Off => return 0,
            Target::Stdout => (stdout.as_fd(), Cow::Borrowed(lines)),
            Target::Terminal => (stdout.as_fd(), Cow::Owned(format_for_terminal(lines).into_bytes())),
            Target::File { file, .. } => (file.as_fd(), Cow::Borrowed(lines)),
        };
        let mut left = &*lines;
        // What there is of a torn line must not garble the next one.
        let mut end: &[u8] = if self.torn { b"\n" } else { b"" };
        let written = write_all(fd, &mut end).and_then(|()| write_all(fd, &mut left));
        if end.is_empty() {
            let done = &lines[..lines.len() - left.len()];
            self.torn = done.last().is_some_and(|last| *last != b'\n');
        }
        if let Err(error) = written
            && self.errors.is_due(Instant::now())
        {
            let error = io::Error::from(error);
            tracing::error!(%error, "cannot write the access log: lines are lost");
        }
        left.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// Writes until nothing is `left`. Not through `io::stdout()`, which would keep what it failed to write.
fn write_all(fd: BorrowedFd<'_>, left: &mut &[u8]) -> rustix::io::Result<()> {
    while !left.is_empty() {
        match rustix::io::write(fd, left) {
            Ok(written) => *left = &left[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
/// Does not wait for the reader of a pipe: without one, this is an error.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    // Writes do wait: the log has a thread of its own.
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn lost_lines_are_counted_and_torn_ones_end() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        // A full pipe is an error then, like a full disk.
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).expect("set");
        let target = Target::File { path: PathBuf::new(), file: writer.into() };
        let mut sink = OpenTarget { target, torn: false, errors: LogThrottle::default() };
        let line = |text: &str| [text, &".".repeat(20_000), "\n"].concat();
        assert_eq!(sink.write(line("first").repeat(5).as_bytes()), 2, "a pipe has 64 KiB");
        assert_eq!(sink.write(b"lost\nlost\nlost\n"), 3);
        let mut reader = File::from(reader);
        reader.read_exact(&mut [0; 65536]).expect("read");
        assert_eq!(sink.write(b"second\n"), 0);
        assert_eq!(sink.write(b"third\n"), 0);
        drop(sink);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "\nsecond\nthird\n");
    }

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
