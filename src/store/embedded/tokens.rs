//! Reads of tokens: out of their owners' blocks, with their last uses.

use std::{collections::HashMap, sync::PoisonError};

use super::{Damage, Embedded, OpenError, keys, locator::Locator, open::guard};
use crate::{
    authz::secret::TokenId,
    store::{
        ReadError,
        engine::TokenRow,
        model::{LastUsed, TokenRecord},
        record::{Block, BlockScan, LastUses, Record, read_token},
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

    /// Counted already: nothing is read.
    pub(crate) fn name_count(&self, owner: &str) -> usize {
        self.located(|locator| locator.names(owner))
    }

    pub(crate) fn scan_tokens(&self, visit: &mut dyn FnMut(TokenRow<'_>)) -> Result<(), ReadError> {
        self.read(|db| {
            sweep(db, |_, mut block| {
                while let Some(item) = block.next()? {
                    visit(item.row(block.owner)?);
                }
                Ok(())
            })
        })
    }

    /// Finds where the tokens lie, and has every one of them visited on the way.
    pub(crate) fn locate(&self, visit: Option<&mut dyn FnMut(TokenRow<'_>)>) -> Result<(), OpenError> {
        let db = self.db().map_err(|e| self.directory.damaged(e.0))?;
        let locator = guard(&self.directory, || Ok(locate(&db, visit)?))?;
        *self.locator.write().unwrap_or_else(PoisonError::into_inner) = locator;
        Ok(())
    }

    /// About how many tokens there are, before they are located: what the first blocks hold, times
    /// the number of blocks, and no more than the data file has room for. What cannot be read is left
    /// for [`Embedded::locate`] to tell.
    pub(crate) fn token_estimate(&self) -> usize {
        let room = self.directory.data().metadata().map_or(0, |data| data.len()) / LEAST_TOKEN;
        let estimate = self.read(|db| {
            let Some(last) = db.scan_prefix(keys::BLOCKS).next_back() else { return Ok(0) };
            let blocks = keys::block_number(&last?.0).ok_or(Damage::Key("token block"))?.saturating_add(1);
            let (mut seen, mut tokens) = (0, 0);
            for row in db.scan_prefix(keys::BLOCKS).values().take(SAMPLE) {
                seen += 1;
                tokens += BlockScan::new(&row?)?.len();
            }
            let estimate = tokens.saturating_mul(u64::from(blocks)) / seen.max(1);
            Ok(usize::try_from(estimate.min(room)).unwrap_or(0))
        });
        estimate.unwrap_or(0)
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

fn locate(db: &sled::Db, mut visit: Option<&mut dyn FnMut(TokenRow<'_>)>) -> Result<Locator, Damage> {
    let mut locator = Locator::default();
    sweep(db, |number, mut block| {
        let owner = locator.found_block(block.owner, number);
        let mut named = 0;
        while let Some(item) = block.next()? {
            named += isize::from(item.taken.is_some());
            locator.found_token(&owner, item.id, item.taken, number);
            if let Some(visit) = visit.as_mut() {
                visit(item.row(block.owner)?);
            }
        }
        locator.named(block.owner, named);
        Ok(())
    })?;
    locator.scanned();
    Ok(locator)
}

/// Every block.
fn sweep(
    db: &sled::Db,
    mut visit: impl FnMut(u32, BlockScan<'_>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    for row in db.scan_prefix(keys::BLOCKS) {
        let (key, row) = row?;
        let number = keys::block_number(&key).ok_or(Damage::Key("token block"))?;
        visit(number, BlockScan::new(&row)?)?;
        look_again(db, &key, LOOKS_IN_ROW)?;
    }
    Ok(())
}

/// sled lets nodes go only at every 64th look-up among those that share a shard of its cache: who
/// reads many rows once each would leave the whole store in memory.
fn look_again(db: &sled::Db, key: &[u8], times: usize) -> Result<(), Damage> {
    (0..times).try_for_each(|_| db.get(key).map(drop).map_err(Damage::from))
}

/// Blocks that are looked into for an estimate.
const SAMPLE: usize = 64;

/// Bytes of a token with its id, digest and scope.
const LEAST_TOKEN: u64 = 64;

/// Where all rows of a node are read, eight or more unless some were dropped.
const LOOKS_IN_ROW: usize = 8;

/// Where one row of a node is.
const LOOKS_ALONE: usize = 64;

impl LastUses {
    fn of(&self, token: TokenId) -> Option<&LastUsed> {
        self.0.iter().find(|(id, _)| *id == token).map(|(_, used)| used)
    }
}
