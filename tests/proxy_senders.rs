//! HAProxy as a TCP load balancer that names its client in a PROXY header. The gateway decides by that
//! address, and the application is told of it.
//!
//! Needs haproxy from apt, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
};

use serde_json::json;
use support::{
    gateway::Gateway,
    http::{Answer, Client},
    stage::{Ended, listening, vacant},
    upstream::Upstream,
};

/// Trusts HAProxy, and serves no connection without a PROXY header.
const SERVER: &str = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = \"required\"";

/// The clients of HAProxy, which itself connects to the gateway from 127.0.0.1.
const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 7), Ipv4Addr::new(127, 0, 0, 8)];

struct Stage {
    gateway: Gateway,
    application: Upstream,
    front: SocketAddr,
    _balancer: Ended,
}

impl Stage {
    /// `sends` is the option of HAProxy's server line that selects the version.
    fn new(sends: &str) -> Self {
        let application = Upstream::plain();
        let services = Gateway::services(application.address);
        let text = Gateway::text_with(SERVER, "", &services);
        let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text);
        gateway.developer("alice");
        let (front, file) = (vacant(), gateway.dir.path().join("haproxy.cfg"));
        let text = format!(
            "defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen gateway
    bind {front}
    server one {} {sends} source 127.0.0.1
",
            gateway.proxy
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-q", "-f"]).arg(&file).stdout(Stdio::null());
        let _balancer = listening(&mut command, front);
        Self { gateway, application, front, _balancer }
    }

    /// Creates a token that is valid only from these networks.
    fn token(&self, name: &str, allow_ips: &[&str]) -> String {
        let body = json!({"name": name, "scope": [{"service": "tracker"}], "allow_ips": allow_ips});
        let made = self.gateway.must("POST", "/v1/users/alice/tokens", Some(&body.to_string()));
        made["token"].as_str().unwrap().to_owned()
    }

    /// Sends a request through HAProxy from a loopback address.
    fn ask(&self, from: Ipv4Addr, token: &str, more: &[(&str, &str)]) -> Answer {
        let mut client = Client::tcp_from(from, self.front);
        let bearer = format!("Bearer {token}");
        let fields = [&[("Authorization", bearer.as_str())], more].concat();
        client.request("GET", "/api/x", &fields, None)
    }

    /// What the application was told of its client since the previous call, in lower case.
    fn forwarded_for(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.application.seen.lock().unwrap());
        let fields =
            |head: &str| head.lines().filter(|line| line.contains("orwarded-for")).collect::<String>();
        seen.iter().map(|seen| fields(&seen.head).to_ascii_lowercase()).collect()
    }
}

fn check(sends: &str) {
    let stage = Stage::new(sends);
    let anywhere = stage.token("anywhere", &[]);
    let near = stage.token("near", &["127.0.0.7"]);
    let balancer = stage.token("balancer", &["127.0.0.1"]);
    let [seven, eight] = CLIENTS;

    for client in CLIENTS {
        assert_eq!(stage.ask(client, &anywhere, &[]).status, 200);
        assert_eq!(stage.forwarded_for(), [format!("x-forwarded-for: {client}")], "{sends}");
        let forged = [("X-Forwarded-For", "127.0.0.7")];
        assert_eq!(stage.ask(client, &anywhere, &forged).status, 200);
        assert_eq!(
            stage.forwarded_for(),
            [format!("x-forwarded-for: {client}")],
            "{sends}: a field of the client's"
        );
    }

    assert_eq!(stage.ask(seven, &near, &[]).status, 200, "{sends}");
    assert_eq!(stage.ask(eight, &near, &[]).status, 401, "{sends}: another client");
    let forged = [("X-Forwarded-For", "127.0.0.7")];
    assert_eq!(stage.ask(eight, &near, &forged).status, 401, "{sends}: a field of the client's");
    assert_eq!(stage.ask(seven, &balancer, &[]).status, 401, "{sends}: the balancer's own address");
    assert_eq!(stage.forwarded_for().len(), 1, "{sends}: something refused was forwarded");

    // A connection from a trusted address without the header is not served.
    let mut direct = Client::tcp(stage.gateway.proxy);
    direct.send("GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(direct.try_status(), None, "{sends}: no header");
}

#[test]
#[ignore = "needs haproxy from apt; .ci/run runs it"]
fn haproxy_proxy_protocol_v1_names_clients() {
    check("send-proxy");
}

#[test]
#[ignore = "needs haproxy from apt; .ci/run runs it"]
fn haproxy_proxy_protocol_v2_names_clients() {
    check("send-proxy-v2");
}

#[test]
#[ignore = "needs haproxy from apt; .ci/run runs it"]
fn haproxy_proxy_protocol_v2_extensions_are_accepted() {
    check("send-proxy-v2 proxy-v2-options unique-id,crc32c");
}
