//! The keys of `gateway.toml`, which `keys.toml` defines.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};

/// A key of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    #[serde(deserialize_with = "text")]
    pub name: Text,
    pub kind: ValueKind,
    /// As it would be written in the file; `None` if an absent key has no value.
    #[serde(default, deserialize_with = "optional_text")]
    pub default: Option<Text>,
    #[serde(default)]
    pub required: bool,
    /// One sentence for the schema and the documentation.
    #[serde(deserialize_with = "text", rename = "about")]
    pub description: Text,
}

/// The kind of value that a key has.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    Word(#[serde(deserialize_with = "words")] Words),
    Texts,
    Words(#[serde(deserialize_with = "words")] Words),
    /// A list whose items are texts, or tables with further settings.
    TextsOrTables(#[serde(deserialize_with = "tables")] Keys),
    Table(#[serde(deserialize_with = "tables")] Keys),
    /// `{...}` or `[{...}, ...]`.
    TableOrTables(#[serde(deserialize_with = "tables")] Keys),
    /// `[[key]]`.
    Tables(#[serde(deserialize_with = "tables")] Keys),
    /// `[key.NAME]`.
    NamedTables(#[serde(deserialize_with = "tables")] Keys),
}

/// The keys of the file's top level.
pub static ROOT: LazyLock<&'static [Key]> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct Root {
        #[serde(deserialize_with = "tables")]
        keys: Keys,
    }
    toml::from_str::<Root>(include_str!("keys.toml")).expect("every test of the configuration reads it").keys
});

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

/// They live as long as the process.
type Text = &'static str;
type Keys = &'static [Key];
type Words = &'static [Text];

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
    Ok(String::deserialize(deserializer)?.leak())
}

fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
    text(deserializer).map(Some)
}

fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    Ok(words.into_iter().map(|word| &*word.leak()).collect::<Vec<Text>>().leak())
}

fn tables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
    Ok(Vec::<Key>::deserialize(deserializer)?.leak())
}
