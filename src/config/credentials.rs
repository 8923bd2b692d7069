//! `service.NAME.credentials`: where a request may carry a token.

use super::{
    section::{Section, ValueError, wrong},
    suggest::advice,
};
use crate::authz::carriers::{Carrier, Carriers};

/// A service with more fields is really several services. Each field is looked up in every request.
const MAX_HEADERS: usize = 8;

pub(super) fn credentials(section: &Section<'_>) -> Carriers {
    if section.texts("credentials").is_empty() && section.is_set("credentials") {
        section.error(
            "credentials",
            "`credentials` is empty: no token would be accepted",
            "name at least \"bearer\"",
        );
    }
    let mut carriers = Carriers::NONE;
    for carrier in section.all_parsed("credentials", carrier) {
        if carriers.accepts(&carrier) {
            section.error("credentials", format!("`credentials` lists \"{carrier}\" twice"), "list it once");
        }
        carriers.insert(carrier);
    }
    if carriers.headers.len() > MAX_HEADERS {
        let message = format!("`credentials` lists more than {MAX_HEADERS} fields");
        section.error("credentials", message, "list fewer");
    }
    carriers
}

fn carrier(text: &str) -> Result<Carrier, ValueError> {
    if let Some(carrier) = Carrier::parse(text) {
        return Ok(carrier);
    }
    if let Some(name) = text.strip_prefix("header:") {
        let message = format!("the field {name:?} cannot hold a token");
        let advice = "name a field such as \"header:X-Api-Key\": letters, digits and `-`, and none that \
                      frames or routes a request, describes its sender, or has another meaning";
        return wrong(message, advice);
    }
    let known = ["bearer", "basic", "raw", "websocket", "header:NAME"];
    let advice = advice(text, known, || format!("known: {}", known.join(", ")));
    wrong(format!("{text:?} is not a way to send a token"), advice)
}
