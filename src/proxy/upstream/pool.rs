//! The idle HTTP/1.1 connections of a url.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use crate::{net::Clock, proxy::upstream::http1::Http1};

#[derive(Default)]
pub struct Pool {
    /// Last in, first out: recently used connections are warm, the others age and go.
    idle: RefCell<Vec<Idle>>,
    swept: Cell<bool>,
}

struct Idle {
    connection: Box<Http1>,
    until: Instant,
}

/// How often connections that are too old, or closed by the upstream, are removed.
const SWEEP: Duration = Duration::from_secs(1);

impl Pool {
    /// The most recently used connection that is still open.
    pub fn take(&self) -> Option<Box<Http1>> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if idle.is_usable(idle.connection.clock().now()) {
                return Some(idle.connection);
            }
        }
    }

    /// Closes the least recently used connection; whether there was one.
    pub fn close_one(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        !idle.is_empty() && {
            idle.remove(0);
            true
        }
    }

    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    pub fn insert(self: &Rc<Self>, connection: Box<Http1>, keep_for: Duration) {
        let clock = connection.clock().clone();
        self.idle.borrow_mut().push(Idle { connection, until: clock.now() + keep_for });
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), SWEEP.min(keep_for), clock));
        }
    }
}

impl Idle {
    fn is_usable(&self, now: Instant) -> bool {
        self.until > now && self.connection.is_ready()
    }
}

/// Removes unusable connections until the pool is empty.
async fn sweep(pool: Weak<Pool>, every: Duration, clock: Clock) {
    let deadline = clock.deadline();
    loop {
        deadline.arm(every);
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = clock.now();
        let idle = &mut *pool.idle.borrow_mut();
        idle.retain(|idle| idle.is_usable(now));
        if idle.is_empty() {
            pool.swept.set(false);
            return;
        }
    }
}
