//! All components on one page, in the demo only.

use askama::Template;

use super::{ApiResult, Reader, Shell, render};
use crate::admin::{Context, Problem};

#[derive(Template)]
#[template(path = "design.html")]
struct DesignPage {
    shell: Shell,
}

pub(super) async fn show(context: Context, reader: Reader) -> ApiResult {
    if !context.sign_in.demo {
        return Err(Problem::not_found("page"));
    }
    Ok(render(&DesignPage { shell: reader.shell("Design", "/design") }))
}
