//! The keys of `[server.budgets]`, which all clients of the proxy share.

use crate::config::key::{Key, count, size};

pub(super) const BUDGETS: &[Key] = &[
    count("upstream_connections", 2, 10_000_000, "Sockets to upstreams; 503 beyond."),
    count("streams", 16, 10_000_000, "Open HTTP/2 streams; 503 beyond."),
    count("tunnels", 1, 10_000_000, "WebSockets and other upgraded connections; 503 beyond."),
    size(
        "send_buffers",
        "Response bytes that clients have not read. Above half, clients slower than 1 KiB/s are cut; when full, those that hold the most.",
    ),
    size(
        "receive_buffers",
        "How much HTTP/2 clients may send ahead of reading: 1 MiB each; 64 KiB each when used up.",
    ),
];
