//! Opens a socket to a url: tries every address of its name, those that failed recently last.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::{TcpStream, UnixStream};

use crate::{
    net::Socket,
    proxy::upstream::endpoint_health::EndpointHealth,
    settings::{Host, UpstreamUrl},
};

/// One worker's, for one url.
pub struct Dialer {
    health: Arc<EndpointHealth>,
    next: Cell<usize>,
    failed: RefCell<Vec<(SocketAddr, Instant)>>,
}

/// How long an address that failed is tried last.
const AVOID: Duration = Duration::from_secs(10);

impl Dialer {
    pub fn new(health: Arc<EndpointHealth>) -> Self {
        Self { health, next: Cell::new(0), failed: RefCell::default() }
    }

    /// `within` is shared among the addresses; the caller enforces it as a whole.
    pub async fn connect(&self, url: &UpstreamUrl, within: Duration, now: Instant) -> io::Result<Socket> {
        let stream = match url.host() {
            Host::Socket(path) => return UnixStream::connect(path).await.map(Socket::Unix),
            Host::Address(address) => TcpStream::connect((*address, url.port())).await?,
            Host::Name(name) => self.connect_by_name(name, within, now).await?,
        };
        stream.set_nodelay(true)?;
        Ok(Socket::Tcp(stream))
    }

    async fn connect_by_name(&self, name: &str, within: Duration, now: Instant) -> io::Result<TcpStream> {
        let deadline = tokio::time::Instant::now() + within;
        let addresses = tokio::time::timeout_at(deadline, self.health.addresses()).await?;
        let addresses =
            addresses.ok_or_else(|| io::Error::other(format!("the name {name} leads to no address")))?;
        let order = self.order(&addresses, now);
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for (tried, address) in order.iter().enumerate() {
            // An address that does not answer must leave time for the others.
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let share = left / u32::try_from(order.len() - tried).unwrap_or(u32::MAX);
            let outcome = tokio::time::timeout(share, TcpStream::connect(address)).await;
            last = match outcome.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let mut failed = self.failed.borrow_mut();
            failed.retain(|(other, until)| other != address && *until > now);
            failed.push((*address, now + AVOID));
        }
        Err(last)
    }

    /// Rotates the addresses, so that all get their share.
    fn order(&self, addresses: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let failed = self.failed.borrow();
        let failed =
            |address: &SocketAddr| failed.iter().any(|(other, until)| other == address && *until > now);
        let (last, mut order): (Vec<SocketAddr>, Vec<SocketAddr>) =
            addresses.iter().copied().partition(failed);
        let turn = self.next.replace(self.next.get().wrapping_add(1));
        let turn = turn % order.len().max(1);
        order.rotate_left(turn);
        order.extend(last);
        order
    }
}
