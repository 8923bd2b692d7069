//! The backup stream, which is also the format of a checkpoint: a header, one checksummed frame per
//! operation, and a trailer with count, position and hash. It is written while changes continue and holds
//! the store as it was when the writing began. It contains password hashes, so a file that holds it must
//! have mode 0600.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
};

use serde::{Deserialize, Serialize};

use crate::{
    authz::time::Timestamp,
    store::{
        ReadError,
        log::{EntryHash, Head},
        migration,
        op::Op,
        record::wire,
        replica::Replica,
    },
};

/// Progress of a backup or a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub rows: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// The fields are the stored form, in both versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    #[serde(with = "wire")]
    pub taken_at: Timestamp,
    /// The store's id.
    pub store: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot write the backup")]
    Write(#[from] io::Error),
    #[error("the backup was stopped")]
    Stopped,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("it is not a permgate backup")]
    Foreign,
    #[error("it was made by a newer permgate")]
    Newer,
    #[error("it ends too early, after {0} rows")]
    Truncated(u64),
    #[error("it is damaged after row {0}")]
    Damaged(u64),
    #[error("it has a row that cannot be restored: {0}")]
    Row(String),
    #[error("cannot read the backup")]
    Io(#[source] io::Error),
}

const MAGIC: &[u8] = b"permgate backup\n";
/// Frames hold rows of the first release's layout: key and value.
const V1: u8 = 1;
/// Frames hold operations.
const V2: u8 = 2;
/// Maximum bytes of a frame: larger than any row with its key.
const MAX_FRAME: usize = 1 << 16;

const HEADER: u8 = b'H';
const ROW: u8 = b'R';
const TRAILER: u8 = b'T';

/// Writes the whole store, as of one position, to `out`. Changes continue and are not in it. `on_progress`
/// may stop it, which returns [`BackupError::Stopped`].
pub(crate) fn write(
    replica: &Replica,
    now: Timestamp,
    out: &mut dyn Write,
    on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Head, Header, Progress), BackupError> {
    let header = Header { taken_at: now, store: replica.state().store.to_string() };
    let mut copy = replica.copy();
    let mut stream = Writer::begin(out, &header)?;
    let mut ops = Vec::new();
    loop {
        copy.next(&mut ops)?;
        if ops.is_empty() {
            break;
        }
        ops.iter().try_for_each(|op| stream.operation(op))?;
        if on_progress(stream.progress).is_break() {
            return Err(BackupError::Stopped);
        }
    }
    let head = copy.head;
    let progress = stream.finish(head)?;
    // Nothing is left to stop after the end.
    let _ = on_progress(progress);
    Ok((head, header, progress))
}

/// Writes a backup stream.
pub(crate) struct Writer<'a> {
    out: &'a mut dyn Write,
    hash: blake3::Hasher,
    progress: Progress,
}

impl<'a> Writer<'a> {
    pub(crate) fn begin(out: &'a mut dyn Write, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, hash: blake3::Hasher::new(), progress: Progress::default() };
        let frame = postcard::to_extend(header, vec![HEADER, V2]).map_err(io::Error::other)?;
        writer.write(MAGIC)?;
        writer.frame(&frame)?;
        Ok(writer)
    }

    pub(crate) fn write_op(&mut self, op: &Op) -> io::Result<()> {
        let mut bytes = Vec::new();
        op.encode(&mut bytes).map_err(io::Error::other)?;
        self.operation(&bytes)
    }

    /// Writes an encoded operation.
    pub(crate) fn operation(&mut self, op: &[u8]) -> io::Result<()> {
        self.progress.rows += 1;
        self.frame(&[&[ROW], op].concat())
    }

    /// Writes the trailer: number of rows, position, and a hash over everything before it.
    pub(crate) fn finish(mut self, head: Head) -> io::Result<Progress> {
        let frame = trailer(self.progress.rows, head, &self.hash.finalize());
        self.frame(&frame)?;
        self.out.flush()?;
        Ok(self.progress)
    }

    /// Writes length, content and checksum.
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

fn trailer(rows: u64, head: Head, hash: &blake3::Hash) -> Vec<u8> {
    let (rows, position) = (rows.to_le_bytes(), head.position.to_le_bytes());
    [&[TRAILER], rows.as_slice(), &position, &head.hash.0, hash.as_bytes()].concat()
}

/// Reads a stream that [`Writer`] or the first release wrote. The input is untrusted.
pub(crate) struct Reader<R> {
    input: R,
    version: u8,
    hash: blake3::Hasher,
    pub(crate) header: Header,
    pub(crate) progress: Progress,
    /// The stream's position in the log, once the stream has been read to its end.
    pub(crate) head: Head,
}

impl<R: Read> Reader<R> {
    pub(crate) fn open(input: R) -> Result<Self, StreamError> {
        let header = Header { taken_at: Timestamp::from_millis(0), store: String::new() };
        let (hash, progress) = (blake3::Hasher::new(), Progress::default());
        let mut reader = Self { input, version: V2, hash, header, progress, head: Head::EMPTY };
        let mut magic = [0; MAGIC.len()];
        match reader.read(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Ok(()) | Err(StreamError::Truncated(_)) => return Err(StreamError::Foreign),
            Err(error) => return Err(error),
        }
        let frame = reader.frame()?;
        match frame.as_slice() {
            [HEADER, version @ (V1 | V2), rest @ ..] => {
                reader.header = postcard::from_bytes(rest).map_err(|_| StreamError::Damaged(0))?;
                reader.version = *version;
                Ok(reader)
            }
            [HEADER, version, ..] if *version > V2 => Err(StreamError::Newer),
            _ => Err(StreamError::Damaged(0)),
        }
    }

    /// Appends the next operations; returns `false` at the end, once the trailer is verified.
    pub(crate) fn next(&mut self, ops: &mut Vec<Op>) -> Result<bool, StreamError> {
        let hash = self.hash.finalize();
        let frame = self.frame()?;
        let rows = self.progress.rows;
        let damaged = || StreamError::Damaged(rows);
        let (kind, rest) = frame.split_first().ok_or_else(damaged)?;
        match (*kind, self.version) {
            (ROW, V1) => {
                let (length, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
                let length = usize::from(u16::from_le_bytes(*length));
                let (key, row) = rest.split_at_checked(length).ok_or_else(damaged)?;
                self.progress.rows += 1;
                if let Some((_, revision)) = migration::operations(key, row, ops).map_err(StreamError::Row)? {
                    self.head.position = revision;
                }
                Ok(true)
            }
            (ROW, _) => {
                self.progress.rows += 1;
                ops.push(Op::decode(rest).map_err(|e| StreamError::Row(e.to_string()))?);
                Ok(true)
            }
            (TRAILER, version) => {
                let whole = if version == V1 {
                    let rows = self.progress.rows.to_le_bytes();
                    frame[1..] == [rows.as_slice(), hash.as_bytes()].concat()
                } else {
                    self.head = decode_head(&frame).ok_or_else(damaged)?;
                    frame == trailer(self.progress.rows, self.head, &hash)
                };
                let mut more = [0; 1];
                let ends = matches!(self.input.read(&mut more), Ok(0));
                if whole && ends { Ok(false) } else { Err(damaged()) }
            }
            _ => Err(damaged()),
        }
    }

    fn frame(&mut self) -> Result<Vec<u8>, StreamError> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 || length > MAX_FRAME {
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

/// The position and hash in a trailer.
fn decode_head(trailer: &[u8]) -> Option<Head> {
    let (position, rest) = trailer.get(9..)?.split_first_chunk()?;
    let (hash, _) = rest.split_first_chunk()?;
    Some(Head { position: u64::from_le_bytes(*position), hash: EntryHash(*hash) })
}
