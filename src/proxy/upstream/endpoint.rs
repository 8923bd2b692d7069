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
        lease::{Lease, Way},
        plain::Plain,
        pool::Pool,
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
    pool: Rc<Pool>,
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
            pool: Rc::default(),
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
        self.pool.take().map(|plain| Lease::new(Rc::clone(self), Way::Plain(plain), true))
    }

    pub(super) fn keep(&self, plain: Plain, idle_timeout: Duration, clock: &Clock) {
        self.pool.keep(plain, idle_timeout, clock);
    }

    pub async fn connect(self: &Rc<Self>, within: Duration, clock: &Clock) -> io::Result<Lease> {
        let stream = tokio::time::timeout(within, self.open(clock.now())).await??;
        stream.set_nodelay(true)?;
        let plain = Plain::new(Transport::Tcp(stream), clock);
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
