//! Data on stdout, in the requested format.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::{Failure, colored, print_stderr};
use crate::authz::administration::names;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document per line, one line per record
    Jsonl,
    /// Only what identifies a record, one per line
    Id,
}

/// How a list of records is shown. The names of fields are separated by spaces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListView {
    nouns: &'static str,
    sort: &'static str,
    columns: &'static str,
}

impl ListView {
    /// `nouns`: what the records are, as in "no tokens". `sort`: the fields to sort by, ignoring case; empty
    /// keeps the order. `columns`: the fields to show; the first one identifies a record. A column's header
    /// is the field's name without `_at` and with blanks for `_`, or HEADER of `HEADER=FIELD`.
    pub(crate) const fn new(nouns: &'static str, sort: &'static str, columns: &'static str) -> Self {
        Self { nouns, sort, columns }
    }

    /// Header and field of each column.
    fn columns(self) -> impl Iterator<Item = (String, &'static str)> {
        self.columns.split(' ').map(|column| {
            let (header, field) = column.split_once('=').unwrap_or((column.trim_end_matches("_at"), column));
            (header.replace('_', " ").to_uppercase(), field)
        })
    }
}

impl Format {
    /// Prints a list of records. An empty one is a sentence instead of a table.
    pub(super) fn list(self, mut records: Vec<Value>, view: ListView) -> Result<(), Failure> {
        if !view.sort.is_empty() {
            records.sort_by_cached_key(|record| {
                view.sort.split(' ').map(|field| cell(&record[field]).to_lowercase()).collect::<Vec<_>>()
            });
        }
        match self {
            Self::Table if records.is_empty() => {
                print_stderr(&format!("no {}", view.nouns));
                Ok(())
            }
            Self::Table => table(&records, view),
            Self::Json => print(&pretty(&Value::Array(records))),
            Self::Jsonl => records.iter().try_for_each(|record| print(&record.to_string())),
            Self::Id => {
                let (_, id) = view.columns().next().unwrap_or_default();
                records.iter().try_for_each(|record| print(&cell(&record[id])))
            }
        }
    }

    /// Prints a changed record: for people a sentence on stderr, because they know the rest.
    pub(super) fn changed(self, record: &Value, id: &str, sentence: &str) -> Result<(), Failure> {
        if self != Self::Id {
            return self.done(record, sentence);
        }
        print(&cell(&record[id]))?;
        report_effect(record);
        Ok(())
    }

    /// Says what a command has done. The response to it is data only for programs.
    pub(super) fn done(self, response: &Value, sentence: &str) -> Result<(), Failure> {
        match self {
            Self::Table | Self::Id => print_stderr(sentence),
            Self::Json | Self::Jsonl => self.record(response, "")?,
        }
        report_effect(response);
        Ok(())
    }

    /// Prints one record, which the field `id` identifies.
    pub(super) fn record(self, record: &Value, id: &str) -> Result<(), Failure> {
        self.document(record, || fields(record), || print(&cell(&record[id])))
    }

    /// As JSON where that was asked for, else in a form of its own.
    pub(super) fn document(
        self,
        value: &Value,
        table: impl FnOnce() -> Result<(), Failure>,
        id: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Table => table(),
            Self::Json => print(&pretty(value)),
            Self::Jsonl => print(&value.to_string()),
            Self::Id => id(),
        }
    }
}

/// Reports how many requests in flight a change has cut, and which nodes of a cluster did not confirm it.
pub(super) fn report_effect(response: &Value) {
    effect(response).iter().for_each(|line| print_stderr(line));
}

fn effect(response: &Value) -> Vec<String> {
    let cut = response["cut"].as_u64().filter(|cut| *cut > 0);
    let cut = cut.map(|cut| format!("cut {} in flight", counted(cut, "request")));
    let lapsed = items(&response["nodes"]["lapsed"]).map(|node| {
        format!("{} did not confirm in time: it forwards nothing until it has the change", cell(node))
    });
    cut.into_iter().chain(lapsed).collect()
}

/// Prints one line to stdout. If its reader is gone (`| head`), the command ends.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent()),
        other => other.map_err(|error| Failure::failed(format!("stdout cannot be written: {error}"))),
    }
}

fn table(records: &[Value], view: ListView) -> Result<(), Failure> {
    let mut table = without_borders();
    let (headers, fields): (Vec<_>, Vec<_>) = view.columns().unzip();
    table.set_header(headers);
    for record in records {
        table.add_row(fields.iter().map(|field| cell(&record[field])));
    }
    let text = table.trim_fmt();
    let (header, rows) = text.split_once('\n').unwrap_or((&text, ""));
    print(&colored(header, "1", &io::stdout()))?;
    print(rows)
}

/// Prints a record, one field per line, without empty fields.
fn fields(record: &Value) -> Result<(), Failure> {
    let mut table = without_borders();
    for (field, value) in record.as_object().into_iter().flatten() {
        let value = cell(value);
        if !value.is_empty() {
            table.add_row([field.clone(), value]);
        }
    }
    print(&table.trim_fmt())
}

fn without_borders() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// A value as text for people. Control and bidi characters are replaced, because they could control the terminal.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => match whole_seconds(text) {
            Some(seconds) => format!("{seconds}Z"),
            None => text.clone(),
        },
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => match (&fields.get("service"), &fields.get("access")) {
            // A scope entry, in its text form.
            (Some(Value::String(service)), Some(Value::String(access))) if fields.len() == 2 => {
                if access == "full" { service.clone() } else { format!("{service}:{access}") }
            }
            _ => pairs(fields),
        },
    };
    plain(&text)
}

/// A text fit for a terminal, whatever the other side put into it.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(names::printable).collect()
}

/// An object's fields, without empty ones and ids.
fn pairs(fields: &serde_json::Map<String, Value>) -> String {
    let parts = fields.iter().filter(|(name, _)| *name != "id").map(|(name, value)| (name, cell(value)));
    let parts = parts.filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name} {value}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// `2026-01-31T12:00:00` of `2026-01-31T12:00:00.123Z`: milliseconds are noise in a table.
fn whole_seconds(text: &str) -> Option<&str> {
    let has_form = matches!(text.as_bytes(), [_, _, _, _, _, _, _, _, _, _, b'T', .., b'.', _, _, _, b'Z']);
    if has_form && text.parse::<jiff::Timestamp>().is_ok() { text.get(..19) } else { None }
}

/// `1 token`, `2 tokens`; `1 entry`, `2 entries`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if number == 1 => format!("1 {noun}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

/// The items of a list; none if it is something else.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The texts in a list.
pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_tells_what_it_cut_and_who_lapsed() {
        let check =
            |response: Value, expected: &[&str]| assert_eq!(effect(&response), expected, "{response}");
        check(serde_json::json!({"revoked": true, "cut": 0}), &[]);
        let nodes = serde_json::json!({"confirmed": 2, "lapsed": ["gate-2"]});
        check(
            serde_json::json!({"cut": 1, "nodes": nodes}),
            &[
                "cut 1 request in flight",
                "gate-2 did not confirm in time: it forwards nothing until it has the change",
            ],
        );
    }

    #[test]
    fn cells() {
        let check = |value: Value, expected: &str| assert_eq!(cell(&value), expected, "{value}");
        check(json!(null), "");
        check(json!(true), "yes");
        check(json!(7), "7");
        check(json!(["a", "b"]), "a, b");
        check(
            json!([{"service": "hub", "access": "read"}, {"service": "yt", "access": "full"}]),
            "hub:read, yt",
        );
        check(json!("2026-01-31T12:00:00.123Z"), "2026-01-31T12:00:00Z");
        check(json!("2026-01-31T12:00:00Z"), "2026-01-31T12:00:00Z");
        check(json!("2026-01-31 12:00:00.123Z"), "2026-01-31 12:00:00.123Z");
        check(json!("ä2026-01-31T12:00:0.123Z"), "ä2026-01-31T12:00:0.123Z");
        check(json!({"id": "0190", "name": "ci", "note": null, "scope": ["a", "b"]}), "name ci, scope a, b");
        check(json!("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        check(json!("/\u{202e}nimda\u{2066}"), "/\u{fffd}nimda\u{fffd}");
    }
}
