//! Sample accounts and tokens, so that the page has something to show.

use http::Method;
use serde_json::{Value, json};

/// The operator's API calls that create them: method, path, body.
pub fn calls() -> Vec<(Method, String, Option<Value>)> {
    let mut calls = vec![
        (Method::POST, "/v1/groups".to_owned(), Some(json!({"name": "engineering"}))),
        (Method::PATCH, "/v1/groups/developers".to_owned(), Some(json!({"parent": "engineering"}))),
    ];
    for (login, name, kind) in
        [("bob", "Bob Miller", "human"), ("zoe", "Zoe Young", "human"), ("ci-runner", "CI runner", "service")]
    {
        calls.push((
            Method::POST,
            "/v1/users".to_owned(),
            Some(json!({"login": login, "name": name, "kind": kind})),
        ));
        calls.push((Method::PUT, format!("/v1/groups/developers/members/{login}"), None));
    }
    let token = |login: &str, name: &str, access: &str, more: &[(&str, Value)]| {
        let mut body = json!({"name": name, "scope": [{"service": "youtrack", "access": access}]});
        for (field, value) in more {
            body[*field] = value.clone();
        }
        (Method::POST, format!("/v1/users/{login}/tokens"), Some(body))
    };
    calls.extend([
        token("alice", "nightly report", "read", &[("expires_in", "5d".into())]),
        token("alice", "release notes", "full", &[("expires_in", "90d".into())]),
        token("bob", "backup", "read", &[("expires_in", "60d".into()), ("allow_ips", json!(["10.0.0.0/8"]))]),
        token("ci-runner", "build pipeline", "full", &[]),
        token("zoe", "old laptop", "full", &[]),
        (Method::POST, "/v1/users/zoe/ban".to_owned(), Some(json!({"reason": "left the company"}))),
    ]);
    calls
}
