//! From an open socket to a connection that speaks HTTP, and which one it is.

use std::{io, rc::Rc, time::Duration};

use crate::{
    net::Clock,
    proxy::upstream::{
        admission::Place,
        plain::Plain,
        settings::{HttpVersion, UpstreamSettings},
        transport::Transport,
        trunk::Trunk,
        url::{Scheme, UpstreamUrl},
    },
};

/// How one url is spoken to.
pub struct Negotiator {
    version: HttpVersion,
    idle: Duration,
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
    #[error("the new connection takes no exchange")]
    Full,
}

impl Negotiator {
    pub fn new(url: &UpstreamUrl, settings: &UpstreamSettings) -> Self {
        let version = match (url.scheme(), settings.http) {
            (Scheme::H2c, _) => HttpVersion::Http2,
            (Scheme::Http, HttpVersion::Auto) => HttpVersion::Http1,
            (Scheme::Http, forced) => forced,
        };
        Self { version, idle: settings.idle_timeout }
    }

    pub fn version(&self) -> HttpVersion {
        self.version
    }

    pub fn idle(&self) -> Duration {
        self.idle
    }

    pub fn is_secure(&self) -> bool {
        false
    }

    /// `held`: the connection's place, where there are only so many.
    pub async fn negotiate(
        &self,
        transport: Transport,
        clock: &Clock,
        held: Option<Place>,
    ) -> Result<Negotiated, ConnectError> {
        match self.version {
            HttpVersion::Http2 => {
                let trunk = Trunk::start(transport, clock, self.idle, held).await;
                trunk.map(Negotiated::Shared).map_err(|error| ConnectError::Http2(error.into()))
            }
            HttpVersion::Http1 | HttpVersion::Auto => {
                Ok(Negotiated::Plain(Plain::new(transport, clock, held)))
            }
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error.into())
    }
}
