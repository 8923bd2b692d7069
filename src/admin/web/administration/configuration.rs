//! The configuration in force, and what a reload would change.

use askama::Template;

use super::{PageResult, Reader, Shell, render};
use crate::{
    admin::{Context, configuration::FILES},
    authz::subject::Permission,
};

mod diff;

#[derive(Template)]
#[template(path = "configuration.html")]
struct ConfigurationPage {
    shell: Shell,
    text: String,
    /// The changes in the file that are not in force yet.
    pending: Pending,
    may_reload: bool,
}

enum Pending {
    Same,
    Unreadable(String),
    Changed(Vec<diff::DiffLine>),
}

pub async fn show(context: Context, reader: Reader) -> PageResult {
    reader.caller.require(Permission::AdminRead)?;
    let text = context.configuration.text();
    let (configuration, present) = (context.configuration.clone(), text.clone());
    let pending = FILES.run(move || match configuration.file() {
        Ok(file) if file == present => Pending::Same,
        Ok(file) => Pending::Changed(diff::lines(&present, &file)),
        Err(error) => Pending::Unreadable(error),
    });
    let pending = pending.await?;
    let page = ConfigurationPage {
        shell: reader.shell("Configuration", "/configuration"),
        text,
        pending,
        may_reload: reader.caller.may(Permission::AdminWrite),
    };
    Ok(render(&page))
}
