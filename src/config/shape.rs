//! Checks the configuration against the table of keys: unknown keys, wrong types and missing keys, all in one
//! pass. `resolve` checks the meaning of values.

use std::{borrow::Cow, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Document,
    key::{Key, ROOT, ValueKind},
    section::integer,
    suggest::{advice, list},
    units,
};

/// Reports everything in `table` that does not fit `keys`. `path` is the table's name in messages.
pub(super) fn check(
    document: &Document<'_>,
    keys: &'static [Key],
    table: &DeTable<'_>,
    at: &Range<usize>,
    path: &str,
) {
    for (name, value) in table {
        if document.is_full() {
            return;
        }
        match keys.iter().find(|key| key.name == name.get_ref()) {
            Some(key) => check_value(document, key, value, &join(path, key.name)),
            None => report_unknown_key(document, keys, name, path),
        }
    }
    for key in keys.iter().filter(|key| key.required && table.get(key.name).is_none()) {
        let advice = format!("add `{} = {}`", key.name, describe_kind(key.kind).1);
        let whole = if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") };
        document.error(at, format!("{whole} lacks `{}`", key.name), advice);
    }
}

fn report_unknown_key(
    document: &Document<'_>,
    keys: &'static [Key],
    name: &Spanned<Cow<'_, str>>,
    path: &str,
) {
    let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
    let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
    let advice = advice(name.get_ref(), known.iter().copied(), || {
        let mut tables = Vec::new();
        find_tables(name.get_ref(), &ROOT, "", &mut tables);
        match tables.len() {
            1..=4 => format!("it is a key of {}", tables.join(" and of ")),
            _ => format!("known here: {}", known.join(", ")),
        }
    });
    document.error(&name.span(), format!("unknown key `{}`{place}", name.get_ref()), advice);
}

/// Finds the tables that have a key of this name.
fn find_tables(name: &str, keys: &'static [Key], path: &str, tables: &mut Vec<String>) {
    for key in keys {
        let path_of_key = join(path, key.name);
        if key.name == name {
            tables.push(if path.is_empty() { "the top level".to_owned() } else { format!("[{path}]") });
        }
        let is_named = matches!(key.kind, ValueKind::NamedTables(_));
        let path_of_key = if is_named { format!("{path_of_key}.NAME") } else { path_of_key };
        find_tables(name, key.kind.keys(), &path_of_key, tables);
    }
}

fn check_value(document: &Document<'_>, key: &Key, value: &Spanned<DeValue<'_>>, path: &str) {
    let at = value.span();
    let wrong_type = || {
        let (wanted, example) = describe_kind(key.kind);
        let message = format!("`{path}` must be {wanted}, this is {}", article(value.get_ref().type_str()));
        let advice = match (key.kind, value.get_ref()) {
            (ValueKind::Tables(_), DeValue::Table(_)) => format!("write `[[{path}]]`"),
            _ => format!("write `{} = {example}`", key.name),
        };
        document.error(&at, message, advice);
    };
    let error = |at: &Range<usize>, message: String| document.error(at, message, "");
    let out_of_range = |bound: &str, text: String| error(&at, format!("`{path}` must be at {bound} {text}"));
    match (key.kind, value.get_ref()) {
        (ValueKind::Text | ValueKind::Secret, DeValue::String(_))
        | (ValueKind::Flag, DeValue::Boolean(_)) => {}
        (ValueKind::Count(from, to), number @ DeValue::Integer(_)) => {
            if !integer(number).is_some_and(|n| (from..=to).contains(&n)) {
                let range = if from == to { from.to_string() } else { format!("between {from} and {to}") };
                error(&at, format!("`{path}` must be {range}"));
            }
        }
        (ValueKind::Duration(_), DeValue::String(text)) if !units::is_duration(text) => {
            let advice = format!("write {}", units::DURATION_FORM);
            document.error(&at, format!("`{path}` is not a duration"), advice);
        }
        (ValueKind::Duration(least), DeValue::String(text)) => {
            let least = Duration::from_millis(least);
            let most = key.max.and_then(units::duration).unwrap_or(units::MAX_DURATION);
            match units::duration(text) {
                Some(given) if given < least => out_of_range("least", units::in_words(least)),
                Some(given) if given <= most => {}
                _ => out_of_range("most", units::in_words(most)),
            }
        }
        (ValueKind::Size(_), DeValue::String(text)) if units::size(text).is_none() => {
            document.error(&at, format!("`{path}` is not a size"), format!("write {}", units::SIZE_FORM));
        }
        (ValueKind::Size(least), size @ (DeValue::String(_) | DeValue::Integer(_))) => {
            let most = key.max.and_then(units::size).unwrap_or((1 << 63) - 1);
            match size.as_str().map_or_else(|| integer(size), units::size) {
                Some(given) if given > most => out_of_range("most", units::size_in_words(most)),
                Some(given) if given >= least => {}
                _ => out_of_range("least", units::size_in_words(least)),
            }
        }
        (ValueKind::Word(words), DeValue::String(text)) => check_word(document, words, text, &at, path),
        (ValueKind::Table(keys) | ValueKind::TableOrTables(keys), DeValue::Table(table)) => {
            check(document, keys, table, &at, path);
        }
        (
            ValueKind::Texts
            | ValueKind::Words(_)
            | ValueKind::TextsOrTables(_)
            | ValueKind::TableOrTables(_)
            | ValueKind::Tables(_),
            DeValue::Array(items),
        ) => {
            for item in items {
                match (key.kind, item.get_ref()) {
                    (ValueKind::Words(words), DeValue::String(text)) => {
                        check_word(document, words, text, &item.span(), path);
                    }
                    (ValueKind::Texts | ValueKind::TextsOrTables(_), DeValue::String(_)) => {}
                    (ValueKind::Texts | ValueKind::Words(_), other) => {
                        let found = article(other.type_str());
                        error(&item.span(), format!("`{path}` must hold text only, this is {found}"));
                    }
                    (kind, DeValue::Table(table)) => {
                        check(document, kind.keys(), table, &item.span(), path);
                    }
                    (ValueKind::TextsOrTables(_), other) => {
                        let found = article(other.type_str());
                        error(&item.span(), format!("`{path}` must hold texts and tables, this is {found}"));
                    }
                    _ => wrong_type(),
                }
            }
        }
        (ValueKind::NamedTables(keys), DeValue::Table(tables)) => {
            for (name, value) in tables {
                let inner = join(path, name.get_ref());
                match value.get_ref() {
                    DeValue::Table(table) => check(document, keys, table, &value.span(), &inner),
                    _ => {
                        // `[service]` instead of `[service.NAME]`.
                        let advice = if keys.iter().any(|key| key.name == name.get_ref()) {
                            format!("write `[{path}.NAME]` above it: each {path} has a name")
                        } else {
                            format!("write `[{inner}]`, then its keys")
                        };
                        document.error(&name.span(), format!("`{inner}` must be a table"), advice);
                    }
                }
            }
        }
        _ => wrong_type(),
    }
}

fn check_word(document: &Document<'_>, words: &[&str], text: &str, at: &Range<usize>, path: &str) {
    if words.contains(&text) {
        return;
    }
    let advice = advice(text, words.iter().copied(), || format!("write {}", list(words)));
    document.error(at, format!("`{path}` cannot be {text:?}"), advice);
}

/// The name of a kind, and an example.
fn describe_kind(kind: ValueKind) -> (&'static str, &'static str) {
    match kind {
        ValueKind::Text | ValueKind::Secret | ValueKind::Word(_) => ("text in quotes", "\"...\""),
        ValueKind::Flag => ("true or false", "true"),
        ValueKind::Count(..) => ("a whole number", "1"),
        ValueKind::Duration(_) => ("a duration in quotes", "\"10s\""),
        ValueKind::Size(_) => ("a size", "\"256m\""),
        ValueKind::Texts | ValueKind::Words(_) => ("a list of texts", "[\"...\"]"),
        ValueKind::TextsOrTables(_) => ("a list of texts and tables", "[\"...\"]"),
        ValueKind::Table(_) => ("a table", "{ ... }"),
        ValueKind::TableOrTables(_) => ("a table or a list of tables", "{ ... }"),
        ValueKind::Tables(_) => ("a list of tables", "[{ ... }]"),
        ValueKind::NamedTables(_) => ("a table of named tables", "{ name = { ... } }"),
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
