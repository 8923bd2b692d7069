//! What `[upstream.NAME]` comes to.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;

use crate::proxy::upstream::url::UpstreamUrl;

/// One upstream, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    pub name: Arc<str>,
    /// At least one; requests go round.
    pub urls: Vec<UpstreamUrl>,
    /// Sent as Host instead of the client's.
    pub host: Option<HeaderValue>,
    pub connect_timeout: Duration,
    /// From the last byte sent until the head of the answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer that is asked for.
    pub body_timeout: Duration,
    /// How long an unused connection is kept; shorter than upstreams' own limit, so that they
    /// seldom close one that is just being used.
    pub idle_timeout: Duration,
    pub balance: Balance,
    pub ejection: Ejection,
}

impl UpstreamSettings {
    /// The defaults of the limits table.
    pub fn new(name: &str, urls: Vec<UpstreamUrl>) -> Self {
        Self {
            name: name.into(),
            urls,
            host: None,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15),
            balance: Balance::RoundRobin,
            ejection: Ejection::default(),
        }
    }
}

/// How one of several urls is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    #[default]
    RoundRobin,
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
