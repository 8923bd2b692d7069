//! The JSON Schema of `gateway.toml`, built from the table of keys.

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use super::key::{Key, ROOT, ValueKind};

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
    let mut property = form(key.kind);
    property["description"] = json!(key.description);
    if let Some(default) = key.default.and_then(|text| DeValue::parse(text).ok()) {
        property["default"] = to_json(default.get_ref());
    }
    property
}

fn form(kind: ValueKind) -> Value {
    match kind {
        ValueKind::Text | ValueKind::Secret => json!({ "type": "string" }),
        ValueKind::Flag => json!({ "type": "boolean" }),
        ValueKind::Count(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
        ValueKind::Duration(_) => json!({ "type": "string", "pattern": "^[0-9][0-9_]* ?(ms|s|m|h|d|w)$" }),
        ValueKind::Size(least) => json!({
            "anyOf": [
                { "type": "integer", "minimum": least },
                { "type": "string", "pattern": "^[0-9][0-9_]* ?([kKmMgG]([iI]?[bB])?|[bB])?$" },
            ]
        }),
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

fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Integer(number) => json!(number.as_str().parse::<i64>().ok()),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Value::Null,
    }
}
