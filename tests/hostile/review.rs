//! Attacks on the gateway as a whole: floods of lists, the admin page's cookies, and spellings of hosts.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use crate::{
    carriers::over_http2,
    stage::Stage,
    support::{gateway::Gateway, http::Client, upstream::Upstream},
};

/// Lists, searches and the log over many rows wait for a turn outside the control thread, and only some may
/// wait; changes do not wait with them.
#[test]
fn concurrent_lists_do_not_delay_a_revocation() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    gateway.must("POST", "/v1/grants", Some(r#"{"role": "system-admin", "user": "alice"}"#));
    let (_, own) = gateway.token("alice", "own", &["permgate"]);
    let tokens: Vec<_> = (0..10).map(|n| gateway.token("alice", &format!("t{n}"), &["tracker"]).0).collect();
    let paths = [
        "/hub/api/rest/users/me/permanenttokens?$top=1",
        "/v1/users/me/tokens?limit=1000",
        "/v1/tokens?state=expired",
        "/v1/users?limit=1000",
        "/v1/groups?limit=1000",
        "/v1/grants",
        "/v1/audit?limit=1000",
        "/v1/audit/verify",
        "/v1/live",
        "/metrics",
        "/docs",
        "/openapi.json",
    ];
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (number, path) in paths.iter().enumerate() {
            let (answered, bearer) = (&answered, format!("Bearer {own}"));
            let admin = gateway.admin;
            scope.spawn(move || {
                let fields = [("Authorization", bearer.as_str())];
                let mut client = Client::tcp(admin);
                // Not until the end, because other tests of this process need the processor.
                for _ in 0..3 {
                    let answer = client.request("GET", path, &fields, None);
                    let busy = answer.status == 503 && answer.json()["error"] == "busy";
                    assert!(
                        answer.status == 200 || busy,
                        "{number} {path}: {} {}",
                        answer.status,
                        answer.text()
                    );
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        for id in &tokens {
            gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
        }
    });
    assert_eq!(answered.load(Relaxed), 3 * paths.len());
}

/// Pages over all accounts are made one after the other, and a revocation comes in between.
#[test]
fn pages_over_many_accounts_leave_the_way_to_a_revocation_free() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    gateway.must("POST", "/v1/grants", Some(r#"{"role": "system-admin", "user": "alice"}"#));
    let (_, own) = gateway.token("alice", "own", &["permgate"]);
    let lines: Vec<_> = (0..2_000)
        .map(|n| {
            let scope = serde_json::json!([{"service": "permgate"}]);
            serde_json::json!({"digest": format!("{n:064x}"), "owner": format!("u{n}"), "name": "t", "scope": scope})
        })
        .collect();
    let body = serde_json::json!({"tokens": lines, "make_owners": true}).to_string();
    assert_eq!(gateway.must("POST", "/v1/tokens/import", Some(&body))["imported"], 2_000);
    for path in ["/users", "/groups", "/groups/developers", "/services", "/v1/services?detailed=true"] {
        let (id, _) = gateway.token("alice", path, &["tracker"]);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {own}\r\n\r\n"
        );
        let mut clients: Vec<_> = (0..24).map(|_| TcpStream::connect(gateway.admin).unwrap()).collect();
        for client in &mut clients {
            client.write_all(head.as_bytes()).unwrap();
        }
        gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
        let before = clients.iter().filter(is_answered).count();
        assert!(before < clients.len() / 2, "{path}: {before} went before it");
        for client in &mut clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
    }
}

fn is_answered(client: &&TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let answered = client.peek(&mut [0]).is_ok();
    client.set_nonblocking(false).unwrap();
    answered
}

/// Large bodies are read one after the other, and a revocation comes in between.
#[test]
fn large_bodies_leave_the_way_to_a_revocation_free() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (_, own) = gateway.token("alice", "own", &["permgate"]);
    let (id, _) = gateway.token("alice", "other", &["tracker"]);
    let body = serde_json::json!({"texts": vec!["a ".repeat(200); 1000]}).to_string();
    let head = format!(
        "POST /v1/leaks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {own}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut clients: Vec<_> = (0..30).map(|_| TcpStream::connect(gateway.admin).unwrap()).collect();
    for client in &mut clients {
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&body.as_bytes()[..body.len() - 1]).unwrap();
    }
    for client in &mut clients {
        client.write_all(b"}").unwrap();
    }
    gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    let before = clients.iter().filter(is_answered).count();
    assert!(before < clients.len() / 2, "{before} went before it");
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// The admin page's cookies do not reach an upstream, and no upstream can set them; all others pass.
#[test]
fn admin_cookies_are_not_forwarded_in_either_direction() {
    let stage = Stage::with(r#""/api""#, "", "[[public]]\nservice = \"tracker\"\nprefix = \"/api/public\"\n");
    let secret = "0123456789abcdef".repeat(4);
    let sent =
        format!("a=1; permgate={secret}; b=2; permgate-flow={secret}; __Host-permgate={secret}; xpermgate=3");
    let bearer = format!("Bearer {}", stage.token);
    for path in ["/api/x", "/api/public"] {
        let head = format!("Host: g\r\n{}Cookie: {sent}\r\n", stage.bearer());
        let (answer, mut received) = stage.send_one("GET", path.as_bytes(), &head);
        assert_eq!(answer.status, 200);
        let fields = [("authorization", bearer.as_str()), ("cookie", &sent)];
        assert_eq!(over_http2(&stage, &format!("http://g{path}"), &fields).0, 200);
        // As browsers split it over HTTP/2.
        let crumbs: Vec<_> = sent.split("; ").map(|crumb| ("cookie", crumb)).collect();
        let fields = [&fields[..1], &crumbs].concat();
        assert_eq!(over_http2(&stage, &format!("http://g{path}"), &fields).0, 200);
        received.extend(stage.recorder.take());
        assert_eq!(received.len(), 3);
        for request in received {
            let cookies = request.all("cookie").join("; ");
            assert!(!cookies.contains(&secret), "{path}: {cookies}");
            for kept in ["a=1", "b=2", "xpermgate=3"] {
                assert!(cookies.contains(kept), "{path}: {cookies}");
            }
        }
    }
    let upstream = Upstream::start(|_, socket| {
        use std::io::Write as _;
        let cookies = [
            "permgate=evil; Path=/",
            "app=1",
            " permgate =evil",
            "__Host-permgate=evil; Secure",
            "permgate-flow=evil",
        ];
        let cookies: String = cookies.iter().map(|cookie| format!("Set-Cookie: {cookie}\r\n")).collect();
        socket.write_all(format!("HTTP/1.1 200 OK\r\n{cookies}Content-Length: 0\r\n\r\n").as_bytes())
    });
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "one", &["tracker"]);
    let answer = gateway.get("/api/x", Some(&token));
    assert_eq!((answer.status, answer.field("set-cookie")), (200, Some("app=1")));
}

/// A host has one owner, however it is spelled.
#[test]
fn spellings_of_a_host_have_one_owner() {
    let load = |one: &str, other: &str| {
        let service = |name: &str, host: &str| {
            format!(
                "[service.{name}]\nupstream = \"one\"\npaths = [\"/api\"]\nreaders = [\"a\"]\nhosts = [\"{host}\"]\n"
            )
        };
        let upstream = "[upstream.one]\nurls = [\"http://127.0.0.1:9\"]\n";
        let text = Gateway::text(&[upstream, &service("a", one), &service("b", other)].concat());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, text).unwrap();
        permgate::config::Config::load(&file).map(drop).map_err(|errors| errors.to_string())
    };
    assert_eq!(load("a.example", "b.example"), Ok(()));
    for (one, other) in [
        ("[::1]", "[0::1]"),
        ("[2001:db8::A]", "[2001:0db8:0::a]"),
        ("a.example", "A.Example."),
        ("a.example", "a.example"),
        ("b.example", "a..b"),
        ("b.example", ".a"),
        ("b.example", "[::1"),
        ("b.example", "a:80"),
    ] {
        assert!(load(one, other).is_err(), "{one} {other}");
    }
}

/// Every ignored advisory has a reason, and a missing database fails the check unless that is configured.
#[test]
fn advisories_are_ignored_by_name_and_with_a_reason() {
    let read =
        |name: &str| std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let deny: toml::Table = read(".deny.toml").parse().unwrap();
    let ignored = deny["advisories"]["ignore"].as_array().unwrap();
    for entry in ignored {
        assert!(entry["id"].as_str().unwrap().starts_with("RUSTSEC-"), "{entry:?}");
        assert!(entry["reason"].as_str().unwrap().len() > 20, "{entry:?}");
    }
    let ci = read(".ci/run");
    assert!(ci.contains("PERMGATE_CI_OFFLINE") && ci.contains("check --disable-fetch advisories"));
}
