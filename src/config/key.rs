//! The keys of `gateway.toml`, which `keys.toml` defines, and the JSON Schema that is built from them.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use toml::de::ValueDeserializer;

use super::units;

/// A key of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub name: &'static str,
    pub kind: ValueKind,
    /// As it would be written in the file; `None` if an absent key has no value.
    pub default: Option<&'static str>,
    /// The largest duration or size, as it would be written in the file.
    pub max: Option<&'static str>,
    #[serde(default)]
    pub required: bool,
    /// One sentence for the schema and the documentation.
    #[serde(rename = "about")]
    pub description: &'static str,
}

/// The kind of value that a key has.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", bound(deserialize = "'de: 'static"))]
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
    #[serde(bound(deserialize = "'de: 'static"))]
    struct Root {
        #[serde(deserialize_with = "tables")]
        keys: Keys,
    }
    toml::from_str::<Root>(include_str!("keys.toml")).expect("every test of the configuration reads it").keys
});

impl ValueKind {
    /// The keys of the table, or of each table; none for other kinds.
    pub(super) fn keys(self) -> &'static [Key] {
        match self {
            Self::TextsOrTables(keys)
            | Self::Table(keys)
            | Self::TableOrTables(keys)
            | Self::Tables(keys)
            | Self::NamedTables(keys) => keys,
            _ => &[],
        }
    }
}

/// They live as long as the process, as do the texts, which are borrowed from `keys.toml`: it has no escapes.
type Keys = &'static [Key];
type Words = &'static [&'static str];

fn words<'de: 'static, D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
    Ok(Vec::deserialize(deserializer)?.leak())
}

fn tables<'de: 'static, D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
    Ok(Vec::deserialize(deserializer)?.leak())
}

/// JSON Schema 2020-12, for completion and checks in editors.
pub fn schema() -> Value {
    let mut schema = object(&ROOT);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("gateway.toml of permgate");
    schema
}

fn object(keys: &[Key]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut property = form(key);
    // The pattern of a text cannot express a maximum.
    let most = key.max.map(|max| format!(" At most {max}.")).unwrap_or_default();
    property["description"] = json!([key.description, &most].concat());
    if let Some(default) = key.default.and_then(|text| ValueDeserializer::parse(text).ok()) {
        property["default"] = Value::deserialize(default).unwrap_or_default();
    }
    property
}

fn form(key: &Key) -> Value {
    match key.kind {
        ValueKind::Text | ValueKind::Secret => json!({ "type": "string" }),
        ValueKind::Flag => json!({ "type": "boolean" }),
        ValueKind::Count(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
        ValueKind::Duration(_) => json!({ "type": "string", "pattern": "^[0-9][0-9_]* ?(ms|s|m|h|d|w)$" }),
        ValueKind::Size(least) => {
            let mut bytes = json!({ "type": "integer", "minimum": least });
            if let Some(most) = key.max.and_then(units::size) {
                bytes["maximum"] = json!(most);
            }
            let pattern = "^[0-9][0-9_]* ?([kKmMgG]([iI]?[bB])?|[bB])?$";
            json!({ "anyOf": [bytes, { "type": "string", "pattern": pattern }] })
        }
        ValueKind::Word(words) => json!({ "type": "string", "enum": words }),
        ValueKind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        ValueKind::Words(words) => json!({ "type": "array", "items": { "type": "string", "enum": words } }),
        ValueKind::TextsOrTables(keys) => {
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, object(keys)] } })
        }
        ValueKind::Table(keys) => object(keys),
        ValueKind::TableOrTables(keys) => {
            json!({ "anyOf": [object(keys), { "type": "array", "items": object(keys) }] })
        }
        ValueKind::Tables(keys) => json!({ "type": "array", "items": object(keys) }),
        ValueKind::NamedTables(keys) => json!({ "type": "object", "additionalProperties": object(keys) }),
    }
}
