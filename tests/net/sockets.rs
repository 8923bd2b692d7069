//! Listeners: who may bind, how workers share connections, and how many are accepted.

use std::{
    collections::HashSet,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use permgate::net::{Address, BindError, Limits, Reading, bind};

use crate::harness::{CloseKind, Gate, eventually};

#[test]
fn a_second_instance_is_refused() {
    let gate = Gate::new(&Limits::default());
    let address = Address::Tcp(gate.address);
    assert!(matches!(bind(&address), Err(BindError::InUse(taken)) if taken == address));
    assert_eq!(gate.end(Duration::ZERO), 0);
    assert!(bind(&address).is_ok(), "free again");
}

#[test]
fn connections_are_distributed_to_every_worker() {
    let gate = Gate::with(4, &Limits::default(), |listener| listener);
    let mut workers = HashSet::new();
    let mut clients = Vec::new();
    // 200 connections miss one of 4 workers once in 10^24 runs.
    for _ in 0..200 {
        let mut client = gate.client();
        workers.insert(client.get("/worker").answer().1);
        clients.push(client);
    }
    assert_eq!(workers.len(), 4);
    drop(clients);
    assert_eq!(gate.end(Duration::from_secs(10)), 0);
}

#[test]
fn unix_socket_is_private_and_replaces_only_a_stale_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();

    drop(UnixListener::bind(&path).unwrap());
    let bound = bind(&address).expect("a dead socket gives way");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(bind(&address), Err(BindError::InUse(_))), "a living one does not");
    let gate = Gate::on(&bound, 1, &Limits::default(), |listener| listener);
    drop(bound);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::io::Write::write_all(&mut client, b"GET /peer HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client, &mut answer).unwrap();
    let uid = std::fs::metadata(&path).map(|file| std::os::unix::fs::MetadataExt::uid(&file));
    let peer = format!("Unix {{ uid: {}, pid: Some({}) }}", uid.unwrap(), std::process::id());
    assert!(answer.ends_with(&peer), "{answer}");
    gate.end(Duration::ZERO);
    assert!(!path.exists(), "its file goes with it");

    let nowhere: Address = format!("unix:{}/run/gate.sock", directory.path().display()).parse().unwrap();
    let error = bind(&nowhere).err().expect("no directory").to_string();
    assert!(error.contains("/run/gate.sock: create its directory"), "{error}");

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&address), Err(BindError::NoSocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn an_inherited_socket_is_shared() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = permgate::net::Bound::inherited_tcp(socket).unwrap();
    let gate = Gate::on(&bound, 2, &Limits::default(), |listener| listener);
    drop(bound);
    for _ in 0..10 {
        assert_eq!(gate.client().get("/x").answer().0, 200);
    }
    assert_eq!(gate.end(Duration::from_secs(10)), 0);
}

#[test]
fn excess_connection_waits_for_a_slot() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let gate = Gate::with(2, &limits, |listener| listener);
    let mut busy: Vec<_> = (0..2).map(|_| gate.client()).collect();
    for client in &mut busy {
        client.get("/first").head();
    }
    let mut waiting = gate.client();
    waiting.get("/x");
    assert_eq!(gate.budget.open(), 2);
    busy.pop();
    assert_eq!(waiting.answer().0, 200);
    drop(gate);
}

#[test]
fn idle_connections_make_room() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let gate = Gate::new(&limits);
    let mut idle = gate.client();
    idle.get("/x").answer();
    assert_eq!(gate.client().get("/y").answer().0, 200);
    assert_eq!(idle.wait_for_close(), CloseKind::Closed);
}

#[test]
fn drain_does_not_wait_for_slots() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let gate = Gate::new(&limits);
    let mut busy = gate.client();
    busy.get("/first").head();
    let mut waiting = gate.client();
    waiting.get("/x");
    assert_eq!(gate.end(Duration::from_millis(200)), 1);
    assert_eq!(busy.wait_for_close(), CloseKind::Reset);
    assert_eq!(waiting.wait_for_close(), CloseKind::Reset);
}

#[test]
fn connections_per_address_are_limited() {
    let mut limits = Limits { connections_per_address: Some(2), ..Limits::default() };
    let gate = Gate::with(2, &limits, |listener| listener);
    let mut first = gate.client();
    first.get("/x").answer();
    let mut second = gate.client();
    second.get("/x").answer();
    assert_eq!(gate.client().wait_for_close(), CloseKind::Reset);
    let reading = |name| gate.budget.readings().into_iter().find(|one| one.name == name).unwrap();
    assert_eq!(reading("connections").refused, 0, "the budget is not used up");
    let Reading { limit, used, refused, .. } = reading("connections_per_address");
    assert_eq!((limit, used, refused), (2, 2, 1));
    drop(first);
    eventually("a place is free", || gate.budget.open() == 1);
    let mut third = gate.client();
    assert_eq!(third.get("/x").answer().0, 200);
    drop((second, third));

    limits.trusted_proxies.networks = vec!["127.0.0.0/8".parse().unwrap()];
    let gate = Gate::with(2, &limits, |listener| listener);
    let mut clients: Vec<_> = (0..5).map(|_| gate.client()).collect();
    assert!(clients.iter_mut().all(|client| client.get("/x").answer().0 == 200));
}

#[test]
fn addresses_parse_and_display_alike() {
    for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/gate.sock", "unix:gate.sock", "systemd:http"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "8080",
        "localhost:80",
        "unix:",
        "127.0.0.1",
        "tcp:1.2.3.4:5",
        "systemd:",
        "systemd:a:b",
        "systemd:a b",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

#[test]
fn unix_socket_whose_queue_is_full_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();
    let _hung = UnixListener::bind(&path).unwrap();
    let connect = || {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&socket2::SockAddr::unix(&path).unwrap()).map(|()| socket)
    };
    let _waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
    let (bound, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || bound.send(bind(&address).err()));
    let error = told.recv_timeout(Duration::from_secs(10)).expect("it does not wait");
    assert!(matches!(error, Some(BindError::InUse(_))), "{error:?}");
}
