//! A new store out of rows that were copied from one.

use std::path::Path;

use super::{Directory, Marker, OpenError, keys, open};
use crate::store::{
    durability::Durability,
    engine::{Checkpoint, IdempotencyRecord},
    model::{
        AuditEvent, GrantRecord, GroupRecord, IdentityRecord, InvitationRecord, RoleRecord, SessionRecord,
        UserRecord,
    },
    record::{Block, LastUses, Meta, Record, read_token},
};

/// Takes rows until it is finished; until then the directory is no store.
pub(crate) struct Filling {
    directory: Directory,
    marker: Marker,
    durability: Durability,
    db: sled::Db,
    batch: sled::Batch,
    due: usize,
    meta: Option<Meta>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("a row is not one of a store: {0}")]
    Row(String),
    #[error("the new store cannot be written: {0}")]
    Write(String),
}

/// Rows per sync: a cut-off restore is begun anew, so that only the last one counts.
const BATCH: usize = 1000;

impl Filling {
    /// The directory has to be absent or empty.
    pub(crate) fn begin(path: &Path, store: &str) -> Result<Self, FillError> {
        let (directory, marker) = Directory::open(path)?;
        if marker.is_some() {
            return Err(directory.damaged("it is not empty").into());
        }
        let marker = Marker { store: store.to_owned(), revision: 0, ready: false };
        directory.write_marker(&marker)?;
        directory.create_sled()?;
        let durability =
            Durability::open(&directory.data()).map_err(|e| directory.fail("create the data of", e))?;
        let (db, _) = open::load(&directory, &marker)?;
        Ok(Self { directory, marker, durability, db, batch: sled::Batch::default(), due: 0, meta: None })
    }

    pub(crate) fn put(&mut self, key: &[u8], row: &[u8]) -> Result<(), FillError> {
        if let Some(meta) = judge(key, row).map_err(FillError::Row)? {
            self.meta = Some(meta);
        }
        self.batch.insert(key, row);
        self.due += 1;
        if self.due == BATCH { self.commit() } else { Ok(()) }
    }

    /// Now it is a store.
    pub(crate) fn finish(mut self) -> Result<(), FillError> {
        self.commit()?;
        let meta = self.meta.take().filter(|meta| meta.store == self.marker.store);
        let meta = meta.ok_or(FillError::Row("it does not say which store it is of".to_owned()))?;
        self.directory.sync_all()?;
        self.marker.revision = meta.revision;
        self.marker.ready = true;
        self.directory.write_marker(&self.marker)?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), FillError> {
        self.due = 0;
        let batch = std::mem::take(&mut self.batch);
        self.durability.commit(&self.db, batch).map_err(|e| FillError::Write(e.to_string()))
    }
}

/// A row is what its key says; the one about the store itself is given back.
fn judge(key: &[u8], row: &[u8]) -> Result<Option<Meta>, String> {
    fn decodes<R: Record>(row: &[u8]) -> Result<(), String> {
        R::decode(row).map(drop).map_err(|e| e.to_string())
    }
    let table = key.get(..1).ok_or("an empty key")?;
    match table {
        keys::META => return Meta::decode(row).map(Some).map_err(|e| e.to_string()),
        keys::CHECKPOINT => decodes::<Checkpoint>(row),
        keys::BLOCKS => {
            keys::block_number(key).ok_or("a malformed token block key")?;
            let block = Block::decode(row).map_err(|e| e.to_string())?;
            let mut items = block.items.iter();
            items.try_for_each(|item| read_token(&block.owner, item).map(drop)).map_err(|e| e.to_string())
        }
        keys::USES => decodes::<LastUses>(row),
        keys::USERS => decodes::<UserRecord>(row),
        keys::GROUPS => decodes::<GroupRecord>(row),
        keys::MEMBERS => keys::pair(keys::MEMBERS, key).map(drop).ok_or("a malformed member key".to_owned()),
        keys::ROLES => decodes::<RoleRecord>(row),
        keys::GRANTS => decodes::<GrantRecord>(row),
        keys::AUDIT => decodes::<AuditEvent>(row),
        keys::IDEMPOTENCY => decodes::<IdempotencyRecord>(row),
        keys::SESSIONS => decodes::<SessionRecord>(row),
        keys::INVITATIONS => decodes::<InvitationRecord>(row),
        keys::IDENTITIES => decodes::<IdentityRecord>(row),
        keys::IDEMPOTENCY_AT => std::str::from_utf8(row).map(drop).map_err(|e| e.to_string()),
        _ => Err("an unknown table".to_owned()),
    }?;
    Ok(None)
}
