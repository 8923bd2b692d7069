//! What the proxy reads beside the rules; published with them as the snapshot's attachment, so
//! that both change at one instant.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use crate::proxy::{builtin::FrontProxy, limits::Limits, upstream::settings::UpstreamSettings};

#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// By name; every service's is there.
    pub upstreams: HashMap<Arc<str>, Arc<UpstreamSettings>>,
    /// Bytes of a request's body; a service's own limit goes before. `None`: no limit.
    pub max_body: Option<u64>,
    /// `None`: nobody is counted.
    pub bad_tokens: Option<BadTokenLimit>,
    pub limits: Limits,
    /// The proxy that asks for decisions; `None`: nobody may ask.
    pub forward_auth: Option<FrontProxy>,
}

/// From one address (IPv6: one /64) no more than so many bad tokens in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTokenLimit {
    pub count: NonZeroU32,
    pub window: Duration,
}
