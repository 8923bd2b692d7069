//! The access log: one JSON line for each request, formatted into a buffer that is used again and
//! written by a thread of its own. A sink that stalls loses lines, counted; it never holds a worker.

mod line;
mod sink;

use std::{
    cell::{Cell, RefCell},
    io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use line::Line;

use crate::metrics::Metrics;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Off,
    Stdout,
    /// Appended to; opened again on [`AccessLog::reopen`], after the file was moved away.
    File(PathBuf),
}

/// The log's thread; shared by the workers. Dropping the last handle writes what is left.
pub struct AccessLog {
    chunks: SyncSender<Chunk>,
    reopen: Arc<AtomicBool>,
    off: bool,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<()>>,
}

/// Whole lines, and where the emptied buffer goes back to.
struct Chunk {
    text: Vec<u8>,
    home: SyncSender<Vec<u8>>,
}

/// One worker's end.
pub struct LogWriter {
    log: Arc<AccessLog>,
    text: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    stamp: RefCell<line::Stamp>,
    /// A hand-over is planned.
    planned: Cell<bool>,
    home: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
}

/// Handed over when so much is there, or after [`LATEST`].
const CHUNK: usize = 32 << 10;
const LATEST: Duration = Duration::from_millis(100);

/// Chunks that may wait for the thread: 4 MiB with all workers.
const WAITING: usize = 128;

impl AccessLog {
    /// Opens the target and starts the thread.
    pub fn start(target: LogTarget, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let (chunks, waiting) = sync_channel::<Chunk>(WAITING);
        let reopen = Arc::new(AtomicBool::new(false));
        let off = target == LogTarget::Off;
        let mut sink = sink::Sink::open(target)?;
        let asked = Arc::clone(&reopen);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            while let Ok(Chunk { mut text, home }) = waiting.recv() {
                if asked.swap(false, Ordering::AcqRel) {
                    sink.reopen();
                }
                sink.write(&text);
                text.clear();
                // The worker may have gone or have buffers enough.
                let _ = home.try_send(text);
            }
        })?;
        Ok(Arc::new(Self { chunks, reopen, off, metrics, thread: Some(thread) }))
    }

    /// Before the next lines: SIGHUP, after the file was moved away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// A worker's writer.
    pub fn writer(self: &Arc<Self>) -> Rc<LogWriter> {
        let (home, emptied) = sync_channel(4);
        Rc::new(LogWriter {
            log: Arc::clone(self),
            text: RefCell::new(Vec::with_capacity(CHUNK + 4096)),
            lines: Cell::new(0),
            stamp: RefCell::default(),
            planned: Cell::new(false),
            home,
            emptied,
        })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        // The thread ends when nobody can send any more; the real sender has to go first.
        let (closed, _) = sync_channel(0);
        self.chunks = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl LogWriter {
    /// Inside the worker's `LocalSet`.
    pub fn write(self: &Rc<Self>, line: &Line<'_>) {
        if self.log.off {
            return;
        }
        line.format(&mut self.text.borrow_mut(), &mut self.stamp.borrow_mut());
        self.lines.set(self.lines.get() + 1);
        if self.text.borrow().len() >= CHUNK {
            self.hand_over();
        } else if !self.planned.replace(true) {
            let writer = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LATEST).await;
                writer.planned.set(false);
                writer.hand_over();
            });
        }
    }

    /// Never waits: lines that the thread has no room for are counted and dropped.
    pub fn hand_over(&self) {
        let mut text = self.text.borrow_mut();
        let lines = self.lines.replace(0);
        if text.is_empty() {
            return;
        }
        let fresh = self.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK + 4096));
        let full = std::mem::replace(&mut *text, fresh);
        match self.log.chunks.try_send(Chunk { text: full, home: self.home.clone() }) {
            Ok(()) => {}
            Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                self.log.metrics.log_lines_dropped.add(lines);
                *text = chunk.text;
                text.clear();
            }
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.hand_over();
    }
}
