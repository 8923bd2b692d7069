//! The state of the upstreams at the moment of a scrape: read, not counted.

/// Implemented by the pools of connections.
pub trait UpstreamReadings: Send + Sync {
    fn read(&self) -> Vec<UpstreamReading>;
}

#[derive(Clone, Debug)]
pub struct UpstreamReading {
    pub name: String,
    pub urls: Vec<UrlReading>,
    /// In flight and queued; `None` without a limit, since nobody counts then.
    pub requests: Option<(usize, usize)>,
    /// Open and queued for; `None` without a limit.
    pub connections: Option<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub struct UrlReading {
    pub url: String,
    pub up: bool,
    pub ejected: bool,
}
