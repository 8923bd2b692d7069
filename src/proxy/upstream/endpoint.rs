//! One url of an upstream in one worker: its idle connections, its addresses, its failures.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::{
    net::Clock,
    proxy::upstream::{
        lane::End,
        lease::{Lease, Way},
        plain::Plain,
        settings::{Ejection, UpstreamSettings},
        transport::Transport,
        url::{Host, UpstreamUrl},
    },
};

/// How long looked-up addresses are used.
const NAME_LIFETIME: Duration = Duration::from_secs(10);

pub struct Endpoint {
    url: UpstreamUrl,
    label: Rc<str>,
    /// Last in, first out: the connection that was just used is warm, the others may age.
    idle: RefCell<Vec<Plain>>,
    addresses: RefCell<Option<(Instant, Vec<SocketAddr>)>>,
    failures: Cell<u32>,
    ejections: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
}

impl Endpoint {
    pub fn new(url: &UpstreamUrl, _settings: &UpstreamSettings) -> Rc<Self> {
        Rc::new(Self {
            label: url.to_string().into(),
            url: url.clone(),
            idle: RefCell::default(),
            addresses: RefCell::default(),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            ejected_until: Cell::new(None),
        })
    }

    pub fn label(&self) -> &Rc<str> {
        &self.label
    }

    /// An idle connection that is still open.
    pub fn reuse(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let plain = self.idle.borrow_mut().pop()?;
            if plain.is_ready() {
                return Some(Lease::new(Rc::clone(self), Way::Plain(plain), true));
            }
            plain.lane().finish(End::Dropped);
        }
    }

    pub(super) fn keep(&self, plain: Plain) {
        let mut idle = self.idle.borrow_mut();
        // The oldest lie at the bottom; they close by themselves and are cleared away here.
        if idle.first().is_some_and(Plain::is_closed) {
            idle.retain(|plain| !plain.is_closed());
        }
        idle.push(plain);
    }

    pub async fn connect(self: &Rc<Self>, within: Duration, clock: &Clock) -> io::Result<Lease> {
        let stream = tokio::time::timeout(within, self.open(clock.now())).await??;
        stream.set_nodelay(true)?;
        let plain = Plain::start(Transport::Tcp(stream), clock).await?;
        Ok(Lease::new(Rc::clone(self), Way::Plain(plain), false))
    }

    async fn open(&self, now: Instant) -> io::Result<TcpStream> {
        let name = match self.url.host() {
            Host::Address(address) => return TcpStream::connect((*address, self.url.port())).await,
            Host::Name(name) => name,
        };
        let known = self.addresses.borrow().clone();
        if let Some((until, addresses)) = &known
            && *until > now
        {
            return TcpStream::connect(&addresses[..]).await;
        }
        let addresses = match tokio::net::lookup_host((&**name, self.url.port())).await {
            Ok(found) => found.collect(),
            // A resolver that is out for a moment does not take the upstream with it.
            Err(error) => known.ok_or(error)?.1,
        };
        *self.addresses.borrow_mut() = Some((now + NAME_LIFETIME, addresses.clone()));
        TcpStream::connect(&addresses[..]).await
    }

    pub fn ejected(&self, now: Instant) -> bool {
        self.ejected_until.get().is_some_and(|until| until > now)
    }

    pub fn succeeded(&self) {
        self.failures.set(0);
        self.ejections.set(0);
        self.ejected_until.set(None);
    }

    /// Counts a failure; whether the url has had enough of them in a row to be left out.
    pub fn failed(&self, ejection: &Ejection) -> bool {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        // After a back-off one more failure is enough.
        failures >= ejection.failures || self.ejections.get() > 0
    }

    pub fn eject(&self, ejection: &Ejection, now: Instant) {
        let times = self.ejections.get();
        let back_off =
            ejection.back_off.saturating_mul(1 << times.min(6)).min(Ejection::LONGEST.max(ejection.back_off));
        self.ejections.set(times.saturating_add(1));
        self.failures.set(0);
        self.ejected_until.set(Some(now + back_off));
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for plain in self.idle.borrow().iter() {
            plain.lane().finish(End::Dropped);
        }
    }
}
