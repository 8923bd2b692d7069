//! `permgate store ...`: backup and verification of a running gateway's store or of a closed one; restore
//! into a closed one only.

mod verify;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Subcommand;
use indicatif::ProgressBar;

use super::{
    Global,
    client::Client,
    failure::{Failure, chain, print_stderr, reason, unreadable},
    output::counted,
    owner::StoreOwner,
    target,
};
use crate::store::{backup::Progress, restore};

#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Write a backup of the whole store into a new file (mode 0600: it holds hashes), from the running
    /// gateway, or with --offline from a store that no gateway has open
    Backup {
        /// The new file, on this machine; an existing file is not overwritten
        file: PathBuf,
    },
    /// Replace the store with a backup while no gateway runs; what was revoked since stays revoked
    Restore {
        /// The backup
        file: PathBuf,
        /// Restore even if the current store cannot tell what was revoked since
        #[arg(long)]
        accept_lost_revocations: bool,
    },
    /// Read the whole store and report damage; the exit code is 1 if there is any
    #[command(
        after_help = "The running gateway reads its own store while it serves. With --offline, a store that \
                            nobody serves is read; nothing in it is recovered or changed"
    )]
    Verify,
}

impl Store {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Backup { file } => backup(global, file),
            Self::Restore { file, accept_lost_revocations } => {
                restore(global, file, *accept_lost_revocations)
            }
            Self::Verify => verify::run(global),
        }
    }
}

/// Writes under a temporary name until the backup is complete and durable; overwrites no existing file.
fn backup(global: &Global, file: &Path) -> Result<(), Failure> {
    let unwritable = |error| Failure::failed(format!("cannot write {}: {}", file.display(), reason(&error)));
    if file.try_exists().map_err(unwritable)? {
        return Err(Failure::usage(format!("{} exists: choose another name", file.display())));
    }
    let client = Client::new(global)?;
    if let Client::Offline(offline) = &client {
        offline.store()?;
    }
    let partial = file.with_added_extension("partial");
    // Removes what an interrupted backup has left. A file or link that another user has put there is never
    // written to, because the backup would get its mode.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
        _ => {}
    }
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let copied = copy(&client, out.map_err(unwritable)?, &unwritable);
    let renamed = copied.and_then(|written| fs::rename(&partial, file).map(|()| written).map_err(unwritable));
    let written = renamed.inspect_err(|_| {
        // What is there of the backup is of no use, and holds hashes.
        let _ = fs::remove_file(&partial);
    })?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unwritable)?;
    print_stderr(&format!("{written} bytes in {}", file.display()));
    Ok(())
}

/// Writes the whole backup durably; returns its length.
fn copy(client: &Client, out: File, unwritable: &dyn Fn(io::Error) -> Failure) -> Result<u64, Failure> {
    let mut out = BufWriter::new(out);
    let progress = spinner();
    let outcome = match client {
        Client::Listener(listener) => {
            listener.download("/v1/backup", &mut out, &mut |bytes| progress.set_position(bytes))
        }
        Client::Offline(offline) => {
            let copied =
                offline.store()?.backup(&mut out, &mut |at: Progress| progress.set_position(at.bytes));
            copied.map(|(_, written)| written.bytes).map_err(|error| Failure::failed(chain(&error)))
        }
    };
    progress.finish_and_clear();
    let written = outcome?;
    out.flush().map_err(unwritable)?;
    out.get_ref().sync_all().map_err(unwritable)?;
    Ok(written)
}

fn restore(global: &Global, file: &Path, accept_lost_revocations: bool) -> Result<(), Failure> {
    let config = target::load(global.config())?;
    let input = BufReader::new(File::open(file).map_err(|error| unreadable(file, &error))?);
    let progress = spinner();
    let options = restore::Options { accept_lost_revocations, now: SystemTime::now().into() };
    let _owner = StoreOwner::detect(&config.store.path);
    let outcome = restore::offline(&config.store, &options, input, &mut |at| progress.set_position(at.rows));
    progress.finish_and_clear();
    let restored = outcome.map_err(|error| Failure::failed(chain(&error)))?;
    print_stderr(&format!("{} rows restored to {}", restored.rows, config.store.path.display()));
    match &restored.replaced {
        Some(replaced) => {
            let (tokens, users) = (counted(restored.revoked, "token"), counted(restored.users, "user"));
            let (passwords, narrowed) = (counted(restored.passwords, "password"), restored.narrowed);
            print_stderr(&format!(
                "ended since the backup, and so again: {tokens}, {users}; changed since and kept: {passwords}, {}",
                counted(narrowed, "narrowed or shortened token"),
            ));
            print_stderr(
                "group members, grants and roles are those of the backup: take away again what was taken away since",
            );
            print_stderr(&format!("the previous store was moved to {}", replaced.display()));
        }
        None => {
            let at = jiff::Timestamp::from_millisecond(restored.taken_at_millis);
            let at = at.map_or_else(|_| "the backup".to_owned(), |at| at.to_string());
            print_stderr(&format!(
                "everything is as it was at {at}: revoke, ban, delete and take away again what was since"
            ));
        }
    }
    Ok(())
}

pub(super) fn spinner() -> ProgressBar {
    if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() }
}
