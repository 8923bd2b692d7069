//! The audit log, newest first.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Failed, Reader, Shell, render};
use crate::{
    admin::{
        AuditView, Context,
        pages::{Cursor, Paging, Params, bad_cursor},
        web::time::Moment,
    },
    authz::subject::Permission,
};

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    events: Vec<Row>,
    next: Option<String>,
}

struct Row {
    at: Moment,
    /// What changed, as JSON.
    change: Option<String>,
    view: AuditView,
}

pub async fn list(
    State(context): State<Context>,
    reader: Reader,
    Params(cursor): Params<Cursor>,
) -> Result<Response, Failed> {
    reader.caller.require(Permission::ReadAudit)?;
    let Paging { cursor, limit } = Paging::of(cursor)?;
    if cursor.as_deref().is_some_and(|cursor| cursor.parse::<u64>().is_err()) {
        return Err(bad_cursor().into());
    }
    let found = context.store.audit(cursor.as_deref(), limit)?;
    let row = |view: AuditView| Row {
        at: view.time.into(),
        change: view.change.as_ref().map(ToString::to_string),
        view,
    };
    let page = AuditPage {
        shell: reader.shell("Audit", "/audit"),
        events: found.items.into_iter().map(AuditView::new).map(row).collect(),
        next: found.next,
    };
    Ok(render(StatusCode::OK, &page))
}
