//! systemd: sockets that it holds across restarts, and the notifications that it gets.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    harness::{Process, TestDirectory, services},
    support::upstream::{Upstream, json},
};

/// A directory whose proxy listener is the socket that is passed as `http`.
fn directory(upstream: SocketAddr) -> TestDirectory {
    let directory = TestDirectory::new(&services(upstream));
    directory.write_all(&directory.read().replacen(
        "listen = [\"127.0.0.1:0\"]",
        "listen = [\"systemd:http\"]",
        1,
    ));
    directory
}

/// `permgate run` with this descriptor passed under each of the names, as systemd does.
fn command_with_socket(directory: &TestDirectory, socket: OwnedFd, names: &str, pid: &str) -> Command {
    let count = names.split(':').count();
    let copies: String = (3..3 + count).map(|fd| format!(" {fd}<&0")).collect();
    let program = env!("CARGO_BIN_EXE_permgate");
    let variables = format!("LISTEN_PID={pid} LISTEN_FDS={count} LISTEN_FDNAMES={names}");
    let mut command = directory.clean_command("sh");
    command.args(["-c", &format!("exec{copies} </dev/null; {variables} exec {program} run")]);
    command.stdin(Stdio::from(socket));
    command
}

fn run(directory: &TestDirectory, socket: &TcpListener) -> Process {
    directory.start(command_with_socket(directory, socket.try_clone().unwrap().into(), "http", "$$"))
}

/// Sends one request on a new connection. Returns the whole response.
fn ask(address: SocketAddr, token: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = "GET /api/x HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n";
    socket.write_all(format!("{head}Authorization: Bearer {token}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn restart_with_an_inherited_socket_refuses_no_connection() {
    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let directory = directory(upstream.address);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut process = run(&directory, &socket);
    assert_eq!(process.proxy, address);
    let token = directory.token("alice", "tracker");

    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        let answer = ask(address, &token).unwrap();
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let wait_for = |more: usize| {
            let wanted = answered.load(Ordering::SeqCst) + more;
            while answered.load(Ordering::SeqCst) < wanted
                && clients.iter().all(|client| !client.is_finished())
            {
                std::thread::yield_now();
            }
        };
        for _ in 0..3 {
            wait_for(20);
            process.stop();
            process = run(&directory, &socket);
        }
        wait_for(20);
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn inherited_sockets_are_checked_by_name_and_closed_on_exec() {
    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let directory = directory(upstream.address);
    let socket = || -> OwnedFd { TcpListener::bind("127.0.0.1:0").unwrap().into() };
    let check = |row: &str, mut command: Command, expected: &str| {
        let output = command.output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{row}: {words}");
        assert!(words.contains(expected), "{row}: {words}");
    };
    let mut alone = directory.command();
    alone.arg("run");
    check("none", alone, "no socket was passed");
    check(
        "meant for another process",
        command_with_socket(&directory, socket(), "http", "1"),
        "no socket was passed",
    );
    check("another name", command_with_socket(&directory, socket(), "web:wap", "$$"), "only web, wap");
    let null = || -> OwnedFd { File::open("/dev/null").unwrap().into() };
    check(
        "no socket at all",
        command_with_socket(&directory, null(), "http", "$$"),
        "is not a listening stream socket",
    );
    let datagrams = || -> OwnedFd { std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into() };
    check(
        "datagrams",
        command_with_socket(&directory, datagrams(), "http", "$$"),
        "is not a listening stream socket",
    );

    let process = directory.start(command_with_socket(&directory, socket(), "http:spare", "$$"));
    process.words.wait_for("no `listen` names systemd:spare");
    let mut sockets = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fdinfo", process.id())).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // A descriptor that was closed meanwhile is not inherited; other files may be the test's own.
        let Ok(info) = std::fs::read_to_string(entry.path()) else { continue };
        let target = std::fs::read_link(format!("/proc/{}/fd/{number}", process.id()));
        if number > 2 && target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")) {
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            assert!(u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0, "{number}: {info}");
            sockets += 1;
        }
    }
    assert!(sockets >= 3, "its two listeners and the one that nobody takes: {sockets}");
}

#[test]
fn inherited_admin_socket_must_be_local() {
    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let directory = TestDirectory::new(&services(upstream.address));
    let admin = "listen = [\"unix:permgate.sock\", \"systemd:http\"]";
    let text = directory.read().replace("listen = [\"unix:permgate.sock\", \"127.0.0.1:0\"]", admin);
    directory.write_all(&text);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = run(&directory, &socket);
    assert_eq!(process.admin, socket.local_addr().unwrap());
    process.stop();

    let open: OwnedFd = TcpListener::bind("0.0.0.0:0").unwrap().into();
    let output = command_with_socket(&directory, open, "http", "$$").output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && words.contains("allow_remote"), "{words}");
}

/// The service manager's end of its socket.
struct ServiceManager(UnixDatagram);

impl ServiceManager {
    fn of(directory: &TestDirectory) -> Self {
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut text = vec![0; 4096];
        let len = self.0.recv(&mut text).unwrap();
        text.truncate(len);
        String::from_utf8(text).unwrap()
    }

    /// The next message except for watchdog pings.
    fn next_message(&self) -> String {
        loop {
            let text = self.next();
            if text != "WATCHDOG=1\n" {
                return text;
            }
        }
    }
}

/// Starts a process with a service manager, which asks for watchdog signals by these variables.
fn start_with_watchdog(variables: &[(&str, &str)]) -> (TestDirectory, ServiceManager, Process) {
    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let directory = TestDirectory::new(&services(upstream.address));
    let manager = ServiceManager::of(&directory);
    let mut command = directory.command();
    command.arg("run").env("NOTIFY_SOCKET", "notify").envs(variables.iter().copied());
    let process = directory.start(command);
    (directory, manager, process)
}

#[test]
fn service_manager_is_notified_of_every_state() {
    let (directory, manager, mut process) = start_with_watchdog(&[("WATCHDOG_USEC", "400000")]);
    let ready = manager.next_message();
    let lines: Vec<_> = ready.lines().collect();
    assert_eq!(lines[0], "READY=1");
    let proxy = process.proxy.to_string();
    assert!(lines[1].starts_with("STATUS=serving ") && lines[1].contains(&proxy), "{ready}");
    for sign in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1\n", "an idle process is alive: {sign}");
    }

    let reload = |row: &str, expected: &str| {
        process.signal(Signal::HUP);
        let reloading = manager.next_message();
        let mut lines = reloading.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"), "{row}");
        let since = lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(since.is_some_and(|since| since.parse::<u64>().is_ok()), "{row}: {reloading}");
        let done = manager.next_message();
        assert!(done.starts_with("READY=1\nSTATUS=") && done.contains(expected), "{row}: {done}");
        assert_eq!(done.lines().count(), 2, "{row}: {done}");
    };
    reload("a sound file", "reloaded");
    let text = directory.read();
    directory.write_all(&text.replace("paths", "pats"));
    reload("a bad file", "the previous configuration stays in force");
    directory.write_all(&text);
    reload("a sound file again", "reloaded");

    process.signal(Signal::TERM);
    let stopping = manager.next_message();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS=draining"), "{stopping}");
    // `server.drain` and what follows it.
    assert!(stopping.contains("\nEXTEND_TIMEOUT_USEC=45000000"), "{stopping}");
    assert_eq!(process.end().code(), Some(0));
}

/// What else the control thread does every second must not begin the wait anew.
#[test]
fn watchdog_with_a_long_limit_is_notified() {
    let (_directory, manager, mut process) = start_with_watchdog(&[("WATCHDOG_USEC", "5000000")]);
    assert!(manager.next().starts_with("READY=1\n"));
    assert_eq!(manager.next(), "WATCHDOG=1\n");
    process.stop();
}

#[test]
fn watchdog_signals_are_sent_only_when_requested_of_this_process() {
    let watchdog = [("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "1")];
    let (_directory, manager, mut process) = start_with_watchdog(&watchdog);
    assert!(manager.next().starts_with("READY=1\n"));
    process.stop();
    assert!(manager.next().starts_with("STOPPING=1\n"), "and none in between");
}

#[test]
fn systemd_units_are_valid() {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let directory = tempfile::tempdir().unwrap();
    for unit in ["permgate.service", "permgate.socket"] {
        let text = std::fs::read_to_string(deploy.join(unit)).unwrap();
        assert!(!text.contains("ExecStartPre"), "`check` refuses what a start only warns of");
        assert!(
            !text.contains("Type=notify-reload"),
            "unknown before 253, and reports a refused reload as done"
        );
        // The program must exist.
        let text = text.replace("/usr/local/bin/permgate", env!("CARGO_BIN_EXE_permgate"));
        std::fs::write(directory.path().join(unit), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "permgate.service", "permgate.socket"]).current_dir(directory.path());
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", directory.path().display()));
    match verify.output() {
        Ok(output) => {
            let words = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{words}");
            // Debian 12 and RHEL 9 have version 252, which ignores what it does not know.
            let ours = |line: &&str| line.contains("permgate.");
            assert_eq!(words.lines().filter(ours).collect::<Vec<_>>(), Vec::<&str>::new());
        }
        Err(error) => println!("SKIPPED: systemd-analyze is not here: {error}"),
    }
}
