//! How the upstreams are at the moment of a scrape: read, not counted.

use super::exposition::Page;

/// Whoever knows.
pub trait UpstreamReadings: Send + Sync {
    fn read(&self) -> Vec<UpstreamReading>;
}

#[derive(Clone, Debug)]
pub struct UpstreamReading {
    pub name: String,
    pub urls: Vec<UrlReading>,
    /// Under way and waiting; where there is no limit, nobody counts.
    pub requests: Option<(usize, usize)>,
    /// Open and waited for; as above.
    pub connections: Option<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub struct UrlReading {
    pub url: String,
    pub up: bool,
    pub ejected: bool,
}

type OfUrl = fn(&UrlReading) -> bool;
type OfUpstream = fn(&UpstreamReading) -> Option<usize>;

const URL_GAUGES: [(&str, &str, OfUrl); 2] = [
    ("permgate_upstream_up", "0 while health checks fail.", |url| url.up),
    ("permgate_upstream_ejected", "1 while left out after failures.", |url| url.ejected),
];

const GAUGES: [(&str, &str, OfUpstream); 3] = [
    ("permgate_upstream_in_flight", "Requests under way, of upstreams with max_in_flight.", |upstream| {
        upstream.requests.map(|(taken, _)| taken)
    }),
    ("permgate_upstream_connections", "Connections open, of upstreams with max_connections.", |upstream| {
        upstream.connections.map(|(taken, _)| taken)
    }),
    ("permgate_upstream_queued", "Requests that wait for a limit of their upstream.", |upstream| {
        let waiting =
            [upstream.requests, upstream.connections].into_iter().flatten().map(|(_, waiting)| waiting);
        (upstream.requests.is_some() || upstream.connections.is_some()).then(|| waiting.sum())
    }),
];

pub(super) fn render(page: &mut Page, upstreams: &[UpstreamReading]) {
    for (name, help, read) in URL_GAUGES {
        page.family(name, "gauge", help);
        for upstream in upstreams {
            for url in &upstream.urls {
                let labels = [("upstream", upstream.name.as_str()), ("url", url.url.as_str())];
                page.sample(name, &labels, u8::from(read(url)));
            }
        }
    }
    for (name, help, read) in GAUGES {
        page.family(name, "gauge", help);
        for upstream in upstreams {
            if let Some(value) = read(upstream) {
                page.sample(name, &[("upstream", upstream.name.as_str())], value);
            }
        }
    }
}
