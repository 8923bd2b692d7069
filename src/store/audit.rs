//! The audit chain: every event holds the hash of the one before, so that a change in the middle
//! shows. Whoever can write the store can forge its tail.

use serde_json::{Value, json};

use super::{
    ReadError,
    engine::Engine,
    model::{AuditEvent, AuditStart, RevokeReason, TokenRecord},
};
use crate::authz::{subject::Access, time::Timestamp};

/// Where the chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuditHead {
    /// Of the next event.
    pub seq: u64,
    pub hash: [u8; 32],
}

/// What an event says, before it has its place in the chain.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub event: &'static str,
    pub actor: String,
    pub target: String,
    pub request_id: Option<String>,
    pub change: Option<Value>,
}

/// What a whole chain comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    /// `seq` and hash of the last one: written down elsewhere, they prove that no tail was cut.
    pub last: Option<(u64, [u8; 32])>,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the audit chain breaks at event {seq}: {what}")]
    Broken { seq: u64, what: &'static str },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl AuditHead {
    pub(crate) const START: Self = Self { seq: 1, hash: [0; 32] };

    /// Behind the last event that the engine has.
    pub(crate) fn load(engine: &Engine) -> Result<Self, ReadError> {
        if let Some(last) = engine.audit_before(None, 1)?.first() {
            return Ok(Self { seq: last.seq + 1, hash: last.hash });
        }
        Ok(engine.audit_start()?.map_or(Self::START, |kept| Self { seq: kept.seq, hash: kept.prev }))
    }

    /// Gives an event its place.
    pub(crate) fn append(&mut self, mut event: AuditEvent) -> AuditEvent {
        event.seq = self.seq;
        event.prev = self.hash;
        event.hash = hash(&event);
        *self = Self { seq: event.seq + 1, hash: event.hash };
        event
    }
}

impl Entry {
    pub(crate) fn new(
        event: &'static str,
        actor: impl Into<String>,
        target: impl Into<String>,
        change: impl Into<Option<Value>>,
    ) -> Self {
        let (actor, target, change) = (actor.into(), target.into(), change.into());
        Self { event, actor, target, request_id: None, change }
    }

    pub(crate) fn at(self, at: Timestamp) -> AuditEvent {
        AuditEvent {
            seq: 0,
            at,
            event: self.event.into(),
            actor: self.actor,
            target: self.target,
            service: None,
            request_id: self.request_id,
            outcome: "ok".into(),
            reason: None,
            change: self.change.map(|change| change.to_string()),
            prev: [0; 32],
            hash: [0; 32],
        }
    }
}

/// What changed in a token, old and new.
pub(crate) fn difference(before: &TokenRecord, after: &TokenRecord) -> Value {
    let networks =
        |record: &TokenRecord| record.allow_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "name": changed(&before.name, &after.name),
        "note": changed(&before.note, &after.note),
        "scope": changed(&scope_json(&before.scope), &scope_json(&after.scope)),
        "expires_at": changed(&before.expires_at.map(time_json), &after.expires_at.map(time_json)),
        "allow_ips": changed(&networks(before), &networks(after)),
    })
}

/// `[old, new]`, or nothing.
pub(crate) fn changed<T: serde::Serialize + PartialEq>(before: &T, after: &T) -> Option<Value> {
    (before != after).then(|| json!([before, after]))
}

/// `youtrack hub:read`.
pub(crate) fn scope_json(scope: &[(String, Access)]) -> String {
    let words = scope.iter().map(|(key, access)| match access {
        Access::Full => key.clone(),
        Access::Read => format!("{key}:read"),
    });
    words.collect::<Vec<_>>().join(" ")
}

pub(crate) fn time_json(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.as_millis().to_string(), |t| t.to_string())
}

pub(crate) const fn reason_word(reason: RevokeReason) -> &'static str {
    match reason {
        RevokeReason::User => "user",
        RevokeReason::Admin => "admin",
        RevokeReason::Rotated => "rotated",
        RevokeReason::OwnerDeleted => "owner-deleted",
        RevokeReason::Leaked => "leaked",
    }
}

/// Follows a chain from where it begins: `from` says where, if events were trimmed.
pub(crate) fn verify(
    from: Option<AuditStart>,
    mut page: impl FnMut(u64) -> Result<Vec<AuditEvent>, ReadError>,
) -> Result<Verified, VerifyError> {
    let mut head = from.map_or(AuditHead::START, |kept| AuditHead { seq: kept.seq, hash: kept.prev });
    let mut verified = Verified { events: 0, last: None };
    loop {
        let events = page(head.seq)?;
        if events.is_empty() {
            return Ok(verified);
        }
        for event in events {
            let what = match () {
                () if event.seq != head.seq => Some("an event is missing"),
                () if event.prev != head.hash => Some("it does not follow the event before"),
                () if event.hash != hash(&event) => Some("it was changed"),
                () => None,
            };
            if let Some(what) = what {
                return Err(VerifyError::Broken { seq: head.seq, what });
            }
            head = AuditHead { seq: event.seq + 1, hash: event.hash };
            verified = Verified { events: verified.events + 1, last: Some((event.seq, event.hash)) };
        }
    }
}

/// Over every field, each with its length, so that no two events share one.
fn hash(event: &AuditEvent) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: Option<&[u8]>| {
        // No field is as long as 2^64 - 1: an absent one differs from every present one.
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
        let mut head = AuditHead::START;
        let entry = |n: u64| Entry::new("user.ban", "carol", format!("user:{n}"), None);
        (0..length).map(|n| head.append(entry(n).at(Timestamp::from_millis(7)))).collect()
    }

    fn verified(from: Option<AuditStart>, events: &[AuditEvent]) -> Result<Verified, u64> {
        let page = |seq| Ok(events.iter().filter(|event| event.seq >= seq).take(3).cloned().collect());
        verify(from, page).map_err(|error| match error {
            VerifyError::Broken { seq, .. } => seq,
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
    fn a_trimmed_chain_begins_where_it_says() {
        let events = chain(10);
        let kept = AuditStart { seq: 6, prev: events[4].hash };
        assert_eq!(verified(Some(kept), &events[5..]).map(|v| v.events), Ok(5));
        assert_eq!(verified(Some(AuditStart { prev: [1; 32], ..kept }), &events[5..]), Err(6));
        assert_eq!(verified(Some(kept), &events[6..]), Err(6));
    }
}
