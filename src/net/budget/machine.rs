//! What this process has of the machine: descriptors and memory.

use std::{fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What budgets follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The limit of open files.
    pub files: usize,
    /// Bytes: what the machine has, or the process's control group.
    pub memory: usize,
}

/// Where the memory cannot be read.
const MODEST: usize = 1 << 30;

impl Machine {
    /// As it is for a server: the soft limit of open files is the hard one, as [`Machine::raised`] makes it.
    pub fn read() -> Self {
        let limit = getrlimit(Resource::Nofile);
        Self { files: number(limit.maximum), memory: memory() }
    }

    /// Raises the process's soft limit of open files to the hard one.
    pub fn raised() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let files = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        Self { files: number(files), memory: memory() }
    }
}

fn number(limit: Option<u64>) -> usize {
    limit.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

fn memory() -> usize {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let groups = read(Path::new("/proc/self/cgroup"));
    let of_groups = group_files(&groups).filter_map(|path| read(Path::new(&path)).trim().parse().ok());
    let machine = total(&read(Path::new("/proc/meminfo")));
    machine.into_iter().chain(of_groups).min().unwrap_or(MODEST)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Where the limits of the process's control groups stand, by /proc/self/cgroup: its own and those of every
/// group around it, in version 2 and in version 1.
fn group_files(groups: &str) -> impl Iterator<Item = String> {
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
    fn memory_is_read_in_every_form() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24000 kB\n"), Some(24_000 << 10));
        assert_eq!(total(""), None);
        let files = |groups: &str| group_files(groups).collect::<Vec<_>>();
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
