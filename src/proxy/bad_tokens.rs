//! Counts bad tokens per client address. Only clients that send bad tokens are limited; a
//! valid token is never looked up here.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    authz::{network, reason::Reason},
    proxy::limits::{CountKey, Table},
    settings::BadTokenLimit,
};

/// Shared by the workers; locked only for bad tokens.
#[derive(Default)]
pub struct BadTokens(Table<Option<Window>>);

#[derive(Clone, Copy)]
struct Window {
    ends: Instant,
    count: u32,
}

impl BadTokens {
    /// Counts a bad token. Returns how long the client must wait if its limit is exceeded.
    pub fn count(&self, from: IpAddr, limit: BadTokenLimit, now: Instant) -> Option<Duration> {
        let is_over = |window: Option<Window>| window.is_none_or(|window| window.ends <= now);
        let key = CountKey::Address(network::of_client(from));
        let (counted, wait) = self.0.update(
            key,
            || now,
            is_over,
            |window| {
                let fresh = Window { ends: now + limit.window, count: 0 };
                let mut window = window.filter(|window| window.ends > now).unwrap_or(fresh);
                window.count = window.count.saturating_add(1);
                (Some(Some(window)), (window.count > limit.count.get()).then(|| window.ends - now))
            },
        );
        // Addresses beyond the table's size share a count, which says nothing about one of them. An attacker
        // with so many gains only more guesses at a 256-bit token.
        wait.filter(|_| counted == key)
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
    fn addresses_beyond_the_tables_size_are_not_limited() {
        let bad_tokens = BadTokens::default();
        let limit = BadTokenLimit { count: NonZeroU32::MIN, window: Duration::from_secs(60) };
        let start = Instant::now();
        let count = |from: u32, after: u64| {
            let from = std::net::Ipv4Addr::from(from).into();
            bad_tokens.count(from, limit, start + Duration::from_millis(after)).is_some()
        };
        let more_than_fit = 1 << 19;
        for from in 0..more_than_fit {
            count(from, 0);
        }
        assert!(!count(more_than_fit, 1) && !count(more_than_fit, 1), "there is no room");
        assert!(count(0, 2), "who is in it is counted");
        assert!(
            !count(more_than_fit, 60_000) && count(more_than_fit, 60_000),
            "when windows have ended there is room"
        );
    }
}
