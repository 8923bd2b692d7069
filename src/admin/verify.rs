//! `GET /v1/store/verify`: reads and verifies the whole store while changes go on. The response is one JSON
//! document per line: progress, and in the end the report.

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use axum::response::IntoResponse;
use http::header;
use serde_json::{Value, json};

use super::{
    ApiResult, Caller, Context,
    audit::hex,
    offload::Offload,
    streamed::{self, BodyWriter},
};
use crate::{
    authz::subject::Permission,
    store::verify::{Progress, Report},
};

/// Each job reads the whole store or audit log, so one runs at a time and few wait.
pub(super) static VERIFICATIONS: Offload = Offload::new(1, 4);

/// The time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

pub async fn verify(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::AdminWrite)?;
    let store = context.store.clone();
    let verify = move |out: &mut BodyWriter| {
        let mut last_report: Option<Instant> = None;
        let report = store.verify(&mut |progress| {
            if last_report.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) {
                return ControlFlow::Continue(());
            }
            last_report = Some(Instant::now());
            // The client is gone, so the verification stops.
            match write(out, &progress_json(&progress)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        let Ok(report) = report else { return Err(io::ErrorKind::BrokenPipe.into()) };
        report.damage.iter().for_each(|damage| {
            tracing::error!(place = damage.place, what = damage.what, "the store is damaged");
        });
        write(out, &report_json(&report))
    };
    let body = streamed::body(&VERIFICATIONS, "a verification", verify).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn write(out: &mut BodyWriter, line: &Value) -> io::Result<()> {
    writeln!(out, "{line}")?;
    out.flush()
}

fn progress_json(progress: &Progress) -> Value {
    json!({"part": progress.part, "done": progress.done, "of": progress.of})
}

/// The report of a verification as JSON.
pub fn report_json(report: &Report) -> Value {
    let tables: serde_json::Map<String, Value> =
        report.tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
    let damage = report.damage.iter();
    let damage = damage.map(|one| json!({"place": one.place, "what": one.what, "advice": one.advice}));
    json!({
        "sound": report.is_sound(),
        "position": report.position,
        "journal": {"files": report.journal_files, "entries": report.journal_entries},
        "checkpoints": report.checkpoints,
        "rows": tables,
        "audit": report.audit.map(|(seq, hash)| json!({"seq": seq, "hash": hex(&hash)})),
        "damage": damage.collect::<Vec<_>>(),
        "unlisted": report.unlisted,
        "notes": report.notes,
    })
}
