//! Crash states of the journal: after any kill, failed sync or power cut it opens again, with everything
//! that was acknowledged, and nothing else but a batch whose outcome was unclear. `PERMGATE_CRASH_STATES`
//! sets how many lives of a journal are tried.

use super::*;

/// What the journal has promised so far.
#[derive(Default)]
struct Promise {
    created: bool,
    /// Every acknowledged entry: hash and operations. The first has position 1.
    acknowledged: Vec<(EntryHash, Vec<u8>)>,
    /// The one append whose outcome is open.
    unclear: Option<(EntryHash, Vec<u8>)>,
    /// Entries below this position may be gone.
    trimmed: u64,
}

/// How often the simulation met the cases that it is made for.
#[derive(Default, Debug)]
struct Seen {
    dropped: usize,
    unclear_kept: usize,
    slots: usize,
    opened: usize,
    refusals: usize,
    cut_while_opening: usize,
    files: usize,
}

impl Promise {
    fn head(&self) -> Head {
        let hash = self.acknowledged.last().map_or(EntryHash::NONE, |last| last.0);
        Head { position: self.acknowledged.len() as u64, hash }
    }

    /// Checks an opened journal against the promise. What it shows is promised from now on.
    fn check(&mut self, log: &Journal, seen: &mut Seen, random: &mut Random) -> Result<(), String> {
        let first = log.first().map_err(|e| e.to_string())?;
        if first > self.trimmed.max(1) {
            return Err(format!("begins at {first}, trimmed below {}", self.trimmed));
        }
        let bytes = [1, 9_000, usize::MAX][random.below(3)];
        let entries = read_all(log, bytes).map_err(|e| e.to_string())?;
        let head = log.head().map_err(|e| e.to_string())?;
        if entries.last().is_some_and(|last| last.head() != head)
            || head.position + 1 != first + entries.len() as u64
        {
            return Err(format!("the head is {}, {} entries from {first}", head.position, entries.len()));
        }
        if head.position < self.head().position {
            return Err(format!("LOST: {} of {} positions are left", head.position, self.head().position));
        }
        if let Some(unclear) = self.unclear.take()
            && head.position == self.head().position + 1
        {
            self.acknowledged.push(unclear);
            seen.unclear_kept += 1;
        }
        if head != self.head() {
            return Err(format!("RESURRECTED OR ALTERED: head {head:?} instead of {:?}", self.head()));
        }
        for entry in entries {
            let (hash, operations) = &self.acknowledged[entry.position as usize - 1];
            if entry.hash != *hash || entry.operations != *operations {
                return Err(format!("ALTERED: position {}", entry.position));
            }
        }
        Ok(())
    }

    /// Opens the journal, or creates it if it never was. `None` if the power was cut or a sync failed
    /// meanwhile.
    fn open(&mut self, disk: &Disk, seen: &mut Seen, random: &mut Random) -> Result<Option<Journal>, String> {
        match super::open(disk) {
            Ok((log, recovery)) => {
                self.created = true;
                seen.opened += 1;
                seen.dropped += usize::from(recovery.dropped.is_some());
                seen.slots += usize::from(recovery.unreadable_slot.is_some());
                match self.check(&log, seen, random) {
                    Ok(()) => Ok(Some(log)),
                    Err(_) if disk.is_off() => Ok(None),
                    Err(e) => Err(e),
                }
            }
            Err(OpenError::Absent { .. }) if !self.created => {
                match Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE) {
                    Ok(log) => {
                        self.created = true;
                        Ok(Some(log))
                    }
                    Err(OpenError::Io(_)) => Ok(None),
                    Err(e) => Err(format!("not created: {e}")),
                }
            }
            Err(OpenError::Io(_)) => Ok(None),
            Err(e) => Err(format!("REFUSED: {e}")),
        }
    }

    /// Appends random operations and records whether they were acknowledged. `None`: the journal has
    /// stopped, as after a failed write, and the process would have to restart.
    fn append(
        &mut self,
        mut log: Journal,
        random: &mut Random,
        seen: &mut Seen,
    ) -> Result<Option<Journal>, String> {
        let operations = operations(random);
        let before = self.head();
        let hash = entry::encode(STORE, before.position + 1, before.hash, &operations, &mut Vec::new());
        match log.append(before, &operations) {
            Ok(head) if head.hash == hash && head.position == before.position + 1 => {
                self.acknowledged.push((hash, operations));
                return Ok(Some(log));
            }
            Ok(head) => return Err(format!("acknowledged as {head:?}")),
            Err(AppendError::NotWritten(_)) => return Ok(Some(log)),
            Err(AppendError::UnknownOutcome(_)) => self.unclear = Some((hash, operations)),
            Err(AppendError::Stopped(_)) => {}
            Err(e) => return Err(format!("append: {e}")),
        }
        match log.append(before, b"more") {
            Err(AppendError::Stopped(_)) => {
                seen.refusals += 1;
                Ok(None)
            }
            other => Err(format!("an append after a failure: {other:?}")),
        }
    }
}

/// One life of a journal with one or more crashes; an error is a broken promise.
fn live(seed: u64, weakness: Weakness, seen: &mut Seen) -> Result<(), String> {
    let random = &mut Random(seed);
    let disk = Disk::new([512, 4096][random.below(2)], weakness, random.next());
    let mut promise = Promise::default();
    let failing = random.one_in(3);
    if failing {
        disk.fail_sync_after(1 + random.below(40));
    }
    match random.below(2) {
        0 => disk.cut_after(1 + random.below(180)),
        _ => disk.cut_at_sync(1 + random.below(60)),
    }
    let mut log = None;
    while !disk.is_off() {
        let Some(mut open) = log.take() else {
            log = promise.open(&disk, seen, random)?;
            continue;
        };
        log = match random.below(24) {
            0 | 1 => {
                let below = random.below(promise.acknowledged.len() + 2) as u64;
                promise.trimmed = promise.trimmed.max(below);
                open.trim(below).is_ok().then_some(open)
            }
            // A clean stop; 3 is a kill.
            2 => {
                let _ = open.sync();
                None
            }
            3 => None,
            _ => promise.append(open, random, seen)?,
        };
    }
    drop(log);
    // The same again; the first two rounds are also cut while opening.
    for round in 0..3 {
        if random.one_in(5) {
            disk.kill();
        } else {
            disk.power_cut();
        }
        if round < 2 {
            disk.cut_after(1 + random.below(16));
        }
        if failing && random.one_in(2) {
            disk.fail_sync_after(1 + random.below(4));
        }
        let opened = promise.open(&disk, seen, random)?;
        if opened.is_none() && !failing && !disk.is_off() {
            return Err("REFUSED: an error without a cause".to_owned());
        }
        seen.cut_while_opening += usize::from(opened.is_none());
    }
    disk.power_cut();
    for _ in 0..3 {
        // One try more than there are syncs that can still fail.
        let Some(mut log) = promise.open(&disk, seen, random)? else { continue };
        for _ in 0..3 {
            let operations = operations(random);
            match log.append(promise.head(), &operations) {
                Ok(head) => promise.acknowledged.push((head.hash, operations)),
                Err(AppendError::UnknownOutcome(_) | AppendError::Stopped(_)) if failing => return Ok(()),
                Err(e) => return Err(format!("REFUSED: {e}")),
            }
        }
        seen.files += disk.root().list().map_err(|e| e.to_string())?.len();
        drop(log);
        disk.power_cut();
        return match promise.open(&disk, seen, random)? {
            None if !failing => Err("REFUSED: an error without a cause".to_owned()),
            _ => Ok(()),
        };
    }
    Err("REFUSED: three times".to_owned())
}

fn violations(seeds: std::ops::Range<u64>, weakness: Weakness) -> (Vec<String>, Seen) {
    let mut seen = Seen::default();
    let found =
        seeds.filter_map(|seed| live(seed, weakness, &mut seen).err().map(|e| format!("seed {seed}: {e}")));
    (found.collect(), seen)
}

#[test]
fn no_crash_loses_or_alters_what_was_acknowledged() {
    let count = std::env::var("PERMGATE_CRASH_STATES").map_or(500, |text| text.parse().unwrap());
    let (found, seen) = violations(0..count, Weakness::None);
    assert!(found.is_empty(), "{} of {count}:\n{}", found.len(), found.join("\n"));
    println!("{count} lives: {seen:?}");
    // The simulation is only useful while it meets the cases that it is made for.
    let Seen { dropped, unclear_kept, slots, refusals, cut_while_opening, .. } = seen;
    for (what, number) in [
        ("torn batches", dropped),
        ("unclear batches that were kept", unclear_kept),
        ("torn slots", slots),
        ("appends after a failure", refusals),
        ("cuts while opening", cut_while_opening),
    ] {
        assert!(number >= count as usize / 100, "{what}: {number}");
    }
}

#[test]
#[ignore = "a minute"]
fn no_crash_of_many_loses_or_alters_what_was_acknowledged() {
    let (found, seen) = violations(1_000_000..1_020_000, Weakness::None);
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
    println!("{seen:?}");
}

/// Trimming writes a slot just after an append has written the other one.
#[test]
fn a_cut_while_trimming_never_tears_both_slots() {
    let random = &mut Random(1);
    let disk = Disk::new(512, Weakness::None, 1);
    let mut log = Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap();
    let mut head = Head::EMPTY;
    for _ in 0..4 {
        head = log.append(head, &[1; 15_000]).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    for round in 0..400 {
        let disk = disk.copy();
        disk.reseed(random.next());
        let (mut log, _) = super::open(&disk).unwrap();
        let head = log.append(head, b"the last one").unwrap();
        disk.cut_at_sync(1 + round % 3);
        log.trim(head.position).unwrap_err();
        drop(log);
        disk.shearing_power_cut();
        let (log, _) = super::open(&disk).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(log.head().unwrap(), head, "round {round}");
    }
}

#[test]
fn the_simulation_notices_when_batches_are_not_synced() {
    let (found, _) = violations(0..60, Weakness::Batches);
    assert!(found.len() > 10, "{found:?}");
    assert!(found.iter().any(|violation| violation.contains("LOST")), "{found:?}");
}

#[test]
fn the_simulation_notices_when_new_files_are_not_synced() {
    let (found, _) = violations(0..60, Weakness::NewFiles);
    assert!(found.len() > 10, "{found:?}");
}

#[test]
fn the_simulation_notices_when_directories_are_not_synced() {
    let (found, _) = violations(0..100, Weakness::Directories);
    assert!(found.len() > 2, "{found:?}");
}
