//! Every component on one page, in the demo alone.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Failed, Reader, Shell, render};
use crate::admin::{Context, error::Problem};

#[derive(Template)]
#[template(path = "design.html")]
struct DesignPage {
    shell: Shell,
}

pub(super) async fn show(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    if !context.sign_in.demo {
        return Err(Problem::not_found("page").into());
    }
    Ok(render(StatusCode::OK, &DesignPage { shell: reader.shell("Design", "/design") }))
}
