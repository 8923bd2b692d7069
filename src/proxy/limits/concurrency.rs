//! How many requests are under way for each key, exactly, over all workers.

use std::num::NonZeroU32;

use super::table::{CountKey, Table};

#[derive(Debug, Default)]
pub struct ConcurrencyLimit(Table<u32>);

impl ConcurrencyLimit {
    /// Returns the key for [`ConcurrencyLimit::leave`]. `None`: the limit is reached.
    pub fn enter(&self, key: CountKey, cap: NonZeroU32) -> Option<CountKey> {
        let (key, entered) = self.0.change(key, is_empty, |inside| match inside < cap.get() {
            true => (Some(inside + 1), true),
            false => (None, false),
        });
        entered.then_some(key)
    }

    pub fn leave(&self, key: CountKey) {
        self.0.change(key, is_empty, |inside| (Some(inside.saturating_sub(1)), ()));
    }
}

fn is_empty(inside: u32) -> bool {
    inside == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::rules::ServiceId;

    #[test]
    fn a_place_that_is_left_is_free_again() {
        let concurrency = ConcurrencyLimit::default();
        let (one, other) = (CountKey::Service(ServiceId(1)), CountKey::Service(ServiceId(2)));
        let enter = |key, cap| concurrency.enter(key, NonZeroU32::new(cap).unwrap()).is_some();
        assert!(enter(one, 2) && enter(one, 2) && !enter(one, 2), "two and no more");
        assert!(enter(other, 1), "another's are another's");
        assert!(!enter(one, 1), "under a smaller cap too");
        concurrency.leave(one);
        assert!(!enter(one, 1) && enter(one, 2));
        concurrency.leave(one);
        concurrency.leave(one);
        concurrency.leave(other);
        assert_eq!(concurrency.0.len(), 0, "nobody is remembered");
    }
}
