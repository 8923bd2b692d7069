//! The keys of `[server.budgets]`, which all clients of the proxy share.

use crate::config::key::{Key, ValueKind, key};

pub(super) const BUDGETS: &[Key] = &[
    key("upstream_connections", ValueKind::Count(2, 10_000_000), "Sockets to upstreams; 503 beyond."),
    key("streams", ValueKind::Count(16, 10_000_000), "Open HTTP/2 streams; 503 beyond."),
    key("tunnels", ValueKind::Count(1, 10_000_000), "WebSockets and other upgraded connections; 503 beyond."),
    key(
        "send_buffers",
        ValueKind::Size,
        "Answers that clients have not taken yet. Above half of it, clients that take less than 1 KiB/s are cut; above all of it, those that hold the most.",
    ),
    key(
        "receive_buffers",
        ValueKind::Size,
        "What HTTP/2 clients may send before it is read, 1 MiB for each; beyond, 64 KiB for each.",
    ),
];
