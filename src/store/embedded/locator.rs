//! Where a token lies: built by the scan at start, 20 bytes a token. sled is not asked, since a row
//! per id and per name would cost it more than the tokens themselves.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    ops::Bound,
};

use foldhash::quality::{FoldHasher, RandomState};

use crate::authz::secret::TokenId;

#[derive(Default)]
pub(super) struct Locator {
    /// As found at start, by id.
    sorted: Vec<Place>,
    /// Since then; overrides.
    recent: BTreeMap<TokenId, u32>,
    owners: HashMap<Box<str>, Owned>,
    names: Names,
    pub next: u32,
}

/// What an owner has.
#[derive(Default)]
struct Owned {
    blocks: Vec<u32>,
    /// Tokens that have a name: counted, so that making one does not read all the others.
    named: usize,
}

/// Which names may be taken: a hash that is absent is certain, one that is present is looked up.
#[derive(Default)]
struct Names {
    keys: RandomState,
    sorted: Vec<u32>,
    recent: HashSet<u32>,
}

/// An id and the number of its block, in one number: a million are sorted at start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128);

/// What has gone into the hash of a name when its owner has: a block's tokens share it.
pub(super) struct OwnerHash(FoldHasher<'static>);

/// Different names may share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NameHash(u32);

/// Stands for a token that was dropped.
const GONE: u32 = u32::MAX;

impl Locator {
    /// While scanning; [`Locator::scanned`] ends it.
    pub(super) fn found_block(&mut self, owner: &str, block: u32) -> OwnerHash {
        self.add_block(owner, block);
        self.next = self.next.max(block.saturating_add(1));
        self.names.owner(owner)
    }

    pub(super) fn found_token(&mut self, owner: &OwnerHash, id: TokenId, taken: Option<&[u8]>, block: u32) {
        self.sorted.push(Place::new(id, block));
        if let Some(name) = taken {
            self.names.sorted.push(owner.name(name));
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
            let at = self.sorted.partition_point(|place| *place < Place::new(id, 0));
            self.sorted
                .get(at)
                .map(|place| place.parts())
                .filter(|(found, _)| *found == id)
                .map(|(_, block)| block)
        })?;
        (block != GONE).then_some(block)
    }

    /// Ids behind `after`, in order, with their blocks.
    pub(super) fn after(&self, after: Option<TokenId>, limit: usize) -> Vec<(TokenId, u32)> {
        let from = after
            .map_or(0, |after| self.sorted.partition_point(|place| *place <= Place::new(after, u32::MAX)));
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut old = self.sorted[from..].iter().map(|place| place.parts()).peekable();
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

    pub(super) fn blocks(&self, owner: &str) -> &[u32] {
        self.owners.get(owner).map_or(&[], |owned| &owned.blocks)
    }

    /// How many of an owner's tokens have a name.
    pub(super) fn names(&self, owner: &str) -> usize {
        self.owners.get(owner).map_or(0, |owned| owned.named)
    }

    /// Stands for an owner's name in the other calls about names.
    pub(super) fn name(&self, owner: &str, name: &str) -> NameHash {
        NameHash(self.names.owner(owner).name(name.as_bytes()))
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
            Some(owned) => owned.blocks.push(block),
            None => drop(self.owners.insert(owner.into(), Owned { blocks: vec![block], named: 0 })),
        }
    }

    pub(super) fn drop_block(&mut self, owner: &str, block: u32) {
        if let Some(owned) = self.owners.get_mut(owner) {
            owned.blocks.retain(|b| *b != block);
        }
    }

    /// So many more of an owner's tokens have a name, or fewer.
    pub(super) fn named(&mut self, owner: &str, more: isize) {
        if let Some(owned) = self.owners.get_mut(owner) {
            owned.named = owned.named.checked_add_signed(more).expect("no more lose a name than had one");
        }
    }
}

impl Names {
    fn owner(&self, owner: &str) -> OwnerHash {
        let mut hash = self.keys.build_hasher();
        owner.hash(&mut hash);
        OwnerHash(hash)
    }
}

impl OwnerHash {
    fn name(&self, name: &[u8]) -> u32 {
        let mut hash = self.0.clone();
        hash.write(name);
        u32::try_from(hash.finish() >> 32).expect("the upper half of 64 bits has 32")
    }
}

impl Place {
    fn new(id: TokenId, block: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(id.as_bytes());
        bytes[12..].copy_from_slice(&block.to_be_bytes());
        Self(u128::from_be_bytes(bytes))
    }

    fn parts(self) -> (TokenId, u32) {
        let bytes = self.0.to_be_bytes();
        let (id, block) = bytes.split_at(12);
        let id = id.try_into().ok().and_then(TokenId::from_bytes).expect("it was made of one");
        (id, u32::from_be_bytes(block.try_into().expect("four bytes are left")))
    }
}
