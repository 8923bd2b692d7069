//! The audit log's page: a sentence for each event, newest first, with filters, and the export as a file.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
};

use askama::Template;
use axum::response::IntoResponse;
use http::header;
use serde::{Deserialize, Serialize};

use self::sentence::{Part, sentence};
use super::{FormQuery, Reader, Shell, address, render};
use crate::{
    admin::{
        ApiResult, AuditView, Context, Problem,
        offload::{Offload, READS},
        pagination::{PageRequest, bad_cursor},
        streamed::{self, BodyWriter},
        web::example_url,
    },
    authz::{subject::Permission, time::Timestamp},
    store::{Page, ReadError, model::AuditEvent},
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
}

struct Row {
    parts: Vec<Part>,
    /// The link to the page that explains a refused request.
    explain: Option<String>,
    /// What changed, as JSON.
    change: Option<String>,
    view: AuditView,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
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
/// The most events that a page scans before it is cut short.
const MAX_SCANNED: usize = 20_000;
const SCAN_PAGE: usize = 500;

/// A file keeps a thread busy for as long as its client reads.
static EXPORTS: Offload = Offload::new(2, 4);

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

/// The conditions that an event has to meet.
struct Filter {
    /// With the texts to find in lower case.
    asked: AuditQuery,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

pub async fn list(context: Context, reader: Reader, FormQuery(asked): FormQuery<AuditQuery>) -> ApiResult {
    reader.caller.require(Permission::ReadAudit)?;
    // Off the control thread, because a filter that few events match scans many.
    READS.run(move || list_page(&context, &reader, asked)).await?
}

fn list_page(context: &Context, reader: &Reader, asked: AuditQuery) -> ApiResult {
    let limit = PageRequest { cursor: None, limit: asked.limit.or(Some(ROWS)) }.limit()?;
    let Page { items: events, next } = Filter::new(&asked)?.find(context, limit)?;
    let explains = reader.caller.may(Permission::AdminRead);
    let rules = context.rules();
    let names = token_names(context, &events);
    let row = |event: AuditEvent| {
        let view = AuditView::new(event);
        let service = view.service.as_deref().map(|key| rules.service_by_key(key));
        // Of a refusal before a service was found, any path tells the reason.
        let url = service.map_or_else(|| Some("/".to_owned()), |service| example_url(&service?.spec));
        Row {
            parts: sentence(&view, names.get(&view.target).map(String::as_str)),
            explain: sentence::explain(&view, url.as_deref()).filter(|_| explains),
            change: view.change.as_ref().map(|change| format!("{change:#}")),
            view,
        }
    };
    // The files have all that match, not from the page on.
    let export = |format: &str| {
        let format = Some(format.to_owned());
        address("/audit/export", &AuditQuery { format, cursor: None, limit: None, ..asked.clone() })
    };
    let page = AuditPage {
        shell: reader.shell("Audit log", "/audit"),
        events: events.into_iter().map(row).collect(),
        next: next.map(|cursor| address("/audit", &AuditQuery { cursor: Some(cursor), ..asked.clone() })),
        csv: export("csv"),
        jsonl: export("jsonl"),
        asked,
    };
    Ok(render(&page))
}

pub async fn export(context: Context, reader: Reader, FormQuery(asked): FormQuery<AuditQuery>) -> ApiResult {
    reader.caller.require(Permission::ReadAudit)?;
    let (form, name, format) = match asked.format.as_deref() {
        Some("jsonl") => ("application/jsonl; charset=utf-8", "audit.jsonl", file::JSONL),
        Some("csv") | None => ("text/csv; charset=utf-8", "audit.csv", file::CSV),
        Some(_) => return Err(Problem::invalid("format is csv or jsonl")),
    };
    let filter = Filter::new(&asked)?;
    let store = context.store.clone();
    let write =
        move |out: &mut BodyWriter| filter.write(|cursor| store.audit(cursor, SCAN_PAGE), format, out);
    let body = streamed::body(&EXPORTS, "a file of the audit log", write).await?;
    let disposition = format!("attachment; filename=\"{name}\"");
    let fields = [(header::CONTENT_TYPE, form.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((fields, body).into_response())
}

/// The names of tokens that events have as target, by target.
fn token_names(context: &Context, events: &[AuditEvent]) -> HashMap<String, String> {
    let targets = events.iter().map(|event| &event.target).filter(|target| target.starts_with("token:"));
    let targets: HashSet<String> = targets.cloned().collect();
    let name = |target: String| {
        let id = crate::admin::tokens::parse(target.strip_prefix("token:")?).ok()?;
        Some((target, context.store.token(id).ok()??.name))
    };
    targets.into_iter().filter_map(name).collect()
}

impl Filter {
    fn new(asked: &AuditQuery) -> ApiResult<Self> {
        if asked.cursor.as_deref().is_some_and(|cursor| cursor.parse::<u64>().is_err()) {
            return Err(bad_cursor());
        }
        Ok(Self {
            asked: AuditQuery {
                actor: asked.actor.as_ref().map(|text| text.to_lowercase()),
                target: asked.target.as_ref().map(|text| text.to_lowercase()),
                ..asked.clone()
            },
            from: asked.from.as_deref().map(|text| midnight(text, 0)).transpose()?,
            to: asked.to.as_deref().map(|text| midnight(text, 1)).transpose()?,
        })
    }

    /// Writes every matching event, however far back: a file that ends early looks complete. Flushes after
    /// each page, so that the client gets something soon, and the scan ends once the client is gone.
    fn write(
        &self,
        read: impl Fn(Option<&str>) -> Result<Page<AuditEvent>, ReadError>,
        format: file::Format,
        out: &mut impl Write,
    ) -> io::Result<()> {
        out.write_all(format.header.as_bytes())?;
        let mut cursor = self.asked.cursor.clone();
        loop {
            let page = read(cursor.as_deref()).map_err(io::Error::other)?;
            for event in page.items.into_iter().filter(|event| self.matches(event)) {
                out.write_all((format.line)(AuditView::new(event))?.as_bytes())?;
            }
            out.flush()?;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    fn find(&self, context: &Context, limit: usize) -> ApiResult<Page<AuditEvent>> {
        let (mut events, mut looked_at, mut cursor) = (Vec::new(), 0, self.asked.cursor.clone());
        loop {
            let page = context.store.audit(cursor.as_deref(), SCAN_PAGE)?;
            // A few events may be dated by a wrong clock.
            if self.from.is_some_and(|from| page.items.iter().all(|event| event.at < from)) {
                return Ok(Page { items: events, next: None });
            }
            for event in page.items {
                let seq = event.seq;
                looked_at += 1;
                if self.matches(&event) {
                    events.push(event);
                }
                if events.len() == limit || looked_at == MAX_SCANNED {
                    let next = (seq > 1).then(|| seq.to_string());
                    return Ok(Page { items: events, next });
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(Page { items: events, next: None });
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
            && self.from.is_none_or(|from| event.at >= from)
            && self.to.is_none_or(|to| event.at < to)
    }
}

/// The start of a day in UTC, plus this many days.
fn midnight(text: &str, days: i64) -> ApiResult<Timestamp> {
    let start = Timestamp::parse_date(text.trim());
    let start = start.ok_or_else(|| Problem::invalid("A date is written as 2026-12-24"))?;
    Ok(start.plus_seconds(days * 86_400))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A page ends after some events; a file must not, since nobody could see that it is incomplete.
    #[test]
    fn a_file_has_every_event_that_matches() {
        /// Of an event while the clock was wrong.
        const MISDATED: u64 = 30_000;
        let last = 2 * MAX_SCANNED as u64;
        let read = |cursor: Option<&str>| {
            let before = cursor.map_or(last + 1, |cursor| cursor.parse().unwrap());
            let first = before.saturating_sub(SCAN_PAGE as u64).max(1);
            let event = |seq: u64| {
                let seconds = if seq == MISDATED { -1 } else { i64::try_from(seq).unwrap() };
                let at = Timestamp::from_millis(0).plus_seconds(seconds);
                let kind = if seq == 1 { "store.create" } else { "user.ban" };
                AuditEvent { seq, ..AuditEvent::new(at, kind, "ann", "user:bob", None) }
            };
            let next = (first > 1).then(|| first.to_string());
            Ok(Page { items: (first..before).rev().map(event).collect(), next })
        };
        let check = |name: &str, asked: AuditQuery, rows: u64| {
            for (format, header) in [(file::CSV, 1), (file::JSONL, 0)] {
                let mut text = Vec::new();
                Filter::new(&asked).ok().unwrap().write(read, format, &mut text).unwrap();
                let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
                assert_eq!(lines, rows + header, "{name}");
            }
        };
        let event = |event: &str| AuditQuery { event: Some(event.to_owned()), ..AuditQuery::default() };
        check("all", AuditQuery::default(), last);
        check("the oldest", event("store."), 1);
        check("none", event("role."), 0);
        check("below a cursor", AuditQuery { cursor: Some("11".to_owned()), ..AuditQuery::default() }, 10);
        let from = |day: &str| AuditQuery { from: Some(day.to_owned()), ..AuditQuery::default() };
        check("later", from("1970-02-01"), 0);
        check("before and after a wrong clock", from("1970-01-01"), last - 1);
        let failing = |_: Option<&str>| Err(ReadError("lost".into()));
        let filter = Filter::new(&AuditQuery::default()).ok().unwrap();
        assert!(filter.write(failing, file::CSV, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_file_begins_at_once_and_ends_with_its_client() {
        let none = AuditQuery { event: Some("role.".to_owned()), ..AuditQuery::default() };
        let filter = Filter::new(&none).ok().unwrap();
        let (mut out, parts) = BodyWriter::new();
        let (parts, reads) = (RefCell::new(Some(parts)), Cell::new(0));
        let read = |_: Option<&str>| {
            reads.set(reads.get() + 1);
            if reads.get() == 2 {
                let mut parts = parts.take().unwrap();
                assert_eq!(parts.try_recv().unwrap().unwrap(), "", "nothing matches yet");
            }
            Ok(Page { items: Vec::new(), next: Some("1".to_owned()) })
        };
        let ended = filter.write(read, file::JSONL, &mut out).map_err(|error| error.kind());
        assert_eq!((ended, reads.get()), (Err(io::ErrorKind::BrokenPipe), 2));
    }
}
