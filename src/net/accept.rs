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
    connection::{ConnectionCommand, Phase},
    proxy_protocol::{self, ProxyHeader, ProxyHeaderError},
    serve::{ConnectionGuard, attended, serve_connection},
    stream::Socket,
    tls::Certificates,
    worker::{ConnectionSlot, LimitReached},
};

/// Serves what comes in, on the worker's local runtime; returns when a drain has ended. The error is
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
                        // Said once, not with every attempt.
                        if !std::mem::replace(&mut starved, true) {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }
    // Who has got through the handshake with the kernel is served still; before an inherited socket,
    // the next process does it.
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

/// Out of descriptors or of places: nobody else can be let in before somebody leaves.
const PAUSE: Duration = Duration::from_millis(50);

/// What the kernel holds of an answer beyond what is on its way to the client.
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

    /// Closes the transport behind those who stand before it already. The kernel is asked, since the
    /// runtime learns of them only by and by.
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
        // Answers are written whole; waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        // Else the kernel takes megabytes and then nothing for as long as a slow client needs to take
        // them, and nobody could tell it from one that has stopped reading.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        // IPv4 as such, also when it comes through an IPv6 socket: rules and logs know one form.
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
    let permit = loop {
        match worker.permit(peer.counted()) {
            Ok(permit) => break permit,
            Err(LimitReached::ThisAddress) => return socket.reset_on_close(),
            Err(LimitReached::Everybody) if draining.has_begun() => return socket.reset_on_close(),
            Err(LimitReached::Everybody) => {
                worker.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
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

/// Learns whom a trusted proxy's connection is for; from then on it is that client's.
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
    let client = Rc::new(Connection::new(peer, proxy.secure, proxy.clock().clone()));
    if !slot.hand_over(client.clone()) {
        socket.reset_on_close();
        return None;
    }
    Some((client, slot))
}

/// The one connection is at fault, not the listener.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
