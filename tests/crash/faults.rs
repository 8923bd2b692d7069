//! Faults that the kernel makes for real: a traced system call, a small disk. Where this machine
//! does not permit them a test is skipped, aloud, but not where `PERMGATE_CI=1` says that it must
//! not be.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

/// strace on a process; it lets go when it is dropped.
pub struct Tracer {
    strace: Child,
    /// Open as long as it runs, so that it can say its farewell.
    _words: BufReader<ChildStderr>,
}

/// A small file system; unmounted when it is dropped.
pub struct SmallDisk<'a>(&'a Path);

impl Tracer {
    /// Attaches with these arguments; a thread may still end the call that it is in untraced. `None`
    /// where it may not.
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
        // SIGTERM, so that it detaches and does not leave its process stopped.
        let id = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
    }
}

impl<'a> SmallDisk<'a> {
    /// `None` where nothing may be mounted.
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

/// What a skipped test says; with `PERMGATE_CI=1` it fails instead.
fn skipped(why: &str) {
    assert!(std::env::var("PERMGATE_CI").as_deref() != Ok("1"), "PERMGATE_CI=1, but {why}");
    println!("skipped: {why}");
}
