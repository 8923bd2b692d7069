//! `permgate scan`: finds tokens in files by form and checksum, without a gateway.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    failure::{Failure, print_stderr, reason},
    output::{Format, ListView, counted, plain, print},
};
use crate::authz::secret::{LENGTH, find_tokens};

#[derive(Debug, Args)]
pub(super) struct Scan {
    /// Files, pipes and directories (without .git; links and pipes in them are skipped), or - for standard
    /// input
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
}

/// A token's position, and its id, which may be shown.
struct Found {
    line: u64,
    column: u64,
    id: String,
}

/// Bytes read at once, whatever the size of a file.
const CHUNK: usize = 1 << 16;

const VIEW: ListView = ListView::new("tokens", "", "id path line column");

impl Scan {
    /// Exit code 0: nothing was found; 1: something was; 2: a path could not be read.
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let mut scan = Progress { output: global.output, records: Vec::new(), found: 0, unread: 0 };
        for path in &self.paths {
            if path.as_os_str() == "-" {
                scan.stream("-", io::stdin().lock())?;
            } else {
                // Links given as arguments are followed, links in directories are not.
                match fs::metadata(path) {
                    Ok(metadata) => scan.entry(path, metadata.file_type())?,
                    Err(error) => scan.unreadable(path, &error),
                }
            }
        }
        if matches!(scan.output, Format::Json) {
            global.output.list(scan.records, VIEW)?;
        }
        match (scan.found, scan.unread) {
            (0, 0) => Ok(()),
            (0, unread) => Err(Failure::usage(format!("{} could not be read", counted(unread, "path")))),
            (found, _) => {
                let found = counted(found, "token");
                Err(Failure::failed(format!("{found} found: revoke each with `permgate token revoke ID`")))
            }
        }
    }
}

struct Progress {
    output: Format,
    /// Collected only for the format that is one document.
    records: Vec<Value>,
    found: u64,
    unread: u64,
}

impl Progress {
    fn entry(&mut self, path: &Path, kind: fs::FileType) -> Result<(), Failure> {
        if kind.is_dir() {
            return self.directory(path);
        }
        match File::open(path) {
            Ok(file) => self.stream(&path.display().to_string(), file),
            Err(error) => {
                self.unreadable(path, &error);
                Ok(())
            }
        }
    }

    fn directory(&mut self, path: &Path) -> Result<(), Failure> {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(());
            }
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| entry.file_name() != ".git") {
            match entry.file_type() {
                Ok(kind) if kind.is_file() || kind.is_dir() => self.entry(&entry.path(), kind)?,
                // A link, or a pipe or device, which would not end.
                Ok(_) => {}
                Err(error) => self.unreadable(&entry.path(), &error),
            }
        }
        Ok(())
    }

    fn stream(&mut self, name: &str, from: impl Read) -> Result<(), Failure> {
        let shown = plain(name);
        let mut result = Ok(());
        let read = search(from, |found| {
            self.found += 1;
            if result.is_ok() {
                result = self.report(&shown, &found);
            }
        });
        if let Err(error) = read {
            self.unreadable(Path::new(name), &error);
        }
        result
    }

    fn report(&mut self, path: &str, found: &Found) -> Result<(), Failure> {
        let Found { line, column, id } = found;
        let record = || json!({"path": path, "line": line, "column": column, "id": id});
        match self.output {
            Format::Table => print(&format!("{path}:{line}:{column}: pgt_{id}_...")),
            Format::Jsonl => print(&record().to_string()),
            Format::Id => print(id),
            Format::Json => {
                self.records.push(record());
                Ok(())
            }
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.unread += 1;
        print_stderr(&format!(
            "cannot read {}: {}",
            path.display().to_string().escape_debug(),
            reason(error)
        ));
    }
}

/// Reads to the end, in pieces that overlap by less than a token. Input is any bytes: a token in a binary
/// file is found too.
fn search(mut from: impl Read, mut on_found: impl FnMut(Found)) -> io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(2 * CHUNK);
    // The position of the buffer's first byte.
    let (mut line, mut column) = (1u64, 1u64);
    let walk = |bytes: &[u8], line: &mut u64, column: &mut u64| {
        for byte in bytes {
            if *byte == b'\n' {
                (*line, *column) = (*line + 1, 1);
            } else {
                *column += 1;
            }
        }
    };
    loop {
        let read = (&mut from).take(CHUNK as u64).read_to_end(&mut buffer)?;
        let mut done = 0;
        for (at, token) in find_tokens(&buffer) {
            walk(&buffer[done..at], &mut line, &mut column);
            if let Some(id) = token.id() {
                on_found(Found { line, column, id: id.to_string() });
            }
            column += LENGTH as u64;
            done = at + LENGTH;
        }
        if read == 0 {
            return Ok(());
        }
        let keep = done.max(buffer.len().saturating_sub(LENGTH - 1));
        walk(&buffer[done..keep], &mut line, &mut column);
        buffer.drain(..keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";

    /// Gives out a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn places(bytes: &[u8], step: usize) -> Vec<(u64, u64)> {
        let mut places = Vec::new();
        search(Slow(bytes, step), |found| {
            assert_eq!(found.id, "A1iceYt00001");
            places.push((found.line, found.column));
        })
        .unwrap();
        places
    }

    #[test]
    fn tokens_are_found_with_their_places() {
        let check = |name: &str, text: &[u8], expected: &[(u64, u64)]| {
            for step in [1, 7, CHUNK] {
                assert_eq!(places(text, step), expected, "{name}, {step} bytes at a time");
            }
        };
        check("nothing", b"", &[]);
        check("alone", TOKEN.as_bytes(), &[(1, 1)]);
        check("in a line", format!("a\nb: \"{TOKEN}\"\n").as_bytes(), &[(2, 5)]);
        check("with the alias", format!("perm:{TOKEN}").as_bytes(), &[(1, 6)]);
        check("twice", format!("{TOKEN}{TOKEN}\n{TOKEN}").as_bytes(), &[(1, 1), (1, 67), (2, 1)]);
        check("added by a diff", format!("@@ -1 +1 @@\n-x\n+{TOKEN}\n").as_bytes(), &[(3, 2)]);
        check("mistyped", TOKEN.replace("fAP2", "fAPA").as_bytes(), &[]);
        check("among other bytes", &[b"\0\xff\n".as_slice(), TOKEN.as_bytes(), b"\0"].concat(), &[(2, 1)]);
        let far = format!("{}\n{TOKEN}", "x".repeat(3 * CHUNK));
        assert_eq!(places(far.as_bytes(), CHUNK), [(2, 1)], "far away");
        for shift in 0..=LENGTH {
            let text = format!("{}{TOKEN}", "y".repeat(CHUNK - shift));
            let column = (CHUNK - shift + 1) as u64;
            assert_eq!(places(text.as_bytes(), CHUNK), [(1, column)], "across a border, {shift}");
        }
    }
}
