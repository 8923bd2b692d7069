//! The accept loop of one listener on one worker: connection limits, PROXY headers, and the drain at the end.

use std::{
    future::poll_fn,
    io,
    iter::from_fn,
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
    serve::{ConnectionGuard, serve_connection, until_command},
    stream::Socket,
    tls::Certificates,
    worker::ConnectionSlot,
};

/// Accepts and serves connections on the worker's local runtime until a drain has ended. Fails if the socket
/// cannot be used at all.
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
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = draining.begun() => break,
            accepted = poll_fn(|cx| transport.poll_accept(cx)) => {
                match accepted {
                    Ok(accepted) => {
                        failing = false;
                        admit(&worker, &config, accepted, &service, &draining).await;
                    }
                    Err(error) if is_transient(&error) => {}
                    Err(error) => {
                        // Log once, not at every attempt.
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
                }
            }
        }
    }
    // The kernel has already accepted the connections in the queue, so they are still served. On an inherited
    // socket, they are left to the next process.
    let backlog = if config.inherited { Vec::new() } else { transport.backlog() };
    for accepted in backlog.into_iter().flatten() {
        admit(&worker, &config, accepted, &service, &draining).await;
    }
    worker.begin_drain();
    let cut = tokio::select! {
        biased;
        () = worker.wait_until_empty() => 0,
        () = draining.deadline() => worker.abort_all(),
    };
    worker.wait_until_empty().await;
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

/// How long the loop pauses after accept has failed, such as for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Bytes of a response that the kernel may queue unsent (TCP_NOTSENT_LOWAT).
const NOTSENT_LOWAT: u32 = 64 << 10;

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

    /// Closes the listener and returns every connection in its queue. Reads the queue from the kernel,
    /// because tokio reports connections only one at a time.
    fn backlog(self) -> Vec<io::Result<Accepted>> {
        let tcp = |(stream, peer): (std::net::TcpStream, SocketAddr)| {
            stream.set_nonblocking(true)?;
            Ok(Accepted::tcp(TcpStream::from_std(stream)?, peer))
        };
        let unix = |(stream, _): (std::os::unix::net::UnixStream, _)| {
            stream.set_nonblocking(true)?;
            Accepted::unix(UnixStream::from_std(stream)?)
        };
        match self {
            Self::Tcp(listener) => listener
                .into_std()
                .map_or_else(|_| Vec::new(), |all| from_fn(|| all.accept().ok()).map(tcp).collect()),
            Self::Unix(listener) => listener
                .into_std()
                .map_or_else(|_| Vec::new(), |all| from_fn(|| all.accept().ok()).map(unix).collect()),
        }
    }
}

impl Accepted {
    fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        // Responses are written in large pieces, so Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        // Otherwise the kernel takes megabytes at once and then nothing while a slow client reads them, and
        // the client looks stalled.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        // IPv4 addresses mapped to IPv6 become plain IPv4, so that rules and logs see one form.
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
    let slot = worker.register(connection.clone(), permit);
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

/// Waits briefly for a permit while an idle connection is closed. `None`: the limit is reached.
async fn permit(worker: &Worker, peer: &Peer, draining: &Draining) -> Option<ConnectionPermit> {
    let connections = &worker.budgets.connections;
    let mut remaining = if worker.full.get() { MAX_CLOSE_TIME } else { SLOT_TIMEOUT };
    let mut rounds = 0;
    let mut counted = false;
    loop {
        match worker.permit(peer) {
            Ok(permit) => {
                worker.full.set(false);
                return Some(permit);
            }
            // Counted for the limit per address: there are slots for others.
            Err(LimitReached::PerAddress) => return None,
            Err(LimitReached::Total) if (1..=CLOSING_ROUNDS).contains(&rounds) => {
                rounds += 1;
                tokio::task::yield_now().await;
            }
            Err(LimitReached::Total) => {
                // Once, whether others are closed for this one, or this one is refused.
                if !std::mem::replace(&mut counted, true) {
                    connections.count_refusal();
                }
                let here = worker.make_room();
                if !here {
                    connections.request_slot();
                } else if rounds == 0 {
                    rounds = 1;
                    continue;
                }
                let wait = if here { USUAL_CLOSE_TIME } else { SLOT_POLL_INTERVAL };
                // The next connection takes the slot that another worker frees.
                let refused = !here && worker.full.get();
                if draining.has_begun() || refused || remaining < wait {
                    worker.full.set(true);
                    return None;
                }
                remaining -= wait;
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// How long a new connection waits for a slot. The accept loop waits with it, so once a wait has failed,
/// later connections wait for at most `MAX_CLOSE_TIME`.
const SLOT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the runtime may run all tasks until a connection that makes room has closed: its streams end
/// before it.
const CLOSING_ROUNDS: u32 = 4;

/// How long a connection that makes room takes to close after that: at most, and usually.
const MAX_CLOSE_TIME: Duration = Duration::from_millis(20);
const USUAL_CLOSE_TIME: Duration = Duration::from_millis(1);
/// How often to look for a slot that another worker has to free.
const SLOT_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Reads the PROXY header of a trusted proxy. From then on the connection counts as the named client's.
/// `None`: the connection is closed.
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
    let peer = match until_command(&proxy, proxy_protocol::read(socket)).await {
        Ok(Ok(ProxyHeader::Client(client))) => Peer::Inet(client),
        Ok(Ok(ProxyHeader::Unnamed)) => Peer::Unnamed(proxy.address()),
        Ok(Ok(ProxyHeader::Own)) => proxy.peer,
        Ok(Err(ProxyHeaderError::Silent | ProxyHeaderError::Io(_))) => return None,
        Ok(Err(error)) => return refuse(&error.to_string()),
        Err(ConnectionCommand::Abort) => {
            socket.reset_on_close();
            return None;
        }
        Err(_) => return refuse("no PROXY header arrived in time"),
    };
    let client = Rc::new(Connection::for_client(&proxy, peer));
    if !slot.assign_client(client.clone()) {
        socket.reset_on_close();
        return None;
    }
    Some((client, slot))
}

/// Whether the error concerns one connection and not the listener.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
