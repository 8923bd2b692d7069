//! One url of an upstream in one worker: its idle connections and the shared ones, and how many
//! exchanges they are lent to.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    net::Clock,
    proxy::upstream::{
        admission::{Line, Place},
        dial::Dialer,
        lease::{Lease, Way},
        negotiate::{ConnectError, Negotiated, Negotiator},
        plain::Plain,
        pool::Pool,
        settings::{HttpVersion, UpstreamSettings},
        share::Share,
        standing::Standing,
        trunk::Trunk,
        url::UpstreamUrl,
    },
};

pub struct Endpoint {
    url: UpstreamUrl,
    label: Rc<str>,
    standing: Arc<Standing>,
    dialer: Dialer,
    negotiator: Negotiator,
    pool: Rc<Pool>,
    trunks: RefCell<Vec<Rc<Trunk>>>,
    /// What the last connection spoke: whether one is worth waiting for, to share it.
    speaks: Cell<HttpVersion>,
    /// It has asked for HTTP/1.1, and takes it.
    plain_only: Cell<bool>,
    attempt: RefCell<Option<Rc<Attempt>>>,
    /// What is wrong with it, as the log has it already.
    told: RefCell<Option<String>>,
    /// Of the addresses that the idle connections lead to.
    generation: Cell<u64>,
    lent: Cell<usize>,
    /// Where connections are counted, if they are.
    connections: Option<Arc<Line>>,
}

/// A connection in the making that several wait for.
#[derive(Default)]
struct Attempt {
    outcome: RefCell<Option<Result<(), ConnectError>>>,
    done: Notify,
}

/// Counts as lent from its making to its end.
pub struct Lent(Rc<Endpoint>);

impl Endpoint {
    /// `connections`: the line of those who wait for a connection, where there are only so many.
    pub fn new(
        url: &UpstreamUrl,
        settings: &UpstreamSettings,
        standing: Arc<Standing>,
        connections: Option<Arc<Line>>,
    ) -> Rc<Self> {
        let negotiator = Negotiator::new(url, settings);
        Rc::new(Self {
            label: url.to_string().into(),
            url: url.clone(),
            dialer: Dialer::new(standing.clone()),
            generation: Cell::new(standing.generation()),
            standing,
            speaks: Cell::new(negotiator.version()),
            plain_only: Cell::new(false),
            negotiator,
            pool: Rc::default(),
            trunks: RefCell::default(),
            attempt: RefCell::default(),
            told: RefCell::default(),
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

    /// An idle connection that is still open, or a place on a shared one.
    pub fn reuse(self: &Rc<Self>) -> Option<Lease> {
        self.forget_vanished();
        match self.pool.take() {
            Some(plain) => Some(Lease::new(self.lend(), Way::Plain(plain), true)),
            None => self.share(),
        }
    }

    fn share(self: &Rc<Self>) -> Option<Lease> {
        if self.plain_only.get() {
            return None;
        }
        let trunks = self.trunks.borrow();
        let share = trunks.iter().find_map(|trunk| Share::of(trunk, self.negotiator.is_secure()))?;
        Some(Lease::new(self.lend(), Way::Shared(Box::new(share)), true))
    }

    /// The upstream wants HTTP/1.1 (RFC 9113, 7: HTTP_1_1_REQUIRED): new connections offer nothing
    /// else, unless the configuration wants HTTP/2.
    pub(super) fn leave_http2(&self) {
        if self.negotiator.version() == HttpVersion::Auto {
            self.plain_only.set(true);
            self.retire_trunks();
        }
    }

    /// Whether a connection is being made that may be shared.
    pub fn is_connecting(&self) -> bool {
        self.attempt.borrow().is_some()
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
        self.pool.close_one() || self.retire_idle()
    }

    fn retire_idle(&self) -> bool {
        let idle = self.trunks.borrow().iter().position(|trunk| trunk.is_idle());
        idle.map(|at| self.trunks.borrow_mut().swap_remove(at).retire()).is_some()
    }

    /// A shared connection has room for one more: whoever waits in line hears of it, and if that is
    /// not here, one that nobody uses gives its place up.
    pub(super) fn pass_on(&self) {
        let Some(line) = self.connections.as_ref().filter(|line| line.waits()) else { return };
        if !line.pass_on(self.kind()) {
            self.retire_idle();
        }
    }

    /// A new connection; or, where one can be shared, room on the one that is made just now.
    /// `held`: the connection's place, where there are only so many. `switching`: it is to leave HTTP,
    /// so that it is nobody else's.
    pub async fn connect(
        self: &Rc<Self>,
        within: Duration,
        clock: &Clock,
        mut held: Option<Place>,
        switching: bool,
    ) -> Result<Lease, ConnectError> {
        let lent = self.lend();
        let begun = Instant::now();
        while self.speaks.get() != HttpVersion::Http1 && !switching && !self.plain_only.get() {
            if let Some(lease) = self.share() {
                return Ok(lease);
            }
            self.attempt(within, clock, held.take()).await?;
            if let Some(lease) = self.reuse() {
                return Ok(lease);
            }
            if begun.elapsed() > within || self.connections.is_some() {
                return Err(ConnectError::Full);
            }
        }
        let plain_only = self.plain_only.get();
        let negotiated = self.negotiate(within, clock, held, switching || plain_only).await;
        if plain_only && negotiated.is_err() {
            // It may not take that either: the next one is asked in any version again.
            self.plain_only.set(false);
        }
        match negotiated? {
            Negotiated::Plain(plain) => Ok(Lease::new(lent, Way::Plain(plain), false)),
            Negotiated::Shared(trunk) => {
                self.take_up(trunk);
                self.share().ok_or(ConnectError::Full)
            }
        }
    }

    /// Waits for the connection that is being made, if need be by a task of its own: the client
    /// that asked for it may go, and others wait for it.
    async fn attempt(
        self: &Rc<Self>,
        within: Duration,
        clock: &Clock,
        held: Option<Place>,
    ) -> Result<(), ConnectError> {
        let under_way = self.attempt.borrow().clone();
        let attempt = under_way.unwrap_or_else(|| self.begin_attempt(within, clock.clone(), held));
        loop {
            if let Some(outcome) = &*attempt.outcome.borrow() {
                return outcome.clone();
            }
            attempt.done.notified().await;
        }
    }

    fn begin_attempt(self: &Rc<Self>, within: Duration, clock: Clock, held: Option<Place>) -> Rc<Attempt> {
        let attempt = Rc::<Attempt>::default();
        *self.attempt.borrow_mut() = Some(Rc::clone(&attempt));
        let (endpoint, told) = (Rc::clone(self), Rc::clone(&attempt));
        tokio::task::spawn_local(async move {
            let generation = endpoint.standing.generation();
            let negotiated = endpoint.negotiate(within, &clock, held, false).await;
            let outcome = negotiated.map(|negotiated| match negotiated {
                Negotiated::Plain(plain) => {
                    endpoint.keep(plain, generation, endpoint.negotiator.idle(), &clock);
                }
                Negotiated::Shared(trunk) => endpoint.take_up(trunk),
            });
            endpoint.attempt.take();
            *told.outcome.borrow_mut() = Some(outcome);
            told.done.notify_waiters();
        });
        attempt
    }

    async fn negotiate(
        &self,
        within: Duration,
        clock: &Clock,
        held: Option<Place>,
        switching: bool,
    ) -> Result<Negotiated, ConnectError> {
        let negotiating = async {
            let transport = self.dialer.connect(&self.url, within, clock.now()).await?;
            self.negotiator.negotiate(transport, clock, held, switching).await
        };
        let outcome = tokio::time::timeout(within, negotiating).await;
        let negotiated = outcome.unwrap_or(Err(ConnectError::TooSlow(within)));
        self.tell(negotiated.as_ref().err());
        let negotiated = negotiated?;
        if !switching {
            self.speaks.set(match negotiated {
                Negotiated::Plain(_) => HttpVersion::Http1,
                Negotiated::Shared(_) => HttpVersion::Http2,
            });
        }
        Ok(negotiated)
    }

    /// Once, not for every request that fails by it.
    fn tell(&self, error: Option<&ConnectError>) {
        let text = error.map(ConnectError::to_string);
        let mut told = self.told.borrow_mut();
        if let Some(text) = text.as_deref().filter(|text| told.as_deref() != Some(text)) {
            tracing::warn!(url = %self.label, error = %text, "cannot connect to the upstream");
        }
        *told = text;
    }

    fn take_up(&self, trunk: Rc<Trunk>) {
        let mut trunks = self.trunks.borrow_mut();
        trunks.retain(|trunk| !trunk.is_closed());
        trunks.push(trunk);
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
            self.retire_trunks();
        }
    }

    fn retire_trunks(&self) {
        self.trunks.borrow_mut().drain(..).for_each(|trunk| trunk.retire());
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.trunks.get_mut().drain(..).for_each(|trunk| trunk.retire());
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
