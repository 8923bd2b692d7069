//! The operations of the API, which `calls.toml` lists, with example bodies and responses, which
//! `examples.json` has.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A method on a path, with its parameters, body and answer.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Call {
    summary: String,
    /// Name, description and type of each parameter of the query.
    query: Vec<(String, String, String)>,
    /// Takes the parameters of a page.
    paged: bool,
    /// Takes the revision that the caller has read.
    conditional: bool,
    /// Makes a record once, however often the request is repeated.
    idempotent: bool,
    body: Option<String>,
    optional_body: bool,
    /// Takes the form of OAuth's introspection and revocation.
    token_form: bool,
    returns: Option<String>,
    creates: Option<String>,
    lists: Option<String>,
    fields: Vec<(String, String)>,
    schema: Option<Value>,
    media_type: Option<String>,
    errors: Vec<u16>,
    /// Needs no authentication.
    open: bool,
}

const JSON: &str = "application/json";

/// The paths of the document, each with its operations by method.
pub(super) fn paths() -> Value {
    let calls: BTreeMap<String, Call> =
        toml::from_str(include_str!("calls.toml")).expect("a test reads the calls with the document");
    let mut paths = json!({});
    for (route, call) in calls {
        let (method, path) = route.split_once(' ').expect("a route is a method and a path");
        paths[path][method.to_ascii_lowercase()] = call.operation(&route, method, path);
    }
    paths
}

impl Call {
    /// `route` is the method and the path: `GET /v1/users`.
    fn operation(&self, route: &str, method: &str, path: &str) -> Value {
        let mut segments = path.split('/').skip(1);
        let (first, second) = (segments.next(), segments.next());
        let mut operation = json!({
            "operationId": route,
            "summary": self.summary,
            "tags": [second.or(first)],
            "responses": self.responses(route, method, path),
        });
        let parameters = self.parameters(path);
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(content) = self.request_content() {
            operation["requestBody"] = json!({"content": content, "required": !self.optional_body});
        }
        if self.open {
            operation["security"] = json!([{}]);
        }
        operation
    }

    fn parameters(&self, path: &str) -> Vec<Value> {
        let in_path = names_in(path).map(|name| {
            json!({"in": "path", "name": name, "required": true, "schema": {"type": "string", "minLength": 1}})
        });
        let in_query = self
            .query
            .iter()
            .map(|(name, about, kind)| optional("query", name, about, &json!({"type": kind})));
        let mut parameters: Vec<_> = in_path.chain(in_query).collect();
        let text = || json!({"type": "string"});
        if self.paged {
            parameters.push(optional("query", "cursor", "`next` of the page before", &text()));
            let limit = json!({"type": "integer", "minimum": 1, "maximum": 1000});
            parameters.push(optional("query", "limit", "Rows on a page; 100 by default", &limit));
        }
        if self.conditional {
            let about = "The record's `ETag` as it was read: 412 if it has changed since";
            parameters.push(optional("header", "If-Match", about, &text()));
        }
        if self.idempotent {
            let about = "1 to 255 visible characters: the same request with the same key gets the first record for a \
                         day, with 200 and without the text";
            parameters.push(optional("header", "Idempotency-Key", about, &text()));
        }
        parameters
    }

    fn request_content(&self) -> Option<Value> {
        match &self.body {
            Some(name) => Some(content(JSON, &reference(name), example_of("bodies", name))),
            None if self.token_form => {
                let text = || json!({"type": "string"});
                let form = json!({
                    "type": "object",
                    "required": ["token"],
                    "properties": {"token": text(), "token_type_hint": text()},
                });
                Some(content("application/x-www-form-urlencoded", &form, Some(json!({"token": TOKEN_TEXT}))))
            }
            None => None,
        }
    }

    fn responses(&self, route: &str, method: &str, path: &str) -> Value {
        let (status, schema, example) = self.answer(route);
        let media_type = self.media_type.as_deref().unwrap_or(JSON);
        let mut responses = json!({});
        if self.idempotent {
            let mut record = example.clone();
            record.as_mut().and_then(Value::as_object_mut).map(|fields| fields.remove("token"));
            let repeated = content(media_type, &schema, record);
            responses["200"] = json!({"description": "The record of the first request", "content": repeated});
        }
        let answer = content(media_type, &schema, example);
        responses[status] = json!({"description": "As asked", "content": answer});
        let errors = self.error_statuses(method, path);
        for (status, about) in statuses().filter(|(status, _)| errors.contains(status)) {
            let problem = json!({"schema": reference("Problem"), "example": problem_example(status, about)});
            responses[status.to_string()] = json!({
                "description": about,
                "content": {JSON: problem, "application/problem+json": problem},
            });
        }
        responses
    }

    /// The status of a success, with the schema and an example of its body.
    fn answer(&self, route: &str) -> (&'static str, Value, Option<Value>) {
        let (status, schema, example) = match (&self.returns, &self.creates, &self.lists) {
            (Some(name), ..) => ("200", reference(name), example_of("schemas", name)),
            (_, Some(name), _) => ("201", reference(name), created_example(name)),
            (.., Some(name)) => {
                let page = json!({
                    "type": "object",
                    "required": ["items", "next"],
                    "properties": {
                        "items": {"type": "array", "items": reference(name)},
                        "next": {"type": ["string", "null"]},
                    },
                });
                let example = example_of("schemas", name).map(|item| json!({"items": [item], "next": null}));
                ("200", page, example)
            }
            (None, None, None) => ("200", self.schema.clone().unwrap_or_else(|| object(&self.fields)), None),
        };
        (status, schema, example.or_else(|| example_of("calls", route)))
    }

    fn error_statuses(&self, method: &str, path: &str) -> Vec<u16> {
        // Removals are not rate limited.
        let of_parts: [(bool, &[u16]); 6] = [
            (true, &[400, 401, 403, 421, 503]),
            (path.contains('{'), &[404]),
            (matches!(method, "POST" | "PUT" | "PATCH"), &[429]),
            (self.body.is_some(), &[413, 415, 422]),
            (self.token_form, &[413, 415]),
            (self.conditional, &[412]),
        ];
        let of_parts = of_parts.iter().filter(|(applies, _)| *applies).flat_map(|(_, statuses)| *statuses);
        of_parts.chain(&self.errors).copied().collect()
    }
}

/// A parameter that may be left out.
fn optional(place: &str, name: &str, about: &str, schema: &Value) -> Value {
    json!({"in": place, "name": name, "description": about, "required": false, "schema": schema})
}

/// A body of one media type, in the form in which requests and responses have it.
fn content(media_type: &str, schema: &Value, example: Option<Value>) -> Value {
    let mut content = json!({"schema": schema});
    if let Some(example) = example {
        content["example"] = example;
    }
    json!({media_type: content})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// The schema of an object with all of these fields, by name and type.
fn object(fields: &[(String, String)]) -> Value {
    if fields.is_empty() {
        return json!({"type": "object"});
    }
    let required: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, kind)| (name.clone(), json!({"type": kind}))).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// The names in the braces of a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("examples.json")).expect("a test reads the examples with the document")
});

/// The body of a request (`bodies`) or a response (`schemas`) by the name of its schema, or the response to
/// a call such as `GET /v1/whoami` whose schema has no name (`calls`).
fn example_of(of: &str, name: &str) -> Option<Value> {
    EXAMPLES[of].get(name).cloned()
}

/// The example of a response that creates a record; a token's also has its text.
fn created_example(schema: &str) -> Option<Value> {
    let mut example = example_of("schemas", schema)?;
    if schema == "Token" {
        example["token"] = TOKEN_TEXT.into();
        example["cut"] = 0.into();
    }
    Some(example)
}

/// Every status of a refusal, with the codes that come with it.
fn statuses() -> impl Iterator<Item = (u16, &'static str)> {
    let statuses = EXAMPLES["statuses"].as_object().into_iter().flatten();
    statuses.filter_map(|(status, codes)| Some((status.parse().ok()?, codes.as_str()?)))
}

/// The body of a refusal, with the first of the codes that `codes` lists for its status.
fn problem_example(status: u16, codes: &str) -> Value {
    let code = codes.split('`').nth(1).unwrap_or("internal");
    let description = EXAMPLES["problems"][code].as_str().unwrap_or("What is wrong, in a sentence");
    json!({"error": code, "error_description": description, "status": status, "request_id": REQUEST})
}

const TOKEN_TEXT: &str = "pgt_A1iceYt00001_...";
const REQUEST: &str = "019b76daa80070008000000000000002";
