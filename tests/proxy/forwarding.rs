//! What reaches the upstream of a permitted request, and what comes back.

use permgate::authz::{
    rules::ReadMethod,
    subject::{Access, Scope},
};

use crate::harness::{Gate, Origin, field, fields};

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

#[test]
fn target_is_forwarded_byte_for_byte() {
    let origin = Origin::new();
    let gate = origin.start();
    for target in [
        "/api",
        "/api/",
        "/api/a%2Fb",
        "/api/x?",
        "/api/x??a=%zz&b=/../",
        "/api/@scope%2fname",
        "/api/a;b=c/d,e'f(g)h*i!j$k&l=m:n~o",
    ] {
        let head = sent(&gate, &origin, &gate.request(&format!("GET {target}"), &[]));
        assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{target}: {head}");
    }
    let absolute = gate.request("GET http://gate.example/api/a%2Fb?q", &[]);
    let head = sent(&gate, &origin, &absolute);
    assert!(head.starts_with("GET /api/a%2Fb?q HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("gate.example"));
}

#[test]
fn forwarded_fields_follow_the_policy() {
    let origin = Origin::new();
    let gate = origin.start();
    let request = gate.request(
        "GET /api/x",
        &[
            "X-Kept: 1",
            "X-Kept: 2",
            "Connection: keep-alive, X-Named",
            "X-Named: hop",
            "Keep-Alive: timeout=5",
            "Proxy-Authorization: Basic x",
            "X-Permgate-User: root",
            "X_Permgate_User: root",
            "X-Forwarded-For: 203.0.113.9",
            "Forwarded: for=203.0.113.9",
            "X-Original-URL: /admin",
            "X-Request-Id: mine",
            "Upgrade: websocket",
            "TE: gzip",
        ],
    );
    let head = sent(&gate, &origin, &request);
    assert_eq!(fields(&head, "x-kept"), ["1", "2"]);
    for gone in [
        "authorization",
        "x-named",
        "keep-alive",
        "proxy-authorization",
        "x_permgate_user",
        "x-original-url",
        "upgrade",
        "te",
    ] {
        assert_eq!(fields(&head, gone), Vec::<&str>::new(), "{gone}: {head}");
    }
    assert_eq!(field(&head, "host"), Some("gate.example"));
    assert_eq!(field(&head, "x-permgate-user"), Some("alice"));
    assert_eq!(field(&head, "x-permgate-service"), Some("main"));
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    let id = field(&head, "x-request-id").unwrap();
    assert_ne!(id, "mine");
    let line = gate.line();
    assert_eq!(line["request_id"], id);
    assert_eq!(line["user"], "alice");
}

#[test]
fn upstream_can_have_its_own_host() {
    let origin = Origin::new();
    let gate =
        origin.setup().with(|setup| setup.upstream.host = Some("inner.example".parse().unwrap())).start();
    let head = sent(&gate, &origin, &gate.request("GET /api/x", &[]));
    assert_eq!(field(&head, "host"), Some("inner.example"));
}

#[test]
fn trusted_proxy_sets_request_id_and_client() {
    let origin = Origin::new();
    let gate = origin
        .setup()
        .with(|setup| setup.rules.trusted_proxies.networks = vec!["127.0.0.0/8".parse().unwrap()])
        .start();
    let request = gate.request("GET /api/x", &["X-Request-Id: mine", "X-Forwarded-For: 203.0.113.9"]);
    let head = sent(&gate, &origin, &request);
    assert_eq!(field(&head, "x-request-id"), Some("mine"));
    let line = gate.line();
    assert_eq!(line["request_id"], "mine");
    assert_eq!(line["client"], "203.0.113.9");
}

#[test]
fn response_has_no_hop_by_hop_fields() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(
        "HTTP/1.1 203 Odd\r\ncontent-length: 2\r\nconnection: x-named\r\nx-named: hop\r\nkeep-alive: timeout=5\r\n\
         set-cookie: a=1\r\nset-cookie: b=2\r\nx-request-id: theirs\r\n\r\nok",
    );
    let (status, head, body) = client.answer();
    assert_eq!((status, body.as_str()), (203, "ok"));
    assert_eq!(fields(&head, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(fields(&head, "x-named"), Vec::<&str>::new());
    assert_eq!(fields(&head, "keep-alive"), Vec::<&str>::new());
    assert_ne!(field(&head, "x-request-id").unwrap(), "theirs");
}

#[test]
fn public_rule_permits_only_anonymous_requests() {
    let origin = Origin::new();
    let gate = origin.setup().public("/api/public").start();
    let head = sent(&gate, &origin, "GET /api/public/x HTTP/1.1\r\nHost: a\r\nX-Permgate-User: root\r\n\r\n");
    assert_eq!(fields(&head, "x-permgate-user"), Vec::<&str>::new());
    assert_eq!(gate.next_outcome(), ("forwarded".into(), "ok_anonymous".into(), 200));
    let head = sent(&gate, &origin, &gate.request("GET /api/public/x", &[]));
    assert_eq!(field(&head, "x-permgate-user"), Some("alice"));
    let mut client = gate.client();
    client.send("GET /api/public/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer nonsense\r\n\r\n");
    assert_eq!(client.refused(), (401, "invalid_token".into()));
}

#[test]
fn request_that_counts_as_reading_cannot_hide_another_method() {
    let origin = Origin::new();
    let reading = ReadMethod { method: "POST".parse().unwrap(), prefix: Some("/api/search".into()) };
    let gate = origin.setup().with(|setup| setup.service.read_methods.push(reading)).start();
    let main = gate.state.snapshot().rules.service_by_key("main").unwrap().id;
    gate.change_token(|token| token.scope = Scope::new([(main, Access::Read)]).unwrap());
    for method in ["POST", "GET"] {
        let line =
            |query: &str| gate.request(&format!("{method} /api/search{query}"), &["Content-Length: 0"]);
        sent(&gate, &origin, &line("?q=_method"));
        assert_eq!(gate.next_outcome().1, "ok");
        for query in ["?_method=DELETE", "?q=a&%5Fmethod=PUT"] {
            let mut client = gate.client();
            client.send(line(query));
            assert_eq!(client.refused().0, 403, "{method} {query}");
            assert_eq!(gate.next_outcome().1, "read_only_scope", "{method} {query}");
        }
    }
}
