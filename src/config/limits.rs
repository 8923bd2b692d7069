//! `[[limits]]` and `service.NAME.limits`: rates, quotas and concurrency limits.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use super::{
    section::{Section, SpannedText, ValueError, wrong},
    units,
};
use crate::{
    authz::rules::{ServiceKey, ServiceSpec},
    settings::{Limit, Limits, Queue, Rate},
};

/// The longest time in which a burst is refilled. Counts are in memory, so a longer one would be meaningless.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn limits(
    root: &Section<'_>,
    services: &[(SpannedText<'_>, Section<'_>)],
    sound: &[ServiceSpec],
) -> Limits {
    let read = |section: &Section<'_>| section.tables("limits").iter().filter_map(limit).collect::<Vec<_>>();
    let sound: HashSet<&str> = sound.iter().map(|service| service.key.as_str()).collect();
    let own = services.iter().filter_map(|(name, section)| {
        // Read even if the service has errors, so that errors in its limits are reported too.
        let limits = read(section);
        let counts = !limits.is_empty() && sound.contains(name.value.as_str());
        Some((ServiceKey::parse(&name.value).filter(|_| counts)?, limits))
    });
    Limits { everywhere: read(root), services: own.collect() }
}

/// `None` if it limits nothing, which has been reported.
fn limit(section: &Section<'_>) -> Option<Limit> {
    let per = section.word("per")?;
    let number = |key| section.count(key).and_then(NonZeroU32::new);
    let (burst, concurrent) = (number("burst"), number("concurrent"));
    let written = section.text("rate");
    if written.is_none() {
        if section.is_set("burst") {
            section.error("burst", "`burst` has no effect without `rate`", "");
        } else if concurrent.is_none() && !section.is_set("rate") && !section.is_set("concurrent") {
            let advice = "write `rate = \"100/s\"` or `concurrent = 10`";
            section.document.error(&section.at, "this limit has neither `rate` nor `concurrent`", advice);
        }
    }
    let rate = match written {
        None => None,
        Some(text) => Some(text.parse(|text| rate(text, burst))?),
    };
    for key in ["queue", "queue_timeout"] {
        if concurrent.is_none() && section.is_set(key) {
            section.error(key, format!("`{key}` has no effect without `concurrent`"), "");
        }
    }
    let queue = Queue {
        length: section.count("queue").unwrap_or_default(),
        timeout: section.duration("queue_timeout").unwrap_or_default(),
    };
    (rate.is_some() || concurrent.is_some()).then_some(Limit { per, rate, concurrent, queue })
}

pub(super) fn rate(text: &str, burst: Option<NonZeroU32>) -> Result<Rate, ValueError> {
    let (count, window) = text.split_once('/').unwrap_or((text, ""));
    let count = count.trim().replace('_', "").parse::<NonZeroU32>().ok().filter(|n| n.get() <= 10_000_000);
    let window = window.trim();
    let bare = || units::duration(&format!("1{window}"));
    let window = units::duration(window).or_else(bare).filter(|window| !window.is_zero());
    let (Some(count), Some(window)) = (count, window) else {
        let advice = "write a number and a time, such as \"100/s\", \"10/5m\" or \"10000/d\"";
        return wrong(format!("{text:?} is not a rate"), advice);
    };
    let burst = burst.unwrap_or(count);
    if window.checked_mul(burst.get()).is_none_or(|all| all / count.get() > MAX_DURATION) {
        return wrong("such a large burst takes longer than a year to refill", "");
    }
    Ok(Rate { count, window, burst })
}
