//! The connections of a url that wait for another exchange.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use crate::{net::Clock, proxy::upstream::plain::Plain};

#[derive(Default)]
pub struct Pool {
    /// Last in, first out: the connection that was just used is warm, the others may age.
    idle: RefCell<Vec<Idle>>,
    swept: Cell<bool>,
}

struct Idle {
    plain: Plain,
    until: Instant,
}

/// Connections that nobody takes are looked at this often: too old ones go, and closed ones.
const SWEEP: Duration = Duration::from_secs(1);

impl Pool {
    /// The connection that was used last and is still open.
    pub fn take(&self) -> Option<Plain> {
        loop {
            let Idle { plain, .. } = self.idle.borrow_mut().pop()?;
            if plain.is_open() {
                return Some(plain);
            }
        }
    }

    /// Closes the one that was used least lately; whether there was one.
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

    pub fn keep(self: &Rc<Self>, plain: Plain, idle_timeout: Duration, clock: &Clock) {
        self.idle.borrow_mut().push(Idle { plain, until: clock.now() + idle_timeout });
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), SWEEP.min(idle_timeout), clock.clone()));
        }
    }
}

/// Until there is nothing left to look after.
async fn sweep(pool: Weak<Pool>, every: Duration, clock: Clock) {
    let deadline = clock.deadline();
    loop {
        deadline.arm(every);
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = clock.now();
        let idle = &mut *pool.idle.borrow_mut();
        idle.retain(|idle| idle.until > now && idle.plain.is_open());
        if idle.is_empty() {
            pool.swept.set(false);
            return;
        }
    }
}
