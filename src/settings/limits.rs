//! Rate limits, quotas and concurrency limits as configured. `proxy` counts.

use std::{collections::HashMap, fmt, num::NonZeroU32, time::Duration};

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::authz::rules::ServiceKey;

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
