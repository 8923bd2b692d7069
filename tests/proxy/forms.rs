//! The format of a refusal by the tool that reads it, and the sign-in of container registries.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use permgate::authz::time::Timestamp;
use serde_json::Value;

use crate::harness::{Gate, Origin, Setup, eventually, field, fields};

/// Status, head and body of a refusal of a request without a token.
fn refused(gate: &Gate, line: &str, more: &[&str]) -> (u16, String, String) {
    let mut client = gate.client();
    let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{line} HTTP/1.1\r\nHost: gate.example\r\n{more}\r\n"));
    client.answer()
}

#[test]
fn refusal_has_the_format_that_the_client_displays() {
    let origin = Origin::new();
    let gate = origin.start();
    let check = |row: &str, lines: &[&str], kind: &str| {
        let (status, head, body) = refused(&gate, "GET /api/x", lines);
        assert_eq!((status, field(&head, "content-type")), (401, Some(kind)), "{row}");
        assert_eq!(field(&head, "www-authenticate"), Some("Bearer realm=\"permgate\""), "{row}");
        assert_eq!(field(&head, "cache-control"), Some("no-store"), "{row}");
        assert!(body.contains("No access token was sent"), "{row}: {body}");
        let id = field(&head, "x-request-id").unwrap();
        assert!(body.contains(id), "{row}: {body}");
        assert_eq!(serde_json::from_str::<Value>(&body).is_ok(), kind != TEXT, "{row}: {body}");
        let payload = serde_json::from_str::<Value>(&body).unwrap_or_default();
        let notice = field(&head, "npm-notice");
        assert!(notice.is_none_or(|notice| payload["error_description"] == notice), "{row}: {head}");
        assert_eq!(notice.is_some(), row.starts_with("npm"), "{row}");
        let phrase = head.lines().next().unwrap().strip_prefix("HTTP/1.1 401 ").unwrap();
        let shows_phrase = ["apt", "pip", "restic", "twine"].contains(&row);
        let expected =
            if shows_phrase { payload["error_description"].as_str().unwrap() } else { "Unauthorized" };
        assert_eq!(phrase, expected, "{row}");
    };
    const JSON: &str = "application/json";
    const TEXT: &str = "text/plain; charset=utf-8";
    check("anybody", &[], JSON);
    check("curl", &["User-Agent: curl/8.5.0", "Accept: */*"], JSON);
    check("git", &["User-Agent: git/2.47.3", "Accept: */*"], TEXT);
    check("not git", &["User-Agent: gitlab-runner 17"], JSON);
    check("kubectl", &["User-Agent: kubectl/v1.31 (linux/amd64)", "Accept: application/json"], TEXT);
    check("npm", &["User-Agent: npm/10.8.2 node/v20", "Accept: */*"], JSON);
    check("apt", &["User-Agent: Debian APT-HTTP/1.3 (2.6.1)", "Accept: text/*"], JSON);
    check(
        "pip",
        &["User-Agent: pip/23.0.1 {\"ci\":null}", "Accept: application/vnd.pypi.simple.v1+json"],
        JSON,
    );
    check("twine", &["User-Agent: twine/6.1.0 CPython/3.11.2", "Accept: */*"], JSON);
    check("restic", &["User-Agent: Go-http-client/1.1", "Accept: application/vnd.x.restic.rest.v2"], JSON);
    check("not pip", &["User-Agent: pipeline/1"], JSON);
    check("text", &["Accept: text/plain"], TEXT);
    check("a browser's script", &["Accept: application/json, text/plain, */*"], JSON);
    check("problem", &["Accept: application/problem+json"], "application/problem+json");
    // The OCI format is for registries only.
    let (_, _, body) = refused(&gate, "GET /v2/", &[]);
    assert!(!body.contains("\"errors\""), "{body}");
}

/// A gateway whose service on `/v2` and `/api` is a registry.
fn registry() -> (Origin, Gate) {
    let origin = Origin::new();
    let change = |setup: &mut Setup| {
        setup.service.paths.push("/v2".into());
        setup.service.registry = true;
    };
    let gate = origin.setup().with(change).start();
    (origin, gate)
}

#[test]
fn registry_client_gets_challenge_and_error() {
    let (_origin, gate) = registry();
    let challenge = "Bearer realm=\"http://gate.example/.permgate/registry\",service=\"gate.example\"";
    let check = |line: &str, more: &[&str], status: u16, code: &str, challenges: &[&str]| {
        let (found, head, body) = refused(&gate, line, more);
        assert_eq!(found, status, "{line}: {body}");
        assert_eq!(fields(&head, "www-authenticate"), challenges, "{line}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], code, "{line}: {body}");
        assert!(body["errors"][0]["message"].as_str().is_some_and(|text| text.len() > 10), "{body}");
        assert_eq!(body["errors"][0]["detail"]["request_id"].as_str(), field(&head, "x-request-id"));
    };
    check("GET /v2/", &[], 401, "UNAUTHORIZED", &[challenge]);
    check("GET /v2/library/x/manifests/latest", &["Accept: text/plain"], 401, "UNAUTHORIZED", &[challenge]);
    let bad =
        format!("{challenge}, error=\"invalid_token\", error_description=\"The access token is malformed\"");
    check("GET /v2/", &["Authorization: Bearer x"], 401, "UNAUTHORIZED", &[&bad]);
    check("GET /v2/..", &[], 400, "UNSUPPORTED", &[]);
    // Elsewhere nothing changes.
    let (_, head, body) = refused(&gate, "GET /api/x", &[]);
    assert_eq!(fields(&head, "www-authenticate"), ["Bearer realm=\"permgate\""]);
    assert!(body.contains("\"error\""), "{body}");
}

#[test]
fn registry_login_returns_the_same_token() {
    let (_origin, gate) = registry();
    let basic = |text: &str| format!("Authorization: Basic {}", STANDARD.encode(format!("alice:{text}")));
    let token = |line: &str, more: &[&str]| {
        let (status, head, body) = refused(&gate, line, more);
        assert_eq!(field(&head, "cache-control"), Some("no-store"), "{head}");
        (status, head, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let at = "/.permgate/registry";
    let asked = format!("GET {at}?service=gate.example&account=alice&scope=repository:x:pull");
    let (status, _, body) = token(&asked, &[&basic(&gate.bearer)]);
    assert_eq!((status, body["token"].as_str()), (200, Some(gate.bearer.as_str())), "{body}");
    assert_eq!((&body["access_token"], body["expires_in"].as_u64()), (&body["token"], Some(300)));
    assert!(!gate.log_text().contains(&gate.bearer[17..60]));

    let form = |text: &str| {
        let form = format!("grant_type=password&username=alice&password={text}&service=x&client_id=docker");
        let mut client = gate.client();
        let length = form.len();
        let kind = "Content-Type: application/x-www-form-urlencoded";
        client.send(format!(
            "POST {at} HTTP/1.1\r\nHost: gate.example\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{form}"
        ));
        client.answer()
    };
    let (status, _, body) = form(&gate.bearer);
    assert_eq!(status, 200, "{body}");
    assert_eq!(form("wrong").0, 401);
    let not_utf8 = [b"al\xefce:", gate.bearer.as_bytes()].concat();
    let (status, _, body) = token(&asked, &[&format!("Authorization: Basic {}", STANDARD.encode(not_utf8))]);
    assert_eq!(status, 200, "only the password counts: {body}");

    let basic_only = ["Basic realm=\"permgate\", charset=\"UTF-8\""];
    for (row, lines, status) in [
        ("nothing", vec![], 401),
        ("a wrong password", vec![basic("hunter2")], 401),
        ("a bearer", vec![format!("Authorization: Bearer {}", gate.bearer)], 401),
        ("a page of another site", vec![basic(&gate.bearer), "Sec-Fetch-Site: cross-site".into()], 401),
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (found, head, _) = token(&asked, &lines);
        assert_eq!((found, fields(&head, "www-authenticate")), (status, basic_only.to_vec()), "{row}");
    }
    gate.revoke();
    let (status, _, body) = token(&asked, &[&basic(&gate.bearer)]);
    assert_eq!(status, 401);
    let message = body["errors"][0]["message"].as_str();
    assert_eq!(message.map(|text| text.contains("revoked")), Some(true), "{body}");
    let (status, head, _) = token(&format!("PUT {at}"), &[]);
    assert_eq!((status, field(&head, "allow")), (405, Some("GET, HEAD, POST")));

    // Without a registry the route does not exist.
    let origin = Origin::new();
    let plain = origin.start();
    let mut client = plain.client();
    client.send(plain.request(&format!("GET {at}"), &[]));
    assert_eq!(client.refused().0, 404);
}

/// The head came before the change, the rest of the body after it.
#[test]
fn registry_login_is_decided_by_the_current_state() {
    let check = |row: &str, change: &dyn Fn(&Origin, &Gate)| {
        let (origin, gate) = registry();
        let form = format!("grant_type=password&username=alice&password=perm%3A{}", gate.bearer);
        let (most, rest) = form.split_at(form.len() - 1);
        let mut client = gate.client();
        client.send(format!(
            "POST /.permgate/registry HTTP/1.1\r\nHost: gate.example\r\nExpect: 100-continue\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            form.len(),
        ));
        client.until("100 Continue\r\n\r\n");
        client.send(most);
        change(&origin, &gate);
        client.send(rest);
        assert_eq!(client.answer().0, if row == "nothing" { 200 } else { 401 }, "{row}");
    };
    check("nothing", &|_, _| ());
    check("a revocation", &|_, gate| {
        let _ = gate.revoke();
    });
    check("an expiry", &|_, gate| {
        let end = Timestamp::from(SystemTime::now());
        gate.change_token(|token| token.expires_at = Some(end));
    });
    check("a reload without the alias", &|origin, gate| {
        let _ = gate.reload(origin.setup().with(|setup| setup.rules.perm_alias = false));
    });
}

#[test]
fn browser_opens_a_tunnel_with_the_token_as_a_subprotocol() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.service.credentials.websocket = true).start();
    let mut client = gate.client();
    let line = |protocols: &str| {
        format!(
            "GET /api/live HTTP/1.1\r\nHost: gate.example\r\nOrigin: https://app.example\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Protocol: {protocols}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    client.send(line(&format!("chat, permgate.bearer.{}", gate.bearer)));
    let mut upstream = origin.accept();
    let head = upstream.head();
    assert_eq!(fields(&head, "sec-websocket-protocol"), ["chat"], "{head}");
    assert!(!head.contains(&gate.bearer), "{head}");
    upstream.send(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-protocol: chat\r\n\r\nhello",
    );
    client.until("hello");
    assert_eq!(gate.live(), 1);
    gate.revoke();
    client.wait_for_close();
    let mut client = gate.client();
    client.send(line(&format!("permgate.bearer.{}", gate.bearer)));
    assert_eq!(client.refused(), (400, "invalid_request".into()), "a browser would refuse the answer");
    let carriers = || gate.log_text().matches("\"carrier\":\"websocket\"").count();
    eventually("both are logged with their carrier", || carriers() == 2);
}
