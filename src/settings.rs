//! The proxy's settings besides the rules: upstreams, limits, token exchange and forward-auth. They are
//! published with the rules in one snapshot, so that both change at once. `config` builds them, `proxy`
//! applies them.

pub mod tls;
mod upstream;
mod url;

use std::{collections::HashMap, fmt, num::NonZeroU32, sync::Arc, time::Duration};

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::authz::{rules::ServiceKey, subject::Access};

pub use self::{
    tls::{AUTHORITY_AS_SERVER, NoSystemRoots, SystemRoots, Trust, UpstreamTls, parse_name},
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

/// `[exchange.NAME]`.
#[derive(Clone, Debug)]
pub struct ExchangeRule {
    pub name: String,
    /// The claim `iss`, and where the provider's metadata is found.
    pub issuer: String,
    /// The value that the claim `aud` must contain.
    pub audience: String,
    /// Claims with their exact values; at least one.
    pub claims: Vec<(String, String)>,
    /// The login of the service account that owns the tokens.
    pub account: String,
    pub scope: Vec<(String, Access)>,
    /// At most [`MAX_EXCHANGED_LIFETIME`].
    pub lifetime: Duration,
    /// How many tokens may be live at one time.
    pub max_tokens: usize,
    /// `None`: the provider is on this machine, reached in clear text.
    pub tls: Option<UpstreamTls>,
}

/// The longest lifetime of an exchanged token.
pub const MAX_EXCHANGED_LIFETIME: Duration = Duration::from_secs(3600);

/// The prefix of an exchanged token's author, before the rule's name.
const AUTHOR_PREFIX: &str = "exchange:";

impl ExchangeRule {
    /// Returns the author of the rule's tokens. It depends on what the rule grants and to whom, so that
    /// tokens of an earlier version of the rule end with that version.
    pub fn author(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("permgate 2026-11 exchange rule");
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        [&self.name, &self.issuer, &self.audience, &self.account].into_iter().for_each(|text| add(text));
        for (name, value) in &self.claims {
            add(name);
            add(value);
        }
        for (service, access) in &self.scope {
            add(service);
            add(access.word());
        }
        add(&self.lifetime.as_secs().to_string());
        let digest = hasher.finalize().to_hex();
        format!("{AUTHOR_PREFIX}{}:{}", self.name, &digest[..16])
    }

    /// Whether the author is an exchange rule.
    pub fn is_author(author: &str) -> bool {
        author.starts_with(AUTHOR_PREFIX)
    }
}

/// A limit as configured: a rate, a concurrency limit, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub per: LimitKey,
    pub rate: Option<Rate>,
    /// How many requests may be in progress at one time.
    pub concurrent: Option<NonZeroU32>,
    /// The queue for the concurrency limit.
    pub queue: Queue,
}

/// How many requests of one key may wait for the concurrency limit, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// 0: no request waits.
    pub length: usize,
    pub timeout: Duration,
}

/// What a limit counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, EnumString, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum LimitKey {
    Token,
    User,
    /// IPv6: a /64.
    Address,
    Service,
}

/// `count` requests per `window`, and up to `burst` at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub count: NonZeroU32,
    pub window: Duration,
    pub burst: NonZeroU32,
}

/// All limits of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Limits with one count over all services.
    pub everywhere: Vec<Limit>,
    pub services: HashMap<ServiceKey, Vec<Limit>>,
}

impl Queue {
    pub const NONE: Self = Self { length: 0, timeout: Duration::ZERO };
}

impl LimitKey {
    /// Returns the name in the configuration.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// As in the configuration: `100/s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.count)?;
        match self.window.as_millis() {
            1_000 => f.write_str("s"),
            60_000 => f.write_str("m"),
            3_600_000 => f.write_str("h"),
            86_400_000 => f.write_str("d"),
            millis if millis.is_multiple_of(1000) => write!(f, "{}s", millis / 1000),
            millis => write!(f, "{millis}ms"),
        }
    }
}
