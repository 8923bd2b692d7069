//! Finds digests that were chosen to begin alike, as those of random secrets do not.

use super::DigestPrefix;

/// Counts tokens by the first two bytes of their digests. Dropped ones stay counted.
pub(super) struct Crowds {
    counts: Box<[u32; 1 << 16]>,
    all: u64,
}

/// More tokens than this above what is usual, whose digests begin with the same two bytes, are no coincidence.
const CROWD: u64 = 1000;

impl Default for Crowds {
    fn default() -> Self {
        Self { counts: Box::new([0; 1 << 16]), all: 0 }
    }
}

impl Crowds {
    pub(super) fn add(&mut self, prefix: DigestPrefix) {
        let count = &mut self.counts[Self::of(&prefix)];
        *count = count.saturating_add(1);
        self.all += 1;
    }

    pub(super) fn is_crowded(&self, prefix: DigestPrefix) -> bool {
        u64::from(self.counts[Self::of(&prefix)]) > CROWD + 2 * self.all / (1 << 16)
    }

    fn of([first, second, ..]: &DigestPrefix) -> usize {
        usize::from(u16::from_be_bytes([*first, *second]))
    }
}
