//! Counts bad tokens per client address. Only clients that send bad tokens are limited; a
//! valid token is never looked up here.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    authz::{network, reason::Reason},
    net::Throttle,
    proxy::limits::SEARCH_INTERVAL,
    settings::BadTokenLimit,
};

/// Shared by the workers; locked only for bad tokens.
#[derive(Default)]
pub struct BadTokens(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    windows: HashMap<IpAddr, Window>,
    /// Searches of a full table for windows that have ended.
    searches: Throttle,
}

struct Window {
    ends: Instant,
    count: u32,
}

/// The most addresses. Beyond it, new ones are not counted until windows end, which bounds memory. An
/// attacker with more addresses gains only more guesses at a 256-bit token.
const MAX_ADDRESSES: usize = 65_536;

impl BadTokens {
    /// Counts a bad token. Returns how long the client must wait if its limit is exceeded.
    pub fn count(&self, from: IpAddr, limit: BadTokenLimit, now: Instant) -> Option<Duration> {
        let mut counted = self.0.lock();
        let Counted { windows, searches } = &mut *counted;
        let from = network::of_client(from);
        if windows.len() >= MAX_ADDRESSES && !windows.contains_key(&from) {
            if searches.is_due(now, SEARCH_INTERVAL) {
                windows.retain(|_, window| window.ends > now);
            }
            if windows.len() >= MAX_ADDRESSES {
                return None;
            }
        }
        let window = windows.entry(from).or_insert(Window { ends: now + limit.window, count: 0 });
        if window.ends <= now {
            *window = Window { ends: now + limit.window, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        (window.count > limit.count.get()).then(|| window.ends - now)
    }
}

/// Whether a denial means that the token is invalid or no longer valid.
pub fn is_bad_token(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::MalformedAuthorization
            | Reason::MalformedCredential
            | Reason::MalformedToken
            | Reason::ChecksumMismatch
            | Reason::UnknownToken
            | Reason::OwnerDeleted
            | Reason::TokenRevoked
            | Reason::TokenRotated
            | Reason::TokenExpired
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn client_with_too_many_bad_tokens_waits_until_the_window_ends() {
        let bad_tokens = BadTokens::default();
        let limit =
            BadTokenLimit { count: NonZeroU32::new(2).expect("two"), window: Duration::from_secs(60) };
        let start = Instant::now();
        let check = |row: &str, from: &str, after: u64, expected: Option<u64>| {
            let from = from.parse().expect("an address");
            let wait = bad_tokens.count(from, limit, start + Duration::from_secs(after));
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{row}");
        };
        check("first", "192.0.2.1", 0, None);
        check("second", "192.0.2.1", 1, None);
        check("third", "192.0.2.1", 20, Some(40));
        check("a neighbour", "192.0.2.2", 20, None);
        check("the window is over", "192.0.2.1", 60, None);
        check("v6 first", "2001:db8::1", 0, None);
        check("v6 second, same network", "2001:db8::2", 0, None);
        check("v6 third, same network", "2001:db8::3", 0, Some(60));
        check("v6, another network", "2001:db8:0:1::1", 0, None);
        check("mapped v4 is v4", "::ffff:192.0.2.2", 20, None);
        check("mapped v4 is counted with it", "::ffff:192.0.2.2", 20, Some(60));
    }

    #[test]
    fn full_table_is_searched_now_and_then() {
        let bad_tokens = BadTokens::default();
        let limit = BadTokenLimit { count: NonZeroU32::MIN, window: Duration::from_secs(60) };
        let start = Instant::now();
        let count = |from: u32, after: u64| {
            let from = std::net::Ipv4Addr::from(from).into();
            bad_tokens.count(from, limit, start + Duration::from_millis(after)).is_some()
        };
        let room = u32::try_from(MAX_ADDRESSES).unwrap();
        for from in 0..room {
            count(from, 0);
        }
        assert!(!count(room, 1) && !count(room, 1), "there is no room");
        assert!(count(0, 2), "who is in it is counted");
        let searched = bad_tokens.0.lock().searches;
        for from in room..room + 1_000 {
            count(from, 50);
        }
        assert_eq!(bad_tokens.0.lock().searches, searched, "not for every address");
        assert!(!count(room, 60_000) && count(room, 60_000), "when windows have ended there is room");
    }
}
