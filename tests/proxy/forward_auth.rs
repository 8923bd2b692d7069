//! The decision as a response, for a proxy that forwards by itself.

use std::time::Duration;

use permgate::{
    authz::{
        rules::PublicPath,
        subject::{Access, Scope},
    },
    settings::{FrontProxy, Limit, LimitKey, Rate},
};
use serde_json::Value;

use crate::harness::{Gate, Origin, Setup, field};

/// A gateway for this kind of proxy, at any address of this machine.
fn asked_by(proxy: FrontProxy, change: impl FnOnce(&mut Setup)) -> (Origin, Gate) {
    let origin = Origin::new();
    let setup = origin.setup().with(|setup| {
        setup.settings.forward_auth = Some(proxy);
        setup.rules.trusted_proxies.networks = vec!["127.0.0.0/8".parse().unwrap()];
        change(setup);
    });
    (origin, setup.start())
}

/// Status, head and the body's `error` of the response to a forward-auth request.
fn ask(gate: &Gate, fields: &[&str]) -> (u16, String, String) {
    let mut client = gate.client();
    client.send(gate.request("GET /.permgate/auth", fields));
    let (status, head, body) = client.answer();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    assert!(status == 200 || body["status"] == status, "{head}{body}");
    (status, head, body["error"].as_str().unwrap_or_default().to_owned())
}

const GET: &str = "X-Original-Method: GET";
const API: &str = "X-Original-URI: /api/x?q=1";

#[test]
fn permit_is_reported_with_the_identity() {
    let (origin, gate) = asked_by(FrontProxy::Nginx, |_| {});
    let (status, head, _) = ask(&gate, &["X-Original-Method: PUT", API, "X-Forwarded-For: 192.0.2.7"]);
    assert_eq!(status, 200, "{head}");
    for (name, value) in [
        ("x-permgate-user", "alice"),
        ("x-permgate-user-id", "0190a000-0000-7000-8000-000000000001"),
        ("x-permgate-groups", "all-users"),
        ("x-permgate-service", "main"),
        ("x-permgate-token-id", &gate.bearer[4..16]),
        ("cache-control", "no-store"),
        ("content-length", "0"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{name}: {head}");
    }
    for name in ["authorization", "x-forwarded-for", "forwarded", "connection"] {
        assert_eq!(field(&head, name), None, "{name}: {head}");
    }
    let line = gate.line();
    for (name, value) in [
        ("reason", "answered"),
        ("method", "PUT"),
        ("path", "/api/x"),
        ("service", "main"),
        ("user", "alice"),
        ("client", "192.0.2.7"),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert_eq!(field(&head, "x-request-id"), line["request_id"].as_str());
    let rules = gate.state.snapshot().rules.clone();
    let used = gate.uses.last(&gate.digest, &rules).unwrap();
    assert_eq!((used.service.as_str(), used.from.to_string().as_str()), ("main", "192.0.2.7"));
    assert!(!origin.has_pending_connection(), "something was forwarded");
    gate.wait_until_empty();
}

#[test]
fn every_refusal_is_401_or_403_with_its_reason() {
    let (_origin, gate) = asked_by(FrontProxy::Nginx, |_| {});
    let check = |name: &str, fields: &[&str], expected: (u16, &str), reason: &str, challenged: bool| {
        let (status, head, error) = ask(&gate, fields);
        assert_eq!((status, error.as_str()), expected, "{name}");
        assert_eq!(field(&head, "www-authenticate").is_some(), challenged, "{name}: {head}");
        assert_eq!(field(&head, "x-permgate-user"), None, "{name}: {head}");
        assert_eq!(gate.line()["reason"], reason, "{name}");
    };
    let unclear = (403, "forbidden");
    check("no service", &[GET, "X-Original-URI: /x"], (403, "not_found"), "no_service", false);
    check("a dot segment", &[GET, "X-Original-URI: /api/../x"], (403, "invalid_request"), "bad_path", false);
    check(
        "an escaped one",
        &[GET, "X-Original-URI: /x/%2e%2E%2fapi"],
        (403, "invalid_request"),
        "bad_path",
        false,
    );
    check("a fragment", &[GET, "X-Original-URI: /api#/x"], (403, "invalid_request"), "bad_path", false);
    check(
        "a method of none",
        &["X-Original-Method: TRACE", API],
        (403, "method_not_allowed"),
        "method_not_supported",
        false,
    );
    let url = format!("X-Original-URI: /api?t={}", gate.bearer);
    check("a token in the URL", &[GET, &url], (403, "invalid_request"), "token_in_url", true);
    check(
        "two bearers",
        &[GET, API, "Authorization: Bearer x"],
        (403, "invalid_request"),
        "ambiguous_authorization",
        true,
    );
    check("no original", &[], unclear, "original_unclear", false);
    check("two originals", &[GET, API, API], unclear, "original_unclear", false);
    check("of two kinds", &[GET, API, "X-Forwarded-Uri: /api/y"], unclear, "original_unclear", false);
    check(
        "an identity of the client's",
        &[GET, API, "X-Permgate-User: root"],
        unclear,
        "original_unclear",
        false,
    );
    check(
        "an identity of another product",
        &[GET, API, "Remote-User: root"],
        unclear,
        "original_unclear",
        false,
    );
    check("under an alias", &[GET, API, "X_Permgate_User: root"], unclear, "original_unclear", false);
    check("another target", &[GET, API, "X-Rewrite-URL: /hub"], unclear, "original_unclear", false);
    let copy = "X-Original-Method: COPY";
    assert_eq!(ask(&gate, &[copy, API, "Destination: http://gate.example/api/y"]).0, 200);
    gate.line();
    check(
        "a destination elsewhere",
        &[copy, API, "Destination: /elsewhere"],
        (403, "insufficient_scope"),
        "read_service_denied",
        true,
    );
    check(
        "a destination on another host",
        &[copy, API, "Destination: http://b.example/api/y"],
        (403, "invalid_request"),
        "bad_destination",
        false,
    );
    check("a copy of it", &[copy, API, "X-HTTP-DestinationURL: /x"], unclear, "original_unclear", false);
    check("another", &[copy, API, "New-Uri: /x"], unclear, "original_unclear", false);
    check(
        "two clients",
        &[GET, API, "X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.8"],
        (403, "invalid_request"),
        "bad_forwarded",
        false,
    );
    let main = gate.state.snapshot().rules.service_by_key("main").unwrap().id;
    gate.change_token(|token| token.scope = Scope::new([(main, Access::Read)]).unwrap());
    let denied = (403, "insufficient_scope");
    let check_read = |name: &str, fields: &[&str]| check(name, fields, denied, "read_only_scope", true);
    check_read("a method that writes", &["X-Original-Method: PUT", API]);
    check_read("an upgrade as it came", &[GET, API, "Upgrade: websocket"]);
    check_read("an upgrade as told", &[GET, API, "X-Original-Upgrade: websocket"]);
    check_read("a method override", &[GET, API, "X-HTTP-Method-Override: PUT"]);
    check_read("its alias", &[GET, API, "X_HTTP_Method: PUT"]);
    assert_eq!(ask(&gate, &[GET, API, "X-Original-Upgrade:"]).0, 200);
    gate.line();
    let _ = gate.revoke();
    check("revoked", &[GET, API], (401, "invalid_token"), "token_revoked", true);

    let mut client = gate.client();
    client.send(format!("GET /.permgate/auth HTTP/1.1\r\nHost: gate.example\r\n{GET}\r\n{API}\r\n\r\n"));
    let (status, head, _) = client.answer();
    assert_eq!(
        (status, field(&head, "www-authenticate")),
        (401, Some("Bearer realm=\"permgate\"")),
        "no bearer: {head}"
    );
}

#[test]
fn public_rule_permits_without_an_identity() {
    let (_origin, gate) = asked_by(FrontProxy::Envoy, |setup| {
        setup.service.hosts = vec!["gate.example".into()];
        setup.public.push(permgate::authz::rules::PublicSpec {
            service: setup.service.key.clone(),
            methods: None,
            path: PublicPath::Prefix("/api/open".into()),
            origin: crate::harness::config_origin(),
        });
    });
    let check = |line: &str, host: &str, expected: u16| {
        let mut client = gate.client();
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let (status, head, _) = client.answer();
        assert_eq!(status, expected, "{line} {host}");
        let told = (field(&head, "x-permgate-service"), field(&head, "x-permgate-user"));
        assert_eq!(told, ((status == 200).then_some("main"), None), "{line} {host}");
    };
    check("GET /.permgate/auth/api/open/x", "gate.example", 200);
    check("GET /.permgate/auth/api/x", "gate.example", 401);
    check("GET /.permgate/auth/api/open/x", "other.example", 401);
    check("POST /.permgate/auth/api/open/x", "gate.example", 401);
}

#[test]
fn forward_auth_requires_a_trusted_proxy_and_configuration() {
    let origin = Origin::new();
    let check = |name: &str, setup: Setup, fields: &[&str], expected: (u16, &str), reason: &str| {
        let gate = setup.start();
        let (status, _, error) = ask(&gate, fields);
        assert_eq!((status, error.as_str()), expected, "{name}");
        let line = gate.line();
        assert_eq!((&line["reason"], &line["service"]), (&reason.into(), &"permgate".into()), "{name}");
    };
    let told = [GET, API];
    let on = |network: &str| {
        origin.setup().with(|setup| {
            setup.settings.forward_auth = Some(FrontProxy::Nginx);
            setup.rules.trusted_proxies.networks = vec![network.parse().unwrap()];
        })
    };
    check("off", origin.setup(), &told, (404, "not_found"), "no_service");
    check("a stranger", on("192.0.2.0/24"), &told, (403, "forbidden"), "proxy_not_trusted");
    check("a stranger without an original", on("192.0.2.0/24"), &[], (403, "forbidden"), "proxy_not_trusted");
}

#[test]
fn forward_auth_decision_counts_for_the_limits() {
    let (_origin, gate) = asked_by(FrontProxy::Nginx, |setup| {
        let once = std::num::NonZeroU32::MIN;
        let rate = Rate { count: once, window: Duration::from_secs(3600), burst: once };
        setup.settings.limits.everywhere = vec![Limit {
            per: LimitKey::Token,
            rate: Some(rate),
            concurrent: None,
            queue: permgate::settings::Queue::NONE,
        }];
    });
    assert_eq!(ask(&gate, &[GET, API]).0, 200);
    gate.line();
    let (status, _, error) = ask(&gate, &[GET, API]);
    assert_eq!((status, error.as_str()), (403, "too_many_requests"));
    assert_eq!(gate.line()["reason"], "rate_limited");
}
