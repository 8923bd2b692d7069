//! Crashes and damage, on a disk that can lose power.

use super::{
    AppendError, EntryHash, Head, Log, ReadError, StoreId, entry,
    journal::{Journal, OpenError, Recovery},
};
use disk::{Disk, Weakness};

mod crash;
mod damage;
pub(crate) mod disk;

const STORE: StoreId = StoreId([0x5a; 16]);
/// Small files, so that a few batches fill one.
const FILE_SIZE: u64 = 32 << 10;

/// Pseudo-random numbers that a seed repeats (splitmix64).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

fn open(disk: &Disk) -> Result<(Journal, Recovery), OpenError> {
    Journal::open(disk.root(), STORE, FILE_SIZE)
}

/// Operations that can be told apart: up to a few blocks, sometimes many.
fn operations(random: &mut Random) -> Vec<u8> {
    let length = match random.below(10) {
        0 => 0,
        1..=3 => random.below(400),
        4..=8 => random.below(9_000),
        _ => random.below(40_000),
    };
    let stamp = random.next().to_le_bytes();
    let mut operations = stamp.repeat(length.div_ceil(8));
    operations.truncate(length);
    operations
}

/// All entries, read in pages of `bytes`.
fn read_all(log: &dyn Log, bytes: usize) -> Result<Vec<entry::Entry>, ReadError> {
    let mut entries = Vec::new();
    let mut from = log.first()?;
    loop {
        let page = log.read(from, bytes)?;
        let Some(last) = page.last() else { return Ok(entries) };
        from = last.position + 1;
        entries.extend(page);
    }
}
