//! How often somebody may be wrong about a password: by login and address, by address, by login. The
//! same for logins that there are and that there are not.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures are forgotten after this time.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Of one login from one address: more than anybody mistypes.
const PAIR: u32 = 10;
/// From one address, whatever the login: an office behind one address mistypes more.
const ADDRESS: u32 = 50;
/// Of one login from everywhere: high, since it locks the right person out too.
const LOGIN: u32 = 100;
/// Of codes from one address that the provider does not take: nobody types a code.
const CODES: u32 = 10;
/// Counters that are kept at most; beyond that the oldest are forgotten.
const KEPT: usize = 30_000;

#[derive(Default)]
pub(in crate::admin) struct Attempts(Mutex<HashMap<Key, Count>>);

/// Who tries to sign in.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) enum SignInAttempt<'a> {
    /// `known`: the account is signed in from this address already. Then only its own failures from there
    /// count, so that nobody elsewhere, and nobody beside it, locks it out.
    Password {
        login: &'a str,
        known: bool,
    },
    Provider,
}

/// A login as digest: a password that was typed in its place is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Pair([u8; 32], IpAddr),
    Address(IpAddr),
    Login([u8; 32]),
    Provider(IpAddr),
}

#[derive(Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) struct TooMany(pub Duration);

impl Attempts {
    /// Counts a failure before it is one, so that many at once do not slip through.
    pub(in crate::admin) fn begin(
        &self,
        attempt: SignInAttempt<'_>,
        client: IpAddr,
        now: Instant,
    ) -> Result<(), TooMany> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys(attempt, client);
        let late = keys.iter().filter_map(|(key, most)| {
            let count = counts.get(key).filter(|count| now < count.since + WINDOW)?;
            (count.failures >= *most).then(|| count.since + WINDOW - now)
        });
        if let Some(wait) = late.max() {
            return Err(TooMany(wait));
        }
        if counts.len() + keys.len() > KEPT {
            make_room(&mut counts, now);
        }
        for (key, _) in keys {
            let count = counts.entry(key).or_insert(Count { since: now, failures: 0 });
            if count.since + WINDOW <= now {
                *count = Count { since: now, failures: 0 };
            }
            count.failures += 1;
        }
        Ok(())
    }

    /// It was none: the person is known here, and their neighbours are not held up by it.
    pub(in crate::admin) fn succeed(&self, attempt: SignInAttempt<'_>, client: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in keys(attempt, client) {
            match (key, counts.get_mut(&key)) {
                (Key::Pair(..), Some(_)) => drop(counts.remove(&key)),
                (_, Some(count)) => count.failures = count.failures.saturating_sub(1),
                (_, None) => {}
            }
        }
    }
}

fn keys(attempt: SignInAttempt<'_>, client: IpAddr) -> Vec<(Key, u32)> {
    let client = subscriber(client);
    let SignInAttempt::Password { login, known } = attempt else {
        return vec![(Key::Provider(client), CODES)];
    };
    let login = *blake3::hash(login.to_ascii_lowercase().as_bytes()).as_bytes();
    let pair = (Key::Pair(login, client), PAIR);
    if known {
        return vec![pair];
    }
    vec![pair, (Key::Address(client), ADDRESS), (Key::Login(login), LOGIN)]
}

impl<'a> SignInAttempt<'a> {
    /// `from`: the addresses that the account is signed in from.
    pub(in crate::admin) fn by_password(
        login: &'a str,
        client: IpAddr,
        mut from: impl Iterator<Item = IpAddr>,
    ) -> Self {
        Self::Password { login, known: from.any(|one| subscriber(one) == subscriber(client)) }
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

fn make_room(counts: &mut HashMap<Key, Count>, now: Instant) {
    counts.retain(|_, count| now < count.since + WINDOW);
    if counts.len() > KEPT / 2 {
        let mut ages: Vec<Instant> = counts.values().map(|count| count.since).collect();
        let middle = ages.len() / 2;
        let (_, newer, _) = ages.select_nth_unstable(middle);
        let newer = *newer;
        counts.retain(|_, count| newer < count.since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(login: &str) -> SignInAttempt<'_> {
        SignInAttempt::Password { login, known: false }
    }

    #[test]
    fn who_is_wrong_too_often_waits() {
        let client = |text: &str| text.parse::<IpAddr>().unwrap();
        let check = |name: &str, before: &[(&str, &str, u32)], login: &str, from: &str, passes: bool| {
            let (attempts, now) = (Attempts::default(), Instant::now());
            for (login, from, times) in before {
                for number in 0..*times {
                    let login = login.replace('#', &number.to_string());
                    let from = from.replace('#', &number.to_string());
                    assert_eq!(attempts.begin(unknown(&login), client(&from), now), Ok(()), "{name}");
                }
            }
            assert_eq!(attempts.begin(unknown(login), client(from), now).is_ok(), passes, "{name}");
            assert_eq!(attempts.begin(unknown(login), client(from), now + WINDOW), Ok(()), "{name}, later");
        };
        check("one less than too many", &[("ann", "10.0.0.1", PAIR - 1)], "ann", "10.0.0.1", true);
        check("too many", &[("ann", "10.0.0.1", PAIR)], "ann", "10.0.0.1", false);
        check("whatever the letters' case", &[("ann", "10.0.0.1", PAIR)], "ANN", "10.0.0.1", false);
        check("somebody else from there", &[("ann", "10.0.0.1", PAIR)], "bob", "10.0.0.1", true);
        check("the person from elsewhere", &[("ann", "10.0.0.1", PAIR)], "ann", "10.0.0.2", true);
        check("many logins from there", &[("u#", "10.0.0.1", ADDRESS)], "bob", "10.0.0.1", false);
        check("one login from everywhere", &[("ann", "10.0.1.#", LOGIN)], "ann", "10.0.0.2", false);
        check("one subscriber", &[("ann", "2001:db8::#", PAIR)], "ann", "2001:db8::ffff", false);
        check("another subscriber", &[("ann", "2001:db8::#", PAIR)], "ann", "2001:db8:0:1::1", true);
    }

    /// M1: neither a flood from many addresses nor one from the same address locks out who is signed in there.
    #[test]
    fn strangers_do_not_lock_out_who_is_known() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for number in 0..LOGIN {
            let from = IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()]);
            assert_eq!(attempts.begin(unknown("ann"), from, now), Ok(()));
        }
        for number in 0..ADDRESS {
            assert_eq!(attempts.begin(unknown(&number.to_string()), here, now), Ok(()));
        }
        let ann = |from: &[IpAddr]| SignInAttempt::by_password("ann", here, from.iter().copied());
        assert!(attempts.begin(ann(&[]), here, now).is_err(), "known nowhere");
        assert!(attempts.begin(ann(&[there]), here, now).is_err(), "known elsewhere");
        for _ in 0..PAIR {
            assert_eq!(attempts.begin(ann(&[there, here]), here, now), Ok(()), "known here");
        }
        assert!(attempts.begin(ann(&[here]), here, now).is_err(), "its own failures count");
    }

    #[test]
    fn a_success_forgives() {
        let (attempts, now, client) = (Attempts::default(), Instant::now(), [10, 0, 0, 1].into());
        for _ in 0..10 * LOGIN {
            assert_eq!(attempts.begin(unknown("ann"), client, now), Ok(()));
            attempts.succeed(unknown("ann"), client);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..u32::try_from(KEPT).unwrap() {
            let client = IpAddr::from(number.to_be_bytes());
            let at = now + Duration::from_millis(u64::from(number));
            assert_eq!(attempts.begin(unknown(&number.to_string()), client, at), Ok(()));
        }
        assert!(attempts.0.lock().unwrap().len() <= KEPT);
    }
}
