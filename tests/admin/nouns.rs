//! Users, groups, roles, grants and services over the API.

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    harness::{Credentials, Fixture},
};

/// Checks the operator's answer to one call.
fn check(
    fixture: &Fixture,
    name: &str,
    method: &str,
    path: &str,
    body: Value,
    expected: (u16, &str),
) -> Value {
    let body = Some(&body).filter(|body| !body.is_null());
    let answer = fixture.call(&Credentials::Operator, method, path, body);
    assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
    answer.json()
}

#[test]
fn user_is_created_edited_banned_and_deleted() {
    let fixture = Fixture::start();
    let check = |name: &str, method: &str, path: &str, body: Value, expected: (u16, &str)| {
        check(&fixture, name, method, path, body, expected)
    };
    let alice = json!({"login": "alice", "name": "Alice", "email": "alice@example.com"});
    let made = check("made", "POST", "/v1/users", alice.clone(), (201, ""));
    assert_eq!((made["kind"].as_str(), made["banned"].as_bool()), (Some("human"), Some(false)));
    check("the login again", "POST", "/v1/users", json!({"login": "ALICE"}), (409, "name_taken"));
    check("a reserved login", "POST", "/v1/users", json!({"login": "me"}), (422, "invalid_name"));
    check("no login", "POST", "/v1/users", json!({"name": "x"}), (400, "invalid_request"));
    check(
        "an unknown field",
        "POST",
        "/v1/users",
        json!({"login": "b", "admin": true}),
        (400, "invalid_request"),
    );
    check("a service account", "POST", "/v1/users", json!({"login": "bot", "kind": "service"}), (201, ""));
    let bot = json!({"login": "bot2", "kind": "service", "password": "correct horse battery"});
    check("a service account's password", "POST", "/v1/users", bot, (422, "invalid_value"));
    let short = json!({"login": "bob", "password": "short"});
    check("a short password", "POST", "/v1/users", short, (422, "invalid_value"));
    check("and no account for it", "GET", "/v1/users/bob", Value::Null, (404, "not_found"));
    let shown = check("shown", "GET", "/v1/users/Alice", Value::Null, (200, ""));
    assert_eq!(shown["login"], "alice");
    let password = json!({"password": "correct horse battery"});
    let set = check("a password", "PUT", "/v1/users/alice/password", password, (200, ""));
    assert_eq!(set["password"], true);
    check("renamed", "PATCH", "/v1/users/alice", json!({"name": "Alicia", "email": null}), (200, ""));
    let shown = fixture.call(&Credentials::Operator, "GET", "/v1/users/alice", None);
    assert_eq!((&shown.json()["name"], &shown.json()["email"]), (&json!("Alicia"), &Value::Null));
    assert!(!shown.text().contains("argon2"), "{}", shown.text());
    let request =
        Request::new("PATCH", "/v1/users/alice").field("If-Match", "\"1\"").json(&json!({"name": "A"}));
    assert_eq!(fixture.send(&Credentials::Operator, request).outcome(), (412, "precondition_failed".into()));
    let banned = check("banned", "POST", "/v1/users/alice/ban", json!({"reason": "left"}), (200, ""));
    assert_eq!((banned["banned"].as_bool(), banned["ban_reason"].as_str()), (Some(true), Some("left")));
    let unbanned = check("unbanned", "POST", "/v1/users/alice/unban", Value::Null, (200, ""));
    assert_eq!(unbanned["banned"], false);
    check("deleted", "DELETE", "/v1/users/alice", Value::Null, (200, ""));
    check("gone", "GET", "/v1/users/alice", Value::Null, (404, "not_found"));
    check("the login is free", "POST", "/v1/users", alice, (201, ""));
}

#[test]
fn groups_have_parents_and_members() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let check = |name: &str, method: &str, path: &str, body: Value, expected: (u16, &str)| {
        check(&fixture, name, method, path, body, expected)
    };
    check("made", "POST", "/v1/groups", json!({"name": "support"}), (201, ""));
    let child = json!({"name": "Level 2 / nights", "parent": "support"});
    let made = check("a child", "POST", "/v1/groups", child, (201, ""));
    assert_eq!(made["parent"], "support");
    let path = "/v1/groups/level%202%20%2F%20nights";
    check("joined", "PUT", &format!("{path}/members/alice"), Value::Null, (200, ""));
    check("joined again", "PUT", &format!("{path}/members/alice"), Value::Null, (200, ""));
    check("nobody joins", "PUT", &format!("{path}/members/nobody"), Value::Null, (404, "not_found"));
    assert_eq!(check("shown", "GET", path, Value::Null, (200, ""))["members"], json!(["alice"]));
    let services = check("read", "GET", "/v1/services?readable_by=alice", Value::Null, (200, ""));
    assert!(services.to_string().contains("\"youtrack\""), "by the parent: {services}");
    check(
        "a circle",
        "PATCH",
        "/v1/groups/support",
        json!({"parent": "Level 2 / nights"}),
        (422, "invalid_value"),
    );
    check("moved", "PATCH", path, json!({"parent": null}), (200, ""));
    let services = check("read", "GET", "/v1/services?readable_by=alice", Value::Null, (200, ""));
    assert!(!services.to_string().contains("\"youtrack\""), "{services}");
    check("left", "DELETE", &format!("{path}/members/alice"), Value::Null, (200, ""));
    check("deleted", "DELETE", path, Value::Null, (200, ""));
    check("gone", "GET", path, Value::Null, (404, "not_found"));
    let answer = fixture.call(&Credentials::Operator, "DELETE", "/v1/groups/all-users", None);
    assert!((400..500).contains(&answer.status), "built in: {}", answer.text());
}

#[test]
fn roles_are_granted_and_withdrawn() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let check = |name: &str, method: &str, path: &str, body: Value, expected: (u16, &str)| {
        check(&fixture, name, method, path, body, expected)
    };
    let role = json!({"key": "auditor", "name": "Auditor", "permissions": ["read-audit", "read-service"]});
    check("made", "POST", "/v1/roles", role.clone(), (201, ""));
    check("made again", "POST", "/v1/roles", role, (409, "name_taken"));
    let odd = json!({"key": "odd", "name": "Odd", "permissions": ["fly"]});
    check("an unknown permission", "POST", "/v1/roles", odd, (422, "invalid_value"));
    let grant = json!({"role": "auditor", "user": "alice"});
    assert_eq!(check("granted", "POST", "/v1/grants", grant.clone(), (200, ""))["granted"], true);
    let group = json!({"role": "auditor", "group": "developers"});
    check("granted to a group", "POST", "/v1/grants", group, (200, ""));
    let both = json!({"role": "auditor", "group": "developers", "user": "alice"});
    check("to both", "POST", "/v1/grants", both, (400, "invalid_request"));
    let listed = check("listed", "GET", "/v1/grants", Value::Null, (200, ""));
    assert!(listed["items"].as_array().unwrap().contains(&grant), "{listed}");
    check("withdrawn by body", "DELETE", "/v1/grants", grant.clone(), (200, ""));
    check("withdrawn by query", "DELETE", "/v1/grants?role=auditor&group=developers", Value::Null, (200, ""));
    let listed = check("listed", "GET", "/v1/grants", Value::Null, (200, ""));
    assert!(!listed.to_string().contains("auditor"), "{listed}");
    let less = json!({"name": "Audit", "permissions": ["read-audit"]});
    let edited = check("edited", "PATCH", "/v1/roles/auditor", less, (200, ""));
    assert_eq!(
        (&edited["name"], &edited["revision"], &edited["cut"]),
        (&json!("Audit"), &json!(2), &json!(0))
    );
    assert_eq!(edited["permissions"], json!(["read-audit"]));
    let odd = json!({"permissions": ["fly"]});
    check("to an unknown permission", "PATCH", "/v1/roles/auditor", odd, (422, "invalid_value"));
    check("built in", "PATCH", "/v1/roles/observer", json!({"permissions": []}), (422, "invalid_value"));
    check("no such role", "PATCH", "/v1/roles/nobody", json!({"name": "N"}), (404, "not_found"));
    check("deleted", "DELETE", "/v1/roles/auditor", Value::Null, (200, ""));
    check("gone", "GET", "/v1/roles/auditor", Value::Null, (404, "not_found"));
    let answer = fixture.call(&Credentials::Operator, "DELETE", "/v1/roles/system-admin", None);
    assert!((400..500).contains(&answer.status), "built in: {}", answer.text());
}

#[test]
fn service_is_listed_only_to_its_readers() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    fixture.user("bob", &[]);
    let keys = |sender: &Credentials, target: &str| {
        let answer = fixture.call(sender, "GET", target, None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let items = answer.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (alice, bob) = (fixture.credentials("alice"), fixture.credentials("bob"));
    assert_eq!(
        keys(&alice, "/v1/services?readable_by=me"),
        ["youtrack", "hub", "wiki", "status", "permgate"]
    );
    assert_eq!(keys(&bob, "/v1/services?readable_by=me"), ["wiki", "status", "permgate"]);
    assert_eq!(keys(&bob, "/v1/services"), ["wiki", "status", "permgate"]);
    assert!(keys(&Credentials::Operator, "/v1/services").contains(&"vault".to_owned()));
    let other = fixture.call(&bob, "GET", "/v1/services?readable_by=alice", None);
    assert_eq!(other.outcome(), (403, "permission_denied".into()));
}
