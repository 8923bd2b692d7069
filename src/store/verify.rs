//! The report of `store verify`, which reads the journal, the checkpoints and the replica in whole, while a
//! gateway serves or without one.

use std::{fmt::Display, ops::ControlFlow};

use super::OpenError;
pub use super::engine::verify_closed as offline;

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Position of the newest change that was acknowledged.
    pub position: u64,
    pub journal_files: u64,
    pub journal_entries: u64,
    pub checkpoints: u64,
    /// Each table of the replica, with its number of rows.
    pub tables: Vec<(&'static str, u64)>,
    /// `seq` and hash of the newest audit event.
    pub audit: Option<(u64, [u8; 32])>,
    /// What is wrong, up to [`Report::MAX_LISTED`] findings.
    pub damage: Vec<Finding>,
    /// Number of further findings.
    pub unlisted: u64,
    /// What is unusual but harmless.
    pub notes: Vec<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A file, or a table of the replica.
    pub place: String,
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// Progress of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The file or table that is being read.
    pub part: String,
    pub done: u64,
    /// 0 if it is not known.
    pub of: u64,
}

/// Called with the progress; may stop the verification.
pub type OnProgress<'t> = dyn FnMut(Progress) -> ControlFlow<()> + 't;

/// The verification was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the verification was stopped")]
pub struct Stopped;

/// Why an offline verification failed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Report {
    /// Maximum listed findings: one kind of damage may be found thousands of times.
    pub const MAX_LISTED: usize = 100;

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    pub(super) fn add(&mut self, place: impl Display, what: impl Display, advice: &'static str) {
        if self.damage.len() == Self::MAX_LISTED {
            self.unlisted += 1;
        } else {
            self.damage.push(Finding { place: place.to_string(), what: what.to_string(), advice });
        }
    }
}
