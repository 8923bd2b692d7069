//! A table of the written form, read key by key. `shape::check` has passed judgement on types
//! already, so that whatever does not fit here has been reported and the default stands in for it.

use std::{ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    key::{Key, Kind},
    units,
};

/// Text with its place.
pub(super) type Text = Spanned<String>;

#[derive(Clone)]
pub(super) struct Section<'a> {
    keys: &'static [Key],
    table: Option<&'a DeTable<'a>>,
    /// Of the header.
    pub(super) at: Range<usize>,
}

pub(super) enum Entry<'a> {
    Text(Text),
    Table(Section<'a>),
}

impl<'a> Section<'a> {
    pub(super) fn root(keys: &'static [Key], table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { keys, table: Some(table.get_ref()), at: 0..0 }
    }

    /// A sub-table; an empty one, with every default, where none is written.
    pub(super) fn table(&self, name: &str) -> Section<'a> {
        let (Kind::Table(keys) | Kind::TableOrTables(keys) | Kind::Tables(keys)) = self.key(name).kind else {
            unreachable!("`{name}` is a table in the table of keys");
        };
        let value = self.written(name);
        let table = value.and_then(|value| value.get_ref().as_table());
        Section { keys, table, at: value.map_or(0..0, Spanned::span) }
    }

    pub(super) fn is_written(&self, name: &str) -> bool {
        self.written(name).is_some()
    }

    /// The tables of `[[name]]`, `name = {...}` or `name = [{...}]`.
    pub(super) fn tables(&self, name: &str) -> Vec<Section<'a>> {
        let one = self.table(name);
        let section = |value: &'a Spanned<DeValue<'a>>| Section {
            keys: one.keys,
            table: value.get_ref().as_table(),
            at: value.span(),
        };
        match self.written(name).map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(items))) => items.iter().map(section).collect(),
            Some((value, DeValue::Table(_))) => vec![section(value)],
            _ => Vec::new(),
        }
    }

    /// The tables of `[name.NAME]`, in the order of the file.
    pub(super) fn named(&self, name: &str) -> Vec<(Text, Section<'a>)> {
        let Kind::Named(keys) = self.key(name).kind else {
            unreachable!("`{name}` is a table of named tables in the table of keys");
        };
        let Some(tables) = self.written(name).and_then(|value| value.get_ref().as_table()) else {
            return Vec::new();
        };
        let mut named: Vec<_> = tables
            .iter()
            .map(|(name, value)| {
                let section = Section { keys, table: value.get_ref().as_table(), at: value.span() };
                (Spanned::new(name.span(), name.get_ref().clone().into_owned()), section)
            })
            .collect();
        named.sort_by_key(|(name, _)| name.span().start);
        named
    }

    pub(super) fn text(&self, name: &str) -> Option<Text> {
        self.value(name, as_text)
    }

    /// The entries of a list of texts and tables.
    pub(super) fn entries(&self, name: &str) -> Vec<Entry<'a>> {
        let Kind::TextsOrTables(keys) = self.key(name).kind else {
            unreachable!("`{name}` is a list of texts and tables in the table of keys");
        };
        let items = self.written(name).and_then(|value| value.get_ref().as_array());
        let entry = |item: &'a Spanned<DeValue<'a>>| match item.get_ref().as_table() {
            Some(table) => Some(Entry::Table(Section { keys, table: Some(table), at: item.span() })),
            None => as_text(item).map(Entry::Text),
        };
        items.map(|items| items.iter().filter_map(entry).collect()).unwrap_or_default()
    }

    pub(super) fn texts(&self, name: &str) -> Vec<Text> {
        self.texts_if_any(name).unwrap_or_default()
    }

    pub(super) fn texts_if_any(&self, name: &str) -> Option<Vec<Text>> {
        self.value(name, |value| Some(value.get_ref().as_array()?.iter().filter_map(as_text).collect()))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name, |value| value.get_ref().as_bool()).unwrap_or_default()
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        self.value(name, |value| units::duration(value.get_ref().as_str()?))
    }

    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.value(name, |value| match value.get_ref() {
            DeValue::String(text) => units::size(text),
            other => integer(other),
        })
    }

    pub(super) fn count(&self, name: &str) -> Option<usize> {
        self.value(name, |value| usize::try_from(integer(value.get_ref())?).ok())
    }

    /// Where the value stands, else the header.
    pub(super) fn at(&self, name: &str) -> Range<usize> {
        self.written(name).map_or_else(|| self.at.clone(), Spanned::span)
    }

    fn value<T>(&self, name: &str, read: impl Fn(&Spanned<DeValue<'_>>) -> Option<T>) -> Option<T> {
        self.written(name).and_then(&read).or_else(|| {
            let default = self.key(name).default?;
            read(&DeValue::parse(default).expect("a default is TOML: a test reads them all"))
        })
    }

    fn written(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(name)
    }

    fn key(&self, name: &str) -> &'static Key {
        self.keys.iter().find(|key| key.name == name).expect("code asks for keys of the table of keys only")
    }
}

fn as_text(value: &Spanned<DeValue<'_>>) -> Option<Text> {
    Some(Spanned::new(value.span(), value.get_ref().as_str()?.to_owned()))
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}
