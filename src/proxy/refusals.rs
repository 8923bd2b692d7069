//! Refusals that the audit log hears of: over a bounded channel, so that a stranger cannot make us
//! write, one event for each (token or address, reason) and hour, with a count.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use crate::{
    authz::{answer::Reason, rules::ServiceId, secret::TokenId, time::Timestamp},
    metrics::Metrics,
};

/// A refusal as a worker saw it.
#[derive(Clone, Debug)]
pub struct Refused {
    pub at: Timestamp,
    pub reason: Reason,
    /// `None`: no token was recognised; the address stands for it.
    pub token: Option<TokenId>,
    pub client: IpAddr,
    pub service: Option<ServiceId>,
    pub request_id: String,
}

/// What the audit log is to hear: the refusal that opened the hour, and how many there were since
/// the last event about the same, this one included.
#[derive(Clone, Debug)]
pub struct RefusalEvent {
    pub refused: Refused,
    pub count: u64,
}

/// A worker's end.
#[derive(Clone)]
pub struct RefusalSender {
    sender: SyncSender<Refused>,
    metrics: Arc<Metrics>,
}

/// The control runtime's end.
pub struct Refusals {
    receiver: Receiver<Refused>,
    metrics: Arc<Metrics>,
    hours: HashMap<Key, Hour>,
}

/// The token, or the address where no token was recognised; and what was wrong.
type Key = (Result<TokenId, IpAddr>, Reason);

struct Hour {
    ends: Timestamp,
    /// Since the event that opened the hour.
    unheard: u64,
    last: Refused,
}

const WAITING: usize = 1024;
const KEYS: usize = 10_000;
const HOUR_SECONDS: i64 = 3600;

pub fn channel(metrics: Arc<Metrics>) -> (RefusalSender, Refusals) {
    let (sender, receiver) = sync_channel(WAITING);
    let refusals = Refusals { receiver, metrics: Arc::clone(&metrics), hours: HashMap::new() };
    (RefusalSender { sender, metrics }, refusals)
}

pub fn is_audited(reason: Reason) -> bool {
    matches!(reason, Reason::TokenInUrl | Reason::TokenRevoked | Reason::TokenRotated)
}

impl RefusalSender {
    /// Never waits: what finds the channel full is counted and dropped.
    pub fn send(&self, refused: Refused) {
        if self.sender.try_send(refused).is_err() {
            self.metrics.refusals_dropped.add(1);
        }
    }
}

impl Refusals {
    /// What has become due by `now`; call it every few seconds.
    pub fn due(&mut self, now: Timestamp) -> Vec<RefusalEvent> {
        let mut events = Vec::new();
        self.hours.retain(|_, hour| {
            if hour.ends > now {
                return true;
            }
            if hour.unheard > 0 {
                events.push(RefusalEvent { refused: hour.last.clone(), count: hour.unheard });
            }
            // What is told now opens an hour of its own.
            let told = hour.unheard > 0;
            hour.ends = now.plus_seconds(HOUR_SECONDS);
            hour.unheard = 0;
            told
        });
        while let Ok(refused) = self.receiver.try_recv() {
            let key = (refused.token.ok_or(refused.client), refused.reason);
            if let Some(hour) = self.hours.get_mut(&key) {
                hour.unheard += 1;
                hour.last = refused;
            } else if self.hours.len() < KEYS {
                let ends = now.plus_seconds(HOUR_SECONDS);
                self.hours.insert(key, Hour { ends, unheard: 0, last: refused.clone() });
                events.push(RefusalEvent { refused, count: 1 });
            } else {
                self.metrics.refusals_dropped.add(1);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_for_each_token_or_address_and_hour() {
        let metrics = Metrics::new(Arc::default());
        let (sender, mut refusals) = channel(Arc::clone(&metrics));
        let at = |seconds: i64| Timestamp::from_millis(0).plus_seconds(seconds);
        let send = |client: &str, reason: Reason| {
            sender.send(Refused {
                at: at(0),
                reason,
                token: None,
                client: client.parse().expect("an address"),
                service: None,
                request_id: "r".to_owned(),
            });
        };
        let mut check = |row: &str, seconds: i64, expected: &[u64]| {
            let events = refusals.due(at(seconds));
            let counts: Vec<u64> = events.iter().map(|event| event.count).collect();
            assert_eq!(counts, expected, "{row}");
        };
        send("192.0.2.1", Reason::TokenInUrl);
        send("192.0.2.1", Reason::TokenInUrl);
        check("the first opens the hour", 0, &[1]);
        send("192.0.2.1", Reason::TokenInUrl);
        check("the others wait", 60, &[]);
        send("192.0.2.1", Reason::TokenRevoked);
        check("another reason", 60, &[1]);
        send("192.0.2.2", Reason::TokenInUrl);
        check("another address", 60, &[1]);
        check("the hour ends", 3600, &[2]);
        check("told once", 3700, &[]);
        check("a silent hour ends silently", 7300, &[]);
        send("192.0.2.1", Reason::TokenInUrl);
        check("and the next begins anew", 7300, &[1]);
        for _ in 0..WAITING + 5 {
            send("192.0.2.9", Reason::TokenInUrl);
        }
        assert_eq!(metrics.refusals_dropped.value(), 5);
    }
}
