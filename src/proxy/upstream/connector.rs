//! Connects to a URL. [`Dialer`] opens a socket, trying all addresses of the name and recently failed ones
//! last. [`Connector`] performs the TLS and HTTP handshakes (HTTP/1.1 or HTTP/2).

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{
    net::{Clock, Socket, Stream},
    proxy::upstream::{
        endpoint_health::EndpointHealth,
        http1::Http1,
        http2::{self, Http2, Http2Error},
        io::ConnectionPermits,
    },
    settings::{
        AUTHORITY_AS_SERVER, Host, HttpVersion, Scheme, UpstreamSettings, UpstreamUrl, tls::is_authority,
    },
};

/// Opens one worker's sockets to one URL.
pub struct Dialer {
    health: Arc<EndpointHealth>,
    next: Cell<usize>,
    failed: RefCell<Vec<(SocketAddr, Instant)>>,
}

/// How long an address that failed is tried last.
const FAILED_ADDRESS_PENALTY: Duration = Duration::from_secs(10);

/// The protocol settings of one URL.
pub struct Connector {
    pub version: HttpVersion,
    pub is_secure: bool,
    secure: Option<TlsParameters>,
    idle: Duration,
    ping: Duration,
}

/// Settings of the TLS handshake.
struct TlsParameters {
    connector: TlsConnector,
    /// Offers HTTP/1.1 only, for a connection that will switch protocols.
    upgrading: TlsConnector,
    expected: ServerName<'static>,
}

/// A connection that is ready for its first request.
pub enum NewConnection {
    Http1(Box<Http1>),
    Http2(Rc<Http2>),
}

/// Why a connection failed. Cloned for every request that waits for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket budget of the process, or this upstream's part of it, is exhausted.
    #[error("no more sockets to upstreams are allowed")]
    OverBudget,
    #[error("not connected after {} ms", .0.as_millis())]
    TooSlow(Duration),
    #[error("{0}")]
    Socket(#[source] Rc<io::Error>),
    #[error("HTTP/2 failed: {0}")]
    Http2(#[source] Rc<Http2Error>),
    #[error("{0}")]
    Tls(Rc<str>),
    #[error("it does not accept HTTP/2, which `http = \"2\"` requires")]
    NoHttp2,
    #[error("there are no certificate authorities to trust: set `tls.ca`")]
    NoTrust,
    #[error("the new connection accepts no request")]
    Full,
}

impl Dialer {
    pub fn new(health: Arc<EndpointHealth>) -> Self {
        Self { health, next: Cell::new(0), failed: RefCell::default() }
    }

    /// `within` is divided among the addresses; the caller enforces the total.
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
            addresses.ok_or_else(|| io::Error::other(format!("the name {name} resolves to no address")))?;
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
            failed.push((*address, now + FAILED_ADDRESS_PENALTY));
        }
        Err(last)
    }

    /// Rotates the addresses to distribute connections; recently failed ones come last.
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

impl Connector {
    pub fn new(url: &UpstreamUrl, settings: &UpstreamSettings) -> Self {
        let version = match (url.scheme(), settings.http) {
            (Scheme::H2c, _) => HttpVersion::Http2,
            (Scheme::Http, HttpVersion::Auto) => HttpVersion::Http1,
            (Scheme::Http | Scheme::Https, version) => version,
        };
        let tls = settings.tls.as_ref().filter(|_| url.scheme() == Scheme::Https);
        let secure = tls.and_then(|tls| {
            Some(TlsParameters {
                connector: tls.connector(version),
                upgrading: tls.connector(HttpVersion::Http1),
                expected: tls.server_name_for(url.host())?,
            })
        });
        let is_secure = url.scheme() == Scheme::Https;
        Self { version, secure, is_secure, idle: settings.idle_timeout, ping: settings.ping_interval }
    }

    /// Performs the handshakes. `held` are the limits' permits for the connection. `upgrading`: the
    /// connection will switch protocols, which requires HTTP/1.1.
    pub async fn connect(
        &self,
        socket: Socket,
        clock: &Clock,
        held: ConnectionPermits,
        upgrading: bool,
    ) -> Result<NewConnection, ConnectError> {
        let (stream, version): (Box<dyn Stream>, _) = match socket {
            Socket::Tcp(stream) if self.is_secure => self.secure(stream, upgrading).await?,
            Socket::Tcp(stream) => (Box::new(stream), self.version),
            Socket::Unix(stream) => (Box::new(stream), self.version),
        };
        if version == HttpVersion::Http2 {
            let http2 = Http2::start(stream, clock, self.idle, self.ping, held).await;
            return http2.map(NewConnection::Http2).map_err(ConnectError::of_http2);
        }
        let http1 = Http1::start(stream, clock, held).await;
        // The HTTP/1.1 handshake performs no I/O, so it cannot fail.
        http1
            .map(|http1| NewConnection::Http1(Box::new(http1)))
            .map_err(|error| io::Error::other(error).into())
    }

    async fn secure(
        &self,
        stream: TcpStream,
        upgrading: bool,
    ) -> Result<(Box<dyn Stream>, HttpVersion), ConnectError> {
        let secure = self.secure.as_ref().ok_or(ConnectError::NoTrust)?;
        let upgrading = upgrading && self.version != HttpVersion::Http2;
        let connector = if upgrading { &secure.upgrading } else { &secure.connector };
        let stream = connector.connect(secure.expected.clone(), stream).await?;
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        };
        if self.version == HttpVersion::Http2 && version != HttpVersion::Http2 {
            return Err(ConnectError::NoHttp2);
        }
        Ok((Box::new(stream), version))
    }
}

impl ConnectError {
    /// With TLS 1.3 a client certificate may be refused after the handshake, when HTTP/2 has begun.
    fn of_http2(error: Http2Error) -> Self {
        let socket = match &error {
            Http2Error::Broken(error) => http2::socket_error(error),
            Http2Error::Closed => None,
        };
        match socket.and_then(describe_tls_error) {
            Some(why) => Self::Tls(why.into()),
            None => Self::Http2(error.into()),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match describe_tls_error(&error) {
            Some(why) => Self::Tls(why.into()),
            None => Self::Socket(error.into()),
        }
    }
}

/// Explains a TLS error to an operator. `None`: it is not a TLS error.
fn describe_tls_error(error: &io::Error) -> Option<String> {
    use rustls::Error as E;
    let error = error.get_ref()?.downcast_ref::<E>()?;
    Some(match error {
        E::InvalidCertificate(why) => format!("its certificate {}", describe_certificate_error(why)),
        E::AlertReceived(AlertDescription::CertificateRequired) => {
            "it requires a client certificate: set `tls.cert` and `tls.key`".to_owned()
        }
        E::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it supports none of the offered HTTP versions".to_owned()
        }
        E::AlertReceived(alert) => format!("it ended the handshake with the alert {alert:?}"),
        other => format!("TLS failed: {other}"),
    })
}

fn describe_certificate_error(why: &CertificateError) -> String {
    use CertificateError as C;
    match why {
        C::Expired | C::ExpiredContext { .. } => "has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        C::UnknownIssuer => "has an unknown issuer: set `tls.ca` to its authority".to_owned(),
        C::NotValidForName => "is for another name".to_owned(),
        C::NotValidForNameContext { expected, presented } => {
            let presented = presented.join(", ");
            format!("is for another name: expected {}, but it names {presented}", expected.to_str())
        }
        C::Revoked => "was revoked".to_owned(),
        why if is_authority(why) => format!("is {AUTHORITY_AS_SERVER}"),
        other => format!("is not accepted: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: rustls::Error, expected: &str) {
        assert_eq!(
            describe_tls_error(&io::Error::new(io::ErrorKind::InvalidData, error)).as_deref(),
            Some(expected)
        );
    }

    #[test]
    fn refused_certificate_is_explained() {
        use rustls::Error::{AlertReceived, InvalidCertificate};
        check(InvalidCertificate(CertificateError::Expired), "its certificate has expired");
        check(
            InvalidCertificate(CertificateError::UnknownIssuer),
            "its certificate has an unknown issuer: set `tls.ca` to its authority",
        );
        let other = CertificateError::NotValidForNameContext {
            expected: crate::settings::parse_name("a.test").expect("a name"),
            presented: vec!["b.test".to_owned()],
        };
        check(
            InvalidCertificate(other),
            "its certificate is for another name: expected a.test, but it names b.test",
        );
        check(
            AlertReceived(AlertDescription::CertificateRequired),
            "it requires a client certificate: set `tls.cert` and `tls.key`",
        );
        assert_eq!(describe_tls_error(&io::ErrorKind::ConnectionRefused.into()), None);
    }
}
