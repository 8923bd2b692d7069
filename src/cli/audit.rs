//! `permgate audit ...`.

use std::{thread, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global,
    client::{Client, escape},
    failure::{Failure, say},
    output::{Columns, Format},
};
use crate::store::Store;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Print the latest events, the oldest of them first
    Tail(Tail),
    /// Check the chain of events: with --offline every hash is computed again, else each event must
    /// name the one before
    Verify,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// How many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// Go on with events as they come
    #[arg(short, long)]
    follow: bool,
}

const COLUMNS: Columns = &[
    ("SEQ", "seq"),
    ("TIME", "time"),
    ("EVENT", "event"),
    ("ACTOR", "actor"),
    ("TARGET", "target"),
    ("OUTCOME", "outcome"),
    ("REASON", "reason"),
];

/// How soon a followed event shows.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest page that the listener gives.
const PAGE: usize = 1000;

impl Audit {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::Tail(tail) => tail.run(global, &client),
            Self::Verify => match client.store() {
                Some(store) => recompute(store),
                None => verify(&client),
            },
        }
    }
}

impl Tail {
    fn run(&self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut last = print_after(global, client, None, self.lines)?;
        // A table whose columns are laid out anew with every event could not be read.
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

/// Prints the events after `last`, at most `most`, and says which was the last one.
fn print_after(
    global: &Global,
    client: &Client,
    last: Option<u64>,
    most: usize,
) -> Result<Option<u64>, Failure> {
    let mut events = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let size = most.saturating_sub(events.len()).clamp(1, PAGE);
        let page = client.get(&page_path(size, cursor.as_deref()))?;
        for event in page["items"].as_array().into_iter().flatten() {
            if last.is_some_and(|last| event["seq"].as_u64() <= Some(last)) {
                cursor = None;
                break;
            }
            events.push(event.clone());
            cursor = page["next"].as_str().map(str::to_owned);
        }
        if cursor.is_none() || events.len() >= most {
            break;
        }
    }
    events.truncate(most);
    events.reverse();
    if !events.is_empty() {
        global.output.list(&events, COLUMNS)?;
    }
    Ok(events.last().and_then(|event| event["seq"].as_u64()).or(last))
}

fn recompute(store: &Store) -> Result<(), Failure> {
    let verified = store.verify_audit().map_err(|error| Failure::failed(error.to_string()))?;
    let last = verified.last.map(|(seq, hash)| {
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("; the last is {seq}, {hash}")
    });
    say(&format!("{} events, unchanged and without a gap{}", verified.events, last.unwrap_or_default()));
    Ok(())
}

/// Each event names the hash of the one before; the listener computes them, this follows them.
fn verify(client: &Client) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    let mut later: Option<Value> = None;
    let mut count = 0u64;
    loop {
        let page = client.get(&page_path(PAGE, cursor.as_deref()))?;
        for event in page["items"].as_array().into_iter().flatten() {
            if let Some(later) = &later {
                let follows = later["prev"] == event["hash"]
                    && later["seq"].as_u64() == event["seq"].as_u64().map(|seq| seq + 1);
                if !follows {
                    let (seq, before) = (&later["seq"], &event["seq"]);
                    return Err(Failure::failed(format!("event {seq} does not follow event {before}")));
                }
            }
            later = Some(event.clone());
            count += 1;
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    say(&format!("{count} events, each follows the one before"));
    Ok(())
}

fn page_path(limit: usize, cursor: Option<&str>) -> String {
    let cursor = cursor.map(|cursor| format!("&cursor={}", escape(cursor))).unwrap_or_default();
    format!("/v1/audit?limit={limit}{cursor}")
}
