//! HTTP/1.1: each fault of an upstream and of a client.

use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

use super::{
    Baseline, THREADS, lock_tests, rounds,
    support::{
        gateway::Gateway,
        raw::{SWITCHED, UPGRADE, ask, until},
        upstream::Upstream,
    },
};

/// An upstream that fails in the way that the target names.
fn failing() -> Upstream {
    let used: Mutex<HashSet<SocketAddr>> = Mutex::default();
    Upstream::start(move |seen, socket| {
        let target = seen.head.split(' ').nth(1).unwrap_or_default();
        let reset = |socket: &TcpStream| {
            socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
            socket.shutdown(Shutdown::Both)?;
            Err(ErrorKind::ConnectionReset.into())
        };
        let partial = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
        match target.rsplit('/').next().unwrap_or_default() {
            "resets" => reset(socket),
            "resets-within" => {
                socket.write_all(partial)?;
                reset(socket)
            }
            "closes-within" => {
                socket.write_all(partial)?;
                socket.shutdown(Shutdown::Both)?;
                Err(ErrorKind::BrokenPipe.into())
            }
            "hangs" => Ok(()),
            "hangs-within" => socket.write_all(partial),
            "garbage" => socket.write_all(b"garbage\r\n\r\n"),
            "two-lengths" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
            }
            "interim" => socket.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20)),
            "closes-after" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                socket.shutdown(Shutdown::Both)?;
                Err(ErrorKind::BrokenPipe.into())
            }
            "closes-reused" => {
                let peer = socket.peer_addr()?;
                if !used.lock().unwrap().insert(peer) {
                    used.lock().unwrap().remove(&peer);
                    socket.shutdown(Shutdown::Both)?;
                    return Err(ErrorKind::BrokenPipe.into());
                }
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            }
            "bulk" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")?;
                loop {
                    socket.write_all(&[b'x'; 65_536])?;
                }
            }
            "tunnel" => socket.write_all(SWITCHED),
            "tunnel-resets" => {
                socket.write_all(SWITCHED)?;
                reset(socket)
            }
            _ => socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    })
}

#[test]
fn connection_faults_leak_nothing() {
    let (_alone, rounds) = (lock_tests(), rounds());
    let upstream = failing();
    let quick = "timeouts.body_idle = \"50ms\"\ntimeouts.pool_idle = \"50ms\"\n";
    let sections = Gateway::services(upstream.address)
        .replace("[service.tracker]", &format!("{quick}[service.tracker]"));
    let patience = "[server.timeouts]\nhead = \"100ms\"\nbody = \"100ms\"\nwrite = \"100ms\"\n";
    let mut sections = format!("{patience}{sections}\n");
    // Short only where a test waits for a timeout, because a busy machine is slow.
    let quick = format!("{quick}timeouts.first_byte = \"50ms\"\n");
    for (name, address, timeouts) in
        [("nobody", "127.0.0.1:1", ""), ("impatient", &upstream.address.to_string(), &quick)]
    {
        sections += &format!(
            "[upstream.{name}]\nurls = [\"http://{address}\"]\n{timeouts}[service.{name}]\nupstream = \"{name}\"\n\
             paths = [\"/{name}\"]\nreaders = [\"developers\"]\n"
        );
    }
    let gateway = Gateway::with(&sections);
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "faults", &["tracker", "nobody", "impatient"]);
    let hears = |socket: &mut TcpStream| {
        let mut heard = Vec::new();
        let _ = socket.take(4096).read_to_end(&mut heard);
        String::from_utf8_lossy(&heard).into_owned()
    };
    let leaves = |_: &mut TcpStream| String::new();
    let begins_to_hear = |socket: &mut TcpStream| {
        let _ = socket.read(&mut [0; 64]);
        String::new()
    };
    // Reads nothing of an endless response until the gateway closes the connection.
    let stalls = |socket: &mut TcpStream| {
        while socket.write_all(b"\r\n").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        String::new()
    };
    let stalls_within_a_head = |socket: &mut TcpStream| {
        until(socket, "\r\n\r\nok");
        socket.write_all(b"GET /api/x HTTP/1.1\r\nHo").unwrap();
        hears(socket)
    };
    let close = "Connection: close\r\n";
    let half = "Content-Length: 100\r\nConnection: close\r\n\r\nhalf";
    // (target, fields, what the client does next, the start of what it receives)
    type Row<'a> = (&'a str, &'a str, &'a (dyn Fn(&mut TcpStream) -> String + Sync), &'a str);
    let rows: [Row<'_>; 20] = [
        ("/nobody/refuses", close, &hears, "HTTP/1.1 502"),
        ("/api/resets", close, &hears, "HTTP/1.1 502"),
        // A reset may overtake what was sent before it.
        ("/api/resets-within", close, &hears, ""),
        ("/api/closes-within", close, &hears, ""),
        ("/impatient/hangs", close, &hears, "HTTP/1.1 504"),
        ("/api/hangs-within", close, &hears, ""),
        ("/api/garbage", close, &hears, "HTTP/1.1 502"),
        ("/api/two-lengths", close, &hears, "HTTP/1.1 502"),
        ("/api/interim", close, &hears, "HTTP/1.1 502"),
        ("/api/closes-after", close, &hears, "HTTP/1.1 200"),
        ("/api/closes-reused", close, &hears, "HTTP/1.1 200"),
        ("/api/tunnel-resets", UPGRADE, &hears, ""),
        ("/api/hangs", close, &leaves, ""),
        ("/api/hangs-within", close, &begins_to_hear, ""),
        ("/api/tunnel", UPGRADE, &|socket| until(socket, "\r\n\r\n"), "HTTP/1.1 101"),
        ("/api/x", half, &leaves, ""),
        ("/api/x", half, &hears, "HTTP/1.1 408"),
        ("/api/x", "", &stalls_within_a_head, "HTTP/1.1 408"),
        ("/api/bulk", close, &stalls, ""),
        ("/api/x", close, &hears, "HTTP/1.1 200"),
    ];
    gateway.get("/api/x", Some(&token));
    let mut before = Baseline::measure(&gateway, &token);
    for (target, fields, then, begins) in rows {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let mut socket = ask(gateway.proxy, target, &token, fields);
                        let heard = then(&mut socket);
                        assert!(heard.starts_with(begins), "{target}: {heard:?}");
                    }
                });
            }
        });
        before.check_nothing_left(target, || upstream.seen.lock().unwrap().clear());
    }
}
