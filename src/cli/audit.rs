//! `permgate audit ...`: prints the audit log, and verifies its hash chain.

use std::{thread, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global,
    client::Client,
    failure::{Failure, print_stderr},
    output::{Format, ListView, cell},
};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Print the latest events, oldest first
    Tail(Tail),
    /// Verify the hash chain: no event was changed, and none is missing in between
    Verify,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Number of events
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// Keep printing new events as they arrive
    #[arg(short, long)]
    follow: bool,
}

const VIEW: ListView = ListView::new("events", "", "seq time event actor target outcome reason change");

/// How often a followed log is read.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest page that the listener returns.
const PAGE: usize = 1000;

impl Audit {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        if global.offline && matches!(&self, Self::Tail(tail) if tail.follow) {
            // Nobody else could write an event: the store is locked while this process has it open.
            return Err(Failure::usage("--follow needs a running gateway: leave --offline or --follow out"));
        }
        let client = Client::new(global)?;
        match self {
            Self::Tail(tail) => tail.run(global, &client),
            Self::Verify => verify(global, &client),
        }
    }
}

impl Tail {
    fn run(&self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut last = print_after(global, client, None, self.lines)?;
        // A table would lay out its columns anew with every event.
        let global = match global.output {
            Format::Table => &Global { output: Format::Jsonl, ..global.clone() },
            _ => global,
        };
        if !self.follow {
            return Ok(());
        }
        loop {
            thread::sleep(INTERVAL);
            last = print_after(global, client, last, usize::MAX)?;
        }
    }
}

/// Prints at most `most` events after `last`, and returns the number of the newest one.
fn print_after(
    global: &Global,
    client: &Client,
    last: Option<u64>,
    most: usize,
) -> Result<Option<u64>, Failure> {
    // One event is read even if none is printed: those after it follow.
    let (wanted, page) = (most.max(1), most.clamp(1, PAGE));
    let is_new = |event: &Value| last.is_none_or(|last| event["seq"].as_u64() > Some(last));
    let mut events = client.list_while(&format!("/v1/audit?limit={page}"), Some(wanted), is_new)?;
    let newest = events.first().and_then(|event| event["seq"].as_u64());
    events.truncate(most);
    events.reverse();
    if !events.is_empty() || last.is_none() && most > 0 {
        let mut shown = events.clone();
        if global.output == Format::Table {
            shown.iter_mut().for_each(format_edit);
        }
        global.output.list(shown, VIEW)?;
    }
    Ok(newest.or(last))
}

/// Shows an edit's pair of old and new values as `old -> new` instead of as a list.
fn format_edit(event: &mut Value) {
    if !event["event"].as_str().is_some_and(|name| name.ends_with(".edit")) {
        return;
    }
    for value in event["change"].as_object_mut().into_iter().flat_map(|change| change.values_mut()) {
        if let Some([before, after]) = value.as_array().map(Vec::as_slice) {
            let word = |value: &Value| Some(cell(value)).filter(|text| !text.is_empty());
            let none = || "(none)".to_owned();
            let (before, after) = (word(before).unwrap_or_else(none), word(after).unwrap_or_else(none));
            *value = format!("{before} -> {after}").into();
        }
    }
}

/// Has the process that has the store open compute every hash again.
fn verify(global: &Global, client: &Client) -> Result<(), Failure> {
    let verified = client.get("/v1/audit/verify")?;
    if matches!(global.output, Format::Json | Format::Jsonl) {
        global.output.record(&verified, "valid")?;
    }
    if verified["valid"] != true {
        let (seq, what) = (&verified["seq"], verified["error"].as_str().unwrap_or_default());
        return Err(Failure::failed(format!("the chain is broken at event {seq}: {what}")));
    }
    let last = match verified["last"]["hash"].as_str() {
        Some(hash) => format!("; the last is {}, {hash}", verified["last"]["seq"]),
        None => String::new(),
    };
    print_stderr(&format!("{} events, unchanged and without a gap{last}", verified["events"]));
    Ok(())
}
