//! The life of a token over the API.

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    harness::{Credentials, Fixture, id, new_token, text},
};

#[test]
fn token_is_created_shown_once_and_found_again() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let body = new_token("ci", &["youtrack", "hub:read"]);
    let made = fixture.call(&Credentials::Operator, "POST", "/v1/users/alice/tokens", Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
    let record = made.json();
    assert_eq!(made.field("location"), Some(format!("/v1/tokens/{}", id(&record)).as_str()));
    assert_eq!(made.field("cache-control"), Some("no-store"));
    assert!(text(&record).starts_with(&format!("pgt_{}_", id(&record))));
    assert_eq!(record["user"], "alice");
    assert_eq!(record["author"], "operator");
    assert_eq!(record["state"], "active");
    let scope = json!([{"service": "hub", "access": "read"}, {"service": "youtrack", "access": "full"}]);
    assert_eq!(record["scope"], scope);
    for path in [format!("/v1/tokens/{}", id(&record)), "/v1/users/alice/tokens".into(), "/v1/tokens".into()]
    {
        let shown = fixture.call(&Credentials::Operator, "GET", &path, None);
        assert_eq!(shown.status, 200, "{path}");
        assert!(!shown.text().contains(&text(&record)), "{path}");
        assert!(shown.text().contains(&id(&record)), "{path}");
    }
}

#[test]
fn invalid_new_token_is_refused() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let good = new_token("ci", &["youtrack"]);
    let check = |name: &str, change: Value, status: u16, error: &str| {
        let mut body = good.clone();
        for (field, value) in change.as_object().unwrap() {
            body[field] = value.clone();
        }
        let answer = fixture.call(&Credentials::Operator, "POST", "/v1/users/alice/tokens", Some(&body));
        assert_eq!(answer.outcome(), (status, error.to_owned()), "{name}: {}", answer.text());
    };
    check("an unknown field", json!({"colour": "red"}), 400, "invalid_request");
    check(
        "an unknown field of a scope",
        json!({"scope": [{"service": "youtrack", "x": 1}]}),
        400,
        "invalid_request",
    );
    check(
        "an unknown access",
        json!({"scope": [{"service": "youtrack", "access": "rw"}]}),
        400,
        "invalid_request",
    );
    check("no scope", json!({"scope": []}), 422, "empty_scope");
    check(
        "a service twice",
        json!({"scope": [{"service": "hub"}, {"service": "hub"}]}),
        422,
        "duplicate_service",
    );
    check("an unknown service", json!({"scope": [{"service": "nope"}]}), 403, "service_not_readable");
    check("a blank name", json!({"name": " "}), 422, "invalid_name");
    check("an end in the past", json!({"expires_at": "2020-01-01T00:00:00Z"}), 422, "expiry_in_past");
    check(
        "two ends",
        json!({"expires_at": "2999-01-01T00:00:00Z", "expires_in": "1d"}),
        400,
        "invalid_request",
    );
    check("no duration", json!({"expires_in": "soon"}), 400, "invalid_request");
    check("no address", json!({"allow_ips": ["office"]}), 422, "invalid_value");
    check("sound", json!({"expires_in": "90d", "allow_ips": ["10.0.0.0/8", "::1"]}), 201, "");
    check("the name again", json!({"name": "CI"}), 409, "name_taken");
    let nobody = fixture.call(&Credentials::Operator, "POST", "/v1/users/nobody/tokens", Some(&good));
    assert_eq!(nobody.outcome(), (404, "not_found".into()));
    let me = fixture.call(&Credentials::Operator, "POST", "/v1/users/me/tokens", Some(&good));
    assert_eq!(me.outcome(), (404, "not_found".into()), "the operator is no user");
}

#[test]
fn idempotency_key_creates_one_token() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let alice = fixture.credentials("alice");
    let send = |sender: &Credentials, key: &str, body: &Value| {
        let request = Request::new("POST", "/v1/users/alice/tokens").field("Idempotency-Key", key);
        fixture.send(sender, request.json(body))
    };
    let body = new_token("ci", &["youtrack"]);
    let first = send(&alice, "one", &body);
    assert_eq!(first.status, 201, "{}", first.text());
    let again = send(&alice, "one", &body);
    assert_eq!((again.status, again.field("idempotency-replayed")), (200, Some("true")));
    assert_eq!(id(&again.json()), id(&first.json()));
    assert_eq!(again.json().get("token"), None);
    let other = send(&alice, "one", &new_token("other", &["youtrack"]));
    assert_eq!(other.outcome(), (422, "idempotency_key_reused".into()));
    let operator = send(&Credentials::Operator, "one", &new_token("third", &["youtrack"]));
    assert_eq!(operator.status, 201, "a key belongs to its caller: {}", operator.text());
    assert_eq!(send(&alice, "", &body).outcome(), (400, "invalid_request".into()));
}

#[test]
fn edit_requires_the_current_revision() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let record = fixture.token("alice", "ci", &["youtrack", "hub"]);
    let path = format!("/v1/tokens/{}", id(&record));
    let tag = fixture.call(&Credentials::Operator, "GET", &path, None).field("etag").unwrap().to_owned();
    let edit = |tag: &str, body: Value| {
        let request = Request::new("PATCH", &path).field("If-Match", tag);
        fixture.send(&Credentials::Operator, request.json(&body))
    };
    let narrowed = edit(&tag, json!({"scope": [{"service": "youtrack", "access": "read"}], "note": "less"}));
    assert_eq!(narrowed.status, 200, "{}", narrowed.text());
    assert_eq!(narrowed.json()["scope"], json!([{"service": "youtrack", "access": "read"}]));
    assert_eq!(edit(&tag, json!({"name": "late"})).outcome(), (412, "precondition_failed".into()));
    let tag = narrowed.field("etag").unwrap();
    let wide = edit(tag, json!({"scope": [{"service": "youtrack"}]}));
    assert_eq!(wide.outcome(), (422, "cannot_widen".into()));
    assert_eq!(edit("*", json!({"expires_at": null})).outcome(), (422, "cannot_widen".into()));
    let short = edit("*", json!({"expires_in": "1h"}));
    assert_eq!(short.status, 200, "{}", short.text());
    assert_eq!(edit("*", json!({"expires_in": "2h"})).outcome(), (422, "cannot_widen".into()));
}

#[test]
fn rotated_token_has_a_successor_and_a_grace_period() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let record = fixture.token("alice", "ci", &["youtrack"]);
    let path = format!("/v1/tokens/{}", id(&record));
    let rotated = fixture.must("POST", &format!("{path}/rotate"), Some(json!({"grace": "10m"})));
    assert_ne!(id(&rotated), id(&record));
    assert_eq!(rotated["family"], record["id"]);
    assert!(text(&rotated).starts_with("pgt_"));
    let old = fixture.must("GET", &path, None);
    assert_eq!((old["state"].as_str(), &old["rotated_to"]), (Some("rotating"), &rotated["id"]));
    let next = format!("/v1/tokens/{}", id(&rotated));
    let at_once = fixture.must("POST", &format!("{next}/rotate"), Some(json!({"grace": 0})));
    assert_eq!(fixture.must("GET", &next, None)["state"], "rotated");
    let last = format!("/v1/tokens/{}/rotate", id(&at_once));
    let long = fixture.call(&Credentials::Operator, "POST", &last, Some(&json!({"grace": "8d"})));
    assert_eq!(long.status, 422, "{}", long.text());
    assert_eq!(
        fixture.call(&Credentials::Operator, "POST", &last, None).status,
        201,
        "no body: an hour of grace"
    );
}

#[test]
fn a_revoked_token_stays_revoked() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let record = fixture.token("alice", "ci", &["youtrack"]);
    let path = format!("/v1/tokens/{}", id(&record));
    for time in ["first", "again"] {
        let revoked = fixture.must("DELETE", &path, None);
        assert_eq!(revoked, json!({"revoked": true, "cut": 0}), "{time}");
    }
    let shown = fixture.must("GET", &path, None);
    assert_eq!((shown["state"].as_str(), shown["revoke_reason"].as_str()), (Some("revoked"), Some("admin")));
    let rotate = fixture.call(&Credentials::Operator, "POST", &format!("{path}/rotate"), None);
    assert_eq!(rotate.outcome(), (409, "token_revoked".into()));
    for unknown in ["000000000000", "short", "%2e%2e"] {
        let answer = fixture.call(&Credentials::Operator, "DELETE", &format!("/v1/tokens/{unknown}"), None);
        assert!(matches!(answer.status, 400 | 404), "{unknown}: {}", answer.text());
    }
}

#[test]
fn digests_are_imported_line_by_line() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let foreign = "perm:bGVnYWN5.MTIzNDU2Nzg5MA==.abcdefghijklmnopqrstuvwxyz";
    let digest = blake3::hash(foreign.as_bytes()).to_hex().to_string();
    let line = |digest: &str, owner: &str, name: &str| json!({"digest": digest, "owner": owner, "name": name, "scope": [{"service": "permgate"}]});
    let body = json!({"tokens": [
        line(&digest, "alice", "legacy"),
        line("zz", "alice", "no digest"),
        line(&"ab".repeat(32), "nobody", "no owner"),
    ]});
    let answer = fixture.must("POST", "/v1/tokens/import", Some(body.clone()));
    let counts =
        |answer: &Value| ["imported", "known", "refused"].map(|field| answer[field].as_u64().unwrap());
    assert_eq!(counts(&answer), [1, 0, 2], "{answer}");
    let again = fixture.must("POST", "/v1/tokens/import", Some(body));
    assert_eq!(counts(&again), [0, 1, 2], "{again}");
    assert_eq!(
        (&again["tokens"][0]["known"], &again["tokens"][0]["id"]),
        (&json!(true), &answer["tokens"][0]["id"])
    );
    assert_eq!(answer["tokens"][1]["error"], "invalid_value");
    assert_eq!(answer["tokens"][2]["error"], "not_found");
    let whoami = fixture.call(&Credentials::Bearer(foreign.into()), "GET", "/v1/whoami", None);
    assert_eq!(whoami.status, 200, "{}", whoami.text());
    assert_eq!(whoami.json()["token"]["id"], answer["tokens"][0]["id"]);
}
