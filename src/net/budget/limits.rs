//! The sizes of the budgets: as configured, or derived from file descriptors and memory.

use super::Machine;

/// The size of each budget: bytes for buffers and bodies, otherwise a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// The machine that the sizes are derived from.
    pub machine: Machine,
    pub connections: usize,
    pub upstream_connections: usize,
    pub streams: usize,
    pub tunnels: usize,
    pub send_buffers: usize,
    pub receive_buffers: usize,
    /// Connections of the admin listener, which the proxy's clients cannot use up.
    pub admin_connections: usize,
    /// Request bodies to the admin listener that are buffered in memory.
    pub bodies: usize,
}

/// Descriptors for the store, the logs, name lookups, and other files that are opened now and then.
const RESERVED_FILES: usize = 64;
/// Descriptors that each worker needs for its runtime and its listeners.
const FILES_PER_WORKER: usize = 8;

/// Estimated peak memory of each, in bytes: hyper's buffers, TLS state, the request.
const CONNECTION_BYTES: usize = 80 << 10;
const STREAM_BYTES: usize = 32 << 10;
const UPSTREAM_CONNECTION_BYTES: usize = 32 << 10;
const TUNNEL_BYTES: usize = 32 << 10;
/// Per connection of the admin listener. A browser has at most a dozen requests in flight.
const ADMIN_STREAMS_PER_CONNECTION: usize = 16;
const ADMIN_BUFFER_BYTES: usize = 1 << 20;
/// The program, threads and an empty store.
const BASE_BYTES: usize = 96 << 20;

impl BudgetLimits {
    /// Derives the sizes from the machine for this many workers. `admin_connections`: the configured value.
    pub fn new(machine: Machine, workers: usize, admin_connections: Option<usize>) -> Self {
        let Machine { files, memory } = machine;
        let admin_connections = admin_connections.unwrap_or((files / 16).clamp(8, 256));
        let own = RESERVED_FILES + FILES_PER_WORKER.saturating_mul(workers) + admin_connections;
        let clients = (files.saturating_sub(own) / 2).max(1);
        Self {
            machine,
            connections: clients,
            upstream_connections: files.saturating_sub(own + clients).max(1),
            streams: (memory >> 20).clamp(256, 1 << 16),
            tunnels: (clients - clients / 8).min(memory / 8 / TUNNEL_BYTES).max(1),
            send_buffers: memory / 4,
            receive_buffers: memory / 16,
            admin_connections,
            bodies: (memory / 64).clamp(16 << 20, 256 << 20),
        }
    }

    /// Returns the budgets of the admin listener's clients.
    #[must_use]
    pub fn for_admin(&self) -> Self {
        let connections = self.admin_connections;
        Self {
            connections,
            upstream_connections: 0,
            streams: connections * ADMIN_STREAMS_PER_CONNECTION,
            tunnels: 0,
            send_buffers: connections * ADMIN_BUFFER_BYTES,
            receive_buffers: connections * ADMIN_BUFFER_BYTES,
            ..self.clone()
        }
    }

    /// How many of the admin listener's connections are reserved for unix sockets.
    pub fn unix_connections(&self) -> usize {
        self.admin_connections.div_ceil(4)
    }

    /// Estimates the bytes that everything together may take, except the store.
    pub fn memory(&self) -> usize {
        [
            BASE_BYTES,
            self.connections.saturating_mul(CONNECTION_BYTES),
            self.admin_connections.saturating_mul(CONNECTION_BYTES + 2 * ADMIN_BUFFER_BYTES),
            // Each stream, tunnel and connection uses at most one upstream connection.
            self.upstream_connections
                .min(self.connections + self.streams)
                .saturating_mul(UPSTREAM_CONNECTION_BYTES),
            self.streams.saturating_mul(STREAM_BYTES),
            self.tunnels.saturating_mul(TUNNEL_BYTES),
            self.send_buffers,
            self.receive_buffers,
            self.bodies,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_never_exceed_the_file_limit() {
        for files in [64, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            for workers in [1, 2, 64] {
                let limits = BudgetLimits::new(Machine { files, memory: 4 << 30 }, workers, None);
                let parts = [limits.connections, limits.upstream_connections, limits.admin_connections];
                let own = RESERVED_FILES + FILES_PER_WORKER * workers;
                let all = parts.into_iter().fold(own, usize::saturating_add);
                assert!(all <= files || files <= own + 16, "{files} files, {workers} workers: {limits:?}");
                assert!(parts.into_iter().all(|part| part > 0), "{limits:?}");
                assert!(limits.unix_connections() < limits.admin_connections);
            }
        }
        let limits = BudgetLimits::new(Machine { files: 1024, memory: 1 << 30 }, 2, None);
        assert_eq!(
            (limits.connections, limits.upstream_connections, limits.admin_connections),
            (440, 440, 64)
        );
        assert_eq!(limits.streams, 1024);
    }
}
