//! The access log: one JSON line per request, formatted into a reused buffer and written by a separate
//! thread. If the target stalls, lines are dropped and counted; workers never block.

mod line;
mod sink;

use std::{
    cell::{Cell, RefCell},
    io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use parking_lot::Mutex;

pub use line::{LogLine, millis};
pub use sink::OpenTarget;

use crate::metrics::Metrics;

/// The target of access log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Off,
    Stdout,
    /// Opened for appending, and again by [`AccessLog::reopen`] after log rotation.
    File(PathBuf),
}

/// Handle of the log thread, shared by the workers. Dropping the last handle waits until the thread has
/// written what it can.
pub struct AccessLog {
    chunks: SyncSender<Chunk>,
    commands: Arc<Mutex<LogCommands>>,
    off: AtomicBool,
    metrics: Arc<Metrics>,
    /// Lines that the thread has yet to write.
    unwritten: Arc<AtomicU64>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

/// What the log thread does before it writes the next chunk.
#[derive(Default)]
struct LogCommands {
    target: Option<OpenTarget>,
    reopen: bool,
}

/// A chunk of complete lines, and the channel that returns its buffer.
struct Chunk {
    text: Vec<u8>,
    lines: u64,
    home: SyncSender<Vec<u8>>,
}

/// One worker's buffer of lines.
pub struct LogWriter {
    log: Arc<AccessLog>,
    text: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    /// A delayed [`LogWriter::flush`] is scheduled.
    flush_scheduled: Cell<bool>,
    home: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
}

/// Lines are handed over once this many bytes are buffered, or after [`FLUSH_INTERVAL`].
const CHUNK: usize = 32 << 10;
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Capacity of the channel to the thread in chunks: 4 MiB for all workers.
const CHANNEL_SIZE: usize = 128;

/// How long to wait at the end for a target that takes nothing, and how often one that takes something.
const END_WAIT: Duration = Duration::from_secs(1);
const MAX_END_WAITS: usize = 5;

impl AccessLog {
    /// Opens the target and starts the thread.
    pub fn start(target: LogTarget, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let (chunks, waiting) = sync_channel::<Chunk>(CHANNEL_SIZE);
        let mut sink = target.open()?;
        let off = AtomicBool::new(sink.is_off());
        let commands = Arc::<Mutex<LogCommands>>::default();
        let (given, counts) = (Arc::clone(&commands), Arc::clone(&metrics));
        let unwritten = Arc::<AtomicU64>::default();
        let left = Arc::clone(&unwritten);
        let (running, ended) = sync_channel(0);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            let _running = running;
            while let Ok(Chunk { mut text, lines, home }) = waiting.recv() {
                let LogCommands { target, reopen } = std::mem::take(&mut *given.lock());
                if let Some(other) = target {
                    sink = other;
                }
                if reopen {
                    sink.reopen();
                }
                counts.log_lines_dropped.add(sink.write(&text) as u64);
                left.fetch_sub(lines, Ordering::Relaxed);
                text.clear();
                // The worker may be gone, or its channel full.
                let _ = home.try_send(text);
            }
        })?;
        Ok(Arc::new(Self { chunks, commands, off, metrics, unwritten, ended: Mutex::new(ended) }))
    }

    /// Reopens the file before the next chunk, after log rotation (SIGHUP).
    pub fn reopen(&self) {
        self.commands.lock().reopen = true;
        self.wake();
    }

    /// Switches to another target before the next chunk.
    pub fn retarget(&self, sink: OpenTarget) {
        self.off.store(sink.is_off(), Ordering::Relaxed);
        *self.commands.lock() = LogCommands { target: Some(sink), reopen: false };
        self.wake();
    }

    /// Sends an empty chunk, so that a command does not wait for requests. A full channel has other chunks.
    fn wake(&self) {
        let _ = self.chunks.try_send(Chunk { text: Vec::new(), lines: 0, home: sync_channel(0).0 });
    }

    /// Returns a new worker's writer.
    pub fn writer(self: &Arc<Self>) -> Rc<LogWriter> {
        let (home, emptied) = sync_channel(4);
        Rc::new(LogWriter {
            log: Arc::clone(self),
            text: RefCell::new(Vec::with_capacity(CHUNK + 4096)),
            lines: Cell::new(0),
            flush_scheduled: Cell::new(false),
            home,
            emptied,
        })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        // The thread ends once every sender is dropped, so drop this one before the wait.
        let (closed, _) = sync_channel(0);
        self.chunks = closed;
        let ended = self.ended.get_mut();
        for _ in 0..MAX_END_WAITS {
            let before = self.unwritten.load(Ordering::Relaxed);
            match ended.recv_timeout(END_WAIT) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.unwritten.load(Ordering::Relaxed) == before => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        // The thread ends with the process.
        let lines = self.unwritten.load(Ordering::Relaxed);
        self.metrics.log_lines_dropped.add(lines);
        tracing::error!(lines, "the access log is not written: lines are lost");
    }
}

impl LogWriter {
    /// Whether a target is configured.
    pub fn is_on(&self) -> bool {
        !self.log.off.load(Ordering::Relaxed)
    }

    /// Buffers a line. Must run on the worker's `LocalSet`.
    pub fn write(self: &Rc<Self>, line: &LogLine<'_>) {
        if !self.is_on() {
            return;
        }
        line.format(&mut self.text.borrow_mut());
        self.lines.set(self.lines.get() + 1);
        if self.text.borrow().len() >= CHUNK {
            self.flush();
        } else if !self.flush_scheduled.replace(true) {
            let writer = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(FLUSH_INTERVAL).await;
                writer.flush_scheduled.set(false);
                writer.flush();
            });
        }
    }

    /// Sends the buffered lines to the thread. Never blocks: if the channel is full, they
    /// are dropped and counted.
    pub fn flush(&self) {
        let mut text = self.text.borrow_mut();
        let lines = self.lines.replace(0);
        if text.is_empty() {
            return;
        }
        let fresh = self.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK + 4096));
        let full = std::mem::replace(&mut *text, fresh);
        // Counted before the thread can have written it.
        self.log.unwritten.fetch_add(lines, Ordering::Relaxed);
        match self.log.chunks.try_send(Chunk { text: full, lines, home: self.home.clone() }) {
            Ok(()) => {}
            Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                self.log.unwritten.fetch_sub(lines, Ordering::Relaxed);
                self.log.metrics.log_lines_dropped.add(lines);
                *text = chunk.text;
                text.clear();
            }
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;
    use crate::authz::time::Timestamp;

    fn line(path: &str) -> LogLine<'_> {
        LogLine {
            at: Timestamp::from_millis(0),
            request_id: "r",
            outcome: "forwarded",
            reason: "ok",
            status: 200,
            method: "GET",
            path,
            service: None,
            token_id: None,
            user: None,
            carrier: None,
            client: [127, 0, 0, 1].into(),
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            duration_ms: 0.0,
            upstream_ms: None,
        }
    }

    /// Runs `work` in a `LocalSet` with a log to `target`. All lines are written when it returns.
    fn with_log(target: &Path, metrics: &Arc<Metrics>, work: impl FnOnce(&AccessLog, &Rc<LogWriter>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let log = AccessLog::start(LogTarget::File(target.to_owned()), Arc::clone(metrics)).expect("a log");
        tokio::task::LocalSet::new().block_on(&runtime, async move { work(&log, &log.writer()) });
    }

    #[test]
    fn log_lines_follow_a_retarget() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        with_log(&at("log"), &Metrics::new(Arc::default()), |log, writer| {
            let write = |path: &str| {
                writer.write(&line(path));
                writer.flush();
                // The buffer comes back once the thread has written the chunk.
                let emptied = writer.emptied.recv().expect("the thread runs");
                writer.home.send(emptied).expect("there is room");
            };
            write("/first");
            std::fs::rename(at("log"), at("moved")).expect("moved");
            write("/second");
            log.reopen();
            write("/third");
            log.retarget(LogTarget::File(at("other")).open().expect("opened"));
            write("/fourth");
            log.retarget(LogTarget::Off.open().expect("off"));
            writer.write(&line("/fifth"));
        });
        let check = |name: &str, expected: &[&str]| {
            let text = std::fs::read_to_string(at(name)).expect("written");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), expected.len(), "{name}: {text}");
            assert!(lines.iter().zip(expected).all(|(line, path)| line.contains(path)), "{name}: {text}");
        };
        check("moved", &["/first", "/second"]);
        check("log", &["/third"]);
        check("other", &["/fourth"]);
    }

    #[test]
    fn commands_do_not_wait_for_requests() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let (read_to_end, closed) = sync_channel(1);
        let target = LogTarget::File(pipe.clone());
        std::thread::spawn(move || read_to_end.send(std::fs::read(pipe)));
        // Fails until the pipe has a reader.
        let opened = std::iter::repeat_with(|| target.clone().open()).find_map(Result::ok);
        let log = AccessLog::start(target, Metrics::new(Arc::default())).expect("a log");
        drop(opened);
        log.retarget(LogTarget::Off.open().expect("off"));
        closed.recv_timeout(Duration::from_secs(10)).expect("the pipe is closed").expect("read");

        let file = directory.path().join("log");
        log.retarget(LogTarget::File(file.clone()).open().expect("opened"));
        std::fs::rename(&file, directory.path().join("moved")).expect("moved");
        log.reopen();
        // Joins the thread.
        drop(log);
        assert!(file.exists(), "a file is created again");
    }

    #[test]
    fn stalled_log_sink_drops_lines_without_blocking() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        // Opened for reading and writing, so that no open blocks. Nothing reads yet.
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("opened");
        let metrics = Metrics::new(Arc::default());
        with_log(&pipe, &metrics, |_, writer| {
            let long = "x".repeat(10_000);
            for _ in 0..1000 {
                writer.write(&line(&long));
            }
            assert!(metrics.log_lines_dropped.value() > 0, "10 MB fit nowhere");
            // Drains the pipe so that the thread can end.
            let mut reader = reader;
            std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        });
    }

    #[test]
    fn stalled_log_sink_does_not_keep_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("opened");
        let (metrics, (ended, over)) = (Metrics::new(Arc::default()), sync_channel(1));
        let counts = Arc::clone(&metrics);
        std::thread::spawn(move || {
            with_log(&pipe, &counts, |_, writer| {
                let long = "x".repeat(10_000);
                (0..100).for_each(|_| writer.write(&line(&long)));
            });
            ended.send(())
        });
        over.recv_timeout(Duration::from_secs(10)).expect("the log does not wait for its reader");
        assert!(metrics.log_lines_dropped.value() > 80, "1 MB does not fit into a pipe");
    }
}
