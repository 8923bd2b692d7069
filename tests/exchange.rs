//! Exchange of CI tokens for short-lived permgate tokens, and tokens that replace themselves: over a whole
//! gateway, with the test's own issuer and (ignored, since it needs npm) with a real one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "exchange/issuer.rs"]
mod issuer;
#[path = "exchange/limits.rs"]
mod limits;
mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use issuer::{Issuer, key, now};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use support::{
    gateway::Gateway,
    http::{Answer, Client},
    stage::{Ended, run},
    upstream::Upstream,
    wait::eventually,
};

fn rule(issuer: &str, more: &str) -> String {
    format!(
        "[exchange.ci]\nissuer = \"{issuer}\"\naudience = \"https://gate.example\"\naccount = \"robot\"\n\
         claims = [{{ name = \"repository\", value = \"acme/app\" }}, {{ name = \"ref_protected\", value = \"true\" }}]\n\
         scope = [\"tracker\", \"hub:read\"]\n{more}\n"
    )
}

fn gateway(upstream: SocketAddr, more: &str) -> Gateway {
    let gateway = Gateway::with(&(Gateway::services(upstream) + more));
    gateway.must("POST", "/v1/users", Some(r#"{"login": "robot", "kind": "service"}"#));
    gateway.must("POST", "/v1/groups", Some(r#"{"name": "developers"}"#));
    gateway.must("PUT", "/v1/groups/developers/members/robot", None);
    gateway
}

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn post(gateway: &Gateway, target: &str, form: &[(&str, &str)]) -> Answer {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut client = Client::tcp(gateway.proxy);
    let kind = "Content-Type: application/x-www-form-urlencoded";
    client.send(format!(
        "POST {target} HTTP/1.1\r\nHost: gate.example\r\n{kind}\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    ));
    client.answer("POST")
}

fn exchange(gateway: &Gateway, token: &str, more: &[(&str, &str)]) -> Answer {
    let form = [("grant_type", GRANT), ("subject_token_type", JWT), ("subject_token", token)];
    post(gateway, "/.permgate/token", &[&form[..], more].concat())
}

/// Checks a refusal and returns its description.
fn check_refused(row: &str, answer: &Answer, status: u16, error: &str) -> String {
    let body = answer.json();
    assert_eq!((answer.status, body["error"].as_str()), (status, Some(error)), "{row}: {body}");
    assert_eq!(answer.fields["cache-control"], "no-store", "{row}");
    body["error_description"].as_str().unwrap().to_owned()
}

#[test]
fn job_token_is_exchanged_once_by_its_matching_rule() {
    let (issuer, upstream) = (Issuer::start(), Upstream::plain());
    let gateway = gateway(upstream.address, &rule(&issuer.url, "lifetime = \"10m\""));
    let token = issuer.sign(&issuer.claims("1"));
    let answer = exchange(&gateway, &token, &[]);
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(answer.fields["cache-control"], "no-store");
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!((&body["expires_in"], &body["scope"]), (&json!(600), &json!("hub:read tracker")));
    let given = body["access_token"].as_str().unwrap();
    assert_eq!(gateway.get("/api/x", Some(given)).status, 200);
    let head = upstream.seen.lock().unwrap().last().unwrap().head.clone();
    assert!(head.contains("x-permgate-user: robot"), "{head}");

    // It is listed like any token, with the rule as its author, and is in the audit log.
    let list = gateway.must("GET", "/v1/users/robot/tokens", None);
    let listed = &list["items"][0];
    assert!(listed["author"].as_str().unwrap().starts_with("exchange:ci:"), "{list}");
    assert_eq!(
        (&listed["note"], &listed["state"]),
        (&json!("repo:acme/app:ref:refs/heads/main"), &json!("active"))
    );
    let audit = gateway.must("GET", "/v1/audit?limit=1", None);
    let event = &audit["items"][0];
    assert_eq!(event["event"], "token.exchange", "{audit}");
    assert_eq!(event["actor"], "exchange:ci", "{audit}");
    assert_eq!(event["change"]["from"], json!({"client": "127.0.0.1"}));

    // It is exchanged only once, also after a restart.
    let said = check_refused("again", &exchange(&gateway, &token, &[]), 400, "invalid_request");
    assert_eq!(said, "The token was already exchanged");
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let gateway = Gateway::on(gateway.stop(), &text);
    check_refused("after a restart", &exchange(&gateway, &token, &[]), 400, "invalid_request");
    assert_eq!(gateway.get("/api/x", Some(given)).status, 200, "what was given is still good");

    // A part of the scope can be requested.
    let narrow = exchange(&gateway, &issuer.sign(&issuer.claims("2")), &[("scope", "tracker:read")]);
    assert_eq!(narrow.json()["scope"], "tracker:read", "{}", narrow.text());
    let wide = exchange(&gateway, &issuer.sign(&issuer.claims("3")), &[("scope", "hub")]);
    check_refused("a wider scope", &wide, 400, "invalid_scope");

    // It can be revoked like any token, but not rotated.
    let id = listed["id"].as_str().unwrap();
    let rotated = gateway.operator("POST", &format!("/v1/tokens/{id}/rotate"), Some("{}"));
    assert_eq!(rotated.status, 403, "{}", rotated.text());
    gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(gateway.get("/api/x", Some(given)).status, 401);
}

#[test]
fn token_that_matches_no_rule_is_not_exchanged() {
    let (issuer, upstream) = (Issuer::start(), Upstream::plain());
    let gateway = gateway(upstream.address, &rule(&issuer.url, ""));
    let check = |row: &str, token: &str, expected: &str| {
        let said = check_refused(row, &exchange(&gateway, token, &[]), 400, "invalid_request");
        assert_eq!(said, expected, "{row}");
        assert_eq!(gateway.must("GET", "/v1/users/robot/tokens", None)["items"], json!([]), "{row}");
    };
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims(name);
        claims[name] = value;
        issuer.sign(&claims)
    };
    let unmatched = "No rule accepts the claims of the token";
    check("another repository", &with("repository", json!("acme/app2")), unmatched);
    check("a list", &with("repository", json!(["acme/app"])), unmatched);
    check(
        "another audience",
        &with("aud", json!("https://other.example")),
        "No rule names the audience of the token",
    );
    check(
        "another issuer",
        &with("iss", json!("https://other.example")),
        "No rule names the issuer of the token",
    );
    check("expired", &with("exp", json!(now() - 120)), "The token has expired");
    check("not yet", &with("nbf", json!(now() + 120)), "The token is not valid yet");
    check("of the future", &with("iat", json!(now() + 120)), "The token was issued in the future");
    check("for ever", &with("exp", json!(now() + 90_000)), "The token is valid for longer than a day");
    check("without an end", &with("exp", Value::Null), "The token lacks exp, iss or aud");
    check("without a jti", &with("jti", Value::Null), "The token has no jti");
    let claims = issuer.claims("x");
    let (other, _) = key("one");
    check("another key", &issuer.sign_as(&claims, "one", &other), "The signature of the token is wrong");
    let unknown = "The token is signed by a key that its issuer does not publish";
    check("an unknown key", &issuer.sign_as(&claims, "two", &other), unknown);
    let secret = EncodingKey::from_secret(b"x");
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    let shared = encode(&header, &claims, &secret).unwrap();
    check("a shared secret", &shared, "The token is signed by an algorithm that is not accepted");
    let sound = issuer.sign(&claims);
    let parts: Vec<&str> = sound.split('.').collect();
    check("the algorithm none", &format!("eyJhbGciOiJub25lIn0.{}.", parts[1]), "The token is malformed");
    check("no token", "x", "The token is malformed");
    check(
        "another's claims",
        &format!("{}.{}.{}", parts[0], with("sub", json!("y")).split('.').nth(1).unwrap(), parts[2]),
        "The signature of the token is wrong",
    );

    let form = |row: &str, form: &[(&str, &str)], error: &str| {
        check_refused(row, &post(&gateway, "/.permgate/token", form), 400, error)
    };
    form("no grant", &[("subject_token", &sound)], "invalid_request");
    form("another grant", &[("grant_type", "password")], "unsupported_grant_type");
    form("no type", &[("grant_type", GRANT), ("subject_token", &sound)], "invalid_request");
    let said = form("twice", &[("grant_type", GRANT), ("grant_type", GRANT)], "invalid_request");
    assert_eq!(said, "The request is malformed: a field of the form is repeated");
    let full = [("grant_type", GRANT), ("subject_token_type", JWT), ("subject_token", sound.as_str())];
    form("an actor", &[&full[..], &[("actor_token", "x")]].concat(), "invalid_request");
    for field in ["resource", "audience"] {
        form(field, &[&full[..], &[(field, "https://x")]].concat(), "invalid_target");
    }
    form("another kind", &[&full[..], &[("requested_token_type", JWT)]].concat(), "invalid_request");
    let get = gateway.get("/.permgate/token", None);
    assert_eq!((get.status, get.fields["allow"].as_str()), (405, "POST"));
    // None of these attempts has used up the token.
    assert_eq!(exchange(&gateway, &sound, &[]).status, 200);
    gateway.must("POST", "/v1/users/robot/ban", Some(r#"{"reason": "x"}"#));
    let banned = exchange(&gateway, &issuer.sign(&issuer.claims("after")), &[]);
    check_refused("a banned account", &banned, 400, "invalid_request");
}

#[test]
fn exchanged_tokens_end_with_their_rule() {
    let (issuer, upstream) = (Issuer::start(), Upstream::plain());
    let services = Gateway::services(upstream.address);
    let gateway = gateway(upstream.address, &rule(&issuer.url, ""));
    let given = |jti: &str| {
        let answer = exchange(&gateway, &issuer.sign(&issuer.claims(jti)), &[]);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    };
    let status = |token: &str| gateway.get("/api/x", Some(token)).status;
    let reload = |more: &str| {
        gateway.write(&(services.clone() + more));
        gateway.must("POST", "/v1/reload", None);
    };
    let first = given("1");
    reload(&rule(&issuer.url, ""));
    assert_eq!(status(&first), 200, "the rule is as it was");
    reload(&rule(&issuer.url, "lifetime = \"5m\""));
    assert_eq!(status(&first), 401, "the rule has changed");
    let (second, (_, own)) = (given("2"), gateway.token("robot", "own", &["tracker"]));
    reload("");
    assert_eq!((status(&second), status(&own)), (401, 200), "the rule is gone");
    assert_eq!(gateway.get("/.permgate/token", None).status, 401, "and so is the route");

    // Also if the rule was removed while no process ran.
    reload(&rule(&issuer.url, ""));
    let third = given("3");
    let text = Gateway::text(&services);
    let gateway = Gateway::on(gateway.stop(), &text);
    assert_eq!(gateway.get("/api/x", Some(&third)).status, 401);
}

#[test]
fn exchanged_tokens_of_a_removed_rule_hold_no_connection_open() {
    let (issuer, (upstream, over)) = (Issuer::start(), Upstream::endless());
    let gateway = gateway(upstream.address, &rule(&issuer.url, ""));
    let answer = exchange(&gateway, &issuer.sign(&issuer.claims("1")), &[]);
    let _client = gateway.open("/api/x", answer.json()["access_token"].as_str());
    eventually("the stream is live", || gateway.must("GET", "/v1/live", None).to_string().contains("/api/x"));
    gateway.write(&Gateway::services(upstream.address));
    gateway.must("POST", "/v1/reload", None);
    assert!(!gateway.must("GET", "/v1/live", None).to_string().contains("/api/x"));
    over.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn token_rotates_itself_where_allowed() {
    let upstream = Upstream::plain();
    let services = Gateway::services(upstream.address);
    let carriers = "credentials = [\"bearer\", \"basic\", \"header:X-Api-Key\"]\nreaders";
    let tokens = "[tokens]\nself_rotation = true\nannounce_end = \"14d\"\n";
    let gateway = Gateway::with(&(services.replacen("readers", carriers, 1) + tokens));
    gateway.developer("alice");
    let rotate = |gateway: &Gateway, token: &str| {
        let mut client = Client::tcp(gateway.proxy);
        client.send(format!("POST /.permgate/rotate HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"));
        client.answer("POST")
    };
    let replaced = |token: &str| {
        let answer = rotate(&gateway, token);
        let body = answer.json();
        assert_eq!((answer.status, answer.fields["cache-control"].as_str()), (201, "no-store"), "{body}");
        assert!(answer.text().ends_with("}\n"), "for terminals");
        (body["id"].as_str().unwrap().to_owned(), body["token"].as_str().unwrap().to_owned())
    };
    let body = json!({"name": "ci", "scope": [{"service": "tracker", "access": "read"}], "allow_ips": ["127.0.0.0/8"], "expires_in": "30d"});
    let made = gateway.must("POST", "/v1/users/alice/tokens", Some(&body.to_string()));
    let (first_id, first) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let announced = |token: &str| {
        let answer = gateway.get("/api/x", Some(token));
        assert_eq!(answer.status, 200);
        (answer.fields.contains_key("deprecation"), answer.fields.contains_key("sunset"))
    };
    assert_eq!(announced(first), (false, false));
    let (second_id, second) = replaced(first);
    let audit = gateway.must("GET", "/v1/audit?limit=1", None);
    assert_eq!(audit["items"][0]["change"]["from"], json!({"client": "127.0.0.1"}), "{audit}");
    assert_eq!(
        (announced(first), announced(&second)),
        ((true, true), (false, false)),
        "the old one is in its grace"
    );
    let record = gateway.must("GET", &format!("/v1/tokens/{second_id}"), None);
    for field in ["name", "scope", "allow_ips", "expires_at", "family"] {
        assert_eq!(
            record[field],
            gateway.must("GET", &format!("/v1/tokens/{first_id}"), None)[field],
            "{field}"
        );
    }
    assert_eq!(record["author"], format!("rotation:{first_id}"));
    let soon = json!({"name": "soon", "scope": [{"service": "tracker"}], "expires_in": "13d"});
    let soon = gateway.operator("POST", "/v1/users/alice/tokens", Some(&soon.to_string()));
    assert!(soon.text().ends_with("}\n"), "for terminals");
    assert_eq!(announced(soon.json()["token"].as_str().unwrap()), (true, true), "its end is near");
    // Not with a replaced token, a method that only reads, or another carrier.
    assert_eq!(rotate(&gateway, first).status, 401);
    let basic = format!("alice:{second}");
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, basic);
    for field in [format!("Authorization: Basic {basic}"), format!("X-Api-Key: {second}")] {
        let mut client = Client::tcp(gateway.proxy);
        client.send(format!(
            "POST /.permgate/rotate HTTP/1.1\r\nHost: g\r\n{field}\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.answer("POST").status, 401, "{field}");
    }
    assert_eq!(gateway.get("/.permgate/rotate", Some(&second)).status, 405);
    // Revoking the first token revokes all its successors.
    let (_, third) = replaced(&second);
    gateway.must("DELETE", &format!("/v1/tokens/{first_id}"), None);
    for token in [first, &second, &third] {
        assert_eq!(gateway.get("/api/x", Some(token)).status, 401);
    }
    // Tokens that people rotate do not depend on their predecessor.
    let (id, _) = gateway.token("alice", "by hand", &["tracker"]);
    let by_hand = gateway.must("POST", &format!("/v1/tokens/{id}/rotate"), Some("{}"));
    gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(gateway.get("/api/x", by_hand["token"].as_str()).status, 200);
    // An owner without Update Self cannot rotate a token with itself.
    let (_, token) = gateway.token("alice", "later", &["tracker"]);
    gateway.must("DELETE", "/v1/grants", Some(r#"{"role": "contributor", "group": "all-users"}"#));
    assert_eq!(
        check_refused("no update-self", &rotate(&gateway, &token), 403, "permission_denied"),
        "The access token cannot be rotated. Ask an administrator for the permission Update Self, or create a new token"
    );

    let plain = Gateway::start(upstream.address);
    plain.developer("alice");
    let (_, token) = plain.token("alice", "good", &["tracker"]);
    assert_eq!(rotate(&plain, &token).status, 404, "off by default");
}

#[test]
#[ignore = "installs oidc-provider from npm; .ci/run runs it"]
fn tokens_of_a_real_provider_are_exchanged() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openid");
    std::fs::create_dir_all(&place).unwrap();
    if !place.join("node_modules/oidc-provider").exists() {
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "oidc-provider@9.13.3"])
            .current_dir(&place));
    }
    let script = place.join("jobs.mjs");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exchange/jobs.mjs"), &script).unwrap();
    let provider = Command::new("node").arg(&script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut provider = Ended(provider.unwrap());
    let mut said = BufReader::new(provider.0.stdout.take().unwrap());
    let mut issuer = String::new();
    said.read_line(&mut issuer).unwrap();
    let issuer = issuer.trim();
    let upstream = Upstream::plain();
    let rule = rule(issuer, "").replace(
        r#"{ name = "repository", value = "acme/app" }, { name = "ref_protected", value = "true" }"#,
        r#"{ name = "client_id", value = "job" }, { name = "repository", value = "acme/app" }"#,
    );
    let gateway = gateway(upstream.address, &rule);
    let job = |client: &str| {
        let form = ["-d", "grant_type=client_credentials", "-d", "resource=https://gate.example", "-u"];
        let told = run(Command::new("curl")
            .arg("-sS")
            .args(form)
            .arg(format!("{client}:secret"))
            .arg(format!("{issuer}/token")));
        serde_json::from_str::<Value>(&told).unwrap()["access_token"].as_str().unwrap().to_owned()
    };
    let token = job("job");
    let answer = exchange(&gateway, &token, &[]);
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(gateway.get("/api/x", body["access_token"].as_str()).status, 200);
    assert_eq!(exchange(&gateway, &token, &[]).status, 400, "once");
    check_refused("another job", &exchange(&gateway, &job("other"), &[]), 400, "invalid_request");
}
