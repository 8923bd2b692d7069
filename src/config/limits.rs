//! `[[limits]]` and `service.NAME.limits`: rates, quotas and caps.

use std::{num::NonZeroU32, time::Duration};

use super::{
    address::Wrong,
    problem::Problems,
    section::{Section, Text},
    units,
};
use crate::{
    authz::rules::{ServiceKey, ServiceSpec},
    settings::{Limit, LimitKey, Limits, Queue, Rate},
};

/// Counts are in memory: what takes longer than this to come back means nothing.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn limits(
    problems: &Problems<'_>,
    root: &Section<'_>,
    services: &[(Text, Section<'_>)],
    sound: &[ServiceSpec],
) -> Limits {
    let read = |section: &Section<'_>| -> Vec<Limit> {
        section.tables("limits").iter().filter_map(|written| limit(problems, written)).collect()
    };
    let own = services.iter().filter_map(|(name, section)| {
        // Judged even where the service is not sound.
        let limits = read(section);
        let known = sound.iter().any(|service| service.key.as_str() == name.get_ref());
        Some((ServiceKey::parse(name.get_ref()).filter(|_| known && !limits.is_empty())?, limits))
    });
    Limits { everywhere: read(root), services: own.collect() }
}

/// `None` where it limits nothing; that has been reported.
fn limit(problems: &Problems<'_>, section: &Section<'_>) -> Option<Limit> {
    let per = match section.text("per")?.get_ref().as_str() {
        "token" => LimitKey::Token,
        "user" => LimitKey::User,
        "address" => LimitKey::Address,
        "service" => LimitKey::Service,
        _ => return None,
    };
    let number = |key| section.count(key).and_then(|n| NonZeroU32::new(u32::try_from(n).ok()?));
    let (burst, concurrent) = (number("burst"), number("concurrent"));
    let written = section.text("rate");
    if written.is_none() {
        if section.is_written("burst") {
            problems.error(&section.at("burst"), "`burst` is of no use without `rate`", "");
        } else if concurrent.is_none() && !section.is_written("rate") && !section.is_written("concurrent") {
            let advice = "write `rate = \"100/s\"` or `concurrent = 10`";
            problems.error(&section.at, "this limit limits nothing", advice);
        }
    }
    let rate = match written.map(|text| (rate(text.get_ref(), burst), text.span())) {
        None => None,
        Some((Ok(rate), _)) => Some(rate),
        Some((Err((message, advice)), at)) => {
            problems.error(&at, message, advice);
            return None;
        }
    };
    for key in ["queue", "queue_timeout"] {
        if concurrent.is_none() && section.is_written(key) {
            problems.error(&section.at(key), format!("`{key}` is of no use without `concurrent`"), "");
        }
    }
    let queue = Queue {
        length: section.count("queue").unwrap_or_default(),
        timeout: section.duration("queue_timeout").unwrap_or_default(),
    };
    (rate.is_some() || concurrent.is_some()).then_some(Limit { per, rate, concurrent, queue })
}

pub(super) fn rate(text: &str, burst: Option<NonZeroU32>) -> Result<Rate, Wrong> {
    let (count, window) = text.split_once('/').unwrap_or((text, ""));
    let count = count.trim().replace('_', "").parse::<NonZeroU32>().ok().filter(|n| n.get() <= 10_000_000);
    let window = window.trim();
    let bare = || units::duration(&format!("1{window}"));
    let window = units::duration(window).or_else(bare).filter(|window| !window.is_zero());
    let (Some(count), Some(window)) = (count, window) else {
        let message = format!("{text:?} is not a rate");
        return Err((
            message,
            "write a number and a time, such as \"100/s\", \"10/5m\" or \"10000/d\"".into(),
        ));
    };
    let burst = burst.unwrap_or(count);
    if window.checked_mul(burst.get()).is_none_or(|all| all / count.get() > LONGEST) {
        return Err(("so large a burst takes longer than a year to come back".into(), String::new()));
    }
    Ok(Rate { count, window, burst })
}
