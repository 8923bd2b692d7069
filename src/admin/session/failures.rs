//! Failed sign-ins for the audit log: one event with a count for each account and hour, and one for all
//! logins without an account. The login as typed is not kept, because it may have been a password.

use std::{collections::HashMap, mem, net::IpAddr};

use parking_lot::Mutex;

use crate::{
    authz::time::Timestamp,
    store::model::{AuditEvent, SignedInBy, UserId},
};

/// How often [`Failures::due`] is called. Nothing is written earlier: a response's timing must not depend on
/// whether there is something to write.
pub(in crate::admin) const FAILURES_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

const HOUR_SECONDS: i64 = 3600;
/// The maximum number of accounts counted separately; further ones count as no account.
const MAX_KEYS: usize = 10_000;

#[derive(Default)]
pub(in crate::admin) struct Failures(Mutex<HashMap<Key, Window>>);

/// The account, and how the sign-in was tried. `None`: no account has the login.
type Key = (Option<UserId>, SignedInBy);

struct Window {
    ends: Timestamp,
    /// Failures since the last event for the same key.
    suppressed: u64,
    last: Sample,
}

#[derive(Clone)]
struct Sample {
    at: Timestamp,
    client: IpAddr,
    request_id: String,
}

impl Failures {
    pub(in crate::admin) fn note(
        &self,
        user: Option<UserId>,
        method: SignedInBy,
        client: IpAddr,
        request_id: &str,
        at: Timestamp,
    ) {
        let mut hours = self.0.lock();
        let last = Sample { at, client, request_id: request_id.to_owned() };
        let full = hours.len() >= MAX_KEYS;
        let key = if full && !hours.contains_key(&(user.clone(), method)) {
            (None, method)
        } else {
            (user, method)
        };
        // The first failure of an hour is due at once.
        let hour = hours.entry(key).or_insert(Window { ends: at, suppressed: 0, last: last.clone() });
        hour.suppressed += 1;
        hour.last = last;
    }

    /// The events to write now; `login` resolves an account's id.
    pub(in crate::admin) fn due(
        &self,
        now: Timestamp,
        login: impl Fn(&str) -> Option<String>,
    ) -> Vec<AuditEvent> {
        let mut hours = self.0.lock();
        let mut events = Vec::new();
        hours.retain(|(user, method), hour| {
            // One that ends later began while the clock was ahead.
            if hour.ends > now && hour.ends <= now.plus_seconds(HOUR_SECONDS) {
                return true;
            }
            let count = mem::take(&mut hour.suppressed);
            if count > 0 {
                let target = match user {
                    Some(id) => format!("user:{}", login(id).unwrap_or_else(|| id.clone())),
                    None => "nobody".to_owned(),
                };
                let Sample { at, client, request_id } = &hour.last;
                let reason = method.into_str();
                let event =
                    AuditEvent::refused("session.refused", *at, *client, target, request_id, reason, count);
                events.push(event);
            }
            hour.ends = now.plus_seconds(HOUR_SECONDS);
            count > 0
        });
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_for_each_account_and_hour() {
        let failures = Failures::default();
        let at = |seconds: i64| Timestamp::from_millis(0).plus_seconds(seconds);
        let fail = |user: Option<&str>, seconds: i64| {
            let client = [192, 0, 2, 1].into();
            failures.note(user.map(str::to_owned), SignedInBy::Password, client, "r", at(seconds));
        };
        let check = |name: &str, seconds: i64, expected: &[(&str, &str)]| {
            let events = failures.due(at(seconds), |id| (id == "1").then(|| "ann".to_owned()));
            let mut reported: Vec<_> =
                events.iter().map(|e| (e.target.as_str(), e.change.as_deref().unwrap())).collect();
            reported.sort_unstable();
            assert_eq!(reported, expected, "{name}");
            assert!(events.iter().all(|event| event.actor == "address:192.0.2.1"), "{name}");
        };
        check("silence", 0, &[]);
        (0..3).for_each(|_| fail(Some("1"), 1));
        fail(None, 1);
        check("the first second", 1, &[("nobody", "{\"count\":1}"), ("user:ann", "{\"count\":3}")]);
        fail(Some("1"), 2);
        fail(Some("gone"), 2);
        check("within the hour, another account", 2, &[("user:gone", "{\"count\":1}")]);
        (0..4).for_each(|_| fail(None, 3));
        check("nothing more", 3600, &[]);
        check("the hour ends", 3601, &[("nobody", "{\"count\":4}"), ("user:ann", "{\"count\":1}")]);
        check("told once", 7201, &[]);
        fail(Some("1"), 90_000);
        check("the clock is ahead", 90_000, &[("user:ann", "{\"count\":1}")]);
        fail(Some("1"), 7202);
        check("and set back", 7202, &[("user:ann", "{\"count\":1}")]);
        check("told once again", 10_802, &[]);
        for number in 0..MAX_KEYS + 7 {
            fail(Some(&format!("user {number}")), 11_000);
        }
        let events = failures.due(at(11_000), |_| None);
        let nobody = events.iter().find(|event| event.target == "nobody").unwrap();
        assert_eq!(
            (events.len(), nobody.change.as_deref()),
            (MAX_KEYS + 1, Some("{\"count\":7}")),
            "bounded"
        );
    }
}
