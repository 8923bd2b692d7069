//! One commit whose answer may get lost. It is sent again unchanged until its outcome is known: a new plan
//! before that would conflict with the commit's own result.

use crate::store::log::Head;

/// Identifies the attempt that wrote an entry: two nodes may have tried the same operations at the same
/// position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptId(pub [u8; 16]);

/// An entry to append at the position after `expected`.
#[derive(Debug)]
pub struct CommitAttempt {
    id: AttemptId,
    expected: Head,
    /// Whether the entry may be in the log although no answer has confirmed it.
    unclear: bool,
}

/// The log's answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The entry is in the log.
    Committed,
    /// The log has a different head.
    Conflict { head: Head },
    /// No answer, or one that does not say whether the entry was made.
    None,
    /// The attempt that wrote the entry after `expected`.
    Written(AttemptId),
}

/// The next step of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the same transaction, with the same bytes.
    SendAgain,
    /// Read the entry after `expected`, which says whose attempt it was.
    ReadWinner,
    Committed,
    /// Another attempt's entry came first: apply it, and plan again.
    Lost,
    /// The head is before `expected`: the engine has lost acknowledged entries.
    LogLostEntries {
        head: Head,
    },
}

impl CommitAttempt {
    pub fn new(id: AttemptId, expected: Head) -> Self {
        Self { id, expected, unclear: false }
    }

    #[cfg(test)]
    pub fn id(&self) -> AttemptId {
        self.id
    }

    /// The position of the entry.
    pub fn position(&self) -> u64 {
        self.expected.next()
    }

    pub fn expected(&self) -> Head {
        self.expected
    }

    /// Whether the entry may be in the log although no answer has confirmed it.
    pub fn is_unclear(&self) -> bool {
        self.unclear
    }

    pub fn on_answer(&mut self, answer: Answer) -> Step {
        match answer {
            Answer::Committed => Step::Committed,
            Answer::None => {
                self.unclear = true;
                Step::SendAgain
            }
            // Only something beside the head has changed, for example by a trim: no entry follows yet.
            Answer::Conflict { head } if head == self.expected => Step::SendAgain,
            Answer::Conflict { head } if head.position <= self.expected.position => {
                Step::LogLostEntries { head }
            }
            Answer::Conflict { .. } if self.unclear => Step::ReadWinner,
            Answer::Conflict { .. } => Step::Lost,
            Answer::Written(id) if id == self.id => Step::Committed,
            Answer::Written(_) => Step::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::EntryHash;

    #[test]
    fn an_unclear_attempt_is_sent_again_until_its_position_says_who_won() {
        let head = |position| Head { position, hash: EntryHash([u8::try_from(position).unwrap(); 32]) };
        let (mine, other) = (AttemptId([1; 16]), AttemptId([2; 16]));
        let moved = |position| Answer::Conflict { head: head(position) };
        let check = |name: &str, answers: &[(Answer, Step)]| {
            let mut attempt = CommitAttempt::new(mine, head(4));
            assert_eq!(attempt.position(), 5);
            for (answer, step) in answers {
                assert_eq!(attempt.on_answer(*answer), *step, "{name}: {answer:?}");
            }
        };
        check("made", &[(Answer::Committed, Step::Committed)]);
        check("lost", &[(moved(5), Step::Lost)]);
        check(
            "no answer, then made",
            &[(Answer::None, Step::SendAgain), (Answer::Committed, Step::Committed)],
        );
        check(
            "no answer, but it was made",
            &[
                (Answer::None, Step::SendAgain),
                (moved(5), Step::ReadWinner),
                (Answer::Written(mine), Step::Committed),
            ],
        );
        check(
            "made, and others came behind it",
            &[
                (Answer::None, Step::SendAgain),
                (moved(9), Step::ReadWinner),
                (Answer::Written(mine), Step::Committed),
            ],
        );
        check(
            "no answer, and another one came first",
            &[
                (Answer::None, Step::SendAgain),
                (Answer::None, Step::SendAgain),
                (moved(5), Step::ReadWinner),
                (Answer::None, Step::SendAgain),
                (moved(5), Step::ReadWinner),
                (Answer::Written(other), Step::Lost),
            ],
        );
        check(
            "the log was trimmed meanwhile",
            &[(Answer::Conflict { head: head(4) }, Step::SendAgain), (moved(5), Step::Lost)],
        );
        check("the engine lost entries", &[(moved(3), Step::LogLostEntries { head: head(3) })]);
    }
}
