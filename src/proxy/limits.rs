//! Rate limits, quotas and concurrency limits per token, user, address or service. All workers share one
//! count per limit, so limits are exact. Without configured limits nothing is counted.

mod concurrency;
mod rate;
mod table;

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use self::{concurrency::ConcurrencyLimit, rate::RateLimit};
pub use self::{
    concurrency::{ConcurrencySlot, Waiting},
    table::{CountKey, Table},
};
use crate::{
    authz::{
        decide::Permit,
        network,
        reason::Reason,
        rules::{Rules, Service, ServiceKey},
    },
    settings::{Limit, LimitKey, Limits, Queue, Rate},
};

/// The counts of this process. A limit that a reload leaves unchanged keeps its count.
#[derive(Debug, Default)]
pub struct LimitCounters {
    rates: Mutex<HashMap<(Option<ServiceKey>, LimitKey, Rate), Weak<RateLimit>>>,
    /// The cap is not part of the key, so requests under way still count after it changes.
    concurrency: Mutex<HashMap<(Option<ServiceKey>, LimitKey), Weak<ConcurrencyLimit>>>,
}

/// The limits of one service, with their counts.
pub struct ServiceLimits {
    limits: Vec<ActiveLimit>,
    policy: HeaderValue,
}

struct ActiveLimit {
    per: LimitKey,
    rate: Option<(Arc<RateLimit>, String)>,
    cap: Option<(Arc<ConcurrencyLimit>, NonZeroU32, Queue)>,
}

/// What one request has taken. Dropping it releases its concurrency slots.
#[derive(Debug, Default)]
pub struct LimitPermit {
    slots: Vec<ConcurrencySlot>,
    rates: Vec<(Arc<RateLimit>, CountKey)>,
    /// The response's `RateLimit` and `RateLimit-Policy` fields.
    pub fields: Option<RateLimitFields>,
}

/// The rate limit fields of draft-ietf-httpapi-ratelimit-headers.
#[derive(Clone, Debug)]
pub struct RateLimitFields {
    state: HeaderValue,
    policy: HeaderValue,
}

/// A limit that is exhausted, and how long to wait.
#[derive(Debug)]
pub struct Exceeded {
    pub reason: Reason,
    pub wait: Duration,
    pub fields: Option<Box<RateLimitFields>>,
    /// A position in the queue for a slot, if there is one.
    pub waiting: Option<Waiting>,
}

/// `Retry-After` of a concurrency limit. An estimate, because the end of a request cannot be predicted.
const RETRY_AFTER_CONCURRENCY: Duration = Duration::from_secs(1);

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl LimitCounters {
    /// Returns the limits of every service, indexed by service id; `None` for a service without limits.
    pub fn of(&self, limits: &Limits, rules: &Rules) -> Vec<Option<Rc<ServiceLimits>>> {
        let mut all = Vec::new();
        if limits.everywhere.is_empty() && limits.services.is_empty() {
            return all;
        }
        for service in rules.services() {
            let own = limits.services.get(&service.spec.key).into_iter().flatten();
            let everywhere = limits.everywhere.iter().map(|limit| self.active_limit(None, limit));
            let own = own.map(|limit| self.active_limit(Some(&service.spec.key), limit));
            let at = usize::from(service.id.0);
            all.resize(all.len().max(at + 1), None);
            all[at] = ServiceLimits::new(everywhere.chain(own).collect()).map(Rc::new);
        }
        all
    }

    fn active_limit(&self, service: Option<&ServiceKey>, limit: &Limit) -> ActiveLimit {
        let Limit { per, rate, concurrent, queue } = *limit;
        let rate_limit = |rate: Rate| {
            let rate_limit = shared(&self.rates, (service.cloned(), per, rate), || RateLimit::new(rate));
            (rate_limit, format!("{rate} per {}", per.as_str()))
        };
        let concurrency =
            |cap| (shared(&self.concurrency, (service.cloned(), per), ConcurrencyLimit::default), cap, queue);
        ActiveLimit { per, rate: rate.map(rate_limit), cap: concurrent.map(concurrency) }
    }
}

/// Returns the value that is still in use, or a new one.
fn shared<K: Eq + Hash, V>(all: &Mutex<HashMap<K, Weak<V>>>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    let mut all = all.lock();
    if let Some(present) = all.get(&key).and_then(Weak::upgrade) {
        return present;
    }
    all.retain(|_, one| one.strong_count() > 0);
    let new = Arc::new(make());
    all.insert(key, Arc::downgrade(&new));
    new
}

impl ServiceLimits {
    fn new(limits: Vec<ActiveLimit>) -> Option<Self> {
        if limits.is_empty() {
            return None;
        }
        let mut policy = String::new();
        for (rate_limit, name) in limits.iter().filter_map(|limit| limit.rate.as_ref()) {
            let (quota, window) = (rate_limit.burst(), rate_limit.refill_time().as_secs().max(1));
            push(&mut policy, format_args!("\"{name}\";q={quota};w={window}"));
        }
        let policy = HeaderValue::try_from(policy).expect("names and numbers are visible ASCII");
        Some(Self { limits, policy })
    }

    /// Counts a permitted request under every limit or under none. `held_slot`
    /// is the slot that it waited for.
    pub fn take(
        &self,
        permit: &Permit<'_>,
        client: IpAddr,
        now: Instant,
        held_slot: Option<ConcurrencySlot>,
    ) -> Result<LimitPermit, Exceeded> {
        let mut held_slot = held_slot;
        let mut held = LimitPermit::default();
        let mut state = String::new();
        for limit in &self.limits {
            let Some(key) = limit.per.count_key(permit, client) else { continue };
            if let Some((concurrency, cap, queue)) = &limit.cap {
                let slot = match held_slot.take_if(|slot| slot.is_for(concurrency, key)) {
                    Some(slot) => Ok(slot),
                    None => concurrency.enter(key, *cap, *queue),
                };
                match slot {
                    Ok(slot) => held.slots.push(slot),
                    Err(waiting) => {
                        held.give_back();
                        return Err(Exceeded { waiting, ..Exceeded::no_slot() });
                    }
                }
            }
            if let Some((rate_limit, name)) = &limit.rate {
                match rate_limit.take(key, now) {
                    Ok(left) => {
                        let (rest, full) = (left.rest, seconds(left.full_in));
                        push(&mut state, format_args!("\"{name}\";r={rest};t={full}"));
                        held.rates.push((Arc::clone(rate_limit), left.key));
                    }
                    Err(wait) => {
                        held.give_back();
                        let state = format!("\"{name}\";r=0;t={}", seconds(wait));
                        let fields = self.fields(state).map(Box::new);
                        return Err(Exceeded { reason: Reason::RateLimited, wait, fields, waiting: None });
                    }
                }
            }
        }
        held.fields = self.fields(state);
        Ok(held)
    }

    /// `None`: no rate limit applies to this request.
    fn fields(&self, state: String) -> Option<RateLimitFields> {
        let state = HeaderValue::try_from(state).ok().filter(|state| !state.is_empty())?;
        Some(RateLimitFields { state, policy: self.policy.clone() })
    }
}

impl LimitKey {
    /// `None`: an anonymous request has no token and no user.
    fn count_key(self, permit: &Permit<'_>, client: IpAddr) -> Option<CountKey> {
        let Service { id, .. } = permit.owner().service;
        match self {
            Self::Token => Some(CountKey::Token(permit.subject()?.token.id)),
            Self::User => Some(CountKey::User(permit.subject()?.user.ix)),
            Self::Address => Some(CountKey::Address(network::of_client(client))),
            Self::Service => Some(CountKey::Service(*id)),
        }
    }
}

impl LimitPermit {
    /// Uncounts a request that is refused after all.
    pub fn give_back(&mut self) {
        self.rates.drain(..).for_each(|(rate_limit, key)| rate_limit.give_back(key));
    }
}

impl Exceeded {
    /// No slot became free in time.
    pub fn no_slot() -> Self {
        Self {
            reason: Reason::ConcurrencyLimited,
            wait: RETRY_AFTER_CONCURRENCY,
            fields: None,
            waiting: None,
        }
    }
}

impl RateLimitFields {
    /// Replaces the upstream's fields. A list of both has no meaning (RFC 9651), and a
    /// client that obeys one limit would exceed the other.
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        let is_limit = |name: &HeaderName| {
            let name = name.as_str().strip_prefix("x-").unwrap_or(name.as_str());
            name.starts_with("ratelimit") || name.starts_with("rate-limit")
        };
        let theirs: Vec<_> = headers.keys().filter(|name| is_limit(name)).cloned().collect();
        for name in theirs {
            headers.remove(name);
        }
        headers.insert(RATE_LIMIT, self.state.clone());
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
    }
}

/// Appends a member to a list (RFC 9651).
fn push(list: &mut String, member: fmt::Arguments<'_>) {
    list.push_str(if list.is_empty() { "" } else { ", " });
    let _ = list.write_fmt(member);
}

/// In seconds, rounded up.
pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_rate_limit_fields_are_sent() {
        let ours = RateLimitFields {
            state: HeaderValue::from_static("\"1/s\";r=0;t=1"),
            policy: HeaderValue::from_static("\"1/s\";q=1;w=1"),
        };
        let mut headers = HeaderMap::new();
        for name in [
            "ratelimit",
            "ratelimit-policy",
            "ratelimit-remaining",
            "x-ratelimit-limit",
            "x-rate-limit-reset",
        ] {
            headers.insert(name, HeaderValue::from_static("9"));
        }
        headers.insert("x-rating", HeaderValue::from_static("9"));
        ours.set_headers(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["ratelimit", "ratelimit-policy", "x-rating"]);
    }
}
