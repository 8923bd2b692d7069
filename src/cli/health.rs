//! `permgate health`: for probes and supervisors.

use http::Method;
use serde_json::Value;

use super::{Global, client::Client, failure::Failure, output::print};

/// Anybody may ask whether it is ready; the offline store is asked as ever.
fn client(global: &Global) -> Result<Client, Failure> {
    if global.offline { Client::new(global) } else { Client::without_token(global) }
}

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let answer = client(global)?.send(&Method::GET, "/readyz", None)?;
    let status = answer.body["status"].as_str().unwrap_or("unknown");
    global.output.document(&answer.body, || print(status), || print(status))?;
    if answer.status.is_success() {
        return Ok(());
    }
    match &answer.body["reason"] {
        Value::String(reason) => Err(Failure::failed(format!("the gateway takes no requests: {reason}"))),
        _ => Err(Failure::failed(format!("the gateway takes no requests: {}", answer.status))),
    }
}
