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
    pub description: &'static str,
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
    /// The minimum in bytes.
    Size(u64),
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
    NamedTables(&'static [Key]),
}

pub(super) const fn key(name: &'static str, kind: ValueKind, description: &'static str) -> Key {
    Key { name, kind, default: None, required: false, description }
}

pub(super) const fn text(name: &'static str, description: &'static str) -> Key {
    key(name, ValueKind::Text, description)
}

pub(super) const fn texts(name: &'static str, description: &'static str) -> Key {
    key(name, ValueKind::Texts, description)
}

pub(super) const fn word(
    name: &'static str,
    words: &'static [&'static str],
    description: &'static str,
) -> Key {
    key(name, ValueKind::Word(words), description)
}

pub(super) const fn flag(name: &'static str, description: &'static str) -> Key {
    key(name, ValueKind::Flag, description)
}

pub(super) const fn count(name: &'static str, from: u64, to: u64, description: &'static str) -> Key {
    key(name, ValueKind::Count(from, to), description)
}

/// Of at least so many bytes.
pub(super) const fn size(name: &'static str, least: u64, description: &'static str) -> Key {
    key(name, ValueKind::Size(least), description)
}

/// Of at least so many milliseconds.
pub(super) const fn duration(name: &'static str, least: u64, description: &'static str) -> Key {
    key(name, ValueKind::Duration(least), description)
}

pub(super) const fn secret(name: &'static str, description: &'static str) -> Key {
    key(name, ValueKind::Secret, description)
}

pub(super) const fn tables(name: &'static str, keys: &'static [Key], description: &'static str) -> Key {
    key(name, ValueKind::TableOrTables(keys), description)
}

pub(super) const fn named(name: &'static str, keys: &'static [Key], description: &'static str) -> Key {
    key(name, ValueKind::NamedTables(keys), description)
}

pub(super) const fn table(name: &'static str, keys: &'static [Key], description: &'static str) -> Key {
    key(name, ValueKind::Table(keys), description)
}

impl ValueKind {
    /// The keys of the table, or of each table. Only for kinds that have tables.
    pub(super) fn keys(self) -> &'static [Key] {
        match self {
            Self::TextsOrTables(keys)
            | Self::Table(keys)
            | Self::TableOrTables(keys)
            | Self::Tables(keys)
            | Self::NamedTables(keys) => keys,
            kind => unreachable!("{kind:?} has no keys"),
        }
    }
}

impl Key {
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(super) const fn with_default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}
