//! Changes per second that the journal alone makes durable, for callers who each wait for their change, with
//! one writer that commits them in batches:
//! `cargo bench --bench journal -- [--seconds N] [--callers N] [--dir PATH]`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, SyncSender},
    time::{Duration, Instant},
};

use permgate::store::log::{
    Head, Log as _, StoreId,
    files::OsDirectory,
    journal::{FILE_SIZE, Journal},
};

/// About the size of a new token with its audit event.
const OPERATION: [u8; 500] = [7; 500];

type Call = SyncSender<()>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).expect("something behind the option").as_str())
    };
    let number = |name: &str, default: u64| option(name).map_or(default, |text| text.parse().unwrap());
    let (callers, span) = (number("--callers", 16), Duration::from_secs(number("--seconds", 5)));
    let within = option("--dir").map_or_else(std::env::temp_dir, PathBuf::from);

    let dir = tempfile::tempdir_in(&within).unwrap();
    println!(
        "{}: {:.0} bare writes of 4 KiB with fdatasync a second",
        within.display(),
        baseline(dir.path())
    );
    let directory = Box::new(OsDirectory::new(dir.path()));
    let store = StoreId([7; 16]);
    let journal = Journal::create(directory.clone(), store, Head::EMPTY, FILE_SIZE).unwrap();
    let (queue, calls) = mpsc::sync_channel::<Call>(usize::try_from(callers).unwrap());
    let writer = std::thread::spawn(move || write(journal, &calls));
    let end = Instant::now() + span;
    let mut waits: Vec<Duration> = std::thread::scope(|scope| {
        let calling: Vec<_> = (0..callers).map(|_| scope.spawn(|| call(&queue, end))).collect();
        calling.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    drop(queue);
    let (batches, longest) = writer.join().unwrap();
    waits.sort_unstable();
    let at = |part: usize| waits[(waits.len() - 1) * part / 1000];
    println!(
        "{callers} callers: {:.0} durable changes a second in {:.0} batches; wait p50 {:?} p99 {:?} p99.9 {:?}; longest append {longest:?}",
        waits.len() as f64 / span.as_secs_f64(),
        batches as f64 / span.as_secs_f64(),
        at(500),
        at(990),
        at(999),
    );
    let started = Instant::now();
    let (journal, recovery) = Journal::open(directory, store, FILE_SIZE).unwrap();
    println!("opened {} entries in {:?}: {recovery:?}", journal.head().unwrap().position, started.elapsed());
}

fn call(queue: &SyncSender<Call>, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    while Instant::now() < end {
        let asked = Instant::now();
        let (answer, answered) = mpsc::sync_channel(1);
        queue.send(answer).unwrap();
        answered.recv().unwrap();
        waits.push(asked.elapsed());
    }
    waits
}

/// Writes all waiting calls as one batch, repeatedly. Returns the number of batches and the longest append.
fn write(mut journal: Journal, calls: &Receiver<Call>) -> (u64, Duration) {
    let (mut head, mut batches, mut longest) = (Head::EMPTY, 0, Duration::ZERO);
    while let Ok(first) = calls.recv() {
        let waiting: Vec<Call> = std::iter::once(first).chain(calls.try_iter()).collect();
        let started = Instant::now();
        head = journal.append(head, &OPERATION.repeat(waiting.len())).unwrap();
        longest = longest.max(started.elapsed());
        batches += 1;
        waiting.into_iter().for_each(|call| call.send(()).unwrap());
    }
    journal.sync().unwrap();
    drop(journal);
    (batches, longest)
}

fn baseline(dir: &Path) -> f64 {
    let file = File::create(dir.join("bare")).unwrap();
    file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let started = Instant::now();
    for at in 0..1000 {
        file.write_all_at(&[2; 4096], at % 1024 * 4096).unwrap();
        file.sync_data().unwrap();
    }
    1000.0 / started.elapsed().as_secs_f64()
}
