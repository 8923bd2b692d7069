//! How the upstream learns who the user is, and what it receives of the client's credential.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use permgate::{
    assertion::{Algorithm, Jwks, KeySource, Settings},
    authz::{
        carriers::Carrier,
        rules::{Authorization, Identity, Secret},
        subject::{Access, Scope},
    },
};
use serde_json::Value;

use crate::harness::{Gate, Origin, Setup, field, fields};

fn signing(setup: Setup, identity: Identity) -> (Setup, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let source = KeySource::Generated {
        file: directory.path().join("keys"),
        algorithm: Algorithm::EdDsa,
        rotate: Duration::from_secs(3600),
        publish_ahead: Duration::from_secs(60),
    };
    let settings = Settings { issuer: "gate".into(), lifetime: Duration::from_secs(30), source };
    let setup = setup.with(|setup| {
        setup.service.identity = identity;
        setup.assertion = Some(settings);
    });
    (setup, directory)
}

/// The head that the upstream receives.
fn sent(gate: &Gate, origin: &Origin, request: &str) -> String {
    let mut client = gate.client();
    client.send(request);
    let mut upstream = origin.accept();
    let head = upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    client.answer();
    head
}

/// Verifies a request's assertion as a careful upstream does. Returns the claims if they
/// are for this request.
fn claims(head: &str, jwks: &Jwks) -> Result<Value, String> {
    let assertion = field(head, "x-permgate-assertion").ok_or("no assertion")?;
    let header = decode_header(assertion).map_err(|e| e.to_string())?;
    let set: JwkSet = serde_json::from_slice(&jwks.body).unwrap();
    let key = set.find(&header.kid.unwrap()).ok_or("an unknown key")?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&["main"]);
    validation.set_issuer(&["gate"]);
    validation.validate_nbf = true;
    let key = DecodingKey::from_jwk(key).unwrap();
    let claims = decode::<Value>(assertion, &key, &validation).map_err(|e| e.to_string())?.claims;
    let mut line = head.lines().next().unwrap().split(' ');
    let (method, target) = (line.next().unwrap(), line.next().unwrap());
    let path = target.split('?').next().unwrap();
    if claims["htm"] != method || claims["path_sha256"] != sha256(path).as_str() {
        return Err("made for another request".to_owned());
    }
    Ok(claims)
}

fn sha256(path: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, path.as_bytes());
    // Encoded by hand, to avoid a dependency.
    let bits: String = hash.as_ref().iter().map(|byte| format!("{byte:08b}")).collect();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sextet = |bits: &[u8]| {
        let bits = format!("{:0<6}", std::str::from_utf8(bits).unwrap());
        alphabet.as_bytes()[usize::from_str_radix(&bits, 2).unwrap()]
    };
    String::from_utf8(bits.as_bytes().chunks(6).map(sextet).collect()).unwrap()
}

#[test]
fn assertion_is_valid_for_one_request() {
    let origin = Origin::new();
    let (setup, _keys) = signing(origin.setup(), Identity::Jwt);
    let gate = setup.start();
    let jwks = gate.keyring.jwks().unwrap();
    let spoofed =
        ["X-Permgate-Assertion: e30.e30.x", "X_Permgate.Assertion: e30.e30.x", "X-Permgate-User: root"];
    let head = sent(&gate, &origin, &gate.request("GET /api/a%2Fb?q=1", &spoofed));
    let payload = claims(&head, &jwks).unwrap();
    assert_eq!(payload["login"], "alice");
    assert_eq!(payload["sub"], "0190a000-0000-7000-8000-000000000001");
    assert_eq!(payload["groups"], serde_json::json!(["all-users"]));
    assert_eq!(payload["jti"], field(&head, "x-request-id").unwrap());
    assert_eq!(payload["exp"].as_i64().unwrap() - payload["iat"].as_i64().unwrap(), 30);
    let lines = head.lines().filter(|line| !line.starts_with("via: "));
    let ours: Vec<&str> = lines.filter(|line| line.to_lowercase().contains("permgate")).collect();
    assert_eq!(ours.len(), 1, "nothing but the assertion: {ours:?}");

    let check = |row: &str, line: &str, expected: Result<(), &str>| {
        let replayed = head.replacen("GET /api/a%2Fb?q=1 ", line, 1);
        assert_eq!(claims(&replayed, &jwks).map(|_| ()), expected.map_err(str::to_owned), "{row}");
    };
    check("as it was", "GET /api/a%2Fb?q=1 ", Ok(()));
    check("the query is not bound", "GET /api/a%2Fb ", Ok(()));
    check("another path", "GET /api/other ", Err("made for another request"));
    check("another spelling", "GET /api/a/b ", Err("made for another request"));
    check("another method", "DELETE /api/a%2Fb?q=1 ", Err("made for another request"));
}

#[test]
fn identity_fields_and_assertion_go_together_and_not_for_anonymous() {
    let origin = Origin::new();
    let (setup, _keys) = signing(origin.setup().public("/api/public"), Identity::Both);
    let gate = setup.start();
    let head = sent(&gate, &origin, &gate.request("POST /api/x", &["Content-Length: 0"]));
    assert_eq!(claims(&head, &gate.keyring.jwks().unwrap()).unwrap()["htm"], "POST");
    assert_eq!(field(&head, "x-permgate-user"), Some("alice"));
    let spoofed = "GET /api/public HTTP/1.1\r\nHost: a\r\nX-Permgate-Assertion: e30.e30.x\r\n\r\n";
    let head = sent(&gate, &origin, spoofed);
    assert_eq!(field(&head, "x-permgate-assertion"), None);
}

#[test]
fn public_keys_are_served_to_everyone() {
    let origin = Origin::new();
    let (setup, _keys) = signing(origin.setup(), Identity::Jwt);
    let gate = setup.start();
    let ask = |method: &str, lines: &str| {
        let mut client = gate.client();
        client.send(format!("{method} /.permgate/jwks.json HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        client
    };
    let (status, head, body) = ask("GET", "").answer();
    assert_eq!((status, body.as_bytes()), (200, &*gate.keyring.jwks().unwrap().body));
    assert_eq!(field(&head, "content-type"), Some("application/jwk-set+json"));
    assert_eq!(field(&head, "cache-control"), Some("public, max-age=30"), "half of what it is ahead");
    assert_eq!(gate.next_outcome(), ("answered".into(), "answered".into(), 200));
    let head = ask("HEAD", "Authorization: Bearer nonsense\r\n").head();
    assert!(head.starts_with("HTTP/1.1 200 "), "whatever the credential: {head}");
    let (status, head, _) = ask("POST", "Content-Length: 0\r\n").answer();
    assert_eq!((status, field(&head, "allow")), (405, Some("GET, HEAD")));

    let silent = origin.start();
    let mut client = silent.client();
    client.send("GET /.permgate/jwks.json HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.refused(), (401, "unauthorized".into()), "nothing signs: as any path of nobody's");
    client.send(silent.request("GET /.permgate/jwks.json", &[]));
    assert_eq!(client.refused(), (404, "not_found".into()));
}

#[test]
fn without_a_signing_key_nothing_is_forwarded() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.service.identity = Identity::Jwt).start();
    let mut client = gate.client_with_get();
    assert_eq!(client.refused(), (503, "service_unavailable".into()));
    assert_eq!(gate.next_outcome(), ("failed".into(), "assertion_failed".into(), 503));
    assert!(!origin.has_pending_connection());
}

#[test]
fn bearer_is_forwarded_only_for_permitted_requests() {
    let origin = Origin::new();
    let keeping = |setup: &mut Setup| setup.service.authorization = Authorization::Keep;
    let gate = origin.setup().public("/api/public").with(keeping).start();
    let bearer = format!("Bearer {}", gate.bearer);
    let check = |row: &str, request: &str, expected: Option<&str>| {
        let head = sent(&gate, &origin, request);
        assert_eq!(field(&head, "authorization"), expected, "{row}");
        assert!(expected.is_some() || !head.contains("pgt_"), "{row}: {head}");
    };
    check("granted", &gate.request("GET /api/x", &[]), Some(&bearer));
    check("granted, on a public path", &gate.request("GET /api/public", &[]), Some(&bearer));
    let basic = "GET /api/public HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n";
    check("another scheme, anonymous", basic, Some("Basic YTpi"));
    gate.change_token(|token| {
        token.scope = Scope::new([(permgate::authz::rules::ServiceId(77), Access::Full)]).unwrap();
    });
    check("not granted, so anonymous", &gate.request("GET /api/public", &[]), None);
    let trailers = gate.request("GET /api/public", &["Connection: authorization"]);
    check("named as of the connection", &trailers, None);
    let basic = |setup: &mut Setup| setup.service.credentials.insert(Carrier::Basic);
    gate.reload(origin.setup().public("/api/public").with(keeping).with(basic));
    let basic = format!("Basic {}", STANDARD.encode(format!("x:{}", gate.bearer)));
    let basic = format!("GET /api/public HTTP/1.1\r\nHost: a\r\nAuthorization: {basic}\r\n\r\n");
    check("as a password", &basic, None);
}

#[test]
fn upstream_credential_is_sent_and_never_logged() {
    let origin = Origin::new();
    let replacing = |credential: &'static str| {
        move |setup: &mut Setup| {
            let mut value = http::HeaderValue::from_static(credential);
            value.set_sensitive(true);
            setup.service.authorization = Authorization::Replace(Secret(value));
        }
    };
    let gate = origin.setup().with(replacing("Basic b25l")).start();
    let head = sent(&gate, &origin, &gate.request("GET /api/x", &[]));
    assert_eq!(fields(&head, "authorization"), ["Basic b25l"]);
    gate.reload(origin.setup().with(replacing("Basic dHdv")));
    let head = sent(&gate, &origin, &gate.request("GET /api/x", &[]));
    assert_eq!(fields(&head, "authorization"), ["Basic dHdv"]);
    gate.next_outcome();
    gate.next_outcome();
    assert!(!gate.log_text().contains("Basic"), "{}", gate.log_text());
}
