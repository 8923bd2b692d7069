//! The last hour in steps of ten seconds, for the chart on the page: what each step added to the counters.
//! Its size is bounded, because a step contains only services that had requests.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Metrics,
    cell::{BOUNDS, Distribution},
    worker::{ServiceTable, by_service},
};
use crate::authz::{reason::Reason, time::Timestamp};

/// The length of a step.
pub const STEP_LENGTH: Duration = Duration::from_secs(10);
/// The number of steps that are kept: an hour.
const MAX_STEPS: usize = 360;

#[derive(Default)]
pub struct History(Mutex<HistoryState>);

#[derive(Default)]
struct HistoryState {
    /// The counters at the end of the last step.
    last: Option<BTreeMap<String, RequestStats>>,
    steps: VecDeque<Step>,
}

/// The requests of one step by service. Requests that no service owns have the empty key.
#[derive(Clone, Debug)]
pub struct Step {
    /// The end of the step.
    pub at: Timestamp,
    pub services: BTreeMap<String, RequestStats>,
}

/// The number of requests by reason, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// By the reason's code; only reasons that occurred.
    requests: BTreeMap<&'static str, (Reason, u64)>,
    latency: Distribution,
}

impl History {
    /// Ends a step. The first call only sets when the first step begins.
    pub fn step(&self, metrics: &Metrics, at: Timestamp) {
        let now = metrics.current_counts();
        let mut kept = self.0.lock();
        if let Some(before) = kept.last.replace(now.clone()) {
            if kept.steps.len() == MAX_STEPS {
                kept.steps.pop_front();
            }
            kept.steps.push_back(Step::new(at, now, &before));
        }
    }

    /// Returns the steps from the oldest to the one that has begun and ends, so far, at `now`.
    pub fn steps(&self, metrics: &Metrics, now: Timestamp) -> Vec<Step> {
        let counts = metrics.current_counts();
        let kept = self.0.lock();
        let current = kept.last.as_ref().map(|before| Step::new(now, counts, before));
        kept.steps.iter().cloned().chain(current).collect()
    }
}

impl Step {
    /// What was counted since `before`.
    fn new(
        at: Timestamp,
        now: BTreeMap<String, RequestStats>,
        before: &BTreeMap<String, RequestStats>,
    ) -> Self {
        let since = |(service, counted): (String, RequestStats)| {
            let added = counted.since(before.get(&service));
            (added.requests() > 0).then_some((service, added))
        };
        Self { at, services: now.into_iter().filter_map(since).collect() }
    }
}

impl Metrics {
    fn current_counts(&self) -> BTreeMap<String, RequestStats> {
        let workers = self.workers.lock().clone();
        let names = self.services.lock().clone();
        let stats = |tables: Vec<&ServiceTable>| {
            let mut stats = RequestStats::default();
            tables.into_iter().for_each(|table| stats.add(table));
            stats
        };
        by_service(&workers, &names)
            .into_iter()
            .map(|(name, tables)| (name.to_owned(), stats(tables)))
            .collect()
    }
}

impl RequestStats {
    fn add(&mut self, table: &ServiceTable) {
        for &reason in Reason::ALL {
            let count = table.requests_of(reason);
            if count > 0 {
                self.requests.entry(reason.code()).or_insert((reason, 0)).1 += count;
            }
        }
        table.latency.add_to(&mut self.latency);
    }

    /// Returns what was added since `before`. Counters are read one by one, so it may miss requests that end
    /// meanwhile. It is never below 0.
    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        let mut added = self.clone();
        for (code, (_, count)) in &mut added.requests {
            *count = count.saturating_sub(before.requests.get(code).map_or(0, |(_, count)| *count));
        }
        added.requests.retain(|_, (_, count)| *count > 0);
        added.latency.combine(&before.latency, u64::saturating_sub);
        added
    }

    pub fn merge(&mut self, other: &Self) {
        for (code, (reason, count)) in &other.requests {
            self.requests.entry(code).or_insert((*reason, 0)).1 += count;
        }
        self.latency.combine(&other.latency, u64::wrapping_add);
    }

    pub fn requests(&self) -> u64 {
        self.requests.values().map(|(_, count)| count).sum()
    }

    /// Returns the requests that were neither forwarded nor answered, by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (Reason, u64)> {
        let all = self.requests.values().copied();
        all.filter(|(reason, _)| !matches!(reason.outcome(), "forwarded" | "answered"))
    }

    pub fn refused(&self) -> u64 {
        self.refusals().map(|(_, count)| count).sum()
    }

    /// Returns the number of refused requests that the operator has to look into.
    pub fn failed(&self) -> u64 {
        let failed = self.refusals().filter(|(reason, _)| reason.outcome() == "failed");
        failed.map(|(_, count)| count).sum()
    }

    /// Estimates the duration in milliseconds that this share of the requests did not exceed, as if requests
    /// were spread evenly within a bucket. Right to within a factor of 2.5. `None` without requests.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.latency.buckets.iter().sum();
        let (mut below, mut lower) = (0, 0);
        for (count, bound) in self.latency.buckets.iter().zip(BOUNDS.iter().chain(BOUNDS.last())) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate for display")]
            let (rank, before, inside) = (share * all as f64, below as f64, *count as f64);
            below += count;
            #[expect(clippy::cast_precision_loss, reason = "an estimate for display")]
            if *count > 0 && before + inside >= rank {
                let part = ((rank - before) / inside).clamp(0.0, 1.0);
                return Some((lower as f64 + (*bound - lower) as f64 * part) / 1e6);
            }
            lower = *bound;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authz::rules::ServiceId;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn step_contains_the_requests_added_during_it() {
        let metrics = Metrics::new(Arc::default());
        let worker = metrics.worker();
        metrics.services.lock().insert(ServiceId(3), "hub".into());
        let history = History::default();
        let record = |service, reason, millis| {
            worker.record(service, reason, 200, Duration::from_millis(millis), None, 0, 0);
        };
        let recorded = |now| -> Vec<u64> {
            let steps = history.steps(&metrics, now);
            steps.iter().map(|step| step.services.values().map(RequestStats::requests).sum()).collect()
        };
        record(None, Reason::MissingCredentials, 1);
        history.step(&metrics, at(0));
        assert_eq!(recorded(at(0)), [0], "what was before is not known");
        for _ in 0..3 {
            record(Some(ServiceId(3)), Reason::Ok, 4);
        }
        record(Some(ServiceId(3)), Reason::ScopeDenied, 40);
        assert_eq!(recorded(at(7)), [4], "the step has not ended");
        history.step(&metrics, at(10));
        history.step(&metrics, at(20));
        assert_eq!(recorded(at(21)), [4, 0, 0]);
        let steps = history.steps(&metrics, at(21));
        assert_eq!(steps.iter().map(|step| step.at).collect::<Vec<_>>(), [at(10), at(20), at(21)]);
        let hub = &steps[0].services["hub"];
        assert_eq!((hub.requests(), hub.refused()), (4, 1));
        assert_eq!(hub.refusals().collect::<Vec<_>>(), [(Reason::ScopeDenied, 1)]);
        let rounded = |share| hub.quantile(share).map(f64::round);
        assert_eq!((rounded(0.5), rounded(0.99), hub.quantile(1.0)), (Some(4.0), Some(49.0), Some(50.0)));
        assert_eq!(hub.failed(), 0, "a scope is for the client to look into");
        assert!(!steps[0].services.contains_key(""), "nobody asked for what is no service");
        assert!(steps[1].services.is_empty());
        let mut sum = RequestStats::default();
        steps.iter().flat_map(|step| step.services.values()).for_each(|counted| sum.merge(counted));
        assert_eq!((sum.requests(), RequestStats::default().quantile(0.5)), (4, None));
    }

    #[test]
    fn history_keeps_an_hour() {
        let metrics = Metrics::new(Arc::default());
        let history = History::default();
        for second in 0..1000 {
            history.step(&metrics, at(second));
        }
        let steps = history.steps(&metrics, at(1000));
        assert_eq!((steps.len(), steps[0].at), (MAX_STEPS + 1, at(640)));
    }
}
