//! Chooses the next URL of an upstream by index and weight. The caller says which URLs are usable.

use std::cell::RefCell;

use crate::settings::{Balance, UpstreamSettings};

/// One worker's balancer for one upstream.
pub struct LoadBalancer {
    balance: Balance,
    weights: Vec<u32>,
    /// Each URL's credit in smooth weighted round robin.
    credit: RefCell<Vec<i64>>,
    /// Hashes of the URLs' text, so that neither their order nor a restart reassigns a client.
    seeds: Vec<u64>,
}

impl LoadBalancer {
    pub fn new(settings: &UpstreamSettings) -> Self {
        let seeds = settings.urls.iter().map(|one| fingerprint(one.url.to_string().as_bytes()));
        Self {
            balance: settings.balance,
            weights: settings.urls.iter().map(|one| one.weight).collect(),
            credit: RefCell::new(vec![0; settings.urls.len()]),
            seeds: seeds.collect(),
        }
    }

    /// Chooses an index that is `usable` and has a weight. `load` is the number of requests under way at an
    /// index; `key` is the client's fingerprint.
    pub fn choose(
        &self,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> usize,
        key: impl FnOnce() -> u64,
    ) -> Option<usize> {
        let usable = |place: usize| self.weights[place] > 0 && usable(place);
        match self.balance {
            Balance::RoundRobin => self.next_in_rotation(usable),
            Balance::LeastRequests => {
                // The load after this request, relative to the weight. Compared crosswise to avoid fractions.
                let burden = |place: usize| (load(place) as u64 + 1, u64::from(self.weights[place]));
                let lighter = |a: (u64, u64), b: (u64, u64)| (a.0 * b.1).cmp(&(b.0 * a.1));
                let lightest = self
                    .indices()
                    .filter(|place| usable(*place))
                    .map(burden)
                    .min_by(|a, b| lighter(*a, *b))?;
                self.next_in_rotation(|place| usable(place) && lighter(burden(place), lightest).is_eq())
            }
            Balance::Hash => {
                let key = key();
                let score = |place: usize| {
                    -f64::from(self.weights[place]) / rendezvous_score(key, self.seeds[place]).ln()
                };
                self.indices().filter(|place| usable(*place)).max_by(|a, b| score(*a).total_cmp(&score(*b)))
            }
        }
    }

    /// Smooth weighted round robin: weights 3 and 1 give a a b a, never a a a b.
    fn next_in_rotation(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let credit = &mut *self.credit.borrow_mut();
        let mut total = 0;
        let mut best: Option<usize> = None;
        for place in self.indices().filter(|place| usable(*place)) {
            let weight = i64::from(self.weights[place]);
            total += weight;
            credit[place] += weight;
            if best.is_none_or(|best| credit[place] > credit[best]) {
                best = Some(place);
            }
        }
        credit[best?] -= total;
        best
    }

    fn indices(&self) -> std::ops::Range<usize> {
        0..self.weights.len()
    }
}

/// A hash of a text that is the same on every machine and in every version.
pub fn fingerprint(text: &[u8]) -> u64 {
    // FNV-1a.
    text.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Rendezvous hashing: a number between 0 and 1 (both excluded) for each pair. Each key has its own order of
/// URLs, so removing a URL reassigns only that URL's keys.
fn rendezvous_score(key: u64, seed: u64) -> f64 {
    // The finaliser of splitmix64: every input bit affects every output bit.
    let mut bits = key ^ seed.rotate_left(32);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let whole = (bits >> 11) as f64;
    (whole + 0.5) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{UpstreamUrl, WeightedUrl};

    fn balancer(balance: Balance, weights: &[u32]) -> LoadBalancer {
        let url = |place: usize| UpstreamUrl::parse(&format!("http://10.0.0.{place}:80")).expect("a url");
        let mut settings = UpstreamSettings::new("a", Vec::new());
        settings.balance = balance;
        settings.urls = weights
            .iter()
            .enumerate()
            .map(|(place, weight)| WeightedUrl { url: url(place), weight: *weight })
            .collect();
        LoadBalancer::new(&settings)
    }

    fn none() -> u64 {
        unreachable!("only hash asks who it is")
    }

    #[test]
    fn weighted_round_robin_is_smooth() {
        let check = |row: &str, weights: &[u32], out: &[usize], expected: &str| {
            let balancer = balancer(Balance::RoundRobin, weights);
            let turns =
                (0..expected.len()).map(|_| balancer.choose(|place| !out.contains(&place), |_| 0, none));
            let chosen: String =
                turns.map(|turn| turn.map_or('-', |place| (b'a' + place as u8) as char)).collect();
            assert_eq!(chosen, expected, "{row}");
        };
        check("equal", &[1, 1, 1], &[], "abcabc");
        check("three to one", &[3, 1], &[], "aabaaaba");
        check("one is drained", &[1, 0, 1], &[], "acac");
        check("one is out", &[1, 1, 1], &[1], "acac");
        check("nobody is left", &[1, 0], &[0], "--");
    }

    #[test]
    fn least_busy_url_is_chosen() {
        let check = |row: &str, weights: &[u32], load: &[usize], expected: usize| {
            let balancer = balancer(Balance::LeastRequests, weights);
            assert_eq!(balancer.choose(|_| true, |place| load[place], none), Some(expected), "{row}");
        };
        check("one is idle", &[1, 1, 1], &[2, 0, 1], 1);
        check("a double weight bears double", &[2, 1], &[2, 1], 0);
        check("but no more", &[2, 1], &[4, 1], 1);
        check("one is drained", &[0, 1], &[0, 9], 1);
        let even = balancer(Balance::LeastRequests, &[1, 1]);
        let turns: Vec<_> = (0..4).filter_map(|_| even.choose(|_| true, |_| 0, none)).collect();
        assert_eq!(turns, [0, 1, 0, 1], "equals take turns");
    }

    #[test]
    fn removed_url_reassigns_only_its_own_keys() {
        let balancer = balancer(Balance::Hash, &[1, 1, 2, 0]);
        let place = |user: u32, out: Option<usize>| {
            let key = fingerprint(format!("user-{user}").as_bytes());
            balancer.choose(|place| Some(place) != out, |_| 0, || key).expect("somebody is left")
        };
        let mut share = [0_u32; 4];
        for user in 0..4_000 {
            let home = place(user, None);
            share[home] += 1;
            assert_eq!(place(user, None), home, "the same every time");
            for out in (0..3).filter(|out| *out != home) {
                assert_eq!(place(user, Some(out)), home, "moved though its own is there");
            }
            assert_ne!(place(user, Some(home)), home);
        }
        for (place, expected) in [1_000, 1_000, 2_000, 0].into_iter().enumerate() {
            assert!(share[place].abs_diff(expected) <= expected / 8, "{share:?}");
        }
    }
}
