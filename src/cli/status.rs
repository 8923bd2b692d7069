//! `permgate status`: whether the gateway serves, and what it has done in the last hour.

use http::Method;
use serde_json::{Value, json};

use super::{
    Global,
    client::Client,
    failure::{Failure, colored, print_stderr},
    output::{Format, counted, items, print, texts},
};
use crate::admin;

/// How many reasons of refusals are shown.
const MAX_SHOWN: usize = 10;

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let readiness = client.send(&Method::GET, "/readyz", None)?;
    let mut status = json!({
        "ready": readiness.status.is_success(),
        "reason": readiness.body["reason"],
        "version": env!("CARGO_PKG_VERSION"),
    });
    // The rest needs admin-read.
    match client.get("/v1/overview") {
        Ok(overview) => add(&mut status, &overview),
        Err(failure) => print_stderr(&format!("no more can be shown: {}", failure.message)),
    }
    match global.output {
        Format::Table => table(&status)?,
        other => other.record(&status, "ready")?,
    }
    if readiness.status.is_success() {
        Ok(())
    } else {
        Err(Failure::failed("the gateway accepts no requests"))
    }
}

fn add(status: &mut Value, overview: &Value) {
    let sum = |list: &str| -> u64 { items(&overview["all"][list]).filter_map(Value::as_u64).sum() };
    for field in ["users", "tokens", "live", "writable", "down"] {
        status[field] = overview[field].clone();
    }
    status["requests"] = sum("requests").into();
    status["refused"] = sum("refused").into();
    status["failed"] = sum("failed").into();
    status["refusals"] = overview["refusals"].clone();
}

fn table(status: &Value) -> Result<(), Failure> {
    let ready = status["ready"] == true;
    let (word, color) = if ready { ("ready", "32") } else { ("not ready", "31") };
    let word = colored(word, color, &std::io::stdout());
    let reason = status["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    print(&format!("{word}{reason}"))?;
    if status["users"].is_null() {
        return Ok(());
    }
    if status["writable"] == false {
        print(&colored("the store accepts no changes until a restart", "31", &std::io::stdout()))?;
    }
    print(&format!("users             {}\ntokens            {}", status["users"], status["tokens"]))?;
    print(&format!("in flight         {}", status["live"]))?;
    for (upstream, urls) in status["down"].as_object().into_iter().flatten() {
        let urls: Vec<&str> = texts(urls).collect();
        let line = format!("down              {} of the upstream {upstream}", urls.join(", "));
        print(&colored(&line, "31", &std::io::stdout()))?;
    }
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    let failed = match number("failed") {
        0 => String::new(),
        failed => format!(", {failed} of them since an upstream or the gateway failed"),
    };
    print(&format!(
        "in the last hour  {}, calls of the API among them; {} refused{failed}",
        counted(number("requests"), "request"),
        number("refused")
    ))?;
    let mut refusals: Vec<(&String, u64)> = status["refusals"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(reason, count)| Some((reason, count.as_u64()?)))
        .collect();
    refusals.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (reason, count) in refusals.iter().take(MAX_SHOWN) {
        print(&format!("  {count:>14}  {reason}: {}", admin::reason_in_words(reason)))?;
    }
    if refusals.len() > MAX_SHOWN {
        let more = refusals[MAX_SHOWN..].iter().map(|(_, count)| count).sum::<u64>();
        print(&format!("  {more:>14}  for other reasons, which -o json shows"))?;
    }
    Ok(())
}
