//! How many are inside at this moment, exactly, over all workers.

use std::num::NonZeroU32;

use super::table::{Table, Who};

#[derive(Debug, Default)]
pub struct Gauge(Table<u32>);

impl Gauge {
    /// Under whom the place is counted, to be told to [`Gauge::leave`]; `None`: all are taken.
    pub fn enter(&self, who: Who, cap: NonZeroU32) -> Option<Who> {
        let (who, entered) = self.0.change(who, is_empty, |inside| match inside < cap.get() {
            true => (Some(inside + 1), true),
            false => (None, false),
        });
        entered.then_some(who)
    }

    pub fn leave(&self, who: Who) {
        self.0.change(who, is_empty, |inside| (Some(inside.saturating_sub(1)), ()));
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
        let gauge = Gauge::default();
        let (one, other) = (Who::Service(ServiceId(1)), Who::Service(ServiceId(2)));
        let enter = |who, cap| gauge.enter(who, NonZeroU32::new(cap).unwrap()).is_some();
        assert!(enter(one, 2) && enter(one, 2) && !enter(one, 2), "two and no more");
        assert!(enter(other, 1), "another's are another's");
        assert!(!enter(one, 1), "under a smaller cap too");
        gauge.leave(one);
        assert!(!enter(one, 1) && enter(one, 2));
        gauge.leave(one);
        gauge.leave(one);
        gauge.leave(other);
        assert_eq!(gauge.0.len(), 0, "nobody is remembered");
    }
}
