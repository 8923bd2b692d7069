//! A real nginx in front of an application, with the very configuration that is shipped: permgate
//! decides, nginx forwards.
//!
//! Needs a package from apt, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use support::{
    gateway::Gateway,
    http::{Answer, Client},
    upstream::Upstream,
};

const HEAD: &str = r#"
version = 1
[server]
listen = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1"]
workers = 2
[forward_auth]
proxy = "nginx"
[admin]
listen = ["unix:permgate.sock", "127.0.0.1:0"]
[store]
path = "data"
ballast = "64k"
[log]
access = "off"
"#;

/// nginx, the gateway that it asks, and the application behind it.
struct Stage {
    gateway: Gateway,
    application: Upstream,
    front: SocketAddr,
    _nginx: Ended,
}

impl Stage {
    fn new() -> Self {
        let application = Upstream::plain();
        let services = Gateway::services(application.address);
        let gateway = Gateway::on(tempfile::tempdir().unwrap(), &format!("{HEAD}{services}"));
        gateway.developer("alice");
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/forward-auth/nginx.conf");
        let mut text = std::fs::read_to_string(shipped).unwrap();
        for (written, here) in [
            ("127.0.0.1:8000", front),
            ("127.0.0.1:8080", gateway.proxy),
            ("127.0.0.1:8090", application.address),
        ] {
            assert!(text.contains(written), "{written}");
            text = text.replace(written, &here.to_string());
        }
        let file = gateway.dir.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(gateway.dir.path()).arg("-c").arg(file);
        command.args(["-e", "stderr", "-g", "daemon off; master_process off; pid nginx.pid;"]);
        let mut nginx = Ended(command.spawn().unwrap());
        let late = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(front).is_err() {
            assert!(nginx.0.try_wait().unwrap().is_none() && Instant::now() < late, "nginx does not listen");
            std::thread::yield_now();
        }
        Self { gateway, application, front, _nginx: nginx }
    }

    fn ask(&self, token: &str, target: &str, more: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut fields = more.to_vec();
        if !token.is_empty() {
            fields.push(("Authorization", &bearer));
        }
        Client::tcp(self.front).request("GET", target, &fields, None)
    }

    /// The heads that have reached the application since the last look, in lower case.
    fn arrived(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.application.seen.lock().unwrap());
        seen.into_iter().map(|seen| seen.head.to_ascii_lowercase()).collect()
    }
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_forwards_what_is_permitted_and_nothing_else() {
    let stage = Stage::new();
    let (id, token) = stage.gateway.token("alice", "good", &["tracker"]);

    let answer = stage.ask(&token, "/api/x%20y?q=1", &[]);
    assert_eq!((answer.status, answer.text()), (200, r#"{"target": "/api/x%20y?q=1"}"#));
    let heads = stage.arrived();
    assert_eq!(heads.len(), 1, "{heads:?}");
    for field in ["x-permgate-user: alice\r\n", "x-permgate-service: tracker\r\n"] {
        assert!(heads[0].contains(field), "{field}: {heads:?}");
    }
    assert!(!heads[0].contains("authorization"), "{heads:?}");

    let answer = stage.ask("", "/api/x", &[]);
    assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer realm=\"permgate\"")));
    let refused = |row: &str, target: &str, more: &[(&str, &str)], expected: u16| {
        assert_eq!(stage.ask(&token, target, more).status, expected, "{row}");
    };
    refused("another service", "/hub/api/x", &[], 403);
    for name in ["X-Original-URI", "X-Original-URL", "X-Forwarded-Uri", "X-Rewrite-URL"] {
        refused(name, "/hub/api/x", &[(name, "/api/x")], 403);
    }
    for target in [
        "/api/../hub/api/x",
        "/api/%2e%2e/hub/api/x",
        "/api/..%2fhub/api/x",
        "/api//../hub/api/x",
        "/hub%2fapi/x",
        "/%68ub/api/x",
        "/api;/../hub/api/x",
    ] {
        refused(target, target, &[], 403);
    }
    for name in ["X-Permgate-User", "X-Permgate-Groups", "X-Forwarded-Method", "X-Forwarded-User"] {
        refused(name, "/api/x", &[(name, "root")], 403);
    }
    assert_eq!(stage.arrived(), [""; 0], "something refused was forwarded");

    // Set by nginx itself, whatever the client says.
    let said = [
        ("X-Original-Method", "root"),
        ("X-Original-URI", "/root"),
        ("X-Original-URL", "http://evil.example/root"),
        ("X-Original-Upgrade", "root"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "for=192.0.2.8"),
        ("X_Permgate_User", "root"),
    ];
    assert_eq!(stage.ask(&token, "/api/x", &said).status, 200);
    let heads = stage.arrived();
    for word in ["192.0.2", "evil", "root"] {
        assert!(!heads[0].contains(word), "{word}: {heads:?}");
    }

    stage.gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    refused("revoked", "/api/x", &[], 401);
    assert_eq!(stage.arrived(), [""; 0]);
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
