//! The settings of `[upstream.NAME]`, validated.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, uri::PathAndQuery};
use strum::{EnumString, VariantNames};

use crate::settings::{UpstreamTls, UpstreamUrl};

/// One upstream, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    pub name: Arc<str>,
    /// At least one with a weight above 0, at most [`UpstreamSettings::MAX_URLS`].
    pub urls: Vec<WeightedUrl>,
    /// Sent as Host instead of the client's.
    pub host: Option<HeaderValue>,
    pub http: HttpVersion,
    /// Set if a URL is `https://`.
    pub tls: Option<UpstreamTls>,
    pub connect_timeout: Duration,
    /// From the last byte sent to the head of the response.
    pub first_byte_timeout: Duration,
    /// Between two pieces of a response, while more of it is requested.
    pub body_timeout: Duration,
    /// The same for responses that may be silent for long: event streams, gRPC, watches.
    pub stream_idle_timeout: Duration,
    /// How often an HTTP/2 upstream with requests in progress is pinged.
    pub ping_interval: Duration,
    /// How long a tunnel may be idle.
    pub tunnel_idle_timeout: Duration,
    /// How long an unused connection is kept. Shorter than the limits of upstreams, so that they rarely close
    /// a connection that is just being reused.
    pub idle_timeout: Duration,
    pub balance: Balance,
    pub ejection: Ejection,
    /// `None`: every URL counts as up.
    pub health: Option<Health>,
    /// How many times a request is retried where that does no harm.
    pub retries: u32,
    /// How often names are resolved again.
    pub resolve: Duration,
    /// Over all workers. `None`: no limit.
    pub max_connections: Option<NonZeroUsize>,
    /// Requests in flight, over all workers. `None`: no limit.
    pub max_in_flight: Option<NonZeroUsize>,
    /// How many requests may wait for one of the two limits, and for how long.
    pub queue: usize,
    pub queue_timeout: Duration,
}

impl UpstreamSettings {
    /// Returns the host of the first URL, with which a request without Host is sent.
    pub fn own_host(&self) -> Option<HeaderValue> {
        Some(self.urls.first()?.url.authority())
    }

    /// Limited, because the URLs that were tried are stored in the bits of a word.
    pub const MAX_URLS: usize = 64;

    /// Returns an upstream with the default of every setting.
    #[cfg(test)]
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

/// A URL and its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedUrl {
    pub url: UpstreamUrl,
    /// 0: drained, gets no requests.
    pub weight: u32,
}

impl From<UpstreamUrl> for WeightedUrl {
    fn from(url: UpstreamUrl) -> Self {
        Self { url, weight: 1 }
    }
}

/// The HTTP version for an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
pub enum HttpVersion {
    /// By the URL: `h2c://` is HTTP/2, `https://` what the handshake negotiates, others HTTP/1.1.
    #[default]
    #[strum(serialize = "auto")]
    Auto,
    #[strum(serialize = "1.1")]
    Http1,
    #[strum(serialize = "2")]
    Http2,
}

/// How one of several URLs is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Balance {
    #[default]
    RoundRobin,
    /// The URL with the fewest requests of this worker in flight, by weight.
    LeastRequests,
    /// The same URL for the same user; without a user, for the same client address.
    Hash,
}

/// When a URL is left out for a while. The last remaining URL never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// For how long; doubled with each further ejection in a row, up to [`Ejection::MAX`].
    pub back_off: Duration,
}

impl Ejection {
    pub const MAX: Duration = Duration::from_secs(60);
}

#[cfg(test)]
impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 3, back_off: Duration::from_secs(5) }
    }
}

/// Health checks: requests to each URL, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: PathAndQuery,
    pub interval: Duration,
    /// For connecting and the head of the response together.
    pub timeout: Duration,
    /// Successes in a row after which a URL is used again.
    pub rise: u32,
    /// Failures in a row after which a URL is left out.
    pub fall: u32,
    /// `None`: any of 200 to 399.
    pub status: Option<StatusCode>,
}
