//! Requests in flight by account. When the listener is full, the connections of an account beyond its share
//! make room for others, so that no account keeps everybody else out. The memory for bodies is shared by
//! account too.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use crate::net::{Connection, Holder, Kept};

/// The requests of one account whose connections are kept when others need room: more than a page or a script
/// has at the same time.
const MAX_KEPT: usize = 16;
/// And one of so many of the listener's connections.
const KEPT_ONE_OF: usize = 4;

/// By the account's id.
#[derive(Clone, Default)]
pub(super) struct Shares(Rc<RefCell<HashMap<Arc<str>, InFlight>>>);

/// What an account has in flight.
#[derive(Default)]
struct InFlight {
    requests: usize,
    bodies: Holder,
}

/// A request in flight.
pub(super) struct RequestShare {
    shares: Shares,
    user: Arc<str>,
    bodies: Holder,
    kept: OnceCell<Kept>,
}

impl Shares {
    /// Counts a request, and keeps its connection if it is within its account's share of `max_connections`.
    pub(super) fn enter(
        &self,
        user: &Arc<str>,
        connection: &Rc<Connection>,
        max_connections: usize,
    ) -> RequestShare {
        let mut all = self.0.borrow_mut();
        let InFlight { requests, bodies } = all.entry(user.clone()).or_default();
        *requests += 1;
        let (shares, user, bodies) = (self.clone(), user.clone(), bodies.clone());
        let share = RequestShare { shares, user, bodies, kept: OnceCell::new() };
        if *requests <= MAX_KEPT.min(max_connections / KEPT_ONE_OF) {
            share.keep_when_full(connection);
        }
        share
    }
}

impl RequestShare {
    /// Keeps the request's connection in any case.
    pub(super) fn keep_when_full(&self, connection: &Rc<Connection>) {
        self.kept.get_or_init(|| connection.keep_when_full());
    }

    /// The account's share of the memory budget for bodies.
    pub(super) fn bodies(&self) -> &Holder {
        &self.bodies
    }
}

impl Drop for RequestShare {
    fn drop(&mut self) {
        let mut all = self.shares.0.borrow_mut();
        if let Some(account) = all.get_mut(&self.user) {
            account.requests -= 1;
            if account.requests == 0 {
                all.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Peer;

    #[test]
    fn each_account_has_a_share_of_what_is_in_flight() {
        let check = |max_connections, share| {
            let (shares, ann, bob): (_, Arc<str>, Arc<str>) = (Shares::default(), "ann".into(), "bob".into());
            let connection = Rc::new(Connection::detached(Peer::Inet(([127, 0, 0, 1], 1).into())));
            let enter = |user| shares.enter(user, &connection, max_connections);
            let all: Vec<RequestShare> = (0..share + 2).map(|_| enter(&ann)).collect();
            assert_eq!(all.iter().filter(|one| one.kept.get().is_some()).count(), share);
            assert!(enter(&bob).kept.get().is_some());
            drop(all);
            assert!(enter(&ann).kept.get().is_some());
            assert!(shares.0.borrow().is_empty());
        };
        check(8, 2);
        check(64, 16);
        check(256, 16);
    }
}
