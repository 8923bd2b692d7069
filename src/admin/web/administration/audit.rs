//! The audit log's page: a sentence for each event, newest first, with filters, and the export as a file.

use std::collections::{HashMap, HashSet};

use askama::Template;
use axum::response::IntoResponse;
use http::header;
use serde::Deserialize;

use self::sentence::{Part, sentence};
use super::{FormQuery, PageResult, Reader, Shell, address, render};
use crate::{
    admin::{
        ApiResult, AuditView, Context, Problem, offload::READS, pagination::bad_cursor,
        web::time::DisplayTime, wire::Time,
    },
    authz::{subject::Permission, time::Timestamp},
    store::model::AuditEvent,
};

mod file;
mod sentence;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    events: Vec<Row>,
    asked: AuditQuery,
    /// The links to the next page and to the exported files.
    next: Option<String>,
    csv: String,
    jsonl: String,
    kinds: [(&'static str, &'static str); 10],
}

struct Row {
    at: DisplayTime,
    parts: Vec<Part>,
    /// The link to the page that explains a refused request.
    explain: Option<String>,
    /// What changed, as JSON.
    change: Option<String>,
    view: AuditView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Text to find in the actor and in the target.
    actor: Option<String>,
    target: Option<String>,
    /// The beginning of the event's name.
    event: Option<String>,
    /// The code of a refusal's reason.
    reason: Option<String>,
    /// First and last day in UTC, both inclusive.
    from: Option<String>,
    to: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
    format: Option<String>,
}

const ROWS: usize = 50;
/// The most events that a page scans before it is cut short, and that a file holds.
const MAX_SCANNED: usize = 20_000;
const SCAN_PAGE: usize = 500;

const KINDS: [(&str, &str); 10] = [
    ("token.", "Tokens"),
    ("user.", "Users"),
    ("group.", "Groups"),
    ("role.", "Roles"),
    ("grant.", "Grants"),
    ("session.", "Signing in and out"),
    ("config.", "Configuration"),
    ("store.", "Store"),
    ("live.", "Cut requests"),
    ("refusal", "Refused requests"),
];

/// The matching events, and the cursor of the next page.
struct Found {
    events: Vec<AuditEvent>,
    next: Option<String>,
}

/// The conditions that an event has to meet.
struct Filter {
    /// With the texts to find in lower case.
    asked: AuditQuery,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

pub async fn list(context: Context, reader: Reader, FormQuery(asked): FormQuery<AuditQuery>) -> PageResult {
    reader.caller.require(Permission::ReadAudit)?;
    let Found { events, next } = find(&context, &asked, asked.limit.unwrap_or(ROWS).min(1_000)).await?;
    let explains = reader.caller.may(Permission::AdminRead);
    let now = Time::now();
    let rules = context.rules();
    let names = token_names(&context, &events).await?;
    let row = |event: AuditEvent| {
        let view = AuditView::new(event);
        let path = view.service.as_deref().and_then(|key| rules.service_by_key(key));
        let path = path.and_then(|service| service.spec.paths.first().cloned());
        Row {
            at: DisplayTime::at(view.time, now),
            parts: sentence(&view, names.get(&view.target).map(String::as_str)),
            explain: sentence::explain(&view, path.as_deref()).filter(|_| explains),
            change: view.change.as_ref().map(|change| format!("{change:#}")),
            view,
        }
    };
    let page = AuditPage {
        shell: reader.shell("Audit log", "/audit"),
        events: events.into_iter().map(row).collect(),
        next: next.map(|cursor| asked.link("/audit", &[("cursor", &cursor)])),
        csv: asked.link("/audit/export", &[("format", "csv")]),
        jsonl: asked.link("/audit/export", &[("format", "jsonl")]),
        asked,
        kinds: KINDS,
    };
    Ok(render(&page))
}

pub async fn export(context: Context, reader: Reader, FormQuery(asked): FormQuery<AuditQuery>) -> PageResult {
    reader.caller.require(Permission::ReadAudit)?;
    let (form, name) = match asked.format.as_deref() {
        Some("jsonl") => ("application/jsonl; charset=utf-8", "audit.jsonl"),
        Some("csv") | None => ("text/csv; charset=utf-8", "audit.csv"),
        Some(_) => return Err(Problem::invalid("format is csv or jsonl").into()),
    };
    let Found { events, .. } = find(&context, &asked, MAX_SCANNED).await?;
    let views = events.into_iter().map(AuditView::new);
    let text = if name.ends_with("csv") { file::csv(views) } else { file::jsonl(views) };
    let disposition = format!("attachment; filename=\"{name}\"");
    let fields = [(header::CONTENT_TYPE, form.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((fields, text).into_response())
}

/// The names of tokens that events have as target, by target.
async fn token_names(context: &Context, events: &[AuditEvent]) -> PageResult<HashMap<String, String>> {
    let targets = events.iter().map(|event| &event.target).filter(|target| target.starts_with("token:"));
    let targets: HashSet<String> = targets.cloned().collect();
    let context = context.clone();
    let name = move |target: String| {
        let id = crate::admin::tokens::parse(target.strip_prefix("token:")?).ok()?;
        Some((target, context.store.token(id).ok()??.name))
    };
    Ok(READS.run(move || targets.into_iter().filter_map(name).collect()).await?)
}

/// Reads off the control thread, because a filter that few events match scans many.
async fn find(context: &Context, asked: &AuditQuery, limit: usize) -> PageResult<Found> {
    let filter = Filter {
        asked: AuditQuery {
            actor: asked.actor.as_ref().map(|text| text.to_lowercase()),
            target: asked.target.as_ref().map(|text| text.to_lowercase()),
            ..asked.clone()
        },
        from: asked.from.as_deref().map(|text| midnight(text, 0)).transpose()?,
        to: asked.to.as_deref().map(|text| midnight(text, 1)).transpose()?,
    };
    if asked.cursor.as_deref().is_some_and(|cursor| cursor.parse::<u64>().is_err()) {
        return Err(bad_cursor().into());
    }
    let context = context.clone();
    Ok(READS.run(move || filter.find(&context, limit)).await??)
}

impl Filter {
    fn find(&self, context: &Context, limit: usize) -> ApiResult<Found> {
        let (mut events, mut looked_at, mut cursor) = (Vec::new(), 0, self.asked.cursor.clone());
        loop {
            let page = context.store.audit(cursor.as_deref(), SCAN_PAGE)?;
            for event in page.items {
                if self.from.is_some_and(|from| event.at < from) {
                    return Ok(Found { events, next: None });
                }
                let seq = event.seq;
                looked_at += 1;
                if self.matches(&event) {
                    events.push(event);
                }
                if events.len() == limit || looked_at == MAX_SCANNED {
                    let next = (seq > 1).then(|| seq.to_string());
                    return Ok(Found { events, next });
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(Found { events, next: None });
            }
        }
    }

    fn matches(&self, event: &AuditEvent) -> bool {
        let has = |text: &str, words: &Option<String>| {
            words.as_deref().is_none_or(|words| text.to_lowercase().contains(words))
        };
        let AuditQuery { actor, target, event: kind, reason, .. } = &self.asked;
        has(&event.actor, actor)
            && (has(&event.target, target)
                || event.change.as_deref().is_some_and(|change| has(change, target)))
            && kind.as_deref().is_none_or(|kind| event.event.starts_with(kind))
            && reason.as_deref().is_none_or(|reason| event.reason.as_deref() == Some(reason))
            && self.to.is_none_or(|to| event.at < to)
    }
}

/// The start of a day in UTC, plus this many days.
fn midnight(text: &str, days: i64) -> ApiResult<Timestamp> {
    let start = Timestamp::parse_date(text.trim());
    let start = start.ok_or_else(|| Problem::invalid("A date is written as 2026-12-24"))?;
    Ok(start.plus_seconds(days * 86_400))
}

impl AuditQuery {
    fn link(&self, base: &str, more: &[(&str, &str)]) -> String {
        let pairs = [
            ("actor", &self.actor),
            ("target", &self.target),
            ("event", &self.event),
            ("reason", &self.reason),
            ("from", &self.from),
            ("to", &self.to),
        ];
        let more = more.iter().map(|(name, value)| (*name, Some(*value)));
        address(base, pairs.into_iter().map(|(name, value)| (name, value.as_deref())).chain(more))
    }
}
