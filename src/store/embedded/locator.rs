//! Where a token lies: built by the scan at start, 20 bytes a token. sled is not asked, since a row
//! per id and per name would cost it more than the tokens themselves.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    ops::Bound,
};

use crate::authz::secret::TokenId;

#[derive(Default)]
pub(super) struct Locator {
    /// As found at start, by id.
    sorted: Vec<(TokenId, u32)>,
    /// Since then; overrides.
    recent: BTreeMap<TokenId, u32>,
    owners: HashMap<Box<str>, Vec<u32>>,
    names: Names,
    pub next: u32,
}

/// Which names may be taken: a hash that is absent is certain, one that is present is looked up.
#[derive(Default)]
struct Names {
    keys: RandomState,
    sorted: Vec<u32>,
    recent: HashSet<u32>,
}

/// Different names may share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NameHash(u32);

/// Stands for a token that was dropped.
const GONE: u32 = u32::MAX;

impl Locator {
    /// While scanning; [`Locator::scanned`] ends it.
    pub(super) fn found_block(&mut self, owner: &str, block: u32) {
        self.add_block(owner, block);
        self.next = self.next.max(block.saturating_add(1));
    }

    pub(super) fn found_token(&mut self, owner: &str, id: TokenId, taken: Option<&str>, block: u32) {
        self.sorted.push((id, block));
        if let Some(name) = taken {
            let hash = self.names.hash(owner, name);
            self.names.sorted.push(hash);
        }
    }

    pub(super) fn scanned(&mut self) {
        self.sorted.sort_unstable();
        self.sorted.shrink_to_fit();
        self.names.sorted.sort_unstable();
        self.names.sorted.shrink_to_fit();
    }

    pub(super) fn find(&self, id: TokenId) -> Option<u32> {
        let block = self.recent.get(&id).copied().or_else(|| {
            let at = self.sorted.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            self.sorted.get(at).map(|(_, block)| *block)
        })?;
        (block != GONE).then_some(block)
    }

    /// Ids behind `after`, in order, with their blocks.
    pub(super) fn after(&self, after: Option<TokenId>, limit: usize) -> Vec<(TokenId, u32)> {
        let from = after.map_or(0, |after| self.sorted.partition_point(|(id, _)| *id <= after));
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut old = self.sorted[from..].iter().copied().peekable();
        let mut new = self.recent.range((lower, Bound::Unbounded)).map(|(id, b)| (*id, *b)).peekable();
        let mut page = Vec::with_capacity(limit.min(1024));
        while page.len() < limit {
            let next = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => old.next(),
                (None, Some(_)) => new.next(),
                (Some((a, _)), Some((b, _))) if a < b => old.next(),
                (Some((a, _)), Some((b, _))) => {
                    if a == b {
                        old.next();
                    }
                    new.next()
                }
            };
            page.extend(next.filter(|(_, block)| *block != GONE));
        }
        page
    }

    /// At least as many tokens as there are.
    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }

    pub(super) fn blocks(&self, owner: &str) -> &[u32] {
        self.owners.get(owner).map_or(&[], Vec::as_slice)
    }

    /// Stands for an owner's name in the other calls about names.
    pub(super) fn name(&self, owner: &str, name: &str) -> NameHash {
        NameHash(self.names.hash(owner, name))
    }

    pub(super) fn may_be_taken(&self, NameHash(hash): NameHash) -> bool {
        self.names.recent.contains(&hash) || self.names.sorted.binary_search(&hash).is_ok()
    }

    pub(super) fn place(&mut self, id: TokenId, block: u32) {
        self.recent.insert(id, block);
    }

    pub(super) fn forget(&mut self, id: TokenId) {
        self.recent.insert(id, GONE);
    }

    pub(super) fn take_name(&mut self, NameHash(hash): NameHash) {
        self.names.recent.insert(hash);
    }

    pub(super) fn add_block(&mut self, owner: &str, block: u32) {
        match self.owners.get_mut(owner) {
            Some(blocks) => blocks.push(block),
            None => drop(self.owners.insert(owner.into(), vec![block])),
        }
    }

    pub(super) fn drop_block(&mut self, owner: &str, block: u32) {
        if let Some(blocks) = self.owners.get_mut(owner) {
            blocks.retain(|b| *b != block);
        }
    }
}

impl Names {
    fn hash(&self, owner: &str, name: &str) -> u32 {
        let hash = self.keys.hash_one((owner, name));
        u32::try_from(hash >> 32).expect("the upper half of 64 bits has 32")
    }
}
