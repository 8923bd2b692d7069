//! The configuration in force, and what a reload would change.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Failed, Reader, Shell, render};
use crate::{admin::Context, authz::subject::Permission};

mod diff;

#[derive(Template)]
#[template(path = "configuration.html")]
struct ConfigurationPage {
    shell: Shell,
    text: String,
    /// What the file says now and the gateway does not do yet.
    pending: Pending,
    may_reload: bool,
}

enum Pending {
    Same,
    Unreadable(String),
    Changed(Vec<diff::Line>),
}

pub async fn show(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require(Permission::AdminRead)?;
    let text = context.configuration.text();
    let configuration = context.configuration.clone();
    let file = tokio::task::spawn_blocking(move || configuration.file()).await;
    let pending = match file.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(file) if file == text => Pending::Same,
        Ok(file) => Pending::Changed(diff::lines(&text, &file)),
        Err(error) => Pending::Unreadable(error),
    };
    let page = ConfigurationPage {
        shell: reader.shell("Configuration", "/configuration"),
        text,
        pending,
        may_reload: reader.caller.may(Permission::AdminWrite),
    };
    Ok(render(StatusCode::OK, &page))
}
