//! The file descriptors and the memory that this process may use.

use std::{fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
