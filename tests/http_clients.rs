//! Real HTTP/2 and gRPC clients with the gateway: curl in every version, h2load, grpcio.
//!
//! Needs packages from apt and PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use support::{
    gateway::Gateway,
    stage::{self, Ended, Stage, run},
    upstream::{Upstream, json},
};

#[test]
#[ignore = "needs curl; .ci/run runs it"]
fn curl_works_over_every_version() {
    let secure = Stage::new();
    let port = secure.gateway.proxy.port();
    let bearer = format!("Authorization: Bearer {}", secure.token);
    let curl = |arguments: &[&str], url: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "-H", &bearer]);
        run(command.args(arguments).arg("--cacert").arg(secure.certificate()).arg(url))
    };
    let url = format!("https://localhost:{port}/api/x");
    assert_eq!(curl(&["--http1.1"], &url), "1.1 200");
    assert_eq!(curl(&["--http2"], &url), "2 200");
    assert_eq!(curl(&["--tlsv1.2", "--tls-max", "1.2"], &url), "2 200");
    assert_eq!(curl(&["-H", "Host: other.example"], &url), "2 421");
    let body = secure.gateway.dir.path().join("body");
    std::fs::write(&body, vec![b'x'; 3 << 20]).unwrap();
    let upload = format!("@{}", body.display());
    assert_eq!(curl(&["--data-binary", &upload], &url), "2 200", "with Expect: 100-continue");
    let other = format!("https://localhost:{port}/hub/api/x");
    for version in ["--http2", "--http1.1"] {
        let told = curl(&[version, "--data-binary", &upload], &other);
        assert!(told.ends_with(" 403"), "{version}: the refusal of an upload is heard: {told}");
    }

    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let plain = Gateway::start(upstream.address);
    plain.developer("alice");
    let (_, token) = plain.token("alice", "good", &["tracker"]);
    let bearer = format!("Authorization: Bearer {token}");
    let url = format!("http://{}/api/x", plain.proxy);
    let curl = |version: &str| {
        let format = "%{http_version} %{http_code}";
        run(Command::new("curl").args(["-sS", "-o", "/dev/null", "-w", format, "-H", &bearer, version, &url]))
    };
    assert_eq!(curl("--http1.1"), "1.1 200");
    assert_eq!(curl("--http2"), "1.1 200", "no upgrade leads to HTTP/2");
    assert_eq!(curl("--http2-prior-knowledge"), "2 200");
}

#[test]
#[ignore = "needs h2load of apt's nghttp2-client; .ci/run runs it"]
fn h2load_completes_every_request() {
    let stage = Stage::new();
    let bearer = format!("Authorization: Bearer {}", stage.token);
    let url = format!("https://localhost:{}/api/x", stage.gateway.proxy.port());
    let told = run(Command::new("h2load").args(["-n", "5000", "-c", "10", "-m", "20", "-H", &bearer, &url]));
    assert!(told.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{told}");
    assert!(told.contains("status codes: 5000 2xx"), "{told}");
}

#[test]
#[ignore = "installs grpcio from PyPI; .ci/run runs it"]
fn grpcio_calls_work_and_refusals_are_grpc_statuses() {
    let interpreter = stage::python("grpc", &["grpcio==1.85.1"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http_clients/grpc_calls.py");
    let python = |arguments: &[&str]| {
        let mut command = Command::new(&interpreter);
        command.arg(&script).args(arguments).stdout(Stdio::piped());
        command
    };
    let mut server = Ended(python(&["serve"]).spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let stage = Stage::to(&format!("h2c://127.0.0.1:{}", port.trim()));
    let (target, certificate) = (format!("localhost:{}", stage.gateway.proxy.port()), stage.certificate());
    let certificate = certificate.to_str().unwrap();
    let call = |token: &str, method: &str| run(&mut python(&["call", &target, certificate, token, method]));

    let told = call(&stage.token, "all");
    for expected in [
        "unary ('hi!', 'alice')",
        "count 100",
        "echo True",
        "turns 5",
        "late DEADLINE_EXCEEDED",
        "fails FAILED_PRECONDITION not now: ö",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for (row, token, method, expected) in [
        ("no token", "", "/api/Unary", "UNAUTHENTICATED No access token was sent"),
        ("a bad one", "pgt_x", "/api/Unary", "UNAUTHENTICATED The access token is malformed"),
        (
            "another service",
            &*stage.token,
            "/hub/api/Unary",
            "PERMISSION_DENIED The access token is not granted",
        ),
        ("nobody's path", &*stage.token, "/other/Unary", "UNIMPLEMENTED "),
    ] {
        let told = call(token, method);
        assert!(told.starts_with(expected), "{row}: {told}");
    }

    // Of two streams, revoking the token of one cuts that one only.
    let (id, other) = stage.gateway.token("alice", "other", &["tracker"]);
    let stream = |token: &str| {
        let mut client =
            Ended(python(&["call", &target, certificate, token, "/api/Endless"]).spawn().unwrap());
        let mut lines = BufReader::new(client.0.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "tick");
        (client, lines)
    };
    let (_kept, mut kept) = stream(&stage.token);
    let (_cut, mut cut) = stream(&other);
    let answer = stage.gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(answer["cut"], 1, "{answer}");
    let end = cut.find(|line| line.as_ref().unwrap() != "tick").unwrap().unwrap();
    assert!(end.starts_with("CANCELLED "), "{end}");
    for _ in 0..10 {
        assert_eq!(kept.next().unwrap().unwrap(), "tick");
    }
}
