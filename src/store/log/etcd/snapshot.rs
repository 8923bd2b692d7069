//! A snapshot of the store in etcd: the backup stream in parts under `snap/part/`, and `snap/current`,
//! which names the current one. A node that is new, or too far behind, begins with it.

use std::io::{self, Write};

use super::{
    client::EtcdError,
    connection::Connection,
    keys::Keys,
    wire::{PutRequest, RangeRequest, RequestOp},
};
use crate::store::log::{entry::array, random_id};

/// Bytes of a part. etcd accepts up to 1.5 MiB per request.
const PART: usize = 512 << 10;

/// The value of `snap/current`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state as of this position of the log.
    pub position: u64,
    id: [u8; 16],
    parts: u32,
    pub bytes: u64,
}

const VERSION: u8 = 1;

impl Snapshot {
    fn encode(&self) -> Vec<u8> {
        let Self { position, id, parts, bytes } = self;
        let (position, parts, bytes) = (position.to_le_bytes(), parts.to_le_bytes(), bytes.to_le_bytes());
        [&[VERSION][..], &position, id, &parts, &bytes].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 37 && bytes[0] == VERSION).then(|| Self {
            position: u64::from_le_bytes(array(bytes, 1)),
            id: array(bytes, 9),
            parts: u32::from_le_bytes(array(bytes, 25)),
            bytes: u64::from_le_bytes(array(bytes, 29)),
        })
    }
}

/// A snapshot that is being uploaded. It is invisible until it is published.
pub struct SnapshotUpload<'a> {
    connection: &'a Connection,
    /// As far as it was sent.
    uploaded: UploadedSnapshot,
    part: Vec<u8>,
}

/// A snapshot that is whole in etcd, but not current yet.
pub struct UploadedSnapshot {
    snapshot: Snapshot,
    /// The revision of `snap/current` when the upload began.
    before: i64,
    /// Snapshots of which there were parts then. Once this one is published, they are replaced, or can no
    /// longer be published.
    older: Vec<[u8; 16]>,
}

impl Connection {
    /// Returns the current snapshot. Blocks, so it must not run in a runtime.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, EtcdError> {
        Ok(self.block(self.current_snapshot())?.0)
    }

    /// Begins a snapshot. Blocks.
    pub fn upload(&self) -> Result<SnapshotUpload<'_>, EtcdError> {
        let id = random_id().map_err(|e| EtcdError::Unusable(format!("no random numbers: {e}")))?;
        let (_, before) = self.block(self.current_snapshot())?;
        let older = self.block(self.snapshot_ids())?;
        let snapshot = Snapshot { position: 0, id, parts: 0, bytes: 0 };
        let uploaded = UploadedSnapshot { snapshot, before, older };
        Ok(SnapshotUpload { connection: self, uploaded, part: Vec::with_capacity(PART) })
    }

    /// Makes a snapshot the current one. Fails if another one was published since its upload began. Blocks.
    pub fn publish(&self, UploadedSnapshot { snapshot, before, .. }: &UploadedSnapshot) -> io::Result<()> {
        let put = self.put_if_unchanged(self.keys.current_snapshot(), *before, snapshot.encode());
        let found = self.block(put).map_err(io::Error::other)?;
        if found.is_some_and(|kv| Snapshot::decode(&kv.value) == Some(*snapshot)) {
            Ok(())
        } else {
            Err(io::Error::other("another node has published a snapshot in the meantime"))
        }
    }

    /// Writes a snapshot's stream to `out`. Blocks.
    pub fn download(&self, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
        for number in 0..snapshot.parts {
            let key = self.keys.snapshot_part(snapshot.id, number);
            let found = self.block(self.get(key)).map_err(io::Error::other)?;
            let part = found.ok_or_else(|| {
                io::Error::other("a newer snapshot has replaced the one in etcd: try again")
            })?;
            out.write_all(&part.value)?;
        }
        Ok(())
    }

    /// Removes the snapshots that a published one has replaced, and what uploads before it have left. One
    /// that is being uploaded stays. Blocks.
    pub fn remove_older_snapshots(&self, published: &UploadedSnapshot) -> Result<(), EtcdError> {
        published.older.iter().try_for_each(|&id| {
            self.block(self.delete(self.keys.snapshot_part(id, 0), self.keys.behind_snapshot(id)))
        })
    }

    /// The snapshots of which there are parts.
    async fn snapshot_ids(&self) -> Result<Vec<[u8; 16]>, EtcdError> {
        let (mut key, range_end) = self.keys.snapshot_parts();
        let prefix = key.len();
        let mut ids = Vec::new();
        loop {
            let range_end = range_end.clone();
            let next = RangeRequest { key, range_end, limit: 1, keys_only: true, ..RangeRequest::default() };
            let found = self.call_with_retries(next).await?.kvs.pop();
            let id = found.as_ref().and_then(|kv| kv.key.get(prefix..prefix + 16)?.try_into().ok());
            let Some(id) = id else { return Ok(ids) };
            ids.push(id);
            key = self.keys.behind_snapshot(id);
        }
    }

    async fn current_snapshot(&self) -> Result<(Option<Snapshot>, i64), EtcdError> {
        match self.get(self.keys.current_snapshot()).await? {
            None => Ok((None, 0)),
            Some(kv) => match Snapshot::decode(&kv.value) {
                Some(snapshot) => Ok((Some(snapshot), kv.mod_revision)),
                None => Err(EtcdError::Unusable(
                    "`snap/current` in etcd was written by another version of permgate".to_owned(),
                )),
            },
        }
    }
}

impl SnapshotUpload<'_> {
    /// Ends the stream, which has the state as of `position`.
    pub fn finish(mut self, position: u64) -> io::Result<UploadedSnapshot> {
        self.send()?;
        let mut uploaded = self.uploaded;
        uploaded.snapshot.position = position;
        Ok(uploaded)
    }

    fn send(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let key = self.connection.keys.snapshot_part(self.uploaded.snapshot.id, self.uploaded.snapshot.parts);
        let value = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        self.connection
            .block(self.connection.call_with_retries(PutRequest { key, value }))
            .map_err(io::Error::other)?;
        self.uploaded.snapshot.parts += 1;
        Ok(())
    }
}

impl UploadedSnapshot {
    pub(crate) fn position(&self) -> u64 {
        self.snapshot.position
    }

    /// Makes it the current one.
    pub(super) fn put(&self, keys: &Keys) -> RequestOp {
        RequestOp::put(keys.current_snapshot(), self.snapshot.encode())
    }
}

impl Write for SnapshotUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        self.uploaded.snapshot.bytes += taken as u64;
        if self.part.len() == PART {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Keys {
    fn current_snapshot(&self) -> Vec<u8> {
        self.key("snap/current")
    }

    fn snapshot_part(&self, id: [u8; 16], number: u32) -> Vec<u8> {
        [self.key("snap/part/"), id.to_vec(), number.to_be_bytes().to_vec()].concat()
    }

    /// Behind every part of this snapshot.
    fn behind_snapshot(&self, id: [u8; 16]) -> Vec<u8> {
        [self.snapshot_part(id, u32::MAX), vec![0]].concat()
    }

    fn snapshot_parts(&self) -> (Vec<u8>, Vec<u8>) {
        (self.key("snap/part/"), self.key("snap/part0"))
    }
}
