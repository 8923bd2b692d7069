//! The PROXY protocol: who must send the header, who cannot, and which client the connection gets.

use std::{io::Write as _, time::Duration};

use permgate::net::{Bound, Limits, Listener, bind};

use crate::harness::{Client, CloseKind, Gate, eventually};

const GET: &str = "GET /peer HTTP/1.1\r\nHost: gate\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

fn trusting(networks: &[&str]) -> Limits {
    let trusted_proxies = networks.iter().map(|net| net.parse().unwrap()).collect();
    Limits { trusted_proxies, ..Limits::default() }
}

fn gate(limits: &Limits) -> Gate {
    Gate::with(1, limits, Listener::with_proxy_protocol)
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, block].concat()
}

#[test]
fn trusted_proxy_names_the_client() {
    let gate = gate(&trusting(&["127.0.0.0/8"]));
    let check = |name: &str, header: &[u8], expected: &str| {
        let mut client = gate.client();
        client.send([header, GET.as_bytes()].concat());
        let (status, peer) = client.answer();
        assert_eq!(status, 200, "{name}");
        assert!(peer.contains(expected), "{name}: {peer}");
        client.get("/again").answer();
    };
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
    check("v1", LINE.as_bytes(), "Inet(192.0.2.7:4711)");
    check("v1 of IPv6", b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", "Inet([2001:db8::7]:4711)");
    check("v1 unknown", b"PROXY UNKNOWN\r\n", "Unnamed(127.0.0.1)");
    check("v2", &binary(0x21, 0x11, &four), "Inet(192.0.2.7:4711)");
    let extended = [&four[..], &[4, 0, 200], &[0; 200]].concat();
    check("v2 with extensions", &binary(0x21, 0x11, &extended), "Inet(192.0.2.7:4711)");
    check("v2 of the proxy itself", &binary(0x20, 0, &[]), "Inet(127.0.0.1:");
    check("v2 without a family", &binary(0x21, 0, &[]), "Unnamed(127.0.0.1)");

    let mut slow = gate.client();
    slow.socket.set_nodelay(true).unwrap();
    for byte in [LINE, GET].concat().bytes() {
        slow.send([byte]);
    }
    assert!(slow.answer().1.contains("192.0.2.7:4711"), "byte by byte");
}

#[test]
fn trusted_proxy_without_a_proxy_header_is_closed() {
    let gate = gate(&trusting(&["127.0.0.0/8"]));
    let mut refused = 0;
    let mut check = |name: &str, sent: &[u8]| {
        let mut client = gate.client();
        client.send(sent);
        assert_eq!(client.wait_for_close(), CloseKind::Reset, "{name}");
        refused += 1;
        eventually(name, || gate.seen.unannounced.lock().unwrap().len() == refused);
    };
    check("no header", GET.as_bytes());
    check("a malformed one", b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n");
    check("a line without an end", &[b"PROXY UNKNOWN ", &[b'x'; 4096][..]].concat());
    check("a block without an end", &binary(0x21, 0x11, &[0; 5000]));
    check("an unknown command", &binary(0x2f, 0x11, &[0; 12]));
    assert_eq!(gate.seen.requests.load(std::sync::atomic::Ordering::SeqCst), 0);

    let silent = gate.client();
    silent.socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut silent = silent;
    assert_eq!(silent.wait_for_close(), CloseKind::Closed, "a look whether the port is open");
    let mut half = gate.client();
    half.send("PROXY TCP4");
    half.socket.shutdown(std::net::Shutdown::Write).unwrap();
    half.wait_for_close();
    eventually("half a header counts", || gate.seen.unannounced.lock().unwrap().len() == refused + 1);
    assert_eq!(gate.end(Duration::from_secs(10)), 0);
}

#[test]
fn late_proxy_header_closes_the_connection() {
    let limits = Limits { tls_handshake_timeout: Duration::from_millis(80), ..trusting(&["127.0.0.0/8"]) };
    let gate = gate(&limits);
    let (mut silent, mut half) = (gate.client(), gate.client());
    half.send("PROXY TCP4 192.0.2.7");
    for client in [&mut silent, &mut half] {
        client.wait_for_close();
    }
    assert_eq!(gate.seen.unannounced.lock().unwrap().len(), 2);
    assert_eq!(gate.budget.open(), 0);
}

#[test]
fn untrusted_peers_need_no_proxy_header() {
    let gate = gate(&trusting(&["192.0.2.0/24"]));
    assert!(gate.client().send(GET).answer().1.contains("Inet(127.0.0.1:"));
    let mut pretender = gate.client();
    pretender.send([LINE, GET].concat());
    assert_eq!(pretender.answer().0, 400, "a header is a malformed head");
    let mut pretender = gate.client();
    pretender.send([&binary(0x21, 0x11, &[0; 12]), GET.as_bytes()].concat());
    assert_eq!(pretender.answer().0, 400);
}

#[test]
fn clients_behind_a_proxy_have_their_own_limit() {
    let limits = Limits { connections_per_address: Some(1), ..trusting(&["127.0.0.0/8"]) };
    let gate = gate(&limits);
    let named = |names: &str| {
        let mut client = gate.client();
        client.send(format!("PROXY {names} 4711 443\r\n{GET}"));
        client
    };
    let ask = |last: u8| named(&format!("TCP4 192.0.2.{last} 198.51.100.1"));
    let mut first = ask(1);
    assert_eq!(first.answer().0, 200);
    let mut second = ask(2);
    assert_eq!(second.answer().0, 200, "another client");
    let ipv6 = |address: &str| named(&format!("TCP6 {address} ::1"));
    let mut third = ipv6("2001:db8::1");
    assert_eq!(third.answer().0, 200);
    assert_eq!(ipv6("2001:db8::2").wait_for_close(), CloseKind::Reset, "the same subscriber");
    let mut fourth = ipv6("2001:db8:0:1::1");
    assert_eq!(fourth.answer().0, 200, "another subscriber");
    drop((third, fourth));
    eventually("their places are free", || gate.budget.open() == 2);
    assert_eq!(ask(1).wait_for_close(), CloseKind::Reset, "one too many");
    let readings = gate.budget.readings();
    let per_address = readings.iter().find(|one| one.name == "connections_per_address").unwrap();
    assert_eq!((per_address.used, per_address.refused), (1, 2));
    drop(first);
    eventually("a place is free", || gate.budget.open() == 1);
    assert_eq!(ask(1).answer().0, 200);
}

#[test]
fn unix_socket_is_a_proxy_where_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let bound: Bound = bind(&format!("unix:{}", path.display()).parse().unwrap()).unwrap();
    let mut limits = Limits::default();
    limits.trusted_proxies.unix = true;
    let gate = Gate::on(&bound, 1, &limits, Listener::with_proxy_protocol);
    let mut socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(format!("{LINE}GET /peer HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut socket, &mut answer).unwrap();
    assert!(answer.ends_with("Inet(192.0.2.7:4711)"), "{answer}");
    gate.end(Duration::ZERO);
}

#[test]
fn proxy_header_precedes_tls() {
    let mut limits = trusting(&["127.0.0.0/8"]);
    limits.tls_handshake_timeout = Duration::from_secs(10);
    let gate = Gate::with(1, &limits, |listener| {
        listener.with_tls(crate::tls::certificates(&["one"])).with_proxy_protocol()
    });
    let mut client = Client::to(gate.address);
    client.send(LINE);
    let answer = crate::tls::ask_over(client.socket, "one").unwrap();
    assert!(answer.ends_with("true"), "{answer}");
    let bare = crate::tls::ask_over(gate.client().socket, "one");
    assert!(bare.is_err(), "no TLS without the header: {bare:?}");
}
