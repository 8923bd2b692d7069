//! The audit chain: each event holds the hash of the one before, so that a change in the middle is
//! detected. Anyone who can write the store can forge its tail.

use serde_json::{Value, json};

use super::{
    ReadError,
    engine::Engine,
    model::{AuditEvent, AuditPosition, TokenRecord},
};
use crate::authz::{subject::scope_text, time::Timestamp};

/// The result of verifying a whole chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    /// `seq` and hash of the last event. Recorded elsewhere, they prove that no tail was cut off.
    pub last: Option<(u64, [u8; 32])>,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the audit chain breaks at event {seq}: {what}")]
    Broken { seq: u64, what: &'static str },
    #[error("the audit chain ends before event {seq}, but {acknowledged} events were acknowledged")]
    CutOff { seq: u64, acknowledged: u64 },
    #[error(
        "the store shows changes up to {position}, but {acknowledged} were acknowledged; restart permgate"
    )]
    Behind {
        /// `seq` of the first event that may be missing.
        seq: u64,
        position: u64,
        acknowledged: u64,
    },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl AuditPosition {
    pub(crate) const START: Self = Self { seq: 1, prev: [0; 32] };

    /// Reads the end of the chain from the engine.
    pub(crate) fn load(engine: &Engine) -> Result<Self, ReadError> {
        if let Some(last) = engine.audit_before(None, 1)?.first() {
            return Ok(last.next());
        }
        Ok(engine.audit_start()?.unwrap_or(Self::START))
    }

    /// Places an event at the end of the chain.
    pub(crate) fn append(&mut self, mut event: AuditEvent) -> AuditEvent {
        (event.seq, event.prev) = (self.seq, self.prev);
        event.hash = hash(&event);
        *self = event.next();
        event
    }
}

impl AuditEvent {
    /// The position of the event after this one.
    pub(crate) fn next(&self) -> AuditPosition {
        AuditPosition { seq: self.seq + 1, prev: self.hash }
    }
}

/// The changed fields of a token, each as `[old, new]`.
pub(crate) fn difference(before: &TokenRecord, after: &TokenRecord) -> Value {
    let networks =
        |record: &TokenRecord| record.allow_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "name": changed(&before.name, &after.name),
        "note": changed(&before.note, &after.note),
        "scope": changed(&scope_text(&before.scope), &scope_text(&after.scope)),
        "expires_at": changed(&before.expires_at.map(time_json), &after.expires_at.map(time_json)),
        "allow_ips": changed(&networks(before), &networks(after)),
    })
}

/// `[old, new]`, or `None` if they are equal.
pub(crate) fn changed<T: serde::Serialize + PartialEq>(before: &T, after: &T) -> Option<Value> {
    (before != after).then(|| json!([before, after]))
}

pub(crate) fn time_json(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.as_millis().to_string(), |t| t.to_string())
}

/// A chain that is being verified event by event.
pub(crate) struct Chain {
    next: AuditPosition,
    verified: Verified,
}

impl Chain {
    /// `from`: where the chain begins if events were trimmed.
    pub(crate) fn new(from: Option<AuditPosition>) -> Self {
        let next = from.unwrap_or(AuditPosition::START);
        Self { next, verified: Verified { events: 0, last: None } }
    }

    pub(crate) fn follow(&mut self, event: &AuditEvent) -> Result<(), VerifyError> {
        let AuditPosition { seq, prev } = self.next;
        let what = match () {
            () if event.seq != seq => Some("an event is missing"),
            () if event.prev != prev => Some("it does not follow the event before"),
            () if event.hash != hash(event) => Some("it was changed"),
            () => None,
        };
        if let Some(what) = what {
            return Err(VerifyError::Broken { seq, what });
        }
        self.next = event.next();
        self.verified = Verified { events: self.verified.events + 1, last: Some((event.seq, event.hash)) };
        Ok(())
    }

    /// Ends the verification. `acknowledged` is the newest event known to be acknowledged: the chain must
    /// contain it, unless it was trimmed, and may continue after it.
    pub(crate) fn end(self, acknowledged: Option<(u64, [u8; 32])>) -> Result<Verified, VerifyError> {
        let Some((seq, hash)) = acknowledged else { return Ok(self.verified) };
        if seq >= self.next.seq {
            return Err(VerifyError::CutOff { seq: self.next.seq, acknowledged: seq });
        }
        if self.verified.last.is_some_and(|last| last.0 == seq && last.1 != hash) {
            return Err(VerifyError::Broken { seq, what: "it is not the event that was acknowledged" });
        }
        Ok(self.verified)
    }
}

/// Verifies a whole chain, page by page.
pub(crate) fn verify(
    from: Option<AuditPosition>,
    acknowledged: Option<(u64, [u8; 32])>,
    mut page: impl FnMut(u64) -> Result<Vec<AuditEvent>, ReadError>,
) -> Result<Verified, VerifyError> {
    let mut chain = Chain::new(from);
    loop {
        let events = page(chain.next.seq)?;
        if events.is_empty() {
            return chain.end(acknowledged);
        }
        events.iter().try_for_each(|event| chain.follow(event))?;
    }
}

/// Hashes every field with its length, so that no two events share a hash input.
fn hash(event: &AuditEvent) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: Option<&[u8]>| {
        // No field has 2^64 - 1 bytes, so an absent field differs from every present one.
        hasher.update(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_le_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    put(Some(b"permgate audit 1"));
    put(Some(&event.prev));
    put(Some(&event.seq.to_le_bytes()));
    put(Some(&event.at.as_millis().to_le_bytes()));
    put(Some(event.event.as_bytes()));
    put(Some(event.actor.as_bytes()));
    put(Some(event.target.as_bytes()));
    put(event.service.as_deref().map(str::as_bytes));
    put(event.request_id.as_deref().map(str::as_bytes));
    put(Some(event.outcome.as_bytes()));
    put(event.reason.as_deref().map(str::as_bytes));
    put(event.change.as_deref().map(str::as_bytes));
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEvent> {
        let mut head = AuditPosition::START;
        let at = Timestamp::from_millis(7);
        let event = |n: u64| AuditEvent::new(at, "user.ban", "carol", format!("user:{n}"), None);
        (0..length).map(|n| head.append(event(n))).collect()
    }

    fn verified(from: Option<AuditPosition>, events: &[AuditEvent]) -> Result<Verified, u64> {
        verified_to(None, from, events)
    }

    fn verified_to(
        acknowledged: Option<&AuditEvent>,
        from: Option<AuditPosition>,
        events: &[AuditEvent],
    ) -> Result<Verified, u64> {
        let page = |seq| Ok(events.iter().filter(|event| event.seq >= seq).take(3).cloned().collect());
        let acknowledged = acknowledged.map(|event| (event.seq, event.hash));
        verify(from, acknowledged, page).map_err(|error| match error {
            VerifyError::Broken { seq, .. }
            | VerifyError::CutOff { seq, .. }
            | VerifyError::Behind { seq, .. } => seq,
            VerifyError::Read(_) => 0,
        })
    }

    #[test]
    fn a_change_in_the_middle_shows() {
        let check = |name: &str, expected: Result<u64, u64>, change: fn(&mut Vec<AuditEvent>)| {
            let mut events = chain(10);
            change(&mut events);
            assert_eq!(verified(None, &events).map(|v| v.events), expected, "{name}");
        };
        check("untouched", Ok(10), |_| {});
        check("empty", Ok(0), Vec::clear);
        check("a field", Err(5), |events| events[4].target.push('x'));
        check("an absent field", Err(5), |events| events[4].reason = Some(String::new()));
        check("the time", Err(5), |events| events[4].at = Timestamp::from_millis(8));
        check("one is missing", Err(5), |events| drop(events.remove(4)));
        check("the first is missing", Err(1), |events| drop(events.remove(0)));
        check("two change places", Err(5), |events| events.swap(4, 5));
        check("hashed anew, alone", Err(6), |events| {
            events[4].target.push('x');
            events[4].hash = hash(&events[4]);
        });
    }

    #[test]
    fn a_tail_that_was_cut_off_shows() {
        let events = chain(10);
        let newest = events.last();
        assert_eq!(verified_to(newest, None, &events).map(|v| v.events), Ok(10));
        assert_eq!(verified_to(newest, None, &events[..7]), Err(8));
        assert_eq!(verified_to(newest, None, &[]), Err(1));
        assert_eq!(verified_to(Some(&events[6]), None, &events).map(|v| v.events), Ok(10), "it went on");
        let other = AuditEvent { hash: [1; 32], ..events[9].clone() };
        assert_eq!(verified_to(Some(&other), None, &events), Err(10));
        let kept = AuditPosition { seq: 11, prev: events[9].hash };
        assert_eq!(verified_to(newest, Some(kept), &[]).map(|v| v.events), Ok(0), "all were trimmed");
    }

    #[test]
    fn a_trimmed_chain_begins_where_it_says() {
        let events = chain(10);
        let kept = AuditPosition { seq: 6, prev: events[4].hash };
        assert_eq!(verified(Some(kept), &events[5..]).map(|v| v.events), Ok(5));
        assert_eq!(verified(Some(AuditPosition { prev: [1; 32], ..kept }), &events[5..]), Err(6));
        assert_eq!(verified(Some(kept), &events[6..]), Err(6));
    }
}
