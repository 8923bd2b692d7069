//! The sizes of the budgets: as configured, or derived from file descriptors and memory.

use std::{fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// The machine limits from which budgets are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The limit on open files.
    pub files: usize,
    /// Bytes: the machine's memory, or the limit of the process's control group if that is lower.
    pub memory: usize,
}

/// Bytes that are assumed if the memory cannot be read.
const FALLBACK_MEMORY: usize = 1 << 30;

impl Machine {
    /// Reads the limits without changing them: `files` is the hard limit, to which
    /// [`Machine::with_raised_file_limit`] raises the soft one.
    pub fn read() -> Self {
        let limit = getrlimit(Resource::Nofile);
        Self { files: to_usize(limit.maximum), memory: memory() }
    }

    /// Raises the process's soft limit on open files to the hard limit, and reads the limits.
    pub fn with_raised_file_limit() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let files = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        Self { files: to_usize(files), memory: memory() }
    }
}

fn to_usize(limit: Option<u64>) -> usize {
    limit.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

fn memory() -> usize {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let groups = read(Path::new("/proc/self/cgroup"));
    let of_groups = cgroup_limit_files(&groups).filter_map(|path| read(Path::new(&path)).trim().parse().ok());
    let machine = total_memory(&read(Path::new("/proc/meminfo")));
    machine.into_iter().chain(of_groups).min().unwrap_or(FALLBACK_MEMORY)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total_memory(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Returns the memory limit files of the control groups in /proc/self/cgroup, versions 1 and 2: those of the
/// process's own group and of all its ancestors.
fn cgroup_limit_files(groups: &str) -> impl Iterator<Item = String> {
    groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (kind, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let found = match kind {
            "" => Some(("/sys/fs/cgroup", "memory.max")),
            kind if kind.split(',').any(|one| one == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))
            }
            _ => None,
        };
        let around = Path::new(path).ancestors().map(|group| group.display().to_string());
        let around: Vec<_> = around.map(|group| group.trim_end_matches('/').to_owned()).collect();
        found.into_iter().flat_map(move |(root, file)| {
            around.clone().into_iter().map(move |group| format!("{root}{group}/{file}"))
        })
    })
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
            }
        }
        let limits = BudgetLimits::new(Machine { files: 1024, memory: 1 << 30 }, 2, None);
        assert_eq!(
            (limits.connections, limits.upstream_connections, limits.admin_connections),
            (440, 440, 64)
        );
        assert_eq!(limits.streams, 1024);
    }

    #[test]
    fn memory_limit_is_read_from_every_source() {
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:       24000 kB\n"), Some(24_000 << 10));
        assert_eq!(total_memory(""), None);
        let files = |groups: &str| cgroup_limit_files(groups).collect::<Vec<_>>();
        assert_eq!(
            files("0::/system.slice/permgate.service\n"),
            [
                "/sys/fs/cgroup/system.slice/permgate.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            files("5:cpu,memory:/a\n4:pids:/a\n"),
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert!(Machine::read().memory > 1 << 20);
    }
}
