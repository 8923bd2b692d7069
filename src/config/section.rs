//! A table of the configuration, read key by key. `shape::check` has reported wrong types before, so the
//! default silently replaces a value of a wrong type here.

use std::{ops::Range, path::PathBuf, str::FromStr, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::{Document, References},
    key::Key,
    problem::reason,
    units,
};

/// An error message, and what to write instead.
pub(super) type ValueError = (String, String);

pub(super) fn wrong<T>(message: impl Into<String>, advice: impl Into<String>) -> Result<T, ValueError> {
    Err((message.into(), advice.into()))
}

#[derive(Clone)]
pub(super) struct Section<'a> {
    pub(super) document: &'a Document<'a>,
    keys: &'static [Key],
    table: Option<&'a DeTable<'a>>,
    /// The header's span.
    pub(super) at: Range<usize>,
}

/// A text with its span.
#[derive(Clone)]
pub(super) struct SpannedText<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) value: String,
    pub(super) at: Range<usize>,
}

pub(super) enum ListItem<'a> {
    Text(SpannedText<'a>),
    Table(Section<'a>),
}

impl<'a> SpannedText<'a> {
    pub(super) fn error(&self, message: impl Into<String>, advice: impl Into<String>) {
        self.document.error(&self.at, message, advice);
    }

    pub(super) fn warn(&self, message: impl Into<String>, advice: impl Into<String>) {
        self.document.warn(&self.at, message, advice);
    }

    /// `None` if `parse` fails, which is reported.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        self.ok_or_report(parse(&self.value))
    }

    /// `None` if `result` is an error, which is reported at this text.
    pub(super) fn ok_or_report<T>(&self, result: Result<T, ValueError>) -> Option<T> {
        result.map_err(|(message, advice)| self.error(message, advice)).ok()
    }

    fn from_value(value: &Spanned<DeValue<'_>>, document: &'a Document<'a>) -> Option<Self> {
        Some(Self { document, value: value.get_ref().as_str()?.to_owned(), at: value.span() })
    }
}

impl<'a> Section<'a> {
    /// `table`: `None` for one that is absent. `at`: the header's span.
    pub(super) fn new(
        document: &'a Document<'a>,
        keys: &'static [Key],
        table: Option<&'a DeTable<'a>>,
        at: Range<usize>,
    ) -> Self {
        Self { document, keys, table, at }
    }

    /// Reports an error at a value, or at the header if the value is absent.
    pub(super) fn error(&self, name: &str, message: impl Into<String>, advice: impl Into<String>) {
        self.document.error(&self.at(name), message, advice);
    }

    /// Warns at a value, or at the header if the value is absent.
    pub(super) fn warn(&self, name: &str, message: impl Into<String>, advice: impl Into<String>) {
        self.document.warn(&self.at(name), message, advice);
    }

    /// A sub-table; an empty one with all defaults if it is absent.
    pub(super) fn table(&self, name: &str) -> Section<'a> {
        let value = self.entry(name);
        let table = value.and_then(|value| value.get_ref().as_table());
        Section::new(self.document, self.key(name).kind.keys(), table, value.map_or(0..0, Spanned::span))
    }

    /// A sub-table that enables a feature by its presence.
    pub(super) fn optional_table(&self, name: &str) -> Option<Section<'a>> {
        self.is_set(name).then(|| self.table(name))
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The tables of `[[name]]`, `name = {...}` or `name = [{...}]`.
    pub(super) fn tables(&self, name: &str) -> Vec<Section<'a>> {
        let one = self.table(name);
        let section = |value: &'a Spanned<DeValue<'a>>| {
            Section::new(self.document, one.keys, value.get_ref().as_table(), value.span())
        };
        match self.entry(name).map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(items))) => items.iter().map(section).collect(),
            Some((value, DeValue::Table(_))) => vec![section(value)],
            _ => Vec::new(),
        }
    }

    /// The tables of `[name.NAME]`, in the order of the file.
    pub(super) fn named_tables(&self, name: &str) -> Vec<(SpannedText<'a>, Section<'a>)> {
        let Some(tables) = self.entry(name).and_then(|value| value.get_ref().as_table()) else {
            return Vec::new();
        };
        let keys = self.key(name).kind.keys();
        let mut named: Vec<_> = tables
            .iter()
            .map(|(name, value)| {
                let section = Section::new(self.document, keys, value.get_ref().as_table(), value.span());
                let value = name.get_ref().clone().into_owned();
                (SpannedText { document: self.document, value, at: name.span() }, section)
            })
            .collect();
        named.sort_by_key(|(name, _)| name.at.start);
        named
    }

    pub(super) fn text(&self, name: &str) -> Option<SpannedText<'a>> {
        self.value(name, |value| SpannedText::from_value(value, self.document))
    }

    /// A parsed text. `None` if it is absent, or if `parse` fails, which is reported.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.text(name)?.parse(parse)
    }

    /// One line of text. `table`: the name of this table in messages.
    pub(super) fn line(&self, table: &str, name: &str) -> Option<String> {
        self.parsed(name, |text| {
            if text.is_empty() || text.contains(char::is_control) {
                return wrong(format!("`{table}.{name}` must be one line of text"), "");
            }
            Ok(text.to_owned())
        })
    }

    /// The meaning of a text that is one of the key's words.
    pub(super) fn word<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.value.parse().ok()
    }

    /// Like [`Self::file`], and reports a file that other users can access.
    pub(super) fn private_file(&self, name: &str) -> Option<PathBuf> {
        let path = self.file(name)?;
        self.document.require_private(&self.at(name), &path);
        Some(path)
    }

    /// The path of an existing file. `None` if it is absent, or the file cannot be read, which is reported.
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        self.parsed(name, |text| {
            let path = self.document.directory.join(text);
            if self.document.references == References::Ignored {
                return Ok(path);
            }
            match path.metadata() {
                Ok(metadata) if metadata.is_file() => Ok(path),
                Ok(_) => wrong(format!("{} is not a file", path.display()), ""),
                Err(error) => wrong(format!("{} cannot be read: {}", path.display(), reason(&error)), ""),
            }
        })
    }

    /// The entries of a list of texts and tables.
    pub(super) fn entries(&self, name: &str) -> Vec<ListItem<'a>> {
        let keys = self.key(name).kind.keys();
        let items = self.entry(name).and_then(|value| value.get_ref().as_array());
        let entry = |item: &'a Spanned<DeValue<'a>>| match item.get_ref().as_table() {
            Some(table) => Some(ListItem::Table(Section::new(self.document, keys, Some(table), item.span()))),
            None => SpannedText::from_value(item, self.document).map(ListItem::Text),
        };
        items.map(|items| items.iter().filter_map(entry).collect()).unwrap_or_default()
    }

    pub(super) fn texts(&self, name: &str) -> Vec<SpannedText<'a>> {
        self.optional_texts(name).unwrap_or_default()
    }

    pub(super) fn optional_texts(&self, name: &str) -> Option<Vec<SpannedText<'a>>> {
        let text = |item: &Spanned<DeValue<'_>>| SpannedText::from_value(item, self.document);
        self.value(name, |value| Some(value.get_ref().as_array()?.iter().filter_map(text).collect()))
    }

    /// The parsed texts of a list. Failures of `parse` are reported.
    pub(super) fn all_parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, ValueError>) -> Vec<T> {
        self.texts(name).iter().filter_map(|text| text.parse(&parse)).collect()
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

    /// `None` also if the number does not fit into `N`.
    pub(super) fn count<N: TryFrom<u64>>(&self, name: &str) -> Option<N> {
        self.value(name, |value| integer(value.get_ref())?.try_into().ok())
    }

    /// The span of a value, or of the header if the value is absent.
    pub(super) fn at(&self, name: &str) -> Range<usize> {
        self.entry(name).map_or_else(|| self.at.clone(), Spanned::span)
    }

    fn value<T>(&self, name: &str, read: impl Fn(&Spanned<DeValue<'_>>) -> Option<T>) -> Option<T> {
        self.entry(name).and_then(&read).or_else(|| {
            let default = self.key(name).default?;
            read(&DeValue::parse(default).expect("a default is TOML: a test reads them all"))
        })
    }

    pub(super) fn entry(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(name)
    }

    fn key(&self, name: &str) -> &'static Key {
        self.keys.iter().find(|key| key.name == name).expect("code asks for keys of the table of keys only")
    }
}

pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}
