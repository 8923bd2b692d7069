//! Reads of tokens: out of their owners' blocks, with their last uses.

use std::{collections::HashMap, sync::PoisonError};

use super::{Damage, Embedded, keys, locator::Locator};
use crate::{
    authz::secret::TokenId,
    store::{
        ReadError,
        engine::TokenRow,
        model::{LastUsed, TokenRecord},
        record::{Block, LastUses, Record, read_token, read_token_row},
    },
};

impl Embedded {
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        let Some(block) = self.located(|locator| locator.find(id)) else { return Ok(None) };
        Ok(self.load(&[(id, block)])?.pop())
    }

    pub(crate) fn tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<TokenRecord>, ReadError> {
        self.load(&self.located(|locator| locator.after(after, limit)))
    }

    pub(crate) fn tokens_of(
        &self,
        owner: &str,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        let mut found = Vec::new();
        self.visit(owner, |number, block| {
            found.extend(block.items.iter().map(|item| (item.id, number)));
        })?;
        found.sort_unstable();
        let from = after.map_or(0, |after| found.partition_point(|(id, _)| *id <= after));
        let page = &found[from..];
        self.load(&page[..page.len().min(limit)])
    }

    pub(crate) fn named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        if !self.located(|locator| locator.may_be_taken(locator.name(owner, name))) {
            return Ok(None);
        }
        let mut found = None;
        self.visit(owner, |_, block| {
            let holder = block.items.iter().find(|item| item.taken.as_deref() == Some(name));
            found = found.or(holder.map(|item| item.id));
        })?;
        Ok(found)
    }

    pub(crate) fn names_of(&self, owner: &str) -> Result<Vec<(String, TokenId)>, ReadError> {
        let mut names = Vec::new();
        self.visit(owner, |_, block| {
            let taken = block.items.iter().filter_map(|item| Some((item.taken.as_deref()?, item.id)));
            names.extend(taken.map(|(name, id)| (name.to_owned(), id)));
        })?;
        names.sort_unstable();
        Ok(names)
    }

    pub(crate) fn scan_tokens(&self, visit: &mut dyn FnMut(TokenRow<'_>)) -> Result<(), ReadError> {
        self.read(|db| {
            sweep(db, |_, block| {
                block.items.iter().try_for_each(|item| {
                    visit(read_token_row(&block.owner, item)?);
                    Ok(())
                })
            })
        })
    }

    /// At least as many as there are.
    pub(crate) fn token_count(&self) -> usize {
        self.located(Locator::len)
    }

    fn located<T>(&self, ask: impl FnOnce(&Locator) -> T) -> T {
        ask(&self.locator.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every block of an owner.
    fn visit(&self, owner: &str, mut visit: impl FnMut(u32, &Block<'_>)) -> Result<(), ReadError> {
        let blocks = self.located(|locator| locator.blocks(owner).to_vec());
        self.read(|db| {
            for number in blocks {
                // Absent: emptied since the locator was asked.
                if let Some(row) = db.get(keys::block(number))? {
                    visit(number, &Block::decode(&row)?);
                }
            }
            Ok(())
        })
    }

    /// The tokens at these places, in this order; one that has gone meanwhile is left out.
    fn load(&self, places: &[(TokenId, u32)]) -> Result<Vec<TokenRecord>, ReadError> {
        self.read(|db| {
            let mut seen: HashMap<u32, Option<(sled::IVec, LastUses)>> = HashMap::new();
            let mut tokens = Vec::with_capacity(places.len());
            for (id, number) in places {
                if !seen.contains_key(number) {
                    let key = keys::block(*number);
                    let row = db.get(&key)?;
                    look_again(db, &key, LOOKS_ALONE)?;
                    let uses = db.get(keys::uses(*number))?;
                    let uses = uses.map(|row| LastUses::decode(&row)).transpose()?.unwrap_or_default();
                    seen.insert(*number, row.map(|row| (row, uses)));
                }
                let Some(Some((row, uses))) = seen.get(number) else { continue };
                let block = Block::decode(row)?;
                let Some(item) = block.items.iter().find(|item| item.id == *id) else { continue };
                let last_used = uses.of(*id).cloned();
                tokens.push(TokenRecord { last_used, ..read_token(&block.owner, item)? });
            }
            Ok::<_, Damage>(tokens)
        })
    }
}

/// Every block.
pub(super) fn sweep(
    db: &sled::Db,
    mut visit: impl FnMut(u32, &Block<'_>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    for row in db.scan_prefix(keys::BLOCKS) {
        let (key, row) = row?;
        let number = keys::block_number(&key).ok_or(Damage::Key("token block"))?;
        visit(number, &Block::decode(&row)?)?;
        look_again(db, &key, LOOKS_IN_ROW)?;
    }
    Ok(())
}

/// sled lets nodes go only at every 64th look-up among those that share a shard of its cache: who
/// reads many rows once each would leave the whole store in memory.
fn look_again(db: &sled::Db, key: &[u8], times: usize) -> Result<(), Damage> {
    (0..times).try_for_each(|_| db.get(key).map(drop).map_err(Damage::from))
}

/// Where all rows of a node are read, eight or more unless some were dropped.
const LOOKS_IN_ROW: usize = 8;

/// Where one row of a node is.
const LOOKS_ALONE: usize = 64;

impl LastUses {
    fn of(&self, token: TokenId) -> Option<&LastUsed> {
        self.0.iter().find(|(id, _)| *id == token).map(|(_, used)| used)
    }
}
