//! Samples refusals for the audit log: one event with a count per token or address, reason and hour, so that
//! clients cannot make the log grow without bound. Between two looks at them, refusals are only counted.

use std::{collections::HashMap, mem, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

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

/// A worker's end.
#[derive(Clone)]
pub struct RefusalSender {
    pending: Arc<Mutex<ByKind<RefusalEvent>>>,
    metrics: Arc<Metrics>,
}

/// The control runtime's end.
pub struct Refusals {
    pending: Arc<Mutex<ByKind<RefusalEvent>>>,
    metrics: Arc<Metrics>,
    windows: ByKind<Window>,
}

/// The token, or the address if no token was recognised, and the reason.
type Key = (Result<TokenId, IpAddr>, Reason);

/// Anybody can use up the keys without a token, so those with one have room of their own.
struct ByKind<V> {
    tokens: HashMap<Key, V>,
    addresses: HashMap<Key, V>,
}

struct Window {
    ends: Timestamp,
    /// Number of refusals since the event that opened the window.
    suppressed: u64,
    last: AuditSample,
}

/// Of each kind.
const MAX_KEYS: usize = 10_000;
const WINDOW_SECONDS: i64 = 3600;

pub fn channel(metrics: Arc<Metrics>) -> (RefusalSender, Refusals) {
    let pending = Arc::<Mutex<ByKind<_>>>::default();
    let refusals =
        Refusals { pending: Arc::clone(&pending), metrics: Arc::clone(&metrics), windows: ByKind::default() };
    (RefusalSender { pending, metrics }, refusals)
}

pub fn is_audited(reason: Reason) -> bool {
    matches!(reason, Reason::TokenInUrl | Reason::TokenRevoked | Reason::TokenRotated)
}

impl RefusalSender {
    /// Counts a refusal. If there are too many keys, it is dropped and counted as such.
    pub fn send(&self, sample: AuditSample) {
        let key = sample.key();
        let mut pending = self.pending.lock();
        let pending = pending.of(&key);
        if let Some(event) = pending.get_mut(&key) {
            *event = RefusalEvent { sample, count: event.count + 1 };
        } else if pending.len() < MAX_KEYS {
            pending.insert(key, RefusalEvent { sample, count: 1 });
        } else {
            self.metrics.refusals_dropped.add(1);
        }
    }
}

impl Refusals {
    /// Returns the events that are due at `now`. Call it every few seconds.
    pub fn due(&mut self, now: Timestamp) -> Vec<RefusalEvent> {
        let mut events = Vec::new();
        for windows in [&mut self.windows.tokens, &mut self.windows.addresses] {
            windows.retain(|_, window| {
                // One that ends later began while the clock was ahead.
                if window.ends > now && window.ends <= now.plus_seconds(WINDOW_SECONDS) {
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
        }
        let ByKind { tokens, addresses } = mem::take(&mut *self.pending.lock());
        for (key, RefusalEvent { sample, count }) in tokens.into_iter().chain(addresses) {
            let windows = self.windows.of(&key);
            if let Some(window) = windows.get_mut(&key) {
                window.suppressed += count;
                window.last = sample;
            } else if windows.len() < MAX_KEYS {
                let ends = now.plus_seconds(WINDOW_SECONDS);
                windows.insert(key, Window { ends, suppressed: 0, last: sample.clone() });
                events.push(RefusalEvent { sample, count });
            } else {
                self.metrics.refusals_dropped.add(count);
            }
        }
        events
    }
}

impl AuditSample {
    fn key(&self) -> Key {
        (self.token.ok_or(network::of_client(self.client)), self.reason)
    }
}

impl<V> ByKind<V> {
    fn of(&mut self, (who, _): &Key) -> &mut HashMap<Key, V> {
        if who.is_ok() { &mut self.tokens } else { &mut self.addresses }
    }
}

impl<V> Default for ByKind<V> {
    fn default() -> Self {
        Self { tokens: HashMap::new(), addresses: HashMap::new() }
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
        check("the first open the hour", 0, &[2]);
        send("192.0.2.1", Reason::TokenInUrl);
        check("the others wait", 60, &[]);
        send("192.0.2.1", Reason::TokenRevoked);
        check("another reason", 60, &[1]);
        send("192.0.2.2", Reason::TokenInUrl);
        check("another address", 60, &[1]);
        check("the hour ends", 3600, &[1]);
        check("told once", 3700, &[]);
        check("a silent hour ends silently", 7300, &[]);
        send("192.0.2.1", Reason::TokenInUrl);
        check("and the next begins anew", 7300, &[1]);
        send("2001:db8::1", Reason::TokenInUrl);
        send("2001:db8::2", Reason::TokenInUrl);
        check("the IPv6 addresses of one client", 7300, &[2]);
        for _ in 0..20_000 {
            send("192.0.2.9", Reason::TokenInUrl);
        }
        check("a flood", 7300, &[20_000]);
        send("192.0.2.9", Reason::TokenInUrl);
        check("the clock was ahead", 60, &[1]);
        assert_eq!(metrics.refusals_dropped.value(), 0);
    }

    #[test]
    fn refusals_without_a_token_do_not_displace_those_with_one() {
        let metrics = Metrics::new(Arc::default());
        let (sender, mut refusals) = channel(Arc::clone(&metrics));
        let now = Timestamp::from_millis(0);
        let send = |reason: Reason, token: Option<TokenId>, client: u32| {
            let (client, request_id) = (IpAddr::V4(client.into()), "r".to_owned());
            sender.send(AuditSample { at: now, reason, token, client, service: None, request_id });
        };
        let flood = || {
            for client in 0..10_100 {
                send(Reason::TokenInUrl, None, client);
            }
        };
        flood();
        assert_eq!(refusals.due(now).len(), MAX_KEYS);
        flood();
        let token = TokenId::generate(&mut |bytes| bytes.fill(1));
        for client in 0..8 {
            send(Reason::TokenRevoked, Some(token), client);
        }
        let events = refusals.due(now);
        assert_eq!(events.iter().map(|e| (e.sample.token, e.count)).collect::<Vec<_>>(), [(Some(token), 8)]);
        assert_eq!(metrics.refusals_dropped.value(), 200);
    }
}
