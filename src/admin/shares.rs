//! Requests in flight by account. When the listener is full, the connections of an account beyond its share
//! make room for others, so that no account keeps everybody else out.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

/// The requests of one account whose connections are kept when others need room: more than a page or a script
/// has at the same time, and few of the listener's connections.
const KEPT: usize = 16;

/// By the account's id.
#[derive(Clone, Default)]
pub(super) struct Shares(Rc<RefCell<HashMap<Arc<str>, usize>>>);

/// A request in flight.
pub(super) struct Share {
    shares: Shares,
    user: Arc<str>,
}

impl Shares {
    /// Counts a request, and tells whether it is within its account's share.
    pub(super) fn enter(&self, user: &Arc<str>) -> (Share, bool) {
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(user.clone()).or_default();
        *count += 1;
        (Share { shares: self.clone(), user: user.clone() }, *count <= KEPT)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.0.borrow_mut();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_a_share_of_what_is_in_flight() {
        let (shares, ann, bob): (_, Arc<str>, Arc<str>) = (Shares::default(), "ann".into(), "bob".into());
        let all: Vec<(Share, bool)> = (0..KEPT + 2).map(|_| shares.enter(&ann)).collect();
        assert_eq!(all.iter().filter(|(_, kept)| *kept).count(), KEPT);
        assert!(shares.enter(&bob).1);
        drop(all);
        assert!(shares.enter(&ann).1);
        assert!(shares.0.borrow().is_empty());
    }
}
