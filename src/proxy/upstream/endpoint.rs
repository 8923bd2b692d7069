//! One url of an upstream in one worker: its idle connections, its addresses, its failures.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    net::Clock,
    proxy::{
        body::Upload,
        upstream::{
            lane::{End, Lane},
            settings::Ejection,
            url::{Host, UpstreamUrl},
            wire::Wire,
        },
    },
};

/// How long looked-up addresses are used.
const NAME_LIFETIME: Duration = Duration::from_secs(10);

/// The bound of an answer's head, and with it of one read.
const HEAD_LIMIT: usize = 64 << 10;

pub struct Endpoint {
    url: UpstreamUrl,
    label: Rc<str>,
    /// Last in, first out: the connection that was just used is warm, the others may age.
    idle: RefCell<Vec<Idle>>,
    addresses: RefCell<Option<(Instant, Vec<SocketAddr>)>>,
    failures: Cell<u32>,
    ejections: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
}

struct Idle {
    sender: SendRequest<Upload>,
    lane: Rc<Lane>,
}

/// A connection lent to one exchange. Goes back by [`Lease::give_back`]; dropped, it is closed.
pub struct Lease {
    endpoint: Rc<Endpoint>,
    sender: Option<SendRequest<Upload>>,
    lane: Rc<Lane>,
    reused: bool,
}

impl Endpoint {
    pub fn new(url: UpstreamUrl) -> Rc<Self> {
        Rc::new(Self {
            label: url.to_string().into(),
            url,
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
            let Idle { sender, lane } = self.idle.borrow_mut().pop()?;
            if sender.is_ready() && lane.end().is_none() {
                return Some(Lease { endpoint: Rc::clone(self), sender: Some(sender), lane, reused: true });
            }
            lane.finish(End::Dropped);
        }
    }

    /// A new connection; its driver is a task of its own that ends with the lane.
    pub async fn connect(self: &Rc<Self>, within: Duration, clock: &Clock) -> io::Result<Lease> {
        let stream = tokio::time::timeout(within, self.open(clock.now())).await??;
        stream.set_nodelay(true)?;
        let lane = Lane::new(clock);
        let wire = TokioIo::new(Wire::new(stream, Rc::clone(&lane)));
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LIMIT)
            .max_header_size(HEAD_LIMIT)
            .handshake(wire)
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        lane.drive(driver.abort_handle());
        Ok(Lease { endpoint: Rc::clone(self), sender: Some(sender), lane, reused: false })
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
        for idle in self.idle.borrow().iter() {
            idle.lane.finish(End::Dropped);
        }
    }
}

impl Lease {
    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    pub fn reused(&self) -> bool {
        self.reused
    }

    pub fn sender(&mut self) -> &mut SendRequest<Upload> {
        self.sender.as_mut().expect("a lease holds its connection until it is given back")
    }

    /// After the last byte of an answer. A connection that is not ready at this moment (its
    /// request is still under way, or it was closed) is of no use to another exchange.
    pub fn give_back(mut self, idle_timeout: Duration) {
        self.lane.expect_nothing();
        if let Some(sender) = self.sender.take_if(|sender| sender.is_ready()) {
            self.lane.rest(idle_timeout);
            let mut idle = self.endpoint.idle.borrow_mut();
            // The oldest lie at the bottom; they close by themselves and are cleared away here.
            if idle.first().is_some_and(|oldest| oldest.sender.is_closed()) {
                idle.retain(|idle| !idle.sender.is_closed());
            }
            idle.push(Idle { sender, lane: Rc::clone(&self.lane) });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.lane.finish(End::Dropped);
        }
    }
}
