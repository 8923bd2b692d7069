//! APIs of other systems that existing scripts use: Hub's calls, OAuth's revocation and
//! introspection, and leak reports.

use permgate::authz::reason::Reason;
use serde_json::{Value, json};

use crate::{
    exchange::{Answer, Request},
    harness::{Credentials, Fixture, id, text},
};

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn hub_script_lists_creates_and_revokes() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let alice = fixture.credentials("alice");
    let call = |method: &str, target: &str, body: Option<Value>| {
        let answer = fixture.call(&alice, method, target, body.as_ref());
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
        answer.json()
    };
    let me = call("GET", "/hub/api/rest/users/me?fields=id,login,name", None);
    assert_eq!((me["login"].as_str(), me.as_object().unwrap().len()), (Some("alice"), 3), "{me}");
    let services = call("GET", "/hub/api/rest/services?fields=id,key,name&$top=100", None);
    let wiki = services["services"].as_array().unwrap().iter().find(|s| s["key"] == "wiki").unwrap().clone();
    assert!(services["services"].as_array().unwrap().iter().all(|service| service["key"] != "vault"));
    let tokens = "/hub/api/rest/users/me/permanenttokens";
    let body = json!({"name": "ci", "scope": [{"id": wiki["id"]}, {"key": "youtrack"}]});
    let made = call("POST", &format!("{tokens}?fields=id,name,token,scope(id,name)"), Some(body));
    assert_eq!(
        made["scope"],
        json!([{"id": "wiki", "name": "wiki"}, {"id": "youtrack", "name": "youtrack"}])
    );
    let secret = text(&made);
    let list = call("GET", &format!("{tokens}?$skip=0&$top=-1"), None);
    let rows = list["permanenttokens"].as_array().unwrap();
    assert_eq!((list["total"].as_u64(), rows.len()), (Some(2), 2), "{list}");
    assert!(!list.to_string().contains("\"token\"") && !list.to_string().contains(&secret), "{list}");
    let row = rows.iter().find(|row| row["id"] == made["id"]).unwrap();
    let made_at = row["creationTime"].as_i64().unwrap();
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    assert!((now - 60_000..=now).contains(&made_at), "{row}");
    assert_eq!((&row["lastAccessTime"], &row["user"]["login"]), (&Value::Null, &json!("alice")));
    assert_eq!((&row["author"]["login"], &row["author"]["type"]), (&json!("alice"), &json!("user")));
    let short = call("GET", &format!("{tokens}?fields=permanenttokens(id)&$skip=1&$top=1"), None);
    assert_eq!(short["permanenttokens"][0].as_object().unwrap().len(), 1, "{short}");
    assert_eq!((&short["skip"], &short["top"], &short["total"]), (&json!(1), &json!(1), &json!(2)));
    for (range, expected) in [("$skip=2", 0), ("$skip=10000&$top=-1", 0), ("$top=0", 0), ("$top=5000", 2)] {
        let list = call("GET", &format!("{tokens}?{range}"), None);
        let rows = list["permanenttokens"].as_array().unwrap().len();
        assert_eq!((rows, list["total"].as_u64()), (expected, Some(2)), "{range}");
    }
    for list in [tokens, "/hub/api/rest/services"] {
        let far = fixture.call(&alice, "GET", &format!("{list}?$skip=10001"), None);
        assert_eq!(far.outcome(), (400, "invalid_request".to_owned()), "{list}");
    }
    let one = format!("{tokens}/{}", id(&made));
    let renamed = call("POST", &one, Some(json!({"name": "cd", "scope": [{"id": "wiki"}]})));
    assert_eq!((&renamed["name"], renamed["scope"].as_array().unwrap().len()), (&json!("cd"), 1));
    let by_id = format!("/hub/api/rest/users/{}/permanenttokens/{}", me["id"].as_str().unwrap(), id(&made));
    assert_eq!(call("GET", &by_id, None)["name"], "cd");
    call("DELETE", &one, None);
    assert_eq!(call("GET", tokens, None)["total"], 1);
    assert_eq!(fixture.call(&alice, "GET", &one, None).status, 404, "what is revoked is gone");
}

#[test]
fn hub_calls_follow_the_api_rules() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.user("bob", &[]);
    fixture.user("boss", &[]);
    fixture.allow("boss", &["admin-write"]);
    let bobs = id(&fixture.token("bob", "ci", &["wiki"]));
    let check = |name: &str, who: &str, method: &str, target: &str, body: Value, expected: (u16, &str)| {
        let sender = fixture.cached_credentials(who);
        let body = Some(&body).filter(|body| !body.is_null());
        let answer = fixture.call(&sender, method, &format!("/hub/api/rest{target}"), body);
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
    };
    let new = |service: &str| json!({"name": "n", "scope": [{"key": service}]});
    let (denied, bad) = ((403, "permission_denied"), (400, "invalid_request"));
    let theirs = "/users/bob/permanenttokens";
    check("another's list", "alice", "GET", theirs, Value::Null, denied);
    check("nobody's list", "alice", "GET", "/users/nobody/permanenttokens", Value::Null, denied);
    check("another's, by the boss", "boss", "GET", theirs, Value::Null, (200, ""));
    check("for another", "alice", "POST", theirs, new("wiki"), denied);
    check("another's profile", "alice", "GET", "/users/bob", Value::Null, denied);
    check("revoke another's", "alice", "DELETE", &format!("{theirs}/{bobs}"), Value::Null, denied);
    let mine = "/users/me/permanenttokens";
    check(
        "another's among one's own",
        "alice",
        "GET",
        &format!("{mine}/{bobs}"),
        Value::Null,
        (404, "not_found"),
    );
    check("unreadable", "alice", "POST", mine, new("vault"), (403, "service_not_readable"));
    check("unknown", "alice", "POST", mine, new("no-such"), (403, "service_not_readable"));
    check("no scope", "alice", "POST", mine, json!({"name": "n"}), (422, "empty_scope"));
    check("no name", "alice", "POST", mine, json!({"scope": [{"key": "wiki"}]}), (422, "invalid_name"));
    let other = json!({"name": "n", "scope": [{"key": "wiki"}], "user": {"login": "bob"}});
    check("another owner than the path's", "alice", "POST", mine, other, bad);
    check("bad fields", "alice", "GET", &format!("{mine}?fields=a(("), Value::Null, bad);
    check("an unknown parameter", "alice", "GET", &format!("{mine}?query=x"), Value::Null, bad);
}

fn form(fixture: &Fixture, sender: &Credentials, target: &str, body: &str) -> Answer {
    fixture.send(sender, Request::new("POST", target).body(FORM, body.to_owned()))
}

#[test]
fn introspection_reports_active_tokens_and_is_not_a_use() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    fixture.user("checker", &[]);
    fixture.allow("checker", &["introspect"]);
    let made = fixture.token("alice", "ci", &["youtrack", "hub:read"]);
    let (checker, secret) = (fixture.credentials("checker"), text(&made));
    let ask = |token: &str| {
        let answer = form(&fixture, &checker, "/oauth2/introspect", &format!("token={token}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let told = ask(&secret);
    assert_eq!(told["active"], true);
    assert_eq!((&told["username"], &told["jti"]), (&json!("alice"), &made["id"]));
    assert_eq!((&told["scope"], &told["token_type"]), (&json!("hub:read youtrack"), &json!("Bearer")));
    assert!(told["iat"].is_i64() && told.get("exp").is_none(), "{told}");
    assert_eq!(ask(&format!("perm:{secret}"))["active"], true, "with the alias");
    let inactive = json!({"active": false});
    assert_eq!(ask("nonsense"), inactive);
    assert_eq!(ask(""), inactive);
    let other = if secret.ends_with('x') { 'y' } else { 'x' };
    assert_eq!(ask(&format!("{}{other}", &secret[..65])), inactive, "mistyped");
    fixture.must("DELETE", "/v1/groups/developers/members/alice", None);
    assert_eq!(ask(&secret)["scope"], "", "the owner reads neither any more");
    fixture.must("POST", "/v1/users/alice/ban", None);
    assert_eq!(ask(&secret), inactive, "banned");
    let shown = fixture.must("GET", &format!("/v1/tokens/{}", id(&made)), None);
    assert_eq!(shown["last_used_at"], Value::Null, "never a use");
    let outcome =
        |sender: &Credentials, body: &str| form(&fixture, sender, "/oauth2/introspect", body).outcome();
    fixture.user("plain", &[]);
    assert_eq!(outcome(&fixture.credentials("plain"), "token=x"), (403, "permission_denied".into()));
    assert_eq!(outcome(&checker, "a=b"), (400, "invalid_request".into()));
    assert_eq!(outcome(&checker, "token=a&token=b"), (400, "invalid_request".into()));
    let json = fixture.call(&checker, "POST", "/oauth2/introspect", Some(&json!({"token": secret})));
    assert_eq!(json.status, 415);
    assert!(fixture.around.refused.lock().unwrap().iter().all(|(_, reason)| *reason != Reason::UnknownToken));
}

#[test]
fn holder_of_a_token_text_can_revoke_it() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.user("finder", &[]);
    let finder = fixture.credentials("finder");
    let token = |name: &str| fixture.token("alice", name, &["permgate"]);
    let lives = |made: &Value| {
        fixture.call(&Credentials::Bearer(text(made)), "GET", "/v1/whoami", None).status == 200
    };
    let (one, two, three, four) = (token("one"), token("two"), token("three"), token("four"));
    let by_value = |value: &str| {
        let body = json!({"token": value});
        let answer = fixture.call(&finder, "POST", "/v1/tokens/revoke-by-value", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    assert_eq!(by_value(&text(&one)), json!({"revoked": true, "id": one["id"], "cut": 0}));
    assert_eq!(by_value(&text(&one))["revoked"], true, "as often as asked");
    assert_eq!(by_value("nonsense"), json!({"revoked": false, "id": null, "cut": 0}));
    assert!(!lives(&one) && lives(&two));
    for body in [format!("token={}&token_type_hint=access_token", text(&two)), "token=nonsense".into()] {
        let answer = form(&fixture, &finder, "/oauth2/revoke", &body);
        assert_eq!((answer.status, answer.json()), (200, json!({})), "the same for what is none");
    }
    assert!(!lives(&two) && lives(&three));
    let (first, second) = (text(&three), text(&four));
    // More than one change accepts.
    let mut texts = vec!["nothing".to_owned(); 230];
    texts[0] = format!("a={first}\nb={second} {first}");
    (texts[120], texts[229]) = (text(&one), second.clone());
    let answer = fixture.call(&finder, "POST", "/v1/leaks", Some(&json!({"texts": texts})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["revoked"], 2, "{told}");
    let of = |index: usize| {
        let tokens = told["items"][index]["tokens"].as_array().unwrap().iter();
        let mut ids: Vec<(String, bool)> =
            tokens.map(|token| (id(token), token["revoked_now"].as_bool().unwrap())).collect();
        ids.sort();
        ids
    };
    let mut both = vec![(id(&three), true), (id(&four), true)];
    both.sort();
    assert_eq!((of(0), of(1)), (both, vec![]));
    assert_eq!((of(120), of(229)), (vec![(id(&one), false)], vec![(id(&four), false)]));
    for secret in [&first, &second] {
        assert!(!answer.text().contains(secret.as_str()), "an answer repeats no text");
    }
    assert!(!lives(&three) && !lives(&four));
    let shown = fixture.must("GET", &format!("/v1/tokens/{}", id(&three)), None);
    assert_eq!((&shown["revoke_reason"], &shown["revoked_by"]), (&json!("leaked"), &json!("finder")));
    let audit = fixture.must("GET", "/v1/audit", None).to_string();
    assert!(audit.contains("leaked") && !audit.contains(&first[17..]), "{audit}");
    let (five, six) = (token("five"), token("six"));
    fixture.user("manager", &[]);
    fixture.allow("manager", &["update-user"]);
    let (alice, manager) = (fixture.credentials("alice"), fixture.credentials("manager"));
    let body = json!({"token": text(&five)});
    assert_eq!(fixture.call(&alice, "POST", "/v1/tokens/revoke-by-value", Some(&body)).status, 200);
    assert_eq!(form(&fixture, &manager, "/oauth2/revoke", &format!("token={}", text(&six))).status, 200);
    // Who is no manager and has the text of another's token shows that it is not secret.
    for (made, reason) in [(&one, "leaked"), (&two, "leaked"), (&five, "user"), (&six, "admin")] {
        let shown = fixture.must("GET", &format!("/v1/tokens/{}", id(made)), None);
        assert_eq!(shown["revoke_reason"], reason, "{shown}");
    }
    let anonymous = fixture.call(&Credentials::Anonymous, "POST", "/v1/leaks", Some(&json!({"texts": []})));
    assert_eq!(anonymous.status, 401);
    let many = json!({"texts": vec!["x"; 1001]});
    assert_eq!(fixture.call(&finder, "POST", "/v1/leaks", Some(&many)).status, 422);
}
