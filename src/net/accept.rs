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
    bind::{Entrance, Socket},
    connection::Phase,
    proxy_protocol::{self, AnnounceError, Announced},
    serve::{Accepted, ConnectionGuard, Interrupted, attended, serve_connection},
    stream::Stream,
    tls::Certificates,
    worker::{Full, Lease},
};

/// Serves what comes in, on the worker's local runtime; returns when a drain has ended. The error is
/// that the socket cannot be used at all.
pub async fn serve<S: Service>(
    worker: Rc<Worker>,
    listener: Listener,
    service: Rc<S>,
    mut draining: Draining,
) -> io::Result<Drained> {
    let (socket, entrance, _unlink) = listener.into_parts();
    let door = match socket {
        Socket::Tcp(socket) => Door::Tcp(TcpListener::from_std(socket)?),
        Socket::Unix(socket) => Door::Unix(UnixListener::from_std(socket)?),
    };
    let mut starved = false;
    loop {
        tokio::select! {
            biased;
            () = draining.begun() => break,
            arrival = poll_fn(|cx| door.poll_accept(cx)) => {
                match arrival {
                    Ok(arrival) => {
                        starved = false;
                        admit(&worker, &entrance, arrival, &service, &draining).await;
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
    let backlog = if entrance.inherited { Vec::new() } else { door.backlog() };
    for arrival in backlog.into_iter().flatten() {
        admit(&worker, &entrance, arrival, &service, &draining).await;
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

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Arrival {
    stream: Stream,
    peer: Peer,
    local: Option<SocketAddr>,
}

/// Out of descriptors or of places: nobody else can be let in before somebody leaves.
const PAUSE: Duration = Duration::from_millis(50);

/// What the kernel holds of an answer beyond what is on its way to the client.
const UNSENT: u32 = 64 << 10;

impl Door {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map(|accepted| accepted.map(|(stream, peer)| Arrival::tcp(stream, peer))),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map(|accepted| accepted.and_then(|(stream, _)| Arrival::unix(stream))),
        }
    }

    /// Closes the door behind those who stand before it already. The kernel is asked, since the
    /// runtime learns of them only by and by.
    fn backlog(self) -> Vec<io::Result<Arrival>> {
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .map(|(stream, peer)| {
                        stream.set_nonblocking(true)?;
                        Ok(Arrival::tcp(TcpStream::from_std(stream)?, peer))
                    })
                    .collect()
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .map(|(stream, _)| {
                        stream.set_nonblocking(true)?;
                        Arrival::unix(UnixStream::from_std(stream)?)
                    })
                    .collect()
            }
        }
    }
}

impl Arrival {
    fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        // Answers are written whole; waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        // Else the kernel takes megabytes and then nothing for as long as a slow client needs to take
        // them, and nobody could tell it from one that has stopped reading.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        let local = stream.local_addr().ok().map(canonical);
        Self { stream: Stream::Tcp(stream), peer: Peer::Inet(canonical(peer)), local }
    }

    fn unix(stream: UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let peer = Peer::Unix { uid: peer.uid(), pid: peer.pid() };
        Ok(Self { stream: Stream::Unix(stream), peer, local: None })
    }
}

async fn admit<S: Service>(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    arrival: Arrival,
    service: &Rc<S>,
    draining: &Draining,
) {
    let Arrival { stream, peer, local } = arrival;
    let announced = entrance.announced && peer.is_trusted(&worker.limits().trusted_proxies);
    let place = loop {
        match worker.place(peer.counted()) {
            Ok(place) => break place,
            Err(Full::ThisAddress) => return stream.reset_on_close(),
            Err(Full::Everybody) if draining.has_begun() => return stream.reset_on_close(),
            Err(Full::Everybody) => {
                worker.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let certificates = entrance.certificates.clone().filter(|_| matches!(stream, Stream::Tcp(_)));
    let connection = Connection::new(peer, local, certificates.is_some(), worker.clock().clone());
    let connection = Rc::new(connection);
    let lease = worker.enlist(connection.clone(), place);
    let guard = ConnectionGuard::new(service, &connection);
    let (worker, service) = (worker.clone(), service.clone());
    if announced {
        tokio::task::spawn_local(async move {
            if let Some((connection, lease)) = announce(&stream, connection, lease, &*service).await {
                let accepted = accepted(stream, certificates);
                serve_connection(accepted, worker, connection, service, lease, guard).await;
            }
        });
    } else {
        let accepted = accepted(stream, certificates);
        tokio::task::spawn_local(serve_connection(accepted, worker, connection, service, lease, guard));
    }
}

fn accepted(stream: Stream, certificates: Option<Certificates>) -> Accepted {
    match (stream, certificates) {
        (Stream::Tcp(socket), Some(certificates)) => Accepted::Tls(certificates.present(), socket),
        (stream, _) => Accepted::Plain(stream),
    }
}

/// Learns whom a trusted proxy's connection is for; from then on it is that client's.
async fn announce<S: Service>(
    stream: &Stream,
    proxy: Rc<Connection>,
    mut lease: Lease,
    service: &S,
) -> Option<(Rc<Connection>, Lease)> {
    proxy.enter(Phase::Handshake);
    let refuse = |why: &str| {
        service.observe(ConnectionEvent::MissingProxyHeader(why), &proxy);
        stream.reset_on_close();
    };
    let peer = match attended(&proxy, proxy_protocol::read(stream)).await {
        Ok(Ok(Announced::Client(client))) => Peer::Inet(client),
        Ok(Ok(Announced::Unnamed)) => Peer::Unnamed(proxy.address()),
        Ok(Ok(Announced::Own)) => proxy.peer,
        Ok(Err(AnnounceError::Silent | AnnounceError::Io(_))) => return None,
        Ok(Err(error)) => {
            refuse(&error.to_string());
            return None;
        }
        Err(Interrupted::Aborted) => {
            stream.reset_on_close();
            return None;
        }
        Err(_) => {
            refuse("no PROXY header came in time");
            return None;
        }
    };
    let client = Rc::new(Connection::new(peer, proxy.local, proxy.secure, proxy.clock().clone()));
    if !lease.hand_over(client.clone()) {
        stream.reset_on_close();
        return None;
    }
    Some((client, lease))
}

/// IPv4 as such, also when it comes through an IPv6 socket: rules and logs know one form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
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
