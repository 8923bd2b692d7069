//! Limits on wrong passwords: by login and address, by address, and by login. Logins that exist and logins
//! that do not are treated alike.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::authz::network;

/// Failures are forgotten after this time.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// For one login from one address: more than anybody mistypes.
const PAIR: u32 = 10;
/// From one address, whatever the login: higher, because an office may share one address.
const ADDRESS: u32 = 50;
/// For one login from all addresses: high, because it locks out the account's owner too.
const LOGIN: u32 = 100;
/// Codes from one address that the provider refuses: codes are not typed, so nobody mistypes them.
const CODES: u32 = 10;
/// Attempts from one address, or for one login with known browsers, that wait for a comparison: few, so that
/// others get a turn.
const WAITING: u32 = 4;
/// The maximum number of counters; beyond it the older half is forgotten.
const MAX_COUNTERS: usize = 30_000;

#[derive(Default)]
pub(in crate::admin) struct Attempts(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    failures: HashMap<Key, Count>,
    waiting: HashMap<Key, u32>,
}

/// What is being tried.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) enum SignInAttempt<'a> {
    /// `known`: the account has signed in with this browser before. Then only its failures with this browser
    /// count, so that nobody else can lock the account's owner out.
    Password {
        login: &'a str,
        known: bool,
    },
    Provider,
}

/// An attempt counts as a failure from its start, unless it ends before a comparison or succeeds.
#[must_use]
pub(in crate::admin) struct ActiveAttempt<'a> {
    attempts: &'a Attempts,
    keys: Vec<(Key, u32)>,
    /// In whose queue the attempt waits.
    waits: Option<Key>,
    compared: bool,
}

/// The login is kept as a digest, because users sometimes type their password in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Pair([u8; 32], IpAddr),
    /// With a known browser.
    Known([u8; 32], IpAddr),
    Address(IpAddr),
    Login([u8; 32]),
    Provider(IpAddr),
}

#[derive(Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum AttemptRefused {
    /// Too many failures; how long to wait.
    TooMany(Duration),
    /// Too many attempts from this address, or for this login, are waiting.
    Busy,
}

impl Attempts {
    /// Counts a failure in advance, so that parallel attempts cannot exceed the limit.
    pub(in crate::admin) fn begin(
        &self,
        attempt: SignInAttempt<'_>,
        client: IpAddr,
        now: Instant,
    ) -> Result<ActiveAttempt<'_>, AttemptRefused> {
        let Counts { failures, waiting } = &mut *self.0.lock();
        let client = network::of_client(client);
        let keys = keys(attempt, client);
        let late = keys.iter().filter_map(|(key, most)| {
            let count = failures.get(key).filter(|count| now < count.since + WINDOW)?;
            (count.failures >= *most).then(|| count.since + WINDOW - now)
        });
        if let Some(wait) = late.max() {
            return Err(AttemptRefused::TooMany(wait));
        }
        // A known browser does not wait behind strangers at its address.
        let waits = match keys[0].0 {
            Key::Known(login, _) => Some(Key::Login(login)),
            Key::Provider(_) => None,
            Key::Pair(..) | Key::Address(_) | Key::Login(_) => Some(Key::Address(client)),
        };
        if let Some(key) = waits {
            let waiting = waiting.entry(key).or_default();
            if *waiting >= WAITING {
                return Err(AttemptRefused::Busy);
            }
            *waiting += 1;
        }
        if failures.len() + keys.len() > MAX_COUNTERS {
            make_room(failures, now);
        }
        for (key, _) in &keys {
            let count = failures.entry(*key).or_insert(Count { since: now, failures: 0 });
            if count.since + WINDOW <= now {
                *count = Count { since: now, failures: 0 };
            }
            count.failures += 1;
        }
        Ok(ActiveAttempt { attempts: self, keys, waits, compared: false })
    }
}

impl ActiveAttempt<'_> {
    /// Marks the comparison as begun: from here on the attempt counts, even if the client disconnects.
    pub(in crate::admin) fn compare(&mut self) {
        self.compared = true;
        self.leave_queue();
    }

    /// Ends a successful attempt and clears the failures of its login from this address.
    pub(in crate::admin) fn succeed(mut self) {
        self.compared = false;
        let mut counts = self.attempts.0.lock();
        for (key, _) in &self.keys {
            if matches!(key, Key::Pair(..) | Key::Known(..)) {
                counts.failures.remove(key);
            }
        }
    }

    fn leave_queue(&mut self) {
        let Some(key) = self.waits.take() else { return };
        let waiting = &mut self.attempts.0.lock().waiting;
        if let Some(count) = waiting.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&key);
            }
        }
    }
}

impl Drop for ActiveAttempt<'_> {
    fn drop(&mut self) {
        self.leave_queue();
        if self.compared {
            return;
        }
        let failures = &mut self.attempts.0.lock().failures;
        for (key, _) in &self.keys {
            if let Some(count) = failures.get_mut(key) {
                count.failures = count.failures.saturating_sub(1);
                if count.failures == 0 {
                    // Otherwise attempts without a comparison, which cost nothing, would push out others'
                    // failures.
                    failures.remove(key);
                }
            }
        }
    }
}

fn keys(attempt: SignInAttempt<'_>, client: IpAddr) -> Vec<(Key, u32)> {
    let SignInAttempt::Password { login, known } = attempt else {
        return vec![(Key::Provider(client), CODES)];
    };
    let login = *blake3::hash(login.to_ascii_lowercase().as_bytes()).as_bytes();
    if known {
        return vec![(Key::Known(login, client), PAIR)];
    }
    vec![(Key::Pair(login, client), PAIR), (Key::Address(client), ADDRESS), (Key::Login(login), LOGIN)]
}

fn make_room(counts: &mut HashMap<Key, Count>, now: Instant) {
    counts.retain(|_, count| now < count.since + WINDOW);
    if counts.len() > MAX_COUNTERS / 2 {
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

    impl Attempts {
        /// Tries a wrong password; whether it was compared.
        fn fail(&self, attempt: SignInAttempt<'_>, client: IpAddr, now: Instant) -> bool {
            self.begin(attempt, client, now).map(|mut attempt| attempt.compare()).is_ok()
        }
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
                    assert!(attempts.fail(unknown(&login), client(&from), now), "{name}");
                }
            }
            assert_eq!(attempts.fail(unknown(login), client(from), now), passes, "{name}");
            assert!(attempts.fail(unknown(login), client(from), now + WINDOW), "{name}, later");
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

    /// No flood of failures, from many addresses or from the same one, locks out a known browser.
    #[test]
    fn strangers_do_not_lock_out_who_is_known() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let here = IpAddr::from([10, 0, 0, 1]);
        for number in 0..LOGIN {
            let from = IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()]);
            assert!(attempts.fail(unknown("ann"), from, now));
        }
        for number in 0..ADDRESS {
            assert!(attempts.fail(unknown(&number.to_string()), here, now));
        }
        let ann = SignInAttempt::Password { login: "ann", known: true };
        assert!(!attempts.fail(unknown("ann"), here, now), "another browser");
        for _ in 0..PAIR {
            assert!(attempts.fail(ann, here, now), "the known one");
        }
        assert!(!attempts.fail(ann, here, now), "its own failures count");
    }

    #[test]
    fn a_success_forgives() {
        let (attempts, now, client) = (Attempts::default(), Instant::now(), [10, 0, 0, 1].into());
        for _ in 0..10 * LOGIN {
            let mut attempt = attempts.begin(unknown("ann"), client, now).ok().unwrap();
            attempt.compare();
            attempt.succeed();
        }
    }

    #[test]
    fn what_was_not_compared_was_no_attempt() {
        let (attempts, now, client) = (Attempts::default(), Instant::now(), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..10 * LOGIN {
            drop(attempts.begin(unknown("ann"), client, now).ok().unwrap());
        }
        assert!(attempts.fail(unknown("ann"), client, now));
        assert!(attempts.0.lock().waiting.is_empty());
    }

    #[test]
    fn what_was_not_compared_pushes_nothing_out() {
        let (attempts, now, client) = (Attempts::default(), Instant::now(), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..PAIR {
            assert!(attempts.fail(unknown("ann"), client, now));
        }
        for number in 0..MAX_COUNTERS {
            drop(attempts.begin(unknown(&number.to_string()), client, now).ok().unwrap());
        }
        assert!(!attempts.fail(unknown("ann"), client, now));
    }

    #[test]
    fn few_wait_from_one_address() {
        let (attempts, now, client) = (Attempts::default(), Instant::now(), IpAddr::from([10, 0, 0, 1]));
        let begin = |login, client| attempts.begin(login, client, now);
        let mut waiting: Vec<_> = (0..WAITING).map(|_| begin(unknown("ann"), client).ok().unwrap()).collect();
        assert_eq!(begin(unknown("bob"), client).err(), Some(AttemptRefused::Busy));
        assert!(begin(unknown("bob"), [10, 0, 0, 2].into()).is_ok(), "from elsewhere");
        let known = |login, at: u8| {
            attempts.begin(SignInAttempt::Password { login, known: true }, [10, 0, 1, at].into(), now)
        };
        let bobs: Vec<_> = (1..).map_while(|at| known("bob", at).ok()).collect();
        assert_eq!(bobs.len(), WAITING as usize, "for one login with known browsers, wherever they are");
        assert!(known("ann", 1).is_ok());
        assert!(begin(SignInAttempt::Password { login: "eve", known: true }, client).is_ok());
        waiting[0].compare();
        assert!(begin(unknown("bob"), client).is_ok(), "one has its turn");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..u32::try_from(MAX_COUNTERS).unwrap() {
            let client = IpAddr::from(number.to_be_bytes());
            let at = now + Duration::from_millis(u64::from(number));
            assert!(attempts.fail(unknown(&number.to_string()), client, at));
        }
        assert!(attempts.0.lock().failures.len() <= MAX_COUNTERS);
    }
}
