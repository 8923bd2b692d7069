//! One url of an upstream in one worker: its idle connections, and how many are lent.

use std::{cell::Cell, io, rc::Rc, sync::Arc, time::Duration};

use crate::{
    net::Clock,
    proxy::upstream::{
        admission::{Line, Place},
        dial::Dialer,
        lease::{Lease, Way},
        plain::Plain,
        pool::Pool,
        settings::UpstreamSettings,
        standing::Standing,
        transport::Transport,
        url::UpstreamUrl,
    },
};

pub struct Endpoint {
    url: UpstreamUrl,
    label: Rc<str>,
    standing: Arc<Standing>,
    dialer: Dialer,
    pool: Rc<Pool>,
    /// Of the addresses that the idle connections lead to.
    generation: Cell<u64>,
    lent: Cell<usize>,
    /// Where connections are counted, if they are.
    connections: Option<Arc<Line>>,
}

/// Counts as lent from its making to its end.
pub struct Lent(Rc<Endpoint>);

impl Endpoint {
    /// `connections`: the line of those who wait for a connection, where there are only so many.
    pub fn new(
        url: &UpstreamUrl,
        _settings: &UpstreamSettings,
        standing: Arc<Standing>,
        connections: Option<Arc<Line>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            label: url.to_string().into(),
            url: url.clone(),
            dialer: Dialer::new(standing.clone()),
            generation: Cell::new(standing.generation()),
            standing,
            pool: Rc::default(),
            lent: Cell::new(0),
            connections,
        })
    }

    pub fn label(&self) -> &Rc<str> {
        &self.label
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Requests under way here, those that are still connecting too.
    pub fn lent(&self) -> usize {
        self.lent.get()
    }

    /// What its connections are called in the line of those who wait for one.
    pub fn kind(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// An idle connection that is still open.
    pub fn reuse(self: &Rc<Self>) -> Option<Lease> {
        self.forget_vanished();
        self.pool.take().map(|plain| Lease::new(self.lend(), Way::Plain(plain), true))
    }

    /// `generation`: of the addresses when it was lent.
    pub(super) fn keep(&self, plain: Plain, generation: u64, idle_timeout: Duration, clock: &Clock) {
        let wanted_elsewhere =
            || self.connections.as_ref().is_some_and(|line| line.waits() && !line.pass_on(self.kind()));
        if generation == self.standing.generation() && !wanted_elsewhere() {
            self.pool.keep(plain, idle_timeout, clock);
        }
    }

    /// Closes the idle connection that was used least lately; whether there was one.
    pub fn close_one(&self) -> bool {
        self.pool.close_one()
    }

    /// `held`: the connection's place, where there are only so many.
    pub async fn connect(
        self: &Rc<Self>,
        within: Duration,
        clock: &Clock,
        held: Option<Place>,
    ) -> io::Result<Lease> {
        let lent = self.lend();
        let stream = self.dialer.connect(&self.url, within, clock.now()).await?;
        stream.set_nodelay(true)?;
        let plain = Plain::new(Transport::Tcp(stream), clock, held);
        Ok(Lease::new(lent, Way::Plain(plain), false))
    }

    fn lend(self: &Rc<Self>) -> Lent {
        self.lent.set(self.lent.get() + 1);
        Lent(Rc::clone(self))
    }

    /// The name leads elsewhere now: what is idle is made anew when it is wanted.
    fn forget_vanished(&self) {
        let generation = self.standing.generation();
        if self.generation.replace(generation) != generation {
            self.pool.clear();
        }
    }
}

impl std::ops::Deref for Lent {
    type Target = Rc<Endpoint>;

    fn deref(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lent.set(self.0.lent.get() - 1);
    }
}
