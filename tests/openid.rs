//! Signing in by a real OpenID Connect provider, npm's `oidc-provider`, in headless Chromium: the two
//! are of different sites, so that the browser's own rules for cookies hold.
//!
//! Needs Node.js and Debian's `chromium` and `chromium-driver`, so it is ignored by default and run by
//! `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use support::{
    gateway::Gateway,
    stage::{self, Ended},
    upstream::Upstream,
};

#[test]
#[ignore = "needs Chromium, PyPI and npm; .ci/run runs it"]
fn people_sign_in_by_a_provider() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openid");
    std::fs::create_dir_all(&place).unwrap();
    stage::run(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "oidc-provider@9.13.3"])
            .current_dir(&place),
    );
    let python = stage::python("browser", &["selenium==4.35.0"]);

    // The provider has to know where it sends people back to before the gateway listens there.
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
    // Kept open: it may say more.
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
    let told = stage::run(
        Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openid/flow.py"))
            .args([page.as_str(), concat!(env!("CARGO_MANIFEST_DIR"), "/target/screenshots/openid")]),
    );
    assert!(told.contains(r#"{"done": true}"#), "{told}");
    let zoe = gateway.must("GET", "/v1/users/zoe", None);
    assert_eq!(zoe["groups"], serde_json::json!(["developers"]), "{zoe}");
    let (_, token) = gateway.token("zoe", "script", &["tracker"]);
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200, "what the group may read");
}
