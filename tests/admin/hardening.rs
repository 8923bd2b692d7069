//! What the admin listener refuses itself, and the header fields that every answer has.

use permgate::{
    admin::{SignIn, UserHeader},
    authz::reason::Reason,
    store::{Actor, ActorKind},
};
use serde_json::json;

use crate::{
    exchange::Request,
    harness::{Credentials, Fixture, PASSWORD, id, new_token, text},
};

#[test]
fn every_response_has_the_security_fields() {
    let fixture = Fixture::start();
    let check = |name: &str, sender: &Credentials, request: Request, status: u16| {
        let answer = fixture.send(sender, request);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        for (field, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.field(field), Some(value), "{name}: {field}");
        }
        assert!(answer.field("content-security-policy").unwrap().starts_with("default-src 'none'"), "{name}");
        assert_eq!(answer.field("access-control-allow-origin"), None, "{name}");
        let request_id = answer.field("x-request-id").unwrap().to_owned();
        if status >= 400 && answer.field("content-length") != Some("0") {
            let body = answer.json();
            assert_eq!(
                (&body["request_id"], &body["status"]),
                (&json!(request_id), &json!(status)),
                "{name}"
            );
            assert!(body["error"].is_string() && body["error_description"].is_string(), "{name}");
        }
    };
    let get = |target: &str| Request::new("GET", target);
    check("an answer", &Credentials::Operator, get("/v1/whoami"), 200);
    check("health", &Credentials::Anonymous, get("/healthz"), 200);
    check("no credential", &Credentials::Anonymous, get("/v1/whoami"), 401);
    check("nowhere", &Credentials::Operator, get("/v1/nowhere"), 404);
    check("nowhere at all", &Credentials::Operator, get("/nowhere"), 404);
    check("a wrong method", &Credentials::Operator, Request::new("PUT", "/v1/users"), 405);
    check("TRACE", &Credentials::Operator, Request::new("TRACE", "/v1/users"), 405);
    check("a bad path", &Credentials::Operator, get("/v1/../v1/users"), 400);
    check("a head that is none", &Credentials::Anonymous, get("/v1/users").field("Content-Length", "x"), 400);
}

#[test]
fn response_405_lists_allowed_methods() {
    let fixture = Fixture::start();
    let answer = fixture.call(&Credentials::Operator, "PUT", "/v1/tokens/000000000000", None);
    assert_eq!(answer.outcome(), (405, "method_not_allowed".into()));
    let allow = answer.field("allow").unwrap();
    assert!(["GET", "PATCH", "DELETE"].iter().all(|method| allow.contains(method)), "{allow}");
}

#[test]
fn body_must_be_json_within_the_size_limit() {
    let fixture = Fixture::start();
    let check = |name: &str, request: Request, expected: (u16, &str)| {
        let answer = fixture.send(&Credentials::Operator, request);
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
    };
    let post = || Request::new("POST", "/v1/groups");
    let form = "application/x-www-form-urlencoded";
    check("a form", post().body(form, "name=x"), (415, "unsupported_media_type"));
    check("text", post().body("text/plain", "{\"name\": \"x\"}"), (415, "unsupported_media_type"));
    check("no JSON", post().body("application/json", "{"), (400, "invalid_request"));
    check("two values", post().body("application/json", "{\"name\": \"x\"} {}"), (400, "invalid_request"));
    check("a list", post().body("application/json", "[]"), (400, "invalid_request"));
    check("with a charset", post().body("application/json; charset=utf-8", "{\"name\": \"x\"}"), (201, ""));
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    check("over 1 MiB", post().body("application/json", large), (413, "content_too_large"));
    let revoke = |length| {
        Request::new("POST", "/oauth2/revoke").body(form, format!("token=x&more={}", "x".repeat(length)))
    };
    check("a form", revoke(16_000), (200, ""));
    check("a form over 16 KiB", revoke(17_000), (413, "content_too_large"));
    fixture.user("alice", &[]);
    let browser = fixture.browser("alice");
    let by_cookie = revoke(17_000).field("Cookie", &browser.cookie);
    let answer = fixture.send(&Credentials::Anonymous, by_cookie);
    assert_eq!(answer.outcome(), (413, "content_too_large".into()), "by a browser");
    let networks = json!(vec!["none"; 65]);
    let token = json!({"name": "ci", "scope": [{"service": "wiki"}], "allow_ips": networks});
    let networks = || Request::new("POST", "/v1/users/nobody/tokens").json(&token);
    check("too many networks, unread", networks(), (422, "invalid_value"));
    let answer = fixture.send(&Credentials::Operator, networks());
    assert!(answer.text().contains("at most 64 networks"), "{}", answer.text());
}

#[test]
fn call_without_a_body_refuses_fields() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    for (method, target) in [
        ("POST", "/v1/users/alice/invitation"),
        ("POST", "/v1/users/alice/unban"),
        ("PUT", "/v1/groups/developers/members/alice"),
        ("POST", "/v1/reload"),
    ] {
        let call = |body: Option<serde_json::Value>| {
            fixture.call(&Credentials::Operator, method, target, body.as_ref()).status
        };
        assert_eq!(call(Some(json!({"expires_in": "7d"}))), 400, "{target}");
        for body in [None, Some(json!({})), Some(json!(null))] {
            assert!(call(body.clone()) < 300, "{target} {body:?}");
        }
        // The first release ignored these, as curl and others send them.
        let form = "application/x-www-form-urlencoded";
        for (kind, body) in [("application/json", " \n"), ("text/plain", "{}"), (form, "{}"), (form, "")] {
            let answer = fixture.send(&Credentials::Operator, Request::new(method, target).body(kind, body));
            assert!(answer.status < 300, "{target} {kind} {body:?}");
        }
    }
}

#[test]
fn change_rate_limit_does_not_delay_revocations() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let (alice, bob) = (fixture.credentials("alice"), Credentials::Operator);
    fixture.limit_changes(2);
    let make = |sender: &Credentials, name: &str| {
        fixture.call(sender, "POST", "/v1/users/alice/tokens", Some(&new_token(name, &["wiki"])))
    };
    let made = make(&alice, "one");
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(make(&alice, "two").status, 201);
    let refused = make(&alice, "three");
    assert_eq!(refused.outcome(), (429, "too_many_changes".to_owned()));
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(make(&bob, "three").status, 201, "the operator is not counted");
    let target = format!("/v1/tokens/{}", id(&made.json()));
    assert_eq!(fixture.call(&alice, "DELETE", &target, None).status, 200);
    let narrowed = json!({"allow_ips": ["127.0.0.0/8"]});
    let target = format!("/v1/tokens/{}", id(&make(&bob, "four").json()));
    assert_eq!(fixture.call(&alice, "PATCH", &target, Some(&narrowed)).status, 200);
}

#[test]
fn error_format_follows_accept() {
    let fixture = Fixture::start();
    let check = |accept: &str, expected: &str| {
        let request = Request::new("GET", "/v1/nowhere").field("Accept", accept);
        let answer = fixture.send(&Credentials::Operator, request);
        assert_eq!(answer.field("content-type"), Some(expected), "{accept}");
        assert_eq!(answer.json()["error"], "not_found", "{accept}");
    };
    check("*/*", "application/json");
    check("application/json", "application/json");
    check("text/html, application/problem+json;q=0.9", "application/problem+json");
}

#[test]
fn cross_site_browser_requests_are_refused() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let alice = fixture.credentials("alice");
    let check = |name: &str, request: Request, expected: u16| {
        let answer = fixture.send(&alice, request);
        assert_eq!(answer.status, expected, "{name}: {}", answer.text());
    };
    let get = || Request::new("GET", "/v1/whoami");
    let delete = || Request::new("DELETE", "/v1/tokens/000000000000");
    check("another name", get().field("Host", "evil.example"), 421);
    for page in ["/", "/sign-in", "/profile", "/openapi.json", "/assets/x"] {
        check(page, Request::new("GET", page).field("Host", "evil.example"), 421);
    }
    check("the name with a port", get().field("Host", "gate.example:8081"), 200);
    check("another origin", delete().field("Origin", "http://evil.example"), 403);
    check("another site", delete().field("Sec-Fetch-Site", "cross-site"), 403);
    check("our origin", delete().field("Origin", "http://localhost"), 404);
    let health = Request::new("GET", "/healthz").field("Host", "whatever.example");
    assert_eq!(fixture.send(&Credentials::Anonymous, health).status, 200, "a probe knows no names");
}

#[test]
fn admin_api_checks_tokens_like_the_proxy() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let good = fixture.token("alice", "good", &["permgate", "youtrack"]);
    let elsewhere = text(&fixture.token("alice", "elsewhere", &["youtrack"]));
    let reading = text(&fixture.token("alice", "reading", &["permgate:read"]));
    let far = fixture.must(
        "POST",
        "/v1/users/alice/tokens",
        Some(json!({"name": "far", "scope": [{"service": "permgate"}], "allow_ips": ["10.0.0.0/8"]})),
    );
    let revoked = fixture.token("alice", "revoked", &["permgate"]);
    fixture.must("DELETE", &format!("/v1/tokens/{}", id(&revoked)), None);
    let other = if text(&good).ends_with('x') { 'y' } else { 'x' };
    let mistyped = format!("{}{other}", &text(&good)[..65]);
    let check = |name: &str, bearer: &str, method: &str, expected: (u16, &str), challenge: Option<&str>| {
        let target = if method == "GET" { "/v1/whoami" } else { "/v1/users/me/tokens" };
        let body = crate::harness::new_token(name, &["youtrack"]);
        let body = Some(&body).filter(|_| method == "POST");
        let answer = fixture.call(&Credentials::Bearer(bearer.into()), method, target, body);
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
        let told = answer.field("www-authenticate");
        assert_eq!(told.is_some(), challenge.is_some(), "{name}: {told:?}");
        assert!(told.unwrap_or_default().contains(challenge.unwrap_or_default()), "{name}: {told:?}");
    };
    check("sound", &text(&good), "GET", (200, ""), None);
    check("sound, with the alias", &format!("perm-{}", text(&good)), "GET", (200, ""), None);
    check("mistyped", &mistyped, "GET", (401, "invalid_token"), Some("malformed"));
    check("strange", "abc", "GET", (401, "invalid_token"), Some("malformed"));
    check("two words", "a b", "GET", (400, "invalid_request"), Some("malformed"));
    check("revoked", &text(&revoked), "GET", (401, "invalid_token"), Some("revoked"));
    check("from elsewhere", &text(&far), "GET", (401, "invalid_token"), Some("invalid"));
    check("for another service", &elsewhere, "GET", (403, "insufficient_scope"), Some("scope=\"permgate\""));
    check("reading reads", &reading, "GET", (200, ""), None);
    check("reading writes", &reading, "POST", (403, "insufficient_scope"), Some("read-only"));
    fixture.must("POST", "/v1/users/alice/ban", None);
    check("banned", &text(&good), "GET", (401, "invalid_token"), Some("disabled"));
    let refused = fixture.around.refused.lock().unwrap();
    assert!(refused.contains(&(Some(id(&revoked)), Reason::TokenRevoked)), "{refused:?}");
}

#[test]
fn token_in_the_url_is_refused_for_everyone() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let leaked = text(&fixture.token("alice", "leaked", &["permgate"]));
    for target in [format!("/v1/whoami?access_token={leaked}"), format!("/v1/tokens/{leaked}")] {
        let answer = fixture.call(&Credentials::Operator, "GET", &target, None);
        assert_eq!(answer.outcome(), (400, "invalid_request".into()), "{}", answer.text());
        assert!(!answer.text().contains(&leaked));
    }
}

#[test]
fn bad_credential_on_the_operator_socket_is_refused() {
    let fixture = Fixture::start();
    let request = Request::new("GET", "/v1/whoami");
    let plain = fixture.send(&Credentials::Operator, request.clone());
    assert_eq!((plain.status, plain.json()["operator"].as_bool()), (200, Some(true)));
    let bad = request.clone().field("Authorization", "Bearer nonsense").over_unix(&fixture.socket);
    assert_eq!(bad.status, 401, "{}", bad.text());
    let over_tcp = fixture.send(&Credentials::Anonymous, request);
    assert_eq!(over_tcp.outcome(), (401, "unauthorized".into()));
    assert_eq!(over_tcp.field("www-authenticate"), Some("Bearer realm=\"permgate\""));
}

/// The peer is then the proxy, which may pass on requests of anybody.
#[test]
fn what_has_passed_a_proxy_comes_neither_from_the_operator_nor_from_this_machine() {
    let fixture = Fixture::start();
    let check = |name: &str, value: &str, passes: bool| {
        let request = |target: &str| Request::new("GET", target).field(name, value);
        let answers = [
            request("/v1/whoami").over_unix(&fixture.socket),
            request("/metrics").over_unix(&fixture.socket),
            request("/metrics").over_tcp(fixture.address),
        ];
        let expected = if passes { 200 } else { 401 };
        assert_eq!(answers.map(|answer| answer.status), [expected; 3], "{name}: {value}");
    };
    check("Accept", "*/*", true);
    check("Via", "1.1 proxy", false);
    check("Forwarded", "for=192.0.2.1", false);
    check("X-Forwarded-For", "192.0.2.1", false);
    check("X_Real_IP", "192.0.2.1", false);
    let by_name =
        |host: &str| Request::new("GET", "/metrics").field("Host", host).over_tcp(fixture.address).status;
    assert_eq!((by_name("127.0.0.1"), by_name("gate.example")), (200, 401), "its public name");
}

/// A token with all of alice's permissions sets her password while the operator resets it.
#[test]
fn password_reset_wins_over_a_change_begun_earlier() {
    let fixture = Fixture::start();
    let evil = json!({"current": PASSWORD, "password": "another passphrase of a thief"});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // `None`: the change was over before it was seen.
    let interrupted = |login: &String| {
        fixture.user(login, &[]);
        fixture.must("PUT", &format!("/v1/users/{login}/password"), Some(json!({"password": PASSWORD})));
        let alice = fixture.credentials(login);
        std::thread::scope(|scope| {
            let change = scope.spawn(|| fixture.call(&alice, "PUT", "/v1/users/me/password", Some(&evil)));
            while !fixture.must("GET", "/v1/live", None).to_string().contains("\"PUT\"") {
                if change.is_finished() {
                    return None;
                }
            }
            let operator = Actor::new(ActorKind::Operator);
            let reset = fixture.store.set_password(operator, login.clone(), None, Some("$reset".into()));
            runtime.block_on(reset).unwrap();
            Some(change.join().unwrap())
        })
    };
    let mut logins = (0..20).map(|number| format!("alice{number}"));
    let (answer, login) = logins.find_map(|login| Some((interrupted(&login)?, login))).unwrap();
    assert_eq!(answer.outcome(), (403, "wrong_password".into()), "{}", answer.text());
    let accounts = fixture.store.accounts();
    assert_eq!(accounts.user_by_login(&login).unwrap().record.password.as_deref(), Some("$reset"));
}

/// Derivations take turns, also those of sign-ins, so only a caller who may set the password gets one.
#[test]
fn who_may_not_set_a_password_has_none_derived() {
    let fixture = Fixture::start();
    for login in ["mia", "victim"] {
        fixture.user(login, &[]);
    }
    let nobody = fixture.credentials("mia");
    let limited = Credentials::Bearer(text(&fixture.token("mia", "limited", &["permgate"])));
    let body = json!({"password": PASSWORD});
    let tries = [
        (&nobody, "/v1/users/victim/password", "permission_denied"),
        (&limited, "/v1/users/me/password", "exceeds_parent_token"),
    ];
    for (sender, target, expected) in tries {
        // More than may wait for a turn at the same time.
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let answer = fixture.call(sender, "PUT", target, Some(&body));
                    assert_eq!(answer.outcome(), (403, expected.into()), "{}", answer.text());
                });
            }
        });
    }
}

/// After many failed sign-ins from one address, the answers reveal nothing about other users there.
#[test]
fn after_many_failures_only_a_known_browser_can_sign_in() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.user("bob", &[]);
    let bob = fixture.browser("bob").cookie;
    fixture.must("PUT", "/v1/users/alice/password", Some(json!({"password": PASSWORD})));
    let answer = fixture.sign_in("alice", PASSWORD);
    let [session, known] = answer.all("set-cookie")[..] else { panic!("two cookies") };
    assert!(known.starts_with("permgate-known=") && known.contains("; HttpOnly; SameSite=Strict"), "{known}");
    let (session, known) = (session.split(';').next().unwrap(), known.split(';').next().unwrap());
    // Longer than any password, so no key is derived.
    let wrong = "x".repeat(5000);
    let ended = (0..).find(|number| fixture.sign_in(&format!("nobody{number}"), &wrong).status == 429);
    assert_eq!(ended, Some(50));
    let sign_in = |cookie: &str, login: &str, password: &str| {
        let body = json!({"login": login, "password": password});
        let request = Request::new("POST", "/v1/session").field("Cookie", cookie).json(&body);
        fixture.send(&Credentials::Anonymous, request).status
    };
    for (name, cookie, login, password, expected) in [
        ("nobody", "", "nobody", PASSWORD, 429),
        ("who is signed in from there", "", "alice", PASSWORD, 429),
        ("with a session's cookie", session, "alice", PASSWORD, 429),
        ("with another account's", &bob, "alice", PASSWORD, 429),
        ("another account", known, "bob", PASSWORD, 429),
        ("nobody, in a known browser", known, "nobody", PASSWORD, 429),
        ("twice", &format!("{known}; {known}"), "alice", PASSWORD, 429),
        ("wrong, in the known browser", known, "alice", &wrong, 401),
        ("the known browser", known, "ALICE", PASSWORD, 201),
    ] {
        assert_eq!(sign_in(cookie, login, password), expected, "{name}");
    }
}

#[test]
fn service_account_does_not_sign_in_by_a_proxys_header() {
    let header =
        UserHeader { name: "x-remote-user".parse().unwrap(), from: vec!["127.0.0.0/8".parse().unwrap()] };
    let fixture = Fixture::signed_in_by(None, SignIn { header: Some(header), ..SignIn::default() });
    for kind in ["human", "service"] {
        fixture.must("POST", "/v1/users", Some(json!({"login": kind, "kind": kind})));
    }
    let sign_in = |login: &str| {
        Request::new("GET", "/v1/session").field("X-Remote-User", login).over_tcp(fixture.address).outcome()
    };
    assert_eq!(sign_in("human"), (200, String::new()));
    assert_eq!(sign_in("service"), (401, "unauthorized".into()));
}

/// A page that refreshes itself on a screen that nobody looks at would keep its session for twelve hours.
#[test]
fn page_that_refreshes_itself_does_not_keep_its_session() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let browser = fixture.browser("alice");
    let seen = |fields: &[(&str, &str)]| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let request = Request::new("GET", "/v1/session").field("Cookie", &browser.cookie);
        let request = fields.iter().fold(request, |request, (name, value)| request.field(name, value));
        fixture.send(&Credentials::Anonymous, request).json()["idle_until"].as_str().unwrap().to_owned()
    };
    let first = seen(&[]);
    assert_eq!(seen(&[("X-Permgate-Unattended", "1")]), first);
    assert!(seen(&[]) > first);
}
