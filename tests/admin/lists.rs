//! Paging and filters of lists.

use permgate::{authz::time::Timestamp, store::model::LastUsed};
use serde_json::{Value, json};

use crate::harness::{Credentials, Fixture, PASSWORD, id, text};

#[test]
fn list_pages_follow_the_cursor() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let mut made: Vec<String> =
        (0..7).map(|n| id(&fixture.token("alice", &format!("t{n}"), &["wiki"]))).collect();
    made.sort();
    let mut seen = Vec::new();
    let mut target = "/v1/users/alice/tokens?limit=3".to_owned();
    loop {
        let page = fixture.must("GET", &target, None);
        seen.extend(page["items"].as_array().unwrap().iter().map(id));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/users/alice/tokens?limit=3&cursor={next}");
    }
    assert_eq!(seen, made);
    let check = |target: &str| {
        let answer = fixture.call(&Credentials::Operator, "GET", target, None);
        assert_eq!(answer.outcome(), (400, "invalid_request".into()), "{target}: {}", answer.text());
    };
    check("/v1/tokens?limit=0");
    check("/v1/tokens?limit=1001");
    check("/v1/tokens?limit=many");
    check("/v1/tokens?cursor=nowhere");
    check("/v1/tokens?colour=red");
    check("/v1/tokens?state=happy");
    check("/v1/tokens?unused_for=ages");
    check("/v1/audit?cursor=x");
    check("/v1/users?colour=red");
}

#[test]
fn tokens_are_filtered_by_their_attributes() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    fixture.user("bob", &["developers"]);
    let [wiki, hub] = [("wiki", ["wiki"]), ("hub", ["hub"])].map(|(n, s)| fixture.token("alice", n, &s));
    let other = fixture.token("bob", "bob's", &["wiki"]);
    let path = format!("/v1/tokens/{}", id(&hub));
    fixture.must("PATCH", &path, Some(serde_json::json!({"expires_in": "1d"})));
    let used = LastUsed {
        at: Timestamp::from(std::time::SystemTime::now()),
        from: [10, 0, 0, 7].into(),
        service: "wiki".into(),
    };
    let digest = fixture.store.token(permgate::authz::secret::TokenId::parse(&id(&wiki)).unwrap()).unwrap();
    fixture.around.uses.lock().unwrap().insert(*digest.unwrap().digest.as_bytes(), used);
    fixture.must("DELETE", &format!("/v1/tokens/{}", id(&other)), None);
    let check = |query: &str, expected: &[&Value]| {
        let page = fixture.must("GET", &format!("/v1/tokens?{query}"), None);
        let mut found: Vec<String> = page["items"].as_array().unwrap().iter().map(id).collect();
        let mut expected: Vec<String> = expected.iter().copied().map(id).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{query}");
    };
    check("user=alice", &[&wiki, &hub]);
    check("user=bob", &[&other]);
    check("service=wiki", &[&wiki, &other]);
    check("state=revoked", &[&other]);
    check("state=active", &[&wiki, &hub]);
    check("expiring_in=2d", &[&hub]);
    check("expiring_in=1h", &[]);
    check("unused_for=1h", &[&hub, &other]);
    let shown = fixture.must("GET", &format!("/v1/tokens/{}", id(&wiki)), None);
    assert_eq!(
        (shown["last_used_ip"].as_str(), shown["last_used_service"].as_str()),
        (Some("10.0.0.7"), Some("wiki"))
    );
}

#[test]
fn audit_tells_from_where_and_with_which_token() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.allow("alice", &["admin-write"]);
    let newest = || fixture.must("GET", "/v1/audit?limit=1", None)["items"][0].clone();
    let check = |name: &str, sender: &Credentials, from: Value| {
        let group = json!({"name": name});
        assert_eq!(fixture.call(sender, "POST", "/v1/groups", Some(&group)).status, 201, "{name}");
        let event = newest();
        assert_eq!((&event["event"], &event["change"]["from"]), (&json!("group.create"), &from), "{name}");
        fixture.must("DELETE", &format!("/v1/groups/{name}"), None);
        assert!(newest()["change"].get("from").is_none(), "the operator is on this machine");
    };
    let token = fixture.token("alice", "ci", &["permgate"]);
    let from = json!({"client": "127.0.0.1", "token": id(&token)});
    check("token", &Credentials::Bearer(text(&token)), from);
    check("session", &Credentials::Browser(fixture.browser("alice")), json!({"client": "127.0.0.1"}));
    fixture.user("bob", &[]);
    let made = fixture.must("POST", "/v1/users/bob/invitation", None);
    let body = json!({"invitation": made["invitation"], "password": PASSWORD});
    assert_eq!(fixture.call(&Credentials::Anonymous, "POST", "/v1/invitation", Some(&body)).status, 200);
    assert_eq!(newest()["change"]["from"], json!({"client": "127.0.0.1"}), "an invitation");
}

#[test]
fn audit_names_imported_tokens_and_their_owners() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let line = |owner: &str, number: u32| {
        let scope = [json!({"service": "hub"})];
        json!({"owner": owner, "name": format!("t{number}"), "digest": format!("{number:064x}"), "scope": scope})
    };
    let import = |lines: &[Value]| {
        let body = json!({"tokens": lines, "make_owners": true});
        let ids: Vec<Value> = fixture.must("POST", "/v1/tokens/import", Some(body))["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| token["id"].clone())
            .collect();
        (ids, fixture.must("GET", "/v1/audit?limit=1", None)["items"][0].clone())
    };
    let (ids, event) = import(&[line("alice", 1), line("ci", 2), line("alice", 3)]);
    assert_eq!(event["change"]["owners"], json!({"alice": [ids[0], ids[2]], "ci": [ids[1]]}), "{event}");
    let (known, newest) = import(&[line("alice", 1)]);
    assert_eq!((&known[0], &newest), (&ids[0], &event), "nothing happened");
}
