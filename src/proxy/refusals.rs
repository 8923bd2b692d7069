//! Samples refusals for the audit log: one event with a count per token or address, reason and hour, so that
//! clients cannot make the log grow without bound. Samples pass through a bounded channel.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use crate::{
    authz::{network, reason::Reason, rules::ServiceId, secret::TokenId, time::Timestamp},
    metrics::Metrics,
};

/// One refused request, reported by a worker.
#[derive(Clone, Debug)]
pub struct AuditSample {
    pub at: Timestamp,
    pub reason: Reason,
    /// `None`: no token was recognised, so refusals are grouped by address, an IPv6 /64 as one.
    pub token: Option<TokenId>,
    pub client: IpAddr,
    pub service: Option<ServiceId>,
    pub request_id: String,
}

/// An audit event: a refusal, and the number of refusals with the same key since the
/// previous event, including this one.
#[derive(Clone, Debug)]
pub struct RefusalEvent {
    pub sample: AuditSample,
    pub count: u64,
}

/// A worker's end of the channel.
#[derive(Clone)]
pub struct RefusalSender {
    sender: SyncSender<AuditSample>,
    metrics: Arc<Metrics>,
}

/// The control runtime's end of the channel.
pub struct Refusals {
    receiver: Receiver<AuditSample>,
    metrics: Arc<Metrics>,
    windows: HashMap<Key, Window>,
}

/// The token, or the address if no token was recognised, and the reason.
type Key = (Result<TokenId, IpAddr>, Reason);

struct Window {
    ends: Timestamp,
    /// Number of refusals since the event that opened the window.
    suppressed: u64,
    last: AuditSample,
}

const CHANNEL_SIZE: usize = 1024;
const MAX_KEYS: usize = 10_000;
const WINDOW_SECONDS: i64 = 3600;

pub fn channel(metrics: Arc<Metrics>) -> (RefusalSender, Refusals) {
    let (sender, receiver) = sync_channel(CHANNEL_SIZE);
    let refusals = Refusals { receiver, metrics: Arc::clone(&metrics), windows: HashMap::new() };
    (RefusalSender { sender, metrics }, refusals)
}

pub fn is_audited(reason: Reason) -> bool {
    matches!(reason, Reason::TokenInUrl | Reason::TokenRevoked | Reason::TokenRotated)
}

impl RefusalSender {
    /// Never blocks: if the channel is full, the sample is dropped and counted.
    pub fn send(&self, sample: AuditSample) {
        if self.sender.try_send(sample).is_err() {
            self.metrics.refusals_dropped.add(1);
        }
    }
}

impl Refusals {
    /// Returns the events that are due at `now`. Call it every few seconds.
    pub fn due(&mut self, now: Timestamp) -> Vec<RefusalEvent> {
        let mut events = Vec::new();
        self.windows.retain(|_, window| {
            if window.ends > now {
                return true;
            }
            if window.suppressed > 0 {
                events.push(RefusalEvent { sample: window.last.clone(), count: window.suppressed });
            }
            // A reported window opens the next one.
            let reported = window.suppressed > 0;
            window.ends = now.plus_seconds(WINDOW_SECONDS);
            window.suppressed = 0;
            reported
        });
        while let Ok(sample) = self.receiver.try_recv() {
            let key = (sample.token.ok_or(network::of_client(sample.client)), sample.reason);
            if let Some(window) = self.windows.get_mut(&key) {
                window.suppressed += 1;
                window.last = sample;
            } else if self.windows.len() < MAX_KEYS {
                let ends = now.plus_seconds(WINDOW_SECONDS);
                self.windows.insert(key, Window { ends, suppressed: 0, last: sample.clone() });
                events.push(RefusalEvent { sample, count: 1 });
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
    fn one_audit_event_per_token_or_address_and_hour() {
        let metrics = Metrics::new(Arc::default());
        let (sender, mut refusals) = channel(Arc::clone(&metrics));
        let at = |seconds: i64| Timestamp::from_millis(0).plus_seconds(seconds);
        let send = |client: &str, reason: Reason| {
            sender.send(AuditSample {
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
        send("2001:db8::1", Reason::TokenInUrl);
        send("2001:db8::2", Reason::TokenInUrl);
        check("the IPv6 addresses of one client", 7300, &[1]);
        for _ in 0..CHANNEL_SIZE + 5 {
            send("192.0.2.9", Reason::TokenInUrl);
        }
        assert_eq!(metrics.refusals_dropped.value(), 5);
    }
}
