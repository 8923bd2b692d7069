//! The definition of a key of `gateway.toml`.

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: ValueKind,
    /// As it would be written in the file; `None` if an absent key has no value.
    pub default: Option<&'static str>,
    pub required: bool,
    /// One sentence for the schema and the documentation.
    pub about: &'static str,
}

/// The kind of value that a key has.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    Text,
    /// Text that may be a secret and is never shown.
    Secret,
    Flag,
    /// Minimum and maximum, both included.
    Count(u64, u64),
    /// The minimum in milliseconds.
    Duration(u64),
    Size,
    Word(&'static [&'static str]),
    Texts,
    Words(&'static [&'static str]),
    /// A list whose items are texts, or tables with further settings.
    TextsOrTables(&'static [Key]),
    Table(&'static [Key]),
    /// `{...}` or `[{...}, ...]`.
    TableOrTables(&'static [Key]),
    /// `[[key]]`.
    Tables(&'static [Key]),
    /// `[key.NAME]`.
    Named(&'static [Key]),
}

pub(super) const fn key(name: &'static str, kind: ValueKind, about: &'static str) -> Key {
    Key { name, kind, default: None, required: false, about }
}

pub(super) const fn text(name: &'static str, about: &'static str) -> Key {
    key(name, ValueKind::Text, about)
}

pub(super) const fn texts(name: &'static str, about: &'static str) -> Key {
    key(name, ValueKind::Texts, about)
}

pub(super) const fn word(name: &'static str, words: &'static [&'static str], about: &'static str) -> Key {
    key(name, ValueKind::Word(words), about)
}

pub(super) const fn flag(name: &'static str, about: &'static str) -> Key {
    key(name, ValueKind::Flag, about)
}

pub(super) const fn count(name: &'static str, from: u64, to: u64, about: &'static str) -> Key {
    key(name, ValueKind::Count(from, to), about)
}

pub(super) const fn size(name: &'static str, about: &'static str) -> Key {
    key(name, ValueKind::Size, about)
}

/// Of at least so many milliseconds.
pub(super) const fn duration(name: &'static str, least: u64, about: &'static str) -> Key {
    key(name, ValueKind::Duration(least), about)
}

pub(super) const fn table(name: &'static str, keys: &'static [Key], about: &'static str) -> Key {
    key(name, ValueKind::Table(keys), about)
}

impl Key {
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}
