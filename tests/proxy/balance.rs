//! One upstream with several URLs: which ones get requests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use permgate::settings::Balance;

use crate::harness::{Gate, Origin, RawConnection, Server, Setup, eventually, nobody};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends requests over one connection. Returns the names of the servers that answered.
fn ask(gate: &Gate, times: usize) -> String {
    let mut client = gate.client();
    let mut names = String::new();
    for _ in 0..times {
        client.send(gate.request("GET /api/x", &[]));
        let (status, head, body) = client.answer();
        assert_eq!(status, 200, "{head}{body}");
        names.push_str(&body);
    }
    names
}

fn to(servers: &[&Server]) -> Setup {
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    Setup::to(&addresses)
}

#[test]
fn requests_are_distributed_by_weight() {
    let (a, b, c) = (Server::new("a"), Server::new("b"), Server::new("c"));
    let check = |row: &str, weights: [u32; 3], expected: &str| {
        let setup = to(&[&a, &b, &c]).with(|setup| {
            for (one, weight) in setup.upstream.urls.iter_mut().zip(weights) {
                one.weight = weight;
            }
        });
        let gate = setup.start();
        assert_eq!(ask(&gate, expected.len()), expected, "{row}");
        gate.wait_until_empty();
    };
    check("equal", [1, 1, 1], "abcabc");
    check("three, one and none", [3, 1, 0], "aabaaaba");
}

#[test]
fn url_with_fewest_requests_in_flight_is_chosen() {
    let (slow, quick) = (Origin::new(), Server::new("q"));
    let setup = Setup::to(&[slow.address, quick.address])
        .with(|setup| setup.upstream.balance = Balance::LeastRequests);
    let gate = setup.start();
    let mut client = gate.client_with_get();
    let mut upstream = slow.accept();
    upstream.head();
    assert_eq!(ask(&gate, 5), "qqqqq", "while the other thinks");
    upstream.send(OK);
    assert_eq!(client.answer().2, "ok");
    // All are idle, so they take turns.
    assert_eq!(ask(&gate, 1), "q");
    let mut client = gate.client_with_get();
    upstream.head();
    upstream.send(OK);
    assert_eq!(client.answer().2, "ok");
}

/// A client with another address of this machine.
fn client_from(gate: &Gate, last: u8) -> RawConnection {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
    socket.connect(&gate.address.into()).unwrap();
    RawConnection::over(socket.into())
}

#[test]
fn hash_balancing_keeps_clients_on_their_url() {
    let servers = [Server::new("a"), Server::new("b"), Server::new("c")];
    let setup = to(&servers.each_ref()).public("/api/open").with(|setup| {
        setup.upstream.balance = Balance::Hash;
        setup.upstream.ejection.failures = 1;
    });
    let gate = setup.start();
    let home = ask(&gate, 1);
    assert_eq!(ask(&gate, 6), home.repeat(6), "a user");

    let anonymous = |last: u8| {
        let mut client = client_from(&gate, last);
        client.send("GET /api/open HTTP/1.1\r\nHost: gate.example\r\n\r\n");
        client.answer().2
    };
    let homes: Vec<String> = (1..=24).map(anonymous).collect();
    for name in ["a", "b", "c"] {
        assert!(homes.iter().any(|home| home == name), "nobody is at home at {name}: {homes:?}");
    }
    // If one is ejected, only its own clients move.
    let out = servers.iter().find(|server| homes[0] == ask_directly(server)).unwrap();
    out.set_healthy(false);
    let mut client = client_from(&gate, 1);
    client.send("GET /api/open HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n\r\n");
    client.answer();
    let now: Vec<String> = (1..=24).map(anonymous).collect();
    for (before, now) in homes.iter().zip(&now) {
        if *before == homes[0] {
            assert_ne!(now, before, "asked though it is left out");
        } else {
            assert_eq!(now, before, "moved though its own is there");
        }
    }
}

fn ask_directly(server: &Server) -> String {
    let mut client = RawConnection::to(server.address);
    client.send("GET /x HTTP/1.1\r\n\r\n");
    client.answer().2
}

#[test]
fn failing_url_is_ejected_and_returns() {
    let (a, b) = (Server::new("a"), Server::new("b"));
    let setup = to(&[&a, &b]).with(|setup| {
        setup.upstream.ejection.failures = 2;
        setup.upstream.ejection.back_off = Duration::from_millis(300);
    });
    let gate = setup.start();
    a.set_healthy(false);
    let sample = |at: SocketAddr| format!("permgate_upstream_ejected{{upstream=\"origin\",url=\"{at}\"}}");
    let mut failed = 0;
    while gate.gauge(&sample(a.address)) != Some(1) {
        let mut client = gate.client();
        // A POST is not retried, so each failure is visible.
        client.send(gate.request("POST /api/x", &["Content-Length: 0"]));
        failed += usize::from(client.answer().0 == 502);
        assert!(failed <= 2, "not left out");
    }
    assert_eq!(failed, 2);
    assert_eq!(gate.gauge("permgate_upstream_ejections_total"), Some(1));
    assert_eq!(gate.gauge(&sample(b.address)), Some(0));
    assert_eq!(ask(&gate, 4), "bbbb");
    a.set_healthy(true);
    eventually("it is asked again", || ask(&gate, 1) == "a");
    assert_eq!(gate.gauge(&sample(a.address)), Some(0));
    // The last remaining URL is never ejected.
    b.set_healthy(false);
    a.set_healthy(false);
    for _ in 0..10 {
        let mut client = gate.client();
        client.send(gate.request("POST /api/x", &["Content-Length: 0"]));
        assert_eq!(client.answer().0, 502);
    }
    let out = [&a, &b].map(|server| gate.gauge(&sample(server.address)).unwrap());
    assert!(out.iter().sum::<u64>() <= 1, "{out:?}");
    gate.wait_until_empty();
}

#[test]
fn retries_match_the_configured_number() {
    let check = |row: &str, retries: u32, refusing: usize, expected: u16| {
        let server = Server::new("a");
        let mut addresses: Vec<SocketAddr> = (0..refusing).map(|_| nobody()).collect();
        addresses.push(server.address);
        let gate = Setup::to(&addresses).with(|setup| setup.upstream.retries = retries).start();
        let mut client = gate.client();
        client.send(gate.request("POST /api/x", &["Content-Length: 0"]));
        assert_eq!(client.answer().0, expected, "{row}");
        assert_eq!(
            gate.gauge("permgate_upstream_connects_failed_total"),
            Some(refusing.min(retries as usize + 1) as u64),
            "{row}"
        );
    };
    check("none", 0, 1, 502);
    check("one is enough", 1, 1, 200);
    check("one is not enough", 1, 2, 502);
    check("each url once", 5, 2, 200);
}
