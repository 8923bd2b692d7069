//! From an open socket to a connection that speaks HTTP, and which one it is.

use std::{io, rc::Rc, time::Duration};

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    net::Clock,
    proxy::upstream::{
        admission::Place,
        plain::Plain,
        settings::{HttpVersion, UpstreamSettings},
        tls,
        transport::Transport,
        trunk::Trunk,
        url::{Scheme, UpstreamUrl},
    },
};

/// How one url is spoken to.
pub struct Negotiator {
    version: HttpVersion,
    is_secure: bool,
    secure: Option<Secure>,
    idle: Duration,
}

/// What a handshake of TLS needs.
struct Secure {
    connector: TlsConnector,
    /// For a connection whose protocol is to be switched: that is HTTP/1.1's alone.
    switching: TlsConnector,
    expected: ServerName<'static>,
}

/// A connection that is ready for its first exchange.
pub enum Negotiated {
    Plain(Plain),
    Shared(Rc<Trunk>),
}

/// Why there is no connection; told to everybody who waits for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("not connected after {} ms", .0.as_millis())]
    TooSlow(Duration),
    #[error("{0}")]
    Socket(#[source] Rc<io::Error>),
    #[error("no HTTP/2 there: {0}")]
    Http2(#[source] Rc<h2::Error>),
    #[error("{0}")]
    Tls(Rc<str>),
    #[error("it does not take HTTP/2, which `http = \"2\"` asks for")]
    NoHttp2,
    #[error("nothing says whom to trust there")]
    NoTrust,
    #[error("the new connection takes no exchange")]
    Full,
}

impl Negotiator {
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
                switching: tls.connector(HttpVersion::Http1),
                expected: tls.expected(url.host())?,
            })
        });
        Self { version, secure, is_secure: url.scheme() == Scheme::Https, idle: settings.idle_timeout }
    }

    pub fn version(&self) -> HttpVersion {
        self.version
    }

    pub fn idle(&self) -> Duration {
        self.idle
    }

    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// `held`: the connection's place, where there are only so many. `switching`: it is to leave
    /// HTTP, which HTTP/1.1 alone can do.
    pub async fn negotiate(
        &self,
        transport: Transport,
        clock: &Clock,
        held: Option<Place>,
        switching: bool,
    ) -> Result<Negotiated, ConnectError> {
        let (transport, version) = match transport {
            Transport::Tcp(stream) if self.is_secure => self.secure(stream, switching).await?,
            other => (other, self.version),
        };
        if version == HttpVersion::Http2 {
            let trunk = Trunk::start(transport, clock, self.idle, held).await;
            return trunk.map(Negotiated::Shared).map_err(ConnectError::of_h2);
        }
        Ok(Negotiated::Plain(Plain::new(transport, clock, held)))
    }

    async fn secure(
        &self,
        stream: TcpStream,
        switching: bool,
    ) -> Result<(Transport, HttpVersion), ConnectError> {
        let secure = self.secure.as_ref().ok_or(ConnectError::NoTrust)?;
        let switching = switching && self.version != HttpVersion::Http2;
        let connector = if switching { &secure.switching } else { &secure.connector };
        let stream = connector.connect(secure.expected.clone(), stream).await?;
        let version = tls::agreed(&stream);
        if self.version == HttpVersion::Http2 && version != HttpVersion::Http2 {
            return Err(ConnectError::NoHttp2);
        }
        Ok((Transport::Tls(Box::new(stream)), version))
    }
}

impl ConnectError {
    /// A client's certificate may be refused only after the handshake.
    fn of_h2(error: h2::Error) -> Self {
        match error.get_io().and_then(tls::explain) {
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
