//! The state of the upstreams, read at each scrape.

/// Implemented by the connection pools.
pub trait UpstreamReadings: Send + Sync {
    fn read(&self) -> Vec<UpstreamReading>;
}

#[derive(Clone, Debug)]
pub struct UpstreamReading {
    pub name: String,
    pub urls: Vec<UrlReading>,
    /// Whether it has health checks. Without them, a url is only known to be down once requests have failed.
    pub is_checked: bool,
    /// In flight and queued; `None` without a limit, because nothing is counted then.
    pub requests: Option<(usize, usize)>,
    /// Open, and queued for one; `None` without a limit.
    pub connections: Option<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub struct UrlReading {
    pub url: String,
    pub up: bool,
    pub ejected: bool,
}
