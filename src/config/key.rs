//! What is known of one key of `gateway.toml`.

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: ValueKind,
    /// As it would be written; `None`: absent unless written.
    pub default: Option<&'static str>,
    pub required: bool,
    /// One sentence, for the schema.
    pub about: &'static str,
}

/// What may stand behind a key.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    Text,
    /// Text that may be a secret: never shown.
    Secret,
    Flag,
    /// From, to, both included.
    Count(u64, u64),
    /// At least so many milliseconds.
    Duration(u64),
    Size,
    Word(&'static [&'static str]),
    Texts,
    Words(&'static [&'static str]),
    /// A list of texts, each of which may be a table that says more.
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

impl Key {
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}
