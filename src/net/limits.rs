//! Limits and timeouts of a worker's connections.

use std::time::Duration;

use crate::authz::forwarding::TrustedProxies;

/// Limits and timeouts of client connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Request line and fields together, bytes.
    pub head: usize,
    /// Name and value of one field, bytes.
    pub field: usize,
    pub fields: usize,
    /// Request target, bytes.
    pub target: usize,
    /// Connections over all workers.
    pub connections: usize,
    /// `None`: no limit per client address.
    pub connections_per_address: Option<usize>,
    /// Exempt from the limit per address.
    pub trusted_proxies: TrustedProxies,
    /// From the first byte of a head until the service is called.
    pub head_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    /// Between requests. Longer than the 60 seconds for which load balancers keep connections.
    pub idle_timeout: Duration,
    /// How long the service waits for more of a request's body.
    pub body_timeout: Duration,
    /// How long a client may take no bytes of its response.
    pub write_timeout: Duration,
    /// An HTTP/2 client that is silent for this long is pinged, and closed after twice the time.
    pub ping: Duration,
}

impl Limits {
    /// The shortest of all timeouts, which the ticker must resolve.
    pub(super) fn shortest_timeout(&self) -> Duration {
        self.head_timeout
            .min(self.tls_handshake_timeout)
            .min(self.idle_timeout)
            .min(self.body_timeout)
            .min(self.write_timeout)
            .min(self.ping)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 32 << 10,
            field: 16 << 10,
            fields: 200,
            target: 16 << 10,
            connections: 10_000,
            connections_per_address: None,
            trusted_proxies: TrustedProxies::default(),
            head_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            ping: Duration::from_secs(20),
        }
    }
}
