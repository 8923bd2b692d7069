//! The keys of `[server.budgets]`, which all clients of the proxy share.

use crate::config::key::{Key, count, size};

pub(super) const BUDGETS: &[Key] = &[
    count("upstream_connections", 2, 10_000_000, "Sockets to upstreams; 503 beyond."),
    count("streams", 16, 10_000_000, "Open HTTP/2 streams; 503 beyond."),
    count("tunnels", 1, 10_000_000, "WebSockets and other upgraded connections; 503 beyond."),
    size(
        "send_buffers",
        "Answers that clients have not taken yet. Above half of it, clients that take less than 1 KiB/s are cut; above all of it, those that hold the most.",
    ),
    size(
        "receive_buffers",
        "What HTTP/2 clients may send before it is read, 1 MiB for each; beyond, 64 KiB for each.",
    ),
];
