//! The API for people: `/openapi.json` as a page.

use askama::Template;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{Shell, render};
use crate::admin::{caller::Caller, openapi::document};

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage {
    shell: Shell,
    calls: Vec<Call>,
    schemas: Vec<(String, String)>,
}

/// One method of one path.
struct Call {
    method: String,
    path: String,
    summary: String,
    parameters: Vec<(String, String)>,
    body: Option<String>,
    answers: Vec<(String, String)>,
}

pub(super) async fn show(caller: Option<Caller>) -> Response {
    let document = serde_json::to_value(document()).unwrap_or_default();
    let paths = document["paths"].as_object().into_iter().flatten();
    let calls = paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().filter_map(|(method, call)| Call::new(method, path, call))
    });
    let calls = calls.collect();
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let schemas = schemas.map(|(name, schema)| (name.clone(), pretty(schema))).collect();
    render(StatusCode::OK, &DocsPage { shell: Shell::new("API", "/docs", caller.as_ref()), calls, schemas })
}

impl Call {
    /// `None`: the entry is no call.
    fn new(method: &str, path: &str, call: &Value) -> Option<Self> {
        let answers = call.get("responses")?.as_object()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let parameters = call["parameters"].as_array().into_iter().flatten();
        let body = call["requestBody"]["content"].as_object().and_then(|content| content.values().next());
        Some(Self {
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            summary: text(if call["summary"].is_null() { &call["description"] } else { &call["summary"] }),
            parameters: parameters.map(|p| (text(&p["name"]), text(&p["description"]))).collect(),
            body: body.map(|content| {
                pretty(if content["example"].is_null() { &content["schema"] } else { &content["example"] })
            }),
            answers: answers
                .iter()
                .map(|(status, answer)| (status.clone(), text(&answer["description"])))
                .collect(),
        })
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
