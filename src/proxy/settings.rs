//! The proxy's settings beside the rules, published with them in one snapshot, so that both change at
//! once.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use crate::proxy::{builtin::FrontProxy, limits::Limits, upstream::settings::UpstreamSettings};

#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// By name. Contains the upstream of every service.
    pub upstreams: HashMap<Arc<str>, Arc<UpstreamSettings>>,
    /// The limit of a request's body in bytes, unless a service has its own. `None`: no limit.
    pub max_body: Option<u64>,
    /// `None`: bad tokens are not counted.
    pub bad_tokens: Option<BadTokenLimit>,
    pub limits: Limits,
    /// The proxy that asks for decisions; `None`: nobody may ask.
    pub forward_auth: Option<FrontProxy>,
}

/// How many bad tokens an address (IPv6: a /64) may send in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTokenLimit {
    pub count: NonZeroU32,
    pub window: Duration,
}
