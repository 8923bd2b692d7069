//! `service.NAME.credentials`: where a token may stand in a request.

use super::{
    address::Wrong,
    problem::Problems,
    section::Section,
    service::collect,
    suggest::{closest, did_you_mean},
};
use crate::authz::carriers::{Carrier, Carriers};

/// More fields than this belong to several services; each is looked for in every request.
const MOST_HEADERS: usize = 8;

pub(super) fn credentials(problems: &Problems<'_>, section: &Section<'_>) -> Carriers {
    let texts = section.texts("credentials");
    let at = section.at("credentials");
    if texts.is_empty() && section.is_written("credentials") {
        problems.error(&at, "`credentials` is empty: no token would pass", "name at least \"bearer\"");
    }
    let mut carriers = Carriers::NONE;
    for carrier in collect(problems, texts, carrier) {
        if carriers.accepts(&carrier) {
            problems.error(&at, format!("`credentials` lists \"{carrier}\" twice"), "list it once");
        }
        carriers.insert(carrier);
    }
    if carriers.headers.len() > MOST_HEADERS {
        problems.error(&at, format!("`credentials` lists more than {MOST_HEADERS} fields"), "list fewer");
    }
    carriers
}

fn carrier(text: &str) -> Result<Carrier, Wrong> {
    if let Some(carrier) = Carrier::parse(text) {
        return Ok(carrier);
    }
    if let Some(name) = text.strip_prefix("header:") {
        let message = format!("the field {name:?} cannot hold a token");
        let advice = "name one of the client's own, such as \"header:X-Api-Key\": letters, digits and `-`, and no \
                      field that frames or routes a request, tells of its sender, or has a meaning of its own";
        return Err((message, advice.into()));
    }
    let known = ["bearer", "basic", "raw", "websocket", "header:NAME"];
    let advice = closest(text, known).map_or_else(|| format!("known: {}", known.join(", ")), did_you_mean);
    Err((format!("{text:?} is no place for a token"), advice))
}
