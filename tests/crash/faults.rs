//! Real faults from the kernel: a traced system call, a small disk. Where the machine does not permit them, a
//! test prints that it is skipped; with `PERMGATE_CI=1` it fails instead.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
};

/// strace attached to a process; detaches when dropped.
pub struct Tracer {
    strace: Child,
    /// Kept open while strace runs, because it writes when it detaches.
    _words: BufReader<ChildStderr>,
}

/// A small file system; unmounted when dropped.
pub struct SmallDisk<'a>(&'a Path);

impl Tracer {
    /// Attaches strace with these arguments. A thread may complete its current call
    /// untraced. `None`: tracing is not permitted here.
    pub fn attach(arguments: &[&str], target: u32) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(arguments).args(["-o", "/dev/null", "-p", &target.to_string()]);
        let spawned = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut strace) = spawned else {
            skipped("strace is not installed");
            return None;
        };
        let mut line = String::new();
        let mut words = BufReader::new(strace.stderr.take().unwrap());
        words.read_line(&mut line).unwrap();
        let tracer = Self { strace, _words: words };
        if line.contains("attached") {
            return Some(tracer);
        }
        skipped(&format!("strace may not attach here: {}", line.trim()));
        None
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // SIGTERM makes strace detach; otherwise it would leave the process stopped.
        let id = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
    }
}

impl<'a> SmallDisk<'a> {
    /// `None`: mounting is not permitted here.
    pub fn mount(at: &'a Path, size: &str) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        match command.output() {
            Ok(output) if output.status.success() => Some(Self(at)),
            output => {
                println!("skipped: a small disk cannot be mounted here: {output:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// Runs a command with a fault that strace injects into its system calls. Returns its status, and the largest
/// number of `calls` that one of its threads made. `None`: tracing is not permitted here.
pub fn with_fault(calls: &str, fault: &str, command: &Command) -> Option<(ExitStatus, usize)> {
    let log = tempfile::NamedTempFile::new().unwrap();
    // A command that hangs after the fault is killed.
    let mut strace = Command::new("timeout");
    strace.args([
        "--kill-after=1",
        "60",
        "strace",
        "-f",
        "-qq",
        "-e",
        "signal=none",
        "-e",
        &format!("trace={calls}"),
    ]);
    if !fault.is_empty() {
        strace.args(["-e", &format!("inject={calls}:{fault}")]);
    }
    strace.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    strace.arg("-o").arg(log.path()).arg("--").arg(command.get_program()).args(command.get_args());
    let output = strace.stdin(Stdio::null()).env_remove("PERMGATE_TOKEN").env_remove("PERMGATE_LOG").output();
    let Ok(output) = output else {
        skipped("timeout is not installed");
        return None;
    };
    assert_ne!(output.status.code(), Some(124), "it hung: {fault}: {command:?}");
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("failed to run command") || words.to_lowercase().contains("ptrace") {
        skipped(&format!("strace may not trace here: {words}"));
        return None;
    }
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(log.path()).unwrap().lines() {
        let thread = line.split(' ').next().unwrap_or_default();
        *calls.entry(thread.to_owned()).or_default() += usize::from(!line.contains("resumed>"));
    }
    Some((output.status, calls.into_values().max().unwrap_or_default()))
}

/// Prints why a test is skipped; with `PERMGATE_CI=1` it fails instead.
fn skipped(why: &str) {
    assert!(std::env::var("PERMGATE_CI").as_deref() != Ok("1"), "PERMGATE_CI=1, but {why}");
    println!("skipped: {why}");
}
