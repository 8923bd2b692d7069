//! Steps 4a to 9 of the decision, with exact status, error and challenge.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::stage::{Stage, carriers_are_on};

/// Status, error, challenge.
type Expected<'a> = (u16, &'a str, Option<&'a str>);

fn invalid(description: &str) -> String {
    format!("Bearer realm=\"permgate\", error=\"invalid_token\", error_description=\"{description}\"")
}

fn request(description: &str) -> String {
    format!("Bearer realm=\"permgate\", error=\"invalid_request\", error_description=\"{description}\"")
}

/// Checks one request: it reaches the upstream only with 200, and the credential never does.
fn check(stage: &Stage, row: &str, target: &str, fields: &str, expected: Expected<'_>) {
    check_method(stage, row, "GET", target, fields, expected);
}

fn check_method(
    stage: &Stage,
    row: &str,
    method: &str,
    target: &str,
    fields: &str,
    (status, error, challenge): Expected<'_>,
) {
    let (answer, received) = stage.send_one(method, target.as_bytes(), &format!("Host: g\r\n{fields}"));
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{row}: {body}");
    assert_eq!(received.len(), usize::from(status == 200), "{row}");
    if status == 200 {
        for field in ["authorization", "proxy-authorization"] {
            assert!(received[0].all(field).is_empty(), "{row}: {received:?}");
        }
        assert!(!format!("{received:?}").contains(&stage.token), "{row}: {received:?}");
        return;
    }
    assert_eq!(answer.error(), error, "{row}");
    let challenges = answer.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("www-authenticate"));
    let challenges: Vec<&str> = challenges.map(|(_, value)| value.as_str()).collect();
    let basic = (carriers_are_on() && status == 401).then_some("Basic realm=\"permgate\", charset=\"UTF-8\"");
    assert_eq!(challenges, challenge.into_iter().chain(basic).collect::<Vec<_>>(), "{row}");
    assert_eq!(answer.json()["status"], status, "{row}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{row}");
    assert!(
        !body.contains("pgt_") || body.contains("pgt_...") || !body.contains(&stage.token),
        "{row}: {body}"
    );
}

#[test]
fn malformed_credentials_are_refused() {
    let stage = Stage::with_sibling_services();
    let token = stage.token.clone();
    let other = token.replacen("pgt_", "PGT_", 1);
    let bare = Some("Bearer realm=\"permgate\"");
    let none = (401, "unauthorized", bare);
    let malformed = request("The Authorization header field is malformed");
    let malformed = (400, "invalid_request", Some(malformed.as_str()));
    let two = request("More than one Authorization header field was sent");
    let two = (400, "invalid_request", Some(two.as_str()));
    let form = invalid("The access token is malformed");
    let form = (401, "invalid_token", Some(form.as_str()));
    let unknown = invalid("The access token is invalid");
    let ok = (200, "", None);
    let line = |value: &str| format!("Authorization: {value}\r\n");
    let mut wrong = token.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == '0' { '1' } else { '0' });
    let rows: Vec<(&str, String, Expected<'_>)> = vec![
        ("none", String::new(), none),
        ("empty", line(""), none),
        ("Basic", line("Basic YTpi"), none),
        ("Basic with the token as its password", line(&format!("Basic {token}")), none),
        ("Digest", line("Digest username=\"a\""), none),
        ("Negotiate", line("Negotiate abc"), none),
        ("token", line(&format!("token {token}")), none),
        ("the token alone", line(&token), none),
        ("Bearer-", line(&format!("Bearer- {token}")), none),
        ("Bearerx", line(&format!("Bearerx {token}")), none),
        ("XBearer", line(&format!("XBearer {token}")), none),
        ("Basic, Bearer in one field", line(&format!("Basic YTpi, Bearer {token}")), none),
        ("good", line(&format!("Bearer {token}")), ok),
        ("lower case", line(&format!("bearer {token}")), ok),
        ("mixed case", format!("aUTHORIZATION: bEaReR {token}\r\n"), ok),
        ("several spaces", line(&format!("Bearer      {token}")), ok),
        ("space around", format!("Authorization:   Bearer {token}  \t \r\n"), ok),
        ("no space before the scheme", format!("Authorization:Bearer {token}\r\n"), ok),
        ("perm:", line(&format!("Bearer perm:{token}")), ok),
        ("perm-", line(&format!("Bearer perm-{token}")), ok),
        ("perm: twice", line(&format!("Bearer perm:perm:{token}")), form),
        ("PERM:", line(&format!("Bearer PERM:{token}")), form),
        ("perm", line(&format!("Bearer perm{token}")), form),
        ("Bearer alone", line("Bearer"), malformed),
        ("Bearer and a space", "Authorization: Bearer \r\n".into(), malformed),
        ("a tab", line(&format!("Bearer\t{token}")), malformed),
        ("a space and a tab", line(&format!("Bearer \t{token}")), malformed),
        ("a colon", line(&format!("Bearer: {token}")), malformed),
        ("an equals sign", line(&format!("Bearer={token}")), malformed),
        ("quoted", line(&format!("Bearer \"{token}\"")), malformed),
        ("in brackets", line(&format!("Bearer <{token}>")), malformed),
        ("a comma behind", line(&format!("Bearer {token},")), malformed),
        ("two words", line(&format!("Bearer {token} x")), malformed),
        ("the token twice", line(&format!("Bearer {token} {token}")), malformed),
        ("two in a list", line(&format!("Bearer {token}, Bearer {token}")), malformed),
        ("Bearer, Basic in one field", line(&format!("Bearer {token}, Basic YTpi")), malformed),
        ("an escape", line(&format!("Bearer {token}%20")), malformed),
        ("a semicolon", line(&format!("Bearer {token};x=y")), malformed),
        ("not ASCII", line(&format!("Bearer {token}\u{e9}")), malformed),
        ("a no-break space", line(&format!("Bearer\u{a0}{token}")), malformed),
        ("512 characters", line(&format!("Bearer {}", "a".repeat(512))), form),
        ("513 characters", line(&format!("Bearer {}", "a".repeat(513))), malformed),
        ("16,000 characters", line(&format!("Bearer {}", "a".repeat(16_000))), malformed),
        ("two fields, the same", line(&format!("Bearer {token}")).repeat(2), two),
        ("two fields, Basic first", line("Basic YTpi") + &line(&format!("Bearer {token}")), two),
        ("two fields, Basic second", line(&format!("Bearer {token}")) + &line("Basic YTpi"), two),
        ("two fields, one empty", line("") + &line(&format!("Bearer {token}")), two),
        (
            "two fields in other letters",
            format!("authorization: Bearer {token}\r\nAUTHORIZATION: x\r\n"),
            two,
        ),
        ("three fields", line(&format!("Bearer {token}")).repeat(3), two),
        ("of another form", line("Bearer abcdef"), form),
        ("a JWT", line("Bearer eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo"), form),
        ("cut short", line(&format!("Bearer {}", &token[..65])), form),
        ("one longer", line(&format!("Bearer {token}0")), form),
        ("in capitals", line(&format!("Bearer {other}")), form),
        ("a wrong checksum", line(&format!("Bearer {wrong}")), form),
        ("Proxy-Authorization alone", format!("Proxy-Authorization: Bearer {token}\r\n"), none),
        (
            "Proxy-Authorization beside",
            format!("Proxy-Authorization: Bearer x\r\nAuthorization: Bearer {token}\r\n"),
            ok,
        ),
        ("a cookie", format!("Cookie: access_token={token}\r\n"), none),
        ("X-Authorization", format!("X-Authorization: Bearer {token}\r\n"), none),
        ("X-Api-Key", format!("X-Api-Key: {token}\r\n"), none),
        ("Authorization_", format!("Authorization_: Bearer {token}\r\n"), none),
        ("in Connection", format!("Authorization: Bearer {token}\r\nConnection: authorization\r\n"), ok),
        (
            "unknown",
            line("Bearer pgt_Nobody000099_brKsegOZLgLs9OT8GrfKi8pfLRbGbJKe71gWpH2YO0g0ATQoD"),
            (401, "invalid_token", Some(&unknown)),
        ),
        ("folded", format!("Authorization: Bearer\r\n {token}\r\n"), (400, "invalid_request", None)),
        (
            "a space before the colon",
            format!("Authorization : Bearer {token}\r\n"),
            (400, "invalid_request", None),
        ),
    ];
    let of_other_carriers =
        ["Basic", "Basic with the token as its password", "the token alone", "Basic, Bearer in one field"];
    for (row, fields, expected) in &rows {
        if carriers_are_on() && of_other_carriers.contains(row) {
            continue;
        }
        check(&stage, row, "/api/x", fields, *expected);
        if expected.0 != 200 {
            // Authentication comes before 404, so an outsider cannot enumerate prefixes.
            check(&stage, row, "/nothing/x", fields, *expected);
            check(&stage, row, "/hub/api/x", fields, *expected);
        }
    }
    println!("{} rows", rows.len());
}

#[test]
fn a_token_in_the_url_is_refused() {
    let stage = Stage::with_sibling_services();
    let (token, bearer) = (stage.token.clone(), stage.bearer());
    let challenge = request("Access tokens must not be sent in the URL");
    let expected = (400, "invalid_request", Some(challenge.as_str()));
    let escaped = token.replacen("pgt_", "%70gt%5f", 1);
    for (row, target) in [
        ("in the query", format!("/api/x?access_token={token}")),
        ("alone", format!("/api/x?{token}")),
        ("in the path", format!("/api/{token}/x")),
        ("escaped", format!("/api/x?t={escaped}")),
        ("escaped in the path", format!("/api/{escaped}")),
        ("with perm:", format!("/api/x?t=perm:{token}")),
        ("within a word", format!("/api/x?t=abc{token}def")),
        ("where nobody owns the path", format!("/nothing?{token}")),
    ] {
        check(&stage, row, &target, &bearer, expected);
        check(&stage, &format!("{row}, without Authorization"), &target, "", expected);
    }
}

#[test]
fn state_of_token_and_owner_decides() {
    let stage = Stage::with(
        r#""/api", "/rest""#,
        "",
        r#"
[service.closed]
title = "Closed"
upstream = "one"
paths = ["/closed"]
readers = ["nobody"]
[service.open]
title = "Open"
upstream = "one"
paths = ["/open"]
readers = ["developers"]
[[public]]
service = "open"
prefix = "/open/public"
methods = ["GET", "HEAD"]
"#,
    );
    let gateway = &stage.gateway;
    let field = |text: &str| format!("Authorization: Bearer {text}\r\n");
    let make = |login: &str, name: &str, more: serde_json::Value| {
        let mut body = serde_json::json!({"name": name, "scope": [{"service": "tracker"}]});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let made = gateway.must("POST", &format!("/v1/users/{login}/tokens"), Some(&body.to_string()));
        (made["id"].as_str().unwrap().to_owned(), field(made["token"].as_str().unwrap()))
    };
    let none = || serde_json::json!({});
    let bearer = stage.bearer();
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(1200);
    let soon = jiff::Timestamp::from_millisecond(i64::try_from(soon.as_millis()).unwrap()).unwrap();
    let (_, expiring) = make("alice", "expiring", serde_json::json!({"expires_at": soon.to_string()}));

    let (id, revoked) = make("alice", "revoked", none());
    check(&stage, "before its revocation", "/api/x", &revoked, (200, "", None));
    gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    let (id, rotated) = make("alice", "rotated", none());
    gateway.must("POST", &format!("/v1/tokens/{id}/rotate"), Some(r#"{"grace": "0s"}"#));
    let (id, in_grace) = make("alice", "in grace", none());
    gateway.must("POST", &format!("/v1/tokens/{id}/rotate"), Some(r#"{"grace": "1h"}"#));
    let (_, early) = make("alice", "early", serde_json::json!({"not_before": "2099-01-01T00:00:00Z"}));
    let (_, elsewhere) = make("alice", "elsewhere", serde_json::json!({"allow_ips": ["192.0.2.0/24"]}));
    let (_, here) = make("alice", "here", serde_json::json!({"allow_ips": ["127.0.0.0/8"]}));
    gateway.developer("dave");
    let (_, banned) = make("dave", "banned", none());
    gateway.must("POST", "/v1/users/dave/ban", Some(r#"{"reason": "left"}"#));
    gateway.developer("frank");
    let (_, deleted) = make("frank", "deleted", none());
    gateway.must("DELETE", "/v1/users/frank", None);
    gateway.developer("grace");
    let (_, left) = make("grace", "left", none());
    gateway.must("DELETE", "/v1/groups/developers/members/grace", None);
    let (_, reading) =
        make("alice", "reading", serde_json::json!({"scope": [{"service": "tracker", "access": "read"}]}));

    let was_revoked = invalid("The access token was revoked");
    let was_rotated = invalid("The access token was replaced by a newer one");
    let was_expired = invalid("The access token expired");
    let is_early = invalid("The access token is not valid yet");
    let is_banned = invalid("The account that owns the access token is disabled");
    let unknown = invalid("The access token is invalid");
    let challenge = |description: &str, scope: &str| {
        format!(
            "Bearer realm=\"permgate\", error=\"insufficient_scope\", error_description=\"{description}\"{scope}"
        )
    };
    let no_reader = challenge("The account may not read this service", "");
    let no_scope = challenge("The access token is not granted for this service", ", scope=\"hub\"");
    let read_only = challenge("The access token is read-only for this service", ", scope=\"tracker\"");
    let bad = |challenge: &'static str| (401, "invalid_token", Some(challenge));
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let read_only = leak(read_only);
    let rows = [
        ("5c owner deleted", &deleted, bad(leak(unknown.clone()))),
        ("5d revoked", &revoked, bad(leak(was_revoked))),
        ("5e rotated", &rotated, bad(leak(was_rotated))),
        ("5g not yet", &early, bad(leak(is_early))),
        ("5h banned", &banned, bad(leak(is_banned))),
        ("5i elsewhere", &elsewhere, bad(leak(unknown))),
    ];
    for (row, field, expected) in rows {
        for target in ["/api/x", "/nothing", "/hub/api/x", "/closed/x", "/open/public/x"] {
            check(&stage, row, target, field, expected);
        }
    }
    check(&stage, "in grace", "/api/x", &in_grace, (200, "", None));
    check(&stage, "from here", "/api/x", &here, (200, "", None));
    check(&stage, "6 no service", "/nothing", &bearer, (404, "not_found", None));
    check(&stage, "6 almost a prefix", "/apix", &bearer, (404, "not_found", None));
    check(&stage, "6 the reserved prefix", "/.permgate/x", &bearer, (404, "not_found", None));
    check(&stage, "7 left the group", "/api/x", &left, (403, "insufficient_scope", Some(&no_reader)));
    check(&stage, "7 before 8", "/closed/x", &bearer, (403, "insufficient_scope", Some(&no_reader)));
    check(&stage, "8 scope", "/hub/api/x", &bearer, (403, "insufficient_scope", Some(&no_scope)));
    check(&stage, "9 reads", "/api/x", &reading, (200, "", None));
    let nine = (403, "insufficient_scope", Some(read_only));
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "LINK", "get", "Get", "OPTION"] {
        check_method(&stage, "9 a method that does not read", method, "/api/x", &reading, nine);
    }
    for field in [
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: GET",
        "x-method-override: x",
        "X_HTTP_METHOD_OVERRIDE: DELETE",
        "X.Http.Method: DELETE",
        "X-Http_Method.Override:",
        "Upgrade: websocket\r\nConnection: Upgrade",
    ] {
        check(&stage, "9 an override", "/api/x", &format!("{reading}{field}\r\n"), nine);
    }
    check(&stage, "public, anonymous", "/open/public/x", "", (200, "", None));
    check(
        &stage,
        "public, not this method",
        "/open/x",
        "",
        (401, "unauthorized", Some("Bearer realm=\"permgate\"")),
    );
    check_method(
        &stage,
        "public, another method",
        "POST",
        "/open/public/x",
        "",
        (401, "unauthorized", Some("Bearer realm=\"permgate\"")),
    );
    check(
        &stage,
        "public, overridden",
        "/open/public/x",
        "X-HTTP-Method-Override: POST\r\n",
        (401, "unauthorized", Some("Bearer realm=\"permgate\"")),
    );
    check(&stage, "public, not in scope", "/open/public/x", &bearer, (200, "", None));
    for target in
        ["/open/publicx", "/open/PUBLIC/x", "/open/public%2f..%2fx", "/open//public/x", "/open/x;/public"]
    {
        let (answer, received) = stage.send_one("GET", target.as_bytes(), "Host: g\r\n");
        assert!(matches!(answer.status, 400 | 401) && received.is_empty(), "{target}: {answer:?}");
    }
    for method in ["TRACE", "CONNECT"] {
        for fields in ["", bearer.as_str()] {
            let target = if method == "CONNECT" { "g:80" } else { "/api/x" };
            check_method(&stage, "1", method, target, fields, (405, "method_not_allowed", None));
        }
    }
    while jiff::Timestamp::now() < soon {
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&stage, "5f expired", "/api/x", &expiring, (401, "invalid_token", Some(&was_expired)));
}

#[test]
fn imports_are_hashed_as_sent() {
    let stage = Stage::with_sibling_services();
    let opaque = "perm:cm9vdA==.dG9rZW4=.rNZ38ije7uiWwnUTRDdyFDdUkoPUPi";
    let line = |text: &str| format!("Authorization: Bearer {text}\r\n");
    let unknown = invalid("The access token is invalid");
    let form = invalid("The access token is malformed");
    check(&stage, "before", "/api/x", &line(opaque), (401, "invalid_token", Some(&form)));
    let body = serde_json::json!({"tokens": [{
        "digest": blake3::hash(opaque.as_bytes()).to_hex().as_str(),
        "owner": "alice", "name": "imported", "scope": [{"service": "tracker"}],
    }]});
    stage.gateway.must("POST", "/v1/tokens/import", Some(&body.to_string()));
    check(&stage, "after", "/api/x", &line(opaque), (200, "", None));
    for other in [
        "cm9vdA==.dG9rZW4=.rNZ38ije7uiWwnUTRDdyFDdUkoPUPi",
        "perm-cm9vdA==.dG9rZW4=.rNZ38ije7uiWwnUTRDdyFDdUkoPUPi",
        "abcdef",
    ] {
        check(&stage, other, "/api/x", &line(other), (401, "invalid_token", Some(&unknown)));
    }
}
