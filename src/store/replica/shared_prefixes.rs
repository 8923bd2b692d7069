//! Finds a token's row by what the lists keep of it: its id, and the first bytes of its digest. No two random
//! digests share those, but whoever imports tokens may choose theirs.

use std::collections::HashMap;

use parking_lot::Mutex;
use sled::IVec;

use super::{
    Replica, ReplicaError, Staged, Trees, read,
    tables::Table,
    token_lists::{DigestPrefix, TokenRef, prefix},
};
use crate::{
    authz::secret::{Digest, TokenId},
    store::record::TokenHead,
};

/// Tokens whose digests begin alike, where they are many: otherwise each look-up would read the rows of all.
#[derive(Default)]
pub(super) struct SharedPrefixes(Mutex<HashMap<DigestPrefix, HashMap<TokenId, Digest>>>);

/// Up to so many, the rows are read at each look-up.
const FEW: usize = 16;

impl SharedPrefixes {
    /// Adds a new token if its prefix is shared by many. It need not be stored in the end.
    pub(super) fn add(&self, id: TokenId, digest: &Digest) {
        if let Some(alike) = self.0.lock().get_mut(&prefix(digest)) {
            alike.insert(id, *digest);
        }
    }

    fn find(&self, (id, prefix): TokenRef) -> Option<Digest> {
        self.0.lock().get(&prefix)?.get(&id).copied()
    }
}

impl Replica {
    /// A token's row as the batch leaves it.
    pub(super) fn find_token(
        &self,
        trees: &Trees,
        staged: &Staged,
        token_ref: TokenRef,
    ) -> Result<Option<(Digest, IVec)>, ReplicaError> {
        let digest = match self.shared_prefixes.find(token_ref) {
            Some(digest) => Some(digest),
            None => self.search(trees, staged, token_ref)?,
        };
        let Some(digest) = digest else { return Ok(None) };
        Ok(staged.get(trees, Table::Tokens, digest.as_bytes())?.map(|row| (digest, row)))
    }

    fn search(
        &self,
        trees: &Trees,
        staged: &Staged,
        (id, prefix): TokenRef,
    ) -> Result<Option<Digest>, ReplicaError> {
        let new = staged.rows[Table::Tokens as usize].range(prefix.to_vec()..);
        let new = new.take_while(|(key, _)| key.starts_with(&prefix));
        let new = new.filter_map(|(key, row)| Some(Ok((IVec::from(key.as_slice()), row.after.clone()?))));
        let stored = trees.tree(Table::Tokens).scan_prefix(prefix);
        let mut alike = HashMap::new();
        for row in new.chain(stored) {
            let (key, row) = row?;
            alike.insert(TokenHead::decode(&row)?.id, read::digest(&key)?);
            if alike.len() <= FEW && alike.contains_key(&id) {
                break;
            }
        }
        let found = alike.get(&id).copied();
        if alike.len() > FEW {
            self.shared_prefixes.0.lock().insert(prefix, alike);
        }
        Ok(found)
    }
}
