//! The accept loop of one listener on one worker, until it is drained.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{
    Connection, ConnectionEvent, Drained, Draining, Listener, Peer, Service, Worker,
    bind::{self, ListenerConfig},
    budget::{ConnectionPermit, LimitReached},
    connection::{ConnectionCommand, Phase},
    proxy_protocol::{self, ProxyHeader, ProxyHeaderError},
    serve::{ConnectionGuard, attended, serve_connection},
    stream::Socket,
    tls::Certificates,
    worker::ConnectionSlot,
};

/// Accepts and serves connections on the worker's local runtime until a drain has ended. The error means
/// that the socket cannot be used at all.
pub async fn serve<S: Service>(
    worker: Rc<Worker>,
    listener: Listener,
    service: Rc<S>,
    mut draining: Draining,
) -> io::Result<Drained> {
    let Listener { socket, config, unlink: _unlink } = listener;
    let transport = match socket {
        bind::Socket::Tcp(socket) => Transport::Tcp(TcpListener::from_std(socket)?),
        bind::Socket::Unix(socket) => Transport::Unix(UnixListener::from_std(socket)?),
    };
    let mut starved = false;
    loop {
        tokio::select! {
            biased;
            () = draining.begun() => break,
            accepted = poll_fn(|cx| transport.poll_accept(cx)) => {
                match accepted {
                    Ok(accepted) => {
                        starved = false;
                        admit(&worker, &config, accepted, &service, &draining).await;
                    }
                    Err(error) if passing(&error) => {}
                    Err(error) => {
                        // Logged once, not with every attempt.
                        if !std::mem::replace(&mut starved, true) {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }
    // The kernel has accepted these connections, so they are still served; on an inherited socket, that
    // is up to the next process.
    let backlog = if config.inherited { Vec::new() } else { transport.backlog() };
    for accepted in backlog.into_iter().flatten() {
        admit(&worker, &config, accepted, &service, &draining).await;
    }
    worker.begin_drain();
    let cut = tokio::select! {
        biased;
        () = worker.emptied() => 0,
        () = draining.deadline() => worker.abort_all(),
    };
    worker.emptied().await;
    Ok(Drained { cut })
}

enum Transport {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Accepted {
    socket: Socket,
    peer: Peer,
}

/// How long accept pauses when descriptors or connections run out.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes of an answer that the kernel queues beyond those in flight.
const UNSENT: u32 = 64 << 10;

impl Transport {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map(|accepted| accepted.map(|(stream, peer)| Accepted::tcp(stream, peer))),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map(|accepted| accepted.and_then(|(stream, _)| Accepted::unix(stream))),
        }
    }

    /// Closes the listener, but first takes every connection that waits there. This asks the kernel: the
    /// runtime learns of them only one after the other.
    fn backlog(self) -> Vec<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .map(|(stream, peer)| {
                        stream.set_nonblocking(true)?;
                        Ok(Accepted::tcp(TcpStream::from_std(stream)?, peer))
                    })
                    .collect()
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .map(|(stream, _)| {
                        stream.set_nonblocking(true)?;
                        Accepted::unix(UnixStream::from_std(stream)?)
                    })
                    .collect()
            }
        }
    }
}

impl Accepted {
    fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        // Answers are written whole, so that Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        // Otherwise the kernel takes megabytes and then nothing while a slow client reads them, which
        // looks like a client that has stopped reading.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        // Rules and logs know one form of an IPv4 address, also where it came through an IPv6 socket.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self { socket: Socket::Tcp(stream), peer: Peer::Inet(peer) }
    }

    fn unix(stream: UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let peer = Peer::Unix { uid: peer.uid(), pid: peer.pid() };
        Ok(Self { socket: Socket::Unix(stream), peer })
    }
}

async fn admit<S: Service>(
    worker: &Rc<Worker>,
    config: &ListenerConfig,
    accepted: Accepted,
    service: &Rc<S>,
    draining: &Draining,
) {
    let Accepted { socket, peer } = accepted;
    let expects_header = config.proxy_protocol && peer.is_trusted(&worker.limits().trusted_proxies);
    let Some(permit) = permit(worker, &peer, draining).await else { return socket.reset_on_close() };
    let certificates = config.certificates.clone().filter(|_| matches!(socket, Socket::Tcp(_)));
    let connection = Rc::new(Connection::new(peer, certificates.is_some(), worker.clock().clone()));
    let slot = worker.enlist(connection.clone(), permit);
    let guard = ConnectionGuard::new(service, &connection);
    let (worker, service) = (worker.clone(), service.clone());
    let tls = move || certificates.as_ref().map(Certificates::current);
    if expects_header {
        tokio::task::spawn_local(async move {
            if let Some((connection, slot)) = read_proxy_header(&socket, connection, slot, &*service).await {
                serve_connection(socket, tls(), worker, connection, service, slot, guard).await;
            }
        });
    } else {
        tokio::task::spawn_local(serve_connection(socket, tls(), worker, connection, service, slot, guard));
    }
}

/// Waits a moment for a place, which the oldest idle connection makes. `None`: there is none.
async fn permit(worker: &Worker, peer: &Peer, draining: &Draining) -> Option<ConnectionPermit> {
    let connections = &worker.budgets().connections;
    let mut patience = if worker.is_full() { CLOSING } else { PATIENCE };
    let mut yielded = false;
    loop {
        match worker.permit(peer) {
            Ok(permit) => {
                worker.set_full(false);
                return Some(permit);
            }
            Err(LimitReached::ThisAddress) => break,
            Err(LimitReached::Everybody) => {
                let here = worker.make_room();
                if !here {
                    connections.wish();
                } else if !std::mem::replace(&mut yielded, true) {
                    // Most connections close as soon as they are told to.
                    tokio::task::yield_now().await;
                    continue;
                }
                let wait = if here { SOON } else { ELSEWHERE };
                // Whoever comes next finds the place that another worker makes.
                let refused = !here && worker.is_full();
                if draining.has_begun() || refused || patience < wait {
                    worker.set_full(true);
                    break;
                }
                patience -= wait;
                tokio::time::sleep(wait).await;
            }
        }
    }
    connections.count_refusal();
    None
}

/// How long a connection waits for a place. Others behind it wait as well, so that those that come while
/// there is none are closed at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an idle connection takes to close, at most and as a rule.
const CLOSING: Duration = Duration::from_millis(20);
const SOON: Duration = Duration::from_millis(1);
/// How often another worker is asked.
const ELSEWHERE: Duration = Duration::from_millis(5);

/// Reads the PROXY header of a trusted proxy; from then on the connection belongs to the client it names.
async fn read_proxy_header<S: Service>(
    socket: &Socket,
    proxy: Rc<Connection>,
    mut slot: ConnectionSlot,
    service: &S,
) -> Option<(Rc<Connection>, ConnectionSlot)> {
    proxy.enter(Phase::Handshake);
    let refuse = |why: &str| {
        service.observe(ConnectionEvent::MissingProxyHeader(why), &proxy);
        socket.reset_on_close();
        None
    };
    let peer = match attended(&proxy, proxy_protocol::read(socket)).await {
        Ok(Ok(ProxyHeader::Client(client))) => Peer::Inet(client),
        Ok(Ok(ProxyHeader::Unnamed)) => Peer::Unnamed(proxy.address()),
        Ok(Ok(ProxyHeader::Own)) => proxy.peer,
        Ok(Err(ProxyHeaderError::Silent | ProxyHeaderError::Io(_))) => return None,
        Ok(Err(error)) => return refuse(&error.to_string()),
        Err(ConnectionCommand::Abort) => {
            socket.reset_on_close();
            return None;
        }
        Err(_) => return refuse("no PROXY header came in time"),
    };
    let client = Rc::new(Connection::for_client(&proxy, peer));
    if !slot.hand_over(client.clone()) {
        socket.reset_on_close();
        return None;
    }
    Some((client, slot))
}

/// Whether the error concerns one connection and not the listener.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
