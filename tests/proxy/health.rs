//! Health checks: a URL that is down gets no requests, and gets them again once it is up.

use std::time::Duration;

use permgate::settings::Health;

use crate::harness::{Gate, Server, Setup, eventually, field};

fn checked(servers: &[&Server]) -> Setup {
    Setup::to(&servers.iter().map(|server| server.address).collect::<Vec<_>>()).with(|setup| {
        setup.upstream.health = Some(Health {
            path: "/health?deep=1".parse().unwrap(),
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            rise: 3,
            fall: 2,
            status: None,
        });
    })
}

fn is_up(gate: &Gate, server: &Server) -> Option<u64> {
    gate.gauge(&format!("permgate_upstream_up{{upstream=\"origin\",url=\"{}\"}}", server.address))
}

fn ask(gate: &Gate) -> (u16, String) {
    let mut client = gate.client();
    client.send(gate.request("GET /api/x", &["Connection: close"]));
    let (status, _, body) = client.answer();
    (status, body)
}

#[test]
fn url_that_is_down_gets_no_requests_until_it_is_up() {
    let (a, b) = (Server::new("a"), Server::new("b"));
    let gate = checked(&[&a, &b]).start();
    eventually("both are checked", || !a.checks().is_empty() && !b.checks().is_empty());
    assert_eq!((is_up(&gate, &a), is_up(&gate, &b)), (Some(1), Some(1)));
    a.set_healthy(false);
    eventually("down", || is_up(&gate, &a) == Some(0));
    let before = a.request_count();
    for _ in 0..6 {
        assert_eq!(ask(&gate), (200, "b".into()));
    }
    assert_eq!(a.request_count(), before, "asked though it is down");

    b.set_healthy(false);
    eventually("all down", || is_up(&gate, &b) == Some(0));
    let (status, body) = ask(&gate);
    assert_eq!(status, 502, "{body}");
    assert_eq!((a.request_count(), b.request_count()), (before, 6), "asked though all are down");
    let logged = std::iter::repeat_with(|| gate.next_outcome()).nth(6).unwrap();
    assert_eq!(logged, ("failed".into(), "upstream_unavailable".into(), 502));

    let failing = a.checks().len();
    a.set_healthy(true);
    eventually("up again", || is_up(&gate, &a) == Some(1));
    assert!(a.checks().len() - failing >= 3, "one sound answer is not enough");
    assert_eq!(ask(&gate), (200, "a".into()));

    for head in a.checks().iter().chain(&b.checks()) {
        assert!(head.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(
            field(head, "host"),
            Some(if a.checks().contains(head) { a.address } else { b.address }.to_string().as_str())
        );
        for name in ["authorization", "cookie", "x-permgate-user"] {
            assert_eq!(field(head, name), None, "{head}");
        }
    }
}

#[test]
fn url_that_refuses_connections_is_down() {
    let b = Server::new("b");
    let gone = crate::harness::nobody();
    let setup = checked(&[&b]).with(|setup| {
        let url = permgate::settings::UpstreamUrl::parse(&format!("http://{gone}")).unwrap();
        setup.upstream.urls.push(url.into());
    });
    let gate = setup.start();
    let sample = format!("permgate_upstream_up{{upstream=\"origin\",url=\"{gone}\"}}");
    eventually("down", || gate.gauge(&sample) == Some(0));
    assert_eq!(is_up(&gate, &b), Some(1));
    assert_eq!(ask(&gate), (200, "b".into()));
}

#[test]
fn health_state_survives_a_reload() {
    let (a, b) = (Server::new("a"), Server::new("b"));
    let setup = checked(&[&a, &b]);
    let upstreams = setup.upstreams.clone();
    let gate = setup.start();
    a.set_healthy(false);
    eventually("down", || is_up(&gate, &a) == Some(0));
    // With so rare checks, only the kept state can have told.
    let reload = |interval: Duration| {
        gate.reload(checked(&[&a, &b]).with(|setup| {
            setup.upstreams = upstreams.clone();
            setup.upstream.urls[0].weight = 5;
            setup.upstream.health.as_mut().unwrap().interval = interval;
        }));
    };
    reload(Duration::from_secs(600));
    for _ in 0..3 {
        assert_eq!(ask(&gate), (200, "b".into()));
    }
    assert_eq!(is_up(&gate, &a), Some(0));
    a.set_healthy(true);
    reload(Duration::from_millis(10));
    eventually("up again", || {
        ask(&gate);
        is_up(&gate, &a) == Some(1)
    });
    // Without checks no URL is down.
    a.set_healthy(false);
    eventually("down again", || is_up(&gate, &a) == Some(0));
    gate.reload(checked(&[&a, &b]).with(|setup| setup.upstream.health = None));
    eventually("taken for up", || is_up(&gate, &a) == Some(1));
}
