//! Makes an open socket a connection that speaks HTTP/1.1 or HTTP/2.

use std::{io, rc::Rc, time::Duration};

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    net::{Clock, Socket, Stream},
    proxy::upstream::{
        http1::Http1,
        http2::{Http2, Http2Error},
        http2_error,
        io::Held,
        tls,
    },
    settings::{HttpVersion, Scheme, UpstreamSettings, UpstreamUrl},
};

/// The protocol settings of one url.
pub struct Connector {
    version: HttpVersion,
    is_secure: bool,
    secure: Option<Secure>,
    idle: Duration,
    ping: Duration,
}

/// What a TLS handshake needs.
struct Secure {
    connector: TlsConnector,
    /// For a connection that is to switch protocols, which only HTTP/1.1 can do.
    upgrading: TlsConnector,
    expected: ServerName<'static>,
}

/// A connection that is ready for its first request.
pub enum NewConnection {
    Http1(Box<Http1>),
    Http2(Rc<Http2>),
}

/// Why there is no connection. Cloned for every request that waits for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// All requests together, or those to this upstream, have as many sockets as they may.
    #[error("no socket is left for it")]
    OverBudget,
    #[error("not connected after {} ms", .0.as_millis())]
    TooSlow(Duration),
    #[error("{0}")]
    Socket(#[source] Rc<io::Error>),
    #[error("no HTTP/2 there: {0}")]
    Http2(#[source] Rc<Http2Error>),
    #[error("{0}")]
    Tls(Rc<str>),
    #[error("it does not take HTTP/2, which `http = \"2\"` asks for")]
    NoHttp2,
    #[error("nothing says whom to trust there")]
    NoTrust,
    #[error("the new connection takes no exchange")]
    Full,
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
            Some(Secure {
                connector: tls.connector(version),
                upgrading: tls.connector(HttpVersion::Http1),
                expected: tls.expected(url.host())?,
            })
        });
        let is_secure = url.scheme() == Scheme::Https;
        Self { version, secure, is_secure, idle: settings.idle_timeout, ping: settings.ping_interval }
    }

    pub fn version(&self) -> HttpVersion {
        self.version
    }

    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// `held`: what the connection has of the limits. `upgrading`: the connection is to
    /// switch protocols, which only HTTP/1.1 can do.
    pub async fn connect(
        &self,
        socket: Socket,
        clock: &Clock,
        held: Held,
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
        // The handshake of HTTP/1.1 reads and writes nothing, so it cannot fail.
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
        let version = tls::agreed(&stream);
        if self.version == HttpVersion::Http2 && version != HttpVersion::Http2 {
            return Err(ConnectError::NoHttp2);
        }
        Ok((Box::new(stream), version))
    }
}

impl ConnectError {
    /// TLS may refuse a client certificate after the handshake, when HTTP/2 has begun.
    fn of_http2(error: Http2Error) -> Self {
        let socket = match &error {
            Http2Error::Broken(error) => http2_error::socket_error(error),
            Http2Error::Closed => None,
        };
        match socket.and_then(tls::explain) {
            Some(why) => Self::Tls(why.into()),
            None => Self::Http2(error.into()),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match tls::explain(&error) {
            Some(why) => Self::Tls(why.into()),
            None => Self::Socket(error.into()),
        }
    }
}
