//! The `format` file: what the directory is, in which format, and how far its history had come, so
//! that a data file that lost its tail or was swapped is noticed.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// What this permgate writes; it reads every format up to it.
pub(super) const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// UUIDv7 text, in the data as well.
    pub store: String,
    /// At least this many commits are in the data; written now and then.
    pub revision: u64,
    /// The data file has been made.
    pub ready: bool,
}

#[derive(Debug)]
pub(super) enum ReadMarkerError {
    Absent,
    Newer(u32),
    Malformed,
    Io(io::Error),
}

const FILE: &str = "format";
const TITLE: &str = "permgate store";

impl Marker {
    pub(super) fn read(directory: &Path) -> Result<Self, ReadMarkerError> {
        match fs::read(directory.join(FILE)) {
            Ok(bytes) => Self::parse(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(ReadMarkerError::Absent),
            Err(e) => Err(ReadMarkerError::Io(e)),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, ReadMarkerError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ReadMarkerError::Malformed)?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(ReadMarkerError::Malformed);
        }
        let mut field = |key: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(' '));
            value.ok_or(ReadMarkerError::Malformed)
        };
        // The format comes first: what follows it is for that format to say.
        let format: u32 = field("format")?.parse().map_err(|_| ReadMarkerError::Malformed)?;
        match format {
            0 => return Err(ReadMarkerError::Malformed),
            1..=FORMAT => {}
            newer => return Err(ReadMarkerError::Newer(newer)),
        }
        let store = field("store")?.to_owned();
        let revision = field("revision")?.parse().map_err(|_| ReadMarkerError::Malformed)?;
        let ready = match field("state")? {
            "ready" => true,
            "creating" => false,
            _ => return Err(ReadMarkerError::Malformed),
        };
        Ok(Self { store, revision, ready })
    }

    /// Replaces the file whole, or not at all.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join("format.new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        let state = if self.ready { "ready" } else { "creating" };
        let Self { store, revision, .. } = self;
        write!(file, "{TITLE}\nformat {FORMAT}\nstore {store}\nrevision {revision}\nstate {state}\n")?;
        file.sync_all()?;
        fs::rename(new, directory.join(FILE))?;
        super::directory::sync(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_marker_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker { store: "0199".to_owned(), revision: 12, ready: true };
        marker.write(directory.path()).unwrap();
        assert_eq!(Marker::read(directory.path()).unwrap(), marker);

        let whole = fs::read(directory.path().join(FILE)).unwrap();
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let got = Marker::parse(bytes).map_or_else(|e| format!("{e:?}"), |_| "ok".to_owned());
            assert_eq!(got, expected, "{name}");
        };
        check("whole", &whole, "ok");
        check("empty", b"", "Malformed");
        check("foreign", b"[core]\nbare = false\n", "Malformed");
        check("not text", &[0xff; 40], "Malformed");
        check("format 0", b"permgate store\nformat 0\n", "Malformed");
        check("newer, whatever follows", b"permgate store\nformat 9\nrows 3\n", "Newer(9)");
        for end in 0..whole.len() - 1 {
            let cut = Marker::parse(&whole[..end]);
            assert!(end + 1 >= whole.len() || cut.is_err(), "cut at {end}");
        }
    }
}
