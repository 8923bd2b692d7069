//! `[upstream.NAME]`, valid.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, uri::PathAndQuery};

use crate::settings::{UpstreamTls, UpstreamUrl};

/// One upstream, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    pub name: Arc<str>,
    /// At least one with a weight, at most [`UpstreamSettings::MOST_URLS`].
    pub urls: Vec<WeightedUrl>,
    /// Sent as Host instead of the client's.
    pub host: Option<HeaderValue>,
    pub http: HttpVersion,
    /// Where a url is `https://`.
    pub tls: Option<UpstreamTls>,
    pub connect_timeout: Duration,
    /// From the last byte sent until the head of the answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer that is asked for.
    pub body_timeout: Duration,
    /// The same for answers that may be quiet for long: event streams, gRPC, watches.
    pub stream_idle_timeout: Duration,
    /// How often an HTTP/2 upstream with requests under way is asked for life.
    pub ping_interval: Duration,
    /// How long nothing may pass through a tunnel.
    pub tunnel_idle_timeout: Duration,
    /// How long an unused connection is kept; shorter than upstreams' own limit, so that they
    /// seldom close one that is just being used.
    pub idle_timeout: Duration,
    pub balance: Balance,
    pub ejection: Ejection,
    /// `None`: every url counts as up.
    pub health: Option<Health>,
    /// How often a request is tried once more where that does no harm.
    pub retries: u32,
    /// How often names are looked up.
    pub resolve: Duration,
    /// Over all workers. `None`: no limit.
    pub max_connections: Option<NonZeroUsize>,
    /// Requests at one time, over all workers. `None`: no limit.
    pub max_in_flight: Option<NonZeroUsize>,
    /// How many wait for one of the two limits, and for how long.
    pub queue: usize,
    pub queue_timeout: Duration,
}

impl UpstreamSettings {
    /// The host of its first url: what a request without Host is sent with.
    pub fn own_host(&self) -> Option<HeaderValue> {
        Some(self.urls.first()?.url.authority())
    }

    /// What has been tried is remembered in the bits of a word.
    pub const MOST_URLS: usize = 64;

    /// The defaults of the limits table.
    pub fn new(name: &str, urls: Vec<UpstreamUrl>) -> Self {
        Self {
            name: name.into(),
            urls: urls.into_iter().map(WeightedUrl::from).collect(),
            host: None,
            http: HttpVersion::Auto,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(3600),
            ping_interval: Duration::from_secs(300),
            tunnel_idle_timeout: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(15),
            balance: Balance::RoundRobin,
            ejection: Ejection::default(),
            health: None,
            retries: 1,
            resolve: Duration::from_secs(30),
            max_connections: None,
            max_in_flight: None,
            queue: 100,
            queue_timeout: Duration::from_secs(1),
        }
    }
}

/// A url and its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedUrl {
    pub url: UpstreamUrl,
    /// 0: drained, never asked.
    pub weight: u32,
}

impl From<UpstreamUrl> for WeightedUrl {
    fn from(url: UpstreamUrl) -> Self {
        Self { url, weight: 1 }
    }
}

/// Which HTTP an upstream is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// As the url says: `h2c://` is HTTP/2, `https://` what the handshake comes to, others HTTP/1.1.
    #[default]
    Auto,
    Http1,
    Http2,
}

/// How one of several urls is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    #[default]
    RoundRobin,
    /// The one with the fewest requests of this worker under way, by weight.
    LeastRequests,
    /// The same one for the same user; without a user, for the same client address.
    Hash,
}

/// When a url is left out for a while. The last one left never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// For how long; doubled with each ejection in a row up to [`Ejection::LONGEST`].
    pub back_off: Duration,
}

impl Ejection {
    pub const LONGEST: Duration = Duration::from_secs(60);
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 3, back_off: Duration::from_secs(5) }
    }
}

/// Asks each url by itself, without credentials, whether it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: PathAndQuery,
    pub interval: Duration,
    /// For connection and head of the answer together.
    pub timeout: Duration,
    /// Sound answers in a row that make a url serve again.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
    /// `None`: any of 200 to 399.
    pub status: Option<StatusCode>,
}
