//! Keys that environment variables set in place of the file, which suits containers:
//! `PERMGATE__SERVER__LISTEN` sets `server.listen` (docs/configuration.md, "Environment variables").

use std::{ffi::OsString, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Document,
    key::{Key, ROOT, ValueKind},
    mask::mask_secrets,
    problem::{Errors, Problem},
};

const PREFIX: &str = "PERMGATE__";

/// The settings of the environment, in the order of the variables' names.
#[derive(Default)]
pub(super) struct Overrides {
    set: Vec<Override>,
    /// Warnings of variables that have one underscore where two belong.
    pub(super) mistaken: Vec<Problem>,
}

struct Override {
    variable: Arc<str>,
    path: Vec<String>,
    /// The setting as a line of the file, such as `server.listen = ["0.0.0.0:8080"]`.
    line: String,
    /// The line's offset if all lines followed the file's text. A span thereby shows which text it belongs
    /// to.
    start: usize,
    /// The value after as many spaces as give it that span.
    padded: String,
}

/// A position in a variable's line.
pub(super) struct VariableLocation<'o> {
    pub(super) variable: &'o Arc<str>,
    pub(super) line: &'o str,
    /// In bytes from the start of the line.
    pub(super) offset: usize,
}

impl Overrides {
    /// `length` is that of the file's text in bytes.
    pub(super) fn read(variables: impl Iterator<Item = (OsString, OsString)>, length: usize) -> Self {
        let mut mistaken = Vec::new();
        let mut set: Vec<(String, String)> = variables
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                if let Some(meant) = name.strip_prefix("PERMGATE_").and_then(|key| with_two(&ROOT, key, 0)) {
                    let advice = format!("write {PREFIX}{meant}, with two underscores for each dot");
                    mistaken.extend(Errors::in_file(&name, "sets nothing".to_owned(), &advice).0);
                }
                name.starts_with(PREFIX).then(|| (name, value.to_string_lossy().into_owned()))
            })
            .collect();
        set.sort();
        mistaken.sort_by(|one, other| one.file.cmp(&other.file));
        let mut start = length + 1;
        let overrides = set.into_iter().map(|(name, value)| {
            let one = Override::new(name, &value, start);
            start += one.line.len() + 1;
            one
        });
        Self { set: overrides.collect(), mistaken }
    }

    /// Inserts the values into the file's table.
    pub(super) fn merge<'t>(&'t self, table: &mut DeTable<'t>, document: &Document<'_>) {
        for one in &self.set {
            if let Err(not_a_table) = one.merge(table) {
                let message = format!("`{not_a_table}` is not a table: a variable cannot set keys in it");
                document.error(&one.span(), message, format!("set `{not_a_table}` as a whole, in TOML"));
            }
        }
    }

    pub(super) fn location(&self, offset: usize) -> Option<VariableLocation<'_>> {
        let Override { variable, line, start, .. } = self.set.iter().rfind(|one| one.start <= offset)?;
        Some(VariableLocation { variable, line, offset: offset - start })
    }

    pub(super) fn span(&self, variable: &str) -> Option<Range<usize>> {
        self.set.iter().find(|one| &*one.variable == variable).map(Override::span)
    }

    /// `VARIABLE sets KEY = VALUE` for each, with possible secrets removed. The key is spelled as in `table`,
    /// into which the values were merged.
    pub(super) fn descriptions(&self, table: &DeTable<'_>) -> Vec<String> {
        let describe = |one: &Override| {
            let value = &one.line[one.path.join(".").len()..];
            let line = format!("{}{value}", spelled(table, &one.path));
            format!("{} sets {}", one.variable, mask_secrets(&line))
        };
        self.set.iter().map(describe).collect()
    }
}

impl Override {
    fn new(variable: String, value: &str, start: usize) -> Self {
        let name = variable.strip_prefix(PREFIX).unwrap_or(&variable).to_ascii_lowercase();
        let path: Vec<String> = name.split("__").map(str::to_owned).collect();
        let (written, value) = (path.join("."), literal(kind(&path), value));
        // `v=` stands for the key and ` = `, so that the value starts where it does in the line.
        let padded = format!("{}v={value}", " ".repeat(start + written.len() + 1));
        Self { variable: variable.into(), line: format!("{written} = {value}"), path, start, padded }
    }

    fn span(&self) -> Range<usize> {
        self.start..self.start + self.line.len()
    }

    /// Fails with the part of the path that is not a table.
    fn merge<'t>(&'t self, root: &mut DeTable<'t>) -> Result<(), &'t str> {
        let (parsed, _) = DeTable::parse_recoverable(&self.padded);
        let Some(value) = parsed.into_inner().remove("v") else { return Ok(()) };
        let Some((last, parents)) = self.path.split_last() else { return Ok(()) };
        let mut table = root;
        for part in parents {
            let name = Spanned::new(self.span(), same_key(table, part).into());
            let below = || Spanned::new(self.span(), DeValue::Table(DeTable::new()));
            let DeValue::Table(inner) = table.entry(name).or_insert_with(below).get_mut() else {
                return Err(part);
            };
            table = inner;
        }
        let name = same_key(table, last);
        table.remove(name.as_str());
        table.insert(Spanned::new(self.span(), name.into()), value);
        Ok(())
    }
}

/// `SERVER__LISTEN` for `SERVER_LISTEN`, also if some underscores are two. `None` if that names no key of a
/// table whose name is fixed: an orchestrator may set `PERMGATE_SERVICE_PORT`, or an image `PERMGATE_VERSION`.
fn with_two(keys: &[Key], name: &str, depth: usize) -> Option<String> {
    keys.iter().find_map(|key| {
        let part = key.name.to_ascii_uppercase();
        let rest = name.strip_prefix(&part)?;
        match key.kind {
            ValueKind::Table(below) | ValueKind::TableOrTables(below) => {
                let rest = rest.strip_prefix("__").or_else(|| rest.strip_prefix('_'))?;
                Some(format!("{part}__{}", with_two(below, rest, depth + 1)?))
            }
            _ => (rest.is_empty() && depth > 0).then_some(part),
        }
    })
}

/// The table's key for a part of a variable's name, which has neither upper case nor dashes.
fn same_key(table: &DeTable<'_>, part: &str) -> String {
    let folded = |key: &str| key.to_ascii_lowercase().replace('-', "_");
    let found = table.keys().find(|key| folded(key.get_ref()) == folded(part));
    found.map_or_else(|| part.to_owned(), |key| key.get_ref().clone().into_owned())
}

/// The key that a variable's path names, as the table spells it.
fn spelled(root: &DeTable<'_>, path: &[String]) -> String {
    let mut table = Some(root);
    let mut key = |part: &String| {
        let key = table.map_or_else(|| part.clone(), |table| same_key(table, part));
        table = table.and_then(|table| table.get(key.as_str())?.get_ref().as_table());
        key
    };
    path.iter().map(&mut key).collect::<Vec<_>>().join(".")
}

/// `None` if there is no such key, which the shape check reports.
fn kind(path: &[String]) -> Option<ValueKind> {
    let mut keys: &'static [Key] = &ROOT;
    let mut parts = path.iter();
    loop {
        let part = parts.next()?;
        let kind = keys.iter().find(|key| key.name == part)?.kind;
        let below = match kind {
            ValueKind::Table(below) | ValueKind::TableOrTables(below) => below,
            ValueKind::NamedTables(below) => {
                parts.next();
                below
            }
            _ => return Some(kind),
        };
        if parts.len() == 0 {
            return Some(kind);
        }
        keys = below;
    }
}

/// The value as TOML. A text needs no quotes, and a list of texts may be separated by commas.
fn literal(kind: Option<ValueKind>, value: &str) -> String {
    let value = value.trim();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let parsed = DeValue::parse(value).ok();
    let is_array = parsed.as_ref().is_some_and(|value| value.get_ref().is_array());
    let is_text = parsed.as_ref().is_some_and(|value| value.get_ref().is_str());
    match kind {
        Some(ValueKind::Texts | ValueKind::Words(_) | ValueKind::TextsOrTables(_)) if !is_array => {
            let texts: Vec<String> = value
                .split(',')
                .map(|text| quoted(text.trim().trim_matches('"')))
                .filter(|text| text != "\"\"")
                .collect();
            format!("[{}]", texts.join(", "))
        }
        Some(ValueKind::Text | ValueKind::Secret | ValueKind::Word(_) | ValueKind::Duration(_))
            if !is_text =>
        {
            quoted(value)
        }
        _ if parsed.is_some() => value.to_owned(),
        _ => quoted(value),
    }
}
