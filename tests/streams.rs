//! Many streams at once: a change cuts those that it forbids before it is answered, and no others.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    gateway::Gateway,
    raw::{SWITCHED, UPGRADE, ask, until},
    upstream::Upstream,
};

/// Reads what still arrives before the reset, which must come.
fn until_reset(row: &str, socket: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    match socket.read_to_end(&mut heard) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{row}: not reset but {other:?}"),
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// An upstream that repeatedly sends the number of the last change in every stream and tunnel.
fn ticking(changes: Arc<AtomicU64>) -> Upstream {
    Upstream::start(move |seen, socket| {
        let tunnel = seen.head.contains("upgrade: websocket");
        if tunnel {
            socket.write_all(SWITCHED)?;
        } else {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            socket.write_all(head.as_bytes())?;
        }
        loop {
            let event = format!("data: <{}>\n\n", changes.load(Ordering::SeqCst));
            let event = if tunnel { event } else { format!("{:x}\r\n{event}\r\n", event.len()) };
            socket.write_all(event.as_bytes())?;
            thread::sleep(Duration::from_millis(30));
        }
    })
}

#[test]
fn under_load_change_cuts_exactly_what_it_forbids_before_it_answers() {
    const STREAMS_PER_USER: usize = 75;
    let changes = Arc::new(AtomicU64::new(0));
    let upstream = ticking(changes.clone());
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    gateway.developer("bob");
    let (revoked, token) = gateway.token("alice", "revoked", &["tracker"]);
    let (_, bystander) = gateway.token("alice", "bystander", &["tracker", "hub"]);
    let (_, banned) = gateway.token("bob", "banned", &["tracker"]);
    // Half of them are tunnels, half of them event streams.
    let open = |target: &str, token: &str| -> Vec<TcpStream> {
        let streams = (0..STREAMS_PER_USER).map(|n| {
            let fields = if n % 2 == 0 { UPGRADE } else { "Accept: text/event-stream\r\n" };
            ask(gateway.proxy, target, token, fields)
        });
        let mut streams: Vec<_> = streams.collect();
        for stream in &mut streams {
            until(stream, "<0>");
        }
        streams
    };
    let mut alive = open("/api/live", &bystander);
    let groups = [
        ("revoke", open("/api/live", &token)),
        ("ban", open("/api/live", &banned)),
        ("reload", open("/hub/api/live", &bystander)),
    ];
    for (count, (row, mut forbidden)) in groups.into_iter().enumerate() {
        let begun = Instant::now();
        let changed = match row {
            "revoke" => gateway.must("DELETE", &format!("/v1/tokens/{revoked}"), None),
            "ban" => gateway.must("POST", "/v1/users/bob/ban", Some(r#"{"reason": "left"}"#)),
            _ => {
                let moved = Gateway::services(upstream.address)
                    .replace("paths = [\"/hub/api\"]", "paths = [\"/elsewhere\"]");
                gateway.write(&moved);
                gateway.must("POST", "/v1/reload", None)
            }
        };
        println!("{row}: {:?}", begun.elapsed());
        let now = format!("<{}>", count + 1);
        changes.store(count as u64 + 1, Ordering::SeqCst);
        assert_eq!(changed["cut"], STREAMS_PER_USER, "{row}: {changed}");
        for stream in &mut alive {
            until(stream, &now);
        }
        for stream in &mut forbidden {
            let heard = until_reset(row, stream);
            assert!(!heard.contains(&now), "{row}: something came after the answer");
        }
    }
    let live = gateway.must("GET", "/v1/live?limit=500", None);
    let on_api = live["items"].as_array().unwrap().iter().filter(|item| item["service"] == "tracker").count();
    assert_eq!(on_api, STREAMS_PER_USER);
}
