//! Sign-in through a real OpenID Connect provider, npm's `oidc-provider`, in headless Chromium. Provider and
//! page are different sites, so the browser's own rules for cookies apply.
//!
//! The browser test needs Node.js and Debian's `chromium` and `chromium-driver`, so it is ignored by default
//! and run by `.ci/run`. Another test checks which certificates of a provider are accepted.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rcgen::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::{
    gateway::Gateway,
    http::Client,
    stage::{self, Ended},
    upstream::Upstream,
};

#[test]
#[ignore = "needs Chromium, PyPI and npm; .ci/run runs it"]
fn users_sign_in_through_a_provider() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openid");
    std::fs::create_dir_all(&place).unwrap();
    stage::run(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "oidc-provider@9.13.3", "axe-core@4.10.3"])
            .current_dir(&place),
    );
    let python = stage::python("browser", &["selenium==4.35.0"]);

    // The provider needs the callback address before the gateway listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let page = format!("http://localhost:{port}");
    let script = place.join("provider.mjs");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openid/provider.mjs"), &script).unwrap();
    let (client, secret) = ("gate:way", "a secret of+ours");
    let provider = Command::new("node")
        .arg(&script)
        .args([client, secret, &format!("{page}/sign-in/oidc/callback")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut provider = Ended(provider.unwrap());
    let mut issuer = String::new();
    // Kept open, because the provider may write more.
    let mut said = BufReader::new(provider.0.stdout.take().unwrap());
    said.read_line(&mut issuer).unwrap();
    let issuer = issuer.trim();

    let upstream = Upstream::plain();
    let services = Gateway::services(upstream.address);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), secret).unwrap();
    let gateway = Gateway::on(
        dir,
        &format!(
            r#"
version = 1
[server]
listen = ["127.0.0.1:0"]
workers = 1
[admin]
listen = ["unix:permgate.sock", "127.0.0.1:{port}"]
url = "{page}"
[admin.oidc]
issuer = "{issuer}"
client_id = "{client}"
client_secret = "file:secret"
title = "Example ID"
scopes = ["openid", "profile", "groups"]
groups = ["developers"]
[store]
path = "data"
ballast = "64k"
[log]
access = "off"
{services}"#
        ),
    );
    gateway.must("POST", "/v1/users", Some(r#"{"login": "bob", "name": "Bob of old"}"#));
    gateway.must("POST", "/v1/groups", Some(r#"{"name": "developers"}"#));
    gateway.must("POST", "/v1/grants", Some(r#"{"role": "system-admin", "group": "developers"}"#));
    let told = stage::run(
        Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openid/flow.py"))
            .arg(&page)
            .arg(place.join("node_modules/axe-core/axe.min.js"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/target/screenshots/openid")),
    );
    assert!(told.contains(r#"{"done": true}"#), "{told}");
    let zoe = gateway.must("GET", "/v1/users/zoe", None);
    assert_eq!(zoe["groups"], serde_json::json!(["developers"]), "{zoe}");
    let (_, token) = gateway.token("zoe", "script", &["tracker"]);
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200, "what the group may read");
}

/// A provider for `localhost` with its own certificate, which answers `times` requests.
/// Returns its issuer and certificate.
fn secured(times: usize) -> (String, String, thread::JoinHandle<()>) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let told = serde_json::json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/auth"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "keys": [],
    });
    let told = told.to_string();
    let served = thread::spawn(move || {
        for _ in 0..times {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket);
            let mut line = String::new();
            // A client that does not trust the certificate disconnects during the handshake.
            if BufReader::new(&mut stream).read_line(&mut line).is_ok() && !line.is_empty() {
                let length = told.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{told}").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (issuer, cert.pem(), served)
}

#[test]
fn provider_is_authenticated_by_its_certificate() {
    let check = |name: &str, own: bool, host: &str, status: u16| {
        // Its metadata, then its keys.
        let (issuer, certificate, served) = secured(if status == 303 { 2 } else { 1 });
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), if own { certificate } else { other }).unwrap();
        let shown = issuer.replace("localhost", host);
        let provider = format!("[admin.oidc]\nissuer = \"{shown}\"\nclient_id = \"gate\"\nca = \"ca.pem\"\n");
        let gateway = Gateway::on(dir, &Gateway::text_with("", r#"url = "https://gate.example""#, &provider));
        let answer = Client::tcp(gateway.admin).request("GET", "/sign-in/oidc", &[], None);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status == 303 {
            assert!(answer.field("location").unwrap().starts_with(&format!("{issuer}/auth?")), "{name}");
            assert!(answer.field("set-cookie").unwrap().starts_with("__Host-permgate-flow="), "{name}");
        }
        served.join().unwrap();
    };
    check("its own", true, "localhost", 303);
    check("somebody else's", false, "localhost", 502);
    check("another name than its certificate's", true, "127.0.0.1", 502);
}
