//! The backup stream: a header, one checksummed frame per row, a trailer with count and hash. Taken
//! while changes go on, it holds the store as it was when it began. It holds password hashes: whoever
//! writes it to a file makes that mode 0600.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
};

use serde::{Deserialize, Serialize};

use crate::{
    authz::time::Timestamp,
    store::{ReadError, engine::Engine},
};

/// How far a backup or a restore has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub rows: u64,
    /// Of the stream.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub taken_at: Timestamp,
    /// Which store it is of.
    pub store: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot write the backup")]
    Write(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("it is not a permgate backup")]
    Foreign,
    #[error("it was made by a newer permgate")]
    Newer,
    #[error("it ends too early, after {0} rows")]
    Truncated(u64),
    #[error("it is damaged behind row {0}")]
    Damaged(u64),
    #[error("cannot read the backup")]
    Io(#[source] io::Error),
}

#[derive(Serialize, Deserialize)]
struct HeaderV1<'a> {
    taken_at: i64,
    store: &'a str,
}

const MAGIC: &[u8] = b"permgate backup\n";
const V1: u8 = 1;
/// Larger than any row with its key.
const LONGEST: usize = 1 << 16;

const HEADER: u8 = b'H';
const ROW: u8 = b'R';
const TRAILER: u8 = b'T';

/// Progress is told every so many rows.
const TELL: u64 = 1000;

/// Copies the whole store to `out`. Changes go on meanwhile and are not in it.
pub(crate) fn write(
    engine: &Engine,
    now: Timestamp,
    out: &mut dyn Write,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Header, Progress), BackupError> {
    let header = Header { taken_at: now, store: engine.store_id() };
    let mut frames = Frames { out, hash: blake3::Hasher::new(), progress: Progress::default() };
    frames.header(&header)?;
    let mut failed = None;
    engine.copy(&mut |key, row| {
        if let Err(error) = frames.row(key, row) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if frames.progress.rows.is_multiple_of(TELL) {
            tell(frames.progress);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    frames.trailer()?;
    tell(frames.progress);
    Ok((header, frames.progress))
}

struct Frames<'a> {
    out: &'a mut dyn Write,
    hash: blake3::Hasher,
    progress: Progress,
}

impl Frames<'_> {
    fn header(&mut self, header: &Header) -> io::Result<()> {
        let row = HeaderV1 { taken_at: header.taken_at.as_millis(), store: &header.store };
        let frame = postcard::to_extend(&row, vec![HEADER, V1]).map_err(io::Error::other)?;
        self.write(MAGIC)?;
        self.frame(&frame)
    }

    fn row(&mut self, key: &[u8], row: &[u8]) -> io::Result<()> {
        let length = u16::try_from(key.len()).map_err(io::Error::other)?;
        let frame = [&[ROW], length.to_le_bytes().as_slice(), key, row].concat();
        self.progress.rows += 1;
        self.frame(&frame)
    }

    fn trailer(&mut self) -> io::Result<()> {
        let hash = self.hash.finalize();
        let frame = [&[TRAILER], self.progress.rows.to_le_bytes().as_slice(), hash.as_bytes()].concat();
        self.frame(&frame)?;
        self.out.flush()
    }

    /// Length, content, checksum.
    fn frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        self.write(&length.to_le_bytes())?;
        self.write(frame)?;
        self.write(&crc32fast::hash(frame).to_le_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.progress.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Reads what [`write`] wrote and believes nothing of it.
pub(crate) struct Reader<R> {
    input: R,
    hash: blake3::Hasher,
    pub(crate) header: Header,
    pub(crate) progress: Progress,
}

impl<R: Read> Reader<R> {
    pub(crate) fn open(input: R) -> Result<Self, StreamError> {
        let header = Header { taken_at: Timestamp::from_millis(0), store: String::new() };
        let mut reader = Self { input, hash: blake3::Hasher::new(), header, progress: Progress::default() };
        let mut magic = [0; MAGIC.len()];
        match reader.read(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Ok(()) | Err(StreamError::Truncated(_)) => return Err(StreamError::Foreign),
            Err(error) => return Err(error),
        }
        let frame = reader.frame()?;
        match frame.as_slice() {
            [HEADER, V1, rest @ ..] => {
                let row: HeaderV1<'_> = postcard::from_bytes(rest).map_err(|_| StreamError::Damaged(0))?;
                let taken_at = Timestamp::from_millis(row.taken_at);
                reader.header = Header { taken_at, store: row.store.to_owned() };
                Ok(reader)
            }
            [HEADER, version, ..] if *version > V1 => Err(StreamError::Newer),
            _ => Err(StreamError::Damaged(0)),
        }
    }

    /// `None` at the end, which is where the trailer says it is.
    pub(crate) fn next_row(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, StreamError> {
        let hash = self.hash.finalize();
        let frame = self.frame()?;
        let damaged = StreamError::Damaged(self.progress.rows);
        match frame.as_slice() {
            [ROW, low, high, rest @ ..] => {
                let length = usize::from(u16::from_le_bytes([*low, *high]));
                let (key, row) = rest.split_at_checked(length).ok_or(damaged)?;
                self.progress.rows += 1;
                Ok(Some((key.to_vec(), row.to_vec())))
            }
            [TRAILER, rest @ ..] => {
                let whole = [self.progress.rows.to_le_bytes().as_slice(), hash.as_bytes()].concat();
                let mut more = [0; 1];
                let ends = matches!(self.input.read(&mut more), Ok(0));
                if rest == whole && ends { Ok(None) } else { Err(damaged) }
            }
            _ => Err(damaged),
        }
    }

    fn frame(&mut self) -> Result<Vec<u8>, StreamError> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 || length > LONGEST {
            return Err(StreamError::Damaged(self.progress.rows));
        }
        let mut frame = vec![0; length];
        self.read(&mut frame)?;
        let mut checksum = [0; 4];
        self.read(&mut checksum)?;
        if u32::from_le_bytes(checksum) != crc32fast::hash(&frame) {
            return Err(StreamError::Damaged(self.progress.rows));
        }
        Ok(frame)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StreamError::Truncated(self.progress.rows),
            _ => StreamError::Io(error),
        })?;
        self.hash.update(bytes);
        self.progress.bytes += bytes.len() as u64;
        Ok(())
    }
}
