//! The proxy's settings besides the rules: upstreams, limits and forward-auth. They are published with the
//! rules in one snapshot, so that both change at once. `config` builds them, `proxy` applies them.

mod exchange;
mod limits;
pub mod tls;
mod upstream;
mod url;

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use strum::{EnumString, VariantNames};

pub use self::{
    exchange::{ExchangeRule, MAX_LIFETIME as MAX_EXCHANGED_LIFETIME},
    limits::{Limit, LimitKey, Limits, Queue, Rate},
    tls::{AUTHORITY_AS_SERVER, NoSystemRoots, SystemRoots, TlsParts, Trust, UpstreamTls, parse_name},
    upstream::{Balance, Ejection, Health, HttpVersion, UpstreamSettings, WeightedUrl},
    url::{Host, MAX_SOCKET_PATH, Scheme, UpstreamUrl, UrlError},
};

#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    /// By name. Contains the upstream of every service.
    pub upstreams: HashMap<Arc<str>, Arc<UpstreamSettings>>,
    /// The limit on a request's body in bytes, unless a service has its own. `None`: no limit.
    pub max_body: Option<u64>,
    /// `None`: bad tokens are not counted.
    pub bad_tokens: Option<BadTokenLimit>,
    pub limits: Limits,
    /// The proxy that may request decisions; `None`: none may.
    pub forward_auth: Option<FrontProxy>,
    /// Whether tokens may replace themselves.
    pub self_rotation: bool,
    /// How long before a token's expiry responses announce it. `None`: they never do.
    pub announce_end: Option<Duration>,
    /// In the order of the configuration.
    pub exchange: Vec<Arc<ExchangeRule>>,
}

/// How many bad tokens an address (IPv6: a /64) may send per window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTokenLimit {
    pub count: NonZeroU32,
    pub window: Duration,
}

/// The proxy that requests decisions. Each kind passes on the original request in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum FrontProxy {
    /// `auth_request`: X-Original-Method and X-Original-URI with the client's own Host, or X-Original-URL,
    /// which contains the host.
    Nginx,
    /// `ForwardAuth`: X-Forwarded-Method, -Host and -Uri.
    Traefik,
    /// `forward_auth`: like Traefik.
    Caddy,
    /// `ext_authz` over HTTP: the request's own method and Host, and its target appended to the path.
    Envoy,
}
