//! The accept loop of one listener on one worker, until it is drained.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::{
    Connection, Drained, Draining, Handler, Listener, Peer, Worker,
    bind::Socket,
    lifetime::{Accepted, live},
    stream::Stream,
    tls::Certificates,
    worker::Full,
};

/// Serves what comes in, on the current `LocalSet`; returns when a drain has ended. The error is
/// that the socket cannot be used at all.
pub async fn serve<H: Handler>(
    worker: Rc<Worker>,
    listener: Listener,
    handler: Rc<H>,
    mut draining: Draining,
) -> io::Result<Drained> {
    let (socket, certificates, _unlink) = listener.into_parts();
    let door = match socket {
        Socket::Tcp(socket) => Door::Tcp(TcpListener::from_std(socket)?, certificates),
        Socket::Unix(socket) => Door::Unix(UnixListener::from_std(socket)?),
    };
    loop {
        tokio::select! {
            biased;
            () = draining.begun() => break,
            arrival = poll_fn(|cx| door.poll_accept(cx)) => {
                admit(&worker, &door, arrival, &handler, &draining).await;
            }
        }
    }
    // Who has got through the handshake with the kernel is served still.
    while let Some(arrival) = poll_fn(|cx| match door.poll_accept(cx) {
        Poll::Ready(arrival) => Poll::Ready(Some(arrival)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
    {
        if arrival.is_err() {
            break;
        }
        admit(&worker, &door, arrival, &handler, &draining).await;
    }
    drop(door);
    worker.begin_drain();
    let cut = tokio::select! {
        biased;
        () = worker.emptied() => 0,
        () = draining.deadline() => worker.sever_all(),
    };
    worker.emptied().await;
    Ok(Drained { cut })
}

enum Door {
    Tcp(TcpListener, Option<Certificates>),
    Unix(UnixListener),
}

struct Arrival {
    stream: Stream,
    peer: Peer,
    local: Option<SocketAddr>,
}

/// Out of descriptors or of places: nobody else can be let in before somebody leaves.
const PAUSE: Duration = Duration::from_millis(50);

impl Door {
    fn poll_accept(&self, cx: &mut std::task::Context<'_>) -> Poll<io::Result<Arrival>> {
        match self {
            Self::Tcp(listener, _) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                // Answers are written whole; waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr().ok().map(canonical);
                Arrival { stream: Stream::Tcp(stream), peer: Peer::Inet(canonical(peer)), local }
            }),
            Self::Unix(listener) => listener.poll_accept(cx).map(|accepted| {
                let (stream, _) = accepted?;
                let peer = stream.peer_cred()?;
                Ok(Arrival {
                    stream: Stream::Unix(stream),
                    peer: Peer::Unix { uid: peer.uid(), pid: peer.pid() },
                    local: None,
                })
            }),
        }
    }

    fn certificates(&self) -> Option<&Certificates> {
        match self {
            Self::Tcp(_, certificates) => certificates.as_ref(),
            Self::Unix(_) => None,
        }
    }
}

async fn admit<H: Handler>(
    worker: &Rc<Worker>,
    door: &Door,
    arrival: io::Result<Arrival>,
    handler: &Rc<H>,
    draining: &Draining,
) {
    let Arrival { stream, peer, local } = match arrival {
        Ok(arrival) => arrival,
        Err(error) if passing(&error) => return,
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection; pausing");
            return tokio::time::sleep(PAUSE).await;
        }
    };
    let address: Option<IpAddr> = match peer {
        Peer::Inet(address) => Some(address.ip()),
        Peer::Unix { .. } => None,
    };
    let place = loop {
        match worker.place(address) {
            Ok(place) => break place,
            Err(Full::ThisAddress) => return stream.reset_on_close(),
            Err(Full::Everybody) if draining.has_begun() => return stream.reset_on_close(),
            Err(Full::Everybody) => {
                worker.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let secure = door.certificates().is_some();
    let connection = Rc::new(Connection::new(peer, local, secure, worker.clock().clone()));
    let lease = worker.enlist(connection.clone(), place);
    let accepted = match (stream, door.certificates()) {
        (Stream::Tcp(socket), Some(certificates)) => {
            Accepted::Tls(TlsAcceptor::from(certificates.present()), socket)
        }
        (stream, _) => Accepted::Plain(stream),
    };
    let life = live(accepted, worker.clone(), connection, handler.clone(), lease);
    tokio::task::spawn_local(life);
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
