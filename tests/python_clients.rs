//! Python's own libraries with the gateway: `websockets` at both ends of a tunnel, PyJWT behind it.
//!
//! Needs packages from PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use support::{
    gateway::Gateway,
    stage::{self, Ended, Stage, run},
    upstream::Upstream,
};

/// The command for a script of this test.
fn script(interpreter: &Path, name: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_clients").join(name));
    command.stdout(Stdio::piped());
    command
}

fn spawn(command: &mut Command) -> (Ended, Lines<BufReader<ChildStdout>>) {
    let mut child = Ended(command.spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    (child, lines)
}

#[test]
#[ignore = "installs PyJWT from PyPI; .ci/run runs it"]
fn pyjwt_verifies_an_assertion_as_the_readme_shows() {
    let interpreter = stage::python("pyjwt", &["pyjwt[crypto]==2.10.1"]);
    let upstream = Upstream::plain();
    let reads = r#"readers = ["developers"]"#;
    let services =
        Gateway::services(upstream.address).replace(reads, &format!("{reads}\nidentity = \"jwt\""));
    for algorithm in ["EdDSA", "ES256"] {
        let gateway = Gateway::with(&format!("{services}\n[assertion]\nalgorithm = \"{algorithm}\"\n"));
        gateway.developer("alice");
        let (_, token) = gateway.token("alice", "good", &["tracker", "hub"]);
        let assertion = |target: &str| {
            assert_eq!(gateway.get(target, Some(&token)).status, 200, "{target}");
            let head = upstream.seen.lock().unwrap().last().unwrap().head.clone();
            let named = |line: &str| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("x-permgate-assertion").then(|| value.to_owned())
            };
            head.lines().find_map(named).unwrap_or_else(|| panic!("no assertion: {head}"))
        };
        let one = assertion("/api/a%20b/c?query=1");
        let mut forged: Vec<&str> = one.split('.').collect();
        let other = assertion("/api/x");
        forged[1] = other.split('.').nth(1).unwrap();
        let verdicts = [
            ("itself", "GET", "/api/a%20b/c", one.clone(), "alice"),
            ("at another path", "GET", "/api/x", one.clone(), "PermissionError"),
            ("as another method", "DELETE", "/api/a%20b/c", one.clone(), "PermissionError"),
            ("another path's claims", "GET", "/api/x", forged.join("."), "InvalidSignatureError"),
            ("for another service", "GET", "/hub/api/x", assertion("/hub/api/x"), "InvalidAudienceError"),
            ("the other one", "GET", "/api/x", other, "alice"),
        ];
        let keys = format!("http://{}/.permgate/jwks.json", gateway.proxy);
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/forwarding.md");
        let mut command = script(&interpreter, "verifier.py");
        let (mut verifier, mut told) = spawn(command.args([page, &keys, algorithm]).stdin(Stdio::piped()));
        let mut stdin = verifier.0.stdin.take().unwrap();
        for (_, method, path, assertion, _) in &verdicts {
            writeln!(stdin, "{}", serde_json::json!([method, path, assertion])).unwrap();
        }
        drop(stdin);
        for (row, .., expected) in verdicts {
            assert_eq!(told.next().unwrap().unwrap(), expected, "{algorithm}, {row}");
        }
    }
}

#[test]
#[ignore = "installs websockets from PyPI; .ci/run runs it"]
fn websockets_work_and_are_cut() {
    let interpreter = stage::python("websockets", &["websockets==15.0.1"]);
    let (_server, mut seen) = spawn(script(&interpreter, "socket_ends.py").arg("serve"));
    let upstream = format!("http://127.0.0.1:{}", seen.next().unwrap().unwrap());

    let clear = Gateway::with(
        &Gateway::services(([127, 0, 0, 1], 1).into()).replace("http://127.0.0.1:1", &upstream),
    );
    clear.developer("alice");
    let secure = Stage::to(&upstream);
    let certificate = secure.certificate();
    for (row, gateway, origin, certificate) in [
        ("clear", &clear, format!("ws://{}", clear.proxy), None),
        (
            "TLS",
            &secure.gateway,
            format!("wss://localhost:{}", secure.gateway.proxy.port()),
            Some(certificate),
        ),
    ] {
        let client = |mode: &str, path: &str, token: &str| {
            let mut command = script(&interpreter, "socket_ends.py");
            command.args([mode, &format!("{origin}{path}"), token]).args(&certificate);
            command
        };
        let (id, token) = gateway.token("alice", "talks", &["tracker"]);
        let told = run(&mut client("talk", "/api/socket", &token));
        let expected = "compressed True\ntext True\nbinary True\nempty True\nlarge True\nlarge text True\n\
                        pieces in pieces\nwho alice\npong True\nown close 4001\n\
                        their close 4002 as you wish\nrefused 401\n";
        assert_eq!(told, expected, "{row}");
        assert_eq!(seen.next().unwrap().unwrap(), "ended 4001 0", "{row}");
        assert_eq!(seen.next().unwrap().unwrap(), "ended 4002 0", "{row}");

        // One of two is cut: abnormally at both ends, and nothing that was sent later has arrived.
        let (kept_id, kept) = gateway.token("alice", "stays", &["tracker"]);
        let (_kept, mut kept) = spawn(&mut client("feed", "/api/feed", &kept));
        let (_cut, mut cut) = spawn(&mut client("feed", "/api/feed", &token));
        for feed in [&mut kept, &mut cut] {
            assert_eq!(feed.next().unwrap().unwrap(), "open", "{row}");
        }
        for (id, feed) in [(id, &mut cut), (kept_id, &mut kept)] {
            let answer = gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
            let answered = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
            assert_eq!(answer["cut"], 1, "{row}: {answer}");
            for (end, line) in [("closed", feed.next()), ("ended", seen.next())] {
                let line = line.unwrap().unwrap();
                let [said, code, newest] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                assert_eq!((said, code), (end, "1006"), "{row}");
                let newest: u128 = newest.parse().unwrap();
                assert!(newest > 0 && newest < answered, "{row}: {line} after {answered}");
            }
        }
    }
}
