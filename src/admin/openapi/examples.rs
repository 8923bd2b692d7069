//! Example answers, by the name of their schema.

use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::openapi::schema::Type;

static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("examples.json"))
        .expect("the examples are JSON: a test writes the document")
});

/// `None`: the schema needs no example.
pub(super) fn example(schema: &str) -> Option<Value> {
    EXAMPLES.get(schema).cloned()
}

/// The example of a response that creates a record; a token's also has its text.
pub(super) fn created_example(schema: &str) -> Option<Value> {
    let mut example = example(schema)?;
    if schema == "Token" {
        example["token"] = TEXT.into();
        example["cut"] = 0.into();
    }
    Some(example)
}

/// An example object with these fields.
pub(super) fn fields(fields: &[(&str, Type)]) -> Value {
    let value = |(name, kind): &(&str, Type)| {
        let value = match (*name, kind) {
            ("sessions", _) => json!(2),
            (_, Type::Integer) => json!(1),
            (_, Type::Boolean) => json!(true),
            (_, Type::Array) => json!([]),
            ("group", _) => json!("developers"),
            ("role", _) => json!("auditor"),
            ("status", _) => json!("ok"),
            ("text", _) => json!("version = 1\n"),
            _ => json!("ann"),
        };
        ((*name).to_owned(), value)
    };
    Value::Object(fields.iter().map(value).collect())
}

/// The body of a refusal, with the first of the codes that `codes` lists for its status.
pub(super) fn problem(status: u16, codes: &str) -> Value {
    let code = codes.split('`').nth(1).unwrap_or("internal");
    let description = match code {
        "invalid_request" => "The query string: unknown field `colour`",
        "unauthorized" => "Missing credentials",
        "permission_denied" => "the permission update-user is needed",
        "not_found" => "There is no such token",
        "name_taken" => "the name \"ci\" is taken",
        "precondition_failed" => "The record has changed since it was read",
        "invalid_name" => "a token name must not be empty",
        "too_many_attempts" => "Too many wrong passwords: wait before the next one",
        _ => "What is wrong, in a sentence",
    };
    json!({"error": code, "error_description": description, "status": status, "request_id": REQUEST})
}

/// A token as the Hub calls return it.
pub(super) fn hub_token() -> Value {
    EXAMPLES["HubToken"].clone()
}

pub(super) const TEXT: &str = "pgt_A1iceYt00001_...";
const REQUEST: &str = "019b76daa80070008000000000000002";
