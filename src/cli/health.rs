//! `permgate health`: the gateway's readiness, for probes and supervisors.

use http::Method;
use serde_json::Value;

use super::{Global, client::Client, failure::Failure, output::print};

/// Readiness needs no token, so none is sent. Offline, the store is opened as for any other command.
fn client(global: &Global) -> Result<Client, Failure> {
    if global.offline { Client::new(global) } else { Client::without_token(global) }
}

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let response = client(global)?.send(&Method::GET, "/readyz", None)?;
    let status = response.body["status"].as_str().unwrap_or("unknown");
    global.output.document(&response.body, || print(status), || print(status))?;
    if response.status.is_success() {
        return Ok(());
    }
    match &response.body["reason"] {
        Value::String(reason) => Err(Failure::failed(format!("the gateway accepts no requests: {reason}"))),
        _ => Err(Failure::failed(format!("the gateway accepts no requests: {}", response.status))),
    }
}
