//! What stands in `[upstream.NAME]`.

use std::sync::Arc;

use http::HeaderValue;

use super::{
    address::upstream_url,
    problem::Problems,
    section::{Section, Text},
    service::collect,
};
use crate::proxy::{Balance, Ejection, UpstreamSettings};

/// `None` where something essential is missing; that has been reported.
pub(super) fn upstream(
    problems: &Problems<'_>,
    name: &Text,
    section: &Section<'_>,
) -> Option<UpstreamSettings> {
    let texts = section.texts("urls");
    if texts.is_empty() && section.is_written("urls") {
        problems.error(
            &section.at("urls"),
            "`urls` is empty",
            "name at least one, such as \"http://127.0.0.1:8090\"",
        );
    }
    let urls = collect(problems, texts, upstream_url);
    let host = section.text("host").and_then(|text| {
        let authority = text.get_ref().parse::<http::uri::Authority>().ok();
        let sound = authority.filter(|a| !a.host().is_empty() && !a.as_str().contains('@'));
        if sound.is_none() {
            problems.error(&text.span(), format!("{:?} cannot be a Host field", text.get_ref()), "");
        }
        HeaderValue::from_str(sound?.as_str()).ok()
    });
    let (timeouts, eject) = (section.table("timeouts"), section.table("eject"));
    Some(UpstreamSettings {
        name: Arc::from(name.get_ref().as_str()),
        urls,
        host,
        connect_timeout: timeouts.duration("connect")?,
        first_byte_timeout: timeouts.duration("first_byte")?,
        body_timeout: timeouts.duration("body_idle")?,
        idle_timeout: timeouts.duration("pool_idle")?,
        balance: Balance::RoundRobin,
        ejection: Ejection {
            failures: u32::try_from(eject.count("failures")?).ok()?,
            back_off: eject.duration("for")?,
        },
    })
}
