//! `server.drop_fields` and `service.NAME.pass_fields`: which client fields reach upstreams.

use std::sync::Arc;

use super::section::{Section, SpannedText, ValueError, wrong};
use crate::authz::forwarding::{DropReason, FieldPattern, FieldPolicy, PassField, PassFrom, drop_reason};

/// What every service drops in addition to the built-in list.
pub(super) fn dropped(server: &Section<'_>) -> Arc<[FieldPattern]> {
    server.all_parsed("drop_fields", pattern).into()
}

pub(super) fn policy(service: &Section<'_>, drop: &Arc<[FieldPattern]>) -> FieldPolicy {
    let tables = service.tables("pass_fields");
    let pass = tables.iter().filter_map(|table| pass_field(&table.text("name")?, table.word("from")?, drop));
    FieldPolicy { pass: pass.collect(), drop: Arc::clone(drop) }
}

/// Fields that cannot be dropped: without them the forwarded request would differ from the judged one.
const UNDROPPABLE: &str = "host content-length content-type transfer-encoding connection te trailer upgrade expect \
                           authorization cookie";

fn pattern(text: &str) -> Result<FieldPattern, ValueError> {
    let lower = text.to_ascii_lowercase();
    let Some(pattern) = FieldPattern::parse(&lower) else {
        let advice = "write \"X-Tenant\", or \"X-Tenant-*\" for all names that begin with it";
        return wrong(format!("{text:?} is not a field name"), advice);
    };
    match UNDROPPABLE.split(' ').find(|needed| pattern.matches(needed.as_bytes())) {
        Some(needed) => wrong(format!("{text:?} would drop {needed}, which `drop_fields` cannot drop"), ""),
        None => Ok(pattern),
    }
}

fn pass_field(name: &SpannedText<'_>, from: PassFrom, drop: &[FieldPattern]) -> Option<PassField> {
    let field = name.value.to_ascii_lowercase();
    if FieldPattern::parse(&field).is_none_or(|pattern| pattern.as_str() != field) || field.ends_with('*') {
        let message = format!("{:?} is not the name of one field", name.value);
        name.error(message, "write one such as \"X-Remote-User\": `*`, `_` and `.` are not allowed");
        return None;
    }
    let listed = drop_reason(field.as_bytes());
    let set_anew = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    if listed == Some(DropReason::Ours) || set_anew.contains(&field.as_str()) {
        name.error(format!("{:?} is never forwarded: permgate sets it", name.value), "leave it out");
        return None;
    }
    if listed.is_none() && !drop.iter().any(|pattern| pattern.matches(field.as_bytes())) {
        name.warn(
            format!("`pass_fields` has no effect on {:?}: it is not dropped by a list", name.value),
            "leave it out",
        );
    }
    if from == PassFrom::Anybody && matches!(listed, Some(DropReason::Identity | DropReason::Reroute)) {
        let message = format!("every client with a token can send {:?}", name.value);
        name.warn(message, "see that the upstream does not trust it, or write `from = \"trusted\"`");
    }
    Some(PassField { name: field.into(), from })
}
