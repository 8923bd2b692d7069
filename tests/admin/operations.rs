//! Explain, audit, configuration, reload, health and metrics.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    harness::{Credentials, Fixture, Row, bad_file, begin_drain, id, text},
};

#[test]
fn explain_lists_the_steps_of_a_decision() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    fixture.user("bob", &[]);
    let token = fixture.token("alice", "ci", &["youtrack:read"]);
    let check = |name: &str, body: Value, outcome: &str, reason: &str| {
        let told = fixture.must("POST", "/v1/explain", Some(body));
        assert_eq!(
            (told["outcome"].as_str(), told["reason"].as_str()),
            (Some(outcome), Some(reason)),
            "{name}: {told}"
        );
        assert!(!told["steps"].as_array().unwrap().is_empty(), "{name}");
        told
    };
    let by = |method: &str, url: &str| json!({"method": method, "url": url, "token_id": id(&token)});
    let told = check("permitted", by("GET", "http://any.example/api/issues?q=1"), "forwarded", "ok");
    assert_eq!(
        (&told["forwarded"]["upstream"], &told["forwarded"]["path"]),
        (&json!("one"), &json!("/api/issues"))
    );
    let told = check("not reading", by("POST", "/api/issues"), "denied", "read_only_scope");
    assert_eq!(
        (&told["answer"]["status"], &told["answer"]["error"]),
        (&json!(403), &json!("insufficient_scope"))
    );
    check("out of scope", by("GET", "/hub/api"), "denied", "scope_denied");
    check("nobody's", by("GET", "/none"), "denied", "no_service");
    check("a bad path", by("GET", "/api/../hub"), "denied", "bad_path");
    let user = |login: &str, url: &str| json!({"method": "GET", "url": url, "user": login});
    check("an account", user("alice", "/hub/api"), "forwarded", "ok");
    let told = check("an account without", user("bob", "/hub/api"), "denied", "read_service_denied");
    assert_eq!(told["origin"], json!({"file": "gateway.toml", "line": 11}));
    check("anonymous", json!({"method": "GET", "url": "/api"}), "denied", "missing_credentials");
    let leaked = text(&token);
    let told = check("a token in it", by("GET", &format!("/api?t={leaked}")), "denied", "token_in_url");
    assert!(!told.to_string().contains(&leaked), "{told}");
    for (method, url) in
        [("GET", format!("/{}", ";/a%20b.".repeat(3000))), ("A".repeat(33).as_str(), "/api".into())]
    {
        let long = json!({"method": method, "url": url, "user": "me"});
        let refused = fixture.call(&fixture.cached_credentials("bob"), "POST", "/v1/explain", Some(&long));
        assert_eq!(refused.outcome(), (400, "invalid_request".into()), "none that a request has");
    }
    let both = json!({"method": "GET", "url": "/api", "user": "bob", "token_id": id(&token)});
    let refused = fixture.call(&Credentials::Operator, "POST", "/v1/explain", Some(&both));
    assert_eq!(refused.outcome(), (400, "invalid_request".into()));
}

#[test]
fn every_change_is_audited_without_secrets() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let token = fixture.token("alice", "ci", &["youtrack"]);
    fixture.must("DELETE", &format!("/v1/tokens/{}", id(&token)), None);
    let log = fixture.must("GET", "/v1/audit?limit=2", None);
    let newest = &log["items"][0];
    assert_eq!(newest["target"], format!("token:{}", id(&token)), "{newest}");
    assert_eq!(newest["actor"], "operator");
    assert_eq!(newest["prev"], log["items"][1]["hash"], "chained");
    let whole = fixture.must("GET", "/v1/audit", None);
    assert!(!whole.to_string().contains(&text(&token)));
    let next = log["next"].as_str().unwrap();
    let older = fixture.must("GET", &format!("/v1/audit?limit=2&cursor={next}"), None);
    assert_eq!(older["items"][0]["hash"], log["items"][1]["prev"], "pages follow each other");
    let verified = fixture.must("GET", "/v1/audit/verify", None);
    assert_eq!(verified["valid"], true, "{verified}");
    assert_eq!(verified["last"]["hash"], newest["hash"]);
}

#[test]
fn reload_applies_everything_or_nothing() {
    let fixture = Fixture::start();
    let checked = fixture.must("POST", "/v1/config/check", Some(json!({"text": "lisen = 1"})));
    assert_eq!((&checked["valid"], &checked["errors"]), (&json!(false), &json!([bad_file()])));
    *fixture.around.file.lock().unwrap() = Some(Err(bad_file()));
    let refused = fixture.call(&Credentials::Operator, "POST", "/v1/reload", None);
    assert_eq!(refused.outcome(), (422, "invalid_configuration".into()));
    assert_eq!(refused.json()["errors"], json!([bad_file()]));
    *fixture.around.file.lock().unwrap() = Some(Ok(vec![("a", &["/a"], &[]), ("b", &["/a"], &[])]));
    let refused = fixture.call(&Credentials::Operator, "POST", "/v1/reload", None);
    assert_eq!(refused.outcome(), (422, "invalid_configuration".into()));
    let services = fixture.must("GET", "/v1/services", None).to_string();
    assert!(services.contains("\"youtrack\""), "the old ones stay: {services}");
    *fixture.around.file.lock().unwrap() = Some(Ok(vec![("only", &["/only"], &[])]));
    assert_eq!(fixture.must("POST", "/v1/reload", None), json!({"reloaded": true, "cut": 0}));
    let services = fixture.must("GET", "/v1/services", None).to_string();
    assert!(services.contains("\"only\"") && !services.contains("\"youtrack\""), "{services}");
}

#[test]
fn change_completes_after_its_client_disconnects() {
    let fixture = Fixture::start();
    let hold = Arc::new(tokio::sync::Notify::new());
    *fixture.around.hold.lock().unwrap() = Some(hold.clone());
    *fixture.around.file.lock().unwrap() = Some(Ok(vec![("only", &["/only"], &[])]));
    let until = |what: &str, target: &str, holds: &dyn Fn(&str) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(&fixture.must("GET", target, None).to_string()) {
            assert!(Instant::now() < deadline, "{what}");
        }
    };
    let mut client = UnixStream::connect(&fixture.socket).unwrap();
    client.write_all(&Request::new("POST", "/v1/reload").bytes()).unwrap();
    until("it is under way", "/v1/live", &|live| live.contains("/v1/reload"));
    drop(client);
    until("the client is gone", "/v1/live", &|live| !live.contains("/v1/reload"));
    hold.notify_one();
    until("it is done", "/v1/services", &|services| services.contains("\"only\""));
}

#[test]
fn unreadable_service_is_not_revealed() {
    let fixture = Fixture::start();
    fixture.user("bob", &[]);
    let bob = fixture.credentials("bob");
    let own_by = |method: &str, url: &str| {
        let body = json!({"method": method, "url": url, "user": "me"});
        fixture.call(&bob, "POST", "/v1/explain", Some(&body)).json()
    };
    let own = |url: &str| own_by("GET", url);
    let told = own("/vault/x");
    assert_eq!(told["reason"], "read_service_denied", "{told}");
    let hub = own("/hub/api");
    for (told, secret) in [(&told, "\"vault"), (&hub, "\"hub"), (&hub, "developers"), (&hub, "gateway.toml")]
    {
        assert!(!told.to_string().replace("\\\"", "\"").contains(secret), "{secret}: {told}");
    }
    let told = own("/wiki");
    assert_eq!((&told["service"], &told["outcome"]), (&json!("wiki"), &json!("forwarded")));
    assert_eq!(told["origin"], Value::Null, "where it is configured is for admin-read");
    let nested: Vec<Row> = vec![("wiki", &["/wiki"], &["all-users"]), ("vault", &["/wiki/secret"], &[])];
    *fixture.around.file.lock().unwrap() = Some(Ok(nested));
    fixture.must("POST", "/v1/reload", None);
    let told = own_by("DELETE", "/wiki");
    assert_eq!(told["reason"], "read_service_denied", "{told}");
    assert!(!told.to_string().contains("secret") && !told.to_string().contains("vault"), "{told}");
}

#[test]
fn probes_and_scrapers_need_no_token() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let token = fixture.token("alice", "ci", &["youtrack"]);
    fixture.must("DELETE", &format!("/v1/tokens/{}", id(&token)), None);
    let get = |target: &str| fixture.call(&Credentials::Anonymous, "GET", target, None);
    assert_eq!(get("/healthz").json(), json!({"status": "ok"}));
    assert_eq!((get("/readyz").status, get("/readyz").json()["status"].clone()), (200, json!("ready")));
    let metrics = get("/metrics");
    assert_eq!(metrics.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.text().lines().any(|line| line == "permgate_tokens 1"), "{}", metrics.text());
    assert!(metrics.text().contains("service=\"permgate\""), "{}", metrics.text());
    let count = |name: &str| {
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {}", metrics.text())).parse::<u64>().unwrap()
    };
    assert!(count("permgate_store_commits_total") > 0, "{}", metrics.text());
    assert!(count("permgate_store_changes_total") >= count("permgate_store_commits_total"));
    assert_eq!(count("permgate_store_commit_duration_seconds_count"), count("permgate_store_commits_total"));
    assert!(count("permgate_fences_total") > 0 && count("permgate_fences_incomplete_total") == 0);
    let open = Request::new("GET", "/metrics").field("Accept", "application/openmetrics-text");
    let open = fixture.send(&Credentials::Anonymous, open);
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((open.status, open.field("content-type")), (200, Some(form)));
    assert!(open.text().ends_with("# EOF\n"), "{}", open.text());
    let plain = fixture.credentials("alice");
    let refused = fixture.call(&plain, "GET", "/metrics", None);
    assert_eq!(refused.outcome(), (403, "permission_denied".into()), "who shows a token is judged by it");
    begin_drain(&fixture);
    assert_eq!((get("/readyz").status, get("/healthz").status), (503, 200));
    let post = fixture.send(&Credentials::Anonymous, Request::new("POST", "/healthz"));
    assert_eq!(post.status, 405);
}

#[test]
fn backup_requires_write_permission_and_is_complete() {
    let fixture = Fixture::start();
    fixture.user("plain", &[]);
    fixture.user("admin", &["developers"]);
    fixture.allow("admin", &["admin-write"]);
    let reading = Credentials::Bearer(text(&fixture.token("admin", "reading", &["permgate:read"])));
    let check = |name: &str, sender: &Credentials, expected: (u16, &str)| {
        let answer = fixture.call(sender, "GET", "/v1/backup", None);
        if answer.status < 400 {
            assert_eq!((answer.status, ""), expected, "{name}");
            assert_eq!(answer.field("content-type"), Some("application/octet-stream"), "{name}");
            let bytes = answer.bytes();
            assert!(bytes.windows(16).any(|part| part == b"permgate backup\n"), "{name}");
            assert!(bytes.ends_with(b"\r\n0\r\n\r\n"), "{name}: the last chunk is there");
        } else {
            assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}");
        }
    };
    check("nobody", &Credentials::Anonymous, (401, "unauthorized"));
    check("everybody", &fixture.credentials("plain"), (403, "permission_denied"));
    check("a token that lists only", &reading, (403, "insufficient_scope"));
    check("an administrator", &fixture.credentials("admin"), (200, ""));
    check("the operator", &Credentials::Operator, (200, ""));
    for method in ["HEAD", "POST"] {
        let other = fixture.call(&Credentials::Operator, method, "/v1/backup", None);
        assert_eq!((other.status, other.field("allow")), (405, Some("GET")), "{method}");
    }
    let events = fixture.must("GET", "/v1/audit?limit=2", None);
    let told = |row: usize| (events["items"][row]["event"].as_str(), events["items"][row]["actor"].as_str());
    assert_eq!(told(0), (Some("store.backup"), Some("operator")), "a HEAD makes none");
    assert_eq!(told(1), (Some("store.backup"), Some("admin")));
}

#[test]
fn verification_requires_administrator_and_reads_everything() {
    let fixture = Fixture::start();
    fixture.user("plain", &[]);
    fixture.user("viewer", &[]);
    fixture.allow("viewer", &["admin-read", "read-audit"]);
    fixture.user("admin", &["developers"]);
    fixture.allow("admin", &["admin-write"]);
    let check = |name: &str, sender: &Credentials, expected: (u16, &str)| {
        let answer = fixture.call(sender, "GET", "/v1/store/verify", None);
        if answer.status == 200 {
            assert_eq!((answer.status, ""), expected, "{name}");
            assert_eq!(answer.field("content-type"), Some("application/x-ndjson"), "{name}");
            let text = String::from_utf8(answer.bytes().to_vec()).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
            let report: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
            assert_eq!((&report["sound"], &report["damage"]), (&json!(true), &json!([])), "{name}: {text}");
            assert_eq!(report["rows"]["users"], 3, "{name}: {text}");
        } else {
            assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}");
        }
    };
    check("nobody", &Credentials::Anonymous, (401, "unauthorized"));
    check("everybody", &fixture.credentials("plain"), (403, "permission_denied"));
    check("who sees everything", &fixture.credentials("viewer"), (403, "permission_denied"));
    check("an administrator", &fixture.credentials("admin"), (200, ""));
    check("the operator", &Credentials::Operator, (200, ""));
}

#[test]
fn overview_and_readers_require_read_permission() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    fixture.user("viewer", &[]);
    fixture.allow("viewer", &["admin-read"]);
    let (alice, viewer) = (fixture.credentials("alice"), fixture.credentials("viewer"));
    for target in ["/v1/overview", "/v1/services?detailed=true"] {
        assert_eq!(fixture.call(&alice, "GET", target, None).status, 403, "{target}");
    }
    let overview = fixture.call(&viewer, "GET", "/v1/overview", None).json();
    assert_eq!(
        (&overview["step"], &overview["users"], &overview["ready"]),
        (&10.into(), &2.into(), &true.into())
    );
    assert_eq!(overview["live"], 0, "the request that asks is left out: {overview}");
    assert!(overview["all"]["requests"].is_array() && overview["services"].is_object(), "{overview}");
    let services = fixture.call(&viewer, "GET", "/v1/services?detailed=true", None).json();
    let hub = services["items"].as_array().unwrap().iter().find(|s| s["key"] == "hub").unwrap().clone();
    assert_eq!(hub["readers"], serde_json::json!(["developers"]));
    assert_eq!(hub["effective_readers"], serde_json::json!(["alice", "viewer"]));
    let plain = fixture.call(&viewer, "GET", "/v1/services", None).text().to_owned();
    assert!(!plain.contains("effective_readers"), "{plain}");
}
