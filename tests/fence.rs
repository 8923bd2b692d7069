//! The fence over a whole gateway: a change cuts what it forbids before it is answered, and nothing else.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::type_complexity, reason = "a table names its columns by position")]

#[path = "fence/removals.rs"]
mod removals;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use support::{gateway::Gateway, http::Client, upstream::Upstream};

/// Opens a streaming response and reads its first chunk.
fn streaming(gateway: &Gateway, target: &str, token: &str) -> Client {
    let mut client = gateway.open(target, Some(token));
    let head = client.head();
    assert_eq!(head.status, 200, "{head:?}");
    assert!(!client.chunk().unwrap().is_empty());
    client
}

/// Checks that the stream has ended with a reset, so that it does not look complete.
fn check_cut(row: &str, mut client: Client) {
    let error = client.read_to_end().expect_err(row);
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{row}: {error}");
}

#[test]
fn change_cuts_exactly_what_it_forbids_before_it_answers() {
    let (upstream, _over) = Upstream::endless();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    gateway.developer("bob");
    let (_, bystander) = gateway.token("bob", "bystander", &["tracker"]);
    let mut other = streaming(&gateway, "/api/events", &bystander);

    // (row, method, target by the token's id, body)
    let rows: [(&str, &str, &dyn Fn(&str) -> String, Option<&str>); 6] = [
        ("revoke", "DELETE", &|id| format!("/v1/tokens/{id}"), None),
        ("rotate without grace", "POST", &|id| format!("/v1/tokens/{id}/rotate"), Some(r#"{"grace": "0s"}"#)),
        ("narrow", "PATCH", &|id| format!("/v1/tokens/{id}"), Some(r#"{"scope": [{"service": "hub"}]}"#)),
        ("leave the group", "DELETE", &|_| "/v1/groups/developers/members/alice".into(), None),
        ("ban", "POST", &|_| "/v1/users/alice/ban".into(), Some(r#"{"reason": "left"}"#)),
        ("delete the owner", "DELETE", &|_| "/v1/users/alice".into(), None),
    ];
    for (row, method, target, body) in rows {
        let (id, text) = gateway.token("alice", row, &["tracker", "hub"]);
        let stream = streaming(&gateway, "/api/events", &text);
        let changed = gateway.must(method, &target(&id), body);
        assert_eq!(changed["cut"], 1, "{row}: {changed}");
        check_cut(row, stream);
        assert!(gateway.get("/api/events", Some(&text)).status >= 401, "{row}");
        if row == "leave the group" {
            gateway.must("PUT", "/v1/groups/developers/members/alice", None);
        }
        if row == "ban" {
            gateway.must("POST", "/v1/users/alice/unban", None);
        }
        assert!(!other.chunk().unwrap().is_empty(), "{row}: the bystander's stream lives on");
    }
}

#[test]
fn reload_cuts_only_what_the_new_rules_forbid() {
    let (upstream, _over) = Upstream::endless();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (_, text) = gateway.token("alice", "both", &["tracker", "hub"]);
    let stays = streaming(&gateway, "/api/events", &text);
    let goes = streaming(&gateway, "/hub/api/events", &text);

    gateway.write("[service.tracker]\nupstream = \"nobody\"\n");
    let refused = gateway.operator("POST", "/v1/reload", None);
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("nobody"), "{}", refused.text());
    let mut stays = stays;
    assert!(!stays.chunk().unwrap().is_empty(), "a bad file changes nothing");

    let sections =
        Gateway::services(upstream.address).replace("paths = [\"/hub/api\"]", "paths = [\"/elsewhere\"]");
    gateway.write(&sections);
    let reloaded = gateway.must("POST", "/v1/reload", None);
    assert_eq!(reloaded["cut"], 1, "{reloaded}");
    check_cut("reload", goes);
    assert!(!stays.chunk().unwrap().is_empty(), "a permitted stream lives on");
    assert_eq!(gateway.get("/hub/api/x", Some(&text)).status, 404);
}

/// A stream depends on the identity that the upstream received and on how its head was read.
#[test]
fn stream_is_cut_when_its_permit_no_longer_holds() {
    let (upstream, _over) = Upstream::endless();
    let readable = |more: &str| {
        let tracker = "paths = [\"/api\", \"/rest\"]";
        let open = format!("{tracker}\nidentity_groups = [\"developers\", \"testers\"]");
        let sections = Gateway::services(upstream.address).replace(tracker, &open);
        sections.replace("readers = [\"developers\"]", "readers = [\"all-users\"]") + more
    };
    let gateway = Gateway::with(&readable(""));
    gateway.developer("alice");
    gateway.must("POST", "/v1/groups", Some(r#"{"name": "testers"}"#));
    let (_, text) = gateway.token("alice", "told", &["tracker"]);
    let member = |method: &str, group: &str| {
        gateway.must(method, &format!("/v1/groups/{group}/members/alice"), None)["cut"].clone()
    };

    let stream = streaming(&gateway, "/api/events", &text);
    assert_eq!(member("PUT", "testers"), 0, "what was told is still true");
    assert_eq!(member("DELETE", "testers"), 0, "it was not told of this group");
    assert_eq!(member("DELETE", "developers"), 1);
    check_cut("a group that the upstream was told of", stream);

    let stream = streaming(&gateway, "/api/events", &text);
    assert_eq!(gateway.must("PATCH", "/v1/users/alice", Some(r#"{"name": "Al"}"#))["cut"], 0);
    assert_eq!(gateway.must("PATCH", "/v1/users/alice", Some(r#"{"login": "al"}"#))["cut"], 1);
    check_cut("a login that the upstream was told of", stream);

    let other = streaming(&gateway, "/api/events", &text);
    let stream = streaming(&gateway, "/api/events", &format!("perm:{text}"));
    gateway.write(&readable("[tokens]\nperm_alias = false\n"));
    assert_eq!(gateway.must("POST", "/v1/reload", None)["cut"], 1);
    check_cut("an alias that is switched off", stream);
    drop(other);
}

#[test]
fn client_from_proxy_protocol_counts_only_while_the_proxy_is_trusted() {
    let (upstream, _over) = Upstream::endless();
    let text = |trusted: &str| Gateway::text_with(trusted, "", &Gateway::services(upstream.address));
    let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text("trusted_proxies = [\"127.0.0.1\"]\n"));
    gateway.developer("alice");
    let body = r#"{"name": "bound", "scope": [{"service": "tracker"}], "allow_ips": ["203.0.113.0/24"]}"#;
    let bound = gateway.must("POST", "/v1/users/alice/tokens", Some(body));
    let (_, free) = gateway.token("alice", "free", &["tracker"]);
    let stream = |token: &str| {
        let mut client = Client::tcp(gateway.proxy);
        client.send(format!(
            "GET /api/events HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n"
        ));
        assert_eq!(client.head().status, 200);
        assert!(!client.chunk().unwrap().is_empty());
        client
    };
    for (row, trusted) in [
        ("another one is trusted, too", "trusted_proxies = [\"127.0.0.1\", \"203.0.113.5\"]\n"),
        ("it is not trusted any more", ""),
    ] {
        let bound = stream(bound["token"].as_str().unwrap());
        let mut free = stream(&free);
        std::fs::write(gateway.dir.path().join("gateway.toml"), text(trusted)).unwrap();
        assert_eq!(gateway.must("POST", "/v1/reload", None)["cut"], 1, "{row}");
        check_cut(row, bound);
        assert!(!free.chunk().unwrap().is_empty(), "{row}: it may come from anywhere");
    }
}

#[test]
fn client_from_a_forwarded_header_counts_only_while_the_proxy_is_trusted() {
    let (upstream, _over) = Upstream::endless();
    let text = |trusted: &str| {
        let server = format!("proxy_protocol = \"required\"\ntrusted_proxies = [\"{trusted}\"]\n");
        Gateway::text_with(&server, "", &Gateway::services(upstream.address))
    };
    let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text("127.0.0.1"));
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "ci", &["tracker"]);
    let connect = || {
        let mut client = Client::tcp(gateway.proxy);
        client.send("PROXY TCP4 203.0.113.5 127.0.0.1 4711 80\r\n");
        client
    };
    let ask = |client: &mut Client, bearer: &str| {
        client.send(format!("GET /api/events HTTP/1.1\r\nHost: h\r\n{bearer}\r\n"));
        client.head().status
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (mut stream, mut idle) = (connect(), connect());
    assert_eq!(ask(&mut stream, &bearer), 200);
    assert!(!stream.chunk().unwrap().is_empty());
    idle.send("GET /api/x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(idle.answer("GET").status, 401);
    std::fs::write(gateway.dir.path().join("gateway.toml"), text("192.0.2.1")).unwrap();
    assert_eq!(gateway.must("POST", "/v1/reload", None)["cut"], 1);
    check_cut("a stream of a client that nobody trusted names", stream);
    assert_eq!(ask(&mut idle, &bearer), 421);
}

#[test]
fn client_that_does_not_read_is_cut_too() {
    let upstream = Upstream::start(|_, socket| {
        use std::io::Write;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")?;
        loop {
            socket.write_all(&[b'x'; 65536])?;
        }
    });
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (id, text) = gateway.token("alice", "stalled", &["tracker"]);
    let mut client = gateway.open("/api/bulk", Some(&text));
    assert_eq!(client.head().status, 200);
    // All buffers on the way fill up, because the client does not read, until the byte count stands still.
    let mut before = u64::MAX;
    loop {
        let live = gateway.must("GET", "/v1/live", None);
        let out = live["items"].as_array().unwrap().iter().map(|i| i["bytes_out"].as_u64().unwrap()).max();
        if out == Some(before) {
            break;
        }
        before = out.unwrap_or(u64::MAX);
        thread::sleep(std::time::Duration::from_millis(100));
    }
    let revoked = gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(revoked["cut"], 1);
    check_cut("a stalled client", client);
}

#[test]
fn a_new_token_works_on_the_very_next_request_on_every_worker() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    for n in 0..50 {
        let (id, text) = gateway.token("alice", &format!("token {n}"), &["tracker"]);
        // A new connection each time, because the kernel distributes them over the workers.
        for _ in 0..4 {
            assert_eq!(gateway.get("/api/x", Some(&text)).status, 200, "created, so usable");
        }
        gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
        for _ in 0..4 {
            assert_eq!(gateway.get("/api/x", Some(&text)).status, 401, "revoked, so refused");
        }
    }
}

/// Requests start continuously while a token is created, revoked and replaced. None that starts after the
/// answer to a revocation passes, and none gets the outcome of another request.
#[test]
fn a_revocation_races_with_starting_requests() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    for round in 0..20 {
        let (id, text) = gateway.token("alice", &format!("round {round}"), &["tracker"]);
        let revoked = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..3 {
                let (gateway, text, revoked) = (&gateway, &text, revoked.clone());
                scope.spawn(move || {
                    loop {
                        let known = revoked.load(Ordering::SeqCst);
                        let mut client = gateway.open("/api/x", Some(text));
                        let status = client.try_status();
                        if known {
                            assert_eq!(status, Some(401), "started after the revocation was acknowledged");
                            return;
                        }
                        // Before the revocation: permitted, refused, or cut on its way.
                        assert!(matches!(status, Some(200 | 401) | None), "{status:?}");
                    }
                });
            }
            gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
            revoked.store(true, Ordering::SeqCst);
        });
    }
}

#[test]
fn upload_is_cut() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (id, text) = gateway.token("alice", "upload", &["tracker"]);
    let mut client = Client::tcp(gateway.proxy);
    client.send(format!(
        "POST /api/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {text}\r\nContent-Length: 1000000\r\n\r\nbegin"
    ));
    // The request is live once it is listed; its body never ends.
    while gateway.must("GET", "/v1/live", None)["items"].as_array().unwrap().len() < 2 {
        thread::yield_now();
    }
    assert_eq!(gateway.must("DELETE", &format!("/v1/tokens/{id}"), None)["cut"], 1);
    check_cut("an upload", client);
}

/// Uses only Hub's documented calls, as a script of Hub's users would.
#[test]
fn hub_script_creates_uses_and_revokes_a_token() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (_, first) = gateway.token("alice", "script", &["permgate", "tracker"]);
    let bearer = format!("Bearer {first}");
    let hub = |method: &str, path: &str, body: Option<&str>| {
        let mut fields = vec![("Host", "localhost"), ("Authorization", bearer.as_str())];
        fields.extend(body.map(|_| ("Content-Type", "application/json")));
        Client::tcp(gateway.admin).request(method, &format!("/hub/api/rest{path}"), &fields, body)
    };
    let tokens = "/users/me/permanenttokens";
    let services = hub("GET", "/services?fields=id,key", None).json();
    let tracker =
        services["services"].as_array().unwrap().iter().find(|row| row["key"] == "tracker").unwrap();
    let body = serde_json::json!({"name": "ci", "scope": [{"id": tracker["id"]}]}).to_string();
    let made = hub("POST", &format!("{tokens}?fields=id,token"), Some(&body));
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    let (id, text) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!(gateway.get("/api/x", Some(text)).status, 200, "it works at once");
    assert_eq!(gateway.get("/hub/api/x", Some(text)).status, 403, "for what is in its scope");
    let shown = hub("GET", &format!("{tokens}/{id}?fields=id,lastAccessTime,author(login)"), None).json();
    assert!(shown["lastAccessTime"].is_i64(), "{shown}");
    assert_eq!((&shown["author"]["login"], shown.get("token")), (&"alice".into(), None), "{shown}");
    assert_eq!(hub("DELETE", &format!("{tokens}/{id}"), None).status, 200);
    assert_eq!(gateway.get("/api/x", Some(text)).status, 401, "and is gone at once");
    assert_eq!(hub("GET", &format!("{tokens}/{id}"), None).status, 404);
    let left = hub("GET", &format!("{tokens}?$top=-1"), None).json();
    assert!(left["permanenttokens"].as_array().unwrap().iter().all(|row| row["id"] != id), "{left}");
}

/// Streams of both users alternate on one connection.
#[test]
fn http2_ban_cuts_exactly_the_users_streams() {
    const STREAMS_PER_USER: usize = 20;
    let (upstream, _over) = Upstream::endless();
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    gateway.developer("bob");
    let (_, alices) = gateway.token("alice", "stays", &["tracker"]);
    let (_, bobs) = gateway.token("bob", "goes", &["tracker"]);
    async fn read_data(stream: &mut h2::RecvStream) -> Result<(), h2::Error> {
        let data = stream.data().await.expect("an endless answer")?;
        stream.flow_control().release_capacity(data.len())
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let over = Arc::new(AtomicBool::new(false));
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    let mut requests = handle.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.proxy).await.unwrap();
        // A busy machine receives small frames faster than it reads them, and h2 would give up.
        let mut client = h2::client::Builder::new();
        let handshake = client.data_frame_budget(16 << 20).handshake(socket).await;
        let (requests, connection): (h2::client::SendRequest<bytes::Bytes>, _) = handshake.unwrap();
        tokio::spawn(connection);
        requests
    });
    for _ in 0..STREAMS_PER_USER {
        for (text, streams) in [(&alices, &mut stay), (&bobs, &mut go)] {
            let request = http::Request::get("http://gate.example/api/events")
                .header("authorization", format!("Bearer {text}"))
                .body(())
                .unwrap();
            let mut stream = handle.block_on(async {
                requests = requests.clone().ready().await.unwrap();
                let answer = requests.send_request(request, true).unwrap().0.await.unwrap();
                let mut stream = answer.into_body();
                read_data(&mut stream).await.unwrap();
                stream
            });
            let over = over.clone();
            // How it ended; `None`: it continued after the change.
            streams.push(handle.spawn(async move {
                let mut behind = 0;
                while behind < 50 {
                    if let Err(error) = read_data(&mut stream).await {
                        return error.reason();
                    }
                    behind += u32::from(over.load(Ordering::SeqCst));
                }
                None
            }));
        }
    }
    let banned = gateway.must("POST", "/v1/users/bob/ban", Some(r#"{"reason": "left"}"#));
    over.store(true, Ordering::SeqCst);
    assert_eq!(banned["cut"], STREAMS_PER_USER, "{banned}");
    for (streams, expected) in [(go, Some(h2::Reason::CANCEL)), (stay, None)] {
        for stream in streams {
            assert_eq!(handle.block_on(stream).unwrap(), expected);
        }
    }
}
