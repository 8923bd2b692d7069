//! `permgate reload`: has the running gateway read its configuration file again.

use serde_json::json;

use super::{Global, client::Client, failure::Failure};

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let response = Client::new(global)?.post("/v1/reload", &json!({}))?;
    global.output.done(&response, "the configuration is in force")
}
