//! `permgate store verify`: reads the whole store and reports damage.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use indicatif::ProgressBar;
use serde_json::Value;

use super::{
    super::{
        Global,
        client::Client,
        failure::{Failure, chain, print_stderr},
        output::{ListView, counted, items},
        target,
    },
    spinner,
};
use crate::{admin, store::verify};

const VIEW: ListView = ListView::new("damage", "", "where=place what what_to_do=advice");

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let progress = spinner();
    let report = if global.offline { offline(global, &progress) } else { online(global, &progress) };
    progress.finish_and_clear();
    print(global, &report?)
}

fn offline(global: &Global, progress: &ProgressBar) -> Result<Value, Failure> {
    let config = target::load(global.config())?;
    let report = verify::offline(&config.store, &mut |at| {
        show(progress, &at.part, at.done, at.of);
        ControlFlow::Continue(())
    });
    Ok(admin::report_json(&report.map_err(|error| Failure::failed(chain(&error)))?))
}

fn online(global: &Global, progress: &ProgressBar) -> Result<Value, Failure> {
    let Client::Listener(listener) = Client::new(global)? else {
        return Err(Failure::usage("--offline opens the store itself"));
    };
    let mut lines = Lines { progress, line: Vec::new(), report: None };
    listener.download("/v1/store/verify", &mut lines, &mut |_| {})?;
    lines.report.ok_or_else(|| Failure::failed("the response ended early: the store was not read to its end"))
}

/// Shows the gateway's progress, and keeps its final report.
struct Lines<'a> {
    progress: &'a ProgressBar,
    line: Vec<u8>,
    report: Option<Value>,
}

/// A report of `MAX_LISTED` findings is far shorter; protects against other listeners.
const MAX_LINE: usize = 1 << 20;

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > MAX_LINE {
                return Err(io::Error::other(
                    "the admin listener answers with something else: is this a permgate?",
                ));
            }
            if self.line.ends_with(b"\n") {
                let line: Value = serde_json::from_slice(&self.line).map_err(io::Error::other)?;
                self.line.clear();
                match line["part"].as_str() {
                    Some(part) => {
                        let number = |field: &str| line[field].as_u64().unwrap_or_default();
                        show(self.progress, part, number("done"), number("of"));
                    }
                    None => self.report = Some(line),
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn show(progress: &ProgressBar, part: &str, done: u64, of: u64) {
    progress.set_message(if of == 0 { format!("{part}: {done}") } else { format!("{part}: {done} of {of}") });
    progress.tick();
}

fn print(global: &Global, report: &Value) -> Result<(), Failure> {
    let damage = report["damage"].as_array().cloned().unwrap_or_default();
    let found = damage.len() as u64 + report["unlisted"].as_u64().unwrap_or_default();
    let list = || global.output.list(damage.clone(), VIEW);
    global.output.document(report, || if damage.is_empty() { Ok(()) } else { list() }, list)?;
    for note in items(&report["notes"]) {
        print_stderr(&format!("note: {}", note.as_str().unwrap_or_default()));
    }
    let rows: u64 =
        report["rows"].as_object().into_iter().flatten().filter_map(|(_, rows)| rows.as_u64()).sum();
    let number = |value: &Value, noun: &str| counted(value.as_u64().unwrap_or_default(), noun);
    let journal = &report["journal"];
    let read = format!(
        "{} in {}, {}, {}; {} acknowledged",
        number(&journal["entries"], "journal entry"),
        number(&journal["files"], "file"),
        number(&report["checkpoints"], "checkpoint"),
        counted(rows, "row"),
        number(&report["position"], "change"),
    );
    if report["sound"] != true {
        return Err(Failure::failed(format!("the store is damaged in {} ({read})", counted(found, "place"))));
    }
    let audit = match report["audit"]["hash"].as_str() {
        Some(hash) => format!("; the newest audit event is {}, {hash}", report["audit"]["seq"]),
        None => String::new(),
    };
    print_stderr(&format!("the store is sound: {read}{audit}"));
    Ok(())
}
