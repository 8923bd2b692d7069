//! Listener addresses and their sockets. Each address is bound once at startup, where errors can still be
//! reported; then each worker gets a listening socket. A supervisor such as systemd may pass sockets by name
//! instead: LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES.

use std::{
    env, fmt, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as RawSocket, Type};

use super::tls::Certificates;

/// `127.0.0.1:8080`, `[::1]:8080`, `unix:PATH` or `systemd:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// A socket that a supervisor passes under this name.
    Inherited(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address: expected IP:PORT, unix:PATH or systemd:NAME")]
pub struct AddressError;

/// An address that this process has bound. Keep it until every listener is created.
pub struct Bound(BoundSocket);

/// One worker's listening socket. It is `Send`, and tied to a runtime only when it is served.
pub struct Listener {
    pub(super) socket: Socket,
    pub(super) config: ListenerConfig,
    pub(super) unlink: Option<Arc<UnlinkOnDrop>>,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{0} is in use: is another permgate running?")]
    InUse(Address),
    #[error("{0} exists and is not a socket")]
    NoSocket(Address),
    #[error("failed to bind {0}: create its directory, or name another path")]
    NoDirectory(Address),
    #[error("failed to bind {0}: this machine has no such address")]
    NoInterface(Address),
    #[error("failed to bind {address}")]
    Io { address: Address, source: io::Error },
}

/// How a listener's connections begin, before their first request.
pub(super) struct ListenerConfig {
    pub certificates: Option<Certificates>,
    pub proxy_protocol: bool,
    /// Another process goes on accepting from the socket when this one stops.
    pub inherited: bool,
}

pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Removes a unix socket's file when the last listener is dropped, unless another file has taken its place.
pub(super) struct UnlinkOnDrop {
    path: PathBuf,
    made: Option<(u64, u64)>,
}

enum BoundSocket {
    /// Bound but not listening: it reserves the port and gets no connections.
    Own {
        address: SocketAddr,
        _hold: RawSocket,
    },
    /// Passed by systemd, and listening already.
    Inherited(TcpListener),
    Unix {
        address: PathBuf,
        socket: UnixListener,
        unlink: Option<Arc<UnlinkOnDrop>>,
    },
}

/// How many connections may wait for a worker to accept them.
const BACKLOG: i32 = 4096;

/// Owner only: any process that can connect acts as the operator.
const OWNER_ONLY: u32 = 0o600;

/// Binds the address, and chooses a port for port 0. Only the owner can connect to a unix socket.
pub fn bind(address: &Address) -> Result<Bound, BindError> {
    bind_with_mode(address, OWNER_ONLY)
}

/// Like `bind`, with this mode for a unix socket's file.
pub fn bind_with_mode(address: &Address, mode: u32) -> Result<Bound, BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.clone()),
        io::ErrorKind::NotFound => BindError::NoDirectory(address.clone()),
        io::ErrorKind::AddrNotAvailable => BindError::NoInterface(address.clone()),
        _ => BindError::Io { address: address.clone(), source },
    };
    match address {
        Address::Tcp(wanted) => {
            // Without SO_REUSEPORT, so that a second instance fails to bind.
            let hold = tcp_socket(*wanted, false).map_err(failed)?;
            let bound = hold.local_addr().map_err(failed)?;
            let address = bound.as_socket().ok_or(io::ErrorKind::Unsupported.into());
            Ok(Bound(BoundSocket::Own { address: address.map_err(failed)?, _hold: hold }))
        }
        Address::Unix(path) => {
            clear_stale(path, address)?;
            let socket = unix_socket(path, mode).map_err(failed)?;
            let unlink = Some(Arc::new(UnlinkOnDrop { path: path.clone(), made: file_identity(path) }));
            Ok(Bound(BoundSocket::Unix { address: path.clone(), socket, unlink }))
        }
        // The supervisor that passes the socket has bound it.
        Address::Inherited(_) => Err(failed(io::ErrorKind::Unsupported.into())),
    }
}

impl Bound {
    /// Wraps a socket that is already listening. The workers share its descriptor.
    pub fn inherited_tcp(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(BoundSocket::Inherited(socket)))
    }

    /// Like `inherited_tcp`. The socket's file remains when the listeners are dropped.
    pub fn inherited_unix(socket: UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        Ok(Self(BoundSocket::Unix { address, socket, unlink: None }))
    }

    /// Returns the address, with the port that was chosen for port 0.
    pub fn local(&self) -> io::Result<Address> {
        Ok(match &self.0 {
            BoundSocket::Own { address, .. } => Address::Tcp(*address),
            BoundSocket::Inherited(socket) => Address::Tcp(socket.local_addr()?),
            BoundSocket::Unix { address, .. } => Address::Unix(address.clone()),
        })
    }

    /// Returns a listening socket for one worker, which must serve it: from now on connections queue there.
    pub fn listener(&self) -> io::Result<Listener> {
        let (socket, inherited, unlink) = match &self.0 {
            BoundSocket::Own { address, .. } => {
                let socket = tcp_socket(*address, true)?;
                socket.listen(BACKLOG)?;
                (Socket::Tcp(socket.into()), false, None)
            }
            BoundSocket::Inherited(socket) => (Socket::Tcp(socket.try_clone()?), true, None),
            BoundSocket::Unix { socket, unlink, .. } => {
                (Socket::Unix(socket.try_clone()?), unlink.is_none(), unlink.clone())
            }
        };
        let config = ListenerConfig { certificates: None, proxy_protocol: false, inherited };
        Ok(Listener { socket, config, unlink })
    }
}

impl Listener {
    /// Serves TLS, except on a unix socket.
    pub fn with_tls(mut self, certificates: impl Into<Option<Certificates>>) -> Self {
        self.config.certificates = certificates.into();
        self
    }

    /// Expects a PROXY header on connections of trusted proxies, before TLS. Other connections never begin
    /// with one.
    pub fn with_proxy_protocol(mut self) -> Self {
        self.config.proxy_protocol = true;
        self
    }
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Allows a restart while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unix_socket(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // No client can connect before `listen`, so the mode applies from the first connection on.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects without waiting for a listener whose queue is full.
fn connect_at_once(path: &Path) -> io::Result<()> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// Removes the socket file of a process that has exited, and nothing else.
fn clear_stale(path: &Path, address: &Address) -> Result<(), BindError> {
    let failed = |source| BindError::Io { address: address.clone(), source };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NoSocket(address.clone()));
    }
    match connect_at_once(path) {
        Ok(()) => Err(BindError::InUse(address.clone())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        // The queue is full or this process may not connect, so another process is listening.
        Err(_) => Err(BindError::InUse(address.clone())),
    }
}

fn file_identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl Drop for UnlinkOnDrop {
    fn drop(&mut self) {
        // The file or its directory may already be gone.
        if self.made.is_some() && file_identity(&self.path) == self.made {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether systemd accepts the name as a `FileDescriptorName=`.
fn is_valid_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(AddressError),
            Some(path) => Ok(Self::Unix(path.into())),
            None => match text.strip_prefix("systemd:") {
                Some(name) if is_valid_name(name) => Ok(Self::Inherited(name.to_owned())),
                Some(_) => Err(AddressError),
                None => text.parse().map(Self::Tcp).map_err(|_| AddressError),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// The sockets that were passed to this process.
pub struct Inherited {
    names: Vec<String>,
    sockets: ListenFd,
    taken: Vec<bool>,
}

#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("the sockets passed to this process cannot be read: {0}")]
    Environment(io::Error),
    #[error("no socket was passed to this process; systemd:{0} needs a socket unit that starts it")]
    Nothing(String),
    #[error(
        "no socket named {name:?} was passed to this process, only {}; its unit needs FileDescriptorName={name}",
        .passed.join(", ")
    )]
    Missing { name: String, passed: Vec<String> },
    #[error("the socket passed as {0:?} is not a listening stream socket")]
    NotListening(String),
}

impl Inherited {
    /// Takes the sockets that the environment names. Call before other threads run: this removes the
    /// variables, so that no child process uses them. Sockets for another process are not touched.
    pub fn from_environment() -> Result<Self, InheritError> {
        // Checks LISTEN_PID, and sets close-on-exec even on sockets that are never taken.
        if sd_notify::listen_fds().map_err(InheritError::Environment)?.len() == 0 {
            return Ok(Self::none());
        }
        let passed = sd_notify::listen_fds_with_names().map_err(InheritError::Environment)?;
        let names: Vec<String> = passed.map(|(_, name)| name).collect();
        let first = env::var_os("LISTEN_FDS_FIRST_FD").is_none();
        let sockets = if !first { ListenFd::empty() } else { ListenFd::from_env() };
        let taken = vec![false; sockets.len()];
        Ok(Self { names, sockets, taken })
    }

    /// Takes nothing from the environment.
    pub fn none() -> Self {
        Self { names: Vec::new(), sockets: ListenFd::empty(), taken: Vec::new() }
    }

    /// Takes every socket with this name. Fails if there is none, or if one is not a listening stream socket.
    pub fn take(&mut self, name: &str) -> Result<Vec<Bound>, InheritError> {
        let mut all = Vec::new();
        for at in 0..self.taken.len() {
            if self.names[at] != name {
                continue;
            }
            self.taken[at] = true;
            all.push(self.socket(at).map_err(|_| InheritError::NotListening(name.to_owned()))?);
        }
        match all.is_empty() {
            false => Ok(all),
            true if self.taken.is_empty() => Err(InheritError::Nothing(name.to_owned())),
            true => Err(InheritError::Missing { name: name.to_owned(), passed: self.names.clone() }),
        }
    }

    /// Returns the names of sockets that were not taken. Connections to them would wait forever.
    pub fn untaken(&self) -> impl Iterator<Item = &str> {
        self.names.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(name, _)| name.as_str())
    }

    fn socket(&mut self, at: usize) -> io::Result<Bound> {
        let listening = |socket: SockRef<'_>| match socket.is_listener() {
            Ok(true) => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        if let Ok(Some(socket)) = self.sockets.take_tcp_listener(at) {
            listening(SockRef::from(&socket))?;
            return Bound::inherited_tcp(socket);
        }
        let socket = self.sockets.take_unix_listener(at)?.ok_or(io::ErrorKind::NotFound)?;
        listening(SockRef::from(&socket))?;
        Bound::inherited_unix(socket)
    }
}
