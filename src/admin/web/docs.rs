//! The API reference: `/openapi.json` as a page. It needs no authentication, so it is rendered only once.

use std::{collections::BTreeSet, fmt::Write as _, sync::LazyLock};

use askama::Template;
use axum::response::Response;
use serde_json::Value;

use super::{Shell, render};
use crate::admin::{Caller, Context, openapi::document};

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage {
    shell: Shell,
    base: String,
    /// The rendered [`Reference`].
    reference: &'static str,
}

#[derive(Template)]
#[template(path = "reference.html")]
struct Reference {
    groups: Vec<Group>,
    errors: Vec<(String, String)>,
    schemas: Vec<(String, String)>,
}

/// The operations of one resource.
struct Group {
    title: &'static str,
    anchor: &'static str,
    calls: Vec<ApiOperation>,
}

/// A method on a path.
struct ApiOperation {
    method: String,
    path: String,
    summary: String,
    parameters: Vec<(String, String)>,
    body: Option<String>,
    answer: Option<String>,
    curl: String,
    /// Statuses of errors besides the usual ones.
    errors: Vec<String>,
}

/// Resources in the order of the reference: path prefix, title and anchor.
const RESOURCES: [(&str, &str, &str); 12] = [
    ("/v1/tokens", "Tokens", "tokens"),
    ("/v1/users/{login}/tokens", "Tokens", "tokens"),
    ("/v1/users", "Users", "users"),
    ("/v1/groups", "Groups", "groups"),
    ("/v1/roles", "Roles and grants", "roles"),
    ("/v1/grants", "Roles and grants", "roles"),
    ("/v1/session", "Signing in", "session"),
    ("/v1/invitation", "Signing in", "session"),
    ("/oauth2", "OAuth 2.0", "oauth"),
    ("/hub", "Hub's own calls", "hub"),
    ("/v1", "Operation", "operation"),
    ("/", "Health and metrics", "health"),
];
/// Error statuses of almost every operation, which the page describes once.
const COMMON_STATUSES: [&str; 4] = ["400", "401", "403", "503"];

static REFERENCE: LazyLock<String> = LazyLock::new(|| {
    let document = document();
    let mut groups: Vec<Group> = Vec::new();
    for (_, title, anchor) in RESOURCES {
        if !groups.iter().any(|group| group.title == title) {
            groups.push(Group { title, anchor, calls: Vec::new() });
        }
    }
    let mut errors = BTreeSet::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let resource = RESOURCES.into_iter().filter(|(prefix, _, _)| path.starts_with(prefix));
        let Some((_, title, _)) = resource.max_by_key(|(prefix, _, _)| prefix.len()) else { continue };
        for (method, call) in item.as_object().into_iter().flatten() {
            let Some(call) = ApiOperation::new(method, path, call, &mut errors) else { continue };
            if let Some(group) = groups.iter_mut().find(|group| group.title == title) {
                group.calls.push(call);
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let schemas = schemas.map(|(name, schema)| (name.clone(), pretty(schema))).collect();
    let reference = Reference { groups, errors: errors.into_iter().collect(), schemas };
    reference.render().unwrap_or_else(|error| {
        tracing::error!(%error, "the API reference was not rendered");
        String::new()
    })
});

pub(super) async fn show(context: Context, caller: Option<Caller>) -> Response {
    let page = DocsPage {
        shell: Shell::new("API reference", "/docs", caller.as_ref()),
        base: context.sign_in.base().to_owned(),
        reference: &REFERENCE,
    };
    render(&page)
}

impl ApiOperation {
    /// `None`: the entry is not an operation.
    fn new(method: &str, path: &str, call: &Value, errors: &mut BTreeSet<(String, String)>) -> Option<Self> {
        let answers = call.get("responses")?.as_object()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let parameters = call["parameters"].as_array().into_iter().flatten();
        // Only a body that is no JSON has no example.
        let example = |content: &Value| -> Option<Value> {
            let content = content.as_object()?.values().next()?;
            Some(content.get("example").unwrap_or(&content["schema"]).clone())
        };
        let content = &call["requestBody"]["content"];
        let body = example(content);
        let is_form = content["application/x-www-form-urlencoded"].is_object();
        let mut own = Vec::new();
        for (status, answer) in answers.iter().filter(|(status, _)| status.starts_with(['4', '5'])) {
            errors.insert((status.clone(), text(&answer["description"])));
            if !COMMON_STATUSES.contains(&status.as_str()) {
                own.push(status.clone());
            }
        }
        // The last one: a call that makes a record answers with 201, and with 200 if it is repeated.
        let good = answers.iter().rfind(|(status, _)| status.starts_with('2'));
        let method = method.to_ascii_uppercase();
        Some(Self {
            curl: curl(&method, path, body.as_ref(), is_form, call["security"] != serde_json::json!([{}])),
            summary: text(&call["summary"]),
            parameters: parameters.map(|p| (text(&p["name"]), text(&p["description"]))).collect(),
            body: body.as_ref().map(pretty),
            answer: good.and_then(|(_, answer)| example(&answer["content"])).as_ref().map(pretty),
            errors: own,
            path: path.to_owned(),
            method,
        })
    }
}

/// A command to try. `$PERMGATE` is the address, `$TOKEN` a token for it.
fn curl(method: &str, path: &str, body: Option<&Value>, is_form: bool, needs_token: bool) -> String {
    let mut line = "curl".to_owned();
    if method != "GET" {
        // Writing to a String cannot fail.
        let _ = write!(line, " -X {method}");
    }
    if needs_token {
        line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    match body {
        Some(body) if is_form => {
            for (name, value) in body.as_object().into_iter().flatten() {
                let _ = write!(line, " -d '{name}={}'", value.as_str().unwrap_or_default());
            }
        }
        Some(body) => {
            let _ = write!(line, " -H 'Content-Type: application/json' -d '{body}'");
        }
        None => {}
    }
    // Everybody has tokens. What else is done to accounts is done to others: see the bodies of the examples.
    let login = if path.ends_with("/tokens") { "me" } else { "ann" };
    let names = [
        ("{login}", login),
        ("{user}", "me"),
        ("{name}", "developers"),
        ("{key}", "auditor"),
        ("{id}", "ID"),
    ];
    let path = names.into_iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    let _ = write!(line, " \"$PERMGATE{path}\"");
    line
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_can_be_pasted() {
        let check = |row: &str, method: &str, path: &str, body: Option<Value>, is_form, expected: &str| {
            let line = curl(method, path, body.as_ref(), is_form, true);
            let line = line.replace(" -H \"Authorization: Bearer $TOKEN\"", "");
            assert_eq!(line, expected, "{row}");
            assert_eq!(curl(method, path, body.as_ref(), is_form, false), expected, "{row}, without a token");
        };
        let get = |row: &str, path: &str, expected: &str| {
            check(row, "GET", path, None, false, &format!("curl \"$PERMGATE{expected}\""));
        };
        get("a list", "/v1/users/{login}/tokens", "/v1/users/me/tokens");
        get(
            "a list of Hub's",
            "/hub/api/rest/users/{user}/permanenttokens",
            "/hub/api/rest/users/me/permanenttokens",
        );
        get("an id", "/v1/tokens/{id}", "/v1/tokens/ID");
        get("a member", "/v1/groups/{name}/members/{login}", "/v1/groups/developers/members/ann");
        get("a role", "/v1/roles/{key}", "/v1/roles/auditor");
        get("a path like one", "/v1/identities", "/v1/identities");
        let json =
            r#"curl -X POST -H 'Content-Type: application/json' -d '{"name":"a"}' "$PERMGATE/v1/groups""#;
        check("JSON", "POST", "/v1/groups", Some(json!({"name": "a"})), false, json);
        let form = r#"curl -X POST -d 'token=pgt_x' "$PERMGATE/oauth2/revoke""#;
        check("a form", "POST", "/oauth2/revoke", Some(json!({"token": "pgt_x"})), true, form);
    }
}
