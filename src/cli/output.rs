//! Data on stdout, in the form that was asked for.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::Failure;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line, one line a record
    Jsonl,
    /// Only what names a record, one a line
    Id,
}

/// Header and field of each column; the first one is a record's name.
pub(crate) type Columns = &'static [(&'static str, &'static str)];

impl Format {
    /// A list of records.
    pub(super) fn list(self, records: &[Value], columns: Columns) -> Result<(), Failure> {
        match self {
            Self::Table => table(records, columns),
            Self::Json => print(&pretty(&Value::Array(records.to_vec()))),
            Self::Jsonl => records.iter().try_for_each(|record| print(&record.to_string())),
            Self::Id => records.iter().try_for_each(|record| print(&name(record, columns))),
        }
    }

    /// One record.
    pub(super) fn record(self, record: &Value, columns: Columns) -> Result<(), Failure> {
        match self {
            Self::Table => fields(record),
            Self::Json => print(&pretty(record)),
            Self::Jsonl => print(&record.to_string()),
            Self::Id => print(&name(record, columns)),
        }
    }
}

/// One line on stdout. A reader that has gone away (`| head`) ends the command.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent()),
        other => other.map_err(|error| Failure::failed(format!("stdout cannot be written: {error}"))),
    }
}

fn name(record: &Value, columns: Columns) -> String {
    columns.first().map(|(_, field)| cell(&record[*field])).unwrap_or_default()
}

fn table(records: &[Value], columns: Columns) -> Result<(), Failure> {
    let mut table = plain();
    table.set_header(columns.iter().map(|(header, _)| (*header).to_owned()));
    for record in records {
        table.add_row(columns.iter().map(|(_, field)| cell(&record[*field])));
    }
    print(&table.trim_fmt())
}

/// A record, a field a line; what is empty is left out.
fn fields(record: &Value) -> Result<(), Failure> {
    let mut table = plain();
    for (field, value) in record.as_object().into_iter().flatten() {
        let value = cell(value);
        if !value.is_empty() {
            table.add_row([field.clone(), value]);
        }
    }
    print(&table.trim_fmt())
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// A value as people read it. Control characters could steer the terminal: they are not printed.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => match (&fields.get("service"), &fields.get("access")) {
            // A scope entry, in its text form.
            (Some(Value::String(service)), Some(Value::String(access))) if fields.len() == 2 => {
                if access == "full" { service.clone() } else { format!("{service}:{access}") }
            }
            _ => value.to_string(),
        },
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        check(json!("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
