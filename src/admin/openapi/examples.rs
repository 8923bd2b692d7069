//! Example bodies and responses, which `examples.json` has.

use std::sync::LazyLock;

use serde_json::{Value, json};

static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("examples.json")).expect("a test reads the examples with the document")
});

/// The body of a request (`bodies`) or a response (`schemas`) by the name of its schema, or the response to
/// a call such as `GET /v1/whoami` whose schema has no name (`calls`).
pub(super) fn example(of: &str, name: &str) -> Option<Value> {
    EXAMPLES[of].get(name).cloned()
}

/// The example of a response that creates a record; a token's also has its text.
pub(super) fn created_example(schema: &str) -> Option<Value> {
    let mut example = example("schemas", schema)?;
    if schema == "Token" {
        example["token"] = TEXT.into();
        example["cut"] = 0.into();
    }
    Some(example)
}

/// Every status of a refusal, with the codes that come with it.
pub(super) fn statuses() -> impl Iterator<Item = (u16, &'static str)> {
    let statuses = EXAMPLES["statuses"].as_object().into_iter().flatten();
    statuses.filter_map(|(status, codes)| Some((status.parse().ok()?, codes.as_str()?)))
}

/// The body of a refusal, with the first of the codes that `codes` lists for its status.
pub(super) fn problem(status: u16, codes: &str) -> Value {
    let code = codes.split('`').nth(1).unwrap_or("internal");
    let description = EXAMPLES["problems"][code].as_str().unwrap_or("What is wrong, in a sentence");
    json!({"error": code, "error_description": description, "status": status, "request_id": REQUEST})
}

pub(super) const TEXT: &str = "pgt_A1iceYt00001_...";
const REQUEST: &str = "019b76daa80070008000000000000002";
